"""Masks keep the values of the unmoved sample while a path moves tensors."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from probegen.graph.core.marks import MARK, MARK_DOMAIN, MASK_NAME
from probegen.graph.core.queries import depending_on, inputs_of, key_of

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


def held_masks(graph: ir.Graph, moved: Iterable[ir.Value]) -> set[ir.Node]:
    """Returns the nodes whose results are held: masks (see `probegen.sources.keras.held_masks`)."""
    same, depending = set(moved), depending_on(graph, moved)
    found = set()
    for node in graph:
        if not any(v in depending for v in inputs_of(node)):
            continue
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
