"""DeepLIFT: differences from a reference take the place of slopes (Shrikumar et al. 2017).

`x` is a value, `x'` what it is where the explained tensors are at their baseline, `dx = x - x'`.
A multiplier m of a tensor says that the score differs by `sum(m * dx)` from the reference's; the
walk carries multipliers back. What each operator does, so that this stays true:

- linear operators (sums, products with what does not change, convolutions, means, all that moves
  elements): their vector-Jacobian product (Shrikumar et al. 2017, sec. 3.5.1).
- functions of one tensor, element by element, however they are spelled, the roundings of a
  quantised model among them: `dy / dx`, the rescale rule (sec. 3.5.2); their slope where dx is next
  to nothing. Of a logarithm, a root or a power that is where y has hardly changed as well: near 0
  these bend within any dx.
- products of two tensors that change (`Mul`, `MatMul`, `Einsum`, `Gemm`), quotients, and other
  functions of two (`Max`, `Pow`): Shapley's value of the two (Lundberg and Lee 2017, sec. 4.2).
  For a product that is each operand times the mean of the other and its reference.
- softmax: rescale through its logarithm. With L the logarithmic mean of y and y',
  `dy = L * (dx - sum(L dx) / sum(L))`, since the sum of y is 1 in both: the softmax's own product
  with L in the place of y.
- reductions to norms and logarithms of sums: see `rescaled_reductions`; vectors scaled to the
  length 1: the vector times one over its length, as a product, and the length as such a reduction.
- maxima over windows and axes, of three and more tensors, and of scattered updates: what the
  larger of y and y' has more than y' goes to where y comes from, what y has less goes to where y'
  comes from (as shap's deep explainer has it).
- pictures sampled at places that change: see `rescaled_sampling`.
- the one largest or smallest of `TopK` as a maximum. Of several, no place has the difference that
  another one made: they are refused.
- normalisations: the centred tensor (of an RMS normalisation the tensor itself) times its scale, as
  a product; the scale by the rescale rule of the variance.

- recurrent operators (LSTM, GRU, RNN): see `recurrent`.
- loops (`Loop`, `Scan`): a loop back over the same steps, each by these rules, in which the steps
  of the reference's loop are read beside them.

A stopped gradient stops no difference. Everything else is refused by name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from probegen.graph.array_operations import OnnxOperations
from probegen.graph.autodiff import Refused, Rule, Walk, gradients
from probegen.graph.core.builder import Builder
from probegen.graph.core.copying import copy_node, standing_apart
from probegen.graph.core.elementwise import FunctionOfOne
from probegen.graph.core.held_masks import held_masks
from probegen.graph.core.marks import MARK_DOMAIN, STOP_GRADIENT, STRAIGHT_THROUGH
from probegen.graph.core.queries import (
    RECURRENT,
    captured_values,
    depending_on,
    inputs_of,
    key_of,
    nodes_from,
)
from probegen.graph.core.values import Dim, attribute, constant_of, dims_of, dtype_of, shape_of
from probegen.graph.loops.iteration import Iteration, body_of, is_loop, iteration_of
from probegen.graph.loops.step_writer import StepWriter
from probegen.graph.tables.common import (
    NORMALISATIONS,
    Normalisation,
    function_at,
    plainly,
    scattered,
    scattered_extreme,
    sloped,
)
from probegen.graph.tables.recurrent import multipliers
from probegen.graph.tables.rescaled_reductions import (
    MULTIPLIERS,
    ReducedPair,
    logarithmic_mean,
)
from probegen.graph.tables.rescaled_sampling import Sampled
from probegen.graph.vjp import BLOCKING, RULES
from probegen.graph.vjp.common import Dys, Gradients, axis_of, given
from probegen.graph.vjp.reduce import reduced_axes, with_reduced_axes
from probegen.methods.axes import BATCH
from probegen.methods.baselines import Baseline, baseline_of, count_of, is_several, written
from probegen.methods.samples import Place

#: Linear in all their floating inputs together.
_LINEAR = frozenset(
    {
        "Add", "Sub", "Sum", "Mean", "Neg", "Identity", "Cast", "CastLike", "Dropout", "Concat",
        "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Expand",
        "Tile", "Pad", "ReduceSum", "ReduceMean", "AveragePool", "GlobalAveragePool",
        "DepthToSpace", "SpaceToDepth", "CumSum", "Trilu", "ReverseSequence", "probegen::Mark",
        "Gather", "GatherElements", "GatherND", "Where", "Resize", "Upsample",
        "probegen::Nudged",
    }
)  # fmt: skip
#: Operators that stop gradients and no differences: what counts are values.
_PASSED = frozenset({f"{MARK_DOMAIN}::{STOP_GRADIENT}"})
#: Gives out what a rounding made of its second input.
_ROUNDED = f"{MARK_DOMAIN}::{STRAIGHT_THROUGH}"
#: Linear in their first input, where the others do not change.
_LINEAR_IN_FIRST = frozenset(
    {
        "Conv", "ConvTranspose", "BatchNormalization", "Div", "GridSample", "RoiAlign", "MaxUnpool",
        "Col2Im", "Compress", "DFT", "STFT", "DeformConv", "AffineGrid",
    }
)  # fmt: skip
#: Linear in each of two inputs.
_BILINEAR = frozenset({"Mul", "MatMul", "Gemm", "Einsum"})
#: Functions taken element by element.
_ELEMENTWISE = frozenset(
    {
        "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Celu", "Clip", "Cos", "Cosh",
        "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Max",
        "Min", "Mish", "Mod", "Pow", "PRelu", "Reciprocal", "Relu", "Selu", "Shrink", "Sigmoid",
        "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
        "probegen.composite::Gelu",
    }
)  # fmt: skip
_MAXIMA = frozenset({"MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "Max", "Min"})
#: Whose result is what is least.
_MINIMA = frozenset({"ReduceMin", "Min"})
#: Exact where numbers are, a rounding that jumps among them: dy / dx is right however small dx is.
_EXACT = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Clip", "Abs", "Max", "Min", _ROUNDED}
)
#: Bend at the scale of x itself: near 0 the slope is not dy / dx however small dx is.
_STEEP = frozenset({"Div", "Log", "Mul", "Pow", "Reciprocal", "Sqrt"})
#: Functions whose slope may be infinite; and what is below every infinite number.
_INFINITE = _STEEP - {"Mul"}
_MOST, _MOST_OF_HALVES = 3e38, 65504.0
#: Where dx is smaller, the slope stands in for dy / dx.
_SMALL, _SMALL_OF_DOUBLES, _SMALLEST = 1e-4, 1e-7, 1e-10
#: What share of y has to have changed for dy to be known well.
_KNOWN_CHANGE = 1e-3
#: Stands for a way of no length, which is not divided by.
_NO_WAY, _NO_WAY_OF_HALVES = 1e-30, 1e-7
#: Operators whose result is the same for all finite tensors of one size.
_THE_SAME = frozenset({"Shape", "Size", "IsNaN"})


@dataclasses.dataclass(frozen=True)
class Rescale:
    """Writes DeepLIFT's backward pass; see `base.BackwardPass`.

    What arrives at a place is its attribution: the multiplier times the difference.

    With several baselines it is the mean over all of them: one Scan, whose body holds the backward
    pass from one.

    Attributes:
        baseline: what the explained tensors are in the reference.
    """

    baseline: Baseline

    def __call__(
        self,
        builder: Builder,
        seeds: Mapping[ir.Value, ir.Value],
        places: Sequence[ir.Value],
        about: Mapping[ir.Value, Place] | None = None,
    ) -> list[ir.Value | None]:
        """Returns the attribution of each place, None where nothing arrives."""
        known = {place: (about or {}).get(place, Place()) for place in places}
        count = count_of(self.baseline, list(known.values()))
        if count is None:
            return _attributions(builder, seeds, self._values(builder, known), known)
        loop = StepWriter(builder)
        loop.body.forward = builder.forward
        each = _attributions(loop.body, seeds, self._values(builder, known, loop), known)
        found = [v for v in each if v is not None]
        sums = [loop.carry(builder.zeros_like(p)) for p, v in zip(places, each, strict=True) if v]
        totals, _ = loop.finish(
            [loop.body.add(s, v) for s, v in zip(sums, found, strict=True)], invariant=True
        )
        means = iter([builder.mul(total, 1 / count) for total in totals])
        return [None if v is None else next(means) for v in each]

    def _values(
        self, builder: Builder, known: Mapping[ir.Value, Place], loop: StepWriter | None = None
    ) -> dict[ir.Value, ir.Value | float]:
        """Returns the baseline of each place, which broadcasts to it; in a loop that of a step."""
        ops = OnnxOperations(builder)
        values: dict[ir.Value, ir.Value | float] = {}
        for place, named in known.items():
            value = written(ops, self.baseline, place, named)
            if loop is not None and is_several(baseline_of(self.baseline, named), named):
                value = loop.read(value, backwards=False) if isinstance(value, ir.Value) else value
            values[place] = value
        return values


def _attributions(
    builder: Builder,
    seeds: Mapping[ir.Value, ir.Value],
    baselines: Mapping[ir.Value, ir.Value | float],
    about: Mapping[ir.Value, Place],
) -> list[ir.Value | None]:
    """Writes the backward pass from one reference; returns the attribution of each place."""
    reference = Reference.written(builder, seeds, baselines, about)
    places = list(baselines)
    found = reference.multipliers(builder, seeds, places)
    return [
        None if m is None else builder.mul(m, reference.difference(builder, place))
        for m, place in zip(found, places, strict=True)
    ]


@dataclasses.dataclass(frozen=True)
class Reference:
    """The forward pass where the explained tensors are at their baseline.

    Attributes:
        copies: value -> what it is there, for all values that may differ.
    """

    copies: Mapping[ir.Value, ir.Value]
    _differences: dict[ir.Value, ir.Value] = dataclasses.field(default_factory=dict)

    @staticmethod
    def written(
        builder: Builder,
        seeds: Mapping[ir.Value, ir.Value],
        baselines: Mapping[ir.Value, ir.Value | float],
        about: Mapping[ir.Value, Place],
    ) -> Reference:
        """Writes that forward pass.

        Args:
            builder: where the nodes go.
            seeds: the scores.
            baselines: the explained tensors, and what each is there.
            about: what is known of them.

        One sample stands for all where nothing else in it depends on the request: with a fixed
        baseline it is a constant then, which a runtime computes when it opens the graph. Where
        a value has the samples joined with another axis, as the heads of attention are in some
        graphs, one sample does not broadcast to all: the pass has the whole batch then.
        """
        graph, places = builder.forward, list(baselines)
        held = held_masks(graph, places)
        nodes = nodes_from(graph, places, seeds, held)
        made = {v for node in nodes for v in node.outputs}
        read = {v for node in nodes for v in inputs_of(node)} - made - set(places)
        request = depending_on(graph, graph.inputs)
        blurred = any(_depends(v, request) for v in baselines.values())
        alone = not blurred and not (read & request)
        batch = {_batch_size(place, about) for place in places}
        name = batch.pop() if alone and len(batch) == 1 else None
        if not all(_has_samples_apart(v, name) for node in nodes for v in node.outputs):
            name = None
        one = {name: 1} if isinstance(name, str) else {}

        def rename(size: Dim) -> Dim:
            return one.get(size, size) if isinstance(size, str) else size

        copies = {p: _filled(builder, p, v, rename) for p, v in baselines.items()}
        for node in nodes:
            copy_node(builder, node, copies, rename)
        differing = depending_on(graph, places, [*_the_same(graph), *held])
        return Reference({v: c for v, c in copies.items() if v in differing})

    def moves(self, value: ir.Value | None) -> bool:
        """Tells whether a value may differ from its reference."""
        return value is not None and value in self.copies

    def of(self, value: ir.Value) -> ir.Value:
        """Returns what a value is in the reference."""
        return self.copies.get(value, value)

    def difference(self, b: Builder, value: ir.Value) -> ir.Value:
        """Returns a value minus its reference, in the value's shape."""
        if value not in self._differences:
            shape = shape_of(value)
            self._differences[value] = b.elementwise("Sub", value, self.of(value), shape=shape)
        return self._differences[value]

    def middle(self, b: Builder, value: ir.Value) -> ir.Value:
        """Returns the mean of a value and its reference."""
        total = b.elementwise("Add", value, self.of(value), shape=shape_of(value))
        return b.mul(total, 0.5)

    # -- rules -----------------------------------------------------------------------------

    def multipliers(
        self,
        builder: Builder,
        seeds: Mapping[ir.Value, ir.Value],
        places: Sequence[ir.Value],
    ) -> list[ir.Value | None]:
        """Writes the backward pass; returns the multiplier of each place, None for 0."""
        rules = {key: self.rule_of(key) for key in (*RULES, *_PASSED)}
        blocking = [key for key in BLOCKING if key not in _PASSED]
        return gradients(builder, seeds, places, rules, blocking)

    def rule_of(self, key: str) -> Rule:
        """Returns the rule of an operator."""

        def rule(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
            moving = [v for v in dict.fromkeys(inputs_of(node)) if self.moves(v)]
            if key == _ROUNDED and (x := node.inputs[1]) is not None:
                yield x, self._rescaled(walk, FunctionOfOne(x, (node,)), given(dy))
                return
            function = self._function(walk, node, moving)
            if function is not None:
                yield function.entry, self._rescaled(walk, function, given(dy))
                return
            for value in moving:
                if value not in walk.wanted:
                    raise Refused(
                        "what it reads depends on what is explained through a comparison, a "
                        "position, a rounding or a stopped gradient, which have no DeepLIFT rule"
                    )
            yield from self._by_kind(key, walk, node, dy, moving)

        return rule

    def _by_kind(
        self, key: str, walk: Walk, node: ir.Node, dy: Dys, moving: list[ir.Value]
    ) -> Gradients:
        first = node.inputs[0] if node.inputs else None
        if key in _PASSED and first is not None:
            yield first, given(dy)
        elif key in _LINEAR or scattered(node) or (key in _LINEAR_IN_FIRST and moving == [first]):
            yield from RULES[key](plainly(walk), node, dy)
        elif key in _BILINEAR:
            yield from self._bilinear(walk, node, dy, moving)
        elif key == "Div":
            yield from self._quotient(walk, node, given(dy), moving)
        elif key in _ELEMENTWISE and len(moving) == 1 and node.inputs.count(moving[0]) == 1:
            yield moving[0], self._rescaled(walk, FunctionOfOne(moving[0], (node,)), given(dy))
        elif key in _ELEMENTWISE and len(moving) == 2 and len(node.inputs) == 2:
            yield from self._of_two(walk, node, given(dy), moving)
        elif key in _OWN and moving == [first]:
            yield moving[0], _OWN[key](self, walk, node, given(dy))
        elif key in _OF_SEVERAL:
            yield from _OF_SEVERAL[key](self, walk, node, dy, moving)
        elif key in _MAXIMA or scattered_extreme(node):
            yield from self._maximum(walk, node, given(dy), moving)
        elif is_loop(node):
            yield from RULES[key](walk.into(_InSteps, reference=self), node, dy)
        else:
            raise Refused("it has no DeepLIFT rule in this use")

    def _function(
        self, walk: Walk, node: ir.Node, moving: Sequence[ir.Value]
    ) -> FunctionOfOne | None:
        """Returns the function of one tensor that is spelled in several nodes and ends in one."""
        if len(moving) < 2 and node.inputs.count(moving[0] if moving else None) < 2:
            return None
        function = function_at(walk, node)
        return function if function is not None and self.moves(function.entry) else None

    def _rescaled(self, walk: Walk, function: FunctionOfOne, g: ir.Value) -> ir.Value:
        """Writes g dy / dx, or g times the slope where dx is next to nothing.

        With n = 1 where dx is next to nothing, else 0, that is `g (dy + n slope) / (dx + n)`:
        what g is multiplied by stands apart, so that g keeps the layout of convolutions.
        In the element type of x, where the function casts on its way.
        """
        b, x, y = walk.builder, function.entry, function.result
        single = function.nodes[0] if len(function.nodes) == 1 else None
        if single is not None and key_of(single) == "Relu":
            return b.mul(g, self._share_above_zero(b, x))
        kind = dtype_of(x)
        dx, dy = self.difference(b, x), b.cast(self.difference(b, y), kind)
        exact = single is not None and key_of(single) in _EXACT
        alike = shape_of(x) is not None and shape_of(x) == shape_of(y)
        small = _small(x)
        bound: ir.Value | float = _SMALLEST if exact else small
        if single is not None and key_of(single) in _STEEP and alike:
            bound = b.where(self._hardly_changes(b, y), small, b.scalar(_NO_WAY, x))
        near = b.elementwise("LessOrEqual", b.op("Abs", dx, shape=dx), bound)
        if alike:
            there = b.cast(near, kind)
            change = b.add(dy, _sloped(walk, function, b.cast(there, dtype_of(y))))
            ratio = b.elementwise("Div", change, b.add(dx, there), shape=shape_of(x))
            return b.mul(b.cast(g, kind), ratio)
        ratio = b.elementwise("Div", dy, b.where(near, 1.0, dx), shape=shape_of(y))
        rescaled = b.unbroadcast(b.mul(b.cast(g, kind), ratio), x)
        return b.where(near, _sloped(walk, function, g), rescaled)

    def _hardly_changes(self, b: Builder, y: ir.Value) -> ir.Value:
        """Tells where rounding may be seen in y - y'."""
        sizes = [b.elementwise("Abs", v) for v in (y, self.of(y))]
        least = b.mul(b.elementwise("Add", *sizes, shape=shape_of(y)), _KNOWN_CHANGE)
        dy = self.difference(b, y)
        return b.elementwise("LessOrEqual", b.op("Abs", dy, shape=dy), least)

    def _share_above_zero(self, b: Builder, x: ir.Value) -> ir.Value:
        """Returns dy / dx of a ReLU: how much of the way from x' to x lies above 0.

        `p / (p - q)` with `p = max(x, x', 0)` and `q = min(x, x', 0)`. Where all are 0 it is 0.
        """
        there, shape = self.of(x), shape_of(x)
        high = b.elementwise("Max", there, 0.0)
        no_way = _NO_WAY_OF_HALVES if dtype_of(x) == ir.DataType.FLOAT16 else _NO_WAY
        low = b.elementwise("Min", there, -no_way)
        high = b.elementwise("Max", x, high, shape=shape)
        low = b.elementwise("Min", x, low, shape=shape)
        return b.elementwise("Div", high, b.elementwise("Sub", high, low, shape=shape), shape=shape)

    def _bilinear(self, walk: Walk, node: ir.Node, dy: Dys, moving: list[ir.Value]) -> Gradients:
        factors = [v for v in node.inputs[:2] if self.moves(v)]
        if key_of(node) == "Einsum":
            factors = [v for v in node.inputs if self.moves(v)]
        if len(factors) < 2:
            yield from RULES[key_of(node)](walk, node, dy)
            return
        added = {v for v in node.inputs[2:] if v is not None and key_of(node) == "Gemm"}
        if len(factors) > 2 or any(v not in factors and v not in added for v in moving):
            raise Refused("it multiplies more than two tensors that depend on what is explained")
        b = walk.builder
        stands = [self.middle(b, v) if self.moves(v) and i < 2 else v
                  for i, v in enumerate(node.inputs) if v is not None]  # fmt: skip
        clone = standing_apart(node, stands)
        only = dataclasses.replace(walk, wanted={*stands[:2], *(added & set(moving))})
        back = {id(stand): v for stand, v in zip(stands, node.inputs, strict=False)}
        for stand, gradient in RULES[key_of(node)](only, clone, dy):
            value = back[id(stand)]
            if value is not None:
                yield value, gradient

    def _quotient(
        self, walk: Walk, node: ir.Node, g: ir.Value, moving: Sequence[ir.Value]
    ) -> Gradients:
        """Div by what changes: a times 1 / b, the inverse by dy / dx."""
        b, (x, by) = walk.builder, [v for v in node.inputs if v is not None]
        if x in moving:
            inverse = b.add(b.div(1.0, by), b.div(1.0, self.of(by)))
            yield x, b.unbroadcast(b.mul(g, b.mul(inverse, 0.5)), x)
        square = b.elementwise("Mul", by, self.of(by), shape=shape_of(by))
        above = self.middle(b, x) if x in moving else x
        yield by, b.unbroadcast(b.neg(b.div(b.mul(g, above), square)), by)

    def _of_two(
        self, walk: Walk, node: ir.Node, g: ir.Value, moving: Sequence[ir.Value]
    ) -> Gradients:
        """Shapley's value of each of two operands, over its difference."""
        b, (first, second), y = walk.builder, moving, node.outputs[0]
        mixed: dict[ir.Value, ir.Value] = {}
        for value in (first, second):  # that one at its reference, the other as it is
            copies = {value: self.of(value)}
            copy_node(b, node, copies)
            mixed[value] = copies[y]
        plain = dict(RULES[key_of(node)](walk, node, [g]))
        for value, other in ((first, second), (second, first)):
            ahead = b.sub(y, mixed[value])
            behind = b.sub(mixed[other], self.of(y))
            share = b.mul(b.add(ahead, behind), 0.5)
            dx = self.difference(b, value)
            bound = _SMALLEST if key_of(node) in _EXACT else _small(value)
            near = b.elementwise("LessOrEqual", b.op("Abs", dx, shape=dx), bound)
            total = b.unbroadcast(b.mul(g, b.div(share, b.where(near, 1.0, dx))), value)
            yield value, b.where(near, plain.get(value, b.zeros_like(value)), total)

    def _softmax(self, walk: Walk, node: ir.Node, g: ir.Value) -> ir.Value:
        b, y = walk.builder, node.outputs[0]
        x = node.inputs[0]
        axis = axis_of(node, y, -1)
        if x is None:
            raise Refused("it has no input")
        logs = key_of(node) == "LogSoftmax"
        here, there = (
            (y, self.of(y)) if logs else (_log_softmax(b, v, axis) for v in (x, self.of(x)))
        )
        p, q = (
            (b.elementwise("Exp", here), b.elementwise("Exp", there)) if logs else (y, self.of(y))
        )
        mean = logarithmic_mean(b, (p, q), (here, there))
        total = b.reduce_sum(mean, [axis], keepdims=True)
        if logs:
            weights = b.div(mean, total)
            return b.sub(g, b.mul(weights, b.reduce_sum(g, [axis], keepdims=True)))
        inner = b.div(b.reduce_sum(b.mul(g, mean), [axis], keepdims=True), total)
        found = b.mul(mean, b.sub(g, inner))
        if not any(use.node.op_type == "IsNaN" for use in y.uses()):
            return found
        # The model itself puts something in the place of rows of which a mask leaves nothing.
        return b.where(b.op("IsNaN", y, shape=y, dtype=ir.DataType.BOOL), 0.0, found)

    def _maximum(
        self, walk: Walk, node: ir.Node, g: ir.Value, moving: Sequence[ir.Value]
    ) -> Gradients:
        """What y has more than y' goes to where y comes from, what it has less to where y' does."""
        b, y = walk.builder, node.outputs[0]
        dy = self.difference(b, y)
        copies = {
            x: b.elementwise("Add", b.zeros_like(x), self.of(x), shape=shape_of(x)) for x in moving
        }
        back = {copies[x]: x for x in moving}
        copy_node(b, node, copies)
        there = copies[y].producer()
        if there is None:
            raise Refused("it has no reference")
        least = key_of(node) in _MINIMA or scattered_extreme(node) == "min"
        least = least or not attribute(node, "largest", 1)
        more = b.op("Relu", b.neg(dy) if least else dy, shape=dy)
        less = b.sub(dy, b.neg(more) if least else more)
        more = b.neg(more) if least else more
        total: dict[ir.Value, ir.Value] = {}
        for at, change in ((node, more), (there, less)):
            arrived: list[ir.Value | None] = [None] * len(at.outputs)
            arrived[0] = b.mul(g, change)
            only = dataclasses.replace(walk, wanted={*moving, *back})
            for value, gradient in RULES[key_of(node)](only, at, arrived):
                x = back.get(value, value)
                total[x] = b.add(total[x], gradient) if x in total else gradient
        for x, gradient in total.items():
            dx = self.difference(b, x)
            still = b.elementwise("Equal", dx, 0.0)
            yield x, b.where(still, 0.0, b.div(gradient, b.where(still, 1.0, dx)))

    def _one_of_all(
        self, walk: Walk, node: ir.Node, dy: Dys, moving: Sequence[ir.Value]
    ) -> Gradients:
        """The one largest or smallest; positions have no multiplier."""
        count = constant_of(node.inputs[1])
        if count is None or np.any(count != 1):
            raise Refused(
                "it sorts several elements, of which DeepLIFT has no rule; wrt= a layer behind it, "
                "integrated gradients and expected gradients work"
            )
        yield from self._maximum(walk, node, given(dy), moving)

    def _sampled(self, walk: Walk, node: ir.Node, dy: Dys, moving: Sequence[ir.Value]) -> Gradients:
        """A picture at places that change: see `rescaled_sampling`."""
        b, (x, at) = walk.builder, [v for v in node.inputs if v is not None]
        places = (at, b.elementwise("Add", b.zeros_like(at), self.of(at), shape=shape_of(at)))
        middle = self.middle(b, x) if x in moving else x
        sampled = Sampled(walk, node, given(dy), x, places, middle, _small(at))
        if x in moving:
            yield x, sampled.of_picture()
        yield at, sampled.of_places()

    def _cells(self, walk: Walk, node: ir.Node, dy: Dys, moving: Sequence[ir.Value]) -> Gradients:
        """LSTM, GRU and RNN: see `recurrent`."""
        copies = [self.of(v) for v in node.outputs if self.moves(v)]
        there = copies[0].producer() if copies else None
        if there is None:
            raise Refused("it has no reference")
        for value, found in multipliers(walk.builder, node, there, dy, set(moving)):
            if value in walk.wanted:
                yield value, found

    def _reduced(self, walk: Walk, node: ir.Node, g: ir.Value) -> ir.Value:
        """A function of a sum of functions: see `rescaled_reductions`."""
        b, x, y = walk.builder, node.inputs[0], node.outputs[0]
        if x is None:
            raise Refused("it has no input")
        axes = reduced_axes(node, x)
        results = [with_reduced_axes(b, node, v, axes) for v in (y, self.of(y))]
        pair = ReducedPair(b, (x, self.of(x)), (results[0], results[1]))
        return b.mul(with_reduced_axes(b, node, g, axes), MULTIPLIERS[key_of(node)](pair))

    def _by_length(self, walk: Walk, node: ir.Node, g: ir.Value) -> ir.Value:
        """x over its length: a quotient, whose divisor is a reduction.

        One over the lengths l and l' differs by -1 / (l l') a length; where one of them is 0, which
        what it divides is as well, by the other as it stands, over the other length.
        """
        b, x, y = walk.builder, node.inputs[0], node.outputs[0]
        if x is None:
            raise Refused("it has no input")
        operator = "ReduceL2" if int(attribute(node, "p", 2)) == 2 else "ReduceL1"
        axes = [axis_of(node, y, -1)]
        here, there = (b.reduce(operator, v, axes, True) for v in (x, self.of(x)))
        pair = ReducedPair(b, (x, self.of(x)), (here, there))
        ones = [pair.over(b.add(b.zeros_like(v), 1.0), v) for v in (here, there)]
        through = b.mul(g, b.mul(pair.total(*ones), 0.5))
        both = b.elementwise("Mul", *ones, shape=shape_of(here))
        alone = pair.total(*(b.mul(one, one) for one in ones))
        steep = b.where(b.elementwise("Equal", both, 0.0), alone, b.neg(both))
        to_length = b.mul(b.reduce_sum(b.mul(g, self.middle(b, x)), axes, True), steep)
        return b.add(through, b.mul(to_length, MULTIPLIERS[operator](pair)))

    def _normalised(self, walk: Walk, node: ir.Node, g: ir.Value) -> ir.Value:
        """The centred tensor times 1 / sqrt(variance + epsilon), times a scale, plus a shift."""
        b = walk.builder
        own = Normalisation.of(b, node)
        g = own.grouped(b, b.mul(g, own.scale))
        x, x_there = (own.grouped(b, v) for v in (own.x, self.of(own.x)))
        centred, deviation = own.statistics(b, x)
        centred_there, deviation_there = own.statistics(b, x_there)
        s, s_there = b.div(1.0, deviation), b.div(1.0, deviation_there)
        middle_c = b.mul(b.elementwise("Add", centred, centred_there, shape=shape_of(x)), 0.5)
        # d(1 / s) / d(variance) = -1 / (s s' (s + s')), s the deviations
        steep = b.neg(b.div(b.mul(s, s_there), b.add(deviation, deviation_there)))
        to_scale = b.reduce_sum(b.mul(g, middle_c), own.axes, keepdims=True)
        to_variance = b.mul(to_scale, steep)
        through = b.mul(g, b.mul(b.add(s, s_there), 0.5))
        # dv = mean(dc (c + c')), of which each element has its share
        inner = b.add(
            through, b.mul(_over_count(b, to_variance, x, own.axes), b.mul(middle_c, 2.0))
        )
        return own.whole(b, b.sub(inner, own.mean(b, inner)) if own.centred else inner)


#: Operators of one tensor that is not taken element by element -> what writes its multiplier.
_OWN: Mapping[str, Callable[[Reference, Walk, ir.Node, ir.Value], ir.Value]] = {
    "Softmax": Reference._softmax,
    "LogSoftmax": Reference._softmax,
    "LpNormalization": Reference._by_length,
    **dict.fromkeys(MULTIPLIERS, Reference._reduced),
    **dict.fromkeys(NORMALISATIONS, Reference._normalised),
}


#: Operators of several tensors or outputs -> what writes the multipliers of all that change.
_OF_SEVERAL: Mapping[
    str, Callable[[Reference, Walk, ir.Node, Dys, Sequence[ir.Value]], Gradients]
] = {
    "TopK": Reference._one_of_all,
    "GridSample": Reference._sampled,
    **dict.fromkeys(RECURRENT, Reference._cells),
}


def _small(x: ir.Value) -> float:
    """Returns the difference below which a quotient of differences is all rounding."""
    return _SMALL_OF_DOUBLES if dtype_of(x) == ir.DataType.DOUBLE else _SMALL


def _sloped(walk: Walk, function: FunctionOfOne, g: ir.Value) -> ir.Value:
    """Writes g times the slope of a function, 0 where it has none, or an infinite one.

    Where that is, of the root of 0 say, nothing has changed, and there is nothing to pass on.
    """
    found, b = sloped(walk, function, g), walk.builder
    if found is None:
        return b.zeros_like(function.entry)
    if not any(key_of(node) in _INFINITE for node in function.nodes):
        return found
    most = _MOST_OF_HALVES if dtype_of(found) == ir.DataType.FLOAT16 else _MOST
    size = b.op("Abs", found, shape=found)
    return b.where(b.elementwise("LessOrEqual", size, most), found, 0.0)


def _over_count(b: Builder, value: ir.Value, x: ir.Value, axes: Sequence[int]) -> ir.Value:
    """Returns a value over the number of elements along some axes of x."""
    for axis in axes:
        size = b.cast(b.size(x, axis), value.dtype or ir.DataType.FLOAT)
        value = b.elementwise("Div", value, size, shape=shape_of(value))
    return value


def _log_softmax(b: Builder, x: ir.Value, axis: int) -> ir.Value:
    """Returns the logarithm of a softmax, which is a number where the softmax itself is 0."""
    return b.op("LogSoftmax", x, shape=x, axis=axis)


def _depends(value: ir.Value | float, request: Collection[ir.Value]) -> bool:
    """Tells whether a baseline is made of the request: a blurred input."""
    if not isinstance(value, ir.Value):
        return False
    pending, seen = [value], set()
    while pending:
        one = pending.pop()
        node = one.producer()
        if one in request:
            return True
        if node is not None and node not in seen:
            seen.add(node)
            pending.extend(v for v in node.inputs if v is not None)
    return False


def _batch_size(place: ir.Value, about: Mapping[ir.Value, Place]) -> Dim:
    """Returns what is known of how many samples a tensor holds."""
    names = about[place].axes
    return dims_of(place)[names.index(BATCH)] if BATCH in names else None


def _has_samples_apart(value: ir.Value, batch: Dim) -> bool:
    """Tells whether a value has an axis that is the samples and nothing else."""
    shape = shape_of(value)
    return shape is not None and batch in shape


def _filled(
    b: Builder, place: ir.Value, baseline: ir.Value | float, rename: Callable[[Dim], Dim]
) -> ir.Value:
    """Returns a baseline in the shape of a place, of one sample where that does."""
    sizes = [rename(d) for d in dims_of(place)]
    given_sizes = [d if isinstance(d, int) else (place, i) for i, d in enumerate(sizes)]
    zeros = b.zeros(given_sizes, place.dtype or ir.DataType.FLOAT)
    if not isinstance(baseline, ir.Value):
        return b.add(zeros, baseline)
    return b.elementwise("Add", zeros, baseline, shape=sizes)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _InSteps(Walk):
    """A walk that goes into a loop, whose steps are read beside those of the reference's.

    Attributes:
        reference: of the graph around it.
    """

    reference: Reference

    def beside(self, loop: ir.Node) -> tuple[ir.Node, Mapping[ir.Value, ir.Value]]:
        """Returns the loop of the reference, and what may differ in its steps.

        Raises:
            Refused: it has none.
        """
        copies = [self.reference.of(v) for v in loop.outputs if self.reference.moves(v)]
        there = copies[0].producer() if copies else None
        if there is None:
            raise Refused("it has no reference")
        same = zip(_values_of(body_of(loop)), _values_of(body_of(there)), strict=True)
        moved = self._moved(iteration_of(loop))
        return there, {value: other for value, other in same if value in moved}

    def _moved(self, iteration: Iteration) -> set[ir.Value]:
        """Returns the values of a body that may differ in the reference, in whatever step."""
        moves, body = self.reference.moves, iteration.body
        starts = {v for v in captured_values(body) if moves(v)}
        starts |= {s.entering for s in iteration.scan_inputs if moves(s.sequence)}
        starts |= {s.entering for s in iteration.states if moves(s.initial)}
        same = _the_same(body)
        return iteration.in_any_step(starts, lambda some: depending_on(body, some, same))

    def inside(
        self,
        builder: Builder,
        seeds: Mapping[ir.Value, ir.Value],
        sources: Sequence[ir.Value],
        beside: Mapping[ir.Value, ir.Value] = MappingProxyType({}),
    ) -> list[ir.Value | None]:
        """Writes the multipliers of a step."""
        reference = Reference({**self.reference.copies, **beside})
        return reference.multipliers(builder, seeds, sources)


def _the_same(graph: ir.Graph) -> list[ir.Node]:
    """Returns the nodes of a graph whose results are what they are in the reference.

    Those whose results say a size, and `|x| < 0`, which is false of all numbers: the zeros at
    which gradients at states are taken are made of it.
    """
    return [n for n in graph if key_of(n) in _THE_SAME or _is_never(n)]


def _is_never(node: ir.Node) -> bool:
    """Tells whether a node asks which numbers are smaller in size than 0."""
    sizes = node.inputs[0].producer() if key_of(node) == "Less" and node.inputs[0] else None
    bound = constant_of(node.inputs[1]) if sizes is not None and key_of(sizes) == "Abs" else None
    return bound is not None and bool((bound <= 0).all())


def _values_of(body: ir.Graph) -> list[ir.Value]:
    """Returns the inputs of a body and what its nodes make, in an order that copies share."""
    return [*body.inputs, *(v for node in body for v in node.outputs)]
