"""Which keys the largest attention weights are of."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from probegen.artefact.manifest import ANY_SIGN, DRAWN_BESIDE, KEYS
from probegen.methods.attention_reductions import keys_last, reduced, top_keys
from probegen.methods.axes import Axes, Sizes
from probegen.methods.base import OfLayers, Selector
from probegen.methods.operations import Operations, T


@dataclasses.dataclass(frozen=True)
class AttentionKeys(OfLayers):
    """The positions of the weights that `Attention(reduce="top:k")` gives, beside these.

    Attributes:
        select: the layers.
        steps: the reductions; the last is `top:k`.
        candidates: give the weights that the largest are chosen from instead, keys last: what
            verification looks positions up in.
    """

    kind: ClassVar[str] = KEYS
    title: ClassVar[str] = "Keys"
    unit: ClassVar[str] = "position of the key"
    sign: ClassVar[str] = ANY_SIGN
    draw: ClassVar[str] = DRAWN_BESIDE
    equation: ClassVar[str] = "positions of the largest attention weights, the largest first"
    point: ClassVar[str] = "attention"
    of_weights: ClassVar[bool] = True

    select: Selector = "*"
    steps: tuple[str, ...] = ()
    candidates: bool = False

    @property
    def dtype(self) -> str | None:
        """int32 of positions, that of the weights otherwise."""
        return None if self.candidates else "int32"

    def everything(self) -> OfLayers:
        """Returns what gives out the weights that the largest are chosen from, keys last."""
        return dataclasses.replace(self, candidates=True)

    def result(self, axes: Axes, sizes: Sizes, layer: str = "the layer") -> tuple[Axes, Sizes]:
        """Returns what is left of axes and sizes."""
        return reduced(self.steps, axes, sizes, layer)

    def payload(self, ops: Operations[T], value: T, axes: Axes) -> T:
        """Returns positions along the keys, int32, or what they are chosen from."""
        if self.candidates:
            return keys_last(ops, self.steps[:-1], value, axes)
        return top_keys(ops, self.steps, value, axes)
