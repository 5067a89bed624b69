"""Nodes in the bodies of loops, and what they make, over time.

`Loop` and `Scan` run a graph of their own once a step. A tensor of that graph has a value a step:
as one more scan output of the loop it is `[time, ...]`, of a loop inside a loop
`[time of the outer one, time of the inner one, ...]`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import depending_on, inputs_of
from probegen.graph.core.values import Dim, shape_of, subgraphs_of
from probegen.graph.loops.iteration import (
    Iteration,
    State,
    body_of,
    is_loop,
    iteration_of,
    origin,
    trip_count,
)
from probegen.methods.axes import BATCH, TIME, Axes
from probegen.plan.model_view import TensorFacts
from probegen.sources.onnx.layouts import Apart

#: Operators by which a step writes into a list that the loop carries on, or makes it longer.
_WRITING = frozenset({"Concat", "ScatterND", "ScatterElements", "Scatter", "SequenceInsert"})


@dataclasses.dataclass(frozen=True)
class Inside:
    """Where a node stands that is not of the graph itself.

    Attributes:
        loops: the loops whose bodies hold it, the outermost first.
        branch: the `If` inside the innermost of them that holds it in a branch; None without one.
    """

    loops: tuple[ir.Node, ...]
    branch: ir.Node | None = None


def inside_of(loop: ir.Node) -> Iterator[tuple[ir.Node, Inside]]:
    """Yields the nodes in the body of a loop, those of loops and branches within it too.

    Each stands before the loop or the `If` that it is in: what is in it is computed first.
    """
    yield from _inside(body_of(loop), Inside((loop,)))


def _inside(graph: ir.Graph, where: Inside) -> Iterator[tuple[ir.Node, Inside]]:
    for node in graph:
        if is_loop(node) and where.branch is None:
            yield from _inside(body_of(node), Inside((*where.loops, node)))
        else:
            for branch in subgraphs_of(node):
                yield from _inside(branch, Inside(where.loops, where.branch or node))
        yield node, where


# -- what is known of the values of a body ------------------------------------------------------


def varying_inside(loop: ir.Node, varying: Collection[ir.Value]) -> set[ir.Value]:
    """Returns the values of a body, and of loops within it, that depend on the model's inputs.

    Args:
        loop: the loop.
        varying: the values around it that do.
    """
    iteration = iteration_of(loop)
    starts = set(varying)
    starts |= {s.entering for s in iteration.scan_inputs if s.sequence in varying}
    starts |= {s.entering for s in iteration.states if s.initial in varying}
    found = iteration.in_any_step(starts, lambda some: depending_on(iteration.body, some))
    for node in iteration.body:
        if is_loop(node):
            found |= varying_inside(node, found)
        else:  # branches are listed with why they cannot be probed
            found.update(v for g in subgraphs_of(node) for n in g.all_nodes() for v in n.outputs)
    return found


def of_changing_size(loop: ir.Node) -> set[ir.Value]:
    """Returns the values of a body that may have another size at each step.

    These are what depends on a carried value that a step makes longer, and has an open size: the
    steps cannot be stacked.
    """
    iteration = iteration_of(loop)
    growing = [s.entering for s in iteration.states if _grows(s)]
    found = depending_on(iteration.body, growing) if growing else set()
    outside = {d for v in inputs_of(loop) for d in shape_of(v) or () if d is not None}
    found = {v for v in found if any(_is_open(d, outside) for d in shape_of(v) or (None,))}
    for node in iteration.body:
        if is_loop(node):
            found |= of_changing_size(node)
    return found


def _is_open(size: Dim, outside: Collection[Dim]) -> bool:
    return not isinstance(size, int) and size not in outside


def _grows(state: State) -> bool:
    """Tells whether a step makes a state longer, or leaves it with more or fewer axes."""
    maker = origin(state.leaving).producer()
    if maker is not None and maker.op_type == "Concat" and state.entering in maker.inputs:
        return True
    before, inside = shape_of(state.initial), shape_of(state.entering)
    return before is not None and (inside is None or len(before) != len(inside))


def carried_states(loop: ir.Node) -> list[State]:
    """Returns what a loop carries from step to step and changes, of floating numbers.

    Left out are counters, what no step changes, lists that steps write their results into, and
    what changes its size.
    """
    iteration = iteration_of(loop)
    inner = set(iteration.body.inputs) | {v for node in iteration.body for v in node.outputs}
    return [
        s
        for s in iteration.states
        if s.leaving.dtype in _FLOATS
        and s.leaving in inner
        and shape_of(s.leaving) is not None
        and not s.fixed
        and not _is_list(s)
        and not _grows(s)
    ]


_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def _is_list(state: State) -> bool:
    """Tells whether steps write into a carried value what they make."""
    maker = origin(state.leaving).producer()
    return maker is not None and maker.op_type in _WRITING and state.entering in maker.inputs


def reads_backwards(iteration: Iteration) -> bool:
    """Tells whether a loop begins with the last entries of all that it reads step by step."""
    ways = [s.backwards for s in iteration.scan_inputs]
    return bool(ways) and all(ways)


# -- values over time ---------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class OverSteps:
    """A value of a body as it comes out: the batch first, then an axis of time a loop.

    Attributes:
        value: of the body.
        loops: the outermost first.
        apart: how samples are told apart in the stacked value that it joins with others.
        order: of the axes of the stacked value, samples told apart.
        facts: of what comes out.
    """

    value: ir.Value
    loops: tuple[ir.Node, ...]
    apart: Apart | None
    order: tuple[int, ...]
    facts: TensorFacts

    def axis(self, own: int) -> int:
        """Returns where an axis of the value, samples told apart, has come to."""
        return self.order.index(own + len(self.loops))


def over_steps(
    value: ir.Value, loops: tuple[ir.Node, ...], facts: TensorFacts, apart: Apart | None
) -> OverSteps:
    """Says how a value of a body comes out.

    Args:
        value: the value.
        loops: whose bodies hold it, the outermost first.
        facts: of one step, samples told apart.
        apart: how samples are told apart at one step, where they are joined with others.
    """
    count = len(loops)
    trips = tuple(_number(trip_count(iteration_of(loop))) for loop in loops)
    sizes = (*trips, *facts.shape)
    names = (*_names_of_time(count, facts.axes), *_without_time(count, facts.axes))
    order = list(range(len(names)))
    if BATCH in names:
        order.insert(0, order.pop(names.index(BATCH)))
    if apart is not None and apart.parts is not None:
        apart = dataclasses.replace(apart, axis=apart.axis + count)
    made = dataclasses.replace(
        facts, shape=tuple(sizes[i] for i in order), axes=tuple(names[i] for i in order)
    )
    return OverSteps(value, loops, apart, tuple(order), made)


def _number(size: Dim) -> int | None:
    return size if isinstance(size, int) else None


def _names_of_time(count: int, axes: Axes) -> list[str]:
    """Returns what the axes of the loops are called: `time`, or numbers behind it for several."""
    alone = count == 1 and TIME not in axes
    return [TIME] if alone else [f"{TIME}_{i}" for i in range(count)]


def _without_time(count: int, axes: Axes) -> list[str]:
    """Returns the axes of one step; time of its own comes behind that of the loops."""
    return [f"{TIME}_{count}" if name == TIME else name for name in axes]


def give_out_steps(builder: Builder, value: ir.Value, loops: Sequence[ir.Node]) -> ir.Value:
    """Lets loops give out a value of their bodies; returns it as the graph has it, time first.

    Args:
        builder: of the graph.
        value: of the body of the last loop.
        loops: the outermost first; they are changed in place.
    """
    for loop in reversed(loops):
        value = _collected(builder, loop, value)
    return value


def _collected(builder: Builder, loop: ir.Node, value: ir.Value) -> ir.Value:
    """Lets a loop collect a value of its body: one more output, `[time, ...]`."""
    iteration = iteration_of(loop)
    body = Builder(iteration.body, builder.opset, prefix=builder.fresh("step"))
    copy = body.op("Identity", value, shape=value)
    body.attach()
    count = len(iteration.scan_outputs)
    iteration.body.outputs.append(copy)
    loop.resize_outputs(len(loop.outputs) + 1)
    made = loop.outputs[-1]
    made.name, made.type = builder.fresh("over_steps"), value.type
    shape = shape_of(value)
    if shape is not None:
        made.shape = ir.Shape([trip_count(iteration), *shape])
    backwards = reads_backwards(iteration)
    for name, entry in (("scan_output_axes", 0), ("scan_output_directions", int(backwards))):
        given = loop.attributes.get(name)
        if given is not None or entry:
            before = list(given.as_ints()) if given is not None else [0] * count
            loop.attributes[name] = ir.AttrInt64s(name, [*before, entry])
    return made
