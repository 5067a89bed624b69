"""LSTM, GRU and RNN of ONNX, each carried through TensorFlow's graph as one operation.

TensorFlow has an operation of the same shape, `CudnnRNNV3`: a sequence, initial states, all weights
in one vector, and a length for each sample. It is never run here, and never differentiated; it
brings operands and the sizes of results to where ONNX is written. What it has no field for
travels in its two seeds, which mean nothing at inference.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from probegen.sources.keras.to_onnx.handlers.writer import Writer

#: The name of the operation in TensorFlow's graph.
CARRIER = "CudnnRNNV3"
_NAME = "probegen_recurrent"
#: Operator -> what CudnnRNNV3 calls it.
_MODES: Mapping[str, str] = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn_tanh"}
#: Operator -> number of its gates, and of its activations.
GATES: Mapping[str, int] = {"LSTM": 4, "GRU": 3, "RNN": 1}
_ACTIVATION_COUNTS: Mapping[str, int] = {"LSTM": 3, "GRU": 2, "RNN": 1}
#: Activations as ONNX names them, each with alpha and beta where it has them. By number.
ACTIVATIONS: Sequence[tuple[str, float | None, float | None]] = (
    ("Tanh", None, None),
    ("Sigmoid", None, None),
    ("Relu", None, None),
    ("HardSigmoid", 1 / 6, 0.5),
    ("Affine", 1.0, 0.0),
    ("Elu", 1.0, None),
    ("LeakyRelu", 0.2, None),
    ("Softplus", None, None),
    ("Softsign", None, None),
)
_BASE = 16  # more than there are activations


@dataclasses.dataclass(frozen=True)
class Form:
    """What a fused operator computes, apart from its operands.

    Attributes:
        operator: "LSTM", "GRU" or "RNN".
        activations: places in `ACTIVATIONS`, in the operator's order.
        backwards: True where it starts with the last step.
        reset_after: of GRU, whether the reset gate comes after the product with the state.
    """

    operator: str
    activations: tuple[int, ...]
    backwards: bool = False
    reset_after: bool = False

    def seeds(self) -> tuple[int, int]:
        """Returns the form, but for the operator, as two numbers."""
        number = sum(a * _BASE**k for k, a in enumerate(self.activations))
        return number, int(self.backwards) + 2 * int(self.reset_after)


def fused(
    form: Form,
    x: Any,
    weights: tuple[Any, Any, Any],
    states: Sequence[Any],
    lengths: Any,
) -> tuple[Any, list[Any]]:
    """Writes a fused operator into TensorFlow's graph.

    Args:
        form: what it computes.
        x: `[time, batch, input]`.
        weights: W `[gates*hidden, input]`, R `[gates*hidden, hidden]`, B `[2*gates*hidden]`.
        states: the hidden and of LSTM the cell state to start with, `[batch, hidden]` each.
        lengths: how many steps of each sample count, int32 `[batch]`, or None for all.

    Returns:
        The hidden state after each step `[time, batch, hidden]`, and the last states.
    """
    number, flags = form.seeds()
    first = [s[None] for s in states]
    made = tf.raw_ops.CudnnRNNV3(
        input=x,
        input_h=first[0],
        input_c=first[-1],
        params=tf.concat([tf.reshape(w, [-1]) for w in weights], 0),
        sequence_lengths=tf.zeros([0], tf.int32) if lengths is None else lengths,
        rnn_mode=_MODES[form.operator],
        time_major=True,
        is_training=False,
        seed=number,
        seed2=flags,
        name=_NAME,
    )
    finals = [made.output_h, made.output_c][: len(states)]
    return made.output, [s[0] for s in finals]


def recurrent(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes the operator that a CudnnRNNV3 of ours stands for; refuses those of others."""
    w = Writer(context, node)
    if _NAME not in node.name.rpartition("/")[2]:
        raise ValueError("its weights are packed for a GPU")
    form = _form(w)
    x, h, c, params, lengths = w.inputs
    hidden = _size(w, h, -1)
    rows = GATES[form.operator] * hidden
    # All weights are known where the features of what is read are not (behind a reshape, say).
    columns = _size(w, params, 0) // rows - hidden - 2
    shapes = [[rows, columns], [rows, hidden], [2 * rows]]
    wanted = [w.unsqueeze(part, [0]) for part in _weights(w, params, shapes)]
    no_lengths = w.shape_of(lengths) == [0]
    inputs = [x, *wanted, "" if no_lengths else lengths, h]
    names, alphas, betas = zip(*(ACTIVATIONS[a] for a in form.activations), strict=True)
    attributes: dict[str, Any] = {"hidden_size": hidden, "activations": list(names)}
    for name, values in (("activation_alpha", alphas), ("activation_beta", betas)):
        if any(v is not None for v in values):
            attributes[name] = [v for v in values if v is not None]
    if form.backwards:
        attributes["direction"] = "reverse"
    if form.reset_after:
        attributes["linear_before_reset"] = 1
    if form.operator == "LSTM":
        inputs.append(c)
    count = 3 if form.operator == "LSTM" else 2
    y, *finals = w.ops(form.operator, *inputs, dtypes=[None] * count, **attributes)
    # What the operation reserves for its gradient is read by nobody.
    given = [w.op("Squeeze", y, w.indices([1])), *finals]
    w.give(*given, *[finals[0]] * (len(node.output) - len(given)))


def _form(w: Writer) -> Form:
    operator = {mode: name for name, mode in _MODES.items()}[w.attribute("rnn_mode")]
    number, flags = int(w.attribute("seed")), int(w.attribute("seed2"))
    count = _ACTIVATION_COUNTS[operator]
    activations = tuple(number // _BASE**k % _BASE for k in range(count))
    return Form(operator, activations, bool(flags & 1), bool(flags & 2))


def _size(w: Writer, name: str, axis: int) -> int:
    size = (w.shape_of(name) or [-1])[axis]
    if size < 0:
        raise ValueError("the numbers of its units and weights have to be known")
    return size


def _weights(w: Writer, params: str, shapes: Sequence[Sequence[int]]) -> list[str]:
    """Returns the tensors that were put one behind the other into one vector."""
    known = w.value_of(params)
    bounds, at = [], 0
    for shape in shapes:
        bounds.append((at, at + math.prod(shape)))
        at = bounds[-1][1]
    if known is not None:
        places = zip(bounds, shapes, strict=True)
        return [w.array(known[a:b].reshape(shape)) for (a, b), shape in places]
    made = w.context.get_node_by_output(params)
    if made is not None and made.type == "Concat" and len(made.input) == len(shapes):
        parts = list(made.input)  # before they were put together: no copies at run time
    else:
        parts = [w.op("Slice", params, w.indices([a]), w.indices([b])) for a, b in bounds]
    return [w.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]
