"""Attention rollout (Abnar and Zuidema 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from probegen.artefact.manifest import DRAWN_AS_ATTENTION, NEVER_NEGATIVE
from probegen.errors import SpecError
from probegen.methods.axes import Axes
from probegen.methods.base import OfAttention, Selector
from probegen.methods.chains import (
    KEY,
    Attending,
    arranged,
    arranged_axes,
    as_matrix,
    given_out,
    head_axis,
    of_query,
)
from probegen.methods.fields import check_choice, option
from probegen.methods.operations import Operations, T

FUSED = ("mean", "max", "min")


@dataclasses.dataclass(frozen=True)
class AttentionRollout(OfAttention):
    """How attention leads from the last layer back to the first (Abnar and Zuidema 2020, sec. 3).

    `[batch, query, key]`: the share of each position of the first layer (key) in what the last
    layer makes of each position (query). The heads of each layer are fused, the residual
    connection is added, rows are scaled to add up to 1, and the matrices of all layers are
    multiplied in the order of the forward pass. No target: it says where attention flows, not
    what speaks for a class.

    The layers must be self-attention over one stream of positions, which is told from the graph.
    Positions may lie along several axes, as the pixels of a map or the patches of frames: all of
    them are one stream, whether a layer attends over all of its axes or over some, beside the
    others (axial attention, divided space and time: between other places there is 0). Then it is
    `[batch, query_0, query_1, ..., key_0, key_1, ...]`.

    Attention within windows (Swin, MaxViT) is refused by name: windows cut an axis, the next layer
    cuts it elsewhere (shifted, or a grid in the place of blocks), and merged patches are positions
    of their own. `pg.Attention` gives the weights of each such layer; Grad-CAM and the methods of
    inputs say where a class is.

    Attributes:
        fuse: `"mean"`, `"max"` or `"min"` over the heads.
        residual: the share of the residual connection: `residual I + (1 - residual) A`.
        select: the attention layers; all by default.
        name: replaces the output name `"attention_rollout/<path of the last layer>"`.
        query: None for the whole matrix; an index for the row of one query, `[batch, key]` (0 for
            a classification token that stands first); `"mean"` for the mean over all queries,
            padding counted. Along several axes an index counts row by row.
    """

    kind: ClassVar[str] = "attention_rollout"
    title: ClassVar[str] = "Attention rollout"
    help: ClassVar[str] = "Attention through all layers together, of those that SEL selects."
    unit: ClassVar[str] = "share of attention"
    sign: ClassVar[str] = NEVER_NEGATIVE
    draw: ClassVar[str] = DRAWN_AS_ATTENTION
    equation: ClassVar[str] = (
        "product over layers of rows of (residual I + (1 - residual) heads fused), scaled to 1"
    )
    paper: ClassVar[str] = "Abnar and Zuidema 2020, sec. 3, eq. 1"

    fuse: str = "mean"
    residual: float = option(0.5, "Share of the residual connection")
    select: Selector = "*"
    name: str | None = None
    query: int | str | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fuse is None:
            raise SpecError("fuse= takes one of 'mean', 'max', 'min', got None.")
        check_choice("fuse", self.fuse, FUSED)
        number = isinstance(self.residual, int | float) and not isinstance(self.residual, bool)
        if not number or not 0 <= self.residual <= 1:
            raise SpecError(f"residual= takes a number from 0 to 1, got {self.residual!r}.")
        object.__setattr__(self, "residual", float(self.residual))

    def follow(
        self,
        ops: Operations[T],
        weights: Sequence[T],
        gradients: Sequence[T],
        layers: Sequence[Attending],
        keys: int,
    ) -> T:
        """Returns the product of the layers' matrices, from the last to the first."""
        del gradients
        axes = arranged_axes(layers[-1].axes)
        fuse = {"mean": ops.mean, "max": ops.max, "min": ops.min}[self.fuse]
        fused = [
            fuse(arranged(ops, w, a), head_axis(a)) for w, a in zip(weights, layers, strict=True)
        ]
        matrices = [
            self._mixed(ops, as_matrix(ops, f, a), axes) for f, a in zip(fused, layers, strict=True)
        ]
        rolled = of_query(ops, matrices[-1], self.query, axes)
        for matrix in reversed(matrices[:-1]):
            rolled = ops.matmul(rolled, matrix)
        return given_out(ops, rolled, self.query, fused, layers, keys)

    def _mixed(self, ops: Operations[T], fused: T, axes: Axes) -> T:
        """Returns the matrix of one layer: the residual added, rows scaled to 1."""
        mixed = ops.add(
            ops.mul(ops.identity(fused), self.residual), ops.mul(fused, 1.0 - self.residual)
        )
        total = ops.sum(mixed, (axes.index(KEY),), keepdims=True)
        # A row of zeros (all keys are masked, and there is no residual) stays one.
        return ops.div(mixed, ops.where(ops.greater(total, 0.0), total, 1.0))

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns how heads are fused, the residual, and which query."""
        del axes
        return {"fuse": self.fuse, "residual": self.residual, "query": self.query}
