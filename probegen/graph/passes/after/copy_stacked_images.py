"""What convolutions in the bodies of Scans read, where cuDNN can read it.

onnxruntime lets a body write what a Scan stacks straight into its place in the stacked result. Such
a place begins at any multiple of a step's size, and cuDNN refuses to read images there
(`CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER`). A value that is stacked through a copy has memory of
its own; the copy costs little beside a convolution.
"""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import attribute
from probegen.graph.loops.iteration import body_of

_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


def copy_stacked_images(model: ir.Model) -> None:
    """Lets Scans stack copies of what convolutions in their bodies read.

    body returns v, which `Conv(v, w)` reads -> body returns `Identity(v)`
    """
    graph = model.graph
    b = Builder(graph, graph.opset_imports.get("", 0), prefix="probegen/stacked")
    for node in graph.all_nodes():
        if node.op_type != "Scan" or node.domain:
            continue
        body = body_of(node)
        states = len(node.inputs) - int(attribute(node, "num_scan_inputs"))
        for position, value in enumerate(body.outputs):
            if position >= states and _is_image(value, body):
                body.outputs[position] = b.op("Identity", value, shape=value)
        body.extend(b.nodes)
        b.nodes = []


def _is_image(value: ir.Value, body: ir.Graph) -> bool:
    """Tells whether a convolution reads a value that the body computes."""
    producer = value.producer()
    return (
        producer is not None
        and producer.graph is body
        and any(
            reader.op_type in _CONVOLUTIONS and not reader.domain and reader.inputs[0] is value
            for reader in value.consumers()
        )
    )
