"""One number a token: against the tape of the untouched model, and by numpy written out."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import methods, runtime
from probegen.errors import InstrumentError, SpecError
from probegen.methods.by_scores import ByScores
from probegen.methods.numpy_operations import NumpyOperations
from probegen.methods.tokens import vector_axis

OPS = NumpyOperations()
TOKENS = ("batch", "time", "embedding")
SIZES = (None, None, 5)


# -- what is made of vectors -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "at"),
    [
        (TOKENS, 2),
        (("batch", "time", "axis_2", "embedding"), 3),
        (("batch", "embedding"), 1),
        (("batch", "id", "embedding"), 2),
        (("batch", "time", "unit"), 2),
        (("batch", "feature", "time"), 1),
        (("batch", "feature"), None),
        (("batch", "time"), None),
        (("batch", "height", "width", "channel"), None),
        (("batch", "time", "height", "channel"), None),
    ],
)
def test_tokens_are_told_by_the_names_of_axes(axes, at):
    assert vector_axis(axes) == at


def test_a_slope_becomes_a_share_by_the_embedding_and_a_share_is_summed_up():
    rng = np.random.default_rng(0)
    gradient, value = rng.normal(size=(2, 3, 4, 5))[:2, 0], rng.normal(size=(2, 4, 5))
    share = np.einsum("bte,bte->bt", gradient, value)
    length = np.sqrt(np.einsum("bte,bte->bt", gradient, gradient))
    for method in (pg.InputGradient, pg.Saliency, pg.GradientXInput, pg.GuidedBackprop):
        found = method(per_token="dot").attribution(OPS, gradient, value, TOKENS)
        np.testing.assert_allclose(found, share)
    for method in (pg.InputGradient, pg.Saliency, pg.GuidedBackprop, pg.LRP):
        found = method(per_token="norm").attribution(OPS, gradient, value, TOKENS)
        np.testing.assert_allclose(found, length)
    found = pg.LRP(per_token="dot").attribution(OPS, gradient, value, TOKENS)
    np.testing.assert_allclose(found, gradient.sum(-1))


def test_what_holds_no_tokens_stays_as_it_is():
    probe, axes = pg.Saliency(per_token="dot"), ("batch", "height", "width", "channel")
    gradient = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    assert probe.result(axes, (None, 3, 4, 5)) == pg.Saliency().result(axes, (None, 3, 4, 5))
    found = probe.attribution(OPS, gradient, gradient, axes)
    np.testing.assert_array_equal(found, np.abs(gradient).max(3))
    assert probe.described(axes) == pg.Saliency().described(axes)


def test_the_manifest_tells_shares_from_lengths():
    slopes, shares = pg.Saliency(per_token="norm"), pg.IntegratedGradients(3, per_token="dot")
    assert shares.result(TOKENS, SIZES) == slopes.result(TOKENS, SIZES) == (TOKENS[:2], SIZES[:2])
    told = slopes.described(TOKENS)
    assert (told["sign"], told["unit"]) == ("never negative", "score per unit of input")
    assert told["detail"] == {"per_token": "norm"}
    told = pg.Saliency(per_token="dot").described(TOKENS)
    assert (told["sign"], told["unit"]) == ("signed", "score")
    assert "max" not in told["method"]
    told = shares.described(TOKENS)
    assert told["detail"]["sums_to_score"]
    assert told["detail"]["per_token"] == "dot"
    told = pg.IntegratedGradients(3, per_token="norm").described(TOKENS)
    assert "sums_to_score" not in told["detail"]


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: pg.Saliency(per_token="sum"), "'norm', 'dot'"),
        (
            lambda: pg.IntegratedGradients(per_token="norm", completeness=True),
            "use per_token='dot'",
        ),
        (
            lambda: pg.SmoothGrad(of_method="saliency", per_token="dot"),
            "one number a token already",
        ),
        (lambda: pg.SmoothGrad(statistic="square", per_token="dot"), "no sign"),
    ],
)
def test_what_makes_no_sense_is_refused(make, says):
    with pytest.raises(SpecError, match=says):
        make()


@pytest.mark.parametrize("method", [m for m in methods.METHODS if issubclass(m, ByScores)])
def test_methods_that_hide_tokens_give_one_number_each_by_themselves(method):
    if "per_token" in method.__dataclass_fields__:
        given = {"RISE": {"masks": 9}, "FeatureAblation": {"groups": "grid:2"}}
        with pytest.raises(SpecError, match="one number for each"):
            method(**given.get(method.__name__, {}), per_token="dot")


def test_a_model_without_tokens_is_refused(tmp_path):
    image = keras.Input((5, 4, 3), name="image")
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(image)))
    with pytest.raises(InstrumentError, match="'image' has the axes batch, height, width, channel"):
        pg.compile(model, pg.Saliency(per_token="dot"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_counted_tokens_are_refused(tmp_path):
    ids = keras.Input((7,), dtype="int32", name="ids")
    counts = layers.CategoryEncoding(11, output_mode="count")(ids)
    model = keras.Model(ids, layers.Dense(2)(counts))
    with pytest.raises(InstrumentError, match="counted"):
        pg.compile(model, pg.Saliency(per_token="dot"), tmp_path / "m.onnx")


# -- artefacts ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    """Returns a masked classifier of any length, its artefact, and where it lies."""
    keras.utils.set_random_seed(3)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    wide = keras.initializers.RandomNormal(stddev=1.0)
    x = layers.Embedding(19, 6, wide, mask_zero=True, name="embedding")(tokens)
    x = layers.LSTM(5, name="lstm")(x)
    model = keras.Model(tokens, layers.Dense(3, activation="softmax", name="y")(x))
    probes = [
        pg.InputGradient(per_token="dot"),
        pg.Saliency(per_token="norm"),
        pg.IntegratedGradients(4, per_token="dot", completeness=True),
        pg.SmoothGrad(4, per_token="norm"),
        pg.SmoothGrad(4, of_method=pg.InputGradient(per_token="norm"), name="mean of norms"),
        pg.InputGradient(target="all", per_token="dot", name="all"),
    ]
    path = tmp_path_factory.mktemp("tokens") / "m.onnx"
    pg.compile(model, probes, path)
    return model, runtime.load(path)


@pytest.mark.parametrize(("rows", "length"), [(3, 7), (5, 4)])
def test_every_length_agrees_with_the_tape_of_the_untouched_model(recurrent, rows, length):
    model, artefact = recurrent
    ids = np.random.default_rng(rows).integers(1, 19, (rows, length))
    ids[0, -2:] = 0
    ids[-1] = 0
    found = artefact.run(ids)
    lookup, lstm, dense = (model.get_layer(name) for name in ("embedding", "lstm", "y"))
    with tf.GradientTape() as tape:
        vectors = lookup(ids)
        tape.watch(vectors)
        scores = lstm(vectors, mask=tf.constant(ids != 0)) @ dense.kernel + dense.bias
    slopes = tf.transpose(tape.batch_jacobian(scores, vectors), [1, 0, 2, 3]).numpy()
    best = slopes[scores.numpy().argmax(1), range(rows)]
    shares, vectors = np.einsum("cbte,bte->bct", slopes, vectors), vectors.numpy()

    def close(name, expected):
        np.testing.assert_allclose(found[name].array, expected, rtol=1e-4, atol=1e-6)

    close("input_gradient/tokens", np.einsum("bte,bte->bt", best, vectors))
    close("saliency/tokens", np.linalg.norm(best, axis=2))
    close("all", shares)
    assert found["all"].axes == ("batch", "class", "time")
    assert found["smooth_grad/tokens"].shape == found["mean of norms"].shape == (rows, length)
    assert (found["mean of norms"].array >= found["smooth_grad/tokens"].array - 1e-6).all()
    missing = found["completeness/integrated_gradients/tokens"].array
    assert np.abs(missing).max() < 0.1 * np.abs(scores).max()
    assert np.abs(found["input_gradient/tokens"].array[0, :-2]).min() > 0


def attending():
    """Returns a small transformer without loops: what has rules of its own can follow it."""
    keras.utils.set_random_seed(1)
    tokens = keras.Input((7,), dtype="int32", name="tokens")
    wide = keras.initializers.RandomNormal(stddev=3.0)  # else all attention is the same
    x = layers.Embedding(17, 6, wide)(tokens)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(3, 2)(x, x))
    return keras.Model(tokens, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


def test_all_methods_of_a_transformer_are_verified(tmp_path):
    chosen = [pg.GuidedBackprop, pg.DeepLIFT, pg.LRP]
    probes = [m(per_token=w, name=m.kind + w) for m in chosen for w in ("dot", "norm")]
    report = pg.compile(attending(), probes, tmp_path / "m.onnx")
    assert report.report.passed
    assert {o.axes for o in runtime.load(tmp_path / "m.onnx").manifest.explanations} == {
        ("batch", "time")
    }


# -- padding -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Returns a model of tokens and a series whose convolution reads padding, and its artefact."""
    keras.utils.set_random_seed(5)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    series = keras.Input((None, 3), name="series")
    wide = keras.initializers.RandomNormal(stddev=1.0)
    x = layers.Embedding(19, 6, wide, mask_zero=True, name="embedding")(tokens)
    x = layers.Conv1D(5, 3, padding="same", activation="tanh", name="conv")(x)
    x = layers.GlobalMaxPooling1D()(x)
    s = layers.LSTM(4, name="lstm")(layers.Masking(-1.0)(series))
    model = keras.Model([tokens, series], layers.Dense(3, name="y")(layers.Concatenate()([x, s])))
    path = tmp_path_factory.mktemp("mixed") / "m.onnx"
    probes = [
        pg.InputGradient(per_token="dot", target="all"),
        pg.Saliency(per_token="norm"),
        pg.DeepLIFT(per_token="dot", wrt="tokens"),
    ]
    pg.compile(model, probes, path)
    return model, runtime.load(path)


@pytest.mark.parametrize(("rows", "length"), [(3, 6), (2, 4)])
def test_padding_is_zero_whatever_the_model_makes_of_it(mixed, rows, length):
    model, artefact = mixed
    rng = np.random.default_rng(rows)
    ids = rng.integers(1, 19, (rows, length))
    ids[0, -2:] = 0
    ids[-1] = 0
    series = rng.normal(size=(rows, length, 3)).astype(np.float32)
    series[0, -1] = -1.0
    series[0, 0, 1] = -1.0  # one feature alone is no padding
    found = artefact.run({"tokens": ids, "series": series})
    conv, lstm, dense = (model.get_layer(name) for name in ("conv", "lstm", "y"))
    with tf.GradientTape() as tape:
        vectors, steps = model.get_layer("embedding")(ids), tf.constant(series)
        tape.watch([vectors, steps])
        there = tf.reduce_any(steps != -1.0, axis=-1)
        state = lstm(tf.where(there[..., None], steps, 0.0), mask=there)
        scores = dense(tf.concat([tf.reduce_max(conv(vectors), 1), state], 1))
    slopes = tape.jacobian(scores, [vectors, steps])
    kept = {"tokens": ids != 0, "series": (series != -1.0).any(2)}
    for name, value, slope in zip(kept, (vectors, steps), slopes, strict=True):
        own = np.einsum("bcbte->bcte", slope.numpy())
        shares = np.einsum("bcte,bte->bct", own, value) * kept[name][:, None]
        record = found[f"input_gradient/{name}"]
        np.testing.assert_allclose(record.array, shares, rtol=1e-3, atol=1e-5)
        best = own[range(rows), scores.numpy().argmax(1)]
        lengths = np.linalg.norm(best, axis=2) * kept[name]
        record = found[f"saliency/{name}"]
        np.testing.assert_allclose(record.array, lengths, rtol=1e-3, atol=1e-5)
    assert np.abs(own).max() > 0
    assert (found["deep_lift/tokens"].array[ids == 0] == 0).all()
    assert artefact.manifest.output("saliency/series").detail["padding"] == "'series' is -1"
