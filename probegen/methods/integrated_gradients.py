"""Integrated gradients (Sundararajan et al. 2017)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from probegen.methods.arrays import parse_number_or_array
from probegen.methods.axes import Axes, Sizes
from probegen.methods.base import OfInputs, Selector
from probegen.methods.baselines import Baseline, check_baseline, checked_baseline, described
from probegen.methods.fields import check_choice, check_chunk, check_whole, option
from probegen.methods.paths import Line
from probegen.methods.quadrature import AT_LEAST, RULES
from probegen.methods.samples import Place
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class IntegratedGradients(OfInputs):
    """Integrated gradients along the straight line (Sundararajan et al. 2017, eqs. 1 and 3).

    Attributes:
        steps: gradients that are taken on each line.
        baseline: where the line starts. A number, for every element; an array of one sample's
            shape (a numpy array, nested lists, the path of an `.npy` file), in which an axis of
            size 1 holds for all entries along it; several such arrays, with one more axis in
            front, of whose results the mean is taken (each costs `steps` gradients);
            `"blur"`, the input blurred over its positions by a Gaussian with a standard deviation
            of 10 positions, or `"blur:5"` of 5. Where several tensors are explained a number
            holds for all of them; other baselines are given by name,
            `{"image": array, "age": 0.0}`.
        rule: how the integral is put together. `"midpoint"`: the middles of `steps` equal pieces;
            what is missing to completeness shrinks with the square of `steps`. `"trapezoid"`:
            `steps` points at equal distances, the baseline and the input among them.
            `"gauss_legendre"`: exact for a gradient that is a polynomial of degree 2 steps - 1
            along the line. Captum calls them `riemann_middle`, `riemann_trapezoid` (whose weights
            sum to (steps - 1) / steps) and `gausslegendre`.
        chunk: how many points go through the model at once, in one batch, in ONNX artefacts; chosen
            where it is left out: all activations of these points, and their gradients, take no more
            than the weights do, which makes it 1 for most convolutional networks, and 256 MiB a
            sample at most; there are 16 at most. Memory grows with it. The result does not depend
            on it. Where a graph is written for a fixed number of samples, it is 1.
        target, wrt, name, output, logits: as for `InputGradient`. All that stands for the inputs
            moves along one line together, so that the sum over all of it is the difference of
            the scores; layers that `wrt` selects each have a line of their own.
    """

    kind: ClassVar[str] = "integrated_gradients"
    title: ClassVar[str] = "Integrated gradients"
    help: ClassVar[str] = "Integrated gradients from a baseline."
    unit: ClassVar[str] = "score"
    sums_to_score: ClassVar[bool] = True
    has_completeness: ClassVar[bool] = True
    equation: ClassVar[str] = "(x - baseline) * mean of d target / d x on the line"
    paper: ClassVar[str] = "Sundararajan et al. 2017, eq. 3"
    fills: ClassVar[str] = "baseline"

    steps: int = option(32, "Points", at_least=1)
    baseline: Baseline = option(0.0, "Baseline", parse=parse_number_or_array)
    rule: str = option("midpoint", "Quadrature rule", flag="quadrature")
    chunk: int | None = None
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("rule", self.rule or "", tuple(RULES))
        check_whole("steps", self.steps, AT_LEAST.get(self.rule, 1))
        check_chunk(self.chunk)
        object.__setattr__(self, "baseline", checked_baseline(self.baseline, "baseline"))

    def check_places(self, places: Sequence[tuple[Place, Sizes]]) -> None:
        """Checks the baseline against what is explained."""
        check_baseline(self.baseline, "pg.IntegratedGradients(baseline=...)", places)

    def gradients_at(self) -> Line:
        """Returns the points of the rule on the line."""
        fractions, weights = RULES[self.rule](self.steps)
        return Line(fractions, weights, self.baseline)

    def reference(self) -> Baseline:
        """Returns the baseline."""
        return self.baseline

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns the rule, its points and the baseline."""
        del axes
        return {"steps": self.steps, "baseline": described(self.baseline), "rule": self.rule}
