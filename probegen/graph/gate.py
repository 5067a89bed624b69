"""The gate: everything that only explanations need, behind one `If`.

A request with `explain=False` then pays for the prediction alone; runtimes do not prune what
a request does not fetch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.graph.builder import subgraphs_of
from probegen.manifest import GATE_INPUT


def add_gate(graph: ir.Graph, explanations: Sequence[ir.Value]) -> list[ir.Value]:
    """Moves the nodes that only `explanations` need into a branch of an `If`.

    Needs: the graph in topological order, its outputs the predictions alone.
    Leaves: a new optional scalar bool input `explain`, true by default; with false the
    explanations come back with batch size 0. Nodes that depend on constants only stay outside,
    where a session folds them at load whatever the gate says.

    Args:
        graph: changed in place.
        explanations: values of the graph, each with an element type and a rank.

    Returns:
        The outputs of the `If`, in the order of `explanations`.
    """
    gate = ir.Value(
        name=GATE_INPUT,
        shape=ir.Shape([]),
        type=ir.TensorType(ir.DataType.BOOL),
        const_value=ir.Tensor(np.array(True), name=GATE_INPUT),
    )
    graph.inputs.append(gate)
    graph.register_initializer(gate)

    always = _needed_for(graph, graph.outputs) | _constant_nodes(graph)
    moved = [node for node in graph if node not in always]
    for node in moved:
        graph.remove(node)
    inside = {value for node in moved for value in node.outputs}
    opset = dict(graph.opset_imports)
    results = []
    for value in explanations:
        # A branch has to produce its outputs itself, each under a name of its own.
        if value in inside and value not in results:
            results.append(value)
            continue
        copy = ir.node("Identity", [value])
        copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
        moved.append(copy)
        results.append(copy.outputs[0])
    explain = ir.Graph([], results, nodes=moved, opset_imports=opset, name="explain")
    plain = _empty_branch(explanations, opset)
    chosen = ir.node(
        "If",
        [gate],
        attributes={"then_branch": explain, "else_branch": plain},
        num_outputs=len(explanations),
        name="probegen/gate",
    )
    for output, value in zip(chosen.outputs, explanations, strict=True):
        # With the gate off the batch is 0, so its size is not that of the predictions.
        sizes = list(value.shape) if value.shape is not None else []
        output.type = value.type
        output.shape = ir.Shape(["explained", *sizes[1:]])
    graph.append(chosen)
    return list(chosen.outputs)


def _empty_branch(explanations: Sequence[ir.Value], opset: dict[str, int]) -> ir.Graph:
    """Returns a branch that gives a tensor without elements for each explanation."""
    nodes = []
    for value in explanations:
        sizes = list(value.shape) if value.shape is not None else []
        static = [0, *(d if isinstance(d, int) else 0 for d in sizes[1:])]
        dtype = value.dtype or ir.DataType.FLOAT
        node = ir.node("Constant", [], attributes={"value": _empty(static, dtype)})
        node.outputs[0].type = value.type
        node.outputs[0].shape = ir.Shape(static)
        nodes.append(node)
    outputs = [node.outputs[0] for node in nodes]
    return ir.Graph([], outputs, nodes=nodes, opset_imports=opset, name="plain")


def _empty(sizes: Sequence[int], dtype: ir.DataType) -> ir.Tensor[Any]:
    return ir.Tensor(np.zeros(sizes, dtype=dtype.numpy()), dtype=dtype)


def _needed_for(graph: ir.Graph, outputs: Sequence[ir.Value]) -> set[ir.Node]:
    """Returns the nodes of the graph itself that `outputs` depend on."""
    needed: set[ir.Node] = set()
    pending = [v.producer() for v in outputs]
    while pending:
        node = pending.pop()
        if node is None or node in needed or node.graph is not graph:
            continue
        needed.add(node)
        pending.extend(v.producer() for v in _reads(node))
    return needed


def _constant_nodes(graph: ir.Graph) -> set[ir.Node]:
    """Returns the nodes whose results do not depend on any input."""
    constant: set[ir.Node] = set()
    for node in graph:
        if all(_is_constant(v, constant) for v in _reads(node)):
            constant.add(node)
    return constant


def _is_constant(value: ir.Value, nodes: set[ir.Node]) -> bool:
    producer = value.producer()
    return producer in nodes if producer is not None else value.is_initializer()


def _reads(node: ir.Node) -> list[ir.Value]:
    """Returns what a node reads, through its subgraphs too."""
    read = [v for v in node.inputs if v is not None]
    for subgraph in subgraphs_of(node):
        for inner in subgraph.all_nodes():
            read.extend(v for v in inner.inputs if v is not None)
        read.extend(v for v in subgraph.outputs if v.producer() is None)
    return read
