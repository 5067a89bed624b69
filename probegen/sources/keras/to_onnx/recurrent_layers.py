"""Keras' LSTM, GRU and SimpleRNN as fused operators, in the place of their loops over time.

Where the cells of a layer are those of Keras and its activations are known to ONNX, the loop is
written as one operator a cell. Any other layer keeps Keras' loop.

A fused operator knows no masks. With a mask the steps that count are put in front, in the order in
which the layer runs; what the operator makes of the others behind them is read by nobody. Masked
steps leave states and output as they were, so the output of a step is that of the last step that
counts so far, and zero before the first.

The operator is told how many steps count only where it has to be: for the last cell state, which
it gives for no other step, and where states could grow without bound in the steps that do not
count, so that zero times infinity would come into the gradient. OpenVINO does not heed it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from probegen.sources.keras.capture import is_fed
from probegen.sources.keras.recurrence import HiddenStates, Recurrence, keras_loop
from probegen.sources.keras.to_onnx.handlers.recurrent import ACTIVATIONS, Form, fused
from probegen.sources.keras.to_onnx.nudged import add_nudge

#: Keras' activation -> its name in ONNX.
_ACTIVATIONS: Mapping[Any, str] = {
    keras.activations.tanh: "Tanh",
    keras.activations.sigmoid: "Sigmoid",
    keras.activations.relu: "Relu",
    keras.activations.hard_sigmoid: "HardSigmoid",
    keras.activations.linear: "Affine",
    keras.activations.elu: "Elu",
    keras.activations.leaky_relu: "LeakyRelu",
    keras.activations.softplus: "Softplus",
    keras.activations.softsign: "Softsign",
}
#: Those whose values have a bound, and with them the hidden states.
_BOUNDED = frozenset({"Tanh", "Sigmoid", "HardSigmoid", "Softsign"})
#: Steps up to which a loop is written step by step, where a table of rules asks for it.
_MOST_UNROLLED = 64
_NUMBERS = {name: number for number, (name, _, _) in enumerate(ACTIVATIONS)}


def fused_inner_loop(
    original: Callable[..., Any],
    layer: Any,
    sequences: Any,
    initial_state: Any,
    mask: Any = None,
    training: Any = False,
    nudges: Sequence[Any] = (),
    *,
    unroll: bool = False,
) -> tuple[Any, HiddenStates | None]:
    """Stands in for `RNN.inner_loop`.

    Args:
        original: the loop of Keras.
        layer: the recurrent layer.
        sequences: `[batch, time, input]`.
        initial_state: the states of its cells, `[batch, units]` each, as the layer nests them.
        mask: bool `[batch, time]`, or None.
        training: whether the layer is told to train.
        nudges: what is added to the hidden state of each cell in each step, `[batch, time, units]`
            or None; empty where nothing is.
        unroll: write a loop that is no operator step by step, where it is known how many there
            are and these are not too many.

    Returns:
        What `RNN.inner_loop` does: the output of the last step, those of all steps where the layer
        returns them, and the last states. And what writes the hidden states over time; None where
        the loop is that of Keras.
    """
    run = _fused_cells(layer, sequences, initial_state, mask, training, nudges)
    if run is None and unroll and not nudges and _can_unroll(layer, sequences, mask):
        first = initial_state if keras.tree.is_nested(initial_state) else [initial_state]
        loop = Recurrence(layer, "", sequences, first, mask, training)
        return keras_loop(loop, sequences, loop.output_and_states, unroll=True), None
    if run is None:
        return original(layer, sequences, initial_state, mask, training), None
    steps, cells = run
    finals = [steps.last_states(c.outputs, c.last, c.initial) for c in cells]
    last, outputs = steps.outputs(cells[-1].outputs, finals[-1][0], layer)

    def hidden_states() -> list[Any]:
        return [steps.hidden_states(c.outputs, c.initial[0]) for c in cells]

    if type(layer.cell) is not keras.layers.StackedRNNCells:
        return (last, outputs, finals[0]), hidden_states
    packed = [
        keras.tree.pack_sequence_as(before, after)
        for before, after in zip(initial_state, finals, strict=True)
    ]
    return (last, outputs, packed[0] if len(packed) == 1 else packed), hidden_states


def _can_unroll(layer: Any, sequences: Any, mask: Any) -> bool:
    """Tells whether a loop can be written step by step.

    Not with zeros for masked steps that are run backwards, where Keras' unrolled loop takes the
    mask as it is.
    """
    steps = sequences.shape[1] if isinstance(sequences, tf.Tensor) else None
    masked = any(m is not None for m in keras.tree.flatten(mask))
    turned = masked and layer.go_backwards and layer.zero_output_for_mask
    return steps is not None and steps <= _MOST_UNROLLED and not turned


@dataclasses.dataclass(frozen=True)
class _FusedCell:
    """A cell of a layer as one operator.

    Attributes:
        outputs: its hidden states, `[time, batch, units]`, in the order of `_All` or `_Masked`.
        last: the states that the operator leaves.
        initial: those that it starts with.
    """

    outputs: Any
    last: list[Any]
    initial: list[Any]


def _fused_cells(
    layer: Any,
    sequences: Any,
    initial_state: Any,
    mask: Any,
    training: Any,
    nudges: Sequence[Any],
) -> tuple[_All | _Masked, list[_FusedCell]] | None:
    """Writes a loop as one operator a cell; see `fused_inner_loop`. None where it cannot be."""
    stacked = type(layer.cell) is keras.layers.StackedRNNCells
    cells = layer.cell.cells if stacked else [layer.cell]
    masks = [m for m in keras.tree.flatten(mask) if m is not None]
    # With a mask, the steps are put into the order in which they are run.
    backwards = layer.go_backwards and not masks
    found_forms = [_form(cell, backwards, training) for cell in cells]
    forms = [form for form in found_forms if form is not None]
    if (
        len(forms) < len(cells)
        or not isinstance(sequences, tf.Tensor)
        or sequences.dtype != tf.float32
        or len(masks) > 1
        or any(m.shape.rank != 2 for m in masks)
    ):
        return None
    nests = initial_state if stacked else [initial_state]
    steps = _Masked(masks[0], layer.go_backwards) if masks else _All(layer.go_backwards)
    x = steps.first_time(sequences)
    made: list[_FusedCell] = []
    added = nudges or [None] * len(cells)
    for cell, form, nest, nudge in zip(cells, forms, nests, added, strict=True):
        initial = keras.tree.flatten(nest)
        lengths = steps.lengths if _needs_lengths(form, layer) else None
        x, last = fused(form, x, _weights(cell, form), initial, lengths)
        if nudge is not None:
            x = add_nudge(x, steps.first_time(nudge))
            last = [x[0 if backwards else -1], *last[1:]]
        made.append(_FusedCell(x, last, initial))
    return steps, made


def _form(cell: Any, backwards: bool, training: Any) -> Form | None:
    """Returns what a fused operator would have to compute for a cell, None where there is none."""
    kind = _CELLS.get(type(cell))
    drops = any(getattr(cell, name, 0) for name in ("dropout", "recurrent_dropout"))
    if kind is None or (drops and training is not False and training is not None):
        return None
    operator, names = kind
    functions = [getattr(cell, name) for name in names]
    if cell.compute_dtype != "float32" or any(f not in _ACTIVATIONS for f in functions):
        return None
    activations = tuple(_NUMBERS[_ACTIVATIONS[f]] for f in functions)
    return Form(operator, activations, backwards, bool(getattr(cell, "reset_after", False)))


#: Cell -> operator, and the attributes that hold its activations in the operator's order.
_CELLS: Mapping[Any, tuple[str, tuple[str, ...]]] = {
    keras.layers.LSTMCell: ("LSTM", ("recurrent_activation", "activation", "activation")),
    keras.layers.GRUCell: ("GRU", ("recurrent_activation", "activation")),
    keras.layers.SimpleRNNCell: ("RNN", ("activation",)),
}


def _needs_lengths(form: Form, layer: Any) -> bool:
    """Tells whether an operator has to know where a sequence ends; see the module."""
    gives_states = layer.return_state or layer.stateful or is_fed(layer)
    if form.operator == "LSTM" and gives_states:
        return True
    return any(ACTIVATIONS[a][0] not in _BOUNDED for a in form.activations)


def _weights(cell: Any, form: Form) -> tuple[Any, Any, Any]:
    """Returns W, R and B of a cell in ONNX' order of gates: Keras has i, f, c, o for LSTM."""
    kernels = [_rows(keras.ops.transpose(k), form) for k in (cell.kernel, cell.recurrent_kernel)]
    width = kernels[0].shape[0]
    if cell.bias is None:
        return kernels[0], kernels[1], tf.zeros([2 * width], tf.float32)
    bias = keras.ops.convert_to_tensor(cell.bias)
    if len(bias.shape) == 2:  # of the input and of the state, one below the other
        return kernels[0], kernels[1], tf.reshape(bias, [-1])
    return kernels[0], kernels[1], tf.concat([_rows(bias, form), tf.zeros([width])], 0)


def _rows(weights: Any, form: Form) -> Any:
    if form.operator != "LSTM":
        return weights
    i, f, c, o = tf.split(weights, 4, axis=0)
    return tf.concat([i, o, f, c], 0)


class _All:
    """Steps of which all count."""

    lengths = None

    def __init__(self, backwards: bool) -> None:
        self._backwards = backwards

    def first_time(self, sequences: Any) -> Any:
        """Returns `[time, batch, input]`."""
        return tf.transpose(sequences, [1, 0, 2])

    def last_states(self, y: Any, found: Sequence[Any], initial: Sequence[Any]) -> list[Any]:
        """Returns the states that are left in the end."""
        del y, initial
        return list(found)

    def outputs(self, y: Any, last: Any, layer: Any) -> tuple[Any, Any]:
        """Returns the last output and those of all steps, in the order in which they are run."""
        if not layer.return_sequences:
            return last, last[:, None]
        outputs = tf.transpose(y, [1, 0, 2])
        return last, tf.reverse(outputs, [1]) if self._backwards else outputs

    def hidden_states(self, y: Any, initial: Any) -> Any:
        """Returns the states after each step, `[batch, time, units]`, in the order of the input."""
        del initial
        return tf.transpose(y, [1, 0, 2])


class _Masked:
    """Steps of which those count that a mask tells.

    Attributes:
        lengths: how many steps of each sample count, int32 `[batch]`; 1 where none does, because
            not every runtime takes 0.
    """

    def __init__(self, mask: Any, backwards: bool) -> None:
        mask = tf.cast(mask, tf.bool)
        self._batch, self._time = tf.unstack(tf.shape(mask))
        here = tf.range(self._time)
        order = self._time - 1 - here if backwards else here
        #: Sorts the steps: those that count in front, in the order in which they are run.
        keys = tf.where(mask, order, order + self._time)
        self._given = mask
        self._mask = tf.reverse(mask, [1]) if backwards else mask
        self._sorted = tf.math.top_k(-keys, self._time).indices
        counted = tf.cumsum(tf.cast(self._mask, tf.int32), axis=1)
        self._places = counted - 1
        count = counted[:, -1]
        self._backwards = backwards
        self._any = count[:, None] > 0
        self.lengths = tf.maximum(count, 1)

    def first_time(self, sequences: Any) -> Any:
        """Returns `[time, batch, input]`, the steps that count in front."""
        rows = tf.range(self._batch)[:, None] * self._time + self._sorted
        flat = tf.reshape(sequences, [-1, sequences.shape[-1]])
        return tf.gather(flat, tf.transpose(rows))

    def last_states(self, y: Any, found: Sequence[Any], initial: Sequence[Any]) -> list[Any]:
        """Returns the states that are left in the end: the first ones where no step counts."""
        hidden = self._outputs_at(y, self.lengths - 1)
        last = [hidden, *found[1:]]
        return [tf.where(self._any, a, b) for a, b in zip(last, initial, strict=True)]

    def outputs(self, y: Any, last: Any, layer: Any) -> tuple[Any, Any]:
        """Returns the last output and those of all steps, in the order in which they are run."""
        zero, begun = layer.zero_output_for_mask, self._places >= 0
        last = tf.where((self._mask if zero else begun)[:, -1:], last, 0.0)
        if not layer.return_sequences:
            return last, last[:, None]
        there = begun
        if zero:
            # Keras' unrolled loop takes the mask as it is for this, run backwards or not.
            there = begun & (self._given if layer.unroll else self._mask)
        outputs = self._outputs_at(y, tf.maximum(self._places, 0))
        return last, tf.where(there[:, :, None], outputs, 0.0)

    def hidden_states(self, y: Any, initial: Any) -> Any:
        """Returns the states after each step, `[batch, time, units]`, in the order of the input.

        A step that does not count repeats the state before it, which is `initial` at first.
        """
        there = (self._places >= 0)[:, :, None]
        found = tf.where(there, self._outputs_at(y, tf.maximum(self._places, 0)), initial[:, None])
        return tf.reverse(found, [1]) if self._backwards else found

    def _outputs_at(self, y: Any, places: Any) -> Any:
        """Returns the outputs of steps, `[time, batch, hidden]` -> `[*places, hidden]`.

        Args:
            y: outputs, those of the steps that count in front.
            places: which steps, the batch along their first axis.
        """
        samples = tf.range(self._batch)
        if places.shape.rank == 2:
            samples = samples[:, None]
        return tf.gather(tf.reshape(y, [-1, y.shape[-1]]), places * self._batch + samples)
