"""Models whose samples are mixed explain no sample: refused, unless one comes at a time."""

import re
import warnings
from pathlib import Path

import keras
import numpy as np
import onnx.parser
import pytest
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.errors import VerificationError
from probegen.parity.samples_apart import _growth


def mixing(how: str) -> keras.Model:
    keras.utils.set_random_seed(2)  # which sample moves first is told
    x = keras.Input((5,), name="x")
    a, b = layers.Dense(4, name="a")(x), layers.Dense(4, name="b")(x)
    mixed = {
        "product": lambda: ops.sigmoid(
            ops.tensordot(a, b, 2) + layers.Dense(1)(x + ops.roll(x, 1, axis=0))
        ),
        "mean": lambda: layers.Dense(2)(a - ops.mean(a, axis=0, keepdims=True)),
    }[how]()
    return keras.Model(x, layers.Identity(name="scores")(mixed))


@pytest.mark.parametrize("how", ["product", "mean"])
def test_gradients_of_mixed_samples_are_refused(how: str, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"'scores' of sample 0 moves by .*dynamic_batch"):
        pg.compile(mixing(how), [pg.InputGradient()], tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_what_depends_on_where_a_sample_stands_is_refused(tmp_path: Path) -> None:
    """Among copies of itself such a sample is predicted as before, in its own place."""
    x = keras.Input((5,), name="x")
    model = keras.Model(x, layers.Dense(2, name="scores")(ops.tril(x)))
    with pytest.raises(VerificationError, match=r"where among them a sample stands.*dynamic_batch"):
        pg.compile(model, [pg.Saliency()], tmp_path / "m.onnx")


def test_hiding_features_of_mixed_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match="depends on the other samples"):
        pg.compile(mixing("mean"), [pg.Occlusion(window=1)], tmp_path / "saved")


@pytest.mark.parametrize("seed", [0, 14])  # of the second less than a hundredth goes elsewhere
def test_differences_that_go_to_another_sample_are_refused(tmp_path: Path, seed: int) -> None:
    """What is 80 below the largest of all samples is raised to that, which the reference is."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((5,), name="x")
    level = 10 * ops.log(ops.abs(x) + 1e-6)
    clipped = ops.maximum(level, ops.max(level) - 80)
    model = keras.Model(x, layers.Dense(3, name="scores")(clipped))
    given = np.random.default_rng(0).uniform(0.5, 2, (3, 5)).astype(np.float32)
    probe = pg.DeepLIFT(target=1, completeness=True)
    with pytest.raises(VerificationError, match=r"depends on the other samples.*static-batch"):
        pg.compile(model, [probe], tmp_path / "m.onnx", samples=given)
    pg.compile(model, [probe], tmp_path / "m.onnx", samples=given[:1], dynamic_batch=False)
    result = runtime.load(tmp_path / "m.onnx").run(given[:1])
    assert abs(result["completeness/deep_lift/x"].array) < 1e-3


def clipped(ending: str) -> keras.Model:
    """Returns scores of what lies at most 80 below the largest value of the whole batch."""
    keras.utils.set_random_seed(3)
    x = keras.Input((5,), name="x")
    level = 10 * ops.log(ops.abs(x) + 1e-2)
    raised = ops.maximum(level, ops.max(level) - 80)
    return keras.Model(x, layers.Dense(3, activation=ending, name="scores")(raised / 40))


def test_samples_beside_silence_and_noise_are_warned_of(tmp_path: Path) -> None:
    """What moves beside samples of another kind alone is said, and stands in the certificate."""
    with pytest.warns(UserWarning, match="beside samples of another kind.*dynamic_batch=False"):
        exported = pg.compile(clipped("linear"), [pg.InputGradient(target=1)], tmp_path / "m.onnx")
    assert exported.report is not None
    assert exported.report.passed
    joined, moves = exported.report.to_json()["notes"]
    assert joined.startswith("ReduceMax ")
    assert "depends on the other samples" in moves


@pytest.mark.parametrize("file", ["m.onnx", "saved"])
def test_what_joins_samples_is_in_the_certificate(file: str, tmp_path: Path) -> None:
    """No sample that is drawn is so near another as to show it; one that is nearly alike is."""
    keras.utils.set_random_seed(1)
    x = keras.Input((5,), name="x")
    below = layers.Lambda(lambda t: ops.minimum(t, 0.999 * ops.max(t, axis=0)), name="below")(x)
    model = keras.Model(x, layers.Dense(3, name="scores")(below))
    said = r"ReduceMax in layer 'below' works on all samples.*dynamic_batch=False"
    with pytest.warns(UserWarning, match=said):
        pg.compile(model, [pg.InputGradient(target=1)], tmp_path / file)
    certificate = runtime.load(tmp_path / file).manifest.certificate
    assert certificate is not None
    joined, near = certificate["notes"]
    assert re.match(said, joined)
    assert "beside samples that are nearly alike" in near


def test_gradients_that_go_to_another_sample_are_refused(tmp_path: Path) -> None:
    """Predictions of a saturated softmax stay as they are; the logits that are explained do not."""
    keras.utils.set_random_seed(3)
    x = keras.Input((5,), name="x")
    a = layers.Dense(4, name="a")(x)
    mixed = layers.Dense(3, name="logits")(ops.tanh(a - ops.mean(a, axis=0)))
    sure = layers.Activation("softmax", name="scores")(mixed + ops.array([0.0, 80.0, 0.0]))
    model = keras.Model(x, sure)
    with pytest.raises(VerificationError, match="'input_gradient/x' of sample 0 depends on the o"):
        pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_what_counts_its_samples_is_refused(tmp_path: Path) -> None:
    """Among as many copies of itself a sample is predicted as before."""
    x = keras.Input((5,), name="x")
    count = layers.Lambda(lambda t: t * ops.cast(ops.shape(t)[0], t.dtype) / 7)(x)
    model = keras.Model(x, layers.Dense(3, activation="tanh", name="scores")(count))
    with pytest.raises(
        VerificationError, match=r"'scores' of a sample differs .* copies of it and"
    ):
        pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx")


def test_gradients_that_count_samples_are_refused(tmp_path: Path) -> None:
    """Users by films, summed over the batch (`tensordot(a, b, 2)`), small beside what is added."""
    keras.utils.set_random_seed(0)
    ids = keras.Input((2,), dtype="int32", name="ids")
    user, film = (layers.Embedding(9, 4, name=n)(ids[:, i]) for i, n in enumerate("uf"))
    scores = layers.Identity(name="scores")(1 + ops.tensordot(user, film, 2) + user[:, :1])
    model = keras.Model(ids, scores)
    with (
        pytest.warns(UserWarning, match="MatMul .* works on all samples"),
        pytest.raises(VerificationError, match=r"alone and among 5 copies .*tensordot.*=False"),
    ):
        pg.compile(model, [pg.InputGradient()], tmp_path / "m.onnx")


def test_rounding_grows_with_no_number_of_samples() -> None:
    """What explains a sample that nothing matters in is rounding: it points anywhere, or is 0."""
    rounded = np.array([[-1.7e-10, -1.4e-10, 2.3e-10, -1.9e-10]])
    again = np.array([[-1.1e-10, -1.8e-10, 4.9e-10, 2.2e-10]])
    assert _growth(rounded, again) == _growth(rounded, 0 * rounded) == 0
    assert _growth(again, 4 * again + 1e-11) == pytest.approx(np.log(4), rel=0.05)


def test_what_only_some_ordinary_samples_show_is_refused(tmp_path: Path) -> None:
    """Where hard samples move, more ordinary ones are drawn than the certificate is of."""
    keras.utils.set_random_seed(3)
    x = keras.Input((5,), name="x")
    cut = ops.minimum(x, ops.quantile(x, 0.9))
    model = keras.Model(x, layers.Dense(3, name="scores")(ops.tanh(layers.Dense(4)(cut))))
    with pytest.raises(VerificationError, match=r"depends on the other samples.*dynamic_batch"):
        pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx")


def test_explanations_of_pictures_are_held_against_copies(tmp_path: Path) -> None:
    """What lies over the picture is looked at as it was before."""
    keras.utils.set_random_seed(3)
    x = keras.Input((9, 7, 3), name="x")
    mean = layers.GlobalAveragePooling2D()(x)
    ahead = ops.mean(mean, axis=0, keepdims=True)
    same = layers.Dense(4)(mean) + 0.5 * layers.Dense(4)(ahead - ops.stop_gradient(ahead))
    model = keras.Model(x, layers.Dense(3, name="scores")(ops.tanh(same)))
    image = pg.ImageInput(preset="tf", attributions="input")
    with pytest.raises(VerificationError, match="'input_gradient/x' of sample 0 depends on the o"):
        pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx", preprocess=image)


def test_one_sample_at_a_time_is_explained(tmp_path: Path) -> None:
    model = mixing("product")
    pg.compile(model, [pg.InputGradient()], tmp_path / "m.onnx", dynamic_batch=False)
    x = np.array([[0.5, -1.0, 2.0, 0.0, 0.25]], np.float32)
    result = runtime.load(tmp_path / "m.onnx").run(x)
    assert result["scores"].array == pytest.approx(np.asarray(model(x)), rel=1e-5)


def test_what_explains_no_mixed_score_is_written(tmp_path: Path) -> None:
    model = mixing("mean")
    own = layers.Dense(3, name="own")(model.inputs[0])
    both = keras.Model(model.inputs, [model.outputs[0], own])
    probes = [pg.Activations("a"), pg.InputGradient(output="own"), pg.InputGradient(of="a")]
    exported = pg.compile(both, probes, tmp_path / "m.onnx")
    assert exported.report is not None
    assert exported.report.passed


def test_an_onnx_file_that_mixes_samples(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 18]>
    m (float[batch, 3] x) => (float[batch, 3] y)
    { mean = ReduceMean <keepdims = 1> (x, axis)
      centred = Sub (x, mean)
      y = Tanh (centred) }"""
    file = onnx.parser.parse_model(text)
    axis = onnx.numpy_helper.from_array(np.array([0]), "axis")
    file.graph.initializer.append(axis)
    with pytest.raises(VerificationError, match="'y' of sample 0 moves by"):
        pg.compile(file, [pg.InputGradient()], tmp_path / "m.onnx")


def test_what_is_not_verified_warns_of_mixed_samples(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"'scores' of sample 0 moves by .*dynamic_batch"):
        pg.compile(mixing("mean"), [pg.InputGradient()], tmp_path / "m.onnx", verify=False)
    assert (tmp_path / "m.onnx").exists()


def test_points_of_one_sample_are_not_joined(tmp_path: Path) -> None:
    """Several points in one batch would be: one at a time is taken, and what joins is named."""
    given = np.random.default_rng(5).normal(size=(1, 5)).astype(np.float32)
    x = keras.Input((5,), name="x")
    mean = layers.Lambda(lambda t: t - 0.5 * ops.mean(t, axis=0, keepdims=True), name="mean")(x)
    model = keras.Model(x, layers.Dense(3, activation="tanh", name="scores")(mean))
    probes = [pg.KernelSHAP(target=1), pg.IntegratedGradients(target=1, steps=5, chunk=5)]
    with pytest.warns(UserWarning, match=r"ReduceMean in layer 'mean' works on all samples of a"):
        pg.compile(model, probes, tmp_path / "m.onnx", verify=False)
    pg.compile(model, probes, tmp_path / "one.onnx", verify=False, dynamic_batch=False)
    ours, right = (runtime.load(tmp_path / f"{name}.onnx").run(given) for name in ("m", "one"))
    for name in ("kernel_shap/x", "integrated_gradients/x"):
        np.testing.assert_allclose(ours[name].array, right[name].array, rtol=1e-4, atol=1e-6)


def test_an_instrumented_model_warns_of_mixed_samples_once() -> None:
    x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    probed = pg.instrument(mixing("mean"), [pg.InputGradient(target="input")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probed(x[:1])
    with pytest.warns(UserWarning, match="'scores' of sample 0 moves by .*one sample at a time"):
        probed(x, target=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probed(x)
        model = keras.Sequential([keras.Input((5,)), layers.Dense(3)])
        pg.instrument(model, [pg.InputGradient()])(x)
        pg.instrument(mixing("mean"), [pg.Activations("a")])(x)
