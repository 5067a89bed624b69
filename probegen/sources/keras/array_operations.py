"""The array operations that methods are written in, in TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class TensorFlowOperations:
    """Each operation of `methods.operations.Operations` on tensors."""

    def constant(self, values: Any, like: Any) -> Any:
        """Returns a constant of the element type of `like`."""
        return tf.constant(values, dtype=like.dtype)

    def cast(self, x: Any, like: Any) -> Any:
        """Returns x with the element type of `like`."""
        return tf.cast(x, like.dtype)

    def abs(self, x: Any) -> Any:
        """Returns |x|."""
        return tf.abs(x)

    def exp(self, x: Any) -> Any:
        """Returns e to the power of x."""
        return tf.exp(x)

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
        return tf.where(condition, a, b)

    def sum(self, x: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
        """Returns the sum over axes."""
        return tf.reduce_sum(x, axis=list(axes), keepdims=keepdims) if axes else x

    def mean(self, x: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
        """Returns the mean over axes."""
        return tf.reduce_mean(x, axis=list(axes), keepdims=keepdims) if axes else x

    def max(self, x: Any, axes: Sequence[int], keepdims: bool = False) -> Any:
        """Returns the largest value over axes."""
        return tf.reduce_max(x, axis=list(axes), keepdims=keepdims) if axes else x

    def take(self, x: Any, indices: Sequence[int], axis: int) -> Any:
        """Returns some entries along an axis, in this order."""
        return tf.gather(x, list(indices), axis=axis)
