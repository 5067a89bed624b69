"""The forward graph of a plan: the file's own nodes, and what the plan takes from them."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import ExportError
from probegen.plan.making import make_plan
from probegen.sources import open_source
from tests.sources.onnx.support import add_weights, hard, operators, parse, run


def _weights(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def model():
    return add_weights(
        parse(
            """
            g (float[N,3,9,7] x) => (float[N,5] y, float[N,4,7,6] b) {
              a = Conv(x, w)
              b = Relu(a)
              p = GlobalAveragePool(b)
              f = Flatten(p)
              y = MatMul(f, m)
            }"""
        ),
        w=_weights(4, 3, 3, 2),
        m=_weights(4, 5),
    )


def test_tensors_come_out_as_the_file_computes_them(model, tmp_path) -> None:
    """Inner ones, one that is an output as well, one that is read twice."""
    path = tmp_path / "m.onnx"
    pg.compile(model, [pg.Activations(["a", "b", "f", "y"])], path)
    art = runtime.load(path)
    whole = copy.deepcopy(model)
    for name in ("a", "f"):
        whole.graph.output.append(onnx.helper.make_tensor_value_info(name, 1, None))
    for rows in (2, 5):
        x = hard(rows, 3, 9, 7)
        expected, found = run(whole, {"x": x}), art.run(x)
        for spec in art.manifest.explanations:
            name = {p.path: str(p.layer.outputs[0].name) for p in pg.inspect(model)[1:]}[spec.layer]
            np.testing.assert_array_equal(found[spec.name].array, expected[name])


def test_the_forward_pass_is_the_files_own(model) -> None:
    source = open_source(model)
    plan = make_plan(source.view, [pg.Activations("a")], None)
    forward = source.forward_graph(plan, 18, None)
    assert [n.op_type for n in forward.model.graph] == operators(source._read)
    assert [v.name for v in source._read.model.graph.outputs] == ["y", "b"]  # untouched


def test_gradients_at_a_tensor_that_is_an_output_too(model, tmp_path) -> None:
    path = tmp_path / "m.onnx"
    report = pg.compile(model, [pg.InputGradient(wrt="b", output="y", target=3)], path).report
    (name,) = [n for n in report if n.startswith("input_gradient")]
    assert report[name].witness.endswith("differences of the source model's scores")
    x = hard(3, 3, 9, 7)
    found = runtime.load(path).run(x)[name].array
    expected = np.broadcast_to(_weights(4, 5)[:, 3].reshape(1, 4, 1, 1) / 42, (3, 4, 7, 6))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_payloads_of_a_type_that_is_asked_for(model, tmp_path, dtype) -> None:
    path = tmp_path / "m.onnx"
    pg.compile(model, [pg.Activations("a", dtype=dtype, channels=[3, 0])], path)
    (spec,) = runtime.load(path).manifest.explanations
    assert (spec.dtype, spec.shape) == (dtype, (None, 2, 7, 6))
    whole = copy.deepcopy(model)
    whole.graph.output.append(onnx.helper.make_tensor_value_info("a", 1, None))
    x = hard(2, 3, 9, 7)
    expected = run(whole, {"x": x})["a"][:, [3, 0]].astype(dtype)
    np.testing.assert_array_equal(runtime.load(path).run(x)[spec.name].array, expected)


def test_the_batch_is_fixed_where_it_lies() -> None:
    text = """
        g (float[T,N,6] x, float[N,6] z) => (float[T,N,5] y) {
          a = Add(x, z)
          y = MatMul(a, w)
        }"""
    model = add_weights(parse(text), w=_weights(6, 5))
    source = open_source(model, {"x": "time,batch,feature"})
    plan = make_plan(source.view, [pg.Saliency(wrt="x", target=1)], None)
    forward = source.forward_graph(plan, 18, 1)
    sizes = [
        [d if isinstance(d, int) else None for d in v.shape] for v in forward.model.graph.inputs
    ]
    assert sizes[0] == [None, 1, 6]


def test_another_batch_than_the_files_is_refused() -> None:
    model = parse("g (float[3,6] x) => (float[3,6] y) { y = Sin(x) }")
    source = open_source(model)
    plan = make_plan(source.view, [pg.Saliency(target=1)], None)
    with pytest.raises(ExportError, match="'x' has the fixed batch size 3, not 2"):
        source.forward_graph(plan, 18, 2)


def test_activations_of_a_file_in_double_precision(tmp_path) -> None:
    text = """
        g (double[N,4] x) => (double[N,3] y) {
          a = Tanh(x)
          y = MatMul(a, w)
        }"""
    path = tmp_path / "m.onnx"
    pg.compile(
        add_weights(parse(text), w=_weights(4, 3).astype(np.float64)), [pg.Activations("a")], path
    )
    x = hard(3, 4).astype(np.float64)
    found = runtime.load(path).run(x)["activation/a"].array
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.tanh(x), rtol=1e-12)
