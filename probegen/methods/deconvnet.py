"""Deconvolution (Zeiler and Fergus 2014)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from probegen.artefact.manifest import SCORE_PER_INPUT
from probegen.methods.base import OfInputs, Selector
from probegen.methods.tables import DeconvolvedRectifiers, Table
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class Deconvnet(OfInputs):
    """The gradient with rectifiers that rectify it in their own place (Zeiler and Fergus 2014).

    At every rectifier the gradient g becomes `max(g, 0)`, whatever the rectifier's input is, times
    what it scales large inputs by, which is 1 for all but SELU.
    Which functions are rectifiers is said at `GuidedBackprop`. Max pooling sends the gradient to
    where the largest element was, as the paper's switches do.

    Attributes:
        target, wrt, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "deconvnet"
    title: ClassVar[str] = "Deconvolution"
    help: ClassVar[str] = "Gradient, which rectifiers rectify in their own place."
    unit: ClassVar[str] = SCORE_PER_INPUT
    equation: ClassVar[str] = "d target / d input, with max(g, 0) at rectifiers"
    paper: ClassVar[str] = "Zeiler and Fergus 2014, sec. 2.1"

    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def table(self) -> Table:
        """Returns the rules of deconvolution."""
        return DeconvolvedRectifiers()
