"""Gradients at the hidden states of a recurrent layer, at zeros that are added to each state.

The hidden state of a step goes into the output there and into all later steps. The gradient by
both together is that at a number which is added to the state as soon as the cell has made it: at
zeros, `[batch, time, ...]`, one for each step. A cell that makes more of its new state in the same
step (an output that is another function of it) has none such: what it made would be left out.
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


@dataclasses.dataclass
class Nudges:
    """What is added to hidden states of one loop.

    Attributes:
        recurrence: what the loop is given.
        over_time: what a state is called behind the layer's path -> zeros for all its steps, with
            an axis for each length around.
        rows: the same with these lengths folded into the batch, `[batch, time, ...]`.
        add: adds one to a state.
        now: id of a cell -> what is added to its state in the step that is being written.
    """

    recurrence: Recurrence
    over_time: dict[str, Any]
    rows: dict[str, Any]
    add: Add
    now: dict[int, Any] = dataclasses.field(default_factory=dict)

    def added(self, layer: Any, outputs: Any) -> Any:
        """Returns what a cell returned, its new hidden state nudged; of other layers as it is."""
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
        beside, apart = _side_by_side([sequences, *self.rows.values()])

        def step(inputs: Any, states: Any) -> Any:
            x, *each = apart(inputs)
            self.now = dict(zip(owners, each, strict=True))
            try:
                return self.recurrence.output_and_states(x, states)
            finally:
                self.now = {}

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
    sequences, folds = recurrence.sequences, recurrence.folds
    batch, time = keras.ops.shape(sequences)[:2]
    # No constant, which a converter would fold: no number is less than 0 in size.
    none = tf.abs(tf.reshape(sequences, [batch, time, -1])[:, :, 0]) < 0
    over_time, rows = {}, {}
    for suffix, stand_in in wanted.items():
        state = recurrence.flat_states[int(suffix[1:] or 0)]
        sizes = keras.ops.shape(state)[1:]
        zeros = tf.reshape(tf.cast(none, state.dtype), [batch, time, *[1] * len(sizes)])
        zeros = tf.broadcast_to(zeros, [batch, time, *sizes])
        over_time[suffix] = each = stand_in(unfolded(zeros, folds) if folds else zeros)
        for _ in folds:
            each = folded(each)
        rows[suffix] = each
    return Nudges(recurrence, over_time, rows, add)


def _side_by_side(sequences: Sequence[Any]) -> tuple[Any, Callable[[Any], list[Any]]]:
    """Returns sequences as one, and what takes a step of it apart: Keras' loop knows no others.

    Args:
        sequences: `[batch, time, ...]` each.
    """
    shapes = [list(keras.ops.shape(s)) for s in sequences]
    widths = [functools.reduce(operator.mul, shape[2:]) for shape in shapes]
    flat = [
        tf.reshape(s, [*shape[:2], width])
        for s, shape, width in zip(sequences, shapes, widths, strict=True)
    ]

    def apart(step: Any) -> list[Any]:
        parts = zip(tf.split(step, widths, axis=-1), shapes, strict=True)
        return [tf.reshape(part, [shape[0], *shape[2:]]) for part, shape in parts]

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
