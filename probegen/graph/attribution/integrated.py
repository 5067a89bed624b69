"""Integrated gradients (Sundararajan et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from probegen.errors import NotDifferentiableError
from probegen.graph.autodiff import gradients
from probegen.graph.core.builder import Builder
from probegen.graph.core.copying import copy_node
from probegen.graph.core.marks import MARK, MARK_DOMAIN, MASK_NAME
from probegen.graph.core.queries import inputs_of, key_of
from probegen.graph.core.values import dtype_of
from probegen.graph.loops.step_writer import Steps
from probegen.graph.vjp import BLOCKING, RULES


def integrated_gradients(
    builder: Builder,
    seeds: Mapping[ir.Value, ir.Value],
    places: Sequence[ir.Value],
    steps: int,
    baseline: float,
) -> list[ir.Value]:
    """Writes `(x - x0) * mean_k grad F(x0 + (k + 1/2) / steps * (x - x0))` (eq. 3, midpoints).

    One Scan: a step runs a copy of the forward nodes behind `places` at a point of the line, and
    their backward pass. The seed is that of the input itself: the class stays the same on the
    whole line. So do masks, which a point of the line would otherwise compute anew.

    Args:
        builder: where the nodes go; its graph holds the forward pass.
        seeds: the scores and the gradient of the target with respect to them.
        places: the tensors that move together from the baseline to their value.
        steps: points on the line.
        baseline: the value of every element at its start.

    Returns:
        One value a place, of its shape.

    Raises:
        NotDifferentiableError: no gradient flows to a place.
    """
    loop = Steps(builder)
    body = loop.body
    middles = (np.arange(steps) + 0.5) / steps
    fractions = {
        dtype: loop.each(builder.const(middles, dtype), backwards=False)
        for dtype in dict.fromkeys(map(dtype_of, places))
    }
    differences = [builder.sub(place, baseline) for place in places]
    sums = [loop.carry(builder.zeros_like(place)) for place in places]
    points = [_point(body, fractions[dtype_of(d)], d, baseline) for d in differences]
    inside = _copy_forward(builder.graph, body, dict(zip(places, points, strict=True)), seeds)
    found = _gradients_inside(
        body, {inside[scores]: seed for scores, seed in seeds.items()}, points
    )
    totals, _ = loop.finish([body.add(s, g) for s, g in zip(sums, found, strict=True)])
    scale = 1.0 / steps
    return [
        builder.mul(builder.mul(difference, total), scale)
        for difference, total in zip(differences, totals, strict=True)
    ]


def _point(body: Builder, fraction: ir.Value, difference: ir.Value, baseline: float) -> ir.Value:
    moved = body.op("Mul", difference, fraction, shape=difference)
    return body.op("Add", moved, body.scalar(baseline, difference), shape=difference)


def _gradients_inside(
    body: Builder, seeds: Mapping[ir.Value, ir.Value], points: Sequence[ir.Value]
) -> list[ir.Value]:
    """Differentiates what the body holds so far."""
    body.attach()
    found = gradients(body, seeds, points, RULES, BLOCKING)
    if any(gradient is None for gradient in found):
        raise NotDifferentiableError("no gradient flows from the target along the line.")
    return [gradient for gradient in found if gradient is not None]


def _copy_forward(
    graph: ir.Graph,
    body: Builder,
    replaced: Mapping[ir.Value, ir.Value],
    wanted: Mapping[ir.Value, ir.Value],
) -> dict[ir.Value, ir.Value]:
    """Copies into `body` the nodes of `graph` through which `replaced` reach `wanted`.

    Values that do not depend on them are read from the graph around, weights above all, and so
    are masks.

    Returns:
        Value of the graph -> its copy.
    """
    copies = dict(replaced)
    held = _held(graph, replaced)
    depending = set(replaced)
    for node in graph:
        if node not in held and any(v in depending for v in inputs_of(node)):
            depending.update(node.outputs)
    needed, chosen = set(wanted), []
    for node in reversed(list(graph)):
        fresh = [v for v in node.outputs if v in needed and v not in replaced]
        if fresh and node not in held and any(v in depending for v in inputs_of(node)):
            chosen.append(node)
            needed.update(inputs_of(node))
    for node in reversed(chosen):
        copy_node(body, node, copies)
    return copies


#: Operators that leave an element what it is, or sum up whether elements are there.
_SAME = frozenset(
    {
        f"{MARK_DOMAIN}::{MARK}",
        "Abs",
        "Cast",
        "Concat",
        "Flatten",
        "Gather",
        "Identity",
        "ReduceL1",
        "ReduceMax",
        "ReduceMin",
        "ReduceSum",
        "ReduceSumSquare",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    }
)


def _held(graph: ir.Graph, moved: Iterable[ir.Value]) -> set[ir.Node]:
    """Returns the nodes whose results are held: masks (see `probegen.sources.keras.held`)."""
    same, depending = set(moved), set(moved)
    found = set()
    for node in graph:
        if not any(v in depending for v in inputs_of(node)):
            continue
        depending.update(node.outputs)
        if _is_mask(node) or _tells_presence(node, same, depending):
            found.add(node)
        elif key_of(node) in _SAME and any(v in same for v in node.inputs):
            same.update(node.outputs)
    return found


def _is_mask(node: ir.Node) -> bool:
    return key_of(node) == f"{MARK_DOMAIN}::{MARK}" and MASK_NAME in (node.name or "")


def _tells_presence(node: ir.Node, same: set[ir.Value], depending: set[ir.Value]) -> bool:
    """Tells whether a node asks if elements of a moved tensor equal something fixed."""
    read = [v for v in node.inputs if v is not None]
    if node.op_type == "IsNaN" or (
        node.op_type == "Cast" and node.outputs[0].dtype == ir.DataType.BOOL
    ):
        return read[0] in same
    if node.op_type != "Equal":
        return False
    return any(a in same and b not in depending for a, b in (read, read[::-1]))
