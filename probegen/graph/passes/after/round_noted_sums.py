"""Sums of float16 that have to be rounded are rounded in the graph itself.

onnxruntime has next to no kernels for float16 on the processor: it computes in float32 between
casts, and takes away those that follow each other. A source notes the sums that this matters for:
what a model masks by a large number would be there again.
"""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.marks import ROUNDED

#: 2^13 + 1: a number of 24 bits less what is left of its product with this has the 11 of float16.
_SPLIT = 8193.0


def round_noted_sums(model: ir.Model) -> None:
    """Computes noted sums in float32, and rounds them by a product and two differences.

    `Sub(x, 65504)` of float16 -> `v = Sub(Cast(x), Cast(65504)); t = Mul(v, 8193);
    Cast(Where(IsInf(v), v, Sub(t, Sub(t, v))))`

    Leaves: sums that no source noted.
    """
    graph = model.graph
    b = Builder(graph, graph.opset_imports.get("", 0), prefix="probegen/rounded")
    for node in list(graph.all_nodes()):
        if not node.meta.get(ROUNDED, False) or node.graph is None:
            continue
        left, right = (b.cast(x, ir.DataType.FLOAT) for x in node.inputs if x is not None)
        exact = b.op(node.op_type, left, right, shape=node.outputs[0])
        narrow = b.cast(rounded(b, exact), ir.DataType.FLOAT16)
        b.replace(node, [narrow])


def rounded(b: Builder, exact: ir.Value) -> ir.Value:
    """Returns float32 numbers with as many bits as float16 has, which no runtime takes away."""
    times = b.op("Mul", exact, b.scalar(_SPLIT, exact), shape=exact)
    short = b.op("Sub", times, b.op("Sub", times, exact, shape=exact), shape=exact)
    endless = b.op("IsInf", exact, dtype=ir.DataType.BOOL, shape=exact)
    return b.where(endless, exact, short)
