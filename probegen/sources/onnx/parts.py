"""Operands of nodes that are taken apart, and what stands for their outputs."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

import onnx_ir as ir

from probegen.errors import SourceError
from probegen.graph.core.builder import Builder
from probegen.sources.onnx.names import told

#: What stands for the outputs of a node; None for one that nothing stands for.
Parts = Sequence[ir.Value | None]
#: (builder, node) -> its parts; None where what they depend on is not known yet.
Part = Callable[[Builder, ir.Node], Parts | None]


def optional(node: ir.Node, position: int) -> ir.Value | None:
    """Returns an input of a node, None where it has none there."""
    return node.inputs[position] if position < len(node.inputs) else None


def required(node: ir.Node, position: int) -> ir.Value:
    """Returns an input of a node.

    Raises:
        SourceError: the node has none there.
    """
    value = optional(node, position)
    if value is None:
        raise SourceError(f"{told(node)} lacks its input {position}: the file is no valid model.")
    return value


def refuse_outputs(node: ir.Node, first: int, reason: str) -> None:
    """Refuses a node of which outputs from a position on are read.

    Raises:
        SourceError: one is read.
    """
    for value in node.outputs[first:]:
        if value.name and (value.uses() or value.is_graph_output()):
            raise SourceError(f"{told(node)}: {reason}.")


def refuse_attributes(node: ir.Node, known: Container[str] | None) -> None:
    """Refuses a node with an attribute of which it is not known what it does.

    Raises:
        SourceError: there is one.
    """
    if known is not None:
        for name in node.attributes:
            if name not in known:
                raise SourceError(f"{told(node)} has the attribute {name!r}, which is not known.")


#: Operators whose results have the element type of what they read first.
_KEEPING = frozenset(
    {"Add", "Div", "Gemm", "LayerNormalization", "MatMul", "Mul", "Relu", "Reshape", "Slice"}
    | {"Softmax", "Split", "Squeeze", "Sub", "Tanh", "Transpose", "Unsqueeze"}
)
_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


def tell_types(node: ir.Node) -> None:
    """Notes the element type of the first input of a node, where other inputs tell it.

    Inference knows nothing behind operators that it does not know; else each of a row of them
    would take a round of its own.
    """
    value = optional(node, 0)
    if node.op_type == "CastLike":  # of two types
        return
    seen: list[ir.Value] = []
    while value is not None and value.dtype is None and len(seen) < 50:
        seen.append(value)
        made = value.producer()
        known = [] if made is None else [v for v in made.inputs if v is not None]
        if made is None or (made.domain == "" and made.op_type not in _KEEPING):
            break
        value = next((v for v in known if v.dtype in _FLOATS), optional(made, 0))
    found = None if value is None else value.dtype
    if found is None:
        given = (v.dtype for v in node.inputs if v is not None)
        found = next((d for d in given if d in _FLOATS), None)
    if found in _FLOATS and seen:
        seen[0].dtype = found
