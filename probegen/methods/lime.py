"""LIME (Ribeiro et al. 2016)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from probegen.errors import SpecError
from probegen.methods.arrays import parse_number_or_array
from probegen.methods.axes import Axes
from probegen.methods.base import Selector
from probegen.methods.coalitions import Coalitions, lime
from probegen.methods.fields import check_whole, checked_number, option
from probegen.methods.games import Background, ByCoalitions
from probegen.methods.groups import GroupsField
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class LIME(ByCoalitions):
    """Coefficients of a linear model around the sample (Ribeiro et al. 2016, sec. 3.4).

    Points are drawn by the toss of a coin for each group, weighted by
    `sqrt(exp(-d^2 / kernel_width^2))` with the cosine distance `d = 1 - sqrt(share kept)`, and the
    score is fitted by ridge regression with an intercept, as the authors' library does it for
    images. The fit is solved once, at compile time, into a stored matrix.

    `[batch, ...positions]`: each position carries the coefficient of its group. `[batch, feature]`
    of plain vectors, `[batch, time]` of tokens, whose looked-up vectors are filled.

    Attributes:
        groups: as for `FeatureAblation`.
        background: what stands in the place of hidden groups, as for `KernelSHAP`.
        samples: points of the fit, the unchanged sample counted.
        kernel_width: how fast the weight of a point falls with its distance.
        ridge: the penalty on squared coefficients.
        seed: of the points.
        max_groups: with `groups="input"`, the most groups that a request has; those that a sample
            does not have get 0.
        chunk: points that go through the model at once; chosen where it is left out.
        target, wrt, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "lime"
    title: ClassVar[str] = "LIME"
    help: ClassVar[str] = "Coefficients of a linear model around the sample."
    unit: ClassVar[str] = "score"
    equation: ClassVar[str] = "coefficient of the group in a weighted ridge regression of target"
    paper: ClassVar[str] = "Ribeiro et al. 2016, sec. 3.4"
    fills: ClassVar[str] = "background"

    groups: GroupsField = option(None, "Groups (grid:7, input, or an .npy file)", parse=str)
    background: Background = option(
        0.0, "Background (a number or an .npy file)", parse=parse_number_or_array
    )
    samples: int = option(1000, "Points", flag="draws", at_least=2)
    kernel_width: float = 0.25
    ridge: float = 1.0
    seed: int = option(0, "Seed of the draws", flag="draw-seed", at_least=0)
    max_groups: int = dataclasses.field(default=64, kw_only=True)
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("samples", self.samples, 2)
        for field in ("kernel_width", "ridge"):
            number = checked_number(field, getattr(self, field))
            if number <= 0:
                raise SpecError(f"{field}= takes a number above 0, got {number}.")
            object.__setattr__(self, field, number)

    def coalitions(self, groups: int) -> Coalitions:
        """Returns the points that are drawn, and the solution of the fit."""
        return lime(groups, self.samples, self.kernel_width, self.ridge, self.seed)

    def point_count(self, groups: int) -> int:
        """Returns how many points there are."""
        del groups
        return self.samples

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns groups, background, samples, kernel, penalty and seed."""
        return {
            **super().detail(axes),
            "samples": self.samples,
            "kernel_width": self.kernel_width,
            "ridge": self.ridge,
            "seed": self.seed,
        }
