"""EigenCAM (Muhammad and Yeasin 2020)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from probegen.methods.axes import BATCH, Axes, channel_axis, position_axes
from probegen.methods.base import OfLayer, Selector
from probegen.methods.fields import check_bool, option
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target

#: The matrix is raised to the power of 2^12 = 4096: of a second eigenvalue that is 1% smaller than
#: the first, a share of 1e-18 is left; of one that is 0.1% smaller, 2%.
_DOUBLINGS = 12
#: Number of channels from which a layer of open sizes is taken to have fewer positions.
_MANY_CHANNELS = 512


@dataclasses.dataclass(frozen=True)
class EigenCAM(OfLayer):
    """The layer's activations along their first principal direction (Muhammad and Yeasin 2020).

    With `A` the activations of a sample, `[positions, channels]`, the map is `relu(A v)`, where `v`
    is the first right singular vector of `A`. No gradient is needed, and no target: the map is of
    what the layer sees most, whatever the class. `target` and `output` only say which way
    `layer="auto"` looks.

    The sign of `v` is such that the mean activation lies on its positive side (`v . mean(A) >= 0`).
    So activations that are never negative have a map that the relu leaves as it is. `v` is found
    by squaring `A A^T` or `A^T A`, whichever is smaller, twelve times: where the first two
    singular values are within 0.05% of each other, it is a mixture of both directions, the same at
    every call. Activations of zeros have a map of zeros.

    pytorch-grad-cam takes the mean of each channel away first, as `centre=True` does, and leaves
    the sign to its SVD. Axes and arguments as for `GradCAM`.

    Attributes:
        centre: take each channel's mean over the positions away before the direction is found.
    """

    kind: ClassVar[str] = "eigen_cam"
    title: ClassVar[str] = "EigenCAM"
    help: ClassVar[str] = "EigenCAM at LAYER; at the last layer with positions if left out."
    unit: ClassVar[str] = "activation"
    equation: ClassVar[str] = "relu(A v), v the first right singular vector of A"
    paper: ClassVar[str] = "Muhammad and Yeasin 2020"
    needs_gradient: ClassVar[bool] = False

    layer: Selector = "auto"
    target: Target = "argmax"
    name: str | None = None
    centre: bool = option(False, "Centred activations", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_bool("centre", self.centre)

    def combine(self, ops: Operations[T], gradient: T, value: T, axes: Axes) -> T:
        """Returns the activations along their first principal direction."""
        del gradient
        places = position_axes(axes)
        order = [axes.index(BATCH), *places, channel_axis(axes) or 0]
        turned = ops.widened(ops.transpose(value, order))
        joined = ops.joined(turned, 1, len(places))
        # Squares of large activations would overflow.
        largest = ops.max(ops.abs(joined), (1, 2), keepdims=True)
        rows = ops.div(joined, ops.where(ops.greater(largest, 0.0), largest, 1.0))
        mean = ops.mean(rows, (1,), keepdims=True)
        if self.centre:
            rows = ops.sub(rows, mean)
        direction = _first_direction(ops, rows)
        side = ops.sum(ops.mul(ops.transpose(mean, (0, 2, 1)), direction), (1,), keepdims=True)
        shown = ops.mul(ops.matmul(rows, direction), largest)
        shown = ops.relu(ops.where(ops.greater(0.0, side), ops.sub(0.0, shown), shown))
        like = ops.sum(turned, (len(places) + 1,))
        kept = [i for i in range(len(axes)) if i != order[-1]]
        made = ops.transpose(ops.reshape_like(shown, like), [order.index(i) for i in kept])
        return ops.cast(made, value)

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns whether the activations are centred."""
        del axes
        return {"centre": self.centre}


def _first_direction(ops: Operations[T], rows: T) -> T:
    """Returns the first right singular vector of `[batch, rows, columns]`: `[batch, columns, 1]`.

    Of length 1; zeros where all rows are zeros.
    """
    turned = ops.transpose(rows, (0, 2, 1))
    count, width = ops.size(rows, 1), ops.size(rows, 2)
    fewer = count < width if count and width else (width or 0) > _MANY_CHANNELS
    if fewer:
        direction = ops.matmul(turned, _largest_column(ops, ops.matmul(rows, turned)))
    else:
        direction = _largest_column(ops, ops.matmul(turned, rows))
    length = ops.sqrt(ops.sum(ops.mul(direction, direction), (1,), keepdims=True))
    return ops.div(direction, ops.where(ops.greater(length, 0.0), length, 1.0))


def _largest_column(ops: Operations[T], matrix: T) -> T:
    """Returns the longest column of a large power of `[batch, n, n]`: `[batch, n, 1]`.

    All columns of such a power are multiples of the first eigenvector. Of columns of one length,
    which may point opposite ways, the earlier is taken.
    """
    power = ops.matrix_power(matrix, _DOUBLINGS)
    lengths = ops.sum(ops.mul(power, power), (1,), keepdims=True)
    places = ops.counted(power, 1)
    lengths = ops.div(lengths, ops.add(ops.mul(places, 1e-3), 1.0))
    longest = ops.max(lengths, (2,), keepdims=True)
    return ops.sum(ops.where(ops.greater(longest, lengths), 0.0, power), (2,), keepdims=True)
