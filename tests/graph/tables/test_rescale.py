"""DeepLIFT's rule of a ReLU where values and references are on either side of 0, or at it."""

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import probegen as pg
from probegen import runtime
from probegen.graph.autodiff import Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.elementwise import FunctionOfOne
from probegen.graph.tables.rescale import Reference
from probegen.graph.vjp import BLOCKING, RULES

POINTS = [-6.0, -0.5, 0.0, 0.25, 3.0, 8.0]


@pytest.mark.parametrize("dtype", ["float", "float16"])
@pytest.mark.parametrize("function", ["Relu(x)", "Clip(x, low, high)", "LeakyRelu(x)"])
def test_what_a_rectifier_passes_is_its_difference_over_that_of_its_input(function, dtype):
    six = 0x4600 if dtype == "float16" else 6  # ONNX's text holds the bits of halves
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
      g ({dtype}[n] x, {dtype}[n] x0, {dtype}[n] g) => ({dtype}[n] y)
      <{dtype} low = {{0}}, {dtype} high = {{{six}}}>
      {{ y = {function} y0 = {function.replace("x", "x0", 1)} }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    graph = model.graph
    x, there, g = graph.inputs
    y, y0 = (node.outputs[0] for node in graph)
    y0.type, y0.shape = y.type, y.shape
    builder = Builder(graph, 18)
    walk = Walk(builder, RULES, BLOCKING, {x}, frozenset({x}))
    reference = Reference({x: there, y: y0})
    found = reference._rescaled(walk, FunctionOfOne(x, (graph[0],)), g)
    builder.attach()
    graph.outputs[:] = [found]
    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString())
    pairs = np.array(list(itertools.product(POINTS, POINTS)))
    a, b = pairs.T
    passed = {
        "Relu(x)": lambda v: np.maximum(v, 0),
        "Clip(x, low, high)": lambda v: np.clip(v, 0, 6),
        "LeakyRelu(x)": lambda v: np.where(v < 0, 0.01 * v, v),
    }[function]
    kind = np.float16 if dtype == "float16" else np.float32
    arrived = np.linspace(-2, 2, len(a)).astype(kind)
    result = session.run(None, {"x": a.astype(kind), "x0": b.astype(kind), "g": arrived})[0]
    step = 1e-3  # where nothing differs, the slope, from the right but at the bound of the clip
    slope = np.where(a > 0, passed(a + step) - passed(a), passed(a) - passed(a - step)) / step
    same = a == b
    share = np.where(same, slope, (passed(a) - passed(b)) / np.where(same, 1, a - b))
    np.testing.assert_allclose(result, arrived * share, rtol=3e-3 if kind == np.float16 else 1e-5)


@pytest.mark.parametrize(("dtype", "rtol"), [("double", 1e-8), ("float", 1e-4)])
def test_small_differences_are_divided_as_far_as_numbers_hold_them(dtype, rtol, tmp_path):
    """Where a slope stands in for the quotient it is off by half of the way times the curvature."""
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
      g ({dtype}[n, 2] x) => ({dtype}[n, 2] y) {{ y = Exp(x) }}"""
    pg.compile(
        onnx.parser.parse_model(text), [pg.DeepLIFT(target=1)], tmp_path / "m.onnx", verify=False
    )
    ways = np.array([1e-9, 3e-6, 1e-3, 2.0], "f8" if dtype == "double" else "f4")
    result = runtime.load(tmp_path / "m.onnx").run(np.stack([ways, ways], 1))
    found = result["deep_lift/x"].array[:, 1]
    np.testing.assert_allclose(found, np.expm1(ways.astype("f8")), rtol=rtol)


def test_a_rounding_passes_its_whole_step_however_small_the_difference_is(tmp_path):
    """Its slope says nothing of a step that lies between a value and its reference."""
    text = """<ir_version: 9, opset_import: ["" : 18]>
      g (float[n, 2] x) => (float[n, 2] y) <float s = {0.25}, int8 z = {0}>
      { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"""
    model, baseline = onnx.parser.parse_model(text), 0.125 - 1e-5
    pg.compile(model, [pg.DeepLIFT(baseline, target=1)], tmp_path / "m.onnx")
    ways = np.array([3e-5, 5e-6, -3e-5, 0.3], np.float32)
    x = np.float32(baseline) + np.stack([ways, ways], 1)
    found = runtime.load(tmp_path / "m.onnx").run(x)["deep_lift/x"].array
    np.testing.assert_allclose(found[:, 1], [0.25, 0.0, 0.0, 0.5], rtol=1e-2)
    assert not found[:, 0].any()


def test_a_root_of_zeros_that_stay_zeros_passes_nothing_on(tmp_path):
    """As a pooling by norms has it behind a rectifier: its slope there is infinite."""
    text = """<ir_version: 9, opset_import: ["" : 18]>
      g (float[n, 4] x) => (float[n, 2] y) <float half = {0.5}, int64[1] last = {2}> {
        r = Relu(x)  s = Mul(r, r)  form = Constant<value_ints = [0, 2, 2]>()
        p = Reshape(s, form)  m = ReduceMean<keepdims = 0>(p, last)  y = Pow(m, half) }"""
    model = onnx.parser.parse_model(text)
    pg.compile(model, [pg.DeepLIFT(target=1)], tmp_path / "m.onnx")
    pg.compile(model, [pg.GuidedBackprop(target=1)], tmp_path / "guided.onnx")
    x = np.array([[1, 2, -1, -3], [1, 1, 3, -4], [0, 0, 0, 2]], np.float32)
    found = runtime.load(tmp_path / "m.onnx").run(x)["deep_lift/x"].array
    norms = np.sqrt((np.maximum(x, 0)[:, 2:] ** 2).mean(1))
    np.testing.assert_allclose(found.sum(1), norms, rtol=1e-5)
    assert not found[0].any()
    guided = runtime.load(tmp_path / "guided.onnx").run(x)["guided_backprop/x"].array
    slopes = np.maximum(x, 0) / np.where(norms == 0, 1, norms)[:, None] / 2
    slopes[:, :2] = 0.0
    np.testing.assert_allclose(guided, slopes, rtol=1e-5)
