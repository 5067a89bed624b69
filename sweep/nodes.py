"""How many nodes an artefact has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from probegen.artefact.manifest import GATE_INPUT


def count_nodes(path: Path) -> tuple[int, int]:
    """Returns the number of nodes that predictions alone take, and predictions with gradients.

    The gate has a branch for each; constants are not counted.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    for node in graph.node:
        if node.op_type == "If" and list(node.input) == [GATE_INPUT]:
            branches = {a.name: _count(a.g) for a in node.attribute}
            outside = _count(graph) - sum(branches.values()) - 1
            return outside + branches["else_branch"], outside + branches["then_branch"]
    return _count(graph), _count(graph)


def _count(graph: Any) -> int:
    found = 0
    for node in graph.node:
        inside = (_count(a.g) for a in node.attribute if a.type == onnx.AttributeProto.GRAPH)
        found += (node.op_type != "Constant") + sum(inside)
    return found
