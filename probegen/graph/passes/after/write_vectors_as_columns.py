"""Products of matrices with a vector are written with a matrix of one column.

onnxruntime joins a Transpose with the product behind it (`MatmulTransposeFusion`), and brings one
there from far before. Where the second operand is a vector, it reads the matrix as it was before it
was transposed: the result has the right shape and wrong numbers, without a word.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import shape_of

_FUSION = "MatmulTransposeFusion"


def write_vectors_as_columns(model: ir.Model) -> None:
    """Multiplies by a column where a vector is multiplied with.

    `MatMul(x, v)` -> `Squeeze(MatMul(x, Unsqueeze(v)))`

    Needs: the ranks of what is multiplied.
    Leaves: products of two vectors, and those with a quantised vector, which onnxruntime joins with
    the product.
    """
    graph = model.graph
    b = Builder(graph, graph.opset_imports.get("", 0), prefix="probegen/column")
    for node, x, vector in _products_with_vectors(graph):
        product = b.op("MatMul", x, b.unsqueeze(vector, [1]), dtype=x.dtype)
        b.replace(node, [b.op("Squeeze", product, b.ints(-1), shape=node.outputs[0])])


def faults_with_vectors(graph: ir.Graph) -> list[str]:
    """Returns which rewrites of onnxruntime a graph has to be opened without to be right."""
    return [_FUSION] if any(True for _ in _products_with_vectors(graph)) else []


def _products_with_vectors(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Value, ir.Value]]:
    """Yields the products of a matrix, or of several, with a vector, and their operands."""
    for node in list(graph.all_nodes()):
        if node.domain or node.op_type != "MatMul" or node.graph is None:
            continue
        x, vector = node.inputs
        if x is None or vector is None or len(shape_of(vector) or ()) != 1:
            continue
        made = vector.producer()
        if len(shape_of(x) or (0, 0)) > 1 and (made is None or made.op_type != "DequantizeLinear"):
            yield node, x, vector
