"""Rules of Fourier transforms.

A discrete Fourier transform is linear, and its adjoint is the transform with the other sign: of a
gradient, all frequencies of it at all times. A transform of real numbers gives half of the
frequencies (`onesided`), of which the other half is the conjugate.

Complex numbers lie along the last axis, real part first; real numbers have a last axis of 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import Dim, attribute, constant_of, dims_of, dtype_of, rank_of
from probegen.graph.vjp.common import Local, inputs, optional, unary
from probegen.graph.vjp.decomposition import decomposed


def _dft(v: Local) -> ir.Value:
    """DFT, onesided or not, forwards or back.

    The length of the transform may be another than that of the axis: x is cut or filled with
    zeros to it, and so is the gradient on its way back.
    """
    b, x, node = v.b, v.x, v.node
    axis = _axis(b, node, x)
    inverse, onesided = (bool(attribute(node, name, 0)) for name in ("inverse", "onesided"))
    size = dims_of(x)[axis]
    if not isinstance(size, int):
        return _of_open_axis(v, axis, inverse=inverse, onesided=onesided)
    length, g = _length(v, axis), v.g
    if inverse and onesided:
        return _from_real(b, g, axis, length, x)
    if onesided:
        g = _fitted(b, g, axis, length)
    back = _transform(b, g, axis, length, inverse=not inverse)
    # The inverse divides by the length and the transform does not: the adjoints the other way.
    back = b.mul(back, 1 / length if inverse else float(length))
    return _fitted(b, _like_input(b, back, x), axis, size)


def _of_open_axis(v: Local, axis: int, *, inverse: bool, onesided: bool) -> ir.Value:
    """Handles transforms as long as their axis, whose size is open.

    Raises:
        Refused: the length is another, or that of the half spectrum of real numbers, which leaves
            open whether it is even.
    """
    b, x, g = v.b, v.x, v.g
    if optional(v.node, 1) is not None or (inverse and onesided):
        raise Refused("the size of its axis is known at run time only")
    length = b.size(x, axis)
    if onesided:
        more = b.sub(length, b.size(g, axis))
        behind = [b.ints(0)] * (2 * rank_of(g))
        behind[rank_of(g) + axis] = more
        shape = [*dims_of(g)]
        shape[axis] = None
        g = b.op("Pad", g, b.concat(behind, 0), shape=shape)
    back = _transform(b, g, axis, None, inverse=not inverse)
    number = b.cast(length, dtype_of(back))
    back = b.div(back, number) if inverse else b.mul(back, number)
    return b.reshape_like(_like_input(b, back, x), x)


def _like_input(b: Builder, back: ir.Value, x: ir.Value) -> ir.Value:
    """Returns the real part alone where the input is real."""
    if dims_of(x)[-1] == 1:
        return b.slice(back, rank_of(back) - 1, 0, 1)
    if dims_of(x)[-1] != 2:
        raise Refused("whether its input is real or complex is not known")
    return back


def _from_real(b: Builder, g: ir.Value, axis: int, length: int, x: ir.Value) -> ir.Value:
    """Returns the gradient of half a spectrum from that of the real signal it stands for.

    Frequencies that have a conjugate count twice; of 0 and of half the length there is one.
    """
    half = b.op(
        "DFT",
        g,
        b.const(length, ir.DataType.INT64),
        *_axis_input(b, axis),
        shape=x,
        onesided=1,
        axis=_axis_attribute(b, axis),
    )
    count = length // 2 + 1
    times = np.full(count, 2.0 / length)
    times[0] /= 2
    if length % 2 == 0:
        times[-1] /= 2
    shape = [1] * rank_of(x)
    shape[axis] = count
    return b.mul(half, b.const(times.reshape(shape), dtype_of(x)))


def _transform(
    b: Builder, value: ir.Value, axis: int, length: int | None, *, inverse: bool
) -> ir.Value:
    """Writes a DFT of a given length (None: that of the axis), complex and of all frequencies."""
    shape: list[Dim] = list(dims_of(value))
    shape[axis], shape[-1] = length, 2
    return b.op(
        "DFT",
        value,
        None if length is None else b.const(length, ir.DataType.INT64),
        *_axis_input(b, axis),
        shape=shape,
        inverse=int(inverse),
        axis=_axis_attribute(b, axis),
    )


def _axis_input(b: Builder, axis: int) -> list[ir.Value]:
    return [b.const(axis, ir.DataType.INT64)] if b.opset >= 20 else []


def _axis_attribute(b: Builder, axis: int) -> int | None:
    return None if b.opset >= 20 else axis


def _axis(b: Builder, node: ir.Node, x: ir.Value) -> int:
    """Returns the transformed axis, an input or an attribute as the opset has it."""
    value = optional(node, 2)
    if value is None:
        default = -2 if b.opset >= 20 else 1
        return int(attribute(node, "axis", default)) % rank_of(x)
    constant = constant_of(value)
    if constant is None:
        raise Refused("its axis is computed at run time; a gradient needs it as a constant")
    return int(constant.reshape(())) % rank_of(x)


def _length(v: Local, axis: int) -> int:
    """Returns the length of the transform."""
    value = optional(v.node, 1)
    if value is not None:
        constant = constant_of(value)
        if constant is None:
            raise Refused("its length is computed at run time; a gradient needs it as a constant")
        return int(constant.reshape(()))
    size = dims_of(v.x)[axis]
    if not isinstance(size, int):
        raise Refused("the size of its axis is known at run time only")
    inverse, onesided = (attribute(v.node, name, 0) for name in ("inverse", "onesided"))
    return 2 * (size - 1) if inverse and onesided else size


def _fitted(b: Builder, value: ir.Value, axis: int, size: int) -> ir.Value:
    """Returns a value with one axis cut, or filled with zeros at its end."""
    have = dims_of(value)[axis]
    if not isinstance(have, int):
        raise Refused("the size of its axis is known at run time only")
    if have > size:
        return b.slice(value, axis, 0, size)
    after = [0] * rank_of(value)
    after[axis] = size - have
    return b.pad(value, [0] * rank_of(value), after)


def _stft(b: Builder, node: ir.Node) -> list[ir.Value]:
    """STFT: signal `[batch, time, 1 or 2]`, or `[batch, time]`, -> `[batch, frame, frequency, 2]`.

    PyTorch writes real signals without the last axis, and onnxruntime takes them so.

    Frames are cut out and weighed by the window; each is transformed by itself.
    """
    signal, step = inputs(node)[:2]
    if rank_of(signal) == 2:
        signal = b.unsqueeze(signal, [2])
    window, length = optional(node, 2), optional(node, 3)
    every, width = constant_of(step), _frame_length(window, length)
    if every is None:
        raise Refused(
            "its frames are placed at run time; a gradient needs their step as a constant"
        )
    places, count = _places(b, signal, width, int(every.reshape(())))
    batch, parts = dims_of(signal)[0], dims_of(signal)[2]
    frames = b.op("Gather", signal, places, shape=[batch, count, width, parts], axis=1)
    if window is not None:
        frames = b.mul(frames, b.unsqueeze(window, [1]))
    onesided = int(attribute(node, "onesided", 1))
    shape = [batch, count, width // 2 + 1 if onesided else width, 2]
    found = b.op(
        "DFT",
        frames,
        None,
        *_axis_input(b, 2),
        shape=shape,
        onesided=onesided,
        axis=_axis_attribute(b, 2),
    )
    return [found]


def _places(b: Builder, signal: ir.Value, width: int, every: int) -> tuple[ir.Value, Dim]:
    """Returns which samples each frame holds, `[frame, width]`, and how many frames there are."""
    size = dims_of(signal)[1]
    within = np.arange(width)
    if isinstance(size, int):
        starts = np.arange(0, size - width + 1, every)
        return b.const(starts[:, None] + within), len(starts)
    whole = ir.DataType.INT64
    length = b.squeeze(b.op("Shape", signal, dtype=whole, shape=[1], start=1, end=2), [0])
    end = b.sub(length, b.const(width - 1, whole))
    zero, step = (b.const(n, whole) for n in (0, every))
    first = b.op("Range", zero, end, step, dtype=whole, shape=[None])
    column = b.op("Unsqueeze", first, b.ints(1), dtype=whole, shape=[None, 1])
    return b.op("Add", column, b.const(within), dtype=whole, shape=[None, width]), None


def _frame_length(window: ir.Value | None, length: ir.Value | None) -> int:
    constant = constant_of(length)
    if constant is not None:
        return int(constant.reshape(()))
    size = dims_of(window)[0] if window is not None else None
    if not isinstance(size, int):
        raise Refused("the length of its frames is known at run time only")
    return size


RULES: Mapping[str, Rule] = {
    "DFT": unary(_dft),
    "STFT": decomposed(_stft),
}
