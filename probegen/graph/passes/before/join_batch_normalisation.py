"""A scale and a shift a channel become one BatchNormalization.

tf2onnx writes the batch normalisation that follows no convolution (DenseNet) as Mul and Add,
which takes onnxruntime out of its blocked layout at every layer; a BatchNormalization does not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.marks import MARK, MARK_DOMAIN, STOP_GRADIENT
from probegen.graph.core.queries import sole_reader
from probegen.graph.core.values import new_initializer, shape_of
from probegen.graph.passes.per_channel import one_per_channel


def join_batch_normalisation(model: ir.Model) -> None:
    """Writes a Mul and an Add by one number a channel as one BatchNormalization.

    `Add(Mul(x, s), t)` -> `BatchNormalization(x, s, t, mean=0, variance=1)`

    Needs: shapes inferred; images `[batch, channels, height, width]` of 32-bit floats.
    """
    graph = model.graph
    statistics: dict[tuple[int, float], ir.Value] = {}
    for node in list(graph):
        if node.op_type != "Mul" or node.domain:
            continue
        following = sole_reader(node.outputs[0])
        if following is None or following.op_type != "Add" or following.domain:
            continue
        for position in (0, 1):
            x, scale = node.inputs[position], one_per_channel(node, 1 - position)
            shift = one_per_channel(following, 1 - following.inputs.index(node.outputs[0]))
            if x is None or scale is None or shift is None or _is_probed_product(x):
                continue
            shape, whole = shape_of(x), shape_of(node.outputs[0])
            if shape is None or whole is None or len(shape) != 4 or shape[1] != whole[1]:
                continue  # one channel, which the scale makes many
            _normalise(x, (scale, shift), node, following, statistics)
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
        if node is None or not node.inputs or node.inputs[0] is None:
            return False
        if node.op_type in ("MatMul", "Gemm"):
            return probed
        if node.op_type not in ("Reshape", "Transpose", "Identity", MARK, STOP_GRADIENT):
            return False
        probed = probed or node.domain == MARK_DOMAIN
        value = node.inputs[0]


def _normalise(
    x: ir.Value,
    line: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    first: ir.Node,
    last: ir.Node,
    statistics: dict[tuple[int, float], ir.Value],
) -> None:
    """Replaces two nodes by a normalisation whose mean is 0 and whose variance is 1.

    Args:
        x: the images.
        line: scale and shift, `[channels]` each.
        first: the Mul.
        last: the Add.
        statistics: the vectors of one number, by width, which such normalisations share.
    """
    graph, result = last.graph, last.outputs[0]
    if graph is None:
        raise ValueError(f"{last.name!r} belongs to no graph")
    scale, shift = line
    operands = [
        new_initializer(graph, f"{result.name}/scale", scale),
        new_initializer(graph, f"{result.name}/shift", shift),
    ]
    for number in (0.0, 1.0):
        key = (len(scale), number)
        if key not in statistics:
            vector = np.full_like(scale, number)
            statistics[key] = new_initializer(graph, f"{result.name}/all_{number:g}", vector)
        operands.append(statistics[key])
    node = ir.node(
        "BatchNormalization", [x, *operands], attributes={"epsilon": 0.0}, name=last.name
    )
    node.outputs[0].type, node.outputs[0].shape = result.type, result.shape
    graph.insert_after(last, node)
    result.replace_all_uses_with(node.outputs[0], replace_graph_outputs=True)
    node.outputs[0].name = f"{result.name}/normalised"
    graph.remove([first, last], safe=True)
