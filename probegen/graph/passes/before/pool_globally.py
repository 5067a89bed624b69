"""The mean of images over height and width becomes a global pooling.

tf2onnx writes global average pooling as a mean over transposed images, which takes onnxruntime out
of the blocked layout of its convolutions, on the way forward and on the way back.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from probegen.graph.core.replacing import take_place
from probegen.graph.core.values import attribute, constant_of, new_initializer, shape_of

_SPATIAL = (2, 3)
_CHANNELS_LAST = [0, 2, 3, 1]
#: How many operators back a convolution is looked for.
_NEAR = 8


def pool_globally(model: ir.Model) -> None:
    """Writes the mean of images over height and width as a GlobalAveragePool.

    `ReduceMean<keepdims=0>(Transpose<perm=[0,2,3,1]>(x), [1, 2])`
    -> `Squeeze(GlobalAveragePool(x), [2, 3])`

    Needs: shapes inferred; images of 32-bit floats.
    Leaves: the Transpose, which nothing may need any more.
    """
    for node in list(model.graph):
        if node.op_type != "ReduceMean" or node.domain or node.outputs[0].is_graph_output():
            continue
        images = _averaged_images(node)
        if images is not None:
            _pool(model.graph, node, *images)


def _averaged_images(node: ir.Node) -> tuple[ir.Value, bool] | None:
    """Returns `[batch, channels, height, width]` and whether a mean sees the channels last."""
    value = node.inputs[0]
    axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 else attribute(node, "axes")
    if value is None or axes is None or value.dtype != ir.DataType.FLOAT:
        return None
    over = tuple(sorted(int(a) % 4 for a in axes))
    shape = shape_of(value)
    if shape is None or len(shape) != 4:
        return None
    transpose = value.producer()
    if transpose is not None and transpose.op_type == "Transpose" and not transpose.domain:
        images, last = transpose.inputs[0], True
        fits = attribute(transpose, "perm") == _CHANNELS_LAST and over == (1, 2)
    else:
        images, last, fits = value, False, over == _SPATIAL and _is_near_convolution(value)
    return (images, last) if fits and images is not None else None


def _is_near_convolution(value: ir.Value) -> bool:
    """Tells whether a value comes from a convolution, but for what goes element by element."""
    for _ in range(_NEAR):
        node = value.producer()
        if node is None or node.domain:
            return False
        if node.op_type in ("Conv", "MaxPool", "AveragePool"):
            return True
        first = node.inputs[0] if node.inputs else None
        if first is None or shape_of(first) != shape_of(value):
            return False
        value = first
    return False


def _pool(graph: ir.Graph, node: ir.Node, images: ir.Value, channels_last: bool) -> None:
    """Puts a GlobalAveragePool in the place of a mean, and brings it into its shape."""
    result = node.outputs[0]
    sizes = shape_of(images) or (None, None)
    pool = ir.node("GlobalAveragePool", [images], name=f"{result.name}/pool")
    pooled = pool.outputs[0]
    pooled.name, pooled.type = f"{result.name}/pooled", images.type
    pooled.shape = ir.Shape([*sizes[:2], 1, 1])
    new = [pool]
    if not attribute(node, "keepdims", 1):
        axes = new_initializer(graph, f"{result.name}/axes", np.array(_SPATIAL))
        new.append(ir.node("Squeeze", [pooled, axes], name=node.name))
    elif channels_last:
        perm = {"perm": _CHANNELS_LAST}
        new.append(ir.node("Transpose", [pooled], attributes=perm, name=node.name))
    graph.insert_before(node, new)
    take_place(result, new[-1].outputs[0])
    graph.remove(node, safe=True)
