"""A traced function once more, with operations of gradients written in plain ones.

LiteRT has built-in operators for what models compute, and few of the operations that TensorFlow
writes gradients with. `in_plain_operations` copies a graph operation by operation
(`graph_copy.py`) and writes those in its place. The table has what gradients of CNNs, transformers
and recurrent layers are made of.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import tensor_util

from probegen.sources.keras.graph_copy import LOOPS, GraphCopy, changes_states, graphs_of

#: Operations of images, which are written with channels last alone.
_OF_IMAGES = frozenset({"MaxPoolGrad", "AvgPoolGrad", "DepthwiseConv2dNativeBackpropInput"})
#: An operation of the old graph and what it reads in the new one -> its outputs.
Plain = Callable[..., Any]


def in_plain_operations(
    function: Any, specs: Mapping[str, Any], outputs: Sequence[str] | None = None
) -> Any:
    """Returns a concrete function that computes the same, or the same one.

    The same one where there is nothing to write otherwise, and where a graph changes states, whose
    order a copy would have to keep.

    Args:
        function: a concrete function whose arguments are keywords and whose outputs are a dict.
        specs: its arguments by name.
        outputs: names of its outputs, where it gives a list.
    """

    graph = function.graph
    operations = [operation for inner in graphs_of(graph) for operation in inner.get_operations()]
    other = any(o.type in LOOPS or _plain(o) is not None for o in operations)
    if changes_states(graph) or not other:
        return function

    def copy(**inputs: Any) -> dict[str, Any]:
        copying = GraphCopy(_plain, function.variables)
        captured = {internal.ref(): external for external, internal in graph.captures}
        given = dict(zip(function._arg_keywords, function.inputs, strict=False))
        own = {tensor.ref(): inputs[name] for name, tensor in given.items()}
        read = [
            own[t.ref()] if t.ref() in own else copying.captured(captured[t.ref()])
            for t in graph.inputs
        ]
        made = copying.run(graph, read)
        names = sorted(function.structured_outputs) if outputs is None else outputs
        return {
            name: tf.identity(copying.tensor(value))
            for name, value in zip(names, made, strict=True)
        }

    return tf.function(copy, autograph=False).get_concrete_function(**specs)


def _plain(operation: Any) -> Plain | None:
    """Returns what writes an operation; LiteRT has no float64, and erf is not so exact here."""
    exact = any(tensor.dtype == tf.float64 for tensor in operation.outputs)
    image = operation.type not in _OF_IMAGES or _channels_last(operation)
    return None if exact or not image else PLAIN.get(operation.type)


def _channels_last(operation: Any) -> bool:
    sizes = [*operation.get_attr("strides"), *_attribute(operation, "ksize", [1])]
    form = _attribute(operation, "data_format", b"NHWC")
    return bool(form == b"NHWC" and 1 == sizes[0] == sizes[3])


def _attribute(operation: Any, name: str, default: Any) -> Any:
    return operation.get_attr(name) if name in operation.node_def.attr else default


# -- functions of one number -------------------------------------------------------------------


def _where(condition: Any, gradient: Any) -> Any:
    return tf.where(condition, gradient, tf.zeros_like(gradient))


def _relu(_: Any, gradient: Any, value: Any) -> Any:
    return _where(value > 0, gradient)


def _relu6(_: Any, gradient: Any, value: Any) -> Any:
    return _where(tf.logical_and(value > 0, value < 6), gradient)


def _leaky_relu(operation: Any, gradient: Any, value: Any) -> Any:
    return tf.where(value > 0, gradient, gradient * operation.get_attr("alpha"))


def _elu(_: Any, gradient: Any, result: Any) -> Any:
    return tf.where(result < 0, gradient * (result + 1), gradient)


#: Coefficients of numerator and denominator of erf(x) / x as a fraction of polynomials of x^2, for
#: |x| up to 4, as TensorFlow's own kernels have them.
_ERF = (
    (
        -2.72614225801306e-10,
        2.77068142495902e-08,
        -2.10102402082508e-06,
        -5.69250639462346e-05,
        -7.34990630326855e-04,
        -2.95459980854025e-03,
        -1.60960333262415e-02,
    ),
    (
        -1.45660718464996e-05,
        -2.13374055278905e-04,
        -1.68282697438203e-03,
        -7.37332916720468e-03,
        -1.42647390514189e-02,
    ),
)
#: Where it rounds to 1.
_FLAT = 3.95


def _erf(_: Any, value: Any) -> Any:
    x = tf.minimum(tf.maximum(value, -_FLAT), _FLAT)
    square = x * x
    upper, lower = (_polynomial(square, coefficients) for coefficients in _ERF)
    # Beyond that it is 1 to float32's last bit, and a bit less would be multiplied by x in a GELU.
    return tf.where(tf.abs(value) < _FLAT, x * upper / lower, tf.sign(value))


def _polynomial(x: Any, coefficients: tuple[float, ...]) -> Any:
    found = x * 0 + coefficients[0]
    for coefficient in coefficients[1:]:
        found = found * x + coefficient
    return found


# -- sums and sizes ----------------------------------------------------------------------------


def _broadcast_arguments(_: Any, one: Any, other: Any) -> list[Any]:
    """Axes along which gradients of two broadcast tensors are summed, by their shapes."""
    rank_of_one, rank_of_other = (int(s.shape[0]) for s in (one, other))
    rank = max(rank_of_one, rank_of_other)
    ones = [tf.ones([rank - n], one.dtype) for n in (rank_of_one, rank_of_other)]
    a, b = (tf.concat([o, s], 0) for o, s in zip(ones, (one, other), strict=True))
    axes = tf.range(rank)
    found = []
    for own, its, length in ((a, b, rank_of_one), (b, a, rank_of_other)):
        added = tf.constant([axis < rank - length for axis in range(rank)])
        summed = tf.logical_or(added, tf.logical_and(tf.equal(own, 1), tf.not_equal(its, 1)))
        found.append(tf.reshape(tf.gather(axes, tf.where(summed)), [-1]))
    return found


def _bias(_: Any, gradient: Any) -> Any:
    return tf.reduce_sum(gradient, list(range(len(gradient.shape) - 1)))


def _batch_normalisation(operation: Any, *read: Any) -> list[Any]:
    gradient, value, scale, mean, variance = read[:5]
    if operation.get_attr("is_training"):
        raise NotImplementedError("the gradient of a normalisation by its own batch")
    deviation = tf.math.rsqrt(variance + operation.get_attr("epsilon"))
    axes = list(range(len(gradient.shape) - 1))
    of_scale = tf.reduce_sum(gradient * (value - mean), axes) * deviation
    nothing = tf.zeros([0], gradient.dtype)
    return [gradient * (scale * deviation), of_scale, tf.reduce_sum(gradient, axes)] + [nothing] * 2


# -- windows -----------------------------------------------------------------------------------


def _padding(size: Any, window: int, stride: int, padding: str) -> tuple[Any, Any, Any]:
    """Returns the number of windows along an axis, and what is added before and behind it."""
    if padding == "VALID":
        count = (size - window) // stride + 1
        return count, 0, (count - 1) * stride + window - size
    count = (size + stride - 1) // stride
    added = tf.maximum((count - 1) * stride + window - size, 0)
    return count, added // 2, (count - 1) * stride + window - size - added // 2


def _apart(values: Any, strides: tuple[int, int]) -> Any:
    """Puts rows and columns of zeros between those of an image, and behind them."""
    batch, height, width, channels = tf.unstack(tf.shape(values))
    down, across = strides
    if (down, across) == (1, 1):
        return values
    spread = tf.reshape(values, [batch, height, 1, width * channels])
    spread = tf.pad(spread, [[0, 0], [0, 0], [0, down - 1], [0, 0]])
    spread = tf.reshape(spread, [batch * height * down, width, 1, channels])
    spread = tf.pad(spread, [[0, 0], [0, 0], [0, across - 1], [0, 0]])
    return tf.reshape(spread, [batch, height * down, width * across, channels])


class _Windows:
    """The windows of a pooling over an image of shape `[batch, height, width, channel]`."""

    def __init__(self, operation: Any, shape: Any) -> None:
        _, down, across, _ = operation.get_attr("strides")
        self.strides = (int(down), int(across))
        _, high, wide, _ = operation.get_attr("ksize")
        padding = operation.get_attr("padding").decode()
        self.shape = shape
        self.rows, above, below = _padding(shape[1], high, down, padding)
        self.columns, left, right = _padding(shape[2], wide, across, padding)
        self.added = [[0, 0], [above, below], [left, right], [0, 0]]
        self.start = [0, above, left, 0]
        self.offsets = list(itertools.product(range(high), range(wide)))

    def parts(self, image: Any, filled: float) -> list[Any]:
        """Returns for each place in a window what stands there in all windows."""
        added = [[before, tf.maximum(behind, 0)] for before, behind in self.added]
        padded = tf.pad(image, added, constant_values=filled)
        (down, across), found = self.strides, []
        for i, j in self.offsets:
            end, side = i + (self.rows - 1) * down + 1, j + (self.columns - 1) * across + 1
            found.append(padded[:, i:end:down, j:side:across, :])
        return found

    def together(self, parts: list[Any]) -> Any:
        """Adds up what goes to each place in a window, where it stands in the image."""
        total, (high, wide) = None, self.offsets[-1]
        for (i, j), part in zip(self.offsets, parts, strict=True):
            around = [[0, 0], [i, high - i], [j, wide - j], [0, 0]]
            placed = tf.pad(_apart(part, self.strides), around)
            total = placed if total is None else total + placed
        return _within(total, self.start, self.shape)


def _within(total: Any, start: list[Any], shape: Any) -> Any:
    """Cuts an image out of a larger one; behind its end follow zeros."""
    behind = [[0, 0], [0, shape[1]], [0, shape[2]], [0, 0]]
    return tf.slice(tf.pad(total, behind), start, shape)


def _max_pool(operation: Any, value: Any, result: Any, gradient: Any) -> Any:
    """Gives the gradient of each window to the first of its largest numbers."""
    windows = _Windows(operation, tf.shape(value))
    given, shares = tf.zeros_like(result, tf.bool), []
    for part in windows.parts(value, value.dtype.min):
        hit = tf.logical_and(tf.equal(part, result), tf.logical_not(given))
        shares.append(_where(hit, gradient))
        given = tf.logical_or(given, hit)
    return windows.together(shares)


def _average_pool(operation: Any, shape: Any, gradient: Any) -> Any:
    windows = _Windows(operation, shape)
    counts = tf.add_n(windows.parts(tf.ones(shape, gradient.dtype), 0.0))
    return windows.together([gradient / counts] * len(windows.offsets))


def _depthwise(operation: Any, shape: Any, kernel: Any, gradient: Any) -> Any:
    """A depthwise convolution of the gradient, its rows apart, with the kernel turned."""
    _, down, across, _ = operation.get_attr("strides")
    steps = [int(step) for step in operation.get_attr("dilations")[1:3]]
    high, wide, channels, each = kernel.shape
    padding = operation.get_attr("padding").decode()
    reach = [(high - 1) * steps[0] + 1, (wide - 1) * steps[1] + 1]
    _, above, _ = _padding(shape[1], reach[0], int(down), padding)
    _, left, _ = _padding(shape[2], reach[1], int(across), padding)
    spread = _apart(gradient, (int(down), int(across)))
    around = [[0, 0], [reach[0] - 1] * 2, [reach[1] - 1] * 2, [0, 0]]
    turned = tf.reshape(tf.reverse(kernel, [0, 1]), [high, wide, channels * each, 1])
    found = tf.nn.depthwise_conv2d(
        tf.pad(spread, around), turned, [1, 1, 1, 1], "VALID", dilations=steps
    )
    if each > 1:
        batch, height, width, _ = tf.unstack(tf.shape(found))
        split = tf.reshape(found, [batch, height * width, channels, each])
        found = tf.reshape(tf.reduce_sum(split, -1), [batch, height, width, channels])
    return _within(found, [0, above, left, 0], shape)


def _strided_slice(
    operation: Any, shape: Any, begin: Any, _: Any, strides: Any, gradient: Any
) -> Any:
    """Puts the gradient of a part in the place of it, zeros around."""
    starts, steps = (tf.get_static_value(value) for value in (begin, strides))
    masks = {
        name: operation.get_attr(f"{name}_mask")
        for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    if steps is None or (steps != 1).any() or masks["ellipsis"] or masks["new_axis"]:
        raise NotImplementedError("the gradient of a slice with steps, or of several axes at once")
    around = []
    for axis in range(int(shape.shape[0])):
        size = shape[axis]
        sliced = axis < len(steps)
        if sliced and masks["shrink_axis"] >> axis & 1:
            gradient = tf.expand_dims(gradient, axis)
        if not sliced or masks["begin"] >> axis & 1:
            before: Any = tf.zeros_like(size)
        else:
            before = begin[axis] if starts is None else starts[axis]
            before = tf.where(before < 0, size + before, before)
            before = tf.minimum(before, size)
        around.append([before, size - before - tf.shape(gradient, size.dtype)[axis]])
    made = tf.pad(gradient, around)
    made.set_shape(tensor_util.constant_value_as_shape(shape))
    return made


def _concat_offset(_: Any, axis: Any, *shapes: Any) -> list[Any]:
    """Where each part of a concatenation begins."""
    along = tf.get_static_value(axis)
    if along is None:
        raise NotImplementedError("the gradient of a concatenation along an axis that is computed")
    rank, before, found = int(shapes[0].shape[0]), tf.zeros_like(shapes[0][0]), []
    for shape in shapes:
        zeros = tf.zeros_like(before)
        found.append(tf.stack([before if i == along % rank else zeros for i in range(rank)]))
        before += shape[along]
    return found


def _resize(kernel: Any) -> Plain:
    """Pictures of whole numbers are resized as floating ones."""

    def write(operation: Any, images: Any, size: Any) -> Any:
        made = kernel(
            images=tf.cast(images, tf.float32),
            size=size,
            align_corners=operation.get_attr("align_corners"),
            half_pixel_centers=operation.get_attr("half_pixel_centers"),
        )
        return tf.cast(made, operation.outputs[0].dtype)

    return write


PLAIN: Mapping[str, Plain] = {
    "ReluGrad": _relu,
    "Relu6Grad": _relu6,
    "LeakyReluGrad": _leaky_relu,
    "EluGrad": _elu,
    "SoftplusGrad": lambda _, g, x: g * tf.sigmoid(x),
    "SigmoidGrad": lambda _, y, g: g * y * (1 - y),
    "TanhGrad": lambda _, y, g: g * (1 - y * y),
    "SqrtGrad": lambda _, y, g: g * 0.5 / y,
    "RsqrtGrad": lambda _, y, g: g * -0.5 * (y * y * y),
    "InvGrad": lambda _, y, g: -g * y * y,
    "ReciprocalGrad": lambda _, y, g: -g * y * y,
    "Erf": _erf,
    "Erfc": lambda op, x: 1 - _erf(op, x),
    "BroadcastGradientArgs": _broadcast_arguments,
    "StridedSliceGrad": _strided_slice,
    "ConcatOffset": _concat_offset,
    "ShapeN": lambda op, *xs: [tf.shape(x, op.get_attr("out_type")) for x in xs],
    "BiasAddGrad": _bias,
    "FusedBatchNormGradV3": _batch_normalisation,
    "MaxPoolGrad": _max_pool,
    "AvgPoolGrad": _average_pool,
    "DepthwiseConv2dNativeBackpropInput": _depthwise,
    "ResizeBilinear": _resize(tf.raw_ops.ResizeBilinear),
    "ResizeNearestNeighbor": _resize(tf.raw_ops.ResizeNearestNeighbor),
}
