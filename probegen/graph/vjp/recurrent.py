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

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from probegen.graph.autodiff import Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import attribute, dtype_of, static_shape
from probegen.graph.loops.block_writer import BlockWriter
from probegen.graph.loops.hoist import Collected
from probegen.graph.vjp.common import Dys, optional, required
from probegen.graph.vjp.decomposition import through
from probegen.graph.vjp.recurrent_blocks import (
    PEEPHOLES,
    SLOPES,
    B,
    Direction,
    Pairs,
    Part,
    R,
    Result,
    W,
    read,
    size_of,
    split_into,
)
from probegen.graph.vjp.recurrent_steps import forward

#: Steps in a block. More make fewer turns, and more nodes; what LSTM keeps of a longer block would
#: not stay in a processor's cache.
_STEPS, _STEPS_LSTM = 16, 8
#: Activations that are 0 at 0.
_ZERO_AT_ZERO = ("Tanh", "Relu")


def lstm(walk: Walk, node: ir.Node, outputs: Dys) -> Pairs:
    """Gradient of LSTM with respect to X, initial_h and initial_c.

    C being the cell state, and going against the layer's direction: dH = dY + dGates R,
    dC = dC f + dH o h'(C), and dGates is (dC, dH, dC, dC) times a factor that is known
    beforehand.
    """
    builder, directions = walk.builder, read(walk, node, outputs)
    known = _lstm_factors(builder, directions)
    loop = BlockWriter(builder, directions[0].x, _STEPS_LSTM)
    result = Result(loop, walk, node)
    for d, factors in zip(directions, known, strict=True):
        part = Part(loop, d, against=True)
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


def gru(walk: Walk, node: ir.Node, outputs: Dys) -> Pairs:
    """Gradient of GRU with respect to X and initial_h, for both places of the reset gate.

    With H' the state before a step and h the candidate, H = (1 - z) h + z H', so that
    dz = dH (H' - h) and dh = dH (1 - z); where the reset gate r stands between H' and h is
    told by `linear_before_reset`.
    """
    builder, directions = walk.builder, read(walk, node, outputs)
    loop = BlockWriter(builder, directions[0].x, _STEPS)
    result = Result(loop, walk, node)
    run = _reset_after if attribute(node, "linear_before_reset", 0) else _reset_before
    for d in directions:
        part = Part(loop, d, against=True)
        d_gates, d_hidden, d_before, d_h = run(part)
        result.add(part, d_gates, d_hidden, [d_before], [d_h])
    yield from result.pairs()


def rnn(walk: Walk, node: ir.Node, outputs: Dys) -> Pairs:
    """Gradient of RNN with respect to X and initial_h: dH' = (dH f'(H)) R, plus dY.

    The slope f' is taken from the states: what they are taken of would be a product more, a fifth
    of the pass. It is off by a rounding of 1, which counts where all states are saturated alone.
    """
    builder, directions = walk.builder, read(walk, node, outputs)
    loop = BlockWriter(builder, directions[0].x, _STEPS)
    result = Result(loop, walk, node)
    for d in directions:
        part = Part(loop, d, against=True)
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
    weights = (W, R, B)
    named = attribute(node, "activations") or ()
    return not (
        any(optional(node, k) in walk.wanted for k in weights)
        or optional(node, PEEPHOLES) is not None
        or attribute(node, "clip") is not None
        or attribute(node, "input_forget", 0)
        or attribute(node, "layout", 0)
        or any(name not in SLOPES for name in named)
        or any(static_shape(required(node, k)) is None for k in (W, R))
    )


def _usual_or_general(usual: Rule) -> Rule:
    """Returns a rule that takes nodes of other than the usual form step by step."""

    def rule(walk: Walk, node: ir.Node, outputs: Dys) -> Pairs:
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


# -- LSTM ----------------------------------------------------------------------------------


def _lstm_factors(
    builder: Builder, directions: Sequence[Direction]
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
        part, body, n = Part(loop, d, against=False), loop.body, d.hidden
        seen = part.read_seen()
        of_gates, of_candidate = split_into(builder, _lstm_weights(d), 3 * n, n)
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


def _reset_after(part: Part) -> tuple[ir.Value, list[ir.Value], list[ir.Value], ir.Value]:
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


def _reset_before(part: Part) -> tuple[ir.Value, list[ir.Value], list[ir.Value], ir.Value]:
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
    r_gates, r_h = split_into(d.builder, d.r, 2 * n, n, axis=0)
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


def _lstm_weights(d: Direction) -> ir.Value:
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


def _gru_weights(d: Direction, *, reset_after: bool) -> _GruWeights:
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


def _bias_rows(d: Direction) -> tuple[ir.Value, ir.Value]:
    """Returns both biases as `[1, gates*hidden]`."""
    if d.bias is None:
        none = _zeros_like(d, 1, size_of(d.w, 0))
        return none, none
    of_input, of_state = d.bias
    return d.builder.unsqueeze(of_input, [0]), d.builder.unsqueeze(of_state, [0])


def _zeros_like(d: Direction, rows: int, columns: int) -> ir.Value:
    return d.builder.const(np.zeros((rows, columns)), dtype_of(d.w))
