"""Guided backpropagation (Springenberg et al. 2014)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from probegen.artefact.manifest import SCORE_PER_INPUT
from probegen.methods.base import OfInputs, Selector
from probegen.methods.tables import GuidedRectifiers, Table
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class GuidedBackprop(OfInputs):
    """The gradient, of which rectifiers let the positive part pass alone (Springenberg 2014).

    At a rectifier f the gradient g becomes `max(f'(x), 0) * max(g, 0)`: for ReLU that is g where
    both g and x are positive, for ReLU6 also below 6. Leaky and smooth rectifiers (leaky ReLU,
    PReLU, ELU, SELU, CELU, softplus, Mish) let through by their own slope; GELU, SiLU and hard
    swish let nothing through where they fall. The function counts and not how it is spelled:
    `x * sigmoid(x)` is a SiLU, the pieces of a GELU are one. Sigmoid, hard sigmoid, tanh, softmax,
    gates with an input of their own and a maximum of two tensors are no rectifiers and keep their
    gradient.
    The rectifiers of recurrent cells, and of what loops and branches run, are no exception: at
    each step.

    Captum, Xplique and iNNvestigate do so for ReLU alone and leave (or refuse) other rectifiers.

    Attributes:
        target, wrt, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "guided_backprop"
    title: ClassVar[str] = "Guided backpropagation"
    help: ClassVar[str] = "Gradient, of which rectifiers let the positive part pass alone."
    unit: ClassVar[str] = SCORE_PER_INPUT
    equation: ClassVar[str] = "d target / d input, with max(f'(x), 0) max(g, 0) at rectifiers f"
    paper: ClassVar[str] = "Springenberg et al. 2014, sec. 3.4"

    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def table(self) -> Table:
        """Returns the rules of guided backpropagation."""
        return GuidedRectifiers()
