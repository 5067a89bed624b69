"""Blocks of well-known networks, written as layers as people write them, for random models.

Of sequences `[batch, time, channel]` or images `[batch, height, width, channel]`, whose shape they
keep unless they say otherwise.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops


class _Block(layers.Layer):  # type: ignore[misc]
    """A layer that passes masks, and makes its parts when it learns its input's shape."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.supports_masking = True

    def made(self, layer: Any, shape: Any) -> Any:
        """Returns a part, built for a shape."""
        layer.build(tuple(shape))
        return layer

    def compute_output_shape(self, shape: Any) -> Any:
        """Returns the same shape."""
        return shape


class Rotary(_Block):
    """Attention of one head with queries and keys turned by their positions (RoPE)."""

    def build(self, shape: Any) -> None:
        """Makes the projections, of four channels."""
        self.project = self.made(layers.Dense(12, use_bias=False), shape)
        self.out = self.made(layers.Dense(shape[-1]), (*shape[:-1], 4))

    def call(self, x: Any, mask: Any = None) -> Any:
        """Returns the sequence with what it attends to added, by causal attention."""
        q, k, v = ops.split(self.project(x), 3, axis=-1)
        time = ops.shape(x)[1]
        at = ops.cast(ops.arange(time), q.dtype)[:, None] * np.array([1.0, 0.1], "float32")
        cos, sin = (ops.cast(f(at), q.dtype) for f in (ops.cos, ops.sin))

        def turned(y: Any) -> Any:
            a, b = y[..., :2], y[..., 2:]
            return ops.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)

        scores = ops.matmul(turned(q), ops.swapaxes(turned(k), 1, 2)) / 2.0
        after = ops.arange(time)[None, :] > ops.arange(time)[:, None]
        scores = ops.where(after[None], ops.cast(-1e4, scores.dtype), scores)
        if mask is not None:
            scores = ops.where(mask[:, None, :], scores, ops.cast(-1e4, scores.dtype))
        return x + self.out(ops.matmul(ops.softmax(scores), v))


class Decoder(_Block):
    """A decoder block: causal attention, attention to a memory, a gated dense layer."""

    def build(self, shape: Any) -> None:
        """Makes the parts; the memory is learned."""
        self.memory = self.add_weight(shape=(3, 4), name="memory")
        self.own = layers.MultiHeadAttention(2, 2, name="own")
        self.own.build(shape, shape)
        self.cross = layers.MultiHeadAttention(1, 3, name="cross")
        self.cross.build(shape, (None, 3, 4))
        self.norms = [self.made(layers.RMSNormalization(), shape) for _ in range(2)]
        self.gate = self.made(layers.Dense(2 * shape[-1]), shape)

    def call(self, x: Any) -> Any:
        """Returns the sequence behind the block."""
        y = self.norms[0](x)
        x = x + self.own(y, y, use_causal_mask=True)
        memory = ops.broadcast_to(self.memory[None], (ops.shape(x)[0], 3, 4))
        x = x + self.cross(self.norms[1](x), ops.cast(memory, x.dtype))
        return x + ops.glu(self.gate(x))


class Experts(_Block):
    """A mixture of three dense experts, of which the best two of each position are weighed."""

    def build(self, shape: Any) -> None:
        """Makes the router and the experts."""
        self.router = self.made(layers.Dense(3), shape)
        self.experts = [
            self.made(layers.Dense(shape[-1], activation="silu"), shape) for _ in range(3)
        ]

    def call(self, x: Any) -> Any:
        """Returns what the best two experts say."""
        best, which = ops.top_k(self.router(x), 2)
        shares = ops.softmax(best)
        weights = ops.sum(ops.one_hot(which, 3, dtype=x.dtype) * shares[..., None], axis=-2)
        said = ops.stack([expert(x) for expert in self.experts], axis=-1)
        return ops.sum(said * weights[..., None, :], axis=-1)


class Codebook(_Block):
    """Vector quantisation: the nearest of four codes, with a straight-through gradient."""

    def build(self, shape: Any) -> None:
        """Makes the codes."""
        self.codes = self.add_weight(shape=(4, shape[-1]), name="codes")

    def call(self, x: Any) -> Any:
        """Returns the nearest code, and half of the input beside it."""
        codes = ops.cast(self.codes, x.dtype)
        off = ops.sum(ops.square(x[..., None, :] - codes), axis=-1)
        nearest = ops.take(codes, ops.argmin(off, axis=-1), axis=0)
        return x + ops.stop_gradient(nearest - x) + 0.5 * x


class Mixer(_Block):
    """Token mixing by a Fourier transform (FNet), its real part alone."""

    def call(self, x: Any) -> Any:
        """Returns the sequence, mixed along channels and time, added."""
        real, imag = ops.fft2((x, ops.zeros_like(x)))
        del imag
        return x + 0.2 * real


class Linear(_Block):
    """Linear attention: running sums of keys times values."""

    def build(self, shape: Any) -> None:
        """Makes the projections."""
        self.project = self.made(layers.Dense(6), shape)
        self.values = self.made(layers.Dense(shape[-1]), shape)

    def call(self, x: Any) -> Any:
        """Returns what queries read from all before them."""
        q, k = ops.split(ops.elu(self.project(x)) + 1.0, 2, axis=-1)
        pairs = ops.cumsum(k[..., :, None] * self.values(x)[..., None, :], axis=1)
        read = ops.einsum("btk,btkv->btv", q, pairs)
        return read / (0.1 + ops.sum(q * ops.cumsum(k, axis=1), axis=-1, keepdims=True))


class StateSpace(_Block):
    """A diagonal state space by an associative scan, with a gate that depends on the input."""

    def build(self, shape: Any) -> None:
        """Makes the gate."""
        self.gate = self.made(layers.Dense(shape[-1], activation="sigmoid"), shape)

    def call(self, x: Any) -> Any:
        """Returns the states."""
        keep = self.gate(x)

        def joined(a: Any, b: Any) -> Any:
            return a[0] * b[0], b[1] + b[0] * a[1]

        return ops.associative_scan(joined, (keep, (1.0 - keep) * x), axis=1)[1]


class Biased(_Block):
    """Attention with a learned bias by distance, and none over what lies far away."""

    def build(self, shape: Any) -> None:
        """Makes the table of biases."""
        self.table = self.add_weight(shape=(5,), name="biases")
        self.project = self.made(layers.Dense(6), shape)

    def call(self, x: Any) -> Any:
        """Returns the mean of the neighbours, weighed."""
        q, k = ops.split(self.project(x), 2, axis=-1)
        at = ops.arange(ops.shape(x)[1])
        off = at[None, :] - at[:, None]
        bias = ops.take(ops.cast(self.table, x.dtype), ops.clip(off, -2, 2) + 2)
        scores = ops.matmul(q, ops.swapaxes(k, 1, 2)) + bias
        scores = ops.where(ops.abs(off) > 3, ops.cast(-1e4, scores.dtype), scores)
        return ops.matmul(ops.softmax(scores), x)


class Sines(_Block):
    """Sine positions, added."""

    def call(self, x: Any) -> Any:
        """Returns the sequence with its positions."""
        at = ops.cast(ops.arange(ops.shape(x)[1]), "float32")[:, None]
        rates = np.exp(-np.arange(x.shape[-1]) / 3.0).astype("float32")
        return x + ops.cast(ops.sin(at * rates), x.dtype)


class Reversed(_Block):
    """A layer whose gradient is turned round (domain adaptation)."""

    def call(self, x: Any) -> Any:
        """Returns the input; its gradient is the negative."""
        return ops.stop_gradient(2.0 * x) - x


class Adapted(_Block):
    """A dense layer with an adapter of rank one (LoRA), and weights normalised by column."""

    def build(self, shape: Any) -> None:
        """Makes the kernel and the adapter."""
        size = shape[-1]
        self.kernel = self.add_weight(shape=(size, size), name="kernel")
        self.down = self.add_weight(shape=(size, 1), name="down")
        self.up = self.add_weight(shape=(1, size), name="up", initializer="ones")

    def call(self, x: Any) -> Any:
        """Returns the product with both."""
        whole = self.kernel + 0.5 * ops.matmul(self.down, self.up)
        whole = whole / ops.norm(whole, axis=0, keepdims=True)
        return ops.matmul(x, ops.cast(whole, x.dtype))


class Chain(_Block):
    """The forward pass of a linear-chain CRF: a scan of log-sum-exps. `[batch, channel]`."""

    def build(self, shape: Any) -> None:
        """Makes the transitions."""
        self.moves = self.add_weight(shape=(shape[-1], shape[-1]), name="moves")

    def call(self, x: Any) -> Any:
        """Returns the scores of all ways that end in each label."""
        moves = ops.cast(self.moves, x.dtype)

        def step(scores: Any, now: Any) -> Any:
            after = ops.logsumexp(scores[:, :, None] + moves, axis=1) + now
            return after, after

        return ops.scan(step, x[:, 0], ops.swapaxes(x[:, 1:], 0, 1))[0]

    def compute_output_shape(self, shape: Any) -> Any:
        """Returns the shape without the time."""
        return (shape[0], shape[-1])

    def compute_mask(self, x: Any, mask: Any = None) -> Any:
        """Returns None: no positions are left."""
        del x, mask


class ConvNext(_Block):
    """A ConvNeXt block, with a learned scale of what is added."""

    def build(self, shape: Any) -> None:
        """Makes the parts."""
        size = shape[-1]
        self.depth = self.made(layers.DepthwiseConv2D(3, padding="same"), shape)
        self.norm = self.made(layers.LayerNormalization(epsilon=1e-6), shape)
        self.wide = self.made(layers.Dense(2 * size, activation="gelu"), shape)
        self.narrow = self.made(layers.Dense(size), (*shape[:-1], 2 * size))
        self.scale = self.add_weight(shape=(size,), name="scale", initializer="ones")

    def call(self, x: Any) -> Any:
        """Returns the image behind the block."""
        y = self.narrow(self.wide(self.norm(self.depth(x))))
        return x + y * ops.cast(self.scale, y.dtype)


class Windows(_Block):
    """Attention within windows of two by two, rolled by one (Swin); sides are padded to fit."""

    def build(self, shape: Any) -> None:
        """Makes the attention."""
        self.attention = layers.MultiHeadAttention(1, 3, name="mha")
        self.attention.build((None, 4, shape[-1]), (None, 4, shape[-1]))

    def call(self, x: Any) -> Any:
        """Returns the image with what each window attends to added."""
        height, width, size = x.shape[1:]
        rows, columns = -(-height // 2), -(-width // 2)
        pads = [[0, 0], [0, 2 * rows - height], [0, 2 * columns - width], [0, 0]]
        y = ops.roll(ops.pad(x, pads), (-1, -1), axis=(1, 2))
        y = ops.reshape(y, (-1, rows, 2, columns, 2, size))
        y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, 4, size))
        y = self.attention(y, y)
        y = ops.reshape(y, (-1, rows, columns, 2, 2, size))
        y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, 2 * rows, 2 * columns, size))
        return x + ops.roll(y, (1, 1), axis=(1, 2))[:, :height, :width]


class Dynamic(_Block):
    """A convolution along the channels whose kernel the image itself makes."""

    def build(self, shape: Any) -> None:
        """Makes what makes the kernel."""
        self.kernel = self.made(layers.Dense(shape[-1] * 3), (shape[0], shape[-1]))

    def call(self, x: Any) -> Any:
        """Returns the image times a matrix of its own."""
        axes = tuple(range(1, len(x.shape) - 1))
        made = self.kernel(ops.mean(x, axis=axes))
        matrix = ops.reshape(ops.tanh(made), (-1, x.shape[-1], 3))
        return ops.einsum("b...i,bij->b...j", x, matrix)

    def compute_output_shape(self, shape: Any) -> Any:
        """Returns the shape with three channels."""
        return (*shape[:-1], 3)


class Attended(_Block):
    """Channel and spatial attention (CBAM), of means and maxima."""

    def build(self, shape: Any) -> None:
        """Makes both parts."""
        self.shared = self.made(layers.Dense(shape[-1], activation="relu"), (None, shape[-1]))
        self.spatial = layers.Conv2D(1, 3, padding="same", activation="sigmoid")
        self.spatial.build((*shape[:-1], 2))

    def call(self, x: Any) -> Any:
        """Returns the image, weighed twice."""
        told = self.shared(ops.mean(x, axis=(1, 2))) + self.shared(ops.max(x, axis=(1, 2)))
        x = x * ops.sigmoid(told)[:, None, None]
        both = [ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)]
        return x * self.spatial(ops.concatenate(both, axis=-1))


class Staged(keras.Model):  # type: ignore[misc]
    """A subclassed model that does something else while it is trained."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.parts = [layers.Dense(4, activation="tanh"), layers.Dropout(0.2)]
        self.norm = layers.BatchNormalization()
        self.last = layers.Dense(4)

    def build(self, shape: Any) -> None:
        """Builds all layers."""
        self.parts[0].build(shape)
        self.norm.build((*shape[:-1], 4))
        self.last.build((*shape[:-1], 4))

    def call(self, x: Any, training: bool = False) -> Any:
        """Returns the input behind all layers."""
        y = x
        for part in self.parts:
            y = part(y, training=training) if isinstance(part, layers.Dropout) else part(y)
        y = self.norm(y, training=training)
        return self.last(y) + (0.1 * y if training else y)


#: Blocks by the number of axes of what they take.
BLOCKS = {
    2: (Experts, Codebook, Reversed, Adapted, Staged),
    3: (
        *(Rotary, Decoder, Experts, Codebook, Mixer, Linear, StateSpace, Biased, Sines),
        *(Reversed, Adapted, Chain, Dynamic, Staged),
    ),
    4: (Experts, Codebook, Reversed, Adapted, ConvNext, Windows, Dynamic, Attended, Staged),
    5: (Experts, Reversed, Adapted, Dynamic, Staged),
}
