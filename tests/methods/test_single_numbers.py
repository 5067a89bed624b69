"""Inputs that are one number a sample, `[batch]`, as `keras.Input(())` makes them."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError


def test_methods_by_scores_hide_the_number(tmp_path: Path) -> None:
    a, b = keras.Input((), name="a"), keras.Input((), name="b")
    score = keras.layers.Identity(name="score")(ops.expand_dims(2 * a + a * b, -1))
    probes = [
        pg.Occlusion(window=3, fill=1.0),
        pg.FeatureAblation(),
        pg.KernelSHAP(),
        pg.LIME(samples=40, kernel_width=1.0, ridge=1e-6),
    ]
    pg.compile(keras.Model([a, b], score), probes, tmp_path / "m.onnx")
    x, y = np.array([1.0, -3.0, 0.0], np.float32), np.array([0.5, 4.0, 2.0], np.float32)
    result = runtime.load(tmp_path / "m.onnx").run({"a": x, "b": y})
    for kind in ("feature_ablation", "kernel_shap", "lime"):
        np.testing.assert_allclose(result[f"{kind}/a"].array, 2 * x + x * y, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(result[f"{kind}/b"].array, x * y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result["occlusion/a"].array, (x - 1) * (2 + y), rtol=1e-5)
    np.testing.assert_allclose(result["occlusion/b"].array, x * (y - 1), rtol=1e-5)


def test_a_score_of_the_whole_batch_explains_no_sample(tmp_path: Path) -> None:
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Identity(name="loss")(ops.mean(keras.layers.Dense(2)(x))))
    with pytest.raises(InstrumentError, match="'loss' is one number for the whole batch"):
        pg.compile(model, [pg.InputGradient()], tmp_path / "m.onnx")


#: What hides an id leaves of its vector: zeros, which `FeatureAblation` and the two games fill in.
GAMES = [pg.FeatureAblation(), pg.KernelSHAP(), pg.LIME(samples=40, kernel_width=1.0, ridge=1e-6)]


@pytest.mark.parametrize("one_hot", [False, True])
def test_an_id_a_sample_is_hidden_as_a_whole(tmp_path: Path, one_hot: bool) -> None:
    """Its vector has no positions, and a single entry of it means nothing to anybody."""
    city, age = keras.Input((), dtype="int32", name="city"), keras.Input((2,), name="age")
    embed = keras.layers.Embedding(5, 3, embeddings_initializer="normal")
    vector = ops.one_hot(city, 5) if one_hot else embed(city)
    score = keras.layers.Dense(2, name="score", bias_initializer="normal")
    model = keras.Model([city, age], score(ops.concatenate([vector * age[:, :1], age], -1)))
    pg.compile(model, [*GAMES, pg.Saliency(), pg.Occlusion(window=2)], tmp_path / "m.onnx")
    feed = {"city": np.array([0, 4, 4], np.int32), "age": np.float32([[1, 2], [-3, 0], [0, 1]])}
    result = runtime.load(tmp_path / "m.onnx").run(feed)
    vectors = np.asarray(ops.one_hot(feed["city"], 5) if one_hot else embed(feed["city"]))
    kernel = np.asarray(score.kernel)[: vectors.shape[1]].T[result["score"].array.argmax(1)]
    share = (vectors * kernel).sum(1) * feed["age"][:, 0]
    for kind in ("feature_ablation", "kernel_shap", "lime", "occlusion"):
        given = result[f"{kind}/city"]
        assert given.axes == ("batch",)
        np.testing.assert_allclose(given.array, share, rtol=1e-4, atol=1e-5)
    slopes = np.abs(kernel * feed["age"][:, :1]).max(1)
    np.testing.assert_allclose(result["saliency/city"].array, slopes, rtol=1e-5)


def test_a_column_of_words_is_hidden_as_a_whole_and_a_number_before_its_bin(
    tmp_path: Path,
) -> None:
    """The artefact's input is the one-hot vector of the word; the graph finds the bin of 0."""
    kind = keras.Input((1,), dtype="string", name="kind")
    age, rest = keras.Input((1,), name="age"), keras.Input((2,), name="rest")
    word = keras.layers.StringLookup(vocabulary=["x", "y", "z"], output_mode="one_hot")
    bins = keras.layers.Discretization(bin_boundaries=[0.0, 1.0], output_mode="one_hot")
    vectors = [word(kind), bins(age), rest]
    score = keras.layers.Dense(2, name="score")
    model = keras.Model([kind, age, rest], score(keras.layers.Concatenate()(vectors)))
    pg.compile(model, [pg.FeatureAblation(target=1), pg.KernelSHAP(target=1)], tmp_path / "m.onnx")
    feed = {
        "kind": np.array([["y"], ["?"]], object),
        "age": np.float32([[0.5], [-1]]),
        "rest": np.float32([[1, 2], [0, -3]]),
    }
    result = runtime.load(tmp_path / "m.onnx").run(feed)
    kernel = np.asarray(score.kernel)[:, 1]
    for method in ("feature_ablation", "kernel_shap"):
        given = result[f"{method}/kind"]
        assert given.axes == ("batch",)
        np.testing.assert_allclose(given.array, kernel[[2, 0]], rtol=1e-4, atol=1e-6)
        given = result[f"{method}/age"]
        assert given.axes == ("batch", "feature")
        moved = [[0], [kernel[4] - kernel[5]]]
        np.testing.assert_allclose(given.array, moved, rtol=1e-4, atol=1e-6)


def test_all_that_an_id_looks_up_is_hidden_together(tmp_path: Path) -> None:
    user = keras.Input((), dtype="int32", name="user")
    wide = keras.layers.Embedding(4, 3, embeddings_initializer="normal")
    bias = keras.layers.Embedding(4, 1, embeddings_initializer="normal")
    score = keras.layers.Dense(2, name="score")
    model = keras.Model(user, score(ops.sin(wide(user)) * (1 + bias(user))))
    pg.compile(model, [pg.FeatureAblation()], tmp_path / "m.onnx")
    ids = np.array([3, 0], np.int32)
    result = runtime.load(tmp_path / "m.onnx").run(ids)
    best = result["score"].array.max(1)
    np.testing.assert_allclose(result["feature_ablation/user"].array, best, rtol=1e-4)


def test_counts_of_ids_are_features_that_are_hidden_one_by_one(tmp_path: Path) -> None:
    bag = keras.Input((4,), dtype="int32", name="bag")
    count = keras.layers.CategoryEncoding(6, output_mode="count")
    score = keras.layers.Dense(2, name="score")
    pg.compile(keras.Model(bag, score(count(bag))), [pg.FeatureAblation()], tmp_path / "m.onnx")
    ids = np.array([[0, 5, 5, 1], [2, 2, 2, 2]], np.int32)
    result = runtime.load(tmp_path / "m.onnx").run(ids)
    kernel = np.asarray(score.kernel).T[result["score"].array.argmax(1)]
    given = result["feature_ablation/bag"]
    assert given.axes == ("batch", "feature")
    np.testing.assert_allclose(given.array, np.asarray(count(ids)) * kernel, rtol=1e-4, atol=1e-6)
