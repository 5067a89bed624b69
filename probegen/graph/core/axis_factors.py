"""Axes as products of factors, and how these are regrouped where a tensor is reshaped.

A factor is a size, or the batch: windows of an image are joined with it, and so are heads.

    [batch, 3, 7, 3, 7, c] -> Transpose -> Reshape -> [batch*9, 49, c]: axis 0 is (batch, 3, 3)
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator, Sequence

from probegen.graph.core.size_products import factors_of
from probegen.graph.core.values import Dim
from probegen.plan.positions import matched_from_both_ends


class _Batch(enum.Enum):
    """The factor that counts the samples."""

    ONE = "batch"


#: The number of samples, as a factor of an axis.
SAMPLES = _Batch.ONE
Factor = Dim | _Batch
#: The factors of one axis, the slowest first; of none is an axis of size 1.
Axis = tuple[Factor, ...]
#: The axes of a tensor.
Factors = tuple[Axis, ...]


def product_of_axes(axes: Sequence[Axis]) -> Axis:
    """Returns the factors of the axis that several become."""
    found = tuple(f for axis in axes for f in axis if f != 1)
    return found or (1,)


def regrouped(source: Factors, shape: Sequence[Dim], batch: Dim = None) -> Factors | None:
    """Returns the factors of the axes of a tensor that was reshaped, None where it cannot be told.

    Sizes are matched from the front and from behind; one axis in the middle gets what is left.

    Args:
        source: of the tensor before.
        shape: afterwards.
        batch: the number of samples, where it is known.
    """
    left = [f for axis in source for f in axis if f != 1]
    found, places = matched_from_both_ends(
        shape, lambda size, backwards: _take(left, size, backwards, batch)
    )
    if len(places) == 1:
        found[places[0]] = tuple(left) or (1,)
        left = []
    elif places:
        return _in_whole_axes(source, shape)
    if SAMPLES in left:
        return None
    return tuple(f for f in found if f is not None)


def _in_whole_axes(source: Factors, shape: Sequence[Dim]) -> Factors | None:
    """Returns the factors where axes were joined and none was cut, if one way alone does that."""
    whole = [axis for axis in source if axis != (1,)]
    groups = list(_in_groups(whole, shape))
    if len(groups) != 1:
        groups = list(_in_groups([(f,) for axis in whole for f in axis], shape))
    return tuple(groups[0]) if len(groups) == 1 else None


def _in_groups(axes: Sequence[Axis], sizes: Sequence[Dim]) -> Iterator[list[Axis]]:
    """Yields the ways of joining axes, cutting none: open sizes take one or more."""
    if not sizes:
        if not axes:
            yield []
        return
    if sizes[0] == 1:
        yield from ([(1,), *rest] for rest in _in_groups(axes, sizes[1:]))
        return
    for count in range(1, len(axes) + 1):
        group = tuple(f for axis in axes[:count] for f in axis)
        numbers = [f for f in group if isinstance(f, int)]
        whole = len(numbers) == len(group)
        if isinstance(sizes[0], int) and not (whole and math.prod(numbers) == sizes[0]):
            continue
        for rest in _in_groups(axes[count:], sizes[1:]):
            yield [group, *rest]


def _take(left: list[Factor], size: Dim, backwards: bool, batch: Dim) -> Axis | None:
    """Takes the factors of one size away from an end; None where they do not make it up."""
    end = -1 if backwards else 0
    if size == 1:
        alone = batch == 1 and not backwards and left[:1] == [SAMPLES]
        return (left.pop(0),) if alone else (1,)
    if not isinstance(size, int):
        return None if size is None else _take_product(left, size, backwards, batch)
    taken: list[Factor] = []
    rest, kept = size, list(left)
    while rest > 1 and kept:
        factor = kept.pop(end)
        if factor is SAMPLES:
            if not isinstance(batch, int) or rest % batch:
                return None
            taken.append(SAMPLES)
            rest //= batch
            continue
        if not isinstance(factor, int):
            factor = rest  # an open size that this file was traced at
        if factor % rest == 0 and factor != rest:
            kept.insert(len(kept) if backwards else 0, factor // rest)
            factor = rest
        following = kept[end] if kept else None
        if rest % factor == 0:
            taken.append(factor)
            rest //= factor
        elif isinstance(following, int):
            kept[end] = following * factor  # sizes that were regrouped: 6, 4 -> 8, 3
        else:
            return None
    if rest > 1:
        return None
    left[:] = kept
    return tuple(reversed(taken)) if backwards else tuple(taken)


def _take_product(left: list[Factor], size: str, backwards: bool, batch: Dim) -> Axis | None:
    """Takes the factors of an open size away from an end; None where they do not make it up."""
    end = -1 if backwards else 0
    number, names = factors_of(size)
    taken: list[Factor] = []
    kept = list(left)
    while names or number > 1:
        factor = kept.pop(end) if kept else None
        if isinstance(factor, int):
            own = math.gcd(factor, number)
            if own == 1:
                return None
            if own < factor:  # cut: what is left of it stays
                kept.insert(len(kept) if backwards else 0, factor // own)
            number //= own
            taken.append(own)
            continue
        held, more = factors_of(str(batch if factor is SAMPLES else factor))
        if factor is None or (factor is SAMPLES and batch is None) or number % held:
            return None
        if not more <= names:
            return None
        number, names = number // held, names - more
        taken.append(factor)
    left[:] = kept
    return tuple(reversed(taken)) if backwards else tuple(taken)
