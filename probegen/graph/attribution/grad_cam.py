"""Grad-CAM (Selvaraju et al. 2017)."""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.builder import Builder, rank_of


def grad_cam(builder: Builder, gradient: ir.Value, maps: ir.Value) -> ir.Value:
    """Writes `relu(sum_k a_k A_k)` with `a_k` the mean of the gradient over the positions.

    Args:
        builder: where the nodes go.
        gradient: `[batch, ...positions, channel]`, the gradient at the maps (eq. 1).
        maps: `[batch, ...positions, channel]`, the layer's output (eq. 2).
    """
    rank = rank_of(maps)
    weights = builder.reduce("ReduceMean", gradient, list(range(1, rank - 1)), keepdims=True)
    weighted = builder.reduce_sum(builder.mul(weights, maps), [rank - 1], keepdims=False)
    return builder.op("Relu", weighted, shape=weighted)
