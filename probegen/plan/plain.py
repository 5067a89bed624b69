"""Planning of outputs that need no gradient: activations, attention weights, states."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from probegen.artefact.manifest import OutputSpec
from probegen.errors import InstrumentError, SelectionError
from probegen.methods.base import OfLayers, Probe
from probegen.plan import axes
from probegen.plan.chains import named_by_positions, readings_of
from probegen.plan.model_view import AttentionWeights, ModelView
from probegen.plan.naming import output_name
from probegen.plan.plan import PlainOutput, TensorRef
from probegen.plan.points import ProbePoint, Shape


def plain_outputs(view: ModelView, probe: Probe) -> list[PlainOutput]:
    """Returns the outputs of a probe that differentiates nothing."""
    if not isinstance(probe, OfLayers):
        raise InstrumentError(f"{type(probe).__name__} cannot be compiled.")
    chosen = view.select(probe.selector, probe.point)
    if probe.of_weights:
        weights = [w for p in chosen for w in view.attention(p)]
        weights = named_by_positions(weights, readings_of(view, weights))
        return [o for w in weights for o in _attention(probe, w, several=len(weights) > 1)]
    if probe.of_states:
        return _states(view, probe, chosen)
    tensors = [(p, j) for p in chosen for j in range(len(p.shapes))]
    return [_activation(view, probe, p, j, several=len(tensors) > 1) for p, j in tensors]


def _activation(
    view: ModelView, probe: OfLayers, point: ProbePoint, position: int, several: bool
) -> PlainOutput:
    ref = view.output_ref(point, position)
    facts = view.tensor(ref)
    names = axes.activation_axes(facts.axes)
    part = f":{position}" if len(point.shapes) > 1 else ""
    name = output_name(probe, point.name + part, several)
    dtype = probe.dtype or point.dtypes[position]
    made = _output(probe, point, ref, name, dtype, point.shapes[position], names)
    told = dataclasses.replace(made.spec, detail={**made.spec.detail, **view.detail_of(ref)})
    return dataclasses.replace(made, spec=told, windows=facts.windows)


def _attention(probe: OfLayers, weights: AttentionWeights, several: bool) -> Iterator[PlainOutput]:
    """Yields the weights of a layer, and what comes beside them."""
    name = output_name(probe, weights.name, several)
    yield attention_output(probe, weights, name)
    beside = probe.beside()
    if beside is not None:
        yield attention_output(beside, weights, f"{name}/{beside.kind}")


def attention_output(
    probe: OfLayers, weights: AttentionWeights, name: str, dtype: str | None = None
) -> PlainOutput:
    """Returns what a probe gives out of the weights of a layer.

    Args:
        probe: the probe.
        weights: the weights.
        name: of the output.
        dtype: of the output; by default what the probe says, or that of the weights.
    """
    found = dtype or probe.dtype or weights.tensor.dtype
    ref, names = weights.plain_ref, weights.axes
    return _output(probe, weights.point, ref, name, found, weights.tensor.shape, names)


def _states(view: ModelView, probe: OfLayers, chosen: Sequence[ProbePoint]) -> list[PlainOutput]:
    """Returns the states of recurrent layers; a layer inside another that is selected comes once.

    Raises:
        SelectionError: gates are asked for, and no layer has some.
    """
    by_name = {state.name: (p, state) for p in chosen for state in view.states(p)}
    if probe.gates and not any(state.is_gate for _, state in by_name.values()):
        matched = ", ".join(repr(p.name) for p in chosen[:5])
        raise SelectionError(
            f"gates=True: {probe.selector!r} matches {matched}, "
            "none of which has gates that are known: layers of one LSTM or GRU cell have."
        )
    found = [(p, s) for p, s in by_name.values() if probe.gates or not s.is_gate]
    outputs = []
    for point, state in found:
        name = output_name(probe, state.name, several=len(found) > 1)
        dtype, shape = probe.dtype or state.facts.dtype, state.facts.shape
        made = _output(probe, point, state.ref, name, dtype, shape, state.facts.axes)
        outputs.append(
            dataclasses.replace(made, spec=dataclasses.replace(made.spec, title=state.title))
        )
    return outputs


def _output(
    probe: OfLayers,
    point: ProbePoint,
    ref: TensorRef,
    name: str,
    dtype: str,
    shape: Shape,
    names: axes.Axes,
) -> PlainOutput:
    """Returns the output that a probe makes of a tensor with this shape and these axes."""
    left, sizes = probe.result(names, shape, point.name)
    facts = probe.described(names)
    facts["detail"] = {"class": point.class_name, "role": point.roles[-1], **facts["detail"]}
    spec = OutputSpec(
        name=name,
        dtype=dtype,
        shape=sizes,
        axes=left,
        layer=point.path,
        call=point.call_index,
        calls=point.calls,
        **facts,
    )
    return PlainOutput(spec, ref, probe, names)
