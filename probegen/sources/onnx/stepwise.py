"""Reference for states over time: the file's operator in onnxruntime, run one step at a time.

Gates are computed by numpy from the states before the step, as the specification says them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime as ort
from onnx import helper, numpy_helper

from probegen.graph.core.values import attribute, constant_of
from probegen.graph.running import session_options

Array = npt.NDArray[Any]

_NAMES = ("x", "w", "r", "b", "lengths", "h", "c", "p")
_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
#: Activation by its name in small letters: a function of its input, alpha and beta; and which of
#: these two it has, with what they are by default.
_FUNCTIONS: Mapping[str, tuple[Callable[..., Array], tuple[float | None, float | None]]] = {
    "relu": (lambda x, *_: np.maximum(x, 0), (None, None)),
    "tanh": (lambda x, *_: np.tanh(x), (None, None)),
    "sigmoid": (lambda x, *_: 0.5 + 0.5 * np.tanh(0.5 * x), (None, None)),
    "affine": (lambda x, a, b: a * x + b, (1.0, 0.0)),
    "leakyrelu": (lambda x, a, _: np.where(x < 0, a * x, x), (0.01, None)),
    "thresholdedrelu": (lambda x, a, _: np.where(x > a, x, 0), (1.0, None)),
    "scaledtanh": (lambda x, a, b: a * np.tanh(b * x), (1.0, 1.0)),
    "hardsigmoid": (lambda x, a, b: np.clip(a * x + b, 0, 1), (0.2, 0.5)),
    "elu": (lambda x, a, _: np.where(x < 0, a * np.expm1(np.minimum(x, 0)), x), (1.0, None)),
    "softsign": (lambda x, *_: x / (1 + np.abs(x)), (None, None)),
    "softplus": (lambda x, *_: np.logaddexp(x, 0), (None, None)),
}


def computed_operands(node: ir.Node) -> Iterator[ir.Value]:
    """Yields the inputs of a node that are neither known nor fed."""
    for value in node.inputs:
        if value is None or not value.name or value.is_graph_input():
            continue
        if constant_of(value) is None:
            yield value


def states_by_steps(
    node: ir.Node, values: Mapping[str, Array], opset: int
) -> list[dict[str, Array]]:
    """Returns states and gates over time of each direction, `[batch, time, unit]`, by suffix.

    Args:
        node: LSTM, GRU or RNN.
        values: the inputs of it that are not known, by name.
        opset: its operator set.
    """
    operands: dict[str, Array] = {}
    for name, value in zip(_NAMES, node.inputs, strict=False):
        if value is not None and value.name:
            known = constant_of(value)
            operands[name] = values[str(value.name)] if known is None else known
    if attribute(node, "layout", 0):
        for name in {"x", "h", "c"} & set(operands):
            operands[name] = np.swapaxes(operands[name], 0, 1)
    direction = attribute(node, "direction", "forward")
    count = 2 if direction == "bidirectional" else 1
    return [
        _Direction(node, operands, k, count, opset).run(direction == "reverse" or k == 1)
        for k in range(count)
    ]


class _Direction:
    """One direction of a node."""

    def __init__(
        self, node: ir.Node, operands: Mapping[str, Array], position: int, count: int, opset: int
    ) -> None:
        self.kind = node.op_type
        self.x, self.lengths = operands["x"], operands.get("lengths")
        self.weights = {n: operands[n][position] for n in ("w", "r", "b", "p") if n in operands}
        self.hidden = self.weights["r"].shape[-1]
        states = ("h", "c") if self.kind == "LSTM" else ("h",)
        zeros = np.zeros((self.x.shape[1], self.hidden), self.x.dtype)
        self.initial = [operands[n][position] if n in operands else zeros for n in states]
        self.functions = _functions(node, position, count)
        self.clip = attribute(node, "clip")
        self.coupled = bool(attribute(node, "input_forget", 0))
        self.after = bool(attribute(node, "linear_before_reset", 0))
        self.session = self._one_step(node, position, count, opset)

    def run(self, backwards: bool) -> dict[str, Array]:
        """Returns states and gates over time."""
        steps = len(self.x)
        states, found = self.initial, dict[int, dict[str, Array]]()
        for t in reversed(range(steps)) if backwards else range(steps):
            feed = {"x": self.x[t : t + 1]}
            feed.update((n, s[None]) for n, s in zip(("h", "c"), states, strict=False))
            new = [value[0] for value in self.session.run(None, feed)]
            gates = self._gates(self.x[t], states, new)
            if self.lengths is not None:
                there = (t < self.lengths)[:, None]
                new = [np.where(there, n, s) for n, s in zip(new, states, strict=True)]
            states = new
            found[t] = dict(zip(("", ":1"), states, strict=False)) | gates
        return {n: np.stack([found[t][n] for t in range(steps)], 1) for n in found[0]}

    def _one_step(self, node: ir.Node, position: int, count: int, opset: int) -> Any:
        """Returns a session of the operator alone, for one step in one direction."""
        attributes = attributes_of_a_direction(node, position, count, self.hidden)
        given = [n if n in (*self.weights, "x") else "" for n in _NAMES]
        given[5:7] = ["h", "c"] if self.kind == "LSTM" else ["h", ""]
        while not given[-1]:
            given.pop()
        states = ["h", "c"][: len(self.initial)]
        made = helper.make_node(
            self.kind, given, ["", *(f"next_{n}" for n in states)], **attributes
        )
        element = helper.np_dtype_to_tensor_dtype(self.x.dtype)
        infos = [helper.make_tensor_value_info("x", element, [1, None, self.x.shape[2]])]
        infos += [helper.make_tensor_value_info(n, element, [1, None, self.hidden]) for n in states]
        outs = [
            helper.make_tensor_value_info(f"next_{n}", element, [1, None, self.hidden])
            for n in states
        ]
        stored = [numpy_helper.from_array(w[None], n) for n, w in self.weights.items()]
        graph = helper.make_graph([made], "step", infos, outs, stored)
        version = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=version, ir_version=8)
        content = onnx.ModelProto.SerializeToString(model)
        return ort.InferenceSession(content, session_options(), providers=["CPUExecutionProvider"])

    def _activate(self, place: int, sums: Array) -> Array:
        bounded = np.clip(sums, -self.clip, self.clip) if self.clip else sums
        return self.functions[place](bounded)

    def _gates(self, x: Array, before: Sequence[Array], after: Sequence[Array]) -> dict[str, Array]:
        if self.kind == "RNN":
            return {}
        wide = {n: w.astype(np.float64) for n, w in self.weights.items()}
        x, h = x.astype(np.float64), before[0].astype(np.float64)
        width = len(wide["w"])
        bias = wide.get("b", np.zeros(2 * width))
        if self.kind == "LSTM":
            sums = x @ wide["w"].T + h @ wide["r"].T + bias[:width] + bias[width:]
            i, o, f, c = np.split(sums, 4, -1)
            if "p" in wide:
                of_i, of_o, of_f = np.split(wide["p"], 3)
                i, f, o = i + of_i * before[1], f + of_f * before[1], o + of_o * after[1]
            entry = self._activate(0, i)
            kept = 1 - entry if self.coupled else self._activate(0, f)
            return {
                "/input_gate": entry,
                "/forget_gate": kept,
                "/candidate": self._activate(1, c),
                "/output_gate": self._activate(0, o),
            }
        z, r, c = np.split(x @ wide["w"].T + bias[:width], 3, -1)
        of_z, of_r, of_c = np.split(wide["r"], 3)
        b_z, b_r, b_c = np.split(bias[width:], 3)
        update = self._activate(0, z + h @ of_z.T + b_z)
        reset = self._activate(0, r + h @ of_r.T + b_r)
        inside = reset * (h @ of_c.T + b_c) if self.after else (reset * h) @ of_c.T + b_c
        return {
            "/update_gate": update,
            "/reset_gate": reset,
            "/candidate": self._activate(1, c + inside),
        }


def attributes_of_a_direction(
    node: ir.Node, position: int, count: int, hidden: int
) -> dict[str, Any]:
    """Returns the attributes of an operator that runs forwards as one direction of a node does.

    Args:
        node: LSTM, GRU or RNN.
        position: which of its directions.
        count: how many it has.
        hidden: the number of units.
    """
    attributes: dict[str, Any] = {
        name: value
        for name in ("clip", "input_forget", "linear_before_reset")
        if (value := attribute(node, name)) is not None
    }
    attributes["hidden_size"] = hidden
    if attribute(node, "activations"):
        named, alphas, betas = _named(node, position, count)
        attributes["activations"] = named
        attributes |= {"activation_alpha": alphas} if alphas else {}
        attributes |= {"activation_beta": betas} if betas else {}
    return attributes


def _parameters(node: ir.Node) -> list[tuple[str, list[float], list[float]]]:
    """Returns the activations of all directions, each with its alpha and its beta if it has one."""
    count = 2 if attribute(node, "direction", "forward") == "bidirectional" else 1
    named = [str(n) for n in attribute(node, "activations") or _DEFAULTS[node.op_type] * count]
    alphas = [float(a) for a in attribute(node, "activation_alpha") or ()]
    betas = [float(b) for b in attribute(node, "activation_beta") or ()]
    found = []
    for name in named:
        defaults = _FUNCTIONS[name.lower()][1]
        own = [
            [] if usual is None else [given.pop(0) if given else usual]
            for usual, given in zip(defaults, (alphas, betas), strict=True)
        ]
        found.append((name, own[0], own[1]))
    return found


def _of_direction(node: ir.Node, position: int, count: int) -> list[Any]:
    every = _parameters(node)
    size = len(every) // count
    return every[position * size : (position + 1) * size]


def _functions(node: ir.Node, position: int, count: int) -> list[Callable[[Array], Array]]:
    def made(name: str, alpha: list[float], beta: list[float]) -> Callable[[Array], Array]:
        function = _FUNCTIONS[name.lower()][0]
        a, b = (values[0] if values else 0.0 for values in (alpha, beta))
        return lambda x: function(x, a, b)

    return [made(*one) for one in _of_direction(node, position, count)]


def _named(node: ir.Node, position: int, count: int) -> tuple[list[str], list[float], list[float]]:
    own = _of_direction(node, position, count)
    alphas, betas = ([v for one in own for v in one[which]] for which in (1, 2))
    return [name for name, _, _ in own], alphas, betas
