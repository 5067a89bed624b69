"""Gradients of the fused recurrent operators in their usual form: LSTM, GRU and RNN.

Other forms (gradients of weights, peepholes, sequence lengths, clipping, other activations) go
step by step, as `probegen.graph.vjp.recurrent_steps` writes them.

The forward output Y holds the hidden state after every step, so everything that depends on
hidden states alone (gates, activations and their slopes) is computed for all steps at once.
Step by step remain, for LSTM, the cell state (a product and a sum) and, for all three, the
product of the gradient with the recurrence weights, walked against the direction of the
layer; both directions of a bidirectional layer share one `Scan`.

Shapes are those of the ONNX specification with `layout=0`: X `[time, batch, input]`,
W `[directions, gates*hidden, input]`, R `[directions, gates*hidden, hidden]`,
B `[directions, 2*gates*hidden]`, Y `[time, directions, batch, hidden]`, initial and final
states `[directions, batch, hidden]`. Values of one direction have no such axis. Equations and
names of the gates are those of the operators' specification.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import Dim, attribute, dtype_of, shape_of, static_shape
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.step_writer import StepWriter, shift_by_one_step
from probegen.graph.vjp.common import Dys
from probegen.graph.vjp.decomposition import through
from probegen.graph.vjp.recurrent_steps import DEFAULT_ACTIVATIONS, GATES, forward

_STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}
_DIFFERENTIABLE = ("Sigmoid", "Tanh", "Relu")
_BACKWARDS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}

#: Positions of the inputs; the initial cell state follows the initial hidden state.
_X, _W, _R, _B, _LENGTHS, _INITIAL, _PEEPHOLES = 0, 1, 2, 3, 4, 5, 7

_Pairs = Iterator[tuple[ir.Value, ir.Value]]


def lstm(walk: Walk, node: ir.Node, outputs: Dys) -> _Pairs:
    """Gradient of LSTM with respect to X, initial_h and initial_c.

    C being the cell state, and going against the layer's direction: dH = dY + dGates R,
    dC = dC f + dH o h'(C), and dGates is (dC, dH, dC, dC) times a factor that is known for
    all steps beforehand.
    """
    builder, directions = walk.builder, _read(walk, node, outputs)
    gates = [_lstm_gates(d) for d in directions]
    cells = _cells(builder, directions, gates)
    loop = StepWriter(builder)
    left: list[ir.Value] = []
    collected: list[Collected] = []
    for d, (i, o, f, c), cell in zip(directions, gates, cells, strict=True):
        squashed = d.activate(2, cell)
        factors = [
            d.op("Mul", c, d.slope(0, i)),
            d.op("Mul", squashed, d.slope(0, o)),
            d.op("Mul", d.before(cell, d.initial[1]), d.slope(0, f)),
            d.op("Mul", i, d.slope(1, c)),
        ]
        factor = d.against(loop, d.op("Concat", *factors, axis=-1, width=4 * d.hidden))
        through = d.against(loop, d.op("Mul", o, d.slope(2, squashed)))
        forget = d.against(loop, f)
        from_later, cell_later = (loop.carry(g) for g in d.from_final)
        body = loop.body
        d_h = d.plus_dy(loop, from_later)
        d_c = body.op("Add", body.op("Mul", d_h, through, shape=d_h), cell_later, shape=d_h)
        spread = body.op("Concat", d_c, d_h, d_c, d_c, axis=-1, shape=[d.batch, 4 * d.hidden])
        d_gates = body.op("Mul", spread, factor, shape=spread)
        left.append(body.op("MatMul", d_gates, d.r, shape=d_h))
        left.append(body.op("Mul", d_c, forget, shape=d_h))
        collected.append(Collected(d_gates, not d.backwards))
    finals, d_gates_all = loop.finish(left, collected)
    yield from _to_inputs(walk, node, d_gates_all, finals)


def gru(walk: Walk, node: ir.Node, outputs: Dys) -> _Pairs:
    """Gradient of GRU with respect to X and initial_h, for both places of the reset gate.

    With H' the state before a step and h the candidate, H = (1 - z) h + z H', so that
    dz = dH (H' - h) and dh = dH (1 - z); where the reset gate r stands between H' and h is
    told by `linear_before_reset`.
    """
    builder, directions = walk.builder, _read(walk, node, outputs)
    reset_after = bool(attribute(node, "linear_before_reset", 0))
    step = _reset_after_step if reset_after else _reset_before_step
    loop = StepWriter(builder)
    parts = [_gru_parts(d, reset_after) for d in directions]
    left: list[ir.Value] = []
    collected: list[Collected] = []
    for d, part in zip(directions, parts, strict=True):
        d_before, results = step(loop, d, part)
        left.append(d_before)
        collected.extend(Collected(v, not d.backwards) for v in results)
    finals, stacks = loop.finish(left, collected)
    count = len(stacks) // len(directions)
    d_gates = [
        _gru_d_gates(d, part, stacks[count * k : count * (k + 1)])
        for k, (d, part) in enumerate(zip(directions, parts, strict=True))
    ]
    yield from _to_inputs(walk, node, d_gates, finals)


def rnn(walk: Walk, node: ir.Node, outputs: Dys) -> _Pairs:
    """Gradient of RNN with respect to X and initial_h: dH' = (dH f'(H)) R, plus dY."""
    builder, directions = walk.builder, _read(walk, node, outputs)
    loop = StepWriter(builder)
    left: list[ir.Value] = []
    collected: list[Collected] = []
    for d in directions:
        slope = d.against(loop, d.slope(0, d.y))
        d_h = d.plus_dy(loop, loop.carry(d.from_final[0]))
        d_gates = loop.body.op("Mul", d_h, slope, shape=d_h)
        left.append(loop.body.op("MatMul", d_gates, d.r, shape=d_h))
        collected.append(Collected(d_gates, not d.backwards))
    finals, d_gates_all = loop.finish(left, collected)
    yield from _to_inputs(walk, node, d_gates_all, finals)


def _is_usual(walk: Walk, node: ir.Node) -> bool:
    """Tells whether a node has the form that the rules of this file are for."""
    weights = (_W, _R, _B)
    named = attribute(node, "activations") or ()
    return not (
        any(_optional(node, k) in walk.wanted for k in weights)
        or any(_optional(node, k) is not None for k in (_LENGTHS, _PEEPHOLES))
        or attribute(node, "clip") is not None
        or attribute(node, "input_forget", 0)
        or attribute(node, "layout", 0)
        or any(name not in _DIFFERENTIABLE for name in named)
        or any(static_shape(_operand(node, k)) is None for k in (_W, _R))
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

    def op(
        self,
        op_type: str,
        *inputs: ir.Value,
        width: int | None = None,
        axis: int | None = None,
    ) -> ir.Value:
        """Writes an operator over all steps whose result has `width` (or hidden) columns."""
        shape = [self.time, self.batch, width or self.hidden]
        return self.builder.op(op_type, *inputs, shape=shape, axis=axis)

    def project(self, value: ir.Value, weights: ir.Value, bias: ir.Value | None) -> ir.Value:
        """Writes the product with weights `[width, columns of value]`, plus a bias."""
        width = _size(weights, 0)
        product = self.op("MatMul", value, self.builder.transpose(weights, [1, 0]), width=width)
        return product if bias is None else self.op("Add", product, bias, width=width)

    def activate(self, position: int, value: ir.Value) -> ir.Value:
        """Writes the activation function at `position`."""
        return self.builder.op(self.activations[position], value, shape=value)

    def slope(self, position: int, activated: ir.Value) -> ir.Value:
        """Writes the derivative of that function at a point from its value there."""
        builder = self.builder
        if self.activations[position] == "Relu":
            return builder.op("Sign", activated, shape=activated)
        square = builder.op("Mul", activated, activated, shape=activated)
        if self.activations[position] == "Tanh":
            return builder.op("Sub", builder.scalar(1, square), square, shape=square)
        return builder.op("Sub", activated, square, shape=square)

    def before(self, states: ir.Value, initial: ir.Value) -> ir.Value:
        """Returns what each step found, given what each step left and the initial state."""
        return shift_by_one_step(self.builder, states, initial, self.backwards)

    def against(self, loop: StepWriter, sequence: ir.Value) -> ir.Value:
        """Returns a step of a sequence in a loop against the layer's direction."""
        return loop.read(sequence, backwards=not self.backwards)

    def plus_dy(self, loop: StepWriter, from_later: ir.Value) -> ir.Value:
        """Returns the gradient of a step's hidden state from all that it goes into."""
        if self.dy is None:
            return from_later
        return loop.body.op("Add", from_later, self.against(loop, self.dy), shape=from_later)


# -- LSTM ----------------------------------------------------------------------------------


def _lstm_gates(d: _Direction) -> tuple[ir.Value, ...]:
    """Returns the activated gates i, o, f, c of all steps, `[time, batch, hidden]` each."""
    builder, n = d.builder, d.hidden
    columns = _size(d.w, 1) + n
    seen = d.op("Concat", d.x, d.before(d.y, d.initial[0]), axis=-1, width=columns)
    weights = builder.op("Concat", d.w, d.r, axis=1, shape=[4 * n, columns])
    bias = None if d.bias is None else builder.op("Add", *d.bias, shape=[4 * n])
    iof, c = _split(builder, d.project(seen, weights, bias), 3 * n, n)
    i, o, f = _split(builder, d.activate(0, iof), n, n, n)
    return i, o, f, d.activate(1, c)


def _cells(
    builder: Builder, directions: Sequence[_Direction], gates: Sequence[tuple[ir.Value, ...]]
) -> list[ir.Value]:
    """Returns each direction's cell states after all steps: C = f C' + i c."""
    loop = StepWriter(builder)
    left: list[ir.Value] = []
    for d, (i, _, f, c) in zip(directions, gates, strict=True):
        cell = loop.carry(d.initial[1])
        forget = loop.read(f, backwards=d.backwards)
        new = loop.read(d.op("Mul", i, c), backwards=d.backwards)
        kept = loop.body.op("Mul", cell, forget, shape=cell)
        left.append(loop.body.op("Add", kept, new, shape=cell))
    collected = [Collected(v, d.backwards) for v, d in zip(left, directions, strict=True)]
    return loop.finish(left, collected)[1]


# -- GRU -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _GruParts:
    """What one direction of a GRU is differentiated with; `[time, batch, hidden]` mostly.

    Attributes:
        z, r: the activated gates.
        to_z: factor from dH to the gradient of the sum that enters z.
        to_h: factor from dH to the gradient of the sum that enters the candidate.
        to_r: factor to the gradient of the sum that enters r: from that of the candidate's
            sum where the reset gate comes after the product with R, else from d(r H').
        r_zr, r_h: rows of R for both gates and for the candidate.
    """

    z: ir.Value
    r: ir.Value
    to_z: ir.Value
    to_h: ir.Value
    to_r: ir.Value
    r_zr: ir.Value
    r_h: ir.Value


def _gru_parts(d: _Direction, reset_after: bool) -> _GruParts:
    builder, n = d.builder, d.hidden
    before = d.before(d.y, d.initial[0])
    r_zr, r_h = _split(builder, d.r, 2 * n, n, axis=0)
    input_bias, recurrent_bias = (None, None) if d.bias is None else d.bias
    bias_zr, bias_h = None, None
    if recurrent_bias is not None:
        bias_zr, bias_h = _split(builder, recurrent_bias, 2 * n, n)
    input_zr, input_h = _split(builder, d.project(d.x, d.w, input_bias), 2 * n, n)
    sums = d.op("Add", input_zr, d.project(before, r_zr, bias_zr), width=2 * n)
    z, r = _split(builder, d.activate(0, sums), n, n)
    if reset_after:
        reset = d.project(before, r_h, bias_h)
        recurrent = d.op("Mul", r, reset)
    else:
        reset = before
        recurrent = d.project(d.op("Mul", r, before), r_h, bias_h)
    h = d.activate(1, d.op("Add", input_h, recurrent))
    return _GruParts(
        z=z,
        r=r,
        to_z=d.op("Mul", d.op("Sub", before, h), d.slope(0, z)),
        to_h=d.op("Mul", d.op("Sub", builder.scalar(1, z), z), d.slope(1, h)),
        to_r=d.op("Mul", reset, d.slope(0, r)),
        r_zr=r_zr,
        r_h=r_h,
    )


def _reset_after_step(
    loop: StepWriter, d: _Direction, part: _GruParts
) -> tuple[ir.Value, tuple[ir.Value, ...]]:
    """Writes a step through h = g(x W + r (H' R)); returns dH' and what to collect: dH."""
    body, n = loop.body, d.hidden
    to_recurrent_h = d.op("Mul", part.to_h, part.r)
    to_r = d.op("Mul", part.to_h, part.to_r)
    factors = d.op("Concat", part.to_z, to_r, to_recurrent_h, axis=-1, width=3 * n)
    d_h = d.plus_dy(loop, loop.carry(d.from_final[0]))
    spread = body.op("Concat", d_h, d_h, d_h, axis=-1, shape=[d.batch, 3 * n])
    d_gates = body.op("Mul", spread, d.against(loop, factors), shape=spread)
    product = body.op("MatMul", d_gates, d.r, shape=d_h)
    kept = body.op("Mul", d_h, d.against(loop, part.z), shape=d_h)
    return body.op("Add", product, kept, shape=d_h), (d_h,)


def _reset_before_step(
    loop: StepWriter, d: _Direction, part: _GruParts
) -> tuple[ir.Value, tuple[ir.Value, ...]]:
    """Writes a step through h = g(x W + (r H') R); returns dH' and to collect: dH, d(r H')."""
    body = loop.body
    d_h = d.plus_dy(loop, loop.carry(d.from_final[0]))
    d_candidate = body.op("Mul", d_h, d.against(loop, part.to_h), shape=d_h)
    d_reset = body.op("MatMul", d_candidate, part.r_h, shape=d_h)
    d_z = body.op("Mul", d_h, d.against(loop, part.to_z), shape=d_h)
    d_r = body.op("Mul", d_reset, d.against(loop, part.to_r), shape=d_h)
    d_gates = body.op("Concat", d_z, d_r, axis=-1, shape=[d.batch, 2 * d.hidden])
    product = body.op("MatMul", d_gates, part.r_zr, shape=d_h)
    kept = body.op("Mul", d_h, d.against(loop, part.z), shape=d_h)
    reset = body.op("Mul", d_reset, d.against(loop, part.r), shape=d_h)
    d_before = body.op("Add", body.op("Add", product, kept, shape=d_h), reset, shape=d_h)
    return d_before, (d_h, d_reset)


def _gru_d_gates(d: _Direction, part: _GruParts, collected: Sequence[ir.Value]) -> ir.Value:
    """Returns the gradients of the sums of all steps, z, r, h side by side."""
    d_h = collected[0]
    d_candidate = d.op("Mul", d_h, part.to_h)
    before_reset = collected[1] if len(collected) == 2 else d_candidate
    d_z, d_r = d.op("Mul", d_h, part.to_z), d.op("Mul", before_reset, part.to_r)
    return d.op("Concat", d_z, d_r, d_candidate, axis=-1, width=3 * d.hidden)


# -- reading the operands, writing the results ---------------------------------------------


def _read(walk: Walk, node: ir.Node, outputs: Dys) -> list[_Direction]:
    """Returns the directions of a node."""
    builder = walk.builder
    backwards = _BACKWARDS[attribute(node, "direction", "forward")]
    x, w, r = _operand(node, _X), _operand(node, _W), _operand(node, _R)
    time, batch = (shape_of(x) or (None, None))[:2]
    hidden = _size(r, 2)
    y = _hidden_states(builder, node)
    states = _STATES[node.op_type]
    dy, *d_final = (*outputs, None, None, None)[: 1 + states]

    def of(position: int, value: ir.Value, axis: int = 0) -> ir.Value:
        return _take(builder, value, axis, position, len(backwards))

    @functools.cache
    def zeros() -> ir.Value:
        return _zeros(builder, x, hidden)

    def state(position: int, value: ir.Value | None) -> ir.Value:
        return zeros() if value is None else of(position, value)

    def bias(position: int) -> tuple[ir.Value, ir.Value] | None:
        both = _optional(node, _B)
        if both is None:
            return None
        width = GATES[node.op_type] * hidden
        of_input, of_product = _split(builder, of(position, both), width, width)
        return of_input, of_product

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
            initial=tuple(state(k, _optional(node, _INITIAL + s)) for s in range(states)),
            dy=None if dy is None else of(k, dy, axis=1),
            from_final=tuple(state(k, g) for g in d_final),
        )
        for k in range(len(backwards))
    ]


def _activations(node: ir.Node, position: int) -> tuple[str, ...]:
    default = DEFAULT_ACTIVATIONS[node.op_type]
    named = attribute(node, "activations") or default * (position + 1)
    return tuple(named[position * len(default) : (position + 1) * len(default)])


def _optional(node: ir.Node, position: int) -> ir.Value | None:
    return node.inputs[position] if position < len(node.inputs) else None


def _operand(node: ir.Node, position: int) -> ir.Value:
    value = _optional(node, position)
    if value is None:
        raise Refused(f"input {position} is missing")
    return value


def _size(value: ir.Value, axis: int) -> int:
    """Returns a size of a value whose shape is known."""
    return (static_shape(value) or ())[axis]


def _hidden_states(builder: Builder, node: ir.Node) -> ir.Value:
    """Returns the node's output Y, which is asked for where it was left out."""
    x, r = _operand(node, _X), _operand(node, _R)
    time, batch = (shape_of(x) or (None, None))[:2]
    return builder.output(node, 0, [time, _size(r, 0), batch, _size(r, 2)], dtype_of(x))


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


def _zeros(builder: Builder, x: ir.Value, hidden: int) -> ir.Value:
    """Returns a state `[batch, hidden]` of zeros for an input `[time, batch, input]`."""
    batch = (shape_of(x) or (None, None))[1]
    sizes = builder.concat([builder.size(x, 1), builder.ints(hidden)], 0)
    return builder.op("Expand", builder.scalar(0, x), sizes, shape=[batch, hidden])


def _to_inputs(
    walk: Walk,
    node: ir.Node,
    d_gates: Sequence[ir.Value],
    d_initial: Sequence[ir.Value],
) -> _Pairs:
    """Yields the gradients of X and of the initial states.

    Args:
        walk: the walk in progress.
        node: the forward node.
        d_gates: of each direction the gradient of the sums that enter the gates,
            `[time, batch, gates*hidden]`.
        d_initial: of each direction the gradients of its initial states, one after another.
    """
    builder, x, w = walk.builder, _operand(node, _X), _operand(node, _W)
    count, rows, columns = _size(w, 0), _size(w, 1), _size(w, 2)
    if x in walk.wanted:
        joined = d_gates[0]
        if count > 1:
            time_and_batch = (shape_of(joined) or (None, None))[:2]
            joined = builder.op("Concat", *d_gates, axis=-1, shape=[*time_and_batch, count * rows])
        yield x, builder.op("MatMul", joined, builder.reshape(w, [count * rows, columns]), shape=x)
    states = _STATES[node.op_type]
    for k in range(states):
        initial = _optional(node, _INITIAL + k)
        if initial is not None and initial in walk.wanted:
            each = [_with_axis(builder, g) for g in d_initial[k::states]]
            yield (
                initial,
                each[0] if count == 1 else builder.op("Concat", *each, axis=0, shape=initial),
            )


def _with_axis(builder: Builder, value: ir.Value) -> ir.Value:
    shape = shape_of(value)
    kept = None if shape is None else [1, *shape]
    return builder.op("Unsqueeze", value, builder.ints(0), shape=kept)
