"""A causal model whose texts are padded in front: positions and attention are told by the mask."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen import runtime

WORDS, WIDTH = 9, 6
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@keras.saving.register_keras_serializable("tests")
class Places(layers.Layer):
    """At which place a token stands, counted by the mask."""

    def call(self, mask):
        return ops.maximum(ops.cumsum(mask, axis=1) - 1, 0)


@keras.saving.register_keras_serializable("tests")
class Behind(layers.Layer):
    """Attention of each token to those before it that count."""

    def __init__(self, **more):
        super().__init__(**more)
        self.attention = layers.MultiHeadAttention(2, 3, name="attention")

    def build(self, shape):
        self.attention.build(shape, shape)

    def call(self, x, mask):
        seen = ops.cast(mask[:, None], "bool")
        return x + self.attention(x, x, attention_mask=seen, use_causal_mask=True)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    ids = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="int32", name="attention_mask")
    places = layers.Embedding(12, WIDTH, name="places")(Places(name="place")(mask))
    x = layers.Embedding(WORDS, WIDTH, name="words")(ids) + places
    x = layers.LayerNormalization(name="norm")(Behind(name="behind")(x, mask))
    made = keras.Model([ids, mask], layers.Dense(WORDS, name="next")(x))
    rng = np.random.default_rng(3)
    for weight in made.weights:
        weight.assign(weight + rng.normal(size=weight.shape, scale=0.5))
    return made


@pytest.fixture(scope="module")
def art(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("padded") / "m.onnx"
    probes = [
        pg.InputGradient(region="input", wrt="token_ids", name="gradient"),
        pg.GradientXInput(region="input", wrt="token_ids", per_token="dot", name="dot"),
        pg.Attention(),
    ]
    pg.compile(model, probes, path)
    return runtime.load(path)


def texts(*lengths):
    """Random ids of some lengths, padded in front, and the mask."""
    longest, rng = max(lengths), np.random.default_rng(sum(lengths))
    mask = np.array([[int(i >= longest - n) for i in range(longest)] for n in lengths], "int32")
    return rng.integers(1, WORDS, mask.shape).astype("int32") * mask, mask


@pytest.mark.parametrize("lengths", [(3, 5), (6, 2, 4)])
def test_each_token_counts_as_in_the_text_alone(model, art, lengths):
    ids, mask = texts(*lengths)
    last = np.zeros(ids.shape, "float32")
    last[:, -1] = 1
    found = art.run({"token_ids": ids, "attention_mask": mask}, region=last)
    words, behind = model.get_layer("words"), model.get_layer("behind")
    vectors = words(ids)
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        x = vectors + model.get_layer("places")(model.get_layer("place")(tf.constant(mask)))
        scores = model.get_layer("next")(model.get_layer("norm")(behind(x, tf.constant(mask))))
        score = tf.reduce_max(scores[:, -1], -1)
    expected = tape.gradient(score, vectors).numpy()
    np.testing.assert_allclose(found["gradient"], expected, **CLOSE)
    np.testing.assert_allclose(found["dot"], (expected * vectors).numpy().sum(-1), **CLOSE)
    assert np.all(np.asarray(found["dot"])[mask == 0] == 0)
    for row, length in enumerate(lengths):
        alone = {"token_ids": ids[row : row + 1, -length:], "attention_mask": mask[:1, :length] | 1}
        single = art.run(alone, region=last[:1, -length:])
        for name, axes in (("gradient", 1), ("dot", 1), ("attention/behind/attention", 2)):
            whole = np.asarray(found[name])[row : row + 1]
            part = whole[:, -length:] if axes == 1 else whole[:, :, -length:, -length:]
            np.testing.assert_allclose(part, single[name], **CLOSE, err_msg=name)


def test_it_writes_what_the_model_writes(model, art):
    ids, mask = texts(3, 5)
    prompts = {"token_ids": ids, "attention_mask": mask}
    written = [list(one.ids)[-4:] for one in runtime.generate(art, prompts, 4)]
    for _ in range(4):
        chosen = np.asarray(model([ids, mask]))[:, -1].argmax(-1)[:, None].astype("int32")
        ids, mask = np.hstack([ids, chosen]), np.hstack([mask, np.ones_like(chosen)])
    assert written == ids[:, -4:].tolist()
