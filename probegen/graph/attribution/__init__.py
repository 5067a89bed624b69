"""Attributions as ONNX nodes: one backward pass, and what each method makes of it.

What a method is stands in `probegen.methods`; nothing here knows one of them. The graph may be
any forward graph: there is a value with scores, a target, and tensors to explain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import onnx_ir as ir

from probegen.artefact.manifest import TargetSpec
from probegen.errors import NotDifferentiableError
from probegen.graph.array_operations import OnnxOperations
from probegen.graph.attribution.by_scores import (
    ScoresAtPoints,
    Tensor,
    attribution_by_scores,
    scores_at_points,
)
from probegen.graph.attribution.completeness import Missing, write_missing
from probegen.graph.attribution.sampled import Moved, sampled_gradients
from probegen.graph.attribution.target import parts, seed
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import rank_of
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.step_writer import StepWriter
from probegen.graph.tables import backward_pass
from probegen.graph.tables.base import BackwardPass
from probegen.methods.axes import BATCH, Axes
from probegen.methods.base import GradientProbe, Sized, resized
from probegen.methods.by_scores import ByScores
from probegen.methods.samples import Place
from probegen.methods.tables import Table
from probegen.methods.tokens import Padded


@dataclasses.dataclass(frozen=True)
class Explained:
    """A tensor that an attribution explains.

    Attributes:
        name: of the attribution.
        at: the tensor.
        probe: the method.
        axes: the tensor's axes.
        sized: whose sizes the attribution gets, where it gets those of another.
        together: of a method with `gradients_at`: tensors with one number move together.
        place: which tensor it is, for methods that need to know.
        moved: of a method by scores: the tensors that it changes.
        groups: the input `groups`, where the method asked for it.
        classes_at: the axis of the attribution that several classes lie along, where they do.
        classes: the name of what says which classes those are; None where nothing does.
        padded: what says where the attribution is padding; None where that is not known.
        value: the tensor that it is an attribution of, where the gradient is taken at another.
    """

    name: str
    at: ir.Value
    probe: GradientProbe
    axes: Axes
    together: int = 0
    place: Place = dataclasses.field(default_factory=Place)
    moved: tuple[Tensor, ...] = ()
    groups: ir.Value | None = None
    classes_at: int = 1
    classes: str | None = None
    sized: Sized[ir.Value] | None = None
    padded: Padded[ir.Value] | None = None
    value: ir.Value | None = None


def write_attributions(
    builder: Builder,
    target: TargetSpec,
    scores: ir.Value,
    wanted: Sequence[Explained],
    request: ir.Value | None,
    table: Table | None = None,
    holding: Mapping[ir.Value, int] | None = None,
    missing: Sequence[Missing] = (),
    region: ir.Value | None = None,
) -> dict[str, ir.Value]:
    """Writes all attributions that share one target and one way back to it.

    A target of several classes or steps is one Scan over them, whose body holds the backward pass
    of one: the graph does not grow with their number. Methods by scores run the model at their
    points before it, once for all classes.

    Args:
        builder: where the nodes go; its graph holds the forward pass.
        target: what is differentiated.
        scores: the value it is taken from: the model's scores, or a callable's `[batch]`.
        wanted: the attributions.
        request: the int32 `[batch]` targets chosen at request time, where the target is.
        table: what the backward pass is made of; None for gradients.
        holding: inputs of the graph that hold samples, of any number -> the axis of the samples;
            none where the graph is written for a fixed number.
        missing: what some attributions have to sum up to, where it is asked what is missing to it.
        region: what each position of the scores counts, of their element type and with an axis of
            size 1 for the classes; None where each counts one.

    Returns:
        Name of the attribution -> value; and of the classes that are explained and of what is
        missing to completeness, where they are asked for.

    Raises:
        UnsupportedOpsError: an operator on the way has no gradient.
        NotDifferentiableError: no gradient flows from the target to a tensor.
    """
    backward, holding = backward_pass(table), holding or {}
    if not target.several:
        chosen = seed(builder, target, scores, request, region)
        return _of_seed(builder, scores, chosen, wanted, backward, holding, missing)
    classes, seed_of = parts(builder, target, scores, request, region)
    at_points = {
        w.name: scores_at_points(
            builder,
            w.probe,
            Tensor(w.at, w.axes),
            w.moved,
            scores,
            classes,
            seed_of,
            holding,
            w.groups,
        )
        for w in wanted
        if isinstance(w.probe, ByScores)
    }
    loop = StepWriter(builder)
    loop.body.forward = builder.forward
    chosen = seed_of(loop.body, loop.read(classes, backwards=False))
    known = {
        name: dataclasses.replace(of_all, values=loop.read(of_all.values, backwards=False))
        for name, of_all in at_points.items()
    }
    each = _of_seed(loop.body, scores, chosen, wanted, backward, holding, missing, known)
    places = {w.name: w.classes_at for w in wanted}
    places.update((m.names[0], int(BATCH in m.explained.axes)) for m in missing)
    results = [Collected(each[name], backwards=False) for name in places]
    _, stacked = loop.finish([], results, invariant=True)
    found = {
        name: _moved_axis(builder, value, at)
        for (name, at), value in zip(places.items(), stacked, strict=True)
    }
    for m in missing:
        found.update(dict.fromkeys(m.names, found[m.names[0]]))
    for one in wanted:
        if one.classes is not None:
            whole = _moved_axis(builder, builder.cast(classes, ir.DataType.INT32), 1)
            single = range(2, rank_of(whole)) if target.layer is not None else ()
            found[one.classes] = builder.squeeze(whole, list(single)) if single else whole
    return found


def _of_seed(
    builder: Builder,
    scores: ir.Value,
    chosen: ir.Value,
    wanted: Sequence[Explained],
    backward: BackwardPass,
    holding: Mapping[ir.Value, int],
    missing: Sequence[Missing],
    known: Mapping[str, ScoresAtPoints] = MappingProxyType({}),
) -> dict[str, ir.Value]:
    """Writes the attributions of one class, with one backward pass; returns them by name.

    Args:
        builder: where the nodes go; its `forward` graph holds the forward pass.
        scores: the value that the target is taken from.
        chosen: the gradient of the target with respect to the scores.
        wanted: the attributions.
        backward: writes the backward pass.
        holding: see `write_attributions`.
        missing: see `write_attributions`.
        known: of methods by scores, the scores at all points where they are known.
    """
    seeds = {scores: chosen}
    flow = {w.name: w.at for w in wanted if not w.probe.needs_gradient}
    local = [w for w in wanted if w.probe.gradients_at() is None and w.name not in flow]
    about = {w.at: w.place for w in local}
    arrived: dict[tuple[ir.Value, int], ir.Value | None] = {}
    for number in dict.fromkeys(w.together for w in local):
        places = list(dict.fromkeys(w.at for w in local if w.together == number))
        found = backward(builder, seeds, places, about)
        arrived.update(((p, number), v) for p, v in zip(places, found, strict=True))
    for one in local:
        gradient = arrived[one.at, one.together]
        if gradient is None:
            raise NotDifferentiableError(
                f"no gradient flows from the target to what {one.name!r} explains."
            )
        flow[one.name] = gradient
    for together in _moved_together(wanted):
        moved = [
            Moved(w.at, w.place, s) for w in together if (s := w.probe.gradients_at()) is not None
        ]
        chunk = together[0].probe.moves_with.chunk
        made = sampled_gradients(builder, seeds, moved, backward, holding, chunk)
        flow.update(zip((w.name for w in together), made, strict=True))
    ops = OnnxOperations(builder)
    attributions = {
        w.name: attribution_by_scores(
            builder,
            w.probe,
            Tensor(w.at, w.axes),
            w.moved,
            scores,
            chosen,
            holding,
            w.groups,
            known=known.get(w.name),
        )
        if isinstance(w.probe, ByScores)
        else w.probe.attribution(ops, flow[w.name], w.value or w.at, w.axes, w.padded)
        for w in wanted
    }
    results = {w.name: resized(ops, attributions[w.name], w.sized) for w in wanted}
    for m in missing:
        results.update(write_missing(builder, m, results, scores, chosen, holding))
    return results


def _moved_axis(builder: Builder, value: ir.Value, to: int) -> ir.Value:
    """Writes a value with its first axis at another place."""
    order = list(range(1, rank_of(value)))
    order.insert(to, 0)
    return builder.transpose(value, order) if to else value


def _moved_together(wanted: Iterable[Explained]) -> list[list[Explained]]:
    together: dict[int, list[Explained]] = {}
    for one in wanted:
        if one.probe.gradients_at() is not None:
            together.setdefault(one.together, []).append(one)
    return list(together.values())
