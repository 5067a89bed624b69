"""One direction of an LSTM, GRU or RNN in its usual form: its operands, and blocks of its steps.

The gradients of these operators (`probegen.graph.vjp.recurrent`) run over blocks of time steps.
Here is what all three share: operands are read, sequences cut into blocks, and gradients of the
input and of initial states put together. Shapes and names are those of `recurrent`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import onnx_ir as ir

from probegen.graph.autodiff import Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.marks import nudge_of
from probegen.graph.core.values import Dim, attribute, dims_of, dtype_of, shape_of, static_shape
from probegen.graph.loops.block_writer import BlockWriter
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.step_writer import shift_by_one_step
from probegen.graph.vjp.common import Dys, optional, required
from probegen.graph.vjp.masks import above
from probegen.graph.vjp.recurrent_operands import DEFAULT_ACTIVATIONS, GATES, directions_of, running
from probegen.graph.vjp.saturating import sigmoid_and_rest, slope_of_sigmoid, slope_of_tanh

_STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}
#: Steps over which gradients may fade before what is tiny becomes zero.
_FADING = 8
#: Activation -> what writes its derivative.
SLOPES: Mapping[str, Callable[[Builder, ir.Value], ir.Value]] = {
    "Sigmoid": slope_of_sigmoid,
    "Tanh": slope_of_tanh,
    "Relu": functools.partial(above, bound=0.0),
}

#: Positions of the inputs; the initial cell state follows the initial hidden state.
X, W, R, B, LENGTHS, INITIAL, PEEPHOLES = 0, 1, 2, 3, 4, 5, 7

Pairs = Iterator[tuple[ir.Value, ir.Value]]


@dataclasses.dataclass(frozen=True)
class Direction:
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
        return size_of(self.w, 1)


@dataclasses.dataclass(frozen=True)
class Part:
    """One direction of a layer in a loop over blocks; writes into the body of the loop.

    Attributes:
        loop: the loop.
        d: the direction.
        against: True where the loop runs against the layer's direction.
    """

    loop: BlockWriter
    d: Direction
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
        """Returns a block of what `Direction.seen` returns."""
        return self.read(self.blocks(self.d.seen(), self.d.seen_width))

    def read(self, blocks: ir.Value) -> ir.Value:
        """Returns a block."""
        return self.loop.read(blocks, backwards=self.backwards)

    @functools.cached_property
    def running(self) -> ir.Value | None:
        """A block of `Direction.running`, `[steps*batch, 1]`."""
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
        return split_into(self.loop.body, value, *sizes)

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
            slope = SLOPES[name](body, joined)
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
        return gates, SLOPES[name](body, value), rest

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


class Result:
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
        initial = [optional(node, INITIAL + k) for k in range(_STATES[node.op_type])]
        self._initial = [v if v in walk.wanted else None for v in initial]
        nudges = [nudge_of(node, k) for k in range(len(directions_of(node)))]
        self._nudges = [v if v in walk.wanted else None for v in nudges]
        self._directions: list[Direction] = []
        self._collected: list[Collected] = []
        self._left: list[ir.Value] = []

    def add(
        self,
        part: Part,
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
        columns = size_of(part.d.w, 1)
        values = [part.op("MatMul", d_gates, part.d.w, width=columns)]
        for initial, run in zip(self._initial, d_before, strict=True):
            if initial is not None:
                values.append(part.join(run))
        if any(nudge is not None for nudge in self._nudges):
            values.append(part.where_running(part.join(d_hidden), 0.0))
        self._directions.append(part.d)
        self._collected += [Collected(v, part.backwards) for v in values]
        self._left += left

    def pairs(self) -> Pairs:
        """Writes the loop; yields inputs of the node and their gradients."""
        builder, x = self._walk.builder, required(self._node, X)
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

    def _first(self, d: Direction, d_before: ir.Value) -> ir.Value:
        """Returns the gradient before a direction's first step, `[1, batch, hidden]`."""
        last = self._walk.builder.ints(-1 if d.backwards else 0)
        return self._walk.builder.op("Gather", d_before, last, axis=0, shape=[1, d.batch, d.hidden])


def read(walk: Walk, node: ir.Node, outputs: Dys) -> list[Direction]:
    """Returns the directions of a node."""
    builder = walk.builder
    backwards = directions_of(node)
    x, w, r = required(node, X), required(node, W), required(node, R)
    time, batch = (shape_of(x) or (None, None))[:2]
    hidden = size_of(r, 2)
    y = builder.output(node, 0, [time, size_of(r, 0), batch, hidden], dtype_of(x))
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
        both = optional(node, B)
        if both is None:
            return None
        width = GATES[node.op_type] * hidden
        of_input, of_product = split_into(builder, of(position, both), width, width)
        return of_input, of_product

    lengths = optional(node, LENGTHS)
    goes_on = None if lengths is None else running(builder, x, lengths)
    if dy is not None and goes_on is not None:
        dy = builder.where(builder.unsqueeze(goes_on, [1]), dy, 0.0)
    return [
        Direction(
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
            initial=tuple(state(k, optional(node, INITIAL + s)) for s in range(states)),
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


def size_of(value: ir.Value, axis: int) -> int:
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


def split_into(
    builder: Builder, value: ir.Value, *sizes: int, axis: int = -1
) -> tuple[ir.Value, ...]:
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
