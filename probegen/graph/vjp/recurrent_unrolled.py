"""What LSTM, GRU and RNN compute, at all steps at once.

The hidden states after all steps are the operator's own output Y. From these the gates of all
steps follow by one product, so that no cell runs again. Of the cell states of an LSTM a loop
without a product is left.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import onnx_ir as ir

from probegen.graph.autodiff import Refused
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import Dim, attribute, dims_of, dtype_of
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.step_writer import StepWriter
from probegen.graph.vjp.common import optional, required
from probegen.graph.vjp.recurrent_operands import (
    DEFAULT_ACTIVATIONS,
    GATES,
    STATES,
    activations_of,
    directions_of,
    entry_of,
    initial_state,
    is_batch_first,
    running,
    sums_of_input,
    time_first,
    units_of,
    width_of,
)
from probegen.graph.vjp.recurrent_steps import CELLS, cell_of, steps_of

#: Behind the end of every axis.
_FAR = 2**31 - 1


def states_over_time(
    b: Builder, node: ir.Node, position: int, names: Sequence[str]
) -> list[ir.Value]:
    """Writes what a node keeps from step to step, each `[time, batch, hidden]`.

    A sequence that is shorter than the others keeps its states in the steps beyond its end.

    Args:
        b: where the nodes go.
        node: LSTM, GRU or RNN.
        position: which of its directions.
        names: `""` for the hidden state, `":1"` for the cell state, `"/input_gate"` and so on for
            gates behind their activations; see `STATES` and `GATE_NAMES`.

    Raises:
        Refused: it cannot be told what the node computes.
    """
    if node.op_type == "LSTM" and optional(node, 7) is not None and set(names) != {""}:
        # Peepholes: the gates of a step need the cell state before it.
        steps = steps_of(b, node, time_first(b, node), position)
        known = {**dict(zip(STATES, steps.after, strict=False)), **steps.gates}
        collected = [Collected(known[name], steps.backwards) for name in names]
        return steps.loop.finish(steps.after, collected)[1]
    made = {"": _hidden_states(b, node, position)}
    if set(names) != {""}:
        made |= _at_all_steps(b, node, position, made[""], cells=":1" in names)
    return [made[name] for name in names]


@dataclasses.dataclass(frozen=True)
class Unrolled:
    """What one direction of a node computes, at all steps at once, in the order of time.

    Attributes:
        x: the input, `[time, batch, input]`.
        w: weights of the input, `[gates*hidden, input]`.
        r: weights of the state, `[gates*hidden, hidden]`.
        backwards: whether it starts with the last step.
        entering: the hidden state before each step, `[time, batch, hidden]`, as all that follows.
        hidden: that behind each step.
        cells: the cell states before and behind each step; of an LSTM alone.
        sums: what goes into the activation of each gate, in the operator's order of gates.
        gates: behind their activations, in the same order; of an RNN that is the hidden state.
        activations: the function of each gate, and of an LSTM that of the cell state behind them.
        functions: write these.
        inner: of a GRU whose reset gate stands behind the product: the product of the state with
            the candidate's weights, and its bias.
        running: which steps are not beyond the end of their sequence, bool `[time, batch, 1]`; None
            where all are as long.
        hidden_size: the number of units.
    """

    x: ir.Value
    w: ir.Value
    r: ir.Value
    backwards: bool
    entering: ir.Value
    hidden: ir.Value
    cells: tuple[ir.Value, ir.Value] | None
    sums: tuple[ir.Value, ...]
    gates: tuple[ir.Value, ...]
    activations: tuple[str, ...]
    functions: tuple[Callable[[Builder, ir.Value], ir.Value], ...]
    inner: ir.Value | None
    running: ir.Value | None
    hidden_size: int

    def rows(self, b: Builder, weights: ir.Value, gate: int) -> ir.Value:
        """Returns the rows of `w` or `r` that are one gate's."""
        return b.slice(weights, 0, gate * self.hidden_size, (gate + 1) * self.hidden_size)


def unrolled(b: Builder, node: ir.Node, position: int) -> Unrolled:
    """Writes what one direction of a node in the usual form computes, at all steps at once.

    Args:
        b: where the nodes go.
        node: LSTM, GRU or RNN.
        position: which of its directions.

    Raises:
        Refused: it has peepholes, bounds, coupled gates or the batch first.
    """
    unusual = ("clip", "input_forget", "layout")
    if optional(node, 7) is not None or any(attribute(node, name) for name in unusual):
        raise Refused("it has peepholes, clip, input_forget or layout=1, which have no rule here")
    kind, n, x = node.op_type, units_of(node), required(node, 0)
    backwards, lengths = directions_of(node)[position], optional(node, 4)
    hidden = _hidden_states(b, node, position)
    first = [initial_state(b, node, optional(node, i), x, position, n) for i in (5, 6)]
    entering = _entering(b, hidden, first[0], backwards)
    sums, of_state = sums_of_input(b, node, x, position)
    r = entry_of(b, required(node, 2), position)
    usual = DEFAULT_ACTIVATIONS[kind]
    names = [str(a) for a in attribute(node, "activations") or usual * len(directions_of(node))]
    own = names[position * len(usual) : (position + 1) * len(usual)]
    functions = tuple(activations_of(node, position))
    write = _AllSteps(b, n, b.transpose(r, [1, 0]), own, functions)
    if kind == "GRU":
        after = bool(attribute(node, "linear_before_reset", 0))
        into, gates, inner = write.gru(entering, sums, of_state, reset_after=after)
    else:
        into, gates = write.lstm_or_rnn(entering, sums, GATES[kind])
        inner = None
    cells = None
    if kind == "LSTM":
        behind = _cell_states(b, node, position, gates[2], b.mul(gates[0], gates[3]))
        cells = (_entering(b, behind, first[1], backwards), behind)
    of_f = max(len(gates) - 1, 1)  # all but the candidate
    return Unrolled(
        x=x,
        w=entry_of(b, required(node, 1), position),
        r=r,
        backwards=backwards,
        entering=entering,
        hidden=hidden,
        cells=cells,
        sums=into,
        gates=gates,
        activations=(*own[:1] * of_f, *own[1:]),
        functions=(*functions[:1] * of_f, *functions[1:]),
        inner=inner,
        running=None if lengths is None else running(b, x, lengths),
        hidden_size=n,
    )


@dataclasses.dataclass(frozen=True)
class _AllSteps:
    """Writes the gates of one direction at all steps at once, from the states before each.

    Attributes:
        b: where the nodes go.
        hidden: the number of units.
        turned: the recurrence weights, `[hidden, gates*hidden]`.
        names: of the activations, in the operator's order.
        functions: write these.
    """

    b: Builder
    hidden: int
    turned: ir.Value
    names: Sequence[str]
    functions: Sequence[Callable[[Builder, ir.Value], ir.Value]]

    def gru(
        self, entering: ir.Value, sums: ir.Value, of_state: ir.Value | None, *, reset_after: bool
    ) -> tuple[tuple[ir.Value, ...], tuple[ir.Value, ...], ir.Value | None]:
        """Writes what goes into z, r and the candidate, these, and `Unrolled.inner`.

        Args:
            entering: the hidden state before each step, `[time, batch, hidden]`.
            sums: what the input adds, `[time, batch, gates*hidden]`.
            of_state: the bias of the product with the state, where `sums` are without it.
            reset_after: whether the reset gate stands behind the product.
        """
        b = self.b
        of_gates = self._product(entering, 0, 3 if reset_after else 2)
        of_gates = of_gates if of_state is None else b.add(of_gates, of_state)
        to_z, to_r = (b.add(self._part(sums, k), self._part(of_gates, k)) for k in (0, 1))
        reset = self._active(0, to_r)
        if reset_after:
            inner = self._part(of_gates, 2)
            through = b.mul(reset, inner)
        else:
            inner, through = None, self._product(b.mul(reset, entering), 2, 3)
        to_h = b.add(self._part(sums, 2), through)
        gates = (self._active(0, to_z), reset, self._active(1, to_h))
        return (to_z, to_r, to_h), gates, inner

    def lstm_or_rnn(
        self, entering: ir.Value, sums: ir.Value, count: int
    ) -> tuple[tuple[ir.Value, ...], tuple[ir.Value, ...]]:
        """Writes what goes into the `count` gates, and these; see `gru`."""
        total = self.b.add(sums, self._product(entering, 0, count))
        into = tuple(self._part(total, k) for k in range(count))
        # The last of an LSTM is the candidate.
        return into, tuple(self._active(int(k == 3), value) for k, value in enumerate(into))

    def _product(self, state: ir.Value, start: int, stop: int) -> ir.Value:
        n = self.hidden
        columns = self.b.slice(self.turned, 1, start * n, stop * n)
        shape = [*dims_of(state)[:2], (stop - start) * n]
        return self.b.op("MatMul", state, columns, shape=shape)

    def _part(self, value: ir.Value, gate: int) -> ir.Value:
        return self.b.slice(value, 2, gate * self.hidden, (gate + 1) * self.hidden)

    def _active(self, position: int, value: ir.Value) -> ir.Value:
        """Writes the activation at a position of the operator's list.

        A gate that is next to closed is a small number, of which onnxruntime's Sigmoid, made for
        the absolute error, has no digit; shares of a sum divide by such.
        """
        b = self.b
        if self.names[position].lower() == "sigmoid":
            return b.div(1.0, b.add(b.elementwise("Exp", b.neg(value)), 1.0))
        return self.functions[position](b, value)


def _hidden_states(b: Builder, node: ir.Node, position: int) -> ir.Value:
    """Writes the hidden states of one direction, `[time, batch, hidden]`, from the operator's Y.

    Y is 0 beyond the end of a sequence, where a state is the last one, or of a direction that
    starts there the one that it starts with. A sequence without steps leaves its state as it is.
    """
    x, r = required(node, 0), dims_of(required(node, 2))
    hidden, count = r[-1], len(directions_of(node))
    time, batch = dims_of(time_first(b, node))[:2]
    whole: Sequence[Dim] = (time, count, batch, hidden)
    last: Sequence[Dim] = (count, batch, hidden)
    if is_batch_first(node):
        whole, last = (batch, time, count, hidden), (batch, count, hidden)
    y = b.output(node, 0, whole, dtype_of(x))
    if is_batch_first(node):
        y = b.transpose(y, [1, 2, 0, 3])
    of_direction = b.squeeze(b.slice(y, 1, position, position + 1), [1])
    lengths = optional(node, 4)
    if lengths is None:
        return of_direction
    series = time_first(b, node)
    kept = initial_state(b, node, optional(node, 5), series, position, units_of(node))
    if not directions_of(node)[position]:
        final = b.output(node, 1, last, dtype_of(x))
        if is_batch_first(node):
            final = b.transpose(final, [1, 0, 2])
        zero = b.const(0, lengths.dtype)
        has_steps = b.unsqueeze(b.elementwise("Greater", lengths, zero), [1])
        kept = b.where(has_steps, entry_of(b, final, position), kept)
    return b.where(running(b, series, lengths), of_direction, b.unsqueeze(kept, [0]))


def _at_all_steps(
    b: Builder, node: ir.Node, position: int, hidden: ir.Value, *, cells: bool
) -> dict[str, ir.Value]:
    """Writes gates, and cell states, of one direction at all steps at once: no cell runs again.

    The states before each step are known, and so are the gates of it, by one product for all
    steps. What is left of a cell state, `c = f * c + i * g`, is a loop without a product.
    """
    backwards = directions_of(node)[position]
    x = time_first(b, node)
    first = initial_state(b, node, optional(node, 5), x, position, units_of(node))
    entering = _entering(b, hidden, first, backwards)
    sums, of_state = sums_of_input(b, node, x, position)
    units = units_of(node)
    rows = [b.reshape(v, [-1, w]) for v, w in ((sums, width_of(node)), (entering, units))]
    cell = cell_of(b, node, position, of_state)
    unknown = b.zeros_like(rows[1])  # no gate reads a cell state
    CELLS[node.op_type](cell, rows[0], [rows[1], unknown][: 2 if node.op_type == "LSTM" else 1])
    gates = {name: b.reshape_like(value, hidden) for name, value in cell.gates.items()}
    if not cells:
        return gates
    added = b.mul(gates["/input_gate"], gates["/candidate"])
    return gates | {":1": _cell_states(b, node, position, gates["/forget_gate"], added)}


def _cell_states(
    b: Builder, node: ir.Node, position: int, keeping: ir.Value, adding: ir.Value
) -> ir.Value:
    """Writes `c = keeping * c + adding` over the steps of one direction of an LSTM."""
    x, backwards = time_first(b, node), directions_of(node)[position]
    loop = StepWriter(b)
    c = loop.carry(initial_state(b, node, optional(node, 6), x, position, units_of(node)))
    kept, added = (loop.read(value, backwards=backwards) for value in (keeping, adding))
    after = loop.body.add(loop.body.mul(kept, c), added)
    lengths = optional(node, 4)
    if lengths is not None:
        goes_on = loop.read(running(b, x, lengths), backwards=backwards)
        after = loop.body.where(goes_on, after, c)
    (over_time,) = loop.finish([after], [Collected(after, backwards)])[1]
    return over_time


def _entering(b: Builder, states: ir.Value, first: ir.Value, backwards: bool) -> ir.Value:
    """Returns the states before each step, `[time, batch, hidden]`."""
    start, rest = b.unsqueeze(first, [0]), [None, *dims_of(states)[1:]]
    ends = (1, _FAR) if backwards else (0, -1)
    others = b.op("Slice", states, *(b.ints(n) for n in (*ends, 0)), shape=rest)
    order = (others, start) if backwards else (start, others)
    return b.op("Concat", *order, shape=states, axis=0)
