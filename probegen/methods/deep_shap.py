"""DeepSHAP (Lundberg and Lee 2017)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from probegen.methods.axes import Axes, Sizes
from probegen.methods.base import OfInputs, Selector
from probegen.methods.baselines import Baseline, check_baseline, checked_samples, described
from probegen.methods.fields import option
from probegen.methods.samples import Place
from probegen.methods.tables import RescaledDifferences, Table
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class DeepSHAP(OfInputs):
    """DeepLIFT, averaged over the samples of a background (Lundberg and Lee 2017, sec. 4.2).

    The sum of the attribution is the score less the mean score over the background. The rules are
    those of `DeepLIFT`. Each sample of the background costs a backward pass, and a forward pass of
    one sample; the graph holds both once.

    Attributes:
        background: samples to start from, `[n, ...]` with the shape of the input behind, as for
            `ExpectedGradients`. The artefact holds it once.
        target, wrt, name, output, logits: as for `DeepLIFT`.
    """

    kind: ClassVar[str] = "deep_shap"
    title: ClassVar[str] = "DeepSHAP"
    help: ClassVar[str] = "DeepLIFT, averaged over a background."
    unit: ClassVar[str] = "score"
    sums_to_score: ClassVar[bool] = True
    has_completeness: ClassVar[bool] = True
    equation: ClassVar[str] = "mean over the background of (x - background) * multiplier"
    paper: ClassVar[str] = "Lundberg and Lee 2017, sec. 4.2"
    fills: ClassVar[str] = "background"

    background: Baseline = option(dataclasses.MISSING, "Background (.npy)")
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "background", checked_samples(self.background, "background"))

    def check_places(self, places: Sequence[tuple[Place, Sizes]]) -> None:
        """Checks the background against what is explained."""
        check_baseline(self.background, "pg.DeepSHAP(background=...)", places, several=True)

    def table(self) -> Table:
        """Returns the rules of the rescale rule."""
        return RescaledDifferences(self.background)

    def reference(self) -> Baseline:
        """Returns the background."""
        return self.background

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns the background's shape."""
        del axes
        return {"background": described(self.background)}
