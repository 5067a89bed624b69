"""The column of a table that says what stands at the steps of a series.

A cell is a date where it is written as ISO 8601 does: `2024-01-31`, `2024-01`, `2024-01-31 12:30`,
`2024-01-31T12:30:05Z`. No other way of writing dates is read: 01/02/2024 means two days.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.errors import InputError, did_you_mean
from probegen.runtime.read.spelling import Spell

Array = npt.NDArray[Any]

#: Rows of cells, each with the number of its line in the file.
Rows = list[tuple[int, list[str]]]

_DATE = re.compile(r"\d{4}-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?)?)?Z?")


def is_date(cell: str) -> bool:
    """Tells whether a cell is written as a date."""
    return _DATE.fullmatch(cell) is not None


def column_of(
    path: Path, rows: Rows, names: Sequence[str] | None, asked: str | None, spell: Spell
) -> int | None:
    """Returns which column says what stands at the steps; None where none does.

    Args:
        path: of the table.
        rows: its rows of data.
        names: of its columns.
        asked: the column that the caller names: a name, or its number from 1.
        spell: how messages name the argument.

    Raises:
        InputError: there is no such column, or there are several of dates.
    """
    width = len(rows[0][1])
    if asked is not None:
        if names is not None and asked in names:
            return list(names).index(asked)
        if asked.isdecimal() and 1 <= int(asked) <= width:
            return int(asked) - 1
        has = (
            f"{did_you_mean(asked, names)}" if names else f" It has {width} columns, 1 to {width}."
        )
        raise InputError(f"{spell('time_column', asked)}: {path} has no such column.{has}")
    found = [i for i in range(width) if all(is_date(cells[i]) for _, cells in rows)]
    if len(found) > 1:
        shown = ", ".join(names[i] if names else str(i + 1) for i in found)
        raise InputError(
            f"{path} has several columns of dates ({shown}); take out those that are not at the "
            f"steps, or say which one is with {spell('time_column', 'NAME')}."
        )
    return found[0] if found else None


def times_of(path: Path, rows: Rows, column: int) -> Array:
    """Returns what stands in a column: dates, else numbers, else text.

    Raises:
        InputError: a date is none of the calendar.
    """
    cells = [(number, row[column]) for number, row in rows]
    if all(is_date(cell) for _, cell in cells):
        return np.array([_date(path, number, cell) for number, cell in cells])
    try:
        return np.array([float(cell) for _, cell in cells])
    except ValueError:
        return np.array([cell for _, cell in cells])


def _date(path: Path, number: int, cell: str) -> Any:
    try:
        return np.datetime64(cell.removesuffix("Z").replace(" ", "T")).astype("datetime64[us]")
    except ValueError as error:
        raise InputError(f"{path}, line {number}: {cell} is no date ({error}).") from error
