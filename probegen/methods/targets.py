"""Targets: what a probe that differentiates takes the gradient of, validated when written down.

How each is written in Python, on a command line and in a spec or manifest:

    what is explained                  Python, command line       spec
    the largest entry                  "argmax"                   the same
    a class chosen at each run         "input"                    the same
    a class                            3                          the same
    an index or None, the sum, an axis (None, 3)                  [null, 3], in TOML ["all", 3]
    the k best classes, each           "top:5"                    the same
    every class                        "all"                      the same
    some classes, each                 [1, 4]                     {"classes": [1, 4]}
    the difference of two scores       contrast(3, "argmax")      "contrast(3, argmax)"

A spec's plain list has always been a tuple, so a list of classes has a table of its own there.
On a command line words have no quotes.
"""

from __future__ import annotations

import ast
import dataclasses
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from probegen.errors import SpecError

#: Words for a side of a contrast: the best class, and the second best.
RANKS = ("argmax", "runner_up")


@dataclasses.dataclass(frozen=True)
class Contrast:
    """The difference of two scores; made by `contrast`.

    Attributes:
        a: whose score counts: a class index, `"argmax"` or `"runner_up"`.
        b: whose score is taken away.
    """

    a: int | str
    b: int | str

    def __str__(self) -> str:
        return f"contrast({self.a}, {self.b})"

    __repr__ = __str__


#: `"argmax"`, `"input"`, `"all"`, `"top:k"`, a class index, a list of some, a tuple with one entry
#: an axis, a contrast, or a callable.
Target = str | int | tuple[int | None, ...] | list[int] | Contrast | Callable[[Any], Any]

#: Targets that are a word and one class: it is chosen when the artefact runs.
TARGET_MODES = ("argmax", "input")
#: Every class, each by itself.
ALL = "all"

_TOP = re.compile(r"top:\s*(\d+)")
_CONTRAST = re.compile(r"contrast\(\s*(\w+)\s*,\s*(\w+)\s*\)")
#: The key of a list of classes in a spec.
_CLASSES = "classes"


def contrast(a: int | str, b: int | str) -> Contrast:
    """Returns a target: the score of `a` minus the score of `b`.

    The gradient says what would make `a` win over `b`. A class is fixed, `"argmax"` and
    `"runner_up"` (the second best) are each sample's own, told by the scores themselves; of equal
    scores the lower index comes first. Where both sides are the same class in a sample, the
    difference and its gradient are 0.

    Args:
        a: a class index, `"argmax"` or `"runner_up"`.
        b: likewise, another.

    Raises:
        SpecError: a side is none of these, or both are the same.
    """
    sides = [_side(a), _side(b)]
    if sides[0] == sides[1]:
        raise SpecError(f"contrast({a!r}, {b!r}) takes a score from itself; name two scores.")
    return Contrast(*sides)


def checked_target(target: object) -> Target:
    """Returns a target in its plain form: integers of numpy as Python's.

    Raises:
        SpecError: it is none; says what is one.
    """
    if isinstance(target, str):
        word = _word(target)
        if word is not None:
            return word
    elif isinstance(target, list):
        return _classes(target)
    elif isinstance(target, tuple):
        if target and all(i is None or _is_int(i) for i in target):
            return tuple(None if i is None else operator.index(i) for i in target)
    elif isinstance(target, Contrast):
        return contrast(target.a, target.b)
    elif _is_int(target):
        return operator.index(target)  # type: ignore[arg-type]
    elif callable(target):
        return target
    raise SpecError(
        "target= takes 'argmax', 'input', a class index, 'top:k' for the k best classes, 'all' or "
        "a list of class indices for several at once, pg.contrast(a, b), a tuple with an index or "
        f"None for each non-batch axis of the output, or a callable; got {target!r}."
    )


def count_of_top(target: object) -> int | None:
    """Returns k of `"top:k"`, None for any other target."""
    found = _TOP.fullmatch(target) if isinstance(target, str) else None
    return int(found[1]) if found else None


def parse_target(text: str) -> Target:
    """Reads a target as typed on a command line; see the module.

    Raises:
        SpecError: it is none.
    """
    if _word(text) is not None:
        return checked_target(text)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    return checked_target(value)


def as_text_form(target: Target) -> Any:
    """Returns a target as plain values for a spec; a callable as it is, for it has none."""
    if isinstance(target, list):
        return {_CLASSES: list(target)}
    return str(target) if isinstance(target, Contrast) else target


def of_text_form(value: Any) -> Any:
    """Returns what a spec says as `checked_target` takes it; see the module.

    Raises:
        SpecError: a table that holds something else than classes.
    """
    if isinstance(value, list):
        # TOML has no null: "sum over this axis" is written "all" there.
        return tuple(None if i in (None, "all") else i for i in value)
    if isinstance(value, Mapping):
        if list(value) != [_CLASSES] or not isinstance(value[_CLASSES], list):
            raise SpecError(f"target takes the table {{classes = [1, 4]}}, got {dict(value)!r}.")
        return list(value[_CLASSES])
    return value


def _word(text: str) -> Target | None:
    """Returns the target that a text says, None where it says none.

    Raises:
        SpecError: it says one that cannot be.
    """
    if text in (*TARGET_MODES, ALL):
        return text
    count = count_of_top(text)
    if count is not None:
        if count < 1:
            raise SpecError(f"target={text!r} asks for no class; k is 1 or more.")
        return f"top:{count}"
    found = _CONTRAST.fullmatch(text)
    return contrast(*(int(s) if s.isdigit() else s for s in found.groups())) if found else None


def _classes(target: list[Any]) -> list[int]:
    if not target or not all(_is_int(i) for i in target):
        raise SpecError(
            "target= takes a list of class indices, one result each, such as [1, 4]; got "
            f"{target!r}. An index or None for each axis of the output is a tuple: (None, 3)."
        )
    found = [operator.index(i) for i in target]
    twice = sorted({i for i in found if found.count(i) > 1})
    if twice:
        raise SpecError(f"target={found} names the class {twice[0]} twice; once is enough.")
    return found


def _side(side: Any) -> int | str:
    if isinstance(side, str) and side in RANKS:
        return side
    if _is_int(side) and side >= 0:
        return operator.index(side)
    raise SpecError(f"contrast(a, b) takes class indices, 'argmax' or 'runner_up'; got {side!r}.")


def _is_int(value: object) -> bool:
    if isinstance(value, bool):
        return False
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
