"""Markdown tables and fitted slopes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def row(cells: Sequence[object]) -> str:
    """Returns one line of a Markdown table."""
    return "| " + " | ".join(str(c) for c in cells) + " |"


def head(columns: Sequence[str]) -> str:
    """Returns the two head lines: the first column to the left, figures to the right."""
    rule = ["---", *["---:"] * (len(columns) - 1)]
    return row(columns) + "\n|" + "|".join(rule) + "|"


def failed(columns: Sequence[str], name: str, error: Exception) -> str:
    """Returns the line of what could not be measured: its name, and why in the last column."""
    return row([name, *["-"] * (len(columns) - 2), error])


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Returns the p of the least-squares fit `y = c x**p`: the slope of log y over log x.

    Raises:
        ValueError: fewer than two points, or one that is not positive.
    """
    if len(x) < 2 or min(*x, *y) <= 0:
        raise ValueError("a log-log slope needs two points or more, all of them positive")
    slope, _ = np.polyfit(np.log(x), np.log(y), 1)
    return float(slope)
