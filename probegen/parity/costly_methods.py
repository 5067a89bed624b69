"""Open sizes for methods by scores: as few positions as show whether they are right.

They run the model once a position or window, so that what they cost grows with the square of the
positions: a segmentation of 64 x 48 pixels runs 3072 times a sample, in the artefact and beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.methods.axes import batch_first
from probegen.methods.by_scores import ByScores
from probegen.parity.samples import Sizes
from probegen.plan.plan import GradientOutput
from probegen.sources.base import Reference

Array = npt.NDArray[Any]

#: Numbers that may go into the model for one sample of a method at the usual sizes.
_MOST_NUMBERS = 2**20
#: Positions that a tensor keeps along each axis along which it has so many at the usual sizes.
_ROOM = 2


def with_fewer_positions(
    usual: list[Sizes],
    smaller: Iterable[tuple[Sizes, Sizes]],
    reference: Reference,
    feed_of: Callable[[Sizes], Mapping[str, Array]],
) -> list[Sizes]:
    """Returns smaller sizes where methods would cost much at the usual ones.

    Those are methods by scores, and matrices from all positions of a map to all others. The model
    has to run at both of a pair, and what is explained by scores to keep two positions an axis.

    Args:
        usual: the sizes of the calls.
        smaller: pairs to take instead, the larger ones first.
        reference: the source model.
        feed_of: gives inputs of one sample of open sizes.
    """
    explained = [
        o for group in reference.plan.groups for o in group.outputs if isinstance(o.probe, ByScores)
    ]
    if not explained:
        able = [
            list(pair)
            for pair in (smaller if _pairs_up_a_map(reference) else ())
            if all(reference.cause_of_failure(feed_of(sizes)) is None for sizes in pair)
        ]
        return able[-1] if able else usual

    def shapes_at(feed: Mapping[str, Array]) -> list[tuple[int, ...]] | None:
        return _shapes(reference, explained, feed)

    at_usual = [shapes_at(feed_of(sizes)) for sizes in usual]
    chosen, shapes = usual, at_usual[0]
    pairs = iter(smaller)
    while shapes is not None and _numbers(explained, shapes, feed_of(chosen[0])) > _MOST_NUMBERS:
        pair = next(pairs, None)
        if pair is None:
            break
        feeds = [feed_of(sizes) for sizes in pair]
        if any(reference.cause_of_failure(feed) is not None for feed in feeds):
            continue
        found = [shapes_at(feed) for feed in feeds]
        if all(_has_room(few, many) for few in found for many in at_usual):
            chosen, shapes = list(pair), found[0]
    return chosen


def _pairs_up_a_map(reference: Reference) -> bool:
    """Tells whether an output is of all pairs of positions of a map, of open sizes."""
    return any(
        len(layer.grid.queries) > 1 and None in chain.spec.shape[1:]
        for chain in reference.plan.chains
        for layer in chain.layers
    )


def _shapes(
    reference: Reference, explained: Iterable[GradientOutput], feed: Mapping[str, Array]
) -> list[tuple[int, ...]] | None:
    """Returns the shapes of what is explained, the batch first; None where nothing tells."""
    moved = reference.moved_scores()
    if moved is None:
        return None
    try:
        _, tensors = moved.at(feed, {})
    except Exception:  # what it is verified against says so itself, later
        return None
    return [tensors[o.ref].shape for o in explained]


def _numbers(
    explained: Iterable[GradientOutput],
    shapes: Iterable[tuple[int, ...]],
    feed: Mapping[str, Array],
) -> int:
    """Returns how many numbers go into the model for one sample, over all points of all methods."""
    points = 0
    for output, shape in zip(explained, shapes, strict=True):
        if isinstance(output.probe, ByScores):
            # None where a request says what goes together, which is few here.
            points += output.probe.count(batch_first(output.axes)[0], shape) or 0
    return points * int(np.sum([value.size for value in feed.values()]))


def _has_room(few: list[tuple[int, ...]] | None, many: list[tuple[int, ...]] | None) -> bool:
    """Tells whether tensors have two positions along each axis along which they usually have."""
    if few is None or many is None:
        return False
    return all(
        n >= min(_ROOM, usual)
        for one, other in zip(few, many, strict=True)
        for n, usual in zip(one, other, strict=True)
    )
