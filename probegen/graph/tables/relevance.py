"""Layer-wise relevance propagation: relevance in the place of gradients (Bach et al. 2015).

What the walk carries back is relevance R, of the shape of each tensor. It starts as the score, and
the relevance of a node's inputs adds up to that of its output, but for what biases and stabilisers
take. `stab(z)` is z moved away from 0 by a small number.

- layers with stored weights (`Conv`, `ConvTranspose`, `Gemm`, `MatMul`, `Einsum`), with a bias and
  a batch normalisation behind taken into their weights: the rule that is asked for, see `_Layer`.
- sums, means and poolings by the mean: `x * J^T(R / stab(z))`; a constant operand takes its share.
- functions of one tensor and factors that do not change pass R on as it is.
- layer and instance normalisation: one over the deviation is a factor that passes R on; taking the
  mean away, the scale and the shift are linear, of which each term has its share (Achtibat et al.
  2024, sec. 3.3.3). Passed on whole, R would be large where x itself is next to 0.
- RMS normalisation and vectors of length 1: one over the size is a factor, the scale as well, and
  there is no sum, so that R is passed on as it is (ibid.).
- both kinds in pieces, as they are below opset 17 and group normalisations always, are the same;
  see `normalisation_in_pieces`.
- maxima, and all that moves elements: R goes where the element comes from.
- reductions: of a norm by each element's part of the sum of sizes or squares, which is
  `x * J^T(R / stab(y))` again; of the logarithm of a sum by the parts of the sum, since a logarithm
  passes R on.
- quotients by what changes are products with one over it: half of R to each. Products of a
  reduction give each factor as much (Achtibat et al. 2024, sec. 3.3.2).
- recurrent operators (LSTM, GRU, RNN), whatever the rule: see `recurrent`.
- log softmax: `x * J^T(R / stab(y))`, the expansion that gives the softmax's rule (ibid., eq. 13).
- products of two tensors that change, gates (SwiGLU) among them: half of `x * J^T(R / stab(z))` to
  each; with weights that the request makes (latent queries, another input): all of it to the one
  that changes; softmax `x * (R - y * sum(R))` (Achtibat et al. 2024, eqs. 13 and 15).
- loops (`Loop`, `Scan`): a loop back over the same steps, each by these rules. A layer is the first
  where no other comes before it in any step.

Everything else is refused by name.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk, gradients, influenced_by
from probegen.graph.core.builder import Builder
from probegen.graph.core.copying import standing_apart
from probegen.graph.core.queries import RECURRENT, inputs_of, is_float, key_of, sole_reader
from probegen.graph.core.values import attribute, constant_of, dtype_of, rank_of, shape_of
from probegen.graph.loops.iteration import (
    Iteration,
    body_of,
    is_loop,
    iteration_of,
    nodes_with_bodies,
)
from probegen.graph.tables.common import (
    Normalisation,
    function_at,
    plainly,
    scattered,
    scattered_extreme,
)
from probegen.graph.tables.normalisation_in_pieces import (
    InPieces,
    divided_by_own_size,
    normalisation_in_pieces,
)
from probegen.graph.tables.recurrent import relevance
from probegen.graph.vjp import BLOCKING, RULES
from probegen.graph.vjp.common import Dys, Gradients, axis_of, given
from probegen.graph.vjp.masks import above, below
from probegen.methods.samples import Place
from probegen.methods.tables import LayerRule, Relevance

Array = npt.NDArray[Any]

#: Layers with weights: the position of the weights, -1 for either of two.
LAYERS: Mapping[str, int] = {"Conv": 1, "ConvTranspose": 1, "Gemm": -1, "MatMul": -1, "Einsum": -1}
CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})
#: What sends each element's relevance where the element comes from.
_ROUTED = frozenset(
    {
        "Identity", "Cast", "CastLike", "Dropout", "Concat", "Reshape", "Transpose", "Squeeze",
        "Unsqueeze", "Flatten", "Slice", "Split", "Expand", "Tile", "Pad", "DepthToSpace",
        "SpaceToDepth", "ReverseSequence", "Gather", "GatherElements", "GatherND", "Where",
        "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "probegen::Mark", "Trilu", "Compress",
        "MaxUnpool", "TopK", "TensorScatter", "ReduceLogSumExp",
    }
)  # fmt: skip
#: Sums of elements, each with its share.
_SUMS = frozenset(
    {
        "Add", "Sub", "Sum", "Mean", "ReduceSum", "ReduceMean", "AveragePool", "GlobalAveragePool",
        "CumSum", "Resize", "Upsample", "BatchNormalization",
    }
)  # fmt: skip
#: Sums where their first input alone changes, and what has shares as they have: norms, of which
#: each element's is its part of the sum of sizes or of squares.
_SUMS_OF_FIRST = frozenset(
    {
        "GridSample", "RoiAlign", "Col2Im", "DFT", "STFT", "DeformConv", "ReduceL1", "ReduceL2",
        "LpPool", "GlobalLpPool", "LogSoftmax",
    }
)  # fmt: skip
#: Of several tensors, they send relevance to the one that the element comes from.
_LARGEST = frozenset({"Max", "Min"})
_NORMALISATIONS = frozenset({"LayerNormalization", "InstanceNormalization"})
#: Those that take no mean away: they pass relevance on as it is.
_BY_SIZES = frozenset({"RMSNormalization", "LpNormalization", "LRN"})
#: Rules that give relevance to inputs of 0.
_NOT_SHARES = frozenset({"wsquare", "flat", "zbox"})
#: What passes relevance on as it is, where one input changes.
_PASSED = frozenset(
    {
        "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Celu", "Clip", "Cos", "Cosh",
        "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Max",
        "Min", "Mish", "Mod", "Mul", "Neg", "Pow", "PRelu", "Reciprocal", "Relu", "Selu", "Shrink",
        "Sigmoid", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh",
        "ThresholdedRelu", "probegen.composite::Gelu", "probegen::StraightThrough",
    }
)  # fmt: skip

#: What nodes and values of a loop's body carry in memory, and their copies with them: that a layer
#: has none before it, and that a value goes out of the step.
_FIRST, _GIVEN_OUT = "probegen.first_layer", "probegen.given_out"


@dataclasses.dataclass(frozen=True)
class Propagation:
    """Writes a backward pass of relevance; see `base.BackwardPass`.

    Attributes:
        table: the rules of layers.
    """

    table: Relevance

    def __call__(
        self,
        builder: Builder,
        seeds: Mapping[ir.Value, ir.Value],
        places: Sequence[ir.Value],
        about: Mapping[ir.Value, Place] | None = None,
    ) -> list[ir.Value | None]:
        """Returns the relevance of each place, None where none arrives."""
        del about
        starts = {scores: builder.mul(scores, seed) for scores, seed in seeds.items()}
        changing = influenced_by(builder.forward, places, BLOCKING)
        rules = _Relevance(self.table, changing, first_layers(builder.forward)).rules()
        return gradients(builder, starts, places, rules, BLOCKING)


def first_layers(graph: ir.Graph) -> set[ir.Node]:
    """Returns the layers with weights that no other one comes before, those of loops too."""
    return _first_layers(graph, set())


def _first_layers(graph: ir.Graph, behind: set[ir.Value]) -> set[ir.Node]:
    """Returns the first layers; adds to `behind` what comes behind a layer."""
    found: set[ir.Node] = set()
    for node in graph:
        if is_loop(node):
            found |= _first_in_steps(iteration_of(node), behind)
            continue
        after = any(v in behind for v in inputs_of(node))
        weighted = key_of(node) in LAYERS and weights_of(node) is not None
        if weighted and not after:
            found.add(node)
        if weighted or after:
            behind.update(node.outputs)
    return found


def _first_in_steps(iteration: Iteration, behind: set[ir.Value]) -> set[ir.Node]:
    """Returns the first layers of a loop: a state has all behind it that any step has done."""
    states = iteration.states
    entering = {s.entering for s in states if s.initial in behind}
    entering |= {s.entering for s in iteration.scan_inputs if s.sequence in behind}

    def behind_in_a_step(some: set[ir.Value]) -> set[ir.Value]:
        inside = behind | some
        _first_layers(iteration.body, inside)
        return inside

    inside = iteration.in_any_step(entering, behind_in_a_step)
    found = _first_layers(iteration.body, inside)
    behind |= {s.final for s in states if s.leaving in inside or s.initial in behind}
    behind |= {s.stacked for s in iteration.scan_outputs if s.leaving in inside}
    return found


def _only_reader(value: ir.Value) -> ir.Node | None:
    """Returns what alone reads a value; None for what a step gives out, in copies of it too."""
    return None if value.meta.get(_GIVEN_OUT, False) else sole_reader(value)


def weights_of(node: ir.Node) -> int | None:
    """Returns which input of a node holds stored weights, None where none does, or both do."""
    at = LAYERS.get(key_of(node))
    if at is None or len(node.inputs) < 2:
        return None
    stored = [i for i in (0, 1) if constant_of(node.inputs[i]) is not None]
    if len(stored) != 1 or (at >= 0 and stored != [at]):
        return None
    if key_of(node) == "Einsum" and len(node.inputs) != 2:
        return None
    biases = node.inputs[2:] if key_of(node) == "Gemm" else ()
    if any(v is not None and constant_of(v) is None for v in biases):
        return None  # a sum of a product and of another tensor
    return stored[0]


def affine_behind(node: ir.Node) -> tuple[list[ir.Node], Array, Array]:
    """Returns the sums and factors behind a layer that only it feeds, and what they do together.

    Returns:
        The nodes, in order; the factor and the shift, which broadcast to the layer's output.
    """
    value = node.outputs[0]
    nodes: list[ir.Node] = []
    factor, shift = np.ones(()), _own_bias(node)
    while True:
        reader = _only_reader(value)
        step = None if reader is None else _affine(reader, value)
        if reader is None or step is None or shape_of(reader.outputs[0]) != shape_of(value):
            return nodes, factor, shift
        if not _is_of_outputs(node, step[0], rank_of(value)):
            return nodes, factor, shift
        factor, shift = factor * step[0], shift * step[0] + step[1]
        nodes.append(reader)
        value = reader.outputs[0]


def _own_bias(node: ir.Node) -> Array:
    """Returns the bias that a layer has as an input of its own, in the form of its output."""
    bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None:
        return np.zeros(())
    wide = np.asarray(bias, np.float64)
    if key_of(node) == "Gemm":
        return wide * float(attribute(node, "beta", 1.0))
    return wide.reshape([1, -1, *[1] * (rank_of(node.outputs[0]) - 2)])


def _is_of_outputs(node: ir.Node, factor: Array, rank: int) -> bool:
    """Tells whether a factor is one number, or one for each output of a layer."""
    if factor.size == 1:
        return True
    form = (1,) * (rank - factor.ndim) + factor.shape
    wide = [i for i, size in enumerate(form) if size != 1]
    if key_of(node) == "Conv":
        return wide == [1]
    return key_of(node) in ("MatMul", "Gemm") and weights_of(node) == 1 and wide == [rank - 1]


def _affine(node: ir.Node, value: ir.Value) -> tuple[Array, Array] | None:
    """Returns the constant factor and shift of a node that only scales and shifts a value."""
    key = key_of(node)
    if key == "BatchNormalization" and node.inputs[0] is value:
        known = [constant_of(v) for v in node.inputs[1:5]]
        if any(a is None for a in known):
            return None
        scale, bias, mean, variance = (np.asarray(a, np.float64) for a in known)
        form = [1, -1, *[1] * (rank_of(value) - 2)]
        factor = scale / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
        return factor.reshape(form), (bias - mean * factor).reshape(form)
    if key not in ("Add", "Sub", "Mul") or len(node.inputs) != 2:
        return None
    other = constant_of(node.inputs[1 if node.inputs[0] is value else 0])
    if other is None or (key == "Sub" and node.inputs[0] is not value):
        return None
    wide = np.asarray(other, np.float64)
    if key == "Mul":
        return wide, np.zeros(())
    return np.ones(()), -wide if key == "Sub" else wide


@dataclasses.dataclass(frozen=True)
class _Relevance:
    """The rules of one walk.

    Attributes:
        table: the rules of layers.
        changing: the values that depend on what is explained.
        first: the layers that no other one comes before.
    """

    table: Relevance
    changing: set[ir.Value]
    first: set[ir.Node]

    @property
    def by_shares(self) -> bool:
        """True where what is 0 has no relevance, whatever layer reads it."""
        return not {self.table.dense.kind, self.table.convolution.kind} & _NOT_SHARES

    def rules(self) -> dict[str, Rule]:
        """Returns the rules of all operators."""
        return {key: self.rule_of(key) for key in RULES}

    def rule_of(self, key: str) -> Rule:
        """Returns the rule of an operator."""

        def rule(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
            if is_loop(node):
                yield from self._steps(walk, node, dy)
                return
            layer = self._layer_before(walk, node)
            if layer is not None:
                yield layer.x, layer.relevance(walk.builder, given(dy), self._rule(layer.node))
                return
            moving = [v for v in dict.fromkeys(inputs_of(node)) if v in self.changing]
            pieces = normalisation_in_pieces(node, walk.asked_for)
            if pieces is not None and pieces.x in walk.wanted:
                yield pieces.x, self._in_pieces(walk.builder, node, pieces, given(dy))
                return
            sized = divided_by_own_size(node) if len(moving) > 1 else None
            if sized is not None and sized in walk.wanted:
                yield sized, walk.builder.unbroadcast(given(dy), sized)
                return
            function = function_at(walk, node) if len(moving) > 1 else None
            if function is not None:
                kind = dtype_of(function.entry)  # another one where it casts on its way
                yield function.entry, walk.builder.cast(given(dy), kind)
                return
            yield from self._by_kind(key, walk, node, dy, moving)

        return rule

    def _steps(self, walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
        """Writes the loop back over the steps of a loop, by these rules in each."""
        body = body_of(node)
        for value in body.outputs:
            value.meta[_GIVEN_OUT] = True
        for one in nodes_with_bodies(body):
            one.meta[_FIRST] = one in self.first
        changing = [v for v in inputs_of(node) if v in self.changing and is_float(v)]
        if any(v not in walk.wanted for v in changing):
            raise Refused("what it reads depends on what is explained in a way without relevance")
        yield from RULES[key_of(node)](walk.into(_InSteps, relevance=self), node, dy)

    def _rule(self, node: ir.Node) -> LayerRule:
        """Returns the rule of a layer: by its place and its kind."""
        if node in self.first and self.table.first is not None:
            only = self.table.first_convolution_only and key_of(node) not in CONVOLUTIONS
            if not only:
                return self.table.first
        return self.table.convolution if key_of(node) in CONVOLUTIONS else self.table.dense

    def _layer_before(self, walk: Walk, node: ir.Node) -> _Layer | None:
        """Returns the layer that a node ends: the node itself, or what it only shifts or scales."""
        at = node
        while key_of(at) not in LAYERS or weights_of(at) is None:
            moving = [v for v in at.inputs if v in self.changing]
            if len(moving) != 1 or _affine(at, moving[0]) is None or moving[0] in walk.asked_for:
                return None
            made_by = moving[0].producer()
            if made_by is None or _only_reader(moving[0]) is not at:
                return None
            at = made_by
        nodes, factor, shift = affine_behind(at)
        ends = [at, *nodes]
        if node not in ends or at.inputs[1 - (weights_of(at) or 0)] not in self.changing:
            return None
        if node is not ends[-1]:  # what is asked for lies between: the rest is passed before
            return (
                None
                if node is not at
                else _Layer(at, [], np.ones(()), _own_bias(at), self.by_shares)
            )
        return _Layer(at, nodes, factor, shift, self.by_shares)

    def _by_kind(
        self, key: str, walk: Walk, node: ir.Node, dy: Dys, moving: list[ir.Value]
    ) -> Gradients:
        b, y = walk.builder, node.outputs[0]
        factors = sum(v in moving for v in node.inputs[: 2 if key == "Gemm" else None])
        if any(v not in walk.wanted for v in moving):
            raise Refused("what it reads depends on what is explained in a way without relevance")
        met = scattered(node)
        routed = met == "none" or key in _ROUTED or scattered_extreme(node) is not None
        if routed or (key in _LARGEST and len(moving) > 1):
            yield from RULES[key](plainly(walk), node, dy)
        elif met == "add" or key in _SUMS or (key in _SUMS_OF_FIRST and moving == [node.inputs[0]]):
            ratio = over(b, given(dy), y, self.table.epsilon, by_shares=self.by_shares)
            yield from self._shares(walk, node, ratio, 1)
        elif len(moving) == 1 and key in _PASSED and node.inputs.count(moving[0]) == 1:
            yield moving[0], b.unbroadcast(given(dy), moving[0])
        elif key in _NORMALISATIONS and moving == [node.inputs[0]]:
            ratio = over(b, given(dy), y, self.table.epsilon, by_shares=self.by_shares)
            yield moving[0], b.mul(moving[0], _centred_and_scaled(b, node, ratio))
        elif (key in _BY_SIZES and moving == [node.inputs[0]]) or (
            key == "Mul" and len(moving) == 1
        ):
            yield moving[0], given(dy)
        elif key in _OWN:
            yield from _OWN[key](self, walk, node, dy)
        elif key == "Div" and len(moving) == 2:
            for value in moving:
                yield value, b.unbroadcast(b.mul(given(dy), 0.5), value)
        elif key in ("Mul", "MatMul", "Einsum", "Gemm"):
            by_shares = self.by_shares and factors == 1
            ratio = over(b, given(dy), y, self.table.epsilon, by_shares=by_shares)
            yield from self._shares(walk, node, ratio, max(factors, 1))
        elif key == "Softmax":
            yield moving[0], _of_softmax(b, node, moving[0], given(dy))
        else:
            raise Refused("it has no rule of relevance in this use")

    def _in_pieces(self, b: Builder, node: ir.Node, pieces: InPieces, r: ir.Value) -> ir.Value:
        """Returns what x has of `(x - mean(x)) * k + shift`, k being a constant."""
        own = over(b, r, node.outputs[0], self.table.epsilon, by_shares=self.by_shares)
        for factor, divides in pieces.factors:
            own = b.div(own, factor) if divides else b.mul(own, factor)
        own = b.sub(own, b.reduce("ReduceMean", own, pieces.axes, True))
        return b.mul(pieces.x, own)

    def _cells(self, walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
        """LSTM, GRU and RNN: see `recurrent`."""
        b = walk.builder
        if self.changing & {v for v in (*node.inputs[1:5], *node.inputs[7:]) if v is not None}:
            raise Refused("what is explained changes its weights")

        def stabilise(z: ir.Value, epsilon: float) -> ir.Value:
            return stabilised(b, z, epsilon)

        for value, found in relevance(b, node, dy, stabilise, self.table.epsilon):
            if value in walk.wanted:
                yield value, found

    def _reduction(self, walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
        """Sums of squares, logarithms of sums, and products."""
        if key_of(node) == "ReduceProd":  # to each factor as much
            yield from RULES["ReduceMean"](walk, node, dy)
        elif key_of(node) == "ReduceLogSum":  # the logarithm passes R on, the sum hands out shares
            yield from self._shares(walk, node, given(dy), 1)
        else:
            y, epsilon = node.outputs[0], self.table.epsilon
            ratio = over(walk.builder, given(dy), y, epsilon, by_shares=self.by_shares)
            yield from self._shares(walk, node, ratio, 2)

    def _shares(self, walk: Walk, node: ir.Node, ratio: ir.Value, parts: int) -> Gradients:
        """Yields x * J^T(R / z) for each input, over the number of factors.

        What a Gemm adds is no factor.
        """
        b = walk.builder
        added = node.inputs[2] if key_of(node) == "Gemm" and len(node.inputs) > 2 else None
        if added in walk.wanted and added is not None and parts > 1:
            factors = dataclasses.replace(walk, wanted=self.changing & {*node.inputs[:2]})
            yield from self._shares(factors, node, ratio, parts)
            walk, parts = dataclasses.replace(walk, wanted={added}), 1
        ratio = ratio if parts == 1 else b.mul(ratio, 1 / parts)
        for value, gradient in RULES[key_of(node)](plainly(walk), node, [ratio]):
            yield value, b.mul(value, gradient)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _InSteps(Walk):
    """A walk that goes into a loop.

    Attributes:
        relevance: the rules of the graph around it.
    """

    relevance: _Relevance

    def inside(
        self,
        builder: Builder,
        seeds: Mapping[ir.Value, ir.Value],
        sources: Sequence[ir.Value],
        beside: Mapping[ir.Value, ir.Value] = MappingProxyType({}),
    ) -> list[ir.Value | None]:
        """Writes the relevance that arrives inside of a step."""
        del beside
        graph = builder.forward
        changing = self.relevance.changing | influenced_by(graph, sources, BLOCKING)
        first = {node for node in nodes_with_bodies(graph) if node.meta.get(_FIRST, False)}
        rules = dataclasses.replace(self.relevance, changing=changing, first=first).rules()
        return gradients(builder, seeds, sources, rules, BLOCKING)


#: Operators with a rule of their own -> what writes it.
_OWN: Mapping[str, Callable[[_Relevance, Walk, ir.Node, Dys], Gradients]] = {
    **dict.fromkeys(("ReduceSumSquare", "ReduceLogSum", "ReduceProd"), _Relevance._reduction),
    **dict.fromkeys(RECURRENT, _Relevance._cells),
}


def _of_softmax(b: Builder, node: ir.Node, x: ir.Value, r: ir.Value) -> ir.Value:
    """Returns `x * (R - y * sum(R))`; 0 where a mask of -inf takes a place out, as y is there."""
    y = node.outputs[0]
    total = b.reduce_sum(r, [axis_of(node, y, -1)], keepdims=True)
    own = b.mul(x, b.sub(r, b.mul(y, total)))
    seen = b.op("Greater", x, b.scalar(-np.inf, x), shape=x, dtype=ir.DataType.BOOL)
    return b.where(seen, own, 0.0)


def _centred_and_scaled(b: Builder, node: ir.Node, g: ir.Value) -> ir.Value:
    """Returns the vector-Jacobian product of a normalisation whose deviation is a constant."""
    own = Normalisation.of(b, node)
    _, deviation = own.statistics(b, own.x)
    inner = b.div(b.mul(g, own.scale), deviation)
    return b.sub(inner, own.mean(b, inner))


def over(
    b: Builder, relevance: ir.Value, z: ir.Value, epsilon: float, *, by_shares: bool
) -> ir.Value:
    """Returns relevance over what it is divided by: stab(z).

    Where only a rectifier reads z, there is relevance where z is positive alone, if everything
    behind hands out shares of its inputs: what the rectifier gives, which is there anyway, takes
    the place of z.

    Relevance that is a product with x, which is z or what alone reads it, is not multiplied out:
    `x g / stab(z)` is `g (x / stab(z))`, which leaves g in the layout of convolutions.
    """
    reader = _only_reader(z)
    behind = reader.outputs[0] if reader is not None else None
    rectified = behind if reader is not None and key_of(reader) == "Relu" else None
    factor = _factor_beside(b, relevance, z)
    if factor is not None:  # z / stab(z) = |z| / (|z| + epsilon)
        size = b.op("Abs", z, shape=z)
        return b.mul(factor, b.div(size, b.add(size, epsilon)))
    factor = None if behind is None else _factor_beside(b, relevance, behind)
    if behind is not None and factor is not None:
        positive = rectified or _size_where_positive(b, z, reader)
        divisor = stabilised(b, z, epsilon) if positive is None else b.add(positive, epsilon)
        return b.mul(factor, b.div(behind, divisor))
    if by_shares and rectified is not None:
        return b.div(relevance, b.add(rectified, epsilon))
    return b.div(relevance, stabilised(b, z, epsilon))


def _size_where_positive(b: Builder, z: ir.Value, reader: ir.Node | None) -> ir.Value | None:
    """Returns |z| where its reader gives 0 for what is negative, which then counts nothing."""
    low = constant_of(reader.inputs[1]) if reader is not None and len(reader.inputs) > 1 else None
    if reader is None or key_of(reader) != "Clip" or low is None or np.any(low):
        return None
    return b.op("Abs", z, shape=z)


def _factor_beside(b: Builder, product: ir.Value, x: ir.Value) -> ir.Value | None:
    """Returns what x is multiplied by in a product, or a sum of products; None for others."""
    pending, factors = [product], []
    while pending:
        node = pending.pop().producer()
        if node is None or node.domain or len(node.inputs) != 2:
            return None
        first, second = node.inputs
        if first is None or second is None:
            return None
        if node.op_type == "Add":
            pending += [second, first]
        elif node.op_type == "Mul" and x in (first, second):
            factors.append(second if first is x else first)
        else:
            return None
        if shape_of(node.outputs[0]) != shape_of(x):
            return None
    if shape_of(x) is None or any(shape_of(factor) != shape_of(x) for factor in factors):
        return None
    return functools.reduce(b.add, factors)


def stabilised(b: Builder, z: ir.Value, epsilon: float) -> ir.Value:
    """Returns z moved away from 0 by epsilon, to the side where it is; upwards at 0."""
    positive = above(b, z, 0.0, inclusive=True)
    return b.add(z, b.sub(b.mul(positive, 2 * epsilon), epsilon))


# -- layers with weights -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A linear layer with stored weights, and the factors and shifts behind it.

    With w the weights times the factor, b the shift, x+ and x- the positive and the negative part
    of x, and `L(x, w)` the layer itself, the rules are those of zennit (Anders et al. 2021):

    - epsilon: `x * J(w)^T(R / stab(z))`, z with the bias (Bach et al. 2015, eq. 58)
    - zplus: the same of `L(x+, w+) + L(x-, w-) + b+` (Montavon et al. 2017)
    - alpha_beta: alpha of that, less beta of `L(x+, w-) + L(x-, w+) + b-` (Bach et al. 2015,
      eq. 60)
    - gamma: with `w + gamma w+` where z is positive, `w + gamma w-` where it is negative
      (Montavon et al. 2019; Andeol et al. 2021 for negative x)
    - wsquare, flat: as if x were 1 and w were its square (with b's), or 1 (Montavon et al. 2017)
    - zbox: of `L(x, w) - L(low, w+) - L(high, w-)` (Montavon et al. 2017)
    """

    node: ir.Node
    behind: list[ir.Node]
    factor: Array
    shift: Array
    by_shares: bool

    @property
    def at(self) -> int:
        """Which input holds the weights."""
        return weights_of(self.node) or 0

    @property
    def x(self) -> ir.Value:
        """What the layer works on."""
        value = self.node.inputs[1 - self.at]
        if value is None:
            raise Refused("it has no input")
        return value

    def relevance(self, b: Builder, relevance: ir.Value, rule: LayerRule) -> ir.Value:
        """Returns the relevance of the layer's input."""
        x, w = self.x, self._weights(b)
        if rule.kind == "epsilon":
            last = (self.behind or [self.node])[-1].outputs[0]
            ratio = over(b, relevance, last, rule.epsilon, by_shares=self.by_shares)
            return b.mul(x, self._back(b, w, ratio))
        if rule.kind in ("wsquare", "flat"):
            ones = b.add(b.zeros_like(x), 1.0)
            square = rule.kind == "wsquare"
            like = b.mul(w, w) if square else b.add(b.mul(w, 0.0), 1.0)
            z = self._forward(b, ones, like, self.shift**2 if square else None)
            return self._back(b, like, b.div(relevance, stabilised(b, z, rule.epsilon)))
        up, down = self._parts(b, w)
        if rule.kind == "zbox":
            low, high = (b.add(b.zeros_like(x), bound) for bound in (rule.low, rule.high))
            z = b.sub(self._forward(b, x, w, None), self._forward(b, low, up, None))
            z = b.sub(z, self._forward(b, high, down, None))
            ratio = b.div(relevance, stabilised(b, z, rule.epsilon))
            found = b.mul(x, self._back(b, w, ratio))
            found = b.sub(found, b.mul(low, self._back(b, up, ratio)))
            return b.sub(found, b.mul(high, self._back(b, down, ratio)))
        more = np.maximum(self.shift, 0), np.minimum(self.shift, 0)
        if rule.kind == "gamma":
            raised, lowered = (b.add(w, b.mul(part, rule.gamma)) for part in (up, down))
            z = (self.behind or [self.node])[-1].outputs[0]
            biases = [self.shift + rule.gamma * part for part in more]
            sides = (
                (raised, lowered, biases[0], b.mul(relevance, above(b, z, 0.0))),
                (lowered, raised, biases[1], b.mul(relevance, below(b, z, 0.0))),
            )
            parts = [self._signed(b, *side, rule.epsilon) for side in sides]
            return b.add(*parts)
        found = self._signed(b, up, down, more[0], relevance, rule.epsilon)
        if rule.kind == "zplus":
            return found
        other = self._signed(b, down, up, more[1], relevance, rule.epsilon)
        return b.sub(b.mul(found, rule.alpha), b.mul(other, rule.beta))

    def _signed(
        self,
        b: Builder,
        of_positive: ir.Value,
        of_negative: ir.Value,
        bias: Array,
        relevance: ir.Value,
        epsilon: float,
    ) -> ir.Value:
        """Returns what x+ and x- get, each by weights of its own, of their common sum."""
        x = self.x
        if _is_never_negative(x):
            z = self._forward(b, x, of_positive, bias)
            ratio = b.div(relevance, stabilised(b, z, epsilon))
            return b.mul(x, self._back(b, of_positive, ratio))
        plus = b.op("Relu", x, shape=x)
        minus = b.sub(x, plus)
        z = self._forward(b, plus, of_positive, bias)
        z = b.add(z, self._forward(b, minus, of_negative, None))
        ratio = b.div(relevance, stabilised(b, z, epsilon))
        found = b.mul(plus, self._back(b, of_positive, ratio))
        return b.add(found, b.mul(minus, self._back(b, of_negative, ratio)))

    def _weights(self, b: Builder) -> ir.Value:
        """Returns the weights with the factor behind the layer taken into them."""
        w = self.node.inputs[self.at]
        if w is None:
            raise Refused("it has no weights")
        if self.factor.size == 1:
            return b.mul(w, float(self.factor.reshape(())))
        form = self._over_outputs(w)
        return b.mul(w, b.const(self.factor.reshape(form), w.dtype))

    def _over_outputs(self, w: ir.Value) -> list[int]:
        """Returns the shape in which numbers of the outputs broadcast to the weights."""
        count = self.factor.size
        if key_of(self.node) == "Conv":
            return [count, *[1] * (rank_of(w) - 1)]
        turned = key_of(self.node) == "Gemm" and attribute(self.node, "transB", 0)
        return [count, 1] if turned else [count]

    def _parts(self, b: Builder, w: ir.Value) -> tuple[ir.Value, ir.Value]:
        up = b.op("Relu", w, shape=w)
        return up, b.sub(w, up)

    def _like(self, x: ir.Value, w: ir.Value) -> list[ir.Value]:
        return [w, x] if self.at == 0 else [x, w]

    def _forward(self, b: Builder, x: ir.Value, w: ir.Value, bias: Array | None) -> ir.Value:
        """Writes the layer on another input, with other weights and another bias."""
        y = self.node.outputs[0]
        attributes: dict[str, Any] = {
            name: value for name, value in self.node.attributes.items() if name != "beta"
        }
        found = b.op(self.node.op_type, *self._like(x, w), shape=y, **attributes)
        if bias is None or not np.any(bias):
            return found
        return b.elementwise("Add", found, b.const(bias, y.dtype), shape=shape_of(y))

    def _back(self, b: Builder, w: ir.Value, ratio: ir.Value) -> ir.Value:
        """Returns the vector-Jacobian product of the layer with other weights."""
        x = self.x
        walk = Walk(b, RULES, BLOCKING, {x}, frozenset())
        layer = standing_apart(self.node, self._like(x, w))
        pairs = RULES[key_of(self.node)](walk, layer, [ratio])
        return next(gradient for value, gradient in pairs if value is x)


#: What gives no negative numbers, and what leaves that so.
_POSITIVE = frozenset({"Relu", "Sigmoid", "Softmax", "Softplus", "HardSigmoid", "Exp", "Abs"})
_KEEPS = frozenset(
    {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"}
    | {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"}
)


def _is_never_negative(value: ir.Value) -> bool:
    """Tells whether a value has no negative elements, as far as a look back shows."""
    node = value.producer()
    while node is not None and key_of(node) in _KEEPS and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and key_of(node) in _POSITIVE
