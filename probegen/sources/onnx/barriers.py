"""Operators that no rule of gradients is known of, and what stands before them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from probegen.graph.core.queries import inputs_of, is_float, key_of
from probegen.graph.vjp import BLOCKING, RULES


def barriers(graph: ir.Graph, ends: Sequence[ir.Value]) -> dict[ir.Value, str]:
    """Returns the tensors at which no end has a gradient, and why for each.

    Where a tensor reaches an end by several ways, one without a rule is enough: the gradient
    would have to pass all. What reaches no end at all is left out.

    Args:
        graph: the graph.
        ends: its floating outputs and scores.
    """
    barred, free = dict[ir.Value, str](), set[ir.Value]()
    for end in ends:
        behind: dict[ir.Value, str] = {end: ""}
        for node in reversed(list(graph)):
            key, found = key_of(node), [behind[v] for v in node.outputs if v in behind]
            if not found or key in BLOCKING:
                continue
            why = next(filter(None, found), "" if key in RULES else _told(node))
            for value in filter(is_float, inputs_of(node)):
                behind[value] = behind.get(value) or why
        barred.update((v, why) for v, why in behind.items() if why)
        free.update(v for v, why in behind.items() if not why)
    return {v: why for v, why in barred.items() if v not in free}


def _told(node: ir.Node) -> str:
    return (
        f"{node.op_type} {node.name!r} behind it passes no gradient; methods by scores need none, "
        "such as pg.KernelSHAP"
    )
