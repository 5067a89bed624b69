"""Rows of functions of single numbers, of pairs of them, of comparisons, choices and casts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from sweep.tensorflow_ops.row import Row
from sweep.tensorflow_ops.samples import between, floats, normal, pairs, whole, whole_pairs

_raw = tf.raw_ops
_KINDS = (np.float32, np.float16, np.float64)
_INTEGERS = (np.int32, np.int64, np.int8, np.int16, np.uint8, np.uint16, np.uint32, np.uint64)

_ONE: dict[str, Callable[..., Any]] = {
    "Abs": tf.abs,
    "Atan": tf.atan,
    "Asinh": tf.asinh,
    "Ceil": tf.math.ceil,
    "Cosh": tf.cosh,
    "Elu": tf.nn.elu,
    "Erf": tf.math.erf,
    "Erfc": tf.math.erfc,
    "Exp": tf.exp,
    "Expm1": tf.math.expm1,
    "Floor": tf.floor,
    "IsFinite": tf.math.is_finite,
    "IsInf": tf.math.is_inf,
    "IsNan": tf.math.is_nan,
    "LeakyRelu": tf.nn.leaky_relu,
    "Neg": tf.negative,
    "Reciprocal": tf.math.reciprocal,
    "Relu": tf.nn.relu,
    "Relu6": tf.nn.relu6,
    "Rint": tf.math.rint,
    "Round": tf.round,
    "Selu": tf.nn.selu,
    "Sigmoid": tf.sigmoid,
    "Sign": tf.sign,
    "Sinh": tf.sinh,
    "Softplus": tf.math.softplus,
    "Softsign": tf.nn.softsign,
    "Square": tf.square,
    "Tanh": tf.tanh,
    "Inv": lambda x: _raw.Inv(x=x),
    "Digamma": tf.math.digamma,
    "Lgamma": tf.math.lgamma,
    "Ndtri": tf.math.ndtri,
    "Erfinv": tf.math.erfinv,
    "BesselI0e": tf.math.bessel_i0e,
    "BesselI0": lambda x: _raw.BesselI0(x=x),
}
#: Those that are defined, or vary, on a part of the numbers alone.
_SOME: dict[str, tuple[Callable[..., Any], float, float]] = {
    "Acos": (tf.acos, -1, 1),
    "Acosh": (tf.acosh, 1, 30),
    "Asin": (tf.asin, -1, 1),
    "Atanh": (tf.atanh, -1, 1),
    "Cos": (tf.cos, -30, 30),
    "Log": (tf.math.log, -1, 30),
    "Log1p": (tf.math.log1p, -2, 30),
    "Rsqrt": (tf.math.rsqrt, -1, 30),
    "Sin": (tf.sin, -30, 30),
    "Sqrt": (tf.sqrt, -1, 30),
    "Tan": (tf.tan, -1.5, 1.5),
}
_TWO: dict[str, Callable[..., Any]] = {
    "AddV2": tf.add,
    "Add": lambda a, b: _raw.Add(x=a, y=b),
    "Sub": tf.subtract,
    "Mul": tf.multiply,
    "RealDiv": tf.divide,
    "Div": lambda a, b: _raw.Div(x=a, y=b),
    "DivNoNan": tf.math.divide_no_nan,
    "MulNoNan": tf.math.multiply_no_nan,
    "FloorDiv": tf.math.floordiv,
    "FloorMod": tf.math.floormod,
    "Maximum": tf.maximum,
    "Minimum": tf.minimum,
    "Pow": tf.pow,
    "SquaredDifference": tf.math.squared_difference,
    "Atan2": tf.math.atan2,
    "Equal": tf.equal,
    "NotEqual": tf.not_equal,
    "Greater": tf.greater,
    "GreaterEqual": tf.greater_equal,
    "Less": tf.less,
    "LessEqual": tf.less_equal,
    "Mod": lambda a, b: _raw.Mod(x=a, y=b),
    "TruncateMod": lambda a, b: _raw.TruncateMod(x=a, y=b),
    "Xlogy": tf.math.xlogy,
    "Xlog1py": tf.math.xlog1py,
    "Xdivy": tf.math.xdivy,
    "NextAfter": tf.math.nextafter,
    "ApproximateEqual": lambda a, b: _raw.ApproximateEqual(x=a, y=b, tolerance=0.1),
}
_NO_HALF = {
    "NextAfter",
    "Mod",
    "TruncateMod",
    "Rint",
    "ApproximateEqual",
    "BesselI0",
    "Ndtri",
    "Erfinv",
    "RealDiv",
    "Div",
}
_WHOLE_ONE = ("Abs", "Neg", "Sign", "Square", "Relu", "Relu6")
_WHOLE_TWO = (
    *("AddV2", "Sub", "Mul", "Maximum", "Minimum", "SquaredDifference", "Equal", "NotEqual"),
    *("Greater", "GreaterEqual", "Less", "LessEqual", "FloorDiv", "FloorMod", "Pow"),
)
_BITS = ("BitwiseAnd", "BitwiseOr", "BitwiseXor", "LeftShift", "RightShift")


#: What onnxruntime computes of float64 no better than in float32.
_SINGLE = frozenset(
    {"Acos", "Acosh", "Asin", "Asinh", "Atan", "Atan2", "Atanh", "Cosh", "Erf", "Erfc"}
    | {"Log", "Selu", "Sinh", "Softplus", "Tan", "LeakyRelu", "Elu"}
)
_INFINITE_ROWS = (
    "in a row that holds infinity or no number one engine says that all of it is no number, the "
    "other that this element is"
)
_OF_ERF = "TensorFlow's own erf of an infinite float64 is no number; ours is 1 or -1"
_TO_UNSIGNED = "what a negative number is as one without sign is defined by neither"


def rows() -> Iterator[Row]:
    """Yields the rows."""
    yield from _functions()
    yield from _of_integers()
    yield from _choices()
    yield from _casts()
    yield from _written_by_hand()


def _limit(op: str, kind: Any) -> float | None:
    return 1e-6 if kind == np.float64 and op in _SINGLE else None


def _functions() -> Iterator[Row]:
    for kind in _KINDS:
        name = np.dtype(kind).name
        for op, function in _ONE.items():
            if not (kind == np.float16 and op in _NO_HALF):
                known = {"infinite": _OF_ERF} if op == "Erf" and kind == np.float64 else {}
                given, limit = floats(kind), _limit(op, kind)
                yield Row(op, name, function, given, limit=limit, known=known)
        for op, (function, low, high) in _SOME.items():
            yield Row(op, name, function, between(low, high, kind), limit=_limit(op, kind))
            if kind == np.float32:
                yield Row(op, f"{name}, everywhere", function, floats(kind))
        for op, function in _TWO.items():
            if not (kind == np.float16 and op in _NO_HALF):
                yield Row(op, name, function, pairs(kind), limit=_limit(op, kind))
    for op in ("AddV2", "Mul", "Maximum", "Pow", "SquaredDifference", "FloorMod"):
        function = _TWO[op]
        yield Row(op, "a vector first", lambda x, f=function: f(x[0], x), floats())
        yield Row(op, "with a scalar", lambda x, f=function: f(x, 2.0), floats())
        yield Row(op, "a scalar first", lambda x, f=function: f(2.0, x), floats())
        yield Row(op, "sizes of 1", lambda x, f=function: f(x[:, :1], x[:1]), floats())
        yield Row(op, "other ranks", lambda x, f=function: f(x[:, None, :1], x[None]), floats())
    for exponent in (0.0, 0.5, -0.5, -1.0, 2.0, 3.0, -2.0, 1.5):
        yield Row("Pow", f"to {exponent}", lambda x, e=exponent: tf.pow(x, e), floats())
    for slope in (0.0, 0.3, -0.3, 1.5):
        yield Row(
            "LeakyRelu", f"slope {slope}", lambda x, s=slope: tf.nn.leaky_relu(x, s), floats()
        )
    for op, f in (("Softmax", tf.nn.softmax), ("LogSoftmax", tf.nn.log_softmax)):
        for kind in _KINDS:
            given = {**floats(kind), **normal((2, 3, 4), dtype=kind)}
            yield Row(
                op,
                np.dtype(kind).name,
                f,
                given,
                known=dict.fromkeys(("infinite", "NaN"), _INFINITE_ROWS),
            )
        yield Row(op, "an inner axis", lambda x, f=f: f(x, axis=1), normal((2, 5, 4)))
        yield Row(op, "one element", lambda x, f=f: f(x[:, :1]), floats())
    masked = {"masked": (np.where(np.eye(4, 5) > 0, -np.inf, 1.5).astype(np.float32),)}
    yield Row("Softmax", "masked by -inf", tf.nn.softmax, masked)
    yield Row(
        "Softmax",
        "masked whole rows by -1e9",
        lambda x: tf.nn.softmax(x + tf.cast(x[:, :1] > 0, x.dtype) * -1e9),
        floats(wild=False),
    )
    yield Row(
        "ClipByValue",
        "",
        lambda x: tf.raw_ops.ClipByValue(t=x, clip_value_min=-1.0, clip_value_max=2.0),
        floats(),
    )
    yield Row(
        "ClipByValue",
        "int32",
        lambda x: tf.raw_ops.ClipByValue(t=x, clip_value_min=-2, clip_value_max=3),
        whole(),
    )
    yield Row("AddN", "", lambda x: tf.add_n([x, x * 2, -x]), floats())
    yield Row("AddN", "one", lambda x: _raw.AddN(inputs=[x]), floats())
    yield Row("Igamma", "", lambda x: tf.math.igamma(tf.abs(x) + 1, tf.abs(x)), between(0, 3))
    yield Row("Betainc", "", lambda x: tf.math.betainc(x + 1, x + 2, x / 4), between(0, 3))
    yield Row("Zeta", "", lambda x: tf.math.zeta(x + 2, x + 1), between(0, 3))
    yield Row("Polygamma", "", lambda x: tf.math.polygamma(tf.ones_like(x), x + 1), between(0, 3))
    yield Row("Cross", "", lambda x: tf.linalg.cross(x, x[:, ::-1]), normal((4, 3)))


def _of_integers() -> Iterator[Row]:
    for kind in _INTEGERS:
        yield from _of_one_kind(kind)
    for op in ("FloorDiv", "FloorMod"):
        for by in (2, 3, -3):
            yield Row(op, f"by {by}", lambda x, f=_TWO[op], n=by: f(x, n), whole())
    yield Row("RealDiv", "integers by /", lambda x: x / 3, whole())
    yield Row("RealDiv", "a constant", lambda x: x / 3.0, floats())
    yield Row("Abs", "the least int32", tf.abs, {"least": (np.array([[-(2**31), 5]], np.int32),)})


def _of_one_kind(kind: Any) -> Iterator[Row]:
    name, unsigned = np.dtype(kind).name, np.dtype(kind).kind == "u"
    common = kind in (np.int32, np.int64)
    without = {"Abs", "Neg", "Sign"} if unsigned else set()
    without |= {"Square"} if kind == np.uint16 else set()
    without |= set() if common else {"SquaredDifference", "Pow"}
    for op in _WHOLE_ONE:
        if op not in without:
            yield Row(op, name, _ONE[op], whole(kind))
    for op in _WHOLE_TWO:
        if op not in without:
            zero = op not in ("FloorDiv", "FloorMod")
            a, b = whole_pairs(kind, zero=zero)["integers"]
            given = (a % 8 - 3, abs(b) % 7) if op == "Pow" else (a, b)
            yield Row(op, name, _TWO[op], {"integers": given})
    for op in ("TruncateDiv", *(("Mod", "TruncateMod") if common else ())):
        given = whole_pairs(kind, zero=False)
        yield Row(op, name, lambda a, b, o=op: getattr(_raw, o)(x=a, y=b), given)
    for op in _BITS:
        a, b = whole_pairs(kind)["integers"]
        if "Shift" in op:
            b = (np.abs(b.astype(np.int64)) % np.iinfo(kind).bits).astype(kind)
        yield Row(op, name, lambda a, b, o=op: getattr(_raw, o)(x=a, y=b), {"integers": (a, b)})
    yield Row("Invert", name, tf.bitwise.invert, whole(kind))
    yield Row("PopulationCount", name, lambda x: _raw.PopulationCount(x=x), whole(kind))


def _choices() -> Iterator[Row]:
    ids = {"padding": (np.array([[0, 0, 0], [3, 0, 1], [2, 2, 2]], np.int32),)}
    yield Row("SelectV2", "mean over a mask", _masked_mean, ids)
    for case, f in {
        "1 / x": lambda x: tf.where(x != 0, 1 / x, 0.0),
        "elu by hand": lambda x: tf.where(x > 0, x, tf.exp(x) - 1),
        "log": lambda x: tf.where(x > 0, tf.math.log(x), x),
        "sqrt": lambda x: tf.where(x > 0, tf.sqrt(x), 0.0),
        "sizes of 1": lambda x: tf.where(x[:, :1] > 0, x, x[:1]),
        "scalars": lambda x: tf.where(x > 0, 1.0, -1.0),
        "a scalar condition": lambda x: tf.where(x[0, 0] > 0, x, -x),
        "infinite constants": lambda x: tf.where(x > 0, x, -np.inf),
        "more axes": lambda x: tf.where((x > 0)[None], x, x[:, None, :1]),
        "booleans": lambda x: tf.where(x > 1, x > 2, x < 0),
    }.items():
        yield Row("SelectV2", case, f, floats())
    yield Row("SelectV2", "keras.ops.nan_to_num", keras.ops.nan_to_num, floats())
    for kind in (*_KINDS, *_INTEGERS):
        given = floats(kind) if np.dtype(kind).kind == "f" else whole(kind)
        yield Row(
            "SelectV2",
            np.dtype(kind).name,
            lambda x: tf.where(x > x[:, :1], x, tf.ones_like(x)),
            given,
        )
    yield Row("Select", "", lambda x: _raw.Select(condition=x > 0, x=x, y=x * 2), floats())
    yield Row(
        "Select",
        "by a vector",
        lambda x: _raw.Select(condition=x[:, 0] > 0, x=x, y=x * 2),
        floats(),
    )
    yield Row("Where", "", tf.where, {"b": (np.array([[0, 1, 1], [0, 0, 0]], bool),)})
    yield Row("Where", "of numbers", lambda x: tf.where(x), floats(wild=False))
    yield Row("LogicalAnd", "", lambda x: tf.logical_and(x > 0, x < 5), floats())
    yield Row("LogicalOr", "", lambda x: tf.logical_or(x > 5, x < 0), floats())
    yield Row("LogicalNot", "", lambda x: tf.logical_not(x > 0), floats())
    yield Row("LogicalNot", "exclusive or", lambda x: tf.math.logical_xor(x > 0, x < 5), floats())
    yield Row("Equal", "booleans", lambda x: tf.equal(x > 0, x > 1), floats())
    for op in ("All", "Any"):
        f = getattr(tf, f"reduce_{op.lower()}")
        for axis in (None, 0, 1, -1, [0, 1]):
            for keep in (False, True):
                yield Row(
                    op,
                    f"axis {axis}, keepdims {keep}",
                    lambda x, f=f, a=axis, k=keep: f(x > -1, a, keepdims=k),
                    floats(),
                )


def _masked_mean(ids: Any) -> Any:
    mask = tf.cast(ids != 0, tf.float32)
    count = tf.reduce_sum(mask, 1)
    return tf.where(count > 0, tf.reduce_sum(tf.cast(ids, tf.float32) * mask, 1) / count, 0.0)


def _casts() -> Iterator[Row]:
    kinds = [*_KINDS, *_INTEGERS, np.bool_]
    for source in kinds:
        given = _given(source)
        for target in kinds:
            if source is target:
                continue
            undefined = np.dtype(source).kind == "f" and np.dtype(target).kind == "u"
            yield Row(
                "Cast",
                f"{np.dtype(source).name} to {np.dtype(target).name}",
                lambda x, t=target: tf.cast(x, t),
                given,
                known={"negative": _TO_UNSIGNED} if undefined else {},
            )
    far = {"far": (np.array([[3e9, -3e9, 1e20], [-1e20, 300.5, -300.5]], np.float32),)}
    for target in (np.int32, np.int64, np.uint8, np.int8, np.int16):
        yield Row(
            "Cast",
            f"far float32 to {np.dtype(target).name}",
            lambda x, t=target: tf.cast(x, t),
            far,
        )
    wild = {"wild": (np.array([[np.inf, -np.inf, np.nan]], np.float32),)}
    for target in (np.int32, np.int64, np.bool_):
        yield Row(
            "Cast",
            f"wild float32 to {np.dtype(target).name}",
            lambda x, t=target: tf.cast(x, t),
            wild,
        )
    for way in ((tf.float16, tf.float32), (tf.int32, tf.float32), (tf.int32, tf.bool)):
        names = " to ".join(t.name for t in way)
        yield Row(
            "Cast",
            f"by way of {names}",
            lambda x, w=way: tf.cast(tf.cast(x, w[0]), w[1]),
            floats(wild=False),
        )
    yield Row("Cast", "uint8 and back", lambda x: tf.cast(tf.cast(x, tf.uint8), tf.int32), whole())
    yield Row(
        "Cast", "to bool and back", lambda x: tf.cast(tf.cast(x, tf.bool), tf.float32), floats()
    )
    yield Row(
        "Cast", "float64 and back", lambda x: tf.cast(tf.cast(x, tf.float64), tf.float32), floats()
    )
    yield Row("Bitcast", "keras.ops.signbit", keras.ops.signbit, floats())
    yield Row("Bitcast", "the bits", lambda x: tf.bitcast(x, tf.int32), floats())


def _given(kind: Any) -> Any:
    if np.dtype(kind).kind == "f":
        return {
            "finite": between(0, 100, kind)["finite"],
            "negative": between(-100, 0, kind)["finite"],
        }
    if kind is np.bool_:
        return {"booleans": (np.array([[0, 1, 1], [1, 0, 0]], bool),)}
    return whole(kind)


def _written_by_hand() -> Iterator[Row]:
    """Yields rows of what tf2onnx takes for another operation, or users write themselves."""
    for case, op, f in (
        ("x * (x > 1)", "Greater", lambda x: x * tf.cast(x > 1.0, x.dtype)),
        ("x * (1 > x)", "Less", lambda x: x * tf.cast(tf.less(x, 1.0), x.dtype)),
        ("x * (x < 1)", "Less", lambda x: x * tf.cast(x < 1.0, x.dtype)),
        ("leaky, written", "Maximum", lambda x: tf.maximum(0.2 * x, x)),
        ("leaky, negative slope", "Maximum", lambda x: tf.maximum(x, -0.2 * x)),
        (
            "leaky, a slope a channel",
            "Maximum",
            lambda x: tf.maximum([0.1, 0.2, 0.3, 0.4, 0.5] * x, x),
        ),
        ("relu6, written", "Minimum", lambda x: tf.minimum(tf.maximum(x, 0.0), 6.0)),
        ("hard swish", "Mul", lambda x: x * tf.nn.relu6(x + 3) / 6),
        ("swish", "Sigmoid", lambda x: x * tf.sigmoid(x)),
        ("mish", "Softplus", lambda x: x * tf.tanh(tf.math.softplus(x))),
        ("gelu", "Erfc", lambda x: tf.nn.gelu(x)),
        ("gelu, tanh", "Tanh", lambda x: tf.nn.gelu(x, approximate=True)),
        ("log sigmoid", "Softplus", tf.math.log_sigmoid),
        ("clip", "Minimum", lambda x: tf.clip_by_value(x, -1.0, 2.0)),
        ("logsumexp", "Exp", lambda x: tf.reduce_logsumexp(x, -1)),
        (
            "logsumexp, all masked",
            "Exp",
            lambda x: tf.reduce_logsumexp(tf.where(x > 1e9, x, -np.inf), -1),
        ),
        ("l2 normalised", "Rsqrt", lambda x: tf.math.l2_normalize(x * 0.01, -1)),
        ("moments", "SquaredDifference", lambda x: tf.nn.moments(x, [1])),
        ("x - floor(x)", "Floor", lambda x: x - tf.floor(x)),
        ("clip by norm", "Sqrt", lambda x: tf.clip_by_norm(x, 1.0)),
    ):
        yield Row(op, case, f, floats(wild="norm" not in case and "moments" not in case))
    yield Row(
        "Reshape",
        "the batch of another",
        lambda x: tf.reshape(x, [tf.shape(tf.transpose(x))[0], -1]),
        floats(),
    )
    yield Row("Reshape", "flat", lambda x: tf.reshape(x, [tf.shape(x)[0], -1]), normal((4, 3, 5)))
    yield Row(
        "AddV2",
        "scaled product and more axes",
        lambda x: 0.5 * tf.matmul(x, tf.ones((5, 3))) + tf.ones((2, 1, 3)),
        floats(wild=False),
    )
    yield Row(
        "AddV2",
        "product and scaled",
        lambda x: tf.matmul(x, tf.ones((5, 3))) + 0.5 * x[:, :3],
        normal((4, 5)),
    )
