"""ONNX files that Keras writes itself (through tf2onnx), against the Keras models.

tf2onnx writes a sum of products that no matrix product fits (a second layer of attention, say) as
a stack of products whose sizes are put together when it runs, and gives each input a batch of a
name of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf2onnx
from keras import layers, ops

import probegen as pg
from probegen import runtime

_HEADS, _CLASSES = 3, 5


def _two_layers(time: int | None, *, causal: bool = False, value_dim: int = 5) -> Any:
    x = keras.Input((time, 6), name="x")
    y, first = _attention("first", value_dim)(x, x, return_attention_scores=True)
    y = layers.LayerNormalization()(x + y)
    y, second = _attention("second", value_dim)(
        y, y, return_attention_scores=True, use_causal_mask=causal
    )
    return x, y, {"first": first, "second": second}


def _attention(name: str, value_dim: int = 4) -> layers.Layer:
    return layers.MultiHeadAttention(_HEADS, 4, value_dim=value_dim, name=name)


def _tokens() -> Any:
    """Padding is 0: what stands there has weights of 0, not those of a softmax over nothing."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(11, 6, mask_zero=True)(ids)
    y, scores = _attention("first")(x, x, return_attention_scores=True)
    return ids, y, {"first": scores}


def _masked() -> Any:
    x, kept = keras.Input((7, 6), name="x"), keras.Input((7,), dtype="bool", name="kept")
    y, scores = _attention("first")(
        x, x, attention_mask=ops.expand_dims(kept, 1), return_attention_scores=True
    )
    return [x, kept], y, {"first": scores}


def _cross(queries: int | None, keys: int | None) -> Any:
    x, z = keras.Input((queries, 6), name="x"), keras.Input((keys, 8), name="z")
    y, scores = _attention("first")(x, z, return_attention_scores=True)
    return [x, z], y, {"first": scores}


def _grouped() -> Any:
    x = keras.Input((None, 6), name="x")
    y, scores = layers.GroupQueryAttention(4, 6, 2, name="first")(
        x, x, return_attention_scores=True
    )
    return x, y, {"first": scores}


def _without_heads() -> Any:
    x, z = keras.Input((7, 6), name="x"), keras.Input((5, 6), name="z")
    y, dot = layers.Attention(name="first")([x, z], return_attention_scores=True)
    added, sums = layers.AdditiveAttention(name="second")([x, z], return_attention_scores=True)
    return [x, z], y + added, {"first": dot, "second": sums}


def _along_rows() -> Any:
    x = keras.Input((4, 5, 6), name="x")
    layer = layers.MultiHeadAttention(_HEADS, 4, attention_axes=(2,), name="first")
    y, scores = layer(x, x, return_attention_scores=True)
    return x, layers.Reshape((20, 6))(y), {"first": scores}


_MODELS: Mapping[str, tuple[Callable[[], Any], int]] = {
    "fixed time": (lambda: _two_layers(7), 18),
    "time of as many as heads": (lambda: _two_layers(_HEADS, value_dim=_HEADS), 15),
    "open time, causal, old opset": (lambda: _two_layers(None, causal=True), 13),
    "tokens": (_tokens, 15),
    "mask": (_masked, 15),
    "cross": (lambda: _cross(7, 5), 15),
    "cross, open": (lambda: _cross(None, None), 15),
    "grouped": (_grouped, 15),
    "without heads": (_without_heads, 15),
    "along rows": (_along_rows, 15),
}


class _Compiled:
    """A Keras model, its attention scores, and the artefact of the ONNX file that Keras wrote."""

    def __init__(self, name: str, folder: Path) -> None:
        make, opset = _MODELS[name]
        keras.utils.set_random_seed(3)
        inputs, y, scores = make()
        logits = layers.Dense(_CLASSES, name="logits")(layers.GlobalAveragePooling1D()(y))
        self.inputs = inputs if isinstance(inputs, list) else [inputs]
        self.model = keras.Model(self.inputs, logits)
        self.scores = keras.Model(self.inputs, scores)
        self.model(list(self.feed(2).values()))
        self.source, path = folder / "source.onnx", folder / "artefact.onnx"
        self.model.export(self.source, format="onnx", opset_version=opset, verbose=False)
        probes: list[Any] = [pg.Attention("*")]
        self.differentiates = name != "tokens"
        if self.differentiates:
            probes.append(pg.InputGradient(target=1))
        pg.compile(str(self.source), probes, str(path))
        self.artefact = runtime.load(path)

    def feed(self, rows: int) -> dict[str, Any]:
        """Returns inputs of some rows; open lengths differ by input, and with the rows."""
        rng = np.random.default_rng(rows)
        found = {}
        for place, given in enumerate(self.inputs):
            shape = [rows, *(d or 6 + rows - 2 * place for d in given.shape[1:])]
            if given.dtype == "bool":
                found[given.name] = rng.random(shape) < 0.6
            elif given.dtype == "int32":
                found[given.name] = rng.integers(0, 11, shape).astype(np.int32)
                found[given.name][:, -3:] = 0
            else:
                found[given.name] = rng.normal(size=shape).astype(np.float32)
        return found


@pytest.fixture(scope="module", params=list(_MODELS))
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> _Compiled:
    return _Compiled(request.param, tmp_path_factory.mktemp("keras"))


def test_every_point_can_be_probed(compiled: _Compiled) -> None:
    for point in pg.inspect(str(compiled.source)):
        assert point.probes or "integer" in point.reason, point


@pytest.mark.parametrize("rows", [2, 3])
def test_attention_is_what_the_layers_say(compiled: _Compiled, rows: int) -> None:
    feed = compiled.feed(rows)
    expected = compiled.scores(list(feed.values()))
    result = compiled.artefact.run(feed)
    specs = {s.name: s for s in compiled.artefact.manifest.explanations if s.kind == "attention"}
    assert len(specs) == len(expected)
    for layer, scores in expected.items():
        (spec,) = [s for name, s in specs.items() if f"/{layer}" in name]
        assert spec.axes[0] == "batch"
        order = [i for i, axis in enumerate(spec.axes) if axis not in ("query", "key")]
        order += [spec.axes.index("query"), spec.axes.index("key")]
        found = result[spec.name].array.transpose(order)
        np.testing.assert_allclose(found, scores, atol=1e-6, err_msg=layer)


@pytest.mark.parametrize("rows", [2, 3])
def test_gradients_are_those_of_the_model(compiled: _Compiled, rows: int) -> None:
    if not compiled.differentiates:
        pytest.skip("whole numbers have no gradient")
    feed = compiled.feed(rows)
    fed = {name: tf.constant(array) for name, array in feed.items()}
    watched = {name: tensor for name, tensor in fed.items() if tensor.dtype == tf.float32}
    with tf.GradientTape() as tape:
        tape.watch(list(watched.values()))
        score = compiled.model(list(fed.values()))[:, 1]
    expected = tape.gradient(score, watched)
    result = compiled.artefact.run(feed)
    for name, gradient in expected.items():
        found = result[f"input_gradient/{name}"].array
        np.testing.assert_allclose(found, gradient, atol=2e-6, rtol=1e-4, err_msg=name)


def test_attention_in_a_loop_of_tensorflow(tmp_path: Path) -> None:
    """tf2onnx writes `tf.scan` as a Loop whose body meets inputs of two unnamed batch sizes."""
    rng = np.random.default_rng(0)
    weights = [tf.constant(rng.normal(size=s), tf.float32) for s in ((8, 4), (4, 5))]

    def step(h: Any, entry: Any, memory: Any) -> tuple[Any, Any]:
        attended = tf.nn.softmax(tf.einsum("bse,be->bs", memory, h @ weights[1]))
        context = tf.einsum("bs,bse->be", attended, memory)
        return tf.tanh(tf.concat([entry, context], -1) @ weights[0]), attended

    def decoder(x: Any, memory: Any) -> Any:
        start = tf.zeros((tf.shape(x)[0], 4))
        entries = tf.transpose(x, [1, 0, 2])
        return tf.transpose(tf.scan(lambda h, e: step(h, e, memory)[0], entries, start), [1, 0, 2])

    inputs = {"x": 3, "memory": 5}
    spec = [tf.TensorSpec((None, None, n), tf.float32, name=name) for name, n in inputs.items()]
    function = tf.function(decoder, input_signature=spec)
    proto, _ = tf2onnx.convert.from_function(function, input_signature=spec, opset=17)
    probes = [pg.Attention(), pg.States(), pg.InputGradient(target=(-1, 1), wrt="x")]
    pg.compile(proto, probes, tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    names = {o.name.partition("/")[0]: o.name for o in art.manifest.explanations}
    assert art.manifest.output(names["attention"]).axes == ("batch", "time", "key")
    more = {i.name: np.zeros([n or 1 for n in i.shape], "float32") for i in art.inputs[2:]}
    for name, value in zip(more, reversed(weights), strict=True):
        more[name] = value.numpy()  # tf2onnx makes inputs of what the function closes over
    for batch, time, length in ((2, 4, 3), (3, 1, 5)):
        x, memory = (rng.normal(size=(batch, n, inputs[k])).astype("float32")
                     for k, n in (("x", time), ("memory", length)))  # fmt: skip
        found = art.run({"x": x, "memory": memory, **more})
        h = tf.zeros((batch, 4))
        for t in range(time):
            h, attended = step(h, x[:, t], memory)
            np.testing.assert_allclose(found[names["attention"]].array[:, t], attended, atol=1e-5)
            np.testing.assert_allclose(found[names["states"]].array[:, t], h, atol=1e-5)
