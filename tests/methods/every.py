"""One probe of every method on one small network, for what must hold for all of them."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

import probegen as pg
from probegen import methods
from probegen.methods.base import Probe

HEIGHT, WIDTH, CHANNELS, CLASSES = 13, 10, 3, 4
TOKENS, LENGTH = 17, 7

_RNG = np.random.default_rng(0)
_BACKGROUND = _RNG.normal(size=(3, HEIGHT, WIDTH, CHANNELS)).astype(np.float32)
_VECTORS = _RNG.normal(size=(2, 6)).astype(np.float32)

#: Method -> a probe of it. A method that is not here has no arguments that it needs.
GIVEN: dict[str, Callable[[], Probe]] = {
    "Activations": lambda: pg.Activations("last"),
    "IntegratedGradients": lambda: pg.IntegratedGradients(6),
    "SmoothGrad": lambda: pg.SmoothGrad(samples=5, noise=0.1),
    "ExpectedGradients": lambda: pg.ExpectedGradients(_BACKGROUND, samples=6),
    "DeepLIFT": lambda: pg.DeepLIFT(0.1),
    "DeepSHAP": lambda: pg.DeepSHAP(_BACKGROUND),
    "Occlusion": lambda: pg.Occlusion(4, stride=3),
    "RISE": lambda: pg.RISE(masks=9, cells=3, keep=0.5),
    "FeatureAblation": lambda: pg.FeatureAblation("grid:3", 0.0),
    "KernelSHAP": lambda: pg.KernelSHAP("grid:2", samples=16),
    "LIME": lambda: pg.LIME("grid:2", samples=20),
    "ConceptSensitivity": lambda: pg.ConceptSensitivity("last", _VECTORS),
}
#: Methods of attention weights and of recurrent states: they are tried on the network of tokens.
OF_TOKENS = ("Attention", "AttentionRollout", "AttentionRelevance", "States")


def probes(of_tokens: bool = False) -> list[Probe]:
    """Returns a probe of every method, those of the network of tokens or the others."""
    chosen = [m for m in methods.METHODS if (m.__name__ in OF_TOKENS) == of_tokens]
    return [GIVEN.get(m.__name__, m)() for m in chosen]


def image_network(seed: int) -> keras.Model:
    """Returns a classifier of images."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((HEIGHT, WIDTH, CHANNELS), name="image")
    x = layers.Conv2D(5, 3, activation="relu", bias_initializer="normal")(image)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(6, (3, 2), activation="relu", name="last")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(7, activation="relu")(x)
    scores = layers.Dense(CLASSES, activation="softmax", name="scores")(x)
    return keras.Model(image, scores)


def token_network(seed: int) -> keras.Model:
    """Returns a classifier of tokens with two layers of self-attention and a recurrent one."""
    keras.utils.set_random_seed(seed)
    tokens = keras.Input((LENGTH,), dtype="int32", name="tokens")
    wide = keras.initializers.RandomNormal(stddev=3.0)  # else all attention is the same
    x = layers.Embedding(TOKENS, 6, embeddings_initializer=wide, name="embedding")(tokens)
    read = layers.LSTM(3, name="read")(x)
    for name in ("first", "second"):
        attended = layers.MultiHeadAttention(3, 2, name=name)(x, x)
        x = layers.LayerNormalization()(x + attended)
        x = x + layers.Dense(6, activation="tanh")(x)
    x = layers.Concatenate()([layers.GlobalAveragePooling1D()(x), read])
    scores = layers.Dense(CLASSES, name="scores")(x)
    return keras.Model(tokens, scores)


def images(count: int) -> np.ndarray:
    """Returns images with negative values, the second of them all zeros."""
    found = np.random.default_rng(1).normal(0.3, 1.0, (count, HEIGHT, WIDTH, CHANNELS))
    found[1:2] = 0.0
    return found.astype(np.float32)


def tokens(count: int) -> np.ndarray:
    """Returns rows of tokens, the second of them padding."""
    found = np.random.default_rng(2).integers(1, TOKENS, (count, LENGTH), dtype=np.int32)
    found[1:2] = 0
    return found
