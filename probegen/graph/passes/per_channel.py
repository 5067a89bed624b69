"""What passes over images ask: which constants hold one number a channel, which padding is zero."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.values import attribute, constant_of, shape_of


def one_per_channel(node: ir.Node, position: int) -> npt.NDArray[np.float32] | None:
    """Returns a constant operand of a node over images as `[channels]`, None for any other.

    Images are `[batch, channels, height, width]` of 32-bit floats.
    """
    array, shape = constant_of(node.inputs[position]), shape_of(node.outputs[0])
    if array is None or array.dtype != np.float32 or shape is None or len(shape) != 4:
        return None
    sizes = (1,) * (4 - array.ndim) + array.shape
    if not isinstance(shape[1], int) or sizes != (1, shape[1], 1, 1):
        return None
    return array.reshape(-1)


def zero_padding_of(node: ir.Node) -> list[int] | None:
    """Returns the widths of zeros that a Pad adds to the spatial axes, first all before, then
    all behind; None where it does anything else.
    """
    if node.op_type != "Pad" or node.domain or attribute(node, "mode", "constant") != "constant":
        return None
    _, widths_input, fill_input, axes, *_ = [*node.inputs, None, None, None]
    widths, fill = constant_of(widths_input), constant_of(fill_input)
    if widths is None or axes is not None or (fill_input is not None and fill is None):
        return None
    if fill is not None and fill.any():
        return None
    before, after = widths.reshape(2, -1).tolist()
    if any((*before[:2], *after[:2])) or min((*before, *after), default=0) < 0:
        return None
    return [*before[2:], *after[2:]]
