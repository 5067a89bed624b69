"""Outputs of layers."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from probegen.artefact.manifest import ANY_SIGN, DRAWN_AS_ACTIVATION
from probegen.errors import InstrumentError, SpecError
from probegen.methods.axes import Axes, Sizes, channel_axes, channel_axis, position_axes
from probegen.methods.base import PAYLOADS, OfLayers, Selector
from probegen.methods.fields import check_choice, set_ints
from probegen.methods.operations import Operations, T

REDUCTIONS = {"mean": "mean", "max": "maximum", "norm": "Euclidean norm"}


@dataclasses.dataclass(frozen=True)
class Activations(OfLayers):
    """Outputs of layers, whole or reduced.

    Of a layer that the cell of a recurrent layer calls they come out over time, `[batch, time,
    ...]`: entry t is of the step that read entry t of the input, also where the layer runs
    backwards. Masked steps, which count for nothing, have 0. A layer that is called several times
    in a step has a number for each call, `<path>#0` and `<path>#1`.

    Attributes:
        select: the layers, see Selectors in docs/USE.md.
        reduce: None, or `"mean"`, `"max"` or `"norm"` (Euclidean) over `axes`.
        name: replaces the output name `"activation/<path>"`; several matches get `/<path>`
            appended.
        axes: the axes to reduce, counted with the batch axis as 0 (which cannot be reduced),
            or `"spatial"` (all positions: neither batch nor channels) or `"channel"` (the
            default). Where the channels stand is told from the layers, `data_format` above all.
        channels: keep only these channels (before reducing).
        dtype: element type of the payload, for instance `"float16"` to halve it.
    """

    kind: ClassVar[str] = "activation"
    text_name: ClassVar[str] = "activations"
    title: ClassVar[str] = "Activation"
    help: ClassVar[str] = "Outputs of layers."
    sign: ClassVar[str] = ANY_SIGN
    draw: ClassVar[str] = DRAWN_AS_ACTIVATION
    equation: ClassVar[str] = "output of the layer"
    point: ClassVar[str] = "activation"

    select: Selector
    reduce: str | None = None
    name: str | None = None
    axes: str | tuple[int, ...] | None = dataclasses.field(default=None, kw_only=True)
    channels: tuple[int, ...] | None = dataclasses.field(default=None, kw_only=True)
    dtype: str | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("reduce", self.reduce, tuple(REDUCTIONS))
        check_choice("dtype", self.dtype, PAYLOADS)
        if self.axes is not None and self.reduce is None:
            raise SpecError("axes= says what reduce= reduces; give reduce='mean' too.")
        if isinstance(self.axes, str):
            check_choice("axes", self.axes, ("spatial", "channel"))
        else:
            set_ints(self, "axes")
        set_ints(self, "channels")
        if isinstance(self.axes, tuple) and 0 in self.axes:
            raise SpecError("axes= holds 0, the batch axis, which cannot be reduced.")

    def reduced_axes(self, axes: Axes, layer: str = "the layer") -> tuple[int, ...]:
        """Returns the axes that are reduced, as sorted positive indices.

        Args:
            axes: of the layer's output.
            layer: what the layer is called in the message.

        Raises:
            InstrumentError: the output has no such axis.
        """
        if self.reduce is None:
            return ()
        rank, chosen = len(axes), channel_axes(axes)
        if self.axes == "spatial":
            chosen = position_axes(axes)
        elif isinstance(self.axes, tuple):
            chosen = tuple(a + rank if a < 0 else a for a in self.axes)
        if not chosen or any(not 0 < a < rank for a in chosen):
            shown = ", ".join(f"{i} ({axis})" for i, axis in enumerate(axes))
            raise InstrumentError(
                f"axes={self.axes!r} does not fit the output of {layer!r}, whose axes are {shown}."
            )
        return tuple(sorted(set(chosen)))

    def result(self, axes: Axes, sizes: Sizes, layer: str = "the layer") -> tuple[Axes, Sizes]:
        """Returns what is left of axes and sizes.

        Raises:
            InstrumentError: the output has no such axes or channels.
        """
        if self.channels is not None:
            sizes = self._some_channels(self.channels, axes, sizes, layer)
        return super().result(axes, sizes, layer)

    def _some_channels(
        self, channels: tuple[int, ...], axes: Axes, sizes: Sizes, layer: str
    ) -> Sizes:
        axis = channel_axis(axes)
        if axis is None:
            raise InstrumentError(
                f"channels={list(channels)}: the output of {layer!r} has no channels; its axes "
                f"are {', '.join(axes)}."
            )
        size = sizes[axis]
        wrong = [c for c in channels if c < 0 or (size is not None and c >= size)]
        if wrong:
            raise InstrumentError(
                f"channels={list(channels)}: {wrong} are out of range; {layer!r} has {size} "
                "channels."
            )
        return tuple(len(channels) if i == axis else d for i, d in enumerate(sizes))

    def kept_axes(self, axes: Axes, layer: str = "the layer") -> tuple[int, ...]:
        """Returns the axes that are not reduced."""
        reduced = self.reduced_axes(axes, layer)
        return tuple(i for i in range(len(axes)) if i not in reduced)

    def payload(self, ops: Operations[T], value: T, axes: Axes) -> T:
        """Returns some channels of the output, or all, reduced where that is asked for."""
        channel = channel_axis(axes)
        if self.channels is not None and channel is not None:
            value = ops.take(value, self.channels, channel)
        over = self.reduced_axes(axes)
        if self.reduce == "mean":
            return ops.mean(value, over)
        if self.reduce == "max":
            return ops.max(value, over)
        if self.reduce == "norm":
            return ops.sqrt(ops.sum(ops.mul(value, value), over))
        return value

    def definition(self, axes: Axes) -> str:
        """Returns which reduction over which axes, in words."""
        over = [axes[i] for i in self.reduced_axes(axes)]
        if not over:
            return self.equation
        return f"{REDUCTIONS[str(self.reduce)]} of the layer's output over {', '.join(over)}"

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns the reduction and the channels."""
        return {
            "reduce": self.reduce,
            "reduced_axes": [axes[i] for i in self.reduced_axes(axes)],
            "channels": list(self.channels) if self.channels else None,
        }
