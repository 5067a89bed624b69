"""Writes what makes a model's tensor of the picture that arrives.

Resizing is written in plain operators and not as `Resize`, whose centres, kernels, edges and
antialiasing differ from operator set to operator set and from runtime to runtime. The pixels that
one of the result is made of are gathered while they are still bytes, so that no more is converted
than is used; with antialiasing, which uses all of them, rows and columns are matrix products.

Coordinates are computed in float32 by the formulas of `tf.image.resize`, whose pixels these are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from probegen.artefact.manifest import InputSpec
from probegen.artefact.preprocessing import BICUBIC, BILINEAR, CROP, NEAREST, PAD, Preprocessing
from probegen.graph.array_operations import OnnxOperations
from probegen.graph.core.builder import Builder
from probegen.graph.core.marks import MARK, MARK_DOMAIN
from probegen.graph.core.values import constant_of, dims_of
from probegen.graph.forward import ForwardGraph, open_size
from probegen.graph.vjp.sampling import keys_kernel
from probegen.plan.plan import TensorRef

_FLOAT, _INT = ir.DataType.FLOAT, ir.DataType.INT64
#: Keys' kernel, and the steps in which `tf.image.resize` looks it up where it does not antialias.
_KEYS, _STEPS = -0.5, 1024.0
#: Where a quotient is split in two, so that products of its parts are exact.
_SPLIT = 1024.0
#: Taps of linear interpolation.
_PAIR = 2
#: Half the width of Keys' kernel, in pixels of the coarser grid.
_RADIUS = 2.0


def with_arriving_images(forward: ForwardGraph, inputs: tuple[InputSpec, ...]) -> ForwardGraph:
    """Gives a forward graph the pictures that arrive as inputs, in the place of the model's own.

    What the model took is then the result of a mark, which gradients are taken at.

    Args:
        forward: the model's forward pass; its graph is changed.
        inputs: of the artefact, in the model's order.
    """
    graph, sources = forward.graph, dict(forward.sources)
    builder = Builder(graph, forward.opset)
    own = {value.name: value for value in graph.inputs}
    for position, spec in enumerate(inputs):
        if spec.preprocessing is None:
            continue
        value = own[spec.name]
        arriving = _arriving(value, spec)
        builder.nodes = []
        ready = preprocessed(builder, arriving, spec)
        ready.shape = ir.Shape(
            [
                d if n is None or axis == "batch" else n
                for d, n, axis in zip(
                    dims_of(value), spec.preprocessing.shape, spec.preprocessing.axes, strict=True
                )
            ]
        )
        mark = builder.op(MARK, ready, shape=ready, dtype=ready.dtype, domain=MARK_DOMAIN)
        value.replace_all_uses_with(mark, replace_graph_outputs=True)
        graph.inputs[graph.inputs.index(value)] = arriving
        first = next(iter(graph), None)
        if first is None:
            builder.attach()
        else:
            graph.insert_before(first, builder.nodes)
        sources[TensorRef(None, position=position)] = mark
    return dataclasses.replace(forward, sources=sources)


def _arriving(value: ir.Value, spec: InputSpec) -> ir.Value:
    """Returns the input for what arrives; its batch is called as that of the model's."""
    assert spec.preprocessing is not None
    batch = dims_of(value)[spec.preprocessing.axes.index("batch")]
    kept = dict(zip(spec.preprocessing.axes, dims_of(value), strict=True))
    sizes = [
        batch
        if axis == "batch"
        else n
        if n is not None
        else kept[axis]
        if spec.preprocessing.resize is None and kept[axis] is not None
        else open_size(spec.name, i)
        for i, (axis, n) in enumerate(zip(spec.axes, spec.shape, strict=True))
    ]
    return ir.Value(
        name=spec.name,
        shape=ir.Shape(sizes),
        type=ir.TensorType(ir.DataType.from_numpy(np.dtype(spec.dtype))),
    )


def over_input(
    b: Builder, heat: ir.Value, axes: Sequence[str], arriving: ir.Value, spec: InputSpec
) -> ir.Value:
    """Writes an attribution in the size of the picture that arrived; see `ImageInput`.

    Args:
        b: where the nodes go.
        heat: what the model's own tensor was explained by, of that tensor's height and width.
        axes: a name for each of its dimensions.
        arriving: the picture.
        spec: of the input.
    """
    how = spec.preprocessing
    assert how is not None
    y, x = (spec.axes.index(axis) for axis in ("height", "width"))
    for axis, part in zip(("height", "width"), _parts(b, arriving, how, y, x), strict=True):
        heat = _over_axis(b, heat, list(axes).index(axis), part)
    return heat


def _over_axis(b: Builder, heat: ir.Value, axis: int, part: _Part) -> ir.Value:
    """Writes one axis of an attribution in the size of the picture."""
    size = constant_of(part.length)
    kind = ir.DataType.FLOAT
    like = b.op(
        "ConstantOfShape",
        part.length,
        shape=[None if size is None else int(size[0])],
        dtype=kind,
    )
    heat = OnnxOperations(b).resize(heat, axis, like, 0)
    if part.start is None:
        return heat
    rank = len(dims_of(heat))
    dims = [None if i == axis else d for i, d in enumerate(dims_of(heat))]
    if part.borders:
        start = b.neg(part.start)
        return b.op("Slice", heat, start, b.add(start, part.size), b.ints(axis), shape=dims)
    behind = b.sub(b.sub(part.size, part.start), part.length)
    none = [b.ints(0)] * rank
    before = [*none[:axis], part.start, *none[axis + 1 :]]
    after = [*none[:axis], behind, *none[axis + 1 :]]
    return b.op("Pad", heat, b.concat([*before, *after], 0), shape=dims)


def preprocessed(b: Builder, arriving: ir.Value, spec: InputSpec) -> ir.Value:
    """Writes what the model takes, made of what arrives.

    Args:
        b: where the nodes go.
        arriving: the picture, `spec.axes`.
        spec: of the input.
    """
    how, axes = spec.preprocessing, spec.axes
    assert how is not None
    value = arriving
    places = {axis: i for i, axis in enumerate(axes)}
    if how.resize is None:
        value = b.cast(value, _FLOAT)
    elif how.antialias:
        value = _filtered(b, value, how, places["height"], places["width"])
    else:
        value = _gathered(b, value, how, places["height"], places["width"])
    count = spec.shape[places["channel"]]
    if how.channels != tuple(range(count or 0)):
        dims = [
            len(how.channels) if i == places["channel"] else d for i, d in enumerate(dims_of(value))
        ]
        value = b.op("Gather", value, b.ints(*how.channels), shape=dims, axis=places["channel"])
    value = b.transpose(value, [places[axis] for axis in how.axes])
    channel = how.axes.index("channel")
    for op, numbers, neutral in (
        ("Mul", how.scale, 1.0),
        ("Sub", how.mean, 0.0),
        ("Div", how.std, 1.0),
    ):
        if any(n != neutral for n in numbers):
            shape = [len(numbers) if i == channel else 1 for i in range(len(how.axes))]
            value = b.elementwise(op, value, b.const(np.reshape(numbers, shape), _FLOAT))
    return b.cast(value, ir.DataType.from_numpy(np.dtype(how.dtype)))


# -- one axis ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Part:
    """Which part of an axis of the picture the model sees.

    Attributes:
        size: the picture's, int64 `[1]`.
        start: where the part begins, int64 `[1]`; None for 0. With borders it is negative.
        length: of the part, borders among it, int64 `[1]`.
        borders: whether there may be some.
    """

    size: ir.Value
    start: ir.Value | None
    length: ir.Value
    borders: bool


def _parts(b: Builder, value: ir.Value, how: Preprocessing, y: int, x: int) -> tuple[_Part, _Part]:
    """Writes which part of a picture the model sees; `Preprocessing.window` says the same."""
    height, width = b.size(value, y), b.size(value, x)
    rows, columns = how.size
    assert rows is not None  # what is resized has a size
    assert columns is not None
    if how.fit not in (CROP, PAD):
        return _Part(height, None, height, False), _Part(width, None, width, False)
    parts = []
    for size, other, own, across in (
        (height, width, rows, columns),
        (width, height, columns, rows),
    ):
        product = b.cast(b.mul(other, b.ints(own)), _FLOAT)
        fitting = b.cast(b.div(product, _divisor(b, across, size)), _INT)
        if how.fit == CROP:
            length = b.elementwise("Max", b.elementwise("Min", size, fitting), b.ints(1))
            start = b.div(b.sub(size, length), b.ints(2))
            parts.append(_Part(size, start, length, False))
        else:
            over = b.elementwise("Max", b.sub(fitting, size), b.ints(0))
            border = b.div(over, b.ints(2))
            length = b.add(size, b.mul(border, b.ints(2)))
            parts.append(_Part(size, b.neg(border), length, True))
    return parts[0], parts[1]


@dataclasses.dataclass(frozen=True)
class _Taps:
    """Which pixels of an axis make each pixel of the result.

    Attributes:
        indices: int64 `[taps * wanted]`.
        count: how many taps each has.
        weights: what each counts, float32 `[taps, wanted]`; None where there is one. Of two, the
            share of the second, `[1, wanted]`.
        inside: which of them are no border, bool `[taps * wanted]`; None where there is none.
    """

    indices: ir.Value
    count: int
    weights: ir.Value | None
    inside: ir.Value | None


def _gathered(b: Builder, value: ir.Value, how: Preprocessing, y: int, x: int) -> ir.Value:
    """Writes a picture resized by few pixels for each one of the result."""
    parts = _parts(b, value, how, y, x)
    taken: list[tuple[int, int, _Taps]] = []
    for axis, part, wanted in zip((y, x), parts, how.size, strict=True):
        assert wanted is not None
        assert how.resize is not None
        taps = _taps(b, part, wanted, how.resize)
        dims = [taps.count * wanted if i == axis else d for i, d in enumerate(dims_of(value))]
        value = b.op("Gather", value, taps.indices, shape=dims, axis=axis)
        taken.append((axis, wanted, taps))
    value = b.cast(value, _FLOAT)
    for axis, _, taps in taken:
        if taps.inside is not None:
            inside = b.unsqueeze(taps.inside, list(range(1, len(dims_of(value)) - axis)))
            value = b.where(inside, value, how.fill)
    # As TensorFlow does: columns are joined first.
    for axis, wanted, taps in reversed(taken):
        if taps.weights is not None:
            value = _joined(b, value, axis, wanted, taps.count, taps.weights)
    return value


def _joined(
    b: Builder, value: ir.Value, axis: int, wanted: int, count: int, weights: ir.Value
) -> ir.Value:
    """Writes what the taps of an axis, `[taps * wanted]`, come to.

    Two are joined as TensorFlow does it, so that the last bit is the same.
    """
    dims = dims_of(value)
    sizes = [(value, i) for i in range(len(dims))]
    apart = b.reshape(value, [*sizes[:axis], count, wanted, *sizes[axis + 1 :]])
    weights = b.unsqueeze(weights, list(range(2, 2 + len(dims) - axis - 1)))
    if count > _PAIR:
        return b.reduce_sum(b.mul(apart, weights), [axis], keepdims=False)
    first, second = (b.slice(apart, axis, i, i + 1) for i in range(_PAIR))
    between = b.mul(b.sub(second, first), weights)
    return b.squeeze(b.add(first, between), [axis])


def _taps(b: Builder, part: _Part, wanted: int, resize: str) -> _Taps:
    """Writes which pixels of an axis make each pixel of the result."""
    length = b.cast(part.length, _FLOAT)
    scale = _quotient(b, length, _divisor(b, wanted, part.length))
    at = b.mul(b.const(np.arange(wanted) + 0.5, _FLOAT), scale)
    last = b.sub(part.length, b.ints(1))
    weights: ir.Value | None = None
    if resize == NEAREST:
        low = b.cast(b.op("Floor", at, shape=[wanted]), _INT)
        indices = b.unsqueeze(b.elementwise("Min", low, last), [0])
    else:
        at = b.sub(at, 0.5)
        low = b.op("Floor", at, shape=[wanted])
        weights = b.unsqueeze(b.sub(at, low), [0])
        steps = np.arange(_PAIR) if resize == BILINEAR else np.arange(-1, 3)
        first = b.unsqueeze(b.cast(low, _INT), [0])
        places = b.add(first, b.const(steps[:, np.newaxis].astype(np.int64)))
        indices = b.elementwise("Max", b.elementwise("Min", places, last), b.ints(0))
        if resize == BICUBIC:
            kept = b.elementwise("Equal", places, indices)
            weights = b.mul(_keys_of_steps(b, weights), b.cast(kept, _FLOAT))
            weights = b.div(weights, b.reduce_sum(weights, [0], keepdims=True))
    count = dims_of(indices)[0]
    assert isinstance(count, int)
    indices = b.op("Reshape", indices, b.ints(-1), shape=[count * wanted])
    if part.start is not None:
        indices = b.add(indices, part.start)
    inside: ir.Value | None = None
    if part.borders:
        end = b.sub(part.size, b.ints(1))
        held = b.elementwise("Max", b.elementwise("Min", indices, end), b.ints(0))
        inside = b.elementwise("Equal", held, indices)
        indices = held
    return _Taps(indices, count, weights, inside)


def _divisor(b: Builder, number: int, size: ir.Value) -> ir.Value:
    """Writes a number to divide by, float32 `[1]`, that no compiler takes for a constant.

    OpenVINO multiplies by the rounded inverse of a constant, which moves pixels.
    """
    nothing = b.elementwise("Min", size, b.ints(0))
    return b.cast(b.elementwise("Max", nothing, b.ints(number)), _FLOAT)


def _quotient(b: Builder, size: ir.Value, number: ir.Value) -> ir.Value:
    """Writes a quotient of whole numbers in float32, rounded once in every runtime.

    OpenVINO multiplies by the rounded inverse, whatever is divided by. What that leaves over is
    found with products that are exact (up to sizes of 2^14), and added. Where the quotient was
    right it is less than half of its last bit.
    """
    near = b.div(size, number)
    coarse = b.mul(b.op("Floor", b.mul(near, _SPLIT), shape=near), 1 / _SPLIT)
    fine = b.sub(near, coarse)
    left = b.sub(b.sub(size, b.mul(coarse, number)), b.mul(fine, number))
    return b.add(near, b.div(left, number))


def _keys_of_steps(b: Builder, offset: ir.Value) -> ir.Value:
    """Writes Keys' kernel at the four pixels around, in the steps of TensorFlow's table."""
    steps = b.op("Round", b.mul(offset, _STEPS), shape=offset)
    d = b.div(steps, _STEPS)
    e = b.sub(1.0, d)
    return b.concat(
        [
            keys_kernel(b, b.add(d, 1.0), _KEYS, far=True),
            keys_kernel(b, d, _KEYS, far=False),
            keys_kernel(b, e, _KEYS, far=False),
            keys_kernel(b, b.add(e, 1.0), _KEYS, far=True),
        ],
        0,
    )


# -- with antialiasing -------------------------------------------------------------------------


def _filtered(b: Builder, value: ir.Value, how: Preprocessing, y: int, x: int) -> ir.Value:
    """Writes a picture resized by all pixels beneath one of the result: two matrix products."""
    parts = _parts(b, value, how, y, x)
    for axis, part in zip((y, x), parts, strict=True):
        if how.fit == CROP and part.start is not None:
            end = b.add(part.start, part.length)
            dims = [None if i == axis else d for i, d in enumerate(dims_of(value))]
            value = b.op("Slice", value, part.start, end, b.ints(axis), shape=dims)
    value = b.cast(value, _FLOAT)
    fill = how.fill if how.fit == PAD else 0.0
    if fill:
        value = b.sub(value, fill)
    assert how.resize is not None
    for axis, part, wanted in zip((y, x), parts, how.size, strict=True):
        assert wanted is not None
        value = _product(b, value, axis, wanted, _filter(b, part, wanted, how.resize))
    return b.add(value, fill)


def _product(b: Builder, value: ir.Value, axis: int, wanted: int, weights: ir.Value) -> ir.Value:
    """Writes the product of `[wanted, size]` weights with an axis of a picture of rank 4."""
    dims = list(dims_of(value))
    result = [wanted if i == axis else d for i, d in enumerate(dims)]
    if axis == len(dims) - 1:
        return b.op("MatMul", value, b.transpose(weights, [1, 0]), shape=result)
    if axis == len(dims) - 2:
        # Before the few channels: one product, where there would be one for each row.
        order = [*range(axis), axis + 1, axis]
        turned = b.transpose(value, order)
        made = b.op(
            "MatMul", turned, b.transpose(weights, [1, 0]), shape=[result[i] for i in order]
        )
        return b.transpose(made, order)
    behind = [(value, i) for i in range(axis + 2, len(dims))]
    # What lies behind the axis is one row of numbers.
    flat = b.op("Reshape", value, b.ints(*[0] * (axis + 1), -1), shape=[*dims[: axis + 1], None])
    made = b.op("MatMul", weights, flat, shape=[*result[: axis + 1], None])
    sizes = [(value, i) for i in range(axis)]
    return b.reshape(made, [*sizes, wanted, (value, axis + 1), *behind])


def _filter(b: Builder, part: _Part, wanted: int, resize: str) -> ir.Value:
    """Writes what each pixel of an axis counts for each one of the result, `[wanted, size]`.

    Borders have no pixels, and count where the weights are made to add up to 1.
    """
    length = b.cast(part.length, _FLOAT)
    # As TensorFlow does: the inverse of the inverse.
    step = b.div(1.0, b.div(float(wanted), length))
    reach = b.div(1.0, b.elementwise("Max", step, 1.0))
    centres = b.const((np.arange(wanted) + 0.5)[:, np.newaxis], _FLOAT)
    at = b.mul(centres, step)
    counted = b.add(b.cast(b.count_up(part.length), _FLOAT), 0.5)
    apart = b.op("Abs", b.mul(b.sub(counted, at), reach), shape=[wanted, None])
    if resize == BILINEAR:
        weights = b.elementwise("Max", b.sub(1.0, apart), 0.0)
    else:
        near = b.elementwise("LessOrEqual", apart, 1.0)
        seen = b.elementwise("Less", apart, _RADIUS)
        far = b.where(seen, keys_kernel(b, apart, _KEYS, far=True), 0.0)
        weights = b.where(near, keys_kernel(b, apart, _KEYS, far=False), far)
    weights = b.div(weights, b.reduce_sum(weights, [1], keepdims=True))
    if part.borders and part.start is not None:
        start = b.neg(part.start)
        end = b.add(start, part.size)
        weights = b.op("Slice", weights, start, end, b.ints(1), shape=[wanted, None])
    return weights
