"""Planning of outputs that need no gradient: activations and attention weights."""

from __future__ import annotations

from collections.abc import Sequence

from probegen.artefact import manifest
from probegen.artefact.manifest import OutputSpec
from probegen.errors import InstrumentError
from probegen.plan import axes
from probegen.plan.methods import METHODS
from probegen.plan.model_view import ModelView
from probegen.plan.naming import output_name
from probegen.plan.plan import PlainOutput, TensorRef, reduced_axes
from probegen.plan.points import ProbePoint
from probegen.spec import Activations, Attention, Probe


def plain_outputs(view: ModelView, probe: Probe) -> list[PlainOutput]:
    """Returns the outputs of an `Activations` or `Attention` probe."""
    if isinstance(probe, Activations):
        return _activations(view, probe)
    if isinstance(probe, Attention):
        return _attention(view, probe)
    raise InstrumentError(f"{type(probe).__name__} cannot be compiled.")


def _activations(view: ModelView, probe: Activations) -> list[PlainOutput]:
    chosen = view.select(probe.select, "activation")
    tensors = [(p, j) for p in chosen for j in range(len(p.shapes))]
    outputs = []
    for point, j in tensors:
        ref = TensorRef(point.path, point.call_index, j)
        names = axes.activation_axes(view.tensor(ref).axes)
        spec = _activation_spec(probe, point, j, len(tensors), names)
        outputs.append(PlainOutput(spec, ref, probe, names))
    return outputs


def _activation_spec(
    probe: Activations, point: ProbePoint, position: int, outputs: int, names: axes.Axes
) -> OutputSpec:
    shape = point.shapes[position]
    part = f":{position}" if len(point.shapes) > 1 else ""
    if probe.channels is not None:
        shape = _subset(probe.channels, shape, names, point.name)
    reduced = reduced_axes(probe, names, point.name)
    kept = [i for i in range(len(shape)) if i not in reduced]
    return OutputSpec(
        name=output_name(probe, point.name + part, several=outputs > 1),
        kind=manifest.ACTIVATION,
        dtype=probe.dtype or point.dtypes[position],
        shape=tuple(shape[i] for i in kept),
        axes=tuple(names[i] for i in kept),
        layer=point.path,
        call=point.call_index,
        method=_activation_method(probe, [names[i] for i in reduced]),
        detail={
            "class": point.class_name,
            "role": point.roles[-1],
            "reduce": probe.reduce,
            "reduced_axes": [names[i] for i in reduced],
            "channels": list(probe.channels) if probe.channels else None,
        },
    )


def _attention(view: ModelView, probe: Attention) -> list[PlainOutput]:
    chosen = view.select(probe.select, "attention")
    outputs = []
    for point in chosen:
        weights, keys = view.attention(point)
        outputs.append(
            PlainOutput(
                OutputSpec(
                    name=output_name(probe, point.name, several=len(chosen) > 1),
                    kind=manifest.ATTENTION,
                    dtype=probe.dtype or weights.dtype,
                    shape=weights.shape,
                    axes=axes.attention_axes(len(weights.shape), keys),
                    layer=point.path,
                    call=point.call_index,
                    method=METHODS[manifest.ATTENTION],
                    detail={"class": point.class_name},
                ),
                TensorRef(point.path, point.call_index),
                probe,
            )
        )
    return outputs


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


def _activation_method(probe: Activations, reduced: Sequence[str]) -> str:
    if not reduced:
        return "output of the layer"
    words = {"mean": "mean", "max": "maximum", "norm": "Euclidean norm"}
    return f"{words[str(probe.reduce)]} of the layer's output over {', '.join(reduced)}"
