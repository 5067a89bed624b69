"""Where the windows of convolutions and poolings lie, as positions in the flattened image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.values import attribute

Array = npt.NDArray[Any]


class Windows:
    """Windows over positions.

    Attributes:
        at: `[windows, elements of a window]`, positions in the flattened image; what lies in the
            padding has the position behind the last one.
        inside: as `at`: whether an element lies in the image, not in the padding.
        counted: as `at`: whether it lies in the image or in the padding that was asked for, and
            not behind that, where a last window is cut off.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        results: Sequence[int],
        kernel: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        pads: Sequence[int],
    ) -> None:
        positions: Array = np.zeros((1, 1), np.int64)
        inside: Array = np.ones((1, 1), bool)
        counted: Array = np.ones((1, 1), bool)
        ends = pads[len(sizes) :]
        for axis, size in enumerate(sizes):
            starts = np.arange(results[axis]) * strides[axis] - pads[axis]
            line = starts[:, None] + np.arange(kernel[axis]) * dilations[axis]
            within, held = (line >= 0) & (line < size), line < size + ends[axis]
            positions = _outer(positions * size, np.clip(line, 0, size - 1), np.add)
            inside, counted = (
                _outer(inside, within, np.logical_and),
                _outer(counted, held, np.logical_and),
            )
        self.size = math.prod(sizes)
        self.inside, self.counted = inside, counted
        self.at = np.where(inside, positions, self.size)

    def gathered(self, x: Array, outside: float = 0.0) -> Array:
        """Returns `[..., windows, elements]` of `[..., positions]`."""
        widened = np.concatenate([x, np.full((*x.shape[:-1], 1), outside)], axis=-1)
        found: Array = widened[..., self.at]
        return found

    def scattered(self, columns: Array) -> Array:
        """Returns `[..., positions]`, each the sum over all windows that hold it."""
        total = np.zeros((*columns.shape[:-2], self.size + 1))
        for k in range(self.at.shape[1]):  # a position occurs once among the k-th elements
            once = self.inside[:, k]
            total[..., self.at[once, k]] += columns[..., once, k]
        return total[..., :-1]


def _outer(first: Array, second: Array, join: Any) -> Array:
    """Joins all rows of two tables with all columns."""
    joined = join(first[:, None, :, None], second[None, :, None, :])
    return np.asarray(joined).reshape(len(first) * len(second), -1)


def windows_of(
    node: ir.Node, sizes: Sequence[int], results: Sequence[int], kernel: Sequence[int]
) -> Windows:
    """Returns the windows of a convolution or pooling.

    Args:
        node: the node.
        sizes: of the image.
        results: how many windows there are along each axis.
        kernel: the size of a window.
    """
    rank = len(sizes)
    strides = attribute(node, "strides") or [1] * rank
    dilations = attribute(node, "dilations") or [1] * rank
    pads = list(attribute(node, "pads") or [0] * 2 * rank)
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        before, behind = [], []
        for n, m, k, s, d in zip(sizes, results, kernel, strides, dilations, strict=True):
            total = max(0, (m - 1) * s + (k - 1) * d + 1 - n)
            half = total // 2 if mode == "SAME_UPPER" else total - total // 2
            before.append(half)
            behind.append(total - half)
        pads = [*before, *behind]
    elif mode == "VALID":
        pads = [0] * 2 * rank
    return Windows(sizes, results, kernel, strides, dilations, pads)
