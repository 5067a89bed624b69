"""Layer normalisations become one operator, where the forward graph has their pieces.

Keras normalises as x * m + (shift - mean * m), m being the scale over the deviation, in a dozen
operators of which six pass over the whole tensor; onnxruntime knows none of these forms.
LayerNormalization passes over it once, is closer to the exact result (Keras' form cancels where
the mean is large beside the deviation), and hands its statistics to the gradient.

It works on the last axes. Others, as those of the channels of images, are brought there and
back; matrix products and layer normalisations that follow each other cancel that again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.marks import MARK_DOMAIN, STOP_GRADIENT
from probegen.graph.core.queries import operands
from probegen.graph.core.values import attribute, constant_of, same_shape, shape_of, whole_numbers

#: The opset in which LayerNormalization appears.
_OPSET = 17


@dataclasses.dataclass(frozen=True)
class _Statistics:
    """What x is normalised by.

    Attributes:
        x: the value.
        mean: its mean, with the axes of the statistics as 1.
        axes: the axes of the statistics, sorted, not negative.
        epsilon: what is added to the variance.
    """

    x: ir.Value
    mean: ir.Value
    axes: Sequence[int]
    epsilon: float


def join_layer_normalisation(model: ir.Model) -> None:
    """Joins the pieces of a layer normalisation into one LayerNormalization.

    `m = s / sqrt(var(x) + e); Add(Mul(x, m), Sub(t, Mul(mean(x), m)))`
    -> `LayerNormalization(x, s, t)`

    and, as torch writes it, `c = x - mean(x); Add(Mul(c / sqrt(var(x) + e), s), t)`.

    Needs: shapes inferred; does nothing below opset 17, and for other than 32-bit floats.
    Leaves: pieces that nothing reads.
    """
    graph = model.graph
    builder = Builder(graph, graph.opset_imports.get("", 0), prefix="layer_norm")
    if builder.opset < _OPSET:
        return
    for node in list(graph):
        if node.op_type == "Add" and not node.domain:
            _join(builder, node)


def _join(b: Builder, last: ir.Node) -> None:
    for scaled, rest in (tuple(last.inputs), tuple(last.inputs)[::-1]):
        match = _match(scaled, rest) or _match_quotient(scaled, rest)
        if match is not None:
            _keep_sum_apart(match[0].x)
            _write(b, last, *match)
            return


def _keep_sum_apart(x: ir.Value) -> None:
    """Writes the sum that a normalisation reads as Sum and not as Add.

    onnxruntime merges an Add with the normalisation (SkipLayerNormalization), and its kernel for
    both takes five to nine times as long as the two by themselves.
    """
    node = x.producer()
    if node is not None and node.op_type == "Add" and not node.domain:
        node.op_type = "Sum"


def _match(
    scaled: ir.Value | None, rest: ir.Value | None
) -> tuple[_Statistics, npt.NDArray[np.float32], npt.NDArray[np.float32] | None] | None:
    """Matches x * m and shift - mean * m; returns the statistics, the scale and the shift.

    Scale and shift have the sizes of the axes of the statistics.
    """
    for x, factor in operands(scaled, "Mul"):
        for statistics, gain in _scaled_inverses(x, factor):
            scale = _along(gain, statistics, 1.0)
            for subtracted, shift in _shifted(rest):
                along = _along(shift, statistics, 0.0)
                if (
                    scale is not None
                    and along is not None
                    and _is_mean_times(subtracted, statistics.mean, factor)
                ):
                    return statistics, scale, None if shift is None else along
    return None


def _match_quotient(
    scaled: ir.Value | None, shift: ir.Value | None
) -> tuple[_Statistics, npt.NDArray[np.float32], npt.NDArray[np.float32] | None] | None:
    """Matches (x - mean) / deviation * scale and the shift; returns what `_match` returns."""
    for quotient, gain in operands(scaled, "Mul"):
        for centred, deviation in operands(quotient, "Div", both=False):
            for x, mean in operands(centred, "Sub", both=False):
                statistics = _statistics_of_root(x, deviation)
                if statistics is None or _before_reshapes(mean) is not statistics.mean:
                    continue
                scale, along = _along(gain, statistics, 1.0), _along(shift, statistics, 0.0)
                if scale is not None and along is not None:
                    return statistics, scale, along
    return None


def _scaled_inverses(
    x: ir.Value, factor: ir.Value
) -> Iterator[tuple[_Statistics, ir.Value | None]]:
    """Yields what a factor may be: one over the deviation, and what it is times, if anything."""
    candidates: list[tuple[ir.Value, ir.Value | None]] = [(factor, None), *operands(factor, "Mul")]
    for inverse, gain in candidates:
        statistics = _statistics(x, inverse)
        if statistics is not None:
            yield statistics, gain


def _statistics(x: ir.Value, inverse: ir.Value) -> _Statistics | None:
    """Matches 1 / sqrt(mean((x - mean(x))**2) + epsilon)."""
    return _statistics_of_root(x, _input_of(inverse, "Reciprocal"))


def _statistics_of_root(x: ir.Value, root: ir.Value | None) -> _Statistics | None:
    """Matches sqrt(mean((x - mean(x))**2) + epsilon)."""
    total = _input_of(root, "Sqrt")
    for variance, number in operands(total, "Add"):
        epsilon = constant_of(number)
        square = _mean_of(variance)
        rank = len(shape_of(x) or ())
        if epsilon is None or epsilon.size != 1 or epsilon.ndim > rank or square is None:
            continue
        for centred in _squared(square):
            difference = centred.producer()
            if difference is None or difference.op_type != "Sub":
                continue
            minuend, mean = difference.inputs
            mean = _before_reshapes(mean)
            axes = _mean_axes(mean, x)
            same = axes is not None and axes == _mean_axes(variance, x)
            if minuend is x and mean is not None and axes and same:
                return _Statistics(x, mean, axes, float(epsilon.reshape(())))
    return None


def _mean_axes(mean: ir.Value | None, x: ir.Value) -> list[int] | None:
    """Returns the axes over which a value is the mean of something shaped as x; they stay as 1."""
    node, shape = None if mean is None else mean.producer(), shape_of(x)
    if node is None or node.domain or shape is None:
        return None
    source = node.inputs[0]
    if source is not x and (source is None or not same_shape(source, x)):
        return None
    if node.op_type == "GlobalAveragePool":  # tf2onnx writes means over the last axes so
        return list(range(2, len(shape)))
    if node.op_type != "ReduceMean":
        return None
    axes = whole_numbers(node, "axes", 1)
    if not axes or not attribute(node, "keepdims", 1):
        return None
    return sorted(axis % len(shape) for axis in axes)


def _squared(square: ir.Value) -> Iterator[ir.Value]:
    """Yields what a value is the square of."""
    for value, again in operands(square, "Mul"):
        if value is again:
            yield value
    for value, power in operands(square, "Pow", both=False):
        exponent = constant_of(power)
        if exponent is not None and exponent.size == 1 and float(exponent.reshape(())) == 2.0:
            yield value


def _mean_of(variance: ir.Value) -> ir.Value | None:
    """Returns what a value is the mean of."""
    reduced = _input_of(variance, "ReduceMean")
    return _input_of(variance, "GlobalAveragePool") if reduced is None else reduced


def _before_reshapes(value: ir.Value | None) -> ir.Value | None:
    """Returns what a value was before it was reshaped to other shapes and back.

    A stopped gradient is passed: TensorFlow stops that of the mean within the variance, where
    it is 0 by itself.
    """
    original = at = value
    while at is not None and value is not None:
        stopped = _input_of(at, STOP_GRADIENT, MARK_DOMAIN)
        at = _input_of(at, "Reshape") if stopped is None else stopped
        if at is not None and same_shape(at, value):
            original = at
    return original


def _shifted(rest: ir.Value | None) -> Iterator[tuple[ir.Value, ir.Value | None]]:
    """Yields what `rest` may be: a product, or a product and a constant added to it."""
    if rest is not None:
        yield rest, None
        yield from operands(rest, "Add")


def _is_mean_times(value: ir.Value, mean: ir.Value, factor: ir.Value) -> bool:
    """Tells whether a value is -mean * factor."""
    return any(
        second is factor and _before_reshapes(_input_of(first, "Neg")) is mean
        for first, second in operands(value, "Mul")
    )


def _input_of(value: ir.Value | None, op_type: str, domain: str = "") -> ir.Value | None:
    """Returns the first input of the node that made a value, where it is of that kind."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != op_type or node.domain != domain:
        return None
    return node.inputs[0]


def _along(
    value: ir.Value | None, statistics: _Statistics, default: float
) -> npt.NDArray[np.float32] | None:
    """Returns a constant with the sizes of the axes of the statistics, None where it is none.

    Where there is no value, it is `default` throughout.
    """
    shape = shape_of(statistics.x) or ()
    sizes = [shape[axis] for axis in statistics.axes]
    numbers = [size for size in sizes if isinstance(size, int)]
    if len(numbers) < len(sizes) or statistics.x.dtype != ir.DataType.FLOAT:
        return None
    if value is None:
        return np.full(numbers, default, np.float32)
    array = constant_of(value)
    if array is None or array.ndim > len(shape):
        return None
    array = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    others = [n for axis, n in enumerate(array.shape) if axis not in statistics.axes]
    if any(n != 1 for n in others):
        return None
    narrow = array.reshape([array.shape[axis] for axis in statistics.axes])
    return np.broadcast_to(narrow, numbers).astype(np.float32)


def _write(
    b: Builder,
    last: ir.Node,
    statistics: _Statistics,
    scale: npt.NDArray[np.float32],
    shift: npt.NDArray[np.float32] | None,
) -> None:
    """Makes the last piece, whose output others may know, the end of the normalisation."""
    rank = len(statistics.x.shape or ())
    order = [axis for axis in range(rank) if axis not in statistics.axes] + [*statistics.axes]
    back = [order.index(axis) for axis in range(rank)]
    operands = [b.transpose(statistics.x, order), b.const(scale)]
    if shift is not None:
        operands.append(b.const(shift))
    attributes: dict[str, Any] = {
        "axis": -len(statistics.axes),
        "epsilon": statistics.epsilon,
    }
    if order == sorted(order):
        _become(last, "LayerNormalization", operands, attributes)
    else:
        normal = b.op("LayerNormalization", *operands, shape=operands[0], **attributes)
        _become(last, "Transpose", [normal], {"perm": back})
    b.insert_before(last)


def _become(
    node: ir.Node, op_type: str, operands: Sequence[ir.Value], attributes: Mapping[str, Any]
) -> None:
    node.op_type = op_type
    node.resize_inputs(len(operands))
    for position, value in enumerate(operands):
        node.replace_input_with(position, value)
    for attr in ir.convenience.convert_attributes(attributes):
        node.attributes[attr.name] = attr
