"""Quantised models: the gradient passes rounding as if it were not there.

A pair of QuantizeLinear and DequantizeLinear moves in steps, so that its slope is 0 wherever it
has one. What is meant by the gradient of a quantised model is that of the numbers which the steps
stand for (the straight-through estimator: Bengio et al. 2013; Jacob et al. 2018): the pair passes
it on where its value was within the range, and passes none where the value was cut off. The
forward pass keeps the file's own operators, so that an engine may fuse them as before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import ml_dtypes
import onnx_ir as ir

from probegen.graph.core.marks import HIGHEST, LOWEST, MARK_DOMAIN, STRAIGHT_THROUGH
from probegen.graph.core.queries import QUANTISING
from probegen.graph.core.replacing import take_place
from probegen.graph.core.values import constant_of
from probegen.sources.onnx.names import ORIGIN, AllNames, nodes_of, origin_of
from probegen.sources.onnx.rewriting import graph_of

#: Operators that pick or move elements: they may stand before or after a DequantizeLinear.
_MOVING = frozenset(
    {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Identity"}
    | {"DepthToSpace", "SpaceToDepth", "Expand", "MaxPool"}
)


def mark_quantised(model: ir.Model, names: AllNames) -> Iterator[str]:
    """Marks each pair of QuantizeLinear and DequantizeLinear, which the gradient then passes.

    `DequantizeLinear(QuantizeLinear(x), scale, zero) = y` -> `StraightThrough(y, x, scale, zero)`

    What stands between the two and only moves elements is first moved behind them.

    Needs: types and shapes inferred.

    Yields:
        For the manifest, how it is differentiated; nothing where the model is not quantised.
    """
    activations = weights = False
    for node in nodes_of(model.graph):
        if node.op_type != "DequantizeLinear" or node.domain:
            continue
        moved = _moved_up(node, names)
        whole = moved.inputs[0]
        made = None if whole is None else whole.producer()
        if made is None:
            weights = weights or whole is not None
        elif made.op_type in QUANTISING and not made.domain and whole is made.outputs[0]:
            _mark(model.graph, moved, made, names)
            activations = True
    if activations:
        yield (
            "The model is quantised. Its gradient is that of the numbers which its whole numbers "
            "stand for: a pair of QuantizeLinear and DequantizeLinear passes it on where the value "
            "was within the range, and passes none where it was cut off."
        )
    elif weights:
        yield "Weights are stored in whole numbers, and used as the numbers that they stand for."


def _mark(main: ir.Graph, node: ir.Node, made: ir.Node, names: AllNames) -> None:
    result, source = node.outputs[0], made.inputs[0]
    lowest, highest = _range(made.outputs[0])
    mark = ir.node(
        STRAIGHT_THROUGH,
        [result, source, *node.inputs[1:]],
        {**node.attributes, LOWEST: lowest, HIGHEST: highest},
        domain=MARK_DOMAIN,
        name=names.nodes.unique(f"{node.name}/straight_through"),
    )
    mark.meta[ORIGIN] = origin_of(node)
    passed = mark.outputs[0]
    passed.type, passed.shape = result.type, result.shape
    passed.name = names.values.unique(f"{result.name}/straight_through")
    added = [mark]
    if result.is_graph_output():  # a mark is taken out again, and would take the name with it
        handed_on = ir.node("Identity", [passed], name=names.nodes.unique(f"{node.name}/output"))
        handed_on.meta[ORIGIN] = origin_of(node)
        output = handed_on.outputs[0]
        output.type, output.shape = result.type, result.shape
        name, result.name = result.name, names.values.unique(f"{result.name}/result")
        output.name = name
        result.replace_all_uses_with(output, replace_graph_outputs=True)
        added.append(handed_on)
    else:
        result.replace_all_uses_with(passed)
    mark.replace_input_with(0, result)
    graph_of(node).insert_after(node, added)
    main.opset_imports[MARK_DOMAIN] = 1


def _range(whole: ir.Value) -> tuple[float, float]:
    """Returns the least and the largest number that a quantised tensor can hold."""
    dtype = whole.dtype or ir.DataType.UINT8
    limits = (ml_dtypes.finfo if dtype.is_floating_point() else ml_dtypes.iinfo)(dtype.numpy())
    return float(limits.min), float(limits.max)


def _moved_up(node: ir.Node, names: AllNames) -> ir.Node:
    """Moves a DequantizeLinear before what only moves elements, up to its QuantizeLinear.

    `DequantizeLinear(Reshape(q))` -> `Reshape(DequantizeLinear(q))`

    Returns:
        The DequantizeLinear.
    """
    scale = constant_of(node.inputs[1])
    while scale is not None and scale.size == 1:
        whole = node.inputs[0]
        moving = None if whole is None else whole.producer()
        if moving is None or moving.op_type not in _MOVING or moving.domain:
            break
        source = moving.inputs[0]
        if source is None or moving.graph is not node.graph or len(moving.outputs) > 1:
            break
        early = _copied(node, [source, *node.inputs[1:]], names)
        floats, result = early.outputs[0], node.outputs[0]
        floats.type, floats.shape = result.type, source.shape
        late = _copied(moving, [floats, *moving.inputs[1:]], names)
        graph_of(node).insert_before(node, [early, late])
        take_place(result, late.outputs[0])
        graph_of(node).remove(node, safe=True)
        node = early
    return node


def _copied(node: ir.Node, inputs: Sequence[ir.Value | None], names: AllNames) -> ir.Node:
    """Returns a copy of a node with one output that reads other values."""
    copy = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        list(node.attributes.values()),
        num_outputs=1,
        name=names.nodes.unique(f"{node.name}/of_floats"),
    )
    copy.outputs[0].name = names.values.unique(f"{node.outputs[0].name}/of_floats")
    copy.meta[ORIGIN] = origin_of(node)
    return copy
