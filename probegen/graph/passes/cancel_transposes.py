"""Takes out transposes that undo each other.

They meet where a mark stood between them during conversion, and where the backward pass turns
a gradient the way its forward value was turned.
"""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.values import attribute


def cancel_transposes(graph: ir.Graph) -> None:
    """Makes each Transpose of a Transpose read the first one's input; drops it where nothing
    is turned at all. The first one stays for its other readers, or is unused.
    """
    for node in list(graph.all_nodes()):
        if node.op_type != "Transpose" or node.domain:
            continue
        before = node.inputs[0]
        perm = attribute(node, "perm")
        while before is not None and perm is not None:
            earlier = before.producer()
            if earlier is None or earlier.op_type != "Transpose" or earlier.domain:
                break
            first = attribute(earlier, "perm")
            if first is None:
                break
            before, perm = earlier.inputs[0], [first[p] for p in perm]
        if before is None or before is node.inputs[0]:
            continue
        result = node.outputs[0]
        if perm == sorted(perm) and not result.is_graph_output():
            result.replace_all_uses_with(before)
        else:
            node.replace_input_with(0, before)
            node.attributes["perm"] = ir.AttrInt64s("perm", perm)
