"""States that a file takes and gives out already, found by what its graph does with them.

An input is a state where a recurrence starts from it and nothing else reads it, and an output is
where that recurrence ends; or where it is a cache, to which a run adds entries, and the names of
input and output go together. A name alone proves nothing: a forecaster calls its series `x` and
what it predicts `next_x`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import onnx_ir as ir

from probegen.graph.core.queries import is_float
from probegen.graph.loops.iteration import is_loop, iteration_of
from probegen.plan.axes import BATCH, Axes
from probegen.sources.onnx.state_places import MOVES, Place
from probegen.sources.onnx.view import OnnxView
from probegen.sources.states import alike

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
#: A node, and which of its inputs a recurrence starts from.
_Start = tuple[ir.Node, int]


def own_states(view: OnnxView, places: Sequence[Place]) -> dict[str, str]:
    """Returns the states that a file takes and gives out already: input -> output."""
    taken: dict[ir.Value, set[_Start]] = {}
    given: dict[ir.Value, set[_Start]] = {}
    for start, initial, last in _recurrences(view, places):
        fed = None if initial is None else fed_by(initial)
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
        for end in named_after(view, value):
            if end.name not in found.values() and _is_cache(value, end):
                found[str(value.name)] = str(end.name)
                break
    order = [str(v.name) for v in view.inputs]
    return {name: found[name] for name in order if name in found}


def cache_axes(view: OnnxView, own: Mapping[str, str]) -> dict[str, Axes]:
    """Returns the axes of caches of keys and values, `[batch, head, past, feature]`."""
    found: dict[str, Axes] = {}
    for name, following in own.items():
        sizes = view.input(view.input_names.index(name)).shape
        if [n is None for n in sizes] == [True, False, True, False]:
            found |= {name: _CACHE, following: _CACHE}
    return found


def _recurrences(
    view: OnnxView, places: Sequence[Place]
) -> Iterator[tuple[_Start, ir.Value | None, ir.Value | None]]:
    """Yields where recurrences start, from which value, and the value that they end with."""
    for place in places:
        if not place.is_of_scan:
            yield (place.node, place.taken), place.initial, place.last
    for loop in filter(is_loop, view.graph):
        first = 0 if loop.op_type == "Scan" else 2
        for number, state in enumerate(iteration_of(loop).states):
            yield (loop, first + number), state.initial, state.final


def fed_by(value: ir.Value) -> ir.Value | None:
    """Returns the input of the file whose numbers, moved about alone, a value holds."""
    while (node := value.producer()) is not None:
        first = node.inputs[0] if node.inputs else None
        if node.domain or node.op_type not in MOVES or first is None:
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
            if use.node.op_type in MOVES | {"Concat"} and not use.node.domain:
                pending.extend(use.node.outputs)


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
            if use.node.domain or use.node.op_type not in MOVES | _SIZES:
                yield use.node, use.idx
            elif use.node.op_type in MOVES:
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


def named_after(view: OnnxView, value: ir.Value) -> Iterator[ir.Value]:
    """Yields the outputs that are called as the next value of an input, and may be that."""
    outputs = {str(v.name): v for v in view.graph.outputs}
    for before, after in _PAIRS if is_float(value) else ():
        match = before.fullmatch(str(value.name))
        end = None if match is None else outputs.get(match.expand(after))
        if end is not None and _goes_with(view, value, end):
            yield end


def _goes_with(view: OnnxView, value: ir.Value, following: ir.Value) -> bool:
    """Tells whether an output may be the next value of an input."""
    at, end = view.inputs.index(value), list(view.graph.outputs).index(following)
    return alike(view.input(at), view.output(end))
