"""Checks of plain numbers that functions of the runtime take."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from probegen.errors import InputError


def counted(name: str, value: Any, at_least: int = 1) -> int:
    """Returns a whole number that an argument must be.

    Raises:
        InputError: it is none, or too small.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or number < at_least:
        raise InputError(f"{name} is {value!r}; it must be a whole number, {at_least} or more.")
    return number


def positive(name: str, value: Any, most: float = np.inf) -> float:
    """Returns a number above zero that an argument must be.

    Raises:
        InputError: it is none, or out of bounds.
    """
    number = np.asarray(value)
    if number.shape != () or number.dtype.kind not in "iuf" or not 0 < number <= most:
        bound = "" if most == np.inf else f" and at most {most:g}"
        raise InputError(f"{name} is {value!r}; it must be a number above 0{bound}.")
    if not np.isfinite(number):
        raise InputError(f"{name} is {value!r}; it must be finite.")
    return float(number)


def finite(name: str, value: Any) -> float:
    """Returns a finite number that an argument must be.

    Raises:
        InputError: it is none.
    """
    number = np.asarray(value)
    if number.shape != () or number.dtype.kind not in "iuf" or not np.isfinite(number):
        raise InputError(f"{name} is {value!r}; it must be a finite number.")
    return float(number)


def not_negative(name: str, value: Any) -> float:
    """Returns a finite number from zero on that an argument must be.

    Raises:
        InputError: it is none, or below zero.
    """
    number = finite(name, value)
    if number < 0:
        raise InputError(f"{name} is {value!r}; it must be 0 or more.")
    return number
