"""Integrated gradients (Sundararajan et al. 2017)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

from probegen.errors import SpecError
from probegen.methods.axes import Axes
from probegen.methods.base import OfInputs, Selector, option
from probegen.methods.samples import Line, midpoints
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class IntegratedGradients(OfInputs):
    """Integrated gradients along the straight line (Sundararajan et al. 2017, eqs. 1 and 3).

    The integral is the midpoint rule with `steps` points; what is missing to completeness
    shrinks with the square of `steps`.

    Attributes:
        steps: points on the line from the baseline to the input.
        baseline: the value of every element of the baseline.
        target, wrt, name, output, logits: as for `InputGradient`. All that stands for the inputs
            moves along one line together, so that the sum over all of it is the difference of
            the scores; layers that `wrt` selects each have a line of their own.
    """

    kind: ClassVar[str] = "integrated_gradients"
    title: ClassVar[str] = "Integrated gradients"
    help: ClassVar[str] = "Integrated gradients from zero."
    unit: ClassVar[str] = "score"
    sums_to_score: ClassVar[bool] = True
    equation: ClassVar[str] = "(x - baseline) * mean of d target / d x on the line"
    paper: ClassVar[str] = "Sundararajan et al. 2017, eq. 3"

    steps: int = option(32, "Points", at_least=1)
    baseline: float = 0.0
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise SpecError(f"steps= takes a whole number of at least 1, got {self.steps!r}.")
        if not isinstance(self.baseline, int | float) or not math.isfinite(self.baseline):
            raise SpecError(f"baseline= takes a finite number, got {self.baseline!r}.")

    def gradients_at(self) -> Line:
        """Returns the midpoints of `steps` pieces of the line."""
        return midpoints(self.steps, float(self.baseline))

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns the rule's points and the baseline."""
        del axes
        return {"steps": self.steps, "baseline": self.baseline}
