"""Attention weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

from probegen.artefact.manifest import DRAWN_AS_ATTENTION, NEVER_NEGATIVE
from probegen.methods.attention_keys import AttentionKeys
from probegen.methods.attention_reductions import (
    apply_steps,
    checked_steps,
    in_words,
    reduced,
    top_count,
)
from probegen.methods.axes import Axes, Sizes
from probegen.methods.base import PAYLOADS, OfLayers, Selector
from probegen.methods.fields import check_bool, check_choice, option
from probegen.methods.operations import Operations, T


@dataclasses.dataclass(frozen=True)
class Attention(OfLayers):
    """Attention weights after the softmax, `[batch, head, query, key]`.

    Every softmax that weighs values is one, wherever it stands: its result is multiplied with
    something that depends on the input and summed over the axis along which it adds up to one. That
    axis is called `key`. It is found by what the graph computes, in layers of Keras, in layers of
    one's own, between layers, and in the nodes of an ONNX file. Layers without heads have no axis
    for them; weights `[batch, time, 1]` with the softmax over time have the axes `batch, key,
    query`. A gate that mixes the outputs of experts is attention in this sense: its keys are the
    experts. A softmax of classes at the end of a model is none, nor is what a layer merely returns,
    nor what weighs stored vectors alone. `pg.register_attention` names weights of another kind.

    Weights are those that are applied: behind a mask, and behind a second normalisation, without
    keys that are cut off before (a sink that is learned). A layer that applies several gives one
    output for each, `:0` and `:1` behind its name.

    Attributes:
        select: the layers; only those that apply attention weights are considered.
        reduce: None, or what is left of the weights: `"heads"` (their mean), `"max"` (the largest
            over the heads), `"last_query"` and `"cls"` (the row of the last or first query: with
            padding behind a sequence the last row is one of padding), `"top:5"` (the largest over
            the keys, along the axis `rank`, with their positions beside as int32 `"<name>/keys"`;
            all where there are fewer). Several with commas between are done in turn: `"heads,cls"`.
            What a layer has no axis for is left as it is.
        stack: give out one tensor for all layers whose weights have the same axes and sizes,
            `[batch, layer, ...]`, called `"attention/layers"` (with `:0`, `:1` where there are
            several such groups); the layers in their order stand in the manifest.
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
    reduce: str | Sequence[str] | None = option(
        None,
        "What is left (heads, max, last_query, cls, top:5, or several with commas between)",
        flag="attention-reduce",
    )
    stack: bool = option(False, "One tensor for layers of one shape", flag="attention-stack")
    name: str | None = None
    dtype: str | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("dtype", self.dtype, PAYLOADS)
        check_bool("stack", self.stack)
        if self.reduce is not None:
            object.__setattr__(self, "reduce", ",".join(checked_steps(self.reduce)))

    @property
    def steps(self) -> tuple[str, ...]:
        """The reductions, one after the other."""
        return checked_steps(self.reduce)

    def whole(self) -> OfLayers:
        """Returns what gives out the weights as they are."""
        return Attention()

    def beside(self) -> OfLayers | None:
        """Returns what gives the positions of the largest weights, where these are asked for."""
        return None if top_count(self.steps) is None else AttentionKeys(self.select, self.steps)

    def result(self, axes: Axes, sizes: Sizes, layer: str = "the layer") -> tuple[Axes, Sizes]:
        """Returns what is left of axes and sizes.

        Raises:
            InstrumentError: the largest of keys along several axes, or more than there are.
        """
        return reduced(self.steps, axes, sizes, layer)

    def payload(self, ops: Operations[T], value: T, axes: Axes) -> T:
        """Returns weights, reduced where that is asked for."""
        return apply_steps(ops, self.steps, value, axes)

    def definition(self, axes: Axes) -> str:
        """Returns what is left of the weights, in words."""
        del axes
        return f"{self.equation}{in_words(self.steps)} ({self.paper})"

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns the reduction."""
        del axes
        return {"reduce": self.reduce} if self.reduce else {}
