"""States of an ONNX file as inputs and outputs, so that a series can be run in chunks.

Recurrent operators, and a `Scan`, that start from zeros start from what is fed instead, and where
they end comes out. States that a file takes and gives out already stay as they are: `own_states`
finds them, or a user says which they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import onnx_ir as ir

from probegen.artefact.manifest import NEXT_STATE, STATE
from probegen.errors import ExportError
from probegen.graph.core.queries import inputs_of, is_float
from probegen.graph.core.values import Dim, attribute, constant_of, shape_of, whole_numbers
from probegen.graph.loops.iteration import ScanInput, is_loop, iteration_of
from probegen.plan.axes import BATCH, Axes
from probegen.plan.points import ProbePoint
from probegen.sources.onnx.loading import load
from probegen.sources.onnx.own_states import cache_axes, fed_by, named_after, own_states
from probegen.sources.onnx.reading import OnnxModel, read_onnx
from probegen.sources.onnx.state_places import GIVEN, TAKEN, Place, starts_from_zero
from probegen.sources.onnx.view import OnnxView
from probegen.sources.states import checked_pairs

#: The operator set that made of `Scan` what it is today.
_SCANS_AS_TODAY = 9


@dataclasses.dataclass(frozen=True)
class StatesFile:
    """A file whose states are inputs and outputs.

    Attributes:
        read: the file, prepared: the one that was opened where it has its states already.
        carried: input that a state starts from -> output that says where it ends.
        axes: input or output name -> its axes, of those that were added.
        added: names of the inputs that the file did not have.
    """

    read: OnnxModel
    carried: Mapping[str, str]
    axes: Mapping[str, Axes]
    added: tuple[str, ...]


def with_states(
    read: OnnxModel,
    view: OnnxView,
    select: object = None,
    pairs: Mapping[str, str] | None = None,
) -> StatesFile:
    """Returns a file whose states are inputs and outputs.

    Args:
        read: the prepared file; it is not changed.
        view: of it.
        select: the recurrent operators; None for all that start from zeros, and for all states that
            the file has already.
        pairs: input -> output, of states that the file has already, where a user says them.

    Raises:
        SelectionError: `select` matches no recurrent operator.
        ExportError: an operator cannot start from a state that is fed, or there is none; says why.
    """
    own = {} if pairs is None else checked_pairs(view, pairs)
    places: list[Place] = []
    if select is not None:
        places = _places(view, _chosen(view, select))
    elif pairs is None:
        recurrent = [p for p in view.points if "states" in p.probes]
        every = _places(view, [p for p in recurrent if _is_fused(p) or _can_be_fed(p.layer)])
        own = own_states(view, every)
        others = {p.path for p in every if not starts_from_zero(p.initial)}
        places = [p for p in every if p.path not in others]
    for place in places:
        _check(view, place)
    if not places and not own:
        raise ExportError(_nothing(view))
    if not places:
        return StatesFile(read, own, cache_axes(view, own), ())
    return _added(read, view, places, own)


def _nothing(view: OnnxView) -> str:
    floats = [name for i, name in enumerate(view.input_names) if view.input(i).is_float]
    by_name = {str(v.name): str(end.name) for v in view.inputs for end in named_after(view, v)}
    perhaps = f" By their names these may be some: states={by_name}." if by_name else ""
    return (
        "states='io': the file has no recurrent operator (LSTM, GRU, RNN) and no Scan that starts "
        "from zeros, and no states among its inputs and outputs that the graph leads from one to "
        "the other (where a recurrence starts and ends, or a cache such as past_key_values.0.key "
        "and present.0.key). Say which output is the next value of which input: "
        f"states={{input: output}}; its inputs are {floats}, its outputs {view.output_names}."
        f"{perhaps}"
    )


def _is_fused(point: ProbePoint) -> bool:
    return not is_loop(point.layer)


def _can_be_fed(loop: ir.Node) -> bool:
    """Tells whether all that a loop carries from step to step can be fed."""
    return loop.op_type == "Scan" and _why_not_fed(loop) is None


def _why_not_fed(scan: ir.Node) -> str | None:
    """Says what stands against feeding the states of a Scan; None where nothing does.

    All that it carries has to be fed: one that starts anew in each chunk (a count of steps) would
    make a chunk another thing than a part of the whole.
    """
    iteration = iteration_of(scan)
    for state in iteration.states:
        if state.fixed:
            continue
        sizes = shape_of(state.entering)
        if not is_float(state.entering):
            return "it carries whole numbers, such as a count of its steps"
        if not starts_from_zero(state.initial):
            return "not all that it carries starts from zeros"
        if not sizes or not all(isinstance(n, int) for n in sizes[1:]):
            return "the sizes of what it carries are not known"
        if isinstance(sizes[0], int) and any(_open_batch(v) for v in iteration.scan_inputs):
            return "the first axis of what it carries is not the batch"
    if any(sequence.backwards for sequence in iteration.scan_inputs):
        return "it reads a series from its end"
    return None


def _open_batch(read: ScanInput) -> bool:
    """Tells whether what a step reads has an open first axis."""
    sizes = shape_of(read.entering) or (0,)
    return not isinstance(sizes[0], int)


def _chosen(view: OnnxView, select: object) -> list[ProbePoint]:
    """Returns the recurrent operators that a user names.

    Raises:
        SelectionError: there is none.
        ExportError: a loop is among them whose states cannot be fed.
    """
    chosen = view.select(select, "states")
    for point in chosen:
        if _is_fused(point) or _can_be_fed(point.layer):
            continue
        why = "what else its steps count and read is its own"
        if point.class_name == "Scan":
            why = _why_not_fed(point.layer) or why
        raise ExportError(
            f"states='io': node {point.path!r} is a {point.class_name}, whose states cannot be "
            f"fed: {why}. pg.States gives them out; states that the file takes and gives out "
            "itself are noted by states={input: output}."
        )
    return chosen


def _places(view: OnnxView, points: Sequence[ProbePoint]) -> list[Place]:
    """Returns the states of recurrent operators."""
    found = []
    for point in points:
        node = view.node(point.path)
        states = [0, 1] if node.op_type == "LSTM" else [0]
        if node.op_type == "Scan":
            states = [i for i, s in enumerate(iteration_of(node).states) if not s.fixed]
        found += [Place(point.path, node, i) for i in states]
    return found


def _check(view: OnnxView, place: Place) -> None:
    """Refuses an operator that cannot start from a state that is fed.

    Raises:
        ExportError: it cannot; says why, and what to do.
    """
    what = f"states='io': node {place.path!r} ({place.node.op_type})"
    instead = "Name the nodes whose states are fed, such as states='io:*LSTM*'."
    read = place.node.inputs[:1]
    if place.is_of_scan:
        read = [sequence.sequence for sequence in iteration_of(place.node).scan_inputs]
    if attribute(place.node, "direction", "forward") != "forward" or _reads_turned(read):
        raise ExportError(
            f"{what} reads a series from its end, so that no chunk of it can be run before those "
            f"behind it. {instead}"
        )
    if starts_from_zero(place.initial):
        return
    assert place.initial is not None
    fed = fed_by(place.initial)
    if fed is not None and not fed.is_initializer():
        given = next((v for k, v in own_states(view, [place]).items() if k == fed.name), None)
        raise ExportError(
            f"{what} has its state among the file's inputs already: {fed.name!r}"
            + (f", and its next one is {given!r}. " if given else ". ")
            + f"states='io' notes it, or states={{{fed.name!r}: <output>}}."
        )
    if constant_of(place.initial) is not None:
        raise ExportError(
            f"{what} starts from states that are not zero, where fed states are zero by default. "
            f"{instead}"
        )
    raise ExportError(f"{what} gets its first state from the model itself. {instead}")


def _reads_turned(read: Sequence[ir.Value | None]) -> bool:
    """Tells whether a series is turned round before an operator reads it."""
    pending, seen = [*read], set[ir.Value]()
    while pending:
        value = pending.pop()
        if value is None or value in seen or (before := value.producer()) is None:
            continue
        seen.add(value)
        if before.op_type == "ReverseSequence" and not before.domain:
            return True
        if before.op_type == "Slice" and not before.domain:
            steps, axes = whole_numbers(before, "", 4), whole_numbers(before, "", 3)
            along = axes or list(range(len(steps or ())))
            turned = [a for a, n in zip(along, steps or (), strict=False) if n < 0]
            sizes = shape_of(value)  # units turned round, along the last axis, are no series
            if any(a not in (-1, -1 if sizes is None else len(sizes) - 1) for a in turned):
                return True
        pending.extend(inputs_of(before))
    return False


def _added(
    read: OnnxModel, view: OnnxView, places: Sequence[Place], own: Mapping[str, str]
) -> StatesFile:
    """Returns the file with inputs and outputs for the states of some operators.

    It is the file as it was opened that is changed, so that what is verified against has gone
    through nothing of ours but this; where an operator stands in a function of the file, which is
    written out only when it is prepared, it is the prepared one.
    """
    model = load(read.original).model
    old = model.opset_imports.get("", 1) < _SCANS_AS_TODAY and any(p.is_of_scan for p in places)
    if old or not all(_found(model.graph, p) for p in places):
        model = read.model.clone()
    graph = model.graph
    carried, axes = dict(own), cache_axes(view, own)
    for place in places:
        node = _found(graph, place)
        assert node is not None
        name, following = f"{STATE}{place.name}", f"{NEXT_STATE}{place.name}"
        taken = {v.name for v in (*graph.inputs, *(v for n in graph for v in n.outputs))}
        if {name, following} & taken:
            raise ExportError(
                f"states='io': the file has a tensor that is called {name!r} or {following!r} "
                "already, as the state would be. Give it another name."
            )
        add = _add_to_scan if place.is_of_scan else _add
        add(model, node, place, name, following, _batch_of(graph, view))
        carried[name] = following
        own_axes = _axes_of(place)
        axes |= {name: own_axes, following: own_axes}
    added = tuple(name for name in carried if name not in own)
    return StatesFile(read_onnx(model), carried, axes, added)


def _found(graph: ir.Graph, place: Place) -> ir.Node | None:
    """Returns the operator of a graph that makes what a prepared one does, by their names."""
    names = {v.name for v in place.node.outputs if v.name}
    kind = place.node.op_type
    alike = (n for n in graph if n.op_type == kind and not n.domain)
    return next((n for n in alike if any(v.name in names for v in n.outputs)), None)


def _batch_of(graph: ir.Graph, view: OnnxView) -> Dim:
    """Returns the size of the batch as the inputs of a file have it."""
    by_name = {v.name: v for v in graph.inputs}
    for position, name in enumerate(view.input_names):
        axes, shape = view.input(position).axes, shape_of(by_name[name])
        if BATCH in axes and shape is not None:
            return shape[axes.index(BATCH)]
    return None


def _add(
    model: ir.Model, node: ir.Node, place: Place, name: str, following: str, batch: Dim
) -> None:
    """Lets an operator start from an input, and gives out where it ends: `[batch, unit]`."""
    graph, which = model.graph, place.which
    assert place.node.inputs[2] is not None
    units = (shape_of(place.node.inputs[2]) or ())[-1]
    first = place.node.inputs[0]
    element = ir.TensorType(
        ir.DataType.FLOAT if first is None or first.dtype is None else first.dtype
    )
    fed = ir.Value(name=name, type=element, shape=ir.Shape([batch, units]))
    graph.inputs.append(fed)
    at = 1 if attribute(node, "layout", 0) else 0
    before = _with_axis(model, "Unsqueeze", fed, at, f"{name}/whole")
    graph.insert_before(node, before)
    if len(node.inputs) <= TAKEN[which]:
        node.resize_inputs(TAKEN[which] + 1)
    node.replace_input_with(TAKEN[which], before.outputs[0])
    if len(node.outputs) <= GIVEN[which]:
        node.resize_outputs(GIVEN[which] + 1)
    last = node.outputs[GIVEN[which]]
    if not last.name:
        last.name = f"{following}/whole"
    after = _with_axis(model, "Squeeze", last, at, following)
    after.outputs[0].type, after.outputs[0].shape = element, ir.Shape([batch, units])
    graph.insert_after(node, after)
    graph.outputs.append(after.outputs[0])


def _add_to_scan(
    model: ir.Model, node: ir.Node, place: Place, name: str, following: str, batch: Dim
) -> None:
    """Lets a Scan start from an input, and gives out where it ends, as it carries it."""
    graph, entering = model.graph, iteration_of(place.node).states[place.which].entering
    assert entering.dtype is not None
    element = ir.TensorType(entering.dtype)
    sizes = ir.Shape([batch, *(shape_of(entering) or ())[1:]])
    fed = ir.Value(name=name, type=element, shape=sizes)
    graph.inputs.append(fed)
    node.replace_input_with(place.taken, fed)
    last = node.outputs[place.given]
    if not last.name:
        last.name = f"{following}/whole"
    after = ir.node("Identity", [last], name=f"{following}/given_out")
    after.outputs[0].name, after.outputs[0].type = following, element
    after.outputs[0].shape = ir.Shape(list(sizes))
    graph.insert_after(node, after)
    graph.outputs.append(after.outputs[0])


def _axes_of(place: Place) -> Axes:
    """Returns the axes of a state: the batch, positions, and units behind."""
    if not place.is_of_scan:
        return (BATCH, "unit")
    sizes = shape_of(iteration_of(place.node).states[place.which].entering) or ()
    positions = (f"position_{k}" for k in range(len(sizes) - 2))
    return (BATCH, *positions, *(["unit"] if len(sizes) > 1 else []))


def _with_axis(model: ir.Model, kind: str, value: ir.Value, axis: int, name: str) -> ir.Node:
    """Returns a node that puts an axis of size 1 in, or takes it out, as the file writes it."""
    if model.opset_imports.get("", 1) < 13:
        made = ir.node(kind, [value], {"axes": [axis]}, name=f"{name}/axis")
    else:
        number = ir.tensor([axis], dtype=ir.DataType.INT64, name=f"{name}/which")
        where = ir.Value(
            name=number.name, type=ir.TensorType(number.dtype), shape=ir.Shape([1]),
            const_value=number,
        )  # fmt: skip
        model.graph.register_initializer(where)
        made = ir.node(kind, [value, where], name=f"{name}/axis")
    made.outputs[0].name = name
    return made
