"""Operands of LSTM, GRU and RNN: sizes, directions, weights of the input, states, activations.

Names are those of the specification: X `[time, batch, input]`,
W `[directions, gates*hidden, input]`, R `[directions, gates*hidden, hidden]`, B `[directions,
2*gates*hidden]`, P `[directions, 3*hidden]`, states `[directions, batch, hidden]`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from probegen.graph.autodiff import Refused
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import attribute, dims_of, dtype_of
from probegen.graph.vjp.common import optional, required

#: Writes an activation of a value.
Activation = Callable[[Builder, ir.Value], ir.Value]

#: How many gates an operator has.
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
BACKWARDS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
#: What states and gates of an operator are called behind its path, in their order.
STATES = ("", ":1")
GATE_NAMES: Mapping[str, tuple[str, ...]] = {
    "LSTM": ("/input_gate", "/forget_gate", "/candidate", "/output_gate"),
    "GRU": ("/update_gate", "/reset_gate", "/candidate"),
    "RNN": (),
}
DEFAULT_ACTIVATIONS = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}


def units_of(node: ir.Node) -> int:
    """Returns the number of units.

    Raises:
        Refused: it is not known.
    """
    units = dims_of(required(node, 2))[-1]
    if not isinstance(units, int):
        raise Refused("the sizes of its weights are unknown")
    return units


def width_of(node: ir.Node) -> int:
    """Returns the number of columns of all gates together."""
    return GATES[node.op_type] * units_of(node)


def directions_of(node: ir.Node) -> tuple[bool, ...]:
    """Tells of each direction of a node whether it starts with the last step."""
    return BACKWARDS[attribute(node, "direction", "forward")]


def is_batch_first(node: ir.Node) -> bool:
    """Tells whether the batch stands before time in X, Y and the states."""
    return bool(attribute(node, "layout", 0))


def time_first(b: Builder, node: ir.Node) -> ir.Value:
    """Returns X as `[time, batch, input]`."""
    x = required(node, 0)
    return b.transpose(x, [1, 0, 2]) if is_batch_first(node) else x


def sums_of_input(
    b: Builder, node: ir.Node, x: ir.Value, position: int
) -> tuple[ir.Value, ir.Value | None]:
    """Writes what the input adds to all gates, `[time, batch, gates*hidden]`, with the biases.

    Returns:
        The sums, and the bias of the product with the state where it is not in them.
    """
    width = width_of(node)
    w = b.transpose(entry_of(b, required(node, 1), position), [1, 0])
    sums = b.op("MatMul", x, w, shape=[*dims_of(x)[:2], width], dtype=x.dtype)
    bias = optional(node, 3)
    if bias is None:
        return sums, None
    both = entry_of(b, bias, position)
    sums = b.add(sums, b.slice(both, 0, 0, width))
    of_state = b.slice(both, 0, width, 2 * width)
    if node.op_type == "GRU" and attribute(node, "linear_before_reset", 0):
        return sums, of_state
    return b.add(sums, of_state), None


def entry_of(b: Builder, value: ir.Value, position: int) -> ir.Value:
    """Returns one entry of the first axis."""
    index = b.const(position, ir.DataType.INT64)
    return b.op("Gather", value, index, shape=dims_of(value)[1:], axis=0)


def initial_state(
    b: Builder, node: ir.Node, value: ir.Value | None, x: ir.Value, position: int, hidden: int
) -> ir.Value:
    """Returns the state `[batch, hidden]` that a direction starts with."""
    if value is None:
        return b.zeros([(x, 1), hidden], dtype_of(x))
    return entry_of(b, b.transpose(value, [1, 0, 2]) if is_batch_first(node) else value, position)


def running(b: Builder, x: ir.Value, lengths: ir.Value) -> ir.Value:
    """Returns where a sequence has not ended yet, `[time, batch, 1]`."""
    steps = b.count_up(b.size(x, 0), dims_of(x)[0])
    column = b.unsqueeze(steps, [1])
    before_end = b.elementwise("Less", column, b.cast(lengths, ir.DataType.INT64))
    return b.unsqueeze(before_end, [2])


# -- activations -----------------------------------------------------------------------------


def activations_of(node: ir.Node, position: int) -> Sequence[Activation]:
    """Returns the activations of one direction, with their parameters.

    `activation_alpha` and `activation_beta` hold values for those alone that have such a
    parameter, in the order of the activations.

    Raises:
        Refused: ONNX names no such activation.
    """
    default = DEFAULT_ACTIVATIONS[node.op_type]
    count = len(directions_of(node))
    named = [str(name) for name in attribute(node, "activations") or default * count]
    alphas = list(attribute(node, "activation_alpha") or [])
    betas = list(attribute(node, "activation_beta") or [])
    found = []
    for name in named:
        known = _BY_NAME.get(name.lower())
        if known is None:
            names = ", ".join(_SPELT)
            raise Refused(f"its activation {name} is none that ONNX names: {names}")
        write, alpha, beta = known
        if alpha is not None and alphas:
            alpha = float(alphas.pop(0))
        if beta is not None and betas:
            beta = float(betas.pop(0))
        found.append(functools.partial(write, alpha=alpha, beta=beta))
    return found[position * len(default) : (position + 1) * len(default)]


def _plain(op_type: str) -> Callable[..., ir.Value]:
    def write(b: Builder, x: ir.Value, **_: object) -> ir.Value:
        return b.op(op_type, x, shape=x)

    return write


def _with_alpha(op_type: str) -> Callable[..., ir.Value]:
    def write(b: Builder, x: ir.Value, alpha: float, **_: object) -> ir.Value:
        return b.op(op_type, x, shape=x, alpha=alpha)

    return write


def _affine(b: Builder, x: ir.Value, alpha: float, beta: float) -> ir.Value:
    return b.add(b.mul(x, alpha), beta)


def _scaled_tanh(b: Builder, x: ir.Value, alpha: float, beta: float) -> ir.Value:
    return b.mul(b.elementwise("Tanh", b.mul(x, beta)), alpha)


def _hard_sigmoid(b: Builder, x: ir.Value, alpha: float, beta: float) -> ir.Value:
    return b.op("HardSigmoid", x, shape=x, alpha=alpha, beta=beta)


#: Activation -> what writes it, and its parameters by default; None where it has none.
_SPELT: Mapping[str, tuple[Callable[..., ir.Value], float | None, float | None]] = {
    "Relu": (_plain("Relu"), None, None),
    "Tanh": (_plain("Tanh"), None, None),
    "Sigmoid": (_plain("Sigmoid"), None, None),
    "Affine": (_affine, 1.0, 0.0),
    "LeakyRelu": (_with_alpha("LeakyRelu"), 0.01, None),
    "ThresholdedRelu": (_with_alpha("ThresholdedRelu"), 1.0, None),
    "ScaledTanh": (_scaled_tanh, 1.0, 1.0),
    "HardSigmoid": (_hard_sigmoid, 0.2, 0.5),
    "Elu": (_with_alpha("Elu"), 1.0, None),
    "Softsign": (_plain("Softsign"), None, None),
    "Softplus": (_plain("Softplus"), None, None),
}
_BY_NAME = {name.lower(): known for name, known in _SPELT.items()}
