"""Bounds of hard sigmoids are known as such, before the shift in front of them is merged away."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from probegen.graph.core.marks import HARD_SIGMOID
from probegen.graph.core.queries import key_of, operands
from probegen.graph.core.values import constant_of


def mark_hard_sigmoids(model: ir.Model) -> None:
    """Notes of a Clip that its middle is at 0 of what is shifted before it.

    `Clip(x + 3, 0, 6)` -> the same, known to be no rectifier; so `Min(Relu(x + 3), 6)`

    A ReLU6 looks alike: what tells is a shift by one number, half of the upper bound.

    Leaves: the graph as it is; what is noted stands in the metadata of nodes in memory.
    """
    for node in model.graph.all_nodes():
        found = _bounded(node)
        if found is None:
            continue
        value, high, nodes = found
        if any(_is(shift, high / 2) for _, shift in operands(value, "Add")):
            for one in nodes:
                one.meta[HARD_SIGMOID] = True


def _bounded(node: ir.Node) -> tuple[ir.Value, float, list[ir.Node]] | None:
    """Returns what is kept between 0 and a number, the number, and the nodes that do so."""
    first = node.inputs[0] if node.inputs else None
    if key_of(node) == "Clip" and first is not None:
        low, high = (constant_of(v) for v in [*node.inputs[1:], None, None][:2])
        if low is None or high is None or high.size != 1 or np.any(low):
            return None
        return first, float(high.reshape(())), [node]
    for bounds in (_lower, _upper):  # one bound behind the other
        outer, other = bounds(node), _upper if bounds is _lower else _lower
        within = None if outer is None else outer[0].producer()
        inner = None if within is None else other(within)
        if outer is not None and inner is not None and within is not None:
            return inner[0], max(outer[1], inner[1]), [within, node]
    return None


def _lower(node: ir.Node) -> tuple[ir.Value, float] | None:
    """Returns what a node keeps from 0 on, and 0."""
    first = node.inputs[0] if node.inputs else None
    if key_of(node) == "Relu" and first is not None:
        return first, 0.0
    pairs = operands(node.outputs[0], "Max")
    return next(((value, 0.0) for value, low in pairs if _is(low, 0.0)), None)


def _upper(node: ir.Node) -> tuple[ir.Value, float] | None:
    """Returns what a node keeps up to a number, and the number."""
    for value, high in operands(node.outputs[0], "Min"):
        known = constant_of(high)
        if known is not None and known.size == 1 and constant_of(value) is None:
            return value, float(known.reshape(()))
    return None


def _is(value: ir.Value, number: float) -> bool:
    known = constant_of(value)
    if known is None or known.size != 1:
        return False
    return math.isclose(float(known.reshape(())), number, rel_tol=1e-5)
