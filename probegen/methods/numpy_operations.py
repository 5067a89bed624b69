"""The array operations that methods are written in, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class NumpyOperations:
    """Each operation of `methods.operations.Operations` on numpy arrays."""

    def constant(self, values: Any, like: Any) -> Any:
        """Returns an array of the element type of `like`."""
        return np.asarray(values, like.dtype)

    def cast(self, x: Any, like: Any) -> Any:
        """Returns x with the element type of `like`."""
        return x.astype(like.dtype)

    def abs(self, x: Any) -> Any:
        """Returns |x|."""
        return np.abs(x)

    def exp(self, x: Any) -> Any:
        """Returns e to the power of x."""
        return np.exp(x)

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

    def take(self, x: Any, indices: Sequence[int], axis: int) -> Any:
        """Returns some entries along an axis, in this order."""
        return np.take(x, list(indices), axis=axis)
