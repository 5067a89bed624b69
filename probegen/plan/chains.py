"""Planning of outputs that are made of several attention layers together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from probegen.artefact.manifest import GRADIENT_DETAIL, IDENTITY_DETAIL, OutputSpec
from probegen.errors import NotDifferentiableError, SelectionError
from probegen.methods.axes import BATCH
from probegen.methods.base import GradientProbe, OfAttention
from probegen.methods.chains import (
    HEAD,
    KEY,
    ONE_AXIS,
    QUERY,
    Attending,
    Grid,
    layers_behind,
    named_after,
    result_axes,
    streams_read,
)
from probegen.plan import axes
from probegen.plan.explained_tensors import ExplainedTensors
from probegen.plan.model_view import AttentionWeights, ModelView
from probegen.plan.naming import output_name
from probegen.plan.plan import ChainOutput, GradientOutput, PlainOutput, TargetPlan
from probegen.plan.points import ProbePoint, Shape
from probegen.plan.positions import Reading


@dataclasses.dataclass(frozen=True)
class ChainParts:
    """The outputs of a probe, and what they are made of, which comes out under no name.

    Attributes:
        outputs: the outputs.
        plain: the weights.
        gradients: the gradients at the weights.
    """

    outputs: Sequence[ChainOutput] = ()
    plain: Sequence[PlainOutput] = ()
    gradients: Sequence[GradientOutput] = ()


@dataclasses.dataclass(frozen=True)
class _Layer:
    """An attention layer that was selected.

    Attributes:
        weights: its weights.
        reading: which positions it reads.
        grid: which axes of its weights these lie along.
    """

    weights: AttentionWeights
    reading: Reading
    grid: Grid = ONE_AXIS

    @property
    def name(self) -> str:
        """What the layer is called."""
        return self.weights.name

    @property
    def point(self) -> ProbePoint:
        """The layer."""
        return self.weights.point

    @property
    def names(self) -> axes.Axes:
        """The names of the axes of its weights."""
        return self.weights.axes

    @property
    def shape(self) -> Shape:
        """The sizes of its weights."""
        return self.weights.tensor.shape

    @property
    def dtype(self) -> str:
        """The element type of its weights."""
        return self.weights.tensor.dtype


def chain_parts(
    view: ModelView,
    tensors: ExplainedTensors,
    probe: OfAttention,
    target: TargetPlan | None,
    number: int,
) -> ChainParts:
    """Returns the outputs of a probe that follows positions through attention layers.

    Args:
        view: the model.
        tensors: tells where a gradient flows.
        probe: the probe.
        target: what it differentiates, where it does.
        number: of the probe, which tells what its outputs are made of from that of others.

    Raises:
        SelectionError: the layers are no chain; names those that are, for `select=`.
        NotDifferentiableError: the target depends on none of them, or no gradient reaches them.
    """
    weights = [w for p in view.select(probe.selector, probe.point) for w in view.attention(p)]
    if target is not None:
        weights = _reached(view, tensors, weights, target)
    layers = _in_order(_layers(view, weights))
    attending = _attending(probe, layers)
    _check_one_chain(probe, layers, attending)
    dtype = _finest(layers)
    last = layers[-1]
    streams = sorted(streams_read(attending, len(layers) - 1))
    parts = tuple(f"weights of {y.name} for probe {number}" for y in layers)
    slopes = tuple(f"gradient at {y.name} for probe {number}" for y in layers) if target else ()
    outputs = []
    for stream in streams:
        at = layers[named_after(attending, stream)]
        names = result_axes(last.names, len(last.grid.queries), len(at.grid.keys))
        sizes = (
            *(_size(last, name) for name in names if name == BATCH),
            *(_size(last, name) for name in last.grid.queries),
            *(_size(at, name) for name in at.grid.keys),
        )
        left, shape = probe.result(names, sizes, last.name)
        facts = probe.described(names)
        detail = {n: v for n, v in facts["detail"].items() if n != GRADIENT_DETAIL}
        if probe.holds_identity and stream == attending[-1].queries:
            detail[IDENTITY_DETAIL] = True
        facts["detail"] = {"layers": [y.name for y in layers], **detail}
        spec = OutputSpec(
            name=output_name(probe, at.name, len(streams) > 1),
            dtype=dtype,
            shape=shape,
            axes=left,
            layer=at.point.path,
            call=at.point.call_index,
            calls=at.point.calls,
            target=None if target is None else target.spec,
            **facts,
        )
        refs = tuple(y.weights.plain_ref for y in layers)
        outputs.append(ChainOutput(spec, probe, attending, stream, parts, slopes, refs))
    plain = [_weights(probe, y, part, dtype) for y, part in zip(layers, parts, strict=True)]
    if target is None or not isinstance(probe, GradientProbe):
        return ChainParts(outputs, plain)
    gradients = [
        _gradient(probe, target, y, slope) for y, slope in zip(layers, slopes, strict=True)
    ]
    return ChainParts(outputs, plain, gradients)


# -- which layers ------------------------------------------------------------------------------


def _reached(
    view: ModelView,
    tensors: ExplainedTensors,
    weights: Sequence[AttentionWeights],
    target: TargetPlan,
) -> list[AttentionWeights]:
    """Returns the layers that the target depends on.

    Raises:
        NotDifferentiableError: there is none, or the gradient is stopped on the way to one.
    """
    end = view.end(target)
    found = []
    for one in weights:
        if one.ref is None:
            found.append(one)  # which is refused by name where layers are put in order
        elif view.flows(one.ref, end):
            tensors.check_flow(one.ref, end, one.name)
            found.append(one)
        elif view.blocked_at(one.ref, end):
            tensors.check_flow(one.ref, end, one.name)
    if not found:
        shown = ", ".join(repr(w.name) for w in weights[:5])
        raise NotDifferentiableError(
            f"the target does not depend on the attention weights of {shown}: no gradient exists. "
            "Weights that a layer returns beside its output, and does not apply, count for nothing."
        )
    return found


def _layers(view: ModelView, weights: Sequence[AttentionWeights]) -> list[_Layer]:
    return [
        _on_grid(one, reading)
        for one, reading in zip(weights, readings_of(view, weights), strict=True)
    ]


#: What weights read that are made anew in each step of a loop.
_OF_STEPS = Reading((), (), frozenset(), frozenset(), "it attends anew in each step of a loop")


def readings_of(view: ModelView, weights: Sequence[AttentionWeights]) -> list[Reading]:
    """Returns which positions attention weights read, one by one; numbers count in them.

    Those that are made inside a loop read none, which is said as a problem.
    """
    outside = [i for i, w in enumerate(weights) if w.ref is not None]
    found = [_OF_STEPS] * len(weights)
    for i, reading in zip(outside, view.readings([weights[i] for i in outside]), strict=True):
        found[i] = _renumbered(reading, outside)
    return found


def named_by_positions(
    weights: Sequence[AttentionWeights], readings: Sequence[Reading]
) -> list[AttentionWeights]:
    """Returns attention weights of which no axis of positions is called a head.

    By their places, those of pixels that attend to words are `batch, head, query, key`: the rows
    of the image would be heads.

    Args:
        weights: the weights.
        readings: what `readings_of` tells of them.
    """
    return [
        dataclasses.replace(one, named=_names(one.axes, reading))
        for one, reading in zip(weights, readings, strict=True)
    ]


def _names(names: axes.Axes, reading: Reading) -> axes.Axes | None:
    """Returns the names of axes by what they are of; None where those by place say the same."""
    if reading.problem or len(reading.along) != len(names):
        return None
    kinds = [name.split("_")[0] for name in names]
    moving = [set(labels) for labels in reading.along]
    own = [bool(labels) and labels <= set(reading.queries) for labels in moving]
    if not any(kind == HEAD and here for kind, here in zip(kinds, own, strict=True)):
        return None
    found = list(names)
    free = [i for i, n in enumerate(names) if n != BATCH and kinds[i] != KEY]
    beside = [i for i in free if own[i] and moving[i] <= reading.beside]
    queries = [i for i in free if own[i] and i not in beside]
    heads = [i for i in free if moving[i] and moving[i] <= reading.heads]
    if not queries and QUERY in names:  # one query at each place
        queries = [names.index(QUERY)]
    for i in (i for i in beside if kinds[i] in (HEAD, QUERY)):
        found[i] = axes.neutral(i)
    for kind, places in ((QUERY, queries), (HEAD, heads)):
        for number, i in enumerate(places):
            found[i] = f"{kind}_{number}" if len(places) > 1 else kind
    return tuple(found) if len(set(found)) == len(found) else None


def _renumbered(reading: Reading, places: Sequence[int] | Mapping[int, int]) -> Reading:
    """Returns a reading with other numbers: each is what stands at its place."""
    return dataclasses.replace(
        reading,
        queries_after=frozenset(places[n] for n in reading.queries_after),
        keys_after=frozenset(places[n] for n in reading.keys_after),
    )


def _on_grid(weights: AttentionWeights, reading: Reading) -> _Layer:
    """Returns a layer with the axes that its positions lie along.

    What is no position is a head, and is known to be: by its name or by what it is of.
    """
    names = weights.axes
    if reading.problem:
        return _Layer(weights, reading)
    queries: list[tuple[tuple[int, ...], str]] = []
    keys: list[tuple[tuple[int, ...], str]] = []
    strange: list[str] = []
    along = reading.along if len(reading.along) == len(names) else ((),) * len(names)
    of_queries = set(reading.queries)
    for name, labels in zip(names, along, strict=True):
        kind = name.split("_")[0]
        if name == BATCH:
            continue
        if kind == KEY:
            keys.append((labels, name))
        elif labels and of_queries >= set(labels):
            queries.append((labels, name))
            if reading.beside >= set(labels):
                keys.append((labels, name))
        elif kind == QUERY and not (labels and reading.heads >= set(labels)):
            queries.append((labels, name))
        elif kind != HEAD and not (labels and reading.heads >= set(labels)):
            strange.append(name)
    queries.sort()
    keys.sort()
    problem = ""
    if not queries:
        problem = "it has one query for all positions, which is none of them"
    elif strange:
        problem = (
            f"its weights have the axes {', '.join(names)}: it attends within parts of the input"
        )
    elif len(queries) + len(keys) > 2 and (
        sum((labels for labels, _ in queries), ()) != reading.queries
        or sum((labels for labels, _ in keys), ()) != reading.keys
    ):
        problem = "it attends over several axes, of which nobody can tell what they are"
    grid = Grid(*(tuple(name for _, name in found) for found in (queries, keys)))
    return _Layer(weights, dataclasses.replace(reading, problem=problem), grid)


def _in_order(layers: Sequence[_Layer]) -> list[_Layer]:
    """Returns layers so that each stands behind those that it reads from; numbers are changed."""
    before = [y.reading.queries_after | y.reading.keys_after for y in layers]
    order: list[int] = []
    while len(order) < len(layers):
        free = [i for i in range(len(layers)) if i not in order and before[i] <= set(order)]
        order.append(free[0])
    place = {number: i for i, number in enumerate(order)}
    return [
        dataclasses.replace(layers[i], reading=_renumbered(layers[i].reading, place)) for i in order
    ]


def _attending(probe: OfAttention, layers: Sequence[_Layer]) -> tuple[Attending, ...]:
    """Returns what methods see of the layers.

    Raises:
        SelectionError: a layer is part of no stream, or reads what several have written beside
            each other.
    """
    wrong = [y for y in layers if y.reading.problem]
    if wrong:
        good = [y for y in layers if not y.reading.problem]
        raise SelectionError(
            f"{_asked(probe)} follows positions from layer to layer, and {wrong[0].name!r} does "
            f"not fit in: {wrong[0].reading.problem}." + _advice(good)
        )
    numbers: dict[tuple[int, ...], int] = {}
    written: dict[frozenset[int], int] = {}
    found = []
    for i, layer in enumerate(layers):
        reading = layer.reading
        states = []
        for after, labels in (
            (reading.queries_after, reading.queries),
            (reading.keys_after, reading.keys),
        ):
            if after and after not in written:
                beside = [layers[n].name for n in sorted(after)]
                raise SelectionError(
                    f"{_asked(probe)} follows positions from layer to layer, but what "
                    f"{layer.name!r} reads was written by layers beside each other, among "
                    f"{_shown(beside)}: there is no product of these."
                    + _advice(_first_chain(layers))
                )
            writer = written[after] if after else None
            # What was written along other positions, which were regrouped, is no state of these.
            same = writer is not None and layers[writer].reading.queries == labels
            states.append(writer if same else None)
        written[reading.queries_after | {i}] = i
        if reading.queries == reading.keys and states[0] != states[1]:
            raise SelectionError(
                f"{_asked(probe)} follows positions from layer to layer, but {layer.name!r} "
                f"attends from what {_written(layers, states[0])} to what "
                f"{_written(layers, states[1])}, of the same positions: these are two streams, and "
                "it is not known which is meant." + _advice(_first_chain(layers))
            )
        queries, keys = (
            numbers.setdefault(labels, len(numbers)) for labels in (reading.queries, reading.keys)
        )
        found.append(
            Attending(layer.name, layer.names, queries, keys, states[0], states[1], layer.grid)
        )
    return tuple(found)


def _check_one_chain(
    probe: OfAttention, layers: Sequence[_Layer], attending: Sequence[Attending]
) -> None:
    """Refuses layers that do not all lead to the last, or that a method has no rule for.

    Raises:
        SelectionError: they are such; names those that are a chain.
    """
    crossing = [a for a in attending if not a.is_self]
    if crossing and not probe.crosses:
        raise SelectionError(
            f"{_asked(probe)} follows one stream of positions through its self-attention, but "
            f"{_shown([a.name for a in crossing])} {'attends' if len(crossing) == 1 else 'attend'} "
            "from positions to others: to those of "
            "another input, of an encoder, or to a part of their own." + _chains(layers, attending)
        )
    behind = layers_behind(attending, len(layers) - 1)
    apart = [a.name for i, a in enumerate(attending) if i not in behind]
    if apart:
        raise SelectionError(
            f"{_asked(probe)} follows positions from layer to layer, but {_shown(apart)} and "
            f"{attending[-1].name!r} are not on one way: they are of different inputs or branches, "
            "or the positions are pooled, cut, joined with others or turned round between them."
            + _chains(layers, attending)
        )
    batched = {BATCH in y.names for y in layers}
    if len(batched) > 1:
        raise SelectionError(
            f"{_asked(probe)}: some attention weights have an axis of samples, others have none."
        )


def _chains(layers: Sequence[_Layer], attending: Sequence[Attending]) -> str:
    """Says which layers are chains by themselves."""
    groups: list[list[str]] = []
    for i in reversed([i for i, a in enumerate(attending) if a.is_self]):
        own = attending[i].queries
        before = [attending[n] for n in sorted(layers_behind(attending, i))]
        names = [a.name for a in before if a.is_self and a.queries == own]
        if not any(names[-1] in group for group in groups):
            groups.insert(0, names)
    if not groups:
        return _advice([layers[i] for i, a in enumerate(attending) if a.is_self][:1])
    shown = "; ".join(f"select={group}" for group in groups[:4])
    return f" Such make up one: {shown}."


def _first_chain(layers: Sequence[_Layer]) -> list[_Layer]:
    """Returns the first layers that were written one behind the other."""
    found: list[_Layer] = []
    behind: set[int] = set()
    for i, layer in enumerate(layers):
        if layer.reading.queries_after == behind == layer.reading.keys_after:
            found.append(layer)
            behind.add(i)
    return found


def _advice(layers: Sequence[_Layer]) -> str:
    if not layers:
        return " pg.Attention() gives the weights of each layer by itself."
    return f" Select the layers of one chain, for instance select={[y.name for y in layers]}."


def _written(layers: Sequence[_Layer], number: int | None) -> str:
    return "no layer has written" if number is None else f"{layers[number].name!r} has written"


def _asked(probe: OfAttention) -> str:
    return f"pg.{type(probe).__name__}"


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(map(repr, names[:4])) + more


# -- what is made of them ----------------------------------------------------------------------


def _size(layer: _Layer, name: str) -> int | None:
    return layer.shape[layer.names.index(name)]


def _finest(layers: Sequence[_Layer]) -> str:
    """Returns the element type of the result: products of many weights want more than 16 bits."""
    return "float64" if all(y.dtype == "float64" for y in layers) else "float32"


def _weights(probe: OfAttention, layer: _Layer, name: str, dtype: str) -> PlainOutput:
    spec = OutputSpec(name, probe.kind, dtype, layer.shape, layer.names)
    return PlainOutput(spec, layer.weights.plain_ref, probe, layer.names)


def _gradient(probe: GradientProbe, target: TargetPlan, layer: _Layer, name: str) -> GradientOutput:
    spec = OutputSpec(
        name=name,
        kind=probe.kind,
        dtype=layer.dtype,
        shape=layer.shape,
        axes=layer.names,
        layer=layer.point.path,
        call=layer.point.call_index,
        calls=layer.point.calls,
        target=target.spec,
    )
    assert layer.weights.ref is not None  # as those are refused
    return GradientOutput(spec, layer.weights.ref, probe, layer.names)
