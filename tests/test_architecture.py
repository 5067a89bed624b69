"""The five recipes of docs/ARCHITECTURE.md, taken from the page and run.

A code block is a file that one would add, named by its first line, or the one line of a table.
"""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import methods, runtime, sources
from probegen.cli import main
from probegen.errors import SourceError
from probegen.graph import passes, vjp
from probegen.runtime import engines
from tests.graph.passes.harness import changed, parsed
from tests.graph.vjp.harness import differentiate, run
from tests.test_layout import FLOORS, within

PAGE = (Path(__file__).parent.parent / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n# (.*?)\n(.*?)```", PAGE, re.DOTALL)
FILES = {title: code for title, code in BLOCKS if not title.startswith("a line of ")}
LINES = {re.match(r"a line of (\w+) in ", t)[1]: c for t, c in BLOCKS if t.startswith("a line of ")}

#: A classifier of images whose height and width differ, channels first.
CLASSIFIER = """
<ir_version: 8, opset_import: ["" : 18]>
classifier (float[batch, 3, 6, 5] image) => (float[batch, 4] probabilities)
{
    maps = Conv (image, kernel)
    kept = Relu (maps)
    means = ReduceMean <keepdims = 0> (kept, positions)
    scores = MatMul (means, matrix)
    probabilities = Softmax (scores)
}
"""


@pytest.fixture
def added(monkeypatch):
    """Returns what makes a module of a block of the page."""

    def add(name: str) -> types.ModuleType:
        path = f"probegen/{name.replace('.', '/')}.py"
        module = types.ModuleType(f"probegen.{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(FILES[path], path, "exec"), vars(module))
        return module

    return add


def probegen(*arguments: object) -> None:
    """Runs the command line, which ends well."""
    with pytest.raises(SystemExit) as left:
        main([str(a) for a in arguments])
    assert not left.value.code


def line_of(table: str, **names):
    """Returns what a line of the page adds to a table: a tuple, or a dict for `FAMILIES`."""
    opening, closing = "{}" if table == "FAMILIES" else "()"
    return eval(f"{opening}{LINES[table]}{closing}", names)


def small_classifier(path: Path) -> dict[str, np.ndarray]:
    """Writes a convolutional classifier; returns its weights."""
    rng = np.random.default_rng(3)
    weights = {
        "kernel": rng.normal(size=(5, 3, 2, 3)).astype(np.float32),
        "matrix": rng.normal(size=(5, 4)).astype(np.float32),
    }
    model = onnx.parser.parse_model(CLASSIFIER)
    for name, array in {**weights, "positions": np.array([2, 3])}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, path)
    return weights


def images(count: int) -> np.ndarray:
    """Returns images of both signs, with zeros among them."""
    drawn = np.random.default_rng(count).normal(size=(count, 3, 6, 5)).astype(np.float32)
    drawn[0, :, 2] = 0
    return drawn


def gradients_by_numpy(image: np.ndarray, kernel: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Returns the gradient of the largest score of the classifier, by its definition."""
    found = np.zeros(image.shape)
    height, width = 6 - 2 + 1, 5 - 3 + 1
    for row, x in enumerate(image.astype(np.float64)):
        maps = np.zeros((5, height, width))
        for i in range(height):
            for j in range(width):
                maps[:, i, j] = (kernel * x[None, :, i : i + 2, j : j + 3]).sum((1, 2, 3))
        best = (np.maximum(maps, 0).mean((1, 2)) @ matrix).argmax()
        at_maps = (maps > 0) * matrix[:, best][:, None, None] / (height * width)
        for i in range(height):
            for j in range(width):
                found[row, :, i : i + 2, j : j + 3] += np.tensordot(at_maps[:, i, j], kernel, 1)
    return found


def test_each_recipe_is_a_file_and_a_line() -> None:
    assert set(LINES) == {"FAMILIES", "METHODS", "SOURCES", "ENGINES", "AFTER"}
    assert len(FILES) == len(LINES) == 5
    for title in FILES:  # none of the package's own is shadowed
        assert not (Path(pg.__file__).parent.parent / title).exists()


def test_the_map_names_every_floor_in_order() -> None:
    table = PAGE.partition("| floor | holds |")[2].partition("\n\n")[0]
    said = []
    for row in table.splitlines()[2:]:
        folder = ""
        for name in re.findall(r"`([^`]+)`", row.split("|")[1]):
            folder = name.rpartition("/")[0] if "/" in name.rstrip("/") else folder
            path = name if "/" in name.rstrip("/") or not folder else f"{folder}/{name}"
            assert (Path(pg.__file__).parent / path).exists(), path
            said.append("probegen." + path.removesuffix(".py").strip("/").replace("/", "."))
    places = [max((f for f in FLOORS if within(m, f)), key=len) for m in said]
    order = [FLOORS.index(place) for place in places]
    assert order == sorted(order)
    # Those that stand for what is above them in the list, or are the package itself.
    silent = {"probegen", "probegen._keras_hook"}
    assert {f for f in FLOORS if f not in places} == silent


# -- the recipes -------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [2, 3])
def test_a_rule(added, monkeypatch, batch) -> None:
    cube = added("graph.vjp.cube")
    families = line_of("FAMILIES", cube=cube)
    rules = {**vjp.RULES, **{op: rule for found in families.values() for op, rule in found.items()}}
    monkeypatch.setattr(vjp, "RULES", rules)
    # The operator is a function of the model, so that onnxruntime knows what it computes.
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18, "example" : 1]>
        g (double[batch, 5] x) => (double[batch, 5] y) { c = example.Cube(x)  y = Sin(c) }
        <domain: "example", opset_import: ["" : 18]>
        Cube (x) => (y) { squared = Mul(x, x)  y = Mul(squared, x) }
    """)
    made = differentiate(model, ["x"], ["y"])
    x = np.random.default_rng(0).normal(size=(batch, 5))
    x[0, :2] = 0
    dy = np.random.default_rng(1).normal(size=(batch, 5))
    found = run(made.model, {"x": x, "dy/y": dy})
    np.testing.assert_allclose(found["d/x"], dy * np.cos(x**3) * 3 * x**2, rtol=1e-12, atol=1e-14)


def test_a_method(added, monkeypatch, tmp_path, capsys) -> None:
    module = added("methods.gradient_norm")
    line = line_of("METHODS", GradientNorm=module.GradientNorm)
    monkeypatch.setattr(methods, "METHODS", (*methods.METHODS, *line))
    weights = small_classifier(tmp_path / "m.onnx")
    exported = pg.compile(tmp_path / "m.onnx", [pg.GradientNorm()], tmp_path / "out.onnx")
    assert exported.report["gradient_norm/image"].passed
    art = runtime.load(tmp_path / "out.onnx")
    for count in (2, 3):
        found = art.run(images(count))["gradient_norm/image"].array
        gradient = gradients_by_numpy(images(count), **weights)
        assert found.shape == (count, 6, 5)
        np.testing.assert_allclose(found, np.sqrt((gradient**2).sum(1)), rtol=1e-4, atol=1e-6)
    compiled = ("compile", tmp_path / "m.onnx", "-o", tmp_path / "cli.onnx")
    probegen(*compiled, "--gradient-norm", "--json")
    assert json.loads(capsys.readouterr().out)["outputs"][1] == "gradient_norm/image"


def test_a_source(added, monkeypatch, tmp_path, capsys) -> None:
    added("sources.linear")
    line = line_of("SOURCES", Kind=sources.Kind)
    monkeypatch.setattr(sources, "SOURCES", (*line, *sources.SOURCES))
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(size=(3, 7)).round(2), rng.normal(size=3).round(2)
    path = tmp_path / "seven.linear.json"
    path.write_text(json.dumps({"weights": weights.tolist(), "bias": bias.tolist()}))
    points = pg.inspect(path)
    assert [p.class_name for p in points if "activation" in p.probes] == ["Gemm", "Softmax"]
    pg.compile(path, [pg.InputGradient(), pg.Saliency(target=2)], tmp_path / "m.onnx")
    assert all(p.passed for p in pg.verify(tmp_path / "m.onnx", path).outputs.values())
    art = runtime.load(tmp_path / "m.onnx")
    for count in (2, 5):
        x = np.random.default_rng(count).normal(size=(count, 7)).astype(np.float32)
        x[0, 3:] = 0
        result = art.run(x)
        scores = x @ weights.T + bias
        powers = np.exp(scores - scores.max(1, keepdims=True))
        expected = powers / powers.sum(1, keepdims=True)
        np.testing.assert_allclose(result["probabilities"].array, expected, rtol=1e-5)
        gradient = result["input_gradient/features"].array
        np.testing.assert_allclose(gradient, weights[scores.argmax(1)], rtol=1e-6)
        saliency = result["saliency/features"].array
        np.testing.assert_allclose(saliency, np.abs(weights[[2] * count]), rtol=1e-6)
    probegen("verify", tmp_path / "m.onnx", "--against", path, "--json")
    assert json.loads(capsys.readouterr().out)["passed"]
    path.write_text('{"weights": [[1, 2]], "bias": [1, 2]}')
    with pytest.raises(SourceError, match=r"holds no linear classifier \(cannot reshape.*such as"):
        pg.inspect(path)


# onnx's evaluator says of a HardSigmoid that makes a mask that it overflows: it does, to infinity.
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")
def test_an_engine(added, monkeypatch, tmp_path, capsys) -> None:
    evaluator = added("runtime.engines.evaluator")
    line = line_of("ENGINES", Entry=engines.Entry, evaluator=evaluator)
    monkeypatch.setattr(engines, "ENGINES", (*engines.ENGINES, *line))
    weights = small_classifier(tmp_path / "m.onnx")
    probes = [pg.InputGradient(target="input"), pg.Activations("type:Relu")]
    pg.compile(tmp_path / "m.onnx", probes, tmp_path / "out.onnx")
    art = runtime.load(tmp_path / "out.onnx", engine="evaluator")
    assert art.engine.name == "onnx's reference evaluator"
    for count in (2, 3):
        result = art.run(images(count), target=[-1] * count)
        gradient = gradients_by_numpy(images(count), **weights)
        found = result["input_gradient/image"].array
        np.testing.assert_allclose(found, gradient, rtol=1e-4, atol=1e-6)
        assert (next(r for r in result.values() if r.kind == "activation").array >= 0).all()
        assert list(art.run(images(count), explain=False)) == ["probabilities"]
    np.save(tmp_path / "x.npy", images(2))
    probegen("run", tmp_path / "out.onnx", tmp_path / "x.npy", "--engine", "evaluator")
    assert "input_gradient/image" in capsys.readouterr().out


def test_a_pass(added, monkeypatch) -> None:
    module = added("graph.passes.after.drop_double_negations")
    change = module.drop_double_negations
    assert "->" in change.__doc__
    line = line_of("AFTER", drop_double_negations=change)
    body = "a = Neg(x) b = Neg(a) c = Neg(b) y = Relu(c)"
    assert changed(parsed(body), passes.clean) == ["Neg", "Neg", "Neg", "Relu"]
    monkeypatch.setattr(passes, "AFTER", (*line, *passes.AFTER))
    assert changed(parsed(body), passes.clean) == ["Neg", "Relu"]
    # What is an output keeps its name, and what others read stays.
    assert changed(parsed("a = Neg(x) y = Neg(a)"), passes.clean) == ["Neg", "Neg"]
    assert changed(parsed("a = Neg(x) b = Neg(a) y = Mul(a, b)"), passes.clean) == ["Neg", "Mul"]
