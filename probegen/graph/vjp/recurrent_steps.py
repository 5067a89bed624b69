"""LSTM, GRU and RNN in every form that ONNX has, step by step: a Scan of their equations.

`probegen.graph.vjp.recurrent` has a faster gradient for their usual form. This one is for the
rest: gradients of weights, peepholes, sequence lengths, clipped and unusual activations, coupled
gates, the batch first. Names are those of the specification: X `[time, batch, input]`,
W `[directions, gates*hidden, input]`, R `[directions, gates*hidden, hidden]`, B `[directions,
2*gates*hidden]`, P `[directions, 3*hidden]`, states `[directions, batch, hidden]`.

A sequence that is shorter than the others keeps its state in the steps beyond its end, and its
outputs there are 0. As onnxruntime has it, `clip` bounds what goes into the activations of the
gates, not what goes into that of the cell state.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from probegen.graph.autodiff import Refused
from probegen.graph.core.builder import Builder
from probegen.graph.core.marks import nudge_of
from probegen.graph.core.values import Dim, attribute, dims_of, dtype_of
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.step_writer import StepWriter
from probegen.graph.vjp.common import optional, required

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_BACKWARDS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
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


def forward(b: Builder, node: ir.Node) -> list[ir.Value]:
    """Writes Y, Y_h and for LSTM Y_c of a node."""
    x = _time_first(b, node)
    parts = [_direction(b, node, x, position) for position in range(len(directions_of(node)))]
    outputs = [b.concat([b.unsqueeze(p[0], [1]) for p in parts], axis=1)]
    for state in range(1, len(parts[0])):
        outputs.append(b.concat([b.unsqueeze(p[state], [0]) for p in parts], axis=0))
    if _is_batch_first(node):
        outputs = [b.transpose(outputs[0], [2, 0, 1, 3])] + [
            b.transpose(state, [1, 0, 2]) for state in outputs[1:]
        ]
    return outputs


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
        steps = _steps(b, node, _time_first(b, node), position)
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
    kind, n, x = node.op_type, _units(node), required(node, 0)
    backwards, lengths = directions_of(node)[position], optional(node, 4)
    hidden = _hidden_states(b, node, position)
    first = [_initial(b, node, optional(node, i), x, position, n) for i in (5, 6)]
    entering = _entering(b, hidden, first[0], backwards)
    sums, of_state = _sums(b, node, x, position)
    r = _entry(b, required(node, 2), position)
    usual = DEFAULT_ACTIVATIONS[kind]
    names = [str(a) for a in attribute(node, "activations") or usual * len(directions_of(node))]
    own = names[position * len(usual) : (position + 1) * len(usual)]
    functions = tuple(_activations(node, position))
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
        w=_entry(b, required(node, 1), position),
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
    time, batch = dims_of(_time_first(b, node))[:2]
    whole: Sequence[Dim] = (time, count, batch, hidden)
    last: Sequence[Dim] = (count, batch, hidden)
    if _is_batch_first(node):
        whole, last = (batch, time, count, hidden), (batch, count, hidden)
    y = b.output(node, 0, whole, dtype_of(x))
    if _is_batch_first(node):
        y = b.transpose(y, [1, 2, 0, 3])
    of_direction = b.squeeze(b.slice(y, 1, position, position + 1), [1])
    lengths = optional(node, 4)
    if lengths is None:
        return of_direction
    series = _time_first(b, node)
    kept = _initial(b, node, optional(node, 5), series, position, _units(node))
    if not directions_of(node)[position]:
        final = b.output(node, 1, last, dtype_of(x))
        if _is_batch_first(node):
            final = b.transpose(final, [1, 0, 2])
        zero = b.const(0, lengths.dtype)
        has_steps = b.unsqueeze(b.elementwise("Greater", lengths, zero), [1])
        kept = b.where(has_steps, _entry(b, final, position), kept)
    return b.where(running(b, series, lengths), of_direction, b.unsqueeze(kept, [0]))


def _at_all_steps(
    b: Builder, node: ir.Node, position: int, hidden: ir.Value, *, cells: bool
) -> dict[str, ir.Value]:
    """Writes gates, and cell states, of one direction at all steps at once: no cell runs again.

    The states before each step are known, and so are the gates of it, by one product for all
    steps. What is left of a cell state, `c = f * c + i * g`, is a loop without a product.
    """
    backwards = directions_of(node)[position]
    x = _time_first(b, node)
    first = _initial(b, node, optional(node, 5), x, position, _units(node))
    entering = _entering(b, hidden, first, backwards)
    sums, of_state = _sums(b, node, x, position)
    units = _units(node)
    rows = [b.reshape(v, [-1, w]) for v, w in ((sums, _width(node)), (entering, units))]
    cell = _cell(b, node, position, of_state)
    unknown = b.zeros_like(rows[1])  # no gate reads a cell state
    _CELLS[node.op_type](cell, rows[0], [rows[1], unknown][: 2 if node.op_type == "LSTM" else 1])
    gates = {name: b.reshape_like(value, hidden) for name, value in cell.gates.items()}
    if not cells:
        return gates
    added = b.mul(gates["/input_gate"], gates["/candidate"])
    return gates | {":1": _cell_states(b, node, position, gates["/forget_gate"], added)}


def _cell_states(
    b: Builder, node: ir.Node, position: int, keeping: ir.Value, adding: ir.Value
) -> ir.Value:
    """Writes `c = keeping * c + adding` over the steps of one direction of an LSTM."""
    x, backwards = _time_first(b, node), directions_of(node)[position]
    loop = StepWriter(b)
    c = loop.carry(_initial(b, node, optional(node, 6), x, position, _units(node)))
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


#: Behind the end of every axis.
_FAR = 2**31 - 1


def _units(node: ir.Node) -> int:
    """Returns the number of units.

    Raises:
        Refused: it is not known.
    """
    units = dims_of(required(node, 2))[-1]
    if not isinstance(units, int):
        raise Refused("the sizes of its weights are unknown")
    return units


def _width(node: ir.Node) -> int:
    return GATES[node.op_type] * _units(node)


def directions_of(node: ir.Node) -> tuple[bool, ...]:
    """Tells of each direction of a node whether it starts with the last step."""
    return _BACKWARDS[attribute(node, "direction", "forward")]


def _is_batch_first(node: ir.Node) -> bool:
    return bool(attribute(node, "layout", 0))


def _time_first(b: Builder, node: ir.Node) -> ir.Value:
    """Returns X as `[time, batch, input]`."""
    x = required(node, 0)
    return b.transpose(x, [1, 0, 2]) if _is_batch_first(node) else x


def _direction(b: Builder, node: ir.Node, x: ir.Value, position: int) -> list[ir.Value]:
    """Writes one direction: Y `[time, batch, hidden]` and the last states `[batch, hidden]`."""
    steps = _steps(b, node, x, position)
    finals, (y,) = steps.loop.finish(steps.after, [Collected(steps.visible, steps.backwards)])
    return [y, *finals]


@dataclasses.dataclass(frozen=True)
class _Steps:
    """One direction of a node, as a loop that is not finished.

    Attributes:
        loop: the loop.
        backwards: True where it starts with the last step.
        after: the states after a step.
        visible: what a step adds to Y.
        gates: the gates of a step, by `GATE_NAMES`.
    """

    loop: StepWriter
    backwards: bool
    after: Sequence[ir.Value]
    visible: ir.Value
    gates: Mapping[str, ir.Value]


def _steps(b: Builder, node: ir.Node, x: ir.Value, position: int) -> _Steps:
    """Opens the loop of one direction."""
    kind, backwards = node.op_type, directions_of(node)[position]
    hidden = _units(node)
    sums, of_state = _sums(b, node, x, position)
    loop = StepWriter(b)
    names = (5, 6) if kind == "LSTM" else (5,)
    states = [loop.carry(_initial(b, node, optional(node, i), x, position, hidden)) for i in names]
    cell = _cell(b, node, position, of_state, loop.body)
    after = list(_CELLS[kind](cell, loop.read(sums, backwards=backwards), states))
    nudge = nudge_of(node, position)
    if nudge is not None:
        after[0] = loop.body.add(after[0], loop.read(nudge, backwards=backwards))
    visible = after[0]
    lengths = optional(node, 4)
    if lengths is not None:
        goes_on = loop.read(running(b, x, lengths), backwards=backwards)
        visible = loop.body.where(goes_on, after[0], 0.0)
        pairs = zip(after, states, strict=True)
        after = [loop.body.where(goes_on, new, old) for new, old in pairs]
    return _Steps(loop, backwards, after, visible, cell.gates)


def _sums(
    b: Builder, node: ir.Node, x: ir.Value, position: int
) -> tuple[ir.Value, ir.Value | None]:
    """Writes what the input adds to all gates, `[time, batch, gates*hidden]`, with the biases.

    Returns:
        The sums, and the bias of the product with the state where it is not in them.
    """
    width = _width(node)
    w = b.transpose(_entry(b, required(node, 1), position), [1, 0])
    sums = b.op("MatMul", x, w, shape=[*dims_of(x)[:2], width], dtype=x.dtype)
    bias = optional(node, 3)
    if bias is None:
        return sums, None
    both = _entry(b, bias, position)
    sums = b.add(sums, b.slice(both, 0, 0, width))
    of_state = b.slice(both, 0, width, 2 * width)
    if node.op_type == "GRU" and attribute(node, "linear_before_reset", 0):
        return sums, of_state
    return b.add(sums, of_state), None


def _cell(
    b: Builder,
    node: ir.Node,
    position: int,
    of_state: ir.Value | None,
    body: Builder | None = None,
) -> _Cell:
    """Returns what steps of one direction are written from: in a body, or all at once."""
    hidden = _units(node)
    return _Cell(
        b=body or b,
        node=node,
        hidden=hidden,
        turned=b.transpose(_entry(b, required(node, 2), position), [1, 0]),
        of_state=of_state,
        peepholes=_peepholes(b, node, position, hidden),
        activations=_activations(node, position),
    )


def _entry(b: Builder, value: ir.Value, position: int) -> ir.Value:
    """Returns one entry of the first axis."""
    index = b.const(position, ir.DataType.INT64)
    return b.op("Gather", value, index, shape=dims_of(value)[1:], axis=0)


def _initial(
    b: Builder, node: ir.Node, value: ir.Value | None, x: ir.Value, position: int, hidden: int
) -> ir.Value:
    """Returns the state `[batch, hidden]` that a direction starts with."""
    if value is None:
        return b.zeros([(x, 1), hidden], dtype_of(x))
    return _entry(b, b.transpose(value, [1, 0, 2]) if _is_batch_first(node) else value, position)


def running(b: Builder, x: ir.Value, lengths: ir.Value) -> ir.Value:
    """Returns where a sequence has not ended yet, `[time, batch, 1]`."""
    steps = b.count_up(b.size(x, 0), dims_of(x)[0])
    column = b.unsqueeze(steps, [1])
    before_end = b.elementwise("Less", column, b.cast(lengths, ir.DataType.INT64))
    return b.unsqueeze(before_end, [2])


def _peepholes(b: Builder, node: ir.Node, position: int, hidden: int) -> list[ir.Value]:
    """Returns the weights from the cell state to the gates i, o, f; none where there are none."""
    value = optional(node, 7)
    if value is None or node.op_type != "LSTM":
        return []
    row = _entry(b, value, position)
    return [b.slice(row, 0, k * hidden, (k + 1) * hidden) for k in range(3)]


# -- cells -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Cell:
    """What one step is written from.

    Attributes:
        b: writes into the body of the loop.
        node: the forward node.
        hidden: number of units.
        turned: the recurrence weights of one direction, `[hidden, gates*hidden]`.
        of_state: the bias of the product with the state, where it is not in the sums already.
        peepholes: see `_peepholes`.
        activations: the functions f, g and h of the specification, as many as there are.
        gates: noted as they are written, by `GATE_NAMES`.
    """

    b: Builder
    node: ir.Node
    hidden: int
    turned: ir.Value
    of_state: ir.Value | None
    peepholes: Sequence[ir.Value]
    activations: Sequence[Callable[[Builder, ir.Value], ir.Value]]
    gates: dict[str, ir.Value] = dataclasses.field(default_factory=dict)

    def product(self, state: ir.Value) -> ir.Value:
        """Returns what the state adds to all gates, `[batch, gates*hidden]`."""
        b, width = self.b, dims_of(self.turned)[1]
        return b.op("MatMul", state, self.turned, shape=[dims_of(state)[0], width])

    def gate(self, sums: ir.Value, position: int) -> ir.Value:
        """Returns one gate's part of what goes into all gates."""
        return self.b.slice(sums, 1, position * self.hidden, (position + 1) * self.hidden)

    def activate(self, position: int, sums: ir.Value, *, clipped: bool = True) -> ir.Value:
        """Returns an activation of what goes into it, bounded first where the node says so."""
        clip = attribute(self.node, "clip")
        if clipped and clip:
            low, high = (self.b.scalar(s * float(clip), sums) for s in (-1, 1))
            sums = self.b.op("Clip", sums, low, high, shape=sums)
        return self.activations[position](self.b, sums)


def _lstm(cell: _Cell, sums: ir.Value, states: Sequence[ir.Value]) -> list[ir.Value]:
    b, (h, c) = cell.b, states
    total = b.add(sums, cell.product(h))
    i, o, f, g = (cell.gate(total, k) for k in range(4))
    if cell.peepholes:
        i, f = b.add(i, b.mul(cell.peepholes[0], c)), b.add(f, b.mul(cell.peepholes[2], c))
    entry = cell.activate(0, i)
    coupled = bool(attribute(cell.node, "input_forget", 0))
    kept = b.sub(1.0, entry) if coupled else cell.activate(0, f)
    candidate = cell.activate(1, g)
    c = b.add(b.mul(kept, c), b.mul(entry, candidate))
    if cell.peepholes:
        o = b.add(o, b.mul(cell.peepholes[1], c))
    shown = cell.activate(0, o)
    cell.gates.update(zip(GATE_NAMES["LSTM"], (entry, kept, candidate, shown), strict=True))
    return [b.mul(shown, cell.activate(2, c, clipped=False)), c]


def _gru(cell: _Cell, sums: ir.Value, states: Sequence[ir.Value]) -> list[ir.Value]:
    b, n, (h,) = cell.b, cell.hidden, states
    if attribute(cell.node, "linear_before_reset", 0):
        product = cell.product(h)
        if cell.of_state is not None:
            product = b.add(product, cell.of_state)
        z, r = (cell.activate(0, b.add(cell.gate(sums, k), cell.gate(product, k))) for k in (0, 1))
        inside = b.mul(r, cell.gate(product, 2))
    else:
        turned = b.slice(cell.turned, 1, 0, 2 * n), b.slice(cell.turned, 1, 2 * n, 3 * n)
        shape = [dims_of(h)[0], 2 * n]
        product = b.op("MatMul", h, turned[0], shape=shape)
        z, r = (cell.activate(0, b.add(cell.gate(sums, k), cell.gate(product, k))) for k in (0, 1))
        inside = b.op("MatMul", b.mul(r, h), turned[1], shape=[shape[0], n])
    candidate = cell.activate(1, b.add(cell.gate(sums, 2), inside))
    cell.gates.update(zip(GATE_NAMES["GRU"], (z, r, candidate), strict=True))
    return [b.add(b.mul(b.sub(1.0, z), candidate), b.mul(z, h))]


def _rnn(cell: _Cell, sums: ir.Value, states: Sequence[ir.Value]) -> list[ir.Value]:
    return [cell.activate(0, cell.b.add(sums, cell.product(states[0])))]


_CELLS: Mapping[str, Callable[[_Cell, ir.Value, Sequence[ir.Value]], list[ir.Value]]] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "RNN": _rnn,
}


# -- activations -----------------------------------------------------------------------------


def _activations(node: ir.Node, position: int) -> Sequence[Callable[[Builder, ir.Value], ir.Value]]:
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
