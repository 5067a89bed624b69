"""Integer inputs: every look-up and cast on their way, against tables and pixels moved by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.errors import InputError, NotDifferentiableError
from tests import models

TABLES = ("embeddings", "table")


def fill(model, seed=3):
    """Gives a model weights whose effect is not tiny."""
    rng = np.random.default_rng(seed)
    for v in model.weights:
        v.assign(0.5 * rng.standard_normal(v.shape))
    return model


def ids(shape, top, seed=0, low=0):
    return np.random.default_rng(seed).integers(low, top, shape).astype("int32")


def head(y):
    y = layers.Dense(6, activation="tanh", name="hidden")(y)
    return layers.Dense(3, name="out")(y)


def over_time(y):
    return head(layers.GlobalAveragePooling1D(name="mean")(y))


class Lookup(layers.Layer):
    """A table of its own, read by `how(table, ids)`."""

    def __init__(self, how, **kwargs):
        super().__init__(**kwargs)
        self.how = how

    def build(self, _):
        self.table = self.add_weight(shape=(30, 5), name="table")

    def call(self, x):
        return self.how(tf.convert_to_tensor(self.table), x)


def one_hot_joined(table, x):
    """BERT's own: all samples joined, one-hot rows times the table, taken apart again."""
    rows = tf.matmul(tf.one_hot(tf.reshape(x, [-1]), 30), table)
    return tf.reshape(rows, [tf.shape(x)[0], tf.shape(x)[1], 5])


def gather_joined(table, x):
    rows = tf.gather(table, tf.reshape(x, [-1]))
    return tf.reshape(rows, [tf.shape(x)[0], tf.shape(x)[1], 5])


def with_positions():
    x = keras.Input((9,), dtype="int32", name="ids")
    real = ops.cast(ops.not_equal(x, 0), "int32")
    places = layers.Embedding(32, 8, name="places")(ops.cumsum(real, axis=1) * real)
    return keras.Model(x, over_time(layers.Embedding(500, 8, name="words")(x) + places))


def columns():
    x = keras.Input((3,), dtype="int32", name="cats")
    found = [layers.Embedding(n, 4, name=f"t{k}")(x[:, k]) for k, n in enumerate((5, 50, 500))]
    return keras.Model(x, head(layers.Concatenate()(found)))


def one_table_a_column():
    x = keras.Input((3,), dtype="int32", name="cats")
    table = layers.Embedding(40, 4, name="t")
    return keras.Model(x, head(layers.Concatenate()([table(x[:, k]) for k in range(3)])))


def sentences():
    x = keras.Input((2, 7), dtype="int32", name="pair")
    table = layers.Embedding(40, 4, mask_zero=True, name="t")
    lstm = layers.LSTM(5, name="lstm")
    return keras.Model(x, head(layers.Concatenate()([lstm(table(x[:, k])) for k in range(2)])))


def looked_up(how):
    x = keras.Input((6,), dtype="int32", name="ids")
    return keras.Model(x, over_time(Lookup(how, name="look")(x)))


def changed(how):
    x = keras.Input((6,), dtype="int32", name="ids")
    return keras.Model(x, over_time(layers.Embedding(30, 5, name="words")(how(x))))


def joined_inputs():
    a = keras.Input((3,), dtype="int32", name="a")
    b = keras.Input((4,), dtype="int32", name="b")
    rows = layers.Embedding(20, 4, name="words")(layers.Concatenate()([a, b]))
    return keras.Model([a, b], over_time(rows))


def steps():
    x = keras.Input((3, 6), dtype="int32", name="ids")
    rows = layers.TimeDistributed(layers.Embedding(20, 4, name="words"), name="steps")(x)
    return keras.Model(x, head(layers.Flatten()(rows)))


def encoded(mode):
    x = keras.Input((6,), dtype="int32", name="ids")
    return keras.Model(x, head(layers.CategoryEncoding(9, output_mode=mode)(x)))


# name -> model, legal ids, what is explained (name and shape of a sample), vocabularies
LOOKUPS = {
    "positions": (with_positions, 500, {"ids": (9, 8)}, [500]),
    "columns": (columns, 5, {"t0": (4,), "t1": (4,), "t2": (4,)}, [None]),
    "table": (one_table_a_column, 40, {"t#0": (4,), "t#1": (4,), "t#2": (4,)}, [None]),
    "sentences": (sentences, 40, {"t#0": (7, 4), "t#1": (7, 4)}, [None]),
    "take": (
        lambda: looked_up(lambda t, x: ops.tanh(ops.take(t, x, axis=0))),
        30,
        {"ids": (6, 5)},
        [30],
    ),
    "gather": (lambda: looked_up(gather_joined), 30, {"ids": (6, 5)}, [30]),
    "one_hot": (lambda: looked_up(one_hot_joined), 30, {"ids": (6, 30)}, [None]),
    "clip": (lambda: changed(lambda x: ops.clip(x, 0, 29)), 99, {"ids": (6, 5)}, [None]),
    "where": (lambda: changed(lambda x: ops.where(x > 29, 1, x)), 99, {"ids": (6, 5)}, [None]),
    "mod": (lambda: changed(lambda x: x % 30), 99, {"ids": (6, 5)}, [None]),
    "plus": (lambda: changed(lambda x: x + 1), 29, {"ids": (6, 5)}, [None]),
    "joined": (joined_inputs, 20, {"words": (7, 4)}, [20, 20]),
    "counts": (lambda: encoded("count"), 9, {"ids": (9,)}, [None]),
    "reversed": (lambda: changed(lambda x: x[:, ::-1]), 30, {"ids": (6, 5)}, [30]),
    "steps": (steps, 20, {"ids": (3, 6, 4)}, [20]),
}


def without_tables(model, x, but="places"):
    """What the untouched model says where every vector that it looks up is zero."""
    before = model.get_weights()
    for v in model.weights:
        if v.path.rpartition("/")[2] in TABLES and but not in v.path:
            v.assign(np.zeros(v.shape))
    result = np.asarray(model(x))
    model.set_weights(before)
    return result


def head_of(model, vectors):
    return np.asarray(model.get_layer("out")(model.get_layer("hidden")(vectors)))


@pytest.mark.parametrize("name", LOOKUPS)
def test_all_look_ups_of_an_input_together_are_complete(name):
    make, top, explained, vocabularies = LOOKUPS[name]
    model = fill(make())
    probed = pg.instrument(model, pg.IntegratedGradients(120, target=1))
    shapes = {o.name: o.shape[1:] for o in probed.manifest.explanations}
    assert shapes == {f"integrated_gradients/{k}": v for k, v in explained.items()}
    assert [i.vocabulary for i in probed.manifest.inputs] == vocabularies
    for count in (2, 5):
        x = [ids((count, *i.shape[1:]), top, count) for i in probed.manifest.inputs]
        x[0][0, ..., -2:] = 0  # padding
        x = x if len(x) > 1 else x[0]
        outputs = probed(x)
        parts = [np.asarray(outputs[n]).reshape(count, -1).sum(1) for n in shapes]
        if name == "counts":
            expected = np.asarray(model(x)) - head_of(model, np.zeros((count, 9)))
        elif name == "one_hot":  # from no word at all: the table itself stays
            expected = np.asarray(model(x)) - without_tables(model, x)
        else:
            expected = np.asarray(outputs["out"]) - without_tables(model, x)
        assert np.abs(expected[:, 1]).min() > 1e-3
        np.testing.assert_allclose(sum(parts), expected[:, 1], atol=2e-4)


def test_gradients_at_every_call_are_finite_differences_of_the_table():
    """One row of the table is read by one call alone, so moving it is moving that call's result."""
    model = fill(one_table_a_column())
    probed = pg.instrument(model, pg.InputGradient(target=2))
    table = model.get_layer("t").embeddings
    x = np.array([[3, 7, 11], [5, 0, 39]], "int32")
    outputs = probed(x)
    for row in range(2):
        for column in range(3):
            for unit in (0, 3):
                scores = []
                for sign in (1, -1):
                    moved = np.asarray(table).copy()
                    moved[x[row, column], unit] += sign * 1e-2
                    kept = np.asarray(table).copy()
                    table.assign(moved)
                    scores.append(float(model(x)[row, 2]))
                    table.assign(kept)
                expected = (scores[0] - scores[1]) / 2e-2
                got = outputs[f"input_gradient/t#{column}"][row, unit]
                np.testing.assert_allclose(got, expected, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize("name", ["columns", "gather"])
def test_look_ups_in_onnx(name, tmp_path):
    make, top, explained, _ = LOOKUPS[name]
    model = fill(make())
    probes = [pg.Saliency(target="input"), pg.IntegratedGradients(3, target=0)]
    probed = pg.instrument(model, probes)
    pg.export(probed, tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    for count in (2, 5):
        x = ids((count, *probed.manifest.inputs[0].shape[1:]), top, count)
        target = np.arange(count, dtype="int32") % 3
        expected, result = probed(x, target=target), artefact.run(x, target=target)
        for label in explained:
            for kind in ("saliency", "integrated_gradients"):
                key = f"{kind}/{label}"
                np.testing.assert_allclose(result[key].array, expected[key], rtol=1e-4, atol=1e-6)
    result.to_html(tmp_path / "report.html")
    assert pg.verify(tmp_path / "m.onnx", model).passed


def test_only_raw_ids_have_a_vocabulary(tmp_path):
    """Ids that the model brings into range itself are let through, others refused."""
    pg.compile(fill(changed(lambda x: x % 30)), pg.Saliency(target=0), tmp_path / "a.onnx")
    x = np.array([[31, 2, 3, 4, 5, 1000]], "int32")
    near = np.array([[1, 2, 3, 4, 5, 10]], "int32")
    artefact = runtime.load(tmp_path / "a.onnx")
    far, same = (artefact.run(v)["saliency/ids"].array for v in (x, near))
    np.testing.assert_array_equal(far, same)
    model = fill(with_positions())
    pg.compile(model, pg.Saliency(target=0), tmp_path / "b.onnx")
    artefact = runtime.load(tmp_path / "b.onnx")
    words = ids((2, 9), 500, low=400)
    np.testing.assert_allclose(artefact.run(words)["out"].array, model(words), rtol=1e-4)
    with pytest.raises(InputError, match="ids go from 0 to 499"):
        artefact.run(words + 100)


@pytest.mark.parametrize("way", ["bins", "rounded", "ids"])
def test_numbers_that_are_sorted_into_bins_may_be_any(way, tmp_path):
    x = keras.Input((3,), name="x")
    bins = {
        "bins": layers.Discretization(bin_boundaries=[-1.0, 0.0, 1.0]),
        "rounded": lambda v: ops.cast(ops.clip(ops.floor(v * 2) + 2, 0, 3), "int32"),
        "ids": lambda v: ops.cast(v, "int32") + 1,
    }[way]
    y = layers.Embedding(4, 2, name="table")(bins(x))
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    exported = pg.compile(model, pg.InputGradient(target=0), tmp_path / "m.onnx")
    assert exported.manifest.inputs[0].vocabulary is None
    assert exported.manifest.inputs[0].integer == (way == "ids")
    art = runtime.load(tmp_path / "m.onnx")
    data = np.array([[-1.6, 0.3, 1.2], [2.0, 0.0, 1.0]], np.float32)[way == "ids" :]
    np.testing.assert_allclose(
        art.run(data).predictions[exported.manifest.predictions[0].name],
        np.asarray(model(data)),
        atol=1e-6,
    )
    if way == "ids":
        with pytest.raises(InputError, match="whole number"):
            art.run(data + 0.5)


@pytest.mark.parametrize("mode", ["one_hot", "int"])
def test_what_is_hidden_of_numbers_in_bins_are_the_numbers(mode, tmp_path):
    """`fill=` and `background=` are of the input, whose bin the model looks up anew."""
    x = keras.Input((2,), name="age")
    bins = layers.Discretization(bin_boundaries=[20.0, 40.0, 60.0], output_mode=mode)(x)
    y = bins if mode == "one_hot" else layers.Embedding(4, 3)(bins)
    model = fill(keras.Model(x, layers.Dense(2)(layers.Flatten()(y))))
    probes = [pg.FeatureAblation(target=0, fill=30.0), pg.KernelSHAP(target=0, background=30.0)]
    pg.compile(model, probes, tmp_path / "m.onnx")
    ages = np.array([[50, 15], [35, 70], [10, 30]], np.float32)
    scores = np.asarray(model(ages))[:, :1]
    hidden = [np.where(np.arange(2) == i, np.float32(30), ages) for i in range(2)]
    alone = np.concatenate([scores - np.asarray(model(h))[:, :1] for h in hidden], axis=1)
    result = runtime.load(tmp_path / "m.onnx").run(ages)
    np.testing.assert_allclose(result["feature_ablation/age"].array, alone, atol=1e-5)
    # Each feature has a part of the score to itself, so that this is its Shapley value too.
    np.testing.assert_allclose(result["kernel_shap/age"].array, alone, atol=1e-4)


def test_tied_weights_are_explained_where_ids_are_read():
    x = keras.Input((6,), dtype="int32", name="ids")
    table = layers.ReversibleEmbedding(20, 5, name="words")
    y = layers.Dense(5, activation="tanh")(table(x))
    model = fill(keras.Model(x, layers.Activation("softmax", name="out")(table(y, reverse=True))))
    probed = pg.instrument(model, pg.InputGradient(target=(2, 7)))
    (output,) = probed.manifest.explanations
    assert (output.name, output.shape, output.call) == ("input_gradient/ids", (None, 6, 5), 0)
    data = ids((2, 6), 20)
    vectors = tf.gather(table.embeddings.value, data)
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        score = table(model.layers[2](vectors), reverse=True)[:, 2, 7]
    expected = tape.gradient(score, vectors)
    np.testing.assert_allclose(probed(data)["input_gradient/ids"], expected, rtol=1e-4, atol=1e-6)


# -- casts -------------------------------------------------------------------------------------


def photos(twice=False):
    x = keras.Input((11, 8, 3), dtype="uint8", name="photo")
    y = layers.Rescaling(1 / 127.5, -1.0, name="scaled")(x)
    if twice:
        y = y * (ops.cast(x, "float32") / 255.0)
    y = layers.Conv2D(4, (3, 2), activation="tanh", name="conv")(y)
    return keras.Model(x, layers.Dense(3, name="out")(layers.GlobalAveragePooling2D()(y)))


def float_photos(twice):
    """The same model with a floating input."""
    x = keras.Input((11, 8, 3), name="photo")
    y = x / 127.5 - 1.0
    y = y * (x / 255.0) if twice else y
    y = layers.Conv2D(4, (3, 2), activation="tanh", name="conv")(y)
    return keras.Model(x, layers.Dense(3, name="out")(layers.GlobalAveragePooling2D()(y)))


@pytest.mark.parametrize("twice", [False, True])
def test_bytes_of_an_image_are_explained_at_full_resolution(twice, tmp_path):
    model, twin = fill(photos(twice)), float_photos(twice)
    twin.set_weights(model.get_weights())
    probes = [
        pg.Saliency(target=1),
        pg.InputGradient(target=1),
        pg.IntegratedGradients(40, target=1),
    ]
    probed = pg.instrument(model, probes)
    assert probed.manifest.inputs[0].dtype == "uint8"
    axes = ("batch", "height", "width")
    assert probed.manifest.output("saliency/photo").axes == axes
    assert probed.manifest.output("saliency/photo").input == "photo"
    pg.export(probed, tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    for count in (1, 4):
        x = ids((count, 11, 8, 3), 256, count).astype("uint8")
        floating = tf.constant(x, "float32")
        with tf.GradientTape() as tape:
            tape.watch(floating)
            score = twin(floating)[:, 1]
        expected = tape.gradient(score, floating).numpy()
        difference = score - twin(np.zeros_like(floating))[:, 1]
        for outputs in (probed(x), {r.name: r.array for r in artefact.run(x).values()}):
            got = outputs["input_gradient/photo"]
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-8)
            got = outputs["saliency/photo"]
            np.testing.assert_allclose(got, np.abs(expected).max(-1), rtol=1e-3, atol=1e-8)
            total = np.asarray(outputs["integrated_gradients/photo"]).sum((1, 2, 3))
            np.testing.assert_allclose(total, difference, atol=1e-3)
    artefact.run(x).to_html(tmp_path / "report.html")


def turned_photos(cast):
    """Channels and width are turned round and a margin is cut off, before or after the cast."""
    x = keras.Input((11, 8, 3), dtype="uint8" if cast else "float32", name="photo")
    y = layers.Concatenate(axis=1)([x[:, 4:9, ::-1, ::-1], x[:, :2, ::-1, ::-1]])
    y = (ops.cast(y, "float32") if cast else y) / 255.0
    y = layers.Conv2D(4, (3, 2), activation="tanh", name="conv")(y)
    return keras.Model(x, layers.Dense(3, name="out")(layers.Flatten()(y)))


def test_what_is_cast_after_it_was_moved_is_explained_in_the_places_of_the_input(tmp_path):
    model, twin = fill(turned_photos(cast=True)), turned_photos(cast=False)
    twin.set_weights(model.get_weights())
    probed = pg.instrument(model, [pg.InputGradient(target=1), pg.IntegratedGradients(2, target=1)])
    pg.export(probed, tmp_path / "m.onnx")
    x = ids((3, 11, 8, 3), 256).astype("uint8")
    floating = tf.constant(x, "float32")
    with tf.GradientTape() as tape:
        tape.watch(floating)
        score = twin(floating)[:, 1]
    expected = tape.gradient(score, floating).numpy()
    assert np.all(expected[:, 2:4] == 0)
    assert np.abs(expected[:, 0]).min() > 0
    same = pg.instrument(twin, pg.IntegratedGradients(2, target=1))(floating)
    for outputs in (
        probed(x),
        {r.name: r.array for r in runtime.load(tmp_path / "m.onnx").run(x).values()},
    ):
        np.testing.assert_allclose(outputs["input_gradient/photo"], expected, rtol=1e-3, atol=1e-7)
        key = "integrated_gradients/photo"
        np.testing.assert_allclose(outputs[key], same[key], rtol=1e-3, atol=1e-6)


def test_look_ups_in_another_order_are_not_drawn_along_the_input():
    probed = pg.instrument(changed(lambda x: x[:, ::-1]), pg.Saliency())
    (output,) = probed.manifest.explanations
    assert (output.axes, output.input) == (("batch", "id"), None)
    probed = pg.instrument(changed(lambda x: x + 1), pg.Saliency())
    (output,) = probed.manifest.explanations
    assert (output.axes, output.input) == (("batch", "time"), "ids")


def resized(way, cast):
    """Bytes that are resized as they are, or the same with a floating input."""
    x = keras.Input((12, 8, 3), dtype="uint8" if cast else "float32", name="photo")
    y = layers.Lambda(lambda v: tf.cast(tf.image.resize(v, (6, 5), way), "float32") / 255.0,
        output_shape=(6, 5, 3), dtype="float32", name="small")(x)  # fmt: skip
    return keras.Model(x, layers.Dense(3, name="out")(layers.Flatten()(y)))


@pytest.mark.parametrize("way", ["bilinear", "nearest"])
def test_bytes_that_are_resized_are_explained_before(way):
    model, twin = fill(resized(way, cast=True)), resized(way, cast=False)
    twin.set_weights(model.get_weights())
    probed = pg.instrument(model, pg.InputGradient(target=1))
    x = ids((2, 12, 8, 3), 256).astype("uint8")
    floating = tf.constant(x, "float32")
    with tf.GradientTape() as tape:
        tape.watch(floating)
        score = twin(floating)[:, 1]
    expected = tape.gradient(score, floating)
    outputs = probed(x)
    np.testing.assert_allclose(outputs["input_gradient/photo"], expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(outputs["out"], model(x), rtol=1e-5, atol=1e-6)


def test_layers_that_prepare_data_run_as_they_do_eagerly():
    """In a graph, Keras would cast bytes to floating numbers before it resizes and rounds them."""
    x = keras.Input((12, 8, 3), dtype="uint8", name="photo")
    small = layers.Rescaling(1 / 255.0)(layers.Resizing(6, 5, name="small")(x))
    model = fill(keras.Model(x, layers.Dense(3, name="out")(layers.Flatten()(small))))
    probed = pg.instrument(model, [pg.Activations("small"), pg.Saliency(target=1)])
    data = ids((3, 12, 8, 3), 256).astype("uint8")
    outputs = probed(data)
    assert outputs["activation/small"].dtype == "uint8"
    np.testing.assert_array_equal(outputs["activation/small"], model.get_layer("small")(data))
    np.testing.assert_allclose(outputs["out"], model(data), rtol=1e-5, atol=1e-6)
    output = probed.manifest.output("saliency/photo")  # rounding lets no gradient pass
    assert (output.shape, output.axes) == ((None, 6, 5), ("batch", "height", "width"))


def test_numbers_that_become_whole_again_are_followed_on():
    """Grey levels are rounded to bytes, which no gradient passes: the last cast is explained."""
    x = keras.Input((6, 5, 3), dtype="uint8", name="photo")
    grey = layers.Lambda(tf.image.rgb_to_grayscale, output_shape=(6, 5, 1), dtype="uint8")(x)
    y = layers.Conv2D(3, 3, activation="tanh", name="conv")(ops.cast(grey, "float32") / 255.0)
    model = fill(keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y))))
    probed = pg.instrument(model, pg.InputGradient(target=1))
    (output,) = probed.manifest.explanations
    assert (output.name, output.shape) == ("input_gradient/photo", (None, 6, 5, 1))
    data = ids((2, 6, 5, 3), 256).astype("uint8")
    floating = tf.cast(tf.image.rgb_to_grayscale(data), "float32")
    with tf.GradientTape() as tape:
        tape.watch(floating)
        hidden = model.get_layer("conv")(floating / 255.0)
        score = model.get_layer("out")(tf.reshape(hidden, (2, -1)))[:, 1]
    expected = tape.gradient(score, floating)
    np.testing.assert_allclose(probed(data)[output.name], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("truth", ["float32", "int32"])
def test_what_bytes_are_compared_with_is_no_second_explanation(truth, tmp_path):
    """Of bytes that are rounded the last cast is explained: of the bytes, not of `bytes > 99`."""
    x = keras.Input((4, 6, 3), dtype="uint8", name="photo")
    r = ops.cast(layers.Resizing(5, 7, name="small")(x), "float32")
    over = ops.cast(ops.cast(r > 99.0, truth), "float32")
    model = keras.Model(x, layers.Dense(2, name="out")(layers.GlobalAveragePooling2D()(over * r)))
    probes = [pg.InputGradient(target=0), pg.FeatureAblation(groups="grid:2", fill=200, target=1)]
    pg.compile(model, probes, tmp_path / "m.onnx")
    data = ids((3, 4, 6, 3), 256).astype("uint8")
    result = runtime.load(tmp_path / "m.onnx").run(data)
    small = np.asarray(model.get_layer("small")(data), float)
    weights = model.get_layer("out").get_weights()[0]
    gradient = (small > 99) * weights[:, 0] / 35
    np.testing.assert_allclose(result["input_gradient/photo"].array, gradient, rtol=1e-5)
    hidden = np.full((3, 3, 4, 3), 200.0)  # the first group: 3 of 5 rows, 4 of 7 columns
    before = small[:, :3, :4]
    lost = ((before > 99) * before - hidden).sum(axis=(1, 2)) @ weights[:, 1] / 35
    ablated = result["feature_ablation/photo"].array
    np.testing.assert_allclose(ablated[:, 0, 0], lost, rtol=1e-4)
    assert [o.shape for o in result.manifest.explanations] == [(None, 5, 7, 3), (None, 5, 7)]


def test_an_input_that_is_looked_up_and_calculated_with_is_explained_at_both():
    x = keras.Input((6,), dtype="int32", name="ids")
    rows = layers.Flatten()(layers.Embedding(20, 3, name="words")(x))
    y = layers.Concatenate()([rows, ops.cast(x, "float32") / 20.0])
    model = fill(keras.Model(x, head(y)))
    probed = pg.instrument(model, pg.IntegratedGradients(120, target=0))
    names = [o.name for o in probed.manifest.explanations]
    assert names == ["integrated_gradients/ids", "integrated_gradients/words"]
    data = ids((3, 6), 20)
    outputs = probed(data)
    total = sum(np.asarray(outputs[n]).reshape(3, -1).sum(1) for n in names)
    expected = np.asarray(model(data)) - without_tables(model, np.zeros_like(data))
    np.testing.assert_allclose(total, expected[:, 0], atol=2e-4)


def test_columns_of_ids_beside_floating_ones():
    x = keras.Input((4,), name="table")
    row = layers.Embedding(20, 3, name="shop")(ops.cast(x[:, 0], "int32"))
    model = fill(keras.Model(x, head(layers.Concatenate()([row, x[:, 1:]]))))
    probed = pg.instrument(model, pg.IntegratedGradients(120, target=0))
    names = [o.name for o in probed.manifest.explanations]
    assert names == ["integrated_gradients/table", "integrated_gradients/shop"]
    assert not probed.manifest.inputs[0].integer
    data = models.images((4,))
    data[:, 0] = (3, 19, 7)
    outputs = probed(data)
    total = sum(np.asarray(outputs[n]).sum(1) for n in names)
    expected = np.asarray(model(data)) - without_tables(model, np.zeros_like(data))
    np.testing.assert_allclose(total, expected[:, 0], atol=2e-4)
    assert np.all(np.asarray(outputs[names[0]])[:, 0] == 0)  # the id counts by its row alone


def test_flags_are_explained_and_masks_are_not():
    x = keras.Input((5, 4), name="x")
    flags = keras.Input((3,), dtype="bool", name="flags")
    mask = keras.Input((5,), dtype="bool", name="seen")
    y = layers.MultiHeadAttention(2, 3, name="a")(x, x, attention_mask=mask[:, None, :])
    past = keras.Input((5,), dtype="int32", name="past")
    penalty = (1.0 - ops.cast(past[..., None], "float32")) * -10000.0
    y = ops.sum(y * ops.softmax(layers.Dense(1)(y) + penalty, axis=1), axis=1)
    y = layers.Concatenate()([y, ops.cast(flags, "float32")])
    model = fill(keras.Model([x, flags, mask, past], head(y)))
    probed = pg.instrument(model, pg.InputGradient(target=0))
    names = [o.name for o in probed.manifest.explanations]
    assert names == ["input_gradient/x", "input_gradient/flags"]
    asked = pg.instrument(model, pg.InputGradient(target=0, wrt=["flags", "x"]))
    assert [o.name for o in asked.manifest.explanations] == names[::-1]


def test_look_ups_that_join_samples_are_refused_by_name():
    x = keras.Input((9,), dtype="int32", name="ids")
    first = layers.Lambda(ops.transpose, output_shape=(None,), name="turned")(x)
    rows = layers.Embedding(20, 4, name="words")(first)
    turned = layers.Lambda(lambda r: ops.transpose(r, (1, 0, 2)), name="back")(rows)
    model = keras.Model(x, over_time(turned))
    with pytest.raises(NotDifferentiableError, match=r"'words.*not the batch for its first axis"):
        pg.instrument(model, pg.Saliency())


def test_names_hold_when_a_model_is_instrumented_again(tmp_path):
    model = fill(one_table_a_column())
    model.save(tmp_path / "m.keras")
    probes = [pg.InputGradient(target=0), pg.Saliency(wrt=["cats", "hidden"], target=1)]
    pg.compile(model, probes, tmp_path / "m.onnx")
    assert pg.verify(tmp_path / "m.onnx", tmp_path / "m.keras").passed
    pg.compile(model, probes, tmp_path / "saved")
    assert pg.verify(tmp_path / "saved", tmp_path / "m.keras").passed


# -- preprocessing layers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "resizing"),
    [
        ((None, None), {}),
        ((30, 26), {"crop_to_aspect_ratio": True}),
        ((None, None), {"interpolation": "nearest"}),
    ],
)
def test_layers_that_resize_bytes(size, resizing, tmp_path):
    """Keras rounds what it has resized to bytes: a last bit decides between two of them."""
    x = keras.Input((*size, 3), dtype="uint8", name="photo")
    y = layers.Resizing(12, 9, **resizing)(x)
    y = layers.Normalization(axis=-1, mean=[120.0, 110.0, 100.0], variance=[900.0] * 3)(y)
    y = layers.Conv2D(4, (3, 2), activation="relu", name="conv")(y)
    model = keras.Model(x, layers.Dense(3, name="out")(layers.GlobalAveragePooling2D()(y)))
    pg.compile(model, [pg.Saliency(target=1)], tmp_path / "m.onnx")
    photo = ids((3, 30, 26, 3), 256).astype("uint8")
    result = runtime.load(tmp_path / "m.onnx").run(photo)
    np.testing.assert_allclose(result["out"].array, model(photo), rtol=1e-4, atol=1e-5)
    # Nothing is blended by the nearest pixels: these are explained themselves.
    shown = (3, 30, 26) if "interpolation" in resizing else (3, 12, 9)
    assert result["saliency/photo"].shape == shown


@pytest.mark.parametrize("how", ["n-grams", "counts", "tf_idf"])
def test_rows_of_text_of_different_lengths_stay_samples(how):
    """Where rows begin is joined along the first axis; what is in them is not."""
    options = {"ngrams": 2, "output_sequence_length": 7} if how == "n-grams" else {}
    if not options:
        options = {"output_mode": how.removesuffix("s")}
    split = keras.layers.TextVectorization(**options)
    split.adapt(["the cat sat", "a dog ran to the cat"])
    text = keras.Input((1,), dtype="string", name="text")
    y = split(text)
    if how == "n-grams":
        embedded = keras.layers.Embedding(split.vocabulary_size(), 3)
        y = keras.layers.GlobalAveragePooling1D()(embedded(y))
    head = keras.layers.Dense(2)
    model = keras.Model(text, head(y))
    probed = pg.instrument(model, [pg.InputGradient(target=1)])
    slopes = np.asarray(head.kernel)[:, 1]
    for rows in ([["the cat"], ["a dog sat there"]], [["cat"], ["ran"], ["a cat ran to it"]]):
        found = np.asarray(probed(tf.constant(rows))["input_gradient/text"])
        if how == "n-grams":
            expected = np.broadcast_to(slopes / 7, (len(rows), 7, 3))
        else:
            weights = split._lookup_layer.idf_weights if how == "tf_idf" else 1.0
            expected = np.broadcast_to(slopes * np.asarray(weights), (len(rows), len(slopes)))
        np.testing.assert_allclose(found, expected, rtol=1e-5)
