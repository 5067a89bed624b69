"""Maps that a target sees one position of: a class token, the last step."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnx
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.plan.plan import TensorRef
from probegen.sources import open_source
from probegen.sources.onnx.positions import follow_graph

READ = {
    "class token": lambda h: h[:, 0],
    "last step": lambda h: h[:, -1],
    "taken": lambda h: keras.ops.take(h, 0, axis=1),
    "one row": lambda h: layers.Flatten()(h[:, 2:3]),
    "mean": layers.GlobalAveragePooling1D(),
    "two tokens": lambda h: layers.Flatten()(h[:, :2]),
}
#: What the last map is of which more than one position counts.
LAST = {"mean": "last", "two tokens": "last"}


def encoder(read: str) -> keras.Model:
    """Returns a classifier of series by one layer of attention."""
    keras.utils.set_random_seed(0)
    series = keras.Input((7, 5), name="series")
    h = layers.Conv1D(6, 3, padding="same", name="conv")(series)
    y = layers.LayerNormalization(name="norm")(h)
    h = h + layers.MultiHeadAttention(2, 3, name="attention")(y, y)
    h = h + layers.Dense(6, activation="tanh")(h)
    h = layers.LayerNormalization(name="last")(h)
    return keras.Model(series, layers.Dense(3)(READ[read](h)))


@pytest.mark.parametrize("read", READ)
def test_maps_are_taken_where_all_positions_count(read: str, tmp_path: Any) -> None:
    model = encoder(read)
    pg.compile(model, [pg.HiResCAM(), pg.GradCAM("last")], tmp_path / "m.onnx", verify=False)
    manifest = runtime.load(tmp_path / "m.onnx").manifest
    layer = manifest.explanations[0].layer
    assert layer == LAST.get(read, "norm")
    # A witness that follows nothing: the tape's gradient there.
    inner = keras.Model(model.inputs, [model.get_layer(layer).output, model.outputs[0]])
    assert _positions_with_gradient(inner, layer).all() or read == "two tokens"


def _positions_with_gradient(inner: keras.Model, layer: str) -> np.ndarray:
    import tensorflow as tf

    x = tf.constant(np.random.default_rng(0).normal(size=(2, 7, 5)), tf.float32)
    moved = tf.Variable(tf.zeros((1, 7, 6)))
    original = inner.get_layer(layer).call
    try:
        inner.get_layer(layer).call = lambda h: original(h) + moved
        with tf.GradientTape() as tape:
            score = tf.reduce_sum(inner(x)[1][:, 0])
        gradient = tape.gradient(score, moved)
    finally:
        inner.get_layer(layer).call = original
    return np.abs(gradient.numpy()[0]).max(-1) > 0


TEXT = """<ir_version: 9, opset_import: ["" : 17]>
  g (float[batch, 4, 9] x) => (float[batch, 3] y)
  <float[6, 4, 3] k, float[5, 6, 3] l, int64[1] at = {%s}, int64[1] to = {%s}, int64[1] axis = {2},
   float[5, 3] w>
  {
    a = Conv <pads = [1, 1]> (x, k)
    first = Relu (a)
    b = Conv <pads = [1, 1]> (first, l)
    second = Relu (b)
    cut = Slice (second, at, to, axis)
    flat = ReduceMean <axes = [2], keepdims = 0> (cut)
    y = MatMul (flat, w)
  }"""


@pytest.mark.parametrize(("at", "to", "last"), [(3, 4, "first"), (3, 6, "second")])
def test_of_an_onnx_file(at: int, to: int, last: str, tmp_path: Any) -> None:
    model = onnx.parser.parse_model(TEXT % (at, to))
    rng = np.random.default_rng(0)
    arrays = {"k": (6, 4, 3), "l": (5, 6, 3), "w": (5, 3)}
    kept = [i for i in model.graph.initializer if i.name not in arrays]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for name, shape in arrays.items():
        values = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, tmp_path / "source.onnx")
    pg.compile(tmp_path / "source.onnx", [pg.GradCAM()], tmp_path / "m.onnx")
    chosen = runtime.load(tmp_path / "m.onnx").manifest.explanations[0].layer
    assert chosen == last


def test_where_all_maps_are_seen_so_the_last_one_is_taken(tmp_path: Any) -> None:
    image = keras.Input((6, 5, 2))
    h = layers.Conv2D(3, 3, padding="same", activation="relu", name="only")(image)
    model = keras.Model(image, layers.Dense(3)(h[:, 2, 1]))
    pg.compile(model, [pg.GradCAM()], tmp_path / "m.onnx")
    assert runtime.load(tmp_path / "m.onnx").manifest.explanations[0].layer == "only"


LAST_TOKEN = """<ir_version: 9, opset_import: ["" : 17]>
  g (float[batch, 6, 3] x, int64[batch, 6] mask) => (float[batch, 2] y)
  <int64[6] steps = {0, 1, 2, 3, 4, 5}, int64[1] one = {1}>
  {
    dense = MatMul (x, k)
    tokens = Tanh (dense)
    turned = Transpose <perm = [0, 2, 1]> (tokens)
    mixed = Conv <pads = [1, 1]> (turned, l)
    back = Transpose <perm = [0, 2, 1]> (mixed)
    seen = Tanh (back)
    places = Mul (mask, steps)
    last = ArgMax <axis = 1, keepdims = 0> (places)
    at = Unsqueeze (last, one)
    y = GatherND <batch_dims = 1> (seen, at)
  }"""


def test_the_last_token_of_each_sample_is_looked_for_by_a_mask(tmp_path: Any) -> None:
    """As causal language models classify texts: bloom and Gemma ended in an IndexError."""
    model = onnx.parser.parse_model(LAST_TOKEN)
    rng = np.random.default_rng(0)
    for name, shape in {"k": (3, 4), "l": (2, 4, 3)}.items():
        values = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    pg.compile(model, [pg.GradCAM(target=1)], tmp_path / "m.onnx")
    (spec,) = runtime.load(tmp_path / "m.onnx").manifest.explanations
    assert (spec.layer, spec.axes) == ("tokens", ("batch", "time"))


def test_places_of_all_samples_are_counted_up_beside_their_last_tokens() -> None:
    """As torch's newer exporter writes `x[arange(len(x)), last]`."""
    written = LAST_TOKEN.replace(
        "y = GatherND <batch_dims = 1> (seen, at)",
        """sizes = Shape (x)
    count = Gather (sizes, nought)
    numbers = Range (nought, count, unit)
    rows = Unsqueeze (numbers, one)
    pairs = Concat <axis = -1> (rows, at)
    y = GatherND (seen, pairs)""",
    ).replace("int64[1] one = {1}", "int64[1] one = {1}, int64 nought = {0}, int64 unit = {1}")
    model = onnx.parser.parse_model(written)
    for name, shape in {"k": (3, 4), "l": (2, 4, 3)}.items():
        values = np.ones(shape, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    view = open_source(model).view
    refs = {name: TensorRef(name) for name in ("tokens", "seen")}
    end = view.graph.outputs[0]
    assert view.seen_at_one_position(list(refs.values()), end) == {refs["seen"]}


PATCHES = """<ir_version: 9, opset_import: ["" : 17]>
  g (float[batch, 3, 8, 10] image) => (float[batch, 20, 6] y)
  <int64[3] flat = {0, 20, 6}>
  {
    map = Conv <kernel_shape = [2, 2], strides = [2, 2]> (image, kernel)
    last = Transpose <perm = [0, 2, 3, 1]> (map)
    patches = Reshape (last, flat)
    mean = GlobalAveragePool (patches)
    y = Sub (patches, mean)
  }"""


def test_a_mean_over_channels_keeps_the_positions_of_patches() -> None:
    """Exporters write it as a pool over the last axis."""
    model = onnx.parser.parse_model(PATCHES)
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.zeros((6, 3, 2, 2), np.float32), "kernel")
    )
    view = open_source(model).view
    followed = follow_graph(view.graph, [(view.inputs[0], 0, 1)], {})
    named = {v.name: v for node in view.graph for v in node.outputs}
    places = followed.axes_of(named["patches"])[1]
    assert len(places) == 2
    assert followed.axes_of(named["y"])[1] == places
