"""Takes out copies that nothing needs.

onnx-ir's own pass also takes out the copy that lets a subgraph return one value twice, as the
new state of a `Scan` and as what it collects. onnxruntime then gives both outputs one buffer,
and the state of the next step is wrong without any error.
"""

from __future__ import annotations

import onnx_ir as ir


def drop_identities(graph: ir.Graph) -> None:
    """Lets the readers of each Identity read its input, and drops it.

    It stays where it makes an output of a graph out of what is an output already, or of what
    no node of that graph made.
    """
    for node in list(graph.all_nodes()):
        original = node.inputs[0] if node.inputs else None
        if node.op_type != "Identity" or node.domain or original is None or node.graph is None:
            continue
        copy = node.outputs[0]
        if copy.is_graph_output():
            producer = original.producer()
            if original.is_graph_output() or producer is None or producer.graph is not node.graph:
                continue
            original.name = copy.name
        original.shape = original.shape if copy.shape is None else copy.shape
        original.type = original.type or copy.type
        ir.convenience.replace_all_uses_with(copy, original, replace_graph_outputs=True)
        node.graph.remove(node, safe=True)
