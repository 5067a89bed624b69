"""Grad-CAM (Selvaraju et al. 2017)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from probegen.methods.axes import Axes, channel_axes, position_axes
from probegen.methods.base import OfLayer, Selector
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class GradCAM(OfLayer):
    """Gradient-weighted class activation map (Selvaraju et al. 2017, eqs. 1 and 2).

    Not normalised. The map has the axes of the layer's output without its channels, wherever these
    stand: `[batch, time]`, `[batch, height, width]`, `[batch, depth, height, width]`; a film has
    `[batch, time, height, width]`. A layer that is called several times gives one map a call,
    `grad_cam/<path>#<call>`. Of a layer with several outputs the first is explained. Where an ONNX
    file joins the frames of a film with its samples, each frame has a map with weights of its own,
    `[batch, frame, height, width]`.

    Attributes:
        layer: a selector of one layer, a list of several, or `"auto"`: the last layer whose output
            still has positions, on each of the ways that run to the target beside each other (the
            calls of a shared tower, the towers of several inputs). Layers of which the target sees
            one position alone (a class token, a last step), and no gradient the others, are passed
            over where there are others, and so are the scores themselves (a segmentation).
        upsample: bring the map to the size of the input whose positions the layer's are, by
            linear interpolation along each axis with half-pixel centres (`linear` and `half_pixel`
            of ONNX's Resize, `bilinear` of `tf.image.resize`). Beyond the outermost centres the
            value of the edge goes on.
        target, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "grad_cam"
    title: ClassVar[str] = "Grad-CAM"
    help: ClassVar[str] = "Grad-CAM at LAYER; at the last layer with positions if left out."
    unit: ClassVar[str] = "weighted activation"
    equation: ClassVar[str] = "relu(sum_k mean(d target / d A_k) A_k)"
    paper: ClassVar[str] = "Selvaraju et al. 2017, eqs. 1-2"

    layer: Selector = "auto"
    target: Target = "argmax"
    name: str | None = None

    def combine(self, ops: Operations[T], gradient: T, value: T, axes: Axes) -> T:
        """Returns the sum of the layer's channels, each weighted by its mean gradient."""
        weights = ops.mean(gradient, position_axes(axes), keepdims=True)
        return ops.relu(ops.sum(ops.mul(weights, value), channel_axes(axes)))
