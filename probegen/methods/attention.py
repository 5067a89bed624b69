"""Attention weights."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from probegen.artefact.manifest import DRAWN_AS_ATTENTION, NEVER_NEGATIVE
from probegen.methods.base import PAYLOADS, OfLayers, Selector, check_choice


@dataclasses.dataclass(frozen=True)
class Attention(OfLayers):
    """Attention weights after the softmax, `[batch, head, query, key]`.

    Taken from every matching MultiHeadAttention, GroupedQueryAttention, Attention or
    AdditiveAttention (the last two have no head axis), and from any other layer in which a
    softmax weighs values: its result is multiplied with something that depends on the input and
    summed over the axis along which it adds up to one. That axis is called `key`. Weights
    `[batch, time, 1]` with the softmax over time have the axes `batch, key, query`. What a layer
    merely returns (states, a second head) is no attention; `pg.register_attention` names weights
    that are applied in another way.

    Attributes:
        select: the layers; only those that apply attention weights are considered.
        name: replaces the output name `"attention/<path>"`.
        dtype: element type of the payload.
    """

    kind: ClassVar[str] = "attention"
    title: ClassVar[str] = "Attention"
    help: ClassVar[str] = "Attention weights; of all layers that have some if SEL is left out."
    unit: ClassVar[str] = "share of attention"
    sign: ClassVar[str] = NEVER_NEGATIVE
    draw: ClassVar[str] = DRAWN_AS_ATTENTION
    equation: ClassVar[str] = "attention weights after the softmax"
    paper: ClassVar[str] = "Vaswani et al. 2017, eq. 1"
    point: ClassVar[str] = "attention"
    of_weights: ClassVar[bool] = True

    select: Selector = "*"
    name: str | None = None
    dtype: str | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("dtype", self.dtype, PAYLOADS)
