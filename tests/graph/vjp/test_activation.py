"""Gradients of activation functions, at their kinks as well."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.vjp.harness import Case, check, tf, uniform, written

#: Both sides of a kink at 0 and the kink itself, and both sides of -3 and 3.
AT_ZERO = np.array([[-1.75, -0.5, -(2.0**-20)], [0.0, 1e-30, 2.25]])
AT_THREE = np.array([[-3.5, -3.0, -2.999], [2.999, 3.0, 3.5], [-0.5, 0.0, 1.0]])


def _kinked(op, tensorflow=None, x=AT_ZERO, **more):
    return Case(op=op, inputs=[x], numeric=False, tensorflow=tensorflow, name="kinks", **more)


def _smooth(op, tensorflow=None, low=-3.0, high=3.0, **more):
    return Case(op=op, inputs=[uniform(2, 5, low=low, high=high)], tensorflow=tensorflow, **more)


def _relu6(x):
    return tf("nn.relu6")(x)


def _hard_sigmoid(x):
    return _relu6(x + 3) / 6


def _prelu_slope(dys, x, slope):
    low = np.minimum(x, 0)
    return [
        dys[0] * np.where(x >= 0, 1, slope),
        (dys[0] * low).sum(axis=tuple(range(x.ndim - slope.ndim))).reshape(slope.shape),
    ]


def _celu(alpha):
    return lambda dys, x: [dys[0] * np.where(x >= 0, 1, np.exp(x / alpha))]


RECTIFIERS = [
    _kinked("Relu", tf("nn.relu")),
    *(
        _kinked("LeakyRelu", lambda x, a=a: tf("nn.leaky_relu")(x, a), attributes={"alpha": a})
        for a in (0.0, 0.25, 1.0)
    ),
    _smooth("LeakyRelu", attributes={"alpha": 1.5}),
    _smooth("LeakyRelu", attributes={"alpha": -0.5}),
    _smooth("LeakyRelu", lambda x: tf("nn.leaky_relu")(x, 0.01), rtol=1e-7),
    Case(op="PRelu", inputs=[uniform(2, 5), uniform(5, seed=1)]),
    Case(op="PRelu", inputs=[uniform(2, 5), uniform(2, 5, seed=1)], batch={0: {0: "batch"}}),
    Case(op="PRelu", inputs=[uniform(2, 5), uniform(5, seed=1)], constants={1}),
    Case(
        op="PRelu",
        inputs=[AT_ZERO, np.array([0.5, -0.25, 2.0])],
        numeric=False,
        twin=_prelu_slope,
        name="kinks",
    ),
    *(
        _kinked(
            "ThresholdedRelu",
            x=np.array([[-1.0, -0.5, -0.25], [0.0, 0.5, 0.75]]),
            twin=lambda dys, x, a=a: [dys[0] * (x > a)],
            attributes={"alpha": a},
        )
        for a in (0.5, 0.0, -0.5)
    ),
]

EXPONENTIAL = [
    _kinked("Elu", tf("nn.elu")),
    _smooth("Elu", attributes={"alpha": 0.5}),
    _smooth("Elu", attributes={"alpha": -0.5}),
    _kinked(
        "Elu",
        attributes={"alpha": 0.5},
        # Keras: where(x > 0, elu(x), alpha * elu(x))
        tensorflow=lambda x: tf("where")(x > 0, tf("nn.elu")(x), 0.5 * tf("nn.elu")(x)),
    ),
    # TensorFlow's constants have more digits than the float attributes of ONNX.
    _kinked("Selu", tf("nn.selu"), rtol=1e-6, atol=1e-7),
    _smooth("Selu", tf("nn.selu"), rtol=1e-6, atol=1e-7),
    _smooth("Selu", attributes={"alpha": 0.5, "gamma": 2.0}),
    _smooth("Selu", attributes={"alpha": -0.5, "gamma": 2.0}),
    *(
        _kinked("Celu", twin=_celu(a), attributes={"alpha": a}, double=False)
        for a in (1.0, 2.0, -2.0)
    ),
]

SIGMOIDAL = [
    _smooth("Sigmoid", tf("sigmoid")),
    _smooth("Tanh", tf("tanh")),
    _smooth("Softplus", tf("nn.softplus")),
    _smooth("Softsign", tf("nn.softsign")),
    _kinked("Softsign", tf("nn.softsign")),
    _smooth("Softsign", tf("nn.softsign"), low=1e3, high=1e4),
    _smooth("Mish", lambda x: x * tf("tanh")(tf("nn.softplus")(x))),
    _smooth("Swish", tf("nn.silu"), opset=24),
    _smooth("Swish", lambda x: tf("nn.silu")(x, 1.5), attributes={"alpha": 1.5}, opset=24),
    _smooth("HardSigmoid", attributes={"alpha": 0.25, "beta": 0.375}),
    _kinked(
        "HardSigmoid", _hard_sigmoid, AT_THREE, attributes={"alpha": 1 / 6, "beta": 0.5}, rtol=1e-6
    ),
    _kinked("HardSwish", lambda x: x * _hard_sigmoid(x), AT_THREE, rtol=1e-6, atol=1e-7),
    *(
        _smooth(
            "Gelu",
            lambda x, a=a: tf("nn.gelu")(x, approximate=a == "tanh"),
            numeric=False,
            attributes={"approximate": a},
            opset=20,
            name=a,
            rtol=1e-6,
            atol=1e-7,
        )
        for a in ("none", "tanh")
    ),
]

ALONG_AN_AXIS = [
    Case(
        op=op,
        inputs=[uniform(2, 3, 4)],
        attributes={} if axis is None else {"axis": axis},
        tensorflow=lambda x, twin=twin, axis=axis: tf(twin)(x, axis=-1 if axis is None else axis),
        name=f"axis {axis}",
    )
    for op, twin in (("Softmax", "nn.softmax"), ("LogSoftmax", "nn.log_softmax"))
    for axis in (None, 1, -2)
]

CASES = [*RECTIFIERS, *EXPONENTIAL, *SIGMOIDAL, *ALONG_AN_AXIS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient(case):
    check(case)


@pytest.mark.parametrize(
    ("op", "attributes", "nodes"),
    [
        ("Relu", {}, ["HardSigmoid", "Mul"]),
        ("LeakyRelu", {"alpha": 0.25}, ["HardSigmoid", "Max", "Mul"]),
        ("Elu", {}, ["Min", "Exp", "Mul"]),
        ("Sigmoid", {}, ["Exp", "Reciprocal", "Add", "Add", "Div"]),
        ("Tanh", {}, ["Exp", "Reciprocal", "Add", "Div", "Mul", "Mul"]),
        ("Softplus", {}, ["Neg", "Exp", "Add", "Div"]),
        ("Softmax", {}, ["Mul", "ReduceSum", "Sub", "Mul", "ReduceSum", "Mul", "Sub"]),
    ],
)
def test_what_is_written(op, attributes, nodes):
    assert written(Case(op=op, inputs=[uniform(2, 3)], attributes=attributes)) == nodes


@pytest.mark.parametrize("element", [np.float16, np.float64])
def test_other_element_types_compare(element):
    case = Case(op="Relu", inputs=[uniform(2, 3)])
    assert written(case, element=element) == ["Greater", "Cast", "Mul"]
