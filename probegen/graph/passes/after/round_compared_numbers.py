"""Numbers of float16 that are compared with what was made of them are rounded before.

onnxruntime has kernels for float16 of few functions on the processor, which round; around all
others it computes in float32 between casts, and takes away those that follow each other. A number
and the larger of it and a smaller one are equal in float16, and were not here: where two tie
neither got a gradient.
"""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import key_of
from probegen.graph.passes.after.round_noted_sums import rounded

_COMPARING = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"})
#: Functions that choose among numbers, which have kernels for float16.
_CHOOSING = frozenset({"Max", "Min", "Clip"})


def round_compared_numbers(model: ir.Model) -> None:
    """Compares in float32, after both numbers are rounded as float16 is; see `round_noted_sums`.

    `Equal(x, Max(x, z))` of float16 -> `Equal(r(Cast(x)), r(Cast(Max(x, z))))`, where `r(v)` is
    `Sub(Mul(v, 8193), Sub(Mul(v, 8193), v))`, or `v` where that is infinite

    Leaves: what is not compared with a choice among it and others.
    """
    graph = model.graph
    b = Builder(graph, graph.opset_imports.get("", 0), prefix="probegen/compared")
    for node in list(graph.all_nodes()):
        if key_of(node) not in _COMPARING or node.graph is None or len(node.inputs) != 2:
            continue
        left, right = node.inputs
        if left is None or right is None or left.dtype != ir.DataType.FLOAT16:
            continue
        if not (_is_chosen_of(left, right) or _is_chosen_of(right, left)):
            continue
        for place, value in enumerate((left, right)):
            node.replace_input_with(place, rounded(b, b.cast(value, ir.DataType.FLOAT)))
        b.insert_before(node)


def _is_chosen_of(made: ir.Value, number: ir.Value) -> bool:
    """Tells whether a value is the choice of a number or others, or the choice of such a choice."""
    pending, seen = [made], {made}
    while pending:
        node = pending.pop().producer()
        if node is None or key_of(node) not in _CHOOSING:
            continue
        for read in node.inputs:
            if read is number:
                return True
            if read is not None and read not in seen:
                seen.add(read)
                pending.append(read)
    return False
