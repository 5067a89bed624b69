"""Attributions by scores at changed inputs, in TensorFlow: a loop over the points of a method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from probegen.methods.axes import BATCH, Axes, batch_first
from probegen.methods.by_scores import ByScores, Subject
from probegen.plan.plan import GradientOutput, Plan, TargetPlan
from probegen.sources.keras.array_operations import TensorFlowOperations
from probegen.sources.keras.forward import Forward, forward_at
from probegen.sources.keras.held_masks import hold
from probegen.sources.keras.keras_model import KerasModel

_OPS = TensorFlowOperations()


def attribution_by_scores(
    source: KerasModel,
    plan: Plan,
    forward: Forward,
    target: TargetPlan,
    seeds: Any,
    output: GradientOutput,
    groups: Any = None,
    hold_masks: bool = False,
) -> Any:
    """Returns an attribution; the model runs at one point at a time.

    Args:
        source: the model.
        plan: what is computed.
        forward: the model at the inputs as they are.
        target: what the score is.
        seeds: what the target's scores are multiplied by before they are summed up.
        output: the method, and what it explains.
        groups: int32 `[batch, ...positions]` of the request, where there are some.
        hold_masks: whether masks stay those of the samples as they are.
    """
    probe = output.probe
    assert isinstance(probe, ByScores)
    value, axes = _rows_first(_floating(forward.tensor(output.ref)), output.axes)
    refs = [ref for ref, _ in output.moves]
    moved = tuple(_rows_first(_floating(forward.tensor(ref)), own) for ref, own in output.moves)
    wide = tf.float64 if value.dtype == tf.float64 else tf.float32
    numbered = tf.cast(groups, wide) if probe.takes_groups else None
    subject = Subject(value, axes, moved, numbered)
    prepared = probe.prepared(_OPS, subject)
    score = _summed(forward.target(target), seeds)
    count: Any = probe.count(axes, tuple(value.shape))
    if count is None:
        count = tf.cast(probe.counted(_OPS, prepared), tf.int32)

    def step(number: Any, *sums: Any) -> tuple[Any, ...]:
        numbers = tf.cast(tf.reshape(number, [1]), wide)
        points = [
            _like(
                _in_own_order(
                    probe.changed_one(_OPS, prepared, numbers, tensor, named, which)[0], before, own
                ),
                before,
            )
            for which, ((tensor, named), before, (_, own)) in enumerate(
                zip(moved, map(forward.tensor, refs), output.moves, strict=True)
            )
        ]
        there = forward_at(source, plan, forward, refs, points)
        if hold_masks:
            hold(there.operations, points, forward.operations)
        scores = tf.expand_dims(_summed(there.target(target), seeds), 0)
        added = probe.added(_OPS, prepared, numbers, scores, score)
        return (number + 1, *(total + part[0] for total, part in zip(sums, added, strict=True)))

    condition: Callable[..., Any] = lambda number, *_: number < count  # noqa: E731
    start = (tf.constant(0), *probe.start(_OPS, prepared, score))
    shapes = (tf.TensorShape([]), *(zeros.shape for zeros in start[1:]))
    _, *sums = tf.while_loop(condition, step, start, shape_invariants=shapes)
    result = probe.explained(_OPS, subject, prepared, sums, score)
    result = result if probe.stays_wide else tf.cast(result, value.dtype)
    return _in_own_order(result, None, output.axes_of_one)


def _rows_first(tensor: Any, axes: Axes) -> tuple[Any, Axes]:
    named, order = batch_first(axes)
    batched = tensor if BATCH in axes else tf.expand_dims(tensor, 0)
    return (
        tensor if BATCH in axes and list(order) == sorted(order) else tf.transpose(batched, order)
    ), named


def _floating(tensor: Any) -> Any:
    """Returns whole numbers as floating ones, which methods compute with."""
    return tensor if tensor.dtype.is_floating else tf.cast(tensor, tf.float32)


def _like(point: Any, before: Any) -> Any:
    """Returns a point of whole numbers as such; what was not changed keeps all its digits."""
    if before.dtype.is_floating:
        return point
    same = tf.equal(point, _floating(before))
    return tf.where(same, before, tf.cast(point, before.dtype))


def _in_own_order(rows: Any, like: Any, axes: Axes) -> Any:
    """Returns a tensor that has the batch in front in the order of `axes`."""
    _, order = batch_first(axes)
    if BATCH not in axes:
        return rows[0]
    found = tf.transpose(rows, [order.index(i) for i in range(len(order))])
    if like is not None:
        found.set_shape(like.shape)
    return found


def _summed(scores: Any, seeds: Any) -> Any:
    """Returns the target's scalar, in 32 bits at least: what the seed leaves out counts nothing."""
    chosen = tf.where(tf.equal(seeds, 0), tf.zeros_like(scores), scores * seeds)
    if chosen.dtype not in (tf.float32, tf.float64):
        chosen = tf.cast(chosen, tf.float32)
    return tf.reduce_sum(chosen, axis=list(range(1, chosen.shape.rank)))
