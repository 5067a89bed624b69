"""HiResCAM (Draelos and Carin 2020)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from probegen.methods.axes import Axes, channel_axes
from probegen.methods.base import OfLayer, Selector
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class HiResCAM(OfLayer):
    """HiResCAM: gradient times activation, place by place (Draelos and Carin 2020).

    Where a linear layer follows, the sum over the positions without the relu is the score but its
    bias. The relu, which the paper leaves to the eye, makes the map never negative, as all maps
    here are and as pytorch-grad-cam does. Axes and arguments as for `GradCAM`.
    """

    kind: ClassVar[str] = "hires_cam"
    title: ClassVar[str] = "HiResCAM"
    help: ClassVar[str] = "HiResCAM at LAYER; at the last layer with positions if left out."
    unit: ClassVar[str] = "score"
    equation: ClassVar[str] = "relu(sum_k (d target / d A_k) * A_k)"
    paper: ClassVar[str] = "Draelos and Carin 2020"

    layer: Selector = "auto"
    target: Target = "argmax"
    name: str | None = None

    def combine(self, ops: Operations[T], gradient: T, value: T, axes: Axes) -> T:
        """Returns the sum over the channels of gradient times activation."""
        return ops.relu(ops.sum(ops.mul(gradient, value), channel_axes(axes)))
