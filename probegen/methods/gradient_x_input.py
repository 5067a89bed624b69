"""Gradient times input (Shrikumar et al. 2016)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from probegen.methods.axes import Axes
from probegen.methods.base import OfInputs, Selector
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class GradientXInput(OfInputs):
    """The gradient times what it is taken at (Shrikumar et al. 2016; Ancona et al. 2018, table 1).

    Signed, of the shape of the input. Where the score is linear in what is explained, it adds up
    to the score but its bias. For ids it is the gradient at the embedding times the embedding.
    Arguments as for `InputGradient`.
    """

    kind: ClassVar[str] = "gradient_x_input"
    title: ClassVar[str] = "Gradient x input"
    help: ClassVar[str] = "Gradient times input, signed."
    unit: ClassVar[str] = "score"
    equation: ClassVar[str] = "x * d target / d x"
    paper: ClassVar[str] = "Shrikumar et al. 2016; Ancona et al. 2018, table 1"

    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def combine(self, ops: Operations[T], gradient: T, value: T, axes: Axes) -> T:
        """Returns the gradient times the value."""
        del axes
        return ops.mul(gradient, value)
