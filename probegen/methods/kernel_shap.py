"""KernelSHAP (Lundberg and Lee 2017)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from probegen.artefact.manifest import SUM_DETAIL
from probegen.errors import SpecError
from probegen.methods.arrays import parse_number_or_array
from probegen.methods.axes import Axes
from probegen.methods.base import Selector
from probegen.methods.coalitions import Coalitions, shapley, usual_samples
from probegen.methods.fields import check_whole, option
from probegen.methods.games import Background, ByCoalitions
from probegen.methods.groups import GroupsField
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class KernelSHAP(ByCoalitions):
    """Shapley values of features, tokens or groups (Lundberg and Lee 2017, eqs. 8 and 9).

    The players are groups of positions of one input; other inputs stay as they are. The values of
    the groups add up to the score minus the score with all groups hidden. Where all coalitions but
    the empty and the full one fit in `samples` (2^n - 2 of n groups), the values are exact:
    Shapley's own formula. Otherwise coalitions are drawn as in shap, and the constrained least
    squares are solved once, at compile time, into a stored matrix that scores are multiplied with.

    `[batch, ...positions]`: each position carries the value of its group. `[batch, feature]` of
    plain vectors, `[batch, time]` of tokens, whose looked-up vectors are filled.

    Attributes:
        groups: as for `FeatureAblation`.
        background: what stands in the place of hidden groups: a number, an array of one sample's
            shape, or several such samples (a first axis more), whose scores are averaged: the model
            runs once for each coalition and each of them. An axis of size 1 holds for all entries
            along it. Of tokens an array is one of looked-up vectors. For several inputs a table by
            their names.
        samples: coalitions that are run, empty and full one aside; 2 n + 2048 for n groups where it
            is left out.
        seed: of the coalitions that are drawn.
        max_groups: with `groups="input"`, the most groups that a request has. A group that a
            sample does not have gets nothing; where coalitions are drawn, what the least squares
            gave it is shared alike by those that are there.
        chunk: points that go through the model at once; chosen where it is left out.
        target, wrt, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "kernel_shap"
    title: ClassVar[str] = "KernelSHAP"
    help: ClassVar[str] = "Shapley values of features, tokens or groups."
    unit: ClassVar[str] = "score"
    has_completeness: ClassVar[bool] = True
    equation: ClassVar[str] = "Shapley value of the group in the game target(groups kept)"
    paper: ClassVar[str] = "Lundberg and Lee 2017, eqs. 8-9"
    fills: ClassVar[str] = "background"

    groups: GroupsField = option(None, "Groups (grid:7, input, or an .npy file)", parse=str)
    background: Background = option(
        0.0, "Background (a number or an .npy file)", parse=parse_number_or_array
    )
    samples: int | None = None
    seed: int = option(0, "Seed of the draws", flag="draw-seed", at_least=0)
    max_groups: int = dataclasses.field(default=64, kw_only=True)
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples is not None:
            check_whole("samples", self.samples, 2)
        if self.completeness and self.groups is not None:
            raise SpecError(
                "pg.KernelSHAP(completeness=True) goes without groups=: with groups each position "
                "carries the value of its whole group, so that positions do not add up."
            )

    def reference(self) -> Background:
        """Returns the background."""
        return self.background

    def _samples(self, groups: int) -> int:
        return usual_samples(groups) if self.samples is None else self.samples

    def coalitions(self, groups: int) -> Coalitions:
        """Returns all coalitions where they fit in `samples`, else some."""
        return shapley(groups, self._samples(groups), self.seed)

    def point_count(self, groups: int) -> int:
        """Returns how many points there are at most."""
        return int(min(2 ** min(groups, 40), self._samples(groups) + 1))

    def without_absent(self, ops: Operations[T], values: T, there: T) -> T:
        """Returns values whose sum stays: what absent groups have is shared by the others."""
        kept = ops.mul(values, there)
        left = ops.sub(ops.sum(values, (1,), keepdims=True), ops.sum(kept, (1,), keepdims=True))
        count = ops.sum(there, (1,), keepdims=True)
        one = ops.add(ops.relu(ops.sub(count, 1.0)), 1.0)
        return ops.add(kept, ops.mul(there, ops.div(left, one)))

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns groups, background, samples and seed; without groups the values add up."""
        told = {**super().detail(axes), "samples": self.samples, "seed": self.seed}
        return told if self.groups is not None else {**told, SUM_DETAIL: True}
