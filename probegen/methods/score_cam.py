"""Score-CAM (Wang et al. 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from probegen.methods.axes import Axes, Sizes, channel_axis, position_axes
from probegen.methods.base import Selector
from probegen.methods.by_scores import (
    OfLayerByScores,
    Subject,
    hidden_axes,
    masked,
    share_of_range,
)
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target

#: What larger scores count as, infinite ones too; scores have 32 bits or more.
_MOST = 3e38


@dataclasses.dataclass(frozen=True)
class ScoreCAM(OfLayerByScores):
    """Score-weighted class activation map (Wang et al. 2020, eqs. 3 to 6).

    Each channel of the layer, interpolated linearly to the size of the input and brought to 0 to 1
    (its smallest value in the sample is 0, its largest 1; a channel that is the same everywhere
    gives 0), masks the input. The weights of the channels are the softmax over the channels of the
    target's score at the masked inputs; what the paper takes away from each, the score of a
    baseline, cancels in it. The score is a logit unless `logits=False`. One pass a channel.

    `[batch, ...positions of the layer]`, never negative. What is masked are the inputs that the
    layer depends on and that have its axes of positions, in the same order: behind a layer that
    runs backwards, or a flip, it is refused.

    Attributes:
        layer: as for `GradCAM`.
        upsample: bring the map to the size of the input whose positions the layer's are.
        chunk: points that go through the model at once; chosen where it is left out.
        target, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "score_cam"
    title: ClassVar[str] = "Score-CAM"
    help: ClassVar[str] = "Class activation map of the scores of masked inputs."
    unit: ClassVar[str] = "weighted activation"
    equation: ClassVar[str] = "relu(sum_k softmax_k(target(x * normalised A_k)) A_k)"
    paper: ClassVar[str] = "Wang et al. 2020, eqs. 3-6"
    moves_inputs: ClassVar[bool] = True

    layer: Selector = "auto"
    target: Target = "argmax"
    name: str | None = None

    def count(self, axes: Axes, sizes: Sizes) -> int | None:
        """Returns the number of channels."""
        return sizes[_channels(axes)]

    def prepared(self, ops: Operations[T], subject: Subject[T]) -> tuple[T, ...]:
        """Returns the layer's maps, `[channels, batch, ...positions]`."""
        axes = subject.axes
        order = (_channels(axes), 0, *position_axes(axes))
        return (ops.transpose(ops.widened(subject.value), order),)

    def counted(self, ops: Operations[T], prepared: Sequence[T]) -> T:
        """Returns the number of channels."""
        return ops.add(ops.max(ops.counted(prepared[0], 0), (0,)), 1.0)

    def changed(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, value: T, axes: Axes
    ) -> T:
        """Returns the input times channels of the layer."""
        found = ops.gather(prepared[0], numbers, 0)
        places = hidden_axes(axes)
        for i, axis in enumerate(places, start=2):
            found = ops.resize(found, i, value, axis)
        over = tuple(range(2, 2 + len(places)))
        return masked(ops, value, share_of_range(ops, found, over), axes)

    def start(self, ops: Operations[T], prepared: Sequence[T], score: T) -> tuple[T, ...]:
        """Returns zeros, one a channel."""
        rank = ops.rank(prepared[0])
        each = ops.transpose(ops.max(prepared[0], tuple(range(2, rank))), (1, 0))
        return (ops.cast(ops.zeros_like(each), score),)

    def added(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, scores: T, score: T
    ) -> tuple[T, ...]:
        """Returns the score of each point at the place of its channel."""
        every = ops.expand_dims(ops.counted(prepared[0], 0), (0,))
        same = ops.greater(0.5, ops.abs(ops.sub(every, ops.expand_dims(numbers, (1,)))))
        at = ops.expand_dims(ops.cast(same, score), (1,))
        return (ops.where(ops.greater(at, 0.5), ops.expand_dims(scores, (2,)), 0.0),)

    def explained(
        self,
        ops: Operations[T],
        subject: Subject[T],
        prepared: Sequence[T],
        sums: Sequence[T],
        score: T,
    ) -> T:
        """Returns the sum of the maps, each weighted by the softmax of the scores."""
        del subject
        # Infinite scores count as equal: infinity less infinity is no number.
        scores = ops.where(ops.greater(sums[0], _MOST), _MOST, sums[0])
        scores = ops.where(ops.greater(-_MOST, scores), -_MOST, scores)
        grown = ops.exp(ops.sub(scores, ops.max(scores, (1,), keepdims=True)))
        weights = ops.transpose(ops.div(grown, ops.sum(grown, (1,), keepdims=True)), (1, 0))
        maps = ops.cast(prepared[0], score)
        weights = ops.expand_dims(weights, tuple(range(2, ops.rank(maps))))
        return ops.relu(ops.sum(ops.mul(weights, maps), (0,)))


def _channels(axes: Axes) -> int:
    """Returns the axis of the channels, which every point that carries a map has."""
    found = channel_axis(axes)
    return len(axes) - 1 if found is None else found
