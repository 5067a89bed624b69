"""What is missing to completeness, as records, pictures and terminals say it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import runtime
from probegen.cli import main
from tests.runtime.figures import texts_of

TEXT = """<ir_version: 9, opset_import: ["" : 17]>
  net (float[batch, 4] one, float[batch, 3] two) => (float[batch, 3] y) {
    joined = Concat <axis = 1> (one, two)
    before = MatMul (joined, w)
    hidden = Tanh (before)
    y = MatMul (hidden, a)
  }"""
RNG = np.random.default_rng(2)
W, A = RNG.normal(size=(7, 5)).astype(np.float32), RNG.normal(size=(5, 3)).astype(np.float32)
X = {
    "one": RNG.normal(size=(3, 4)).astype(np.float32),
    "two": RNG.normal(size=(3, 3)).astype(np.float32),
}


def gained() -> np.ndarray:
    """The scores less those of zeros, which are 0."""
    joined = np.concatenate([X["one"], X["two"]], 1).astype(float)
    return np.asarray(np.tanh(joined @ W) @ A)


@pytest.fixture(scope="module")
def path(tmp_path_factory: Any) -> str:
    model = onnx.parser.parse_model(TEXT)
    for name, array in (("w", W), ("a", A)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    probes = [
        pg.IntegratedGradients(2, target=1, completeness=True),
        pg.DeepLIFT(0.0, target="top:2", completeness=True),
        pg.Saliency(target=1),
        pg.ConceptSensitivity("hidden", np.eye(5, dtype=np.float32)[:2], names=["dots", "stripes"]),
    ]
    place = tmp_path_factory.mktemp("completeness") / "m.onnx"
    pg.compile(model, probes, place)
    return str(place)


def test_what_is_explained_is_the_score_gained_by_all_inputs_together(path: str) -> None:
    result = runtime.load(path).run(X)
    for name in ("one", "two"):
        found = result[f"integrated_gradients/{name}"].completeness
        assert found is not None
        np.testing.assert_allclose(found.explained, gained()[:, 1], rtol=1e-4, atol=1e-5)
        total = sum(result[f"integrated_gradients/{n}"].array.sum(1) for n in X)
        np.testing.assert_allclose(found.missing, total - gained()[:, 1], rtol=1e-3, atol=1e-5)
        assert np.abs(found.missing).max() > 1e-3  # two steps leave something to see
    assert result["saliency/one"].completeness is None
    assert result["completeness/integrated_gradients/one"].completeness is None


def test_several_classes_and_each_by_itself(path: str) -> None:
    record = runtime.load(path).run(X)["deep_lift/one"]
    best = np.sort(gained(), 1)[:, ::-1]
    assert record.completeness is not None
    np.testing.assert_allclose(record.completeness.explained, best[:, :2], rtol=1e-4, atol=1e-5)
    second = record.top(1).completeness
    assert second is not None
    np.testing.assert_allclose(second.explained, best[:, 1], rtol=1e-4, atol=1e-5)


def test_pictures_say_it_and_call_concepts_by_their_names(path: str) -> None:
    result = runtime.load(path).run(X)
    figure = result["integrated_gradients/one"].plot(sample=2)
    words = " ".join(t.get_text() for t in figure.findobj(lambda o: hasattr(o, "get_text")))
    missing = result["completeness/integrated_gradients/one"].array[2]
    said = f"completeness: missing {abs(missing):.1g} of {gained()[2, 1]:.3g}"
    assert said in " ".join(words.split())
    figure = result["concept_sensitivity/hidden"].plot()
    words = " ".join(t.get_text() for t in figure.findobj(lambda o: hasattr(o, "get_text")))
    assert "dots" in words
    assert "stripes" in words
    assert said in repr(result)


def test_a_model_of_one_sample(tmp_path: Any) -> None:
    """The nodes of a graph, whose one sum has no axis of samples."""
    text = """<ir_version: 9, opset_import: ["" : 17]>
      net (float[nodes, 4] x, float[nodes, nodes] edges) => (float[nodes, 4] y) {
        gathered = MatMul (edges, x)
        y = Tanh (gathered)
      }"""
    axes = {"x": "node,feature", "edges": "from,to", "y": "node,class"}
    probe = pg.DeepLIFT(target=(1, 2), wrt="x", completeness=True)
    fed = {"x": RNG.normal(size=(3, 4)), "edges": RNG.uniform(size=(3, 3))}
    model = onnx.parser.parse_model(text)
    pg.compile(model, [probe], tmp_path / "m.onnx", inputs=axes, samples=fed)
    record = runtime.load(tmp_path / "m.onnx").run(fed)["deep_lift/x"]
    assert record.completeness is not None
    expected = np.tanh(fed["edges"] @ fed["x"])[1, 2]
    np.testing.assert_allclose(record.completeness.explained, [expected], rtol=1e-5)
    assert "completeness: missing" in " ".join(texts_of(record.plot()))


def test_a_terminal_says_it(path: str, tmp_path: Any, capsys: Any) -> None:
    np.savez(tmp_path / "x.npz", **X)
    with pytest.raises(SystemExit) as stopped:
        main(["run", path, str(tmp_path / "x.npz")])
    assert not stopped.value.code
    line = r"deep_lift/one, row 1: completeness: missing at most \S+ of \S+"
    assert re.search(line, capsys.readouterr().out)
