"""Grad-CAM (Selvaraju et al. 2017)."""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import rank_of


def grad_cam(builder: Builder, gradient: ir.Value, maps: ir.Value, channel: int | None) -> ir.Value:
    """Writes `relu(sum_k a_k A_k)` with `a_k` the mean of the gradient over the positions.

    Args:
        builder: where the nodes go.
        gradient: the gradient at the maps (eq. 1).
        maps: the layer's output (eq. 2).
        channel: the axis of the channels; the others, but for the batch, are positions.
    """
    over = [] if channel is None else [channel]
    positions = [i for i in range(1, rank_of(maps)) if i != channel]
    weights = builder.reduce("ReduceMean", gradient, positions, keepdims=True)
    weighted = builder.reduce_sum(builder.mul(weights, maps), over, keepdims=False)
    return builder.op("Relu", weighted, shape=weighted)
