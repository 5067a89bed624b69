"""TimeDistributed over an open length: as Keras runs it eagerly, in every format."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError

over_time = layers.TimeDistributed


def sequential(*parts, shape):
    keras.utils.set_random_seed(5)
    x = keras.Input(shape, name="x")
    y = x
    for part in parts:
        y = part(y)
    return keras.Model(x, y, name="sequence")


def video():
    """A small network for frames, over an open number of them."""
    keras.utils.set_random_seed(6)
    frame = keras.Input((7, 8, 3))
    y = layers.Conv2D(4, 3, activation="relu", name="conv")(frame)
    y = layers.GlobalAveragePooling2D(name="mean")(y)
    backbone = keras.Model(frame, y, name="backbone")
    x = keras.Input((None, 7, 8, 3), name="x")
    y = layers.LSTM(3, name="lstm")(over_time(backbone, name="frames")(x))
    return keras.Model(x, layers.Dense(2, name="scores")(y), name="video")


def words():
    """Sentences of words of letters, all of open number; padding is masked at both levels."""
    keras.utils.set_random_seed(7)
    x = keras.Input((None, None), dtype="int32", name="x")
    y = layers.Embedding(7, 5, mask_zero=True, name="embedding")(x)
    y = over_time(layers.Bidirectional(layers.GRU(3)), name="letters")(y)
    return keras.Model(x, layers.Dense(2)(y), name="words")


def given(model, batch, times, seed=0):
    """Rows of noise with zeros at the end, and one row of nothing but zeros."""
    rng = np.random.default_rng(seed)
    times = list(times)
    shape = [batch, *(times.pop(0) if n is None else n for n in model.input_shape[1:])]
    if model.inputs[0].dtype == "int32":
        x = rng.integers(1, 7, shape).astype("int32")
    else:
        x = 2 * rng.standard_normal(shape).astype("float32")
    x[0, -2:] = 0
    x[-1] = 0
    return x


class TakesAll(layers.Layer):
    """Shows what Keras hands to a child: `training` and its part of the mask."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="uniform")

    def call(self, x, training=None, mask=None):
        shift = 0.0 if mask is None else ops.cast(mask, x.dtype)[:, None]
        return x * self.scale * (3.0 if training else 1.0) + shift

    def compute_output_shape(self, shape):
        return shape


CHILDREN = {
    "dense": lambda: sequential(
        over_time(layers.Dense(4, activation="relu")), layers.LSTM(3), shape=(None, 6)
    ),
    "normalisation": lambda: sequential(
        layers.Masking(), over_time(layers.BatchNormalization()), layers.LSTM(3), shape=(None, 6)
    ),
    "arguments": lambda: sequential(layers.Masking(), over_time(TakesAll()), shape=(None, 6)),
    "lstm": lambda: sequential(over_time(layers.LSTM(3)), layers.GRU(2), shape=(None, None, 6)),
    "conv": lambda: sequential(
        over_time(layers.Conv2D(4, 3)),
        over_time(layers.GlobalMaxPooling2D()),
        shape=(None, None, None, 3),
    ),
    "nested": lambda: sequential(over_time(over_time(layers.Dense(3))), shape=(None, None, 6)),
    "inner length known": lambda: sequential(
        over_time(over_time(layers.Dense(3))), shape=(None, 4, 6)
    ),
    "one number a step": lambda: sequential(
        over_time(layers.Lambda(lambda x: ops.sum(x, -1))), shape=(None, 6)
    ),
    "model": video,
    "masks": words,
}


@pytest.mark.parametrize("kind", CHILDREN)
def test_predictions_are_those_of_the_untouched_model(kind):
    """Called eagerly Keras runs the child once a step; batch and length differ from each other."""
    model = CHILDREN[kind]()
    probed = pg.instrument(model, [pg.Activations(-1)])
    sizes = (4, 5, 3) if kind == "conv" else (3, 4)
    for batch, times in ((2, sizes), (5, sizes[::-1]), (3, sizes)):
        x = given(model, batch, times)
        found = probed(x)[probed.manifest.outputs[0].name]
        np.testing.assert_allclose(found, model(x), rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module", params=["onnx", "savedmodel"])
def compiled(request, tmp_path_factory):
    """The model for frames with probes outside and inside of what runs over time."""
    model = video()
    probes = [
        pg.InputGradient(target=1),
        pg.InputGradient(target=1, wrt="frames/backbone/conv", name="inner"),
        pg.GradCAM(layer="frames/backbone/conv", target=1),
        pg.Activations("frames/backbone/*"),
    ]
    name = "m.onnx" if request.param == "onnx" else "saved"
    path = tmp_path_factory.mktemp("frames") / name
    pg.compile(model, probes, path, samples=given(model, 5, [5]))
    return model, runtime.load(path)


@pytest.mark.parametrize(("batch", "time"), [(2, 5), (4, 3)])
def test_artefacts_are_right_at_other_sizes(compiled, batch, time):
    model, artefact = compiled
    x = given(model, batch, [time], seed=batch)
    result = artefact.run(x)
    np.testing.assert_allclose(result["scores"].array, model(x), rtol=1e-4, atol=1e-6)
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        score = model(variable)[:, 1]
    expected = tape.gradient(score, variable)
    np.testing.assert_allclose(result["input_gradient/x"].array, expected, rtol=1e-4, atol=1e-6)


def test_layers_inside_have_an_axis_for_time(compiled):
    model, artefact = compiled
    x = given(model, 2, [5], seed=9)
    result = artefact.run(x)
    backbone = model.get_layer("frames").layer
    conv = backbone.get_layer("conv")
    maps = np.stack([conv(x[:, i]) for i in range(5)], axis=1)
    found = result["activation/frames/backbone/conv"].array
    np.testing.assert_allclose(found, maps, rtol=1e-4, atol=1e-6)
    variable = tf.Variable(maps)
    with tf.GradientTape() as tape:
        means = tf.reduce_mean(variable, axis=(2, 3))
        score = model.get_layer("scores")(model.get_layer("lstm")(means))[:, 1]
    expected = tape.gradient(score, variable)
    np.testing.assert_allclose(result["inner"].array, expected, rtol=1e-4, atol=1e-6)
    assert result["grad_cam/frames/backbone/conv"].array.shape == maps.shape[:-1]


def test_points_inside_say_so():
    points = {p.name: p.shape for p in pg.inspect(video())}
    assert points["frames"] == (None, None, 4)
    assert points["frames/backbone/conv"] == (None, None, 5, 6, 4)
    assert points["frames/backbone/mean"] == (None, None, 4)


def test_attention_inside_has_an_axis_for_time():
    keras.utils.set_random_seed(8)
    x = keras.Input((3, 6))
    backbone = keras.Model(x, layers.MultiHeadAttention(2, 4, name="mha")(x, x), name="inner")
    model = sequential(over_time(backbone, name="frames"), shape=(None, 3, 6))
    probed = pg.instrument(model, [pg.Attention()])
    x = given(model, 2, [5])
    found = probed(x)["attention/frames/inner/mha"]
    mha = backbone.get_layer("mha")
    for step in range(5):
        _, weights = mha(x[:, step], x[:, step], return_attention_scores=True)
        np.testing.assert_allclose(found[:, step], weights, rtol=1e-5, atol=1e-6)


def test_states_kept_over_an_open_length_are_refused():
    x = keras.Input(batch_shape=(2, None, 4, 6), name="x")
    y = over_time(layers.LSTM(3, stateful=True, name="memory"), name="frames")(x)
    with pytest.raises(InstrumentError, match=r"^layer 'frames'.*'memory'.*fixed length"):
        pg.instrument(keras.Model(x, y), [pg.Activations(-1)])


def test_a_known_length_is_left_to_keras():
    model = sequential(over_time(layers.Dense(4), name="frames"), layers.LSTM(3), shape=(5, 6))
    original = layers.TimeDistributed.call
    x = given(model, 3, [])
    found = pg.instrument(model, [pg.Activations("frames")])(x)["activation/frames"]
    np.testing.assert_allclose(found, model.get_layer("frames")(x), rtol=1e-5, atol=1e-6)
    assert layers.TimeDistributed.call is original


def test_letters_of_a_known_number_of_words_have_one_number_each(tmp_path):
    keras.utils.set_random_seed(4)
    wide = keras.initializers.RandomNormal(stddev=1.0)
    embedding = layers.Embedding(7, 4, wide, mask_zero=True)
    convolution = layers.Conv1D(5, 2, padding="same", activation="tanh")
    word = keras.Input((None,), dtype="int32")
    spell = keras.Model(word, convolution(embedding(word)), name="spell")
    x = keras.Input((3, 5), dtype="int32", name="x")
    y = over_time(layers.GlobalAveragePooling1D())(over_time(spell)(x))
    read, score = layers.LSTM(3), layers.Dense(2)
    pg.compile(
        keras.Model(x, score(read(y))), pg.InputGradient(per_token="dot"), tmp_path / "m.onnx"
    )
    artefact = runtime.load(tmp_path / "m.onnx")
    letters = np.random.default_rng(1).integers(1, 7, (2, 3, 5))
    letters[0, :, 3:] = 0
    letters[1, 2] = 0
    found = artefact.run(letters)
    with tf.GradientTape() as tape:
        vectors = embedding(letters.reshape(6, 5))
        tape.watch(vectors)
        pooled = tf.reduce_mean(convolution(vectors), 1)
        best = tf.reduce_max(score(read(tf.reshape(pooled, (2, 3, 5)))), 1)
    shares = tf.reduce_sum(tape.gradient(best, vectors) * vectors, -1).numpy().reshape(2, 3, 5)
    record = found["input_gradient/x"]
    assert record.axes == ("batch", "time", "axis_2")
    np.testing.assert_allclose(record.array, np.where(letters == 0, 0, shares), atol=1e-5)
    assert np.abs(shares[letters == 0]).max() > 0


def test_a_known_batch_and_length(tmp_path):
    """What is folded then has a known size as well, as of models with stateful layers."""
    keras.utils.set_random_seed(8)
    x = keras.Input((4, 3), batch_size=5, name="x")
    y = over_time(layers.Dense(2, activation="tanh"), name="dense")(x)
    z = layers.LSTM(2, stateful=True)(y)
    model = keras.Model(x, layers.Dense(3)(layers.Concatenate()([layers.Flatten()(y), z])))
    pg.compile(model, [pg.Activations("dense"), pg.InputGradient(target=1)], tmp_path / "m.onnx")
    rows = given(model, 5, ())
    found = runtime.load(tmp_path / "m.onnx").run(rows)
    assert found["activation/dense"].shape == (5, 4, 2)
    with tf.GradientTape() as tape:
        values = tf.constant(rows)
        tape.watch(values)
        score = tf.reduce_sum(model(values)[:, 1])
    expected = tape.gradient(score, values).numpy()
    np.testing.assert_allclose(found["input_gradient/x"].array, expected, rtol=1e-4, atol=1e-6)
