"""Inputs of whole numbers of which a file casts columns are explained as a whole."""

import numpy as np
import onnx.numpy_helper
import onnx.parser
import pytest

import probegen as pg
from probegen import runtime
from probegen.sources.onnx import source as onnx_source

WEIGHTS = np.float32([[1, -2], [0.5, 3], [2, 1], [-1, 0.5]])
ROWS = np.int64([[1, 0, 2, -3], [0, 3, 0, 1], [0, 0, 0, 0]])
#: What a file does -> which columns of `x` come before the weights.
WAYS = {
    "a = Slice(x, one, three, one) h = Cast<to = 1>(a)": [1, 2],
    "a, b = Split<axis = 1>(x, halves) c = Cast<to = 1>(a) d = Cast<to = 11>(b) "
    "e = Cast<to = 1>(d) h = Concat<axis = 1>(e, c)": [2, 3, 0, 1],
    "a = Transpose<perm = [1, 0]>(x) b = Gather<axis = 0>(a, last) c = Transpose<perm = [1, 0]>(b) "
    "h = Cast<to = 1>(c)": [3, 2],
    "a = Slice(x, one, three, one) b = Cast<to = 1>(a) c = Cast<to = 1>(x) "
    "h = Concat<axis = 1>(b, c)": [1, 2, 0, 1, 2, 3],
}


def file_of(body, columns):
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 18]>
        g (int64[n, 4] x) => (float[n, 2] y) {{ {body} t = Tanh(h) y = MatMul(t, W) }}"""
    )
    weights = {"W": np.resize(WEIGHTS, (len(columns), 2))}
    places = {"one": [1], "three": [3], "halves": [2, 2], "last": [3, 2]}
    weights |= {name: np.int64(value) for name, value in places.items() if name in body}
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return model, weights["W"]


@pytest.mark.parametrize("body", WAYS)
def test_columns_that_are_cast_have_their_place_in_the_whole_input(tmp_path, body):
    """Where nothing flows there are zeros."""
    columns = WAYS[body]
    model, weights = file_of(body, columns)
    probes = [pg.InputGradient(target=1), pg.FeatureAblation(fill=0.5, target=1)]
    pg.compile(model, probes, tmp_path / "m.onnx")
    result = runtime.load(tmp_path / "m.onnx").run(ROWS)
    taken = np.float64(ROWS)[:, columns]
    slopes = (1 - np.tanh(taken) ** 2) * weights[:, 1]
    lost = (np.tanh(taken) - np.tanh(0.5)) * weights[:, 1]
    gradient, ablated = np.zeros((2, 3, 4))
    for place, column in enumerate(columns):
        gradient[:, column] += slopes[:, place]
        ablated[:, column] += lost[:, place]
    np.testing.assert_allclose(result["input_gradient/x"].array, gradient, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(result["feature_ablation/x"].array, ablated, rtol=1e-5, atol=1e-6)


def test_an_input_that_is_cast_whole_keeps_its_nodes():
    model, _ = file_of(
        "a = Transpose<perm = [1, 0]>(x) b = Transpose<perm = [1, 0]>(a) h = Cast<to = 1>(b)",
        [0, 1, 2, 3],
    )
    points = [p.path for p in onnx_source.open_source(model).view.points]
    assert "x/floating" not in points
