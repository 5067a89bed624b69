"""Grad-CAM++ (Chattopadhay et al. 2018)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from probegen.methods.axes import Axes, channel_axes, position_axes
from probegen.methods.base import OfLayer, Selector
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class GradCAMPlusPlus(OfLayer):
    """Grad-CAM++: positions that speak for the target count more (Chattopadhay et al. 2018).

    The closed form of eq. 19 from first derivatives, where the class score is the exponential of
    the target: the second and third derivatives are then powers of the first, and the weight of a
    position is `g^2 / (2 g^2 + sum(A) g^3) = 1 / (2 + sum(A) g)`, with `sum(A)` over all positions
    of the channel. The factor `exp(target)` of every weight of a sample is left out, and so is the
    weight of a position where the denominator is 0. Axes and arguments as for `GradCAM`.

    pytorch-grad-cam computes the same, but adds 1e-6 to the denominator `2 g^2 + sum(A) g^3`, which
    makes all weights small where gradients are below 1e-3. tf-keras-vis keeps `exp(target)` and
    divides the weights of each channel by their sum over the positions, as the authors' code does
    and the paper does not.
    """

    kind: ClassVar[str] = "grad_cam_plus_plus"
    title: ClassVar[str] = "Grad-CAM++"
    help: ClassVar[str] = "Grad-CAM++ at LAYER; at the last layer with positions if left out."
    unit: ClassVar[str] = "weighted activation"
    equation: ClassVar[str] = (
        "relu(sum_k w_k A_k), w_k = sum of relu(g_k) / (2 + g_k sum(A_k)) over the positions, "
        "g_k = d target / d A_k"
    )
    paper: ClassVar[str] = "Chattopadhay et al. 2018, eqs. 10 and 19"

    layer: Selector = "auto"
    target: Target = "argmax"
    name: str | None = None

    def combine(self, ops: Operations[T], gradient: T, value: T, axes: Axes) -> T:
        """Returns the sum of the layer's channels, each times the sum of its weighted gradients."""
        places = position_axes(axes)
        denominator = ops.add(ops.mul(gradient, ops.sum(value, places, keepdims=True)), 2.0)
        defined = ops.greater(ops.abs(denominator), 0.0)
        weighted = ops.div(ops.relu(gradient), ops.where(defined, denominator, 1.0))
        weights = ops.sum(ops.where(defined, weighted, 0.0), places, keepdims=True)
        return ops.relu(ops.sum(ops.mul(weights, value), channel_axes(axes)))
