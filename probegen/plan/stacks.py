"""Planning of what several attention layers give out as one tensor."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from probegen.artefact.manifest import LAYER, OutputSpec
from probegen.methods.axes import behind_batch
from probegen.methods.base import OfLayers
from probegen.methods.chains import Attending
from probegen.plan.chains import ChainParts, named_by_positions, readings_of
from probegen.plan.model_view import AttentionWeights, ModelView
from probegen.plan.plain import attention_output
from probegen.plan.plan import ChainOutput, PlainOutput
from probegen.plan.positions import Reading


def stacked_outputs(view: ModelView, probe: OfLayers, number: int) -> ChainParts:
    """Returns the outputs of a probe that stacks layers, and what they are made of.

    Layers are of one shape where the axes and sizes of what is left of their weights are the same.
    Open sizes are the same where they are those of the same positions, as followed through the
    graph.

    Args:
        view: the model.
        probe: the probe.
        number: of the probe, which tells what its outputs are made of from that of others.

    Raises:
        SelectionError: there is no layer that applies attention weights.
    """
    weights = [w for p in view.select(probe.selector, probe.point) for w in view.attention(p)]
    readings = readings_of(view, weights)
    weights = named_by_positions(weights, readings)
    groups: dict[Hashable, list[AttentionWeights]] = {}
    for one, positions in zip(weights, _positions(readings), strict=True):
        axes, sizes = probe.result(one.axes, one.tensor.shape, one.name)
        # The batch is open and the same for all.
        is_open = any(n is None for n in sizes[behind_batch(axes) :])
        groups.setdefault((axes, sizes, positions if is_open else None), []).append(one)
    given = getattr(probe, "name", None) or f"{probe.kind}/{LAYER}s"
    plain: list[PlainOutput] = []
    outputs: list[ChainOutput] = []
    for place, layers in enumerate(groups.values()):
        dtype = probe.dtype or _finest(layers)
        parts = [
            attention_output(probe.whole(), w, f"weights of {w.name} for probe {number}", dtype)
            for w in layers
        ]
        plain += parts
        name = f"{given}:{place}" if len(groups) > 1 else given
        names = tuple(part.spec.name for part in parts)
        outputs.append(_stack(probe, layers, names, name, dtype))
        beside = probe.beside()
        if beside is not None:
            kind = beside.dtype or dtype
            outputs.append(_stack(beside, layers, names, f"{name}/{beside.kind}", kind))
    return ChainParts(outputs, plain)


def _positions(readings: Sequence[Reading]) -> list[Hashable]:
    """Returns what tells open sizes apart: of what positions queries and keys are."""
    return [
        number if reading.problem else (reading.queries, reading.keys)
        for number, reading in enumerate(readings)
    ]


def _stack(
    probe: OfLayers,
    layers: Sequence[AttentionWeights],
    parts: tuple[str, ...],
    name: str,
    dtype: str,
) -> ChainOutput:
    first = layers[0]
    axes, sizes = probe.result(first.axes, first.tensor.shape, first.name)
    at = behind_batch(axes)
    facts = probe.described(first.axes)
    facts["detail"] = {"layers": [w.name for w in layers], **facts["detail"]}
    spec = OutputSpec(
        name=name,
        dtype=dtype,
        shape=(*sizes[:at], len(layers), *sizes[at:]),
        axes=(*axes[:at], LAYER, *axes[at:]),
        **facts,
    )
    attending = tuple(Attending(w.name, w.axes, 0, 0) for w in layers)
    refs = tuple(w.plain_ref for w in layers)
    return ChainOutput(spec, probe, attending, 0, parts, (), refs)


def _finest(layers: Sequence[AttentionWeights]) -> str:
    """Returns the element type of what has those of all layers in it."""
    kinds = {w.tensor.dtype for w in layers}
    return kinds.pop() if len(kinds) == 1 else max(kinds, key=lambda k: int(k.lstrip("bfloat")))
