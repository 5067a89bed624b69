"""Reads `Loop` and `Scan` nodes: what they carry, how often they run, which shapes they keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.values import Dim, attribute, constant_of, rank_of, shape_of

_Array = npt.NDArray[Any]

#: Where a Loop has no bound on its trips, ends are looked for up to here.
_LONGEST = 4096
#: What open sizes are taken for when the dependence of a trip count on them is looked for: the
#: number for the first one, and by how much that for each next one differs. So each is the
#: smallest once and the largest once.
_ROUNDS = ((1, 1), (2, 1), (47, -1), (60, -1))


@dataclasses.dataclass(frozen=True)
class State:
    """A value that is carried from step to step.

    Attributes:
        initial: outer value before the first step.
        entering: what a step finds; an input of the body.
        leaving: what a step leaves; an output of the body.
        final: outer value after the last step.
    """

    initial: ir.Value
    entering: ir.Value
    leaving: ir.Value
    final: ir.Value

    @property
    def fixed(self) -> bool:
        """True where no step changes it."""
        return origin(self.leaving) is self.entering


@dataclasses.dataclass(frozen=True)
class ScanInput:
    """A sequence of which a step sees one entry: outer value, its time axis, inner value."""

    sequence: ir.Value
    axis: int
    backwards: bool
    entering: ir.Value


@dataclasses.dataclass(frozen=True)
class ScanOutput:
    """An inner value that is collected over the steps, outer value, its time axis."""

    leaving: ir.Value
    stacked: ir.Value
    axis: int
    backwards: bool


@dataclasses.dataclass(frozen=True)
class Counter:
    """An integer that grows by the same from step to step.

    Attributes:
        value: what a step finds; an input of the body.
        initial: outer value at the first step; None stands for 0.
        step: how much it grows.
    """

    value: ir.Value
    initial: ir.Value | None
    step: int


@dataclasses.dataclass(frozen=True)
class Iteration:
    """A `Loop` or a `Scan`.

    Attributes:
        node: the node.
        body: the graph it runs.
        states: carried values.
        scan_inputs: sequences that are read step by step (`Scan` alone has them).
        scan_outputs: values that are collected.
        step_number: number of the step, from 0; an input of a Loop's body.
        condition: whether the step was to be run; an input of a Loop's body.
        next_condition: whether another step is to be run; an output of a Loop's body.
    """

    node: ir.Node
    body: ir.Graph
    states: tuple[State, ...]
    scan_inputs: tuple[ScanInput, ...]
    scan_outputs: tuple[ScanOutput, ...]
    step_number: ir.Value | None = None
    condition: ir.Value | None = None
    next_condition: ir.Value | None = None

    @property
    def changing(self) -> list[ir.Value]:
        """The inputs of the body that differ from step to step."""
        step_number = [] if self.step_number is None else [self.step_number]
        states = [s.entering for s in self.states if not s.fixed]
        return [*step_number, *states, *(s.entering for s in self.scan_inputs)]

    def in_any_step(
        self, starts: Iterable[ir.Value], depending: Callable[[set[ir.Value]], set[ir.Value]]
    ) -> set[ir.Value]:
        """Returns what depends on some values of a step, in it or in whatever later one.

        Args:
            starts: values of a step: inputs of the body, and values around it.
            depending: returns what depends on some of them within one step.
        """
        starts = set(starts)
        while True:
            found = depending(starts)
            carried = {s.entering for s in self.states if s.leaving in found} - starts
            if not carried:
                return found
            starts |= carried

    def counters(self) -> Iterator[Counter]:
        """Yields what counts the steps."""
        if self.step_number is not None:
            yield Counter(self.step_number, None, 1)
        for state in self.states:
            step = _increment(state)
            if step is not None:
                yield Counter(state.entering, state.initial, step)


def is_loop(node: ir.Node) -> bool:
    """Tells whether a node runs a body once a step."""
    return node.op_type in ("Loop", "Scan") and not node.domain


def body_of(loop: ir.Node) -> ir.Graph:
    """Returns the graph that a loop runs."""
    return loop.attributes["body"].as_graph()


def nodes_with_bodies(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yields the nodes of a graph, and behind each loop those of its body."""
    for node in graph:
        yield node
        if is_loop(node):
            yield from nodes_with_bodies(body_of(node))


def iteration_of(node: ir.Node) -> Iteration:
    """Returns a `Loop` or `Scan` node (as from opset 9 on) taken apart."""
    return _scan(node) if node.op_type == "Scan" else _loop(node)


def _loop(node: ir.Node) -> Iteration:
    body = node.attributes["body"].as_graph()
    count = len(body.inputs) - 2
    states = zip(
        node.inputs[2:], body.inputs[2:], body.outputs[1 : count + 1], node.outputs, strict=False
    )
    scan_outputs = zip(body.outputs[count + 1 :], node.outputs[count:], strict=True)
    return Iteration(
        node=node,
        body=body,
        states=tuple(State(a, b, c, d) for a, b, c, d in states if a is not None),
        scan_inputs=(),
        scan_outputs=tuple(ScanOutput(inner, outer, 0, False) for inner, outer in scan_outputs),
        step_number=body.inputs[0],
        condition=body.inputs[1],
        next_condition=body.outputs[0],
    )


def _scan(node: ir.Node) -> Iteration:
    body = node.attributes["body"].as_graph()
    sequences = int(attribute(node, "num_scan_inputs"))
    count = len(body.inputs) - sequences
    collected = len(body.outputs) - count
    states = zip(node.inputs, body.inputs[:count], body.outputs, node.outputs, strict=False)
    in_axes = attribute(node, "scan_input_axes", [0] * sequences)
    in_ways = attribute(node, "scan_input_directions", [0] * sequences)
    out_axes = attribute(node, "scan_output_axes", [0] * collected)
    out_ways = attribute(node, "scan_output_directions", [0] * collected)
    scan_inputs = zip(node.inputs[count:], in_axes, in_ways, body.inputs[count:], strict=True)
    scan_outputs = zip(body.outputs[count:], node.outputs[count:], out_axes, out_ways, strict=True)
    return Iteration(
        node=node,
        body=body,
        states=tuple(State(a, b, c, d) for a, b, c, d in states if a is not None),
        scan_inputs=tuple(
            ScanInput(a, _from_front(b, d), bool(c), d)
            for a, b, c, d in scan_inputs
            if a is not None
        ),
        scan_outputs=tuple(
            ScanOutput(a, b, _from_front(c, a), bool(d)) for a, b, c, d in scan_outputs
        ),
    )


def _from_front(axis: int, entry: ir.Value) -> int:
    """Returns a time axis as a position, not negative; `entry` has one axis less."""
    return axis if axis >= 0 else axis + rank_of(entry) + 1


def origin(value: ir.Value) -> ir.Value:
    """Returns what a value is a copy of: follows `Identity` nodes back."""
    producer = value.producer()
    while producer is not None and producer.op_type == "Identity" and not producer.domain:
        copied = producer.inputs[0]
        if copied is None:
            break
        value, producer = copied, copied.producer()
    return value


def carry_the_same(a: State, b: State) -> bool:
    """Tells whether two states are sure to hold the same at every step.

    They do where they begin alike, and where what a step leaves of each is computed alike
    from values that are the same as long as both states are.
    """
    if a is b:
        return True
    alike = a.initial is b.initial or (_is_zero(a.initial) and _is_zero(b.initial))
    shapes = shape_of(a.entering), shape_of(b.entering)
    described_alike = a.entering.dtype == b.entering.dtype and shapes[0] == shapes[1]
    of_known_sizes = shapes[0] is not None and None not in shapes[0]
    return (
        alike
        and described_alike
        and of_known_sizes
        and _equal(a.leaving, b.leaving, {(a.entering, b.entering)})
    )


def _equal(a: ir.Value, b: ir.Value, same: set[tuple[ir.Value, ir.Value]]) -> bool:
    """Tells whether two values of a body are computed alike; notes pairs that are in `same`."""
    a, b = origin(a), origin(b)
    if a is b or (a, b) in same:
        return True
    first, second = constant_of(a), constant_of(b)
    if first is not None and second is not None:
        return first.dtype == second.dtype and np.array_equal(first, second)
    one, other = a.producer(), b.producer()
    if one is None or other is None:
        return False
    alike = (one.domain, one.op_type, a.index()) == (other.domain, other.op_type, b.index())
    if not alike or one.attributes != other.attributes or len(one.inputs) != len(other.inputs):
        return False
    operands = zip(one.inputs, other.inputs, strict=True)
    if not all(x is y or (x and y and _equal(x, y, same)) for x, y in operands):
        return False
    same.add((a, b))
    return True


def _is_zero(value: ir.Value) -> bool:
    """Tells whether a value is known to hold zeros only."""
    value = origin(value)
    array, node = constant_of(value), value.producer()
    if array is not None:
        return not array.any()
    if node is None or node.domain:
        return False
    if node.op_type == "ConstantOfShape":
        filled = attribute(node, "value")
        return filled is None or not filled.numpy().any()
    if node.op_type in ("Expand", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Transpose"):
        return node.inputs[0] is not None and _is_zero(node.inputs[0])
    return False


def _increment(state: State) -> int | None:
    """Returns what each step adds to an integer state, where that is a constant."""
    producer = origin(state.leaving).producer()
    if producer is None or producer.op_type != "Add" or producer.domain:
        return None
    operands = list(producer.inputs)
    if state.entering in operands:
        operands.remove(state.entering)
        step = constant_of(operands[0])
        if step is not None and step.size == 1 and step.dtype.kind in "iu":
            return int(step.reshape(()))
    return None


# -- how often a loop runs -------------------------------------------------------------------


def trip_count(iteration: Iteration) -> Dim:
    """Returns how many steps are run: a number, the name of an open size, or None.

    A Loop that counts (as the ones recurrent layers become) has a condition that depends on
    constants, sizes and the count alone; it is evaluated for all steps at once, for open sizes
    with several numbers in their place.
    """
    if iteration.node.op_type == "Scan":
        sizes = [(shape_of(s.sequence) or ()) for s in iteration.scan_inputs]
        dims = [d[s.axis] for d, s in zip(sizes, iteration.scan_inputs, strict=True) if d]
        return next((d for d in dims if isinstance(d, int)), next(iter(dims), None))
    rounds = []
    for first, each in _ROUNDS:
        evaluation = _Evaluation(first, each)
        trips = _trips(iteration, evaluation)
        if trips is None:
            return None
        rounds.append((trips, evaluation.sizes))
    if not any(taken for _, taken in rounds):
        return rounds[0][0]
    names = rounds[0][1]
    return next((n for n in names if all(taken.get(n) == trips for trips, taken in rounds)), None)


def _trips(iteration: Iteration, evaluate: _Evaluation) -> int | None:
    """Returns the trips of a Loop, open sizes taken for the numbers of an evaluation."""
    bound, first = iteration.node.inputs[0], iteration.node.inputs[1]
    most = np.array(_LONGEST) if bound is None else evaluate.constant(bound)
    started = np.array(True) if first is None else evaluate.constant(first)
    if most is None or started is None or iteration.next_condition is None:
        return None
    if not started.all():
        return 0
    steps = np.arange(min(int(most.reshape(())), _LONGEST))
    if iteration.condition is not None:
        evaluate.assumed[iteration.condition] = np.array(True)
    for state in iteration.states:
        initial = evaluate.constant(state.initial) if state.fixed else None
        if initial is not None:
            evaluate.assumed[state.entering] = initial
    for counter in iteration.counters():
        start = np.array(0) if counter.initial is None else evaluate.constant(counter.initial)
        if start is not None and start.size == 1:
            evaluate.running[counter.value] = start.reshape(()) + counter.step * steps
    goes_on = evaluate.each_step(iteration.next_condition)
    if goes_on is None:
        return None
    ends = np.flatnonzero(~np.broadcast_to(goes_on.reshape(-1), steps.shape))
    if ends.size:
        return int(ends[0]) + 1
    complete = bound is not None and int(most.reshape(())) <= _LONGEST
    return len(steps) if complete else None


class _Evaluation:
    """Evaluates integer and boolean arithmetic on constants, sizes and counts.

    Attributes:
        assumed: values that are known beforehand.
        running: values that differ from step to step, one scalar a step: `[steps]`.
        sizes: the numbers that open sizes met so far are taken for.
    """

    def __init__(self, first: int, each: int) -> None:
        self.assumed: dict[ir.Value, _Array] = {}
        self.running: dict[ir.Value, _Array] = {}
        self.sizes: dict[str, int] = {}
        self._first = first
        self._each = each

    def constant(self, value: ir.Value) -> _Array | None:
        """Returns a value that is the same in all steps, or None where it is not known."""
        if value in self.assumed:
            return self.assumed[value]
        array = constant_of(value)
        if array is not None:
            return array
        node = value.producer()
        if node is None or node.domain:
            return None
        if node.op_type == "Shape":
            return self._shape(node)
        operands = [None if v is None else self.constant(v) for v in node.inputs]
        if any(o is None for o in operands):
            return None
        function = _ELEMENTWISE.get(node.op_type) or _STRUCTURAL.get(node.op_type)
        return None if function is None else np.asarray(function(node, *operands))

    def each_step(self, value: ir.Value) -> _Array | None:
        """Returns a scalar of the body for all steps, `[steps]` or `[]`, or None."""
        if value in self.running:
            return self.running[value]
        array = self.constant(value)
        if array is not None:
            return array if array.size == 1 else None
        node = value.producer()
        if node is None or node.domain or node.op_type not in _ELEMENTWISE:
            return None
        operands = [None if v is None else self.each_step(v) for v in node.inputs]
        if any(o is None for o in operands):
            return None
        return np.asarray(_ELEMENTWISE[node.op_type](node, *operands))

    def _shape(self, node: ir.Node) -> _Array | None:
        of = node.inputs[0]
        dims = None if of is None else shape_of(of)
        if dims is None or None in dims:
            return None
        numbers = [d if isinstance(d, int) else self._size(str(d)) for d in dims]
        return np.array(numbers[attribute(node, "start", 0) : attribute(node, "end")])

    def _size(self, name: str) -> int:
        """Returns the number an open size is taken for: another one for each name."""
        return self.sizes.setdefault(name, max(1, self._first + self._each * len(self.sizes)))


def _cast(node: ir.Node, x: _Array) -> _Array:
    return x.astype(ir.DataType(attribute(node, "to")).numpy())


def _slice(_: ir.Node, x: _Array, *bounds: _Array) -> _Array:
    starts, ends = bounds[0], bounds[1]
    axes = bounds[2] if len(bounds) > 2 else np.arange(len(starts))
    steps = bounds[3] if len(bounds) > 3 else np.ones(len(starts), int)
    cut = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        cut[int(axis)] = slice(int(start), int(end), int(step))
    return x[tuple(cut)]


_Function = Callable[..., Any]
_ELEMENTWISE: Mapping[str, _Function] = {
    "Identity": lambda _, x: x,
    "Cast": _cast,
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Less": lambda _, a, b: a < b,
    "LessOrEqual": lambda _, a, b: a <= b,
    "Greater": lambda _, a, b: a > b,
    "GreaterOrEqual": lambda _, a, b: a >= b,
    "Equal": lambda _, a, b: a == b,
    "And": lambda _, a, b: np.logical_and(a, b),
    "Or": lambda _, a, b: np.logical_or(a, b),
    "Not": lambda _, x: np.logical_not(x),
}
_STRUCTURAL: Mapping[str, _Function] = {
    "Slice": _slice,
    "Squeeze": lambda _, x, axes=None: np.squeeze(x, None if axes is None else tuple(axes)),
    "Unsqueeze": lambda _, x, axes: np.expand_dims(x, tuple(int(a) for a in axes)),
    "Gather": lambda node, x, index: np.take(x, index, axis=attribute(node, "axis", 0)),
    "Concat": lambda node, *x: np.concatenate(x, axis=attribute(node, "axis")),
    "ReduceMax": lambda _, x, *axes: np.max(x, tuple(axes[0]) if axes else None),
}


# -- which shapes a loop keeps ---------------------------------------------------------------


def infer_with_loops(
    model: ir.Model,
    infer: Callable[[ir.Model], object],
    more: Callable[[ir.Model], Mapping[ir.Value, list[Dim]]] = lambda _: {},
) -> None:
    """Infers all shapes anew, with those of what loops carry and collect.

    ONNX lets a carried value change its shape from step to step, so that its inference knows
    nothing about it. Here it is taken to have the initial value's sizes, and each size that a
    step then does not keep is opened again.

    Args:
        model: changed in place.
        infer: infers element types and shapes of a model in place.
        more: returns shapes that `infer` did not find; they are kept, and those behind inferred.
    """
    carried_shapes: dict[ir.Value, list[Dim]] = {}

    def infer_anew() -> None:
        for node in model.graph.all_nodes():
            for value in node.outputs:
                sizes = carried_shapes.get(value)
                value.shape = None if sizes is None else ir.Shape(sizes)
        infer(model)

    def infer_with_more() -> None:
        infer_anew()
        if found := more(model):
            carried_shapes.update(found)
            infer_anew()

    infer_with_more()
    for node in list(model.graph.all_nodes()):
        if node.op_type in ("Loop", "Scan") and not node.domain:
            iteration = iteration_of(node)
            _keep_common_sizes(iteration, infer_anew)
            carried_shapes.update(_outputs_of(iteration))
            infer_with_more()  # what reads the loop's results too


def _keep_common_sizes(iteration: Iteration, infer: Callable[[], None]) -> None:
    """Gives the states of a loop the sizes that every step keeps."""
    carried = [s for s in iteration.states if s.initial.shape is not None]
    sizes = {s: list(shape_of(s.initial) or ()) for s in carried}
    changed = carried
    while changed:
        for state in changed:
            state.entering.shape = ir.Shape(sizes[state])
        infer()
        changed = [s for s in carried if _common(sizes[s], shape_of(s.leaving)) != sizes[s]]
        for state in changed:
            sizes[state] = _common(sizes[state], shape_of(state.leaving))


def _common(sizes: list[Dim], after: tuple[Dim, ...] | None) -> list[Dim]:
    """Returns the sizes that two shapes have in common, None for each other."""
    if after is None or len(after) != len(sizes):
        return [None] * len(sizes)
    return [a if a == b else None for a, b in zip(sizes, after, strict=True)]


def _outputs_of(iteration: Iteration) -> Iterator[tuple[ir.Value, list[Dim]]]:
    """Yields the outputs of a loop, once the sizes of its states are known, with their shapes."""
    for state in iteration.states:
        sizes = shape_of(state.entering)
        if sizes is not None:
            yield state.final, list(sizes)
    steps = trip_count(iteration)
    for stack in iteration.scan_outputs:
        each = shape_of(stack.leaving)
        if each is not None:
            whole = list(each)
            whole.insert(stack.axis, steps)
            yield stack.stacked, whole
