"""Functions of one tensor, however many nodes they are spelled in."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import probegen as pg
from probegen import runtime
from probegen.graph.core.elementwise import function_of_one
from probegen.graph.tables.rectifiers import is_rectifier, scale_of


def function_at(body, constants=()):
    """The function that the node ends which makes `y`."""
    text = f"""<ir_version: 10, opset_import: ["" : 18]>
      g (float[n, 3] x, float[n, 3] z, float[n, 1] narrow) => (float[n, 3] y) {{ {body} }}"""
    proto = onnx.parser.parse_model(text)
    for name, value in dict(constants).items():
        array = np.asarray(value, np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    made_by = model.graph.outputs[0].producer()
    assert made_by is not None
    return function_of_one(made_by)


@pytest.mark.parametrize(
    ("body", "entry", "count"),
    [
        ("y = Relu(x)", "x", 1),
        ("s = Sigmoid(x) y = Mul(x, s)", "x", 2),
        ("a = Add(x, z) s = Sigmoid(a) y = Mul(a, s)", "a", 2),  # the nearest
        ("a = Exp(x) b = Neg(x) c = Tanh(b) d = Mul(a, c) y = Max(d, a)", "x", 5),
        # Zeros of x's own open shape are no second tensor.
        ("s = Shape(x) o = ConstantOfShape(s) p = Relu(x) y = Max(p, o, x)", "x", 2),
    ],
)
def test_the_nearest_tensor_that_all_leads_to(body, entry, count):
    function = function_at(body)
    assert (function.entry.name, len(function.nodes)) == (entry, count)


@pytest.mark.parametrize(
    "body",
    [
        "s = Sigmoid(z) y = Mul(x, s)",  # of two tensors
        "y = Add(x, narrow)",
        "s = Sigmoid(narrow) y = Mul(s, x)",
        "s = Softmax(x) y = Mul(x, s)",  # not element by element
    ],
)
def test_what_is_no_function_of_one(body):
    assert function_at(body) is None


def test_its_values():
    function = function_at("a = Mul(x, c) s = Sigmoid(a) y = Mul(x, s)", {"c": [1.0, 2.0, 3.0]})
    x = np.linspace(-3, 3, 7)[:, None]
    expected = x / (1 + np.exp(-x * np.array([1.0, 2.0, 3.0])))
    np.testing.assert_allclose(function.at(x), expected)
    assert is_rectifier(function)


def test_what_one_number_fills():
    body = "s = Shape(x) two = ConstantOfShape <value = float[1] {2}> (s) c = Less(zero, x)"
    function = function_at(body + " y = Where(c, x, two)", {"zero": 0.0})
    np.testing.assert_array_equal(function.at(np.array([[-1.0], [3.0]])), [[2.0], [3.0]])


@pytest.mark.parametrize(
    ("body", "rectifies", "scale"),
    [
        ("r = Relu(x) a = Add(r, r) l = Mul(x, zero) y = Add(a, l)", True, 2.0),
        ("l = Mul(x, tenth) y = Max(x, l)", True, 1.0),
        ("n = Neg(x) y = Max(x, n)", False, None),  # |x|
        ("y = Mul(x, x)", False, None),
        ("r = Relu(x) y = Mul(x, r)", False, None),  # grows faster than a line
        ("a = Tanh(x) y = Sub(a, a)", False, None),
    ],
)
def test_rectifiers_are_told_by_their_values(body, rectifies, scale):
    function = function_at(body, {"zero": 0.0, "tenth": 0.1})
    assert is_rectifier(function) == rectifies
    if scale is not None:
        np.testing.assert_allclose(scale_of(function), scale)


@pytest.mark.parametrize("method", [pg.LRP, pg.DeepLIFT, pg.Deconvnet])
def test_one_that_casts_on_its_way_gives_back_the_type_of_its_tensor(method, tmp_path):
    """A leaky rectifier of 64 bits in 32: all of y is relevance, and difference; the slope is 1."""
    text = """<ir_version: 9, opset_import: ["" : 18]>
      g (double[n, 5] x) => (double[n, 5] y) <double tenth = {0.1}>
      { a = Cast<to = 1>(x) s = Mul(x, tenth) c = Cast<to = 1>(s)
        p = Max(a, c) y = Cast<to = 11>(p) }"""
    pg.compile(onnx.parser.parse_model(text), [method(target=3)], tmp_path / "m.onnx", verify=False)
    x = np.array([[-2.5, -0.5, 0.0, 1.5, 3.25], [1.0, 2.0, 3.0, -4.0, -5.0]])
    result = runtime.load(tmp_path / "m.onnx").run(x)
    found = result[f"{method.kind}/x"].array
    expected = np.zeros_like(x)
    expected[:, 3] = [1.0, 1.0] if method is pg.Deconvnet else [1.5, -0.4]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float64
