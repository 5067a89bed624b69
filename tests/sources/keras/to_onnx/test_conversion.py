"""What tf2onnx' own bookkeeping gets wrong while a graph is converted."""

from __future__ import annotations

from typing import Any

import pytest
import tf2onnx.graph

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
