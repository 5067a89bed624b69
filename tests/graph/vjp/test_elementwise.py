"""Gradients of arithmetic, of choices and of functions taken element by element."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

from probegen.errors import UnsupportedOpsError
from tests.graph.vjp.harness import (
    Case,
    apart,
    check,
    differentiate,
    feeds_of,
    one_node,
    run,
    tf,
    uniform,
    written,
)


def tied(seed):
    """Returns `[3, 4]` of small whole numbers: two of these tie in many places."""
    return np.random.default_rng(seed).integers(-1, 2, (3, 4)).astype(np.float64)


SHAPES = [
    ((2, 3), (2, 3)),
    ((2, 3), (3,)),
    ((3,), (2, 3)),
    ((2, 3, 4), (3, 1)),
    ((2, 1, 4), (1, 3, 1)),
    ((), (2, 3)),
    ((2, 3), (1, 1)),
    ((1, 3), (2, 1)),
]

BINARY = [
    Case(op=op, inputs=[uniform(*a, low=low), uniform(*b, low=0.5, seed=1)], tensorflow=tf(twin))
    for op, twin, low in (
        ("Add", "add", -2),
        ("Sub", "subtract", -2),
        ("Mul", "multiply", -2),
        ("Div", "divide", -2),
        ("Pow", "pow", 0.5),
    )
    for a, b in SHAPES
]

POWERS = [
    Case(
        op="Pow",
        inputs=[uniform(2, 3, low=0.3), np.array(n)],
        constants={1},
        name=f"to the {n}",
        tensorflow=tf("pow"),
    )
    for n in (0.0, 1.0, 2.0, 3.0, -1.0, 0.5, 2.7, -0.5)
]

SEVERAL = [
    Case(op="Sum", inputs=[uniform(2, 3), uniform(3, seed=1), uniform(2, 1, seed=2)]),
    Case(op="Sum", inputs=[uniform(2, 3)]),
    Case(op="Mean", inputs=[uniform(2, 3), uniform(3, seed=1), uniform(2, 1, seed=2)]),
    Case(op="Max", inputs=[uniform(2, 3)]),
    Case(op="Max", inputs=[uniform(4, 3), uniform(3, seed=1), uniform(4, 1, seed=2)]),
    Case(op="Min", inputs=[uniform(4, 3), uniform(3, seed=1), uniform(4, 1, seed=2)]),
    Case(op="Max", inputs=[uniform(4, 3), uniform(3, seed=1), uniform(4, 1, seed=2)], wrt=[2]),
    Case(op="Min", inputs=[uniform(4, 3), uniform(3, seed=1), uniform(4, 1, seed=2)], wrt=[1]),
]


def _fold(function):
    """Returns `function` of three inputs as TensorFlow takes it: pair by pair from the left."""
    return lambda x, y, z: tf(function)(tf(function)(x, y), z)


TIES = [
    Case(op=op, inputs=inputs, numeric=False, tensorflow=twin, name=name, **more)
    for op, function in (("Max", "maximum"), ("Min", "minimum"))
    for name, inputs, twin, more in (
        ("two", [tied(0), tied(1)], tf(function), {}),
        ("second of two", [tied(0), tied(1)], tf(function), {"wrt": [1]}),
        ("three", [tied(0), tied(1), tied(2)], _fold(function), {}),
        ("constant 0", [tied(0), np.array(0.0)], tf(function), {"constants": {1}}),
        ("constant 1", [tied(0), np.array(1.0)], tf(function), {"constants": {1}}),
        ("0 first", [np.array(0.0), tied(0)], tf(function), {"constants": {0}}),
    )
]

CLIPS = [
    Case(
        op="Clip",
        inputs=[
            np.array([[-7.0, -1e-3, 0.0, 1e-30, 2.0], [5.999999, 6.0, 6.000001, 8.0, 3.0]]),
            np.array(0.0),
            np.array(6.0),
        ],
        constants={1, 2},
        numeric=False,
        tensorflow=lambda x, *_: tf("nn.relu6")(x),
        name="relu6",
    ),
    Case(
        op="Clip",
        inputs=[np.array([[-1.0, -0.5, 0.0], [0.25, 0.75, 1.5]]), np.array(-0.5), np.array(0.75)],
        constants={1, 2},
        numeric=False,
        tensorflow=tf("clip_by_value"),
        name="on both bounds",
    ),
    Case(
        op="Clip",
        inputs=[np.array([[-1.0, 0.0, 0.5], [0.25, 1.0, 1.5]]), np.array(0.0), np.array(1.0)],
        constants={1, 2},
        numeric=False,
        tensorflow=tf("clip_by_value"),
        name="on bounds 0 and 1",
    ),
    Case(op="Clip", inputs=[apart(3, 5)], name="without bounds"),
    Case(op="Clip", inputs=[apart(3, 5), np.array(-0.1)], constants={1}, name="low alone"),
    Case(op="Clip", inputs=[apart(3, 5), None, np.array(0.1)], constants={2}, name="high alone"),
    Case(op="Clip", inputs=[apart(3, 5), np.array(-0.1), np.array(0.1)], name="at run time"),
]

_CHOICE = np.random.default_rng(0).uniform(size=(2, 3, 4)) > 0.5
WHERES = [
    Case(op="Where", inputs=[_CHOICE, uniform(2, 3, 4), uniform(2, 3, 4, seed=1)]),
    Case(op="Where", inputs=[_CHOICE, uniform(3, 1), uniform(4, seed=1)]),
    Case(op="Where", inputs=[_CHOICE[:, :1], uniform(2, 3, 4), uniform(seed=1)]),
    Case(op="Where", inputs=[_CHOICE[0], uniform(2, 3, 4), uniform(3, 1, seed=1)]),
    Case(op="Where", inputs=[_CHOICE[0, 0], uniform(2, 1, 1), uniform(3, 1, seed=1)]),
]


def _plain(op, low=-2.0, high=2.0, **more):
    return Case(op=op, inputs=[uniform(2, 3, low=low, high=high)], **more)


UNARY = [
    _plain("Neg"),
    _plain("Abs", tensorflow=tf("abs")),
    _plain("Reciprocal", low=0.5, tensorflow=tf("math.reciprocal")),
    _plain("Sqrt", low=0.2, tensorflow=tf("sqrt")),
    _plain("Exp", tensorflow=tf("exp")),
    _plain("Log", low=0.2, tensorflow=tf("math.log")),
    # onnx's reference evaluator, which has to stand in here, computes Erf in float32.
    _plain("Erf", numeric=False, tensorflow=tf("math.erf")),
    _plain("Sin", tensorflow=tf("sin")),
    _plain("Cos", tensorflow=tf("cos")),
    _plain("Tan", low=-1.2, high=1.2, tensorflow=tf("tan")),
    _plain("Asin", low=-0.8, high=0.8, tensorflow=tf("asin")),
    _plain("Acos", low=-0.8, high=0.8, tensorflow=tf("acos")),
    _plain("Atan", tensorflow=tf("atan")),
    _plain("Sinh", tensorflow=tf("sinh")),
    _plain("Cosh", tensorflow=tf("cosh")),
    _plain("Asinh", tensorflow=tf("asinh")),
    _plain("Acosh", low=1.2, tensorflow=tf("acosh")),
    _plain("Atanh", low=-0.8, high=0.8, tensorflow=tf("atanh")),
    _plain("Identity"),
    Case(
        op="Shrink",
        inputs=[np.array([[-2.0, -0.5, -0.25], [0.5, 0.75, 0.0]])],
        attributes={"lambd": 0.5, "bias": 0.2},
        numeric=False,
        twin=lambda dys, x: [np.where(np.abs(x) > 0.5, dys[0], 0)],
    ),
    Case(op="Abs", inputs=[tied(0)], numeric=False, tensorflow=tf("abs"), name="at 0"),
    Case(op="CastLike", inputs=[uniform(2, 3), np.array(0.0)], constants={1}),
    Case(op="Dropout", inputs=[uniform(2, 3)], opset=13),
    Case(op="Dropout", inputs=[uniform(2, 3), np.array(0.3), np.array(False)], constants={1, 2}),
    Case(
        op="Cast",
        inputs=[uniform(2, 3)],
        attributes={"to": 1},
        numeric=False,
        twin=lambda dys, _: [dys[0].astype(np.float32)],
        rtol=1e-6,
    ),
]

MODS = [
    Case(
        op="Mod",
        inputs=[uniform(*a, low=-9, high=9), uniform(*b, low=0.7, high=2.3, seed=1)],
        attributes={"fmod": 1},
    )
    for a, b in (((2, 3), (2, 3)), ((2, 3), (3,)), ((), (2, 3)))
]

RANGES = [
    Case(
        op="Range",
        inputs=[np.array(a) for a in numbers],
        wrt=[0, 2],
        batch={},
        ranks={0: 1},
        open_all=False,
        name=str(numbers),
    )
    for numbers in ((0.3, 2.9, 0.7), (1.5, -2.2, -0.8))
]

SCALES = [
    Case(
        op="DequantizeLinear",
        inputs=[
            np.random.default_rng(1).integers(-90, 90, (3, 4, 5)).astype(np.int8),
            uniform(*scale, low=0.5, high=1.5),
            zero,
        ],
        attributes=attributes,
        wrt=[1],
        opset=opset,
        batch={},
        open_all=False,
        double=False,
        numeric=False,
        twin=twin,
        name=name,
    )
    for name, scale, zero, attributes, opset, twin in (
        ("one scale", (), None, {}, 13, lambda dys, x, *_: [(dys[0] * x).sum()]),
        (
            "one zero",
            (),
            np.array(7, np.int8),
            {},
            19,
            lambda dys, x, *_: [(dys[0] * (x - 7.0)).sum()],
        ),
        (
            "an axis",
            (4,),
            np.arange(4, dtype=np.int8),
            {"axis": -2},
            19,
            lambda dys, x, _, zero: [(dys[0] * (x - zero[:, None].astype(float))).sum((0, 2))],
        ),
        (
            "blocks",
            (3, 4, 3),
            None,
            {"axis": 2, "block_size": 2},
            21,
            lambda dys, x, *_: [np.add.reduceat(dys[0] * x, [0, 2, 4], axis=2)],
        ),
    )
]

CASES = [
    *(*BINARY, *POWERS, *SEVERAL, *TIES, *CLIPS, *WHERES, *UNARY, *MODS, *RANGES, *SCALES),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient(case):
    check(case)


def test_nothing_is_written_where_nothing_is_needed():
    same = [uniform(2, 3), uniform(2, 3, seed=1)]
    assert written(Case(op="Add", inputs=same)) == []
    assert written(Case(op="Identity", inputs=same[:1])) == []
    assert written(Case(op="Sub", inputs=same)) == ["Neg"]
    assert written(Case(op="Mul", inputs=same)) == ["Mul", "Mul"]
    assert written(Case(op="Mul", inputs=same, wrt=[1])) == ["Mul"]


def test_a_bias_is_summed_in_one_node():
    assert written(Case(op="Add", inputs=[uniform(2, 3), uniform(3)], wrt=[1])) == ["ReduceSum"]


def test_sizes_of_unknown_relation_are_compared_at_run_time():
    case = Case(op="Add", inputs=[uniform(2, 3), uniform(2, 3)], wrt=[1])
    assert written(case, case.open_everything()) == [
        *("Shape", "Shape", "Max", "Div", "Concat", "Gather", "Reshape", "ReduceSum")
    ]


def test_inputs_of_one_shape_tell_that_nothing_was_broadcast():
    """Even where the output's own size goes by another name, as exporters write it."""
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[n,3] x) => (float[m,3] y) { s = Sin(x) y = Mul(s, x) }
    """)
    assert differentiate(model, ["x"], ["y"]).written == ["Mul", "Mul", "Cos", "Mul", "Add"]


def test_an_input_of_unknown_rank_is_no_obstacle():
    model = onnx.parser.parse_model("""
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[n,3] x, int64[k] sizes, float[p] w) => (float[n,3] y) {
            u = Reshape(w, sizes) y = Mul(x, u)
        }
    """)
    assert differentiate(model, ["x"], ["y"]).written == ["Mul"]


SWISH = """
    <ir_version: 10, opset_import: ["" : 18]>
    g (double[n,3] x) => (double[n,3] y) { s = Sigmoid(x) y = Mul(%s) }
"""


@pytest.mark.parametrize("operands", ["x, s", "s, x"])
def test_a_swish_is_taken_in_one_step(operands):
    """Against the derivative s + x s (1 - s), to both sides of 0 and at it."""
    made = differentiate(onnx.parser.parse_model(SWISH % operands), ["x"], ["y"])
    assert made.written == ["Sub", "Mul", "Add", "Mul"]
    x, g = np.array([[-6.0, -3.0, 0.0], [0.5, 7.0, 40.0]]), uniform(2, 3, seed=1)
    s = 1 / (1 + np.exp(-x))
    found = run(made.model, {"x": x, "dy/y": g})["d/x"]
    np.testing.assert_allclose(found, g * (s + x * s * (1 - s)), rtol=1e-11)


def test_a_swish_of_large_numbers_is_a_line():
    """In float32, where 1 - y has lost much of the 1 from 1e5 on, and all from 2**24 on."""
    made = differentiate(
        onnx.parser.parse_model((SWISH % "x, s").replace("double", "float")), ["x"], ["y"]
    )
    x = np.array([[20, 1e5, 3e6], [1e8, 1e20, -1e8]], np.float32)
    found = run(made.model, {"x": x, "dy/y": np.ones_like(x)})["d/x"]
    np.testing.assert_allclose(found, [[1, 1, 1], [1, 1, 0]], rtol=1e-6)


def test_a_swish_whose_gate_is_asked_for_is_taken_apart():
    made = differentiate(onnx.parser.parse_model(SWISH % "x, s"), ["x", "s"], ["y"])
    x, g = uniform(2, 3), uniform(2, 3, seed=1)
    s = 1 / (1 + np.exp(-x))
    found = run(made.model, {"x": x, "dy/y": g})
    np.testing.assert_allclose(found["d/s"], g * x, rtol=1e-12)
    np.testing.assert_allclose(found["d/x"], g * (s + x * s * (1 - s)), rtol=1e-12)


def test_relu6_takes_two_masks():
    relu6 = Case(op="Clip", inputs=[apart(2, 3), np.array(0.0), np.array(6.0)], constants={1, 2})
    assert written(relu6) == ["HardSigmoid", "HardSigmoid", "Mul", "Mul"]


def test_a_square_is_not_a_general_power():
    square = Case(op="Pow", inputs=[uniform(2, 3), np.array(2.0)], constants={1})
    assert written(square) == ["Add", "Mul"]
    cube = Case(op="Pow", inputs=[uniform(2, 3), np.array(3.0)], constants={1})
    assert "Pow" not in written(cube)


def test_a_broadcast_mask_multiplies():
    attention = Case(op="Where", inputs=[_CHOICE[:, :1], uniform(2, 3, 4), uniform()], wrt=[1])
    assert written(attention) == ["Cast", "Mul"]


def test_an_infinite_gradient_stays_out_of_what_where_left():
    case = Case(op="Where", inputs=[np.array([True, False]), uniform(2), uniform(2)], batch={})
    made = differentiate(one_node(case, np.float32), ["x1"], ["y0"])
    feeds = feeds_of(case, np.float32) | {"dy/y0": np.float32([3, np.inf])}
    np.testing.assert_array_equal(run(made.model, feeds)["d/x1"], [3, 0])


def test_dropout_in_training_is_refused():
    inputs = [uniform(2, 3), np.array(0.3), np.array(True)]
    case = Case(op="Dropout", inputs=inputs, constants={1, 2})
    with pytest.raises(UnsupportedOpsError, match="Dropout: it may run in training mode"):
        written(case)
