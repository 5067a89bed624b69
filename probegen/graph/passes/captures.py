"""What the bodies of loops read from outside, in the form that every engine reads right.

ONNX lets a body read any value of the graph around it. OpenVINO's reader of ONNX files counts such
values among a Scan's own inputs and refuses the file, unless they are stored constants. It also
refuses a Loop whose body hands an input on as an output, which is how tf2onnx writes what no step
changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.copying import copy_node
from probegen.graph.core.queries import captured_values, inputs_of
from probegen.graph.core.values import subgraphs_of
from probegen.graph.loops.iteration import iteration_of

#: Positions of a Loop's states behind the number of steps and the condition.
_STATES = 2
#: Operators that give something else at each step.
_DRAWS = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike"}
)


def drop_fixed_states(graph: ir.Graph) -> None:
    """Lets the bodies of Loops read what no step changes from outside.

    `Loop(n, go, s, w)` whose body returns w as it is -> `Loop(n, go, s)` whose body reads w.

    Leaves: the same values. A session copies no weight at each step then, and may prepare it once.
    """
    opset = graph.opset_imports.get("", 0)
    for node in list(graph.all_nodes()):
        if node.op_type == "Loop" and not node.domain:
            _drop_fixed(node, opset)


def carry_captured(graph: ir.Graph) -> None:
    """Gives each Scan what its body reads from outside as further states, which no step changes.

    `Scan(s, x)` whose body reads c -> `Scan(s, c, x)` whose body returns a copy of c.

    What is stored is read from outside as before. What is computed from stored values alone is
    computed in the body: a session folds it when it loads, and copies nothing at each step.

    Needs: nodes in topological order.
    Leaves: the same values.
    """
    names = Builder(graph, graph.opset_imports.get("", 0), prefix="probegen/carried")
    for node in list(graph):
        _carry(names, node)


# -- Loops ---------------------------------------------------------------------------------


def _drop_fixed(node: ir.Node, opset: int) -> None:
    iteration = iteration_of(node)
    body = iteration.body
    fixed = [s for s in iteration.states if s.fixed]
    if not fixed or node.graph is None:
        return
    entering = {s.entering: s for s in fixed}
    count = len(body.inputs) - _STATES
    kept = [i for i in range(count) if body.inputs[_STATES + i] not in entering]
    inputs = [*node.inputs[:_STATES], *(node.inputs[_STATES + i] for i in kept)]
    outputs = [*(node.outputs[i] for i in kept), *node.outputs[count:]]
    left = [body.outputs[i] for i in (0, *(1 + i for i in kept))]
    left += body.outputs[1 + count :]
    body.outputs.clear()
    for state in fixed:
        _read_instead(state.entering, state.initial)
        _read_instead(state.final, state.initial)
    body.inputs[:] = [v for v in body.inputs if v not in entering]
    inside = Builder(body, opset, prefix=f"{node.name}/kept")
    made = {*body.inputs, *(v for n in body for v in n.outputs)}
    for value in left:
        read = entering[value].initial if value in entering else value
        body.outputs.append(value if value in made else inside.op("Identity", read, shape=value))
    inside.attach()
    _replace(node, inputs, outputs)


def _read_instead(value: ir.Value, other: ir.Value) -> None:
    ir.convenience.replace_all_uses_with(value, other, replace_graph_outputs=True)


# -- Scans ---------------------------------------------------------------------------------


def _carry(names: Builder, node: ir.Node) -> None:
    """Does as `carry_captured`, for a node and then for those inside it."""
    if node.op_type == "Scan" and not node.domain:
        node = _carry_into(names, node)
    for body in subgraphs_of(node):
        for inner in list(body):
            _carry(names, inner)


def _carry_into(names: Builder, node: ir.Node) -> ir.Node:
    """Returns the Scan that stands in a Scan's place."""
    iteration = iteration_of(node)
    body, count = iteration.body, len(iteration.states)
    prefix = names.fresh("Scan")
    early, late = (Builder(body, names.opset, prefix=f"{prefix}/{p}") for p in ("early", "late"))
    instead: dict[ir.Value, ir.Value] = {}
    entering: dict[ir.Value, ir.Value] = {}
    for value in captured_values(body):
        if _is_stored(value):
            continue
        computed = _from_stored(value)
        if computed is None:
            within = ir.Value(name=late.fresh("entering"), type=value.type, shape=value.shape)
            instead[value] = entering[value] = within
            continue
        for one in computed:
            if one.outputs[0] not in instead:
                copy_node(early, one, instead)
    if not instead:
        return node
    _read_instead_within(body, instead)
    leaving = [late.op("Identity", within, shape=within) for within in entering.values()]
    for one in reversed(early.nodes):
        body.insert_before(body[0], one)
    late.attach()
    body.inputs[count:count] = list(entering.values())
    body.outputs[count:count] = leaving
    inputs = [*node.inputs[:count], *entering, *node.inputs[count:]]
    outputs: list[ir.Value | None] = [*node.outputs[:count], *(None for _ in entering)]
    return _replace(node, inputs, [*outputs, *node.outputs[count:]])


def _is_stored(value: ir.Value) -> bool:
    """Tells whether a value is an initializer that no request can override."""
    return value.is_initializer() and not value.is_graph_input()


def _from_stored(value: ir.Value) -> list[ir.Node] | None:
    """Returns the nodes that compute a value from stored values alone, in order; None if not so."""
    node = value.producer()
    if node is None or any(subgraphs_of(node)) or node.op_type in _DRAWS:
        return None
    nodes: list[ir.Node] = []
    for read in inputs_of(node):
        if not _is_stored(read):
            before = _from_stored(read)
            if before is None:
                return None
            nodes += before
    return list(dict.fromkeys([*nodes, node]))


def _read_instead_within(body: ir.Graph, instead: Mapping[ir.Value, ir.Value]) -> None:
    """Lets a body, and the graphs in it, read other values."""
    for node in body.all_nodes():
        for position, value in enumerate(node.inputs):
            if value is not None and value in instead:
                node.replace_input_with(position, instead[value])
    for graph in (body, *body.subgraphs()):
        graph.outputs[:] = [instead.get(v, v) for v in graph.outputs]


def _replace(
    node: ir.Node, inputs: Sequence[ir.Value | None], outputs: Sequence[ir.Value | None]
) -> ir.Node:
    """Puts a node of other inputs and outputs in the place of one; returns it.

    Args:
        node: what is taken out of its graph.
        inputs: what the new one reads.
        outputs: the outputs that its outputs stand for; None for one that is new.
    """
    graph = node.graph
    if graph is None:
        raise ValueError(f"{node.name!r} belongs to no graph")
    new = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        node.attributes,
        num_outputs=len(outputs),
        name=node.name,
        metadata_props=dict(node.metadata_props),
    )
    new.meta.update(node.meta)
    for position, (old, value) in enumerate(zip(outputs, new.outputs, strict=True)):
        if old is None:
            state = inputs[position]
            value.name = f"{node.name}/final_{position}"
            value.type, value.shape = (None, None) if state is None else (state.type, state.shape)
            continue
        value.name, value.type, value.shape = old.name, old.type, old.shape
        value.metadata_props.update(old.metadata_props)
        value.meta.update(old.meta)
        ir.convenience.replace_all_uses_with(old, value, replace_graph_outputs=True)
    graph.insert_before(node, new)
    graph.remove(node, safe=True)
    return new
