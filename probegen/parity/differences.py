"""A third witness for gradients: differences of the source model's own scores.

TensorFlow's gradients are the second witness, and they may be wrong as well: they share code
with a SavedModel, and TensorFlow counts some ties of a pooling window twice. So where the two
disagree, and for every SavedModel, a gradient is asked for its claim: moving a tensor by a small
step along `d` changes the score by `gradient . d` per unit of step.

Scores come from forward passes alone. The tensor is moved where it comes out of the input or
of a layer; the class stays the one of the unmoved sample.

Of a method with points (integrated gradients) the claim is that of the weighted sum of the
gradients at all of them, each times its factor: moving every point by a small step along its factor
times `d` changes the weighted sum of the scores by `sum . d` per unit of step. Masks are those of
the sample at all of them. Few directions and steps are tried, as each costs a forward pass a point.

What it cannot see: errors under a twentieth of the slope, and under a quarter where scores are
rounded much or networks bend within the step; errors that are orthogonal to every direction tried;
gradients that the model stops, which are not to be slopes. Where the slopes to both sides differ
there is a kink, and nothing is said. Where a step changes a mask (an input that is compared with a
mask value), the score jumps; directions along a gradient do not move what the model ignores.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import TargetSpec
from probegen.artefact.rows import as_described, rows_first
from probegen.artefact.seeds import seeds
from probegen.methods.samples import NumpyWalk
from probegen.parity.comparison import GRADIENT_FACTOR, ROUNDING, TOLERANCES
from probegen.parity.slopes import Points, Slopes
from probegen.parity.verdicts import (
    CONFIRMED,
    OPEN,
    REFUTED,
    between_sides,
    by_a_kink,
    verdict,
    worse,
)
from probegen.plan.axes import channel_axis
from probegen.plan.plan import GradientGroup, GradientOutput, TensorRef, moved_together, samples_of
from probegen.sources.base import MovedScores

Array = npt.NDArray[Any]

#: Steps, relative to the size of what is moved, from large to small.
STEPS = (1e-2, 1e-3, 1e-4)
#: Steps that are tried where these confirm nothing: above rounding, and within narrow kinks.
_MORE_STEPS = (1e-1, 1e-5)
#: What tensors are moved by, relative to them, to see how scores are rounded; 0 is one rounding.
_ROUNDINGS = (0.0, 0.0, 1e-6, 1e-6, 1e-5, 1e-5)
#: For methods with points: the steps in the order in which they are tried, until one confirms, and
#: how many directions.
_STEPS_OF_POINTS, _FEW = (1e-3, 1e-2, 1e-4), 3
#: Steps that are tried before a claim counts as refuted: a steep network bends within larger ones.
_SMALLEST_STEPS = (1e-5, 1e-6)
#: The share of elements that are the largest ones.
_SHARE_OF_LARGEST = 0.1

#: Modes of targets that ask which class is the best, and roundings within which two are as good.
_BY_RANK, _TIED = frozenset({"argmax", "input"}), 4
#: Sides of contrasts that ask for a class by its place.
_PLACES: Mapping[int | str, int] = {"argmax": 1, "runner_up": 2}


@dataclasses.dataclass(frozen=True)
class _Tried:
    """What was seen along a direction.

    Attributes:
        direction: of unit length in each sample, or 0.
        claims: name -> the slope that a gradient says, `[batch]`.
        slopes: step -> the slopes at it.
        points: where they were taken.
    """

    direction: Array
    claims: Mapping[str, Array]
    slopes: Mapping[float, Slopes]
    points: Points

    @functools.cached_property
    def with_kinks(self) -> dict[float, Slopes]:
        """The slopes, as far apart as the gradients that points on kinks may have."""
        return self.points.with_kinks(self.direction, self.slopes)


class Differences:
    """Moves tensors of a model and holds gradients against what its scores do.

    Args:
        moved: the model.
        groups: what is differentiated.
        computed_in: the coarsest element type on the way to the scores, which these may hide.
    """

    def __init__(
        self, moved: MovedScores, groups: Sequence[GradientGroup], computed_in: str = "float64"
    ) -> None:
        self._moved = moved
        self._groups = groups
        self._unit = ROUNDING[computed_in]
        self._alike = GRADIENT_FACTOR * TOLERANCES[computed_in]

    def held_back(self, group: GradientGroup, ref: TensorRef) -> bool:
        """Tells whether the model stops some gradients on the way from a tensor to the score."""
        return self._moved.is_held_back(group, ref)

    def terms(
        self,
        feed: Mapping[str, Array],
        request: Array | None,
        group: GradientGroup,
        least: float = 0.0,
    ) -> Array:
        """Returns the sum of the magnitudes of what each sample's score is summed of, `[batch]`.

        Of several scores that are explained, the largest.

        Args:
            feed: the inputs.
            request: the targets asked for, where they are.
            group: what is explained.
            least: what each term counts as, where it is smaller.
        """
        scores = self._moved.at(feed, {})[0][self._groups.index(group)]
        weights = group.target.weights(feed)
        sizes = np.nan_to_num(np.maximum(np.abs(scores.astype(np.float64)), least))
        each = seeds(scores, group.target.spec, request, weights)
        sums = [(sizes * np.abs(s)).reshape(len(sizes), -1).sum(axis=1) for s in each]
        return np.asarray(np.max(sums, axis=0))

    def undecided(
        self, feed: Mapping[str, Array], request: Array | None, group: GradientGroup
    ) -> Array:
        """Tells in which samples rounding decides which class is explained, `[batch]`.

        At one position at least. Behind a function that saturates several classes are 1 but for
        rounding: hiding something then changes the score of another class.

        Args:
            feed: the inputs.
            request: the targets asked for, where they are.
            group: what is explained.
        """
        scores = self._moved.at(feed, {})[0][self._groups.index(group)]
        rows, unit = len(scores), max(_unit(scores.dtype), self._unit)
        places = _places_by_rank(group.target.spec)
        if not places or scores.ndim < 2 or scores.shape[-1] < 2:
            return np.zeros(rows, bool)
        ranked = np.sort(scores.astype(np.float64), axis=-1)[..., ::-1][..., : places + 1]
        behind, best = ranked[..., 1:], ranked[..., :-1]
        near = best - behind <= _TIED * unit * np.maximum(np.abs(best), np.abs(behind))
        asked = np.zeros(rows, bool) if request is None else np.asarray(request) >= 0
        return np.asarray(near.reshape(rows, -1).any(axis=1) & ~asked)

    def verdicts(
        self,
        feed: Mapping[str, Array],
        request: Array | None,
        group: GradientGroup,
        output: GradientOutput,
        gradients: Mapping[str, Array],
        ordinary: Sequence[bool] | None = None,
        entry: int = 0,
    ) -> dict[str, list[str]]:
        """Returns what differences say of candidate gradients at one tensor, sample by sample.

        Args:
            feed: the inputs.
            request: the targets asked for, where they are.
            group: what is differentiated.
            output: says which tensor it is differentiated by.
            gradients: name -> a candidate.
            ordinary: for which samples more steps are tried where few confirm nothing; all where
                it is left out.
            entry: which of the classes, where several are explained.
        """
        rows = len(next(iter(gradients.values())))
        said = {name: [OPEN] * rows for name in gradients}
        asked = (feed, request, group, output, gradients, ordinary, entry)
        for tried in self._along(_directions, *asked):
            ordered, near = _from_large_to_small(tried.slopes), _near(tried.slopes)
            for name, claim in tried.claims.items():
                for row in np.flatnonzero(_lengths(tried.direction)).tolist():
                    found = verdict(claim[row], ordered, row)
                    if found == REFUTED:  # a large step confirms, but does not refute: scores bend
                        found = verdict(claim[row], near, row)
                    if found == REFUTED and tried.points.on_kinks[row]:
                        found = by_a_kink(claim[row], _near(tried.with_kinks), row)
                    said[name][row] = worse(said[name][row], found)
        return said

    def at_a_kink(
        self,
        feed: Mapping[str, Array],
        request: Array | None,
        group: GradientGroup,
        output: GradientOutput,
        gradients: Mapping[str, Array],
        entry: int = 0,
    ) -> list[bool]:
        """Tells in which samples the score has a kink that explains why two gradients differ.

        That is where the slopes to both sides differ by as much along what they differ by, and both
        lie between these, channel by channel: in one channel a kink may point up, in another down.
        Channels in which they differ by rounding alone need none. Behind a maximum whose
        candidates are equal up to rounding (a saturated tanh) there are many such gradients, and
        which one comes out is for rounding to say. At many points few channels are looked at: a
        kink explains nothing there where gradients differ in others, too.

        Args:
            feed, request, group, output, gradients, entry: as for `verdicts`.
        """
        ours, theirs = gradients.values()
        unseen: Array = ours != theirs
        found = _any_in_row(unseen)
        channel = channel_axis(output.axes)
        channels = 1 if channel is None else ours.shape[channel]
        rounded = self._alike * _lengths(theirs) / np.sqrt(channels)
        asked = (feed, request, group, output, gradients, None, entry)
        for tried in self._along(_apart_by_channel, *asked):
            still = tried.direction == 0
            unseen = unseen & still
            apart = _lengths(np.where(still, 0.0, ours.astype(np.float64) - theirs))
            for row in np.flatnonzero(apart > rounded).tolist():
                each = [claim[row] for claim in tried.claims.values()]
                found[row] = found[row] and between_sides(each, _near(tried.slopes), row)
        return [a and not b for a, b in zip(found, _any_in_row(unseen), strict=True)]

    def _along(
        self,
        directions_of: Callable[[Mapping[str, Array], Array, int | None], list[Array]],
        feed: Mapping[str, Array],
        request: Array | None,
        group: GradientGroup,
        output: GradientOutput,
        gradients: Mapping[str, Array],
        ordinary: Sequence[bool] | None,
        entry: int,
    ) -> Iterator[_Tried]:
        """Yields directions, what gradients claim of each, and the slopes at some steps."""
        scores, tensors = self._moved.at(feed, {})
        position, ref = self._groups.index(group), output.ref
        weights = group.target.weights(feed)
        chosen = seeds(scores[position], group.target.spec, request, weights)[entry]
        base = tensors[ref].astype(np.float64)
        where, sizes = _points(group, output, tensors)
        sampled = output.probe.gradients_at() is not None
        at = self._moved.holding_masks if sampled else self._moved.at

        def each(shift: Array) -> Array:
            found = []
            for weight, there, factor in where:
                moves = {**there, ref: shift * factor + there.get(ref, 0.0)}
                moved = at(feed, moves)[0][position].astype(np.float64)
                found.append(weight * (moved * chosen).reshape(len(moved), -1).sum(axis=1))
            return np.stack(found)

        points = Points(each, base)
        largest = np.abs(scores[position].astype(np.float64) * chosen)
        unit = max(_unit(scores[position].dtype), self._unit)
        steps = (*STEPS, *_MORE_STEPS) if len(where) == 1 else _STEPS_OF_POINTS
        scales = _ROUNDINGS if len(where) == 1 else _ROUNDINGS[1::2]
        noise = 8 * unit * largest.reshape(len(largest), -1).sum(axis=1)
        if tensors[ref].dtype.kind in "fV":  # in which moves are rounded
            unit = max(unit, _unit(tensors[ref].dtype))
        points.noise = np.maximum(noise, _jitter(points, base, unit, scales))
        directions = directions_of(gradients, base, channel_axis(output.axes))
        for direction in directions if len(where) == 1 else directions[:_FEW]:
            claims = {
                name: (gradient.astype(np.float64) * direction).reshape(len(base), -1).sum(axis=1)
                / sizes
                for name, gradient in gradients.items()
            }
            slopes: dict[float, Slopes] = {}
            for step in steps:
                if _enough(slopes, len(where)) and _settled(claims, slopes, ordinary):
                    break
                slopes[step] = points.slopes(direction, step)
            for step in _SMALLEST_STEPS:
                if step not in slopes and _is_any_refuted(claims, slopes, ordinary):
                    slopes[step] = points.slopes(direction, step)
            yield _Tried(direction, claims, slopes, points)

    def tensor(self, feed: Mapping[str, Array], ref: TensorRef) -> Array:
        """Returns the tensor that is moved, as it is."""
        value: Array = self._moved.at(feed, {})[1][ref].astype(np.float64)
        return value


def _points(
    group: GradientGroup, output: GradientOutput, tensors: Mapping[TensorRef, Array]
) -> tuple[list[tuple[float, dict[TensorRef, Array], Array]], Array]:
    """Returns where gradients are taken.

    Returns:
        For each point what it counts, what tensors are moved by, and what the gradient at the
        output's own tensor is multiplied by, rows first; and for each row the size of the factors,
        which they are divided by: a step is to be as small as it says.
    """
    rows, one = len(tensors[output.ref]), np.ones(())
    if output.probe.gradients_at() is None:
        return [(1.0, {}, one)], one
    together = next(
        outputs for outputs in moved_together(group) if any(o is output for o in outputs)
    )
    samples = samples_of(together)[0]
    shifts: list[dict[TensorRef, Array]] = [{} for _ in samples.weights]
    factors: list[Array] = []
    for other in together:
        value = as_described(tensors[other.ref].astype(np.float64), other.axes)
        walk = NumpyWalk(samples, value, other.place)
        for point, shift in zip(walk.points(), shifts, strict=True):
            shift[other.ref] = rows_first(point.at - point.value, other.axes, rows)
            factor = walk.factor(point) if other is output else None
            if factor is not None:
                factors.append(rows_first(np.broadcast_to(factor, value.shape), other.axes, rows))
    if not factors:
        return [(w, there, one) for w, there in zip(samples.weights, shifts, strict=True)], one
    sizes = np.max([np.abs(f).reshape(rows, -1).max(axis=1) for f in factors], axis=0)
    sizes = np.where(sizes > 0, sizes, 1.0)
    scaled = [f / sizes.reshape(-1, *[1] * (f.ndim - 1)) for f in factors]
    return list(zip(samples.weights, shifts, scaled, strict=True)), sizes


def _enough(slopes: Mapping[float, Slopes], points: int) -> bool:
    """Tells whether as many steps were tried as are always tried."""
    return len(slopes) >= (len(STEPS) if points == 1 else 1)


def _places_by_rank(target: TargetSpec) -> int:
    """Returns up to which place a target asks for the class there: 2 for the runner-up, or none."""
    if target.mode == "contrast":
        return max((_PLACES.get(side, 0) for side in target.chosen or ()), default=0)
    return int(target.mode in _BY_RANK)


def _settled(
    claims: Mapping[str, Array], slopes: Mapping[float, Slopes], ordinary: Sequence[bool] | None
) -> bool:
    """Tells whether every claim of a sample that matters is confirmed."""
    return _of_those_that_matter(claims, _from_large_to_small(slopes), ordinary) <= {CONFIRMED}


def _is_any_refuted(
    claims: Mapping[str, Array], slopes: Mapping[float, Slopes], ordinary: Sequence[bool] | None
) -> bool:
    """Tells whether a claim of a sample that matters is refuted."""
    return REFUTED in _of_those_that_matter(claims, _near(slopes), ordinary)


def _of_those_that_matter(
    claims: Mapping[str, Array], slopes: Sequence[Slopes], ordinary: Sequence[bool] | None
) -> set[str]:
    """Returns what is said of the claims of samples that matter: of all where that is not told."""
    rows = range(len(next(iter(claims.values()))))
    matter = [row for row in rows if ordinary is None or ordinary[row]]
    return {verdict(c[row], slopes, row) for c in claims.values() for row in matter}


def _from_large_to_small(slopes: Mapping[float, Slopes]) -> list[Slopes]:
    return [slopes[step] for step in sorted(slopes, reverse=True)]


def _near(slopes: Mapping[float, Slopes]) -> list[Slopes]:
    return _from_large_to_small({s: at for s, at in slopes.items() if s <= STEPS[0]})


def _any_in_row(flags: Array) -> list[bool]:
    return [bool(row.any()) for row in flags]


def _lengths(direction: Array) -> Array:
    found: Array = np.linalg.norm(direction.reshape(len(direction), -1), axis=1)
    return found


def _unit(dtype: np.dtype[Any]) -> float:
    """Returns the distance from 1 to the next number; bfloat16 is none of numpy's types."""
    return float(np.finfo(dtype).eps) if dtype.kind == "f" else 2.0**-7


def _directions(gradients: Mapping[str, Array], base: Array, channel: int | None) -> list[Array]:
    """Returns directions along which claims are tested, each of unit length in every sample.

    A gradient is the direction in which there is most to see, halves of it find what is wrong
    in a part of it, and the difference of two candidates is where they differ most. A gradient
    that is off by an angle has nearly its own slope along itself; not so along the signs of its
    largest elements, which are the largest of no other. Elements of
    equal value move together, so that ties stay ties: there the score has a slope, whichever
    of the tied elements the gradient was given to. Most windows that ties are in have one
    channel, so a channel also moves by itself.
    """
    given = [g.astype(np.float64) for g in gradients.values()]
    if len(given) > 1:
        given.append(given[0] - given[1])
    groups = np.stack([np.unique(row, return_inverse=True)[1].reshape(row.shape) for row in base])
    half = np.random.default_rng(0).random(base.size) < 0.5
    found = []
    for gradient in given:
        together = _averaged(gradient, groups)
        found += [together, together * half[groups], _largest_signs(together)]
        if channel is not None and base.ndim > 2:
            along = np.arange(base.shape[channel]).reshape(-1, *[1] * (base.ndim - 1 - channel))
            found.append(_averaged(gradient, groups * base.shape[channel] + along))
    nothing = _lengths(found[0]) == 0
    if nothing.any():
        # A gradient of zeros claims that nothing changes, whatever is moved.
        anywhere = _averaged(np.random.default_rng(1).normal(size=base.shape), groups)
        found.insert(0, anywhere * nothing.reshape(-1, *[1] * (base.ndim - 1)))
    return _of_unit_length(found)


def _of_unit_length(directions: Sequence[Array]) -> list[Array]:
    """Returns directions of unit length in every sample, without those that are 0 in all."""
    lengths = [_lengths(d) for d in directions]
    return [
        d / np.where(length > 0, length, 1.0).reshape(-1, *[1] * (d.ndim - 1))
        for d, length in zip(directions, lengths, strict=True)
        if length.any()
    ]


def _apart_by_channel(
    gradients: Mapping[str, Array], base: Array, channel: int | None
) -> list[Array]:
    """Returns what two gradients differ by in each channel, of unit length in every sample."""
    ours, theirs = (g.astype(np.float64) for g in gradients.values())
    apart = ours - theirs
    if channel is None:
        found = [apart]
    else:
        count = base.shape[channel]
        form = [count if axis == channel else 1 for axis in range(base.ndim)]
        found = [apart * mask.reshape(form) for mask in np.eye(count)]
    return _of_unit_length(found)


def _largest_signs(values: Array) -> Array:
    """Returns the signs of the largest elements of each sample, 0 elsewhere."""
    flat = np.abs(values.reshape(len(values), -1))
    least = np.quantile(flat, 1 - _SHARE_OF_LARGEST, axis=1, method="lower")
    least = np.maximum(least, np.finfo(np.float64).tiny).reshape(-1, *[1] * (values.ndim - 1))
    found: Array = np.where(np.abs(values) >= least, np.sign(values), 0.0)
    return found


def _averaged(values: Array, groups: Array) -> Array:
    """Returns values averaged over each group of elements, in each sample."""
    found = []
    for value, group in zip(values, groups, strict=True):
        of = group.reshape(-1)
        counts = np.maximum(np.bincount(of), 1)
        found.append((np.bincount(of, value.reshape(-1)) / counts)[of].reshape(value.shape))
    return np.stack(found)


def _jitter(points: Points, base: Array, unit: float, scales: Sequence[float]) -> Array:
    """Returns what scores are uncertain by: what they move by where a tensor is rounded.

    An exponential makes more of it than the rounding of a score says: a probability of 1e-9 is
    uncertain by the rounding of the logits. A sigmoid may be computed as a number near 1, and then
    moves in steps of its rounding, or not at all: the smallest step seen counts as well.
    """
    rng = np.random.default_rng(2)
    rounded, least = np.zeros(len(base)), np.full(len(base), np.inf)
    for scale in scales:
        size = max(scale, 2 * unit)
        shift = size * base * rng.choice((-1.0, 1.0), base.shape)
        moved = np.abs(points.score(shift) - points.start)
        if scale == 0:
            rounded = np.maximum(rounded, moved)
        least = np.where(moved > 0, np.minimum(least, moved), least)
    found: Array = np.maximum(2 * rounded, np.where(np.isfinite(least), least, 0.0))
    return found
