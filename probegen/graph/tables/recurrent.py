"""Relevance and DeepLIFT's multipliers through LSTM, GRU and RNN, one step after the other.

All that a step computes is known beforehand (`recurrent_unrolled`): what is left for the loop
back through time is one product with the weights of the state.

Relevance (Arras et al. 2017, sec. 3; Arras et al. 2019, sec. 7.3.2): of a gate and what it lets
through, that gets all and the gate nothing; activations pass relevance on; in sums each term has
its share, as in the epsilon rule. Arras et al. write it for the LSTM; a GRU has the same parts, its
state being `z * h' + (1 - z) * candidate`, with the reset gate a factor as well. A state that is
divided by is moved away from 0 by 1e-4 at least: where saturated gates cancel, less than that is
rounding.

Multipliers: each activation by the rescale rule, each product of a gate and what it lets through as
any product (each factor times the mean of the other and its reference), sums as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from probegen.graph.autodiff import Refused
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import dtype_of, shape_of
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.step_writer import StepWriter
from probegen.graph.vjp.common import Dys, Gradients, optional, required
from probegen.graph.vjp.recurrent_operands import directions_of
from probegen.graph.vjp.recurrent_unrolled import Unrolled, unrolled

#: Moves a value away from 0 by a number.
Stabilise = Callable[[ir.Value, float], ir.Value]
#: A step back: (body, reads one step of a sequence, what arrived at the states behind it) -> what
#: arrives at the states before it, and what arrives at what the input adds.
_Step = Callable[[Builder, "_Read", Sequence[ir.Value]], "_Before"]
_Read = Callable[[ir.Value], ir.Value]
_Before = tuple[list[ir.Value], ir.Value]

#: Where an argument has changed by less, the slope stands in for the quotient of differences.
_SMALL = 1e-4
#: The step of the differences by which activations other than the usual have their slopes.
_STEP = 1e-3
#: What a state is moved away from 0 by, at least.
_LEAST_EPSILON = 1e-4


def relevance(
    b: Builder, node: ir.Node, dy: Dys, stabilise: Stabilise, epsilon: float
) -> Gradients:
    """Yields the relevance of a node's input and of its initial states."""

    def share(term: ir.Value, total: ir.Value, least: float = 0.0) -> ir.Value:
        away = stabilise(total, max(epsilon, least))
        return b.elementwise("Div", term, away, shape=shape_of(total))

    def written(u: Unrolled, _: int) -> tuple[_Step, ir.Value, bool]:
        gate = len(u.gates) - 1  # the candidate
        of_state = u.rows(b, u.r, gate)
        # Of what goes into the candidate, input, state and bias are the terms.
        step = _RELEVANCE[node.op_type](b, u, share, u.sums[gate], of_state)
        return step, u.rows(b, u.w, gate), True

    yield from _of_directions(b, node, dy, written)


def multipliers(
    b: Builder, node: ir.Node, there: ir.Node, dy: Dys, explained: set[ir.Value]
) -> Gradients:
    """Yields the multipliers of a node's input and of its initial states.

    Args:
        b: where the nodes go.
        node: the node.
        there: the same node where what is explained is at its baseline.
        dy: the multipliers of its outputs.
        explained: the inputs that differ from their references.

    Raises:
        Refused: its weights or lengths differ.
    """
    if explained & {v for v in (*node.inputs[1:5], *node.inputs[7:]) if v is not None}:
        raise Refused("what is explained changes its weights, or how long its sequences are")

    def written(u: Unrolled, position: int) -> tuple[_Step, ir.Value, bool]:
        pair = _Pair(b, u, unrolled(b, there, position))
        return pair.step(node), u.w, False

    yield from _of_directions(b, node, dy, written)


def _of_directions(
    b: Builder,
    node: ir.Node,
    dy: Dys,
    written: Callable[[Unrolled, int], tuple[_Step, ir.Value, bool]],
) -> Gradients:
    """Yields what arrives at the input and at the initial states, of all directions together.

    Args:
        b: where the nodes go.
        node: the node.
        dy: what arrived at its outputs.
        written: gives, of a direction, its step back, the weights of the input
            behind what a step collects, and whether the input takes part as a factor.
    """
    x, count = required(node, 0), 2 if node.op_type == "LSTM" else 1
    of_x: ir.Value | None = None
    of_states: list[list[ir.Value]] = [[] for _ in range(count)]
    for position in range(len(directions_of(node))):
        u = unrolled(b, node, position)
        step, weights, factor = written(u, position)
        found, finals = _back(b, u, _arrived(b, node, dy, position, u), step)
        part = b.op("MatMul", found, weights, shape=x)
        part = b.mul(x, part) if factor else part
        of_x = part if of_x is None else b.add(of_x, part)
        for states, final in zip(of_states, finals, strict=True):
            states.append(b.unsqueeze(final, [0]))
    assert of_x is not None
    yield x, of_x
    for k, states in enumerate(of_states):
        initial = optional(node, 5 + k)
        if initial is not None:
            yield initial, b.concat(states, 0)


def _arrived(
    b: Builder, node: ir.Node, dy: Dys, position: int, u: Unrolled
) -> tuple[ir.Value | None, list[ir.Value]]:
    """Returns what arrived at the states over time, and at those behind the last step."""
    of_y: ir.Value | None = None
    if dy[0] is not None:
        of_y = b.squeeze(b.slice(dy[0], 1, position, position + 1), [1])
        if u.running is not None:  # there is no output beyond the end
            of_y = b.where(u.running, of_y, 0.0)
    finals = []
    for k in range(2 if node.op_type == "LSTM" else 1):
        g = dy[k + 1] if len(dy) > k + 1 else None
        if g is None:
            finals.append(b.zeros([(u.x, 1), u.hidden_size], dtype_of(u.x)))
        else:
            finals.append(b.squeeze(b.slice(g, 0, position, position + 1), [0]))
    return of_y, finals


def _back(
    b: Builder, u: Unrolled, arrived: tuple[ir.Value | None, list[ir.Value]], step: _Step
) -> tuple[ir.Value, list[ir.Value]]:
    """Writes the loop back through time; returns what steps collect, and what the first leaves."""
    of_y, finals = arrived
    loop = StepWriter(b)
    body = loop.body

    def read(sequence: ir.Value) -> ir.Value:
        return loop.read(sequence, backwards=not u.backwards)

    states = [loop.carry(v) for v in finals]
    here = [states[0] if of_y is None else body.add(states[0], read(of_y)), *states[1:]]
    before, collected = step(body, read, here)
    if u.running is not None:
        runs = read(u.running)
        before = [body.where(runs, v, s) for v, s in zip(before, states, strict=True)]
        collected = body.where(runs, collected, 0.0)
    last, (over_time,) = loop.finish(before, [Collected(collected, not u.backwards)])
    return over_time, last


# -- relevance ---------------------------------------------------------------------------------

#: Returns a term over a sum, which is moved away from 0, by a number at least.
_Share = Callable[..., ir.Value]


def _times(body: Builder, value: ir.Value, rows: ir.Value, like: ir.Value) -> ir.Value:
    return body.op("MatMul", value, rows, shape=like)


def _relevance_of_lstm(
    b: Builder, u: Unrolled, share: _Share, through: ir.Value, of_state: ir.Value
) -> _Step:
    """`c = f * c' + i * candidate`, and all of `h = o * tanh(c)` is of c."""
    assert u.cells is not None
    before, behind = u.cells
    i, _, f, candidate = u.gates
    kept = share(b.mul(f, before), behind, _LEAST_EPSILON)
    ratio = share(share(b.mul(i, candidate), behind, _LEAST_EPSILON), through)

    def step(body: Builder, read: _Read, states: Sequence[ir.Value]) -> _Before:
        total = body.add(states[0], states[1])
        arrived = body.mul(total, read(ratio))
        entering = body.mul(read(u.entering), _times(body, arrived, of_state, total))
        return [entering, body.mul(total, read(kept))], arrived

    return step


def _relevance_of_gru(
    b: Builder, u: Unrolled, share: _Share, through: ir.Value, of_state: ir.Value
) -> _Step:
    """`h = z * h' + (1 - z) * candidate`."""
    z, reset, candidate = u.gates
    old, new = b.mul(z, u.entering), b.mul(b.sub(1.0, z), candidate)
    hidden = b.add(old, new)
    kept = share(old, hidden, _LEAST_EPSILON)
    ratio = share(share(new, hidden, _LEAST_EPSILON), through)

    def step(body: Builder, read: _Read, states: Sequence[ir.Value]) -> _Before:
        arrived = body.mul(states[0], read(ratio))
        r, h = read(reset), read(u.entering)
        if u.inner is not None:
            of_candidate = body.mul(h, _times(body, body.mul(arrived, r), of_state, h))
        else:
            of_candidate = body.mul(body.mul(r, h), _times(body, arrived, of_state, h))
        return [body.add(of_candidate, body.mul(states[0], read(kept)))], arrived

    return step


def _relevance_of_rnn(
    b: Builder, u: Unrolled, share: _Share, through: ir.Value, of_state: ir.Value
) -> _Step:
    """`h = f(sum)`: all of h is of what goes into it."""
    one = share(b.add(b.zeros_like(through), 1.0), through)

    def step(body: Builder, read: _Read, states: Sequence[ir.Value]) -> _Before:
        arrived = body.mul(states[0], read(one))
        h = read(u.entering)
        return [body.mul(h, _times(body, arrived, of_state, h))], arrived

    return step


_RELEVANCE: Mapping[str, Callable[[Builder, Unrolled, _Share, ir.Value, ir.Value], _Step]] = {
    "LSTM": _relevance_of_lstm,
    "GRU": _relevance_of_gru,
    "RNN": _relevance_of_rnn,
}

# -- multipliers -------------------------------------------------------------------------------


class _Pair:
    """One direction of a node, and the same where what is explained is at its baseline."""

    def __init__(self, b: Builder, here: Unrolled, there: Unrolled) -> None:
        self._b, self._here, self._there = b, here, there

    def _mean(self, here: ir.Value, there: ir.Value) -> ir.Value:
        b = self._b
        return b.mul(b.elementwise("Add", here, there, shape=shape_of(here)), 0.5)

    def _mean_of_gate(self, k: int) -> ir.Value:
        return self._mean(self._here.gates[k], self._there.gates[k])

    def _mean_entering(self) -> ir.Value:
        return self._mean(self._here.entering, self._there.entering)

    def _ratio(self, k: int) -> ir.Value:
        """Returns what a gate differs by over what goes into its activation differs by."""
        u, v = self._here, self._there
        return self._rescaled(k, (u.sums[k], v.sums[k]), (u.gates[k], v.gates[k]))

    def _rescaled(
        self, k: int, x: tuple[ir.Value, ir.Value], y: tuple[ir.Value, ir.Value]
    ) -> ir.Value:
        """Returns the differences of a function over those of its argument.

        Args:
            k: which of the activations the function is.
            x: its argument, here and there.
            y: its values.
        """
        b, shape = self._b, shape_of(x[0])
        dx, dy = (b.elementwise("Sub", *pair, shape=shape) for pair in (x, y))
        near = b.elementwise("Less", b.op("Abs", dx, shape=dx), _SMALL)
        middle, name = self._mean(*y), self._here.activations[k].lower()
        if name == "sigmoid":
            slope = b.mul(middle, b.sub(1.0, middle))
        elif name == "tanh":
            slope = b.sub(1.0, b.mul(middle, middle))
        else:
            write, at = self._here.functions[k], self._mean(*x)
            ahead, behind = (write(b, b.add(at, step)) for step in (_STEP, -_STEP))
            slope = b.mul(b.sub(ahead, behind), 0.5 / _STEP)
        return b.where(near, slope, b.div(dy, b.where(near, 1.0, dx)))

    def step(self, node: ir.Node) -> _Step:
        """Returns the step back of the operator."""
        return {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[node.op_type]()

    def _lstm(self) -> _Step:
        """`c = f * c' + i * candidate`, `h = o * tanh(c)`."""
        b, u, v = self._b, self._here, self._there
        assert u.cells is not None
        assert v.cells is not None
        shown = [u.functions[4](b, c) for c in (u.cells[1], v.cells[1])]
        pair = (shown[0], shown[1])
        into_cell = b.mul(self._mean_of_gate(1), self._rescaled(4, (u.cells[1], v.cells[1]), pair))
        kept = self._mean_of_gate(2)
        factors = (
            b.mul(self._mean_of_gate(3), self._ratio(0)),
            b.mul(self._mean(*pair), self._ratio(1)),
            b.mul(self._mean(u.cells[0], v.cells[0]), self._ratio(2)),
            b.mul(self._mean_of_gate(0), self._ratio(3)),
        )

        def step(body: Builder, read: _Read, states: Sequence[ir.Value]) -> _Before:
            hidden = states[0]
            cell = body.add(states[1], body.mul(hidden, read(into_cell)))
            parts = [body.mul(hidden if k == 1 else cell, read(f)) for k, f in enumerate(factors)]
            arrived = body.concat(parts, 1)
            return [_times(body, arrived, u.r, hidden), body.mul(cell, read(kept))], arrived

        return step

    def _gru(self) -> _Step:
        """`h = z * h' + (1 - z) * candidate`."""
        b, u, v = self._b, self._here, self._there
        mean_h, z = self._mean_entering(), self._mean_of_gate(0)
        to_z = b.mul(b.sub(mean_h, self._mean_of_gate(2)), self._ratio(0))
        to_candidate = b.mul(b.sub(1.0, z), self._ratio(2))
        ratio, reset = self._ratio(1), self._mean_of_gate(1)
        rows = [u.rows(b, u.r, k) for k in range(3)]
        if u.inner is not None and v.inner is not None:
            to_reset = b.mul(self._mean(u.inner, v.inner), ratio)
        else:
            to_reset = b.mul(mean_h, ratio)

        def step(body: Builder, read: _Read, states: Sequence[ir.Value]) -> _Before:
            (m,) = states
            of_z, of_candidate = body.mul(m, read(to_z)), body.mul(m, read(to_candidate))
            if u.inner is not None:
                of_reset = body.mul(of_candidate, read(to_reset))
                through = _times(body, body.mul(of_candidate, read(reset)), rows[2], m)
            else:
                product = _times(body, of_candidate, rows[2], m)
                of_reset, through = (
                    body.mul(product, read(to_reset)),
                    body.mul(product, read(reset)),
                )
            before = body.add(body.mul(m, read(z)), through)
            for part, weights in ((of_z, rows[0]), (of_reset, rows[1])):
                before = body.add(before, _times(body, part, weights, m))
            return [before], body.concat([of_z, of_reset, of_candidate], 1)

        return step

    def _rnn(self) -> _Step:
        """`h = f(sum)`."""
        u, ratio = self._here, self._ratio(0)

        def step(body: Builder, read: _Read, states: Sequence[ir.Value]) -> _Before:
            arrived = body.mul(states[0], read(ratio))
            return [_times(body, arrived, u.r, states[0])], arrived

        return step
