"""Takes out casts that lead back to what was cast."""

from __future__ import annotations

from collections.abc import Mapping, Set

import onnx_ir as ir

from probegen.graph.core.queries import key_of
from probegen.graph.core.replacing import add_shape

#: Type -> those that hold each of its numbers.
_WIDER: Mapping[ir.DataType | None, Set[ir.DataType]] = {
    ir.DataType.FLOAT16: {ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.BFLOAT16: {ir.DataType.FLOAT, ir.DataType.DOUBLE},
    ir.DataType.FLOAT: {ir.DataType.DOUBLE},
}


def drop_casts_back(model: ir.Model) -> None:
    """Lets the readers of a number that was cast to a wider type and back read the number.

    `Relu(Cast<float16>(Cast<float>(x)))` of a float16 x -> `Relu(x)`

    onnxruntime (1.32) drops such casts too, and forgets that bodies of loops read the last one from
    outside, so that a run fails.

    Needs: element types.
    Leaves: a result that is an output of its graph; and the cast to the wider type, which goes with
    the unused nodes where nobody else reads it.
    """
    for node in list(model.graph.all_nodes()):
        wide = node.inputs[0] if node.inputs else None
        inner = None if wide is None else wide.producer()
        if wide is None or inner is None or key_of(node) != "Cast" or key_of(inner) != "Cast":
            continue
        result, original = node.outputs[0], inner.inputs[0]
        if original is None or node.graph is None or result.is_graph_output():
            continue
        if original.dtype != result.dtype or wide.dtype not in _WIDER.get(original.dtype, ()):
            continue
        add_shape(original, result)
        ir.convenience.replace_all_uses_with(result, original)
        node.graph.remove(node, safe=True)
