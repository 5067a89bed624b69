"""What every part of the planning looks at: one trace, its probe points, its scores."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from probegen.errors import InstrumentError, SelectionError
from probegen.instrumentation.axes import Axes
from probegen.instrumentation.plan import TensorRef
from probegen.instrumentation.points import layers_in_order, probe_points
from probegen.instrumentation.randomness import Draw
from probegen.instrumentation.roles import role_of
from probegen.instrumentation.source import Source
from probegen.instrumentation.trace import Trace, ancestors, influenced_by, pre_activation, trace
from probegen.points import ProbePoint
from probegen.select import select
from probegen.spec import Probe


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
        if ref.path is None:
            return self.trace.inputs[ref.position]
        return self.trace.call(ref.key).outputs[ref.position]

    def axes(self, ref: TensorRef) -> Axes:
        """Returns what the axes of a tensor are."""
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
        if any(inner.outputs and w is inner.outputs[0] for w in weights.values()):
            return True
        return any(
            outer is not inner
            and outer.first_op <= inner.first_op
            and inner.last_op <= outer.last_op
            and ((outer.path, outer.index) in weights or role_of(outer.layer) == "attention")
            for outer in self.trace.calls
        )

    @functools.cache  # noqa: B019 - a context lives as long as one planning
    def embedding(self, position: int) -> TensorRef | None:
        """Returns the output of the first embedding on the way from an input, if there is one."""
        start = self.trace.inputs[position]
        dependent = influenced_by(start, self.trace.graph)
        for call in self.trace.calls:
            if role_of(call.layer) != "embedding" or not call.outputs:
                continue
            out = call.outputs[0]
            if self.trace.visible(out) and out.dtype.is_floating and id(out) in dependent:
                return TensorRef(call.path, call.index)
        return None


def output_name(probe: Probe, path: str, several: bool) -> str:
    """Returns `"<kind>/<path>"`, or what `name=` says."""
    given = getattr(probe, "name", None)
    if given is None:
        return f"{probe.kind}/{path}"
    return f"{given}/{path}" if several else str(given)
