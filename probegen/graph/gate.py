"""The gate: one `If` between the explained and the plain computation.

A request with `explain=False` then pays for the prediction alone; runtimes do not prune what a
request does not fetch.

Each branch holds the whole of its computation. The other way, forward nodes outside and only the
gradients in a branch, makes every mask of the backward pass leave the runtime's blocked layout
whether it is asked for or not. The weights stay outside, stored once. So does what makes floats of
weights of whole numbers before a product of floats: onnxruntime joins the two where both are in a
branch, does not find the weights around it, and loads nothing.

The gate is the scalar bool input `explain`. As a required input it works in every engine that has
`If`. As an initializer that is an input as well (a default that a request may override) it works
in onnxruntime's Python, C, C# and Java alone: onnxruntime-node takes the value and goes by the
default nonetheless, onnxruntime-web refuses it, OpenVINO, onnxslim and onnxsim fold the default in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from probegen.artefact.manifest import GATE_INPUT, GATE_OPTIONAL, GATE_REQUIRED
from probegen.graph.core.builder import Builder
from probegen.graph.core.copying import copy_node
from probegen.graph.core.queries import DEQUANTISING, key_of, needed_for
from probegen.graph.loops.unread_outputs import drop_unread_outputs
from probegen.graph.passes.after.own_weights_in_loops import own_weights


def add_gate(
    graph: ir.Graph,
    opset: int,
    predictions: Sequence[ir.Value],
    explanations: Sequence[ir.Value],
    *,
    gate: str = GATE_REQUIRED,
) -> list[ir.Value]:
    """Moves all nodes into the branches of one `If`.

    Needs: the graph in topological order.
    Leaves: a new scalar bool input `explain`; with false the explanations come back with batch
    size 0.

    Args:
        graph: changed in place; its outputs are for the caller to set.
        opset: operator set of the graph.
        predictions: values that come out in any case.
        explanations: values that come out only when asked for; each with type and rank.
        gate: `"required"`, or `"optional"`: an initializer as well, which is false.

    Returns:
        The outputs of the `If`: predictions, then explanations.
    """
    explain = ir.Value(name=GATE_INPUT, shape=ir.Shape([]), type=ir.TensorType(ir.DataType.BOOL))
    graph.inputs.append(explain)
    if gate == GATE_OPTIONAL:
        explain.const_value = ir.Tensor(np.array(False), name=GATE_INPUT)
        graph.register_initializer(explain)
    graph.outputs.clear()

    plain = Builder(graph, opset, prefix="plain")
    copies: dict[ir.Value, ir.Value] = {}
    needed = needed_for(graph, predictions)
    outside = {n for n in graph if n in needed and _makes_weights_of_products(n)}
    inside = [n for n in graph if n not in outside]
    for node in (n for n in inside if n in needed):
        copy_node(plain, node, copies)
    empty = [_empty(plain, value) for value in explanations]
    whole = Builder(graph, opset, prefix="explain")
    whole.nodes = inside
    graph.remove(inside)
    branches = {
        "then_branch": _branch(whole, [*predictions, *explanations]),
        "else_branch": _branch(plain, [*(copies.get(v, v) for v in predictions), *empty]),
    }
    drop_unread_outputs(branches["else_branch"])
    chosen = ir.node(
        "If",
        [explain],
        attributes=branches,
        num_outputs=len(predictions) + len(explanations),
        name="probegen/gate",
    )
    for output, value in zip(chosen.outputs, (*predictions, *explanations), strict=True):
        output.type, output.shape = value.type, value.shape
    for output, value in zip(chosen.outputs[len(predictions) :], explanations, strict=True):
        # With the gate off the batch is 0, so its size is not that of the predictions.
        sizes = list(value.shape) if value.shape is not None else ["explained"]
        output.shape = ir.Shape(["explained", *sizes[1:]] if sizes else [])
    graph.append(chosen)
    return list(chosen.outputs)


def _makes_weights_of_products(node: ir.Node) -> bool:
    """Tells whether a node makes floats of stored whole numbers, by which floats are multiplied."""
    if key_of(node) not in DEQUANTISING or not all(
        v is None or v.is_initializer() for v in node.inputs
    ):
        return False
    return any(
        key_of(use.node) == "MatMul" and use.idx == 1 and not _is_dequantised(use.node.inputs[0])
        for use in node.outputs[0].uses()
    )


def _is_dequantised(value: ir.Value | None) -> bool:
    made = None if value is None else value.producer()
    return made is not None and key_of(made) in DEQUANTISING


def _branch(builder: Builder, outputs: Sequence[ir.Value]) -> ir.Graph:
    """Returns the collected nodes as a branch; it has to make each of its outputs itself."""
    nodes, builder.nodes = builder.nodes, []
    own_weights(builder, nodes)
    builder.nodes += nodes
    made = {value for node in builder.nodes for value in node.outputs}
    results: list[ir.Value] = []
    for value in outputs:
        fit = value in made and value not in results
        results.append(value if fit else builder.op("Identity", value, shape=value))
    opsets = {"": builder.opset}
    name = builder.fresh("branch")
    return ir.Graph([], results, nodes=builder.nodes, opset_imports=opsets, name=name)


def _empty(builder: Builder, value: ir.Value) -> ir.Value:
    """Writes a tensor without elements in the form of an explanation.

    Not as a Constant: OpenVINO takes one without elements for a scalar. A number without axes, of a
    model that takes one sample, cannot be empty: it is NaN, 0 where it is whole.
    """
    sizes = list(value.shape) if value.shape is not None else ["explained"]
    if not sizes:
        dtype = value.dtype or ir.DataType.FLOAT
        none = builder.const(np.nan if dtype.is_floating_point() else 0, dtype)
        return builder.op("Identity", none, shape=[])
    static = [0, *(d if isinstance(d, int) else 0 for d in sizes[1:])]
    return builder.zeros(static, value.dtype or ir.DataType.FLOAT)
