"""What a model is fed of the pictures that arrive, computed by numpy from the definition.

This is what artefacts are held against. It shares nothing with the graph that they hold: here each
axis has one matrix in double precision, borders and middle parts are cut and added for real.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import InputSpec
from probegen.artefact.preprocessing import BICUBIC, BILINEAR, NEAREST, PAD, Preprocessing

Array = npt.NDArray[Any]
_Matrix = npt.NDArray[np.float64]


def prepared(arriving: Array, spec: InputSpec) -> Array:
    """Returns what the model is fed, in its element type.

    Args:
        arriving: pictures, the axes of `spec`; floating numbers as well, whatever its element type.
        spec: of the input; its preprocessing is what is done.
    """
    how = spec.preprocessing
    assert how is not None
    # `[batch, channel, height, width]`, whatever came.
    order = ("batch", "channel", "height", "width")
    value = np.asarray(arriving).transpose([spec.axes.index(axis) for axis in order])
    resized = _resized(value.astype(np.float64), how)
    turned = np.stack([resized[:, channel] for channel in how.channels], 1)
    scale, mean, std = (
        np.asarray(numbers, np.float32).astype(np.float64).reshape(1, -1, 1, 1)
        for numbers in (how.scale, how.mean, how.std)
    )
    normal = (turned * scale - mean) / std
    return np.ascontiguousarray(normal.transpose([order.index(axis) for axis in how.axes])).astype(
        how.dtype
    )


def _resized(value: Array, how: Preprocessing) -> Array:
    """Returns `[batch, channel, height, width]` in the model's size."""
    if how.resize is None:
        return value
    height, width = value.shape[2:]
    (top, high), (left, wide) = how.window(height, width)
    if how.fit == PAD:
        around = ((0, 0), (0, 0), (-top, high + top - height), (-left, wide + left - width))
        seen = np.pad(value, around, constant_values=how.fill)
    else:
        seen = value[:, :, top : top + high, left : left + wide]
    rows, columns = (
        _weights(how, size, int(wanted or 0))
        for size, wanted in zip((high, wide), how.size, strict=True)
    )
    return np.asarray(np.einsum("yh,bchw,xw->bcyx", rows, seen, columns, optimize=True))


def _weights(how: Preprocessing, size: int, wanted: int) -> _Matrix:
    """Returns what each pixel of an axis counts for each of the result, `[wanted, size]`."""
    assert how.resize is not None
    if how.antialias:
        return _all_beneath(_KERNELS[how.resize], size, wanted)
    return _ALONE[how.resize](size, wanted)


def _triangle(x: _Matrix) -> _Matrix:
    return np.maximum(0.0, 1.0 - np.abs(x))


def _keys(x: _Matrix) -> _Matrix:
    """Returns Keys' cubic convolution kernel (Keys 1981, eq. 15 with a = -0.5)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1.0
    far = -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x <= 1.0, near, np.where(x < 2.0, far, 0.0))


_KERNELS: dict[str, Callable[[_Matrix], _Matrix]] = {BILINEAR: _triangle, BICUBIC: _keys}


def _all_beneath(kernel: Callable[[_Matrix], _Matrix], size: int, wanted: int) -> _Matrix:
    """Returns the weights of a kernel as wide as a pixel of the result, adding up to 1."""
    step = size / wanted
    centres = (np.arange(wanted) + 0.5) * step
    pixels = np.arange(size) + 0.5
    weights = kernel((pixels[np.newaxis] - centres[:, np.newaxis]) / max(step, 1.0))
    return np.asarray(weights / weights.sum(1, keepdims=True))


def _places(size: int, wanted: int) -> npt.NDArray[np.float32]:
    """Returns the centres of the result's pixels in the picture, in float32 as TensorFlow's."""
    step = np.float32(size) / np.float32(wanted)
    return (np.arange(wanted, dtype=np.float32) + np.float32(0.5)) * step


def _nearest(size: int, wanted: int) -> _Matrix:
    weights = np.zeros((wanted, size))
    for row, place in enumerate(_places(size, wanted)):
        weights[row, min(int(place), size - 1)] = 1.0
    return weights


def _between_two(size: int, wanted: int) -> _Matrix:
    """Returns the weights of the pixels left and right of each centre; the edge goes on."""
    weights = np.zeros((wanted, size))
    for row, place in enumerate(_places(size, wanted) - np.float32(0.5)):
        clipped = min(max(float(place), 0.0), size - 1.0)
        left = min(int(clipped), size - 1)
        weights[row, left] += 1.0 - (clipped - left)
        weights[row, min(left + 1, size - 1)] += clipped - left
    return weights


def _among_four(size: int, wanted: int) -> _Matrix:
    """Returns the weights of the two pixels on either side of each centre; none beyond the edge."""
    weights = np.zeros((wanted, size))
    for row, place in enumerate(_places(size, wanted) - np.float32(0.5)):
        left = int(np.floor(place))
        offset = round(float(place - np.float32(left)) * 1024) / 1024
        for pixel in range(max(0, left - 1), min(size, left + 3)):
            weights[row, pixel] = _keys(np.asarray(pixel - left - offset))
    return np.asarray(weights / weights.sum(1, keepdims=True))


#: Without antialiasing: how to resize -> the weights.
_ALONE: dict[str, Callable[[int, int], _Matrix]] = {
    NEAREST: _nearest,
    BILINEAR: _between_two,
    BICUBIC: _among_four,
}
