"""Factors and shifts beside products with stored matrices, merged into the matrices.

A factor a unit behind a Dense (the layer scale of ConvNeXt) goes into its columns. Scale and
shift of a layer normalisation that only Denses read go into their rows and their biases, which
leaves y = (x - mean) / deviation. The elements of that have the sum 0, so that a number may be
added to each column of the matrix without changing the product; the one that makes the column's
sum 0 makes the sum of the gradient at y 0 as well, and the gradient of the normalisation shorter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.marks import CENTRED
from probegen.graph.core.placeholder_weights import is_placeholder
from probegen.graph.core.queries import sole_reader
from probegen.graph.core.values import attribute, constant_of, new_initializer, shape_of

_Vector = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class _Dense:
    """A product with a matrix that nothing else reads, and the bias behind it.

    Attributes:
        product: the MatMul.
        matrix: the matrix, `[features, units]`.
        bias: the Add behind, None where there is none.
    """

    product: ir.Node
    matrix: npt.NDArray[np.float32]
    bias: ir.Node | None


def merge_into_matrices(model: ir.Model) -> None:
    """Merges factors and shifts beside a product with a stored matrix into the matrix.

    `Mul(Add(MatMul(x, w), b), f)` -> `Add(MatMul(x, w * f), b * f)`;
    `MatMul(LayerNormalization(x, s, t), w) + b`
    -> `MatMul(LayerNormalization(x, ones), s * w) + (b + t @ w)`

    Needs: shapes inferred, `join_layer_normalisation` done; 32-bit floats.
    Leaves: values that are outputs of the graph or carry a mark, and matrices that are read twice.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type == "Mul" and not node.domain:
            _merge_factor(graph, node)
    for node in list(graph):
        if node.op_type == "LayerNormalization" and not node.domain:
            _merge_normalisation(graph, node)


# -- behind --------------------------------------------------------------------------------


def _merge_factor(graph: ir.Graph, node: ir.Node) -> None:
    """Merges a product with one number a unit into the Dense before it."""
    for position in (0, 1):
        value = node.inputs[position]
        factor = None if value is None else _one_per_unit(node.inputs[1 - position], value)
        dense = None if value is None or factor is None else _dense_before(value, node)
        if value is None or factor is None or dense is None:
            continue
        if factor.size != dense.matrix.shape[1]:
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            matrix = dense.matrix * factor
        if not np.isfinite(matrix).all():
            continue
        _set_matrix(graph, dense, matrix)
        if dense.bias is not None:
            _set_bias(graph, dense.bias, _bias_of(dense.bias)[1] * factor)
        if node.outputs[0].is_graph_output():
            node.op_type = "Identity"
            node.resize_inputs(1)
            node.replace_input_with(0, value)
        else:
            node.outputs[0].replace_all_uses_with(value)
            graph.remove(node, safe=True)
        return


def _dense_before(value: ir.Value, reader: ir.Node) -> _Dense | None:
    """Returns the Dense whose output, only reshaped, is a value that one node reads alone."""
    bias: ir.Node | None = None
    while (node := value.producer()) is not None and sole_reader(value) is reader:
        before = node.inputs[0]
        if node.op_type == "MatMul" and not node.domain:
            return _dense(node, bias)
        if _keeps_units(node) and before is not None:
            value, reader = before, node
        elif bias is None and (summand := _bias_of(node)[0]) is not None:
            bias, value, reader = node, summand, node
        else:
            return None
    return None


# -- before --------------------------------------------------------------------------------


def _merge_normalisation(graph: ir.Graph, node: ir.Node) -> None:
    """Merges scale and shift of a normalisation into the Denses that read it."""
    y = node.outputs[0]
    scale = constant_of(node.inputs[1])
    shift = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    rank = len(y.shape or ())
    last = attribute(node, "axis", -1) in (-1, rank - 1)
    if scale is None or not last or y.dtype != ir.DataType.FLOAT or is_placeholder(node.inputs[1]):
        return
    if len(node.inputs) > 2 and node.inputs[2] is not None and shift is None:
        return
    features = (shape_of(y) or (None,))[-1]
    if any(array is not None and array.shape != (features,) for array in (scale, shift)):
        return
    shifted = shift is not None and bool(shift.any())
    readers = list(_denses_behind(y))
    if not readers or any(d is None or (shifted and d.bias is None) for d in readers):
        return
    for dense in readers:
        if dense is None:
            continue
        if dense.bias is not None and shift is not None:
            added = _bias_of(dense.bias)[1] + shift.astype(np.float64) @ dense.matrix
            _set_bias(graph, dense.bias, added.astype(np.float32))
        rows = dense.matrix.astype(np.float64) * scale[:, None]
        _set_matrix(graph, dense, (rows - rows.mean(axis=0)).astype(np.float32))
    ones = new_initializer(graph, f"{y.name}/ones", np.ones_like(scale))
    node.replace_input_with(1, ones)
    node.resize_inputs(2)
    node.meta[CENTRED] = True


def _denses_behind(value: ir.Value) -> Iterator[_Dense | None]:
    """Yields the Denses that read a value, reshaped or not; None for any other reader."""
    if value.is_graph_output():
        yield None
    for use in value.uses():
        node = use.node
        if _keeps_units(node) and use.idx == 0:
            yield from _denses_behind(node.outputs[0])
        elif node.op_type == "MatMul" and not node.domain and use.idx == 0:
            yield _dense(node, _bias_behind(node.outputs[0]))
        else:
            yield None


def _bias_behind(value: ir.Value) -> ir.Node | None:
    """Returns the Add of a bias behind a product, reshaped between or not."""
    node = sole_reader(value)
    while node is not None and _keeps_units(node):
        node = sole_reader(node.outputs[0])
    return None if node is None or _bias_of(node)[0] is None else node


# -- pieces --------------------------------------------------------------------------------


def _dense(product: ir.Node, bias: ir.Node | None) -> _Dense | None:
    """Returns a product with a matrix of 32-bit floats that it alone reads; its bias fits."""
    stored = product.inputs[1]
    matrix = constant_of(stored)
    if stored is None or matrix is None or matrix.ndim != 2 or matrix.dtype != np.float32:
        return None
    if len(stored.uses()) > 1 or stored.is_graph_output() or is_placeholder(stored):
        return None
    if bias is not None and _bias_of(bias)[1].size != matrix.shape[1]:
        return None
    return _Dense(product, matrix, bias)


def _bias_of(node: ir.Node) -> tuple[ir.Value | None, _Vector]:
    """Returns what a node adds a bias to, and the bias; None and nothing for other nodes."""
    if node.op_type == "Add" and not node.domain:
        for position in (0, 1):
            value = node.inputs[position]
            bias = None if value is None else _one_per_unit(node.inputs[1 - position], value)
            if bias is not None:
                return value, bias
    return None, np.zeros(0, np.float32)


def _one_per_unit(value: ir.Value | None, like: ir.Value) -> _Vector | None:
    """Returns a constant that has one number for each entry of the last axis of `like`.

    It has no more axes, so that it changes no shape.
    """
    array, shape = constant_of(value), shape_of(like)
    if array is None or array.dtype != np.float32 or not shape or is_placeholder(value):
        return None
    if array.ndim > len(shape) or array.shape[-1:] != shape[-1:] or array.size != shape[-1]:
        return None
    return array.reshape(-1)


def _keeps_units(node: ir.Node) -> bool:
    """Tells whether a node is a Reshape that leaves the last axis as it is."""
    if node.op_type != "Reshape" or node.domain or node.inputs[0] is None:
        return False
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if not before or not after:
        return False
    return isinstance(before[-1], int) and before[-1] == after[-1]


def _set_matrix(graph: ir.Graph, dense: _Dense, matrix: npt.NDArray[np.float32]) -> None:
    name = f"{dense.product.outputs[0].name}/matrix"
    dense.product.replace_input_with(1, new_initializer(graph, name, matrix))


def _set_bias(graph: ir.Graph, node: ir.Node, bias: _Vector) -> None:
    value = _bias_of(node)[0]
    name = f"{node.outputs[0].name}/bias"
    position = 1 if node.inputs[0] is value else 0
    node.replace_input_with(position, new_initializer(graph, name, bias))
