"""Patches of images and volumes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from probegen.sources.keras.to_onnx.handlers.writer import Writer

_Type = onnx.TensorProto


def extract_patches(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes windows `[batch, ...windows, elements]` of images or volumes, at any size.

    A Gather picks each axis apart; tf2onnx needs every size, the batch too, and convolves with
    ones and zeros, which lets what is infinite spoil its neighbours.
    """
    w = Writer(context, node)
    sizes, steps = (list(w.attribute(name))[1:-1] for name in ("ksizes", "strides"))
    rates = list(w.attribute("rates") or [1] * (len(sizes) + 2))[1:-1]
    same = w.attribute("padding") == "SAME"
    x, count = w.inputs[0], len(sizes)
    for number in reversed(range(count)):  # each puts an axis behind its own
        axis, rank = 1 + number, 1 + 2 * count - number
        x = _windows(w, x, axis, rank, (sizes[number], steps[number], rates[number]), same=same)
    # [batch, windows, size, windows, size, ..., channels]
    windows = [1 + 2 * i for i in range(count)]
    within = [2 + 2 * i for i in range(count)]
    x = w.op("Transpose", x, perm=[0, *windows, *within, 2 * count + 1])
    shape = w.shape_of(w.inputs[0])
    outer = w.indices([0] * (count + 1))
    if shape is not None and shape[-1] >= 0:
        elements = w.indices([int(np.prod(sizes)) * shape[-1]])
    else:
        channels, places = w.size(w.inputs[0], count + 1), w.indices([int(np.prod(sizes))])
        elements = w.op("Mul", channels, places, dtype=_Type.INT64)
    w.finish("Reshape", x, w.concat([outer, elements]))


def _windows(
    w: Writer, x: str, axis: int, rank: int, window: tuple[int, int, int], *, same: bool
) -> str:
    """Returns a tensor with an axis as windows and places in them: `[..., windows, size, ...]`."""
    size, step, rate = window
    reach = (size - 1) * rate + 1
    shape = w.shape_of(w.inputs[0])
    length = -1 if shape is None else shape[axis]
    if length < 0:
        return _open_windows(w, x, axis, rank, window, same=same)
    count = -(-length // step) if same else (length - reach) // step + 1
    if count <= 0:
        raise ValueError(f"a window of {reach} does not fit into {length}")
    missing = max((count - 1) * step + reach - length, 0) if same else 0
    if missing:
        before = missing // 2
        x = _padded(w, x, axis, rank, w.indices([before]), w.indices([missing - before]))
    places = np.arange(count)[:, None] * step + np.arange(size) * rate
    return w.op("Gather", x, w.constant(places.astype(np.int64)), axis=axis)


def _open_windows(
    w: Writer, x: str, axis: int, rank: int, window: tuple[int, int, int], *, same: bool
) -> str:
    """Does so where the size is open: the same in numbers that are computed."""
    size, step, rate = window
    reach = (size - 1) * rate + 1

    def number(op: str, a: str, b: int) -> str:
        return w.op(op, a, w.indices([b]), dtype=_Type.INT64)

    length = w.size(w.inputs[0], axis)
    if same:
        count = number("Div", number("Add", length, step - 1), step)
        reached = number("Add", number("Mul", number("Sub", count, 1), step), reach)
        short = w.op("Sub", reached, length, dtype=_Type.INT64)
        missing = number("Max", short, 0)
        before = number("Div", missing, 2)
        x = _padded(w, x, axis, rank, before, w.op("Sub", missing, before, dtype=_Type.INT64))
    else:
        count = number("Add", number("Div", number("Sub", length, reach), step), 1)
    ends = w.const(0, _Type.INT64), w.op("Squeeze", count, dtype=_Type.INT64)
    first = w.op("Range", *ends, w.const(1, _Type.INT64), dtype=_Type.INT64)
    starts = w.unsqueeze(number("Mul", first, step), [1])
    places = w.op("Add", starts, w.indices(np.arange(size) * rate), dtype=_Type.INT64)
    return w.op("Gather", x, places, axis=axis)


def _padded(w: Writer, x: str, axis: int, rank: int, before: str, after: str) -> str:
    """Returns a tensor with zeros before and behind an axis."""
    ahead, behind = w.indices([0] * axis), w.indices([0] * (rank - axis - 1))
    return w.op("Pad", x, w.concat([ahead, before, behind, ahead, after, behind]))
