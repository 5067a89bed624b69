"""Planning of outputs that need no gradient: activations and attention weights."""

from __future__ import annotations

from probegen.artefact.manifest import OutputSpec
from probegen.errors import InstrumentError
from probegen.methods.base import OfLayers, Probe
from probegen.plan import axes
from probegen.plan.model_view import ModelView
from probegen.plan.naming import output_name
from probegen.plan.plan import PlainOutput, TensorRef
from probegen.plan.points import ProbePoint

#: A tensor of a point, as it is before a probe reduces it.
_Shape = tuple[int | None, ...]


def plain_outputs(view: ModelView, probe: Probe) -> list[PlainOutput]:
    """Returns the outputs of a probe that differentiates nothing."""
    if not isinstance(probe, OfLayers):
        raise InstrumentError(f"{type(probe).__name__} cannot be compiled.")
    chosen = view.select(probe.selector, probe.point)
    if probe.of_weights:
        return [_attention(view, probe, p, several=len(chosen) > 1) for p in chosen]
    tensors = [(p, j) for p in chosen for j in range(len(p.shapes))]
    return [_activation(view, probe, p, j, several=len(tensors) > 1) for p, j in tensors]


def _activation(
    view: ModelView, probe: OfLayers, point: ProbePoint, position: int, several: bool
) -> PlainOutput:
    ref = TensorRef(point.path, point.call_index, position)
    names = axes.activation_axes(view.tensor(ref).axes)
    shape = point.shapes[position]
    channels = getattr(probe, "channels", None)
    if channels is not None:
        shape = _subset(channels, shape, names, point.name)
    part = f":{position}" if len(point.shapes) > 1 else ""
    name = output_name(probe, point.name + part, several)
    dtype = probe.dtype or point.dtypes[position]
    return _output(probe, point, ref, name, dtype, shape, names)


def _attention(view: ModelView, probe: OfLayers, point: ProbePoint, several: bool) -> PlainOutput:
    ref = TensorRef(point.path, point.call_index)
    weights, keys = view.attention(point)
    names = axes.attention_axes(weights.axes, keys)
    name = output_name(probe, point.name, several)
    return _output(probe, point, ref, name, probe.dtype or weights.dtype, weights.shape, names)


def _output(
    probe: OfLayers,
    point: ProbePoint,
    ref: TensorRef,
    name: str,
    dtype: str,
    shape: _Shape,
    names: axes.Axes,
) -> PlainOutput:
    """Returns the output that a probe makes of a tensor with this shape and these axes."""
    kept = probe.kept_axes(names, point.name)
    facts = probe.described(names)
    facts["detail"] = {"class": point.class_name, "role": point.roles[-1], **facts["detail"]}
    spec = OutputSpec(
        name=name,
        dtype=dtype,
        shape=tuple(shape[i] for i in kept),
        axes=tuple(names[i] for i in kept),
        layer=point.path,
        call=point.call_index,
        **facts,
    )
    return PlainOutput(spec, ref, probe, names)


def _subset(
    channels: tuple[int, ...], shape: tuple[int | None, ...], names: axes.Axes, name: str
) -> tuple[int | None, ...]:
    axis = axes.channel_axis(names)
    if axis is None:
        raise InstrumentError(
            f"channels={list(channels)}: the output of {name!r} has no channels; its axes are "
            f"{', '.join(names)}."
        )
    size = shape[axis]
    wrong = [c for c in channels if c < 0 or (size is not None and c >= size)]
    if wrong:
        raise InstrumentError(
            f"channels={list(channels)}: {wrong} are out of range; {name!r} has {size} channels."
        )
    return tuple(len(channels) if i == axis else d for i, d in enumerate(shape))
