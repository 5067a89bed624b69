"""DeepLIFT's multipliers of reductions that are a function of a sum of a function of each element.

With `y = F(s)`, `s = sum(f(x))`: the rescale rule of F, the sum, and the rescale rule of f
(Shrikumar et al. 2017, secs. 3.5.1 and 3.5.2), in forms that divide by no differences:

- `ReduceL1`: `(|x| - |x'|) / dx = (x + x') / (|x| + |x'|)`
- `ReduceSumSquare`: `x + x'`
- `ReduceL2`: `(x + x') / (y + y')`
- `ReduceLogSum`: `1 / L(s, s')`, L the logarithmic mean
- `ReduceLogSumExp`: `L(e^x, e^x') / L(e^y, e^y')`

Where a denominator is 0, nothing has changed, and the multiplier is 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import shape_of
from probegen.graph.vjp.edges import zero_where

#: Stands for the logarithm of 0, so that two of them have a difference. What masks of -1e9 leave
#: is above it: two logarithms differ as what a softmax reads does, however far that is.
_LEAST_LOGARITHM, _LEAST_LOGARITHM_OF_HALVES = -1e30, -6e4


@dataclasses.dataclass(frozen=True)
class ReducedPair:
    """A reduction at a tensor and at its reference.

    Attributes:
        b: the builder.
        x: what is reduced, and what that is in the reference.
        y: the results, with the reduced axes as 1.
    """

    b: Builder
    x: tuple[ir.Value, ir.Value]
    y: tuple[ir.Value, ir.Value]

    def total(self, *pair: ir.Value) -> ir.Value:
        """Returns the sum of a pair, in the shape of the first."""
        return self.b.elementwise("Add", *pair, shape=shape_of(pair[0]))

    def over(self, value: ir.Value, divisor: ir.Value) -> ir.Value:
        """Returns a quotient, 0 where what it is divided by is 0."""
        quotient = self.b.elementwise("Div", value, divisor, shape=shape_of(value))
        return zero_where(self.b, divisor, quotient)


def logarithmic_mean(
    b: Builder, values: tuple[ir.Value, ir.Value], logs: tuple[ir.Value, ir.Value]
) -> ir.Value:
    """Returns (p - q) / (log p - log q), and the mean of both where they are about the same.

    The logarithms are given: of a p that is too small for a float, log p still is a number.
    """
    p, q = values
    shape = shape_of(p)
    half = p.dtype == ir.DataType.FLOAT16
    least = _LEAST_LOGARITHM_OF_HALVES if half else _LEAST_LOGARITHM
    finite = [b.elementwise("Max", v, b.scalar(least, v)) for v in logs]
    apart = b.elementwise("Sub", *finite, shape=shape)
    near = b.elementwise("Less", b.op("Abs", apart, shape=apart), 1e-2)
    mean = b.mul(b.elementwise("Add", p, q, shape=shape), 0.5)
    change = b.elementwise("Sub", p, q, shape=shape)
    # About the same: sqrt(pq) would do as well; the mean is off by apart**2 / 12 of it.
    bent = b.sub(1.0, b.mul(b.mul(apart, apart), 1 / 12))
    return b.where(near, b.mul(mean, bent), b.div(change, b.where(near, 1.0, apart)))


def _absolute(r: ReducedPair) -> ir.Value:
    return r.over(r.total(*r.x), r.total(*(r.b.elementwise("Abs", v) for v in r.x)))


def _squares(r: ReducedPair) -> ir.Value:
    return r.total(*r.x)


def _length(r: ReducedPair) -> ir.Value:
    return r.over(r.total(*r.x), r.total(*r.y))


def _logarithm(r: ReducedPair) -> ir.Value:
    here, there = (r.b.elementwise("Exp", v) for v in r.y)
    return r.b.expand(r.b.div(1.0, logarithmic_mean(r.b, (here, there), r.y)), r.x[0])


def _logarithm_of_exponentials(r: ReducedPair) -> ir.Value:
    b = r.b
    largest = b.elementwise("Max", *r.y, shape=shape_of(r.y[0]))

    def mean(pair: tuple[ir.Value, ir.Value]) -> ir.Value:
        shape = shape_of(pair[0])
        logs = [b.elementwise("Sub", v, largest, shape=shape) for v in pair]
        values = [b.elementwise("Exp", v) for v in logs]
        return logarithmic_mean(b, (values[0], values[1]), (logs[0], logs[1]))

    return b.div(mean(r.x), mean(r.y))


#: Operator -> writes what the gradient of its result is multiplied by at each element.
MULTIPLIERS: Mapping[str, Callable[[ReducedPair], ir.Value]] = {
    "ReduceL1": _absolute,
    "ReduceSumSquare": _squares,
    "ReduceL2": _length,
    "ReduceLogSum": _logarithm,
    "ReduceLogSumExp": _logarithm_of_exponentials,
}
