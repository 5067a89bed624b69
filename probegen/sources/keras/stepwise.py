"""Reference for what steps make over time: the untouched cell, called eagerly step by step.

It shares nothing with what an artefact holds (`recurrence`) but what the loop was given. Gates are
what the cell's own activations return while it is called, outputs of layers what these return.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras.src.backend.common.variables import AutocastScope

from probegen.sources.keras.channels_last import channels_last
from probegen.sources.keras.recurrence import Recurrence

Array = npt.NDArray[Any]

#: Gate -> which call of the cell's gate function or activation it is.
_LSTM = {
    "/input_gate": ("recurrent_activation", 0),
    "/forget_gate": ("recurrent_activation", 1),
    "/candidate": ("activation", 0),
    "/output_gate": ("recurrent_activation", 2),
}
_GRU = {
    "/update_gate": ("recurrent_activation", 0),
    "/reset_gate": ("recurrent_activation", 1),
    "/candidate": ("activation", 0),
}


def states_by_steps(runs: Sequence[Recurrence], suffix: str, rank: int) -> Array:
    """Returns a state or gate over time.

    Args:
        runs: what loops were given, of eager tensors; of several, which a `TimeDistributed` layer
            runs one after the other, the results lie along its axis.
        suffix: what the state is called behind the layer's path.
        rank: of the result.
    """
    with channels_last():
        return _side_by_side([_states(run, suffix) for run in runs], rank)


def outputs_by_steps(
    runs: Sequence[Recurrence], layer: Any, number: int, position: int, rank: int
) -> Array:
    """Returns what a layer gives that the steps of a loop call, over time; 0 at masked steps.

    Args:
        runs: as for `states_by_steps`.
        layer: the layer.
        number: which of its calls in a step.
        position: which of its outputs.
        rank: of the result.
    """
    with channels_last():
        return _side_by_side([_outputs(run, layer, number, position) for run in runs], rank)


def _side_by_side(each: Sequence[Array], rank: int) -> Array:
    return each[0] if each[0].ndim == rank else np.stack(each, axis=1)


def _states(run: Recurrence, suffix: str) -> Array:
    cell = _Heard(run.cell) if suffix.startswith("/") else None

    def made(states: Sequence[Any], counts: Any) -> Any:
        del counts
        return _gate(cell, suffix) if cell is not None else states[int(suffix[1:] or 0)]

    return _by_steps(run, run.cell if cell is None else cell.called, made)


def _outputs(run: Recurrence, layer: Any, number: int, position: int) -> Array:
    heard: list[Any] = []

    def called(x: Any, states: Any, **given: Any) -> Any:
        heard.clear()
        with _hearing(layer, heard):
            return run.cell(x, states, **given)

    def made(states: Sequence[Any], counts: Any) -> Any:
        del states
        found = tf.convert_to_tensor(keras.tree.flatten(heard[number])[position])
        return found if counts is None else _chosen(counts, found, tf.zeros_like(found))

    return _by_steps(run, called, made)


@contextlib.contextmanager
def _hearing(layer: Any, heard: list[Any]) -> Iterator[None]:
    """Lets what a layer's calls return be heard inside the `with` block."""
    own = layer.call

    def call(*args: Any, **kwargs: Any) -> Any:
        outputs = own(*args, **kwargs)
        heard.append(outputs)
        return outputs

    object.__setattr__(layer, "call", call)
    try:
        yield
    finally:
        object.__delattr__(layer, "call")


def _chosen(counts: Any, new: Any, old: Any) -> Any:
    """Returns the new values of samples whose step counts, the old ones of the others."""
    return tf.where(tf.reshape(counts, [-1] + [1] * (new.shape.rank - 1)), new, old)


def _by_steps(
    run: Recurrence,
    call: Callable[..., Any],
    made: Callable[[Sequence[Any], Any], Any],
) -> Array:
    """Returns over time what is made of each step.

    Args:
        run: what the loop is given.
        call: calls the cell.
        made: takes the states after a step and which samples it counts for (None for all).
    """
    count = int(run.sequences.shape[1])
    order = range(count - 1, -1, -1) if run.layer.go_backwards else range(count)
    states = run.flat_states
    found: dict[int, Array] = {}
    for at in order:
        x, before = run.sequences[:, at], tuple(run.nest(states))
        new = run.states_of(call(x, before, **run.arguments))
        counts = None if run.mask is None else tf.cast(run.mask[:, at], tf.bool)
        if counts is not None:
            new = [_chosen(counts, n, o) for n, o in zip(new, states, strict=True)]
        states = new
        found[at] = np.asarray(keras.ops.convert_to_numpy(made(states, counts)))
    return np.stack([found[at] for at in range(count)], axis=1)


def _gate(cell: _Heard, suffix: str) -> Any:
    table = _LSTM if isinstance(cell.cell, keras.layers.LSTMCell) else _GRU
    function, number = table[suffix]
    return [value for name, value in cell.heard if name == function][number]


def _cast_to(kind: str) -> Callable[[Any], Any]:
    return lambda tensor: tf.cast(tensor, kind) if tensor.dtype.is_floating else tensor


class _Heard:
    """A cell whose activations are heard; the cell itself stays as it is.

    Attributes:
        cell: the cell.
        heard: the name of an activation and what it returned, in the order of their calls.
    """

    def __init__(self, cell: Any) -> None:
        self.cell = cell
        self.heard: list[tuple[str, Any]] = []

    def called(self, x: Any, states: Any, **given: Any) -> Any:
        """Returns what the cell gives in the element type that it computes in, heard anew."""
        kind = self.cell.compute_dtype
        self.heard.clear()
        with AutocastScope(kind):
            return self.call(*keras.tree.map_structure(_cast_to(kind), (x, states)), **given)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.cell, name)
        if name in ("activation", "recurrent_activation"):

            def hear(x: Any) -> Any:
                value = found(x)
                self.heard.append((name, value))
                return value

            return hear
        if isinstance(found, types.MethodType) and found.__self__ is self.cell:
            return types.MethodType(found.__func__, self)
        return found
