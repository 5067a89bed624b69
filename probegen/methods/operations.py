"""The array operations that a method is written in.

A method says once how it turns a gradient into an attribution; the ONNX graph, TensorFlow and
numpy each have an implementation of these operations, so that all three say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Operations(Protocol[T]):
    """Operations on arrays of one library; two operands broadcast as in numpy.

    Axes are counted from the front and never negative. A reduction over no axes changes nothing.
    A number takes the element type of the array beside it, of which there is one at least.
    """

    def constant(self, values: Any, like: T) -> T:
        """Returns fixed values as an array of the element type of `like`."""

    def cast(self, x: T, like: T) -> T:
        """Returns x with the element type of `like`."""

    def zeros_like(self, x: T) -> T:
        """Returns zeros of the shape and element type of x."""

    def abs(self, x: T) -> T:
        """Returns |x|."""

    def exp(self, x: T) -> T:
        """Returns e to the power of x."""

    def log(self, x: T) -> T:
        """Returns the natural logarithm of x."""

    def cos(self, x: T) -> T:
        """Returns the cosine of x, in radians."""

    def sqrt(self, x: T) -> T:
        """Returns the square root of x."""

    def relu(self, x: T) -> T:
        """Returns x where it is positive, else 0."""

    def add(self, a: T | float, b: T | float) -> T:
        """Returns a + b."""

    def sub(self, a: T | float, b: T | float) -> T:
        """Returns a - b."""

    def mul(self, a: T | float, b: T | float) -> T:
        """Returns a * b."""

    def div(self, a: T | float, b: T | float) -> T:
        """Returns a / b."""

    def greater(self, a: T | float, b: T | float) -> T:
        """Returns true where a > b; for `where` alone."""

    def where(self, condition: T, a: T | float, b: T | float) -> T:
        """Returns a where the condition holds, else b."""

    def sum(self, x: T, axes: Sequence[int], keepdims: bool = False) -> T:
        """Returns the sum over axes."""

    def mean(self, x: T, axes: Sequence[int], keepdims: bool = False) -> T:
        """Returns the mean over axes."""

    def max(self, x: T, axes: Sequence[int], keepdims: bool = False) -> T:
        """Returns the largest value over axes."""

    def min(self, x: T, axes: Sequence[int], keepdims: bool = False) -> T:
        """Returns the smallest value over axes."""

    def identity(self, like: T) -> T:
        """Returns the identity matrix, as large as the last axis of `like` is long."""

    def take(self, x: T, indices: Sequence[int], axis: int) -> T:
        """Returns some entries along an axis, in this order; negative ones count from the end."""

    def widened(self, x: T) -> T:
        """Returns x in at least 32 bits: what is narrower as float32."""

    def at_least(self, x: T, like: T) -> T:
        """Returns x in at least the bits of `like`: what is narrower in its element type."""

    def floor(self, x: T) -> T:
        """Returns the largest whole number that is not above x."""

    def expand_dims(self, x: T, axes: Sequence[int]) -> T:
        """Returns x with axes of size 1 more, at these places of the result."""

    def transpose(self, x: T, order: Sequence[int]) -> T:
        """Returns x with its axes in another order."""

    def size(self, x: T, axis: int) -> int | None:
        """Returns the size of an axis, None where it is known when the artefact runs alone."""

    def joined(self, x: T, first: int, count: int) -> T:
        """Returns x with `count` axes that follow each other made one; `count` is 1 or more."""

    def reshape_like(self, x: T, like: T) -> T:
        """Returns x in the shape of another array with as many elements."""

    def counted(self, x: T, axis: int) -> T:
        """Returns 0, 1, 2... below the size of an axis of x, of its element type: `[size]`."""

    def numbered(self, x: T, axes: Sequence[int]) -> T:
        """Returns 0, 1, 2... for the elements of x along some axes, the last of them the fastest.

        Of the element type of x; of size 1 along the other axes.
        """

    def correlate(self, x: T, window: Any, axis: int) -> T:
        """Returns the sums of the elements around each along an axis, times those of a window.

        Args:
            x: an array; beyond its ends there are zeros.
            window: an odd number of floats, the one in the middle for the element itself.
            axis: the axis.
        """

    def stack(self, parts: Sequence[T], axis: int) -> T:
        """Returns arrays of one shape as one, along a new axis at this place of the result."""

    def top(self, x: T, count: int) -> tuple[T, T]:
        """Returns the largest entries along the last axis, and their positions as int32.

        The largest first; of equal ones that with the lower position. All, where there are fewer
        than `count`.
        """

    def matmul(self, a: T, b: T) -> T:
        """Returns the products of stacks of matrices, as numpy's matmul of 2 axes or more."""

    def matrix_power(self, x: T, doublings: int) -> T:
        """Returns symmetric matrices `[..., n, n]` to the power of 2^doublings.

        None of their eigenvalues is negative. Each power is divided by its largest element; that
        of zeros is zeros. Large powers are all but the projection on the first eigenvector.
        """

    def resize(self, x: T, axis: int, like: T, like_axis: int) -> T:
        """Returns x with an axis of another array's size, interpolated linearly.

        Element i of n lies at (i + 0.5) / n of the extent (half-pixel centres), and beyond the
        outermost centres the edge's value goes on. Where the axis shrinks, nothing is averaged.
        """

    def reshape(self, x: T, sizes: Sequence[int]) -> T:
        """Returns x in another shape; one size may be -1."""

    def gather(self, x: T, indices: T, axis: int) -> T:
        """Returns the entries of x along an axis at whole numbers, whose axes take its place."""

    def flags(self, values: Any) -> T:
        """Returns fixed truths, a byte each; for `gather` and `cast`."""

    def rank(self, x: T) -> int:
        """Returns the number of axes."""

    def take_along(self, x: T, indices: T) -> T:
        """Returns for each row of x `[rows, n]` its entries at whole numbers `[rows, m]`."""
