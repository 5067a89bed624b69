"""What tf2onnx' own bookkeeping gets wrong while a graph is converted; what is frozen for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf2onnx.graph

import probegen as pg
from probegen import runtime
from probegen.sources.keras.to_onnx.conversion import _guarded


def with_body() -> tuple[Any, Any, list[Any]]:
    """Returns a graph, a loop's body within it, and two nodes of it that read one value."""
    outer = tf2onnx.graph.Graph([], opset=18)
    value = outer.make_node("Relu", ["x"], name="outer")
    loop = outer.make_node("Identity", ["x"], name="loop")
    body = outer.create_new_graph_with_same_config()
    loop.set_body_graph_as_attr("body", body)
    readers = [body.make_node(kind, value.output, name=kind) for kind in ("Exp", "Sin")]
    return outer, body, readers


def readers_of(outer: Any) -> list[str]:
    return sorted(node.name for node in outer.find_output_consumers("outer:0"))


@pytest.mark.parametrize("first", [0, 1])
def test_a_body_reads_a_value_until_its_last_reader_is_gone(first: int) -> None:
    outer, body, nodes = with_body()
    assert readers_of(outer) == ["Exp", "Sin"]
    with _guarded():
        body.remove_node(nodes[first].name)
        assert readers_of(outer) == [nodes[1 - first].name]
        body.remove_node(nodes[1 - first].name)
        assert readers_of(outer) == []
        assert not outer._input_to_graph["outer:0"]


def test_tf2onnx_forgets_it_with_the_first() -> None:
    """Fails where tf2onnx has learnt better: then ours may go."""
    outer, body, nodes = with_body()
    body.remove_node(nodes[0].name)
    assert readers_of(outer) == []


class Counting(keras.layers.Layer):
    """Weighs by a plain variable, and writes into it and two others when it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = tf.Variable([1.5, -2.0, 0.5], trainable=False)
        self.calls, self.left = (tf.Variable(n, trainable=False) for n in (0.0, 9.0))

    def call(self, x: Any) -> Any:
        weighed = x * self.scale
        self.scale.assign(0.5 * self.scale)
        self.calls.assign_add(1.0)
        self.left.assign_sub(1.0)
        return weighed


def test_what_a_layer_writes_for_the_next_call_is_left_out(tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")
    layer = Counting()
    model = keras.Model(x, keras.layers.Dense(2, name="y")(layer(x)))
    before = layer.scale.numpy()
    pg.compile(model, pg.InputGradient(1), tmp_path / "m.onnx", gate=False)
    np.testing.assert_array_equal(layer.scale, before)
    kernel = model.get_layer("y").kernel.numpy()
    data = np.array([[1.0, 0.5, -2.0], [0.0, 3.0, 1.0]], np.float32)
    found = runtime.load(tmp_path / "m.onnx").run(data)
    np.testing.assert_allclose(found["y"], data * before @ kernel, rtol=1e-6)
    np.testing.assert_allclose(found["input_gradient/x"], [before * kernel[:, 1]] * 2, rtol=1e-6)
