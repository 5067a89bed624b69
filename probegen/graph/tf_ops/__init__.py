"""TensorFlow operations that tf2onnx cannot convert, or converts poorly: one handler each.

tf2onnx calls a handler with its graph and the node; the handler writes ONNX nodes in its place.
One family of operations is one file; the table of all of them stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from probegen.graph.marks import MARK, STOP_GRADIENT
from probegen.graph.tf_ops import (
    bits,
    choices,
    functions,
    images,
    integers,
    layers,
    linear,
    positions,
)
from probegen.graph.tf_ops.marks import keep_as
from probegen.graph.tf_ops.writer import Handler, leave

#: Operation -> handler and its arguments, as tf2onnx wants them.
HANDLERS: Mapping[str, tuple[Handler, Sequence[Any]]] = {
    # functions of single numbers
    "Erfc": (functions.erfc, []),
    "Expm1": (functions.expm1, []),
    "Log1p": (functions.log1p, []),
    "Atan2": (functions.atan2, []),
    # choices between values
    "Select": (choices.select, []),
    "SelectV2": (choices.select, []),
    "DivNoNan": (choices.div_no_nan, []),
    "MulNoNan": (choices.mul_no_nan, []),
    # whole numbers
    "FloorDiv": (integers.floor_div, []),
    "FloorMod": (integers.floor_mod, []),
    "Mod": (integers.truncated_mod, []),
    "TruncateMod": (integers.truncated_mod, []),
    "TruncateDiv": (integers.truncated_div, []),
    "LeftShift": (integers.left_shift, []),
    "RightShift": (integers.right_shift, []),
    "Bitcast": (bits.bitcast, []),
    "BitwiseAnd": (bits.bitwise_and, []),
    # positions
    "OneHot": (positions.one_hot, []),
    "ArgMax": (positions.arg_extremum, []),
    "ArgMin": (positions.arg_extremum, []),
    "Bucketize": (positions.bucketize, []),
    "LowerBound": (positions.search_sorted, []),
    "UpperBound": (positions.search_sorted, []),
    # matrices
    "Einsum": (linear.einsum, []),
    "MatrixDiagV3": (linear.matrix_diag, []),
    "MatrixSetDiagV3": (linear.matrix_set_diag, []),
    # layers
    "BiasAdd": (layers.bias_add, []),
    "Conv2DBackpropInput": (layers.transposed_convolution, []),
    # images
    "ResizeBilinear": (images.resize_bilinear, []),
    "ResizeBicubic": (images.resize, []),
    "ScaleAndTranslate": (images.resize, []),
    # kept as they are
    "LookupTableFindV2": (leave, []),
    "StopGradient": (keep_as(STOP_GRADIENT), []),
    "PreventGradient": (keep_as(MARK), []),
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
