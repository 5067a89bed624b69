"""The array operations that methods are written in, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

#: Bytes of a float32.
_WORD = 4


class NumpyOperations:
    """Each operation of `methods.operations.Operations` on numpy arrays."""

    def constant(self, values: Any, like: Any) -> Any:
        """Returns an array of the element type of `like`."""
        return np.asarray(values, like.dtype)

    def cast(self, x: Any, like: Any) -> Any:
        """Returns x with the element type of `like`."""
        return x.astype(like.dtype)

    def zeros_like(self, x: Any) -> Any:
        """Returns zeros of the shape and element type of x."""
        return np.zeros_like(x)

    def abs(self, x: Any) -> Any:
        """Returns |x|."""
        return np.abs(x)

    def exp(self, x: Any) -> Any:
        """Returns e to the power of x."""
        return np.exp(x)

    def log(self, x: Any) -> Any:
        """Returns the natural logarithm of x."""
        return np.log(x)

    def cos(self, x: Any) -> Any:
        """Returns the cosine of x."""
        return np.cos(x)

    def sqrt(self, x: Any) -> Any:
        """Returns the square root of x."""
        return np.sqrt(x)

    def relu(self, x: Any) -> Any:
        """Returns x where it is positive, else 0."""
        return np.maximum(x, 0)

    def add(self, a: Any, b: Any) -> Any:
        """Returns a + b."""
        return a + b

    def sub(self, a: Any, b: Any) -> Any:
        """Returns a - b."""
        return a - b

    def mul(self, a: Any, b: Any) -> Any:
        """Returns a * b."""
        return a * b

    def div(self, a: Any, b: Any) -> Any:
        """Returns a / b."""
        return a / b

    def greater(self, a: Any, b: Any) -> Any:
        """Returns true where a > b."""
        return np.greater(a, b)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        """Returns a where the condition holds, else b."""
        return np.where(condition, a, b)

    def sum(self, x: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
        """Returns the sum over axes."""
        return x.sum(axis=tuple(axes), keepdims=keepdims)

    def mean(self, x: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
        """Returns the mean over axes."""
        return x.mean(axis=tuple(axes), keepdims=keepdims)

    def max(self, x: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
        """Returns the largest value over axes."""
        return x.max(axis=tuple(axes), keepdims=keepdims)

    def min(self, x: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
        """Returns the smallest value over axes."""
        return x.min(axis=tuple(axes), keepdims=keepdims)

    def identity(self, like: Any) -> Any:
        """Returns the identity matrix, as large as the last axis of `like` is long."""
        return np.eye(like.shape[-1], dtype=like.dtype)

    def take(self, x: Any, indices: Sequence[int], axis: int) -> Any:
        """Returns some entries along an axis, in this order."""
        return np.take(x, list(indices), axis=axis)

    def widened(self, x: Any) -> Any:
        """Returns x in at least 32 bits."""
        return x.astype(np.float32) if x.dtype.itemsize < _WORD else x

    def at_least(self, x: Any, like: Any) -> Any:
        """Returns x in at least the bits of `like`."""
        return x.astype(like.dtype) if x.dtype.itemsize < like.dtype.itemsize else x

    def floor(self, x: Any) -> Any:
        """Returns the largest whole number that is not above x."""
        return np.floor(x)

    def expand_dims(self, x: Any, axes: Sequence[int]) -> Any:
        """Returns x with axes of size 1 more, at these places of the result."""
        return np.expand_dims(x, tuple(axes))

    def transpose(self, x: Any, order: Sequence[int]) -> Any:
        """Returns x with its axes in another order."""
        return np.transpose(x, tuple(order))

    def size(self, x: Any, axis: int) -> int | None:
        """Returns the size of an axis."""
        return int(x.shape[axis])

    def joined(self, x: Any, first: int, count: int) -> Any:
        """Returns x with `count` axes that follow each other made one."""
        one = int(np.prod(x.shape[first : first + count]))
        return x.reshape(*x.shape[:first], one, *x.shape[first + count :])

    def reshape_like(self, x: Any, like: Any) -> Any:
        """Returns x in the shape of another array."""
        return x.reshape(like.shape)

    def counted(self, x: Any, axis: int) -> Any:
        """Returns 0, 1, 2... below the size of an axis."""
        return np.arange(x.shape[axis]).astype(x.dtype)

    def numbered(self, x: Any, axes: Sequence[int]) -> Any:
        """Returns 0, 1, 2... for the elements along some axes."""
        sizes = [n if i in axes else 1 for i, n in enumerate(x.shape)]
        return np.arange(np.prod(sizes, dtype=np.int64)).reshape(sizes).astype(x.dtype)

    def correlate(self, x: Any, window: Any, axis: int) -> Any:
        """Returns weighted sums of neighbours along an axis, a shifted copy a weight."""
        reach, size = len(window) // 2, x.shape[axis]
        ends = [(reach, reach) if i == axis else (0, 0) for i in range(x.ndim)]
        wide = np.pad(x, ends)
        shifted = (np.take(wide, range(k, k + size), axis) for k in range(len(window)))
        total = sum(float(w) * part for w, part in zip(window, shifted, strict=True))
        return np.asarray(total, x.dtype)

    def stack(self, parts: Sequence[Any], axis: int) -> Any:
        """Returns arrays along a new axis."""
        return np.stack(parts, axis)

    def top(self, x: Any, count: int) -> tuple[Any, Any]:
        """Returns the largest entries along the last axis, and their positions."""
        order = np.argsort(-x, axis=-1, kind="stable")[..., :count]
        return np.take_along_axis(x, order, -1), order.astype(np.int32)

    def matmul(self, a: Any, b: Any) -> Any:
        """Returns the products of stacks of matrices."""
        return np.matmul(a, b)

    def matrix_power(self, x: Any, doublings: int) -> Any:
        """Returns powers of symmetric matrices, by their eigenvalues."""
        finite = np.isfinite(x).all((-2, -1), keepdims=True)
        values, vectors = np.linalg.eigh(np.where(finite, x, 0).astype(np.float64))
        values = np.maximum(values, 0)
        largest = values.max(-1, keepdims=True)
        shares = (values / np.where(largest > 0, largest, 1)) ** (2.0**doublings)
        power = (vectors * shares[..., None, :]) @ np.swapaxes(vectors, -2, -1)
        power /= np.maximum(np.abs(power).max((-2, -1), keepdims=True), np.finfo(np.float64).tiny)
        power = np.where(largest[..., None] > 0, power, 0)
        return np.where(finite, power, np.nan).astype(x.dtype)

    def resize(self, x: Any, axis: int, like: Any, like_axis: int) -> Any:
        """Returns x with an axis of another array's size, interpolated linearly."""
        weights = linear_weights(x.shape[axis], like.shape[like_axis]).astype(x.dtype)
        return np.moveaxis(np.moveaxis(x, axis, -1) @ weights.T, -1, axis)

    def reshape(self, x: Any, sizes: Sequence[int]) -> Any:
        """Returns x in another shape."""
        return np.reshape(x, tuple(sizes))

    def gather(self, x: Any, indices: Any, axis: int) -> Any:
        """Returns entries along an axis."""
        return np.take(x, np.asarray(indices).astype(np.int64), axis=axis)

    def flags(self, values: Any) -> Any:
        """Returns fixed truths."""
        return np.asarray(values, bool)

    def rank(self, x: Any) -> int:
        """Returns the number of axes."""
        return int(x.ndim)

    def take_along(self, x: Any, indices: Any) -> Any:
        """Returns entries of each row."""
        return np.take_along_axis(x, np.asarray(indices).astype(np.int64), axis=1)


def linear_weights(old: int, new: int) -> Any:
    """Returns what each element of an axis counts in the elements of a resized one: `[new, old]`.

    See `Operations.resize` for where elements lie. In float64.
    """
    at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old)))
