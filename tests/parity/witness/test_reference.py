"""What the verification runs: a forward pass for each reference point, whatever the classes."""

import dataclasses

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import VerificationError
from probegen.parity.measuring import program_of
from probegen.parity.witness.forward import ForwardValues
from probegen.parity.witness.reference import reference_of, tables_last
from probegen.sources.onnx.moved_scores import OnnxMovedScores
from tests import models
from tests.methods.scoring import onnx_model, onnx_scores


def reference(probe, folder):
    pg.compile(onnx_model(), probe, folder / "m.onnx", verify=False)
    program = program_of(onnx_model(), runtime.load(folder / "m.onnx").manifest)
    return reference_of(dataclasses.replace(program, plan=tables_last(program.plan)))


@pytest.fixture
def calls(monkeypatch):
    """How often a forward graph is opened, its tensors are computed, and scores are asked for."""
    counts = {"opened": 0, "values": 0, "scores": 0}

    def counted(owner, method, name):
        plain = getattr(owner, method)

        def call(*args, **kwargs):
            counts[name] += 1
            return plain(*args, **kwargs)

        monkeypatch.setattr(owner, method, call)

    counted(ForwardValues, "__init__", "opened")
    counted(ForwardValues, "at", "values")
    counted(OnnxMovedScores, "at", "scores")
    return counts


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        (pg.DeepLIFT(0.2, target="all"), {"opened": 1, "values": 2}),
        (pg.DeepLIFT(0.2, target="all", completeness=True), {"opened": 1, "values": 3}),
        (pg.LRP(target="all", completeness=True), {"opened": 2, "values": 2}),
    ],
)
def test_all_classes_share_a_graph_and_its_runs(tmp_path, calls, probe, expected):
    found = reference(probe, tmp_path).explanations({"x": models.images((5, 3), count=2)}, None)
    assert found[f"{probe.kind}/x"].shape == (2, 4, 5, 3)
    assert {name: calls[name] for name in expected} == expected


def test_all_classes_share_the_scores_at_changed_inputs(tmp_path, calls):
    x = {"x": models.images((5, 3), count=2)}
    found, counts = {}, {}
    for target in ("all", 2):
        before = calls["scores"]
        made = reference(pg.Occlusion(2, 2, target=target), tmp_path).explanations(x, None)
        found[target], counts[target] = made["occlusion/x"], calls["scores"] - before
    assert counts["all"] == counts[2]
    np.testing.assert_allclose(found["all"].take(2, 1), found[2], rtol=1e-6, atol=1e-12)


def test_the_scores_that_methods_with_rules_explain_can_be_asked_for(tmp_path):
    """Which class is undecided, and what a score is rounded with, is asked of them as well."""
    probes = [pg.LRP(target=1), pg.Saliency(logits=False, target=0)]
    moved, x = reference(probes, tmp_path).moved_scores(), models.images((5, 3), count=2)
    of_gradients, of_rules = moved.at({"x": x}, {})[0]
    np.testing.assert_allclose(of_rules, onnx_scores(x), rtol=1e-5)
    odds = np.exp(of_rules)
    np.testing.assert_allclose(of_gradients, odds / odds.sum(axis=1, keepdims=True), rtol=1e-5)


def test_one_tensor_may_be_turned_for_two_functions(tmp_path):
    """Both turn it under one name, which no runtime takes twice."""
    text = """<ir_version: 9, opset_import: ["" : 18]>
      net (float[n, 4, 3] x) => (float[n, 2] s) {
        y = MatMul(x, w)  r = Relu(y)  a = Transpose<perm = [0, 2, 1]>(r)
        b = Transpose<perm = [0, 2, 1]>(y)  t = Tanh(y)  c = Transpose<perm = [0, 2, 1]>(t)
        d = Mul(a, b)  e = Mul(c, b)  f = Concat<axis = 1>(d, e)  g = Flatten(f)
        s = MatMul(g, v) }"""
    model, rng = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in (("w", (3, 5)), ("v", (40, 2))):
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    found = pg.compile(model, pg.DeepLIFT(0.2, target=1), tmp_path / "m.onnx")
    assert "numpy" in found.report["deep_lift/x"].witness


@pytest.mark.parametrize(
    ("row", "is_right"),
    [
        ([0.5, -0.25, 1.0], True),  # nothing is apart
        ([2345678.0, 1234567.0, -3141592.0], True),  # where noise turns the sine many times
        ([1.5, -1.25, 2.0], False),  # where it moves nothing
    ],
)
def test_predictions_may_be_apart_where_noise_moves_them_as_far(tmp_path, row, is_right):
    """Of few samples: beside the sine of a huge number the others say who is right."""
    text = """<ir_version: 9, opset_import: ["" : 18]>
      net (float[n, 3] x) => (float[n, 2] s) { a = Mul(x, c)  y = Sin(a)  s = MatMul(y, w) }"""
    model, w = onnx.parser.parse_model(text), np.array([[1, 2], [-1, 0.5], [3, 1]], np.float32)
    for name, array in (("c", np.float32(1.1)), ("w", w)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    pg.compile(model, pg.DeepLIFT(target=1), tmp_path / "m.onnx", verify=False)
    program = program_of(model, runtime.load(tmp_path / "m.onnx").manifest)
    witness = reference_of(dataclasses.replace(program, plan=tables_last(program.plan)))

    def predictions(feed):
        wide = feed["x"].astype(np.float64)
        odd = 0.1 * (np.abs(wide).max(axis=1, keepdims=True).round(3) == 2.0)
        return ({"s": (np.sin(1.1 * wide + odd) @ w).astype(np.float32)},)

    witness._inner.predictions = predictions
    few = {"x": np.array([[0.5, 1.0, -0.5], row, [0.1, -0.2, 0.3]], np.float32)}
    many = {"x": np.array([row, row, [0.1, -0.2, 0.3]], np.float32)}
    for feed, passes in ((few, is_right), (many, is_right and max(row) < 2)):
        if passes:
            assert np.isfinite(witness.explanations(feed, None)["deep_lift/x"]).all()
        else:
            with pytest.raises(VerificationError, match="does not predict what the model does"):
                witness.explanations(feed, None)
