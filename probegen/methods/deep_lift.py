"""DeepLIFT with the rescale rule (Shrikumar et al. 2017)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from probegen.methods.arrays import parse_number_or_array
from probegen.methods.axes import Axes, Sizes
from probegen.methods.base import OfInputs, Selector
from probegen.methods.baselines import Baseline, check_baseline, checked_baseline, described
from probegen.methods.fields import option
from probegen.methods.samples import Place
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
    2017), and so do quotients and the larger of two tensors; softmax the rescale rule of its
    logarithm; norms and logarithms of sums that of each function around the sum; a maximum of more
    gives what it gained to where it comes from and what it lost to where the reference comes from,
    as shap has it; normalisations are products of the centred tensor and its scale. Recurrent
    layers (LSTM, GRU, SimpleRNN) are these rules step by step: their activations are functions of
    one tensor, a gate and what it lets through a product of two. Loops, whatever their length, are
    these rules in each step. A picture sampled at places that change is a product of both, whose
    coordinates share by Shapley's values. Of the largest few (`TopK`) the one largest has a rule.
    Choices by a comparison are refused by name. Captum differs at softmax
    (it subtracts the mean of the multipliers, which is not complete) and passes gradients through
    products of two tensors.

    Attributes:
        baseline: where differences are taken from: a number, an array of one sample's shape,
            several arrays (of whose results the mean is taken), `"blur"`, or one of these by name,
            as for `IntegratedGradients`.
        target, wrt, name, output, logits: as for `InputGradient`. All that stands for the inputs
            is at its baseline together; layers that `wrt` selects each have one of their own.
    """

    kind: ClassVar[str] = "deep_lift"
    title: ClassVar[str] = "DeepLIFT"
    help: ClassVar[str] = "DeepLIFT (rescale rule): differences from a baseline."
    unit: ClassVar[str] = "score"
    sums_to_score: ClassVar[bool] = True
    has_completeness: ClassVar[bool] = True
    equation: ClassVar[str] = "(x - baseline) * multiplier, with dy / dx in the place of slopes"
    paper: ClassVar[str] = "Shrikumar et al. 2017, secs. 3.3-3.5"
    fills: ClassVar[str] = "baseline"

    baseline: Baseline = option(0.0, "Baseline", parse=parse_number_or_array)
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "baseline", checked_baseline(self.baseline, "baseline"))

    def check_places(self, places: Sequence[tuple[Place, Sizes]]) -> None:
        """Checks the baseline against what is explained."""
        check_baseline(self.baseline, "pg.DeepLIFT(baseline=...)", places)

    def table(self) -> Table:
        """Returns the rules of the rescale rule."""
        return RescaledDifferences(self.baseline)

    def reference(self) -> Baseline:
        """Returns the baseline."""
        return self.baseline

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns the baseline."""
        del axes
        return {"baseline": described(self.baseline)}
