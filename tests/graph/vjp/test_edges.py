"""Gradients at the edges: infinite slopes, nothing arriving, ties and saturation.

Every rule has a row here, or is named among those whose slopes are finite numbers wherever
their arguments are. Expected are TensorFlow's gradients where these are finite, and limits
where TensorFlow has none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx.parser
import pytest

from probegen.graph.vjp import RULES
from tests.graph.vjp.harness import Case, differentiate, one_node, run

INF, NAN = np.inf, np.nan
#: More than the exponential of any 32-bit number can be told of.
HUGE = 1e30


@dataclasses.dataclass(frozen=True)
class Edge:
    """One node at an edge.

    Attributes:
        op: the operator.
        inputs: of the node.
        g: the gradient of its output.
        expected: those of its floating inputs that are no constants.
        attributes: of the node.
        constants: positions of inputs that are initializers.
        opset: of the model.
    """

    op: str
    inputs: Sequence[Any]
    g: Any
    expected: Sequence[Any]
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    constants: tuple[int, ...] = ()
    opset: int = 18

    def __str__(self) -> str:
        return f"{self.op}-{'-'.join(str(np.ravel(x)[:3]) for x in self.inputs)}"


def _edge(op, inputs, g, expected, constants=(), opset=18, **attributes):
    return Edge(op, inputs, g, expected, attributes, constants, opset)


def _saturated(op, below, above, **attributes):
    """A function that is flat, or a line, far out on either side."""
    return _edge(
        op,
        [[-HUGE, -1e5, 1e5, HUGE]],
        [2, 2, 2, 2],
        [[2 * below, 2 * below, 2 * above, 2 * above]],
        **attributes,
    )


ROWS = [
    # Nothing arrives where the slope is infinite or no number; what arrives elsewhere goes on.
    _edge("Sqrt", [[0, -1, 4, 0]], [0, 0, 1, 1], [[0, 0, 0.25, INF]]),
    _edge("Log", [[0, -1, 4]], [0, 0, 1], [[0, 0, 0.25]]),
    _edge("Reciprocal", [[0, 1e-30, 4]], [0, 0, 1], [[0, 0, -0.0625]]),
    _edge("Exp", [[100, 1000, 0, -INF]], [0, 0, 1, 1], [[0, 0, 1, 0]]),
    _edge("Sinh", [[100, -100, 0]], [0, 0, 1], [[0, 0, 1]]),
    _edge("Cosh", [[100, -100, 0]], [0, 0, 1], [[0, 0, 0]]),
    _edge("Asin", [[1, -1, 2, 0]], [0, 0, 0, 1], [[0, 0, 0, 1]]),
    _edge("Acos", [[1, -1, 2, 0]], [0, 0, 0, 1], [[0, 0, 0, -1]]),
    _edge("Atanh", [[1, -1, 0]], [0, 0, 1], [[0, 0, 1]]),
    # Squares of these overflow, the slopes do not vanish.
    _edge("Asinh", [[-1e25, 2e30]], [1e25, 1e30], [[1, 0.5]]),
    _edge("Acosh", [[1e25, 2e30]], [1e25, 1e30], [[1, 0.5]]),
    _edge("Acosh", [[1, 0, np.sqrt(2)]], [0, 0, 1], [[0, 0, 1]]),
    _edge("Div", [[0, 1, 6], [0, 0, 3]], [0, 0, 1], [[0, 0, 1 / 3], [0, 0, -2 / 3]]),
    _edge("Div", [[0, 1, 6], 0], [0, 0, 0], [[0, 0, 0], 0]),
    _edge("Mod", [[1, 7], [0, 2]], [0, 1], [[0, 1], [0, -3]], fmod=1),
    _edge("Pow", [[0, -2, 4, 9], 0.5], [0, 0, 1, 0], [[0, 0, 0.25, 0]], constants=(1,)),
    _edge("Pow", [[0, -2, 2], -1.0], [0, 1, 1], [[0, -0.25, -0.25]], constants=(1,)),
    _edge("Pow", [[0, -2, 2], -2.0], [0, 1, 1], [[0, 0.25, -0.25]], constants=(1,)),
    _edge("Pow", [[0, -2, 2], 0.0], [1, 1, 1], [[0, 0, 0]], constants=(1,)),
    _edge("Pow", [[0, -2, 2], 2.0], [1, 1, 1], [[0, -4, 4]], constants=(1,)),
    _edge("Pow", [[0, -2, 2], 3.0], [1, 1, 1], [[0, 12, 12]], constants=(1,)),
    _edge("Pow", [[0, -2, 4], 1.5], [1, 0, 1], [[0, 0, 3]], constants=(1,)),
    _edge("Pow", [[0, -2, 2], [1, 4, 5]], [1, 1, 1], [[1, -32, 80]], constants=(1,)),
    _edge("Pow", [[0, 0, -2, -2, 2], [0, 2, 2, 0.5, 2]], [1, 1, 1, 0, 1],
          [[0, 0, -4, 0, 4], [0, 0, 0, 0, 4 * np.log(2)]]),
    _edge("ReduceLogSum", [[[0, 0], [1, 3]], [-1]], [[0], [1]], [[[0, 0], [0.25, 0.25]]],
          constants=(1,)),
    _edge("ReduceLogSumExp", [[[-INF, -INF], [0, -INF]], [-1]], [[0], [1]],
          [[[0, 0], [1, 0]]], constants=(1,)),
    # A norm of zeros: the middle of its slopes.
    _edge("ReduceL2", [[[0, 0], [3, 4]], [-1]], [[1], [1]], [[[0, 0], [0.6, 0.8]]],
          constants=(1,)),
    _edge("ReduceL1", [[[0, 0], [3, -4]], [-1]], [[1], [1]], [[[0, 0], [1, -1]]],
          constants=(1,)),
    _edge("ReduceSumSquare", [[[0, 0], [3, -4]], [-1]], [[1], [1]], [[[0, 0], [6, -8]]],
          constants=(1,)),
    _edge("LpNormalization", [[[0, 0], [3, 4]]], [[1, 2], [0, 1]],
          [[[0, 0], [-0.096, 0.072]]], p=2),
    _edge("LpNormalization", [[[0, 0], [0, 4]]], [[1, 2], [1, 0]], [[[0, 0], [0.25, 0]]], p=1),
    _edge("LpPool", [[[[[0, 0], [0, 0]]]]], [[[[1]]]], [[[[[0, 0], [0, 0]]]]], kernel_shape=[2, 2]),
    _edge("GlobalLpPool", [[[[[0, 0], [0, 0]]]]], [[[[1]]]], [[[[[0, 0], [0, 0]]]]]),
    # Products of others, with none, one and two zeros.
    _edge("ReduceProd", [[[0, 2, 3], [0, 2, 0], [4, 2, 3], [0, 0, 0]], [-1]], [[1]] * 4,
          [[[6, 0, 0], [0, 0, 0], [6, 12, 8], [0, 0, 0]]], constants=(1,)),
    # Ties, as TensorFlow decides them.
    _edge("ReduceMax", [[[1, 3, 3, -INF], [-INF] * 4], [-1]], [[1], [1]],
          [[[0, 0.5, 0.5, 0], [0.25] * 4]], constants=(1,)),
    _edge("ReduceMin", [[[3, 1, 1, INF], [0] * 4], [-1]], [[1], [1]],
          [[[0, 0.5, 0.5, 0], [0.25] * 4]], constants=(1,)),
    _edge("Max", [[1, 2, INF], [1, 3, 0]], [1, 1, 1], [[1, 0, 1], [0, 1, 0]]),
    _edge("Min", [[1, 2, -INF], [1, 3, 0]], [1, 1, 1], [[1, 1, 1], [0, 0, 0]]),
    _edge("Clip", [[-INF, 0, 3, 6, HUGE], 0.0, 6.0], [1] * 5, [[0, 0, 1, 0, 0]],
          constants=(1, 2)),
    _edge("Clip", [[-INF, 0, 3, 5, HUGE], 0.0, 5.0], [1] * 5, [[0, 1, 1, 1, 0]],
          constants=(1, 2)),
    _edge("Abs", [[0, -0.0, -INF, HUGE]], [1] * 4, [[0, 0, -1, 1]]),
    _edge("TopK", [[1, 5, 5, -INF], np.array([1])], [1], [[0, 1, 0, 0]], constants=(1,)),
    _edge("MaxPool", [[[[[2, 2], [2, 2]]]]], [[[[1]]]], [[[[[1, 0], [0, 0]]]]],
          kernel_shape=[2, 2]),
    _edge("GlobalMaxPool", [[[[[2, 2], [2, 2]]]]], [[[[1]]]], [[[[[1, 0], [0, 0]]]]]),
    _edge("Where", [np.array([True, False]), [INF, 1], [1, NAN]], [1, 1], [[1, 0], [0, 1]]),
    _edge("Mul", [[0, 2], [5, 0]], [1, 1], [[5, 0], [0, 2]]),
    _edge("CumSum", [[0, INF, 1], np.array(0)], [1, 0, 2], [[3, 2, 2]], constants=(1,)),
    # Kinks and saturation.
    _edge("Relu", [[-INF, -HUGE, 0, 1e-30, INF]], [1] * 5, [[0, 0, 0, 1, 1]]),
    _edge("LeakyRelu", [[-HUGE, 0, HUGE]], [1] * 3, [[0.25, 0.25, 1]], alpha=0.25),
    _edge("PRelu", [[-HUGE, 0, HUGE], [0.25]], [1] * 3, [[0.25, 1, 1], [-HUGE]]),
    _edge("ThresholdedRelu", [[-HUGE, 1, HUGE]], [1] * 3, [[0, 0, 1]]),
    _edge("Shrink", [[-HUGE, 0, 0.5, HUGE]], [1] * 4, [[1, 0, 0, 1]]),
    _edge("HardSigmoid", [[-INF, -2.5, 0, 2.5, INF]], [1] * 5, [[0, 0, 0.2, 0, 0]]),
    _saturated("HardSwish", 0, 1),
    _saturated("Elu", 0, 1),
    _saturated("Elu", 0, 1, alpha=0.5),
    _saturated("Selu", 0, 1.5, gamma=1.5),
    _saturated("Celu", 0, 1),
    _saturated("Sigmoid", 0, 0),
    _saturated("Tanh", 0, 0),
    _saturated("Softplus", 0, 1),
    _saturated("Softsign", 0, 0),
    _saturated("Mish", 0, 1),
    _saturated("Erf", 0, 0),
    _saturated("Atan", 0, 0),
    _saturated("Gelu", 0, 1, opset=20),
    _saturated("Gelu", 0, 1, opset=20, approximate="tanh"),
    _edge("Sigmoid", [[-INF, INF]], [1, 1], [[0, 0]]),
    _edge("Tanh", [[-INF, INF]], [1, 1], [[0, 0]]),
    _edge("Erf", [[-INF, INF]], [1, 1], [[0, 0]]),
    _edge("Atan", [[-INF, INF]], [1, 1], [[0, 0]]),
    _edge("Asinh", [[-INF, 0, INF]], [1, 1, 1], [[0, 1, 0]]),
    _edge("Softplus", [[-INF, INF]], [1, 1], [[0, 1]]),
    _edge("Tan", [[0, np.pi]], [1, 1], [[1, 1]]),
    _edge("Softmax", [[[-INF, 0, -INF], [HUGE, 0, -HUGE], [0, 0, -1e9]]], [[1, 2, 3]] * 3,
          [[[0, 0, 0], [0, 0, 0], [-0.25, 0.25, 0]]]),
    _edge("LogSoftmax", [[[HUGE, 0], [0, -HUGE]]], [[1, 2]] * 2, [[[-2, 2], [-2, 2]]]),
    # Constant rows, sizes of one.
    _edge("LayerNormalization", [[[2, 2], [0, 0]], [1, 1]], [[1, 2]] * 2,
          [[[-0.5, 0.5], [-0.5, 0.5]]], constants=(1,), epsilon=1.0),
    _edge("LayerNormalization", [[[2], [0]], [1]], [[1], [2]], [[[0], [0]]], constants=(1,)),
    _edge("RMSNormalization", [[[0, 0]], [1, 1]], [[1, 2]], [[[1, 2]]], constants=(1,),
          opset=23, epsilon=1.0),
    _edge("InstanceNormalization", [[[[2, 2]]], [1], [0]], [[[1, 2]]], [[[[-0.5, 0.5]]]],
          constants=(1, 2), epsilon=1.0),
    _edge("GroupNormalization", [[[[2, 2]]], [1], [0]], [[[1, 2]]], [[[[-0.5, 0.5]]]],
          constants=(1, 2), epsilon=1.0, num_groups=1, opset=21),
    _edge("MeanVarianceNormalization", [[[[[2, 2]]]]], [[[[1, 3]]]], [[[[[-1e9, 1e9]]]]],
          axes=[0, 2, 3]),
    _edge("LRN", [[[[[0]], [[0]]]]], [[[[1]], [[2]]]], [[[[[1]], [[2]]]]], size=3),
    # Products of others along an axis, where one and two are 0.
    _edge("CumProd", [[[0, 2, 3], [2, 0, 0]], np.array(1)], [[1, 1, 1]] * 2,
          [[[9, 0, 0], [1, 2, 0]]], constants=(1,), opset=26),
    _edge("Det", [[[[2, 4], [1, 2]], [[0, 0], [0, 0]]]], [1, 2],
          [[[[2, -1], [-4, 2]], [[0, 0], [0, 0]]]]),
    _edge("ScatterElements", [[2, 3, 0], np.array([0, 0, 2]), [0, 5, 7]], [1, 1, 1],
          [[0, 1, 7], [10, 0, 0]], constants=(1,), reduction="mul"),
    _edge("ScatterElements", [[2, 3, 0], np.array([0, 0, 2]), [2, 1, 0]], [1, 1, 1],
          [[0.5, 1, 0.5], [0.5, 0, 0.5]], constants=(1,), reduction="max"),
    # Of bounds that have changed places the upper one counts alone.
    _edge("Clip", [[0, 4, 9], 5.0, 3.0], [1, 1, 1], [[0, 0, 0], 0, 3]),
    _edge("ReduceMean", [[[4.0], [0.0]], [-1]], [[1], [2]], [[[1], [2]]], constants=(1,)),
]  # fmt: skip

#: Rules whose slopes are constants, or the other operands of a linear operator: no edges.
LINEAR = {
    *("Add", "Sub", "Sum", "Mean", "Neg", "Identity", "Cast", "CastLike", "Dropout"),
    *("ReduceSum", "MatMul", "Gemm", "Einsum", "Conv", "ConvTranspose", "BatchNormalization"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "DepthToSpace"),
    *("SpaceToDepth", "ReverseSequence", "Trilu", "Concat", "Split", "Tile", "Slice", "Gather"),
    *("GatherElements", "GatherND", "Compress", "OneHot", "ScatterND", "Unique"),
    *("TensorScatter", "Range", "DequantizeLinear", "DFT", "STFT", "Col2Im", "MaxUnpool"),
    "AffineGrid",
    *("AveragePool", "GlobalAveragePool", "Pad", "Resize", "probegen::Mark"),
    *("probegen::StraightThrough", "probegen::Nudged"),
    # Bounded slopes everywhere.
    *("Sin", "Cos"),
}

#: Rules made of others: of the cell, of the body, of the Gelu above, of sums of pixels.
COMPOSED = {
    *("LSTM", "GRU", "RNN", "If", "Loop", "Scan", "probegen.composite::Gelu"),
    *("GridSample", "DeformConv", "RoiAlign"),
}

#: What onnxruntime has no kernel for, or no operator yet: its twin above stands for it.
NO_KERNEL = {"Swish"}


def test_every_rule_has_an_edge_or_none():
    rows = {row.op for row in ROWS}
    assert not rows & (LINEAR | COMPOSED | NO_KERNEL)
    assert rows | LINEAR | COMPOSED | NO_KERNEL == set(RULES)


def _as_array(value):
    return value if isinstance(value, np.ndarray) else np.array(value, np.float64)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_at_the_edge(row):
    inputs = [_as_array(x) for x in row.inputs]
    if row.op.startswith("Reduce"):
        inputs[1:] = [x.astype(np.int64) for x in inputs[1:]]
    case = Case(
        op=row.op,
        inputs=inputs,
        attributes=row.attributes,
        constants=set(row.constants),
        opset=row.opset,
        outputs=2 if row.op == "TopK" else 1,
        ranks={0: inputs[0].ndim} if row.op == "GroupNormalization" else {},
    )
    made = differentiate(one_node(case, np.float32), [f"x{i}" for i in case.wanted], ["y0"])
    feeds = {f"x{i}": _single(inputs[i]) for i in case.graph_inputs}
    found = run(made.model, feeds | {"dy/y0": np.float32(row.g)})
    for i, expected in zip(case.wanted, row.expected, strict=True):
        np.testing.assert_allclose(found[f"d/x{i}"], expected, rtol=1e-5, atol=1e-6)


def _single(array):
    return array.astype(np.float32) if array.dtype == np.float64 else array


@dataclasses.dataclass(frozen=True)
class Program:
    """Several nodes from `x` `[n,4]` to `y`, their gradient for `g = 1, 2, 3, 4`."""

    name: str
    text: str
    x: Sequence[float]
    expected: Sequence[float]
    rows: str = "n,4"

    def __str__(self) -> str:
        return self.name


_ZERO = "zero = Constant<value = float {0.0}> ()"
_UNIT = """
    q = Mul(x, x) s = ReduceSum<keepdims = 1>(q, axis) r = Sqrt(s)
"""

PROGRAMS = [
    Program("root chosen away", f"{_ZERO} c = Greater(x, zero) r = Sqrt(x) y = Where(c, r, zero)",
            [-1, 0, 4, 1], [0, 0, 0.75, 2]),
    Program("product with a root chosen away",
            f"{_ZERO} c = Greater(x, zero) r = Sqrt(x) m = Mul(x, r) y = Where(c, m, zero)",
            [-1, 0, 4, 1], [0, 0, 9, 6]),
    Program("root times its argument", "p = Relu(x) r = Sqrt(p) y = Mul(p, r)",
            [-1, 0, 4, 1], [0, 0, 9, 6]),
    Program("root of a rectified value", "p = Relu(x) y = Sqrt(p)",
            [-1, -2, 4, 1], [0, 0, 0.75, 2]),
    Program("root of a clipped value", """
            low = Constant<value = float {0.0}> () high = Constant<value = float {9.0}> ()
            p = Clip(x, low, high) y = Sqrt(p)""", [-1, -2, 4, 16], [0, 0, 0.75, 0]),
    Program("root of a maximum", f"{_ZERO} p = Max(x, zero) y = Sqrt(p)",
            [-1, -2, 4, 1], [0, 0, 0.75, 2]),
    Program("root of a leaky rectifier", "p = LeakyRelu<alpha = 0.0>(x) y = Sqrt(p)",
            [-1, -2, 4, 1], [0, 0, 0.75, 2]),
    Program("root of a chosen value",
            f"{_ZERO} c = Greater(x, zero) p = Where(c, x, zero) y = Sqrt(p)",
            [-1, -2, 4, 1], [0, 0, 0.75, 2]),
    Program("root of an absolute value", "p = Abs(x) y = Sqrt(p)", [0, -1, 4, 1], [0, -1, 0.75, 2]),
    Program("norm of zeros", f"{_UNIT} y = Expand(r, sizes)", [0, 0, 0, 0], [0, 0, 0, 0]),
    Program("norm of zeros times zeros", f"{_UNIT} y = Mul(x, r)", [0, 0, 0, 0], [0, 0, 0, 0]),
    Program("norm times x", f"{_UNIT} y = Mul(x, r)", [3, 0, 4, 0], [14, 10, 27, 20]),
    Program("bounded inverse norm", f"""{_UNIT}
            top = Constant<value = float {{5.0}}> () i = Reciprocal(r) j = Min(i, top)
            y = Mul(x, j)""", [0, 0, 0, 0], [5, 10, 15, 20]),
    Program("logarithm chosen away",
            f"{_ZERO} c = Greater(x, zero) r = Log(x) y = Where(c, r, x)",
            [0, -1, 4, 1], [1, 2, 0.75, 4]),
    Program("exponential chosen away",
            f"{_ZERO} c = Greater(x, zero) e = Exp(x) m = Mul(x, e) y = Where(c, x, m)",
            [100, 1000, 0, 1], [1, 2, 3, 4]),
    Program("quotient chosen away",
            f"{_ZERO} c = Equal(x, zero) q = Div(x, x) y = Where(c, zero, q)",
            [0, 0, 4, 1], [0, 0, 0, 0]),
    Program("activation of a lost value", f"""
            {_ZERO} c = Greater(x, zero) l = Log(x) t = Relu(l) s = Sigmoid(t)
            y = Where(c, s, zero)""", [0, -1, 0.5, -2], [0, 0, 0, 0]),
    Program("softmax over a masked row", f"""
            {_ZERO} none = Constant<value = float {{-inf}}> () c = Greater(x, zero)
            m = Where(c, x, none) p = Softmax<axis = -1>(m) z = IsNaN(p) y = Where(z, zero, p)
            """, [0, -1, -2, -3], [0, 0, 0, 0]),
    Program("softmax over a row that two masks leave nothing of", f"""
            {_ZERO} early = Constant<value = float[1,4] {{-inf, 0.0, -inf, 0.0}}> ()
            late = Constant<value = float[1,4] {{0.0, -inf, 0.0, -inf}}> ()
            a = Add(x, early) b = CastLike(a, x) m = Add(b, late) p = Softmax<axis = -1>(m)
            z = IsNaN(p) y = Where(z, zero, p)
            """, [0, -1, -2, -3], [0, 0, 0, 0]),
    Program("maximum of roots", """
            p = Relu(x) r = Sqrt(p) m = ReduceMax<keepdims = 1>(r, axis) y = Expand(m, sizes)
            """, [-1, -2, 4, 1], [0, 0, 2.5, 0]),
    Program("root of a power", """
            two = Constant<value = float {2.0}> () p = Pow(x, two) y = Sqrt(p)
            """, [0, 0, -3, 1], [0, 0, -3, 4]),
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_a_zero_on_the_way_decides(program):
    """Once with the row alone, once below one without edges that it must leave as it is."""
    text = f"""
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[n,4] x) => (float[n,4] y)
        <int64[1] axis = {{-1}}, int64[2] sizes = {{1, 4}}> {{ {program.text} }}
    """
    made = differentiate(onnx.parser.parse_model(text), ["x"], ["y"])
    x, g = np.float32([program.x]), np.float32([[1, 2, 3, 4]])
    alone = run(made.model, {"x": x, "dy/y": g})["d/x"]
    np.testing.assert_allclose(alone, [program.expected], rtol=1e-5, atol=1e-6)
    plain = np.float32([[0.3, 0.7, 0.2, 0.9]])
    feeds = {"x": np.concatenate([plain, x]), "dy/y": np.concatenate([g, g])}
    both = run(made.model, feeds)["d/x"]
    np.testing.assert_allclose(both[1:], [program.expected], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(both[:1], run(made.model, {"x": plain, "dy/y": g})["d/x"])
    assert np.isfinite(both).all()


def _written(text):
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 18]> g (float[n,4] x) => (float[n,4] y) {{ {text} }}'
    )
    return differentiate(model, ["x"], ["y"]).written


def test_no_guard_where_the_graph_rules_the_edge_out():
    epsilon = "e = Constant<value = float {1e-5}> ()"
    assert "Where" not in _written(f"{epsilon} q = Mul(x, x) v = Add(q, e) y = Sqrt(v)")
    assert "Where" not in _written(
        f"{epsilon} q = Mul(x, x) v = Add(q, e) r = Sqrt(v) y = Div(x, r)"
    )
    assert "Where" not in _written("q = Mul(x, x) n = Neg(q) e = Exp(n) y = Mul(e, x)")
    assert "Where" not in _written("s = Sigmoid(x) t = Mul(x, s) y = Relu(t)")
    assert "Where" in _written("y = Sqrt(x)")


def test_what_is_no_number_stays_one():
    """A guard hides nothing: a NaN that the value itself has is in its gradient too."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> g (float[n] x) => (float[n] y) { y = Sqrt(x) }'
    )
    made = differentiate(model, ["x"], ["y"])
    found = run(made.model, {"x": np.float32([-1, NAN]), "dy/y": np.float32([1, 1])})["d/x"]
    assert np.isnan(found).all()


# -- as Keras users meet them ------------------------------------------------------------------

#: Rows: whole padding, zeros among others, negatives, constants, large values, ties.
ROWS_OF_X = np.float32(
    [
        [[0, 0, 0, 0], [1, 2, -3, 0.5], [0, 0, 2, 0]],
        [[100, -100, 1e-3, 0], [-1, -1, -1, -1], [3, 3, -2, 3]],
        [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]],
    ]
)

#: Layer or function -> whether TensorFlow's own gradient is a finite number at all of the rows.
MODELS: Mapping[str, tuple[Any, bool]] = {
    "UnitNormalization": (lambda k, x: k.layers.UnitNormalization()(x), True),
    "UnitNormalization of all": (lambda k, x: k.layers.UnitNormalization(axis=[1, 2])(x), True),
    "Dot": (lambda k, x: k.layers.Dot(axes=2, normalize=True)([x, 2 * x]), True),
    "norm times x": (lambda k, x: k.ops.norm(x, axis=-1, keepdims=True) * x, True),
    "norm": (lambda k, x: k.ops.norm(x, axis=-1), False),
    "x times std": (lambda k, x: x * k.ops.std(x, axis=-1, keepdims=True), False),
    "hypot": (lambda k, x: k.ops.hypot(x[..., :2], x[..., 1:3]), True),
    "root where positive": (lambda k, x: k.ops.where(x > 0, k.ops.sqrt(x), 0.0), True),
    "relu times its root": (lambda k, x: k.ops.relu(x) * k.ops.sqrt(k.ops.relu(x)), True),
    "signed root": (lambda k, x: k.ops.sign(x) * k.ops.sqrt(k.ops.abs(x)), True),
    "log where positive": (lambda k, x: k.ops.where(x > 0, k.ops.log(x), x), False),
    "exp where negative": (lambda k, x: k.ops.where(x > 0, x, k.ops.exp(x) - 1), False),
    "divide_no_nan": (lambda k, x: k.ops.divide_no_nan(x, x[..., ::-1]), True),
    "divide_no_nan by next to 0": (
        lambda k, x: x + k.ops.divide_no_nan(x, k.ops.square(1e-21 * k.ops.relu(x))),
        True,
    ),
    "normalize": (lambda k, x: k.ops.normalize(x, axis=-1), True),
    "cosine": (lambda k, x: k.losses.cosine_similarity(x, x[..., ::-1]), True),
    "softmax of whole masks": (lambda k, x: k.layers.Softmax()(x, mask=x > 0), True),
    "prod": (lambda k, x: k.ops.prod(x, axis=-1), True),
    "logsumexp": (lambda k, x: k.ops.logsumexp(x, axis=-1), True),
    "LayerNormalization": (lambda k, x: k.layers.LayerNormalization()(x), True),
    "masked mean": (
        lambda k, x: k.ops.where(
            k.ops.any(x > 0, -1, keepdims=True),
            x / k.ops.sum(k.ops.cast(x > 0, x.dtype), -1, keepdims=True),
            0.0,
        ),
        False,
    ),
}


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """Compiles all functions as one model, each with an input of its own, and one target."""
    import keras
    import onnxruntime

    import probegen as pg

    xs = [keras.Input((3, 4), name=f"x{i}") for i in range(len(MODELS))]
    outputs = [function(keras, x) for x, (function, _) in zip(xs, MODELS.values(), strict=True)]
    model = keras.Model(xs, outputs)
    rng = np.random.default_rng(0)
    weights = [rng.uniform(0.5, 1.5, y.shape[1:]).astype(np.float32) for y in outputs]

    def total(ys):
        return sum(
            keras.ops.sum(y * w, axis=list(range(1, len(y.shape))))
            for y, w in zip(ys, weights, strict=True)
        )

    path = tmp_path_factory.mktemp("edges") / "edges.onnx"
    pg.compile(model, [pg.InputGradient(target=total)], path, verify=False, gate=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [f"input_gradient/{x.name}" for x in xs]
    found = session.run(names, {x.name: ROWS_OF_X for x in xs})
    return weights, dict(zip(MODELS, found, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_keras_at_the_edge(explained, name):
    """As TensorFlow where that is finite, and finite everywhere."""
    import keras
    import tensorflow as tf

    weights, found = explained
    function, smooth = MODELS[name]
    x = tf.constant(ROWS_OF_X)
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(function(keras, x) * weights[list(MODELS).index(name)])
    expected = tape.gradient(total, x).numpy()
    finite = np.isfinite(expected)
    assert finite.all() == smooth
    assert np.isfinite(found[name]).all()
    np.testing.assert_allclose(found[name][finite], expected[finite], rtol=1e-4, atol=1e-5)


def test_a_swish_of_16_bits_is_a_line_far_out():
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 18]> '
        "g (float16[n] x) => (float16[n] y) { s = Sigmoid(x) y = Mul(x, s) }"
    )
    x = np.float16([-60000, -3000, 0, 3000, 30000])
    found = run(differentiate(model, ["x"], ["y"]).model, {"x": x, "dy/y": np.ones_like(x)})
    np.testing.assert_array_equal(found["d/x"], [0, 0, 0.5, 1, 1])
