"""What tables of rules share: functions of one tensor, scatters, normalisations by one operator."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import onnx_ir as ir

from probegen.graph.autodiff import Refused, Walk, gradients
from probegen.graph.core.builder import Builder
from probegen.graph.core.elementwise import FunctionOfOne, function_of_one
from probegen.graph.core.queries import key_of
from probegen.graph.core.values import attribute, rank_of
from probegen.graph.vjp import BLOCKING, RULES
from probegen.graph.vjp.common import axis_of

_SUMS = frozenset({"Add", "Sub", "Sum"})
#: What has statistics of its own; see `Normalisation`.
NORMALISATIONS = frozenset(
    {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"}
)


def function_at(walk: Walk, node: ir.Node) -> FunctionOfOne | None:
    """Returns the function of one tensor that a node ends and that a walk passes in one step.

    None for sums, of which each term has its share, and where what is explained lies within.
    """
    function = None if key_of(node) in _SUMS else function_of_one(node)
    if function is None or function.entry not in walk.wanted:
        return None
    return None if any(v in walk.asked_for for v in function.inner) else function


def scattered(node: ir.Node) -> str | None:
    """Returns how updates of a scatter meet, where its result is linear in all that is floating.

    `"none"` (each element is one of the tensors') or `"add"`; None for products, extrema, and what
    is no scatter.
    """
    if key_of(node) not in ("ScatterElements", "ScatterND"):
        return None
    reduction = str(attribute(node, "reduction", "none"))
    return reduction if reduction in ("none", "add") else None


def scattered_extreme(node: ir.Node) -> str | None:
    """Returns `"max"` or `"min"` where a scatter keeps the extreme of what meets; else None."""
    if key_of(node) not in ("ScatterElements", "ScatterND"):
        return None
    reduction = str(attribute(node, "reduction", "none"))
    return reduction if reduction in ("max", "min") else None


def plainly(walk: Walk) -> Walk:
    """Returns a walk for rules of gradients that a method with rules of its own falls back on.

    Such a rule may write an operator in simpler ones and differentiate these: that is done by the
    rules of gradients, as the method's know only the graph's own operators. What the method's rules
    say of these still holds: a maximum is not passed together with a Relu before it.
    """
    return dataclasses.replace(walk, simpler=RULES)


def sloped(walk: Walk, function: FunctionOfOne, g: ir.Value) -> ir.Value | None:
    """Writes g times the slope of a function; None where it has none."""
    b, x, node = walk.builder, function.entry, function.nodes[-1]
    if len(function.nodes) > 1:
        return gradients(b, {function.result: g}, [x], RULES, BLOCKING)[0]
    arrived: list[ir.Value | None] = [g, *[None] * (len(node.outputs) - 1)]
    pairs = RULES[key_of(node)](dataclasses.replace(walk, wanted={x}), node, arrived)
    return next((gradient for value, gradient in pairs if value is x), None)


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """What a normalisation by its own statistics does.

    Attributes:
        x: what it works on.
        scale: its scale, which broadcasts to x.
        axes: the axes of the statistics, of what `grouped` gives.
        epsilon: what is added to the variance.
        centred: whether the mean is taken away.
        groups: how many groups of channels have statistics of their own; None where the axes of x
            say all.
    """

    x: ir.Value
    scale: ir.Value
    axes: Sequence[int]
    epsilon: float
    centred: bool = True
    groups: int | None = None

    @staticmethod
    def of(b: Builder, node: ir.Node) -> Normalisation:
        """Returns what a node does.

        Raises:
            Refused: it has no scale.
        """
        x, scale = node.inputs[:2]
        if x is None or scale is None:
            raise Refused("it has no scale")
        epsilon, rank = float(attribute(node, "epsilon", 1e-5)), rank_of(x)
        if key_of(node) in ("LayerNormalization", "RMSNormalization"):
            axes, centred = range(axis_of(node, x, -1), rank), key_of(node) != "RMSNormalization"
            return Normalisation(x, scale, axes, epsilon, centred)
        channels = b.reshape(scale, [1, -1, *[1] * (rank - 2)])
        if key_of(node) == "GroupNormalization":
            groups = int(attribute(node, "num_groups"))
            return Normalisation(x, channels, (2,), epsilon, groups=groups)
        return Normalisation(x, channels, range(2, rank), epsilon)

    def grouped(self, b: Builder, value: ir.Value) -> ir.Value:
        """Writes a tensor of the shape of x in the form that the statistics are taken in."""
        return value if self.groups is None else b.reshape(value, [(value, 0), self.groups, -1])

    def whole(self, b: Builder, value: ir.Value) -> ir.Value:
        """Writes what `grouped` gave in the shape of x again."""
        return value if self.groups is None else b.reshape_like(value, self.x)

    def mean(self, b: Builder, value: ir.Value) -> ir.Value:
        """Writes the mean over the axes, which stay as 1."""
        return b.reduce("ReduceMean", value, self.axes, True)

    def statistics(self, b: Builder, x: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Writes x less its mean, where that is taken away, and its deviation."""
        centred = b.sub(x, self.mean(b, x)) if self.centred else x
        variance = self.mean(b, b.mul(centred, centred))
        return centred, b.elementwise("Sqrt", b.add(variance, self.epsilon))
