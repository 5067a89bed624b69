"""What random graphs are made of: nodes behind a tensor, in whichever operator set there is.

What onnxruntime does not take there, it says, and another node is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from fuzz.onnx_drawing import FUNCTIONS, MICROSOFT, Graph, NotHereError

#: Adds nodes behind a tensor; returns the new tensor.
Make = Callable[[Graph, str], str]

#: Functions of one tensor, with the operator set that has them.
_UNARY = {
    **dict.fromkeys(("Relu", "Tanh", "Sigmoid", "Softplus", "Softsign", "Abs", "Neg", "Exp"), 7),
    **dict.fromkeys(("Elu", "Selu", "LeakyRelu", "HardSigmoid", "Identity", "Floor", "Ceil"), 7),
    **dict.fromkeys(("Sin", "Cos", "Atan"), 7),
    **dict.fromkeys(("Erf", "Sinh", "Asinh", "Sign", "Shrink"), 9),
    **dict.fromkeys(("ThresholdedRelu",), 10),
    **dict.fromkeys(("Round",), 11),
    **dict.fromkeys(("Celu",), 12),
    **dict.fromkeys(("HardSwish",), 14),
    **dict.fromkeys(("Mish",), 18),
    **dict.fromkeys(("Gelu",), 20),
    **dict.fromkeys(("Swish",), 24),
}
#: Functions of a positive tensor.
_POSITIVE = ("Sqrt", "Log", "Reciprocal")
#: Attributes that a function may have.
_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Elu": {"alpha": 0.7},
    "LeakyRelu": {"alpha": 0.3},
    "HardSigmoid": {"alpha": 0.4, "beta": 0.3},
    "Selu": {"alpha": 1.2, "gamma": 0.9},
    "Celu": {"alpha": 1.5},
    "ThresholdedRelu": {"alpha": 0.4},
    "Shrink": {"lambd": 0.3, "bias": 0.2},
    "Gelu": {"approximate": "tanh"},
}
_REDUCTIONS = (
    *("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceLogSumExp"),
    *("ReduceL1", "ReduceSumSquare", "ReduceProd"),
)


def _axis(g: Graph, x: str) -> int:
    """Returns an axis that is not the batch."""
    return g.d.whole(1, len(g.sizes(x)))


def _function(g: Graph, x: str) -> str:
    op = g.d.one([op for op, since in _UNARY.items() if since <= g.opset])
    given = _ATTRIBUTES.get(op, {}) if g.d.maybe(0.6) else {}
    return g.add(op, x, **given)


def _of_positive(g: Graph, x: str) -> str:
    return g.add(g.d.one(_POSITIVE), g.add("Add", g.add("Abs", x), g.number(0.5)))


def _power(g: Graph, x: str) -> str:
    kind = g.d.whole(0, 2)
    if kind == 0:
        return g.add("Pow", x, g.number(2.0))
    if kind == 1:
        return g.add("Pow", g.add("Add", g.add("Abs", x), g.number(0.3)), g.number(1.3))
    whole = g.weight(np.array(3, np.int64 if g.opset >= 12 else np.dtype(g.dtype)))
    return g.add("Pow", x, whole)


def _arithmetic(g: Graph, x: str) -> str:
    sizes = g.sizes(x)
    shape = [1 if size is None else g.d.one((1, size)) for size in sizes]
    other = g.floats(*shape[g.d.whole(0, len(shape) - 1) :]) if g.d.maybe(0.8) else g.number(0.7)
    operands = [x, other] if g.d.maybe(0.7) else [other, x]
    op = g.d.one(("Add", "Sub", "Mul", "Max", "Min", "Div", "PRelu"))
    if op == "PRelu":
        return g.add(op, x, other)
    if op == "Div":
        safe = g.add("Add", g.add("Abs", operands[1]), g.number(0.5))
        return g.add(op, operands[0], safe)
    if op in ("Max", "Min") and g.opset < 8:  # they broadcast since then
        op = "Add"
    return g.add(op, *operands)


def _gated(g: Graph, x: str) -> str:
    return g.add("Mul", x, g.add("Sigmoid", x))


def _matrix(g: Graph, x: str) -> str:
    width = g.d.whole(2, 5)
    (last,) = g.fixed(x, -1)
    if len(g.sizes(x)) == 1 and g.d.maybe(0.6):
        turned = g.d.maybe(0.5)
        weights = g.floats(width, last) if turned else g.floats(last, width)
        scale: dict[str, Any] = {"alpha": 0.5, "beta": 2.0} if g.d.maybe(0.3) else {}
        bias = [g.floats(width)] if g.opset < 11 or g.d.maybe(0.8) else []
        return g.add("Gemm", x, weights, *bias, transB=int(turned), **scale)
    return g.add("MatMul", x, g.floats(last, width))


def _einsum(g: Graph, x: str) -> str:
    g.needs(12)
    (last,) = g.fixed(x, -1)
    if g.d.maybe(0.5):
        return g.add("Einsum", x, g.floats(last, 3), equation="...k,kj->...j")
    if len(g.sizes(x)) != 2:
        raise NotHereError
    return g.add("Einsum", x, x, equation="bik,bjk->bij")


def _convolution(g: Graph, x: str) -> str:
    rank, filters = len(g.sizes(x)) - 1, g.d.whole(1, 4)
    (channels,) = g.fixed(x, 0)
    kernel = [g.d.whole(1, 3) for _ in range(rank)]
    given: dict[str, Any] = {}
    if g.d.maybe(0.5):
        given["pads"] = [g.d.whole(0, 2) for _ in range(2 * rank)]
    elif g.d.maybe(0.3):
        given["auto_pad"] = g.d.one(("SAME_UPPER", "SAME_LOWER", "VALID"))
    if g.d.maybe(0.4):
        given["strides"] = [g.d.whole(1, 3) for _ in range(rank)]
    elif g.d.maybe(0.4) and "auto_pad" not in given:
        given["dilations"] = [g.d.whole(1, 2) for _ in range(rank)]
    bias = [g.floats(filters)] if g.d.maybe(0.6) else []
    if g.d.maybe(0.25):
        given.pop("auto_pad", None)
        if g.d.maybe(0.2):
            given["output_padding"] = [0 if s < 2 else 1 for s in given.get("strides", [1] * rank)]
        return g.add("ConvTranspose", x, g.floats(channels, filters, *kernel), *bias, **given)
    if g.d.maybe(0.25):
        times = g.d.one((1, 1, 2))
        weights = g.floats(channels * times, 1, *kernel)
        return g.add("Conv", x, weights, group=channels, **given)
    return g.add("Conv", x, g.floats(filters, channels, *kernel), *bias, **given)


def _pooling(g: Graph, x: str) -> str:
    rank, op = len(g.sizes(x)) - 1, g.d.one(("MaxPool", "MaxPool", "AveragePool", "LpPool"))
    if g.d.maybe(0.2):
        return g.add(f"Global{op}", x)
    given: dict[str, Any] = {"kernel_shape": [g.d.whole(1, 3) for _ in range(rank)]}
    if g.d.maybe(0.5):
        given["strides"] = [g.d.whole(1, 3) for _ in range(rank)]
    if g.d.maybe(0.4):
        given["pads"] = [g.d.whole(0, k - 1) for k in given["kernel_shape"]] * 2
    elif g.d.maybe(0.2):
        given["auto_pad"] = g.d.one(("SAME_UPPER", "SAME_LOWER"))
    since = {"MaxPool": 10, "AveragePool": 10, "LpPool": 18}[op]
    if g.d.maybe(0.3) and g.opset >= since:
        given["ceil_mode"] = 1
    if op == "MaxPool" and g.d.maybe(0.2) and g.opset >= 10 and "auto_pad" not in given:
        given["dilations"] = [g.d.whole(1, 2) for _ in range(rank)]
    if op == "AveragePool" and g.d.maybe(0.4):
        given["count_include_pad"] = 1
    return g.add(op, x, **given)


def _resized(g: Graph, x: str) -> str:
    rank = len(g.sizes(x)) - 1
    scales = np.array([1, 1, *(g.d.one((1.0, 2.0, 1.5)) for _ in range(rank))], np.float32)
    mode = g.d.one(("nearest", "linear", "cubic")) if rank == 2 else "nearest"
    if g.opset < 9:
        return g.add("Upsample", x, scales=np.ceil(scales).tolist(), mode="nearest")
    if g.opset < 11:
        op = "Upsample" if g.opset < 10 else "Resize"
        return g.add(op, x, g.weight(np.ceil(scales)), mode="nearest")
    given: dict[str, Any] = {"mode": mode}
    given["coordinate_transformation_mode"] = g.d.one(
        ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
    )
    if mode == "nearest":
        given["nearest_mode"] = g.d.one(("floor", "ceil", "round_prefer_floor"))
    if mode == "cubic" and g.d.maybe(0.5):
        given |= {"cubic_coeff_a": -0.5, "exclude_outside": g.d.whole(0, 1)}
    if g.opset >= 18 and mode == "linear" and g.d.maybe(0.3):
        given["antialias"] = 1
    if g.d.maybe(0.3):  # the sizes are computed when it runs
        start = g.add("Slice", g.add("Shape", x), g.integers(0), g.integers(2), g.integers(0))
        sizes = g.add("Concat", start, g.integers(*(g.d.whole(2, 6) for _ in range(rank))), axis=0)
        return g.add("Resize", x, "", "", sizes, **given)
    return g.add("Resize", x, "", g.weight(scales), **given)


def _rearranged(g: Graph, x: str) -> str:
    sizes = g.sizes(x)
    if len(sizes) != 3:
        raise NotHereError
    if g.d.maybe(0.5):
        return g.add("SpaceToDepth", x, blocksize=2)
    mode = {"mode": g.d.one(("DCR", "CRD"))} if g.opset >= 11 else {}
    return g.add("DepthToSpace", x, blocksize=2, **mode)


def _reduced(g: Graph, x: str) -> str:
    op, rank = g.d.one(_REDUCTIONS), len(g.sizes(x))
    axes = [_axis(g, x)]
    kept = int(rank == 1 or g.d.maybe(0.5))
    if kept and g.d.maybe(0.3):
        axes = g.d.some(range(1, rank + 1))
    if g.d.maybe(0.3) and g.opset >= 11:
        axes = [axis - rank - 1 for axis in axes]
    return g.along(op, x, axes, 13 if op == "ReduceSum" else 18, keepdims=kept)


def _moved(g: Graph, x: str) -> str:
    rank, kind = len(g.sizes(x)), g.d.whole(0, 6)
    if kind == 0:
        order = [0, *(1 + g.d.rng.permutation(rank)).tolist()]
        return g.add("Transpose", x, perm=order)
    if kind == 1:
        return g.add("Flatten", x, axis=1)
    if kind == 2:  # the sizes are computed when it runs, as torch writes them
        sizes = g.add("Shape", x)
        first = g.add("Gather", sizes, g.integers(0), axis=0)
        rest = g.integers(int(np.prod(g.fixed(x, *range(rank)))))
        return g.add("Reshape", x, g.add("Concat", first, rest, axis=0))
    if kind == 3:
        order = g.d.rng.permutation(g.fixed(x, *range(rank))).tolist()
        first_size = g.d.one((0, -1))
        return g.add("Reshape", x, g.integers(first_size, *map(int, order)))
    if kind == 4 and rank < 4:
        return g.along("Unsqueeze", x, [_axis(g, x)], 13)
    if kind == 5:
        ones = [axis + 1 for axis, size in enumerate(g.sizes(x)) if size == 1]
        if not ones or rank == 1:
            raise NotHereError
        return g.along("Squeeze", x, [g.d.one(ones)], 13)
    return g.add("Dropout", x) if g.d.maybe(0.3) else g.add("Identity", x)


def _chosen(g: Graph, x: str) -> str:
    """Takes a part along an axis, by whichever operator."""
    axis, kind = _axis(g, x), g.d.whole(0, 7)
    size = g.sizes(x)[axis - 1]
    if kind == 0 and g.opset < 10:
        return g.add("Slice", x, axes=[axis], starts=[g.d.whole(0, 1)], ends=[2**31 - 1])
    if kind == 0:
        numbers = ([g.d.whole(0, 1)], [2**31 - 1], [axis], [g.d.whole(1, 2)])
        return g.add("Slice", x, *(g.integers(*n) for n in numbers))
    if kind == 1:
        g.needs(10)
        return g.add("Slice", x, *(g.integers(n) for n in (-1, -(2**31), axis, -1)))
    if kind == 2:
        at = g.weight(np.array(g.d.one(([0, 1, 0], [[1, 0]], 1)), np.int64))
        return g.add("Gather", x, at, axis=axis)
    if kind == 3 and size is not None and size > 1:
        parts = [1, size - 1]
        if g.opset >= 13:
            return g.several(2, "Split", x, g.integers(*parts), axis=axis)[1]
        return g.several(2, "Split", x, axis=axis, split=parts)[1]
    if kind == 4 and size is not None:
        if g.opset < 10:
            return g.several(2, "TopK", x, k=min(2, size), axis=axis)[0]
        given: dict[str, Any] = {"largest": g.d.whole(0, 1)} if g.opset >= 11 else {}
        return g.several(2, "TopK", x, g.integers(min(2, size)), axis=axis, **given)[0]
    if kind == 5:
        g.needs(9)
        mask = np.arange(size or 3) % 2 == 0
        return g.add("Compress", x, g.weight(mask), axis=axis)
    if kind == 6:  # the end is computed when it runs
        g.needs(10)
        sizes = g.add("Shape", x)
        length = g.add("Gather", sizes, g.integers(axis), axis=0)
        end = g.add("Sub", length, g.integers(1))
        return g.add("Slice", x, g.integers(0), end, g.integers(axis))
    best = g.add("ArgMax", x, axis=axis, keepdims=1)
    g.needs(11)
    return g.add("GatherElements", x, best, axis=axis)


def _scattered(g: Graph, x: str) -> str:
    g.needs(11)
    kind = g.d.whole(0, 2)
    ones = g.add("ArgMax", x, axis=len(g.sizes(x)), keepdims=1)
    if kind == 0:
        values = g.add("Mul", g.add("GatherElements", x, ones, axis=-1), g.number(0.4))
        given = {"reduction": g.d.one(("add", "mul"))} if g.opset >= 16 and g.d.maybe() else {}
        return g.add("ScatterElements", x, ones, values, axis=len(g.sizes(x)), **given)
    if kind == 1:
        return g.add("Mul", x, g.add("Cast", ones, to=_kind(g)))
    low = g.add("ReduceMax", x, axes=[-1], keepdims=1) if g.opset < 18 else None
    low = low or g.add("ReduceMax", x, g.integers(-1), keepdims=1)
    return g.add("Sub", low, x)


def _kind(g: Graph) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(g.dtype)))


def _compared(g: Graph, x: str) -> str:
    g.needs(9)
    high = g.add(g.d.one(("Greater", "Less")), x, g.number(0.1))
    if g.d.maybe(0.3):
        high = g.add("Not", high)
    if g.d.maybe(0.3):
        low = g.add("Less", x, g.number(1.0))
        high = g.add(g.d.one(("And", "Or", "Xor")), high, low)
    if g.d.maybe(0.3):
        return g.add("Mul", x, g.add("Cast", high, to=_kind(g)))
    other = g.add("Mul", x, g.number(-0.3)) if g.d.maybe() else g.number(0.2)
    return g.add("Where", high, x, other)


def _clipped(g: Graph, x: str) -> str:
    if g.opset < 11:
        return g.add("Clip", x, min=-0.5, max=0.8)
    bounds = [g.number(-0.5), g.number(0.8)]
    return g.add("Clip", x, *g.d.one((bounds, bounds[:1], ["", bounds[1]])))


def _spread(g: Graph, x: str) -> str:
    rank, kind = len(g.sizes(x)), g.d.whole(0, 4)
    if kind == 0:
        g.needs(8)
        sizes = [1, *(3 if size == 1 else 1 for size in g.sizes(x))]
        return g.add("Expand", x, g.integers(*([2] if g.d.maybe(0.0) else []), *sizes))
    if kind == 1:
        return g.add("Tile", x, g.integers(1, *(g.d.one((1, 1, 2)) for _ in range(rank))))
    if kind == 2:
        g.needs(11)
        given: dict[str, Any] = {"exclusive": g.d.whole(0, 1), "reverse": g.d.whole(0, 1)}
        return g.add("CumSum", x, g.weight(np.array(_axis(g, x), np.int64)), **given)
    if kind == 3:
        g.needs(14)
        if rank < 2:
            raise NotHereError
        return g.add("Trilu", x, upper=g.d.whole(0, 1))
    g.needs(9)
    zeros = g.add("ConstantOfShape", g.add("Shape", x))
    same = g.add("Cast", zeros, to=_kind(g)) if g.dtype != "float32" else zeros
    return g.add("Concat", x, same, axis=_axis(g, x))


def _joined(g: Graph, x: str) -> str:
    other = g.add(g.d.one(("Tanh", "Relu")), x)
    earlier = [
        name
        for name, (one, two) in g.values.items()
        if name != x
        and [one.shape, two.shape] == [array.shape for array in g.values[x]]
        and one.dtype == g.values[x][0].dtype
    ]
    if earlier and g.d.maybe(0.6):
        other = g.d.one(earlier)
    kind = g.d.whole(0, 5)
    if kind == 0:
        return g.add("Concat", x, other, axis=_axis(g, x))
    if kind == 1:
        return g.add("Sum", x, other, x)
    if kind == 2:
        return g.add(g.d.one(("Mean", "Max", "Min")), x, other)
    if kind == 3 and g.opset >= 11:
        pair = g.add("SequenceConstruct", x, other)
        axis = _axis(g, x)
        return g.add("ConcatFromSequence", pair, axis=axis, new_axis=g.d.whole(0, 1))
    if kind == 4 and len(g.sizes(x)) > 1:
        order = [0, *range(1, len(g.sizes(x)) - 1), len(g.sizes(x)), len(g.sizes(x)) - 1]
        return g.add("MatMul", x, g.add("Transpose", other, perm=order))
    return g.add(g.d.one(("Add", "Mul", "Sub")), x, other)


def _attention(g: Graph, x: str) -> str:
    sizes = g.sizes(x)
    (width,) = g.fixed(x, -1)
    if len(sizes) != 2:
        raise NotHereError
    query, key, value = (g.add("MatMul", x, g.floats(width, 4)) for _ in range(3))
    scores = g.add("MatMul", query, g.add("Transpose", key, perm=[0, 2, 1]))
    scores = g.add("Mul", scores, g.number(0.5))
    weights = g.add("Softmax", scores, axis=-1 if g.opset >= 13 else 2)
    return g.add("MatMul", weights, value)


def _heads(g: Graph, x: str) -> str:
    """Adds attention with heads, by reshapes and turns as exporters write it."""
    sizes = g.sizes(x)
    (width,) = g.fixed(x, -1)
    if len(sizes) != 2:
        raise NotHereError
    time = -1 if sizes[0] is None else sizes[0]
    parts = []
    for _ in range(3):
        made = g.add("MatMul", x, g.floats(width, 4))
        split = g.add("Reshape", made, g.integers(0, time, 2, 2))
        parts.append(g.add("Transpose", split, perm=[0, 2, 1, 3]))
    query, key, value = parts
    scores = g.add("MatMul", query, g.add("Transpose", key, perm=[0, 1, 3, 2]))
    weights = g.add("Softmax", scores, axis=-1 if g.opset >= 13 else 3)
    mixed = g.add("Transpose", g.add("MatMul", weights, value), perm=[0, 2, 1, 3])
    return g.add("Reshape", mixed, g.integers(0, time, 4))


def _padded(g: Graph, x: str) -> str:
    sizes = g.sizes(x)
    pads = [0, *(g.d.whole(0, 2) for _ in sizes), 0, *(g.d.whole(0, 2) for _ in sizes)]
    if g.d.maybe(0.2):
        pads[-1] = -1
    mode = g.d.one(("constant", "reflect", "edge", *(("wrap",) if g.opset >= 19 else ())))
    if g.opset < 11:
        return g.add("Pad", x, pads=pads, mode=mode)
    value = [g.number(0.3)] if mode == "constant" and g.d.maybe(0.3) else []
    return g.add("Pad", x, g.integers(*pads), *value, mode=mode)


def _normalised(g: Graph, x: str) -> str:
    kind, rank = g.d.whole(0, 9), len(g.sizes(x))
    if kind in (0, 1):
        (channels,) = g.fixed(x, 0)
        scale, bias, mean = (g.floats(channels) for _ in range(3))
        spread = g.weight(g.d.rng.uniform(0.5, 2, channels).astype(g.dtype))
        return g.add("BatchNormalization", x, scale, bias, mean, spread)
    if kind in (2, 3):
        op = g.d.one(("Softmax", "LogSoftmax", "Hardmax"))
        axis = g.d.one((-1, _axis(g, x))) if g.opset >= 11 else _axis(g, x)
        return g.add(op, x, axis=axis)
    if kind == 4 and rank > 1:
        (channels,) = g.fixed(x, 0)
        return g.add("InstanceNormalization", x, g.floats(channels), g.floats(channels))
    if kind == 5:
        return g.add("LpNormalization", x, axis=_axis(g, x), p=g.d.whole(1, 2))
    # Of other types it is no valid ONNX: what onnx says it is made of adds a number of 32 bits.
    if kind == 6 and rank > 1 and g.dtype == "float32":
        g.needs(9)
        return g.add("MeanVarianceNormalization", x, axes=[0, 2] if g.d.maybe(0) else [rank])
    if kind == 7 and rank > 1:
        return g.add("LRN", x, size=3, alpha=0.1, beta=0.6, bias=1.2)
    if kind == 8 and rank > 1:
        g.needs(18)
        (channels,) = g.fixed(x, 0)
        groups = g.d.one([n for n in (1, 2, 3) if channels % n == 0])
        scales = [g.floats(groups if g.opset < 21 else channels) for _ in range(2)]
        return g.add("GroupNormalization", x, *scales, num_groups=groups)
    (last,) = g.fixed(x, -1)
    if g.opset >= 23 and g.d.maybe():
        return g.add("RMSNormalization", x, g.floats(last))
    g.needs(17)
    return g.add("LayerNormalization", x, g.floats(last), g.floats(last), axis=-1)


def _recurrent(g: Graph, x: str) -> str:
    op, units = g.d.one(("LSTM", "GRU", "RNN")), g.d.whole(2, 4)
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    way = g.d.one(("forward", "forward", "reverse", "bidirectional"))
    count = 2 if way == "bidirectional" else 1
    if len(g.sizes(x)) != 2:
        raise NotHereError
    (width,) = g.fixed(x, 1)
    series = g.add("Transpose", x, perm=[1, 0, 2])
    weights = [g.floats(count, gates * units, size) for size in (width, units)]
    given: dict[str, Any] = {"hidden_size": units, "direction": way}
    if op == "GRU" and g.d.maybe(0.5):
        given["linear_before_reset"] = 1
    if g.d.maybe(0.15):
        given["clip"] = 0.7
    if op == "RNN" and g.d.maybe(0.5):
        given["activations"] = ["Relu"] * count
    bias = g.floats(count, 2 * gates * units) if g.d.maybe(0.6) else ""
    lens = [i.name for i in g.inputs if i.name == "lens"]
    lengths = lens[0] if lens and g.d.maybe(0.8) else ""
    more = [bias, lengths]
    if g.d.maybe(0.25):  # it starts from a state that is computed
        at = g.integers(*[0] * count)
        first = g.add("Gather", series, at, axis=0)
        start = g.add("MatMul", first, g.floats(width, units))
        more += [start, *([start] if op == "LSTM" else [])]
    if op == "LSTM" and g.d.maybe(0.15):
        more += [""] * (4 - len(more)) + [g.floats(count, 3 * units)]
    steps, last = g.several(2, op, series, *weights, *more, **given)
    if g.d.maybe(0.3):  # the last state alone, [direction, batch, unit]
        return g.add("Transpose", last, perm=[1, 0, 2])
    turned = g.add("Transpose", steps, perm=[2, 0, 1, 3])  # from [time, direction, batch, unit]
    time = g.sizes(x)[0]
    return g.add("Reshape", turned, g.integers(0, -1 if time is None else time, count * units))


def _branch(g: Graph, x: str) -> str:
    """Adds an `If` whose condition is computed, with the tensor captured in both branches."""
    g.needs(11)
    total = g.add("Size", x)
    wanted = g.add("Greater", total, g.weight(np.array(g.d.one((0, 10**6)), np.int64)))
    return g.add("If", wanted, **_branches(g, x))


def _branches(g: Graph, x: str) -> dict[str, Any]:
    """Returns two bodies that use the same names inside."""
    bodies = {}
    for name, op in (("then_branch", "Tanh"), ("else_branch", "Sigmoid")):
        nodes = [helper.make_node(op, [x], ["inner"]), helper.make_node("Mul", ["inner", x], ["y"])]
        info = helper.make_tensor_value_info("y", _kind(g), None)
        bodies[name] = helper.make_graph(nodes, name, [], [info])
    return bodies


def _loop(g: Graph, x: str) -> str:
    """Adds a `Loop` that carries a tensor, and may give out what it was after each turn."""
    g.needs(11)
    sizes: list[str | int | None] = ["batch", *g.sizes(x)]
    nodes = [
        helper.make_node("Tanh", ["carried"], ["inner"]),
        helper.make_node("Add", ["inner", x], ["next"]),
        helper.make_node("Identity", ["going"], ["kept"]),
    ]
    if g.d.maybe(0.3):  # a branch inside
        nodes[0] = helper.make_node("If", ["going"], ["inner"], **_branches(g, "carried"))
    outs = [
        helper.make_tensor_value_info("kept", TensorProto.BOOL, []),
        helper.make_tensor_value_info("next", _kind(g), sizes),
    ]
    gives_steps = g.d.maybe(0.4)
    if gives_steps:
        nodes.append(helper.make_node("Sin", ["next"], ["step"]))
        outs.append(helper.make_tensor_value_info("step", _kind(g), sizes))
    ins = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        helper.make_tensor_value_info("carried", _kind(g), sizes),
    ]
    body = helper.make_graph(nodes, "body", ins, outs)
    turns = g.weight(np.array(g.d.whole(1, 3), np.int64))
    found = g.several(1 + gives_steps, "Loop", turns, g.weight(np.array(True)), x, body=body)
    if not gives_steps or g.d.maybe(0.4):
        return found[0]
    rank = len(sizes)
    return g.add("Transpose", found[1], perm=[1, 0, *range(2, rank + 1)])


def _over_time(g: Graph, x: str) -> str:
    """Adds a `Scan` along an axis, or a `Loop` that takes an entry in each turn."""
    g.needs(11)
    sizes = g.sizes(x)
    if len(sizes) < 2:
        raise NotHereError
    inner: list[str | int | None] = ["batch", *sizes[1:]]
    first = g.add("Gather", x, g.weight(np.array(0, np.int64)), axis=1)
    step = [
        helper.make_node("Tanh", ["state"], ["inner"]),
        helper.make_node("Mul", ["inner", "entry"], ["product"]),
        helper.make_node("Add", ["product", "entry"], ["next"]),
    ]
    state = helper.make_tensor_value_info("state", _kind(g), inner)
    next_state = helper.make_tensor_value_info("next", _kind(g), inner)
    if g.d.maybe(0.6):
        entry = helper.make_tensor_value_info("entry", _kind(g), inner)
        step.append(helper.make_node("Sigmoid", ["next"], ["y"]))
        y = helper.make_tensor_value_info("y", _kind(g), inner)
        body = helper.make_graph(step, "body", [state, entry], [next_state, y])
        given: dict[str, Any] = {"scan_input_axes": [1], "scan_output_axes": [1]}
        if g.d.maybe(0.3):
            given |= {"scan_input_directions": [1], "scan_output_directions": [g.d.whole(0, 1)]}
        found = g.several(2, "Scan", first, x, body=body, num_scan_inputs=1, **given)
        return g.d.one(found)
    step.insert(0, helper.make_node("Gather", [x, "i"], ["entry"], axis=1))
    step.append(helper.make_node("Identity", ["going"], ["kept"]))
    ins = [
        helper.make_tensor_value_info("i", TensorProto.INT64, []),
        helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        state,
    ]
    outs = [helper.make_tensor_value_info("kept", TensorProto.BOOL, []), next_state]
    body = helper.make_graph(step, "body", ins, outs)
    at = g.weight(np.array(1, np.int64))
    turns = g.add("Gather", g.add("Shape", x), at, axis=0)
    return g.add("Loop", turns, g.weight(np.array(True)), first, body=body)


def _by_function(g: Graph, x: str) -> str:
    """Calls a function that the graph brings along."""
    g.needs(10)
    opsets = [helper.make_opsetid("", g.opset)]
    name = g.d.one(("Bent", "Leaky"))
    if name == "Bent":
        nodes = [helper.make_node("Tanh", ["x"], ["t"]), helper.make_node("Mul", ["x", "t"], ["y"])]
        given: list[str] = []
    else:
        leaky = helper.make_node("LeakyRelu", ["x"], ["t"])
        slope = helper.make_attribute("alpha", 0.0)
        slope.ref_attr_name = "slope"
        slope.ClearField("f")
        leaky.attribute.append(slope)
        nodes, given = [leaky, helper.make_node("Sin", ["t"], ["y"])], ["slope"]
    g.functions[name] = helper.make_function(FUNCTIONS, name, ["x"], ["y"], nodes, opsets, given)
    return g.add(name, x, domain=FUNCTIONS, **dict.fromkeys(given, 0.3))


def _narrowed(g: Graph, x: str) -> str:
    """Goes through another floating type and back."""
    kind = g.d.one((TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE))
    if kind == TensorProto.BFLOAT16:
        g.needs(13)
    inside = g.add(g.d.one(("Tanh", "Identity", "Relu")), g.add("Cast", x, to=kind))
    return g.add("Cast", inside, to=_kind(g))


def _microsoft(g: Graph, x: str) -> str:
    kind = g.d.whole(0, 4)
    (last,) = g.fixed(x, -1)
    if kind == 0:
        return g.add(g.d.one(("Gelu", "FastGelu", "QuickGelu")), x, domain=MICROSOFT)
    if kind == 1:
        return g.add("BiasGelu", x, g.floats(last), domain=MICROSOFT)
    if kind == 2:
        return g.add("FusedMatMul", x, g.floats(last, 3), domain=MICROSOFT, alpha=0.7)
    if kind == 3 and len(g.sizes(x)) == 2:
        return g.add(
            "SkipLayerNormalization", x, x, g.floats(last), g.floats(last), domain=MICROSOFT
        )
    return g.add("FusedGemm", x, g.floats(last, 3), domain=MICROSOFT, activation="Relu")


#: What can stand behind any tensor, behind series `[batch, time, feature]`, and behind maps.
ANY: tuple[Make, ...] = (
    *(_function,) * 4, *(_arithmetic,) * 3, _gated, *(_matrix,) * 3, _reduced, *(_moved,) * 3,
    *(_chosen,) * 3, *(_joined,) * 3, _padded, *(_normalised,) * 3, _branch, _loop, _over_time,
    _of_positive, _power, _einsum, _compared, _clipped, _spread, _spread, _scattered, _by_function,
    _narrowed, _microsoft,
)  # fmt: skip
SERIES: tuple[Make, ...] = (*(_recurrent,) * 5, *(_attention,) * 3, *(_heads,) * 2, *(_over_time,))
MAPS: tuple[Make, ...] = (*(_convolution,) * 8, *(_pooling,) * 5, *(_resized,) * 2, _rearranged)
