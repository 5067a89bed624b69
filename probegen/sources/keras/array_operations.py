"""The array operations that methods are written in, in TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf


class TensorFlowOperations:
    """Each operation of `methods.operations.Operations` on tensors."""

    def constant(self, values: Any, like: Any) -> Any:
        """Returns a constant of the element type of `like`."""
        return tf.constant(values, dtype=like.dtype)

    def cast(self, x: Any, like: Any) -> Any:
        """Returns x with the element type of `like`."""
        return tf.cast(x, like.dtype)

    def zeros_like(self, x: Any) -> Any:
        """Returns zeros of the shape and element type of x."""
        return tf.zeros_like(x)

    def abs(self, x: Any) -> Any:
        """Returns |x|."""
        return tf.abs(x)

    def exp(self, x: Any) -> Any:
        """Returns e to the power of x."""
        return tf.exp(x)

    def log(self, x: Any) -> Any:
        """Returns the natural logarithm of x."""
        return tf.math.log(x)

    def cos(self, x: Any) -> Any:
        """Returns the cosine of x."""
        return tf.cos(x)

    def sqrt(self, x: Any) -> Any:
        """Returns the square root of x."""
        return tf.sqrt(x)

    def relu(self, x: Any) -> Any:
        """Returns x where it is positive, else 0."""
        return tf.nn.relu(x)

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
        return a > b

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        """Returns a where the condition holds, else b."""
        dtype = a.dtype if tf.is_tensor(a) else b.dtype
        return tf.where(condition, tf.cast(a, dtype), tf.cast(b, dtype))

    def sum(self, x: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
        """Returns the sum over axes."""
        return tf.reduce_sum(x, axis=list(axes), keepdims=keepdims) if axes else x

    def mean(self, x: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
        """Returns the mean over axes."""
        return tf.reduce_mean(x, axis=list(axes), keepdims=keepdims) if axes else x

    def max(self, x: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
        """Returns the largest value over axes."""
        return tf.reduce_max(x, axis=list(axes), keepdims=keepdims) if axes else x

    def min(self, x: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
        """Returns the smallest value over axes."""
        return tf.reduce_min(x, axis=list(axes), keepdims=keepdims) if axes else x

    def identity(self, like: Any) -> Any:
        """Returns the identity matrix, as large as the last axis of `like` is long."""
        return tf.eye(tf.shape(like)[-1], dtype=like.dtype)

    def take(self, x: Any, indices: Sequence[int], axis: int) -> Any:
        """Returns some entries along an axis, in this order."""
        at = [i if i >= 0 else tf.shape(x)[axis] + i for i in indices]
        return tf.gather(x, at, axis=axis)

    def widened(self, x: Any) -> Any:
        """Returns x in at least 32 bits."""
        return tf.cast(x, tf.float32) if x.dtype.size < tf.float32.size else x

    def at_least(self, x: Any, like: Any) -> Any:
        """Returns x in at least the bits of `like`."""
        return tf.cast(x, like.dtype) if x.dtype.size < like.dtype.size else x

    def floor(self, x: Any) -> Any:
        """Returns the largest whole number that is not above x."""
        return tf.floor(x)

    def expand_dims(self, x: Any, axes: Sequence[int]) -> Any:
        """Returns x with axes of size 1 more, at these places of the result."""
        for axis in sorted(axes):
            x = tf.expand_dims(x, axis)
        return x

    def transpose(self, x: Any, order: Sequence[int]) -> Any:
        """Returns x with its axes in another order."""
        return tf.transpose(x, list(order))

    def size(self, x: Any, axis: int) -> int | None:
        """Returns the size of an axis, None where it is open."""
        found: int | None = x.shape[axis]
        return found

    def joined(self, x: Any, first: int, count: int) -> Any:
        """Returns x with `count` axes that follow each other made one."""
        sizes = tf.shape(x)
        made = tf.reshape(x, tf.concat([sizes[:first], [-1], sizes[first + count :]], 0))
        before, joined, behind = (
            x.shape[:first],
            x.shape[first : first + count].num_elements(),
            x.shape[first + count :],
        )
        made.set_shape([*before, joined, *behind])
        return made

    def reshape_like(self, x: Any, like: Any) -> Any:
        """Returns x in the shape of another array."""
        made = tf.reshape(x, tf.shape(like))
        made.set_shape(like.shape)
        return made

    def counted(self, x: Any, axis: int) -> Any:
        """Returns 0, 1, 2... below the size of an axis."""
        return tf.cast(tf.range(tf.shape(x)[axis]), x.dtype)

    def numbered(self, x: Any, axes: Sequence[int]) -> Any:
        """Returns 0, 1, 2... for the elements along some axes."""
        given = tf.shape(x)
        sizes = tf.stack([given[i] if i in axes else 1 for i in range(x.shape.rank)])
        numbers = tf.reshape(tf.range(tf.reduce_prod(sizes)), sizes)
        numbers.set_shape([n if i in axes else 1 for i, n in enumerate(x.shape)])
        return tf.cast(numbers, x.dtype)

    def correlate(self, x: Any, window: Any, axis: int) -> Any:
        """Returns weighted sums of neighbours along an axis, by a convolution."""
        order = [*(i for i in range(x.shape.rank) if i != axis), axis]
        last = tf.transpose(x, order)
        rows = tf.reshape(last, tf.stack([-1, tf.shape(x)[axis], 1]))
        weights = tf.constant(np.reshape(window, (-1, 1, 1)), x.dtype)
        made = tf.reshape(tf.nn.conv1d(rows, weights, 1, "SAME"), tf.shape(last))
        found = tf.transpose(made, [order.index(i) for i in range(len(order))])
        found.set_shape(x.shape)
        return found

    def stack(self, parts: Sequence[Any], axis: int) -> Any:
        """Returns arrays along a new axis."""
        return tf.stack(list(parts), axis)

    def top(self, x: Any, count: int) -> tuple[Any, Any]:
        """Returns the largest entries along the last axis, and their positions."""
        size = x.shape[-1]
        most = tf.shape(x)[-1] if size is None else size
        found = tf.math.top_k(x, tf.minimum(count, most) if size is None else min(count, most))
        return found.values, found.indices

    def matmul(self, a: Any, b: Any) -> Any:
        """Returns the products of stacks of matrices."""
        return tf.linalg.matmul(a, b)

    def matrix_power(self, x: Any, doublings: int) -> Any:
        """Returns powers of symmetric matrices, by their eigenvalues."""
        finite = tf.reduce_all(tf.math.is_finite(x), (-2, -1), keepdims=True)
        wide = tf.cast(tf.where(finite, x, tf.zeros_like(x)), tf.float64)
        values, vectors = tf.linalg.eigh(wide)
        values = tf.nn.relu(values)
        largest = tf.reduce_max(values, -1, keepdims=True)
        shares = tf.math.divide_no_nan(values, largest) ** (2.0**doublings)
        power = tf.matmul(vectors * shares[..., None, :], vectors, transpose_b=True)
        top = tf.reduce_max(tf.abs(power), (-2, -1), keepdims=True)
        power = tf.cast(tf.math.divide_no_nan(power, top), x.dtype)
        return tf.where(finite, power, x.dtype.as_numpy_dtype(float("nan")))

    def resize(self, x: Any, axis: int, like: Any, like_axis: int) -> Any:
        """Returns x with an axis of another array's size, interpolated linearly."""
        old = tf.shape(x, tf.int64)[axis]
        new = tf.shape(like, tf.int64)[like_axis]
        # Where new element i lies among the old ones, in whole parts of which 2 new are one step:
        # LiteRT has no float64.
        step = 2 * new
        at = (2 * tf.range(new) + 1) * old - new
        at = tf.maximum(tf.minimum(at, (old - 1) * step), 0)
        apart = tf.expand_dims(at, 1) - step * tf.range(old)
        near = tf.maximum(step - tf.maximum(apart, -apart), 0)
        weights = tf.cast(near, x.dtype) / tf.cast(step, x.dtype)
        rank = x.shape.rank
        last = [*(i for i in range(rank) if i != axis), axis]
        moved = tf.matmul(tf.transpose(x, last), weights, transpose_b=True)
        moved = tf.transpose(moved, [last.index(i) for i in range(rank)])
        sizes = list(x.shape)
        sizes[axis] = like.shape[like_axis]
        moved.set_shape(sizes)
        return moved

    def reshape(self, x: Any, sizes: Sequence[int]) -> Any:
        """Returns x in another shape."""
        return tf.reshape(x, list(sizes))

    def gather(self, x: Any, indices: Any, axis: int) -> Any:
        """Returns entries along an axis."""
        return tf.gather(x, tf.cast(indices, tf.int32), axis=axis)

    def flags(self, values: Any) -> Any:
        """Returns fixed truths."""
        return tf.constant(values, tf.bool)

    def rank(self, x: Any) -> int:
        """Returns the number of axes."""
        return int(x.shape.rank)

    def take_along(self, x: Any, indices: Any) -> Any:
        """Returns entries of each row."""
        return tf.gather(x, tf.cast(indices, tf.int32), batch_dims=1)
