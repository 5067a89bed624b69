"""Computes once what is computed twice in the same way.

onnx-ir's own pass joins draws of Bernoulli and Dropout as well, which are to differ.
"""

from __future__ import annotations

from collections.abc import Hashable

import onnx_ir as ir

from probegen.graph.core.replacing import add_shape, replace_value

#: Operators that give something else each time.
RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike"}
)
#: Elements of a constant up to which equal ones become one.
_SMALL = 10


def join_repeated_nodes(model: ir.Model) -> None:
    """Lets all readers of nodes that do the same to the same inputs read the first of these.

    `a = Exp(x); b = Exp(x); y = Add(a, b)` -> `a = Exp(x); y = Add(a, a)`

    Needs: topological order.
    Leaves: nodes that hold subgraphs or draw at random; subgraphs.
    """
    first: dict[Hashable, ir.Node] = {}
    for node in list(model.graph):
        key = _what_it_does(node)
        if key is None:
            continue
        earlier = first.setdefault(key, node)
        if earlier is node:
            continue
        for old, new in zip(node.outputs, earlier.outputs, strict=True):
            name = old.name
            taken_over = old.is_graph_output() and not new.is_graph_output()
            add_shape(new, old)
            replace_value(old, new)
            if taken_over:
                old.name, new.name = f"{name}/joined", name
        model.graph.remove(node, safe=True)


def _what_it_does(node: ir.Node) -> Hashable | None:
    """Returns what two nodes share where they give the same, None where that is not known."""
    if not node.domain and node.op_type in RANDOM:
        return None
    attributes: list[Hashable] = []
    for name, attribute in sorted(node.attributes.items()):
        if attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            return None
        value = attribute.value
        if attribute.type == ir.AttributeType.TENSOR:
            tensor = attribute.as_tensor()
            if tensor.size > _SMALL or tensor.dtype == ir.DataType.STRING:
                return None
            value = (tuple(tensor.shape), tensor.dtype, tensor.tobytes())
        elif isinstance(value, list | tuple):
            value = tuple(value)
        attributes.append((name, attribute.type, value))
    operator = node.op_identifier()
    return (operator, len(node.outputs), tuple(map(id, node.inputs)), tuple(attributes))
