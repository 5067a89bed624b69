"""Simonyan's saliency map (Simonyan et al. 2013)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from probegen.artefact.manifest import NEVER_NEGATIVE, SCORE_PER_INPUT
from probegen.methods.axes import Axes, channel_axis
from probegen.methods.base import OfInputs, Selector
from probegen.methods.operations import Operations, T
from probegen.methods.targets import Target
from probegen.methods.tokens import EMBEDDING


@dataclasses.dataclass(frozen=True)
class Saliency(OfInputs):
    """The largest absolute gradient over the channels (Simonyan et al. 2013, sec. 3.1).

    `[batch, height, width]` for an image, `[batch, time]` for a sequence of vectors or of
    embedded tokens, `[batch, feature]` for plain vectors (which have no channels), `[batch]` for
    one id a sample, wherever the channels stand. Arguments as for `InputGradient`.
    """

    kind: ClassVar[str] = "saliency"
    title: ClassVar[str] = "Saliency"
    help: ClassVar[str] = "Largest |gradient| over the channels."
    unit: ClassVar[str] = SCORE_PER_INPUT
    sign: ClassVar[str] = NEVER_NEGATIVE
    equation: ClassVar[str] = "max over channels of |d target / d input|"
    paper: ClassVar[str] = "Simonyan et al. 2013, sec. 3.1"
    vector_equation: ClassVar[str] = "d target / d input"

    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def kept_axes(self, axes: Axes, layer: str = "the layer") -> tuple[int, ...]:
        """Returns all axes but that of the channels."""
        del layer
        return tuple(i for i in range(len(axes)) if i not in _maximum_over(axes))

    def vectors(self, ops: Operations[T], gradient: T, value: T, axes: Axes) -> T:
        """Returns the gradient, whose largest entries say too little of a vector."""
        del ops, value, axes
        return gradient

    def combine(self, ops: Operations[T], gradient: T, value: T, axes: Axes) -> T:
        """Returns the largest size of the gradient over the channels."""
        del value
        return ops.max(ops.abs(gradient), _maximum_over(axes))


def _maximum_over(axes: Axes) -> tuple[int, ...]:
    """Returns the channels' axis.

    None for plain vectors, which have no channels, and for whatever has positions alone. What one
    id looks up is no plain vector: its numbers are the channels of the id.
    """
    channel = channel_axis(axes)
    plain = len(axes) <= 2 and EMBEDDING not in axes
    return () if channel is None or plain else (channel,)
