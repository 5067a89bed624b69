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
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.marks import nudge_of
from probegen.graph.core.values import attribute, dims_of
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.step_writer import StepWriter
from probegen.graph.vjp.common import optional, required
from probegen.graph.vjp.recurrent_operands import (
    GATE_NAMES,
    activations_of,
    directions_of,
    entry_of,
    initial_state,
    is_batch_first,
    running,
    sums_of_input,
    time_first,
    units_of,
)


def forward(b: Builder, node: ir.Node) -> list[ir.Value]:
    """Writes Y, Y_h and for LSTM Y_c of a node."""
    x = time_first(b, node)
    parts = [_direction(b, node, x, position) for position in range(len(directions_of(node)))]
    outputs = [b.concat([b.unsqueeze(p[0], [1]) for p in parts], axis=1)]
    for state in range(1, len(parts[0])):
        outputs.append(b.concat([b.unsqueeze(p[state], [0]) for p in parts], axis=0))
    if is_batch_first(node):
        outputs = [b.transpose(outputs[0], [2, 0, 1, 3])] + [
            b.transpose(state, [1, 0, 2]) for state in outputs[1:]
        ]
    return outputs


def _direction(b: Builder, node: ir.Node, x: ir.Value, position: int) -> list[ir.Value]:
    """Writes one direction: Y `[time, batch, hidden]` and the last states `[batch, hidden]`."""
    steps = steps_of(b, node, x, position)
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


def steps_of(b: Builder, node: ir.Node, x: ir.Value, position: int) -> _Steps:
    """Opens the loop of one direction."""
    kind, backwards = node.op_type, directions_of(node)[position]
    hidden = units_of(node)
    sums, of_state = sums_of_input(b, node, x, position)
    loop = StepWriter(b)
    names = (5, 6) if kind == "LSTM" else (5,)
    states = [
        loop.carry(initial_state(b, node, optional(node, i), x, position, hidden)) for i in names
    ]
    cell = cell_of(b, node, position, of_state, loop.body)
    after = list(CELLS[kind](cell, loop.read(sums, backwards=backwards), states))
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


def cell_of(
    b: Builder, node: ir.Node, position: int, of_state: ir.Value | None, body: Builder | None = None
) -> Cell:
    """Returns what steps of one direction are written from: in a body, or all at once."""
    hidden = units_of(node)
    return Cell(
        b=body or b,
        node=node,
        hidden=hidden,
        turned=b.transpose(entry_of(b, required(node, 2), position), [1, 0]),
        of_state=of_state,
        peepholes=_peepholes(b, node, position, hidden),
        activations=activations_of(node, position),
    )


def _peepholes(b: Builder, node: ir.Node, position: int, hidden: int) -> list[ir.Value]:
    """Returns the weights from the cell state to the gates i, o, f; none where there are none."""
    value = optional(node, 7)
    if value is None or node.op_type != "LSTM":
        return []
    row = entry_of(b, value, position)
    return [b.slice(row, 0, k * hidden, (k + 1) * hidden) for k in range(3)]


# -- cells -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Cell:
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


def _lstm(cell: Cell, sums: ir.Value, states: Sequence[ir.Value]) -> list[ir.Value]:
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


def _gru(cell: Cell, sums: ir.Value, states: Sequence[ir.Value]) -> list[ir.Value]:
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


def _rnn(cell: Cell, sums: ir.Value, states: Sequence[ir.Value]) -> list[ir.Value]:
    return [cell.activate(0, cell.b.add(sums, cell.product(states[0])))]


CELLS: Mapping[str, Callable[[Cell, ir.Value, Sequence[ir.Value]], list[ir.Value]]] = {
    "LSTM": _lstm,
    "GRU": _gru,
    "RNN": _rnn,
}
