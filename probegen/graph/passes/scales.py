"""Scales a channel: as batch normalisations going forward, next to a convolution going back.

tf2onnx writes the batch normalisation that follows no convolution (DenseNet) as Mul and Add,
which takes onnxruntime out of its blocked layout at every layer; a BatchNormalization does not.
Its gradient is a product with the scale. It comes behind the mask of an activation, but may as
well come before, where a runtime merges it with the convolution that made the gradient.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from probegen.graph.core.marks import MARK, MARK_DOMAIN, STOP_GRADIENT
from probegen.graph.core.queries import sole_reader
from probegen.graph.core.values import constant_of, new_initializer, shape_of


def merge_into_normalisations(graph: ir.Graph) -> None:
    """Writes a Mul and an Add by one number a channel as one BatchNormalization.

    Needs: shapes inferred; images `[batch, channels, height, width]` of 32-bit floats.
    Leaves: the same values up to rounding.
    """
    shared: dict[tuple[int, float], ir.Value] = {}
    for node in list(graph.all_nodes()):
        if node.op_type != "Mul" or node.domain or node.graph is not graph:
            continue
        following = sole_reader(node.outputs[0])
        if following is None or following.op_type != "Add" or following.domain:
            continue
        for position in (0, 1):
            x, scale = node.inputs[position], _a_channel(node, 1 - position)
            shift = _a_channel(following, 1 - following.inputs.index(node.outputs[0]))
            if x is None or scale is None or shift is None or _is_probed_product(x):
                continue
            _normalise(x, scale, shift, node, following, shared)
            break


def _is_probed_product(value: ir.Value) -> bool:
    """Tells whether a value is a matrix product, turned or reshaped, and on the way an output.

    onnxruntime merges a normalisation into the product behind which it follows alone, and does
    not see that an output of the graph is read as well: that would come out normalised.
    """
    probed = False
    while True:
        node = value.producer()
        probed = probed or value.is_graph_output()
        if node is None or node.inputs[0] is None:
            return False
        if node.op_type in ("MatMul", "Gemm"):
            return probed
        if node.op_type not in ("Reshape", "Transpose", "Identity", MARK, STOP_GRADIENT):
            return False
        probed = probed or node.domain == MARK_DOMAIN
        value = node.inputs[0]


def _normalise(
    x: ir.Value,
    scale: np.ndarray,
    shift: np.ndarray,
    first: ir.Node,
    last: ir.Node,
    shared: dict[tuple[int, float], ir.Value],
) -> None:
    """Replaces two nodes by a normalisation whose mean is 0 and whose variance is 1.

    `shared` holds the vectors of one number that normalisations of equal width have in common.
    """
    graph, result = last.graph, last.outputs[0]
    if graph is None:
        raise ValueError(f"{last.name!r} belongs to no graph")
    statistics = [
        new_initializer(graph, f"{result.name}/scale", scale),
        new_initializer(graph, f"{result.name}/shift", shift),
    ]
    for number in (0.0, 1.0):
        key = (len(scale), number)
        if key not in shared:
            vector = np.full_like(scale, number)
            shared[key] = new_initializer(graph, f"{result.name}/all_{number:g}", vector)
        statistics.append(shared[key])
    node = ir.node(
        "BatchNormalization", [x, *statistics], attributes={"epsilon": 0.0}, name=last.name
    )
    node.outputs[0].type, node.outputs[0].shape = result.type, result.shape
    graph.insert_after(last, node)
    result.replace_all_uses_with(node.outputs[0], replace_graph_outputs=True)
    node.outputs[0].name = f"{result.name}/normalised"
    graph.remove([first, last], safe=True)


def scale_before_masks(graph: ir.Graph) -> None:
    """Moves a Mul by one number a channel before other Muls, up to the Conv they start from.

    Leaves: the same values up to rounding.
    """
    for node in list(graph.all_nodes()):
        while node.op_type == "Mul" and not node.domain and _moved_up(node):
            pass


def _moved_up(node: ir.Node) -> bool:
    """Exchanges a product with the one before it, where that leads towards a convolution."""
    for position in (0, 1):
        before = node.inputs[position]
        mask = None if before is None else before.producer()
        if (
            mask is None
            or before is None
            or mask.op_type != "Mul"
            or mask.domain
            or sole_reader(before) is not node
            or _a_channel(node, 1 - position) is None
        ):
            continue
        for other in (0, 1):
            scaled = mask.inputs[other]
            if scaled is not None and _comes_from_conv(scaled, mask):
                _exchange(node, position, mask, other)
                return True
    return False


def _comes_from_conv(value: ir.Value, reader: ir.Node) -> bool:
    """Tells whether a value is a convolution's, but for products, and read once all the way."""
    producer = value.producer()
    if producer is None or producer.domain or sole_reader(value) is not reader:
        return False
    if producer.op_type == "Mul":
        return any(v is not None and _comes_from_conv(v, producer) for v in producer.inputs)
    return producer.op_type == "Conv"


def _exchange(node: ir.Node, position: int, mask: ir.Node, other: int) -> None:
    """Turns (a * mask) * scale into (a * scale) * mask."""
    graph, result, product = node.graph, node.outputs[0], mask.outputs[0]
    if graph is None:
        raise ValueError(f"{node.name!r} belongs to no graph")
    result.replace_all_uses_with(product, replace_graph_outputs=True)
    node.replace_input_with(position, mask.inputs[other])
    mask.replace_input_with(other, result)
    graph.remove(node)
    graph.insert_before(mask, node)


def _a_channel(node: ir.Node, position: int) -> np.ndarray | None:
    """Returns an operand of a node over images as `[channels]`, None where it is none."""
    array, shape = constant_of(node.inputs[position]), shape_of(node.outputs[0])
    if array is None or array.dtype != np.float32 or shape is None or len(shape) != 4:
        return None
    sizes = (1,) * (4 - array.ndim) + array.shape
    if not isinstance(shape[1], int) or sizes != (1, shape[1], 1, 1):
        return None
    return array.reshape(-1)
