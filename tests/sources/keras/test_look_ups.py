"""`IntegerLookup` in ONNX: by itself, in every mode, and behind layers that make ids of strings."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.sources.keras.look_ups import look_up

KEYS = [7, -3, 40, 5, 10**12]
MODES = {
    "usual": {},
    "several unknown": {"num_oov_indices": 3},
    "masked": {"mask_token": 0},
    "counted": {"output_mode": "count"},
    "multi-hot": {"output_mode": "multi_hot", "max_tokens": 8, "pad_to_max_tokens": True},
}


def model_of(options):
    keras.utils.set_random_seed(1)
    x = keras.Input((4,), dtype="int64", name="codes")
    look = layers.IntegerLookup(vocabulary=KEYS, **options)
    y = look(x)
    if options.get("output_mode") is None:
        y = layers.Flatten()(layers.Embedding(9, 3, name="embedding")(y))
    return keras.Model(x, layers.Dense(2, name="head")(y))


@pytest.mark.parametrize("mode", MODES)
def test_codes_are_looked_up_as_by_keras(mode, tmp_path):
    model = model_of(MODES[mode])
    whole = "output_mode" in MODES[mode]
    probes = [pg.Activations("head")] if whole else [pg.InputGradient(target=1)]
    exported = pg.compile(model, probes, tmp_path / "m.onnx")
    assert exported.report.passed
    codes = np.array([[7, 8, -3, 40], [5, 10**12, 0, -1], [6, 7, 7, 41]], np.int64)
    got = runtime.load(tmp_path / "m.onnx").run(codes)
    np.testing.assert_allclose(got["head"].array, model(codes), rtol=1e-5, atol=1e-6)
    if not whole:
        rows = got["input_gradient/codes"].array
        kernel = np.asarray(model.get_layer("head").kernel)[:, 1]
        np.testing.assert_allclose(rows.reshape(3, -1), np.tile(kernel, (3, 1)), rtol=1e-5)


@pytest.mark.parametrize("mode", ["int", "one_hot", "count"])
def test_codes_beside_numbers_are_explained_unasked(mode):
    """The search for a key is made of comparisons, as masks are: codes were left out for that."""
    x = keras.Input((1,), dtype="int64", name="codes")
    z = keras.Input((2,), name="z")
    y = layers.IntegerLookup(vocabulary=KEYS, output_mode=mode)(x)
    if mode == "int":
        y = layers.Flatten()(layers.Embedding(9, 3)(y))
    model = keras.Model([x, z], layers.Dense(2, name="head")(layers.Concatenate()([y, z])))
    probed = pg.instrument(model, [pg.InputGradient(target=1), pg.FeatureAblation(target=1)])
    made = [output.name for output in probed.manifest.explanations]
    assert made == [f"{kind}/{of}" for kind in ("input_gradient", "feature_ablation")
                    for of in ("codes", "z")]  # fmt: skip
    got = probed([np.array([[7], [8]]), np.ones((2, 2), np.float32)])
    rows = np.asarray(model.get_layer("head").kernel)[:-2, 1]
    np.testing.assert_allclose(
        np.reshape(got["input_gradient/codes"], (2, -1)), np.tile(rows, (2, 1)), rtol=1e-5
    )


def test_behind_layers_that_make_ids_of_strings(tmp_path):
    keras.utils.set_random_seed(2)
    x = keras.Input((1,), dtype="string", name="text")
    words = layers.TextVectorization(vocabulary=["the", "cat", "mat"], output_sequence_length=5)
    ids = layers.IntegerLookup(vocabulary=[3, 2], mask_token=0)(words(x))
    y = layers.GlobalAveragePooling1D()(layers.Embedding(5, 3)(ids))
    model = keras.Model(x, layers.Dense(2, name="y")(y))
    pg.compile(model, [pg.Saliency(target=1)], tmp_path / "m.onnx")
    texts = ["the cat", "a mat on the mat", ""]
    got = runtime.load(tmp_path / "m.onnx").run(texts)["y"].array
    expected = model(keras.ops.convert_to_tensor(texts)[:, None])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 8, 300])
def test_tables_of_any_size(count):
    """Every key, what lies beside it, and the ends of 64 bits."""
    rng = np.random.default_rng(count)
    ends = [-(2**63), 2**63 - 1]
    keys = rng.permutation([*rng.choice(2 * count, max(0, count - 2), replace=False), *ends])[
        :count
    ]
    values = rng.permutation(count) + 10
    made = tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.constant(values))
    table = tf.lookup.StaticHashTable(made, -7)
    asked = np.array([*keys, *keys[np.abs(keys) < 2**62] + 1, -1, 0, *ends])[np.newaxis]
    found = look_up(tf.lookup.StaticHashTable.lookup, table, tf.constant(asked))
    assert found.shape == asked.shape
    np.testing.assert_array_equal(found, table.lookup(tf.constant(asked)))


def test_unknown_numbers_go_to_the_row_that_their_hash_says(tmp_path):
    x = keras.Input((4,), dtype="int64", name="codes")
    look = layers.IntegerLookup(vocabulary=KEYS, invert=False, num_oov_indices=2)
    look.oov_method = "farmhash"  # hashes what it writes as text
    model = keras.Model(x, layers.Embedding(9, 3)(look(x)))
    pg.compile(model, [], tmp_path / "m.onnx")
    codes = np.array([[-1, 0, 77, 10**12], [5, -3, 8_000_000, 12]])
    got = runtime.load(tmp_path / "m.onnx").run(codes)
    (name,) = got
    np.testing.assert_allclose(got[name].array, model(codes), rtol=1e-6)
