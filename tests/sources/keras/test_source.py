"""What a model takes and returns, and files of models."""

import json
import warnings

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen import runtime
from probegen.errors import InputError, SourceError
from probegen.sources.keras.keras_model import as_keras_model
from tests import models


@keras.saving.register_keras_serializable(package="probegen_tests")
class ImageAndMeta(keras.Model):
    """Takes two arguments; the second decides as much as the first."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(3, 3, activation="tanh", name="conv")
        self.pool = layers.GlobalAveragePooling2D(name="pool")
        self.head = layers.Dense(4, name="head")

    def call(self, image, meta, scale=None):
        y = self.head(ops.concatenate([self.pool(self.conv(image)), meta], axis=-1))
        return y if scale is None else y * scale


class TakesIds(keras.Model):
    """Looks rows up by itself, so that only integers will do."""

    def __init__(self):
        super().__init__()
        self.table = self.add_weight(shape=(10, 4), name="table", initializer="glorot_uniform")
        self.head = layers.Dense(3, name="head")

    def call(self, x):
        return self.head(ops.mean(ops.take(self.table, x, axis=0), axis=1))


def image_and_meta():
    model = ImageAndMeta()
    data = {"image": models.images((7, 6, 2)), "meta": models.images((5,))}
    model(data["image"], data["meta"])
    return model, data


def test_a_call_of_several_arguments(tmp_path):
    model, data = image_and_meta()
    probed = pg.instrument(model, pg.InputGradient(target=2), inputs=data)
    assert probed.keras_model.input_names == ("image", "meta")
    pg.export(probed, tmp_path / "m.onnx", samples=data)
    art = runtime.load(tmp_path / "m.onnx")
    result = art.run({k: v[:2] for k, v in data.items()})
    expected = np.asarray(model(data["image"][:2], data["meta"][:2]))
    np.testing.assert_allclose(result["output"].array, expected, atol=1e-5)
    # The output is linear in meta, so its gradient is a column of the last weights.
    kernel = np.asarray(model.head.kernel)[3:, 2]
    np.testing.assert_allclose(
        result["input_gradient/meta"].array, np.tile(kernel, (2, 1)), rtol=1e-5
    )


def test_arguments_by_position_and_optional_ones():
    model, data = image_and_meta()
    source = as_keras_model(model, [data["image"], data["meta"]])
    assert source.arguments == ("image", "meta")
    scaled = as_keras_model(model, {**data, "scale": np.ones((3, 1), np.float32)})
    assert scaled.input_names == ("image", "meta", "scale")
    flat = [data["image"], data["meta"], np.full((len(data["meta"]), 1), 3, np.float32)]
    np.testing.assert_allclose(
        scaled.call(flat), 3 * np.asarray(model(data["image"], data["meta"])), rtol=1e-5
    )


def test_several_arguments_survive_saving(tmp_path):
    model, data = image_and_meta()
    probed = pg.instrument(model, pg.Saliency(target=1), inputs=data)
    probed.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again(data)["output"], probed(data)["output"], rtol=1e-6)


def test_several_arguments_need_samples():
    model, _ = image_and_meta()
    with pytest.raises(SourceError, match=r"inputs=\{'image': image, 'meta': meta\}"):
        pg.inspect(model)


def test_ids_of_a_subclassed_model():
    model = TakesIds()
    ids = np.array([[1, 2, 9], [0, 0, 3]], np.int32)
    model(ids)
    with pytest.raises(SourceError, match=r"int32 ids, say.*inputs= with sample arrays"):
        pg.inspect(model)
    points = pg.inspect(model, inputs=keras.InputSpec(shape=(None, None), dtype="int32"))
    assert points[0].shape == (None, None)
    # A specification without an element type means Keras' own.
    points = pg.inspect(models.Subclassed(), inputs=keras.InputSpec(shape=(None, 11, 8, 2)))
    assert points[0].shape[0] is None


def test_sizes_of_a_first_call_are_told():
    model = models.Subclassed()
    model(models.images((11, 8, 2)))
    with pytest.warns(UserWarning, match=r"\(None, 11, 8, 2\) alone.*inputs=keras.InputSpec"):
        as_keras_model(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_keras_model(model, keras.InputSpec(shape=(None, 11, 8, 2), dtype="float32"))


# -- batch -------------------------------------------------------------------------------------


def test_a_declared_batch_is_kept(tmp_path):
    x = keras.Input(batch_shape=(4, 7, 6, 2), name="x")
    y = ops.reshape(layers.Conv2D(3, 3)(x), (4, -1))
    model = keras.Model(x, layers.Dense(5, name="y")(y))
    for dynamic in (True, False):
        path = tmp_path / f"{dynamic}.onnx"
        pg.compile(model, pg.Saliency(target=1), path, dynamic_batch=dynamic)
        art = runtime.load(path)
        assert art.inputs[0].shape == (4, 7, 6, 2)
        data = models.images((7, 6, 2))[:1].repeat(4, axis=0) * np.arange(1, 5).reshape(4, 1, 1, 1)
        np.testing.assert_allclose(art.run(data)["y"].array, model(data), atol=1e-5)
    both = np.concatenate([data, -data])
    expected = np.concatenate([model(data), model(-data)])
    np.testing.assert_allclose(art.run_batched(both, 4)["y"].array, expected, atol=1e-5)
    with pytest.raises(InputError, match="takes 4 rows at a time, and 3 of 7 are left over"):
        art.run_batched(both[:7], 4)
    with pytest.raises(InputError, match="expected 4"):
        art.run_batched(both, 2)


def test_a_sequential_model_is_not_bound_to_its_first_data():
    model = keras.Sequential([layers.Dense(3), layers.Dense(2)])
    model(np.zeros((4, 5), np.float32))
    assert as_keras_model(model).batch is None
    bound = keras.Sequential(
        [keras.Input(batch_shape=(4, 6, 2)), layers.Lambda(lambda x: ops.reshape(x, (4, 12)))]
    )
    assert as_keras_model(bound).batch == 4


def test_inputs_of_different_batch_sizes():
    a, b = keras.Input(batch_shape=(4, 3)), keras.Input(batch_shape=(2, 3))
    with pytest.raises(SourceError, match=r"different batch sizes, \[2, 4\]"):
        as_keras_model(keras.Model([a, b], [layers.Dense(1)(a), layers.Dense(1)(b)]))


# -- outputs -----------------------------------------------------------------------------------


def test_dict_outputs_keep_their_keys(tmp_path):
    x = keras.Input((5,), name="x")
    risk = layers.Dense(1, activation="sigmoid", name="d1")(x)
    kind = layers.Dense(3, activation="softmax", name="d2")(x)
    model = keras.Model(x, {"risk": risk, "kind": kind})
    pg.compile(model, pg.InputGradient(target=2, output="kind"), tmp_path / "m.onnx")
    data = models.images((5,))
    result = runtime.load(tmp_path / "m.onnx").run(data)
    expected = model(data)
    for name in ("risk", "kind"):
        np.testing.assert_allclose(result[name].array, expected[name], atol=1e-6)
    gradient = np.tile(np.asarray(model.get_layer("d2").kernel)[:, 2], (len(data), 1))
    np.testing.assert_allclose(result["input_gradient/x"].array, gradient, rtol=1e-5)


def test_names_of_nested_and_repeated_outputs():
    x = keras.Input((6, 2), name="x")
    a, b = layers.Dense(1, name="a")(x), layers.Dense(2, name="b")(x)
    assert as_keras_model(keras.Model(x, {"v": [a, b], "u": b})).output_names == ("u", "v_0", "v_1")
    states = layers.LSTM(3, return_state=True, name="lstm")(x)
    assert as_keras_model(keras.Model(x, states)).output_names == ("lstm", "lstm:1", "lstm:2")


# -- files -------------------------------------------------------------------------------------


def rewritten(path, change):
    """Changes the config in an `.h5` file, as Keras 2 would have written it."""
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            change(layer)
        file.attrs["model_config"] = json.dumps(config).encode()


@pytest.mark.parametrize("value", [False, True])
def test_time_major_of_keras_2(tmp_path, value):
    x = keras.Input((6, 2), name="x")
    model = keras.Model(x, layers.Bidirectional(layers.LSTM(3), name="rnn")(x))
    path = tmp_path / "old.h5"
    model.save(path)

    def change(layer):
        if layer["class_name"] == "Bidirectional":
            layer["config"]["layer"]["config"]["time_major"] = value

    rewritten(path, change)
    from_config = layers.LSTM.from_config.__func__
    if value:
        with pytest.raises(SourceError, match=r"time_major.*custom_objects="):
            pg.inspect(path)
    else:
        data = models.images((6, 2))
        np.testing.assert_allclose(as_keras_model(path).model(data), model(data), rtol=1e-6)
        assert layers.LSTM.from_config.__func__ is from_config  # Keras is as it was


def test_groups_of_an_old_depthwise_convolution(tmp_path):
    x = keras.Input((7, 6, 2), name="x")
    model = keras.Model(x, layers.DepthwiseConv2D(3, name="dw")(x))
    path = tmp_path / "old.h5"
    model.save(path)
    rewritten(
        path, lambda la: la["config"].update(groups=1) if "Depth" in la["class_name"] else None
    )
    data = models.images((7, 6, 2))
    np.testing.assert_allclose(as_keras_model(path).model(data), model(data), rtol=1e-6)


def test_files_that_no_model_comes_out_of(tmp_path):
    model = models.cnn()
    model.save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(SourceError, match=r"weights alone.*model.load_weights\('m.weights.h5'\)"):
        pg.inspect(tmp_path / "m.weights.h5")
    x = keras.Input((3,))
    keras.Model(x, layers.Lambda(lambda v: v * 2)(x)).save(tmp_path / "lambda.keras")
    with pytest.raises(SourceError, match=r"'lambda.keras', safe_mode=False\), and pass"):
        pg.inspect(tmp_path / "lambda.keras")
    with pytest.raises(SourceError, match="is a folder"):
        pg.inspect(tmp_path)


def test_a_sequential_model_whose_build_failed():
    model = keras.Sequential([layers.Dense(3), layers.Conv2D(2, 3)])
    with pytest.raises(ValueError, match="expected min_ndim=4"):
        model(np.zeros((2, 5), np.float32))
    with pytest.raises(SourceError, match="is not built"):
        pg.inspect(model)
    with pytest.raises(SourceError, match=r"fails on inputs of .*float32"):
        pg.inspect(model, inputs=np.zeros((2, 5), np.float32))


def test_a_sequential_model_that_keras_cannot_infer():
    class NoShape(layers.Layer):
        def call(self, x):
            return x * 2

        def compute_output_spec(self, x):
            raise NotImplementedError

    model = keras.Sequential([NoShape(name="double"), layers.Dense(2)])
    model(np.ones((2, 5), np.float32))
    assert pg.inspect(model)[0].shape == (None, 5)


@keras.saving.register_keras_serializable(package="probegen_tests")
class WithoutOneDNN(layers.Layer):
    """Fails as a transposed convolution with holes does where TensorFlow runs without oneDNN."""

    def call(self, x):
        if tf.executing_eagerly():
            said = "Current CPU implementations do not yet support dilation rates larger than 1."
            raise tf.errors.InvalidArgumentError(None, None, said)
        return x


def test_what_tensorflow_cannot_run_says_how_it_can(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, WithoutOneDNN()(layers.Dense(3)(x)))
    for given in ({}, {"samples": np.ones((2, 4), "float32")}):
        with pytest.raises(SourceError, match=r"TF_ENABLE_ONEDNN_OPTS=1 before"):
            pg.compile(model, pg.InputGradient(), tmp_path / "m.onnx", **given)
    assert not list(tmp_path.iterdir())
