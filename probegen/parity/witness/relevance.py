"""Layer-wise relevance propagation, once more, by numpy.

Which nodes are one layer is told as the artefact tells it; what a layer does is not: every rule is
the share of each summand in the sum, computed with the layer's own operator on other weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.elementwise import FunctionOfOne, function_of_one
from probegen.graph.core.queries import key_of
from probegen.graph.core.stored import stored_array
from probegen.graph.core.values import attribute, constant_of
from probegen.graph.loops.iteration import nodes_with_bodies
from probegen.graph.tables.normalisation_in_pieces import (
    InPieces,
    divided_by_own_size,
    normalisation_in_pieces,
)
from probegen.graph.tables.weighted_layers import (
    CONVOLUTIONS,
    affine_behind,
    first_layers,
    weights_of,
)
from probegen.methods.tables import LayerRule, Relevance
from probegen.parity.witness.adjoints import OwnStatistics, adjoint, axes_of, unbroadcast
from probegen.parity.witness.forward import ForwardValues
from probegen.parity.witness.recurrent import RECURRENT, relevance_through_time
from probegen.parity.witness.step import Step, Unknown
from probegen.parity.witness.walk import UnknownNode, plain

Array = npt.NDArray[Any]

_PRODUCTS = ("Mul", "MatMul", "Einsum", "Gemm")
_SUMS = frozenset(
    {"Add", "Sub", "Sum", "Mean", "ReduceSum", "ReduceMean", "AveragePool", "GlobalAveragePool"}
    | {"CumSum", "Resize", "Upsample", "BatchNormalization"}
)
#: Sums of their first input, if that alone changes, and norms.
_SUMS_OF_FIRST = frozenset(
    {"GridSample", "RoiAlign", "Col2Im", "DFT", "STFT", "DeformConv", "ReduceL1", "ReduceL2"}
    | {"LpPool", "GlobalLpPool", "LogSoftmax"}
)
#: What samples a picture -> which input says where.
_PLACES: Mapping[str, tuple[int, ...]] = {"GridSample": (1,), "RoiAlign": (1,), "DeformConv": (2,)}
#: Reductions that have a rule of their own.
_OF_SUMS = ("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd")
_SCATTERS = ("ScatterElements", "ScatterND")
_CENTRED = frozenset({"LayerNormalization", "InstanceNormalization", "GroupNormalization"})
_MOVED = frozenset(
    {
        "Identity", "Cast", "CastLike", "Dropout", "Concat", "Reshape", "Transpose", "Squeeze",
        "Unsqueeze", "Flatten", "Slice", "Split", "Expand", "Tile", "Pad", "DepthToSpace",
        "SpaceToDepth", "ReverseSequence", "Gather", "GatherElements", "GatherND", "Where",
        "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "probegen::Mark", "Trilu", "Compress",
        "MaxUnpool", "TopK",
    }
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Propagated:
    """The rule of the walk.

    Attributes:
        table: the rules of layers.
        forward: the forward pass.
        layers: the last node of each layer -> its node with weights.
        first: the layers that no other one comes before.
        places: what is explained.
    """

    table: Relevance
    forward: ForwardValues
    layers: Mapping[ir.Node, ir.Node]
    first: frozenset[ir.Node]
    places: frozenset[ir.Value]

    @staticmethod
    def over(
        table: Relevance,
        forward: ForwardValues,
        places: Sequence[ir.Value],
    ) -> Propagated:
        """Returns the rule, with the layers of a graph found.

        Raises:
            UnknownNode: what is explained lies within a layer.
        """
        layers = {}
        for node in nodes_with_bodies(forward.graph):
            if weights_of(node) is not None:
                ends = [node, *affine_behind(node)[0]]
                layers[ends[-1]] = node
                if {n.outputs[0] for n in ends[:-1]} & set(places):
                    reason = f"{key_of(node)} whose bias comes behind what is explained"
                    raise UnknownNode(node, reason)
        first = frozenset(first_layers(forward.graph))
        return Propagated(table, forward, layers, first, frozenset(places))

    def __call__(
        self, step: Step, arrived: Sequence[Array | None], wanted: Sequence[int]
    ) -> Iterable[tuple[ir.Value, Array]]:
        """Yields the relevance of each input."""
        node, key, relevance = step.node, key_of(step.node), arrived[0]
        distinct = {node.inputs[i] for i in wanted}
        layer = self.layers.get(node)
        x = None if layer is None else layer.inputs[1 - (weights_of(layer) or 0)]
        if layer is not None and x is not None and relevance is not None:
            yield x, self._layer(layer, step, relevance)
        elif len(distinct) > 1 and relevance is not None and (whole := self._function(node)):
            yield whole.entry, relevance
        elif key in _MOVED or (key in _SCATTERS and _met(node) in ("none", "max", "min")):
            yield from plain(step, arrived, wanted)
        elif key in RECURRENT:
            for i in wanted:
                value = node.inputs[i]
                if value is not None:
                    yield value, relevance_through_time(step, arrived, i, self.table.epsilon)
        elif relevance is None:
            raise Unknown(f"{key}, of which another output than the first is used")
        else:
            yield from self._without_weights(step, relevance, wanted, len(distinct))

    def _function(self, node: ir.Node) -> FunctionOfOne | None:
        """Returns the function of one tensor that several nodes spell and a node ends.

        Selections between pieces of one function are such; sums are none, each term has its share.
        """
        function = None if key_of(node) in ("Add", "Sub", "Sum") else function_of_one(node)
        if function is None or len(function.nodes) < 2 or self.places & {*function.inner}:
            return None
        return function

    def _without_weights(
        self, step: Step, relevance: Array, wanted: Sequence[int], distinct: int
    ) -> Iterable[tuple[ir.Value, Array]]:
        node, key = step.node, key_of(step.node)
        x = node.inputs[wanted[0]]
        pieces = normalisation_in_pieces(node, self.places)
        if pieces is not None:
            yield pieces.x, self._in_pieces(pieces, step, relevance)
            return
        if distinct > 1 and (sized := divided_by_own_size(node)) is not None:
            yield sized, unbroadcast(relevance, step.values[sized].shape)
            return
        if key in ("Max", "Min") and distinct > 1:
            yield from plain(step, [relevance], wanted)
        elif key in _OF_SUMS and x is not None:
            yield x, self._of_a_sum(step, relevance)
        elif key == "Div" and distinct == 2:
            yield from _halves(step, relevance)
        elif (sums := _is_sum(node, wanted)) or (
            key in _PRODUCTS and (distinct > 1 or key != "Mul")
        ):
            # Where a picture is sampled has no share: the samples are sums of its pixels.
            wanted = [i for i in wanted if i not in _PLACES.get(key, ())]
            factors = [i for i in wanted if key != "Gemm" or i < 2]
            ratio = relevance / _away(step.y, self.table.epsilon)
            for i, (value, share) in zip(wanted, plain(step, [ratio], wanted), strict=True):
                parts = 1 if sums or i not in factors else len(factors)
                yield value, step.inputs[i] * share / parts
        elif x is not None and key in _CENTRED:
            yield x, self._normalisation(step, relevance)
        elif x is not None and key == "Softmax":
            total = relevance.sum(axis=int(attribute(node, "axis", -1)), keepdims=True)
            # A mask of -inf takes places out: y is 0 there, and so is what comes to them.
            kept = np.where(np.isneginf(step.x), 0.0, relevance - step.y * total)
            yield x, np.maximum(step.x, np.finfo(np.float64).min) * kept
        elif x is not None and distinct == 1 and key not in _SCATTERS:
            yield x, unbroadcast(relevance, step.values[x].shape)
        else:
            raise Unknown(key)

    def _in_pieces(self, pieces: InPieces, step: Step, relevance: Array) -> Array:
        """Returns what x gets of `(x - mean(x)) * k + shift`: by its terms, with k a constant."""
        x, k = step.values[pieces.x], np.ones(())
        for value, divides in pieces.factors:
            known = constant_of(value)
            factor = np.asarray(step.values[value] if known is None else known, np.float64)
            k = k / factor if divides else k * factor
        weight = relevance * k / _away(step.y, self.table.epsilon)
        return np.asarray(x * weight - x * weight.mean(axis=pieces.axes, keepdims=True))

    def _of_a_sum(self, step: Step, relevance: Array) -> Array:
        """Returns each element's part of a sum of logarithms, exponentials or squares."""
        axes, x = axes_of(step), step.x
        kept = [1 if i in axes else n for i, n in enumerate(x.shape)]
        r, y = relevance.reshape(kept), step.y.reshape(kept)
        if step.node.op_type == "ReduceProd":
            return np.broadcast_to(r / np.prod([x.shape[i] for i in axes]), x.shape)
        if step.node.op_type == "ReduceLogSumExp":
            return np.asarray(r * np.exp(x - y))
        if step.node.op_type == "ReduceLogSum":
            return np.asarray(r * x / np.exp(y))
        return np.asarray(r * x**2 / _away(y, self.table.epsilon))

    def _normalisation(self, step: Step, relevance: Array) -> Array:
        """Returns what x gets of `scale * (x - mean(x)) / deviation + shift`: by its terms."""
        own = OwnStatistics.of(step)
        x, weight = step.x, relevance / _away(step.y, self.table.epsilon) * own.scale
        variance = x.reshape(own.form).var(axis=own.axes, keepdims=True) + own.epsilon
        weight = weight.reshape(own.form) / np.sqrt(variance)
        weight = weight - weight.mean(axis=own.axes, keepdims=True)
        return np.asarray(x * weight.reshape(x.shape))

    def _rule(self, layer: ir.Node) -> LayerRule:
        convolution = key_of(layer) in CONVOLUTIONS
        first = self.table.first if layer in self.first else None
        if first is not None and (convolution or not self.table.first_convolution_only):
            return first
        return self.table.convolution if convolution else self.table.dense

    def _layer(self, layer: ir.Node, step: Step, relevance: Array) -> Array:
        """Returns the relevance of a layer's input; see `graph.tables.relevance`."""
        rule, at = self._rule(layer), weights_of(layer) or 0
        _, factor, shift = affine_behind(layer)
        stored, explained = layer.inputs[at], layer.inputs[1 - at]
        if stored is None or explained is None:
            raise Unknown(key_of(layer))
        z, run = step.y, _Linear(self.forward, layer, at, step.values[explained])
        w = np.asarray(step.values[stored], np.float64)
        w = w * run.of_outputs(factor, w.ndim)
        x, e = run.x, rule.epsilon
        plus, minus = np.maximum(x, 0), np.minimum(x, 0)
        up, down = np.maximum(w, 0), np.minimum(w, 0)
        b_up, b_down = np.maximum(shift, 0), np.minimum(shift, 0)

        def shares(parts: Sequence[tuple[Array, Array]], bias: Any, r: Array) -> Array:
            total = sum((run.forward(a, v) for a, v in parts), start=np.zeros(()) + bias)
            ratio = r / _away(np.asarray(total), e)
            return np.asarray(sum(a * run.back(v, ratio) for a, v in parts))

        if rule.kind == "epsilon":
            return np.asarray(x * run.back(w, relevance / _away(z, e)))
        if rule.kind in ("wsquare", "flat"):
            like, bias = (w**2, shift**2) if rule.kind == "wsquare" else (np.ones_like(w), 0.0)
            return shares([(np.ones_like(x), like)], bias, relevance)
        if rule.kind == "zbox":
            low, high = np.full_like(x, -rule.low), np.full_like(x, -rule.high)
            return shares([(x, w), (low, up), (high, down)], 0.0, relevance)
        if rule.kind == "gamma":
            raised, lowered = w + rule.gamma * up, w + rule.gamma * down
            sides = (
                (raised, lowered, shift + rule.gamma * b_up, relevance * (z > 0)),
                (lowered, raised, shift + rule.gamma * b_down, relevance * (z < 0)),
            )
            return np.asarray(sum(shares([(plus, a), (minus, b)], c, r) for a, b, c, r in sides))
        first = shares([(plus, up), (minus, down)], b_up, relevance)
        if rule.kind == "zplus":
            return first
        second = shares([(plus, down), (minus, up)], b_down, relevance)
        return np.asarray(rule.alpha * first - rule.beta * second)


@dataclasses.dataclass(frozen=True)
class _Linear:
    """A layer's operator on other inputs and weights, without its bias.

    Attributes:
        forward_values: evaluates nodes.
        node: the layer.
        at: which input holds the weights.
        x: its own input.
    """

    forward_values: ForwardValues
    node: ir.Node
    at: int
    x: Array

    def _inputs(self, x: Array, w: Array) -> list[Array | None]:
        pair: list[Array | None] = [w, x] if self.at == 0 else [x, w]
        known = [stored_array(v) for v in self.node.inputs[2:]]
        return [*pair, *(None if k is None else np.zeros(k.shape) for k in known)]

    def forward(self, x: Array, w: Array) -> Array:
        """Returns the layer's output."""
        return np.asarray(self.forward_values.evaluate(self.node, self._inputs(x, w))[0])

    def back(self, w: Array, g: Array) -> Array:
        """Returns the vector-Jacobian product."""
        step = Step(self.node, self._inputs(self.x, w), [], self.forward_values.evaluate)
        return adjoint(step, [g], 1 - self.at)

    def of_outputs(self, factor: Array, rank: int) -> Array:
        """Returns a factor for each output in the form of the weights."""
        flat, key = factor.reshape(-1), key_of(self.node)
        if factor.size == 1:
            return flat
        if key == "Conv":
            return flat.reshape([-1, *[1] * (rank - 1)])
        turned = key == "Gemm" and attribute(self.node, "transB", 0)
        return flat[:, None] if turned else flat


def _away(z: Array, epsilon: float) -> Array:
    """Returns z moved away from 0."""
    return np.asarray(z + np.where(z >= 0, epsilon, -epsilon))


def _halves(step: Step, relevance: Array) -> Iterable[tuple[ir.Value, Array]]:
    """Yields half of the relevance of a quotient for each of the two."""
    for value, array in zip(step.node.inputs, step.inputs, strict=True):
        if value is not None:
            yield value, unbroadcast(relevance / 2, np.shape(array))


def _met(node: ir.Node) -> str:
    return str(attribute(node, "reduction", "none"))


def _is_sum(node: ir.Node, wanted: Sequence[int]) -> bool:
    """Tells whether each element of a result is a sum of elements, or has shares as one."""
    key = key_of(node)
    if key in _SUMS or (key in _SCATTERS and _met(node) == "add"):
        return True
    return key in _SUMS_OF_FIRST and list(wanted) in ([0], [0, *_PLACES.get(key, ())])
