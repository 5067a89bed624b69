"""How messages name the options of a reader: as the caller's own user sets them."""

from __future__ import annotations

from collections.abc import Callable

#: Takes an option's name and a value; returns what a user writes to set it.
Spell = Callable[[str, object], str]


def keyword(name: str, value: object) -> str:
    """Returns an option as an argument in Python, such as `header=True`."""
    return f"{name}={value!r}"
