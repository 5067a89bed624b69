"""The captured forward pass: predictions, scores and every tensor a plan takes, in one call."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from probegen.errors import InstrumentError
from probegen.plan.plan import (
    NUDGE,
    OVER_STEPS,
    STATE,
    STEP_NUDGE,
    CallKey,
    PlainOutput,
    Plan,
    Slot,
    TargetPlan,
    TensorRef,
    moved_together,
)
from probegen.sources.keras.array_operations import TensorFlowOperations
from probegen.sources.keras.attention import Attention, attention_of
from probegen.sources.keras.capture import Watcher
from probegen.sources.keras.first_floats import FirstFloats
from probegen.sources.keras.held_masks import mark_mask
from probegen.sources.keras.inner_tensors import InnerTensors
from probegen.sources.keras.keras_model import KerasModel
from probegen.sources.keras.layer_calls import LayerCall
from probegen.sources.keras.recurrence import InnerLoop, over_time
from probegen.sources.keras.rounding_noise import RoundingNoise
from probegen.sources.keras.targets import callable_value, score
from probegen.sources.keras.trace import run_source


@dataclasses.dataclass
class Forward:
    """What one call of the source model gave.

    Attributes:
        inputs: the flat inputs.
        nest: the predictions as the call returned them.
        watched: what was seen of layers, operations and loops.
        operations: what it was traced into.
        before: how many operations the graph had before.
        made: the tensors made from whole numbers of inputs that the plan takes gradients at.
        inner: what stands in for attention weights.
        states: of states over time, and outputs of layers over the steps of a loop, that are
            explained, what stands in for each.
        own_nest: returns these as the model nests them.
        noise: what the first floating tensors were moved by.
    """

    inputs: list[Any]
    nest: Any
    watched: Watcher
    operations: list[Any]
    before: int = 0
    made: Mapping[Slot, Any] = dataclasses.field(default_factory=dict)
    inner: Mapping[TensorRef, Any] = dataclasses.field(default_factory=dict)
    states: dict[TensorRef, Any] = dataclasses.field(default_factory=dict)
    own_nest: Callable[[Any], Any] = lambda nest: nest
    noise: RoundingNoise | None = None

    @property
    def calls(self) -> list[LayerCall]:
        """The layer calls."""
        return self.watched.calls

    @functools.cached_property
    def by_key(self) -> dict[CallKey, LayerCall]:
        """The layer calls by path and index; those in the steps of loops over these."""
        own = {(c.path, c.index): c for c in self.calls if not c.in_loop}
        return {**own, **{key: over.call for key, over in self.watched.over_steps.items()}}

    @functools.cached_property
    def attention(self) -> Attention:
        """The attention weights that layer calls apply."""
        graph, seen = self.outputs[0].graph, self.watched
        return attention_of(
            graph, seen.calls, seen.operations, self.inputs, self.outputs,
            seen.looped, self.before, seen.loops,
        )  # fmt: skip

    @property
    def outputs(self) -> list[Any]:
        """The flat predictions."""
        return list(keras.tree.flatten(self.nest))

    def tensor(self, ref: TensorRef) -> Any:
        """Returns the tensor that a plan refers to."""
        if ref.is_attention:
            found = self.inner.get(ref)
            return self.attention.at(ref) if found is None else found
        if ref.is_of_states or ref.is_over_steps:
            return self._of_steps(ref)
        if ref.made:
            if ref.slot not in self.made:
                raise InstrumentError(
                    f"the look-up or cast {ref.position} in layer {ref.path or 'model'!r} was not "
                    "made again when the model was traced once more: its call does not do the "
                    "same each time."
                )
            return self.made[ref.slot]
        if ref.path is None:
            return self.inputs[ref.position]
        return self.by_key[ref.key].outputs[ref.position]

    def _of_steps(self, ref: TensorRef) -> Any:
        """Returns what the steps of a loop make, or what is added to that."""
        if ref.made == NUDGE:
            return self.by_key[ref.key].recurrences[ref.position].nudges[ref.operation]
        if ref.made == STEP_NUDGE:
            return self.watched.step_nudges[ref.key]
        if ref.made == OVER_STEPS and ref not in self.states:
            return self.by_key[ref.key].outputs[ref.position]
        return self.states[ref]

    def state(self, ref: TensorRef) -> Any:
        """Returns a state over time that was written."""
        return over_time(self.by_key[ref.key].recurrences[ref.position], ref.operation)

    def target(self, target: TargetPlan) -> Any:
        """Returns what a target is taken from.

        For a callable that is its value, `[batch]`; otherwise the scores of one output (the
        pre-activation with logits), of which `seed` picks entries: classes last where it
        chooses one itself.

        Raises:
            InstrumentError: the callable does not return one floating scalar a sample.
        """
        if target.function is None:
            if target.ref is not None:
                scores = self.tensor(target.ref)
            else:
                scores = score(self.outputs[target.position], target.spec.logits)
            return scores if target.order is None else tf.transpose(scores, target.order)
        return callable_value(target.function, self.own_nest(self.nest), target.spec.logits)


def run_forward(
    source: KerasModel,
    plan: Plan,
    flat: Sequence[Any],
    stand_ins: Mapping[TensorRef, Callable[[Any], Any]] | None = None,
    weights: Sequence[tuple[Any, Any]] = (),
    mark: Callable[[Any], Any] = mark_mask,
    with_states: bool = True,
    inner_loop: InnerLoop | None = None,
    add_nudge: Callable[[Any, Any], Any] = tf.add,
    noise: RoundingNoise | None = None,
) -> Forward:
    """Calls the source model of a plan inside a graph that is being traced.

    Args:
        source: the model.
        plan: what to capture.
        flat: the flat inputs.
        stand_ins: what makes the tensors that stand in for others of the model, inputs aside.
        weights: pairs of a variable of the model and a tensor to read in its place.
        mark: what masks pass where the plan has points at which they are held.
        with_states: write the states over time that the plan takes.
        inner_loop: stands in for the loops over time of recurrent layers; None leaves them.
        add_nudge: adds to a state what a gradient is taken at.
        noise: what the first floating tensors of whole and coarser inputs are moved by.
    """
    graph = tf.compat.v1.get_default_graph()
    before = len(graph.get_operations())
    probed = {o.ref.key for o in plan.plain}
    probed |= {ref.key for ref in plan.refs}
    probed |= {g.target.ref.key for g in plan.groups if g.target.ref is not None}
    refs = [*plan.refs, *(o.ref for o in plan.plain), *(g.target.ref for g in plan.groups)]
    over_steps = {ref.key for ref in refs if ref is not None and ref.made == OVER_STEPS}
    given = dict(stand_ins or {})
    apart = [ref for ref in plan.refs if ref.made and not ref.is_attention]
    wanted = [ref for ref in apart if not ref.is_of_states and not ref.is_over_steps]
    of_steps = [ref for ref in apart if ref.is_over_steps and (with_states or ref in given)]
    of_states = [ref for ref in apart if ref.is_of_states and with_states]
    first_floats = None
    if wanted or noise is not None:
        flat = [_in_this_graph(t) for t in flat]
        # Each is one tensor with a name of its own, whatever number of casts make it.
        made = {ref.slot: given.get(ref, tf.identity) for ref in wanted}
        first_floats = FirstFloats(flat, made, noise)
    replaced: dict[CallKey, dict[int, Callable[[Any], Any]]] = {}
    inside: dict[TensorRef, Callable[[Any], Any]] = {}
    for ref, stand_in in given.items():
        if ref.is_of_states or ref.is_over_steps:
            continue
        seen = functools.partial(_touched, first_floats, stand_in)
        if ref.is_attention:
            inside[ref] = seen
        elif not ref.made:
            replaced.setdefault(ref.key, {})[ref.position] = seen
    inner = InnerTensors(inside) if inside else None
    states: dict[CallKey, set[str]] = {}
    for o in plan.plain if with_states else ():
        if o.probe.of_states:
            states.setdefault(o.ref.key, set()).add(o.ref.operation)
    nudged: dict[CallKey, dict[str, Callable[[Any], Any]]] = {}
    for ref in of_states:
        if ref.made == STATE:
            states.setdefault(ref.key, set()).add(ref.operation)
        else:
            nudged.setdefault(ref.key, {})[ref.operation] = given.get(ref, tf.identity)
    moves = any(moved_together(group) for group in plan.groups)
    nest, watched = run_source(
        source,
        flat,
        replaced,
        weights,
        probed,
        first_floats,
        mark if moves else None,
        inner,
        states,
        inner_loop,
        gathers=any(o.probe.of_weights for o in plan.plain),
        nudged=nudged,
        add_nudge=add_nudge,
        over_steps=over_steps,
        nudged_steps={
            ref.key: given.get(ref, tf.identity) for ref in of_steps if ref.made == STEP_NUDGE
        },
    )
    found = first_floats.tensors if first_floats else {}
    operations = graph.get_operations()[before:]
    standing = inner.tensors if inner else {}
    run = Forward(list(flat), nest, watched, operations, before, found, standing)
    run.own_nest, run.noise = source.own_nest, noise
    run.states = {
        ref: given.get(ref, tf.identity)(run.state(ref)) for ref in of_states if ref.made == STATE
    }
    for ref in of_steps:
        if ref.made == OVER_STEPS:
            run.states[ref] = given.get(ref, tf.identity)(run.tensor(ref))
    return run


def forward_at(
    source: KerasModel,
    plan: Plan,
    forward: Forward,
    refs: Sequence[TensorRef],
    points: Sequence[Any],
) -> Forward:
    """Runs the model with `points` in the place of tensors.

    Args:
        source: the model.
        plan: what to capture.
        forward: the model at the inputs as they are.
        refs: the tensors.
        points: what stands in for each.
    """
    flat = list(forward.inputs)
    stand_ins: dict[TensorRef, Callable[[Any], Any]] = {}
    for ref, point in zip(refs, points, strict=True):
        if ref.is_input:
            flat[ref.position] = point
        else:
            stand_ins[ref] = functools.partial(_second, point)
    return run_forward(source, plan, flat, stand_ins, with_states=False, noise=forward.noise)


def _second(point: Any, _: Any) -> Any:
    return point


def _touched(first_floats: FirstFloats | None, stand_in: Callable[[Any], Any], before: Any) -> Any:
    after = stand_in(before)
    return first_floats.touch(after) if first_floats else after


def _in_this_graph(tensor: Any) -> Any:
    """Returns a tensor that operations read as it is, not through a loop's or branch's door."""
    here = tf.compat.v1.get_default_graph()
    return tensor if getattr(tensor, "graph", None) is here else tf.identity(tensor)


def plain_output(forward: Forward, output: PlainOutput) -> Any:
    """Returns an activation or attention weights as the artefact gives them."""
    if output.probe.of_states:
        tensor = forward.state(output.ref)
    elif output.probe.of_weights:
        tensor = forward.attention.weights[output.ref.key][output.ref.position].tensor
    else:
        tensor = _with_windows(forward.tensor(output.ref), output.windows)
    found = output.probe.payload(TensorFlowOperations(), tensor, output.axes)
    return tf.cast(found, output.spec.dtype)


def _with_windows(tensor: Any, windows: Sequence[int]) -> Any:
    """Returns a tensor with axes for what its first one joins with the samples."""
    if not windows:
        return tensor
    apart = tf.reshape(tensor, tf.concat([[-1], windows, tf.shape(tensor)[1:]], 0))
    apart.set_shape([None, *windows, *tensor.shape[1:]])
    return apart
