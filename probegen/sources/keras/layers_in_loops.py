"""Layers inside the loops of recurrent layers: what each step makes of them, over time.

What a layer gives in the body of a loop does not leave it. It is gathered step by step
(`gathering`), or, where a loop is written one step behind the other, stacked. What comes out is
`[batch, time, ...]` in the order in which the steps are fed, 0 at masked ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras
import tensorflow as tf

from probegen.plan.plan import CallKey
from probegen.sources.keras.gathering import Taken, batch_first
from probegen.sources.keras.layer_calls import LayerCall, OverSteps, as_fed
from probegen.sources.keras.recurrence import Recurrence
from probegen.sources.keras.timewise import has_rows, unfolded

#: Cells of Keras, which the layers that run them stand for.
_OWN_CELLS = (
    keras.layers.LSTMCell,
    keras.layers.GRUCell,
    keras.layers.SimpleRNNCell,
    keras.layers.StackedRNNCells,
)


class StepCalls:
    """The layer calls in the body of a loop, as they are made anew each time it is written.

    Attributes:
        around: the innermost call that the loop runs in: of the layer, or of what wraps it.
        loop: what the loop is given.
        calls: those of the body that was written last.
        leaving: what that body gives on.
    """

    def __init__(
        self,
        around: LayerCall,
        loop: Recurrence,
        watched: list[LayerCall],
        wanted: Collection[CallKey] | None,
    ) -> None:
        """Prepares for a loop.

        Args:
            around: the innermost call that it runs in.
            loop: what it is given.
            watched: all layer calls so far, which grow.
            wanted: whose outputs are to leave the loop; None for all that can.
        """
        self.around = around
        self.loop = loop
        self.calls: list[LayerCall] = []
        self.leaving: list[Any] = []
        self._watched = watched
        self._wanted = wanted
        self._places: list[tuple[int, int, Any]] = []

    @property
    def wants_some(self) -> bool:
        """Tells whether anything of a loop is asked for."""
        return self._wanted is None or bool(self._wanted)

    def noting(self, body: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a loop's body that notes the layers which it calls."""

        def noted(*values: Any) -> Any:
            start = len(self._watched)
            after = body(*values)
            self.calls = self._watched[start:]
            self.leaving = _tensors(after)
            return after

        return noted

    def take(self) -> list[Taken]:
        """Returns what is to leave the loop, of the calls of a body that was written on trial."""
        self._places = [
            (number, position, tensor.shape)
            for number, call in enumerate(self.calls)
            if self._wanted is None or (call.path, call.index) in self._wanted
            if not why_it_stays(call, self.loop, _graph_of(self.leaving))
            for position, tensor in enumerate(call.outputs)
        ]
        return [
            Taken(shape, self.calls[number].outputs[position].dtype, self._finds(number, position))
            for number, position, shape in self._places
        ]

    def _finds(self, number: int, position: int) -> Callable[[Any], Any]:
        return lambda _: self.calls[number].outputs[position]

    def over_steps(self, stacks: Sequence[Any], position: int) -> list[OverSteps]:
        """Returns the calls over time; what does not leave the loop has the reason in its place.

        Args:
            stacks: what the loop has gathered of `take`.
            position: how many operations the graph had before the loop.
        """
        outputs: dict[int, list[Any]] = {}
        for (number, _, shape), steps in zip(self._places, stacks, strict=True):
            outputs.setdefault(number, []).append(batch_first(steps, shape))
        return [
            self._over_steps(call, outputs.get(number, []), position, self.calls)
            for number, call in enumerate(self.calls)
        ]

    def unrolled(self, calls: Sequence[LayerCall]) -> list[OverSteps]:
        """Returns the calls over time of a loop that is written one step behind the other.

        Args:
            calls: those of all steps.
        """
        steps = self.loop.sequences.shape[1]
        graph = tf.compat.v1.get_default_graph()
        by_layer: dict[int, list[LayerCall]] = {}
        for call in calls:
            if any(getattr(t, "graph", None) is graph for t in call.outputs):
                by_layer.setdefault(id(call.layer), []).append(call)
        found = []
        for each in by_layer.values():
            count = len(each) // steps
            for k in range(count if count * steps == len(each) else 0):
                first, key = each[k], (each[k].path, each[k].index)
                if self._wanted is not None and key not in self._wanted:
                    continue
                outputs = []
                if not why_it_stays(first, self.loop, graph):
                    together = zip(*(call.outputs for call in each[k::count]), strict=True)
                    outputs = [tf.stack(tensors, 1) for tensors in together]
                found.append(self._over_steps(first, outputs, first.first_op, calls))
        return found

    def _over_steps(
        self, step: LayerCall, outputs: Sequence[Any], position: int, calls: Sequence[LayerCall]
    ) -> OverSteps:
        folds = self.loop.folds
        fed = [in_order(self.loop, tensor) for tensor in outputs]
        made = [unfolded(t, folds) if folds and has_rows(t, folds) else t for t in fed]
        call = dataclasses.replace(
            step,
            first_op=position,
            last_op=position,
            inputs=[],
            outputs=made,
            step_of=self.loop.path,
        )
        same = [c for c in calls if c.layer is step.layer]
        number = next(i for i, c in enumerate(same) if c is step)
        given = next((c.inputs for c in calls if c.is_cell), [])
        graph = _graph_of(given)
        reason = why_it_stays(step, self.loop, graph)
        return OverSteps(call, self.around, self.loop, step, number, given, self.leaving, reason)


def why_it_stays(call: LayerCall, loop: Recurrence, graph: Any) -> str:
    """Says why what a layer gives in a step cannot leave a loop; `""` where it can.

    Args:
        call: the call as the step makes it.
        loop: the loop.
        graph: of the step.
    """
    whole = loop.path
    if call.is_cell and (isinstance(call.layer, _OWN_CELLS) or _of_keras(call.layer)):
        return f"one step of {whole}; probe that layer, or its states (wrt='states:{whole}')"
    if call.in_inner_loop or any(getattr(t, "graph", None) is not graph for t in call.outputs):
        return (
            f"inside a loop or branch within each step of {whole!r}, which its values do not leave"
        )
    rows = loop.sequences.shape[0]
    if any(not _has_rows(tensor, rows) for tensor in call.outputs):
        return f"inside the steps of {whole!r}: its output has no axis of samples"
    return ""


def _has_rows(tensor: Any, rows: int | None) -> bool:
    """Tells whether the first axis of a tensor can be the batch."""
    if not tensor.shape.rank:
        return False
    return tensor.shape[0] == rows or (rows is not None and tensor.shape[0] is None)


def _of_keras(layer: Any) -> bool:
    return type(layer).__module__.startswith("keras.")


def in_order(loop: Recurrence, steps: Any) -> Any:
    """Returns what a loop has gathered in the order in which its steps are fed."""
    mask = next((m for m in keras.tree.flatten(loop.mask) if m is not None), None)
    return as_fed(loop.layer, mask, loop.sequences.shape[1], steps)


def _tensors(nest: Any) -> list[Any]:
    """Returns the tensors of a nest, of an array of tensors what it flows by."""
    return [v.flow if isinstance(v, tf.TensorArray) else v for v in tf.nest.flatten(nest)]


def _graph_of(tensors: Sequence[Any]) -> Any:
    return next((t.graph for t in tensors if hasattr(t, "graph")), None)
