"""What twins of methods are written in: scores and gradients at changed inputs, and positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
#: Some changed versions of the inputs -> for each the score of each sample, or its gradient there.
Score = Callable[[Sequence[Array]], list[Array]]
Gradient = Callable[[Sequence[Array]], list[Array]]


def positions(x: Array, channel: int | None) -> list[int]:
    """Returns the axes of positions: all but samples and channels; of a vector its features."""
    return [axis for axis in range(1, x.ndim) if x.ndim == 2 or axis != channel]


def beside(mask: Array, x: Array, channel: int | None) -> Array:
    """Returns `[batch or 1, ...positions]` with the axis of the channels, to go with a tensor."""
    return mask if mask.ndim == x.ndim or channel is None else np.expand_dims(mask, channel)
