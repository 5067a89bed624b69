"""Methods that take gradients at several points, in artefacts: twins on the untouched models.

Integrated gradients, SmoothGrad and expected gradients, from Keras models and from ONNX files, in
every kind of artefact and in every runtime, against plain loops over gradients.
"""

import dataclasses

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

import probegen as pg
from probegen import runtime
from probegen.errors import SpecError
from probegen.methods.noise import halves, keys_of_draws, normal_noise
from probegen.methods.numpy_operations import NumpyOperations
from probegen.methods.quadrature import RULES
from probegen.methods.samples import Place
from probegen.parity.report import DIFFERENCES
from tests.methods.test_baselines import blurred_line

RNG = np.random.default_rng(11)
OPS = NumpyOperations()
SIZES = (5, 4, 2)
BASELINE = RNG.normal(size=SIZES)
BACKGROUND = RNG.normal(size=(3, *SIZES)).astype(np.float32)
PLACE = Place("x", ("batch", "height", "width", "channel"), ("x",))

PROBES = {
    "number": pg.IntegratedGradients(4, -0.5),
    "array": pg.IntegratedGradients(3, BASELINE, "trapezoid"),
    "a value a channel": pg.IntegratedGradients(2, [[[0.5, -1.0]]]),
    "several": pg.IntegratedGradients(2, BACKGROUND[:2], "gauss_legendre"),
    "blur": pg.IntegratedGradients(2, "blur:1.5"),
    "smooth": pg.SmoothGrad(4, 0.2),
    "smooth square": pg.SmoothGrad(3, 0.3, seed=4, statistic="square"),
    "smooth variance": pg.SmoothGrad(3, 0.3, statistic="variance"),
    "smooth saliency": pg.SmoothGrad(3, 0.1, of_method="saliency"),
    "smooth paths": pg.SmoothGrad(
        2, 0.1, statistic="square", of_method=pg.IntegratedGradients(2, BACKGROUND[:2])
    ),
    "expected": pg.ExpectedGradients(BACKGROUND, 5, seed=3),
}
PROBES = {n: dataclasses.replace(p, name=n, target=1) for n, p in PROBES.items()}


# -- twins, over any function that gives gradients -----------------------------------------------


def path(gradient, x, baseline, steps, rule="midpoint"):
    total = np.zeros_like(x)
    for fraction, weight in zip(*RULES[rule](steps), strict=True):
        total += weight * gradient(baseline + fraction * (x - baseline))
    return (x - baseline) * total


def paths(gradient, x, baselines, steps, rule="midpoint"):
    return np.mean([path(gradient, x, b, steps, rule) for b in baselines], axis=0)


def copies(x, count, share, seed=0):
    spread = np.ptp(x.reshape(len(x), -1), axis=1).reshape(-1, 1, 1, 1)
    numbers = halves(OPS, x, (1, 2, 3))
    for draw in range(count):
        noise = normal_noise(OPS, numbers, [k[draw] for k in keys_of_draws(seed, count)], 0)
        yield x + share * spread * noise


def expected(gradient, x, samples):
    found = [
        (x - BACKGROUND[row]) * gradient(BACKGROUND[row] + f * (x - BACKGROUND[row]))
        for row, f in zip(samples.rows, samples.fractions, strict=True)
    ]
    return np.mean(found, axis=0)


def blur(x):
    return np.apply_along_axis(blurred_line, 2, np.apply_along_axis(blurred_line, 1, x, 1.5), 1.5)


def twin(name, gradient, x):
    x = x.astype(np.float64)
    drawn = PROBES["expected"].gradients_at().of([PLACE])
    return {
        "number": lambda: path(gradient, x, -0.5, 4),
        "array": lambda: path(gradient, x, BASELINE, 3, "trapezoid"),
        "a value a channel": lambda: path(gradient, x, np.array([0.5, -1.0]), 2),
        "several": lambda: paths(gradient, x, BACKGROUND[:2], 2, "gauss_legendre"),
        "blur": lambda: path(gradient, x, blur(x), 2),
        "smooth": lambda: np.mean([gradient(c) for c in copies(x, 4, 0.2)], 0),
        "smooth square": lambda: np.mean([gradient(c) ** 2 for c in copies(x, 3, 0.3, 4)], 0),
        "smooth variance": lambda: np.var([gradient(c) for c in copies(x, 3, 0.3)], 0),
        "smooth saliency": lambda: np.mean(
            [np.abs(gradient(c)).max(3) for c in copies(x, 3, 0.1)], 0
        ),
        "smooth paths": lambda: np.mean(
            [paths(gradient, c, BACKGROUND[:2], 2) ** 2 for c in copies(x, 2, 0.1)], 0
        ),
        "expected": lambda: expected(gradient, x, drawn),
    }[name]()


def data(batch):
    x = np.random.default_rng(batch).normal(size=(batch, *SIZES)).astype(np.float32)
    x[0, 0], x[-1] = 0, -x[-1]
    return x


# -- a Keras model -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keras_model():
    keras.utils.set_random_seed(3)
    x = keras.Input(SIZES, name="x")
    y = keras.layers.Conv2D(3, 3, padding="same", activation="tanh")(x)
    y = keras.layers.GlobalAveragePooling2D()(y)
    y = keras.layers.Dense(6, activation="sigmoid", name="hidden")(y)
    return keras.Model(x, keras.layers.Dense(3, activation="softmax")(y))


@pytest.fixture(scope="module")
def tape_gradient(keras_model):
    """The gradient of the second logit, by TensorFlow's tape on the model as it is."""
    last = keras_model.layers[-1]
    before = keras.Model(keras_model.input, last.input)

    def gradient(x):
        point = tf.constant(x, tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(point)
            logit = (before(point) @ last.kernel + last.bias)[:, 1]
        return tape.gradient(logit, point).numpy().astype(np.float64)

    return gradient


@pytest.fixture(scope="module")
def keras_artefact(keras_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("keras") / "m.onnx"
    return pg.compile(keras_model, list(PROBES.values()), path)


@pytest.mark.parametrize("batch", [2, 3])
def test_from_a_keras_model(keras_artefact, tape_gradient, batch):
    x = data(batch)
    found = runtime.load(keras_artefact.path).run(x)
    for name in PROBES:
        wanted = twin(name, tape_gradient, x)
        assert found[name].array.shape == wanted.shape
        np.testing.assert_allclose(found[name].array, wanted, atol=2e-5 * np.abs(wanted).max())
    assert keras_artefact.report["smooth"].passed


def test_a_saved_model_and_an_instrumented_one(keras_model, tape_gradient, tmp_path):
    names = ("several", "smooth paths", "expected", "blur")
    x = data(3)
    probes = [PROBES[n] for n in names]
    probed = pg.instrument(keras_model, probes)
    written = pg.export(probed, tmp_path / "saved")
    probed.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    found = runtime.load(written.path).run(x)
    for name in names:
        wanted = twin(name, tape_gradient, x)
        for got in (found[name].array, probed(x)[name].numpy(), loaded(x)[name].numpy()):
            np.testing.assert_allclose(got, wanted, atol=2e-5 * np.abs(wanted).max())
    report = pg.verify(tmp_path / "saved", keras_model)
    for name in names:
        assert DIFFERENCES in report[name].witness, name


def test_openvino_makes_the_same_noise(keras_artefact):
    pytest.importorskip("openvino")
    x = data(2)
    ours = runtime.load(keras_artefact.path).run(x)
    theirs = runtime.load(keras_artefact.path, engine="openvino").run(x)
    for name in PROBES:
        largest = np.abs(ours[name].array).max()
        np.testing.assert_allclose(theirs[name].array, ours[name].array, atol=2e-4 * largest)


def test_the_same_answer_each_time_whatever_else_is_in_the_batch(keras_artefact):
    artefact = runtime.load(keras_artefact.path)
    x = data(3)
    once, again, turned = artefact.run(x), artefact.run(x), artefact.run(x[::-1].copy())
    for name in PROBES:
        np.testing.assert_array_equal(once[name].array, again[name].array)
        np.testing.assert_allclose(turned[name].array[::-1], once[name].array, atol=1e-6)


# -- an ONNX file --------------------------------------------------------------------------------

W = RNG.normal(size=(40, 6)) / 4
V = RNG.normal(size=(6, 3))
TEXT = """<ir_version: 9, opset_import: ["" : 17]>
  g (float[batch, 5, 4, 2] x) => (float[batch, 3] y)
  <float[40, 6] w = {%s}, float[6, 3] v = {%s}, int64[2] flat = {-1, 40}>
  {
    row = Reshape(x, flat)
    before = MatMul(row, w)
    hidden = Tanh(before)
    scores = MatMul(hidden, v)
    y = Softmax <axis = 1> (scores)
  }"""


def numbers(array):
    return ", ".join(f"{v:.7f}" for v in array.reshape(-1))


def numpy_gradient(x):
    """The gradient of the second logit, by hand."""
    hidden = np.tanh(x.reshape(len(x), -1) @ W)
    return ((V[:, 1] * (1 - hidden**2)) @ W.T).reshape(x.shape)


@pytest.fixture(scope="module")
def onnx_artefact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    onnx.save(onnx.parser.parse_model(TEXT % (numbers(W), numbers(V))), folder / "source.onnx")
    axes = {"x": "batch,height,width,channel"}
    probes = list(PROBES.values())
    return pg.compile(folder / "source.onnx", probes, folder / "m.onnx", inputs=axes)


@pytest.mark.parametrize("batch", [1, 4])
def test_from_an_onnx_file(onnx_artefact, batch):
    x = data(batch)
    found = runtime.load(onnx_artefact.path).run(x)
    for name in PROBES:
        wanted = twin(name, numpy_gradient, x)
        np.testing.assert_allclose(found[name].array, wanted, atol=2e-5 * np.abs(wanted).max())


def test_differences_of_the_scores_confirm_them(onnx_artefact):
    for name in PROBES:
        assert DIFFERENCES in onnx_artefact.report[name].witness, name


# -- arrays in artefacts -------------------------------------------------------------------------

LARGE = RNG.normal(size=(8, 40, 20, 1)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".onnx", ""])
def test_an_array_is_in_the_artefact_once_and_found_again(suffix, tmp_path):
    keras.utils.set_random_seed(0)
    x = keras.Input(LARGE.shape[1:], name="x")
    y = keras.layers.Dense(2)(keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(2, 5)(x)))
    model = keras.Model(x, y)
    sizes = {}
    for rows in (1, 8):
        path = tmp_path / f"m{rows}{suffix}"
        probe = pg.ExpectedGradients(LARGE[:rows], 3)
        written = pg.compile(model, [probe], path, verify=False)
        files = [path] if suffix else [f for f in path.rglob("*") if f.is_file()]
        sizes[rows] = sum(f.stat().st_size for f in files)
        entry = written.manifest.probes[0]["background"]["array"]
        assert "data" not in entry
        assert pg.verify(path, model)["expected_gradients/x"].passed
    assert sizes[8] - sizes[1] == pytest.approx(LARGE[1:].nbytes, abs=300)


def test_a_file_does_not_grow_with_the_number_of_points(keras_model, tmp_path):
    sizes = {}
    for count in (4, 64):
        probes = [
            pg.IntegratedGradients(count, BACKGROUND),
            pg.SmoothGrad(count, 0.1),
            pg.ExpectedGradients(BACKGROUND, count),
        ]
        path = tmp_path / f"{count}.onnx"
        pg.compile(keras_model, probes, path, verify=False)
        sizes[count] = path.stat().st_size
    # A point has a few numbers of its own: where it lies, or the keys of its noise.
    assert sizes[64] - sizes[4] < 60 * 100


def test_refusals_come_before_anything_is_written(keras_model, tmp_path):
    for probe, says in (
        (pg.IntegratedGradients(4, np.ones((4, 5, 2))), r"shape \(4, 5, 2\) for 'x'.*\(5, 4, 2\)"),
        (pg.ExpectedGradients(np.ones(SIZES)), r"Expected \(n, 5, 4, 2\)"),
        (pg.IntegratedGradients(4, "blur", wrt="hidden"), "blurs over positions"),
        (pg.SmoothGrad(2, 0.1, of_method=pg.IntegratedGradients(2, [1.0, 2.0])), r"shape \(2,\)"),
    ):
        with pytest.raises(pg.ProbegenError, match=says):
            pg.compile(keras_model, [probe], tmp_path / "m.onnx")
        assert not list(tmp_path.iterdir())


# -- points folded into the batch ----------------------------------------------------------------


@pytest.mark.parametrize("name", PROBES)
def test_the_result_does_not_depend_on_how_many_points_run_at_once(name, tmp_path):
    onnx.save(onnx.parser.parse_model(TEXT % (numbers(W), numbers(V))), tmp_path / "source.onnx")
    x, found, copies_of_nodes = data(3), {}, {}
    for chunk in (1, 2, 3, None):
        path = tmp_path / f"{chunk}.onnx"
        probe = dataclasses.replace(PROBES[name], chunk=chunk)
        axes = {"x": "batch,height,width,channel"}
        pg.compile(tmp_path / "source.onnx", [probe], path, inputs=axes, verify=False)
        found[chunk] = runtime.load(path).run(x)[name].array
        model = onnx.load(path)
        copies_of_nodes[chunk] = "Tile" in {n.op_type for n in all_nodes(model.graph)}
    assert copies_of_nodes == {1: False, 2: True, 3: True, None: True}
    for chunk in (2, 3, None):
        np.testing.assert_allclose(found[chunk], found[1], rtol=1e-4, atol=1e-6)


def all_nodes(graph):
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_nodes(attribute.g)


MIXED = """<ir_version: 9, opset_import: ["" : 17]>
  g (float[time, batch, 3] x, float[batch, 2] side) => (float[batch, 4] y)
  <float[3, 4] w = {%s}, float[2, 4] u = {%s}, float zero = {0}>
  {
    there = Equal(x, zero)
    held = Where(there, zero, x)
    product = MatMul(held, w)
    bent = Tanh(product)
    mean = ReduceMean <axes = [0], keepdims = 0> (bent)
    more = MatMul(side, u)
    other = Sigmoid(more)
    y = Mul(mean, other)
  }"""


@pytest.mark.parametrize("target", [1, "top:2", "input"])
def test_the_batch_within_masks_and_what_does_not_move(target, tmp_path):
    """The batch is the second axis; what hangs on the other input is computed for all points."""
    rng = np.random.default_rng(0)
    w, u = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    onnx.save(onnx.parser.parse_model(MIXED % (numbers(w), numbers(u))), tmp_path / "source.onnx")
    x = rng.normal(size=(5, 2, 3)).astype(np.float32)
    x[3:, 0] = 0
    feed = {"x": x, "side": rng.normal(size=(2, 2)).astype(np.float32)}
    axes = {"x": "time,batch,feature", "side": "batch,feature"}
    probes = [
        pg.IntegratedGradients(5, 1.0, chunk=3, wrt="x", target=target, name="one"),
        pg.IntegratedGradients(5, {"x": 1.0, "side": [0.5, 1.0]}, target=target, chunk=2),
        pg.SmoothGrad(4, 0.2, wrt="x", target=target),
    ]
    options = {"inputs": axes, "verify": False}  # the reference makes masks anew at each point
    exported = pg.compile(tmp_path / "source.onnx", probes, tmp_path / "m.onnx", **options)
    plain = [dataclasses.replace(p, chunk=1) for p in probes]
    pg.compile(tmp_path / "source.onnx", plain, tmp_path / "1.onnx", **options)
    asked = {"target": np.array([2, -1])} if target == "input" else {}
    many = runtime.load(tmp_path / "m.onnx").run(feed, **asked)
    one = runtime.load(tmp_path / "1.onnx").run(feed, **asked)
    for output in exported.manifest.explanations:
        np.testing.assert_allclose(many[output.name].array, one[output.name].array, atol=1e-6)
    if target == 1:
        there, gate = x != 0, 1 / (1 + np.exp(-feed["side"] @ u[:, 1]))
        total = 0.0
        for k in range(5):
            point = (1 + (k + 0.5) / 5 * (x - 1)) * there
            bent = np.tanh(point @ w[:, 1])
            total = total + there * ((1 - bent**2) * gate)[..., None] * w[:, 1] / 5
        np.testing.assert_allclose(many["one"].array, (x - 1) * total / 5, atol=1e-6)


def test_a_fixed_batch_runs_one_point_at_a_time(keras_model, tmp_path):
    probe = PROBES["several"]
    pg.compile(keras_model, [probe], tmp_path / "m.onnx", dynamic_batch=False)
    x = data(1)
    found = runtime.load(tmp_path / "m.onnx").run(x)["several"].array
    pg.compile(keras_model, [probe], tmp_path / "open.onnx", verify=False)
    wanted = runtime.load(tmp_path / "open.onnx").run(x)["several"].array
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("chunk", [0, -1, 2.0, True])
def test_chunk_is_a_number_of_points(chunk):
    for make in (
        lambda: pg.IntegratedGradients(chunk=chunk),
        lambda: pg.SmoothGrad(chunk=chunk),
        lambda: pg.ExpectedGradients([[1.0]], chunk=chunk),
    ):
        with pytest.raises(SpecError, match="chunk= takes a whole number of at least 1"):
            make()
