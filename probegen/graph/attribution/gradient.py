"""The raw gradient, and Simonyan's saliency map."""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import rank_of


def input_gradient(_: Builder, gradient: ir.Value, __: ir.Value, ___: int | None) -> ir.Value:
    """Returns the gradient as it is (Baehrens et al. 2010, eq. 1)."""
    return gradient


def saliency(builder: Builder, gradient: ir.Value, at: ir.Value, channel: int | None) -> ir.Value:
    """Writes the largest absolute gradient over the channels (Simonyan et al. 2013, sec. 3.1).

    A plain vector `[batch, feature]` has no channels: there it is the absolute gradient.
    """
    size = builder.op("Abs", gradient, shape=at)
    if channel is None or rank_of(at) <= 2:
        return size
    return builder.reduce("ReduceMax", size, [channel], keepdims=False)
