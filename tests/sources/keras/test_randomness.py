"""Random numbers at inference: refused by name where they matter, let alone where they do not."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen.errors import InstrumentError


class Runs(layers.Layer):
    """A layer that runs a function."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


class Noisy(layers.Layer):
    """Adds noise from a generator of its own, at inference as well."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(7)

    def call(self, x):
        return x + keras.random.normal(ops.shape(x), seed=self.seed_generator)


class Trains(layers.Layer):
    """Lets another layer train whatever it is told, as Monte Carlo dropout does."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x):
        return self.inner(x, training=True)


class NoisyCell(layers.Layer):
    """Draws inside the loop of a recurrent layer."""

    state_size = output_size = 4

    def call(self, x, states):
        state = ops.tanh(x + states[0] + keras.random.uniform((4,)))
        return state, [state]


class QuietCell(NoisyCell):
    """Draws as well, and throws it away."""

    def call(self, x, states):
        keras.random.uniform((4,))
        state = ops.tanh(x + states[0])
        return state, [state]


def through(layer, shape=(4,), **arguments):
    keras.utils.set_random_seed(3)
    x = keras.Input(shape, name="x")
    y = layer(layers.Dense(4, name="first")(x), **arguments)
    y = y if len(y.shape) == 2 else layers.Flatten()(y)
    return keras.Model(x, layers.Dense(2, name="y")(y))


def in_loop(x):
    return ops.fori_loop(0, 3, lambda _, a: a + keras.random.normal((4,)), x)


def in_branch(x):
    return ops.cond(ops.max(x) > 0, lambda: x, lambda: x + tf.random.normal((4,)))


def chosen(x):
    return ops.where(keras.random.uniform(()) < 0.5, x, 2 * x)


def by_generator(x):
    return x + GENERATOR.normal((4,))


GENERATOR = tf.random.Generator.from_seed(1)

RANDOM = {
    "keras": (Runs(lambda x: x + keras.random.normal((4,)), name="noise"), "RandomNormal"),
    "generator": (Noisy(name="noise"), "StatelessRandomNormalV2"),
    "tensorflow": (Runs(lambda x: x * tf.random.uniform((4,)), name="noise"), "RandomUniform"),
    "seeded": (Runs(lambda x: x + tf.random.normal((4,), seed=1), name="noise"), "StandardNormal"),
    "shuffle": (Runs(lambda x: keras.random.shuffle(x, axis=1), name="noise"), "RandomUniform"),
    "dropout": (Runs(lambda x: tf.nn.dropout(x, 0.5), name="noise"), "RandomUniform"),
    "own generator": (Runs(by_generator, name="noise"), "RngReadAndSkip"),
    "integers": (Runs(lambda x: x * ops.cast(keras.random.randint((4,), 0, 3), "float32"),
                      name="noise"), "RandomUniformInt"),
    "loop": (Runs(in_loop, name="noise"), "Random"),
    "branch": (Runs(in_branch, name="noise"), "RandomStandardNormal"),
    "choice": (Runs(chosen, name="noise"), "RandomUniform"),
    "map": (Runs(lambda x: tf.map_fn(lambda r: r + tf.random.normal((4,)), x), name="noise"),
            "RandomStandardNormal"),
}  # fmt: skip


@pytest.mark.parametrize("kind", RANDOM)
def test_draws_that_reach_a_prediction_are_refused(kind):
    layer, operation = RANDOM[kind]
    message = rf"^output 'y' is drawn at random, by \w*{operation}\w* in layer 'noise'.*input"
    with pytest.raises(InstrumentError, match=message):
        pg.instrument(through(layer), [pg.InputGradient(target=0)])


def test_outputs_that_are_not_drawn_are_named():
    """The sample that an autoencoder's encoder draws may be left out, its mean stay."""
    x = keras.Input((4,), name="x")
    mean = layers.Dense(2, name="mean")(x)
    drawn = Runs(lambda t: t + keras.random.normal((2,)), name="z")(mean)
    model = keras.Model(x, [mean, drawn])
    with pytest.raises(InstrumentError, match=r"'z' is drawn .* gives \['mean'\] alone"):
        pg.instrument(model, [])


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: Trains(layers.Dropout(0.5), name="noise"), (4,)),
        (lambda: Trains(layers.GaussianNoise(0.5), name="noise"), (4,)),
        (lambda: Trains(layers.LSTM(4, dropout=0.5), name="noise"), (3, 4)),
        (lambda: Trains(layers.GRU(4, recurrent_dropout=0.5), name="noise"), (3, 4)),
        (lambda: layers.RNN(NoisyCell(), name="noise"), (3, 4)),
    ],
    ids=["dropout", "gaussian", "lstm", "gru", "cell"],
)
def test_layers_that_draw_are_named(make, shape):
    model = through(make(), shape)
    with pytest.raises(InstrumentError, match=r"drawn at random, by \w+ in layer 'noise"):
        pg.instrument(model, [pg.Activations("first")])


@pytest.mark.parametrize(
    "layer", [layers.Dropout(0.5, name="noise"), layers.LSTM(4, dropout=0.5, name="noise")]
)
def test_layers_that_a_functional_model_tells_to_train(layer):
    """The model draws when it is called; told `training=False` Keras overrules the layer."""
    shape = (4,) if isinstance(layer, layers.Dropout) else (3, 4)
    with pytest.raises(InstrumentError, match=r"by \w+\(training=True\) in layer 'noise'"):
        pg.instrument(through(layer, shape, training=True), [pg.Activations("first")])


def test_statistics_of_the_batch_are_refused_by_name():
    """Called as it stands, the model answers otherwise for other samples beside a sample."""
    x = keras.Input((4,))
    normal = layers.BatchNormalization(name="normal")
    model = keras.Model(x, layers.Dense(2)(normal(layers.Dense(4)(x), training=True)))
    with pytest.raises(InstrumentError, match=r"'normal'.*training=True"):
        pg.instrument(model, [])
    normal.trainable = False  # then Keras takes the moving ones
    data = np.random.default_rng(0).standard_normal((3, 4)).astype("float32")
    got = pg.instrument(model, [pg.InputGradient(target=0)])(data)
    np.testing.assert_allclose(next(iter(got.values())), np.asarray(model(data)), atol=1e-6)


def test_subclassed_models_that_draw():
    class Sampling(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(3)

        def call(self, x):
            z = self.dense(x)
            return z + keras.random.normal((3,))

    model = Sampling()
    model(np.zeros((2, 4), "float32"))
    with pytest.raises(InstrumentError, match=r"RandomNormal.* in the model's call"):
        pg.instrument(model, [pg.InputGradient(target=0)])


@pytest.mark.parametrize(
    ("make", "shape", "arguments"),
    [
        (lambda: layers.Dropout(0.5), (4,), {}),
        (lambda: layers.Dropout(0.5), (4,), {"training": False}),
        (lambda: layers.Dropout(0.0), (4,), {"training": True}),
        (layers.LayerNormalization, (4,), {}),
        (lambda: layers.LSTM(4, dropout=0.5, recurrent_dropout=0.5), (3, 4), {}),
        (lambda: layers.RNN(QuietCell()), (3, 4), {}),
        (lambda: Runs(lambda x: x + keras.random.normal((4,), seed=3)), (4,), {}),
        (lambda: Runs(lambda x: x + tf.random.stateless_normal((4,), (1, 2))), (4,), {}),
        (lambda: Runs(lambda x: x * ops.ones_like(keras.random.normal((4,)))), (4,), {}),
    ],
    ids=[
        "dropout",
        "told",
        "rate 0",
        "none",
        "lstm",
        "unused",
        "fixed seed",
        "stateless",
        "shape alone",
    ],
)
def test_what_does_not_differ_from_call_to_call_is_no_draw(make, shape, arguments):
    model = through(make(), shape, **arguments)
    x = np.random.default_rng(0).standard_normal((3, *shape)).astype("float32")
    found = pg.instrument(model, [pg.Activations("first")])(x)["y"]
    np.testing.assert_allclose(found, model(x), rtol=1e-5, atol=1e-6)


class Loss(layers.Layer):
    """Adds the loss of connectionist temporal classification, of functions of TensorFlow 1."""

    def call(self, labels, y):
        counts = [ops.full(ops.shape(v)[:1], v.shape[1], "int32") for v in (labels, y)]
        self.add_loss(ops.mean(ops.ctc_loss(labels, y, *counts)))
        return y


def test_functions_of_tensorflow_1_are_followed():
    x, labels = keras.Input((5, 3), name="x"), keras.Input((2,), dtype="int32", name="labels")
    model = keras.Model([x, labels], Loss(name="y")(labels, layers.Dense(4, name="first")(x)))
    value = np.random.default_rng(0).standard_normal((2, 5, 3)).astype("float32")
    found = pg.instrument(model, [pg.Activations("first")])([value, np.ones((2, 2), "int32")])
    np.testing.assert_allclose(found["y"], model.get_layer("first")(value), rtol=1e-5, atol=1e-6)


def beside():
    """A model that draws beside its prediction."""
    x = keras.Input((4,), name="x")
    y = layers.Dense(4, name="first")(x)
    noisy = Noisy(name="noise")(y)

    class Keeps(layers.Layer):
        def call(self, both):
            return both[0] + 0 * ops.cast(ops.shape(both[1])[1], "float32")

    kept = Keeps(name="keeps")([y, layers.Dense(5, name="beside")(noisy)])
    return keras.Model(x, layers.Dense(2, name="y")(kept))


def test_draws_beside_the_prediction_are_refused_where_they_are_probed():
    model = beside()
    assert "y" in pg.instrument(model, [pg.InputGradient(target=0)])(np.ones((2, 4), "float32"))
    for probe in (pg.Activations("beside"), pg.InputGradient(wrt="beside")):
        with pytest.raises(InstrumentError, match=r"layer 'beside' is drawn.*in layer 'noise'"):
            pg.instrument(model, [probe])


def test_targets_that_draw():
    def noisy(y):
        return y[:, 0] * keras.random.normal(())

    with pytest.raises(InstrumentError, match=r"target.*noisy is drawn at random, by Stateless"):
        pg.instrument(through(layers.ReLU()), [pg.InputGradient(target=noisy)])


def test_inspect_shows_what_is_drawn():
    points = {p.path: p for p in pg.inspect(through(Noisy(name="noise")))}
    assert points["first"].probes
    assert points["noise"].probes == points["y"].probes == ()
    assert not points["first"].reason
    reason = "drawn at random, by StatelessRandomNormalV2 in layer 'noise'"
    assert points["noise"].reason == points["y"].reason == reason


def test_generators_are_left_as_they_were():
    original = keras.random.SeedGenerator.next
    layer = Noisy()
    before = np.array(layer.seed_generator.state)
    with pytest.raises(InstrumentError):
        pg.instrument(through(layer), [pg.InputGradient()])
    np.testing.assert_array_equal(layer.seed_generator.state, before)
    assert keras.random.SeedGenerator.next is original
