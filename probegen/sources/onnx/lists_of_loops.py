"""Lists that loops carry and add to at each step, as what they are: scan outputs.

PyTorch writes a `for` with `results.append(y)` as a Loop that carries a sequence, and one with
`results = torch.cat([results, y])` as a Loop that carries a tensor which grows. No gradient passes
a sequence or a tensor that changes its size from step to step; a scan output has one.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.replacing import replace_node, replace_value
from probegen.graph.core.values import attribute, shape_of, subgraphs_of
from probegen.graph.loops.iteration import Iteration, State, iteration_of, origin, trip_count
from probegen.sources.onnx.names import ORIGIN, AllNames, origin_of
from probegen.sources.onnx.sequences import joined_steps

#: (builder, what the steps made, the state) -> the list at the end.
_Whole = Callable[[Builder, ir.Value, State], ir.Value]


def collect_lists(model: ir.Model, names: AllNames) -> bool:
    """Lets loops collect what they add to a list; tells whether any did.

    `l' = SequenceInsert(l, y)` -> `y` as a scan output, `SplitToSequence` of it behind the loop;
    `l' = Concat(l, y)` -> `y` as a scan output, joined along that axis behind the loop

    Leaves: lists that a step reads in another way; those that a Concat makes longer where not all
    sizes of `y` but one are numbers or names.
    """
    return _collect_in(model.graph, model.opset_imports[""], names)


def _collect_in(graph: ir.Graph, opset: int, names: AllNames) -> bool:
    changed = False
    for node in list(graph):
        for inner in subgraphs_of(node):
            changed |= _collect_in(inner, opset, names)
        if node.op_type == "Loop" and not node.domain:
            changed |= _collected(node, opset, names)
    return changed


def _collected(node: ir.Node, opset: int, names: AllNames) -> bool:
    """Takes the first list out of a loop that can be; the next one is for the next round."""
    iteration = iteration_of(node)
    for number, state in enumerate(iteration.states):
        adding = _adding_to(state, iteration.body)
        if not adding:
            continue
        maker, given = adding[-1], list(adding[-1].inputs)
        item = given[1] if len(given) > 1 else None
        if item is None or item is state.entering or len([v for v in given if v is not None]) != 2:
            continue  # several are added at once, or one in the middle
        if maker.op_type == "SequenceInsert" and _is_empty_sequence(state.initial):
            _take_out(iteration, number, adding, _as_sequence, opset, names)
            return True
        ranks = [None if (s := shape_of(v)) is None else len(s) for v in (item, state.initial)]
        if maker.op_type == "Concat" and ranks[0] is not None and ranks[0] == ranks[1]:
            whole = _joined(attribute(maker, "axis") % ranks[0])
            _take_out(iteration, number, adding, whole, opset, names)
            return True
    return False


def _adding_to(state: State, body: ir.Graph) -> list[ir.Node]:
    """Returns the nodes from what a step leaves of a list back to the one that adds to it.

    None where a step reads the list in another way.
    """
    found, value = list[ir.Node](), state.leaving
    while not found or found[-1].op_type == "Identity":
        node = value.producer()
        # The body gives the first out and nothing reads it; the next node alone reads the others.
        alone = len(value.uses()) == len(found[-1:]) and value.is_graph_output() != bool(found)
        if node is None or node.domain or node.graph is not body or not alone:
            return []
        found.append(node)
        first = node.inputs[0] if node.inputs else None
        if first is None:
            return []
        value = first
    alone = value is state.entering and len(value.uses()) == 1 and not value.is_graph_output()
    return found if alone and list(body.outputs).count(state.leaving) == 1 else []


def _is_empty_sequence(value: ir.Value) -> bool:
    made = origin(value).producer()
    return made is not None and made.op_type == "SequenceEmpty" and not made.domain


def _take_out(
    iteration: Iteration,
    number: int,
    adding: list[ir.Node],
    whole: _Whole,
    opset: int,
    names: AllNames,
) -> None:
    """Replaces a list that a loop carries by what is made of a scan output."""
    node, body, state = iteration.node, iteration.body, iteration.states[number]
    graph, item = node.graph, adding[-1].inputs[1]
    assert graph is not None
    assert item is not None
    copy = ir.node("Identity", [item], name=names.nodes.unique(f"{item.name}/item"))
    copy.meta[ORIGIN] = origin_of(node)
    copy.outputs[0].name = names.values.unique(f"{item.name}/item")
    copy.outputs[0].type, copy.outputs[0].shape = item.type, item.shape
    body.append(copy)
    # A step finds its number and the condition before its states, and leaves the condition there.
    del body.inputs[2 + number]
    del body.outputs[1 + number]
    body.outputs.append(copy.outputs[0])
    for one in adding:
        body.remove(one, safe=True)
    made = ir.Value(name=names.values.unique(f"{state.final.name}/steps"), type=item.type)
    shape = shape_of(item)
    if shape is not None:
        made.shape = ir.Shape([trip_count(iteration), *shape])
    builder = Builder(graph, opset, prefix=f"{node.name}/list")
    value = whole(builder, made, state)
    for one in builder.nodes:
        one.name = names.nodes.unique(str(one.name))
        one.meta[ORIGIN] = origin_of(node)
    graph.insert_after(node, builder.nodes)
    replace_value(state.final, value)
    value.name, state.final.name = state.final.name, names.values.unique(f"{value.name}/list")
    inputs = [v for i, v in enumerate(node.inputs) if i != 2 + number]
    kept = [v for v in node.outputs if v is not state.final]
    replace_node(node, inputs, [*kept, made])


def _as_sequence(b: Builder, stacked: ir.Value, state: State) -> ir.Value:
    """Writes the sequence of the steps' results."""
    del state
    return b.op("SplitToSequence", stacked, keepdims=0, axis=0)


def _joined(at: int) -> _Whole:
    """Returns what writes the steps' results one behind the other along an axis of theirs."""

    def write(b: Builder, stacked: ir.Value, state: State) -> ir.Value:
        joined = joined_steps(b, stacked, at)
        if (shape_of(state.initial) or ())[at] == 0:
            return joined
        return b.op("Concat", state.initial, joined, axis=at)

    return write
