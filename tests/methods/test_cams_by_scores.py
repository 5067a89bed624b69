"""Score-CAM and Recipro-CAM against plain loops over parts of the model."""

import math

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SelectionError, SpecError
from probegen.methods.by_scores import masked, share_of_range
from probegen.methods.numpy_operations import NumpyOperations
from probegen.sources.keras.array_operations import TensorFlowOperations
from tests import models
from tests.methods.scoring import best_of, scans_in, scores_of


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5 * np.abs(expected).max())


def stretched(values, size, axis):
    """Values interpolated linearly along an axis, centres of pixels on centres."""
    count = values.shape[axis]
    at = np.clip((np.arange(size) + 0.5) * count / size - 0.5, 0, count - 1)
    return np.apply_along_axis(lambda line: np.interp(at, np.arange(count), line), axis, values)


def brought_to_one(values):
    """Values of each sample from 0 to 1."""
    over = tuple(range(1, values.ndim))
    least, most = values.min(over, keepdims=True), values.max(over, keepdims=True)
    varies = most - least > 1e-9  # more than what interpolation makes of equal numbers
    return np.where(varies, (values - least) / np.where(varies, most - least, 1), 0)


def output_of(model, layer, x):
    part = keras.Model(model.inputs, model.get_layer(layer).output)
    return part.predict_on_batch(x).astype(np.float64)


def score_cam(best, maps, x):
    """Softmax over the channels of the scores of the input times each of the maps."""
    scores = []
    for channel in np.moveaxis(maps, -1, 0):
        mask = channel
        for axis in range(1, mask.ndim):
            mask = stretched(mask, x.shape[axis], axis)
        scores.append(best((x * brought_to_one(mask)[..., None]).astype(x.dtype)))
    weights = np.exp(np.stack(scores, -1) - np.max(scores, 0)[:, None])
    weights /= weights.sum(1, keepdims=True)
    return np.maximum((maps * weights.reshape(len(x), *[1] * (maps.ndim - 2), -1)).sum(-1), 0)


def recipro_cam(best, maps, gaussian=True):
    """Scores of the maps around each position alone, from 0 to 1."""
    sizes = maps.shape[1:-1]
    found = np.zeros(maps.shape[:-1])
    for place in np.ndindex(*sizes):
        mask = np.ones(())
        for size, at in zip(sizes, place, strict=True):
            off = np.abs(np.arange(size) - at)
            line = np.choose(np.minimum(off, 2), [0.5, 0.25, 0] if gaussian else [1, 0, 0])
            mask = mask[..., None] * line
        found[(slice(None), *place)] = best(maps * mask[..., None])
    return brought_to_one(found)


def behind(model, layer, x):
    """The score of the best class at `x` as a function of a layer's output."""
    part = keras.Model(model.get_layer(layer).output, model.layers[-1].input)
    kernel, bias = (v.astype(np.float64) for v in model.layers[-1].get_weights())
    classes = scores_of(model)(x).argmax(1)

    def score(values):
        scores = part.predict_on_batch(values.astype(np.float32)).astype(np.float64)
        return (scores @ kernel + bias)[np.arange(len(classes)), classes]

    return score


def volumes():
    keras.utils.set_random_seed(7)
    x = keras.Input((5, 6, 4, 2), name="volume")
    y = layers.Conv3D(3, 2, activation="relu", name="conv")(x)
    y = layers.GlobalAveragePooling3D()(y)
    return keras.Model(x, layers.Dense(3, activation="softmax")(y)), (5, 6, 4, 2)


def series():
    keras.utils.set_random_seed(8)
    x = keras.Input((13, 2), name="series")
    y = layers.Conv1D(4, 3, strides=2, activation="tanh", name="conv")(x)
    y = layers.GlobalAveragePooling1D()(y)
    return keras.Model(x, layers.Dense(3, activation="softmax")(y)), (13, 2)


MODELS = {"1-D": (series, "conv"), "3-D": (volumes, "conv")}


@pytest.mark.parametrize("path", ["m.onnx", "saved"])
def test_an_image(tmp_path, path):
    model = models.cnn()
    probes = [pg.ScoreCAM(chunk=3), pg.ReciproCAM(), pg.ReciproCAM("pool1", gaussian=False)]
    exported = pg.compile(model, probes, tmp_path / path)
    assert all(p.passed for p in exported.report.values())
    art = runtime.load(tmp_path / path)
    for count in (1, 3):
        x = models.images((11, 8, 2), seed=count, count=count)
        found, maps = art.run(x), output_of(model, "conv2", x)
        best = best_of(scores_of(model))(x)
        close(found["score_cam/conv2"].array, score_cam(best, maps, x))
        close(found["recipro_cam/conv2"].array, recipro_cam(behind(model, "conv2", x), maps))
        maps = output_of(model, "pool1", x)
        alone = recipro_cam(behind(model, "pool1", x), maps, gaussian=False)
        close(found["recipro_cam/pool1"].array, alone)
        for name in ("score_cam/conv2", "recipro_cam/conv2", "recipro_cam/pool1"):
            assert found[name].array.min() >= 0


@pytest.mark.parametrize("kind", MODELS)
def test_other_numbers_of_axes(tmp_path, kind):
    (make, layer), count = MODELS[kind], 2
    model, shape = make()
    pg.compile(model, [pg.ScoreCAM(), pg.ReciproCAM()], tmp_path / "m.onnx")
    x = models.images(shape, count=count)
    found, maps = runtime.load(tmp_path / "m.onnx").run(x), output_of(model, layer, x)
    close(found[f"score_cam/{layer}"].array, score_cam(best_of(scores_of(model))(x), maps, x))
    close(found[f"recipro_cam/{layer}"].array, recipro_cam(behind(model, layer, x), maps))


def test_an_onnx_file_says_the_same_as_the_keras_model_it_came_from(tmp_path):
    model, x = models.cnn(), models.images((11, 8, 2))
    pg.compile(model, [], tmp_path / "plain.onnx", gate=False, verify=False)
    plain = onnx.load(tmp_path / "plain.onnx")
    del plain.metadata_props[:]  # a file of somebody else
    onnx.save(plain, tmp_path / "source.onnx")
    source = pg.inspect(tmp_path / "source.onnx")
    path = [p.path for p in source if "grad_cam" in p.probes][-1]
    probes = [pg.ScoreCAM(path, name="score"), pg.ReciproCAM(path, name="recipro")]
    pg.compile(tmp_path / "source.onnx", [*probes, pg.Activations(path)], tmp_path / "m.onnx")
    found = runtime.load(tmp_path / "m.onnx").run(x)
    maps = np.moveaxis(found[f"activation/{path}"].array.astype(np.float64), 1, -1)
    close(found["score"].array, score_cam(best_of(scores_of(model))(x), maps, x))
    assert found["recipro"].array.shape == maps.shape[:-1]


def test_maps_in_the_size_of_the_input_and_open_sizes(tmp_path):
    keras.utils.set_random_seed(3)
    given = keras.Input((None, None, 2), name="image")
    y = layers.Conv2D(3, 3, activation="relu", name="conv")(given)
    model = keras.Model(given, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))
    probes = [pg.ScoreCAM(upsample=True), pg.ReciproCAM(chunk=4)]
    pg.compile(model, probes, tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    for sizes in ((9, 6), (5, 8)):
        x = models.images((*sizes, 2), count=2)
        found, maps = art.run(x), output_of(model, "conv", x)
        small = score_cam(best_of(scores_of(model))(x), maps, x)
        close(found["score_cam/conv"].array, stretched(stretched(small, sizes[0], 1), sizes[1], 2))
        close(found["recipro_cam/conv"].array, recipro_cam(behind(model, "conv", x), maps))


def test_a_map_that_is_the_same_everywhere_is_zero(tmp_path):
    model = models.cnn()
    pg.compile(model, pg.ReciproCAM("conv2"), tmp_path / "m.onnx", verify=False)
    dead = models.cnn()
    dead.get_layer("conv2").set_weights([w * 0 for w in dead.get_layer("conv2").get_weights()])
    pg.compile(dead, [pg.ReciproCAM("conv2"), pg.ScoreCAM("conv2")], tmp_path / "d.onnx")
    found = runtime.load(tmp_path / "d.onnx").run(models.images((11, 8, 2)))
    assert not found["recipro_cam/conv2"].array.any()
    assert not found["score_cam/conv2"].array.any()


@pytest.mark.parametrize("path", ["m.onnx", "saved"])
def test_scores_that_hardly_differ_make_a_faint_map(tmp_path, path):
    """A range of some hundred roundings of the scores is divided by more than itself."""
    model = models.cnn()
    last = model.layers[-1]
    last.bias.assign(last.bias + 300)
    pg.compile(model, pg.ReciproCAM("conv2", target=1), tmp_path / path)
    x = models.images((11, 8, 2))
    kernel, bias = (v.astype(np.float64) for v in last.get_weights())
    maps = output_of(model, "conv2", x)
    expected = np.zeros(maps.shape[:-1])
    for y, z in np.ndindex(*maps.shape[1:3]):
        for i, j in np.ndindex(*maps.shape[1:3]):
            off = (abs(i - y), abs(j - z))
            if max(off) < 2:
                weight = math.prod((0.5, 0.25)[o] for o in off) / (maps.shape[1] * maps.shape[2])
                expected[:, y, z] += weight * (maps[:, i, j] @ kernel[:, 1])
    expected -= expected.min((1, 2), keepdims=True)
    expected /= 1e-4 * bias[1]
    found = runtime.load(tmp_path / path).run(x)["recipro_cam/conv2"].array
    assert 0.02 < found.max() < 0.9
    np.testing.assert_allclose(found, expected, atol=4e-3)


def test_ranges_of_numbers():
    x = np.array([[5.0, 5.0 + 1e-6], [5.0, 5.0 + 1e-4], [5.0, 6.0], [0.0, 0.0], [-1e-9, 1e-9]])
    found = share_of_range(NumpyOperations(), x, (1,))
    np.testing.assert_allclose(found[:, 1], [0, 0.2, 1, 0, 1], rtol=1e-3)
    assert not found[:, 0].any()


def test_infinite_scores_count_as_equal():
    """Logits of 1e38 that are summed up are infinite, and their softmax was no number."""
    maps = np.random.default_rng(0).random((3, 4, 5)).astype(np.float32)
    inf, nan = np.inf, np.nan
    scores = np.array([[inf, inf, 1], [-inf, -inf, -inf], [2, inf, -inf], [0, nan, 1]], np.float32)
    weights = np.array([[0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [0, 1, 0], [nan, nan, nan]])
    for ops, of in ((NumpyOperations(), np.asarray), (TensorFlowOperations(), tf.constant)):
        found = pg.ScoreCAM().explained(ops, None, [of(maps)], [of(scores)], of(scores[:, 0]))
        expected = np.einsum("nc,cnp->np", weights, maps)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_saturated_channel_is_no_mask(tmp_path):
    """ReLU6 gives 6 at every position; resized that is 6 and 5.9999995, no map from 0 to 1."""
    image = keras.Input((11, 8, 2))
    y = layers.ReLU(6, name="conv")(layers.Conv2D(5, 3, strides=3)(image))
    model = keras.Model(image, layers.Dense(3)(layers.GlobalMaxPooling2D()(y)))
    model.layers[1].bias.assign([60.0, -4.0, 1.0, 90.0, 0.0])
    pg.compile(model, pg.ScoreCAM("conv", target=1), tmp_path / "m.onnx")
    x = models.images((11, 8, 2))
    maps = output_of(model, "conv", x)
    assert (maps[..., [0, 3]] == 6).all()
    scores = scores_of(model)
    expected = score_cam(lambda x: scores(x)[:, 1], maps, x)
    close(runtime.load(tmp_path / "m.onnx").run(x)["score_cam/conv"].array, expected)


@pytest.mark.parametrize("kinds", [("float16", "float64"), ("float64", "float32")])
def test_what_is_masked_is_rounded_once(kinds):
    """A float16 input of a float64 model was masked by masks of float16: 1e-3 beside the point."""
    rng, of_value, of_mask = np.random.default_rng(0), *kinds
    x = rng.normal(size=(2, 5, 3)).astype(of_value)
    mask = rng.random((4, 2, 5)).astype(of_mask)
    expected = (x.astype(np.float64) * mask[..., None]).astype(of_value)
    axes = ("batch", "time", "channel")
    for ops, of in ((NumpyOperations(), np.asarray), (TensorFlowOperations(), tf.constant)):
        found = np.asarray(masked(ops, of(x), of(mask), axes))
        assert found.dtype == of_value
        np.testing.assert_array_equal(found, expected)


def test_the_forward_pass_behind_the_layer_is_all_that_is_copied(tmp_path):
    pg.compile(models.cnn(), pg.ReciproCAM("pool1"), tmp_path / "m.onnx", verify=False, gate=False)
    assert scans_in(tmp_path / "m.onnx").count("Conv") == 1


def test_what_cannot_be(tmp_path):
    with pytest.raises(SpecError, match="gaussian= takes True or False"):
        pg.ReciproCAM(gaussian=2)
    given = keras.Input((12,), name="row")
    y = layers.Conv1D(4, 2, name="conv")(layers.Reshape((4, 3))(given))
    model = keras.Model(given, layers.Dense(2)(layers.Flatten()(y)))
    with pytest.raises(InstrumentError, match=r"'conv', whose positions are time; .*pg.ReciproCAM"):
        pg.compile(model, pg.ScoreCAM(), tmp_path / "m.onnx")
    with pytest.raises(SelectionError, match="cannot carry a Score-CAM"):
        pg.compile(models.cnn(), pg.ScoreCAM("gap"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
