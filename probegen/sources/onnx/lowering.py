"""The forward graph of a plan: a copy of the prepared graph, with what the plan takes marked."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from probegen.errors import ExportError
from probegen.graph.array_operations import OnnxOperations
from probegen.graph.autodiff import Refused
from probegen.graph.core.builder import Builder, Size
from probegen.graph.core.marks import MARK, MARK_DOMAIN
from probegen.graph.core.values import rank_of, shape_of, subgraphs_of
from probegen.graph.forward import ForwardGraph, open_size
from probegen.graph.shape_inference import infer_shapes
from probegen.graph.vjp.recurrent_unrolled import states_over_time
from probegen.plan.axes import BATCH
from probegen.plan.plan import NUDGE, STATE, PlainOutput, Plan, TargetPlan, TensorRef
from probegen.sources.onnx import nudges
from probegen.sources.onnx.layouts import Apart
from probegen.sources.onnx.loop_bodies import OverSteps, give_out_steps
from probegen.sources.onnx.reading import OnnxModel
from probegen.sources.onnx.view import OnnxView


def forward_graph(
    read: OnnxModel, view: OnnxView, plan: Plan, batch: int | None = None
) -> ForwardGraph:
    """Returns a copy of a prepared graph with everything that a plan needs as outputs.

    Args:
        read: the prepared model; it is not changed.
        view: of it.
        plan: what is taken.
        batch: a fixed batch size, or None for the file's own.

    Raises:
        ExportError: the batch cannot be fixed.
    """
    model = read.model.clone()
    graph = model.graph
    copies = dict(zip(_values(read.model.graph), _values(graph), strict=True))
    if batch is not None:
        _fix_batch(model, view, batch)
    _name_open_sizes(graph)
    builder = Builder(graph, read.opset)
    predictions = list(graph.outputs)
    states = _states(builder, view, plan, copies)
    inside = _inside_loops(builder, view, plan, copies)
    plain = [
        _given_out(builder, o, inside[o.ref] if o.ref in inside else states[o.ref])
        if o.ref in inside or o.probe.of_states
        else _plain(builder, view, o, copies[view.taken(o)])
        for o in plan.plain
    ]
    targets = [_target(builder, view, g.target, copies) for g in plan.groups]
    explained = {ref: _mark(builder, states[ref], ref) for ref in plan.refs if ref.made == STATE}
    graph.outputs[:] = [*predictions, *plain, *targets, *explained.values()]
    builder.attach()
    inputs = [TensorRef(None, position=i) for i in range(len(view.inputs))]
    refs = [r for r in dict.fromkeys((*plan.refs, *inputs)) if not r.is_of_states]
    sources = explained | {
        ref: _marked(graph, copies[view.value(ref)], ref, view.parts_of(ref), read.opset)
        for ref in refs
    }
    sources |= {r: _nudge(builder, view, r, copies) for r in plan.refs if r.made == NUDGE}
    return ForwardGraph(
        model, (len(predictions), len(plain)), sources, _path_of, kept=len(explained)
    )


def _nudge(
    builder: Builder, view: OnnxView, ref: TensorRef, copies: dict[ir.Value, ir.Value]
) -> ir.Value:
    """Lets gradients be taken at a state over time; returns at what, `[batch, time, ...]`."""
    node = _copied_node(copies, view.node(str(ref.path)))
    order = view.order_over_time(ref)
    zeros = nudges.zeros_over_time(builder, node, ref.position)
    marked = _mark(builder, builder.transpose(zeros, order), ref)
    turned = builder.transpose(marked, [order.index(i) for i in range(len(order))])
    nudges.give(builder, node, ref.position, turned)
    builder.insert_before(node)
    return marked


def _values(graph: ir.Graph) -> list[ir.Value]:
    """Returns the values of a graph and of those within it, in an order that its copies share."""
    found = [*graph.inputs, *graph.initializers.values()]
    for node in graph:
        found += node.outputs
        for inner in subgraphs_of(node):
            found += _values(inner)
    return found


def _path_of(node_name: str) -> str:
    """Returns the path of the file's node that a node of the artefact came from."""
    own = re.sub(r"^(plain|explain)/", "", node_name)
    return "" if own.startswith("probegen") else own.lstrip("/")


def _plain(builder: Builder, view: OnnxView, output: PlainOutput, value: ir.Value) -> ir.Value:
    """Writes an activation or attention weights as the artefact gives them."""
    value = _told_apart(builder, value, view.told_apart(view.taken(output)))
    return _given_out(builder, output, value)


def _inside_loops(
    builder: Builder, view: OnnxView, plan: Plan, copies: dict[ir.Value, ir.Value]
) -> dict[TensorRef, ir.Value]:
    """Lets loops give out what is taken from their bodies; writes it with the batch first."""
    found: dict[TensorRef, ir.Value] = {}
    for output in plan.plain:
        over = None if output.ref in found else view.over_steps(output)
        if over is None:
            continue
        found[output.ref] = _over_steps(builder, over, copies)
    return found


def _over_steps(builder: Builder, over: OverSteps, copies: dict[ir.Value, ir.Value]) -> ir.Value:
    loops = [_copied_node(copies, loop) for loop in over.loops]
    stacked = give_out_steps(builder, copies[over.value], loops)
    apart = _told_apart(builder, stacked, over.apart)
    return builder.transpose(apart, over.order)


def _copied_node(copies: dict[ir.Value, ir.Value], node: ir.Node) -> ir.Node:
    made = copies[node.outputs[0]].producer()
    assert made is not None
    return made


def _states(
    builder: Builder, view: OnnxView, plan: Plan, copies: dict[ir.Value, ir.Value]
) -> dict[TensorRef, ir.Value]:
    """Writes states of recurrent operators over time, batch first: one loop a direction.

    Raises:
        ExportError: it cannot be told what an operator computes.
    """
    found: dict[TensorRef, ir.Value] = {}
    of_direction: dict[tuple[str, int], list[TensorRef]] = {}
    given_out = [o.ref for o in plan.plain if o.probe.of_states and not view.over_steps(o)]
    explained = [ref for ref in plan.refs if ref.made == STATE]
    for ref in dict.fromkeys((*given_out, *explained)):
        over = view.state_over_steps(ref)
        if over is None:
            of_direction.setdefault((str(ref.path), ref.position), []).append(ref)
        else:
            found[ref] = _over_steps(builder, over, copies)
    for (path, position), refs in of_direction.items():
        node = _copied_node(copies, view.node(path))
        try:
            made = states_over_time(builder, node, position, [ref.operation for ref in refs])
        except Refused as error:
            raise ExportError(
                f"the states of node {path!r} ({node.op_type}) cannot be written: {error}."
            ) from error
        found.update((r, builder.transpose(v, [1, 0, 2])) for r, v in zip(refs, made, strict=True))
    return found


def _given_out(builder: Builder, output: PlainOutput, value: ir.Value) -> ir.Value:
    payload = output.probe.payload(OnnxOperations(builder), value, output.axes)
    return builder.cast(payload, ir.DataType.from_numpy(np.dtype(output.spec.dtype)))


def _told_apart(builder: Builder, value: ir.Value, apart: Apart | None) -> ir.Value:
    """Writes `[batch*heads, ...]` as `[batch, heads, ...]`."""
    if apart is None or apart.parts is None:
        return value
    inputs = {v.name: v for v in builder.graph.inputs}
    sizes: list[Size] = [(value, i) for i in range(rank_of(value))]
    sizes[apart.axis : apart.axis + 1] = [
        part if isinstance(part, int) else (inputs[part[0]], part[1]) for part in apart.parts
    ]
    return builder.reshape(value, sizes)


def _target(
    builder: Builder, view: OnnxView, target: TargetPlan, copies: dict[ir.Value, ir.Value]
) -> ir.Value:
    """Writes what a target is taken from: batch first, and classes last where one is chosen."""
    scores = copies[view.end(target)]
    if target.single:
        scores = builder.unsqueeze(scores, [0])
    return scores if target.order is None else builder.transpose(scores, target.order)


def _marked(
    graph: ir.Graph, value: ir.Value, ref: TensorRef, apart: Apart | None, opset: int
) -> ir.Value:
    """Returns a value that no pass moves anything across, in the place of one of a node.

    Where samples are joined with heads, it is the value with these apart; those who read the value
    read it joined again.
    """
    if ref.is_input:
        return value
    builder = Builder(graph, opset)
    result = _mark(builder, _told_apart(builder, value, apart), ref, str(value.name))
    read = result
    if apart is not None:
        whole: list[Size] = [(value, i) for i in range(rank_of(value))]
        read = builder.reshape(result, whole)
    new = set(builder.nodes)
    for use in list(value.uses()):
        if use.node not in new:
            use.node.replace_input_with(use.idx, read)
    for place, output in enumerate(graph.outputs):
        if output is value:
            graph.outputs[place] = read
    producer = value.producer()
    if producer is None:  # a weight
        graph.insert_before(graph[0], builder.nodes)
    else:
        graph.insert_after(producer, builder.nodes)
    return result


def _mark(builder: Builder, value: ir.Value, ref: TensorRef, called: str = "") -> ir.Value:
    """Writes a mark that no pass moves anything across."""
    mark = ir.node(MARK, [value], domain=MARK_DOMAIN, name=f"{ref.path}/mark")
    result = mark.outputs[0]
    result.type, result.shape = value.type, value.shape
    result.name = f"{called or value.name}/marked"
    builder.nodes.append(mark)
    return result


def _fix_batch(model: ir.Model, view: OnnxView, batch: int) -> None:
    """Gives the axis of the batch a size in every input.

    Raises:
        ExportError: the file has another one.
    """
    for i, name in enumerate(view.input_names):
        value = next(v for v in model.graph.inputs if v.name == name)
        axes, shape = view.input(i).axes, shape_of(value)
        if shape is None or BATCH not in axes:
            continue
        at = axes.index(BATCH)
        if isinstance(shape[at], int):
            if shape[at] != batch and batch != 1:
                raise ExportError(
                    f"input {name!r} has the fixed batch size {shape[at]}, not {batch}."
                )
            continue
        value.shape = ir.Shape([batch if i == at else d for i, d in enumerate(shape)])
    infer_shapes(model)


def _name_open_sizes(graph: ir.Graph) -> None:
    """Gives open sizes of inputs that have no name one."""
    for value in graph.inputs:
        shape = shape_of(value)
        if shape is not None and None in shape:
            named: Sequence[int | str | None] = [
                ("batch" if i == 0 else open_size(str(value.name), i)) if d is None else d
                for i, d in enumerate(shape)
            ]
            value.shape = ir.Shape(list(named))
