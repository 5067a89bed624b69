"""Gradients of the fused recurrent operators in their usual form: LSTM, GRU and RNN.

Other forms (gradients of weights, peepholes, clipping, other activations) go step by step, as
`probegen.graph.vjp.recurrent_steps` writes them.

The forward output Y holds the hidden state after every step, so everything that depends on
hidden states alone (gates, activations and their slopes) is computed for a block of steps at once.
Step by step remain, for LSTM, the cell state (a product and a sum) and, for all three, the
product of the gradient with the recurrence weights, walked against the direction of the
layer; both directions of a bidirectional layer share one `Scan`, whose turn takes a block.

Blocks are filled up with zeros at the end where the layer starts. A walk against its direction
comes there last, and the gradients of initial states are those before the first step that is real.
The cell states of LSTM are run in its direction, and pass what fills up unchanged.

Where a sequence is shorter than the others (`sequence_lens`), the steps beyond its end change no
state: gradients of states pass them unchanged, and their outputs have none.

Shapes are those of the ONNX specification with `layout=0`: X `[time, batch, input]`,
W `[directions, gates*hidden, input]`, R `[directions, gates*hidden, hidden]`,
B `[directions, 2*gates*hidden]`, Y `[time, directions, batch, hidden]`, initial and final
states `[directions, batch, hidden]`. Values of one direction have no such axis; of a block they
are `[steps*batch, width]`. Equations and names of the gates are those of the operators'
specification.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from probegen.graph.autodiff import Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.marks import nudge_of
from probegen.graph.core.values import Dim, attribute, dims_of, dtype_of, shape_of, static_shape
from probegen.graph.loops.block_writer import BlockWriter
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.step_writer import shift_by_one_step
from probegen.graph.vjp.common import Dys, optional, required
from probegen.graph.vjp.decomposition import through
from probegen.graph.vjp.masks import above
from probegen.graph.vjp.recurrent_steps import (
    DEFAULT_ACTIVATIONS,
    GATES,
    directions_of,
    forward,
    running,
)
from probegen.graph.vjp.saturating import sigmoid_and_rest, slope_of_sigmoid, slope_of_tanh

_STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}
#: Steps in a block. More make fewer turns, and more nodes; what LSTM keeps of a longer block would
#: not stay in a processor's cache.
_STEPS, _STEPS_LSTM = 16, 8
#: Steps over which gradients may fade before what is tiny becomes zero.
_FADING = 8
#: Activation -> what writes its derivative.
_SLOPES: Mapping[str, Callable[[Builder, ir.Value], ir.Value]] = {
    "Sigmoid": slope_of_sigmoid,
    "Tanh": slope_of_tanh,
    "Relu": functools.partial(above, bound=0.0),
}

#: Activations that are 0 at 0.
_ZERO_AT_ZERO = ("Tanh", "Relu")

#: Positions of the inputs; the initial cell state follows the initial hidden state.
_X, _W, _R, _B, _LENGTHS, _INITIAL, _PEEPHOLES = 0, 1, 2, 3, 4, 5, 7

_Pairs = Iterator[tuple[ir.Value, ir.Value]]


def lstm(walk: Walk, node: ir.Node, outputs: Dys) -> _Pairs:
    """Gradient of LSTM with respect to X, initial_h and initial_c.

    C being the cell state, and going against the layer's direction: dH = dY + dGates R,
    dC = dC f + dH o h'(C), and dGates is (dC, dH, dC, dC) times a factor that is known
    beforehand.
    """
    builder, directions = walk.builder, _read(walk, node, outputs)
    known = _lstm_factors(builder, directions)
    loop = BlockWriter(builder, directions[0].x, _STEPS_LSTM)
    result = _Result(loop, walk, node)
    for d, factors in zip(directions, known, strict=True):
        part = _Part(loop, d, against=True)
        body, wide = loop.body, [d.batch, 4 * d.hidden]
        factor, into_cell, kept = (part.each(part.read(v)) for v in factors)
        passing = part.passing()
        dys = part.dys()
        d_h, cell_later = (loop.carry(g) for g in d.from_final)
        d_h = part.plus(d_h, dys[0])
        d_gates: list[ir.Value] = []
        run: list[ir.Value] = []
        d_before: list[ir.Value] = []
        d_cell_before: list[ir.Value] = []
        for k in range(loop.steps):
            run.append(d_h)
            of_cell = body.op("Mul", d_h, into_cell[k], shape=d_h)
            d_c = body.op("Add", of_cell, cell_later, shape=d_h)
            spread = body.op("Concat", d_c, d_h, d_c, d_c, axis=-1, shape=wide)
            d_gates.append(body.op("Mul", spread, factor[k], shape=wide))
            d_cell_before.append(body.op("Mul", d_c, kept[k], shape=d_h))
            cell_later = part.onward(d_cell_before[k], k)
            d_before.append(part.times(d_gates[k], d.r, part.scaled(d_h, passing[k])))
            d_h = part.onward(part.plus(d_before[k], dys[k + 1]), k)
        result.add(part, part.join(d_gates), run, [d_before, d_cell_before], [d_h, cell_later])
    yield from result.pairs()


def gru(walk: Walk, node: ir.Node, outputs: Dys) -> _Pairs:
    """Gradient of GRU with respect to X and initial_h, for both places of the reset gate.

    With H' the state before a step and h the candidate, H = (1 - z) h + z H', so that
    dz = dH (H' - h) and dh = dH (1 - z); where the reset gate r stands between H' and h is
    told by `linear_before_reset`.
    """
    builder, directions = walk.builder, _read(walk, node, outputs)
    loop = BlockWriter(builder, directions[0].x, _STEPS)
    result = _Result(loop, walk, node)
    run = _reset_after if attribute(node, "linear_before_reset", 0) else _reset_before
    for d in directions:
        part = _Part(loop, d, against=True)
        d_gates, d_hidden, d_before, d_h = run(part)
        result.add(part, d_gates, d_hidden, [d_before], [d_h])
    yield from result.pairs()


def rnn(walk: Walk, node: ir.Node, outputs: Dys) -> _Pairs:
    """Gradient of RNN with respect to X and initial_h: dH' = (dH f'(H)) R, plus dY.

    The slope f' is taken from the states: what they are taken of would be a product more, a fifth
    of the pass. It is off by a rounding of 1, which counts where all states are saturated alone.
    """
    builder, directions = walk.builder, _read(walk, node, outputs)
    loop = BlockWriter(builder, directions[0].x, _STEPS)
    result = _Result(loop, walk, node)
    for d in directions:
        part = _Part(loop, d, against=True)
        by_result = part.slope_by_result(0, part.read(part.blocks(d.y)))
        slope = part.each(part.where_running(by_result))
        passing = part.passing()
        dys = part.dys()
        d_h = part.plus(loop.carry(d.from_final[0]), dys[0])
        d_gates: list[ir.Value] = []
        d_hidden: list[ir.Value] = []
        d_before: list[ir.Value] = []
        for k in range(loop.steps):
            d_hidden.append(d_h)
            d_gates.append(loop.body.op("Mul", d_h, slope[k], shape=d_h))
            d_before.append(part.times(d_gates[k], d.r, part.scaled(d_h, passing[k])))
            d_h = part.onward(part.plus(d_before[k], dys[k + 1]), k)
        result.add(part, part.join(d_gates), d_hidden, [d_before], [d_h])
    yield from result.pairs()


def _is_usual(walk: Walk, node: ir.Node) -> bool:
    """Tells whether a node has the form that the rules of this file are for."""
    weights = (_W, _R, _B)
    named = attribute(node, "activations") or ()
    return not (
        any(optional(node, k) in walk.wanted for k in weights)
        or optional(node, _PEEPHOLES) is not None
        or attribute(node, "clip") is not None
        or attribute(node, "input_forget", 0)
        or attribute(node, "layout", 0)
        or any(name not in _SLOPES for name in named)
        or any(static_shape(required(node, k)) is None for k in (_W, _R))
    )


def _usual_or_general(usual: Rule) -> Rule:
    """Returns a rule that takes nodes of other than the usual form step by step."""

    def rule(walk: Walk, node: ir.Node, outputs: Dys) -> _Pairs:
        if _is_usual(walk, node):
            yield from usual(walk, node, outputs)
        else:
            yield from through(walk, node, outputs, forward)

    return rule


RULES: dict[str, Rule] = {
    "LSTM": _usual_or_general(lstm),
    "GRU": _usual_or_general(gru),
    "RNN": _usual_or_general(rnn),
}


@dataclasses.dataclass(frozen=True)
class _Direction:
    """One direction of a layer: its operands, and writers of values of their shapes.

    Attributes:
        builder: writes what is computed for all steps at once.
        backwards: True where the layer starts with the last step.
        activations: names of the activation functions, in the operator's order.
        time, batch, hidden: sizes, as far as known.
        x: `[time, batch, input]`.
        w: `[gates*hidden, input]`.
        r: `[gates*hidden, hidden]`.
        bias: of the input and of the recurrent product, `[gates*hidden]` each, or None.
        y: hidden state after each step, `[time, batch, hidden]`.
        initial: hidden state before the first step and, for LSTM, cell state,
            `[batch, hidden]` each.
        dy: gradient of `y`, or None.
        from_final: gradients of the states after the last step, zeros where there is none.
        running: which steps are not beyond the end of their sequence, bool `[time, batch, 1]`;
            None where all are as long.
    """

    builder: Builder
    backwards: bool
    activations: tuple[str, ...]
    time: Dim
    batch: Dim
    hidden: int
    x: ir.Value
    w: ir.Value
    r: ir.Value
    bias: tuple[ir.Value, ir.Value] | None
    y: ir.Value
    initial: tuple[ir.Value, ...]
    dy: ir.Value | None
    from_final: tuple[ir.Value, ...]
    running: ir.Value | None

    def seen(self) -> ir.Value:
        """Returns x, ones, and the states before: `[time, batch, input + 1 + hidden]`.

        Beyond the end of a sequence there are zeros in the place of ones.
        """
        builder, y = self.builder, self.y
        if self.running is None:
            zeros = builder.zeros([(self.x, 0), (self.x, 1), 1], dtype_of(self.x))
            ones = builder.add(zeros, 1.0)
        else:
            ones = builder.cast(self.running, dtype_of(self.x))
            y = builder.where(self.running, y, builder.unsqueeze(self.initial[0], [0]))
        before = shift_by_one_step(builder, y, self.initial[0], self.backwards)
        return builder.op(
            "Concat", self.x, ones, before, axis=-1, shape=[self.time, self.batch, self.seen_width]
        )

    @property
    def seen_width(self) -> int:
        """Width of what `seen` returns."""
        return self.input + 1 + self.hidden

    @property
    def input(self) -> int:
        """Width of x."""
        return _size(self.w, 1)


@dataclasses.dataclass(frozen=True)
class _Part:
    """One direction of a layer in a loop over blocks; writes into the body of the loop.

    Attributes:
        loop: the loop.
        d: the direction.
        against: True where the loop runs against the layer's direction.
    """

    loop: BlockWriter
    d: _Direction
    against: bool

    @property
    def backwards(self) -> bool:
        """True where the loop runs from the last step to the first."""
        return self.against != self.d.backwards

    def blocks(self, sequence: ir.Value, width: int | None = None) -> ir.Value:
        """Returns a sequence of `width` (or hidden) columns in blocks.

        They are filled up where the layer starts.
        """
        width = width or self.d.hidden
        return self.loop.blocks(sequence, width, in_front=not self.d.backwards)

    def read_seen(self) -> ir.Value:
        """Returns a block of what `_Direction.seen` returns."""
        return self.read(self.blocks(self.d.seen(), self.d.seen_width))

    def read(self, blocks: ir.Value) -> ir.Value:
        """Returns a block."""
        return self.loop.read(blocks, backwards=self.backwards)

    @functools.cached_property
    def running(self) -> ir.Value | None:
        """A block of `_Direction.running`, `[steps*batch, 1]`."""
        if self.d.running is None:
            return None
        numbers = self.d.builder.cast(self.d.running, dtype_of(self.d.x))
        return self.loop.body.cast(self.read(self.blocks(numbers, 1)), ir.DataType.BOOL)

    def where_running(self, block: ir.Value, beyond: float = 0.0) -> ir.Value:
        """Returns a block with another value beyond the end of a sequence."""
        running = self.running
        return block if running is None else self.loop.body.where(running, block, beyond)

    def passing(self) -> list[ir.Value | None]:
        """Returns 1 for steps beyond the end of a sequence and else 0, `[batch, 1]` each.

        None each where no step is beyond the end.
        """
        if self.running is None:
            return [None] * self.loop.steps
        body = self.loop.body
        return [*self.each(body.cast(body.elementwise("Not", self.running), dtype_of(self.d.x)))]

    def scaled(self, gradient: ir.Value, factor: ir.Value | None) -> ir.Value | None:
        """Returns a gradient times a factor; None where there is no factor."""
        if factor is None:
            return None
        return self.loop.body.op("Mul", gradient, factor, shape=gradient)

    def each(self, block: ir.Value) -> list[ir.Value]:
        """Returns the steps of a block in the order of the run."""
        return self.loop.each(block, backwards=self.backwards)

    def join(self, run: Sequence[ir.Value]) -> ir.Value:
        """Returns the block of steps in the order of the run."""
        return self.loop.join(run, backwards=self.backwards)

    def op(
        self, op_type: str, *inputs: ir.Value, width: int | None = None, axis: int | None = None
    ) -> ir.Value:
        """Writes an operator over a block whose result has `width` (or hidden) columns."""
        shape = [self.loop.rows, width or self.d.hidden]
        return self.loop.body.op(op_type, *inputs, shape=shape, axis=axis)

    def split(self, value: ir.Value, *sizes: int) -> tuple[ir.Value, ...]:
        """Returns parts of the given numbers of columns."""
        return _split(self.loop.body, value, *sizes)

    def columns(self, value: ir.Value, start: int, stop: int) -> ir.Value:
        """Returns some columns. OpenVINO takes no Split of which an output is not used."""
        return self.loop.body.slice(value, 1, start, stop)

    def activate(self, position: int, value: ir.Value) -> ir.Value:
        """Writes the activation function at `position`."""
        return self.loop.body.op(self.d.activations[position], value, shape=value)

    def slopes(self, *of: tuple[int, ir.Value]) -> list[ir.Value]:
        """Writes derivatives of activation functions, all of one function in one go.

        Args:
            *of: the position of each function, and what it is taken of.
        """
        body, found = self.loop.body, dict[int, ir.Value]()
        names = [self.d.activations[position] for position, _ in of]
        for name in dict.fromkeys(names):
            at = [i for i, other in enumerate(names) if other == name]
            values = [of[i][1] for i in at]
            widths = [int(dims_of(v)[-1] or 0) for v in values]
            joined = values[0]
            if len(at) > 1:
                joined = self.op("Concat", *values, axis=-1, width=sum(widths))
            slope = _SLOPES[name](body, joined)
            parts = self.split(slope, *widths) if len(at) > 1 else [slope]
            found.update(zip(at, parts, strict=True))
        return [found[i] for i in range(len(of))]

    def slope_by_result(self, position: int, activated: ir.Value) -> ir.Value:
        """Writes the derivative of a function at a point from its value there."""
        body, name = self.loop.body, self.d.activations[position]
        if name == "Relu":
            return body.op("Sign", activated, shape=activated)
        square = body.op("Mul", activated, activated, shape=activated)
        if name == "Tanh":
            return body.op("Sub", body.scalar(1, square), square, shape=square)
        return body.op("Sub", activated, square, shape=square)

    def gates(self, value: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Writes gates, their derivative, and 1 - gates, from what gates are taken of.

        Of a sigmoid all three are exact to a rounding of themselves. The gates that the engine has
        are so to a rounding of 1: below 1e-7 they say nothing, and 1 - 1 says as little.
        """
        body, name = self.loop.body, self.d.activations[0]
        if name == "Sigmoid":
            gates, rest = sigmoid_and_rest(body, value)
            return gates, body.op("Mul", gates, rest, shape=gates), rest
        gates = self.activate(0, value)
        rest = body.op("Sub", body.scalar(1, gates), gates, shape=gates)
        return gates, _SLOPES[name](body, value), rest

    # -- step by step ------------------------------------------------------------------------

    def dys(self) -> list[ir.Value | None]:
        """Returns the gradients of `y` for the steps of a block, and None behind them."""
        if self.d.dy is None:
            return [None] * (self.loop.steps + 1)
        return [*self.each(self.read(self.blocks(self.d.dy))), None]

    def plus(self, gradient: ir.Value, dy: ir.Value | None) -> ir.Value:
        """Returns the gradient of a hidden state from all that it goes into."""
        return gradient if dy is None else self.loop.body.op("Add", gradient, dy, shape=gradient)

    def onward(self, gradient: ir.Value, k: int) -> ir.Value:
        """Returns what step k hands on: the smallest numbers become zero now and then."""
        return self.loop.without_tiny(gradient) if k % _FADING == _FADING - 1 else gradient

    def times(
        self, d_gates: ir.Value, weights: ir.Value, others: ir.Value | None = None
    ) -> ir.Value:
        """Returns the product of a step's gradient with recurrence weights, plus others."""
        shape = [self.d.batch, self.d.hidden]
        if others is None:
            return self.loop.body.op("MatMul", d_gates, weights, shape=shape)
        return self.loop.body.op("Gemm", d_gates, weights, others, shape=shape)


# -- LSTM ----------------------------------------------------------------------------------


def _lstm_factors(
    builder: Builder, directions: Sequence[_Direction]
) -> list[tuple[ir.Value, ir.Value, ir.Value]]:
    """Returns what a step's gradient is multiplied with, for each direction, in blocks.

    Runs the cell states once more: C = f C' + i c. The factors are those from (dC, dH, dC, dC) to
    the sums that enter the gates i, o, f, c; from dH to dC; and from dC to the dC of the step
    before.
    """
    loop = BlockWriter(builder, directions[0].x, _STEPS_LSTM)
    left: list[ir.Value] = []
    collected: list[Collected] = []
    for d in directions:
        part, body, n = _Part(loop, d, against=False), loop.body, d.hidden
        seen = part.read_seen()
        of_gates, of_candidate = _split(builder, _lstm_weights(d), 3 * n, n)
        for_gates = part.op("MatMul", seen, of_gates, width=3 * n)
        for_candidate = part.op("MatMul", seen, of_candidate)
        gates, slope_of_gates, _ = part.gates(for_gates)
        i, o, f = part.split(gates, n, n, n)
        c = part.activate(1, for_candidate)
        new = part.op("Mul", i, c)
        real = body.cast(part.columns(seen, d.input, d.input + 1), ir.DataType.BOOL)
        f = body.where(real, f, 1.0)
        if d.running is not None or d.activations[1] not in _ZERO_AT_ZERO:
            new = body.where(real, new, 0.0)  # rows that fill up are zeros, and their c is as well
        forget, news = part.each(f), part.each(new)
        cell = loop.carry(d.initial[1])
        run = [cell]
        for k in range(loop.steps):
            kept = body.op("Mul", run[k], forget[k], shape=cell)
            run.append(body.op("Add", kept, news[k], shape=cell))
        left.append(run[-1])
        cells = part.join(run[1:])
        squashed = part.activate(2, cells)
        before = part.join(run[:-1])
        beside = part.op("Concat", c, squashed, before, axis=-1, width=3 * n)
        slope_of_c, slope_of_cells = part.slopes((1, for_candidate), (2, cells))
        to_gates = part.op("Mul", beside, slope_of_gates, width=3 * n)
        to_candidate = part.op("Mul", i, slope_of_c)
        factor = part.op("Concat", to_gates, to_candidate, axis=-1, width=4 * n)
        to_cell = part.op("Mul", o, slope_of_cells)
        if d.running is not None:
            factor, to_cell = (body.where(real, v, 0.0) for v in (factor, to_cell))
        collected += [Collected(v, part.backwards) for v in (factor, to_cell, f)]
    stacks = iter(loop.finish(left, collected)[1])
    return list(zip(stacks, stacks, stacks, strict=True))


# -- GRU -----------------------------------------------------------------------------------


def _reset_after(part: _Part) -> tuple[ir.Value, list[ir.Value], list[ir.Value], ir.Value]:
    """Writes steps through h = g(x W + r (H' R)).

    Returns:
        The gradient of the sums that enter z, r, h, of the block; dH and dH' of each step; dH' of
        the last one with what comes from elsewhere.
    """
    d, loop, n = part.d, part.loop, part.d.hidden
    body, wide = loop.body, [part.d.batch, 3 * part.d.hidden]
    seen = part.read_seen()
    weights = _gru_weights(d, reset_after=True)
    for_gates = part.op("MatMul", seen, weights.gates, width=2 * n)
    of_input = part.op("MatMul", part.columns(seen, 0, d.input + 1), weights.of_input)
    of_state = part.op("MatMul", part.columns(seen, d.input, d.seen_width), weights.of_state)
    gates, slope_of_gates, rest = part.gates(for_gates)
    z, r = part.split(gates, n, n)
    slope_of_z, slope_of_r = part.split(slope_of_gates, n, n)
    for_h = part.op("Add", of_input, part.op("Mul", r, of_state))
    h = part.activate(1, for_h)
    (slope_of_h,) = part.slopes((1, for_h))
    before = part.columns(seen, d.input + 1, d.seen_width)
    to_z = part.op("Mul", part.op("Sub", before, h), slope_of_z)
    to_h = part.op("Mul", part.columns(rest, 0, n), slope_of_h)
    to_r = part.op("Mul", to_h, part.op("Mul", of_state, slope_of_r))
    to_state = part.op("Mul", to_h, r)
    factors = part.where_running(part.op("Concat", to_z, to_r, to_state, axis=-1, width=3 * n))
    factor, kept, dys = part.each(factors), part.each(part.where_running(z, 1.0)), part.dys()
    d_h = part.plus(loop.carry(d.from_final[0]), dys[0])
    run: list[ir.Value] = []
    d_before: list[ir.Value] = []
    for k in range(loop.steps):
        run.append(d_h)
        spread = body.op("Concat", d_h, d_h, d_h, axis=-1, shape=wide)
        direct = body.op("Mul", d_h, kept[k], shape=d_h)
        d_before.append(part.times(body.op("Mul", spread, factor[k], shape=wide), d.r, direct))
        d_h = part.onward(part.plus(d_before[k], dys[k + 1]), k)
    whole = part.join(run)
    spread = part.op("Concat", whole, whole, whole, axis=-1, width=3 * n)
    of_gates = part.where_running(part.op("Concat", to_z, to_r, to_h, axis=-1, width=3 * n))
    return part.op("Mul", spread, of_gates, width=3 * n), run, d_before, d_h


def _reset_before(part: _Part) -> tuple[ir.Value, list[ir.Value], list[ir.Value], ir.Value]:
    """Writes steps through h = g(x W + (r H') R); returns what `_reset_after` does."""
    d, loop, body, n = part.d, part.loop, part.loop.body, part.d.hidden
    seen = part.read_seen()
    weights = _gru_weights(d, reset_after=False)
    for_gates = part.op("MatMul", seen, weights.gates, width=2 * n)
    of_input = part.op("MatMul", part.columns(seen, 0, d.input + 1), weights.of_input)
    gates, slope_of_gates, rest = part.gates(for_gates)
    z, r = part.split(gates, n, n)
    slope_of_z, slope_of_r = part.split(slope_of_gates, n, n)
    before = part.columns(seen, d.input + 1, d.seen_width)
    r_gates, r_h = _split(d.builder, d.r, 2 * n, n, axis=0)
    reset = part.op("Mul", r, before)
    product = part.op("MatMul", reset, d.builder.transpose(r_h, [1, 0]))
    for_h = part.op("Add", of_input, product)
    h = part.activate(1, for_h)
    (slope_of_h,) = part.slopes((1, for_h))
    of_z = part.op("Mul", part.op("Sub", before, h), slope_of_z)
    of_h = part.op("Mul", part.columns(rest, 0, n), slope_of_h)
    to_r = part.each(part.op("Mul", before, slope_of_r))
    to_z, to_candidate = (part.each(part.where_running(v)) for v in (of_z, of_h))
    kept, passed, dys = part.each(part.where_running(z, 1.0)), part.each(r), part.dys()
    d_h = part.plus(loop.carry(d.from_final[0]), dys[0])
    d_gates: list[ir.Value] = []
    candidates: list[ir.Value] = []
    run: list[ir.Value] = []
    d_before: list[ir.Value] = []
    for k in range(loop.steps):
        run.append(d_h)
        candidates.append(body.op("Mul", d_h, to_candidate[k], shape=d_h))
        d_reset = part.times(candidates[k], r_h)
        d_z = body.op("Mul", d_h, to_z[k], shape=d_h)
        d_r = body.op("Mul", d_reset, to_r[k], shape=d_h)
        d_gates.append(body.op("Concat", d_z, d_r, axis=-1, shape=[d.batch, 2 * n]))
        direct = body.op("Mul", d_h, kept[k], shape=d_h)
        reset = body.op("Mul", d_reset, passed[k], shape=d_h)
        others = body.op("Add", direct, reset, shape=d_h)
        d_before.append(part.times(d_gates[k], r_gates, others))
        d_h = part.onward(part.plus(d_before[k], dys[k + 1]), k)
    both = part.op("Concat", part.join(d_gates), part.join(candidates), axis=-1, width=3 * n)
    return both, run, d_before, d_h


# -- weights -------------------------------------------------------------------------------


def _lstm_weights(d: _Direction) -> ir.Value:
    """Returns what turns x, ones, and the state before into the sums of the gates."""
    builder = d.builder
    bias, state_bias = _bias_rows(d)
    of_input, of_state = builder.transpose(d.w, [1, 0]), builder.transpose(d.r, [1, 0])
    return builder.concat([of_input, builder.add(bias, state_bias), of_state], 0)


class _GruWeights(NamedTuple):
    """What a GRU's sums are products with.

    Attributes:
        gates: turns x, ones, and the state before into the sums of z and r.
        of_input: turns x and ones into the candidate's sum, without its share of the state.
        of_state: turns ones and the state before into that share, where the reset gate comes
            after the product.
    """

    gates: ir.Value
    of_input: ir.Value
    of_state: ir.Value


def _gru_weights(d: _Direction, *, reset_after: bool) -> _GruWeights:
    """Returns the weights of a GRU.

    The candidate's two biases are one where the reset gate comes before the product.
    """
    builder, n = d.builder, d.hidden

    def of_gates(value: ir.Value) -> ir.Value:
        return builder.slice(value, 1, 0, 2 * n)

    def of_candidate(value: ir.Value) -> ir.Value:
        return builder.slice(value, 1, 2 * n, 3 * n)

    of_x, of_before = builder.transpose(d.w, [1, 0]), builder.transpose(d.r, [1, 0])
    bias, state_bias = _bias_rows(d)
    both = builder.add(bias, state_bias)
    in_front = bias if reset_after else both
    return _GruWeights(
        gates=builder.concat([of_gates(v) for v in (of_x, both, of_before)], 0),
        of_input=builder.concat([of_candidate(v) for v in (of_x, in_front)], 0),
        of_state=builder.concat([of_candidate(v) for v in (state_bias, of_before)], 0),
    )


def _bias_rows(d: _Direction) -> tuple[ir.Value, ir.Value]:
    """Returns both biases as `[1, gates*hidden]`."""
    if d.bias is None:
        none = _zeros_like(d, 1, _size(d.w, 0))
        return none, none
    of_input, of_state = d.bias
    return d.builder.unsqueeze(of_input, [0]), d.builder.unsqueeze(of_state, [0])


def _zeros_like(d: _Direction, rows: int, columns: int) -> ir.Value:
    return d.builder.const(np.zeros((rows, columns)), dtype_of(d.w))


# -- reading the operands, writing the results ---------------------------------------------


def _read(walk: Walk, node: ir.Node, outputs: Dys) -> list[_Direction]:
    """Returns the directions of a node."""
    builder = walk.builder
    backwards = directions_of(node)
    x, w, r = required(node, _X), required(node, _W), required(node, _R)
    time, batch = (shape_of(x) or (None, None))[:2]
    hidden = _size(r, 2)
    y = builder.output(node, 0, [time, _size(r, 0), batch, hidden], dtype_of(x))
    states = _STATES[node.op_type]
    dy, *d_final = (*outputs, None, None, None)[: 1 + states]

    def of(position: int, value: ir.Value, axis: int = 0) -> ir.Value:
        return _take(builder, value, axis, position, len(backwards))

    @functools.cache
    def zeros() -> ir.Value:
        return builder.zeros([(x, 1), hidden], dtype_of(x))

    def state(position: int, value: ir.Value | None) -> ir.Value:
        return zeros() if value is None else of(position, value)

    def bias(position: int) -> tuple[ir.Value, ir.Value] | None:
        both = optional(node, _B)
        if both is None:
            return None
        width = GATES[node.op_type] * hidden
        of_input, of_product = _split(builder, of(position, both), width, width)
        return of_input, of_product

    lengths = optional(node, _LENGTHS)
    goes_on = None if lengths is None else running(builder, x, lengths)
    if dy is not None and goes_on is not None:
        dy = builder.where(builder.unsqueeze(goes_on, [1]), dy, 0.0)
    return [
        _Direction(
            builder=builder,
            backwards=backwards[k],
            activations=_activations(node, k),
            time=time,
            batch=batch,
            hidden=hidden,
            x=x,
            w=of(k, w),
            r=of(k, r),
            bias=bias(k),
            y=of(k, y, axis=1),
            initial=tuple(state(k, optional(node, _INITIAL + s)) for s in range(states)),
            dy=None if dy is None else of(k, dy, axis=1),
            from_final=tuple(state(k, g) for g in d_final),
            running=goes_on,
        )
        for k in range(len(backwards))
    ]


def _activations(node: ir.Node, position: int) -> tuple[str, ...]:
    default = DEFAULT_ACTIVATIONS[node.op_type]
    named = attribute(node, "activations") or default * (position + 1)
    return tuple(named[position * len(default) : (position + 1) * len(default)])


def _size(value: ir.Value, axis: int) -> int:
    """Returns a size of a value whose shape is known."""
    return (static_shape(value) or ())[axis]


def _take(builder: Builder, value: ir.Value, axis: int, position: int, count: int) -> ir.Value:
    """Writes entry `position` of an axis of size `count`, without that axis."""
    shape = shape_of(value)
    kept = None if shape is None else [*shape[:axis], *shape[axis + 1 :]]
    if count == 1:
        return builder.op("Squeeze", value, builder.ints(axis), shape=kept)
    index = builder.const(position, ir.DataType.INT64)
    return builder.op("Gather", value, index, shape=kept, axis=axis)


def _split(builder: Builder, value: ir.Value, *sizes: int, axis: int = -1) -> tuple[ir.Value, ...]:
    """Writes a split into parts of the given sizes along an axis (the last by default)."""
    shape = list(shape_of(value) or ())
    shapes: list[list[Dim]] = []
    for size in sizes:
        part = list(shape)
        part[axis] = size
        shapes.append(part)
    return builder.ops(
        "Split", value, builder.ints(*sizes), outputs=len(sizes), shapes=shapes, axis=axis
    )


class _Result:
    """What a loop gives in the end: gradients of x and, where they are wanted, of initial states.

    The gradient of an initial state is that of the state before the first step: what the loop
    leaves has passed the rows that fill up the last block.
    """

    def __init__(self, loop: BlockWriter, walk: Walk, node: ir.Node) -> None:
        """Prepares for the results of one loop.

        Args:
            loop: the loop.
            walk: the walk in progress.
            node: the forward node.
        """
        self._loop, self._walk, self._node = loop, walk, node
        initial = [optional(node, _INITIAL + k) for k in range(_STATES[node.op_type])]
        self._initial = [v if v in walk.wanted else None for v in initial]
        nudges = [nudge_of(node, k) for k in range(len(directions_of(node)))]
        self._nudges = [v if v in walk.wanted else None for v in nudges]
        self._directions: list[_Direction] = []
        self._collected: list[Collected] = []
        self._left: list[ir.Value] = []

    def add(
        self,
        part: _Part,
        d_gates: ir.Value,
        d_hidden: Sequence[ir.Value],
        d_before: Sequence[Sequence[ir.Value]],
        left: Sequence[ir.Value],
    ) -> None:
        """Adds a direction.

        Args:
            part: what wrote it.
            d_gates: gradient of the sums that enter the gates, `[steps*batch, gates*hidden]`.
            d_hidden: that of the hidden state after each step, by all that it goes into.
            d_before: of each state its gradient before each step.
            left: what carried values become.
        """
        columns = _size(part.d.w, 1)
        values = [part.op("MatMul", d_gates, part.d.w, width=columns)]
        for initial, run in zip(self._initial, d_before, strict=True):
            if initial is not None:
                values.append(part.join(run))
        if any(nudge is not None for nudge in self._nudges):
            values.append(part.where_running(part.join(d_hidden), 0.0))
        self._directions.append(part.d)
        self._collected += [Collected(v, part.backwards) for v in values]
        self._left += left

    def pairs(self) -> _Pairs:
        """Writes the loop; yields inputs of the node and their gradients."""
        builder, x = self._walk.builder, required(self._node, _X)
        stacks = self._loop.finish(self._left, self._collected)[1]
        count = len(stacks) // len(self._directions)
        found = [
            [
                self._loop.steps_of(v, in_front=not d.backwards)
                for v in stacks[count * k : count * (k + 1)]
            ]
            for k, d in enumerate(self._directions)
        ]
        if x in self._walk.wanted:
            total = found[0][0]
            for others in found[1:]:
                total = builder.op("Add", total, others[0], shape=x)
            yield x, total
        wanted = [v for v in self._initial if v is not None]
        for k, initial in enumerate(wanted):
            firsts = [
                self._first(d, values[1 + k])
                for d, values in zip(self._directions, found, strict=True)
            ]
            yield initial, builder.concat(firsts, 0)
        for nudge, values in zip(self._nudges, found, strict=True):
            if nudge is not None:
                yield nudge, values[-1]

    def _first(self, d: _Direction, d_before: ir.Value) -> ir.Value:
        """Returns the gradient before a direction's first step, `[1, batch, hidden]`."""
        last = self._walk.builder.ints(-1 if d.backwards else 0)
        return self._walk.builder.op("Gather", d_before, last, axis=0, shape=[1, d.batch, d.hidden])
