"""A throw-away method, as somebody would add one: this file, and a line in the table."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from probegen.artefact.manifest import NEVER_NEGATIVE
from probegen.methods.axes import Axes, channel_axis
from probegen.methods.base import OfInputs, Selector
from probegen.methods.fields import option
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class GradientSquared(OfInputs):
    """The squared gradient, summed over the channels, times a factor."""

    kind: ClassVar[str] = "gradient_squared"
    title: ClassVar[str] = "Gradient squared"
    help: ClassVar[str] = "Sum of squared gradients."
    unit: ClassVar[str] = "squared score per squared unit of input"
    sign: ClassVar[str] = NEVER_NEGATIVE
    equation: ClassVar[str] = "factor * sum over channels of (d target / d input)^2"
    paper: ClassVar[str] = "Nobody 2026, eq. 7"

    factor: float = option(1.0, "Factor")
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def kept_axes(self, axes: Axes, layer: str = "the layer") -> tuple[int, ...]:
        del layer
        return tuple(i for i in range(len(axes)) if i != channel_axis(axes))

    def combine(self, ops: Operations[T], gradient: T, value: T, axes: Axes) -> T:
        del value
        channel = channel_axis(axes)
        total = ops.sum(ops.mul(gradient, gradient), () if channel is None else (channel,))
        return ops.mul(total, self.factor)

    def detail(self, axes: Axes) -> dict[str, Any]:
        del axes
        return {"factor": self.factor}
