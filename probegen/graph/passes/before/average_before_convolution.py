"""A convolution of single elements works on the pooled image (the transitions of DenseNet)."""

from __future__ import annotations

import math

import onnx_ir as ir

from probegen.graph.core.queries import sole_reader
from probegen.graph.core.values import attribute, shape_of


def average_before_convolution(model: ir.Model) -> None:
    """Exchanges a convolution of single elements with the AveragePool that alone reads it.

    `AveragePool(Conv(x, w [8, 16, 1, 1]))` -> `Conv(AveragePool(x), w)`

    Both are linear and neither sees the other's axes, so the convolution works on the few elements
    of the pooled image instead.

    Needs: shapes inferred.
    """
    graph = model.graph
    for node in list(graph):
        result = node.inputs[0] if node.op_type == "AveragePool" and not node.domain else None
        conv = None if result is None else result.producer()
        if conv is None or result is None or not _is_on_single_elements(conv):
            continue
        pooled, images = node.outputs[0], conv.inputs[0]
        if sole_reader(result) is not node or pooled.is_graph_output():
            continue
        shape, before = shape_of(pooled), None if images is None else shape_of(images)
        if before is None or shape is None or not _averages_to_fewer(node):
            continue
        node.replace_input_with(0, images)
        pooled.replace_all_uses_with(result)
        conv.replace_input_with(0, pooled)
        result.shape = pooled.shape
        pooled.shape = ir.Shape([*shape[:1], before[1], *shape[2:]])
        graph.remove(conv)
        graph.insert_after(node, conv)


def _is_on_single_elements(conv: ir.Node) -> bool:
    """Tells whether a node is a convolution of single elements, each of them."""
    if conv.op_type != "Conv" or conv.domain or conv.inputs[1] is None:
        return False
    kernel = shape_of(conv.inputs[1])
    return (
        kernel is not None
        and all(size == 1 for size in kernel[2:])
        and all(s == 1 for s in attribute(conv, "strides", [1]))
        and not any(attribute(conv, "pads", [0]))
    )


def _averages_to_fewer(pool: ir.Node) -> bool:
    """Tells whether a pooling leaves fewer elements, and averages whole windows only."""
    kernel = attribute(pool, "kernel_shape")
    strides = attribute(pool, "strides") or [1] * len(kernel)
    return (
        math.prod(strides) > 1
        and not any(attribute(pool, "pads", [0]))
        and attribute(pool, "auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and not attribute(pool, "ceil_mode", 0)
    )
