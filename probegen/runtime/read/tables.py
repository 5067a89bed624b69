"""Tables of numbers: `.csv` and `.tsv`, a sample a row (for a series: a time step a row).

The rules, none of them guessed from what looks likely:

- Cells are divided by the one of tab, `;`, `,`, `|` that gives every row the same number of cells
  (the first of them in this order if several do), else by white space. Quotes are those of CSV.
- The first row holds names where none of its cells is a number, else it is data. Where some are
  numbers and others are not, or the row counts its columns (0, 1, 2, as pandas names columns that
  have no names), that is an error. `header=` decides otherwise.
- A column of dates (`2024-01-31`) beside the numbers of a series says what stands at its steps.
- Every other cell is a number with a decimal point. Nothing is filled in for an empty cell: `nan`
  says that a value is missing. Empty rows at the end are left out.
- For an input of text a row is one text, in quotes where it holds a comma (in a `.tsv` file, a
  tab); blanks do not divide it, and nothing is cut off. The first row is a name only where it is
  the input's own.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact.manifest import InputSpec
from probegen.errors import InputError
from probegen.runtime.inputs import STRING, Array
from probegen.runtime.read import dates
from probegen.runtime.read.dates import Rows
from probegen.runtime.read.spelling import Spell, keyword
from probegen.text import amount

SUFFIXES = (".csv", ".tsv")

_DELIMITERS = "\t;,|"
_NUMBER = re.compile(
    r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE
)
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_BOOLS = {"true": "1", "false": "0"}


@dataclasses.dataclass(frozen=True)
class Table:
    """What was read.

    Attributes:
        feed: what `Artefact.run` takes.
        names: of the columns, where the table has some.
        time: of a series: which column says what stands at its steps, and what does, `[time]`.
    """

    feed: Array | dict[str, Array]
    names: list[str] | None = None
    time: tuple[str, Array] | None = None


def read(
    path: Path,
    specs: Sequence[InputSpec],
    header: bool | None = None,
    spell: Spell = keyword,
    time_column: str | None = None,
) -> Table:
    """Returns a table as an artefact takes it, with the names in its first row if it has such.

    An artefact with several inputs of one value each takes a table with a column for each, named
    as the inputs are. A series may have one column of dates, or the one that `time_column` names,
    which says what stands at its steps and is no feature.

    Raises:
        InputError: it is no table of numbers, or does not fit the inputs.
    """
    wanted = specs[0]
    if len(specs) == 1 and wanted.dtype == STRING:
        return Table(_texts(path, wanted, header))
    rows, names = _split(path, header, spell)
    time = None
    is_series = len(specs) == 1 and len(wanted.shape) == 3
    if time_column is not None and not is_series:
        raise InputError(
            f"{spell('time_column', time_column)} is for a series in a table, and the artefact "
            "takes none."
        )
    if is_series:
        column = dates.column_of(path, rows, names, time_column, spell)
        if column is not None:
            called = f"column {column + 1}" + (f" ({names[column]})" if names else "")
            time = (called, dates.times_of(path, rows, column))
            rows = [(n, [*cells[:column], *cells[column + 1 :]]) for n, cells in rows]
            names = None if names is None else [*names[:column], *names[column + 1 :]]
    if len(specs) > 1:
        return Table(_columns(path, rows, names, specs))
    table = _numbers(path, rows, wanted)
    if len(wanted.shape) == 3:
        table = table[np.newaxis]
    elif len(wanted.shape) == 1:
        table = table.reshape(-1)
    return Table(table, names, time)


def _lines(path: Path) -> list[str]:
    """Returns the lines of a file, with their ends: a text in quotes may go over several."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is no UTF-8 text, as a table must be: {error}") from error
    return list(io.StringIO(text, newline=None))


def _texts(path: Path, wanted: InputSpec, header: bool | None) -> Array:
    """Returns the rows of a file as an array of text."""
    columns = 1 if len(wanted.shape) == 1 else wanted.shape[1]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    reader = csv.reader(_lines(path), delimiter=delimiter, strict=True)
    rows: Rows = []
    try:
        for row in reader:
            if row:  # no cell at all: a blank line
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}.") from error
    named = header
    if named is None:
        named = bool(rows) and columns == 1 and rows[0][1] == [wanted.name]
    rows = rows[1:] if named else rows
    if not rows:
        raise InputError(f"{path} has no rows of text.")
    size = len(rows[0][1]) if columns is None else columns
    for number, row in rows:
        if len(row) != size:
            divider = "a tab" if delimiter == "\t" else "a comma"
            raise InputError(
                f"{path}, line {number} has {len(row)} cells; the input {wanted.name!r} takes "
                f"{size} in a row. A text that holds {divider} has to stand in double quotes."
            )
    texts: Array = np.array([row for _, row in rows], object)
    return texts.reshape(-1) if len(wanted.shape) == 1 else texts


def _split(path: Path, header: bool | None, spell: Spell) -> tuple[Rows, list[str] | None]:
    """Returns the rows of data, and the names in the first row if that holds such."""
    lines = _lines(path)
    rows = _cells(path, lines)
    if not rows:
        raise InputError(f"{path} is an empty table.")
    number, first = rows[0]
    first = [first[0].lstrip("# "), *first[1:]]  # how numpy.savetxt marks a row of names
    numeric = [_is_value(cell) or dates.is_date(cell) for cell in first]
    if header is None and any(numeric) and not all(numeric):
        column = numeric.index(False)
        raise InputError(
            f"{path}, line {number}, column {column + 1}: {first[column]!a} is no number, and "
            f"{first[numeric.index(True)]!a} beside it is one, so the row is neither names nor "
            f"data. Correct the cell, or pass {spell('header', True)} to take the row for names."
            f"{_comma_hint(first[column])}"
        )
    counted = len(first) > 2 and first == [str(i) for i in range(len(first))]
    if header is None and counted and len(rows) > 1:
        raise InputError(
            f"{path}, line {number} counts its columns ({', '.join(first[:3])} ...), as pandas "
            f"names columns that have no names. Pass {spell('header', True)} if it is a row of "
            f"names, {spell('header', False)} if it is data."
        )
    named = header if header is not None else not any(numeric)
    if named:
        del rows[0]
    if not rows:
        raise InputError(f"{path} has a row of names, and no row of numbers follows it.")
    return rows, first if named else None


def _cells(path: Path, lines: Sequence[str]) -> Rows:
    """Returns the cells of each line that is not blank."""
    written = [line for line in lines if line.strip()]
    if not written:
        return []
    divided: dict[str, Rows] = {}
    problem = None
    for delimiter in _DELIMITERS:
        if delimiter in written[0]:
            reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
            try:
                divided[delimiter] = _without_end(
                    [
                        (reader.line_num, [cell.strip() for cell in row])
                        for row in reader
                        if any(cell.strip() for cell in row) or len(row) > 1
                    ]
                )
            except csv.Error as error:
                problem = f"{path}, line {reader.line_num}: {error}."
    if problem and not divided:
        raise InputError(problem)
    if not divided:
        _check_gaps(path, lines)
        kept = [(i + 1, line) for i, line in enumerate(lines) if line.strip()]
        divided[" "] = [(number, line.split()) for number, line in kept]
        if all(len(cells) == 1 for _, cells in divided[" "][1:]):  # one column; its name has spaces
            return [(number, [line.strip()]) for number, line in kept]
    for rows in divided.values():
        if len({len(cells) for _, cells in rows}) == 1 and len(rows[0][1]) > 1:
            return rows
    rows = max(divided.values(), key=lambda found: len(found[0][1]) if found else 0)
    size = len(rows[0][1])
    for number, cells in rows:
        if len(cells) != size:
            raise InputError(
                f"{path}, line {number} has {len(cells)} cells, and the first line has {size}."
                f"{_comma_hint(*cells)}"
            )
    return rows


def _without_end(rows: Rows) -> Rows:
    """Returns the rows without those at the end that have nothing in them, as Excel leaves them."""
    while rows and not any(rows[-1][1]):
        rows = rows[:-1]
    return rows


def _check_gaps(path: Path, lines: Sequence[str]) -> None:
    """Raises for a blank line between values of one column: it may be a value that is missing."""
    filled = [bool(line.strip()) for line in lines]
    if any(len(line.split()) > 1 for line in lines[1:]):
        return  # several columns by white space
    blank = next((i for i, full in enumerate(filled) if not full and any(filled[:i])), None)
    if blank is not None and any(filled[blank:]):
        raise InputError(
            f"{path}, line {blank + 1} is blank. In a table of one column that may be a missing "
            "value: write nan for it, or take the line out."
        )


def _numbers(path: Path, rows: Rows, wanted: InputSpec) -> Array:
    """Returns the cells as an array `[row, column]` that suits the input."""
    if wanted.dtype == STRING:
        return np.array([cells for _, cells in rows], object)
    cells = [[_BOOLS.get(c.lower(), c) for c in row] for _, row in rows]
    for (number, row), plain in zip(rows, cells, strict=True):
        for column, cell in enumerate(plain):
            if not _is_number(cell):
                raise InputError(
                    f"{path}, line {number}, column {column + 1}: {_named(row[column])}, and every "
                    f"cell below the first row has to be one.{_comma_hint(cell)}"
                )
    kind = "float" if wanted.dtype.startswith(("float", "bfloat")) else wanted.dtype
    if kind != "float" and all(c.lstrip("+-").isdigit() for row in cells for c in row):
        try:  # through floats, whole numbers beyond 2^53 would change
            whole = np.array([[int(c) for c in row] for row in cells], np.int64)
        except (OverflowError, ValueError) as error:
            raise InputError(f"{path} holds a whole number beyond 64 bits: {error}") from error
        return whole != 0 if kind == "bool" and set(np.unique(whole)) <= {0, 1} else whole
    table: Array = np.array([[float(c) for c in row] for row in cells])
    for (number, row), values in zip(rows, table, strict=True):
        for at in np.flatnonzero(np.isinf(values)):
            if "inf" not in row[at].lower():
                raise InputError(
                    f"{path}, line {number}, column {at + 1}: {row[at]} is more than a "
                    "float holds; write inf for infinity."
                )
    if kind != "float" and np.array_equal(table, np.floor(table)) and np.abs(table).max() < 2**53:
        return table.astype(np.int64)
    return table


def _columns(
    path: Path, rows: Rows, names: Sequence[str] | None, specs: Sequence[InputSpec]
) -> dict[str, Array]:
    """Returns a column for each input, by the names in the first row."""
    wanted = [spec.name for spec in specs]
    single = all(len(s.shape) == 1 or s.shape[1:] == (1,) for s in specs)
    if not single or names is None or sorted(names) != sorted(wanted):
        raise InputError(
            f"{path} is a table, and the artefact has {amount(len(specs), 'input')}: "
            f"{', '.join(map(repr, wanted))}. "
            + ("Name its columns so in the first row" if single else "Pass them in an .npz file")
            + "."
        )
    found: dict[str, Any] = {}
    for spec in specs:
        column = names.index(spec.name)
        array = _numbers(path, [(n, [cells[column]]) for n, cells in rows], spec)
        found[spec.name] = array.reshape(-1) if len(spec.shape) == 1 else array
    return found


def _is_number(cell: str) -> bool:
    return _NUMBER.fullmatch(cell) is not None


def _is_value(cell: str) -> bool:
    """Tells whether a cell cannot be a name, though it may be written in a way that is not read."""
    return _is_number(cell) or cell.lower() in _BOOLS or bool(_DECIMAL_COMMA.fullmatch(cell))


def _named(cell: str) -> str:
    return f"{cell[:40]!a} is no number" if cell else "the cell is empty (write nan for no value)"


def _comma_hint(*cells: str) -> str:
    if any(_DECIMAL_COMMA.fullmatch(cell) for cell in cells):
        return " Decimal commas are not read: write 1.5 for 1,5."
    return ""
