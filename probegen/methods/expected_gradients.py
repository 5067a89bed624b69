"""Expected gradients (Erion et al. 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from probegen.methods.axes import Axes, Sizes
from probegen.methods.base import OfInputs, Selector
from probegen.methods.baselines import Baseline, check_baseline, checked_samples, described
from probegen.methods.fields import check_chunk, check_whole, option
from probegen.methods.paths import Drawn
from probegen.methods.samples import Place
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class ExpectedGradients(OfInputs):
    """Integrated gradients from a background, in expectation (Erion et al. 2021, eq. 3).

    Each of `samples` gradients is taken at a point of its own: on the line from one of the
    background's samples to the input, at a fraction between 0 and 1 that is drawn. Samples of the
    background come in turn, each as often as the others or once more, and the fractions of each are
    drawn one from each of as many equal pieces: less is missing to the expectation than with
    independent draws. The draws are those of the seed, the same for every row of a batch and in
    every runtime.

    Attributes:
        background: samples to start from, `[n, ...]` with the shape of the input behind: a numpy
            array, nested lists or the path of an `.npy` file; where several tensors are explained,
            one for each by name, with as many samples. An axis of size 1 behind the first holds
            for all entries along it. The artefact holds it once.
        samples: gradients that are taken.
        seed: of the draws.
        chunk: how many points go through the model at once; as for `IntegratedGradients`.
        target, wrt, name, output, logits: as for `IntegratedGradients`.
    """

    kind: ClassVar[str] = "expected_gradients"
    title: ClassVar[str] = "Expected gradients"
    help: ClassVar[str] = "Integrated gradients from a background, in expectation."
    unit: ClassVar[str] = "score"
    sums_to_score: ClassVar[bool] = True
    has_completeness: ClassVar[bool] = True
    equation: ClassVar[str] = "mean over draws of (x - background) * d target / d x on the line"
    paper: ClassVar[str] = "Erion et al. 2021, eq. 3"
    fills: ClassVar[str] = "background"

    background: Baseline = option(dataclasses.MISSING, "Background (.npy)")
    samples: int = option(64, "Points", flag="draws", at_least=1)
    seed: int = option(0, "Seed of the draws", flag="draw-seed", at_least=0)
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None
    chunk: int | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole("samples", self.samples, 1)
        check_whole("seed", self.seed, 0)
        check_chunk(self.chunk)
        object.__setattr__(self, "background", checked_samples(self.background, "background"))

    def check_places(self, places: Sequence[tuple[Place, Sizes]]) -> None:
        """Checks the background against what is explained."""
        field = "pg.ExpectedGradients(background=...)"
        check_baseline(self.background, field, places, several=True)

    def gradients_at(self) -> Drawn:
        """Returns the points that are drawn."""
        return Drawn(self.samples, self.seed, self.background)

    def reference(self) -> Baseline:
        """Returns the background."""
        return self.background

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns the number of draws, their seed and the background's shape."""
        del axes
        return {
            "samples": self.samples,
            "seed": self.seed,
            "background": described(self.background),
        }
