"""Takes the gate out of a finished artefact's graph again: what explains, without an `If`."""

from __future__ import annotations

import onnx_ir as ir

from probegen.artefact.manifest import GATE_INPUT
from probegen.graph.assemble import name_outputs
from probegen.graph.core.replacing import remove_whole
from probegen.graph.core.values import constant_of, static_shape
from probegen.graph.passes.after.drop_unused_initializers import drop_unused_initializers


def remove_gate(model: ir.Model) -> None:
    """Moves the branch that explains into the graph around it.

    `If(explain, everything, predictions)` -> `everything`; `Conv(x, Reshape(w, shape of w))`, which
    a branch has for onnxruntime's sake -> `Conv(x, w)`

    Needs: a graph that `gate.add_gate` made.
    Leaves: no input `explain`; outputs by the same names, in the same order.
    """
    graph = model.graph
    gate = next(n for n in graph if n.op_type == "If" and _asks(n.inputs[0]))
    names = [value.name or "" for value in graph.outputs]
    branch = gate.attributes["then_branch"].as_graph()
    made, nodes = list(branch.outputs), list(branch)
    branch.outputs.clear()
    branch.remove(nodes)
    described = [(value.type, value.shape) for value in made]
    graph.outputs.clear()
    graph.insert_before(gate, nodes)
    plain = gate.attributes["else_branch"].as_graph()
    plain.outputs.clear()
    remove_whole(plain, plain)  # or weights would still count as read by it
    graph.remove(gate, safe=True)
    graph.outputs.extend(made)
    for value, (dtype, shape) in zip(graph.outputs, described, strict=True):
        value.type, value.shape = value.type or dtype, value.shape or shape
    for value in [value for value in graph.inputs if _asks(value)]:
        graph.inputs.remove(value)
        graph.initializers.pop(GATE_INPUT, None)
    _drop_own_weights(graph)
    drop_unused_initializers(model)
    name_outputs(graph, names)


def _asks(value: ir.Value | None) -> bool:
    return value is not None and value.name == GATE_INPUT


def _drop_own_weights(graph: ir.Graph) -> None:
    """Takes out reshapes of stored weights to the shapes that they have."""
    for node in list(graph):
        weights, shape = (*node.inputs, None)[:2]
        if node.op_type != "Reshape" or weights is None or shape is None:
            continue
        to = constant_of(shape)
        if to is None or not weights.is_initializer():
            continue
        if static_shape(weights) == tuple(to.tolist()):
            ir.convenience.replace_all_uses_with(node.outputs[0], weights)
            graph.remove(node, safe=True)
