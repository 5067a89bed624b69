"""TensorFlow's engine: a plan's outputs by one forward and one backward pass a target.

`tf.gradients` is the graph form of a gradient tape; it is used because everything here runs
inside a traced function, where it can differentiate with respect to any tensor unasked. Slopes of
saturated functions are ours (`exact_slopes.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from probegen.artefact.manifest import CLASSES
from probegen.errors import InstrumentError
from probegen.methods.axes import BATCH
from probegen.methods.base import resized
from probegen.methods.samples import Point
from probegen.plan.completeness import Residual, residuals_of
from probegen.plan.plan import (
    GradientGroup,
    GradientOutput,
    Plan,
    TargetPlan,
    TensorRef,
    moved_together,
    samples_of,
)
from probegen.sources.keras.array_operations import TensorFlowOperations
from probegen.sources.keras.by_scores import attribution_by_scores
from probegen.sources.keras.exact_slopes import gradients_at
from probegen.sources.keras.forward import Forward, forward_at, plain_output, run_forward
from probegen.sources.keras.held_masks import hold
from probegen.sources.keras.keras_model import KerasModel
from probegen.sources.keras.missing_gradients import register
from probegen.sources.keras.targets import parts, seed

_OPS = TensorFlowOperations()
register()


def explain(
    source: KerasModel,
    plan: Plan,
    flat: Sequence[Any],
    request: Any = None,
    groups: Any = None,
    region: Any = None,
) -> dict[str, Any]:
    """Returns all outputs of a plan by name, predictions first.

    Args:
        source: the model.
        plan: what to compute.
        flat: the flat inputs.
        request: the int32 `[batch]` targets asked for, -1 meaning argmax, where the plan has
            a target that is chosen at request time.
        groups: the int32 groups asked for, `[batch, ...positions]`, where a probe takes some.
        region: what positions count, `[batch, ...positions]` of the scores, where a probe asks.

    Raises:
        InstrumentError: a method has a table of rules, which exists in ONNX artefacts alone.
    """
    refuse_tables(plan)
    return explain_run(source, plan, run_forward(source, plan, flat), request, groups, region)


def explain_run(
    source: KerasModel,
    plan: Plan,
    forward: Forward,
    request: Any = None,
    groups: Any = None,
    region: Any = None,
) -> dict[str, Any]:
    """Returns all outputs of a plan, which has no tables, for a run of its forward pass.

    Args:
        source, plan, request, groups, region: as for `explain`.
        forward: what `run_forward` returned for the plan.
    """
    results = dict(zip(source.output_names, forward.outputs, strict=True))
    results.update((o.spec.name, plain_output(forward, o)) for o in plan.plain)
    for group in plan.groups:
        results.update(_gradient_outputs(source, plan, forward, group, request, groups, region))
    for chain in plan.chains:
        made = chain.made_of(_OPS, results)
        made[chain.spec.name] = tf.cast(made[chain.spec.name], chain.spec.dtype)
        results.update(made)
    return {o.name: results[o.name] for o in plan.manifest.outputs}


def refuse_tables(plan: Plan) -> None:
    """Refuses a plan with a method that TensorFlow's gradients do not know.

    Raises:
        InstrumentError: there is one; names it and says what works.
    """
    if (own := plan.own_table()) is not None:
        raise InstrumentError(
            f"{own}, which TensorFlow's gradients cannot follow. Export to ONNX (a path that ends "
            "in .onnx), or leave this probe out."
        )


def _gradient_outputs(
    source: KerasModel,
    plan: Plan,
    forward: Forward,
    group: GradientGroup,
    request: Any,
    groups: Any,
    region: Any,
) -> dict[str, Any]:
    target = group.target.spec
    scores = forward.target(group.target)
    weights = _weights(group.target, scores, region)
    if not target.several:
        chosen = seed(scores, target, request, weights)
        return _of_seed(source, plan, forward, group, scores, chosen, groups)
    classes, seed_of = parts(scores, target, request, weights)

    def of_class(one: Any) -> dict[str, Any]:
        # The loop's body is a graph of its own, from which gradients go on into the one around.
        here = tf.identity(scores)
        return _of_seed(source, plan, forward, group, here, seed_of(here, one), groups)

    missing = {n: r.gained for r in residuals_of(group) for n in r.names}
    dtypes = {o.spec.name: _dtype_of(forward.tensor(o.ref), o) for o in group.outputs}
    dtypes.update((name, tf.as_dtype(o.spec.dtype)) for name, o in missing.items())
    each = tf.map_fn(of_class, classes, fn_output_signature=dtypes, parallel_iterations=1)
    found = {o.spec.name: _moved_axis(each[o.spec.name], o.classes_at) for o in group.outputs}
    found.update((name, _moved_axis(each[name], o.classes_at)) for name, o in missing.items())
    for name in (name for o in group.outputs for name in o.beside_of(CLASSES)):
        told = _moved_axis(classes, 1)
        found[name] = told[(..., *[0] * (told.shape.rank - 2))] if target.layer else told
    return found


def _dtype_of(explained: Any, output: GradientOutput) -> Any:
    """Returns the element type of an attribution: of whole numbers, which have another, too."""
    return explained.dtype if explained.dtype.is_floating else tf.as_dtype(output.spec.dtype)


def _weights(target: TargetPlan, scores: Any, region: Any) -> Any:
    """Returns what positions of scores count, so that it goes with these; None without a region."""
    if not target.spec.region or region is None:
        return None
    weights = tf.cast(region, scores.dtype)
    return weights if target.class_axis is None else tf.expand_dims(weights, target.class_axis)


def _of_seed(
    source: KerasModel,
    plan: Plan,
    forward: Forward,
    group: GradientGroup,
    scores: Any,
    seeds: Any,
    groups: Any,
) -> dict[str, Any]:
    """Returns the attributions of one class, whose seed is given."""
    taken = [o for o in group.outputs if o.probe.needs_gradient]
    local = [o for o in taken if o.probe.gradients_at() is None]
    refs = list(dict.fromkeys(o.ref for o in local))
    flow = gradients_at([scores], [forward.tensor(r) for r in refs], [seeds]) if refs else []
    by_ref = dict(zip(refs, flow, strict=True))
    # A gradient at an embedding may come as slices.
    gradients = {o.spec.name: forward.tensor(o.ref) for o in group.outputs}
    gradients.update((o.spec.name, tf.convert_to_tensor(by_ref[o.ref])) for o in local)
    for outputs in moved_together(group):
        made = _sampled_gradients(source, plan, forward, group.target, seeds, outputs)
        gradients.update((o.spec.name, g) for o, g in zip(outputs, made, strict=True))
    attributions = {
        o.spec.name: attribution_by_scores(source, plan, forward, group.target, seeds, o, groups)
        if o.moves
        else _attribution(o, forward, gradients[o.spec.name])
        for o in group.outputs
    }
    found = {o.spec.name: _in_size(o, forward, attributions[o.spec.name]) for o in group.outputs}
    for residual in residuals_of(group):
        missing = _missing(source, plan, forward, group.target, seeds, residual, found)
        found.update(dict.fromkeys(residual.names, missing))
    return found


def _missing(
    source: KerasModel,
    plan: Plan,
    forward: Forward,
    target: TargetPlan,
    seeds: Any,
    residual: Residual,
    made: Mapping[str, Any],
) -> Any:
    """Returns the sum of attributions less what the score is more than that of the reference."""
    gained = residual.gained
    masks = residual.probe.holds_masks
    more = attribution_by_scores(source, plan, forward, target, seeds, gained, hold_masks=masks)
    total = -tf.cast(more, gained.spec.dtype)
    for output in residual.outputs:
        summed = [i for i, name in enumerate(output.axes_of_one) if name != BATCH]
        total += tf.reduce_sum(tf.cast(made[output.spec.name], gained.spec.dtype), summed)
    return total


def _moved_axis(values: Any, to: int) -> Any:
    """Returns values with their first axis at another place."""
    order = list(range(1, values.shape.rank))
    order.insert(to, 0)
    return tf.transpose(values, order)


def _attribution(output: GradientOutput, forward: Forward, gradient: Any) -> Any:
    """Turns the gradient at a tensor into what the probe asked for."""
    padded = output.padded(forward.tensor)
    value = forward.tensor(output.value)
    return output.probe.attribution(_OPS, gradient, value, output.axes, padded)


def _in_size(output: GradientOutput, forward: Forward, made: Any) -> Any:
    """Returns an attribution in its final size."""
    return resized(_OPS, made, output.sized(forward.tensor))


def _sampled_gradients(
    source: KerasModel,
    plan: Plan,
    forward: Forward,
    target: TargetPlan,
    seeds: Any,
    outputs: Sequence[GradientOutput],
) -> list[Any]:
    """Returns what methods make of the gradients at all points, for each output.

    The class is that of the input itself at every point, and so are the masks. The points are
    those of the first output; what is made of the gradients may differ.
    """
    moved = {o.ref: o for o in outputs}
    values = {ref: forward.tensor(ref) for ref in moved}
    samples = samples_of(outputs)
    points_of, weights = samples[0], samples[0].weights
    shared = {r: points_of.once(_OPS, values[r], o.place) for r, o in moved.items()}
    arrays = {r: [_array(a, v) for a in points_of.entries()] for r, v in values.items()}
    counts = {r: _OPS.constant(weights, v) for r, v in values.items()}
    started = [s.start(_OPS, values[o.ref], o.place) for s, o in zip(samples, outputs, strict=True)]

    def point(ref: TensorRef, k: Any) -> Point[Any]:
        entry, place = [array[k] for array in arrays[ref]], moved[ref].place
        at = points_of.point(_OPS, values[ref], place, shared[ref], entry)
        weight = None if points_of.equal_weights else counts[ref][k]
        return Point(place, values[ref], shared[ref], entry, at, weight)

    def step(k: Any, *flat: Any) -> tuple[Any, ...]:
        here = {ref: point(ref, k) for ref in moved}
        at = [p.at for p in here.values()]
        there = forward_at(source, plan, forward, list(moved), at)
        hold(there.operations, at, forward.operations)
        found = gradients_at([there.target(target)], at, [seeds])
        by_ref = {r: tf.convert_to_tensor(g) for r, g in zip(moved, found, strict=True)}
        sums = tf.nest.pack_sequence_as(started, flat)
        after = (
            s.step(_OPS, before, by_ref[o.ref], here[o.ref])
            for s, o, before in zip(samples, outputs, sums, strict=True)
        )
        return (k + 1, *(total for totals in after for total in totals))

    condition: Callable[..., Any] = lambda k, *_: k < len(weights)  # noqa: E731
    start = (tf.constant(0), *(zeros for zeros in tf.nest.flatten(started)))
    shapes = tuple(tensor.shape for tensor in start)
    _, *flat = tf.while_loop(condition, step, start, shape_invariants=shapes)
    return [
        s.finish(_OPS, totals, values[o.ref], o.place, shared[o.ref])
        for s, o, totals in zip(
            samples, outputs, tf.nest.pack_sequence_as(started, flat), strict=True
        )
    ]


def _array(entries: Any, value: Any) -> Any:
    """Returns what points have, of its own element type or of that of a tensor."""
    own = isinstance(entries, np.ndarray)
    return tf.constant(entries) if own else _OPS.constant(entries, value)
