"""A source's reference, with the outputs of tables of rules computed by the witness."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.artefact.manifest import COMPLETENESS, Manifest, OutputSpec
from probegen.artefact.seeds import seeds
from probegen.errors import ExportError, VerificationError
from probegen.graph.assemble import DEFAULT_OPSET
from probegen.graph.core.held_masks import held_masks
from probegen.graph.core.marks import MARK_DOMAIN, STOP_GRADIENT
from probegen.graph.core.queries import depending_on
from probegen.graph.forward import ForwardGraph
from probegen.graph.passes import prepare
from probegen.graph.passes.before.drop_fixed_states import drop_fixed_states
from probegen.graph.passes.before.mark_hard_sigmoids import mark_hard_sigmoids
from probegen.graph.passes.before.name_open_sizes import name_open_sizes
from probegen.graph.passes.before.transpose_before_functions import transpose_before_functions
from probegen.graph.passes.tidy import make_names_unique
from probegen.methods.baselines import Baseline, baseline_of, count_of, is_several, written
from probegen.methods.numpy_operations import NumpyOperations
from probegen.methods.samples import NumpyWalk, Place
from probegen.methods.tables import (
    DeconvolvedRectifiers,
    GuidedRectifiers,
    Relevance,
    RescaledDifferences,
)
from probegen.parity.comparison import NOISE_FACTOR
from probegen.parity.completeness import missing_of
from probegen.parity.noise import noisy_feeds
from probegen.parity.witness.forward import ForwardValues
from probegen.parity.witness.rectifiers import rectified
from probegen.parity.witness.relevance import Propagated
from probegen.parity.witness.rescale import Rescaled
from probegen.parity.witness.walk import STOPS, UnknownNode, backwards
from probegen.plan.completeness import residuals_of
from probegen.plan.plan import (
    GradientGroup,
    GradientOutput,
    Plan,
    TensorRef,
    moved_together,
    samples_of,
)
from probegen.sources.base import (
    MovedScores,
    Noise,
    Program,
    Reference,
    Source,
    WrappedReference,
)
from probegen.sources.changed_scores import ScoresAt
from probegen.sources.class_by_class import class_by_class
from probegen.sources.preprocessed import PreprocessedReference, PreprocessedSource

Array = npt.NDArray[Any]

#: What the certificate says outputs of tables were compared with.
WITNESS = (
    "a second computation of the method, by numpy on the forward graph, whose predictions are "
    "those of the source model"
)
#: By how much, relative to the largest, predictions of the forward graph may be off.
_SAME = {"float16": 5e-2, "bfloat16": 2e-1}
#: Pairs of noise that are tried where some are.
_PAIRS = 3


@dataclasses.dataclass(frozen=True)
class Asked:
    """The backward passes that the witness is asked for of one group.

    Attributes:
        forward: the forward pass.
        values: all its tensors.
        group: the target, the table and the outputs.
        scores: the value that the target is taken from.
        places: the tensors that are explained; with a table that starts from a baseline, those
            that move together.
        seeds: for each class that is explained, ones where an entry of the scores is summed up.
        feed: the inputs.
        about: what is known of the places.
    """

    forward: ForwardValues
    values: dict[ir.Value, Array]
    group: GradientGroup
    scores: ir.Value
    places: list[ir.Value]
    seeds: Sequence[Array]
    feed: Mapping[str, Array]
    about: Mapping[ir.Value, Place]


#: Computes what arrives at each place, for each of the seeds.
Computation = Callable[[Asked], list[dict[ir.Value, Array]]]


def _rectified(asked: Asked, *, guided: bool) -> list[dict[ir.Value, Array]]:
    rule = rectified(guided=guided)
    return [
        backwards(
            asked.forward, asked.values, {asked.scores: seed}, asked.places, rule, into_bodies=True
        )
        for seed in asked.seeds
    ]


def _rescaled(asked: Asked) -> list[dict[ir.Value, Array]]:
    """Returns attributions: each multiplier times the difference, the mean over baselines."""
    table = asked.group.table
    baseline = table.baseline if isinstance(table, RescaledDifferences) else 0.0
    found: list[dict[ir.Value, Array]] = [{} for _ in asked.seeds]
    count = count_of(baseline, [asked.about[p] for p in asked.places])
    for k in range(count or 1):
        start = {p: _start(asked, baseline, p, k) for p in asked.places}
        for sums, each in zip(found, _rescaled_from(asked, start), strict=True):
            for place, attribution in each.items():
                sums[place] = sums.get(place, 0.0) + attribution / (count or 1)
    return found


def _start(asked: Asked, baseline: Baseline, place: ir.Value, number: int) -> Array:
    """Returns one of the baselines of a tensor in its shape."""
    about, value = asked.about[place], asked.values[place]
    start = written(NumpyOperations(), baseline, value, about)
    if is_several(baseline_of(baseline, about), about):
        start = np.asarray(start)[number]
    return np.broadcast_to(np.asarray(start, np.float64), value.shape)


def _rescaled_from(asked: Asked, start: Mapping[ir.Value, Array]) -> list[dict[ir.Value, Array]]:
    """Returns the attributions from one baseline, for each of the seeds."""
    places, moved = list(start), dict(start)
    for node in held_masks(asked.forward.graph, places):
        moved.update((v, asked.values[v]) for v in node.outputs)
    there = asked.forward.at(asked.feed, moved)
    reached = depending_on(asked.forward.graph, places)
    changed = {v: a for v, a in there.items() if v in reached}
    rule = Rescaled(asked.values, changed, frozenset(places))
    stops = STOPS - {f"{MARK_DOMAIN}::{STOP_GRADIENT}"}
    multipliers = [
        backwards(
            asked.forward,
            asked.values,
            {asked.scores: seed},
            places,
            rule,
            stops,
            into_bodies=True,
        )
        for seed in asked.seeds
    ]
    return [{p: m * (asked.values[p] - start[p]) for p, m in each.items()} for each in multipliers]


def _propagated(asked: Asked) -> list[dict[ir.Value, Array]]:
    """Returns relevance, which starts as the score itself."""
    table, scores = asked.group.table, asked.values[asked.scores]
    if not isinstance(table, Relevance):
        return []
    rule = Propagated.over(table, asked.forward, asked.places)
    return [
        backwards(
            asked.forward,
            asked.values,
            {asked.scores: seed * scores},
            asked.places,
            rule,
            into_bodies=True,
        )
        for seed in asked.seeds
    ]


#: Name of a table -> its second computation.
COMPUTATIONS: Mapping[str, Computation] = {
    GuidedRectifiers.name: functools.partial(_rectified, guided=True),
    DeconvolvedRectifiers.name: functools.partial(_rectified, guided=False),
    RescaledDifferences.name: _rescaled,
    Relevance.name: _propagated,
}


def tables_last(plan: Plan) -> Plan:
    """Returns a plan with its groups of gradients before those of tables."""
    groups = sorted(plan.groups, key=lambda g: g.table is not None)
    return dataclasses.replace(plan, groups=tuple(groups))


def reference_of(program: Program) -> Reference:
    """Returns what an artefact is verified against.

    Args:
        program: its plan has the groups of tables last, see `tables_last`.

    Raises:
        VerificationError: a method has a backward pass that nothing else computes; names it.
    """
    if isinstance(program.source, PreprocessedSource):
        behind = program.source.inside(program.plan)
        return PreprocessedReference(reference_of(behind), program.source)
    plan = program.plan
    tables = tuple(g for g in plan.groups if g.table is not None)
    complete = any(residuals_of(group) for group in plan.groups)
    if not tables and not complete:
        return program.source.reference(plan)
    for group in tables:
        if group.table is not None and group.table.name not in COMPUTATIONS:
            raise VerificationError(
                f"pg.{type(group.outputs[0].probe).__name__} {group.table.described()}, which is "
                "no slope of the scores: there is nothing to compare it with. verify=False "
                "(--no-verify) leaves the comparison out."
            )
    gradients = tuple(g for g in plan.groups if g.table is None)
    names = {spec.name for spec in _specs_of(tables)}
    others = [o for o in plan.manifest.outputs if o.name not in names and o.kind != COMPLETENESS]
    inner = program.source.reference(
        dataclasses.replace(plan, groups=gradients, manifest=_with_outputs(plan.manifest, others))
    )
    return WithWitness(inner, program.source, plan, tables)


def _specs_of(groups: Iterable[GradientGroup]) -> list[OutputSpec]:
    """Returns the outputs of groups, with those that come beside them."""
    return [s for g in groups for o in g.outputs for s in (o.spec, *o.beside)]


def _with_outputs(described: Manifest, outputs: list[OutputSpec]) -> Manifest:
    return described.replace(outputs=tuple(outputs))


@dataclasses.dataclass(frozen=True)
class _Run:
    """One run of a forward graph.

    Attributes:
        graph: the graph.
        forward: runs it.
        values: all its tensors.
        feed: the inputs.
        target: the targets asked for, where they are.
    """

    graph: ForwardGraph
    forward: ForwardValues
    values: dict[ir.Value, Array]
    feed: Mapping[str, Array]
    target: Array | None


class WithWitness(WrappedReference):
    """A source's reference with the outputs of tables, and what is missing to completeness."""

    def __init__(
        self, inner: Reference, source: Source, plan: Plan, tables: tuple[GradientGroup, ...]
    ) -> None:
        super().__init__(inner)
        self._source, self._asked = source, plan
        self._specs = {spec.name: spec for spec in _specs_of(tables)}
        missing = {o.name: o for o in plan.manifest.outputs if o.kind == COMPLETENESS}
        more = {**self._specs, **missing}
        self.plan = dataclasses.replace(
            inner.plan,
            groups=(*inner.plan.groups, *tables),
            manifest=_with_outputs(
                inner.plan.manifest, [*inner.plan.manifest.outputs, *more.values()]
            ),
        )
        #: Whether what makes one layer is joined -> the groups that such a forward pass is for.
        self._groups = {
            True: tuple(g for g in tables if _is_by_layers(g)),
            False: tuple(
                g
                for g in plan.groups
                if (g.table is not None and not _is_by_layers(g)) or residuals_of(g)
            ),
        }
        self._forwards: dict[bool, tuple[ForwardGraph, ForwardValues]] = {}

    def explanations(
        self, feed: Mapping[str, Array], target: Array | None, noise: Noise | None = None
    ) -> dict[str, Array]:
        """Returns all outputs of the plan.

        Raises:
            VerificationError: they cannot be computed.
        """
        found = dict(self._inner.explanations(feed, target, noise))
        untouched = self._inner.predictions(feed)[0]
        for by_layers in (True, False):
            groups = self._groups[by_layers]
            if not groups:
                continue
            graph, forward = self._forward(by_layers)
            run = _Run(graph, forward, forward.near(feed, noise), feed, target)
            if noise is None:
                self._check_predictions(run, untouched)
            for group, scores in zip(groups, graph.targets, strict=True):
                if group.table is not None and _is_by_layers(group) == by_layers:
                    found.update(_of_group(run, group, scores))
            if not by_layers:  # of all attributions, which are there by now
                for group, scores in zip(groups, graph.targets, strict=True):
                    found.update(_missing(run, group, scores, found))
        return found

    def _forward(self, by_layers: bool) -> tuple[ForwardGraph, ForwardValues]:
        """Returns the forward pass as written, functions of one tensor in one layout.

        By layers with what makes one layer joined.
        """
        if by_layers not in self._forwards:
            self._forwards[by_layers] = self._opened(by_layers)
        return self._forwards[by_layers]

    def _opened(self, by_layers: bool) -> tuple[ForwardGraph, ForwardValues]:
        predictions = [o for o in self._asked.manifest.outputs if o.kind == "prediction"]
        outputs = [*predictions, *self._specs.values()]
        plan = dataclasses.replace(
            self._asked,
            plain=(),
            groups=self._groups[by_layers],
            manifest=_with_outputs(self._asked.manifest, outputs),
        )
        try:
            graph = self._source.forward_graph(plan, DEFAULT_OPSET, self._source.batch)
            if by_layers:
                prepare(graph.model, keep_layers=True)
            else:  # where a function is in one layout, it is told as in the artefact
                name_open_sizes(graph.model)
                transpose_before_functions(graph.model)
                mark_hard_sigmoids(graph.model)
                drop_fixed_states(graph.model)  # so are functions with constants, inside of loops
                make_names_unique(graph.model)
            return graph, ForwardValues(graph)
        except ExportError as error:
            raise VerificationError(f"the forward pass cannot be run alone: {error}") from error

    def _check_predictions(self, run: _Run, untouched: Mapping[str, Array]) -> None:
        """Checks that the forward graph computes what the untouched model does.

        Of a few samples they may be apart by what noise moves the model's own predictions: near a
        jump, or where a function of a huge number turns many times.

        Raises:
            VerificationError: it does not.
        """
        allowed = _SAME.get(self.computed_in, 1e-3)
        found: list[Array] | None = None
        pairs = zip(run.graph.predictions, untouched.values(), strict=True)
        for place, (value, right) in enumerate(pairs):
            if right.dtype.kind not in "fV":
                continue
            wide = right.astype(np.float64)
            off = _apart_by_rows(np.asarray(run.values[value], np.float64), wide)
            most = allowed * max(1e-3, np.abs(wide[np.isfinite(wide)]).max(initial=0.0))
            if off.max(initial=0.0) <= most:
                continue
            found = self._moved_by_noise(run.feed, untouched) if found is None else found
            steady = off <= most
            if not (steady.mean() > 0.5 and (steady | (off <= NOISE_FACTOR * found[place])).all()):
                fault = (
                    "the forward graph, on which the second computation runs, does not predict "
                    f"what the model does: {off.max():.1e} apart."
                )
                raise VerificationError(" ".join([fault, self._inner.remark(run.feed)]).strip())

    def _moved_by_noise(
        self, feed: Mapping[str, Array], untouched: Mapping[str, Array]
    ) -> list[Array]:
        """Returns what noise moves each sample of each of the model's own predictions by."""
        rng = np.random.default_rng(0)
        moved = [np.zeros(len(y) if y.ndim else 1) for y in untouched.values()]
        for _ in range(_PAIRS):
            for noisy in noisy_feeds(feed, self.computed_in, rng, zeros=False):
                answers = self._inner.predictions(noisy)[0]
                moved = [
                    np.maximum(known, _apart_by_rows(answers[name].astype(np.float64), right))
                    if right.dtype.kind in "fV"
                    else known
                    for known, (name, right) in zip(moved, untouched.items(), strict=True)
                ]
        return moved

    def computed_by(self, name: str) -> str:
        """Returns what computes an output, for the certificate."""
        return WITNESS if name in self._specs else self._inner.computed_by(name)

    def raw_name(self, output: GradientOutput) -> str | None:
        """Returns what the gradient is called that an output is made of; none for tables."""
        return None if output.spec.name in self._specs else self._inner.raw_name(output)

    def moved_scores(self) -> MovedScores | None:
        """Returns what a third witness moves tensors in; it knows the scores of tables as well."""
        if not self._specs:
            return self._inner.moved_scores()
        try:
            return self._moved
        except Exception:  # a witness that cannot be called proves nothing
            return None

    @functools.cached_property
    def _moved(self) -> MovedScores:
        return self._source.moved_scores(self._asked)


def _apart_by_rows(got: Array, right: Array) -> Array:
    """Returns how far each sample is off where what is right is finite."""
    wide = right.astype(np.float64)
    with np.errstate(invalid="ignore"):
        off = np.where(np.isfinite(wide), np.abs(got - wide), 0.0)
    off = np.where(np.isnan(off), np.inf, off)
    return np.asarray(off.reshape(len(off) if off.ndim else 1, -1).max(axis=1, initial=0.0))


def _is_by_layers(group: GradientGroup) -> bool:
    return group.table is not None and group.table.by_layers


def _of_group(run: _Run, group: GradientGroup, scores: ir.Value) -> dict[str, Array]:
    """Returns the outputs of a group with a table."""
    of_seeds = functools.partial(_of_seeds, run, group, scores)
    return class_by_class(group, run.values[scores], run.target, run.feed, of_seeds)


def _of_seeds(
    run: _Run, group: GradientGroup, scores: ir.Value, chosen: Sequence[Array]
) -> list[dict[str, Array]]:
    """Returns the outputs of a group with a table, of each class.

    Raises:
        VerificationError: a node on the way has no rule.
    """
    made: list[dict[str, Array]] = [{} for _ in chosen]
    known: dict[tuple[ir.Value, ...], list[dict[ir.Value, Array]]] = {}
    # Each set of places that moves together has attributions of its own.
    local = [o for o in group.outputs if not o.probe.moves_tensors]
    for outputs in [*([local] if local else []), *moved_together(group)]:
        if outputs[0].probe.gradients_at() is not None:
            for found, by_name in zip(
                made, _over_points(run, group, scores, chosen, outputs), strict=True
            ):
                for o in outputs:
                    arrived = {run.graph.sources[o.ref]: by_name[o.spec.name]}
                    found[o.spec.name] = _attribution(run, o, arrived)
            continue
        places = tuple(dict.fromkeys(run.graph.sources[o.ref] for o in outputs))
        if places not in known:
            known[places] = _arrived(run, group, scores, chosen, outputs)
        for found, of_class in zip(made, known[places], strict=True):
            found.update((o.spec.name, _attribution(run, o, of_class)) for o in outputs)
    return made


def _over_points(
    run: _Run,
    group: GradientGroup,
    scores: ir.Value,
    chosen: Sequence[Array],
    outputs: Sequence[GradientOutput],
) -> list[dict[str, Array]]:
    """Returns what outputs make of what arrives at the points of their method, of each class.

    Raises:
        VerificationError: a node on the way has no rule.
    """
    at = [run.graph.sources[o.ref] for o in outputs]
    found = samples_of(outputs)
    walks = [
        [
            NumpyWalk(samples, run.values[place], o.place)
            for place, o, samples in zip(at, outputs, found, strict=True)
        ]
        for _ in chosen
    ]
    first = {place: walks[0][at.index(place)] for place in dict.fromkeys(at)}
    held = {v: run.values[v] for n in held_masks(run.forward.graph, at) for v in n.outputs}
    for there in zip(*(walk.points() for walk in first.values()), strict=True):
        points = dict(zip(first, there, strict=True))
        moved = {place: point.at for place, point in points.items()}
        here = dataclasses.replace(run, values=run.forward.at(run.feed, {**held, **moved}))
        arrived = _arrived(here, group, scores, chosen, outputs)
        for of_class, by_place in zip(walks, arrived, strict=True):
            for place, walk in zip(at, of_class, strict=True):
                walk.add(by_place[place], points[place])
    return [
        {o.spec.name: walk.finished() for o, walk in zip(outputs, of_class, strict=True)}
        for of_class in walks
    ]


def _attribution(run: _Run, output: GradientOutput, of_class: Mapping[ir.Value, Array]) -> Array:
    """Returns an output, given what arrives at each place."""
    at = run.graph.sources[output.ref]
    padded = output.padded(lambda ref: run.values[run.graph.sources[ref]])
    value = run.values[at]
    made = output.probe.attribution(NumpyOperations(), of_class[at], value, output.axes, padded)
    return np.asarray(made).astype(output.spec.dtype)


def _arrived(
    run: _Run,
    group: GradientGroup,
    scores: ir.Value,
    chosen: Sequence[Array],
    outputs: Sequence[GradientOutput],
) -> list[dict[ir.Value, Array]]:
    """Returns what arrives at the places of some outputs, which move together, of each class.

    Raises:
        VerificationError: a node on the way has no rule.
    """
    assert group.table is not None
    sources = run.graph.sources
    places = list(dict.fromkeys(sources[o.ref] for o in outputs))
    about = {sources[o.ref]: o.place for o in outputs}
    asked = Asked(run.forward, run.values, group, scores, places, chosen, run.feed, about)
    try:
        return COMPUTATIONS[group.table.name](asked)
    except UnknownNode as error:
        layer = run.graph.layer_of(error.node)
        method = type(group.outputs[0].probe).__name__
        raise VerificationError(
            f"pg.{method} cannot be verified here: its second computation, by numpy, has no "
            f"rule for {error}{f' in layer {layer!r}' if layer else ''}. verify=False "
            "(--no-verify) leaves the comparison out."
        ) from error


def _missing(
    run: _Run, group: GradientGroup, of: ir.Value, found: Mapping[str, Array]
) -> dict[str, Array]:
    """Returns what is missing to completeness, by runs of the forward graph at the reference."""
    weights, values, sources = group.target.weights(run.feed), run.values, run.graph.sources
    chosen = seeds(values[of], group.target.spec, run.target, weights)
    missing: dict[str, Array] = {}
    for residual in residuals_of(group):
        holds = residual.probe.holds_masks

        def scores(_: Any, shifts: Mapping[TensorRef, Array], holds: bool = holds) -> Array:
            moved = {sources[r]: values[sources[r]] + s for r, s in shifts.items()}
            for node in held_masks(run.forward.graph, list(moved)) if holds else ():
                moved.update((v, values[v]) for v in node.outputs)
            return (run.forward.at(run.feed, moved) if moved else values)[of]

        tensors = {r: values[sources[r]] for r in residual.gained.refs}
        at = ScoresAt(scores, run.feed, (), together=False)
        missing.update(missing_of(residual, found, tensors, at, chosen))
    return missing
