"""Sequence to sequence, and CTC: probes of small random models against the model itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime

CLOSE = {"rtol": 1e-5, "atol": 2e-6}
WORDS = 6


def translator():
    """An encoder, and a decoder that starts from its states and is fed the true past."""
    keras.utils.set_random_seed(11)
    source = keras.Input((None,), dtype="int32", name="source")
    past = keras.Input((None,), dtype="int32", name="past")
    x = layers.Embedding(WORDS, 3, mask_zero=True, name="read")(source)
    over, h, c = layers.LSTM(4, return_sequences=True, return_state=True, name="encoder")(x)
    y = layers.Embedding(WORDS, 3, name="write")(past)
    y = layers.LSTM(4, return_sequences=True, name="decoder")(y, initial_state=[h, c])
    seen = layers.Attention(name="attention")([y, over])
    y = layers.Concatenate()([y, seen])
    return keras.Model([source, past], layers.Dense(WORDS, activation="softmax", name="next")(y))


def sentences(batch, lengths, seed=0):
    rng = np.random.default_rng(seed)
    source, past = (rng.integers(1, WORDS, (batch, n)).astype("int32") for n in lengths)
    source[0, -2:] = 0
    return {"source": source, "past": past}


@pytest.fixture(scope="module")
def translated(tmp_path_factory):
    path = tmp_path_factory.mktemp("translator") / "m.onnx"
    model = translator()
    probes = [
        pg.InputGradient(("steps", 2), "source", name="each"),
        pg.InputGradient("steps", "source", name="greedy"),
        pg.States(["encoder", "decoder"]),
        pg.Attention(),
    ]
    pg.compile(model, probes, path)
    return model, runtime.load(path)


@pytest.mark.parametrize(("batch", "lengths"), [(2, (5, 3)), (3, (4, 6))])
def test_each_word_of_a_decoder_is_explained_by_the_source(translated, batch, lengths):
    model, art = translated
    data = sentences(batch, lengths)
    found = art.run(data)
    names = ("read", "write", "encoder", "decoder", "attention", "next")
    read, write, encoder, decoder, attention, head = map(model.get_layer, names)
    mask = tf.constant(data["source"] != 0)
    with tf.GradientTape(persistent=True) as tape:
        x = read(data["source"])
        tape.watch(x)
        over, h, c = encoder(x, mask=mask)
        y = decoder(write(data["past"]), initial_state=[h, c])
        seen = attention([y, over], mask=[None, mask])
        scores = tf.concat([y, seen], -1) @ head.kernel + head.bias
        of_class = [scores[:, t, 2] for t in range(lengths[1])]
        best = [tf.reduce_max(scores[:, t], -1) for t in range(lengths[1])]
    np.testing.assert_allclose(tf.nn.softmax(scores), found["next"].array, **CLOSE)
    for name, values in (("each", of_class), ("greedy", best)):
        expected = np.stack([tf.convert_to_tensor(tape.gradient(v, x)) for v in values], 1)
        assert found[name].axes == ("batch", "step", "time", "embedding")
        np.testing.assert_allclose(found[name].array, expected, err_msg=name, **CLOSE)
    np.testing.assert_allclose(found["states/decoder"].array, y, **CLOSE)
    np.testing.assert_allclose(found["states/encoder"].array[:, -1], h, **CLOSE)
    np.testing.assert_allclose(found["states/encoder:1"].array[:, -1], c, **CLOSE)
    assert found["attention/attention"].shape == (batch, lengths[1], lengths[0])


def test_the_greedy_path_of_ctc(tmp_path):
    """Each step of the greedy path is explained by itself, and blanks where asked for."""
    keras.utils.set_random_seed(12)
    x = keras.Input((None, 3), name="sound")
    y = layers.Conv1D(4, 3, strides=2, padding="same", activation="relu", name="conv")(x)
    y = layers.Bidirectional(layers.GRU(3, return_sequences=True), name="both")(y)
    model = keras.Model(x, layers.Dense(5, activation="softmax", name="letters")(y))
    blank = 4
    probes = [
        pg.GradientXInput(("steps", "argmax"), name="path"),
        pg.GradientXInput(("steps", blank), name="blank"),
        pg.GradCAM("conv", target=("steps", "input"), name="asked"),
    ]
    pg.compile(model, probes, tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    body = keras.Model(x, model.get_layer("both").output)
    head = model.get_layer("letters")
    for batch, time in ((2, 9), (3, 6)):
        sound = np.random.default_rng(time).standard_normal((batch, time, 3)).astype("float32")
        found = art.run(sound, target=blank)
        path = found["letters"].array.argmax(-1)
        steps = path.shape[1]
        assert found["path"].shape == (batch, steps, time, 3)
        assert found["asked"].shape == (batch, steps, steps)
        with tf.GradientTape(persistent=True) as tape:
            given = tf.constant(sound)
            tape.watch(given)
            scores = body(given) @ head.kernel + head.bias
            chosen = [tf.gather(scores[:, t], path[:, t], batch_dims=1) for t in range(steps)]
            of_blank = [scores[:, t, blank] for t in range(steps)]
        for name, values in (("path", chosen), ("blank", of_blank)):
            expected = np.stack([tape.gradient(v, given) * given for v in values], 1)
            np.testing.assert_allclose(found[name].array, expected, err_msg=name, **CLOSE)
