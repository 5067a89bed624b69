"""LSTM, GRU and RNN by numpy, each step forward, then each step back: gradients and other rules.

Written from the operators' specification, without a look at `graph.vjp.recurrent`: every cell says
what a step computes, and every rule what it gives back of that. One direction is one run,
with X `[time, batch, input]`, W `[gates*hidden, input]`, R `[gates*hidden, hidden]`, the biases
`[gates*hidden]` and states `[batch, hidden]`. Beyond the end of a shorter sequence a step hands its
states on and shows 0. `clip` bounds what goes into the gates, as onnxruntime has it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.values import attribute
from probegen.parity.witness.step import Step, Unknown

Array = npt.NDArray[Any]
#: A function of one number, with its alpha and its beta.
_Function = Callable[[Array, float, float], Array]

#: The step of differences in float64, by which activations have their slopes.
_STEP = 1e-6
#: Where an argument has changed by less, the slope stands in for the quotient of differences.
_NEAR = 1e-6
#: What states are moved away from 0 by, at least, where relevance is divided by them.
_LEAST_EPSILON = 1e-4
_X, _BIAS, _LENGTHS, _HIDDEN, _CELL, _PEEPHOLES = 0, 3, 4, 5, 6, 7

#: Activation, in small letters -> the function, its alpha and its beta by default, None for those
#: that it has not.
_ACTIVATIONS: Mapping[str, tuple[_Function, float | None, float | None]] = {
    "sigmoid": (lambda x, _, __: (1 + np.tanh(x / 2)) / 2, None, None),
    "tanh": (lambda x, _, __: np.tanh(x), None, None),
    "relu": (lambda x, _, __: np.maximum(x, 0), None, None),
    "softsign": (lambda x, _, __: x / (1 + np.abs(x)), None, None),
    "softplus": (lambda x, _, __: np.logaddexp(0, x), None, None),
    "affine": (lambda x, a, b: a * x + b, 1.0, 0.0),
    "scaledtanh": (lambda x, a, b: a * np.tanh(b * x), 1.0, 1.0),
    "hardsigmoid": (lambda x, a, b: np.clip(a * x + b, 0, 1), 0.2, 0.5),
    "leakyrelu": (lambda x, a, _: np.where(x > 0, x, a * x), 0.01, None),
    "thresholdedrelu": (lambda x, a, _: np.where(x > a, x, 0), 1.0, None),
    "elu": (lambda x, a, _: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))), 1.0, None),
}


@dataclasses.dataclass(frozen=True)
class _Activation:
    """One activation, by its name in small letters, behind the bound of what goes into it."""

    name: str
    function: _Function
    alpha: float
    beta: float
    clip: float

    def of(self, x: Array) -> Array:
        """Returns its value."""
        bounded = np.clip(x, -self.clip, self.clip)
        return np.asarray(self.function(bounded, self.alpha, self.beta))

    def slope(self, x: Array) -> Array:
        """Returns its slope; 0 beyond the bound."""
        return (self.of(x + _STEP) - self.of(x - _STEP)) / (2 * _STEP)

    def before(self, x: Array, g: Array, back: Arriving) -> Array:
        """Returns what arrives before it, at x, of what arrived behind it."""
        return back(self.name, self.slope(x), g)


@dataclasses.dataclass(frozen=True)
class _Weights:
    """What all steps of one direction share.

    Attributes:
        r: `[gates*hidden, hidden]`.
        bias: of the product with the state, `[gates*hidden]`.
        peepholes: of the gates i, o and f, `[3, hidden]`; zeros where there are none.
        activations: f, g and h of the specification, as many as there are.
        reset_after: whether GRU's reset gate stands behind the product (`linear_before_reset`).
    """

    r: Array
    bias: Array
    peepholes: Array
    activations: Sequence[_Activation]
    reset_after: bool


#: States before or behind a step, each `[batch, hidden]`.
_States = tuple[Array, ...]


@dataclasses.dataclass(frozen=True)
class _Kept:
    """What a step has computed.

    Attributes:
        before: the states before it.
        sums: what goes into the activations of the gates, in the operator's order.
        gates: behind these.
        after: the states behind it.
        inner: what an LSTM shows of its cell state; the product that a GRU's reset gate multiplies.
    """

    before: _States
    sums: Sequence[Array]
    gates: Sequence[Array]
    after: _States
    inner: Array


def _lstm(w: _Weights, sums: Array, before: _States) -> _Kept:
    hidden, cell = before
    f, g, h = w.activations
    p_i, p_o, p_f = w.peepholes
    to_i, to_o, to_f, to_c = np.split(sums + hidden @ w.r.T + w.bias, 4, axis=-1)
    to_i, to_f = to_i + p_i * cell, to_f + p_f * cell
    i, forget, candidate = f.of(to_i), f.of(to_f), g.of(to_c)
    after = forget * cell + i * candidate
    to_o = to_o + p_o * after
    o, shown = f.of(to_o), h.of(after)
    into, gates = (to_i, to_o, to_f, to_c), (i, o, forget, candidate)
    return _Kept(before, into, gates, (o * shown, after), shown)


def _gru(w: _Weights, sums: Array, before: _States) -> _Kept:
    (hidden,) = before
    f, g = w.activations
    r_z, r_r, r_h = np.split(w.r, 3)
    b_z, b_r, b_h = np.split(w.bias, 3)
    x_z, x_r, x_h = np.split(sums, 3, axis=-1)
    to_z, to_r = x_z + hidden @ r_z.T + b_z, x_r + hidden @ r_r.T + b_r
    z, reset = f.of(to_z), f.of(to_r)
    product = (hidden if w.reset_after else reset * hidden) @ r_h.T + b_h
    to_h = x_h + (reset * product if w.reset_after else product)
    candidate = g.of(to_h)
    after = (1 - z) * candidate + z * hidden
    return _Kept(before, (to_z, to_r, to_h), (z, reset, candidate), (after,), product)


def _rnn(w: _Weights, sums: Array, before: _States) -> _Kept:
    (f,) = w.activations
    total = sums + before[0] @ w.r.T + w.bias
    return _Kept(before, (total,), (f.of(total),), (f.of(total),), total)


#: What arrives before an activation: (its name, its slope, what arrived behind it).
Arriving = Callable[[str, Array, Array], Array]


def _sloped(name: str, slope: Array, g: Array) -> Array:
    del name
    return g * slope


#: What a rule gives back of a step: of what the input adds to the gates, and of the states before.
_Given = tuple[Array, _States]
#: A rule: (weights, what the step has computed, what arrived at the states behind it, what arrives
#: before activations).
_Back = Callable[[_Weights, _Kept, _States, Arriving], _Given]

# -- gradients -----------------------------------------------------------------------------------


def _gradient_of_lstm(w: _Weights, kept: _Kept, arrived: _States, back: Arriving) -> _Given:
    f, g, h = w.activations
    p_i, p_o, p_f = w.peepholes
    (d_hidden, d_after), (_, cell) = arrived, kept.before
    (to_i, to_o, to_f, to_c), (i, o, forget, candidate) = kept.sums, kept.gates
    d_o = f.before(to_o, d_hidden * kept.inner, back)
    d_after = d_after + h.before(kept.after[1], d_hidden * o, back) + d_o * p_o
    d_i = f.before(to_i, d_after * candidate, back)
    d_f = f.before(to_f, d_after * cell, back)
    d_c = g.before(to_c, d_after * i, back)
    d_sums = np.concatenate([d_i, d_o, d_f, d_c], axis=-1)
    return d_sums, (d_sums @ w.r, d_after * forget + d_i * p_i + d_f * p_f)


def _gradient_of_gru(w: _Weights, kept: _Kept, arrived: _States, back: Arriving) -> _Given:
    f, g = w.activations
    (d,), (hidden,) = arrived, kept.before
    (to_z, to_r, to_h), (z, reset, candidate) = kept.sums, kept.gates
    r_z, r_r, r_h = np.split(w.r, 3)
    d_z = f.before(to_z, d * (hidden - candidate), back)
    d_h = g.before(to_h, d * (1 - z), back)
    if w.reset_after:
        d_reset, d_before = d_h * kept.inner, (d_h * reset) @ r_h
    else:
        d_reset, d_before = (d_h @ r_h) * hidden, (d_h @ r_h) * reset
    d_r = f.before(to_r, d_reset, back)
    d_before = d_before + d * z + d_z @ r_z + d_r @ r_r
    return np.concatenate([d_z, d_r, d_h], axis=-1), (d_before,)


def _gradient_of_rnn(w: _Weights, kept: _Kept, arrived: _States, back: Arriving) -> _Given:
    (f,) = w.activations
    d_sums = f.before(kept.sums[0], arrived[0], back)
    return d_sums, (d_sums @ w.r,)


# -- relevance: a gate's part is that of what it lets through (Arras et al. 2017, sec. 3) --------
# No artefact has a cell with peepholes, `clip` or coupled gates behind this rule or the next.


def _relevance(w: _Weights, kept: _Kept, arrived: _States, epsilon: float) -> _Given:
    def share(term: Array, total: Array, least: float = 0.0) -> Array:
        by = max(epsilon, least)
        return np.asarray(term / (total + np.where(total >= 0, by, -by)))

    hidden, through = kept.before[0], kept.sums[-1]
    own = np.split(w.r, len(kept.gates))[-1]
    if len(kept.before) == 2:
        i, _, forget, candidate = kept.gates
        total = arrived[0] + arrived[1]
        kept_part = total * share(forget * kept.before[1], kept.after[1], _LEAST_EPSILON)
        ratio = share(total * share(i * candidate, kept.after[1], _LEAST_EPSILON), through)
        before: _States = (hidden * (ratio @ own), kept_part)
    elif len(kept.gates) == 3:
        z, reset, candidate = kept.gates
        ratio = share(
            arrived[0] * share((1 - z) * candidate, kept.after[0], _LEAST_EPSILON), through
        )
        inner = (ratio * reset) @ own if w.reset_after else reset * (ratio @ own)
        before = (arrived[0] * share(z * hidden, kept.after[0], _LEAST_EPSILON) + hidden * inner,)
    else:
        ratio = share(arrived[0], through)
        before = (hidden * (ratio @ own),)
    return np.concatenate([*[0 * ratio] * (len(kept.gates) - 1), ratio], axis=-1), before


# -- differences: activations by the rescale rule, products by the mean of the other factor ------


def _rescaled(w: _Weights, kept: _Kept, there: _Kept, arrived: _States) -> _Given:
    def mean(a: Array, b: Array) -> Array:
        return (a + b) / 2

    def ratio(f: _Activation, x: tuple[Array, Array], y: tuple[Array, Array]) -> Array:
        dx = x[0] - x[1]
        near = np.abs(dx) < _NEAR
        return np.where(near, f.slope(x[0]), (y[0] - y[1]) / np.where(near, 1, dx))

    def of_gate(k: int, f: _Activation) -> Array:
        return ratio(f, (kept.sums[k], there.sums[k]), (kept.gates[k], there.gates[k]))

    gates = [mean(a, b) for a, b in zip(kept.gates, there.gates, strict=True)]
    states = [mean(a, b) for a, b in zip(kept.before, there.before, strict=True)]
    inner, m = mean(kept.inner, there.inner), arrived[0]
    if len(kept.before) == 2:
        f, g, h = w.activations
        after, shown = (kept.after[1], there.after[1]), (kept.inner, there.inner)
        cell = arrived[1] + m * gates[1] * ratio(h, after, shown)
        parts = [cell * gates[3], m * inner, cell * states[1], cell * gates[0]]
        sums = [p * of_gate(k, g if k == 3 else f) for k, p in enumerate(parts)]
        of_sums = np.concatenate(sums, axis=-1)
        return of_sums, (of_sums @ w.r, cell * gates[2])
    if len(kept.gates) == 1:
        of_sums = m * of_gate(0, w.activations[0])
        return of_sums, (of_sums @ w.r,)
    f, g = w.activations
    rows = np.split(w.r, 3)
    of_z = m * (states[0] - gates[2]) * of_gate(0, f)
    of_candidate = m * (1 - gates[0]) * of_gate(2, g)
    if w.reset_after:
        of_reset, through = of_candidate * inner, (of_candidate * gates[1]) @ rows[2]
    else:
        of_reset = (of_candidate @ rows[2]) * states[0]
        through = (of_candidate @ rows[2]) * gates[1]
    of_reset = of_reset * of_gate(1, f)
    before = m * gates[0] + through + of_z @ rows[0] + of_reset @ rows[1]
    return np.concatenate([of_z, of_reset, of_candidate], axis=-1), (before,)


# -- all steps -------------------------------------------------------------------------------------

#: Operator -> its cell, its gradient, how many gates and states it has, its activations by default.
_CELLS: Mapping[
    str, tuple[Callable[[_Weights, Array, _States], _Kept], _Back, int, int, tuple[str, ...]]
] = {
    "LSTM": (_lstm, _gradient_of_lstm, 4, 2, ("Sigmoid", "Tanh", "Tanh")),
    "GRU": (_gru, _gradient_of_gru, 3, 1, ("Sigmoid", "Tanh")),
    "RNN": (_rnn, _gradient_of_rnn, 1, 1, ("Tanh",)),
}
#: The operators of this file.
RECURRENT = frozenset(_CELLS)


def through_time(
    step: Step, g: Sequence[Array | None], position: int, arriving: Arriving = _sloped
) -> Array:
    """Returns the gradient at X, or at an initial state.

    Args:
        step: an LSTM, a GRU or an RNN.
        g: the gradients of Y, and of the states behind the last step, None for zero.
        position: of the input.
        arriving: what arrives before an activation; its slope times what arrived behind it.

    Raises:
        Unknown: weights are explained, or two gates of an LSTM are one.
    """
    back = _CELLS[step.node.op_type][1]
    return _all_steps(step, g, position, lambda w, kept, _, d: back(w, kept, d, arriving))


def relevance_through_time(
    step: Step, arrived: Sequence[Array | None], position: int, epsilon: float
) -> Array:
    """Returns the relevance of X, or of an initial state; see `through_time`."""

    def back(w: _Weights, kept: _Kept, _: _Kept, r: _States) -> _Given:
        return _relevance(w, kept, r, epsilon)

    found = _all_steps(step, arrived, position, back)
    return np.asarray(found * step.x) if position == _X else found


def rescaled_through_time(
    step: Step, there: Step, arrived: Sequence[Array | None], position: int
) -> Array:
    """Returns the multiplier of X, or of an initial state; see `through_time`.

    Args:
        step: the operator.
        there: the same where what is explained is at its baseline.
        arrived: the multipliers of its outputs.
        position: of the input.
    """

    def back(w: _Weights, kept: _Kept, kept_there: _Kept, m: _States) -> _Given:
        return _rescaled(w, kept, kept_there, m)

    return _all_steps(step, arrived, position, back, there)


def _all_steps(
    step: Step,
    g: Sequence[Array | None],
    position: int,
    back: Callable[[_Weights, _Kept, _Kept, _States], _Given],
    there: Step | None = None,
) -> Array:
    node, kind = step.node, step.node.op_type
    if position not in (_X, _HIDDEN, _CELL):
        raise Unknown(f"{kind} whose weights move")
    if attribute(node, "input_forget", 0):
        raise Unknown(f"{kind} with input_forget")
    batch_first = bool(attribute(node, "layout", 0))
    x = step.x.swapaxes(0, 1) if batch_first else step.x
    count, found = _CELLS[kind][3], []
    for k, backwards in enumerate(_directions(node)):
        weights, kept = _forward(step, k, backwards)
        kept_there = kept if there is None else _forward(there, k, backwards)[1]
        hidden = weights.r.shape[-1]
        of_y, *last = _arrived(g, k, (*x.shape[:2], hidden), count, batch_first)
        states: _States = tuple(last)
        of_x = np.zeros_like(x)
        lengths = _optional(step, _LENGTHS)
        order = range(len(x))[:: 1 if backwards else -1]
        for t in order:
            runs = np.ones((x.shape[1], 1), bool) if lengths is None else (t < lengths)[:, None]
            here = (states[0] + of_y[t], *states[1:])
            of_sums, before = back(weights, kept[t], kept_there[t], here)
            of_x[t] = np.where(runs, of_sums, 0) @ np.asarray(step.inputs[1][k])
            states = tuple(np.where(runs, b, s) for b, s in zip(before, states, strict=True))
        found.append(of_x if position == _X else states[position - _HIDDEN])
    whole = np.asarray(sum(found) if position == _X else np.stack(found))
    return whole.swapaxes(0, 1) if batch_first else whole


def _forward(step: Step, k: int, backwards: bool) -> tuple[_Weights, list[_Kept]]:
    """Returns the weights of one direction, and what its steps compute, in the order of time."""
    cell, _, gates, count, _ = _CELLS[step.node.op_type]
    batch_first = bool(attribute(step.node, "layout", 0))
    x = step.x.swapaxes(0, 1) if batch_first else step.x
    w = np.asarray(step.inputs[1][k])
    bias_in, weights = _weights(step, k, gates)
    lengths = _optional(step, _LENGTHS)
    states = tuple(_initial(step, _HIDDEN + s, k, batch_first) for s in range(count))
    kept: dict[int, _Kept] = {}
    for t in range(len(x))[:: -1 if backwards else 1]:
        kept[t] = cell(weights, x[t] @ w.T + bias_in, states)
        runs = np.ones((x.shape[1], 1), bool) if lengths is None else (t < lengths)[:, None]
        pairs = zip(kept[t].after, states, strict=True)
        states = tuple(np.where(runs, a, s) for a, s in pairs)
    return weights, [kept[t] for t in range(len(x))]


def _weights(step: Step, k: int, gates: int) -> tuple[Array, _Weights]:
    """Returns the bias of the product with x, and what else the steps of one direction share."""
    r = np.asarray(step.inputs[2][k])
    hidden = r.shape[-1]
    bias, peepholes = _optional(step, _BIAS), _optional(step, _PEEPHOLES)
    both = np.zeros(2 * gates * hidden) if bias is None else bias[k]
    of_x, of_state = np.split(both, 2)
    given = np.zeros((3, hidden)) if peepholes is None else peepholes[k].reshape(3, hidden)
    after = bool(attribute(step.node, "linear_before_reset", 0))
    return of_x, _Weights(r, of_state, given, list(_activations(step.node, k)), after)


def _directions(node: ir.Node) -> tuple[bool, ...]:
    """Tells of each direction whether it starts with the last step."""
    name = str(attribute(node, "direction", "forward"))
    return {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}[name]


def _activations(node: ir.Node, k: int) -> Iterator[_Activation]:
    """Yields the activations of one direction.

    Raises:
        Unknown: one is none that ONNX names.
    """
    default = _CELLS[node.op_type][4]
    named = list(attribute(node, "activations") or default * len(_directions(node)))
    numbers = [list(attribute(node, f"activation_{n}") or []) for n in ("alpha", "beta")]
    clip = float(attribute(node, "clip", 0.0)) or np.inf
    for i, name in enumerate(named):
        known = _ACTIVATIONS.get(str(name).lower())
        if known is None:
            raise Unknown(f"{node.op_type} with the activation {name}")
        function, *defaults = known
        # Those with such a number take the next of the list, in the order of all directions.
        alpha, beta = (
            0.0 if usual is None else float(given.pop(0) if given else usual)
            for usual, given in zip(defaults, numbers, strict=True)
        )
        own = i - k * len(default)
        if 0 <= own < len(default):
            yield _Activation(
                str(name).lower(), function, alpha, beta, np.inf if own == 2 else clip
            )


def _optional(step: Step, position: int) -> Array | None:
    """Returns an input, None where it is left out."""
    given = step.inputs[position] if len(step.inputs) > position else None
    return None if given is None else np.asarray(given)


def _initial(step: Step, position: int, k: int, batch_first: bool) -> Array:
    """Returns the state that a direction starts with, `[batch, hidden]`."""
    given, hidden = _optional(step, position), step.inputs[2].shape[-1]
    if given is None:
        return np.zeros((step.x.shape[0 if batch_first else 1], hidden))
    return np.asarray(given[:, k] if batch_first else given[k])


def _arrived(
    g: Sequence[Array | None], k: int, shape: tuple[int, ...], count: int, batch_first: bool
) -> list[Array]:
    """Returns the gradients of one direction: of Y `[time, batch, hidden]`, and of the last states.

    Args:
        g: those of the node's outputs.
        k: the direction.
        shape: that of Y.
        count: how many states there are.
        batch_first: whether the batch is the first axis of all of them.
    """
    found = []
    for i in range(count + 1):
        given = g[i] if len(g) > i else None
        if given is None:
            found.append(np.zeros(shape if i == 0 else shape[1:]))
        elif i == 0:
            whole = np.asarray(given).transpose(1, 2, 0, 3) if batch_first else np.asarray(given)
            found.append(whole[:, k])
        else:
            found.append(np.asarray(given[:, k] if batch_first else given[k]))
    return found
