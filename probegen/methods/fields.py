"""Fields of methods: which are options of the command line, and what they may hold."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

from probegen.errors import SpecError

#: Key of a field's metadata under which its `Option` stands.
OPTION = "option"


@dataclasses.dataclass(frozen=True)
class Option:
    """Says that a field is an option of the command line.

    Attributes:
        what: what it gives, to be followed by `of` and the methods' flags: `"Points"`.
        flag: the option without its dashes, where it is not the field's name.
        at_least: the smallest value that is allowed.
        parse: reads what is typed, where the field's default does not say how: a field that takes
            a number or the path of an array.
    """

    what: str
    flag: str = ""
    at_least: int | None = None
    parse: Callable[[str], Any] | None = None


def option(
    default: Any,
    what: str,
    *,
    flag: str = "",
    at_least: int | None = None,
    parse: Callable[[str], Any] | None = None,
    kw_only: bool = False,
) -> Any:
    """Returns a dataclass field that is an option of the command line as well; see `Option`.

    With `dataclasses.MISSING` for a default the field has to be given.
    """
    found = Option(what, flag, at_least, parse)
    return dataclasses.field(default=default, metadata={OPTION: found}, kw_only=kw_only)


# -- what they hold -----------------------------------------------------------------------------


def check_choice(field: str, value: object, choices: Sequence[str]) -> None:
    """Raises a SpecError unless a value is None or one of the choices."""
    if value is not None and value not in choices:
        shown = ", ".join(repr(c) for c in choices)
        raise SpecError(f"{field}= takes one of {shown}, got {value!r}.")


def check_whole(field: str, value: object, at_least: int) -> None:
    """Raises a SpecError unless a value is a whole number that is not too small."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise SpecError(f"{field}= takes a whole number of at least {at_least}, got {value!r}.")


def check_chunk(value: object) -> None:
    """Raises a SpecError unless a value is None or a number of points."""
    if value is not None:
        check_whole("chunk", value, 1)


def checked_number(field: str, value: object) -> float:
    """Returns a finite number as a float.

    Raises:
        SpecError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SpecError(f"{field}= takes a finite number, got {value!r}.")
    return float(value)


def check_bool(field: str, value: object) -> None:
    """Raises a SpecError unless a value is True or False."""
    if not isinstance(value, bool):
        raise SpecError(f"{field}= takes True or False, got {value!r}.")


def set_ints(probe: Any, field: str) -> None:
    """Turns a sequence of whole numbers (or one) into a tuple, in place.

    Raises:
        SpecError: it holds something else, or nothing.
    """
    value = getattr(probe, field)
    if value is None:
        return
    items = (value,) if isinstance(value, int) else value
    try:
        numbers = tuple(operator.index(i) for i in items)
    except TypeError:
        raise SpecError(f"{field}= takes whole numbers, got {value!r}.") from None
    if not numbers:
        raise SpecError(f"{field}= is empty; leave it out to keep all.")
    object.__setattr__(probe, field, numbers)
