"""Which score a probe explains: of an output of the model, or of a layer (`of=`)."""

from __future__ import annotations

import dataclasses

from probegen.artefact.manifest import TargetSpec
from probegen.errors import InstrumentError, NotDifferentiableError, SelectionError
from probegen.methods.base import GradientProbe
from probegen.plan import axes
from probegen.plan.model_view import ModelView
from probegen.plan.plan import TargetPlan
from probegen.plan.selectors import select, too_many
from probegen.plan.targets import steps_spec, target_spec


def explained_score(view: ModelView, probe: GradientProbe) -> TargetPlan:
    """Returns what a probe differentiates.

    Raises:
        InstrumentError: the target does not fit the model's outputs; says what would.
    """
    target = probe.target
    if callable(target):
        name = getattr(target, "__qualname__", type(target).__name__)
        described = TargetSpec("callable", logits=_any_logits(view, probe), name=name)
        return TargetPlan(described, function=target)
    if probe.of is not None:
        return _of_layer(view, probe)
    position = _output_position(view, probe)
    view.check_output(position)
    output, name = view.output(position), view.output_names[position]
    if not output.shape:
        raise InstrumentError(
            f"output {name!r} is one number for the whole batch, so that no sample has a score "
            "of its own. Wrap the model so that it gives what that number is made of, with the "
            "batch as the first axis."
        )
    if not output.is_float:
        raise NotDifferentiableError(
            f"output {name!r} is {output.dtype}: there is nothing to differentiate. "
            f"{view.made_by(position)} Take a target before that operation: "
            "wrap the model so that it also returns the scores."
        )
    logits = probe.logits and view.has_scores(position)
    called = axes.prediction_axes(output.axes, classes=True)
    plan = _arranged(probe, called, output.shape, f"output {name!r}")
    spec = dataclasses.replace(plan.spec, output=name, logits=logits)
    return dataclasses.replace(plan, spec=spec, position=position)


def _of_layer(view: ModelView, probe: GradientProbe) -> TargetPlan:
    """Returns what is differentiated where that is the output of a layer.

    Raises:
        SelectionError: `of=` selects several layers, several calls of one, an input, or what
            stands in a loop.
        NotDifferentiableError: the output holds no floating numbers.
    """
    asked = f"pg.{type(probe).__name__}(of=...)"
    chosen = select(view.points, probe.of, view.layers)
    if len(chosen) > 1:
        raise too_many([p.name for p in chosen], probe.of, asked)
    point = chosen[0]
    view.check_not_random(chosen)
    if point.role == "input" or not point.shapes:
        raise SelectionError(f"{asked} takes a layer's output; {point.name!r} has none.")
    inside = point.loop and not view.output_ref(point).is_over_steps
    if inside or (not point.probes and point.reason):
        # A layer is called in a loop, and before it as a trial: neither call makes a score.
        why = f"inside loop {point.loop!r}, once a step" if inside else point.reason
        whole = f" Take the loop itself, of={point.loop!r}." if inside else ""
        raise SelectionError(
            f"{asked}: no score can be taken from {point.name!r}: {why}.{whole} Layers whose "
            "output can be given out (pg.inspect) and that stand outside of loops can be taken."
        )
    ref = view.output_ref(point)
    facts = view.tensor(ref)
    if not facts.is_float:
        raise NotDifferentiableError(
            f"the output of layer {point.name!r} is {facts.dtype}: there is nothing to "
            "differentiate. Give of= a layer before it, whose output is floating."
        )
    called = axes.activation_axes(facts.axes)
    plan = _arranged(probe, called, facts.shape, f"layer {point.name!r}")
    spec = dataclasses.replace(
        plan.spec, layer=point.path, call=point.call_index, calls=point.calls
    )
    return dataclasses.replace(plan, spec=spec, ref=ref)


def _output_position(view: ModelView, probe: GradientProbe) -> int:
    names = view.output_names
    wanted = probe.output
    if wanted is None:
        own = [i for i, name in enumerate(names) if name not in view.carried.values()]
        # Labels beside scores, as classifiers of scikit-learn give them, have no slope.
        scores = [i for i in own if view.output(i).is_float]
        if len(scores or own) > 1:
            raise InstrumentError(
                f"the model has several outputs {[names[i] for i in own]}; say which one is "
                f"explained, for instance pg.{type(probe).__name__}"
                f"(output={names[(scores or own)[0]]!r})."
            )
        return (scores or own or [0])[0]
    if isinstance(wanted, int) and 0 <= wanted < len(names):
        return wanted
    if wanted in names:
        return names.index(str(wanted))
    raise InstrumentError(f"output= takes one of {list(names)} or its index, got {wanted!r}.")


def _any_logits(view: ModelView, probe: GradientProbe) -> bool:
    return probe.logits and any(map(view.has_scores, range(len(view.output_names))))


def _arranged(probe: GradientProbe, called: axes.Axes, sizes: axes.Sizes, what: str) -> TargetPlan:
    """Returns a probe's target, and how the scores lie that it is taken from.

    Args:
        probe: says the target, and whether a region of the request weighs its positions.
        called: the axes of the scores.
        sizes: their sizes.
        what: what gives the scores.

    Raises:
        InstrumentError: they have no such entry, or no positions that a region could weigh.
    """
    named, shape, order = axes.with_batch_first(called, sizes)
    axis = axes.channel_axis(named)
    spec = steps_spec(probe.target, named, shape, what, axis)
    if spec is None:
        spec = target_spec(probe.target, shape, what, axis)
    places = list(range(len(order)))
    if spec.mode != "index" and axis is not None:
        places = [*(i for i in places if i != axis), axis]
    arranged = tuple(order[i] for i in places)
    names = tuple(named[i] for i in places)
    region = probe.region is not None
    if region and not axes.position_axes(names):
        raise InstrumentError(
            f"region='input' weighs positions before they are summed up, and {what} "
            f"{tuple(sizes)} has none: its axes are {', '.join(names)}. Leave region out, or "
            "give of= a layer whose output has positions."
        )
    classes = None if axis is None else shape[axis]
    step = None if spec.step is None else places.index(spec.step)
    return TargetPlan(
        dataclasses.replace(spec, classes=classes, region=region, step=step),
        order=None if arranged == tuple(range(len(order))) else arranged,
        single=axes.BATCH not in called,
        axes=names,
        sizes=tuple(shape[i] for i in places),
    )
