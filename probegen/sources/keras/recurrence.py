"""What a recurrent layer keeps from step to step: its states over time, and its gates.

The loop of a layer gives out no more than its outputs, so the cell is run once more beside it, on
what the loop was given, with its states for results. Where the loop is written as an operator that
has hidden states over time for a result, all else is computed from these instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src import backend

from probegen.plan.axes import BATCH, TIME, Axes, neutral
from probegen.sources.keras.timewise import Fold, has_rows, unfolded

#: Name behind the layer's path, and title, of the gates of a cell.
_LSTM_GATES = (
    ("/input_gate", "Input gate"),
    ("/forget_gate", "Forget gate"),
    ("/candidate", "Candidate"),
    ("/output_gate", "Output gate"),
)
_GRU_GATES = (
    ("/update_gate", "Update gate"),
    ("/reset_gate", "Reset gate"),
    ("/candidate", "Candidate"),
)


@dataclasses.dataclass
class Recurrence:
    """One run of a recurrent layer's loop: what it was given.

    Attributes:
        layer: the layer.
        path: its path in the model.
        sequences: `[batch, time, ...]`.
        initial_state: the nest of states that the first step gets, each `[batch, ...]`.
        mask: `[batch, time]` or None.
        training: handed on to the cell.
        folds: lengths that are folded into the batch axis.
        beside: the same of the other steps of a `TimeDistributed` layer that runs it step by step.
        made: states and gates over time that were asked for, by their suffix.
        nudges: what is added to states, likewise, with an axis for each length around.
    """

    layer: Any
    path: str
    sequences: Any
    initial_state: Any
    mask: Any
    training: Any
    folds: tuple[Fold, ...] = ()
    beside: list[Recurrence] = dataclasses.field(default_factory=list)
    made: dict[str, Any] = dataclasses.field(default_factory=dict)
    nudges: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def cell(self) -> Any:
        """What is run in each step."""
        return self.layer.cell

    @property
    def flat_states(self) -> list[Any]:
        """The initial states, one after the other."""
        return list(keras.tree.flatten(self.initial_state))

    def step(self, x: Any, states: Any) -> Any:
        """Returns the new states, flat, as the layer's own step has them."""
        return self.states_of(self.cell(x, tuple(states), **self.arguments))

    @property
    def arguments(self) -> dict[str, Any]:
        """What the cell is called with besides."""
        takes = isinstance(self.cell, keras.Layer) and self.cell._call_has_training_arg
        return {"training": self.training} if takes else {}

    def output_and_states(self, x: Any, states: Any) -> tuple[Any, Any]:
        """Returns what the layer's own step does, with the new states in a nest."""
        output, new = self.cell(x, states, **self.arguments)
        return output, new if keras.tree.is_nested(new) else [new]

    def states_of(self, result: Any) -> list[Any]:
        """Returns the flat new states of what a cell returned."""
        return list(keras.tree.flatten(result[1]))

    def nest(self, flat: Sequence[Any]) -> Any:
        """Returns flat states as the cell takes them."""
        return keras.tree.pack_sequence_as(self.initial_state, list(flat))


def keras_loop(
    recurrence: Recurrence, sequences: Any, step: Callable[..., Any], *, unroll: bool
) -> Any:
    """Runs a loop as `RNN.inner_loop` does, with another step, or step by step in the graph.

    Args:
        recurrence: what the loop is given.
        sequences: what a step gets an entry of, `[batch, time, ...]`.
        step: called with an entry and the states; returns the output and the new states.
        unroll: write all steps one behind the other.
    """
    layer = recurrence.layer
    return backend.rnn(
        step,
        sequences,
        recurrence.initial_state,
        go_backwards=layer.go_backwards,
        mask=next((m for m in keras.tree.flatten(recurrence.mask) if m is not None), None),
        unroll=unroll,
        input_length=sequences.shape[1],
        zero_output_for_mask=layer.zero_output_for_mask,
        return_all_outputs=layer.return_sequences,
    )


#: Returns the hidden states over time of each cell of a loop, `[batch, time, unit]`, in the order
#: of the input.
HiddenStates = Callable[[], list[Any]]
#: Stands in for `RNN.inner_loop`: called with the original first, returns what that does, and the
#: hidden states where the loop makes them for all steps.
InnerLoop = Callable[..., tuple[Any, HiddenStates | None]]


@dataclasses.dataclass(frozen=True)
class StateForm:
    """What a state of a layer over time looks like.

    Attributes:
        suffix: what it is called behind the layer's path: `""`, `":1"`, `"/forget_gate"`.
        title: what people call it.
        shape: sizes, the batch first.
        axes: a name for each.
        dtype: name of the element type.
        is_gate: whether it is a gate.
    """

    suffix: str
    title: str
    shape: tuple[int | None, ...]
    axes: Axes
    dtype: str
    is_gate: bool


def forms(recurrence: Recurrence) -> list[StateForm]:
    """Returns what states and gates of a loop look like, in the order of `over_time`."""
    count = len(recurrence.flat_states)
    gates = _gates_of(recurrence.cell)
    made = [
        _form(recurrence, state, "" if i == 0 else f":{i}", title, is_gate=False)
        for i, (state, title) in enumerate(
            zip(recurrence.flat_states, _titles(recurrence.cell, count), strict=True)
        )
    ]
    hidden = recurrence.flat_states[0]
    made += [_form(recurrence, hidden, suffix, title, is_gate=True) for suffix, title in gates]
    return made


def write_states(
    recurrence: Recurrence,
    suffixes: Collection[str],
    hidden_states: HiddenStates | None = None,
) -> None:
    """Writes states and gates over time into the graph that is being traced; see `made`.

    Args:
        recurrence: of tensors of that graph.
        suffixes: which; see `StateForm`. What it does not have is left out.
        hidden_states: those that the loop made for all steps; None where the cells are to be run
            once more.
    """
    states = None if hidden_states is None else _without_loop(recurrence, hidden_states)
    if states is None:
        states = _looped(recurrence)
    named = {"" if i == 0 else f":{i}": value for i, value in enumerate(states)}
    gates = _gates_of(recurrence.cell)
    if any(s in suffixes for s, _ in gates):
        start, backwards = recurrence.flat_states[0], bool(recurrence.layer.go_backwards)
        made = _gates(recurrence.cell, recurrence.sequences, start, states[0], backwards)
        named.update((s, value) for (s, _), value in zip(gates, made, strict=True))
    recurrence.made = {s: value for s, value in named.items() if s in suffixes}


def over_time(recurrence: Recurrence, suffix: str) -> Any:
    """Returns a state or gate over time that was written, with an axis for each length around."""
    runs = [one.made[suffix] for one in (recurrence, *recurrence.beside)]
    if len(runs) > 1:
        return tf.stack(runs, axis=1)
    return unfolded(runs[0], recurrence.folds) if has_rows(runs[0], recurrence.folds) else runs[0]


# -- states ------------------------------------------------------------------------------------


def _without_loop(recurrence: Recurrence, hidden_states: HiddenStates) -> list[Any] | None:
    """Returns all states over time as `_looped` does, with no run of the cells; None if it cannot.

    Hidden states being known, gates are functions of all steps at once, and cell states of an LSTM
    follow from the gates.
    """
    stacked = type(recurrence.cell) is keras.layers.StackedRNNCells
    cells = recurrence.cell.cells if stacked else [recurrence.cell]
    if any(type(c) is keras.layers.LSTMCell and not _forgets(c) for c in cells):
        return None
    x, backwards = recurrence.sequences, bool(recurrence.layer.go_backwards)
    nests = recurrence.initial_state if stacked else [recurrence.initial_state]
    states: list[Any] = []
    for cell, nest, after in zip(cells, nests, hidden_states(), strict=True):
        start = keras.tree.flatten(nest)
        states.append(after)
        if len(start) > 1:
            gates = _gates(cell, x, start[0], after, backwards)
            states.append(_cell_states(gates, start[1], recurrence.mask, backwards))
        x = after
    return states


def _forgets(cell: Any) -> bool:
    """Tells whether the forget gate of an LSTM is in 0 to 1, so that no product of many grows."""
    return cell.recurrent_activation in (keras.activations.sigmoid, keras.activations.hard_sigmoid)


def _cell_states(gates: Sequence[Any], start: Any, mask: Any, backwards: bool) -> Any:
    """Returns the cell states of an LSTM over time, `[batch, time, unit]`.

    Args:
        gates: see `_of_lstm`, each `[batch, time, unit]`.
        start: the cell state before the first step, `[batch, unit]`.
        mask: bool `[batch, time]` or None.
        backwards: True where the first step is the last entry.
    """
    entered, kept, candidate, _ = gates
    added = entered * candidate
    if mask is not None:
        there = tf.cast(tf.nest.flatten(mask)[0], tf.bool)[:, :, None]
        kept, added = tf.where(there, kept, 1.0), tf.where(there, added, 0.0)
    if backwards:
        kept, added = tf.reverse(kept, [1]), tf.reverse(added, [1])
    states = _kept_and_added(kept, added, start)
    return tf.reverse(states, [1]) if backwards else states


#: Steps from one turn of the loop of `_kept_and_added` to the next.
_BLOCK = 16


def _kept_and_added(kept: Any, added: Any, start: Any) -> Any:
    """Returns all s_t = kept_t s_(t-1) + added_t, with few operators and a short loop.

    In a block of steps s_t = k_t s + a_t, with s the state before the block, k_t the product of
    what was kept in it so far, and a_t what it has added so far. Both are computed for all blocks
    at once. A loop goes from block to block.

    Args:
        kept: `[batch, time, unit]`, between 0 and 1.
        added: `[batch, time, unit]`.
        start: `[batch, unit]`.
    """
    batch, time, width = tf.shape(kept)[0], tf.shape(kept)[1], kept.shape[-1]
    behind = [[0, 0], [0, -time % _BLOCK], [0, 0]]

    def in_blocks(over_time: Any) -> list[Any]:
        whole = tf.reshape(tf.pad(over_time, behind), [batch, -1, _BLOCK, width])
        return list(tf.unstack(whole, axis=2))

    k, a = in_blocks(kept), in_blocks(added)
    for t in range(1, _BLOCK):
        a[t] += k[t] * a[t - 1]
        k[t] *= k[t - 1]
    of_blocks = [tf.transpose(v[-1], [1, 0, 2]) for v in (k, a)]
    ends = tf.scan(lambda s, block: block[0] * s + block[1], tuple(of_blocks), start)
    before = tf.transpose(tf.concat([start[None], ends[:-1]], 0), [1, 0, 2])
    states = tf.stack([k * before + a for k, a in zip(k, a, strict=True)], axis=2)
    return tf.reshape(states, [batch, -1, width])[:, :time]


def _looped(recurrence: Recurrence) -> list[Any]:
    """Returns all states over time, each `[batch, time, ...]`, in the order of the input."""
    backwards = bool(recurrence.layer.go_backwards)
    flat = recurrence.flat_states
    sequences = _time_first(recurrence.sequences, backwards)
    steps = sequences.shape[0] if sequences.shape[0] is not None else tf.shape(sequences)[0]
    read = tf.TensorArray(sequences.dtype, steps, name="states_input").unstack(sequences)
    counts = None
    if recurrence.mask is not None:
        there = _time_first(recurrence.mask, backwards)
        counts = tf.TensorArray(there.dtype, steps, name="states_mask").unstack(there)
    written = [
        tf.TensorArray(s.dtype, steps, element_shape=s.shape, name=f"states_output_{i}")
        for i, s in enumerate(flat)
    ]

    def body(at: Any, before: Sequence[Any], arrays: Sequence[Any]) -> Any:
        new = recurrence.step(read.read(at), recurrence.nest(before))
        if counts is not None:
            new = [_kept(counts.read(at), n, o) for n, o in zip(new, before, strict=True)]
        for state, old in zip(new, before, strict=True):
            state.set_shape(old.shape)
        return at + 1, new, [a.write(at, s) for a, s in zip(arrays, new, strict=True)]

    _, _, arrays = tf.while_loop(
        lambda at, *_: at < steps,
        body,
        (tf.constant(0), flat, written),
        maximum_iterations=steps,
    )
    return [_batch_first(array.stack(), backwards, steps) for array in arrays]


def _time_first(tensor: Any, backwards: bool) -> Any:
    rank = tensor.shape.rank
    turned = tf.transpose(tensor, [1, 0, *range(2, rank)])
    return tf.reverse(turned, [0]) if backwards else turned


def _batch_first(tensor: Any, backwards: bool, steps: Any) -> Any:
    tensor = tf.reverse(tensor, [0]) if backwards else tensor
    turned = tf.transpose(tensor, [1, 0, *range(2, tensor.shape.rank)])
    if isinstance(steps, int):
        turned.set_shape([None, steps, *turned.shape[2:]])
    return turned


def _kept(counts: Any, new: Any, old: Any) -> Any:
    """Returns new states where a step counts, those before it elsewhere."""
    # Cast here, where no method that holds masks takes it for one that the model makes.
    there = tf.reshape(tf.cast(counts, tf.bool), [-1, *[1] * (new.shape.rank - 1)])
    return tf.where(there, new, old)


# -- gates -------------------------------------------------------------------------------------


def _gates_of(cell: Any) -> Sequence[tuple[str, str]]:
    """Returns the gates of a cell, none where what it computes is not known."""
    for known, gates in (
        (keras.layers.LSTMCell, _LSTM_GATES),
        (keras.layers.GRUCell, _GRU_GATES),
    ):
        if type(cell) is known:  # a subclass may compute anything
            return gates
    return ()


def _gates(cell: Any, x: Any, start: Any, hidden: Any, backwards: bool) -> list[Any]:
    """Returns the gates of all steps at once, each `[batch, time, unit]`.

    Args:
        cell: an LSTM or a GRU cell.
        x: what it reads, `[batch, time, input]`.
        start: its hidden state before the first step, `[batch, unit]`.
        hidden: its hidden states over time.
        backwards: True where the first step is the last entry.
    """
    start = start[:, None]
    if backwards:
        before = tf.concat([hidden[:, 1:], start], 1)
    else:
        before = tf.concat([start, hidden[:, :-1]], 1)
    weights = (cell.kernel, cell.recurrent_kernel, cell.bias)
    kernel, recurrent, bias = (
        None if w is None else keras.ops.cast(w, cell.compute_dtype) for w in weights
    )
    make = _of_lstm if isinstance(cell, keras.layers.LSTMCell) else _of_gru
    return make(cell, x, before, kernel, recurrent, bias)


def _of_lstm(cell: Any, x: Any, before: Any, kernel: Any, recurrent: Any, bias: Any) -> list[Any]:
    """Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000."""
    z = keras.ops.matmul(x, kernel) + keras.ops.matmul(before, recurrent)
    parts = tf.split(z if bias is None else z + bias, 4, axis=-1)
    gate = cell.recurrent_activation
    functions: tuple[Callable[[Any], Any], ...] = (gate, gate, cell.activation, gate)
    return [function(part) for function, part in zip(functions, parts, strict=True)]


def _of_gru(cell: Any, x: Any, before: Any, kernel: Any, recurrent: Any, bias: Any) -> list[Any]:
    """Cho et al. 2014; with `reset_after` the form of cuDNN, which resets behind the product."""
    of_input = keras.ops.matmul(x, kernel)
    after = bool(cell.reset_after)
    biases = [None, None] if bias is None else tf.unstack(bias) if after else [bias, None]
    if biases[0] is not None:
        of_input += biases[0]
    x_update, x_reset, x_new = tf.split(of_input, 3, axis=-1)
    units = 2 * cell.units
    inner = keras.ops.matmul(before, recurrent if after else recurrent[:, :units])
    if biases[1] is not None:
        inner += biases[1]
    h_update, h_reset = inner[..., : cell.units], inner[..., cell.units : units]
    update = cell.recurrent_activation(x_update + h_update)
    reset = cell.recurrent_activation(x_reset + h_reset)
    if after:
        h_new = reset * inner[..., units:]
    else:
        h_new = keras.ops.matmul(reset * before, recurrent[:, units:])
    return [update, reset, cell.activation(x_new + h_new)]


# -- forms -------------------------------------------------------------------------------------


def _titles(cell: Any, count: int) -> list[str]:
    """Returns what the states of a cell are called."""
    if isinstance(cell, keras.layers.StackedRNNCells):
        named: list[str] = []
        for number, one in enumerate(cell.cells):
            size = len(keras.tree.flatten(one.state_size))
            named += [f"{title} of cell {number}" for title in _titles(one, size)]
        return named if len(named) == count else [f"State {i}" for i in range(count)]
    if count == 1:
        return ["Hidden state"]
    if count == 2 and "LSTM" in type(cell).__name__:
        return ["Hidden state", "Cell state"]
    return ["Hidden state", *(f"State {i}" for i in range(1, count))]


def _form(recurrence: Recurrence, state: Any, suffix: str, title: str, is_gate: bool) -> StateForm:
    rest = tuple(state.shape)[1:]
    batch, time = tuple(recurrence.sequences.shape)[:2]
    outer: tuple[tuple[int | None, str], ...] = ((batch, BATCH), (time, TIME))
    inner_time = "step"
    if recurrence.beside:
        steps = 1 + len(recurrence.beside)
        outer = ((batch, BATCH), (steps, TIME), (time, inner_time))
    elif recurrence.folds and has_rows(recurrence.sequences, recurrence.folds):
        known = [f.time if isinstance(f.time, int) else None for f in recurrence.folds]
        names = [TIME, *(f"time_{i}" for i in range(1, len(known)))]
        first = recurrence.folds[0].batch
        folded = zip(known, names, strict=True)
        outer = ((first if isinstance(first, int) else None, BATCH), *folded, (time, inner_time))
    return StateForm(
        suffix,
        title,
        (*(size for size, _ in outer), *rest),
        (*(name for _, name in outer), *_state_axes(recurrence.cell, len(rest))),
        state.dtype.name if hasattr(state.dtype, "name") else str(state.dtype),
        is_gate,
    )


def _state_axes(cell: Any, rank: int) -> Axes:
    """Returns the axes of a state behind batch and time."""
    spatial = {2: ("position",), 3: ("height", "width"), 4: ("depth", "height", "width")}
    if rank == 1:
        return ("unit",)
    layout = getattr(cell, "data_format", None)
    if layout is None or rank not in spatial:
        return tuple(neutral(i + 2) for i in range(rank))
    if layout == "channels_first":
        return ("channel", *spatial[rank])
    return (*spatial[rank], "channel")
