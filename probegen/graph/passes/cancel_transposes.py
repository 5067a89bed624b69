"""Takes out transposes that undo each other.

They meet where a mark stood between them during conversion, and where the backward pass turns
a gradient the way its forward value was turned.
"""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.replacing import add_shape
from probegen.graph.core.values import attribute


def cancel_transposes(model: ir.Model) -> None:
    """Lets a Transpose of a Transpose read what the first one reads, or drops it.

    `Transpose<perm=[0,2,1]>(Transpose<perm=[0,2,1]>(x))` -> `x`;
    `Transpose<perm=[1,2,0]>(Transpose<perm=[1,2,0]>(x))` -> `Transpose<perm=[2,0,1]>(x)`

    Leaves: the first one, which other nodes may read.
    """
    for node in list(model.graph.all_nodes()):
        perm = _order_of(node)
        if perm is None:
            continue
        source = node.inputs[0]
        while source is not None:
            earlier = source.producer()
            first = None if earlier is None else _order_of(earlier)
            if earlier is None or first is None or len(first) != len(perm):
                break
            source, perm = earlier.inputs[0], [first[p] for p in perm]
        if source is None or source is node.inputs[0]:
            continue
        result = node.outputs[0]
        if perm == sorted(perm) and not result.is_graph_output():
            add_shape(source, result)
            result.replace_all_uses_with(source)
        else:
            node.replace_input_with(0, source)
            node.attributes["perm"] = ir.AttrInt64s("perm", perm)


def _order_of(node: ir.Node) -> list[int] | None:
    """Returns the order of axes of a Transpose; None for other nodes and where it is unknown."""
    if node.op_type != "Transpose" or node.domain or node.inputs[0] is None:
        return None
    perm: list[int] | None = attribute(node, "perm")
    if perm is None and node.inputs[0].shape is not None:
        perm = list(range(len(node.inputs[0].shape)))[::-1]
    return perm
