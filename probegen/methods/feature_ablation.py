"""Ablation of features, tokens, or groups of positions (Covert et al. 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from probegen.methods.axes import Axes, Sizes
from probegen.methods.base import Selector
from probegen.methods.by_scores import (
    Subject,
    Windows,
    beside_channels,
    beside_positions,
    hidden_axes,
    of_positions,
)
from probegen.methods.fields import checked_number, option
from probegen.methods.groups import ByGroups, GroupsField
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class FeatureAblation(ByGroups):
    """What hiding one group of positions takes from the score (Covert et al. 2021, sec. 4.1).

    `[batch, ...positions]`: each position carries the value of its group. `[batch, feature]` of
    plain vectors, `[batch, time]` of tokens, whose looked-up vectors are filled. One pass a group.

    Attributes:
        groups: which positions are hidden together: None for each position, feature or token by
            itself; `"grid:7"` for 7 cells along each axis; an array with the number of its group
            for each position of one sample (all channels of a position are hidden together); or
            `"input"`: the artefact gets an int32 input `groups`, `[batch, ...positions]`, numbers
            from 0, and runs as many passes as the largest of them and one.
        fill: the number that is put in the place of what is hidden.
        chunk: points that go through the model at once; chosen where it is left out.
        target, wrt, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "feature_ablation"
    title: ClassVar[str] = "Feature ablation"
    help: ClassVar[str] = "What hiding each feature, token or group takes from the score."
    unit: ClassVar[str] = "score"
    equation: ClassVar[str] = "target(x) - target(x with the group hidden)"
    paper: ClassVar[str] = "Covert et al. 2021, sec. 4.1"
    fills: ClassVar[str] = "fill"

    groups: GroupsField = option(None, "Groups (grid:7, input, or an .npy file)", parse=str)
    fill: float = option(0.0, "What hides")
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "fill", checked_number("fill", self.fill))

    def count(self, axes: Axes, sizes: Sizes) -> int | None:
        """Returns the number of groups."""
        return self.group_count(axes, sizes)

    def windows(self, axes: Axes, sizes: Sizes) -> tuple[Windows, ...] | None:
        """Returns the windows that the groups are, where they are such."""
        return self.windows_of_groups(axes, sizes)

    def prepared(self, ops: Operations[T], subject: Subject[T]) -> tuple[T, ...]:
        """Returns the number of each position's group, and zeros."""
        numbers = self.group_numbers(ops, subject)
        return numbers, of_positions(ops, subject.value, subject.axes, numbers)

    def counted(self, ops: Operations[T], prepared: Sequence[T]) -> T:
        """Returns the largest number of a group and one; 1 at least."""
        largest = ops.max(prepared[0], tuple(range(ops.rank(prepared[0]))))
        return ops.add(ops.relu(largest), 1.0)

    def _hidden(self, ops: Operations[T], prepared: Sequence[T], numbers: T) -> T:
        """Returns 1 where a position is hidden, else 0: `[points, 1 or batch, ...positions]`."""
        groups = ops.expand_dims(prepared[0], (0,))
        asked = ops.expand_dims(numbers, tuple(range(1, ops.rank(groups))))
        same = ops.greater(0.5, ops.abs(ops.sub(groups, asked)))
        return ops.cast(same, numbers)

    def changed(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, value: T, axes: Axes
    ) -> T:
        """Returns the tensor with one group filled."""
        hidden = beside_channels(ops, self._hidden(ops, prepared, numbers), axes)
        return ops.where(ops.greater(hidden, 0.5), self.fill, ops.expand_dims(value, (0,)))

    def start(self, ops: Operations[T], prepared: Sequence[T], score: T) -> tuple[T, ...]:
        """Returns zeros."""
        return (ops.cast(prepared[1], score),)

    def added(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, scores: T, score: T
    ) -> tuple[T, ...]:
        """Returns what a group takes from the score, where its positions are."""
        hidden = self._hidden(ops, prepared, numbers)
        taken = ops.sub(ops.expand_dims(score, (0,)), scores)
        taken = beside_positions(ops, taken, ops.rank(hidden) - 2)
        return (ops.mul(ops.cast(hidden, score), taken),)

    def explained(
        self,
        ops: Operations[T],
        subject: Subject[T],
        prepared: Sequence[T],
        sums: Sequence[T],
        score: T,
    ) -> T:
        """Returns the sums: each position was hidden once."""
        del ops, subject, prepared, score
        return sums[0]

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns the groups and the fill."""
        return {**super().detail(axes), "fill": self.fill, "hidden_axes": len(hidden_axes(axes))}
