"""TensorFlow operations that are converted by handlers of our own, and those that are refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen.errors import ExportError, UnsupportedOpsError
from probegen.parity import measure
from sweep.subject import stir


@pytest.fixture
def policy() -> Iterator[Callable[[str], None]]:
    """Sets the dtype policy, and puts the old one back."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def around(function: Callable[[Any], Any], shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Returns a model of one function, each of whose outputs has a gradient of its own."""
    keras.utils.set_random_seed(3)
    x = keras.Input(shape, dtype=dtype, name="x")
    y = layers.Lambda(function)(x) if not isinstance(function, layers.Layer) else function(x)
    y = layers.Flatten()(y if dtype is None else layers.Embedding(9, 3)(y))
    model = keras.Model(x, layers.Dense(3, name="scores")(layers.Activation("softsign")(y)))
    stir(model)
    return model


DIAGONALS = {
    "diag": (tf.linalg.diag, (5,)),
    "diag above": (lambda x: tf.linalg.diag(x, k=2), (5,)),
    "diag below, wider": (
        lambda x: tf.linalg.diag(x, k=-1, num_rows=5, num_cols=6, padding_value=0.5),
        (2, 4),
    ),
    "set diag": (lambda x: tf.linalg.set_diag(x, x[..., 0, :4] * 2), (4, 5)),
    "set diag below": (lambda x: tf.linalg.set_diag(x, x[..., 0, :3] * 2, k=-1), (4, 5)),
    "diag part": (lambda x: tf.linalg.diag_part(x, k=1), (4, 5)),
}


@pytest.mark.parametrize("name", DIAGONALS)
def test_diagonals(name: str, tmp_path: Path) -> None:
    function, shape = DIAGONALS[name]
    model = around(function, shape)
    pg.compile(model, [pg.InputGradient()], tmp_path / "m.onnx", verify=False)
    x = np.random.default_rng(0).standard_normal((3, *shape))
    report = measure(tmp_path / "m.onnx", model, x)
    assert all(p.max_rel < 1e-5 for p in report.values())


def test_open_matrices_are_refused(tmp_path: Path) -> None:
    x = keras.Input((None,), name="x")
    y = layers.Lambda(tf.linalg.diag, output_shape=(None, None))(x)
    y = layers.Lambda(lambda v: tf.reduce_sum(tf.tanh(v), 2)[:, :3], output_shape=(3,))(y)
    with pytest.raises(UnsupportedOpsError, match=r"MatrixDiagV3.*sizes known at compile time"):
        pg.compile(keras.Model(x, y), [pg.Saliency()], tmp_path / "m.onnx")


REFUSED = {
    "lookup": (layers.IntegerLookup(vocabulary=[3, 5, 7]), (4,), "int64", "Split the model"),
    "hashing": (layers.Hashing(9), (4,), "int64", "Split the model"),
    "inverse": (tf.linalg.inv, (4, 4), None, "MatrixInverse.*ONNX has no operator"),
    "spectrum": (
        lambda x: tf.math.real(tf.signal.fft(tf.cast(x, tf.complex64))),
        (8,),
        None,
        "cannot convert",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_says_what_to_do(name: str, tmp_path: Path) -> None:
    function, shape, dtype, says = REFUSED[name]
    with pytest.raises(ExportError, match=rf"(?s){says}.*format='savedmodel'"):
        pg.compile(around(function, shape, dtype), [pg.Saliency("argmax")], tmp_path / "m.onnx")


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_images_of_16_bits_are_pooled_and_resized(
    interpolation: str, policy: Callable[[str], None], tmp_path: Path
) -> None:
    """Where onnxruntime neither adds at indices nor mixes precisions."""
    policy("mixed_float16")
    x = keras.Input((11, 9, 3), name="image")
    y = layers.Conv2D(4, 3, padding="same", activation="tanh")(x)
    y = layers.MaxPooling2D(3, 2)(layers.Resizing(13, 17, interpolation=interpolation)(y))
    y = layers.Lambda(lambda v: tf.gather(v, [0, 2, 2, 1], axis=1))(y)
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(y)))
    exported = pg.compile(model, [pg.Saliency()], tmp_path / "m.onnx")
    assert exported.report["saliency/image"].l2_rel < 5e-3
    found = onnx.load(tmp_path / "m.onnx").graph
    kernels = [i for i in found.initializer if i.data_type == onnx.TensorProto.FLOAT16]
    assert kernels


def test_an_embedding_of_16_bits_adds_up_repeated_tokens(
    policy: Callable[[str], None], tmp_path: Path
) -> None:
    policy("mixed_float16")
    x = keras.Input((9,), dtype="int32", name="tokens")
    y = layers.Embedding(5, 6, name="embedding")(x)
    y = layers.Lambda(lambda v: tf.gather(v, [0, 8, 8, 3], axis=1))(y)
    y = layers.Dense(3)(layers.Flatten()(layers.Activation("tanh")(y)))
    exported = pg.compile(keras.Model(x, y), [pg.InputGradient()], tmp_path / "m.onnx")
    assert next(p for n, p in exported.report.items() if "gradient" in n).l2_rel < 5e-3


def test_a_bias_along_the_second_axis(tmp_path: Path) -> None:
    """Keras writes the sum of `[1, 4, 6]` and `[1, 4, 1]` so, where the batch is fixed."""
    model = around(lambda x: keras.ops.add(x, keras.ops.max(x, -1, keepdims=True)), (4, 6))
    path = tmp_path / "model.onnx"
    done = pg.compile(model, [pg.Saliency(target=1)], path, dynamic_batch=False)
    assert done.report is not None
    assert done.report.passed
