"""Targets: what a probe that differentiates takes the gradient of, validated when written down.

How each is written in Python, on a command line and in a spec or manifest:

    what is explained                  Python, command line       spec
    the largest entry                  "argmax"                   the same
    a class chosen at each run         "input"                    the same
    a class                            3                          the same
    an index or None, the sum, an axis (None, 3)                  [null, 3], in TOML ["all", 3]
    class 3 at each step, each         ("steps", 3)               ["steps", 3]
    the best class at each step, each  "steps"                    the same
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
from collections.abc import Callable, Iterable, Mapping
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
#: an axis (with the word `"steps"` for that of the steps), a contrast, or a callable.
Target = str | int | tuple[int | str | None, ...] | list[int] | Contrast | Callable[[Any], Any]

#: Targets that are a word and one class: it is chosen when the artefact runs.
TARGET_MODES = ("argmax", "input")
#: Every class, each by itself.
ALL = "all"
#: Every step of a sequence, each by itself.
STEPS = "steps"

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
        steps = STEPS in target
        if steps or (target and all(i is None or _is_int(i) for i in target)):
            return _of_steps(target) if steps else _indices(target)
    elif isinstance(target, Contrast):
        return contrast(target.a, target.b)
    elif _is_int(target):
        return operator.index(target)  # type: ignore[arg-type]
    elif callable(target):
        return target
    raise SpecError(
        "target= takes 'argmax', 'input', a class index, 'top:k' for the k best classes, 'all' or "
        "a list of class indices for several at once, pg.contrast(a, b), a tuple with an index or "
        "None for each non-batch axis of the output, ('steps', 3) for one result a step of a "
        f"sequence, or a callable; got {target!r}."
    )


def _indices(entries: Iterable[Any]) -> tuple[Any, ...]:
    """Returns entries of a tuple with integers of numpy as Python's."""
    return tuple(i if i is None or isinstance(i, str) else operator.index(i) for i in entries)


def _of_steps(target: tuple[Any, ...]) -> Target:
    """Returns a target of every step in its plain form: the word first.

    Where the word stands plays no role: it is the axis of the steps. `...` says nothing of the
    other axes, as leaving them out does: of the classes it is then the best at each step.

    Raises:
        SpecError: the other entries are no target.
    """
    rest = [entry for entry in target if entry != STEPS and entry is not ...]
    word = rest[0] if len(rest) == 1 and isinstance(rest[0], str) else None
    if word == "argmax":
        rest = []
    whole = word in TARGET_MODES or all(i is None or _is_int(i) for i in rest)
    if not whole or target.count(STEPS) > 1:
        raise SpecError(
            f"target={target!r}: beside 'steps', once, stands an index or None (the sum) for each "
            "other axis of the output, such as ('steps', 3); or 'argmax' or 'input', or nothing "
            "for the best class at each step."
        )
    return (STEPS, *_indices(rest))


def without_steps(target: object) -> Target | None:
    """Returns what is explained at each step, None for a target that is not of every step.

    A tuple of the other axes' entries, or a word.
    """
    if not isinstance(target, tuple) or target[:1] != (STEPS,):
        return None
    rest = target[1:]
    if not rest:
        return "argmax"
    return rest[0] if isinstance(rest[0], str) else rest


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
    if text == STEPS:
        return (STEPS,)
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
