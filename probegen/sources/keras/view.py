"""A Keras model as planning looks at it: one trace, its probe points, its scores."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from probegen.artefact.manifest import Padding
from probegen.errors import InstrumentError
from probegen.plan.axes import GROUPED_HEADS, look_up_axes, position_axes, with_windows
from probegen.plan.model_view import AttentionWeights, ModelView, Start, StateFacts, TensorFacts
from probegen.plan.plan import (
    MADE,
    OVER_STEPS,
    STATE,
    STEP_NUDGE,
    TWIN,
    CallKey,
    Slot,
    TargetPlan,
    TensorRef,
)
from probegen.plan.points import ProbePoint
from probegen.plan.positions import Reading, batch_and_channel, weight_axes
from probegen.plan.positions import Weights as WeightAxes
from probegen.plan.single_positions import axes_seen_at_one_entry
from probegen.sources.keras.attention import Weights, is_given_by
from probegen.sources.keras.capture import Watcher, watching
from probegen.sources.keras.dependencies import ancestors
from probegen.sources.keras.first_floats import FirstFloat
from probegen.sources.keras.keras_model import KerasModel
from probegen.sources.keras.layer_calls import LayerCall
from probegen.sources.keras.lengths import longest
from probegen.sources.keras.logits import pre_activation
from probegen.sources.keras.nudges import hidden_states, why_no_gradient
from probegen.sources.keras.padding import constants_compared, paddings
from probegen.sources.keras.points import layers_in_order, probe_points, recurrences_at
from probegen.sources.keras.positions import follow_graph, turned_tensors
from probegen.sources.keras.precision import FINE, current
from probegen.sources.keras.randomness import Draw, drawn
from probegen.sources.keras.recurrence import forms
from probegen.sources.keras.roles import role_of
from probegen.sources.keras.shortest import shortest
from probegen.sources.keras.targets import callable_value, score
from probegen.sources.keras.texts.fewest_words import FewestWords, by_input, fewest_words
from probegen.sources.keras.trace import (
    Trace,
    blocking_operations,
    custom_gradients,
    influenced_by,
    is_differentiable,
    last_on_the_way,
    trace,
)

#: Operations that move or resize what they read, of which a score is still the same score.
_MOVING = frozenset(
    {"Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "Transpose", "DepthToSpace"}
    | {"ResizeBilinear", "ResizeBicubic", "ResizeNearestNeighbor"}
)
_ON_THE_WAY_TO_A_PENALTY = frozenset(
    {"Identity", "Cast", "Sub", "Mul", "Reshape", "ExpandDims", "StridedSlice"}
)
_PENALTY = -1e4
#: Rank of attention weights `[batch, query, key]`.
_WITHOUT_HEADS = 3
#: Rank of attention weights `[batch, group, head of it, query, key]`.
_GROUPED_RANK = 5


class KerasView(ModelView):
    """One trace of a Keras model, and questions about it.

    Attributes:
        source: the model.
        trace: the trace.
        points: its probe points.
        layers: the model's own list of layers, for index selectors.
        scores: for each model output, the pre-activation of its softmax or sigmoid, or None.
    """

    def __init__(self, source: KerasModel) -> None:
        self.source = source
        self.trace: Trace = trace(source)
        self.points = probe_points(self.trace)
        self.layers = layers_in_order(source.model)
        self.scores = [pre_activation(t) for t in self.trace.outputs]
        self.input_names = source.input_names
        self.output_names = source.output_names
        self.model = {"name": source.model.name, "class": type(source.model).__name__}
        if current() is not None:
            self.model["precision"] = FINE
        self.producer = {"keras": keras.__version__}
        self.carried = source.carried_states

    # -- tensors ---------------------------------------------------------------------------

    def input(self, position: int) -> TensorFacts:
        """Returns what is known of an input."""
        return self._named(self.input_names[position], self.trace.inputs[position])

    def output(self, position: int) -> TensorFacts:
        """Returns what is known of an output."""
        return self._named(self.output_names[position], self.trace.outputs[position])

    def _named(self, name: str, tensor: Any) -> TensorFacts:
        """Returns what is known of an input or output: of a fed state also its axes."""
        facts = self._facts(tensor)
        axes = self.source.axes_of(name)
        return facts if axes is None else dataclasses.replace(facts, axes=axes)

    def tensor(self, ref: TensorRef) -> TensorFacts:
        """Returns what is known of a tensor; the axes of a cast are those of its input."""
        if ref.is_of_states:
            return self._state(ref).facts
        tensor = self._tensor(ref)
        if ref.is_attention:
            return self._facts(tensor)
        windows = () if ref.made else self.trace.windows.get(id(tensor), ())
        if windows:
            axes = with_windows(self.trace.axes(tensor), len(windows))
            shape = (*tensor.shape[:1], *windows, *tensor.shape[1:])
            return TensorFacts(shape, tensor.dtype.name, axes, tensor.dtype.is_floating, windows)
        shape = self._made[ref.slot].shape if _is_start(ref) else tuple(tensor.shape)
        axes = self.trace.axes(tensor)
        if ref.made == TWIN:
            axes = self.trace.axes(self.trace.inputs[ref.position])
        elif _is_start(ref) and self._made[ref.slot].apart is not None:
            axes = look_up_axes(len(shape))
        return TensorFacts(shape, tensor.dtype.name, axes, tensor.dtype.is_floating)

    def output_ref(self, point: ProbePoint, position: int = 0) -> TensorRef:
        """Returns an output of a point as it is given out: of one in a loop, over its steps."""
        ref = super().output_ref(point, position)
        return dataclasses.replace(ref, made=OVER_STEPS) if point.loop else ref

    def gradient_ref(self, point: ProbePoint) -> TensorRef:
        """Returns what a gradient at the first output of a point is taken at."""
        ref = super().gradient_ref(point)
        return dataclasses.replace(ref, made=STEP_NUDGE) if point.loop else ref

    def attention(self, point: ProbePoint) -> Sequence[AttentionWeights]:
        """Returns the attention weights at a point that applies some."""
        found = self._weights[point.path, point.call_index]
        facts = [_with_grouped_heads(self._facts_of(w), point.layer) for w in found]
        return [
            AttentionWeights(point, number, len(found), facts[number], w.keys, w.steps, w.ref)
            for number, w in enumerate(found)
        ]

    def _facts_of(self, weights: Weights) -> TensorFacts:
        """Returns what is known of attention weights; parts of an image within which they are."""
        facts, count = self._facts(weights.tensor), weights.windows
        rank = len(facts.shape) - count
        if count == 0 or (count == 1 and rank == _WITHOUT_HEADS):
            return facts  # the one axis is that of the heads
        own = (*facts.axes[:1], *facts.axes[1 + count :])
        return dataclasses.replace(facts, axes=with_windows(own, count))

    def instead(self, kind: str) -> str:
        """Says what to do where no attention weights are found."""
        if kind != "attention":
            return ""
        return (
            "Attention weights are found where a softmax is multiplied with values that depend on "
            "the input and summed over the axis along which it adds up to one. For a layer that "
            "weighs in another way, say which tensor its weights are: "
            "pg.register_attention(LayerClass, lambda layer, inputs, outputs: outputs[1])."
        )

    def states(self, point: ProbePoint) -> list[StateFacts]:
        """Returns the states over time, and the gates, of the recurrent layers at a point."""
        found = []
        for call, recurrence in recurrences_at(self.trace, self.trace.call(_key(point))):
            number = call.recurrences.index(recurrence)
            path = self._point_names[call.path, call.index]
            if recurrence.path != call.path:  # a layer that its wrapper runs by itself
                path = path.replace(call.path, recurrence.path, 1)
            for form in forms(recurrence):
                ref = TensorRef(call.path, call.index, number, STATE, form.suffix)
                facts = TensorFacts(form.shape, form.dtype, form.axes, is_float=True)
                name = f"{path}{form.suffix}"
                found.append(StateFacts(name, form.title, ref, facts, form.is_gate))
        return found

    def why_no_gradient_at(self, state: StateFacts) -> str:
        """Says why no gradient can be taken at a state over time; `""` where one can."""
        ref = state.ref
        recurrence = self.trace.call(ref.key).recurrences[ref.position]
        cell = hidden_states(recurrence).get(ref.operation)
        steps = (call.outputs for call in self.trace.calls if call.layer is cell)
        return why_no_gradient(recurrence, ref.operation, next(steps, ()))

    def _state(self, ref: TensorRef) -> StateFacts:
        """Returns what is known of a state over time, or of what is added to it."""
        point = next(p for p in self.points if _key(p) == ref.key)
        place = (ref.position, ref.operation)
        own = (s for s in self.states(point) if s.ref.key == ref.key)
        return next(s for s in own if (s.ref.position, s.ref.operation) == place)

    def readings(self, weights: Sequence[AttentionWeights]) -> list[Reading]:
        """Returns which positions attention weights read, one by one."""
        made = [self._weights[w.plain_ref.key][w.number] for w in weights]
        where: dict[Hashable, WeightAxes] = {
            id(w.applied): weight_axes(
                self.trace.axes(w.applied),
                w.applied_keys,
                w.tensor.shape.rank > w.applied.shape.rank,
            )
            for w in made
        }
        inputs = [(t, *batch_and_channel(self.trace.axes(t))) for t in self.trace.inputs]
        positions = follow_graph(self.trace.graph, inputs, where, told_sizes=True)
        by_tensor = dict(zip(where, positions.readings(), strict=True))
        return [
            dataclasses.replace(
                by_tensor[id(w.applied)], along=tuple(positions.axes_of(id(w.tensor)))
            )
            for w in made
        ]

    @property
    def _weights(self) -> Mapping[CallKey, Sequence[Weights]]:
        return self.trace.attention.weights

    def _facts(self, tensor: Any) -> TensorFacts:
        return TensorFacts(
            tuple(tensor.shape),
            tensor.dtype.name,
            self.trace.axes(tensor),
            tensor.dtype.is_floating,
        )

    def has_scores(self, position: int) -> bool:
        """Tells whether an output comes out of a softmax or sigmoid, which has scores before it."""
        return self.scores[position] is not None

    def holds_ids(self, position: int) -> bool:
        """Tells whether the numbers of a floating input are cut to whole ones before a look-up."""
        return position in self.trace.first_floats.truncated

    def sorts_into_bins(self, position: int) -> bool:
        """Tells whether the numbers of an input of whole numbers are sorted into bins."""
        return position in self.trace.first_floats.binned

    def compares(self, position: int) -> bool:
        """Tells whether whole numbers of an input are compared with stored numbers."""
        return self.trace.first_floats.compares(position)

    def is_embedding(self, ref: TensorRef) -> bool:
        """Tells whether a tensor comes out of an embedding."""
        return role_of(self.trace.call(ref.key).layer) == "embedding"

    # -- what is differentiated ------------------------------------------------------------

    def end(self, target: TargetPlan) -> Any:
        """Returns the tensor of the trace that a target is taken from.

        Raises:
            InstrumentError: a callable that does not return one number a sample, or draws some.
        """
        if target.ref is not None:
            return self._tensor(target.ref)
        if target.function is None:
            return score(self.trace.outputs[target.position], target.spec.logits)
        with self.trace.graph.as_default(), watching(Watcher(self.source.model)):
            value = callable_value(
                target.function, self.source.own_nest(self.trace.nest), target.spec.logits
            )
        random = drawn(self.trace.graph, self.trace.draws)
        self._refuse_draw(value, f"the target {target.spec.name}", random)
        return value

    def made_by(self, position: int) -> str:
        """Says in a sentence which operation made an output that holds no floating numbers."""
        op = self.trace.outputs[position].op
        while op.type in ("Identity", "Cast") and not op.inputs[0].dtype.is_floating:
            op = op.inputs[0].op
        where = self.trace.layer_of(op)
        return f"It is made by {op.type}" + (f" in layer {where!r}." if where else ".")

    def explainable_in_part(self, position: int) -> bool:
        """Tells whether some output can be differentiated by an input."""
        tensor = self.trace.inputs[position]
        return any(is_differentiable(self.trace, tensor, out) for out in self.trace.outputs)

    def flows(self, ref: TensorRef, end: Any) -> bool:
        """Tells whether a gradient flows from an end back to a tensor."""
        return any(
            start.dtype.is_floating and is_differentiable(self.trace, start, end)
            for start in self._tensors(ref)
        )

    def depends(self, ref: TensorRef, end: Any) -> bool:
        """Tells whether the numbers of an end depend on a tensor, in whichever way."""
        return any(
            (ref.is_input or start.dtype.is_floating)
            and id(end) in influenced_by(start, self.trace.graph)
            for start in self._tensors(ref)
        )

    def depends_beside(self, position: int, refs: Sequence[TensorRef], end: Any) -> bool:
        """Tells whether an end depends on an input by other ways than some tensors."""
        made = [t for ref in refs for t in self._tensors(ref)]
        return id(end) in influenced_by(self.trace.inputs[position], self.trace.graph, beside=made)

    def blocked_at(self, ref: TensorRef, end: Any) -> set[tuple[str, str]]:
        """Returns operations, and their layers, that stop a gradient between the two."""
        return {
            (op.type, self.trace.layer_of(op))
            for op in blocking_operations(self.trace, self._tensors(ref)[0], end)
        }

    def redefined_at(self, ref: TensorRef, end: Any) -> list[str]:
        """Returns layers between the two in which user code has redefined a gradient."""
        starts = self._tensors(ref)
        found = (o for t in starts for o in custom_gradients(self.trace, t, end))
        return [self.trace.layer_of(op) for op in found]

    def last_on_the_way(self, refs: Sequence[TensorRef], end: Any) -> list[TensorRef]:
        """Returns those of some tensors that a gradient from an end reaches before the others."""
        maps = {id(self._tensor(ref)): ref for ref in refs}
        found = last_on_the_way(self.trace, maps, end)
        return [ref for i, ref in maps.items() if i in found]

    def holding_scores(self, refs: Sequence[TensorRef], end: Any) -> set[TensorRef]:
        """Returns those of some tensors that are an end itself, moved or resized at most."""
        held, tensor = {id(end)}, end
        while tensor.op.type in _MOVING:
            tensor = tensor.op.inputs[0]
            held.add(id(tensor))
        return {ref for ref in refs if id(self._tensor(ref)) in held}

    def seen_at_one_position(self, refs: Sequence[TensorRef], end: Any) -> set[TensorRef]:
        """Returns those of some tensors of which a target sees one position along some axis."""
        inputs = [(t, *batch_and_channel(self.trace.axes(t))) for t in self.trace.inputs]
        single = axes_seen_at_one_entry(follow_graph(self.trace.graph, inputs, {}), id(end))
        return {
            ref
            for ref in refs
            if single.get(id(tensor := self._tensor(ref)), set())
            & set(position_axes(self.trace.axes(tensor)))
        }

    # -- random numbers --------------------------------------------------------------------

    def check_outputs_not_random(self) -> None:
        """Refuses a model whose outputs are drawn at random; see `_refuse_draw`."""
        outputs = list(zip(self.output_names, self.trace.outputs, strict=True))
        kept = [name for name, tensor in outputs if id(tensor) not in self.trace.random]
        more = f" Or leave it out: compile a model that gives {kept} alone." if kept else ""
        for name, tensor in outputs:
            self._refuse_draw(tensor, f"output {name!r}", self.trace.random, more)

    def check_not_random(self, points: Sequence[ProbePoint]) -> None:
        """Refuses points whose values are random; see `_refuse_draw`."""
        for point in points:
            key = (point.path, point.call_index)
            calls = [c for c in self.trace.calls if (c.path, c.index) == key]
            for tensor in (t for call in calls for t in call.outputs):
                self._refuse_draw(tensor, f"layer {point.name!r}", self.trace.random)

    def _refuse_draw(
        self, tensor: Any, what: str, random: Mapping[int, Draw], more: str = ""
    ) -> None:
        """Refuses a tensor whose value is random.

        Args:
            tensor: the tensor.
            what: what it is called in the message.
            random: the random tensors, as `drawn` finds them.
            more: what else works.

        Raises:
            InstrumentError: it depends on a draw; says on which, and what works.
        """
        draw = random.get(id(tensor))
        if draw is not None:
            raise InstrumentError(
                f"{what} is drawn at random, by {self.trace.drawn_by(draw)}: each call of the "
                "model draws anew, which no artefact can agree with. Draw the numbers outside and "
                "pass them to the model as an input, or let the layer draw in training alone "
                f"(training=False; a fixed integer seed is no draw).{more}"
            )

    def _tensor(self, ref: TensorRef) -> Any:
        """Returns the tensor of this trace that a reference means: of states, the output."""
        if ref.is_attention:
            return self.trace.attention.at(ref)
        if ref.is_of_states:
            return self.trace.call(ref.key).outputs[0]
        if ref.is_over_steps:
            return self.trace.call(ref.key).outputs[ref.position]
        if ref.made:
            return self._made[ref.slot].tensor
        if ref.path is None:
            return self.trace.inputs[ref.position]
        return self.trace.call(ref.key).outputs[ref.position]

    def _tensors(self, ref: TensorRef) -> list[Any]:
        """Returns the tensors of this trace that a reference means: several casts are one."""
        if ref.is_of_states:  # in whichever way a target depends on them, it does by these
            return list(self.trace.call(ref.key).outputs)
        if ref.made == STEP_NUDGE:
            return list(self.trace.watched.over_steps[ref.key].around.outputs)
        return self._made[ref.slot].tensors if _is_start(ref) else [self._tensor(ref)]

    def paddings(self) -> Mapping[int, Padding]:
        """Returns the positions of inputs -> what says where they are padding, where known."""
        return self._paddings

    def longest(self) -> Mapping[int, int]:
        """Returns the positions of inputs -> the most steps that they may have, where known."""
        told = {self.input_names.index(name): n for name, n in self.source.longest.items()}
        return {**longest(self.trace.graph.get_operations(), self.trace.inputs), **told}

    def shortest(self) -> Mapping[int, tuple[int | None, ...]]:
        """Returns the positions of inputs -> the fewest entries of each axis, where known."""
        operations = self.trace.graph.get_operations()
        return shortest(operations, self.trace.inputs, self._recurrent)

    def fewest_words(self) -> Mapping[int, int]:
        """Returns the positions of inputs of strings -> how many words a text needs, where known.

        That is of the longest text of a batch, which the others are filled up to.
        """
        return by_input(self.needed_words)

    @functools.cached_property
    def needed_words(self) -> Sequence[FewestWords]:
        """What calls of text layers have to give."""
        trace = self.trace
        influences = functools.partial(influenced_by, graph=trace.graph)
        return fewest_words(
            trace.graph.get_operations(), trace.inputs, trace.calls, self._recurrent, influences
        )

    @property
    def _recurrent(self) -> list[tuple[Sequence[Any], Sequence[Any]]]:
        return [
            (call.inputs, call.outputs)
            for call in self.trace.calls
            if isinstance(call.layer, keras.layers.RNN | keras.layers.Bidirectional)
        ]

    @functools.cached_property
    def _paddings(self) -> Mapping[int, Padding]:
        operations = self.trace.graph.get_operations()
        constants = constants_compared(operations)
        fed = self.fed([id(t) for t in self.trace.inputs], constants)
        return paddings(operations, self.trace.calls, fed, constants)

    def inputs_of(self, ref: TensorRef) -> list[str]:
        """Returns the names of the inputs that a tensor is computed from."""
        before = ancestors([self._tensor(ref)])
        named = zip(self.source.input_names, self.trace.inputs, strict=True)
        return [name for name, tensor in named if tensor.op in before]

    def runs_backwards(self, ref: TensorRef) -> bool:
        """Tells whether positions of a tensor stand in the opposite order of an input's."""
        if ref.is_over_steps:  # in the order in which the loop is fed
            return id(self.trace.watched.over_steps[ref.key].loop.sequences) in self._turned
        return id(self._tensor(ref)) in self._turned

    @functools.cached_property
    def _turned(self) -> frozenset[Hashable]:
        unrolled = [
            (call.inputs, call.outputs, bool(call.layer.go_backwards))
            for call in self.trace.calls
            if isinstance(call.layer, keras.layers.RNN) and call.layer.unroll
        ]
        return turned_tensors(self.trace.graph, self.trace.inputs, unrolled)

    def inside_attention(self, point: ProbePoint) -> bool:
        """Tells whether a layer call makes attention weights, or runs inside an attention layer."""
        inner = self.trace.call((point.path, point.call_index))
        weights = self._weights
        given = inner.outputs[:1]
        if any(is_given_by(t, w) for t in given for each in weights.values() for w in each):
            return True
        return any(
            outer is not inner
            and outer.first_op <= inner.first_op
            and inner.last_op <= outer.last_op
            and ((outer.path, outer.index) in weights or role_of(outer.layer) == "attention")
            for outer in self.trace.calls
        )

    @functools.cached_property
    def _made(self) -> dict[Slot, FirstFloat]:
        return {place.slot: place for place in self.trace.first_floats.found}

    @property
    def starts(self) -> Sequence[Start]:
        """The first floating tensors that are made from whole numbers of the inputs."""
        return self._starts

    @functools.cached_property
    def _starts(self) -> list[Start]:
        found: dict[TensorRef, Start] = {}
        for place in self.trace.first_floats.found:
            start = self._start(place)
            before = found.get(start.ref)
            found[start.ref] = start if before is None else before.with_ties(start.ties)
        return _with_numbers(list(found.values()))

    def _start(self, place: FirstFloat) -> Start:
        """Returns what an explanation of a place refers to: a layer's output where it is one."""
        around = self._calls_around(place)
        call = next((c for c in around if self._gives(c, place)), None)
        if call is not None:
            ref = TensorRef(call.path, call.index)
            ids = [t for t in call.inputs if self.trace.first_floats.ties(t)]
            is_embedding = role_of(call.layer) == "embedding"
            ties = self.trace.first_floats.ties(ids[0]) if is_embedding else {}
            return Start(
                ref,
                self._point_names[ref.key],
                {**place.ties, **ties},
                place.is_lookup,
                rows=getattr(call.layer, "input_dim", place.rows),
                masks=self._masks(place, around),
                usable=True,
                moved=place.moved,
                counts=place.counts,
                resized=place.resized,
            )
        kind, (path, index), number = place.slot
        if kind == TWIN:
            ref = TensorRef(None, position=number, made=TWIN)
            label = self.source.input_names[number]
        else:
            ref = TensorRef(path or None, index, number, MADE)
            first = self.source.input_names[min(place.ties)]
            label = f"{self._point_names[path, index] if path else first}/{place.word}"
        return Start(
            ref,
            label,
            place.ties,
            place.is_lookup,
            place.rows if place.is_lookup else None,
            self._masks(place, around),
            place.usable,
            place.moved,
            place.counts,
            place.resized,
        )

    def _calls_around(self, place: FirstFloat) -> list[LayerCall]:
        """Returns the layer calls that a place is made in, the innermost first."""
        at = self._numbers[place.tensor.op]
        calls = [c for c in self.trace.calls if any(map(self.trace.visible, c.outputs))]
        return [c for c in reversed(calls) if c.first_op <= at < c.last_op]

    def _gives(self, call: LayerCall, place: FirstFloat) -> bool:
        """Tells whether what a layer call returns can be explained in the stead of a place."""
        if place.slot[0] == TWIN or place.apart is not None or len(call.outputs) != 1:
            return False
        out = call.outputs[0]
        if not self.trace.visible(out) or not out.dtype.is_floating:
            return False
        ids = [t for t in call.inputs if self.trace.first_floats.ties(t)]
        if any(map(self.trace.first_floats.is_joined, ids)):
            return False
        wrapped = getattr(call.layer, "layer", None)  # of TimeDistributed
        is_embedding = "embedding" in (role_of(call.layer), role_of(wrapped))
        return out is place.tensor or (is_embedding and len(ids) == 1)

    def _masks(self, place: FirstFloat, around: Sequence[LayerCall]) -> bool:
        """Tells whether the numbers only say which positions count.

        An input that is called a mask is one, and so is what attention or a softmax adds to its
        scores, or what user code multiplies by a large negative number for that. So is what comes
        of comparing the numbers.
        """
        names = [self.source.input_names[i] for i in place.ties]
        adds = any(
            role_of(c.layer) == "attention" or isinstance(c.layer, keras.layers.Softmax)
            for c in around
        )
        return not place.is_lookup and (
            adds
            or place.tells_whether
            or all("mask" in name.lower() for name in names)
            or any(map(_becomes_penalty, place.tensors))
        )

    @functools.cached_property
    def _numbers(self) -> dict[Any, int]:
        return {op: i for i, op in enumerate(self.trace.graph.get_operations())}

    @functools.cached_property
    def _point_names(self) -> dict[CallKey, str]:
        return {(p.path, p.call_index): p.name for p in self.points}


def _is_start(ref: TensorRef) -> bool:
    """Tells whether a reference means what is made of whole numbers of inputs."""
    return bool(ref.made) and not ref.is_attention and not ref.is_over_steps


def _key(point: ProbePoint) -> CallKey:
    return point.path, point.call_index


def _becomes_penalty(tensor: Any) -> bool:
    """Tells whether numbers become a large negative one, as `(1 - mask) * -1e9` does."""
    pending, seen = [tensor], set()
    while pending:
        for op in pending.pop().consumers():
            if op in seen or op.type not in _ON_THE_WAY_TO_A_PENALTY:
                continue
            seen.add(op)
            factors = [tf.get_static_value(t) for t in op.inputs] if op.type == "Mul" else []
            if any(f is not None and f.size and f.min() <= _PENALTY for f in factors):
                return True
            pending.extend(op.outputs)
    return False


def _with_numbers(starts: Sequence[Start]) -> list[Start]:
    """Returns starts whose labels differ: `#k` where several would be called the same."""
    labels = [s.label for s in starts]
    seen: dict[str, int] = {}
    numbered = []
    for start in starts:
        number = seen.get(start.label, 0)
        seen[start.label] = number + 1
        several = labels.count(start.label) > 1
        label = f"{start.label}#{number}" if several else start.label
        numbered.append(dataclasses.replace(start, label=label))
    return numbered


def _with_grouped_heads(facts: TensorFacts, layer: Any) -> TensorFacts:
    """Returns attention weights whose heads are in groups that share keys and values, named so.

    Layers of KerasHub that write the groups as an axis say how many of both there are.
    """
    groups = getattr(layer, "num_key_value_heads", None)
    heads = getattr(layer, "num_query_heads", None)
    if len(facts.shape) != _GROUPED_RANK or groups is None or heads is None:
        return facts
    if facts.shape[1:3] != (groups, heads // groups):
        return facts
    return dataclasses.replace(facts, axes=(facts.axes[0], *GROUPED_HEADS, *facts.axes[3:]))
