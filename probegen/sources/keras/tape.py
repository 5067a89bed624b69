"""TensorFlow's engine: a plan's outputs by one forward and one backward pass a target.

`tf.gradients` is the graph form of a gradient tape; it is used because everything here runs
inside a traced function, where it can differentiate with respect to any tensor unasked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from probegen.plan.axes import channel_axis, position_axes, saliency_axis
from probegen.plan.plan import (
    GradientGroup,
    GradientOutput,
    Plan,
    TargetPlan,
    TensorRef,
    path_integrals,
)
from probegen.sources.keras.forward import Forward, plain_output, run_forward
from probegen.sources.keras.held import hold
from probegen.sources.keras.keras_model import KerasModel
from probegen.sources.keras.targets import seed
from probegen.spec import GradCAM, IntegratedGradients, Saliency


def explain(
    source: KerasModel, plan: Plan, flat: Sequence[Any], request: Any = None
) -> dict[str, Any]:
    """Returns all outputs of a plan by name, predictions first.

    Args:
        source: the model.
        plan: what to compute.
        flat: the flat inputs.
        request: the int32 `[batch]` targets asked for, -1 meaning argmax, where the plan has
            a target that is chosen at request time.
    """
    forward = run_forward(source, plan, flat)
    results = dict(zip(source.output_names, forward.outputs, strict=True))
    results.update((o.spec.name, plain_output(forward, o)) for o in plan.plain)
    for group in plan.groups:
        results.update(_gradient_outputs(source, plan, forward, group, request))
    return {o.name: results[o.name] for o in plan.manifest.outputs}


def _gradient_outputs(
    source: KerasModel, plan: Plan, forward: Forward, group: GradientGroup, request: Any
) -> dict[str, Any]:
    scores = forward.target(group.target)
    seeds = seed(scores, group.target.spec, request)
    local = [o for o in group.outputs if not isinstance(o.probe, IntegratedGradients)]
    refs = list(dict.fromkeys(o.ref for o in local))
    flow = tf.gradients([scores], [forward.tensor(r) for r in refs], [seeds]) if refs else []
    gradients = dict(zip(refs, flow, strict=True))
    results = {o.spec.name: _attribution(o, forward, gradients[o.ref]) for o in local}
    for outputs in path_integrals(group):
        results.update(_integrated(source, plan, forward, group.target, seeds, outputs))
    return results


def _attribution(output: GradientOutput, forward: Forward, gradient: Any) -> Any:
    """Turns the gradient at a tensor into what the probe asked for."""
    gradient = tf.convert_to_tensor(gradient)  # an embedding's may come as slices
    channel = channel_axis(output.axes)
    if isinstance(output.probe, Saliency):
        over = saliency_axis(output.axes)
        size = tf.abs(gradient)
        return size if over is None else tf.reduce_max(size, axis=over)
    if isinstance(output.probe, GradCAM):
        maps = forward.tensor(output.ref)
        positions = list(position_axes(output.axes))
        weights = tf.reduce_mean(gradient, axis=positions, keepdims=True)
        return tf.nn.relu(tf.reduce_sum(weights * maps, axis=channel))
    return gradient


def _integrated(
    source: KerasModel,
    plan: Plan,
    forward: Forward,
    target: TargetPlan,
    seeds: Any,
    outputs: Sequence[GradientOutput],
) -> dict[str, Any]:
    """Sums gradients at the midpoints of `steps` pieces of the line from the baseline.

    The class is that of the input itself all along the line, as the path integral has it, and so
    are the masks.
    """
    probe = outputs[0].probe
    if not isinstance(probe, IntegratedGradients):
        raise TypeError(f"{probe!r} is no path integral")
    ends = [forward.tensor(o.ref) for o in outputs]
    differences = [end - tf.cast(probe.baseline, end.dtype) for end in ends]

    def step(k: Any, *sums: Any) -> tuple[Any, ...]:
        points = []
        for difference in differences:
            fraction = (tf.cast(k, difference.dtype) + 0.5) / probe.steps
            points.append(tf.cast(probe.baseline, difference.dtype) + fraction * difference)
        there = _forward_at(source, plan, forward, outputs, points)
        hold(there.operations, points, forward.operations)
        found = tf.gradients([there.target(target)], points, [seeds])
        moved = (s + tf.convert_to_tensor(g) for s, g in zip(sums, found, strict=True))
        return (k + 1, *moved)

    condition: Callable[..., Any] = lambda k, *_: k < probe.steps  # noqa: E731
    start = (tf.constant(0), *(tf.zeros_like(d) for d in differences))
    shapes = (tf.TensorShape([]), *(d.shape for d in differences))
    _, *sums = tf.while_loop(condition, step, start, shape_invariants=shapes)
    return {
        output.spec.name: difference * total / tf.cast(probe.steps, total.dtype)
        for output, difference, total in zip(outputs, differences, sums, strict=True)
    }


def _forward_at(
    source: KerasModel,
    plan: Plan,
    forward: Forward,
    outputs: Sequence[GradientOutput],
    points: Sequence[Any],
) -> Forward:
    """Runs the model with `points` in the place of the tensors that `outputs` refer to."""
    flat = list(forward.inputs)
    stand_ins: dict[TensorRef, Callable[[Any], Any]] = {}
    for output, point in zip(outputs, points, strict=True):
        if output.ref.is_input:
            flat[output.ref.position] = point
        else:
            stand_ins[output.ref] = functools.partial(_second, point)
    return run_forward(source, plan, flat, stand_ins)


def _second(point: Any, _: Any) -> Any:
    return point
