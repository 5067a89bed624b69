"""Nodes that some engine reads wrong or refuses, in a form that all of them read right.

- An attribute of 0 that OpenVINO takes for the operator's default. Of the operators that an
  artefact can hold these were found to be HardSigmoid, Softmax, Selu and LRN; those of the last
  two are 0 in no layer of Keras.
- The depth of a OneHot in a tensor of one element, which onnx's own evaluator cannot read beside
  numpy 2.
- A product of a turned float16 tensor of three axes or more with a matrix that is known at load:
  where the first axis moved to the last two, onnxruntime 1.32 dies of a segmentation fault as it
  loads the file. A matrix with as many axes it reads.
- Softplus and ReduceLogSumExp in float16: at opset 18 onnxruntime computes them as the logarithm of
  an exponential, which is infinite from 89 on, while the result is about 89. In float32 it has
  kernels of its own.
- CumSum in float16 below opset 14, where ONNX has it in wider types alone.
- Two products with matrices, the one of a scaled tensor, the other of that tensor scaled once more:
  onnxruntime (1.20 to 1.32) takes both scales into its products, and one tensor too many away, so
  that the file cannot be opened.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import attribute, constant_of, dtype_of, shape_of

#: The float nearest to 0, on the side that HardSigmoid clips to 0.
_ALMOST_0 = float(-np.finfo(np.float32).smallest_subnormal)
#: What is computed in float32 where it is in float16.
_WIDE = frozenset({"Softplus", "ReduceLogSumExp"})
#: Operator -> the first operator set that has it in float16.
_HALF_SINCE = {"CumSum": 14}
#: What multiplies a tensor by one number, where its other input is one.
_SCALES = frozenset({"Mul", "Div"})
#: The axes of a matrix.
_MATRIX = 2


def make_engine_readable(model: ir.Model) -> None:
    """Writes nodes that some engine reads wrong in a form that all read right.

    `Softmax(axis=0)` of rank 3 -> `Softmax(axis=-3)`; `HardSigmoid(beta=0)` -> `beta=-1e-45`;
    `OneHot(i, depth of shape [1], v)` -> `OneHot(i, scalar depth, v)`;
    `MatMul(Transpose<perm=[1, 0, 2]>(x), w)` in float16 -> `MatMul(.., Unsqueeze(w))`;
    `Softplus(x)` in float16 -> `Cast(Softplus(Cast(x)))`;
    `MatMul(Mul(Mul(x, 2), 3), w)` -> `MatMul(Mul(x, 6), w)` beside `MatMul(Mul(x, 2), v)`
    """
    graph = model.graph
    opset = graph.opset_imports.get("", 0)
    names = Builder(graph, opset, prefix="probegen/readable")
    for node in list(graph.all_nodes()):
        if node.domain:
            continue
        if node.op_type == "HardSigmoid" and attribute(node, "beta", 0.5) == 0:
            node.attributes["beta"] = ir.AttrFloat32("beta", _ALMOST_0)
        elif node.op_type == "Softmax" and attribute(node, "axis", -1) == 0:
            shape = shape_of(node.outputs[0])
            if shape:
                node.attributes["axis"] = ir.AttrInt64("axis", -len(shape))
        elif node.op_type == "OneHot":
            _make_depth_a_scalar(names, node)
        elif node.op_type == "MatMul" and _is_fatal(node):
            _give_as_many_axes(names, node)
        elif node.op_type in _SCALES and _is_read_by_a_product(node):
            _scale_once(names, node)
        elif node.outputs[0].dtype == ir.DataType.FLOAT16 and (
            node.op_type in _WIDE or opset < _HALF_SINCE.get(node.op_type, 0)
        ):
            _compute_in_float32(names, node)


def _make_depth_a_scalar(names: Builder, node: ir.Node) -> None:
    depth = node.inputs[1]
    if depth is None or node.graph is None or shape_of(depth) == ():
        return
    array = constant_of(depth)
    if array is not None:
        scalar = names.const(np.asarray(array.reshape(()), dtype=array.dtype))
    else:
        one_axis = shape_of(depth) is not None
        scalar = names.op("Squeeze", depth, names.ints(0) if one_axis else None, shape=())
        names.insert_before(node)
    node.replace_input_with(1, scalar)


def _is_fatal(product: ir.Node) -> bool:
    """Tells whether onnxruntime dies of a float16 product, if its matrix is known at load."""
    left, right = product.inputs
    turned = None if left is None else left.producer()
    if right is None or turned is None or turned.op_type != "Transpose":
        return False
    order = attribute(turned, "perm", [])
    # The first axis went to one of the last two, all others keep their order.
    moved = len(order) > _MATRIX and 0 in order[-_MATRIX:]
    kept = [axis for axis in order if axis] == list(range(1, len(order)))
    matrix = shape_of(right)
    half = right.dtype == ir.DataType.FLOAT16
    return half and moved and kept and matrix is not None and len(matrix) == _MATRIX


def _give_as_many_axes(names: Builder, product: ir.Node) -> None:
    """Gives the matrix of a product axes of one element, as many as the other factor has more."""
    left, matrix = product.inputs
    turned = None if left is None else left.producer()
    if product.graph is None or turned is None or matrix is None:
        return
    more = len(attribute(turned, "perm")) - _MATRIX
    wide = names.unsqueeze(matrix, list(range(more)))
    names.insert_before(product)
    product.replace_input_with(1, wide)


def _is_read_by_a_product(node: ir.Node) -> bool:
    return any(n.op_type == "MatMul" and n.graph is node.graph for n in node.outputs[0].consumers())


def _scaled(node: ir.Node) -> tuple[ir.Value, Any] | None:
    """Returns what a node scales and the number that it multiplies by; None for other nodes."""
    first, second = node.inputs
    for value, other in ((first, second), (second, first)):
        number = constant_of(other)
        if value is None or number is None or number.size != 1 or number.ndim > 1:
            continue
        wide = number.astype(np.float64)
        if node.op_type == "Mul":
            return value, wide
        if other is second and number.item():
            return value, 1 / wide
    return None


def _scale_once(names: Builder, node: ir.Node) -> None:
    """Lets a scale of a scaled tensor, which a product reads as well, scale the tensor itself."""
    outer = _scaled(node)
    inside = None if outer is None else outer[0].producer()
    if outer is None or inside is None or inside.domain or inside.op_type not in _SCALES:
        return
    inner = _scaled(inside)
    if inner is None or inside.graph is not node.graph or not _is_read_by_a_product(inside):
        return
    with np.errstate(over="ignore"):
        factor = (inner[1] * outer[1]).astype(dtype_of(inner[0]).numpy())
    if np.isfinite(factor).all():
        node.op_type = "Mul"
        node.replace_input_with(0, inner[0])
        node.replace_input_with(1, names.const(factor))


def _compute_in_float32(names: Builder, node: ir.Node) -> None:
    """Puts a node of float32 between two casts in the place of one of float16."""
    x, y = node.inputs[0], node.outputs[0]
    if x is None or node.graph is None:
        return
    wide, attributes = names.cast(x, ir.DataType.FLOAT), dict[str, Any](node.attributes)
    made = names.op(node.op_type, wide, *node.inputs[1:], shape=y, **attributes)
    narrow = names.cast(made, ir.DataType.FLOAT16)
    names.replace(node, [narrow])
