"""What the rules of all families share: their types, and access to a node's values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import attribute, constant_of, rank_of
from probegen.graph.vjp.edges import may_not_be_finite, product, zero_where

Gradients = Iterator[tuple[ir.Value, ir.Value]]
Dys = Sequence[ir.Value | None]

HALF = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


def given(dy: Dys) -> ir.Value:
    """Returns the gradient of a node's first output.

    Raises:
        Refused: it has none: the gradient comes in through another output, which the
            operators that ask here have for bookkeeping only.
    """
    for gradient in dy[1:]:
        if gradient is not None:
            raise Refused("only its first output has a gradient")
    if dy[0] is None:
        raise Refused("only its first output has a gradient")
    return dy[0]


def inputs(node: ir.Node) -> list[ir.Value]:
    """Returns the inputs of a node that are there."""
    return [value for value in node.inputs if value is not None]


def optional(node: ir.Node, position: int) -> ir.Value | None:
    """Returns one input of a node, None where it is left out."""
    return node.inputs[position] if position < len(node.inputs) else None


def required(node: ir.Node, position: int) -> ir.Value:
    """Returns one input of a node.

    Raises:
        Refused: it is left out.
    """
    value = optional(node, position)
    if value is None:
        raise Refused(f"its input {position} is missing")
    return value


def required_ints(value: ir.Value | None, what: str) -> list[int]:
    """Returns the content of an integer input that has to be known at compile time.

    Raises:
        Refused: it is computed at run time; `what` names it.
    """
    array = constant_of(value)
    if array is None:
        raise Refused(f"{what} are computed at run time; a gradient needs them as constants")
    return [int(i) for i in array.reshape(-1)]


def axis_of(node: ir.Node, like: ir.Value, default: int) -> int:
    """Returns the attribute `axis` of a node as a position in `like`, not negative."""
    return int(attribute(node, "axis", default)) % max(rank_of(like), 1)


def single(value: ir.Value | None) -> float | None:
    """Returns the number that a constant of one element holds, None for all else."""
    array: npt.NDArray[np.generic] | None = constant_of(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def widened(b: Builder, value: ir.Value) -> ir.Value:
    """Returns a value of 16 bits in 32, for sums that would lose too much; others as they are."""
    return b.cast(value, ir.DataType.FLOAT) if value.dtype in HALF else value


@dataclasses.dataclass(frozen=True)
class Local:
    """What the derivative of a function of one input may be written from.

    Attributes:
        walk: the walk in progress.
        node: the forward node.
        x: its first input.
        y: its output.
        g: the gradient of `y`.
    """

    walk: Walk
    node: ir.Node
    x: ir.Value
    y: ir.Value
    g: ir.Value

    @property
    def b(self) -> Builder:
        """The builder."""
        return self.walk.builder

    def number(self, name: str, default: float) -> float:
        """Returns an attribute of the node that is a number."""
        return float(attribute(self.node, name, default))


def unary(derivative: Callable[[Local], ir.Value]) -> Rule:
    """Returns the rule of an operator through whose first input alone gradients pass."""

    def rule(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
        x = inputs(node)[0]
        if x in walk.wanted:
            yield x, derivative(Local(walk, node, x, node.outputs[0], given(dy)))

    return rule


def pointwise(
    derivative: Callable[[Local], ir.Value], edge: Callable[[Local], bool] = lambda _: False
) -> Rule:
    """Returns the rule of a function taken element by element.

    Args:
        derivative: g times the slope; it must do for a `g` of one number, too.
        edge: whether the slope may be infinite or no number at an argument that the graph
            does not rule out.
    """

    def rule(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
        b = walk.builder
        x, y, g = inputs(node)[0], node.outputs[0], given(dy)
        if x not in walk.wanted:
            return
        local = Local(walk, node, x, y, g)
        steep = edge(local)
        if walk.is_unbounded(g):
            slope = derivative(dataclasses.replace(local, g=b.scalar(1.0, g)))
            found = product(walk, g, slope)
        else:
            found = derivative(local)
        if steep or may_not_be_finite(x):
            found = zero_where(b, g, found)
        if steep:
            walk.mark_unbounded(found)
        yield x, found

    return rule
