"""Small models in every precision, and models that combine what the layers do alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import layers as kl

from sweep.subject import Subject, stir

_POLICIES = ("mixed_float16", "mixed_bfloat16", "float16", "float64")


def subjects() -> list[Subject]:
    """Returns small models of every kind under each dtype policy."""
    models = {
        "cnn": _cnn,
        "pooled and resized": _pooled,
        "transformer": _transformer,
        "recurrent": _recurrent,
    }
    return [
        Subject(f"{policy}: {name}", _under(policy, build), in_float32="bfloat16" in policy)
        for policy in _POLICIES
        for name, build in models.items()
    ]


def _under(policy: str, build: Callable[[], Any]) -> Callable[[], Any]:
    def made() -> Any:
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            keras.utils.set_random_seed(3)
            model = build()
            stir(model)
        finally:
            keras.config.set_dtype_policy(before)
        return model

    return made


def _cnn() -> Any:
    x = keras.Input((11, 8, 2), name="image")
    y = kl.Conv2D(5, 3, padding="same", strides=2)(x)
    y = kl.Activation("swish")(kl.BatchNormalization()(y))
    y = kl.AveragePooling2D(2)(kl.DepthwiseConv2D(3, padding="same")(y))
    y = kl.GlobalAveragePooling2D()(y)
    return keras.Model(x, kl.Dense(3, activation="softmax")(y))


def _pooled() -> Any:
    x = keras.Input((11, 8, 2), name="image")
    y = kl.Conv2D(5, 3, padding="same", activation="tanh")(x)
    y = kl.Resizing(13, 7)(kl.MaxPooling2D(3, 2)(y))
    y = kl.UpSampling2D(2)(y)
    return keras.Model(x, kl.Dense(3, activation="softmax")(kl.GlobalMaxPooling2D()(y)))


def _transformer() -> Any:
    x = keras.Input((9,), dtype="int32", name="tokens")
    y = kl.Embedding(13, 6, mask_zero=True)(x)
    y = kl.LayerNormalization()(y + kl.MultiHeadAttention(2, 3)(y, y))
    y = kl.LayerNormalization()(y + kl.Dense(6)(kl.Dense(12, activation="gelu")(y)))
    return keras.Model(x, kl.Dense(3, activation="softmax")(kl.GlobalAveragePooling1D()(y)))


def _recurrent() -> Any:
    x = keras.Input((13, 2), name="series")
    y = kl.GRU(4)(kl.LSTM(5, return_sequences=True)(x))
    return keras.Model(x, kl.Dense(1)(y))
