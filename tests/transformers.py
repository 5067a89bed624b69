"""Transformers with weights of our own: in Keras, as ONNX text, and by hand in TensorFlow."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import tensorflow as tf
from keras import layers, ops

from tests.sources.onnx.support import add_weights, parse

WIDTH, HEADS, SIZE, HIDDEN, CLASSES = 6, 3, 4, 5, 4


def weights(blocks=2, seed=0, cross=()):
    """Arrays by name: of each block `i` its `q{i}`, `k{i}`, `v{i}`, `o{i}`, `a{i}`, `b{i}`."""
    rng = np.random.default_rng(seed)
    inner = HEADS * SIZE
    shapes = {"head": (WIDTH, CLASSES)}
    for i in [*range(blocks), *cross]:
        shapes |= {f"{n}{i}": (WIDTH, inner) for n in "qkv"}
        shapes |= {f"o{i}": (inner, WIDTH), f"a{i}": (WIDTH, HIDDEN), f"b{i}": (HIDDEN, WIDTH)}
    return {n: rng.normal(size=s).astype(np.float32) * 0.35 for n, s in shapes.items()}


def data(time, rows, seed=0, zeros=0):
    """`[rows, time, 6]` of both signs; the last `zeros` steps are zeros, as padding."""
    x = np.random.default_rng(seed).normal(size=(rows, time, WIDTH)).astype(np.float32)
    if zeros:
        x[:, -zeros:] = 0
    return x


# -- by hand -----------------------------------------------------------------------------------


def attention(w, i, x, y, mask, seen):
    """Attention of `x` to `y` in TensorFlow, its weights `[batch, head, query, key]` noted."""
    rows = tf.shape(x)[0]

    def heads(value, name):
        return tf.transpose(
            tf.reshape(value @ w[name], (rows, value.shape[1], HEADS, SIZE)), (0, 2, 1, 3)
        )

    q, k, v = heads(x, f"q{i}"), heads(y, f"k{i}"), heads(y, f"v{i}")
    scores = q @ tf.transpose(k, (0, 1, 3, 2)) / np.float32(np.sqrt(SIZE))
    if mask is not None:
        scores = tf.where(mask, scores, -1e9)
    a = seen(tf.nn.softmax(scores))
    mixed = tf.reshape(tf.transpose(a @ v, (0, 2, 1, 3)), (rows, x.shape[1], HEADS * SIZE))
    return mixed @ w[f"o{i}"]


def block(w, i, x, y, mask, seen):
    """Attention and two dense layers, each with its residual connection."""
    x = x + attention(w, i, x, y, mask, seen)
    return x + tf.tanh(x @ w[f"a{i}"]) @ w[f"b{i}"]


def by_hand(forward, target):
    """Attention weights and gradients of the class scores at these, by a tape.

    Args:
        forward: (what notes weights) -> scores `[batch, class]`.
        target: a class for each sample, -1 for the best.
    """
    noted = []
    with tf.GradientTape() as tape:

        def seen(value):
            tape.watch(value)
            noted.append(value)
            return value

        scores = forward(seen)
        best = tf.argmax(scores, 1).numpy()
        chosen = np.where(np.asarray(target) < 0, best, target)
        score = tf.reduce_sum(tf.gather(scores, chosen, batch_dims=1))
    gradients = tape.gradient(score, noted)
    wide = [a.numpy().astype(np.float64) for a in noted]
    return wide, [
        np.zeros_like(a) if g is None else g.numpy().astype(np.float64)
        for a, g in zip(wide, gradients, strict=True)
    ]


def encoder_by_hand(w, blocks, x, mask=None):
    """Returns what `by_hand` calls: the scores of the mean over time."""

    def forward(seen):
        y = tf.constant(x)
        for i in range(blocks):
            y = block(w, i, y, y, mask, seen)
        return tf.reduce_mean(y, 1) @ w["head"]

    return forward


def rollout(matrices, fuse=np.mean, residual=0.5):
    """Abnar and Zuidema's rollout of `[batch, head, query, key]` weights."""
    rolled = np.eye(matrices[0].shape[-1])
    for a in matrices:
        mixed = residual * np.eye(a.shape[-1]) + (1 - residual) * fuse(a, axis=1)
        rolled = mixed / mixed.sum(-1, keepdims=True) @ rolled
    return rolled


def cam(a, g):
    """Eq. 5 of Chefer et al. 2021."""
    return np.maximum(a * g, 0).mean(1)


def relevance(matrices, gradients):
    """Eq. 6 of Chefer et al. 2021."""
    found = np.broadcast_to(np.eye(matrices[0].shape[-1]), matrices[0][:, 0].shape)
    for a, g in zip(matrices, gradients, strict=True):
        found = found + cam(a, g) @ found
    return found


# -- Keras -------------------------------------------------------------------------------------


def keras_attention(w, i, x, y, **of_call):
    """A layer `attention_{i}` of Keras with these weights and no biases."""
    layer = layers.MultiHeadAttention(HEADS, SIZE, use_bias=False, name=f"attention_{i}")
    found = layer(x, y, **of_call)
    inner = [w[f"{n}{i}"].reshape(WIDTH, HEADS, SIZE) for n in "qkv"]
    # Keras lists query, key, value.
    layer.set_weights([*inner, w[f"o{i}"].reshape(HEADS, SIZE, WIDTH)])
    return found


def keras_block(w, i, x, y, **of_call):
    """`block` in Keras."""
    x = x + keras_attention(w, i, x, y, **of_call)
    first, second = layers.Dense(HIDDEN, "tanh"), layers.Dense(WIDTH)
    z = x + second(first(x))
    first.set_weights([w[f"a{i}"], np.zeros(HIDDEN)])
    second.set_weights([w[f"b{i}"], np.zeros(WIDTH)])
    return z


def keras_head(w, x):
    """The mean over time and the classes, with a softmax."""
    layer = layers.Dense(CLASSES, "softmax", name="scores")
    found = layer(ops.mean(x, 1))
    layer.set_weights([w["head"], np.zeros(CLASSES)])
    return found


def keras_encoder(w, blocks, time, **of_call):
    """A model of `blocks` blocks; `time` may be None."""
    x = keras.Input((time, WIDTH), name="x")
    y = x
    for i in range(blocks):
        y = keras_block(w, i, y, y, **of_call)
    return keras.Model(x, keras_head(w, y), name="encoder")


# -- ONNX --------------------------------------------------------------------------------------


def onnx_block(i, x, y, mask="", turned=False):
    """The nodes of a block in ONNX text, of tensors called `x` and `y`; makes `x{i}`.

    Args:
        i: number of the block.
        x: the queries' name.
        y: the keys' name.
        mask: a name that is added to the scores.
        turned: keys before queries in the weights, softmax over axis 2.
    """
    scores = f"raw{i}" if mask else f"scores{i}"
    masked = f"scores{i} = Add(raw{i}, {mask})" if mask else ""
    product = (
        f"kt{i} = Transpose<perm=[0,2,3,1]>(ks{i}) qt{i} = Transpose<perm=[0,2,1,3]>(qs{i}) "
        f"dot{i} = MatMul(qt{i}, kt{i})"
    )
    softmax = f"weights{i} = Softmax(scores{i})"
    applied = f"mixed{i} = MatMul(weights{i}, vt{i})"
    if turned:
        product = (
            f"qt{i} = Transpose<perm=[0,2,3,1]>(qs{i}) kt{i} = Transpose<perm=[0,2,1,3]>(ks{i}) "
            f"dot{i} = MatMul(kt{i}, qt{i})"
        )
        softmax = f"weights{i} = Softmax<axis=2>(scores{i})"
        applied = (
            f"back{i} = Transpose<perm=[0,1,3,2]>(weights{i}) mixed{i} = MatMul(back{i}, vt{i})"
        )
    return f"""
        q_{i} = MatMul({x}, q{i})  qs{i} = Reshape(q_{i}, apart)
        k_{i} = MatMul({y}, k{i})  ks{i} = Reshape(k_{i}, apart)
        v_{i} = MatMul({y}, v{i})  vs{i} = Reshape(v_{i}, apart)
        vt{i} = Transpose<perm=[0,2,1,3]>(vs{i})
        {product}
        {scores} = Div(dot{i}, root)
        {masked}
        {softmax}
        {applied}
        together{i} = Transpose<perm=[0,2,1,3]>(mixed{i})
        joined{i} = Reshape(together{i}, whole)
        out{i} = MatMul(joined{i}, o{i})
        res{i} = Add({x}, out{i})
        h_{i} = MatMul(res{i}, a{i})  bent{i} = Tanh(h_{i})  up{i} = MatMul(bent{i}, b{i})
        x{i} = Add(res{i}, up{i})"""


def onnx_model(inputs, body, last, w, opset=18, **more):
    """A model whose scores are those of the mean over time of `last`."""
    text = f"""
        g ({inputs}) => (float[N,{CLASSES}] y) {{
          {body}
          mean = ReduceMean<keepdims=0>({last}, one)
          logits = MatMul(mean, head)
          y = Softmax(logits)
        }}"""
    constants = {
        "apart": np.array([0, 0, HEADS, SIZE]),
        "whole": np.array([0, 0, HEADS * SIZE]),
        "root": np.float32(np.sqrt(SIZE)),
        "one": np.array([1]),
    }
    return add_weights(parse(text, opset), **constants, **w, **more)


def onnx_encoder(w, blocks, time, **of_block):
    """A model of `blocks` blocks; `time` is a number or a name."""
    body, x = "", "x"
    for i in range(blocks):
        body += onnx_block(i, x, x, **of_block)
        x = f"x{i}"
    return onnx_model(f"float[N,{time},{WIDTH}] x", body, x, w)


def saved(model, path):
    """Writes an ONNX model; returns its path."""
    onnx.save(model, path)
    return path


# -- both --------------------------------------------------------------------------------------


def causal(time):
    """Returns which keys each query sees where none looks ahead: `[query, key]`."""
    return np.tril(np.ones((time, time), bool))


def encoders(blocks, time):
    """Returns encoders of both kinds by name.

    Each is what makes it of its weights, and what makes its mask of a length, None without one.
    """
    return {
        "Keras": (lambda w: keras_encoder(w, blocks, time), None),
        "causal and of open length": (
            lambda w: keras_encoder(w, blocks, None, use_causal_mask=True),
            causal,
        ),
        "ONNX": (lambda w: onnx_encoder(w, blocks, time), None),
        "ONNX of open length, keys before queries": (
            lambda w: onnx_encoder(w, blocks, "T", turned=True),
            None,
        ),
    }
