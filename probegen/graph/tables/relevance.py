"""Layer-wise relevance propagation: relevance in the place of gradients (Bach et al. 2015).

What the walk carries back is relevance R, of the shape of each tensor. It starts as the score, and
the relevance of a node's inputs adds up to that of its output, but for what biases and stabilisers
take. `stab(z)` is z moved away from 0 by a small number.

- layers with stored weights (`Conv`, `ConvTranspose`, `Gemm`, `MatMul`, `Einsum`), with a bias and
  a batch normalisation behind taken into their weights: the rule that is asked for, see `Layer`.
- sums, means and poolings by the mean: `x * J^T(R / stab(z))`; a constant operand takes its share.
- functions of one tensor and factors that do not change pass R on as it is.
- layer, instance and group normalisation: one over the deviation is a factor that passes R on;
  taking the mean away, the scale and the shift are linear, of which each term has its share
  (Achtibat et al. 2024, sec. 3.3.3). Passed on whole, R would be large where x itself is next to 0.
- RMS normalisation and vectors of length 1: one over the size is a factor, the scale as well, and
  there is no sum, so that R is passed on as it is (ibid.).
- both kinds in pieces, as they are below opset 17 and group normalisations always, are the same;
  see `normalisation_in_pieces`.
- maxima, and all that moves elements: R goes where the element comes from. Pictures sampled at
  places that change: so it does; the places, as positions, have none.
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
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk, gradients, influenced_by
from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import RECURRENT, inputs_of, is_float, key_of
from probegen.graph.core.values import dtype_of
from probegen.graph.loops.iteration import body_of, is_loop, nodes_with_bodies
from probegen.graph.tables.common import (
    NORMALISATIONS,
    Normalisation,
    function_at,
    plainly,
    scattered,
    scattered_extreme,
)
from probegen.graph.tables.layer_relevance import Layer, over, stabilised
from probegen.graph.tables.normalisation_in_pieces import (
    InPieces,
    divided_by_own_size,
    normalisation_in_pieces,
)
from probegen.graph.tables.recurrent import relevance
from probegen.graph.tables.weighted_layers import (
    CONVOLUTIONS,
    FIRST,
    GIVEN_OUT,
    LAYERS,
    affine,
    affine_behind,
    first_layers,
    only_reader,
    own_bias,
    weights_of,
)
from probegen.graph.vjp import BLOCKING, RULES
from probegen.graph.vjp.common import Dys, Gradients, axis_of, given
from probegen.methods.samples import Place
from probegen.methods.tables import LayerRule, Relevance

Array = npt.NDArray[Any]

#: What sends each element's relevance where the element comes from.
_ROUTED = frozenset(
    {
        "Identity", "Cast", "CastLike", "Dropout", "Concat", "Reshape", "Transpose", "Squeeze",
        "Unsqueeze", "Flatten", "Slice", "Split", "Expand", "Tile", "Pad", "DepthToSpace",
        "SpaceToDepth", "ReverseSequence", "Gather", "GatherElements", "GatherND", "Where",
        "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "probegen::Mark", "Trilu", "Compress",
        "MaxUnpool", "TopK", "TensorScatter", "ReduceLogSumExp", "probegen::Nudged",
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
#: What samples a picture, its first input -> which input says where.
_PLACES: Mapping[str, int] = {"GridSample": 1, "RoiAlign": 1, "DeformConv": 2}
#: Of several tensors, they send relevance to the one that the element comes from.
_LARGEST = frozenset({"Max", "Min"})
#: Those that take no mean away: they pass relevance on as it is.
_BY_SIZES = frozenset({"RMSNormalization", "LpNormalization", "LRN"})
_CENTRED = NORMALISATIONS - _BY_SIZES
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
            value.meta[GIVEN_OUT] = True
        for one in nodes_with_bodies(body):
            one.meta[FIRST] = one in self.first
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

    def _layer_before(self, walk: Walk, node: ir.Node) -> Layer | None:
        """Returns the layer that a node ends: the node itself, or what it only shifts or scales."""
        at = node
        while key_of(at) not in LAYERS or weights_of(at) is None:
            moving = [v for v in at.inputs if v in self.changing]
            if len(moving) != 1 or affine(at, moving[0]) is None or moving[0] in walk.asked_for:
                return None
            made_by = moving[0].producer()
            if made_by is None or only_reader(moving[0]) is not at:
                return None
            at = made_by
        nodes, factor, shift = affine_behind(at)
        ends = [at, *nodes]
        if node not in ends or at.inputs[1 - (weights_of(at) or 0)] not in self.changing:
            return None
        if node is not ends[-1]:  # what is asked for lies between: the rest is passed before
            return (
                None if node is not at else Layer(at, [], np.ones(()), own_bias(at), self.by_shares)
            )
        return Layer(at, nodes, factor, shift, self.by_shares)

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
        elif key in _CENTRED and moving == [node.inputs[0]]:
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

    def _sampled(self, walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
        """A picture sampled at places that change: each pixel has its share in a sample."""
        picture, places = node.inputs[0], node.inputs[_PLACES[key_of(node)]]
        others = {v for v in inputs_of(node) if v in self.changing} - {picture, places}
        if picture not in self.changing or others or picture is None:
            raise Refused("it has no rule of relevance in this use")
        y, only = node.outputs[0], dataclasses.replace(walk, wanted={picture})
        ratio = over(walk.builder, given(dy), y, self.table.epsilon, by_shares=self.by_shares)
        yield from self._shares(only, node, ratio, 1)

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
        first = {node for node in nodes_with_bodies(graph) if node.meta.get(FIRST, False)}
        rules = dataclasses.replace(self.relevance, changing=changing, first=first).rules()
        return gradients(builder, seeds, sources, rules, BLOCKING)


#: Operators with a rule of their own -> what writes it.
_OWN: Mapping[str, Callable[[_Relevance, Walk, ir.Node, Dys], Gradients]] = {
    **dict.fromkeys(("ReduceSumSquare", "ReduceLogSum", "ReduceProd"), _Relevance._reduction),
    **dict.fromkeys(RECURRENT, _Relevance._cells),
    **dict.fromkeys(_PLACES, _Relevance._sampled),
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
    _, deviation = own.statistics(b, own.grouped(b, own.x))
    inner = b.div(own.grouped(b, b.mul(g, own.scale)), deviation)
    return own.whole(b, b.sub(inner, own.mean(b, inner)))
