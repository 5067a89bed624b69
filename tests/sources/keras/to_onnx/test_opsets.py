"""Every opset from 13 to the newest of onnx: written right, or refused with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import UnsupportedOpsError
from sweep.subject import stir

NEWEST = onnx.defs.onnx_opset_version()

#: The newest version of the file format that onnxruntime of a year ago (1.22) loads.
MOST_IR = 10


def image() -> Any:
    x = keras.Input((11, 9, 3), name="image")
    y = layers.Conv2D(4, 3, strides=2, padding="same", activation="swish")(x)
    y = layers.MaxPooling2D(2, padding="same")(layers.BatchNormalization()(y))
    y = layers.Resizing(13, 7)(layers.UpSampling2D(2)(y))
    y = layers.AveragePooling2D(3, 2, padding="same")(y)
    return keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling2D()(y)))


def text() -> Any:
    x = keras.Input((9,), dtype="int32", name="tokens")
    y = layers.Embedding(13, 6, mask_zero=True)(x)
    y = layers.LayerNormalization()(y + layers.MultiHeadAttention(2, 3)(y, y))
    y = layers.RMSNormalization()(y + layers.Dense(6)(layers.Dense(12, activation="gelu")(y)))
    y = layers.GroupNormalization(2)(y)
    return keras.Model(x, layers.Dense(3, activation="softmax")(layers.Flatten()(y)))


def series() -> Any:
    x = keras.Input((None, 2), name="series")
    y = layers.Bidirectional(layers.LSTM(5))(layers.Masking()(x))
    return keras.Model(x, layers.Dense(1)(y))


def gated() -> Any:
    x = keras.Input((None, 2), name="series")
    return keras.Model(x, layers.Dense(1)(layers.GRU(4)(x)))


#: The oldest and the newest opset for each model, those between for one each: 15 is written by
#: tf2onnx as the oldest is, 21 is reached by onnx's converter as the newest is.
WRITTEN = [
    *((opset, make) for opset in (13, NEWEST) for make in (image, text, series)),
    (15, gated),
    (15, image),
    (21, text),
    (NEWEST, gated),
]


@pytest.mark.parametrize(("opset", "make"), WRITTEN)
def test_an_opset_is_written_right(opset: int, make: Callable[[], Any], tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    model = make()
    stir(model)
    exported = pg.compile(model, [pg.Saliency()], tmp_path / "m.onnx", opset=opset)
    proto = onnx.load(tmp_path / "m.onnx")
    assert exported.report.passed
    assert {o.domain: o.version for o in proto.opset_import} == {"": opset}
    assert proto.ir_version <= MOST_IR


def test_overlapping_maxima_need_a_scatter_that_adds(tmp_path: Path) -> None:
    x = keras.Input((11, 9, 3), name="image")
    y = layers.MaxPooling2D(3, 2, name="pool")(layers.Conv2D(4, 3)(x))
    model = keras.Model(x, layers.Dense(3)(layers.Flatten()(y)))
    with pytest.raises(UnsupportedOpsError, match=r"windows overlap.*needs opset 16.*'pool'"):
        pg.compile(model, [pg.Saliency()], tmp_path / "m.onnx", opset=15)
    pg.compile(model, [pg.Saliency()], tmp_path / "m.onnx", opset=16)


@pytest.mark.parametrize("opset", [13, 18])
def test_equal_maxima_over_all_positions_share_the_gradient(opset: int, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    x = keras.Input((5, 2), name="series")
    y = layers.GlobalMaxPooling1D()(layers.Conv1D(3, 1)(x))
    model = keras.Model(x, layers.Dense(2)(y))
    pg.compile(model, [pg.InputGradient(target=1)], tmp_path / "m.onnx", opset=opset)
    found = runtime.load(tmp_path / "m.onnx").run(np.full((3, 5, 2), 0.7, np.float32))
    gradient = found["input_gradient/series"].array
    np.testing.assert_allclose(gradient, np.repeat(gradient[:, :1], 5, axis=1), rtol=1e-5)
