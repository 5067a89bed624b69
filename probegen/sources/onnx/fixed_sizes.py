"""Open sizes that can be one number alone: with any other a run fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.queries import RECURRENT
from probegen.graph.core.values import Dim, attribute, shape_of
from probegen.sources.onnx.names import nodes_of, told
from probegen.sources.onnx.size_operands import told_by_reshape

#: Position of the first state among the inputs of a recurrent operator.
_STATE = 5


def fix_sizes(graph: ir.Graph, known: Mapping[ir.Value, npt.NDArray[Any]]) -> Iterator[str]:
    """Gives the open size of inputs its number where an operator takes no other.

    `GRU(x [time, batch, 4], ..., state [1, 1, 8])` -> batch is 1
    `Reshape(x [time, batch, 8], [6, 2 * batch, 4])` -> time is 6

    PyTorch writes the zeros that a state starts with as a constant of the batch it was exported
    with, and keys and values of its attention with the length, though the file calls both open.

    Needs: shapes inferred.

    Args:
        graph: the graph.
        known: what `write_known_sizes` found.

    Yields:
        For the manifest, which size is what.
    """
    for node in nodes_of(graph):
        if node.op_type == "Reshape" and not node.domain and node.graph is graph:
            reshaped = told_by_reshape(node, known)
            if reshaped is not None and _fix(graph, *reshaped):
                yield (
                    f"The size {reshaped[0]!r} of the inputs is {reshaped[1]}: {told(node)} takes "
                    "no other."
                )
            continue
        if node.op_type not in RECURRENT or node.domain or len(node.inputs) <= _STATE:
            continue
        source, state = node.inputs[0], node.inputs[_STATE]
        rows, first = _axis(source, 1 - attribute(node, "layout", 0)), _axis(state, 1)
        if attribute(node, "layout", 0):
            first = _axis(state, 0)
        if isinstance(rows, str) and isinstance(first, int) and _fix(graph, rows, first):
            yield (
                f"The size {rows!r} of the inputs is {first}: {told(node)} has states for "
                f"{first} alone."
            )


def _axis(value: ir.Value | None, axis: int) -> Dim:
    shape = None if value is None else shape_of(value)
    return None if shape is None or len(shape) != 3 else shape[axis]


def _fix(graph: ir.Graph, name: str, size: int) -> bool:
    """Writes a number for a size wherever an input has it; False where none has."""
    fixed = False
    for value in graph.inputs:
        shape = shape_of(value)
        if shape is not None and name in shape:
            value.shape = ir.Shape([size if d == name else d for d in shape])
            fixed = True
    return fixed
