"""The witness's gradients of single nodes, against differences of the node itself."""

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime
import pytest

from probegen.graph.core.elementwise import function_of_one
from probegen.parity.witness.adjoints import adjoint, slope_of
from probegen.parity.witness.evaluation import NodeEvaluator
from probegen.parity.witness.step import Step, Unknown
from probegen.parity.witness.windows import Windows

rng = np.random.default_rng(7)


def numbers(*shape):
    return rng.normal(size=shape)


AXES = np.array([1, 3], np.int64)
GRID = np.linspace(-1.15, 1.2, 12).reshape(1, 3, 2, 2)
STEPS = np.linspace(-1.3, 2.1, 30).reshape(2, 3, 5)
#: Operator, attributes, inputs, positions whose gradient is checked.
CASES = [
    ("GridSample", {"mode": "bilinear"}, [STEPS[None], GRID], (0, 1)),
    ("Pad", {"mode": "edge"}, [STEPS, np.array([0, -1, 2, 0, 1, -2])], (0,)),
    ("Pad", {}, [STEPS, np.array([-1, 2]), np.array(0.5), np.array([-1])], (0,)),
    ("CastLike", {}, [numbers(2, 3), numbers(4)], (0, 1)),
    ("MatMul", {}, [numbers(2, 4, 3), numbers(3, 5)], (0, 1)),
    ("MatMul", {}, [numbers(3), numbers(2, 3, 4)], (0, 1)),
    ("MatMul", {}, [numbers(2, 4, 3), numbers(3)], (0, 1)),
    ("Gemm", {"transA": 1, "transB": 1, "alpha": 0.7, "beta": 2.0},
     [numbers(3, 4), numbers(5, 3), numbers(5)], (0, 1, 2)),
    ("Einsum", {"equation": "abc,cd->adb"}, [numbers(2, 3, 4), numbers(4, 5)], (0, 1)),
    (
        "Einsum", {"equation": "a...b,abc->a...c"},
        [numbers(2, 3, 2, 4), numbers(2, 4, 3)], (0, 1)
    ),
    ("Einsum", {"equation": "...ab, ...b"}, [numbers(2, 1, 4, 3), numbers(5, 3)], (0, 1)),
    ("Einsum", {"equation": "ab...->a...b"}, [numbers(2, 3, 4, 2)], (0,)),
    ("Conv", {"strides": [2, 1], "pads": [1, 0, 2, 1], "dilations": [1, 2]},
     [numbers(2, 3, 7, 6), numbers(4, 3, 3, 2), numbers(4)], (0, 1, 2)),
    ("Conv", {"group": 2, "auto_pad": "SAME_UPPER", "strides": [2, 3]},
     [numbers(2, 4, 5, 7), numbers(6, 2, 2, 3)], (0, 1)),
    ("Conv", {"pads": [1, 1]}, [numbers(2, 3, 8), numbers(5, 3, 3)], (0, 1)),
    ("ConvTranspose", {"strides": [2, 3], "pads": [1, 0, 0, 1]},
     [numbers(2, 4, 3, 4), numbers(4, 3, 3, 2)], (0,)),
    ("AveragePool", {"kernel_shape": [2, 3], "strides": [2, 2], "pads": [1, 0, 0, 1],
                     "count_include_pad": 1}, [numbers(2, 3, 5, 6)], (0,)),
    ("AveragePool", {"kernel_shape": [3, 2], "pads": [1, 1, 1, 0]}, [numbers(1, 2, 5, 4)], (0,)),
    ("MaxPool", {"kernel_shape": [2, 3], "strides": [2, 1], "pads": [0, 1, 1, 1]},
     [numbers(2, 3, 5, 6)], (0,)),
    ("GlobalAveragePool", {}, [numbers(2, 3, 4, 5)], (0,)),
    ("GlobalMaxPool", {}, [numbers(2, 3, 4, 5)], (0,)),
    ("ReduceMean", {"keepdims": 0}, [numbers(2, 3, 4, 5), AXES], (0,)),
    ("ReduceSum", {"keepdims": 1}, [numbers(2, 3, 4, 5), AXES], (0,)),
    ("ReduceMax", {"keepdims": 0}, [numbers(2, 3, 4, 5), AXES], (0,)),
    ("Softmax", {"axis": 1}, [numbers(2, 4, 3)], (0,)),
    ("LogSoftmax", {"axis": -1}, [numbers(2, 4, 3)], (0,)),
    ("LayerNormalization", {"axis": -2, "epsilon": 0.1},
     [numbers(2, 4, 3), numbers(4, 3), numbers(4, 3)], (0,)),
    ("InstanceNormalization", {}, [numbers(2, 3, 4, 5), numbers(3), numbers(3)], (0,)),
    ("BatchNormalization", {},
     [numbers(2, 3, 4), numbers(3), numbers(3), numbers(3), numbers(3) ** 2], (0,)),
    ("Add", {}, [numbers(2, 3, 4), numbers(3, 1)], (0, 1)),
    ("Sub", {}, [numbers(4), numbers(2, 3, 4)], (0, 1)),
    ("Mul", {}, [numbers(2, 1, 4), numbers(3, 1)], (0, 1)),
    ("Div", {}, [numbers(2, 3), numbers(2, 1) + 4], (0, 1)),
    ("Max", {}, [numbers(2, 3), numbers(3)], (0, 1)),
    ("Pow", {}, [numbers(2, 3) ** 2 + 1, numbers(3)], (0, 1)),
    *((operator, {}, [numbers(2, 3)], (0,)) for operator in ("Erf", "Sigmoid", "Tanh")),
    ("LeakyRelu", {"alpha": 0.3}, [numbers(2, 3)], (0,)),
    ("Transpose", {"perm": [2, 0, 1]}, [numbers(2, 3, 4)], (0,)),
    ("Concat", {"axis": 1}, [numbers(2, 3), numbers(2, 4)], (0, 1)),
    ("Pad", {"mode": "reflect"}, [numbers(2, 5), np.array([0, 2, 0, 1], np.int64)], (0,)),
    ("Gather", {"axis": 1}, [numbers(2, 5), np.array([3, 3, 0], np.int64)], (0,)),
    ("GatherElements", {"axis": -1},
     [numbers(3, 5), np.array([[3, 3, -5], [0, 4, 0]], np.int64)], (0,)),
    ("Expand", {}, [numbers(2, 1, 3), np.array([2, 4, 3], np.int64)], (0,)),
    ("Where", {}, [numbers(2, 3) > 0, numbers(2, 3), numbers(3)], (1, 2)),
    ("Resize", {"mode": "linear"},
     [numbers(2, 3, 5, 4), None, None, np.array([2, 3, 7, 3], np.int64)], (0,)),
    ("Resize", {"mode": "linear", "antialias": 1},
     [numbers(2, 2, 7, 6), None, np.array([1, 1, 0.5, 0.7], np.float32)], (0,)),
    ("Resize", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"},
     [numbers(2, 3, 4), None, np.array([1, 2, 1], np.float32)], (0,)),
    ("Resize", {"mode": "cubic", "coordinate_transformation_mode": "align_corners"},
     [numbers(1, 2, 4, 5), None, None, np.array([1, 2, 6, 3], np.int64)], (0,)),
    ("TopK", {"axis": 1}, [numbers(2, 5, 3), np.array([2], np.int64)], (0,)),
    ("ScatterElements", {"axis": 1, "reduction": "max"},
     [numbers(2, 3), np.array([[0, 0, 2, -1], [1, 1, 1, 0]], np.int64), numbers(2, 4)], (0, 2)),
    ("ScatterND", {"reduction": "min"},
     [numbers(4, 3), np.array([[1], [3], [1]], np.int64), numbers(3, 3)], (0, 2)),
    ("CumSum", {}, [numbers(2, 5), np.array(1, np.int64)], (0,)),
    ("CumSum", {"reverse": 1, "exclusive": 1}, [numbers(4, 5), np.array(0, np.int64)], (0,)),
    ("ReduceL1", {"keepdims": 0}, [numbers(2, 3, 4, 5), AXES], (0,)),
    ("ReduceL2", {"keepdims": 1}, [numbers(2, 3, 4, 5), AXES], (0,)),
    ("ReduceSumSquare", {"keepdims": 0}, [numbers(2, 3, 4, 5), AXES], (0,)),
    ("ReduceLogSum", {"keepdims": 0}, [numbers(2, 3, 4, 5) ** 2, AXES], (0,)),
    ("ReduceLogSumExp", {"keepdims": 1}, [numbers(2, 3, 4, 5), AXES], (0,)),
    ("LpNormalization", {"axis": 1, "p": 2}, [numbers(2, 3, 4)], (0,)),
    ("LRN", {"size": 3}, [numbers(2, 5, 2, 2)], (0,)),  # by differences
]  # fmt: skip


def node_of(operator, attributes, inputs):
    graph = ir.Graph([], [], nodes=[], opset_imports={"": 18})
    values = [ir.Value(name=f"i{k}") for k in range(len(inputs))]
    outputs = 2 if operator == "TopK" else 1
    node = ir.node(operator, values, attributes=attributes, num_outputs=outputs)
    graph.append(node)
    return node


@pytest.mark.parametrize(("operator", "attributes", "inputs", "positions"), CASES)
def test_gradients_are_those_of_differences(operator, attributes, inputs, positions):
    node, evaluate = node_of(operator, attributes, inputs), NodeEvaluator(18)
    outputs = evaluate(node, inputs)
    g = rng.normal(size=outputs[0].shape)
    step = Step(node, list(inputs), outputs, evaluate)
    for position in positions:
        found = adjoint(step, [g], position)
        assert found.shape == inputs[position].shape
        for _ in range(4):
            direction = rng.normal(size=inputs[position].shape)
            there, size = [], 1.0 if operator == "Resize" else 1e-6  # that is linear, in 32 bits
            for sign in (1, -1):
                moved = list(inputs)
                moved[position] = inputs[position] + sign * size * direction
                there.append(evaluate(node, moved)[0])
            slope = ((there[0] - there[1]) * g).sum() / (2 * size)
            # The reference evaluator has erf in 32 bits alone.
            close = 0.2 if operator == "Erf" else 1e-5
            np.testing.assert_allclose((found * direction).sum(), slope, rtol=close, atol=close)


def _slopes_of(text, x):
    """Slopes of the function of `x` that the last node of a graph ends."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 18]> {text}')
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(model)).graph
    evaluate = NodeEvaluator(18)
    values = {graph.inputs[0]: np.array(x)}
    values.update((v, v.const_value.numpy()) for v in graph.initializers.values())
    for node in graph:
        values[node.outputs[0]] = evaluate(node, [values[v] for v in node.inputs])[0]
    return slope_of(function_of_one(graph[-1]), values, evaluate)


def test_the_slope_of_a_function_beside_its_kink_is_that_of_its_nodes():
    """What differences across a kink tell is half of either side."""
    text = """g (double[n] x) => (double[n] y) <double[1] a = {0.25}> {
            above = Relu(x)
            turned = Neg(x)
            below = Relu(turned)
            scaled = Mul(below, a)
            y = Sub(above, scaled)
        }"""
    found = _slopes_of(text, [-2.0, 0.0, 1e-9, 1.5])
    np.testing.assert_allclose(found, [0.25, 0.0, 1.0, 1.0], rtol=1e-8)


def test_where_kinks_of_nodes_cancel_out_the_slope_is_that_of_the_nodes():
    """`logaddexp(x, 0.3 * x)` is smooth at 0, where frameworks give all to the first maximum."""
    text = """g (double[n] x) => (double[n] y) <double[1] a = {0.3}, double[1] one = {1.0}> {
            scaled = Mul(x, a)
            largest = Max(x, scaled)
            apart = Sub(x, scaled)
            size = Abs(apart)
            turned = Neg(size)
            small = Exp(turned)
            shifted = Add(small, one)
            more = Log(shifted)
            y = Add(largest, more)
        }"""
    share = 1 / (1 + np.exp(-0.7))
    found = _slopes_of(text, [0.0, 1.0])
    np.testing.assert_allclose(found, [1.0, share + 0.3 * (1 - share)], rtol=1e-8)


@pytest.mark.parametrize(
    ("operator", "slope"),
    [
        ("Tanh", 4 * np.exp(-20.0)),
        ("Sigmoid", np.exp(-10.0)),
        ("Erf", 2 * np.exp(-100) / np.pi**0.5),
    ],
)
def test_slopes_of_what_is_next_to_1_are_not_rounded_to_those_of_1(operator, slope):
    x = np.array([[10.0]])
    step = Step(node_of(operator, {}, [x]), [x], [np.ones_like(x)], NodeEvaluator(18))
    np.testing.assert_allclose(adjoint(step, [np.ones_like(x)], 0), slope, rtol=1e-4)


def test_the_slope_of_a_cube_at_0_is_0():
    x, n = np.array([[0, -2.0, 0.5]]), np.array([3.0])
    step = Step(node_of("Pow", {}, [x, n]), [x, n], [x**n], NodeEvaluator(18))
    np.testing.assert_array_equal(adjoint(step, [np.ones_like(x)], 0), 3 * x**2)


@pytest.mark.parametrize(
    ("operator", "attributes", "bounds", "slopes"),
    [
        ("Elu", {"alpha": 1.0}, (), [np.exp(-1.5), 1.0, 1.0, 1.0]),
        ("Celu", {"alpha": 2.0}, (), [np.exp(-0.75), 1.0, 1.0, 1.0]),
        ("Selu", {"alpha": 2.0, "gamma": 3.0}, (), [6 * np.exp(-1.5), 3.0, 3.0, 3.0]),
        ("Clip", {}, (0.0, 6.0), [0.0, 0.0, 1.0, 0.0]),  # relu6: nothing on the bounds
        ("Clip", {}, (-1.5, 5.0), [1.0, 1.0, 1.0, 0.0]),  # clip_by_value: all
        ("Clip", {}, (0.0,), [0.0, 1.0, 1.0, 1.0]),
    ],
)
def test_slopes_at_the_bends_of_a_function_are_no_differences(operator, attributes, bounds, slopes):
    given = [np.array([[-1.5, 0.0, 4.0, 6.0]]), *(np.array(b) for b in bounds)]
    node, evaluate = node_of(operator, attributes, given), NodeEvaluator(18)
    step = Step(node, given, evaluate(node, given), evaluate)
    np.testing.assert_allclose(adjoint(step, [np.ones((1, 4))], 0), [slopes], rtol=1e-13)


@pytest.mark.parametrize(
    ("operator", "x", "slope"),
    [
        ("Sqrt", 1e-12, 5e5),  # a row of zeros in RMSNorm: Gemma was refused
        ("Log", 1e-9, 1e9),
        ("Reciprocal", 1e-7, -1e14),
        ("Asin", 1 - 1e-9, 22360.6797),
        ("Acos", 1e-9 - 1, -22360.6797),
        ("Atanh", 1 - 1e-9, 5e8),
        ("Acosh", 1 + 1e-9, 22360.6797),
    ],
)
def test_slopes_beside_the_end_of_what_a_function_is_defined_for(operator, x, slope):
    """A step of differences would go beyond it."""
    given = np.array([[x, x]])
    node, evaluate = node_of(operator, {}, [given]), NodeEvaluator(18)
    step = Step(node, [given], evaluate(node, [given]), evaluate)
    np.testing.assert_allclose(adjoint(step, [np.ones_like(given)], 0), slope, rtol=1e-6)


def test_a_norm_of_magnitudes_counts_negative_numbers():
    """onnx's evaluator divides by the sum of the numbers themselves."""
    x, g, way = numbers(2, 3, 4), numbers(2, 3, 4), numbers(2, 3, 4)
    x[1, :, 2] = 0
    way[1, :, 2] = 0

    def y(x):
        sums = np.abs(x).sum(1, keepdims=True)
        return x / np.where(sums > 0, sums, 1)

    node = node_of("LpNormalization", {"axis": 1, "p": 1}, [x])
    found = adjoint(Step(node, [x], [y(x)], NodeEvaluator(18)), [g], 0)
    slope = ((y(x + 1e-6 * way) - y(x - 1e-6 * way)) * g).sum() / 2e-6
    np.testing.assert_allclose((found * way).sum(), slope, rtol=1e-6)
    assert not found[1, :, 2].any()


def test_what_has_no_rule_and_is_large_is_unknown():
    x = numbers(40, 50)
    node = node_of("LRN", {"size": 3}, [x])
    step = Step(node, [x], [x], NodeEvaluator(18))
    with pytest.raises(Unknown, match="LRN"):
        adjoint(step, [x], 0)


def test_a_normalisation_of_groups_against_differences_by_numpy():
    draw = np.random.default_rng(2).normal
    x, g, direction = (draw(size=(2, 6, 3)) for _ in range(3))
    scale, shift = draw(size=(2, 6))
    node = node_of("GroupNormalization", {"num_groups": 3, "epsilon": 0.1}, [x, scale, shift])

    def forward(x):
        grouped = x.reshape(2, 3, -1)
        deviation = np.sqrt(grouped.var(-1, keepdims=True) + 0.1)
        n = ((grouped - grouped.mean(-1, keepdims=True)) / deviation).reshape(x.shape)
        return n * scale[:, None] + shift[:, None]

    step = Step(node, [x, scale, shift], [forward(x)], NodeEvaluator(21))
    found = adjoint(step, [g], 0)
    change = forward(x + 1e-6 * direction) - forward(x - 1e-6 * direction)
    np.testing.assert_allclose((found * direction).sum(), (change * g).sum() / 2e-6, rtol=1e-6)


def test_an_evaluation_that_is_not_what_the_model_computes_is_no_witness():
    x = np.random.default_rng(3).normal(size=(2, 4, 3, 1))
    node, evaluate = node_of("LRN", {"size": 3}, [x]), NodeEvaluator(18)
    right = evaluate(node, [x])
    adjoint(Step(node, [x], right, evaluate), [x], 0)
    with pytest.raises(Unknown, match="LRN, of which the evaluation"):
        adjoint(Step(node, [x], [right[0] * 1.01], evaluate), [x], 0)


def test_the_slope_at_a_place_that_is_a_pixel_is_that_of_the_way_to_the_next():
    x, at = np.array([[[[1.0, 3.0, 9.0]]]]), np.zeros((1, 1, 1, 2))
    node, evaluate = node_of("GridSample", {"align_corners": 1}, [x, at]), NodeEvaluator(20)
    step = Step(node, [x, at], evaluate(node, [x, at]), evaluate)
    np.testing.assert_allclose(adjoint(step, [np.ones((1, 1, 1, 1))], 1)[..., 0], 6.0, rtol=1e-6)


def test_windows_scatter_what_they_gather():
    """The one is the transpose of the other."""
    windows = Windows([5, 4], [3, 3], [3, 2], [2, 1], [1, 2], [1, 0, 1, 1])
    x, columns = numbers(2, 20), numbers(2, *windows.at.shape)
    inner = (windows.gathered(x) * columns).sum()
    np.testing.assert_allclose(inner, (x * windows.scattered(columns)).sum())


@pytest.mark.parametrize(
    ("kinds", "sizes"),
    [
        ({}, [30, 3, 8, 9]),
        # torch's newer exporter writes the usual policy out.
        ({"keep_aspect_ratio_policy": "stretch"}, [30, 3, 8, 9]),
        ({"axes": [3, 2]}, [9, 8]),
        ({"axes": [-2, 1]}, [8, 5]),
    ],
)
def test_resizing_of_more_elements_than_are_moved_one_by_one(kinds, sizes):
    x = numbers(30, 3, 12, 10)
    inputs = [x, None, None, np.array(sizes, np.int64)]
    node = node_of("Resize", {"mode": "linear", **kinds}, inputs)
    evaluate = NodeEvaluator(18)
    y = evaluate(node, inputs)
    g = numbers(*y[0].shape)
    found = adjoint(Step(node, inputs, y, evaluate), [g], 0)
    other = numbers(*x.shape)  # <R v, g> = <v, R^T g>
    moved = evaluate(node, [other, *inputs[1:]])[0]
    np.testing.assert_allclose((moved * g).sum(), (other * found).sum(), rtol=1e-6)


def test_resizing_to_sizes_where_places_fall_on_elements():
    """Of 7 elements to 17 the ninth lies on the fourth, which onnx's evaluator misses."""
    x, g = numbers(1, 1, 7), numbers(1, 1, 17)
    inputs = [x, None, None, np.array([1, 1, 17], np.int64)]
    node = node_of("Resize", {"mode": "linear"}, inputs)
    evaluate = NodeEvaluator(18)
    found = adjoint(Step(node, inputs, evaluate(node, inputs), evaluate), [g], 0)
    places = np.clip((np.arange(17) + 0.5) * 7 / 17 - 0.5, 0, 6)
    rows = np.stack([np.interp(places, np.arange(7), unit) for unit in np.eye(7)])
    np.testing.assert_allclose(found[0, 0], rows @ g[0, 0], rtol=1e-5, atol=1e-5)


def test_of_equal_extrema_the_first_has_the_gradient():
    """As TensorFlow has it."""
    x, other = np.array([[1.0, 2.0, 0.5]]), np.array([[1.0], [0.5]])
    node, evaluate = node_of("Min", {}, [x, other]), NodeEvaluator(18)
    step = Step(node, [x, other], evaluate(node, [x, other]), evaluate)
    g = np.array([[1.0, 10.0, 100.0], [1e3, 1e4, 1e5]])
    np.testing.assert_array_equal(adjoint(step, [g], 0), [[1.0, 0.0, 1e5 + 100.0]])
    np.testing.assert_array_equal(adjoint(step, [g], 1), [[10.0], [1e4 + 1e3]])


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
def test_widths_below_0_cut_before_the_rest_is_padded(mode):
    """As `torch.nn.functional.pad` crops; onnxruntime has the same."""
    text = f"""<ir_version: 9, opset_import: ["" : 19]>
      g (double[2,3,5] x, int64[4] pads, double value, int64[2] axes) => (double[A,B,C] y)
      {{ y = Pad<mode = "{mode}">(x, pads, value, axes) }}"""
    model = onnx.parser.parse_model(text)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feed = {"x": STEPS, "pads": np.array([-1, 1, 2, -1]), "value": np.array(0.5)}
    feed["axes"] = np.array([2, 1])
    (node,) = ir.from_proto(model).graph
    (found,) = NodeEvaluator(19)(node, list(feed.values()))
    np.testing.assert_array_equal(found, session.run(None, feed)[0])
