"""XGrad-CAM (Fu et al. 2020)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from probegen.methods.axes import Axes, channel_axes, position_axes
from probegen.methods.base import OfLayer, Selector
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class XGradCAM(OfLayer):
    """XGrad-CAM: gradients averaged with the activations for weights (Fu et al. 2020).

    A channel whose activations add up to exactly 0 has no such average and the weight 0: where it
    is 0 everywhere it adds nothing to the map anyway. Where activations of both signs nearly
    cancel, the weight is large, as by the paper's definition; the paper has them behind a ReLU.
    pytorch-grad-cam adds 1e-7 to the sum. Axes and arguments as for `GradCAM`.
    """

    kind: ClassVar[str] = "x_grad_cam"
    title: ClassVar[str] = "XGrad-CAM"
    help: ClassVar[str] = "XGrad-CAM at LAYER; at the last layer with positions if left out."
    unit: ClassVar[str] = "weighted activation"
    equation: ClassVar[str] = (
        "relu(sum_k w_k A_k), w_k = sum over positions of (d target / d A_k) A_k / sum(A_k)"
    )
    paper: ClassVar[str] = "Fu et al. 2020"

    layer: Selector = "auto"
    target: Target = "argmax"
    name: str | None = None

    def combine(self, ops: Operations[T], gradient: T, value: T, axes: Axes) -> T:
        """Returns the sum of the channels, each times the average of its gradients."""
        places = position_axes(axes)
        total = ops.sum(value, places, keepdims=True)
        defined = ops.greater(ops.abs(total), 0.0)
        weighted = ops.sum(ops.mul(gradient, value), places, keepdims=True)
        averages = ops.div(weighted, ops.where(defined, total, 1.0))
        weights = ops.where(defined, averages, 0.0)
        return ops.relu(ops.sum(ops.mul(weights, value), channel_axes(axes)))
