"""What `Attention(reduce=...)` leaves of attention weights: fewer heads, queries or keys.

Reductions are small steps by name, applied one after the other: `"heads,top:5"` is the mean over
the heads, and of that the five largest. A step that has nothing to reduce (there are no heads, or
one query that has no axis) leaves the weights as they are, so that one probe fits all layers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from probegen.errors import InstrumentError, SpecError, nearest
from probegen.methods.axes import Axes, Sizes, without
from probegen.methods.chains import HEAD, KEY, QUERY
from probegen.methods.operations import Operations, T

HEADS, MAX, LAST_QUERY, CLS = "heads", "max", "last_query", "cls"
#: What is known, as a user writes it.
REDUCTIONS = (HEADS, MAX, LAST_QUERY, CLS, "top:5")
#: The place in the order from the largest weight down.
RANK = "rank"

_WORDS = {
    HEADS: "mean over the heads",
    MAX: "largest over the heads",
    LAST_QUERY: "of the last query",
    CLS: "of the first query",
}
_TOP = re.compile(r"top:([1-9]\d*)")


def checked_steps(reduce: str | Sequence[str] | None) -> tuple[str, ...]:
    """Returns the steps that `reduce=` asks for, none for None.

    Raises:
        SpecError: one is unknown, two of them do the same, or one stands behind `top:k`.
    """
    if reduce is None:
        return ()
    given = reduce.split(",") if isinstance(reduce, str) else reduce
    if not isinstance(given, list | tuple) or not all(isinstance(s, str) for s in given):
        raise SpecError(f"reduce= takes one of {', '.join(map(repr, REDUCTIONS))}, got {reduce!r}.")
    steps = tuple(s.strip() for s in given)
    for step in steps:
        if step not in _WORDS and not _TOP.fullmatch(step):
            raise SpecError(
                f"reduce= takes one of {', '.join(map(repr, REDUCTIONS))}, or several with commas "
                f"between, got {step!r}.{nearest(step, REDUCTIONS)}"
            )
    for alike in ({HEADS, MAX}, {LAST_QUERY, CLS}):
        if sum(step in alike for step in steps) > 1:
            raise SpecError(f"reduce={reduce!r}: {' and '.join(sorted(alike))} exclude each other.")
    if any(_TOP.fullmatch(step) for step in steps[:-1]):
        raise SpecError(f"reduce={reduce!r}: top:k comes last, there are no keys behind it.")
    if not steps:
        raise SpecError("reduce= is empty; leave it out for the weights as they are.")
    return steps


def top_count(steps: Sequence[str]) -> int | None:
    """Returns how many of the largest weights are kept; None for all."""
    found = _TOP.fullmatch(steps[-1]) if steps else None
    return None if found is None else int(found[1])


def reduced(steps: Sequence[str], axes: Axes, sizes: Sizes, layer: str) -> tuple[Axes, Sizes]:
    """Returns the axes and sizes that are left.

    Raises:
        InstrumentError: `top:k` where keys lie along several axes, or are fewer than k.
    """
    for step in steps:
        count = top_count((step,))
        if count is None:
            gone = _gone(step, axes)
            sizes = tuple(n for i, n in enumerate(sizes) if i not in gone)
            axes = without(axes, *gone)
        else:
            key = _key_axis(axes, step, layer)
            known = sizes[key]
            if known is not None and known < count:
                raise InstrumentError(
                    f"reduce='top:{count}': {layer!r} has {known} keys; 'top:{known}' is the most."
                )
            # Of an open number of keys there may be fewer.
            kept = count if known is not None else None
            axes = (*without(axes, key), RANK)
            sizes = (*(n for i, n in enumerate(sizes) if i != key), kept)
    return axes, sizes


def apply_steps(ops: Operations[T], steps: Sequence[str], weights: T, axes: Axes) -> T:
    """Returns reduced weights."""
    for step in steps:
        count = top_count((step,))
        if count is None:
            weights = _apply(ops, step, weights, axes)
            axes = without(axes, *_gone(step, axes))
        else:
            weights, _ = ops.top(ops.widened(_keys_last(ops, weights, axes)), count)
    return weights


def top_keys(ops: Operations[T], steps: Sequence[str], weights: T, axes: Axes) -> T:
    """Returns the positions of the largest weights along their keys, the largest first."""
    count = top_count(steps)
    assert count is not None
    return ops.top(ops.widened(keys_last(ops, steps[:-1], weights, axes)), count)[1]


def keys_last(ops: Operations[T], steps: Sequence[str], weights: T, axes: Axes) -> T:
    """Returns reduced weights with the keys along the last axis."""
    left, _ = reduced(steps, axes, (None,) * len(axes), "the layer")
    return _keys_last(ops, apply_steps(ops, steps, weights, axes), left)


def in_words(steps: Sequence[str]) -> str:
    """Returns what the steps do, as the end of a definition."""
    words = [_WORDS.get(step, f"the {top_count((step,))} largest over the keys") for step in steps]
    return "".join(f", {word}" for word in words)


def _gone(step: str, axes: Axes) -> tuple[int, ...]:
    """Returns the axes that a step reduces."""
    wanted = HEAD if step in (HEADS, MAX) else QUERY
    return tuple(i for i, name in enumerate(axes) if name.split("_")[0] == wanted)


def _apply(ops: Operations[T], step: str, weights: T, axes: Axes) -> T:
    over = _gone(step, axes)
    if step == HEADS:
        return ops.mean(weights, over)
    if step == MAX:
        return ops.max(weights, over)
    at = -1 if step == LAST_QUERY else 0
    for axis in over:
        weights = ops.take(weights, (at,), axis)
    return ops.sum(weights, over)


def _key_axis(axes: Axes, step: str, layer: str) -> int:
    if KEY not in axes:
        raise InstrumentError(
            f"reduce={step!r}: the weights of {layer!r} have the axes {', '.join(axes)}; top:k "
            "takes layers whose keys lie along one axis. Leave it out, or select other layers."
        )
    return axes.index(KEY)


def _keys_last(ops: Operations[T], weights: T, axes: Axes) -> T:
    key = axes.index(KEY)
    if key == len(axes) - 1:
        return weights
    return ops.transpose(weights, [*(i for i in range(len(axes)) if i != key), key])
