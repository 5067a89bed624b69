"""Operators of float64 that onnxruntime lacks on the processor, in operators that it has.

Where an operator runs over windows, the elements of each are gathered, and a product with a matrix,
or a mean, runs over them. That is slower than a convolution, and takes as many times the memory as
a window has elements. A few functions it has in some operator sets alone.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import Dim, attribute, constant_of, shape_of, static_shape

#: The axes before those of positions: samples and channels.
_AHEAD = 2


def write_out_doubles(model: ir.Model) -> None:
    """Writes out what onnxruntime lacks for 64-bit floats, in subgraphs too.

    `Conv(x, w)` -> `Reshape(MatMul(Reshape(w), Reshape(Transpose(Gather(Gather(x))))))`;
    `AveragePool(x)` -> `ReduceMean(Gather(Gather(x)))`; `GlobalAveragePool(x)` -> `ReduceMean(x)`;
    `Resize<nearest>(x, scales=[1, 1, 2, 2])` -> `Gather(Gather(x))`;
    `Softsign(x)` -> `Div(x, Add(Abs(x), 1))`

    Needs: sizes of weights, and of windows.
    Leaves: pooling with windows that end beyond the padding (`ceil_mode`), transposed convolutions
    that choose their padding by themselves, and what blends images.
    """
    graph = model.graph
    b = Builder(graph, graph.opset_imports.get("", 0), prefix="probegen/doubles")
    for node in list(graph.all_nodes()):
        write = None if node.domain else _WRITERS.get(node.op_type)
        if write is None or node.graph is None or node.outputs[0].dtype != ir.DataType.DOUBLE:
            continue
        written = write(b, node)
        if written is None:
            continue
        b.replace(node, [written])


@dataclasses.dataclass(frozen=True)
class _Windows:
    """How windows lie in a tensor, one entry an axis of positions.

    Attributes:
        sizes: elements of a window.
        strides: how far apart two windows are.
        dilations: how far apart two elements of a window are.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]

    @classmethod
    def of(cls, node: ir.Node, sizes: Sequence[int]) -> _Windows:
        """Returns the windows of a node."""
        ones = [1] * len(sizes)
        strides, dilations = (attribute(node, name, ones) for name in ("strides", "dilations"))
        return cls(tuple(sizes), tuple(strides), tuple(dilations))

    @property
    def reach(self) -> tuple[int, ...]:
        """How far a window's last element is from its first."""
        return tuple((n - 1) * d for n, d in zip(self.sizes, self.dilations, strict=True))

    def taken(self, b: Builder, x: ir.Value) -> ir.Value:
        """Gathers the windows of `[sample, channel, *positions]`.

        Returns:
            `[sample, channel, *elements of a window, *windows]`.
        """
        count = len(self.sizes)
        axes = zip(self.sizes, self.strides, self.dilations, self.reach, strict=True)
        for i, (size, stride, dilation, reach) in enumerate(axes):
            at = _AHEAD + 2 * i
            shape = shape_of(x)
            whole = None if shape is None else shape[at]
            first = np.arange(size)[:, None] * dilation
            if isinstance(whole, int):
                places = b.const(first + np.arange(0, whole - reach, stride))
            else:
                last = b.op("Sub", b.size(x, at), b.ints(reach), shape=[1])
                bounds = b.const(np.array(0)), b.squeeze(last, [0]), b.const(np.array(stride))
                starts = b.op("Range", *bounds, shape=[None])
                places = b.op("Add", b.const(first), starts, shape=[size, None])
            window = shape_of(places) or ()
            cut = None if shape is None else [*shape[:at], *window, *shape[at + 1 :]]
            x = b.op("Gather", x, places, shape=cut, axis=at)
        elements = [_AHEAD + 2 * i for i in range(count)]
        return b.transpose(x, [0, 1, *elements, *(axis + 1 for axis in elements)])


def _padded(b: Builder, node: ir.Node, windows: _Windows, x: ir.Value) -> ir.Value:
    """Returns what a node's windows lie in: its input with zeros around it."""
    count, mode = len(windows.sizes), attribute(node, "auto_pad", "NOTSET")
    if mode == "VALID":
        return x
    if mode == "NOTSET":
        pads = attribute(node, "pads", [0] * 2 * count)
        return b.pad(x, [0, 0, *pads[:count]], [0, 0, *pads[count:]])
    ahead, behind, two = [], [], b.ints(2)
    for i, (stride, reach) in enumerate(zip(windows.strides, windows.reach, strict=True)):
        size = b.size(x, _AHEAD + i)
        # ceil(size / stride) windows, of which the last one ends at the last element
        steps = b.op("Div", b.op("Sub", size, b.ints(1)), b.ints(stride))
        total = b.op("Sub", b.op("Mul", steps, b.ints(stride)), size)
        total = b.op("Max", b.op("Add", total, b.ints(reach + 1)), b.ints(0))
        half = b.op("Div", total, two)
        rest = b.op("Sub", total, half)
        ahead.append(half if mode == "SAME_UPPER" else rest)
        behind.append(rest if mode == "SAME_UPPER" else half)
    none = [b.ints(0, 0)]
    return b.op("Pad", x, b.concat([*none, *ahead, *none, *behind], axis=0), shape=_open(x))


def _open(x: ir.Value) -> list[Dim] | None:
    """Returns the shape of a tensor whose positions are padded by what is not known."""
    shape = shape_of(x)
    return None if shape is None else [*shape[:_AHEAD], *[None] * (len(shape) - _AHEAD)]


def _product(b: Builder, weights: ir.Value, taken: ir.Value, count: int) -> ir.Value:
    """Returns the product of weights with windows.

    Args:
        b: what writes.
        weights: `[group, channel of a result's group, ..., element]`, of known sizes.
        taken: what `_Windows.taken` returns.
        count: how many axes of positions there are.
    """
    groups, each, *inner = static_shape(weights) or ()
    flat = b.reshape(weights, [groups, each, math.prod(inner)])
    shape = shape_of(taken) or ()
    windows = [n for n in shape[_AHEAD + count :] if isinstance(n, int)]
    before, after = (0, groups, math.prod(inner)), (0, groups * each)
    if len(windows) == count:
        columns, result = b.ints(*before, math.prod(windows)), b.ints(*after, *windows)
    else:
        bounds = b.ints(_AHEAD + count), b.ints(_AHEAD + 2 * count)
        own = b.op("Shape", taken, dtype=ir.DataType.INT64, shape=[_AHEAD + 2 * count])
        sizes = b.op("Slice", own, *bounds, shape=[count])
        product = b.op("ReduceProd", sizes, shape=[1], keepdims=1)
        columns = b.concat([b.ints(*before), product], axis=0)
        result = b.concat([b.ints(*after), sizes], axis=0)
    made = b.op("MatMul", flat, b.op("Reshape", taken, columns))
    return b.op("Reshape", made, result)


def _with_bias(b: Builder, node: ir.Node, y: ir.Value, count: int) -> ir.Value:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    return y if bias is None else b.op("Add", y, b.reshape(bias, [-1, *[1] * count]))


def _convolution(b: Builder, node: ir.Node) -> ir.Value | None:
    x, weights = node.inputs[:2]
    shape = None if weights is None else static_shape(weights)
    if x is None or weights is None or shape is None:
        return None
    count, groups = len(shape) - _AHEAD, int(attribute(node, "group", 1))
    windows = _Windows.of(node, shape[_AHEAD:])
    grouped = b.reshape(weights, [groups, shape[0] // groups, *shape[1:]])
    taken = windows.taken(b, _padded(b, node, windows, x))
    return _with_bias(b, node, _product(b, grouped, taken, count), count)


def _transposed_convolution(b: Builder, node: ir.Node) -> ir.Value | None:
    """A convolution with the kernel turned, over the input with zeros between its elements."""
    x, weights = node.inputs[:2]
    shape = None if weights is None else static_shape(weights)
    chosen = attribute(node, "auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    if x is None or weights is None or shape is None or chosen or "output_shape" in node.attributes:
        return None
    count, groups = len(shape) - _AHEAD, int(attribute(node, "group", 1))
    given = _Windows.of(node, shape[_AHEAD:])
    windows = dataclasses.replace(given, strides=(1,) * count)
    pads = attribute(node, "pads", [0] * 2 * count)
    more = attribute(node, "output_padding", [0] * count)
    ahead = [r - p for r, p in zip(windows.reach, pads[:count], strict=True)]
    behind = [
        reach - pad + extra - (stride - 1)
        for reach, pad, extra, stride in zip(
            windows.reach, pads[count:], more, given.strides, strict=True
        )
    ]
    spread = b.pad(_spread(b, x, given.strides), [0, 0, *ahead], [0, 0, *behind])
    order = [0, 2, 1, *range(3, 3 + count)]
    grouped = b.reshape(weights, [groups, shape[0] // groups, *shape[1:]])
    grouped = b.transpose(grouped, order)
    back = b.ints(*[-1] * count)
    axes = b.ints(*range(3, 3 + count))
    turned = b.op("Slice", grouped, back, b.ints(*[-(2**31)] * count), axes, back, shape=grouped)
    y = _product(b, turned, windows.taken(b, spread), count)
    return _with_bias(b, node, y, count)


def _spread(b: Builder, x: ir.Value, strides: Sequence[int]) -> ir.Value:
    """Returns a tensor with zeros behind each of its elements, a stride of them in all."""
    if max(strides) == 1:
        return x
    count = len(strides)
    apart = b.unsqueeze(x, [_AHEAD + 1 + 2 * i for i in range(count)])
    zeros = [0, 0, *(n for stride in strides for n in (0, stride - 1))]
    wide = b.pad(apart, [0] * len(zeros), zeros)
    shape = shape_of(x)
    sizes = [
        b.op("Mul", b.size(x, _AHEAD + i), b.ints(stride), shape=[1])
        for i, stride in enumerate(strides)
    ]
    known: list[Dim] | None = None
    if shape is not None:
        spatial = zip(shape[_AHEAD:], strides, strict=True)
        known = [*shape[:_AHEAD], *(n * s if isinstance(n, int) else None for n, s in spatial)]
    return b.op("Reshape", wide, b.concat([b.ints(0, 0), *sizes], axis=0), shape=known)


def _average(b: Builder, node: ir.Node) -> ir.Value | None:
    x = node.inputs[0]
    if x is None or attribute(node, "ceil_mode", 0):
        return None
    windows = _Windows.of(node, attribute(node, "kernel_shape"))
    elements = [_AHEAD + i for i in range(len(windows.sizes))]
    inside = _padded(b, node, windows, x)
    taken = windows.taken(b, inside)
    if inside is x or attribute(node, "count_include_pad", 0):
        return b.reduce("ReduceMean", taken, elements, False)
    total = b.reduce_sum(taken, elements, keepdims=False)
    shape = shape_of(x)
    one = None if shape is None else [1, 1, *shape[_AHEAD:]]
    ones = b.op("Expand", b.scalar(1.0, x), _one_image(b, x), shape=one)
    counts = windows.taken(b, _padded(b, node, windows, ones))
    return b.div(total, b.reduce_sum(counts, elements, keepdims=False))


def _one_image(b: Builder, x: ir.Value) -> ir.Value:
    """Returns the shape of one sample of one channel."""
    sizes = [b.size(x, axis) for axis in range(_AHEAD, len(shape_of(x) or ()))]
    return b.concat([b.ints(1, 1), *sizes], axis=0)


def _global_average(b: Builder, node: ir.Node) -> ir.Value | None:
    x = node.inputs[0]
    shape = None if x is None else shape_of(x)
    if x is None or shape is None:
        return None
    return b.reduce("ReduceMean", x, list(range(_AHEAD, len(shape))), True)


def _repetition(b: Builder, node: ir.Node) -> ir.Value | None:
    """A Resize that repeats each element a whole number of times."""
    x = node.inputs[0]
    scales = constant_of(node.inputs[2]) if len(node.inputs) == 3 else None
    how = [attribute(node, name, None) for name in ("coordinate_transformation_mode", "mode")]
    plain = how == ["asymmetric", "nearest"] and attribute(node, "nearest_mode", "") == "floor"
    if x is None or scales is None or not plain or "axes" in node.attributes:
        return None
    times = [int(n) for n in scales]
    if times != scales.tolist() or min(times) < 1:
        return None
    for axis, number in enumerate(times):
        shape = shape_of(x)
        if number == 1:
            continue
        whole = None if shape is None else shape[axis]
        if isinstance(whole, int):
            places = b.const(np.arange(whole * number) // number)
        else:
            count = b.op("Mul", b.size(x, axis), b.ints(number), shape=[1])
            places = b.op("Div", b.count_up(count), b.const(np.array(number)), shape=[None])
        size = shape_of(places) or [None]
        repeated = None if shape is None else [*shape[:axis], *size, *shape[axis + 1 :]]
        x = b.op("Gather", x, places, shape=repeated, axis=axis)
    return x


def _elu(b: Builder, node: ir.Node) -> ir.Value | None:
    x = node.inputs[0]
    if x is None:
        return None
    below = b.sub(b.op("Exp", b.elementwise("Min", x, 0.0), shape=x), 1.0)
    above = b.elementwise("Greater", x, 0.0)
    return b.where(above, x, b.mul(below, float(attribute(node, "alpha", 1.0))))


def _leaky_relu(b: Builder, node: ir.Node) -> ir.Value | None:
    x = node.inputs[0]
    if x is None:
        return None
    slope = float(attribute(node, "alpha", 0.01))
    return b.where(b.elementwise("Less", x, 0.0), b.mul(x, slope), x)


def _softsign(b: Builder, node: ir.Node) -> ir.Value | None:
    x = node.inputs[0]
    return None if x is None else b.div(x, b.add(b.op("Abs", x, shape=x), 1.0))


_WRITERS: Mapping[str, Callable[[Builder, ir.Node], ir.Value | None]] = {
    "Conv": _convolution,
    "ConvTranspose": _transposed_convolution,
    "AveragePool": _average,
    "GlobalAveragePool": _global_average,
    "Resize": _repetition,
    "Elu": _elu,
    "LeakyRelu": _leaky_relu,
    "Softsign": _softsign,
}
