"""Pooling in numpy for onnx's reference evaluator, whose own goes window by window in Python.

What comes out is believed only where it is what onnxruntime has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx.reference.op_run import OpRun

Array = npt.NDArray[Any]


class _Pool(OpRun):
    """Windows over all axes behind batch and channels."""

    op_domain = ""
    outside = 0.0

    def _run(self, x: Array, **given: Any) -> tuple[Array]:
        for name, value in given.items():
            if value is not None:
                setattr(self, name, value)
        rank = x.ndim - 2
        if getattr(self, "ceil_mode", 0) or self._asked("auto_pad", "NOTSET") != "NOTSET":
            raise NotImplementedError("windows that are not told by their pads")
        pads = self._asked("pads", [0] * (2 * rank))
        strides = self._asked("strides", [1] * rank)
        dilations = self._asked("dilations", [1] * rank)
        around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
        wide = np.pad(x, around, constant_values=self.outside)
        windows = self._windows(wide, strides, dilations)
        inside = self._windows(np.pad(np.ones(x.shape), around), strides, dilations)
        axes = tuple(range(-rank, 0))
        return (np.asarray(self.pooled(windows, inside, axes), x.dtype),)

    def _asked(self, name: str, usual: Any) -> Any:
        found = getattr(self, name, None)
        return usual if found is None else found

    def _windows(self, x: Array, strides: list[int], dilations: list[int]) -> Array:
        kernel = self._asked("kernel_shape", [1] * len(strides))
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        axes = tuple(range(2, x.ndim))
        found = np.lib.stride_tricks.sliding_window_view(x, reach, axes)
        steps = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
        return found[(*steps, *(slice(None, None, d) for d in dilations))]

    def pooled(self, windows: Array, inside: Array, axes: tuple[int, ...]) -> Array:
        """Returns what becomes of windows; `inside` is 1 where they are no padding."""
        raise NotImplementedError


class MaxPool(_Pool):
    """The largest of each window."""

    outside = -np.inf

    def pooled(self, windows: Array, inside: Array, axes: tuple[int, ...]) -> Array:
        """Returns the largest."""
        del inside
        return np.asarray(windows.max(axis=axes))


class AveragePool(_Pool):
    """The mean of each window."""

    def pooled(self, windows: Array, inside: Array, axes: tuple[int, ...]) -> Array:
        """Returns the mean, of what is no padding unless that is to count."""
        if getattr(self, "count_include_pad", 0):
            return np.asarray(windows.mean(axis=axes))
        return np.asarray(windows.sum(axis=axes) / inside.sum(axis=axes))


class LpPool(_Pool):
    """The norm of each window."""

    def pooled(self, windows: Array, inside: Array, axes: tuple[int, ...]) -> Array:
        """Returns the norm."""
        del inside
        order = self._asked("p", 2)
        return np.asarray((np.abs(windows) ** order).sum(axis=axes) ** (1 / order))


OPERATORS = (MaxPool, AveragePool, LpPool)
