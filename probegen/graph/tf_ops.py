"""TensorFlow operations that tf2onnx cannot convert, or converts poorly: one handler each.

tf2onnx calls a handler with its graph and the node; the handler writes ONNX nodes in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
from tf2onnx.onnx_opset.nn import BiasAdd, ConvTranspose, Resize, is_channels_last
from tf2onnx.utils import make_name

from probegen.graph.marks import MARK, MARK_DOMAIN, STOP_GRADIENT

#: As tf2onnx calls it: its graph, the node, the node's name, and arguments that are not used.
Handler = Callable[[Any, Any, str, Any], None]


class _Writer:
    """Writes nodes in the place of one node.

    Attributes:
        inputs: names of the node's inputs.
    """

    def __init__(self, context: Any, node: Any) -> None:
        self._context, self._node = context, node
        self._dtype: int = context.get_dtype(node.output[0])
        self.inputs: list[str] = list(node.input)

    def const(self, value: float) -> str:
        """Returns a scalar of the node's element type."""
        return self.array(np.array(value))

    def array(self, values: Any) -> str:
        """Returns a constant of the node's element type."""
        kind = onnx.helper.tensor_dtype_to_np_dtype(self._dtype)
        made = self._context.make_const(make_name(f"{self._node.name}/const"), values.astype(kind))
        return str(made.output[0])

    def indices(self, values: Any) -> str:
        """Returns a constant 1-D int64 tensor, as axes and widths need it."""
        name = make_name(f"{self._node.name}/const")
        return str(self._context.make_const(name, np.array(values, np.int64)).output[0])

    def condition(self, values: Any) -> str:
        """Returns a constant of booleans."""
        made = self._context.make_const(make_name(f"{self._node.name}/const"), values)
        return str(made.output[0])

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Writes a node whose output has the node's element type."""
        name = make_name(f"{self._node.name}/{op_type}")
        made = self._context.make_node(
            op_type, list(inputs), attr=attributes, name=name, dtypes=[self._dtype]
        )
        return str(made.output[0])

    def finish(self, op_type: str, *inputs: str, **attributes: Any) -> None:
        """Writes the last node, under the name and with the output of the original."""
        name, outputs = self._node.name, list(self._node.output)
        shapes = [self._context.get_shape(outputs[0])]
        self._context.remove_node(name)
        self._context.make_node(
            op_type,
            list(inputs),
            attr=attributes,
            name=name,
            outputs=outputs,
            shapes=shapes,
            dtypes=[self._dtype],
        )


def _erfc(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `Erfc(x)` (exact GELU) as `1 - Erf(x)`."""
    w = _Writer(context, node)
    w.finish("Sub", w.const(1), w.op("Erf", *w.inputs))


def _expm1(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `Expm1(x)` as `exp(x) - 1`: its gradient is then `exp(x)`, exact everywhere."""
    w = _Writer(context, node)
    w.finish("Sub", w.op("Exp", *w.inputs), w.const(1))


def _log1p(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `Log1p(x)` as `log(1 + x)`."""
    w = _Writer(context, node)
    w.finish("Log", w.op("Add", *w.inputs, w.const(1)))


def _einsum(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes an Einsum of two operands as transposes around one MatMul, where that is all it is.

    That is so where each operand keeps one axis of its own, one is summed over, and all others
    are in both: the products of attention. No size need be known. Others stay an Einsum.
    """
    equation = node.get_attr_value("equation").decode().replace(" ", "")
    plan = _as_matmul(equation)
    del node.attr["N"]
    if plan is None:
        return
    w = _Writer(context, node)
    first, second = (
        w.op("Transpose", x, perm=order) for x, order in zip(w.inputs, plan[:2], strict=True)
    )
    w.finish("Transpose", w.op("MatMul", first, second), perm=plan[2])


def _as_matmul(equation: str) -> tuple[list[int], list[int], list[int]] | None:
    """Returns how to transpose both operands of a MatMul and its result, None if it is none."""
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    if len(terms) != 2 or not arrow or "." in equation:
        return None
    first, second = terms
    if any(len(set(t)) < len(t) for t in (first, second, result)):
        return None
    shared = [c for c in result if c in first and c in second]
    rows = [c for c in result if c in first and c not in second]
    columns = [c for c in result if c in second and c not in first]
    summed = [c for c in first if c in second and c not in result]
    if not len(rows) == len(columns) == len(summed) == 1:
        return None
    if len(first) != len(shared) + 2 or len(second) != len(shared) + 2:
        return None
    made = [*shared, *rows, *columns]
    return (
        [first.index(c) for c in (*shared, *rows, *summed)],
        [second.index(c) for c in (*shared, *summed, *columns)],
        [made.index(c) for c in result],
    )


def _matrix_diag(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes vectors `[..., n]` on a diagonal of zero matrices `[..., rows, columns]`.

    One diagonal and known sizes; others stay, and are refused.
    """
    diagonals, rows, columns, padding = (_constant_value(context, i) for i in node.input[1:])
    sizes = context.get_shape(node.output[0])
    known = (diagonals, rows, columns, padding)
    if any(v is None for v in known) or np.ptp(diagonals) or not _matrix_is_known(sizes):
        return
    w = _Writer(context, node)
    k = int(np.ravel(diagonals)[0])
    on_rows = _on_rows(w, w.inputs[0], context.get_shape(node.input[0])[-1], sizes, k)
    there = w.condition(np.eye(sizes[-2], sizes[-1], k, dtype=bool))
    w.finish("Where", there, on_rows, w.const(padding))


def _matrix_set_diag(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes matrices `[..., rows, columns]` with vectors `[..., n]` on a diagonal of them."""
    diagonals = _constant_value(context, node.input[2])
    sizes = context.get_shape(node.output[0])
    if diagonals is None or np.ptp(diagonals) or not _matrix_is_known(sizes):
        return
    w = _Writer(context, node)
    k = int(np.ravel(diagonals)[0])
    rows, columns = sizes[-2:]
    length = min(rows + min(k, 0), columns - max(k, 0))
    on_rows = _on_rows(w, w.inputs[1], length, sizes, k)
    w.finish("Where", w.condition(np.eye(rows, columns, k, dtype=bool)), on_rows, w.inputs[0])


def _matrix_is_known(sizes: Sequence[int] | None) -> bool:
    return sizes is not None and min(sizes[-2:]) >= 0


def _on_rows(w: _Writer, diagonal: str, length: int, sizes: Sequence[int], k: int) -> str:
    """Returns the values `[..., length]` of diagonal k, each beside its row: `[..., rows, 1]`."""
    above = max(-k, 0)
    widths = np.zeros((2, len(sizes) - 1), np.int64)
    widths[:, -1] = above, sizes[-2] - above - length
    padded = w.op("Pad", diagonal, w.indices(widths.ravel())) if widths.any() else diagonal
    return w.op("Unsqueeze", padded, w.indices([-1]))


def _transposed_convolution(context: Any, node: Any, _: str, __: Any) -> None:
    """Adds the bias of a transposed convolution of open sizes behind the zeros, not before.

    Where the stride is larger than the kernel, TensorFlow fills up with zeros what no input
    reaches. tf2onnx does so behind the convolution, into which it has merged the bias by then.
    """
    position = 3
    sizes = context.get_shape(node.output[0]) or [-1]
    if len(node.input) > position and min(sizes) < 0 and is_channels_last(node):
        bias = node.input[position]
        context.remove_input(node, bias, position)
        context.insert_new_node_on_output("Add", node.output[0], inputs=[node.output[0], bias])
    ConvTranspose.version_11(context, node)


def _resize_bilinear(context: Any, node: Any, _: str, __: Any) -> None:
    """Lets images of 16 bits be interpolated in 32, in which TensorFlow returns them."""
    given, result = (context.get_dtype(name) for name in (node.input[0], node.output[0]))
    if given != result:
        context.insert_new_node_on_input(node, "Cast", node.input[0], to=result)
    Resize.version_11(context, node)


def _resize(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes a resampling of images as a product with a constant matrix along each axis.

    Cubic and Lanczos kernels, and anti-aliasing, have no operator in ONNX that agrees with
    TensorFlow (which reads cubic weights from a table). They are linear and act on height and
    width apart, so TensorFlow itself is asked for the two matrices, once, on unit images.
    Where a size is open the operation stays and is refused.
    """
    sizes = context.get_shape(node.input[0])
    if sizes is None or min(sizes[1:3]) < 0:
        return
    parameters = [_constant_value(context, name) for name in node.input[1:]]
    if any(value is None for value in parameters):
        return
    operation = {a: kind(node.get_attr_value(a)) for a, kind in _RESIZES[node.type].items()}

    def resample(images: Any) -> Any:
        given = dict(zip(("size", "scale", "translation"), parameters, strict=False))
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            made = getattr(tf.raw_ops, node.type)(images=images, **given, **operation)
            return session.run(made)

    rows, columns = _unit_responses(resample, sizes[1], sizes[2])
    result = context.get_dtype(node.output[0])
    if context.get_dtype(node.input[0]) != result:
        context.insert_new_node_on_input(node, "Cast", node.input[0], to=result)
    w = _Writer(context, node)
    height = w.array(rows)  # [out, in]
    width = w.array(columns.T)  # [in, out]
    planes = w.op("Transpose", w.inputs[0], perm=[0, 3, 1, 2])
    made = w.op("MatMul", w.op("MatMul", height, planes), width)
    w.finish("Transpose", made, perm=[0, 2, 3, 1])


def _constant_value(context: Any, name: str) -> Any:
    """Returns what a tensor made of constants and sizes comes to, None for others."""
    node = context.get_node_by_output(name)
    if node.is_const():
        return node.get_tensor_value(as_list=False)
    if node.type == "Shape":
        return np.array(context.get_shape(node.input[0]))
    inputs = [_constant_value(context, i) for i in node.input] if node.type in _FOLDED else [None]
    return None if any(v is None for v in inputs) else _FOLDED[node.type](*inputs)


#: Operations between the size of an image and the scale it is resized by.
_FOLDED: Mapping[str, Callable[..., Any]] = {
    "Cast": lambda x: x,
    "Div": lambda a, b: (a / b).astype(np.float32),
    "Slice": lambda x, starts, ends, *_: x[starts[0] : ends[0]],
}


def _unit_responses(resample: Callable[[Any], Any], height: int, width: int) -> tuple[Any, Any]:
    """Returns the matrices of a separable resampling, `[out, in]` for height and for width.

    Its weights along an axis sum to 1, so an image that is constant along the other shows them.
    """
    rows = np.broadcast_to(np.eye(height)[:, :, None, None], (height, height, width, 1))
    columns = np.broadcast_to(np.eye(width)[:, None, :, None], (width, height, width, 1))
    by_row = resample(rows.astype(np.float32))[:, :, 0, 0]
    by_column = resample(columns.astype(np.float32))[:, 0, :, 0]
    return by_row.T, by_column.T


#: Attributes that an operation is repeated with.
_RESIZES: Mapping[str, Mapping[str, Callable[[Any], Any]]] = {
    "ResizeBicubic": {"align_corners": bool, "half_pixel_centers": bool},
    "ScaleAndTranslate": {"kernel_type": bytes.decode, "antialias": bool},
}


def _leave(_: Any, __: Any, ___: str, ____: Any) -> None:
    """Leaves an operation as it is, to be refused with the reason in `REFUSED`."""


def _bias_add(context: Any, node: Any, _: str, __: Any) -> None:
    """BiasAdd: with channels first the bias runs along the second axis.

    tf2onnx sees to that where it is a constant. Keras writes any sum so whose second operand has
    one axis of more than one element: `[1, 7, 8] + [1, 7, 1]` too.
    """
    bias = node.inputs[1]
    shape = context.get_shape(node.input[0])
    if not node.is_nhwc() and not bias.is_const() and shape is not None and len(shape) > 2:
        w = _Writer(context, node)
        wide = w.op("Reshape", node.input[1], w.indices([-1, *[1] * (len(shape) - 2)]))
        context.replace_input(node, node.input[1], wide, 1)
    BiasAdd.version_7(context, node)


def _keep_as(op_type: str) -> Handler:
    """Returns a handler that keeps an operation as a mark of our own."""

    def handler(_: Any, node: Any, __: str, ___: Any) -> None:
        node.type = op_type
        node.domain = MARK_DOMAIN

    return handler


#: Operation -> handler and its arguments, as tf2onnx wants them.
HANDLERS: Mapping[str, tuple[Handler, Sequence[Any]]] = {
    "Erfc": (_erfc, []),
    "Expm1": (_expm1, []),
    "Log1p": (_log1p, []),
    "Einsum": (_einsum, []),
    "BiasAdd": (_bias_add, []),
    "MatrixDiagV3": (_matrix_diag, []),
    "MatrixSetDiagV3": (_matrix_set_diag, []),
    "LookupTableFindV2": (_leave, []),
    "Conv2DBackpropInput": (_transposed_convolution, []),
    "ResizeBilinear": (_resize_bilinear, []),
    "ResizeBicubic": (_resize, []),
    "ScaleAndTranslate": (_resize, []),
    "StopGradient": (_keep_as(STOP_GRADIENT), []),
    "PreventGradient": (_keep_as(MARK), []),
}

_OPEN_SIZE = "needs images of fixed height and width: give the model's Input both"
_PREPARES = (
    "prepares data. Split the model: keep this layer in front, and compile the part that takes "
    "what it gives"
)
_ALGEBRA = "ONNX has no operator for it"

#: Operation -> why it has no form in ONNX, where more can be said than that.
REFUSED: Mapping[str, str] = {
    "ResizeBicubic": _OPEN_SIZE,
    "ScaleAndTranslate": _OPEN_SIZE,
    "LookupTableFindV2": _PREPARES,
    "StringToHashBucketFast": _PREPARES,
    "StringToHashBucketStrong": _PREPARES,
    "Bucketize": _PREPARES,
    "AsString": _PREPARES,
    "MatrixDiagV3": "needs sizes known at compile time, and a single diagonal",
    "MatrixSetDiagV3": "needs sizes known at compile time, and a single diagonal",
    "MatrixInverse": _ALGEBRA,
    "MatrixSolve": _ALGEBRA,
    "MatrixTriangularSolve": _ALGEBRA,
    "Cholesky": _ALGEBRA,
    "Qr": _ALGEBRA,
    "Svd": _ALGEBRA,
    "SelfAdjointEigV2": _ALGEBRA,
}
