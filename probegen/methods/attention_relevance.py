"""Relevance through attention (Chefer et al. 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from probegen.artefact.manifest import DRAWN_AS_ATTENTION, NEVER_NEGATIVE
from probegen.methods.axes import Axes
from probegen.methods.base import GradientProbe, OfAttention, Selector
from probegen.methods.chains import (
    Attending,
    arranged,
    arranged_axes,
    as_matrix,
    given_out,
    head_axis,
    of_query,
)
from probegen.methods.operations import Operations, T
from probegen.methods.relevance_rules import RelevanceRules
from probegen.methods.targets import Target


@dataclasses.dataclass(frozen=True)
class AttentionRelevance(OfAttention, GradientProbe):
    """How relevant positions are to each other for a target (Chefer et al. 2021, eqs. 3 to 11).

    `[batch, query, key]`: how much each position of the first layer (key) matters to what the last
    layer makes of each position (query), for the target. Begins with the identity, which stays in
    the result; each layer adds what its weights, times their positive gradients, bring.

    Layers may be self-attention over one stream of positions (the rule of eqs. 5 and 6), and
    cross-attention to other streams, as in an encoder and a decoder (eqs. 7 to 11): then there is
    a matrix for each stream that the last layer has read from, called after the last layer whose
    keys it has. Layers that the target does not depend on are left out. Positions along several
    axes are one stream, as for `AttentionRollout`.

    Attributes:
        target: as for `InputGradient`.
        select: the attention layers; all by default.
        name: replaces the output name `"attention_relevance/<path of the last layer>"`.
        query: None for the whole matrix; an index for the row of one query, `[batch, key]` (0 for
            a classification token that stands first); `"mean"` for the mean over all queries.
            Along several axes an index counts row by row.
        output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = "attention_relevance"
    title: ClassVar[str] = "Attention relevance"
    help: ClassVar[str] = "Relevance for the target through the attention layers SEL."
    unit: ClassVar[str] = "relevance"
    sign: ClassVar[str] = NEVER_NEGATIVE
    draw: ClassVar[str] = DRAWN_AS_ATTENTION
    equation: ClassVar[str] = (
        "R = I; for each layer R += mean over heads of relu(d target / d A * A) R"
    )
    paper: ClassVar[str] = "Chefer et al. 2021, eqs. 3-11"
    crosses: ClassVar[bool] = True
    holds_identity: ClassVar[bool] = True

    target: Target = "argmax"
    select: Selector = "*"
    name: str | None = None
    query: int | str | None = dataclasses.field(default=None, kw_only=True)

    def follow(
        self,
        ops: Operations[T],
        weights: Sequence[T],
        gradients: Sequence[T],
        layers: Sequence[Attending],
        keys: int,
    ) -> T:
        """Returns the relevance of the positions of a stream to those of the last layer."""
        axes = arranged_axes(layers[-1].axes)
        rules = RelevanceRules(ops, len(axes))
        states: list[dict[int, T]] = []
        fused: list[T] = []
        for value, gradient, layer in zip(weights, gradients, layers, strict=True):
            heads = ops.relu(
                ops.mul(
                    arranged(ops, value, layer),
                    arranged(ops, ops.cast(gradient, value), layer),
                )
            )
            fused.append(ops.mean(heads, head_axis(layer)))
            step = as_matrix(ops, fused[-1], layer)
            queries = {} if layer.queries_after is None else states[layer.queries_after]
            read = {} if layer.keys_after is None else states[layer.keys_after]
            states.append(rules.after(layer, step, queries, read))
        found = states[-1].get(keys)
        own = layers[-1].queries
        matrix = rules.with_identity(found) if found is not None and keys == own else found
        if matrix is None:
            raise ValueError(f"the last layer has read nothing of stream {keys}")
        rows = of_query(ops, matrix, self.query, axes)
        return given_out(ops, rows, self.query, fused, layers, keys)

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns which query."""
        del axes
        return {"query": self.query}
