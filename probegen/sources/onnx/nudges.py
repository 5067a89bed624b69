"""Gradients at states over time of an ONNX file, taken at zeros that are added to each new state.

A state goes into what a step gives out and into all later steps. The gradient by both together is
that at a number which is added to the state as soon as the step has made it. An operator has zeros
for all its steps as a further input, which the gradient alone sees; a loop reads them step by step.
A step of a loop that leaves the state before where a mask says so adds to what it made instead: the
gradient of masked steps is 0, as it is beyond the end of a sequence of an operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from probegen.graph.core.builder import Builder, Size
from probegen.graph.core.marks import MARK_DOMAIN, NUDGED, give_nudge
from probegen.graph.core.values import attribute, dims_of, dtype_of, rank_of, shape_of
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.iteration import (
    Iteration,
    State,
    is_loop,
    iteration_of,
    origin,
    trip_count,
)
from probegen.graph.loops.step_writer import StepWriter
from probegen.graph.vjp.common import optional, required
from probegen.graph.vjp.recurrent_operands import directions_of, running
from probegen.sources.onnx.loop_bodies import carried_states, give_out_steps, reads_backwards
from probegen.sources.onnx.stepwise import attributes_of_a_direction

_DOUBLE = ir.DataType.DOUBLE


def why_no_gradient(node: ir.Node, suffix: str, number: int) -> str:
    """Says why no gradient can be taken at a state over time; `""` where one can.

    Args:
        node: a recurrent operator, or a loop of the graph itself.
        suffix: what the state is called behind the node's path.
        number: of a loop, which of its states it is.
    """
    if not is_loop(node):
        return (
            "it is no hidden state, and the operator makes its hidden state of it in the same step"
            if suffix
            else ""
        )
    iteration, state = iteration_of(node), carried_states(node)[number]
    if _made(iteration, state) is None:
        return "a step hands it on as it found it elsewhere"
    if shape_of(state.initial) != shape_of(state.leaving):
        return "a step may leave it with another size than it found"
    if _steps(iteration) is None:
        return "how many steps its loop runs is known only once it ran"
    return ""


def zeros_over_time(b: Builder, node: ir.Node, number: int) -> ir.Value:
    """Writes zeros for a state at all steps, `[time, ...]`; of an operator `[time, batch, unit]`.

    Args:
        b: writes what stands before the node.
        node: a recurrent operator or a loop.
        number: which of its directions or states.
    """
    if is_loop(node):
        first, steps = carried_states(node)[number].initial, _steps(iteration_of(node))
        assert steps is not None
        return b.zeros([steps, *((first, i) for i in range(rank_of(first)))], dtype_of(first))
    x, time = required(node, 0), int(bool(attribute(node, "layout", 0)))
    units = dims_of(required(node, 2))[-1]
    assert isinstance(units, int)
    return b.zeros([(x, time), (x, 1 - time), units], dtype_of(x))


def give(b: Builder, node: ir.Node, number: int, nudge: ir.Value) -> None:
    """Lets gradients be taken at a state over time: what it computes stays as it is.

    Args:
        b: as for `zeros_over_time`.
        node: a recurrent operator or a loop; changed in place.
        number: which of its directions or states.
        nudge: what stands for what could be added, `[time, ...]`.
    """
    if not is_loop(node):
        give_nudge(node, nudge, number)
        return
    inside, entry, made = _read(b, node, number, nudge)
    nudged = inside.op(NUDGED, made, entry, shape=made, domain=MARK_DOMAIN)
    _put_behind(made, inside, nudged)


def add(b: Builder, node: ir.Node, added: Mapping[int, ir.Value]) -> dict[int, ir.Value]:
    """Adds to states at all steps, and returns these states, `[time, ...]`.

    A recurrent operator becomes a loop that runs the operator itself one step at a time, with time
    first: onnxruntime, for which this is, knows no other order.

    Args:
        b: of the graph; what is in it stands before the node.
        node: a recurrent operator or a loop; it is changed, or taken out of its graph.
        added: direction or state -> what is added, float64 `[time, ...]`.
    """
    if not is_loop(node):
        return _one_step_at_a_time(b, node, added)
    for number, nudge in added.items():
        inside, entry, made = _read(b, node, number, nudge)
        wide = inside.op("Add", inside.cast(made, _DOUBLE), entry, shape=made)
        _put_behind(made, inside, inside.cast(wide, dtype_of(made)))
    b.insert_before(node)
    states = carried_states(node)
    return {n: give_out_steps(b, states[n].leaving, [node]) for n in added}


# -- loops -------------------------------------------------------------------------------------


def _made(iteration: Iteration, state: State) -> ir.Value | None:
    """Returns what a step makes as its new state, a mask aside; None where it makes none."""
    value = origin(state.leaving)
    node = value.producer()
    if node is not None and node.op_type == "Where" and not node.domain:
        branches = [origin(v) for v in node.inputs[1:] if v is not None]
        if state.entering in branches:
            value = next((v for v in branches if v is not state.entering), value)
            node = value.producer()
    return value if node is not None and node.graph is iteration.body else None


def _steps(iteration: Iteration) -> Size | None:
    """Returns how many steps a loop runs, where that is known before it runs."""
    if iteration.scan_inputs:
        first = iteration.scan_inputs[0]
        return (first.sequence, first.axis)
    steps, graph = trip_count(iteration), iteration.node.graph
    if isinstance(steps, int) or steps is None or graph is None:
        return steps if isinstance(steps, int) else None
    named = (
        (value, axis)
        for value in graph.inputs
        for axis, size in enumerate(shape_of(value) or ())
        if size == steps
    )
    return next(named, None)


def _read(
    b: Builder, loop: ir.Node, number: int, nudge: ir.Value
) -> tuple[Builder, ir.Value, ir.Value]:
    """Lets a loop read an entry a step.

    Returns:
        What writes into its body, the entry, and what a step makes as its new state.
    """
    iteration = iteration_of(loop)
    made = _made(iteration, carried_states(loop)[number])
    assert made is not None
    inside = Builder(iteration.body, b.opset, prefix=b.fresh("nudge"))
    if iteration.step_number is not None:
        entry = inside.op("Gather", nudge, iteration.step_number, axis=0, shape=made)
        return inside, entry, made
    entry = ir.Value(name=inside.fresh("entry"), type=nudge.type, shape=made.shape)
    iteration.body.inputs.append(entry)
    loop.resize_inputs(len(loop.inputs) + 1)
    loop.replace_input_with(len(loop.inputs) - 1, nudge)
    count = int(attribute(loop, "num_scan_inputs"))
    for name, own in (
        ("scan_input_axes", 0),
        ("scan_input_directions", int(reads_backwards(iteration))),
    ):
        before = attribute(loop, name) or [0] * count
        loop.attributes[name] = ir.AttrInt64s(name, [*before, own])
    loop.attributes["num_scan_inputs"] = ir.AttrInt64("num_scan_inputs", count + 1)
    return inside, entry, made


def _put_behind(made: ir.Value, inside: Builder, instead: ir.Value) -> None:
    """Lets all that reads a value of a body read what is written behind it."""
    node = made.producer()
    assert node is not None
    assert node.graph is not None
    written = set(inside.nodes)
    for use in list(made.uses()):
        if use.node not in written:
            use.node.replace_input_with(use.idx, instead)
    for place, output in enumerate(node.graph.outputs):
        if output is made:
            node.graph.outputs[place] = instead
    node.graph.insert_after(node, inside.nodes)
    inside.nodes = []


# -- operators ---------------------------------------------------------------------------------


def _one_step_at_a_time(
    b: Builder, node: ir.Node, added: Mapping[int, ir.Value]
) -> dict[int, ir.Value]:
    """Writes loops that run a recurrent operator one step at a time; see `add`."""
    series, lengths = required(node, 0), optional(node, 4)
    going = None if lengths is None else running(b, series, lengths)
    parts = [
        _direction(b, node, position, series, going, added.get(position))
        for position in range(len(directions_of(node)))
    ]
    joined = [b.concat([b.unsqueeze(part[0], [1]) for part in parts], 1)]
    joined += [
        b.concat([b.unsqueeze(last, [0]) for last in same], 0)
        for same in zip(*(part[2] for part in parts), strict=True)
    ]
    b.replace(node, joined[: len(node.outputs)])
    return {position: parts[position][1] for position in added}


def _direction(
    b: Builder,
    node: ir.Node,
    position: int,
    series: ir.Value,
    going: ir.Value | None,
    added: ir.Value | None,
) -> tuple[ir.Value, ir.Value, Sequence[ir.Value]]:
    """Returns what a direction gives out, its hidden states, and its last states."""
    backwards, count = directions_of(node)[position], len(directions_of(node))
    units = dims_of(required(node, 2))[-1]
    assert isinstance(units, int)
    loop, is_lstm = StepWriter(b), node.op_type == "LSTM"

    def own(place: int) -> ir.Value | None:
        value = optional(node, place)
        return None if value is None else b.slice(value, 0, position, position + 1)

    def start(place: int) -> ir.Value:
        value = optional(node, place)
        if value is None:
            return b.zeros([(series, 1), units], dtype_of(series))
        return b.squeeze(b.slice(value, 0, position, position + 1), [0])

    states = [loop.carry(start(place)) for place in ((5, 6) if is_lstm else (5,))]
    entry = loop.read(series, backwards=backwards)
    body = loop.body
    given = [body.unsqueeze(value, [0]) for value in (entry, *states)]
    operands = [given[0], own(1), own(2), own(3), None, *given[1:]]
    if is_lstm and own(7) is not None:
        operands.append(own(7))
    shape = [1, dims_of(states[0])[0], units]
    new = body.ops(
        node.op_type,
        *operands,
        outputs=1 + len(states),
        shapes=[[1, *shape], *(shape for _ in states)],
        **attributes_of_a_direction(node, position, count, units),
    )[1:]
    after = [body.squeeze(value, [0]) for value in new]
    if added is not None:
        moved = body.add(body.cast(after[0], _DOUBLE), loop.read(added, backwards=backwards))
        after[0] = body.cast(moved, dtype_of(after[0]))
    visible = after[0]
    if going is not None:
        goes_on = loop.read(going, backwards=backwards)
        visible = body.where(goes_on, after[0], 0.0)
        pairs = zip(after, states, strict=True)
        after = [body.where(goes_on, now, before) for now, before in pairs]
    collected = [Collected(visible, backwards), Collected(after[0], backwards)]
    finals, (y, hidden) = loop.finish(after, collected)
    return y, hidden, finals
