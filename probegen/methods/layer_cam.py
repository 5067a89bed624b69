"""LayerCAM (Jiang et al. 2021)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from probegen.methods.axes import Axes, channel_axes
from probegen.methods.base import OfLayer, Selector
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class LayerCAM(OfLayer):
    """LayerCAM: activations weighed by their positive gradients (Jiang et al. 2021).

    Fine enough for early layers. The paper's scaling of early maps by a hyperbolic tangent is a
    matter of the picture and left out. Axes and arguments as for `GradCAM`.
    """

    kind: ClassVar[str] = "layer_cam"
    title: ClassVar[str] = "LayerCAM"
    help: ClassVar[str] = "LayerCAM at LAYER; at the last layer with positions if left out."
    unit: ClassVar[str] = "score"
    equation: ClassVar[str] = "relu(sum_k relu(d target / d A_k) * A_k)"
    paper: ClassVar[str] = "Jiang et al. 2021"

    layer: Selector = "auto"
    target: Target = "argmax"
    name: str | None = None

    def combine(self, ops: Operations[T], gradient: T, value: T, axes: Axes) -> T:
        """Returns the sum over the channels of positive gradient times activation."""
        weighted = ops.mul(ops.relu(gradient), value)
        return ops.relu(ops.sum(weighted, channel_axes(axes)))
