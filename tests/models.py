"""Small models that the tests share: shapes are neither square nor round."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers


@keras.saving.register_keras_serializable(package="probegen_tests")
class Block(layers.Layer):
    """A transformer block of a custom layer around MultiHeadAttention."""

    def __init__(self, heads=2, size=5, **kwargs):
        super().__init__(**kwargs)
        self.heads, self.size = heads, size
        self.attention = layers.MultiHeadAttention(heads, size, name="mha")
        self.norm = layers.LayerNormalization(name="norm")
        self.supports_masking = True

    def build(self, shape):
        self.attention.build(shape, shape)
        self.norm.build(shape)
        self.dense = layers.Dense(shape[-1], activation="gelu", name="dense")
        self.dense.build(shape)
        self.built = True

    def call(self, x):
        return self.norm(x + self.dense(self.attention(x, x)))

    def get_config(self):
        return {**super().get_config(), "heads": self.heads, "size": self.size}


@keras.saving.register_keras_serializable(package="probegen_tests")
class Bahdanau(layers.Layer):
    """An attention layer that returns `(output, weights)`; its name does not say so."""

    def build(self, shape):
        self.score = self.add_weight(shape=(shape[-1], 1), name="score")

    def call(self, x):
        weights = keras.ops.softmax(keras.ops.matmul(keras.ops.tanh(x), self.score), axis=1)
        return keras.ops.sum(weights * x, axis=1), weights


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(5, 3, activation="tanh", name="conv")
        self.flat = layers.Flatten(name="flat")
        self.head = layers.Dense(4, activation="softmax", name="head")

    def call(self, x):
        return self.head(self.flat(self.conv(x)))


def cnn(classes=4, seed=1):
    """Two convolutions with batch normalisation and pooling: `[?, 11, 8, 2]` -> classes."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((11, 8, 2), name="image")
    y = layers.Conv2D(5, 3, padding="same", name="conv1")(x)
    y = layers.BatchNormalization(name="bn1")(y)
    y = layers.ReLU(name="relu1")(y)
    y = layers.MaxPooling2D(2, name="pool1")(y)
    y = layers.Conv2D(7, (3, 2), activation="relu", name="conv2")(y)
    y = layers.GlobalAveragePooling2D(name="gap")(y)
    y = layers.Dense(classes, activation="softmax", name="scores")(y)
    model = keras.Model(x, y, name="cnn")
    bn = model.get_layer("bn1")
    rng = np.random.default_rng(seed)
    bn.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in bn.get_weights()])
    return model


def transformer(seed=2):
    """Embedding with mask, two blocks, mean over time: int `[?, 9]` -> 3 classes."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((9,), dtype="int32", name="tokens")
    y = layers.Embedding(13, 6, mask_zero=True, name="embedding")(x)
    y = Block(name="block_1")(y)
    y = Block(heads=3, size=4, name="block_2")(y)
    y = layers.GlobalAveragePooling1D(name="mean")(y)
    y = layers.Dense(3, activation="softmax", name="scores")(y)
    return keras.Model(x, y, name="transformer")


def forecaster(seed=3):
    """Conv1D and LSTM over a fixed window: `[?, 17, 2]` -> one number."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((17, 2), name="window")
    y = layers.Conv1D(6, 3, padding="causal", activation="relu", name="conv")(x)
    y = layers.LSTM(5, name="lstm")(y)
    y = layers.Dense(1, name="next")(y)
    return keras.Model(x, y, name="forecaster")


def nested(seed=4):
    """A backbone model inside a model, one of its layers shared with the outside."""
    keras.utils.set_random_seed(seed)
    inner_in = keras.Input((10, 7, 3))
    y = layers.Conv2D(4, 3, activation="relu", name="conv1_out")(inner_in)
    y = layers.Conv2D(6, 3, activation="relu", name="conv2_out")(y)
    backbone = keras.Model(inner_in, y, name="backbone")
    x = keras.Input((10, 7, 3), name="image")
    y = layers.GlobalMaxPooling2D(name="pool")(backbone(x))
    return keras.Model(x, layers.Dense(3, name="head")(y), name="nested")


def siamese(seed=5):
    """Two inputs through one shared tower: the shared layer has two calls."""
    keras.utils.set_random_seed(seed)
    left, right = keras.Input((7,), name="left"), keras.Input((7,), name="right")
    shared = layers.Dense(5, activation="tanh", name="tower")
    y = layers.Concatenate(name="both")([shared(left), shared(right)])
    return keras.Model([left, right], layers.Dense(1, activation="sigmoid", name="same")(y))


def two_heads(seed=6):
    keras.utils.set_random_seed(seed)
    x = keras.Input((6, 5), name="x")
    y = layers.Dense(8, activation="relu", name="trunk")(layers.Flatten()(x))
    scores = layers.Dense(3, activation="softmax", name="label")(y)
    value = layers.Dense(1, name="value")(y)
    return keras.Model(x, [scores, value], name="two_heads")


def images(shape, seed=0, count=3):
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype("float32")


def tokens(length=9, vocabulary=13, seed=0, count=3, padded=True):
    drawn = np.random.default_rng(seed).integers(1, vocabulary, (count, length))
    if padded:
        drawn[0, -3:] = 0
        drawn[1, -1:] = 0
    return drawn.astype("int32")
