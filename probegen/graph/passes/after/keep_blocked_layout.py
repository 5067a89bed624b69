"""Keeps the backward pass in the layout that the runtime's convolutions work in.

onnxruntime holds images in blocks of channels between convolutions, poolings, activations,
sums and products. Where one operand of a sum or product is not held so (it comes from a
reduction, a reshape, a matrix product), the other is brought back into the plain layout, and so
is everything that the result is added to: a gradient that enters a residual network at its top
takes the whole spine with it. A pooling of single elements, which changes nothing, takes the
one operand into blocks instead. Sums and products with a number leave the blocks as well; a
convolution of single elements, one a channel, does them within.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from typing import TypeGuard

import numpy as np
import onnx_ir as ir

from probegen.graph.core.replacing import take_place
from probegen.graph.core.values import Dim, attribute, constant_of, new_initializer, shape_of

_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"})
_UNARY = frozenset(
    {"BatchNormalization", "Clip", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu", "Sigmoid"}
    | {"Tanh"}
)
_BINARY = frozenset({"Add", "Mul", "Sum"})

#: Channels of a block, the most of any kind of processor.
_BLOCK = 16


def keep_blocked_layout(model: ir.Model) -> None:
    """Writes what meets blocked images, and leads to a convolution, so that they stay in blocks.

    `Conv(Add(Conv(x), plain))` -> `Conv(Add(Conv(x), MaxPool<kernel_shape=[1, 1]>(plain)))`;
    `Mul(Conv(x), 2.0)` -> `Conv<group=c>(Conv(x), twos)`; `ReduceSum(Conv(x), [2, 3])`
    -> `Mul(GlobalAveragePool(Conv(x)), h * w)`

    Plain operands get a pooling of single elements behind them, sums and products with a number
    become convolutions a channel, and sums over height and width poolings. Of two plain operands
    one is broadcast by the sum or product itself.

    Needs: topological order; shapes, as far as known; works on images of 32-bit floats.
    Leaves: nodes that nothing needs any more.
    """
    blocked: set[ir.Value] = set()
    copies: dict[ir.Value, ir.Value] = {}
    weights: dict[tuple[tuple[int, ...], float], ir.Value] = {}
    for node in list(model.graph):
        _expand_late(node, blocked)
        _sum_as_pooling(node, blocked)
        line = _scale_and_shift(node, blocked)
        if line is not None and _leads_to_conv(node.outputs[0], set()):
            blocked.add(_as_convolution(node, *line, weights))
            continue
        if _meets_plain(node, blocked) and _leads_to_conv(node.outputs[0], set()):
            for position, value in enumerate(node.inputs):
                if value is not None and value not in blocked:
                    if value not in copies:
                        copies[value] = _in_blocks(value)
                        blocked.add(copies[value])
                    node.replace_input_with(position, copies[value])
        if _stays_blocked(node, blocked):
            blocked.add(node.outputs[0])


def _stays_blocked(node: ir.Node, blocked: Set[ir.Value]) -> bool:
    """Tells whether the runtime leaves a node's output in blocks."""
    if node.domain or len(node.outputs) != 1 or not _is_images(node.outputs[0]):
        return False
    first = node.inputs[0] if node.inputs else None
    if node.op_type == "Conv" or node.op_type in _POOLS:
        return True
    if node.op_type in _UNARY or (node.op_type == "Resize" and attribute(node, "mode") != "cubic"):
        return first in blocked
    if node.op_type in _BINARY:
        return all(v in blocked for v in node.inputs) and _one_shape(node)
    return (
        node.op_type == "Concat"
        and attribute(node, "axis") == 1
        and all(v in blocked for v in node.inputs)
    )


def _meets_plain(node: ir.Node, blocked: Set[ir.Value]) -> bool:
    """Tells whether a sum or product has operands of both kinds."""
    if node.domain or node.op_type not in _BINARY or not _one_shape(node):
        return False
    if not _fills_blocks(node.outputs[0]):  # a pooling would not be blocked itself
        return False
    kinds = {value in blocked for value in node.inputs}
    plain = [v for v in node.inputs if v not in blocked]
    return kinds == {True, False} and all(v is not None and v.producer() for v in plain)


def _leads_to_conv(value: ir.Value, seen: set[ir.Value]) -> bool:
    """Tells whether what is done with a value in blocks reaches a convolution."""
    if value in seen:
        return False
    seen.add(value)
    for node, position in ((use.node, use.idx) for use in value.uses()):
        if node.op_type == "Conv" and position == 0:
            return True
        if node.op_type in (_UNARY | _BINARY) and _leads_to_conv(node.outputs[0], seen):
            return True
    return False


def _in_blocks(value: ir.Value) -> ir.Value:
    """Writes the pooling that brings a value into blocks."""
    producer = value.producer()
    if producer is None or producer.graph is None:
        raise ValueError(f"{value.name!r} is made by no node of the graph")
    name = f"{value.name}/blocked"
    node = ir.node("MaxPool", [value], attributes={"kernel_shape": [1, 1]}, name=name)
    copy = node.outputs[0]
    copy.name, copy.type, copy.shape = name, value.type, value.shape
    producer.graph.insert_after(producer, node)
    return copy


def _expand_late(node: ir.Node, blocked: Set[ir.Value]) -> None:
    """Leaves it to a sum or product of plain operands to broadcast one of them."""
    if node.domain or node.op_type not in ("Add", "Mul") or any(v in blocked for v in node.inputs):
        return
    shape = shape_of(node.outputs[0])
    for position in (0, 1):
        value, other = node.inputs[position], node.inputs[1 - position]
        producer = None if value is None else value.producer()
        if (
            producer is not None
            and producer.op_type == "Expand"
            and not producer.domain
            and other is not None
            and shape is not None
            and None not in shape
            and shape_of(other) == shape
        ):
            node.replace_input_with(position, producer.inputs[0])
            return


def _sum_as_pooling(node: ir.Node, blocked: Set[ir.Value]) -> None:
    """Writes the sum of blocked images over height and width as a pooling, times its size."""
    images = node.inputs[0] if node.op_type == "ReduceSum" and not node.domain else None
    axes = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if images is None or images not in blocked or axes is None or node.graph is None:
        return
    sizes = (shape_of(images) or ())[2:]
    keepdims = attribute(node, "keepdims", 1)
    if sorted(int(a) % 4 for a in axes) != [2, 3] or not keepdims or not _are_numbers(sizes):
        return
    result, number = node.outputs[0], np.array(math.prod(sizes), np.float32)
    pool = ir.node("GlobalAveragePool", [images], name=f"{result.name}/pool")
    pooled = pool.outputs[0]
    pooled.name, pooled.type, pooled.shape = f"{result.name}/mean", result.type, result.shape
    size = new_initializer(node.graph, f"{result.name}/size", number)
    times = ir.node("Mul", [pooled, size], name=node.name)
    node.graph.insert_before(node, [pool, times])
    take_place(result, times.outputs[0])
    node.graph.remove(node, safe=True)


def _are_numbers(sizes: Sequence[Dim]) -> TypeGuard[Sequence[int]]:
    return all(isinstance(size, int) for size in sizes)


def _scale_and_shift(node: ir.Node, blocked: Set[ir.Value]) -> tuple[ir.Value, float, float] | None:
    """Returns x, a and b of a node that computes a * x + b of blocked images, else None."""
    if node.domain or node.op_type not in ("Add", "Mul", "Sub"):
        return None
    first, second = node.inputs
    for x, other, sign in ((first, second, 1.0), (second, first, -1.0)):
        number = _number(other)
        if x is None or x not in blocked or number is None or not _fills_blocks(x):
            continue
        if node.op_type == "Mul":
            return x, number, 0.0
        if node.op_type == "Add":
            return x, 1.0, number
        return x, sign, -sign * number
    return None


def _number(value: ir.Value | None) -> float | None:
    """Returns a constant of one 32-bit number, of no more axes than images have, else None."""
    array = constant_of(value)
    if array is None or array.size != 1 or array.ndim > 4 or array.dtype != np.float32:
        return None
    return float(array.reshape(()))


def _fills_blocks(value: ir.Value) -> bool:
    """Tells whether channels are whole blocks: poolings and depthwise convolutions need that."""
    channels = (shape_of(value) or ())[1]
    return isinstance(channels, int) and channels % _BLOCK == 0


def _as_convolution(
    node: ir.Node,
    x: ir.Value,
    factor: float,
    shift: float,
    weights: dict[tuple[tuple[int, ...], float], ir.Value],
) -> ir.Value:
    """Puts a convolution in the place of a node that computes factor * x + shift.

    `weights` holds what convolutions of equal width have in common.
    """
    graph, result = node.graph, node.outputs[0]
    channels = (shape_of(x) or ())[1]
    if not isinstance(graph, ir.Graph) or not isinstance(channels, int):
        raise TypeError(f"{node.name!r} works on images of no known number of channels")
    operands = [x]
    for shape, number in (((channels, 1, 1, 1), factor), ((channels,), shift)):
        if (shape, number) not in weights:
            weights[shape, number] = _filled(node, graph, shape, number)
        operands.append(weights[shape, number])
    conv = ir.node("Conv", operands, attributes={"group": channels}, name=node.name)
    conv.outputs[0].type, conv.outputs[0].shape = result.type, result.shape
    graph.insert_after(node, conv)
    result.replace_all_uses_with(conv.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    conv.outputs[0].name = result.name
    return conv.outputs[0]


def _filled(node: ir.Node, graph: ir.Graph, shape: tuple[int, ...], number: float) -> ir.Value:
    """Writes a tensor of one number before a node; a session folds it, no file holds it."""
    name = f"{node.outputs[0].name}/{'kernel' if len(shape) > 1 else 'bias'}"
    sizes = new_initializer(graph, f"{name}/shape", np.array(shape, np.int64))
    content: ir.Tensor[np.ndarray] = ir.Tensor(np.array([number], np.float32))
    filled = ir.node("ConstantOfShape", [sizes], attributes={"value": content}, name=name)
    value = filled.outputs[0]
    value.name, value.shape = name, ir.Shape(shape)
    value.type = ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(node, filled)
    return value


def _is_images(value: ir.Value) -> bool:
    """Tells whether a value is images of more than one element a channel."""
    shape = shape_of(value)
    return (
        value.dtype == ir.DataType.FLOAT
        and shape is not None
        and len(shape) == 4
        and shape[2:] != (1, 1)
    )


def _one_shape(node: ir.Node) -> bool:
    """Tells whether all operands have the shape of the output."""
    shape = shape_of(node.outputs[0])
    return (
        _is_images(node.outputs[0])
        and None not in (shape or ())
        and all(v is not None and shape_of(v) == shape for v in node.inputs)
    )
