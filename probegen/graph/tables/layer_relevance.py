"""Rules of layer-wise relevance propagation for linear layers with stored weights."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.copying import standing_apart
from probegen.graph.core.queries import key_of
from probegen.graph.core.values import attribute, constant_of, rank_of, shape_of
from probegen.graph.tables.weighted_layers import only_reader, weights_of
from probegen.graph.vjp import BLOCKING, RULES
from probegen.graph.vjp.masks import above, below
from probegen.methods.tables import LayerRule

Array = npt.NDArray[Any]

#: What gives no negative numbers, and what leaves that so.
_POSITIVE = frozenset({"Relu", "Sigmoid", "Softmax", "Softplus", "HardSigmoid", "Exp", "Abs"})
_KEEPS = frozenset(
    {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean"}
    | {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity"}
)


@dataclasses.dataclass(frozen=True)
class Layer:
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
    reader = only_reader(z)
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


def _is_never_negative(value: ir.Value) -> bool:
    """Tells whether a value has no negative elements, as far as a look back shows."""
    node = value.producer()
    while node is not None and key_of(node) in _KEEPS and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node is not None and key_of(node) in _POSITIVE
