"""SavedModel artefacts in LiteRT: whole models, names, open sizes, and what is refused."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import litert, runtime
from probegen.errors import ExportError, InputError, VerificationError
from probegen.sources.preprocessed_by_numpy import prepared
from tests.command_line import status_of


def cnn():
    x = keras.Input((None, None, 3), name="image")
    y = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    y = layers.MaxPooling2D(3, 2, padding="same")(y)
    y = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=2)(y)
    y = layers.BatchNormalization()(layers.LeakyReLU()(y))
    y = layers.Conv2D(6, 3, padding="same", activation="gelu", name="maps")(y)
    y = layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, layers.Dense(5, activation="softmax", name="scores")(y))


def transformer():
    x = keras.Input((None,), dtype="int32", name="tokens")
    y = layers.Embedding(31, 12)(x)
    y = layers.Add()([y, layers.MultiHeadAttention(3, 5, name="attention")(y, y)])
    y = layers.Dense(9, activation="gelu")(layers.LayerNormalization()(y))
    return keras.Model(x, layers.Dense(4, name="scores")(layers.GlobalAveragePooling1D()(y)))


SUBJECTS = {
    "cnn": (cnn, [pg.Saliency(target="input"), pg.GradCAM("maps", target="input")]),
    "transformer": (transformer, [pg.Attention(), pg.InputGradient()]),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("litert")
    for name, (build, probes) in SUBJECTS.items():
        keras.utils.set_random_seed(2)
        pg.compile(build(), probes, folder / name, verify=False)
    return folder


@pytest.mark.parametrize("name", SUBJECTS)
def test_explanations(saved, tmp_path, name):
    """Two batch sizes and lengths, in the interpreter, against TensorFlow's own gradients."""
    off = litert.to_litert(saved / name, tmp_path / "m.tflite")
    assert max(off.values()) < 1e-4
    art = runtime.load(saved / name)
    assert set(off) == {o.name for o in art.outputs}
    interpreter = tf.lite.Interpreter(str(tmp_path / "m.tflite"))
    runner = interpreter.get_signature_runner("explain")
    for seed, (batch, size) in enumerate([(2, 17), (1, 14)]):
        rng = np.random.default_rng(seed)
        if name == "cnn":
            x = rng.normal(size=(batch, size, size - 3, 3)).astype(np.float32)
            x[0, :4] = np.round(x[0, :4])
            target = np.array([3, -1], np.int32)[:batch]
            expected, found = art.run(x, target=target), runner(image=x, target=target)
        else:
            x = rng.integers(0, 31, (batch, size)).astype(np.int32)
            expected, found = art.run(x), runner(tokens=x)
        for output, record in expected.items():
            scale = np.abs(record.array).max()
            np.testing.assert_allclose(found[output] / scale, record.array / scale, atol=1e-5)


def test_predictions_from_the_command_line(saved, tmp_path, capsys):
    out = tmp_path / "m.tflite"
    options = ["-o", out, "--signature", "serving_default", "--json"]
    assert status_of("litert", saved / "cnn", *options) == 0
    off = json.loads(capsys.readouterr().out)["distances"]
    assert list(off) == ["scores"]
    assert off["scores"] < 1e-6
    assert tf.lite.Interpreter(str(out)).get_signature_list().keys() == {"serving_default"}


def recurrent():
    x = keras.Input((None, 2), name="x")
    return keras.Model(x, layers.Dense(3, name="y")(layers.GRU(4)(layers.Masking()(x))))


def test_recurrent_layers_of_a_fixed_length(tmp_path):
    """Any batch size; against the untouched model and a tape, padding among the steps."""
    keras.utils.set_random_seed(3)
    model = recurrent()
    # The second gradient goes back through lists that the first alone has filled.
    probes = [pg.InputGradient(target=1), pg.InputGradient(target=2, name="other")]
    pg.compile(model, [*probes, pg.States()], tmp_path / "saved", verify=False)
    out = tmp_path / "m.tflite"
    for signature in ("explain", "serving_default"):
        with pytest.raises(ExportError, match=r"loop over an open size.*--size time=20"):
            pg.to_litert(tmp_path / "saved", out, signature)
    with pytest.raises(InputError, match=r"no open axis of that name; open are: time"):
        pg.to_litert(tmp_path / "saved", out, sizes={"tim": 3})
    assert not out.exists()
    off = pg.to_litert(tmp_path / "saved", out, sizes={"time": 3})
    assert max(off.values()) < 1e-4
    runner = tf.lite.Interpreter(str(out)).get_signature_runner("explain")
    for batch in (3, 1):
        x = np.random.default_rng(batch).normal(size=(batch, 3, 2)).astype(np.float32)
        x[0, 2:] = 0
        point = tf.constant(x)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(point)
            scores = model(point)
            each = [tf.reduce_sum(scores[:, k]) for k in (1, 2)]
        found = runner(x=x)
        np.testing.assert_allclose(found["y"], scores, atol=1e-6)
        for name, score in zip(("input_gradient/x", "other"), each, strict=True):
            np.testing.assert_allclose(found[name], tape.gradient(score, point), atol=1e-6)


def test_loops_over_points_stay_loops(tmp_path):
    """Integrated gradients of a CNN of open size: the sum of slopes along the path, by a tape."""
    keras.utils.set_random_seed(2)
    model = cnn()
    pg.compile(model, pg.IntegratedGradients(steps=5, target=2), tmp_path / "ig", verify=False)
    off = pg.to_litert(tmp_path / "ig", tmp_path / "m.tflite")
    assert max(off.values()) < 1e-4
    runner = tf.lite.Interpreter(str(tmp_path / "m.tflite")).get_signature_runner("explain")
    logits = keras.Model(model.input, model.layers[-1].input)
    head = model.layers[-1]
    x = np.random.default_rng(5).normal(size=(2, 15, 18, 3)).astype(np.float32)
    total = np.zeros_like(x)
    for k in range(5):
        point = tf.constant(x * (k + 0.5) / 5)
        with tf.GradientTape() as tape:
            tape.watch(point)
            score = tf.reduce_sum((logits(point) @ head.kernel + head.bias)[:, 2])
        total += tape.gradient(score, point).numpy() / 5
    expected = x * total
    found = runner(image=x)["integrated_gradients/image"]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_operators_that_are_lacking_are_named(tmp_path):
    x = keras.Input((8, 9, 3), name="image")
    model = keras.Model(x, layers.Dense(2, name="y")(layers.GlobalAveragePooling2D()(x)))
    image = pg.ImageInput(resize="bicubic")
    pg.compile(model, pg.Saliency(), tmp_path / "saved", preprocess=image, verify=False)
    with pytest.raises(ExportError, match=r"operators for it: ResizeBicubic. Preprocess with"):
        pg.to_litert(tmp_path / "saved", tmp_path / "m.tflite")
    assert not (tmp_path / "m.tflite").exists()


def test_pictures_as_they_arrive(tmp_path):
    """Bytes of any size go in; against numpy's preprocessing and the untouched model."""
    keras.utils.set_random_seed(2)
    x = keras.Input((8, 9, 3), name="image")
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu")(x))
    model = keras.Model(x, layers.Dense(2, name="y")(y))
    image = pg.ImageInput(scale=1 / 255, fit="crop")
    pg.compile(model, pg.Saliency(), tmp_path / "saved", preprocess=image, verify=False)
    pg.to_litert(tmp_path / "saved", tmp_path / "m.tflite")
    runner = tf.lite.Interpreter(str(tmp_path / "m.tflite")).get_signature_runner("explain")
    photos = np.random.default_rng(0).integers(0, 256, (2, 21, 40, 3), dtype=np.uint8)
    spec = runtime.load(tmp_path / "saved").inputs[0]
    np.testing.assert_allclose(runner(image=photos)["y"], model(prepared(photos, spec)), atol=1e-5)


def test_what_is_refused(saved, tmp_path):
    out = tmp_path / "m.tflite"
    with pytest.raises(ExportError, match="has no signature 'explains'; it has explain, serving"):
        litert.to_litert(saved / "cnn", out, "explains")
    (tmp_path / "m.onnx").write_text("")
    with pytest.raises(ExportError, match="is a file"):
        litert.to_litert(tmp_path / "m.onnx", out)
    for wrong in ("m.bin", "m"):
        with pytest.raises(ExportError, match=rf"files end in .tflite, and '{wrong}' does not"):
            litert.to_litert(saved / "cnn", tmp_path / wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"]
    text = keras.Input((), dtype="string", name="text")
    ids = keras.layers.StringLookup(vocabulary=["good"])(text)
    y = keras.layers.Embedding(2, 3, name="y")(ids)
    pg.compile(keras.Model(text, y), [], tmp_path / "words", verify=False)
    with pytest.raises(ExportError, match=r"takes text \('text'\), and LiteRT has no operators"):
        litert.to_litert(tmp_path / "words", out, "serving_default")


@pytest.fixture(scope="module")
def converted_once():
    """Converts each artefact once: what is wrong below is wrong behind that."""
    converted, made = litert._converted, {}

    def once(given, *more):
        if given not in made:
            made[given] = converted(given, *more)
        return made[given]

    return once


@pytest.mark.parametrize("batch", [2, 4])
@pytest.mark.parametrize("output", ["scores", "saliency/image"])
def test_one_wrong_sample_is_found(saved, tmp_path, monkeypatch, converted_once, batch, output):
    """In one call of several: by the norm of all of them together it would be small."""
    monkeypatch.setattr(litert, "_converted", converted_once)
    runner_of, out = litert._runner, tmp_path / "m.tflite"

    def spoilt(content, signature):
        runner = runner_of(content, signature)

        def run(**given):
            found = {name: array.copy() for name, array in runner(**given).items()}
            if len(found["scores"]) == batch:
                found[output][0] *= 1.01
            return found

        return run

    monkeypatch.setattr(litert, "_runner", spoilt)
    with pytest.raises(
        VerificationError, match=rf"'{output}' .in sample 0 of call . .batch {batch}"
    ):
        litert.to_litert(saved / "cnn", out)
    assert not out.exists()
