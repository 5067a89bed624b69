"""States of an ONNX file as inputs and outputs, so that a series can be run in chunks.

Recurrent operators, and a `Scan`, that start from zeros start from what is fed instead, and where
they end comes out. States that a file takes and gives out already are found by what its graph does
with them, and noted as such: an input that a recurrence starts from and nothing else reads, whose
end an output is; and a cache, to which a run adds and whose names go together. A name alone makes
no state of an input: a forecaster calls its series `x` and what it predicts of it `next_x`. A user
says such ones.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx_ir as ir

from probegen.artefact.manifest import NEXT_STATE, STATE
from probegen.errors import ExportError
from probegen.graph.core.queries import inputs_of, is_float
from probegen.graph.core.values import Dim, attribute, constant_of, shape_of, whole_numbers
from probegen.graph.loops.iteration import ScanInput, is_loop, iteration_of
from probegen.plan.axes import BATCH, Axes
from probegen.plan.points import ProbePoint
from probegen.sources.onnx.loading import load
from probegen.sources.onnx.reading import OnnxModel, read_onnx
from probegen.sources.onnx.view import OnnxView
from probegen.sources.states import alike, checked_pairs

#: Where a recurrent operator takes its states, and where it gives them out.
_TAKEN, _GIVEN = (5, 6), (1, 2)
#: Operators that move the numbers of one tensor about, and change none.
_MOVES = frozenset(
    {"Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Split"}
    | {"Flatten", "Cast", "Expand", "Tile"}
)
#: The operator set that made of `Scan` what it is today.
_SCANS_AS_TODAY = 9
_CACHE: Axes = (BATCH, "head", "past", "feature")
#: Operators that ask how large a tensor is, not what it holds.
_SIZES = frozenset({"Shape", "Size"})
#: Operators that put new entries to a cache, and the places of the cache among their inputs; all of
#: them where None.
_ADDING: Mapping[str, tuple[int, ...] | None] = {
    "Concat": None,
    "ScatterND": (0,),
    "ScatterElements": (0,),
    "Where": (1, 2),
}
#: Names of an input, and what the output of the next state is called then, as exporters and people
#: call them: `past_key_values.0.key` and `present.0.key`, `h0` and `hn`, `h` and `next_h`.
_PAIRS = tuple(
    (re.compile(before), after)
    for before, after in (
        (r"past_key_values(.*)", r"present\1"),
        (r"past_key_values(.*)", r"present_key_values\1"),
        (r"past_(key|value)_values(.*)", r"present_\1_values\2"),
        (r"past(.*)", r"present\1"),
        (r"(.*)0", r"\1n"),
        (r"(.*)_in", r"\1_out"),
        (r"in_(.*)", r"out_\1"),
        (r"(.*)_prev", r"\1"),
        (r"prev_(.*)", r"\1"),
        (r"(.*)", r"next_\1"),
        (r"(.*)", r"new_\1"),
        (r"(.*)", r"\1_next"),
        (r"(.*)", r"\1_new"),
        (r"(.*)", r"\1_out"),
        (r"(.*)", r"\1n"),
        (r"(.*)", r"\1N"),
    )
)


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


@dataclasses.dataclass(frozen=True)
class _Place:
    """One state of one recurrent operator, or of a `Scan`.

    Attributes:
        path: of the operator's point.
        node: the operator in the prepared graph.
        which: 0 for the hidden state, 1 for the cell state; of a Scan its number.
    """

    path: str
    node: ir.Node
    which: int

    @property
    def name(self) -> str:
        """What the state is called behind `state/`."""
        return f"{self.path}:{self.which}" if self.which else self.path

    @property
    def initial(self) -> ir.Value | None:
        """What the operator starts from; None where that is left out, which means zeros."""
        value = self.node.inputs[self.taken] if self.taken < len(self.node.inputs) else None
        return value if value is not None and value.name else None

    @property
    def is_of_scan(self) -> bool:
        """True where it is carried by a Scan."""
        return self.node.op_type == "Scan"

    @property
    def taken(self) -> int:
        """Which input of the node it starts from."""
        return self.which if self.is_of_scan else _TAKEN[self.which]

    @property
    def given(self) -> int:
        """Which output of the node says where it ends."""
        return self.which if self.is_of_scan else _GIVEN[self.which]

    @property
    def last(self) -> ir.Value | None:
        """Where it ends; None where the operator does not give that out."""
        return self.node.outputs[self.given] if self.given < len(self.node.outputs) else None


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
    places: list[_Place] = []
    if select is not None:
        places = _places(view, _chosen(view, select))
    elif pairs is None:
        recurrent = [p for p in view.points if "states" in p.probes]
        every = _places(view, [p for p in recurrent if _is_fused(p) or _can_be_fed(p.layer)])
        own = _own_states(view, every)
        others = {p.path for p in every if not _starts_from_zero(p.initial)}
        places = [p for p in every if p.path not in others]
    for place in places:
        _check(view, place)
    if not places and not own:
        raise ExportError(_nothing(view))
    if not places:
        return StatesFile(read, own, _cache_axes(view, own), ())
    return _added(read, view, places, own)


def _nothing(view: OnnxView) -> str:
    floats = [name for i, name in enumerate(view.input_names) if view.input(i).is_float]
    by_name = {str(v.name): str(end.name) for v in view.inputs for end in _named_after(view, v)}
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
        if not _starts_from_zero(state.initial):
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


def _places(view: OnnxView, points: Sequence[ProbePoint]) -> list[_Place]:
    """Returns the states of recurrent operators."""
    found = []
    for point in points:
        node = view.node(point.path)
        states = [0, 1] if node.op_type == "LSTM" else [0]
        if node.op_type == "Scan":
            states = [i for i, s in enumerate(iteration_of(node).states) if not s.fixed]
        found += [_Place(point.path, node, i) for i in states]
    return found


def _check(view: OnnxView, place: _Place) -> None:
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
    if _starts_from_zero(place.initial):
        return
    assert place.initial is not None
    fed = _fed_by(place.initial)
    if fed is not None and not fed.is_initializer():
        given = next((v for k, v in _own_states(view, [place]).items() if k == fed.name), None)
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


# -- where states come from and go to -----------------------------------------------------------


def _starts_from_zero(value: ir.Value | None) -> bool:
    """Tells whether a value holds zeros, whatever is fed."""
    if value is None:
        return True
    known = constant_of(value)
    if known is not None:
        return not known.any()
    node = value.producer()
    if node is None or node.domain:
        return False
    if node.op_type == "ConstantOfShape":
        filled = node.attributes.get("value")
        return filled is None or not filled.as_tensor().numpy().any()
    if node.op_type == "Concat":
        return all(_starts_from_zero(v) for v in node.inputs if v is not None)
    return node.op_type in _MOVES and _starts_from_zero(node.inputs[0])


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


def _fed_by(value: ir.Value) -> ir.Value | None:
    """Returns the input of the file whose numbers, moved about alone, a value holds."""
    while (node := value.producer()) is not None:
        first = node.inputs[0] if node.inputs else None
        if node.domain or node.op_type not in _MOVES or first is None:
            return None
        value = first
    return value if value.is_graph_input() else None


def _given_out(value: ir.Value | None) -> Iterator[ir.Value]:
    """Yields the outputs of the file that hold a value's numbers, moved about or put together."""
    pending, seen = [value] if value is not None else [], set[ir.Value]()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        if value.is_graph_output():
            yield value
        for use in value.uses():
            if use.node.op_type in _MOVES | {"Concat"} and not use.node.domain:
                pending.extend(use.node.outputs)


def _own_states(view: OnnxView, places: Sequence[_Place]) -> dict[str, str]:
    """Returns the states that a file takes and gives out already: input -> output."""
    taken: dict[ir.Value, set[_Start]] = {}
    given: dict[ir.Value, set[_Start]] = {}
    for start, initial, last in _recurrences(view, places):
        fed = None if initial is None else _fed_by(initial)
        if fed is not None:
            taken.setdefault(fed, set()).add(start)
        for output in _given_out(last):
            given.setdefault(output, set()).add(start)
    found: dict[str, str] = {}
    for fed, starts in taken.items():
        ends = [v for v, of in given.items() if of == starts and _goes_with(view, fed, v)]
        if len(ends) == 1 and _read_only_at(fed, starts):
            found[str(fed.name)] = str(ends[0].name)
    for value in view.inputs:
        if str(value.name) in found:
            continue
        for end in _named_after(view, value):
            if end.name not in found.values() and _is_cache(value, end):
                found[str(value.name)] = str(end.name)
                break
    order = [str(v.name) for v in view.inputs]
    return {name: found[name] for name in order if name in found}


#: A node, and which of its inputs a recurrence starts from.
_Start = tuple[ir.Node, int]


def _recurrences(
    view: OnnxView, places: Sequence[_Place]
) -> Iterator[tuple[_Start, ir.Value | None, ir.Value | None]]:
    """Yields where recurrences start, from which value, and the value that they end with."""
    for place in places:
        if not place.is_of_scan:
            yield (place.node, place.taken), place.initial, place.last
    for loop in filter(is_loop, view.graph):
        first = 0 if loop.op_type == "Scan" else 2
        for number, state in enumerate(iteration_of(loop).states):
            yield (loop, first + number), state.initial, state.final


def _read_only_at(fed: ir.Value, starts: Collection[_Start]) -> bool:
    """Tells whether nothing reads an input but recurrences that start from it.

    What else is read is data: the features of an image that a decoder starts from and looks at.
    """
    return all(use in starts for use in _uses_behind_moves(fed))


def _uses_behind_moves(value: ir.Value) -> Iterator[_Start]:
    """Yields who reads the numbers of a value, moved about, at which of its inputs.

    Bodies of loops and branches that read it are none of its graph, and no recurrence.
    """
    pending, seen = [value], set[ir.Value]()
    while pending:
        value = pending.pop()
        if value in seen:
            continue
        seen.add(value)
        for use in value.uses():
            if use.node.domain or use.node.op_type not in _MOVES | _SIZES:
                yield use.node, use.idx
            elif use.node.op_type in _MOVES:
                pending.extend(use.node.outputs)


def _is_cache(value: ir.Value, end: ir.Value) -> bool:
    """Tells whether a run puts new entries to an input, and does nothing else with it.

    What is read otherwise before is data: a window of a series of which the last step is predicted.
    """
    uses = list(_uses_behind_moves(value))
    return bool(uses) and all(
        not node.domain
        and node.op_type in _ADDING
        and (_ADDING[node.op_type] is None or place in (_ADDING[node.op_type] or ()))
        and end in _given_out(node.outputs[0])
        for node, place in uses
    )


def _named_after(view: OnnxView, value: ir.Value) -> Iterator[ir.Value]:
    """Yields the outputs that are called as the next value of an input, and may be that."""
    outputs = {str(v.name): v for v in view.graph.outputs}
    for before, after in _PAIRS if is_float(value) else ():
        match = before.fullmatch(str(value.name))
        end = None if match is None else outputs.get(match.expand(after))
        if end is not None and _goes_with(view, value, end):
            yield end


def _cache_axes(view: OnnxView, own: Mapping[str, str]) -> dict[str, Axes]:
    """Returns the axes of caches of keys and values, `[batch, head, past, feature]`."""
    found: dict[str, Axes] = {}
    for name, following in own.items():
        sizes = view.input(view.input_names.index(name)).shape
        if [n is None for n in sizes] == [True, False, True, False]:
            found |= {name: _CACHE, following: _CACHE}
    return found


def _goes_with(view: OnnxView, value: ir.Value, following: ir.Value) -> bool:
    """Tells whether an output may be the next value of an input."""
    at, end = view.inputs.index(value), list(view.graph.outputs).index(following)
    return alike(view.input(at), view.output(end))


# -- states that are added ----------------------------------------------------------------------


def _added(
    read: OnnxModel, view: OnnxView, places: Sequence[_Place], own: Mapping[str, str]
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
    carried, axes = dict(own), _cache_axes(view, own)
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


def _found(graph: ir.Graph, place: _Place) -> ir.Node | None:
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
    model: ir.Model, node: ir.Node, place: _Place, name: str, following: str, batch: Dim
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
    if len(node.inputs) <= _TAKEN[which]:
        node.resize_inputs(_TAKEN[which] + 1)
    node.replace_input_with(_TAKEN[which], before.outputs[0])
    if len(node.outputs) <= _GIVEN[which]:
        node.resize_outputs(_GIVEN[which] + 1)
    last = node.outputs[_GIVEN[which]]
    if not last.name:
        last.name = f"{following}/whole"
    after = _with_axis(model, "Squeeze", last, at, following)
    after.outputs[0].type, after.outputs[0].shape = element, ir.Shape([batch, units])
    graph.insert_after(node, after)
    graph.outputs.append(after.outputs[0])


def _add_to_scan(
    model: ir.Model, node: ir.Node, place: _Place, name: str, following: str, batch: Dim
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


def _axes_of(place: _Place) -> Axes:
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
