"""A source's reference, with the outputs of tables of rules computed by the witness."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
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
from probegen.methods.baselines import Baseline, baseline_of, count_of, is_several, written
from probegen.methods.numpy_operations import NumpyOperations
from probegen.methods.samples import Place
from probegen.methods.tables import (
    DeconvolvedRectifiers,
    GuidedRectifiers,
    Relevance,
    RescaledDifferences,
)
from probegen.parity.completeness import missing_of
from probegen.parity.witness.forward import ForwardValues
from probegen.parity.witness.rectifiers import rectified
from probegen.parity.witness.relevance import Propagated
from probegen.parity.witness.rescale import Rescaled
from probegen.parity.witness.walk import STOPS, UnknownNode, backwards
from probegen.plan.completeness import residuals_of
from probegen.plan.plan import GradientGroup, GradientOutput, Plan, TensorRef, moved_together
from probegen.sources.base import MovedScores, Program, Reference, Source
from probegen.sources.class_by_class import class_by_class

Array = npt.NDArray[Any]

#: What the certificate says outputs of tables were compared with.
WITNESS = (
    "a second computation of the method, by numpy on the forward graph, whose predictions are "
    "those of the source model"
)
#: By how much, relative to the largest, predictions of the forward graph may be off.
_SAME = {"float16": 5e-2, "bfloat16": 2e-1}


@dataclasses.dataclass(frozen=True)
class Asked:
    """One backward pass that the witness is asked for.

    Attributes:
        forward: the forward pass.
        values: all its tensors.
        group: the target, the table and the outputs.
        scores: the value that the target is taken from.
        places: the tensors that are explained.
        seeds: ones where an entry of the scores is summed up.
        feed: the inputs.
        together: the places that move together, for tables that start from a baseline.
        about: what is known of the places.
    """

    forward: ForwardValues
    values: dict[ir.Value, Array]
    group: GradientGroup
    scores: ir.Value
    places: list[ir.Value]
    seeds: Array
    feed: Mapping[str, Array]
    together: list[list[ir.Value]]
    about: Mapping[ir.Value, Place]


#: Computes what arrives at each place.
Computation = Callable[[Asked], dict[ir.Value, Array]]


def _rectified(asked: Asked, *, guided: bool) -> dict[ir.Value, Array]:
    rule = rectified(asked.values, guided=guided)
    return backwards(asked.forward, asked.values, {asked.scores: asked.seeds}, asked.places, rule)


def _rescaled(asked: Asked) -> dict[ir.Value, Array]:
    """Returns attributions: each multiplier times the difference, the mean over baselines."""
    table = asked.group.table
    baseline = table.baseline if isinstance(table, RescaledDifferences) else 0.0
    found: dict[ir.Value, Array] = {}
    for places in asked.together:
        about = {p: asked.about[p] for p in places}
        count = count_of(baseline, list(about.values()))
        for k in range(count or 1):
            each = _rescaled_from(asked, {p: _start(asked, baseline, p, k) for p in places})
            for place, attribution in each.items():
                found[place] = found.get(place, 0.0) + attribution / (count or 1)
    return found


def _start(asked: Asked, baseline: Baseline, place: ir.Value, number: int) -> Array:
    """Returns one of the baselines of a tensor in its shape."""
    about, value = asked.about[place], asked.values[place]
    start = written(NumpyOperations(), baseline, value, about)
    if is_several(baseline_of(baseline, about), about):
        start = np.asarray(start)[number]
    return np.broadcast_to(np.asarray(start, np.float64), value.shape)


def _rescaled_from(asked: Asked, start: Mapping[ir.Value, Array]) -> dict[ir.Value, Array]:
    """Returns the attributions from one baseline."""
    places, moved = list(start), dict(start)
    for node in held_masks(asked.forward.graph, places):
        moved.update((v, asked.values[v]) for v in node.outputs)
    there = asked.forward.at(asked.feed, moved)
    reached = depending_on(asked.forward.graph, places)
    rule = Rescaled(asked.values, {v: a for v, a in there.items() if v in reached})
    multipliers = backwards(
        asked.forward,
        asked.values,
        {asked.scores: asked.seeds},
        places,
        rule,
        stops=STOPS - {f"{MARK_DOMAIN}::{STOP_GRADIENT}"},
    )
    return {p: m * (asked.values[p] - start[p]) for p, m in multipliers.items()}


def _propagated(asked: Asked) -> dict[ir.Value, Array]:
    """Returns relevance, which starts as the score itself."""
    table = asked.group.table
    if not isinstance(table, Relevance):
        return {}
    rule = Propagated.over(table, asked.forward, asked.values, asked.places)
    start = {asked.scores: asked.seeds * asked.values[asked.scores]}
    return backwards(asked.forward, asked.values, start, asked.places, rule)


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


def _by_layers(groups: Iterable[GradientGroup], by_layers: bool) -> tuple[GradientGroup, ...]:
    return tuple(g for g in groups if g.table is not None and g.table.by_layers == by_layers)


def _with_outputs(described: Manifest, outputs: list[OutputSpec]) -> Manifest:
    return described.replace(outputs=tuple(outputs))


class WithWitness:
    """Wraps a source's reference; see `sources.base.Reference`."""

    def __init__(
        self, inner: Reference, source: Source, plan: Plan, tables: tuple[GradientGroup, ...]
    ) -> None:
        self._inner, self._source, self._asked, self._tables = inner, source, plan, tables
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
        self.sizes = inner.sizes
        self.computed_in = inner.computed_in
        self.gradients_by = inner.gradients_by

    # -- the outputs of tables -------------------------------------------------------------

    def explanations(self, feed: Mapping[str, Array], target: Array | None) -> dict[str, Array]:
        """Returns all outputs of the plan.

        Raises:
            VerificationError: they cannot be computed.
        """
        found = dict(self._inner.explanations(feed, target))
        for by_layers in (False, True):
            groups = _by_layers(self._tables, by_layers)
            if groups:
                graph, forward = self._forward(by_layers)
                values = forward.at(feed)
                self._check_predictions(graph, values, feed)
                for group, scores in zip(groups, graph.targets, strict=True):
                    found.update(
                        self._of_group(graph, forward, values, group, scores, target, feed)
                    )
        return {**found, **self._missing(found, feed, target)}

    def _missing(
        self, found: Mapping[str, Array], feed: Mapping[str, Array], target: Array | None
    ) -> dict[str, Array]:
        """Returns what is missing to completeness, by runs of the forward graph at the reference.

        Raises:
            VerificationError: the graph cannot be run.
        """
        if not self._complete:
            return {}
        graph, forward = self._forward_of_complete
        values = forward.at(feed)
        self._check_predictions(graph, values, feed)
        missing: dict[str, Array] = {}
        for group, scores in zip(self._complete, graph.targets, strict=True):
            weights = group.target.weights(feed)
            chosen = seeds(values[scores], group.target.spec, target, weights)
            for residual in residuals_of(group):
                tensors = {r: values[graph.sources[r]] for r in residual.gained.refs}
                holds = residual.probe.holds_masks

                def scores_at(
                    shifts: Mapping[TensorRef, Array],
                    scores: ir.Value = scores,
                    holds: bool = holds,
                ) -> Array:
                    moved = {
                        graph.sources[r]: values[graph.sources[r]] + s for r, s in shifts.items()
                    }
                    for node in held_masks(forward.graph, list(moved)) if holds else ():
                        moved.update((v, values[v]) for v in node.outputs)
                    return (forward.at(feed, moved) if moved else values)[scores]

                missing.update(missing_of(residual, found, tensors, scores_at, chosen))
        return missing

    @functools.cached_property
    def _complete(self) -> tuple[GradientGroup, ...]:
        return tuple(group for group in self._asked.groups if residuals_of(group))

    @functools.cached_property
    def _forward_of_complete(self) -> tuple[ForwardGraph, ForwardValues]:
        return self._opened(self._complete)

    def _of_group(
        self,
        graph: ForwardGraph,
        forward: ForwardValues,
        values: dict[ir.Value, Array],
        group: GradientGroup,
        scores: ir.Value,
        target: Array | None,
        feed: Mapping[str, Array],
    ) -> dict[str, Array]:
        return class_by_class(
            group,
            values[scores],
            target,
            feed,
            lambda seed: self._of_seed(graph, forward, values, group, scores, seed, feed),
        )

    def _of_seed(
        self,
        graph: ForwardGraph,
        forward: ForwardValues,
        values: dict[ir.Value, Array],
        group: GradientGroup,
        scores: ir.Value,
        chosen: Array,
        feed: Mapping[str, Array],
    ) -> dict[str, Array]:
        """Returns the attributions of one class."""
        places = list(dict.fromkeys(graph.sources[o.ref] for o in group.outputs))
        together = [
            list(dict.fromkeys(graph.sources[o.ref] for o in outputs))
            for outputs in moved_together(group)
        ]
        about = {graph.sources[o.ref]: o.place for o in group.outputs}
        asked = Asked(forward, values, group, scores, places, chosen, feed, together, about)
        if group.table is None:
            return {}
        try:
            arrived = COMPUTATIONS[group.table.name](asked)
        except UnknownNode as error:
            layer = graph.layer_of(error.node)
            method = type(group.outputs[0].probe).__name__
            raise VerificationError(
                f"pg.{method} cannot be verified here: its second computation, by numpy, has no "
                f"rule for {error}{f' in layer {layer!r}' if layer else ''}. verify=False "
                "(--no-verify) leaves the comparison out."
            ) from error
        ops = NumpyOperations()
        return {
            o.spec.name: np.asarray(
                o.probe.combine(
                    ops, arrived[graph.sources[o.ref]], values[graph.sources[o.ref]], o.axes
                )
            ).astype(o.spec.dtype)
            for o in group.outputs
        }

    def _forward(self, by_layers: bool) -> tuple[ForwardGraph, ForwardValues]:
        """Returns the forward pass as written; by layers with what makes one layer joined."""
        if by_layers not in self._forwards:
            groups = _by_layers(self._tables, by_layers)
            self._forwards[by_layers] = self._opened(groups, by_layers)
        return self._forwards[by_layers]

    @functools.cached_property
    def _forwards(self) -> dict[bool, tuple[ForwardGraph, ForwardValues]]:
        return {}

    def _opened(
        self, groups: tuple[GradientGroup, ...], by_layers: bool = False
    ) -> tuple[ForwardGraph, ForwardValues]:
        predictions = [o for o in self._asked.manifest.outputs if o.kind == "prediction"]
        outputs = [*predictions, *self._specs.values()]
        plan = dataclasses.replace(
            self._asked,
            plain=(),
            groups=groups,
            manifest=_with_outputs(self._asked.manifest, outputs),
        )
        try:
            graph = self._source.forward_graph(plan, DEFAULT_OPSET, self._source.batch)
            if by_layers:
                prepare(graph.model, keep_layers=True)
            return graph, ForwardValues(graph)
        except ExportError as error:
            raise VerificationError(f"the forward pass cannot be run alone: {error}") from error

    def _check_predictions(
        self, graph: ForwardGraph, values: Mapping[ir.Value, Array], feed: Mapping[str, Array]
    ) -> None:
        """Checks that the forward graph computes what the untouched model does.

        Raises:
            VerificationError: it does not.
        """
        untouched = list(self._inner.predictions(feed)[0].values())
        allowed = _SAME.get(self.computed_in, 1e-3)
        for value, right in zip(graph.predictions, untouched, strict=True):
            if right.dtype.kind not in "fV":
                continue
            wide = right.astype(np.float64)
            same = np.isfinite(wide)
            off = np.abs(np.asarray(values[value], np.float64) - wide)[same]
            if off.max(initial=0.0) > allowed * max(1e-3, np.abs(wide[same]).max(initial=0.0)):
                raise VerificationError(
                    "the forward graph, on which the second computation runs, does not predict "
                    f"what the model does: {off.max():.1e} apart."
                )

    def computed_by(self, name: str) -> str:
        """Returns what computes an output, for the certificate."""
        return WITNESS if name in self._specs else self._inner.computed_by(name)

    # -- what the source's own reference answers -------------------------------------------

    def shares_gradients_with(self, engine: str) -> bool:
        """Tells whether artefacts of a runtime engine hold these very gradients."""
        return self._inner.shares_gradients_with(engine)

    def predictions(self, feed: Mapping[str, Array], times: int = 1) -> list[dict[str, Array]]:
        """Returns what the untouched model predicts."""
        return self._inner.predictions(feed, times)

    def raw_name(self, output: GradientOutput) -> str | None:
        """Returns what the gradient is called that an output is made of; none for tables."""
        return None if output.spec.name in self._specs else self._inner.raw_name(output)

    def moved_scores(self) -> MovedScores | None:
        """Returns what a third witness moves tensors in: those of gradients."""
        return self._inner.moved_scores()

    def computed_near(self, name: str) -> float:
        """Returns the size of the numbers that an output's last function computes with."""
        return self._inner.computed_near(name)

    def cause_of(self, error: Exception) -> str:
        """Returns on one line what an exception of the model says."""
        return self._inner.cause_of(error)

    def cause_of_failure(self, feed: Mapping[str, Array]) -> str | None:
        """Says why the model cannot run on inputs, None where it can."""
        return self._inner.cause_of_failure(feed)

    def where_not_finite(self, feed: Mapping[str, Array]) -> str:
        """Says in sentences where the first value arises that is not finite."""
        return self._inner.where_not_finite(feed)
