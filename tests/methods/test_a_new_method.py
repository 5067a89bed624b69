"""A method in one file and one line of the table is everywhere at once."""

import json
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

import probegen as pg
from probegen import methods, runtime
from probegen.errors import InstrumentError, SpecError, VerificationError
from probegen.methods import text_forms
from probegen.methods.documentation import markdown_page, markdown_table
from tests import models
from tests.command_line import status_of
from tests.methods.gradient_squared import GradientSquared
from tests.methods.guided import Guided

FACTOR = 2.5


@pytest.fixture
def table(monkeypatch):
    """The table with two lines more."""
    monkeypatch.setattr(methods, "METHODS", (*methods.METHODS, GradientSquared, Guided))


def run(capsys, *arguments):
    """Runs the command line; returns status and standard output."""
    status = status_of(*arguments)
    done = capsys.readouterr()
    return status, done.out + done.err


def squared_gradient(model, images, classes=None):
    """The attribution by a gradient tape on the model without its softmax."""
    logits = keras.Model(model.inputs, model.layers[-1].input)
    dense = model.layers[-1]
    x = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(x)
        scores = logits(x) @ dense.kernel + dense.bias
        chosen = tf.argmax(scores, 1) if classes is None else tf.constant(classes)
        score = tf.reduce_sum(tf.gather(scores, chosen, axis=1, batch_dims=1))
    return FACTOR * (tape.gradient(score, x).numpy() ** 2).sum(-1)


# -- a method that is made of the gradient -----------------------------------------------------


@pytest.mark.usefixtures("table")
def test_it_has_a_public_name_a_text_form_and_a_row():
    assert pg.GradientSquared is GradientSquared
    probe = GradientSquared(0.5, target=2, wrt="image")
    text = text_forms.to_json([probe])
    assert '"probe": "gradient_squared"' in text
    assert text_forms.from_json(text) == (probe,)
    toml = '[[probes]]\nprobe = "gradient_squared"\nfactor = 0.5\n'
    assert text_forms.from_toml(toml) == (GradientSquared(0.5),)
    with pytest.raises(SpecError, match="Did you mean 'factor'"):
        text_forms.from_dict({"probe": "gradient_squared", "facter": 1.0})
    row = markdown_table().splitlines()[-2]
    assert row.startswith("| `pg.GradientSquared(factor=1.0)` | `gradient_squared/<input>` |")
    section = markdown_page().partition("## Gradient squared\n")[2].partition("\n## ")[0]
    assert "unit: squared score per squared unit of input; sign: never negative" in section


def test_without_its_line_it_is_unknown():
    assert not hasattr(pg, "GradientSquared")
    with pytest.raises(SpecError, match="unknown probe 'gradient_squared'"):
        text_forms.from_dict({"probe": "gradient_squared"})


@pytest.mark.usefixtures("table")
def test_the_command_line_has_its_flag_and_its_option(tmp_path, capsys):
    status, said = run(capsys, "compile", "--help")
    assert status == 0
    assert "--gradient-squared " in said
    assert "Sum of squared gradients." in said
    assert "Factor of --gradient-squared. [default: 1.0]" in " ".join(said.split())
    models.cnn().save(tmp_path / "m.keras")
    out = tmp_path / "m.onnx"
    common = ("compile", tmp_path / "m.keras", "-o", out, "--json")
    status, said = run(capsys, *common, "--gradient-squared", "--factor", FACTOR, "--target", 1)
    assert status == 0, said
    art = runtime.load(out)
    output = art.manifest.output("gradient_squared/image")
    assert output.detail == {"factor": FACTOR}
    assert output.target.index == (1,)
    status, said = run(capsys, *common, "--saliency", "--factor", 2)
    assert status == 1
    assert "--factor goes with an option such as --gradient-squared" in said
    status, said = run(
        capsys, "inspect", tmp_path / "m.keras", "--cost", "--gradient-squared", "--json"
    )
    costs = json.loads(said.splitlines()[0])["cost"]["probes"]
    assert [cost["name"] for cost in costs] == ["gradient_squared/image"]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("path", ["m.onnx", "saved"])
def test_its_values_are_the_tapes_and_verified(tmp_path, path):
    model = models.cnn()
    probe = GradientSquared(FACTOR, target="input")
    exported = pg.compile(model, [probe, pg.Saliency()], tmp_path / path)
    art = runtime.load(tmp_path / path)
    for count in (2, 3):
        images, classes = models.images((11, 8, 2), count=count), [2, 0, 3][:count]
        found = art.run(images, target=classes)["gradient_squared/image"].array
        assert found.shape == (count, 11, 8)
        expected = squared_gradient(model, images, classes)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6 * expected.max())
    certificate = art.manifest.certificate
    assert certificate["passed"]
    assert certificate["outputs"]["gradient_squared/image"]["passed"]
    assert exported.report["gradient_squared/image"].kind == "gradient_squared"
    assert pg.verify(tmp_path / path, model)["gradient_squared/image"].passed
    output = art.manifest.output("gradient_squared/image")
    assert (output.title, output.sign, output.draw) == ("Gradient squared", "never negative", "map")
    assert output.method == f"{GradientSquared.equation} (Nobody 2026, eq. 7)"
    assert output.axes == ("batch", "height", "width")


#: `softmax(relu(tanh(x)) W)`, as somebody else would write it.
TEXT = """<ir_version: 9, opset_import: ["" : 17]>
  g (float[n, 5] x) => (float[n, 3] y)
  <float[5, 3] w = {%s}>
  { bent = Tanh(x)  kept = Relu(bent)  scores = MatMul(kept, w)  y = Softmax(scores) }"""
W = (np.arange(15).reshape(5, 3) % 7 - 3).astype(np.float32)


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("guided", [False, True])
def test_onnx_files_have_it_too(tmp_path, guided):
    source = tmp_path / "source.onnx"
    onnx.save(onnx.parser.parse_model(TEXT % ", ".join(map(str, W.reshape(-1)))), source)
    probe = Guided() if guided else GradientSquared(FACTOR)
    if guided:
        with pytest.raises(VerificationError, match=r"pg.Guided.*nothing to compare it with"):
            pg.compile(source, probe, tmp_path / "m.onnx")
    pg.compile(source, probe, tmp_path / "m.onnx", verify=not guided)
    x = models.images((5,), count=3)
    best = (np.maximum(np.tanh(x), 0) @ W).argmax(1)
    before = W[:, best].T
    slope = np.maximum(before, 0) if guided else before
    gradient = np.where(x > 0, slope, 0) * (1 - np.tanh(x) ** 2)
    found = runtime.load(tmp_path / "m.onnx").run(x)[f"{probe.kind}/x"].array
    expected = gradient if guided else FACTOR * (gradient**2).sum(1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("table")
def test_the_verification_finds_it_wrong(tmp_path, monkeypatch):
    model = models.cnn()
    pg.compile(model, GradientSquared(), tmp_path / "m.onnx", verify=False)
    right = GradientSquared.combine

    def wrong(self, ops, gradient, value, axes):
        return right(self, ops, ops.mul(gradient, 1.2), value, axes)

    monkeypatch.setattr(GradientSquared, "combine", wrong)
    with pytest.raises(VerificationError, match="gradient_squared/image"):
        pg.verify(tmp_path / "m.onnx", model)


DRAWS = """
import sys
for name in ("tensorflow", "keras", "onnx", "onnx_ir"):
    sys.modules[name] = None
import numpy as np
from matplotlib.text import Text
from probegen import methods, runtime
assert "GradientSquared" not in [m.__name__ for m in methods.METHODS]
record = runtime.load(sys.argv[1]).run(np.load(sys.argv[2]))["gradient_squared/image"]
figure = record.plot(1)
figure.draw_without_rendering()
print(" | ".join(t.get_text() for t in figure.findobj(Text)))
"""


@pytest.mark.usefixtures("table")
def test_a_runtime_that_has_never_heard_of_it_draws_it(tmp_path):
    pg.compile(models.cnn(), GradientSquared(), tmp_path / "m.onnx", verify=False)
    np.save(tmp_path / "x.npy", models.images((11, 8, 2)))
    done = subprocess.run(
        [sys.executable, "-c", DRAWS, str(tmp_path / "m.onnx"), str(tmp_path / "x.npy")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Gradient squared: image" in done.stdout


# -- a method with a product of its own --------------------------------------------------------


def rectified(seed=8):
    """Two rectified layers: `[?, 6]` -> 3 classes; weights of both signs."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((6,), name="row")
    y = keras.layers.Dense(7, activation="relu", name="first")(x)
    y = keras.layers.Dense(5, activation="relu", name="second")(y)
    return keras.Model(x, keras.layers.Dense(3, activation="softmax", name="scores")(y))


def backwards(model, rows, guided):
    """The gradient of the best class, by numpy, layer after layer."""
    (w1, b1), (w2, b2), (w3, b3) = (
        [v.astype(np.float64) for v in model.get_layer(n).get_weights()]
        for n in ("first", "second", "scores")
    )
    before1 = rows @ w1 + b1
    before2 = np.maximum(before1, 0) @ w2 + b2
    best = (np.maximum(before2, 0) @ w3 + b3).argmax(1)

    def rectifier(gradient, before):
        passed = np.where(before > 0, gradient, 0)
        return np.maximum(passed, 0) if guided else passed

    return rectifier(rectifier(w3[:, best].T, before2) @ w2.T, before1) @ w1.T


@pytest.mark.usefixtures("table")
def test_its_product_takes_the_place_of_the_operators_own(tmp_path):
    model = rectified()
    path = tmp_path / "m.onnx"
    pg.compile(model, [Guided(), pg.InputGradient()], path, verify=False)
    art = runtime.load(path)
    for count in (2, 5):
        rows = models.images((6,), seed=count, count=count)
        found = art.run(rows)
        guided, plain = (backwards(model, rows, g) for g in (True, False))
        assert np.abs(guided - plain).max() > 0.05  # the product says something else here
        np.testing.assert_allclose(found["guided/row"].array, guided, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found["input_gradient/row"].array, plain, rtol=1e-4, atol=1e-6)
    output = art.manifest.output("guided/row")
    assert (output.title, output.sign) == ("Guided", "signed")


@pytest.mark.usefixtures("table")
def test_what_shares_its_product_shares_its_backward_pass():
    probes = [Guided(), pg.InputGradient(), Guided(wrt="first"), pg.Saliency(wrt="second")]
    groups = pg.instrument(rectified(), probes).plan.groups
    named = [[o.spec.name for o in group.outputs] for group in groups]
    assert named == [["guided/row", "guided/first"], ["input_gradient/row", "saliency/second"]]
    assert [group.table for group in groups] == [Guided().table(), None]


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("path", ["saved", "m.keras"])
def test_tensorflow_refuses_it_by_name(tmp_path, path):
    with pytest.raises(InstrumentError, match=r"pg.Guided has its own gradient of Relu.*\.onnx"):
        pg.compile(rectified(), Guided(), tmp_path / path, verify=False)
    assert not (tmp_path / path).exists()


@pytest.mark.usefixtures("table")
def test_calling_the_instrumented_model_refuses_it():
    probed = pg.instrument(rectified(), Guided())
    with pytest.raises(InstrumentError, match=r"pg.Guided has its own gradient of Relu"):
        probed(models.images((6,)))


@pytest.mark.usefixtures("table")
def test_the_verification_refuses_it_rather_than_certify_it(tmp_path):
    with pytest.raises(VerificationError, match=r"pg.Guided.*nothing to compare it with.*--no-ver"):
        pg.compile(rectified(), Guided(), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()
