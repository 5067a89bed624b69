"""Targets: what a probe that differentiates takes the gradient of, validated when written down."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

from probegen.errors import SpecError

#: `"argmax"`, `"input"`, a class index, a tuple with one entry an axis, or a callable.
Target = str | int | tuple[int | None, ...] | Callable[[Any], Any]

#: Targets that are a word: the class is chosen when the artefact runs.
TARGET_MODES = ("argmax", "input")


def checked_target(target: object) -> Target:
    """Returns a target in its plain form: integers of numpy as Python's, lists as tuples.

    Raises:
        SpecError: it is none; says what is one.
    """
    if isinstance(target, str):
        if target in TARGET_MODES:
            return target
    elif isinstance(target, tuple | list):
        if target and all(i is None or _is_int(i) for i in target):
            return tuple(None if i is None else operator.index(i) for i in target)
    elif _is_int(target):
        return operator.index(target)  # type: ignore[arg-type]
    elif callable(target):
        return target
    raise SpecError(
        "target= takes 'argmax', 'input', a class index, a tuple with an index or None for each "
        f"non-batch axis of the output, or a callable; got {target!r}."
    )


def parse_target(text: str) -> Target:
    """Reads a target as typed on a command line: `argmax`, `input`, `3` or `(None, 3)`.

    Raises:
        SpecError: it is none of these.
    """
    if text in TARGET_MODES:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    return checked_target(value)


def _is_int(value: object) -> bool:
    if isinstance(value, bool):
        return False
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
