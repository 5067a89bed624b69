"""Operators of `ai.onnx.ml` that are smooth functions of their input, in standard ones.

skl2onnx writes them for scikit-learn's linear models, regressions by support vectors, scalers and
normalisers. Trees stay, which move in steps, so that no gradient passes them; and classifiers by
support vectors with probabilities, which are coupled by an iteration that ends at a tolerance, and
jump by that (Wu, Lin and Weng 2004; libsvm's `probability=True`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.errors import SourceError
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import attribute, shape_of
from probegen.sources.onnx.names import told
from probegen.sources.onnx.parts import Part, Parts, required
from probegen.sources.onnx.scores_of_outputs import SCORES
from probegen.text import amount

_FLOAT = ir.DataType.FLOAT
#: Where the result of a classifier notes that its two scores have turned signs.
_OPPOSED = "probegen.opposed_scores"


def _floats(b: Builder, value: ir.Value) -> ir.Value:
    """Casts what a node reads to single precision, in which these operators work."""
    if value.dtype == _FLOAT:
        return value
    return b.op("Cast", value, dtype=_FLOAT, shape=value, to=int(_FLOAT))


def _numbers(b: Builder, given: Sequence[float]) -> ir.Value:
    return b.const(np.asarray(given, dtype=np.float32))


def _scaler(b: Builder, node: ir.Node) -> Parts:
    x = _floats(b, required(node, 0))
    offset, scale = attribute(node, "offset", [0.0]), attribute(node, "scale", [1.0])
    return [b.op("Mul", b.op("Sub", x, _numbers(b, offset)), _numbers(b, scale), shape=x)]


def _normalizer(b: Builder, node: ir.Node) -> Parts:
    """Divides rows by their norm; a row of zeros stays as it is."""
    x = _floats(b, required(node, 0))
    kinds = {"MAX": "ReduceMax", "L1": "ReduceL1", "L2": "ReduceSumSquare"}
    kind = attribute(node, "norm", "MAX")
    norm = b.op(kinds[kind], x, b.ints(-1), keepdims=1)
    nothing = b.op("Equal", norm, b.const(np.float32(0)), dtype=ir.DataType.BOOL)
    safe = b.op("Where", nothing, b.const(np.float32(1)), norm, dtype=_FLOAT)
    if kind == "L2":
        safe = b.op("Sqrt", safe)
    result = b.op("Div", x, safe, shape=x)
    if kind == "L1" and (scores := _scores_of_shares(x)) is not None:
        result.meta[SCORES] = scores
    return [result]


def _scores_of_shares(x: ir.Value) -> ir.Value | None:
    """Returns the scores of rows that add up to one already, as skl2onnx divides them once more.

    None where they are no softmax of a last axis, and no logistic function of two scores of
    which one is the other with its sign turned.
    """
    node = x.producer()
    if node is None or node.op_type not in ("Softmax", "Sigmoid"):
        return None
    if node.op_type == "Softmax":
        shape = shape_of(x)
        axes = (-1,) if shape is None else (-1, len(shape) - 1)
        return node.inputs[0] if attribute(node, "axis", -1) in axes else None
    return node.inputs[0] if x.meta.get(_OPPOSED) else None


def _linear(b: Builder, node: ir.Node, targets: int) -> ir.Value:
    x = _floats(b, required(node, 0))
    weights = np.asarray(attribute(node, "coefficients"), np.float32).reshape(targets, -1)
    product = b.op("MatMul", x, b.const(weights.T.copy()))
    bias = attribute(node, "intercepts", [])
    return b.op("Add", product, _numbers(b, bias)) if bias else product


def _transformed(b: Builder, node: ir.Node, scores: ir.Value) -> ir.Value:
    kind = attribute(node, "post_transform", "NONE")
    if kind == "NONE":
        return scores
    if kind == "LOGISTIC":
        return b.op("Sigmoid", scores)
    if kind == "SOFTMAX":
        return b.op("Softmax", scores, axis=-1)
    raise SourceError(f"{told(node)} ends with {kind}; known are NONE, LOGISTIC and SOFTMAX.")


def _linear_regressor(b: Builder, node: ir.Node) -> Parts:
    return [_transformed(b, node, _linear(b, node, attribute(node, "targets", 1)))]


def _svm_regressor(b: Builder, node: ir.Node) -> Parts | None:
    """Adds up kernels of the input with each support vector; without any it is linear."""
    coefficients = np.asarray(attribute(node, "coefficients"), np.float32)
    count = attribute(node, "n_supports", 0)
    kernel = attribute(node, "kernel_type", "LINEAR") if count else "LINEAR"
    if attribute(node, "one_class", 0) or attribute(node, "post_transform", "NONE") != "NONE":
        return None
    if kernel not in _KERNELS:
        return None
    x = _floats(b, required(node, 0))
    if count:
        vectors = np.asarray(attribute(node, "support_vectors"), np.float32).reshape(count, -1)
        x = _KERNELS[kernel](b, x, vectors, *attribute(node, "kernel_params", [0.0, 0.0, 0.0]))
    total = b.op("MatMul", x, b.const(coefficients.reshape(-1, 1)))
    return [b.op("Add", total, _numbers(b, attribute(node, "rho", [0.0])[:1]))]


def _svm_classifier(b: Builder, node: ir.Node) -> Parts | None:
    """Decides between each pair of classes by the support vectors of the two.

    Of two classes the scores are the decision with its sign turned, and the decision. The label is
    the class with most decisions for it, of several the first.
    """
    words, numbers = (attribute(node, f"classlabels_{t}", []) for t in ("strings", "ints"))
    coefficients = np.asarray(attribute(node, "coefficients", []), np.float32)
    counts = attribute(node, "vectors_per_class", [])
    kernel, classes = attribute(node, "kernel_type", "LINEAR"), len(counts)
    turned = attribute(node, "post_transform", "NONE") != "NONE" or attribute(node, "prob_a", [])
    all_alike = bool((coefficients >= 0).all())  # onnxruntime labels by another bound then
    if classes < 2 or classes != len(words or numbers) or turned or all_alike:
        return None
    if kernel not in _KERNELS or len(attribute(node, "rho", [])) != classes * (classes - 1) // 2:
        return None
    x, total = _floats(b, required(node, 0)), sum(counts)
    vectors = np.asarray(attribute(node, "support_vectors"), np.float32).reshape(total, -1)
    params = attribute(node, "kernel_params", [0.0, 0.0, 0.0])
    rows, ends = coefficients.reshape(classes - 1, total), np.cumsum([0, *counts])
    pairs = list(itertools.combinations(range(classes), 2))
    weights = np.zeros((total, len(pairs)), np.float32)
    ballots = np.zeros((2, len(pairs), classes), np.float32)  # against the first, and for it
    for k, (i, j) in enumerate(pairs):
        for one, other in ((i, j - 1), (j, i)):
            own = slice(ends[one], ends[one + 1])
            weights[own, k] = rows[other, own]
        ballots[0, k, j] = ballots[1, k, i] = 1
    decided = b.op("MatMul", _KERNELS[kernel](b, x, vectors, *params), b.const(weights))
    decided = b.op("Add", decided, _numbers(b, attribute(node, "rho")))
    first = b.op("Greater", decided, b.const(np.float32(0)), dtype=ir.DataType.BOOL)
    shares = b.op("Cast", first, dtype=_FLOAT, to=int(_FLOAT))
    change = b.op("MatMul", shares, b.const(ballots[1] - ballots[0]))
    votes = b.op("Add", change, b.const(ballots[0].sum(0)))
    best = b.op("ArgMax", votes, dtype=ir.DataType.INT64, axis=1, keepdims=0)
    array = np.asarray(words, object) if words else np.asarray(numbers, np.int64)
    label = b.op("Gather", _stored(b, array), best, axis=0)
    if classes > 2:
        return [label, decided]
    return [label, b.op("Mul", decided, b.const(np.array([-1, 1], np.float32)))]


def _product(b: Builder, x: ir.Value, vectors: npt.NDArray[np.float32]) -> ir.Value:
    return b.op("MatMul", x, b.const(vectors.T.copy()))


def _linear_kernel(
    b: Builder, x: ir.Value, vectors: npt.NDArray[np.float32], *_: float
) -> ir.Value:
    return _product(b, x, vectors)


def _scaled_product(
    b: Builder, x: ir.Value, vectors: npt.NDArray[np.float32], gamma: float, added: float
) -> ir.Value:
    scaled = b.op("Mul", _product(b, x, vectors), b.const(np.float32(gamma)))
    return b.op("Add", scaled, b.const(np.float32(added)))


def _polynomial_kernel(
    b: Builder,
    x: ir.Value,
    vectors: npt.NDArray[np.float32],
    gamma: float,
    added: float,
    degree: float,
) -> ir.Value:
    base = _scaled_product(b, x, vectors, gamma, added)
    return b.op("Pow", base, b.const(np.float32(degree)))


def _sigmoid_kernel(
    b: Builder, x: ir.Value, vectors: npt.NDArray[np.float32], gamma: float, added: float, _: float
) -> ir.Value:
    return b.op("Tanh", _scaled_product(b, x, vectors, gamma, added))


def _radial_kernel(
    b: Builder, x: ir.Value, vectors: npt.NDArray[np.float32], gamma: float, *_: float
) -> ir.Value:
    """Takes the differences themselves: squares that are added and taken off lose digits."""
    apart = b.op("Sub", b.op("Unsqueeze", x, b.ints(1)), b.const(vectors[None]))
    squares = b.op("ReduceSumSquare", apart, b.ints(2), keepdims=0)
    return b.op("Exp", b.op("Mul", squares, b.const(np.float32(-gamma))))


#: Kernel of support vectors -> what writes it: (builder, x, vectors, gamma, coef0, degree).
_KERNELS: Mapping[str, Callable[..., ir.Value]] = {
    "LINEAR": _linear_kernel,
    "POLY": _polynomial_kernel,
    "RBF": _radial_kernel,
    "SIGMOID": _sigmoid_kernel,
}


def _linear_classifier(b: Builder, node: ir.Node) -> Parts | None:
    words, numbers = (attribute(node, f"classlabels_{t}", []) for t in ("strings", "ints"))
    labels = words or numbers
    count = len(attribute(node, "intercepts", [])) or len(labels)
    if count != len(labels) or count < 2:
        raise SourceError(
            f"{told(node)} has {count} rows of coefficients for {amount(len(labels), 'class')}; "
            "known is one a class."
        )
    scores = _linear(b, node, count)
    best = b.op("ArgMax", scores, dtype=ir.DataType.INT64, axis=1, keepdims=0)
    array = np.asarray(words, object) if words else np.asarray(numbers, np.int64)
    shares = _transformed(b, node, scores)
    shares.meta[_OPPOSED] = count == 2 and _are_opposed(node)
    return [b.op("Gather", _stored(b, array), best, axis=0), shares]


def _are_opposed(node: ir.Node) -> bool:
    """Tells whether the second of two scores is the first with its sign turned."""
    rows = np.asarray(attribute(node, "coefficients"), np.float32).reshape(2, -1)
    bias = attribute(node, "intercepts", []) or [0.0, 0.0]
    return bool(np.all(rows[0] == -rows[1]) and bias[0] == -bias[1])


def _stored(b: Builder, array: npt.NDArray[Any]) -> ir.Value:
    if array.dtype != object:
        return b.const(array)
    name = b.fresh("words")
    content = [s if isinstance(s, bytes) else str(s).encode() for s in array.reshape(-1)]
    value = ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.STRING),
        shape=ir.Shape(array.shape),
        const_value=ir.StringTensor(content, shape=ir.Shape(array.shape), name=name),
    )
    b.graph.register_initializer(value)
    return value


def _array_feature_extractor(b: Builder, node: ir.Node) -> Parts | None:
    """Picks entries of the last axis; a vector counts as one row."""
    x = required(node, 0)
    shape = shape_of(x)
    if shape is None:
        return None
    if len(shape) == 1:
        x = b.op("Unsqueeze", x, b.ints(0))
    places = b.op("Reshape", required(node, 1), b.ints(-1))
    return [b.op("Gather", x, places, axis=-1)]


def _imputer(b: Builder, node: ir.Node) -> Parts | None:
    x = required(node, 0)
    values = attribute(node, "imputed_value_floats", [])
    missing = attribute(node, "replaced_value_float", 0.0)
    if x.dtype != _FLOAT or not values:
        return None
    if np.isnan(missing):
        absent = b.op("IsNaN", x, dtype=ir.DataType.BOOL)
    else:
        absent = b.op("Equal", x, b.const(np.float32(missing)), dtype=ir.DataType.BOOL)
    return [b.op("Where", absent, _numbers(b, values), x, dtype=_FLOAT)]


def _feature_vectorizer(b: Builder, node: ir.Node) -> Parts:
    columns = [_floats(b, v) for v in node.inputs if v is not None]
    return [b.op("Concat", *columns, axis=1)]


_ML = "ai.onnx.ml"
#: Operator -> what it consists of.
PARTS: Mapping[str, Part] = {
    f"{_ML}::Scaler": _scaler,
    f"{_ML}::Normalizer": _normalizer,
    f"{_ML}::LinearRegressor": _linear_regressor,
    f"{_ML}::LinearClassifier": _linear_classifier,
    f"{_ML}::SVMRegressor": _svm_regressor,
    f"{_ML}::SVMClassifier": _svm_classifier,
    f"{_ML}::ArrayFeatureExtractor": _array_feature_extractor,
    f"{_ML}::Imputer": _imputer,
    f"{_ML}::FeatureVectorizer": _feature_vectorizer,
}
