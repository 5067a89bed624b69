"""TensorFlow operations that tf2onnx cannot convert, or converts poorly: one handler each.

tf2onnx calls a handler with its graph and the node; the handler writes ONNX nodes in its place.
One family of operations is one file; the table of all of them stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx

from probegen.graph.core.marks import MARK, STOP_GRADIENT
from probegen.sources.keras.to_onnx.handlers import (
    angles,
    bits,
    choices,
    functions,
    hashing,
    images,
    integers,
    layers,
    linear,
    patches,
    positions,
    recurrent,
    reductions,
    rounded,
    shapes,
    signals,
)
from probegen.sources.keras.to_onnx.handlers.marks import keep_as
from probegen.sources.keras.to_onnx.handlers.writer import Handler, leave, refuse

_Type = onnx.TensorProto

#: What tf2onnx would write as a draw of its own, with other numbers.
_RANDOM = (
    *("Multinomial", "RandomShuffle", "RandomStandardNormal", "RandomUniform", "RandomUniformInt"),
    *("SampleDistortedBoundingBox", "SampleDistortedBoundingBoxV2"),
)

#: Operation -> handler and its arguments, as tf2onnx wants them.
HANDLERS: Mapping[str, tuple[Handler, Sequence[Any]]] = {
    # functions of single numbers
    "Erfc": (functions.erfc, []),
    "Expm1": (functions.expm1, []),
    "Log1p": (functions.log1p, []),
    "IsFinite": (functions.is_finite, []),
    "IsInf": (functions.is_inf, []),
    "Inv": (functions.reciprocal, []),
    "Xlogy": (functions.xlogy, []),
    "Xlog1py": (functions.xlogy, []),
    "Xdivy": (functions.xdivy, []),
    "ApproximateEqual": (functions.approximate_equal, []),
    "Cross": (functions.cross, []),
    "Log": (functions.keep, []),
    "Sign": (functions.in_single_precision(_Type.FLOAT16), []),
    "Softplus": (functions.softplus, []),
    "Selu": (functions.selu, []),
    "Erf": (functions.erf, []),
    **{op: (functions.inverse_hyperbolic, []) for op in ("Acosh", "Asinh", "Atanh")},
    "Cosh": (functions.hyperbolic, []),
    "Sinh": (functions.hyperbolic, []),
    "L2Loss": (functions.half_square, []),
    "SparseSoftmaxCrossEntropyWithLogits": (functions.cross_entropy, []),
    "FakeQuantWithMinMaxArgs": (rounded.fake_quantised, []),
    "FakeQuantWithMinMaxVars": (rounded.fake_quantised, []),
    # angles
    "Acos": (angles.arccosine, []),
    "Asin": (angles.arcsine, []),
    "Atan": (angles.arctangent, []),
    "Atan2": (angles.atan2, []),
    "Tan": (angles.tangent, []),
    # choices between values
    "Select": (choices.select, []),
    "SelectV2": (choices.select, []),
    "DivNoNan": (choices.div_no_nan, []),
    "MulNoNan": (choices.mul_no_nan, []),
    # whole numbers
    "Maximum": (integers.extremum("Max"), []),
    "Minimum": (integers.extremum("Min"), []),
    "Relu": (integers.relu, []),
    "Relu6": (integers.relu, []),
    "FloorDiv": (integers.floor_div, []),
    "FloorMod": (integers.floor_mod, []),
    "Mod": (integers.truncated_mod, []),
    "TruncateMod": (integers.truncated_mod, []),
    "TruncateDiv": (integers.truncated_div, []),
    "LeftShift": (integers.left_shift, []),
    "RightShift": (integers.right_shift, []),
    "Bitcast": (bits.bitcast, []),
    "BitwiseAnd": (bits.bitwise_and, []),
    "AsString": (hashing.as_text, []),
    "StringToHashBucketFast": (hashing.by_farmhash, []),
    "StringToHashBucketStrong": (hashing.by_siphash, []),
    # positions
    "OneHot": (positions.one_hot, []),
    "ArgMax": (positions.arg_extremum, []),
    "ArgMin": (positions.arg_extremum, []),
    "Bucketize": (positions.bucketize, []),
    "LowerBound": (positions.search_sorted, []),
    "UpperBound": (positions.search_sorted, []),
    "TopKV2": (shapes.top_k, []),
    "InvertPermutation": (reductions.invert_permutation, []),
    # sums, counts and segments
    **{op: (reductions.reduction(f"Reduce{op}"), []) for op in ("Max", "Mean", "Min")},
    **{op: (reductions.reduction(f"Reduce{op}"), []) for op in ("Prod", "Sum")},
    "EuclideanNorm": (reductions.euclidean_norm, []),
    "Cumprod": (reductions.cumulative_product, []),
    "Bincount": (reductions.bincount, []),
    "DenseBincount": (reductions.bincount, []),
    **{f"Segment{op}": (reductions.segments, []) for op in ("Max", "Mean", "Min")},
    **{f"Segment{op}": (reductions.segments, []) for op in ("Prod", "Sum")},
    **{f"UnsortedSegment{op}": (reductions.segments, []) for op in ("Max", "Min")},
    **{f"UnsortedSegment{op}": (reductions.segments, []) for op in ("Prod", "Sum")},
    # sizes and axes
    "StridedSlice": (shapes.strided_slice, []),
    "Transpose": (shapes.transpose, []),
    "Roll": (shapes.roll, []),
    "Rank": (shapes.rank, []),
    "ShapeN": (shapes.shape_n, []),
    "BroadcastArgs": (shapes.broadcast_args, []),
    "ScatterNd": (shapes.scatter_nd, []),
    "XlaDynamicUpdateSlice": (shapes.dynamic_update_slice, []),
    # matrices
    "Einsum": (linear.einsum, []),
    "MatrixBandPart": (linear.matrix_band_part, []),
    **{op: (linear.matrix_diag, []) for op in ("MatrixDiag", "MatrixDiagV2", "MatrixDiagV3")},
    **{f"MatrixDiagPart{version}": (linear.matrix_diag_part, []) for version in ("", "V2", "V3")},
    "MatrixSetDiagV3": (linear.matrix_set_diag, []),
    # layers
    "BiasAdd": (layers.bias_add, []),
    "BiasAddV1": (layers.bias_add_last, []),
    **{op: (layers.convolution, []) for op in ("Conv2D", "Conv3D", "DepthwiseConv2dNative")},
    **{op: (layers.pool("MaxPool"), []) for op in ("MaxPool", "MaxPoolV2", "MaxPool3D")},
    **{op: (layers.pool("AveragePool"), []) for op in ("AvgPool", "AvgPool3D")},
    "Conv2DBackpropInput": (layers.transposed_convolution, []),
    recurrent.CARRIER: (recurrent.recurrent, []),
    # images
    "ResizeBilinear": (images.resize_bilinear, []),
    "ResizeNearestNeighbor": (images.nearest, []),
    "ResizeBicubic": (images.resize, []),
    "ResizeArea": (images.resize, []),
    "ScaleAndTranslate": (images.resize, []),
    "RGBToHSV": (images.rgb_to_hsv, []),
    "HSVToRGB": (images.hsv_to_rgb, []),
    "AdjustSaturation": (images.adjust_saturation, []),
    "ExtractImagePatches": (patches.extract_patches, []),
    "ExtractVolumePatches": (patches.extract_patches, []),
    # complex numbers
    "Complex": (signals.complex_, []),
    "Real": (signals.real, []),
    "Imag": (signals.imaginary, []),
    "Conj": (signals.conjugate, []),
    "ComplexAbs": (signals.magnitude, []),
    "Angle": (signals.phase, []),
    **{op: (signals.transform, []) for op in ("FFT", "IFFT", "FFT2D", "IFFT2D")},
    **{op: (signals.transform, []) for op in ("RFFT", "IRFFT", "RFFT2D", "IRFFT2D")},
    # refused
    **{op: (refuse, []) for op in (*_RANDOM, "StringLower", "StringUpper")},
    # kept as they are
    "LookupTableFindV2": (leave, []),
    "StopGradient": (keep_as(STOP_GRADIENT), []),
    "PreventGradient": (keep_as(MARK), []),
}

_OPEN_SIZE = (
    "needs images of fixed height and width: give the model's Input both, or resize by "
    "'bilinear' or 'nearest' without antialiasing, which work at any size; or leave it out of the "
    "model and pass preprocess=pg.ImageInput(size='any', antialias=True)"
)
_PREPARES = (
    "prepares data. Split the model: keep this layer in front, and compile the part that takes "
    "what it gives"
)
_ALGEBRA = "ONNX has no operator for it"
_DRAWS = "it draws random numbers, of which no two engines draw the same"

#: Operation -> why it has no form in ONNX, where more can be said than that.
REFUSED: Mapping[str, str] = {
    "ResizeBicubic": _OPEN_SIZE,
    "ResizeArea": _OPEN_SIZE,
    "ScaleAndTranslate": _OPEN_SIZE,
    "LookupTableFindV2": _PREPARES,
    "StringToHashBucketFast": _PREPARES,
    "StringToHashBucketStrong": _PREPARES,
    "AsString": _PREPARES,
    "StringLower": _PREPARES,
    "StringUpper": _PREPARES,
    **dict.fromkeys(_RANDOM, _DRAWS),
    "MatrixDiag": "needs a single diagonal, and sizes known at compile time where any are given",
    "MatrixDiagV2": "needs a single diagonal, and sizes known at compile time where any are given",
    "MatrixDiagV3": "needs a single diagonal, and sizes known at compile time where any are given",
    "MatrixSetDiagV3": "needs sizes known at compile time, and a single diagonal",
    "MatrixInverse": _ALGEBRA,
    "MatrixSolve": _ALGEBRA,
    "MatrixTriangularSolve": _ALGEBRA,
    "Cholesky": _ALGEBRA,
    "Qr": _ALGEBRA,
    "Svd": _ALGEBRA,
    "SelfAdjointEigV2": _ALGEBRA,
}
