"""Layers as people write them themselves, for random models to be made of."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops


class Pooled(layers.Layer):  # type: ignore[misc]
    """Attention over positions as of Bahdanau, by a mask where there is one: `[batch, unit]`."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.supports_masking = True
        self.hidden = layers.Dense(4, activation="tanh", name="hidden")
        self.score = layers.Dense(1, name="score")

    def build(self, shape: Any) -> None:
        """Builds the two layers of the scores."""
        self.hidden.build(shape)
        self.score.build((*shape[:-1], 4))

    def call(self, x: Any, mask: Any = None) -> Any:
        """Returns the mean over the positions, weighed by a softmax."""
        scores = self.score(self.hidden(x))
        if mask is not None:
            scores = ops.where(ops.expand_dims(mask, -1), scores, ops.cast(-1e4, scores.dtype))
        return ops.sum(ops.softmax(scores, axis=1) * x, axis=1)

    def compute_mask(self, x: Any, mask: Any = None) -> Any:
        """Returns None: no positions are left."""
        del x, mask


class Block(layers.Layer):  # type: ignore[misc]
    """A transformer block, with the normalisation in front."""

    def __init__(self, heads: int = 2, size: int = 3, **given: Any) -> None:
        super().__init__(**given)
        self.supports_masking = True
        self.attention = layers.MultiHeadAttention(heads, size, name="mha")
        self.first, self.second = layers.LayerNormalization(), layers.LayerNormalization()

    def build(self, shape: Any) -> None:
        """Builds what it holds."""
        self.attention.build(shape, shape)
        self.first.build(shape)
        self.second.build(shape)
        self.dense = layers.Dense(shape[-1], activation="gelu", name="dense")
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        """Returns the sequence behind attention and a dense layer, each added."""
        y = self.first(x)
        x = x + self.attention(y, y)
        return x + self.dense(self.second(x))


class Excited(layers.Layer):  # type: ignore[misc]
    """Squeeze and excitation along the last axis."""

    def build(self, shape: Any) -> None:
        """Builds the two layers."""
        self.squeeze = layers.Dense(3, activation="relu")
        self.excite = layers.Dense(shape[-1], activation="sigmoid")
        self.squeeze.build((shape[0], shape[-1]))
        self.excite.build((shape[0], 3))

    def call(self, x: Any) -> Any:
        """Returns the tensor with each channel weighed."""
        axes = tuple(range(1, len(x.shape) - 1))
        weights = self.excite(self.squeeze(ops.mean(x, axis=axes)))
        for _ in axes:
            weights = ops.expand_dims(weights, 1)
        return x * weights


class Running(layers.Layer):  # type: ignore[misc]
    """A recurrence by TensorFlow's own loop: a leaky sum over the time axis."""

    def call(self, x: Any) -> Any:
        """Returns the last sum, `[batch, feature]`."""

        def step(t: Any, total: Any) -> Any:
            return t + 1, tf.tanh(0.7 * total + x[:, t])

        time = tf.shape(x)[1]
        start = tf.zeros_like(x[:, 0])
        return tf.while_loop(lambda t, _: t < time, step, (tf.constant(0), start))[1]

    def compute_output_shape(self, shape: Any) -> Any:
        """Returns the shape without the time."""
        return (shape[0], *shape[2:])


class Twice(layers.Layer):  # type: ignore[misc]
    """Calls one layer of its own two times."""

    def build(self, shape: Any) -> None:
        """Builds the layer."""
        self.inner = layers.Dense(shape[-1], activation="relu", name="inner")
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        """Returns the sum of both calls."""
        y = self.inner(x)
        return y + self.inner(0.5 * y - 0.1)


class Gathered(layers.Layer):  # type: ignore[misc]
    """TensorFlow's own operations: gathers, scatters, one-hot masks, a branch."""

    def call(self, x: Any) -> Any:
        """Returns the tensor with its largest entry of the last axis doubled, and rolled."""
        best = tf.argmax(x, axis=-1, output_type=tf.int32)
        doubled = x + x * tf.one_hot(best, tf.shape(x)[-1], dtype=x.dtype)
        flat = tf.reshape(doubled, [tf.shape(x)[0], -1])
        turned = tf.concat([flat[:, 1:], flat[:, :1]], axis=1)
        return tf.reshape(turned, tf.shape(x)) * tf.cast(1.5, x.dtype)

    def compute_output_shape(self, shape: Any) -> Any:
        """Returns the same shape."""
        return shape


class Outer(keras.Model):  # type: ignore[misc]
    """A model of one's own inside of another."""

    def __init__(self, units: int = 4, **given: Any) -> None:
        super().__init__(**given)
        self.one = layers.Dense(units, activation="silu", name="one")
        self.two = layers.Dense(units, name="two")

    def build(self, shape: Any) -> None:
        """Builds both layers."""
        self.one.build(shape)
        self.two.build(self.one.compute_output_shape(shape))

    def call(self, x: Any) -> Any:
        """Returns the second layer beside the first."""
        y = self.one(x)
        return y * ops.tanh(self.two(y))


class Whole(keras.Model):  # type: ignore[misc]
    """A model written as a class, all of which another model does."""

    def __init__(self, core: Any, **given: Any) -> None:
        super().__init__(**given)
        self.core = core

    def call(self, x: Any) -> Any:
        """Returns what the other model gives."""
        return self.core(x)

    @classmethod
    def of(cls, core: Any) -> Whole:
        """Returns such a model, called once as people call theirs."""
        made = cls(core)
        zeros = [
            tf.fill([2, *x.shape[1:]], "")
            if x.dtype == "string"
            else ops.zeros((2, *x.shape[1:]), x.dtype)
            for x in core.inputs
        ]
        made(zeros[0] if len(zeros) == 1 else zeros)
        return made


class Both(layers.Layer):  # type: ignore[misc]
    """A layer with two results, as a dict."""

    def build(self, shape: Any) -> None:
        """Builds the layer inside."""
        self.inner = layers.Dense(3, name="inner")
        self.inner.build(shape)

    def call(self, x: Any) -> Any:
        """Returns a dense layer's result, and its gate."""
        y = self.inner(x)
        return {"bent": ops.tanh(y), "gate": ops.sigmoid(2.0 * y)}


class Cell(layers.Layer):  # type: ignore[misc]
    """A recurrent cell of one's own: a gated leaky sum."""

    def __init__(self, units: int = 3, **given: Any) -> None:
        super().__init__(**given)
        self.units = self.state_size = self.output_size = units

    def build(self, shape: Any) -> None:
        """Makes the weights."""
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
        self.gate = self.add_weight(shape=(self.units, self.units), name="gate")

    def call(self, x: Any, states: Any, training: Any = None) -> Any:
        """Returns the output of a step and the next state."""
        del training
        (before,) = states if isinstance(states, list | tuple) else (states,)
        gate = ops.sigmoid(ops.matmul(before, self.gate))
        after = gate * before + (1.0 - gate) * ops.tanh(ops.matmul(x, self.kernel))
        return after, [after]


class Between(layers.Layer):  # type: ignore[misc]
    """Attention of a sequence to learned queries, with the dropout and the mask that people use."""

    def build(self, shape: Any) -> None:
        """Makes the queries and the projections."""
        self.supports_masking = True
        self.queries = self.add_weight(shape=(2, 4), name="queries")
        self.keys, self.values = layers.Dense(4, name="keys"), layers.Dense(3, name="values")
        self.keys.build(shape)
        self.values.build(shape)

    def call(self, x: Any, mask: Any = None) -> Any:
        """Returns what each query reads."""
        scores = ops.einsum("qc,btc->bqt", self.queries, self.keys(x)) / 2.0
        if mask is not None:
            scores += (1.0 - ops.cast(mask, scores.dtype)[:, None]) * -1e4
        return ops.einsum("bqt,btc->bqc", ops.softmax(scores), self.values(x))

    def compute_mask(self, x: Any, mask: Any = None) -> Any:
        """Returns None: queries are all real."""
        del x, mask
