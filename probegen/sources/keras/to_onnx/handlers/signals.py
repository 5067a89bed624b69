"""Complex numbers and Fourier transforms.

ONNX has no complex numbers to reckon with. Here a complex tensor is two: its real and its
imaginary part, kept beside the graph under the name of the tensor. Operations that read none but
those of this table leave it as it is, and are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from tf2onnx.handler import tf_op

from probegen.sources.keras.to_onnx.handlers.angles import angle
from probegen.sources.keras.to_onnx.handlers.writer import Writer

_Type = onnx.TensorProto
_COMPLEX = frozenset({_Type.COMPLEX64, _Type.COMPLEX128})

#: Operations whose own handlers take care of complex numbers.
HANDLED = frozenset(
    {"Complex", "Real", "Imag", "Conj", "ComplexAbs", "Angle", "FFT", "IFFT", "FFT2D", "IFFT2D"}
    | {"RFFT", "IRFFT", "RFFT2D", "IRFFT2D"}
)

#: Longest transform that is written as a product with a matrix of its sines and cosines.
_LONGEST = 4096

_Pair = tuple[str, str]
#: Of an axis: a number where it is known, else the name of an int64 tensor `[1]`.
_Length = int | str


def is_complex(context: Any, node: Any) -> bool:
    """Tells whether a node reads or gives complex numbers."""
    names = [*node.input, *node.output]
    return any(context.get_dtype(name) in _COMPLEX for name in names if name)


def _parts(w: Writer, name: str) -> _Pair:
    """Returns the real and the imaginary part of a tensor."""
    pairs: dict[str, _Pair] = _known(w.context)
    if name in pairs:
        return pairs[name]
    value = w.value_of(name)
    if value is None:
        maker = w.context.get_node_by_output(name)
        raise ValueError(f"complex numbers that come from {getattr(maker, 'type', 'an input')}")
    kind = np.float64 if value.dtype == np.complex128 else np.float32
    pairs[name] = w.constant(value.real.astype(kind)), w.constant(value.imag.astype(kind))
    return pairs[name]


def _known(context: Any) -> dict[str, _Pair]:
    """Returns the parts of a graph's complex tensors by name."""
    if not hasattr(context, "probegen_parts"):
        context.probegen_parts = {}
    pairs: dict[str, _Pair] = context.probegen_parts
    return pairs


def _keep(w: Writer, real: str, imaginary: str) -> None:
    """Keeps the parts of the node's output. The node stays, and goes when nothing reads it."""
    _known(w.context)[w.node.output[0]] = real, imaginary


def _real_type(dtype: int) -> int:
    return int(_Type.DOUBLE if dtype == _Type.COMPLEX128 else _Type.FLOAT)


def _writer(context: Any, node: Any) -> Writer:
    """Returns a writer whose element type is that of the parts."""
    w = Writer(context, node)
    kind = w.dtype if w.dtype in _COMPLEX else context.get_dtype(node.input[0])
    w.dtype = _real_type(kind) if kind in _COMPLEX else kind
    return w


# -- parts ---------------------------------------------------------------------------------


def complex_(context: Any, node: Any, _: str, __: Any) -> None:
    """Keeps two tensors as the parts of one."""
    w = _writer(context, node)
    shapes = [w.shape_of(name) for name in w.inputs]
    if shapes[0] == shapes[1] and shapes[0] is not None:
        _keep(w, w.inputs[0], w.inputs[1])
        return
    zero = w.op("Sub", w.op("Mul", w.inputs[0], w.const(0)), w.op("Mul", w.inputs[1], w.const(0)))
    _keep(w, *(w.op("Add", name, zero) for name in w.inputs))


def real(context: Any, node: Any, _: str, __: Any) -> None:
    """Gives the real part."""
    w = _writer(context, node)
    w.give(_parts(w, w.inputs[0])[0])


def imaginary(context: Any, node: Any, _: str, __: Any) -> None:
    """Gives the imaginary part."""
    w = _writer(context, node)
    w.give(_parts(w, w.inputs[0])[1])


def conjugate(context: Any, node: Any, _: str, __: Any) -> None:
    """Turns the sign of the imaginary part."""
    w = _writer(context, node)
    a, b = _parts(w, w.inputs[0])
    _keep(w, a, w.op("Neg", b))


def magnitude(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the size of complex numbers; its gradient at 0 is 0, as in TensorFlow."""
    w = _writer(context, node)
    a, b = _parts(w, w.inputs[0])
    square = w.op("Add", w.op("Mul", a, a), w.op("Mul", b, b))
    is_zero = w.test("Equal", square, w.const(0))
    root = w.op("Sqrt", w.where(is_zero, w.const(1), square))
    w.give(w.where(is_zero, w.const(0), root))


def phase(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the angle of complex numbers."""
    w = _writer(context, node)
    a, b = _parts(w, w.inputs[0])
    w.give(angle(w, b, a))


# -- arithmetic ------------------------------------------------------------------------------


def arithmetic(context: Any, node: Any, kind: str) -> None:
    """Writes an operation that real numbers know too; leaves it where it is not in the table."""
    w = _writer(context, node)
    if kind == "Const":
        return
    if kind == "Shape":
        w.give(w.sizes(_parts(w, w.inputs[0])[0]))
        return
    if kind == "Cast" and context.get_dtype(node.output[0]) not in _COMPLEX:
        w.give(_parts(w, w.inputs[0])[0])  # TensorFlow drops the imaginary part
        return
    if kind in _ARITHMETIC:
        _keep(w, *_ARITHMETIC[kind](w, *(_parts(w, name) for name in w.inputs)))
    elif kind in ("Cast", "Identity") and context.get_dtype(node.output[0]) in _COMPLEX:
        if context.get_dtype(node.input[0]) in _COMPLEX:
            _keep(w, *_parts(w, w.inputs[0]))
        else:
            x = w.cast(w.inputs[0], _real_type(context.get_dtype(node.output[0])))
            w.dtype = w.dtype_of(x)
            _keep(w, x, w.op("Mul", x, w.const(0)))
    elif kind in _EITHER:
        _each_part(w, kind)
    else:
        raise ValueError("it has no form here for complex numbers")


def _add(w: Writer, x: _Pair, y: _Pair) -> _Pair:
    return w.op("Add", x[0], y[0]), w.op("Add", x[1], y[1])


def _subtract(w: Writer, x: _Pair, y: _Pair) -> _Pair:
    return w.op("Sub", x[0], y[0]), w.op("Sub", x[1], y[1])


def _multiply(w: Writer, x: _Pair, y: _Pair) -> _Pair:
    return (
        w.op("Sub", w.op("Mul", x[0], y[0]), w.op("Mul", x[1], y[1])),
        w.op("Add", w.op("Mul", x[0], y[1]), w.op("Mul", x[1], y[0])),
    )


def _divide(w: Writer, x: _Pair, y: _Pair) -> _Pair:
    size = w.op("Add", w.op("Mul", y[0], y[0]), w.op("Mul", y[1], y[1]))
    a, b = _multiply(w, x, (y[0], w.op("Neg", y[1])))
    return w.op("Div", a, size), w.op("Div", b, size)


def _exp(w: Writer, x: _Pair) -> _Pair:
    size = w.op("Exp", x[0])
    return w.op("Mul", size, w.op("Cos", x[1])), w.op("Mul", size, w.op("Sin", x[1]))


_ARITHMETIC: dict[str, Callable[..., _Pair]] = {
    "Add": _add,
    "AddV2": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "RealDiv": _divide,
    "Div": _divide,
    "Neg": lambda w, x: (w.op("Neg", x[0]), w.op("Neg", x[1])),
    "Square": lambda w, x: _multiply(w, x, x),
    "Exp": _exp,
}
#: What moves values and does not reckon with them: done with each part.
_EITHER = frozenset(
    {"Reshape", "Transpose", "ExpandDims", "Squeeze", "Slice", "StridedSlice", "ConcatV2", "Pack"}
    | {"GatherV2", "Pad", "PadV2", "ReverseV2", "Roll", "Tile", "BroadcastTo", "Sum", "Mean"}
)


def _each_part(w: Writer, kind: str) -> None:
    """Does what the node does with the real and with the imaginary parts."""
    node, context = w.node, w.context
    shape = context.get_shape(node.output[0])
    results = []
    for part in (0, 1):
        inputs = [
            _parts(w, name)[part] if context.get_dtype(name) in _COMPLEX else name
            for name in node.input
        ]
        attributes = {k: v for k, v in node.attr.items() if k not in ("T", "Tparams", "dtype")}
        made = context.make_node(
            kind, inputs, attr=attributes, shapes=[shape], dtypes=[w.dtype], skip_conversion=False
        )
        result = made.output[0]
        end = context.make_node("Identity", [result], shapes=[shape], dtypes=[w.dtype])
        function, arguments = tf_op.find_effective_op(kind)
        if arguments and arguments.get("onnx_op"):
            made.type = arguments["onnx_op"]
        function(context, made, **arguments)
        results.append(end.output[0])
    _keep(w, results[0], results[1])


# -- transforms ------------------------------------------------------------------------------


def transform(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes a discrete Fourier transform as products with matrices of cosines and sines.

    Along the last axis, or the last two. The matrices of a length that is known are stored, those
    of an open length are made by the graph.
    """
    kind, w = node.type, _writer(context, node)
    two = kind.endswith("2D")
    back = kind.startswith("I")
    shape = w.shape_of(w.inputs[0])
    if shape is None:
        raise ValueError("it needs a tensor whose number of axes is known")
    axes = [len(shape) - 2, len(shape) - 1] if two else [len(shape) - 1]
    lengths = [_length(w, shape, axis, i) for i, axis in enumerate(axes)]
    if kind in ("RFFT", "RFFT2D"):
        x = _fitted(w, w.inputs[0], shape, axes, lengths)
        waves = _waves(w, lengths[-1], lengths[-1], _half(w, lengths[-1]))
        pair = w.op("MatMul", x, waves[0]), w.op("MatMul", x, waves[1])
        _keep(w, *(_along_rows(w, pair, lengths[0], back=False) if two else pair))
        return
    pair = _parts(w, w.inputs[0])
    if kind in ("IRFFT", "IRFFT2D"):
        cut = [*lengths[:-1], _half(w, lengths[-1])]
        a, b = (_fitted(w, x, shape, axes, cut) for x in pair)
        pair = _along_rows(w, (a, b), lengths[0], back=True) if two else (a, b)
        w.give(_to_real(w, pair, lengths[-1]))
        return
    pair = _along_last(w, pair, lengths[-1], back=back)
    _keep(w, *(_along_rows(w, pair, lengths[0], back=back) if two else pair))


def _length(w: Writer, shape: list[int], axis: int, place: int) -> _Length:
    """Returns the length of a transform along an axis: a number, or the tensor of one.

    Transforms of and to real numbers are given theirs, one a place.
    """
    is_given = "RFFT" in w.node.type
    if is_given:
        given = w.value_of(w.inputs[1])
        known = -1 if given is None else int(np.ravel(given)[place])
    else:
        known = shape[axis]
    if known > _LONGEST:
        raise ValueError(f"it is written as a matrix, of {_LONGEST} rows at most")
    if known >= 0:
        return known
    if not is_given:
        return w.size(_parts(w, w.inputs[0])[0], axis)
    bounds = w.indices([place]), w.indices([place + 1])
    return w.op("Slice", w.cast(w.inputs[1], _Type.INT64), *bounds, dtype=_Type.INT64)


def _half(w: Writer, length: _Length) -> _Length:
    """Returns how many frequencies there are of real numbers."""
    if isinstance(length, int):
        return length // 2 + 1
    half = w.op("Div", length, w.indices([2]), dtype=_Type.INT64)
    return w.op("Add", half, w.indices([1]), dtype=_Type.INT64)


def _fitted(w: Writer, x: str, shape: list[int], axes: list[int], lengths: list[_Length]) -> str:
    """Cuts axes to what a transform reads."""
    cut = [(axis, n) for axis, n in zip(axes, lengths, strict=True) if shape[axis] != n]
    if any(isinstance(n, int) and 0 <= shape[axis] < n for axis, n in cut):
        raise ValueError("its input is shorter than its length")
    if not cut:
        return x
    ends = w.concat([_tensor(w, n) for _, n in cut])
    return w.op("Slice", x, w.indices([0] * len(cut)), ends, w.indices([axis for axis, _ in cut]))


def _waves(
    w: Writer, length: _Length, rows: _Length, columns: _Length, *, back: bool = False
) -> _Pair:
    """Returns the real and the imaginary part of a transform's matrix `[rows, columns]`.

    Its entries are `exp(-2 pi i row column / length)`, and `exp(2 pi i row column / length) /
    length` on the way back.
    """
    sign = 1 if back else -1
    if isinstance(length, int) and isinstance(rows, int) and isinstance(columns, int):
        angles = 2 * np.pi * (np.outer(np.arange(rows), np.arange(columns)) % length / length)
        scale = length if back else 1
        return w.array(np.cos(angles) / scale), w.array(sign * np.sin(angles) / scale)
    whole = _tensor(w, length)
    row = w.unsqueeze(_counted(w, rows), [1])
    turns = w.op("Mul", row, w.unsqueeze(_counted(w, columns), [0]), dtype=_Type.INT64)
    turns = w.cast(w.op("Mod", turns, whole, dtype=_Type.INT64), w.dtype)
    size = w.cast(whole, w.dtype)
    angle = w.op("Mul", w.op("Div", turns, size), w.const(sign * 2 * np.pi))
    waves = w.op("Cos", angle), w.op("Sin", angle)
    return (w.op("Div", waves[0], size), w.op("Div", waves[1], size)) if back else waves


def _tensor(w: Writer, length: _Length) -> str:
    """Returns a length as an int64 tensor `[1]`."""
    return w.indices([length]) if isinstance(length, int) else length


def _counted(w: Writer, count: _Length) -> str:
    """Returns the whole numbers from 0 up to a length, without it."""
    limits = [w.reshape(_tensor(w, n), []) for n in (0, count, 1)]
    return w.op("Range", *limits, dtype=_Type.INT64)


def _to_real(w: Writer, pair: _Pair, length: _Length) -> str:
    """Transforms half a spectrum back along the last axis."""
    count = _half(w, length)
    waves = _waves(w, length, count, length, back=True)
    weighed = [w.op("Mul", x, _counts(w, count, length)) for x in pair]
    real_part, other = (w.op("MatMul", x, y) for x, y in zip(weighed, waves, strict=True))
    return w.op("Sub", real_part, other)


def _counts(w: Writer, count: _Length, length: _Length) -> str:
    """Returns how often a frequency stands in the whole spectrum: once if its own mirror image."""
    if isinstance(length, int) and isinstance(count, int):
        return w.array(np.where(2 * np.arange(count) % length == 0, 1, 2))
    twice = w.op("Mul", _counted(w, count), w.indices([2]), dtype=_Type.INT64)
    rest = w.op("Mod", twice, _tensor(w, length), dtype=_Type.INT64)
    return w.where(w.test("Equal", rest, w.indices([0])), w.const(1), w.const(2))


def _along_last(w: Writer, pair: _Pair, length: _Length, *, back: bool) -> _Pair:
    return _turned(w, pair, length, lambda x, matrix: w.op("MatMul", x, matrix), back=back)


def _along_rows(w: Writer, pair: _Pair, length: _Length, *, back: bool) -> _Pair:
    return _turned(w, pair, length, lambda x, matrix: w.op("MatMul", matrix, x), back=back)


def _turned(
    w: Writer, pair: _Pair, length: _Length, times: Callable[[str, str], str], *, back: bool
) -> _Pair:
    """Transforms complex numbers, or transforms them back, by products with symmetric matrices."""
    (a, b), (c, d) = pair, _waves(w, length, length, length, back=back)
    return (
        w.op("Sub", times(a, c), times(b, d)),
        w.op("Add", times(b, c), times(a, d)),
    )
