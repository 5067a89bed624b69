"""Gradients of the operators that hold subgraphs: If, Loop and Scan.

A subgraph is differentiated by the same walk and the same tables as the graph around it. What
its forward pass computed is not visible from outside, so the gradient's subgraph begins with a
copy of the forward one, of which only what the gradient reads is kept.

The gradient of a loop is a loop over the same steps in reverse order. Each step starts from
what the forward step found: values the forward loop collects anyway are read from there, counts
are counted again, and the rest is run again, so that the forward loop stays as it was.
`Gather(sequence, count)`, the way Keras' recurrent layers read their input, becomes a slice of
the sequence and its gradient a slice of the sequence's gradient.

Both loops are left with what has to be done step by step; see `probegen.graph.loops.hoist`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from probegen.errors import Refusal, UnsupportedOpsError
from probegen.graph.autodiff import (
    Refused,
    Rule,
    Walk,
    add,
    influenced_by,
    nodes_between,
    unsupported,
)
from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import captured_values, inputs_of, is_float
from probegen.graph.core.values import Dim, attribute, constant_of, dtype_of, rank_of, shape_of
from probegen.graph.loops.hoist import Collected, leading_to, needed
from probegen.graph.loops.iteration import (
    Iteration,
    ScanOutput,
    State,
    carry_the_same,
    iteration_of,
    origin,
    trip_count,
)
from probegen.graph.loops.step_writer import StepWriter, copy_into, shift_by_one_step

_Pairs = Iterator[tuple[ir.Value, ir.Value]]

#: Constants of a body that are larger move out of it, so that its copies share them.
_SHARED_BYTES = 1024


def if_(walk: Walk, node: ir.Node, outputs: Sequence[ir.Value | None]) -> _Pairs:
    """Gradient of If with respect to what its branches capture: an If of their gradients.

    Raises:
        UnsupportedOpsError: operators inside have no gradient; lists those of both branches.
    """
    branches = [node.attributes[n].as_graph() for n in ("then_branch", "else_branch")]
    captured = dict.fromkeys(v for b in branches for v in captured_values(b) if v in walk.wanted)
    written: list[_Branch] = []
    refusals: list[Refusal] = []
    for branch in branches:
        try:
            written.append(_branch(walk, branch, outputs, list(captured)))
        except UnsupportedOpsError as error:
            refusals += error.refusals
    if refusals:
        raise unsupported(refusals)
    reached = [
        (value, found)
        for value, *found in zip(captured, *(w.gradients for w in written), strict=True)
        if any(g is not None for g in found)
    ]
    if not reached:
        return
    for position, one in enumerate(written):
        one.finish([(value, found[position]) for value, found in reached])
    results = walk.builder.ops(
        "If",
        node.inputs[0],
        outputs=len(reached),
        shapes=[value for value, _ in reached],
        then_branch=written[0].graph,
        else_branch=written[1].graph,
    )
    for (value, _), result in zip(reached, results, strict=True):
        result.type = value.type
        yield value, result


@dataclasses.dataclass(frozen=True)
class _Branch:
    """The gradient of one branch of an If, as far as it is written.

    Attributes:
        builder: writes into the branch.
        gradients: one for each captured value, None where it has none.
    """

    builder: Builder
    gradients: list[ir.Value | None]

    @property
    def graph(self) -> ir.Graph:
        """The branch."""
        return self.builder.graph

    def finish(self, results: Sequence[tuple[ir.Value, ir.Value | None]]) -> None:
        """Makes the gradients the branch's outputs, zeros where there is none."""
        inner = self.builder
        for value, gradient in results:
            whole = inner.zeros_like(value) if gradient is None else gradient
            self.graph.outputs.append(inner.op("Identity", whole, shape=value))
        copied = list(self.graph)
        self.graph.remove(copied)
        inner.nodes, _ = needed([*copied, *inner.nodes], self.graph.outputs)
        inner.attach()


def _branch(
    walk: Walk,
    branch: ir.Graph,
    outputs: Sequence[ir.Value | None],
    captured: Sequence[ir.Value],
) -> _Branch:
    builder = walk.builder
    _share_constants(builder, branch)
    name = builder.fresh("If")
    graph = ir.Graph([], [], nodes=[], opset_imports={"": builder.opset}, name=name)
    copies = copy_into(graph, branch, name)
    inner = Builder(graph, builder.opset, prefix=name)
    seeds: dict[ir.Value, ir.Value] = {}
    for value, gradient in zip(branch.outputs, outputs, strict=True):
        if gradient is not None:
            _seed(inner, seeds, copies.get(value, value), gradient)
    return _Branch(inner, walk.inside(inner, seeds, captured))


def loop(walk: Walk, node: ir.Node, outputs: Sequence[ir.Value | None]) -> _Pairs:
    """Gradient of Loop and Scan: with respect to initial values, sequences and captured values.

    Raises:
        Refused: a carried value changes its shape.
        UnsupportedOpsError: operators inside have no gradient; lists each.
    """
    iteration = iteration_of(node)
    _share_constants(walk.builder, iteration.body)
    for state, gradient in zip(iteration.states, outputs, strict=False):
        if state.fixed and gradient is not None and state.initial in walk.wanted:
            yield state.initial, gradient
    yield from _Backward(walk, iteration, outputs).write()


RULES: dict[str, Rule] = {"If": if_, "Loop": loop, "Scan": loop}


@dataclasses.dataclass(frozen=True)
class _Entry:
    """A sequence that the body reads entry by entry.

    Attributes:
        sequence: the outer value.
        axis: its time axis.
        backwards: True where the first step reads the last entry.
        start: the entry that the first step of a Loop reads by its count; None where a Scan
            reads the whole sequence.
        inside: what a step reads, in the gradient's body.
    """

    sequence: ir.Value
    axis: int
    backwards: bool
    start: int | None
    inside: ir.Value


class _Copy:
    """A copy of a loop's body at the beginning of a loop that is written.

    Attributes:
        loop: the loop that is written.
        inner: value of the forward body -> its copy, or what stands in its place.
        entries: the sequences that the copy reads entry by entry.
    """

    def __init__(
        self, builder: Builder, iteration: Iteration, beside: StepWriter | None = None
    ) -> None:
        self.loop = beside or StepWriter(builder)
        self.inner = self.loop.copy(iteration.body, "/beside" if beside else "")
        self._iteration = iteration
        self._bound = {self.inner[v] for v in iteration.changing}
        for state in iteration.states:
            if state.fixed:  # what no step changes is read from outside
                self.replace(self.inner[state.entering], state.initial)
        if iteration.condition is not None:  # a step that was run was to be run
            self.replace(self.inner[iteration.condition], self.loop.body.const(True))
        self.entries = [*self._slices(), *self._take_gathers()]

    def of(self, value: ir.Value) -> ir.Value:
        """Returns the copy of a value; of one from outside, the value."""
        return self.inner.get(value, value)

    def replace(self, inside: ir.Value, other: ir.Value) -> None:
        """Puts another value in the place of one of the copy."""
        ir.convenience.replace_all_uses_with(inside, other)
        self.inner.update({k: other for k, v in self.inner.items() if v is inside})

    def _slices(self) -> Iterator[_Entry]:
        for one in self._iteration.scan_inputs:
            inside = self.inner[one.entering]
            yield _Entry(one.sequence, one.axis, one.backwards, None, inside)

    def _take_gathers(self) -> Iterator[_Entry]:
        """Takes the Gathers that read as the loop counts out of the copy."""
        graph = self.loop.body.graph
        starts = self._starts()
        outside = set(captured_values(graph)) - self._bound
        entries: dict[tuple[ir.Value, int], _Entry] = {}
        for node in list(graph):
            if node.op_type != "Gather" or node.domain or attribute(node, "axis", 0) != 0:
                continue
            sequence, index = node.inputs
            if sequence is None or index is None or sequence not in outside or index not in starts:
                continue
            result = node.outputs[0]
            key = (sequence, starts[index])
            if key not in entries:
                inside = self.loop.value("entry", result.type, shape_of(result))
                entries[key] = _Entry(sequence, 0, False, starts[index], inside)
            self.replace(result, entries[key].inside)
            graph.remove(node, safe=True)
        yield from entries.values()

    def _starts(self) -> dict[ir.Value, int]:
        """Returns the counts of the copy that go up by 1 from a known start >= 0."""
        starts = {}
        for counter in self._iteration.counters():
            start = np.array(0) if counter.initial is None else constant_of(counter.initial)
            if counter.step == 1 and start is not None and start.size == 1 and start >= 0:
                starts[self.inner[counter.value]] = int(start.reshape(()))
        return starts


class _Found:
    """What the steps of a forward loop found, as sequences with the time axis first.

    What the loop collects is read from there, counts are counted again. The rest is run again
    from what is known, which leaves the forward loop as it was; where it is not known
    beforehand how many steps there are, the forward loop is made to collect it.
    """

    def __init__(self, builder: Builder, iteration: Iteration) -> None:
        self._builder = builder
        self._iteration = iteration
        self._trips = trip_count(iteration)
        self._counters = {counter.value: counter for counter in iteration.counters()}
        self._known: dict[ir.Value, ir.Value] = {}

    def bind(self, copy: _Copy, read: Container[ir.Value], *, backwards: bool) -> None:
        """Gives a copy of the body what the steps found, as far as it is read.

        Args:
            copy: the copy.
            read: values of the copy that are read.
            backwards: True where the copy begins with the last step.
        """
        for entry in copy.entries:
            if entry.inside in read:
                sequence = _time_first(self._builder, self._part(entry), entry.axis)
                copy.loop.bind(entry.inside, sequence, backwards=entry.backwards != backwards)
        sliced = {s.entering for s in self._iteration.scan_inputs}
        missing = [v for v in self._iteration.changing if v not in sliced and copy.inner[v] in read]
        self._find(missing)
        for value in missing:
            copy.loop.bind(copy.inner[value], self._known[value], backwards=backwards)

    def whole(self, entry: _Entry, gradient: ir.Value) -> ir.Value:
        """Returns the gradient of a sequence from that of what the steps read of it."""
        builder, sequence = self._builder, entry.sequence
        if entry.start is None:
            order = [*range(1, entry.axis + 1), 0, *range(entry.axis + 1, rank_of(gradient))]
            return builder.transpose(gradient, order)
        if self._is_all(entry):
            return gradient
        others = [0] * (rank_of(sequence) - 1)
        size = (shape_of(sequence) or (None,))[0]
        if isinstance(self._trips, int) and isinstance(size, int):
            after = size - entry.start - self._trips
            return builder.pad(gradient, [entry.start, *others], [after, *others])
        end = builder.add(builder.unsqueeze(self.count(), [0]), builder.ints(entry.start))
        rest = builder.sub(builder.size(sequence, 0), end)
        widths = [builder.ints(entry.start, *others), rest]
        widths += [builder.ints(*others)] if others else []
        return builder.op("Pad", gradient, builder.concat(widths, 0), shape=sequence)

    def count(self) -> ir.Value:
        """Returns the number of steps as an int64 scalar."""
        builder = self._builder
        if isinstance(self._trips, int):
            return builder.const(self._trips, ir.DataType.INT64)
        iteration = iteration_of(self._iteration.node)
        if iteration.scan_inputs:
            size = builder.size(iteration.scan_inputs[0].sequence, iteration.scan_inputs[0].axis)
        elif iteration.scan_outputs:
            size = builder.size(_output(builder, iteration, iteration.scan_outputs[0]), 0)
        else:
            size = builder.size(_record(builder, iteration, iteration.body.inputs[0], None), 0)
        return builder.squeeze(size, [0])

    def count_for(self, loop: StepWriter) -> ir.Value | None:
        """Returns the number of steps where a loop over them has to be a Loop and no Scan.

        A Scan needs something to read, and at least one step.
        """
        counted = self._trips is not None and self._trips != 0
        is_scan = self._iteration.node.op_type == "Scan"
        return None if (counted or is_scan) and loop.reads else self.count()

    # -- what carried values were ------------------------------------------------------------

    def _find(self, values: Sequence[ir.Value]) -> None:
        """Makes carried values known at all steps."""
        unknown = [v for v in values if not self._at_hand(v)]
        if unknown and self._trips is None:
            for value in unknown:
                self._known[value] = _record(self._builder, self._iteration, value, None)
        elif unknown:
            self._run_again(unknown)

    def _at_hand(self, value: ir.Value) -> bool:
        """Makes a carried value known where that needs no other run; tells whether it is."""
        if value not in self._known:
            found = self._counted(value) or self._collected(value)
            if found is not None:
                self._known[value] = found
        return value in self._known

    def _collected(self, value: ir.Value) -> ir.Value | None:
        """Returns a carried value from what the forward loop collects."""
        iteration = iteration_of(self._iteration.node)
        state = next(s for s in iteration.states if s.entering is value)
        twins = [s for s in iteration.states if carry_the_same(state, s)]
        for stack in iteration.scan_outputs:
            collected = origin(stack.leaving)
            if stack.axis or stack.backwards:
                continue
            if any(s.entering is collected for s in twins):
                return _output(self._builder, iteration, stack)
            if any(origin(s.leaving) is collected for s in twins):
                left = _output(self._builder, iteration, stack)
                return shift_by_one_step(self._builder, left, state.initial, backwards=False)
        return None

    def _counted(self, value: ir.Value) -> ir.Value | None:
        """Returns a count at all steps, `[steps]`."""
        counter = self._counters.get(value)
        if counter is None:
            return None
        builder, step = self._builder, counter.step
        dtype = dtype_of(counter.value)
        if isinstance(self._trips, int):
            steps = builder.const(step * np.arange(self._trips), dtype)
        else:
            first, each = (builder.const(n, ir.DataType.INT64) for n in (0, step))
            end = builder.mul(self.count(), each)
            steps = builder.cast(builder.op("Range", first, end, each, shape=[None]), dtype)
        return steps if counter.initial is None else builder.add(steps, counter.initial)

    def _run_again(self, values: Sequence[ir.Value]) -> None:
        """Runs the steps again, for carried values that nothing else tells."""
        copy = _Copy(self._builder, self._iteration)
        again = self._needed_together(copy, values)
        for state in again:
            _check_kept(state)
            copy.replace(copy.inner[state.entering], copy.loop.carry(state.initial))
        left = [copy.of(s.leaving) for s in again]
        stacked = [Collected(copy.inner[s.entering], backwards=False) for s in again]
        read = copy.loop.prune([*left, *(s.value for s in stacked)])
        carried = {copy.inner[s.entering] for s in again}
        self.bind(copy, read - carried, backwards=False)
        _, stacks = copy.loop.finish(left, stacked, self.count_for(copy.loop), hoist=True)
        self._known.update(zip([s.entering for s in again], stacks, strict=True))

    def _needed_together(self, copy: _Copy, values: Sequence[ir.Value]) -> list[State]:
        """Returns the states of `values` and those that their steps need and nothing tells."""
        nodes = list(copy.loop.body.graph)
        changing = [s for s in self._iteration.states if not s.fixed]
        again = [s for s in changing if s.entering in values]
        while True:
            _, read = leading_to(nodes, [copy.of(s.leaving) for s in again])
            more = [
                s
                for s in changing
                if s not in again
                and copy.inner[s.entering] in read
                and not self._at_hand(s.entering)
            ]
            if not more:
                return again
            again += more

    def _part(self, entry: _Entry) -> ir.Value:
        """Returns the part of a sequence that the steps read."""
        if entry.start is None or self._is_all(entry):
            return entry.sequence
        builder, start = self._builder, entry.start
        shape = shape_of(entry.sequence)
        kept = None if shape is None else [self._trips, *shape[1:]]
        if isinstance(self._trips, int):
            end = builder.ints(start + self._trips)
        else:
            end = builder.add(builder.unsqueeze(self.count(), [0]), builder.ints(start))
        bounds = (builder.ints(start), end, builder.ints(0))
        return builder.op("Slice", entry.sequence, *bounds, shape=kept)

    def _is_all(self, entry: _Entry) -> bool:
        """Tells whether the steps are known to read all of a sequence."""
        length = (shape_of(entry.sequence) or (None,))[0]
        return entry.start == 0 and length is not None and length == self._trips


class _Beside:
    """The steps of another loop, read beside those of one, in a loop that is written.

    Attributes:
        values: value of the copy of the one -> what it is in the copy of the other.
    """

    def __init__(
        self, copy: _Copy, loop: ir.Node, same: Mapping[ir.Value, ir.Value], builder: Builder
    ) -> None:
        self._iteration = iteration_of(loop)
        _share_constants(builder, self._iteration.body)
        self._copy = _Copy(builder, self._iteration, copy.loop)
        self.values = {copy.of(v): self._copy.of(other) for v, other in same.items()}

    def bind(self, builder: Builder, read: Container[ir.Value]) -> None:
        """Gives the copy what its steps found, the last one first."""
        _Found(builder, self._iteration).bind(self._copy, read, backwards=True)


class _Backward:
    """The gradient of one loop while it is written."""

    def __init__(
        self,
        walk: Walk,
        iteration: Iteration,
        outputs: Sequence[ir.Value | None],
    ) -> None:
        self._walk = walk
        self._builder = walk.builder
        self._iteration = iteration
        self._outputs = dict(zip(iteration.node.outputs, outputs, strict=True))
        self._copy = _Copy(walk.builder, iteration)
        self._loop = self._copy.loop
        there = walk.beside(iteration.node)
        self._there = None if there is None else _Beside(self._copy, *there, walk.builder)

    def write(self) -> _Pairs:
        """Writes the loop; yields outer values and their gradients."""
        builder, body, wanted = self._builder, self._loop.body, self._walk.wanted
        found_forward = _Found(builder, self._iteration)
        entries = [e for e in self._copy.entries if e.sequence in wanted]
        captured = [v for v in captured_values(body.graph) if v in wanted and is_float(v)]
        states = self._states_on_the_way([*(e.inside for e in entries), *captured])
        entering = [self._copy.inner[s.entering] for s in states]
        carried = [self._loop.carry(self._gradient_of_final(s)) for s in states]
        sources = [*entering, *(e.inside for e in entries), *captured]
        seeds = self._seeds(states, carried)
        beside = {} if self._there is None else self._there.values
        found = dict(zip(sources, self._walk.inside(body, seeds, sources, beside), strict=True))

        targets = [s.initial for s in states]
        left = [body.zeros_like(v) if (g := found[v]) is None else g for v in entering]
        for value in captured:
            if (gradient := found[value]) is not None:
                targets.append(value)
                left.append(add(body, self._loop.carry(builder.zeros_like(value)), gradient))
        reached = [(e, g) for e in entries if (g := found[e.inside]) is not None]
        stacked = [Collected(g, backwards=not e.backwards) for e, g in reached]
        read = self._loop.prune([*left, *(g for _, g in reached)])
        found_forward.bind(self._copy, read, backwards=True)
        if self._there is not None:
            self._there.bind(builder, read)
        count = found_forward.count_for(self._loop)
        finals, stacks = self._loop.finish(left, stacked, count, hoist=True)

        yield from ((v, g) for v, g in zip(targets, finals, strict=True) if v in wanted)
        for (entry, _), gradient in zip(reached, stacks, strict=True):
            yield entry.sequence, found_forward.whole(entry, gradient)

    def _states_on_the_way(self, sources: Sequence[ir.Value]) -> list[State]:
        """Returns the states through which gradients pass on their way to what is wanted."""
        graph, inner = self._loop.body.graph, self._copy.inner
        blocking = self._walk.blocking
        states = [s for s in self._iteration.states if not s.fixed and is_float(s.initial)]
        moved = [s for s in states if s.initial in self._walk.wanted]
        start = list(sources)
        grown = True
        while grown:
            start = [*sources, *(inner[s.entering] for s in moved)]
            reached = influenced_by(graph, start, blocking)
            more = [s for s in states if s not in moved and self._copy.of(s.leaving) in reached]
            moved, grown = [*moved, *more], bool(more)
        ends = [self._copy.of(stack.leaving) for stack, _ in self._collected()]
        active = [s for s in moved if self._outputs.get(s.final) is not None]
        grown = True
        while grown:
            targets = [*ends, *(self._copy.of(s.leaving) for s in active)]
            path = nodes_between(graph, start, targets, blocking)
            read = {v for node in path for v in inputs_of(node)} | set(targets)
            more = [s for s in moved if s not in active and inner[s.entering] in read]
            active, grown = [*active, *more], bool(more)
        for state in active:
            _check_kept(state)
        return active

    def _collected(self) -> list[tuple[ScanOutput, ir.Value]]:
        """Returns the collected values that have a gradient, with it."""
        found = [(s, self._outputs.get(s.stacked)) for s in self._iteration.scan_outputs]
        return [(s, g) for s, g in found if g is not None]

    def _gradient_of_final(self, state: State) -> ir.Value:
        gradient = self._outputs.get(state.final)
        return self._builder.zeros_like(state.initial) if gradient is None else gradient

    def _seeds(
        self, states: Sequence[State], carried: Sequence[ir.Value]
    ) -> dict[ir.Value, ir.Value]:
        """Returns value of a step -> its gradient from later steps and from outside."""
        body = self._loop.body
        seeds: dict[ir.Value, ir.Value] = {}
        for state, gradient in zip(states, carried, strict=True):
            _seed(body, seeds, self._copy.of(state.leaving), gradient)
        for stack, gradient in self._collected():
            in_time = _time_first(self._builder, gradient, stack.axis)
            each = self._loop.read(in_time, backwards=not stack.backwards)
            _seed(body, seeds, self._copy.of(stack.leaving), each)
        return seeds


def _output(builder: Builder, iteration: Iteration, stack: ScanOutput) -> ir.Value:
    """Returns what a loop collects, of which it need not have made an output so far."""
    index = list(iteration.node.outputs).index(stack.stacked)
    return builder.output(iteration.node, index, None, dtype_of(stack.leaving))


def _record(builder: Builder, iteration: Iteration, entering: ir.Value, trips: Dim) -> ir.Value:
    """Lets the forward loop collect what each step finds; returns it, `[steps, ...]`."""
    node, body = iteration.node, iteration.body
    copy = ir.node("Identity", [entering], name=builder.fresh("Identity"))
    found = copy.outputs[0]
    found.name, found.type, found.shape = builder.fresh("found"), entering.type, entering.shape
    body.append(copy)
    body.outputs.append(found)
    for name in ("scan_output_axes", "scan_output_directions"):
        if name in node.attributes:
            node.attributes[name] = ir.AttrInt64s(name, [*attribute(node, name), 0])
    each = shape_of(entering)
    whole = None if each is None else [trips, *each]
    return builder.output(node, len(node.outputs), whole, dtype_of(entering))


def _check_kept(state: State) -> None:
    before_step, after_step = shape_of(state.entering), shape_of(state.leaving)
    if before_step is None or after_step is None:
        return
    sizes = zip(before_step, after_step, strict=False)
    other = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in sizes)
    if other or len(before_step) != len(after_step):
        raise Refused(
            f"it carries {state.entering.name!r}, whose shape changes from {list(before_step)} "
            f"to {list(after_step)}; a gradient needs it to stay"
        )


def _seed(
    builder: Builder, seeds: dict[ir.Value, ir.Value], value: ir.Value, gradient: ir.Value
) -> None:
    known = seeds.get(value)
    seeds[value] = gradient if known is None else add(builder, known, gradient)


def _time_first(builder: Builder, sequence: ir.Value, axis: int) -> ir.Value:
    if axis == 0:
        return sequence
    rank = rank_of(sequence)
    return builder.transpose(sequence, [axis, *(i for i in range(rank) if i != axis)])


def _share_constants(builder: Builder, body: ir.Graph) -> None:
    """Moves the large constants of a body out of it, where its copies can read them too."""
    for graph in [body, *body.subgraphs()]:
        for name, value in list(graph.initializers.items()):
            if value.const_value is not None and value.const_value.nbytes > _SHARED_BYTES:
                graph.initializers.pop(name)
                value.name = builder.fresh("shared")
                builder.graph.register_initializer(value)
