"""Gradients at what the steps of a recurrent layer make, at zeros that are added to it in each.

The hidden state of a step goes into the output there and into all later steps. The gradient by
both together is that at a number which is added to the state as soon as the cell has made it: at
zeros, `[batch, time, ...]`, one for each step. A cell that makes more of its new state in the same
step (an output that is another function of it) has none such: what it made would be left out.

So it is with the output of a layer that the steps call: what is added to it goes wherever the step
takes it, and by the states into all later steps.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from probegen.sources.keras.recurrence import Recurrence, keras_loop
from probegen.sources.keras.timewise import folded, unfolded

#: Adds a nudge to a state.
Add = Callable[[Any, Any], Any]


#: The how-many-th call of a layer (its id) in a step.
StepCall = tuple[int, int]


@dataclasses.dataclass
class Nudges:
    """What is added to hidden states of one loop, and to outputs of layers in its steps.

    Attributes:
        recurrence: what the loop is given.
        over_time: what a state is called behind the layer's path -> zeros for all its steps, with
            an axis for each length around.
        rows: the same with these lengths folded into the batch, `[batch, time, ...]`.
        add: adds one to a state.
        now: id of a cell -> what is added to its state in the step that is being written.
        layers: likewise what is added to the outputs of calls of layers in all steps, `rows`.
        layers_now: what is added to these in the step that is being written.
        called: id of a layer -> how many calls of it that step has made.
    """

    recurrence: Recurrence
    over_time: dict[str, Any]
    rows: dict[str, Any]
    add: Add
    now: dict[int, Any] = dataclasses.field(default_factory=dict)
    layers: dict[StepCall, Any] = dataclasses.field(default_factory=dict)
    layers_now: dict[StepCall, Any] = dataclasses.field(default_factory=dict)
    called: dict[int, int] = dataclasses.field(default_factory=dict)

    def added(self, layer: Any, outputs: Any) -> Any:
        """Returns what a layer returned, nudged: a cell's new hidden state, a layer's output."""
        number = self.called.get(id(layer), 0)
        self.called[id(layer)] = number + 1
        of_output = self.layers_now.get((id(layer), number))
        if of_output is not None:
            first, *rest = keras.tree.flatten(outputs)
            moved = [self.add(first, of_output), *rest]
            outputs = keras.tree.pack_sequence_as(outputs, moved)
        nudge = self.now.get(id(layer))
        if nudge is None:
            return outputs
        flat = keras.tree.flatten(outputs)
        state = flat[1]  # behind the output, which often is the same
        moved = self.add(state, nudge)
        return keras.tree.pack_sequence_as(outputs, [moved if t is state else t for t in flat])

    @property
    def of_cells(self) -> list[Any]:
        """What is added to the hidden state of each cell, `[batch, time, ...]`, or None."""
        return [self.rows.get(suffix) for suffix in hidden_states(self.recurrence)]

    def loop(self, layer: Any, sequences: Any, *_: Any, **__: Any) -> Any:
        """Runs the loop of a layer as `RNN.inner_loop` does, with a nudge in each step."""
        cells = hidden_states(self.recurrence)
        owners = [id(cells[suffix]) for suffix in self.rows]
        nudges = [*self.rows.values(), *self.layers.values()]
        beside, apart = _side_by_side([sequences, *nudges])

        def step(inputs: Any, states: Any) -> Any:
            x, *each = apart(inputs)
            self.now = dict(zip(owners, each, strict=False))
            self.layers_now = dict(zip(self.layers, each[len(owners) :], strict=True))
            self.called = {}
            try:
                return self.recurrence.output_and_states(x, states)
            finally:
                self.now, self.layers_now = {}, {}

        return keras_loop(self.recurrence, beside, step, unroll=layer.unroll)


def make_nudges(
    recurrence: Recurrence, wanted: Mapping[str, Callable[[Any], Any]], add: Add
) -> Nudges:
    """Writes the zeros that are added to the hidden states of a loop.

    Args:
        recurrence: what the loop is given.
        wanted: what a state is called behind the layer's path -> what makes the tensor that stands
            in for its zeros.
        add: adds one to a state.
    """
    over_time, rows = {}, {}
    for suffix, stand_in in wanted.items():
        state = recurrence.flat_states[int(suffix[1:] or 0)]
        over_time[suffix], rows[suffix] = zeros_over_time(recurrence, state, stand_in)
    return Nudges(recurrence, over_time, rows, add)


def zeros_over_time(
    recurrence: Recurrence, like: Any, stand_in: Callable[[Any], Any]
) -> tuple[Any, Any]:
    """Returns zeros for all steps of a loop, with an axis for each length around, and folded.

    Args:
        recurrence: what the loop is given.
        like: what a step makes that they are added to, `[batch, ...]`.
        stand_in: makes what stands in for them.
    """
    sequences, folds = recurrence.sequences, recurrence.folds
    batch, time = keras.ops.shape(sequences)[:2]
    # No constant, which a converter would fold: no number is less than 0 in size.
    none = tf.abs(tf.reshape(sequences, [batch, time, -1])[:, :, 0]) < 0
    sizes = keras.ops.shape(like)[1:]
    zeros = tf.reshape(tf.cast(none, like.dtype), [batch, time, *[1] * len(sizes)])
    zeros = tf.broadcast_to(zeros, [batch, time, *sizes])
    over_time = rows = stand_in(unfolded(zeros, folds) if folds else zeros)
    for _ in folds:
        rows = folded(rows)
    return over_time, rows


def _side_by_side(sequences: Sequence[Any]) -> tuple[Any, Callable[[Any], list[Any]]]:
    """Returns sequences as one, and what takes a step of it apart: Keras' loop knows no others.

    Args:
        sequences: `[batch, time, ...]` each.
    """
    shapes = [list(keras.ops.shape(s)) for s in sequences]
    widths = [functools.reduce(operator.mul, shape[2:], 1) for shape in shapes]
    types = [s.dtype for s in sequences]
    # Whole numbers, and numbers of several sizes, are all exact in this one.
    shared = types[0] if len(set(types)) == 1 else tf.float64
    flat = [
        tf.cast(tf.reshape(s, [*shape[:2], width]), shared)
        for s, shape, width in zip(sequences, shapes, widths, strict=True)
    ]

    def apart(step: Any) -> list[Any]:
        parts = zip(tf.split(step, widths, axis=-1), shapes, types, strict=True)
        return [tf.reshape(tf.cast(part, t), [s[0], *s[2:]]) for part, s, t in parts]

    return tf.concat(flat, -1), apart


def hidden_states(recurrence: Recurrence) -> dict[str, Any]:
    """Returns what the hidden states of a loop are called behind its path -> whose they are.

    Those are the first states of its cells.
    """
    stacked = type(recurrence.cell) is keras.layers.StackedRNNCells
    cells = recurrence.cell.cells if stacked else [recurrence.cell]
    nests = recurrence.initial_state if stacked else [recurrence.initial_state]
    found, at = {}, 0
    for cell, nest in zip(cells, nests, strict=True):
        found[f":{at}" if at else ""] = cell
        at += len(keras.tree.flatten(nest))
    return found


def why_no_gradient(recurrence: Recurrence, suffix: str, made: Sequence[Any]) -> str:
    """Says why no gradient can be taken at a state of a loop; `""` where one can.

    Args:
        recurrence: the loop.
        suffix: what the state is called behind the layer's path.
        made: what the cell of that state returned in some step, flat.
    """
    if recurrence.beside:
        return "the layer runs once for each step of the layer around it"
    cells = hidden_states(recurrence)
    if suffix not in cells:
        return "it is no hidden state, and a cell makes its hidden state of it in the same step"
    if sum(cell is cells[suffix] for cell in cells.values()) > 1:
        return "its cell runs several times in a step"
    if len(made) < 2:
        return "its cell is no layer"
    output, state, *others = made
    pending, seen = [t for t in (output, *others) if t is not state], set[int]()
    while pending:
        tensor = pending.pop()
        if tensor is state:
            return "its cell makes more of the new state in the same step than it hands on"
        if id(tensor) not in seen and isinstance(tensor, tf.Tensor):
            seen.add(id(tensor))
            pending += tensor.op.inputs
    return ""
