"""Probes and a model -> a plan."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from probegen._version import __version__
from probegen.artefact import manifest
from probegen.artefact.manifest import InputSpec, Manifest, OutputSpec, TargetSpec
from probegen.errors import InstrumentError
from probegen.methods.arrays import with_array_type
from probegen.methods.base import GradientProbe, OfAttention, OfLayers, Probe
from probegen.methods.by_scores import ByScores
from probegen.methods.tables import Table
from probegen.methods.text_forms import to_dict
from probegen.plan import inputs_and_predictions
from probegen.plan.axes import with_batch_first
from probegen.plan.chains import ChainParts, chain_parts
from probegen.plan.completeness import with_completeness
from probegen.plan.earlier import new_names, with_earlier_names, with_new_names
from probegen.plan.explained_scores import explained_score
from probegen.plan.explained_tensors import ExplainedTensors
from probegen.plan.gradients import GradientPlanner
from probegen.plan.model_view import ModelView
from probegen.plan.plain import plain_outputs
from probegen.plan.plan import (
    NUDGE,
    ChainOutput,
    GradientGroup,
    GradientOutput,
    PlainOutput,
    Plan,
    TargetPlan,
)
from probegen.plan.selectors import OF_STATES
from probegen.plan.several_classes import with_classes
from probegen.plan.stacks import stacked_outputs

#: A target and a table: what outputs share that share a backward pass.
_Way = tuple[TargetPlan, Table | None]


@dataclasses.dataclass(frozen=True)
class _Planned:
    """A probe, and what it asks for.

    Attributes:
        probe: the probe.
        outputs: its outputs.
        target: what it differentiates; None where it does not.
        aside: what its outputs are made of, where that comes out under no name.
    """

    probe: Probe
    outputs: Sequence[PlainOutput | GradientOutput | ChainOutput]
    target: TargetPlan | None = None
    aside: ChainParts = dataclasses.field(default_factory=ChainParts)

    def way(self, output: GradientOutput) -> _Way:
        """Returns what an output shares with all others of its backward pass."""
        assert self.target is not None
        return self.target, output.probe.table()


@dataclasses.dataclass
class _Parts:
    """What all probes ask for, by how it is computed.

    Attributes:
        plain: tensors of the model.
        chains: what is followed through all attention layers, or stacked.
        gradients: what is made of gradients or scores, by what shares a backward pass.
        specs: the outputs that have a name, in the order of the probes.
    """

    plain: list[PlainOutput] = dataclasses.field(default_factory=list)
    chains: list[ChainOutput] = dataclasses.field(default_factory=list)
    gradients: dict[_Way, list[GradientOutput]] = dataclasses.field(default_factory=dict)
    specs: list[OutputSpec] = dataclasses.field(default_factory=list)

    def add(
        self, one: _Planned, outputs: Sequence[PlainOutput | GradientOutput | ChainOutput]
    ) -> None:
        """Adds the outputs of a probe under their names, and what they are made of."""
        wide = any(output.spec.dtype == "float64" for output in outputs)
        for output in outputs:
            if isinstance(output, PlainOutput):
                self.specs.append(output.spec)
                self.plain.append(output)
                continue
            made = with_classes(output, one.target)
            if isinstance(made, GradientOutput):
                way = one.way(made)
                made = with_completeness(made, way[0], wide=wide)
                self.gradients.setdefault(way, []).append(made)
            else:
                self.chains.append(made)
            self.specs.extend((made.spec, *made.beside))
        self.plain.extend(one.aside.plain)
        for part in one.aside.gradients:
            self.gradients.setdefault(one.way(part), []).append(with_classes(part, one.target))


def make_plan(
    view: ModelView,
    probes: Sequence[Probe],
    class_names: Sequence[str] | None = None,
    earlier: Manifest | None = None,
) -> Plan:
    """Resolves probes against a model.

    Args:
        view: the model.
        probes: what is asked for.
        class_names: names along the class axis of the prediction.
        earlier: the manifest that the probes come from, where the plan was made before; its
            outputs keep their names.

    Raises:
        SelectionError: a selector matches nothing that can be probed in its way.
        InstrumentError: a target makes no sense for the model, or two outputs share a name.
        NotDifferentiableError: a gradient cannot flow; says at which operation it stops.
    """
    view.check_outputs_not_random()
    planners = GradientPlanner(view), GradientPlanner(view, by_scores=True)
    names = new_names(view.points, earlier)
    planned = [
        _planned(view, *planners, with_new_names(asked, names) if names else asked, number)
        for number, asked in enumerate(probes)
    ]
    parts, resolved = _Parts(), []
    for one in _told_apart(planned):
        outputs = with_earlier_names(one.outputs, names)
        parts.add(one, outputs)
        resolved.append(_resolved(view, one.probe, outputs))
    predictions = inputs_and_predictions.predictions(view, class_names)
    _check_names([*(p.name for p in predictions), *(o.name for o in parts.specs)])
    targets = [target for target, _ in parts.gradients]
    target_input = any(target.spec.mode == "input" for target in targets)
    if target_input:
        _check_free(view, manifest.TARGET_INPUT, "use a fixed target")
    region_input = _region_input(view, targets)
    groups_input = _groups_input(view, itertools.chain(*parts.gradients.values()))
    return Plan(
        plain=tuple(parts.plain),
        groups=tuple(
            GradientGroup(target, tuple(outputs), table)
            for (target, table), outputs in parts.gradients.items()
        ),
        manifest=Manifest(
            inputs=inputs_and_predictions.inputs(view),
            outputs=(*predictions, *parts.specs),
            model=view.model,
            producer={"probegen": __version__, **view.producer},
            target_input=target_input,
            region_input=region_input,
            groups_input=groups_input,
            class_names=inputs_and_predictions.checked_class_names(class_names, predictions),
            probes=tuple(_portable(p) for p in resolved),
            points=tuple(p.name for p in view.points),
            texts=tuple(view.texts),
        ),
        chains=tuple(parts.chains),
    )


def _planned(
    view: ModelView,
    planner: GradientPlanner,
    by_scores: GradientPlanner,
    probe: Probe,
    number: int,
) -> _Planned:
    """Returns what one probe asks for; see `make_plan`.

    Args:
        view: the model.
        planner: of methods that need gradients.
        by_scores: of methods that need none.
        probe: the probe.
        number: which of the probes it is, for what comes out under no name.
    """
    target = explained_score(view, probe) if isinstance(probe, GradientProbe) else None
    if isinstance(probe, OfAttention):
        parts = chain_parts(view, ExplainedTensors(view), probe, target, number)
        return _Planned(probe, parts.outputs, target, parts)
    if isinstance(probe, OfLayers) and probe.stack:
        parts = stacked_outputs(view, probe, number)
        return _Planned(probe, parts.outputs, aside=parts)
    if isinstance(probe, GradientProbe) and target is not None:
        of_kind = by_scores if isinstance(probe, ByScores) else planner
        return _Planned(probe, of_kind.gradients(probe, target), target)
    return _Planned(probe, plain_outputs(view, probe))


def _told_apart(planned: Sequence[_Planned]) -> list[_Planned]:
    """Returns planned outputs, named after the model's output where they would share a name.

    Two `pg.Saliency()` of the outputs `a` and `b` are `saliency/a/image` and `saliency/b/image`,
    one alone is `saliency/image`. What `name=` says stays as it is.
    """
    explained: dict[str, set[str | None]] = {}
    for one in planned:
        for o in one.outputs:
            explained.setdefault(o.spec.name, set()).add(_scored(o.spec.target))
    shared = {name for name, of in explained.items() if len(of) > 1}
    return [
        dataclasses.replace(
            one, outputs=[_with_output(o) if o.spec.name in shared else o for o in one.outputs]
        )
        if isinstance(one.probe, GradientProbe) and getattr(one.probe, "name", None) is None
        else one
        for one in planned
    ]


def _with_output(output: Any) -> Any:
    """Returns a planned output with the model's output in its name, where it is of one."""
    scored = _scored(output.spec.target)
    if scored is None:
        return output
    kind, _, place = output.spec.name.partition("/")
    renamed = dataclasses.replace(output.spec, name=f"{kind}/{scored}/{place}")
    return dataclasses.replace(output, spec=renamed)


def _scored(target: TargetSpec | None) -> str | None:
    """Returns what a score is taken from: an output of the model, or a layer (`of=`)."""
    return None if target is None else target.output or target.layer


def _resolved(
    view: ModelView, probe: Probe, outputs: Sequence[PlainOutput | GradientOutput | ChainOutput]
) -> Probe:
    """Returns a probe as it is written down: explicit paths, arrays as the graph holds them."""
    points = {(p.path, p.call_index): p.name for p in view.points}
    paths: list[str] = []
    for output in outputs:
        refs = output.refs if isinstance(output, ChainOutput) else (output.ref,)
        if isinstance(output, GradientOutput) and output.ref.made == NUDGE:
            paths.append(OF_STATES + output.called.removeprefix("states/"))
            continue
        paths += getattr(output, "inputs", ()) or [points[ref.key] for ref in refs]
    resolved = probe.resolved(list(dict.fromkeys(paths)))
    target = outputs[0].spec.target if outputs else None
    if target is not None and target.layer is not None:
        of: dict[str, Any] = {"of": points[target.layer, target.call]}
        resolved = dataclasses.replace(resolved, **of)
    explained = [view.tensor(o.ref).dtype for o in outputs if isinstance(o, GradientOutput)]
    return with_array_type(resolved, explained[0]) if explained else resolved


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InstrumentError(
            f"several outputs are called {twice}; tell them apart with name=, for instance "
            "pg.Saliency(target=3, name='saliency_of_3'). Names of probes of different outputs of "
            "the model are told apart automatically, different targets of one output are not."
        )
    requests = {manifest.TARGET_INPUT, manifest.REGION_INPUT, manifest.GROUPS_INPUT}
    reserved = {*requests, manifest.GATE_INPUT} & set(names)
    if reserved:
        raise InstrumentError(f"the output name {reserved.pop()!r} is reserved; choose another.")


def _check_free(view: ModelView, field: str, instead: str) -> None:
    """Refuses an input of the request that the model has one of the same name as.

    Args:
        view: the model.
        field: the input's name, and that of the field that asks for it.
        instead: what to do where the model's input cannot be renamed.

    Raises:
        InstrumentError: the model has one.
    """
    if field in view.input_names:
        raise InstrumentError(
            f"the model has an input called {field!r}, which {field}='input' needs for itself; "
            f"rename the model's input, or {instead}."
        )


def _region_input(view: ModelView, targets: Iterable[TargetPlan]) -> InputSpec | None:
    """Returns the input `region` that weighs the positions of some targets; None without one.

    Raises:
        InstrumentError: the model has an input of that name, or targets have other positions than
            each other.
    """
    found: dict[tuple[Any, Any], str] = {}
    for target in (t for t in targets if t.spec.region):
        kept = [i for i in range(len(target.axes)) if i != target.class_axis]
        axes, sizes = (tuple(values[i] for i in kept) for values in (target.axes, target.sizes))
        found.setdefault((axes, sizes), str(_scored(target.spec)))
    if not found:
        return None
    axes, sizes = _shared_positions(
        view,
        manifest.REGION_INPUT,
        found,
        "give a target with an index for positions",
        "Give region= to probes of one output alone.",
    )
    return InputSpec(manifest.REGION_INPUT, "float32", sizes, axes)


def _groups_input(view: ModelView, outputs: Iterable[GradientOutput]) -> InputSpec | None:
    """Returns the input `groups` that some methods need; None where none does.

    Raises:
        InstrumentError: the model has an input of that name, or the methods explain tensors of
            other positions than each other.
    """
    found: dict[tuple[Any, Any], str] = {}
    most: list[int] = []
    for o in outputs:
        if isinstance(o.probe, ByScores) and o.probe.takes_groups:
            sizes = o.spec.shape
            if len(o.axes_of_one) < len(sizes):  # groups are the same for all classes
                sizes = (*sizes[: o.classes_at], *sizes[o.classes_at + 1 :])
            axes, sizes, _ = with_batch_first(o.axes_of_one, sizes)
            found.setdefault((axes, sizes), o.spec.name)
            most += [] if o.probe.most_groups is None else [o.probe.most_groups]
    if not found:
        return None
    axes, shape = _shared_positions(
        view,
        manifest.GROUPS_INPUT,
        found,
        "give groups as an array",
        "Say which input or layer is explained with wrt=.",
    )
    return InputSpec(manifest.GROUPS_INPUT, "int32", shape, axes, min(most, default=None))


def _shared_positions(
    view: ModelView,
    field: str,
    found: Mapping[tuple[Any, Any], str],
    instead: str,
    advice: str,
) -> tuple[Any, Any]:
    """Returns axes and sizes of an input of the request that several probes read.

    Args:
        view: the model.
        field: the input's name, and that of the field that asks for it.
        found: axes and sizes that probes need -> one that needs them.
        instead: what to do where the model's input of that name cannot be renamed.
        advice: what to do where probes need several shapes.

    Raises:
        InstrumentError: the model has an input of that name, or there are several shapes.
    """
    _check_free(view, field, instead)
    if len(found) > 1:
        shown = "; ".join(
            f"{name!r} has {list(axes)} {list(sizes)}" for (axes, sizes), name in found.items()
        )
        raise InstrumentError(
            f"{field}='input' is one input for all probes, and these have positions of several "
            f"shapes: {shown}. {advice}"
        )
    return next(iter(found))


def _portable(probe: Probe) -> dict[str, Any]:
    """Returns a probe's text form; a callable target is written as its name, unreadable."""
    target = getattr(probe, "target", None)
    if callable(target):
        plain = to_dict(dataclasses.replace(probe, target="argmax"))  # type: ignore[call-arg]
        return {**plain, "target": {"callable": getattr(target, "__qualname__", "callable")}}
    return to_dict(probe)
