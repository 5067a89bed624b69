"""What every part of the planning looks at: one trace, its probe points, its scores."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from probegen.errors import InstrumentError, SelectionError
from probegen.plan.axes import Axes, look_up_axes
from probegen.plan.plan import TensorRef
from probegen.plan.points import ProbePoint
from probegen.plan.selectors import select
from probegen.sources.keras.attention import comes_from
from probegen.sources.keras.capture import CallKey, LayerCall
from probegen.sources.keras.first_floats import MADE, TWIN, FirstFloat, Slot, Tie
from probegen.sources.keras.points import layers_in_order, probe_points
from probegen.sources.keras.randomness import Draw
from probegen.sources.keras.roles import role_of
from probegen.sources.keras.source import Source
from probegen.sources.keras.trace import Trace, ancestors, pre_activation, trace
from probegen.spec import Probe

_ON_THE_WAY_TO_A_PENALTY = frozenset(
    {"Identity", "Cast", "Sub", "Mul", "Reshape", "ExpandDims", "StridedSlice"}
)
_PENALTY = -1e4


@dataclasses.dataclass(frozen=True)
class Start:
    """A first floating tensor on the way of an input of whole numbers.

    Attributes:
        ref: the tensor.
        label: what an explanation of it is called where an input has several.
        ties: position of an input -> how the numbers that it is made from hang on that.
        is_lookup: whether ids look it up; otherwise numbers are cast.
        rows: number of legal ids, where that is known.
        masks: whether it says which positions count, and nothing else.
        usable: whether its first axis is the batch.
        moved: whether it has lost the order that the numbers have in the input.
    """

    ref: TensorRef
    label: str
    ties: Mapping[int, Tie]
    is_lookup: bool
    rows: int | None
    masks: bool
    usable: bool
    moved: bool

    def with_ties(self, more: Mapping[int, Tie]) -> Start:
        """Returns a copy that hangs on the inputs as tightly as either."""
        ties = dict(self.ties)
        for position, tie in more.items():
            ties[position] = max(tie, ties.get(position, tie))
        return dataclasses.replace(self, ties=ties)

    def carries(self, position: int) -> bool:
        """Tells whether it stands for what an input says, rather than for where it says it."""
        return self.ties.get(position, Tie.INDIRECT) >= Tie.COMPUTED and not self.masks


class Context:
    """One trace of a source, and questions about it.

    Attributes:
        source: the model.
        trace: the trace.
        points: its probe points.
        layers: the model's own list of layers, for index selectors.
        scores: for each model output, the pre-activation of its softmax or sigmoid, or None.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.trace: Trace = trace(source)
        self.points = probe_points(self.trace)
        self.layers = layers_in_order(source.model)
        self.scores = [pre_activation(t) for t in self.trace.outputs]

    def select(self, selector: Any, kind: str) -> list[ProbePoint]:
        """Returns the selected points that can be probed for `kind`.

        Raises:
            SelectionError: there is none; says why, and which there are.
        """
        chosen = select(self.points, selector, self.layers)
        able = [p for p in chosen if kind in p.probes]
        if able:
            return able
        self.check_draws(chosen)
        named = ", ".join(f"{p.name!r} ({p.class_name})" for p in chosen[:5])
        reasons = sorted({p.reason for p in chosen if p.reason})
        others = [p.name for p in self.points if kind in p.probes]
        hint = (
            f" Layers that can: {', '.join(map(repr, others[:5]))}."
            if others
            else f" This model has no layer that can be probed for {kind}."
        )
        raise SelectionError(
            f"{selector!r} matches {named}, none of which can be probed for {kind}"
            + (f": {'; '.join(reasons)}." if reasons else ".")
            + hint
        )

    def check_draws(self, points: Sequence[ProbePoint]) -> None:
        """Refuses points whose values are random; see `refuse_draw`."""
        for point in points:
            key = (point.path, point.call_index)
            calls = [c for c in self.trace.calls if (c.path, c.index) == key]
            for tensor in (t for call in calls for t in call.outputs):
                self.refuse_draw(tensor, f"layer {point.name!r}", self.trace.random)

    def refuse_draw(self, tensor: Any, what: str, random: Mapping[int, Draw]) -> None:
        """Refuses a tensor whose value is random.

        Args:
            tensor: the tensor.
            what: what it is called in the message.
            random: the random tensors, as `drawn` finds them.

        Raises:
            InstrumentError: it depends on a draw; says on which, and what works.
        """
        draw = random.get(id(tensor))
        if draw is not None:
            raise InstrumentError(
                f"{what} is drawn at random, by {self.trace.drawn_by(draw)}: each call of the "
                "model draws anew, which no artefact can agree with. Draw the numbers outside and "
                "pass them to the model as an input, or let the layer draw in training alone "
                "(training=False; a fixed integer seed is no draw)."
            )

    def tensor(self, ref: TensorRef) -> Any:
        """Returns the tensor of this trace that a reference means."""
        if ref.made:
            return self._made[ref.slot].tensor
        if ref.path is None:
            return self.trace.inputs[ref.position]
        return self.trace.call(ref.key).outputs[ref.position]

    def axes(self, ref: TensorRef) -> Axes:
        """Returns what the axes of what a reference means are: the input's for a cast of it."""
        if ref.made == TWIN:
            return self.trace.axes(self.trace.inputs[ref.position])
        if ref.made and self._made[ref.slot].apart is not None:
            return look_up_axes(len(self.shape(ref)))
        return self.trace.axes(self.tensor(ref))

    def inputs_of(self, ref: TensorRef) -> list[str]:
        """Returns the names of the inputs that a tensor is computed from."""
        before = ancestors([self.tensor(ref)])
        named = zip(self.source.input_names, self.trace.inputs, strict=True)
        return [name for name, tensor in named if tensor.op in before]

    def inside_attention(self, point: ProbePoint) -> bool:
        """Tells whether a layer call makes attention weights, or runs inside an attention layer."""
        inner = self.trace.call((point.path, point.call_index))
        weights = self.trace.weights
        if any(inner.outputs and comes_from(inner.outputs[0], w) for w in weights.values()):
            return True
        return any(
            outer is not inner
            and outer.first_op <= inner.first_op
            and inner.last_op <= outer.last_op
            and ((outer.path, outer.index) in weights or role_of(outer.layer) == "attention")
            for outer in self.trace.calls
        )

    def tensors(self, ref: TensorRef) -> list[Any]:
        """Returns the tensors of this trace that a reference means: several casts are one."""
        if ref.made:
            return self._made[ref.slot].tensors
        return [self.tensor(ref)]

    def shape(self, ref: TensorRef) -> tuple[int | None, ...]:
        """Returns the sizes of what a reference means, the batch first."""
        return self._made[ref.slot].shape if ref.made else tuple(self.tensor(ref).shape)

    @functools.cached_property
    def _made(self) -> dict[Slot, FirstFloat]:
        return {place.slot: place for place in self.trace.first_floats.found}

    @functools.cached_property
    def starts(self) -> list[Start]:
        """The first floating tensors that are made from whole numbers of the inputs."""
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
        scores, or what user code multiplies by a large negative number for that.
        """
        names = [self.source.input_names[i] for i in place.ties]
        adds = any(
            role_of(c.layer) == "attention" or isinstance(c.layer, keras.layers.Softmax)
            for c in around
        )
        return not place.is_lookup and (
            adds
            or all("mask" in name.lower() for name in names)
            or any(map(_becomes_penalty, place.tensors))
        )

    @functools.cached_property
    def _numbers(self) -> dict[Any, int]:
        return {op: i for i, op in enumerate(self.trace.graph.get_operations())}

    @functools.cached_property
    def _point_names(self) -> dict[CallKey, str]:
        return {(p.path, p.call_index): p.name for p in self.points}


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


def output_name(probe: Probe, path: str, several: bool) -> str:
    """Returns `"<kind>/<path>"`, or what `name=` says."""
    given = getattr(probe, "name", None)
    if given is None:
        return f"{probe.kind}/{path}"
    return f"{given}/{path}" if several else str(given)
