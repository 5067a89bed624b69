"""What an input is written in while it is searched for: its elements, or frequencies.

Both are orthonormal up to a scale, so that a step along the gradient of the coefficients is one of
the input under another measure of length. In frequencies, low ones count more: `1 / frequency`, as
in natural images, which takes the correlation of neighbours out (Olah et al. 2017, "The enemy of
feature visualization"). The transform is Hartley's, which is real and its own inverse.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from probegen.runtime.inputs import Array


@dataclasses.dataclass(frozen=True, eq=False)
class Basis:
    """Coefficients `[batch, ...]` of an input of the same shape.

    Attributes:
        axes: those along which there are frequencies; none for plain elements.
        scale: what each coefficient is multiplied with, broadcast against the input; its mean
            square is 1.
    """

    axes: tuple[int, ...]
    scale: Array

    @classmethod
    def of(cls, shape: Sequence[int], axes: Sequence[int], decay: float = 1.0) -> Basis:
        """Returns the frequencies along some axes, or plain elements where there are none.

        Args:
            shape: of the input, batch first.
            axes: the axes of positions.
            decay: a frequency f is scaled by `f ** -decay`; the lowest, 0, as the next.
        """
        square = np.zeros([1] * len(shape))
        for axis in axes:
            form = [1] * len(shape)
            form[axis] = shape[axis]
            square = square + (np.fft.fftfreq(shape[axis]) ** 2).reshape(form)
        lowest = 1 / max((shape[axis] for axis in axes), default=1)
        scale = np.maximum(np.sqrt(square), lowest) ** -decay
        return cls(tuple(axes), scale / np.sqrt(np.mean(scale**2)))

    def input_of(self, coefficients: Array) -> Array:
        """Returns the input that coefficients stand for."""
        return _hartley(self.scale * coefficients, self.axes)

    def coefficients_of(self, value: Array) -> Array:
        """Returns the coefficients of an input."""
        return np.asarray(_hartley(value, self.axes) / self.scale)

    def gradient_of(self, gradient: Array) -> Array:
        """Returns the gradient at the coefficients for that at the input."""
        return np.asarray(self.scale * _hartley(gradient, self.axes))


def _hartley(value: Array, axes: tuple[int, ...]) -> Array:
    """Returns the orthonormal Hartley transform, which is its own inverse and transpose."""
    if not axes:
        return value
    spectrum = np.fft.fftn(value, axes=axes, norm="ortho")
    return np.asarray(spectrum.real - spectrum.imag)


def total_variation(value: Array, axes: Sequence[int]) -> tuple[Array, Array]:
    """Returns how much an input changes between neighbours, `[batch]`, and its gradient.

    The sum over all elements of the length of the differences to the next along each axis (Rudin
    et al. 1992; Mahendran and Vedaldi 2015 with beta = 1), rounded off near zero.

    Args:
        value: batch first.
        axes: the axes of positions.
    """
    rounding = 1e-3
    differences = [np.diff(value, axis=axis, append=_last(value, axis)) for axis in axes]
    lengths = np.sqrt(sum((d**2 for d in differences), np.full(value.shape, rounding**2)))
    gradient = np.zeros_like(value)
    for axis, difference in zip(axes, differences, strict=True):
        slope = difference / lengths
        before = np.roll(slope, 1, axis)  # the last difference is 0, so nothing comes round
        gradient += before - slope
    return (lengths - rounding).reshape(len(value), -1).sum(1), gradient


def _last(value: Array, axis: int) -> Array:
    return np.take(value, [-1], axis=axis)
