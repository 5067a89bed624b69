"""How attributions were distributed over a reference data set, as a manifest holds it."""

from __future__ import annotations

import dataclasses
import itertools
import math

#: Parts that a distribution is cut into, each with about as many samples of the reference.
PARTS = 10


@dataclasses.dataclass(frozen=True)
class OutputReference:
    """The distributions of one attribution, one for each of its units.

    A unit is a feature, or a bin of neighbouring positions, of which each sample has one number;
    the last unit is the size of the whole (see `probegen.runtime.drift.unit_values`).

    Attributes:
        output: name of the output.
        axes: names of the axes that units lie along.
        bins: units along each of them.
        edges: for each unit the bounds between its parts, ascending.
        counts: for each unit the samples in its parts, one more than there are bounds.
    """

    output: str
    axes: tuple[str, ...]
    bins: tuple[int, ...]
    edges: tuple[tuple[float, ...], ...]
    counts: tuple[tuple[int, ...], ...]


@dataclasses.dataclass(frozen=True)
class AttributionReference:
    """What attributions are compared with later.

    Attributes:
        samples: how many there were.
        outputs: for each attribution its distributions.
    """

    samples: int
    outputs: tuple[OutputReference, ...]


def wrong_reference(reference: AttributionReference, outputs: tuple[str, ...]) -> str | None:
    """Returns what is wrong with a reference beyond types, None where nothing is.

    Args:
        reference: read from a manifest.
        outputs: names of the artefact's outputs.
    """
    for own in reference.outputs:
        if own.output not in outputs:
            return f"the reference is of an output {own.output!r}, which there is not"
        units = math.prod(own.bins)
        fits = len(own.axes) == len(own.bins) and all(bins > 0 for bins in own.bins)
        if not fits or not len(own.edges) == len(own.counts) == units + 1:
            return f"the reference of {own.output!r} has other units than it says"
        for edges, counts in zip(own.edges, own.counts, strict=True):
            ascending = all(a < b for a, b in itertools.pairwise(edges))
            right = len(counts) == len(edges) + 1 and min(counts) >= 0
            if not ascending or not right or sum(counts) != reference.samples:
                return f"the reference of {own.output!r} holds no distributions"
    return None
