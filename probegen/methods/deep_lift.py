"""DeepLIFT with the rescale rule (Shrikumar et al. 2017)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

from probegen.errors import SpecError
from probegen.methods.axes import Axes
from probegen.methods.base import OfInputs, Selector
from probegen.methods.tables import RescaledDifferences, Table
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class DeepLIFT(OfInputs):
    """Differences from a baseline, passed back in the place of slopes (Shrikumar et al. 2017).

    The sum of the attribution is the score less the score at the baseline. The baseline's own
    forward pass is a constant, which runtimes compute once, when they open the artefact.

    Functions of one tensor pass `dy / dx` (the rescale rule), however they are spelled; linear
    operators their vector-Jacobian product; a product of two tensors that change each factor
    times the mean of the other and its reference (Shapley's value of the two, Lundberg and Lee
    2017); softmax the rescale rule of its logarithm; a maximum gives what it gained to where it
    comes from and what it lost to where the reference comes from, as shap has it; normalisations
    are products of the centred tensor and its scale. Recurrent cells, loops, and choices by a
    comparison are refused by name. Captum differs at softmax (it subtracts the mean of the
    multipliers, which is not complete) and passes gradients through products of two tensors.

    Attributes:
        baseline: the value of every element of the baseline.
        target, wrt, name, output, logits: as for `InputGradient`. All that stands for the inputs
            is at its baseline together; layers that `wrt` selects each have one of their own.
    """

    kind: ClassVar[str] = "deep_lift"
    title: ClassVar[str] = "DeepLIFT"
    help: ClassVar[str] = "DeepLIFT (rescale rule): differences from a baseline."
    unit: ClassVar[str] = "score"
    sums_to_score: ClassVar[bool] = True
    equation: ClassVar[str] = "(x - baseline) * multiplier, with dy / dx in the place of slopes"
    paper: ClassVar[str] = "Shrikumar et al. 2017, secs. 3.3-3.5"

    baseline: float = 0.0
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        number = isinstance(self.baseline, int | float) and not isinstance(self.baseline, bool)
        if not number or not math.isfinite(self.baseline):
            raise SpecError(f"baseline= takes a finite number, got {self.baseline!r}.")

    def table(self) -> Table:
        """Returns the rules of the rescale rule."""
        return RescaledDifferences(float(self.baseline))

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns the baseline."""
        del axes
        return {"baseline": self.baseline}
