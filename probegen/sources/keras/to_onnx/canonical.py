"""One order and one set of names for graphs that compute the same in the same way.

tf2onnx keeps nodes in sets and numbers what it makes in the order in which it happens to meet
them, so that the same model comes out in another order and under other names in each process,
and with it everything that is made from it. What the outputs are made from, and in which order
each node reads it, is the same each time: that is what decides here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import onnx_ir as ir
from onnx_ir.passes import common

from probegen.graph.core.queries import inputs_of
from probegen.graph.core.replacing import remove_whole
from probegen.graph.core.values import subgraphs_of

#: What tf2onnx and TensorFlow append to the names of what they make.
_COUNTER = re.compile(r"__\d+|_frozen_\d+")
#: Elements of a constant up to which equal ones become one.
_SMALL = 1024


def make_canonical(model: ir.Model) -> None:
    """Orders nodes and initializers, joins repeated ones, and numbers equal names in that order.

    Leaves: names of inputs and outputs, and what names tell of layers; topological order.
    Removes what no output needs.
    """
    graph = model.graph
    outputs = [(value.name, value.shape) for value in graph.outputs]
    for each in (graph, *(inner for inner in graph.subgraphs() if inner is not graph)):
        _give_each_output_a_node(each)
    taken = {name for name, _ in outputs}
    for held, constant in list(graph.initializers.items()):
        if held in taken:  # it was itself an output
            graph.initializers.pop(held)
            constant.name = f"{held}/constant"
            graph.register_initializer(constant)
    for value, (name, shape) in zip(graph.outputs, outputs, strict=True):
        value.name = name
        value.shape = shape if value.shape is None else value.shape
    _order(graph)
    common.DeduplicateInitializersPass(size_limit=_SMALL)(model)
    common.CommonSubexpressionEliminationPass()(model)
    _order(graph)
    _rename(graph)


def _give_each_output_a_node(graph: ir.Graph) -> None:
    """Gives a graph an Identity where an output has no node to itself, and nowhere else.

    Of two outputs that are one value, tf2onnx makes now the one and now the other from it. The
    outputs of subgraphs go by place; those of the whole have names, for the caller to give back.
    """
    for node in list(graph):
        x = node.inputs[0] if node.inputs else None
        if node.op_type != "Identity" or node.domain or x is None:
            continue
        if node.outputs[0] in graph.outputs and x.graph is not graph:
            continue  # a branch that gives back what it is given: the value is another graph's
        node.outputs[0].replace_all_uses_with(x, replace_graph_outputs=True)
        graph.remove(node, safe=True)
    seen: set[ir.Value] = set()
    for position, value in enumerate(graph.outputs):
        made_by = value.producer()
        if value in seen or made_by is None or made_by.graph is not graph:
            name = "again" if made_by is None else f"{made_by.name or made_by.op_type}/again"
            copy = ir.node("Identity", [value], name=name)
            copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
            graph.append(copy)
            graph.outputs[position] = copy.outputs[0]
        seen.add(value)


def _order(graph: ir.Graph) -> None:
    """Puts each node behind what it reads, in the order in which the outputs ask for it."""
    for node in graph:
        for inner in subgraphs_of(node):
            _order(inner)
    nodes: dict[ir.Node, None] = {}
    read: dict[ir.Value, None] = {}
    own = set(graph)
    for output in graph.outputs:
        read[output] = None
        made_by = output.producer()
        if made_by is not None and made_by in own:
            _add(made_by, own, nodes, read)
    remove_whole(graph, [node for node in graph if node not in nodes])
    ordered = list(nodes)
    graph.remove(ordered, safe=False)
    graph.extend(ordered)
    held = dict(graph.initializers)
    used = [v for v in read if v.name in held and held[v.name] is v]
    graph.initializers.clear()
    for value in used:
        graph.initializers[str(value.name)] = value


def _add(
    last: ir.Node, own: set[ir.Node], nodes: dict[ir.Node, None], read: dict[ir.Value, None]
) -> None:
    """Adds a node behind all it depends on, without recursion: graphs are deep."""
    open_nodes: list[tuple[ir.Node, Iterator[ir.Value]]] = [(last, iter(inputs_of(last)))]
    begun = {last}
    while open_nodes:
        node, rest = open_nodes[-1]
        for value in rest:
            read[value] = None
            made_by = value.producer()
            if made_by is None or made_by in nodes or made_by in begun or made_by not in own:
                continue
            begun.add(made_by)
            open_nodes.append((made_by, iter(inputs_of(made_by))))
            break
        else:
            nodes[node] = None
            open_nodes.pop()


def _rename(graph: ir.Graph) -> None:
    """Takes counters out of names, numbers equal ones, names results and subgraphs by their node.

    Which of its names a result has is chance where it once went by several.
    """
    fixed = {str(v.name) for v in (*graph.inputs, *graph.outputs)}
    values: list[ir.Value] = []
    nodes: list[ir.Node] = []
    _collect(graph, values, nodes)
    names = _numbered([node.name or node.op_type for node in nodes], set())
    for node, name in zip(nodes, names, strict=True):
        node.name = name
        for place, inner in enumerate(subgraphs_of(node)):
            inner.name, inner.doc_string = f"{name}/graph_{place}", None
    values = [v for v in values if v.name and v.name not in fixed]
    plain_names = [_wanted_name(v) for v in values]
    # Names of initializers are keys as well, and have to be free when they are taken.
    for number, value in enumerate(values):
        value.name = f"probegen_renamed_{number}"
    for value, name in zip(values, _numbered(plain_names, taken=fixed), strict=True):
        value.name = name
        if value.const_value is not None:
            value.const_value.name = name


def _wanted_name(value: ir.Value) -> str:
    made_by = value.producer()
    return str(value.name) if made_by is None else f"{made_by.name}:{value.index()}"


def _collect(graph: ir.Graph, values: list[ir.Value], nodes: list[ir.Node]) -> None:
    values.extend((*graph.inputs, *graph.initializers.values()))
    for node in graph:
        nodes.append(node)
        for inner in subgraphs_of(node):
            _collect(inner, values, nodes)
        values.extend(node.outputs)


def _numbered(names: list[str], taken: set[str]) -> list[str]:
    """Returns names without counters, each with a number of its own where it is not the first."""
    chosen_names = []
    counts: dict[str, int] = {}
    for name in names:
        base = chosen = _COUNTER.sub("", name)
        while chosen in taken:
            counts[base] = counts.get(base, 0) + 1
            chosen = f"{base}__{counts[base]}"
        taken.add(chosen)
        chosen_names.append(chosen)
    return chosen_names
