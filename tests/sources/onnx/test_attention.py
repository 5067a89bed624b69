"""Attention operators are taken apart and say the same as onnxruntime's kernels."""

from typing import Any

import numpy as np
import pytest

from probegen.sources.onnx.reading import read_onnx
from tests.sources.onnx.support import add_weights, assert_same, hard, operators, parse, run

MS = ', "com.microsoft" : 1'


def weighs_a_value(read: Any) -> bool:
    """Tells whether a Softmax is multiplied with something, directly."""
    return any(
        use.node.op_type == "MatMul"
        for node in read.model.graph.all_nodes()
        if node.op_type == "Softmax"
        for use in node.outputs[0].uses()
    )


MASKS = {
    "none": ("", lambda _: {}),
    "lengths": ("int32[B] m,", lambda n: {"m": np.arange(n, dtype=np.int32) % 5 + 1}),
    "keys": (
        "int32[B,5] m,",
        lambda n: {"m": (np.arange(n * 5).reshape(n, 5) % 3 > 0).astype(np.int32)},
    ),
    "pairs": (
        "int32[B,5,5] m,",
        lambda n: {"m": (np.arange(n * 25).reshape(n, 5, 5) % 4 > 0).astype(np.int32)},
    ),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("attributes", ["", ", unidirectional = 1", ", scale = 0.3"])
def test_attention_of_one_input(mask: str, attributes: str) -> None:
    declared, feed = MASKS[mask]
    model = add_weights(
        parse(
            f"""
            g (float[B,5,7] x, {declared} float[B,3,5,5] a) => (float[B,5,12] y) {{
              y = com.microsoft.Attention<num_heads = 3{attributes}>(
                x, w, b, {"m" if declared else ""}, , a)
            }}""",
            more=MS,
        ),
        w=hard(7, 36, seed=1) / 4,
        b=hard(36, seed=2) / 4,
    )
    feeds = [{"x": hard(n, 5, 7), "a": hard(n, 3, 5, 5, seed=3), **feed(n)} for n in (2, 3)]
    read = assert_same(model, *feeds, tolerance=1e-5)
    assert weighs_a_value(read)
    assert all(not n.domain for n in read.model.graph.all_nodes())


def test_attention_with_a_past_and_other_sizes() -> None:
    model = add_weights(
        parse(
            """
            g (float[B,2,7] x, float[2,B,3,4,2] past) => (float[B,2,6] y, float[2,B,3,6,2] p) {
              y, p = com.microsoft.Attention<num_heads = 3, unidirectional = 1>(
                x, w, b, , past)
            }""",
            more=MS,
        ),
        w=hard(7, 18, seed=1) / 4,
        b=hard(18, seed=2) / 4,
    )
    feeds = [{"x": hard(n, 2, 7), "past": hard(2, n, 3, 4, 2, seed=3)} for n in (2, 3)]
    assert_same(model, *feeds, tolerance=1e-5)


@pytest.mark.parametrize("mask", ["none", "lengths", "keys"])
@pytest.mark.parametrize("attributes", ["", ", unidirectional = 1", ", scale = 0.3"])
def test_multi_head_attention(mask: str, attributes: str) -> None:
    declared, feed = MASKS[mask]
    model = add_weights(
        parse(
            f"""
            g (float[B,5,6] q, float[B,5,6] k, float[B,5,9] v, {declared} float[1,3,5,5] a)
                => (float[B,5,9] y) {{
              y = com.microsoft.MultiHeadAttention<num_heads = 3{attributes}>(
                q, k, v, b, {"m" if declared else ""}, a)
            }}""",
            more=MS,
        ),
        b=hard(21, seed=4),
    )
    feeds = [
        {
            "q": hard(n, 5, 6),
            "k": hard(n, 5, 6, seed=1),
            "v": hard(n, 5, 9, seed=2),
            "a": hard(1, 3, 5, 5, seed=3),
            **feed(n),
        }
        for n in (2, 3)
    ]
    read = assert_same(model, *feeds, tolerance=1e-5)
    assert weighs_a_value(read)


def test_multi_head_attention_with_a_past() -> None:
    model = parse(
        """
        g (float[B,2,6] q, float[B,2,6] k, float[B,2,6] v, float[B,3,4,2] pk, float[B,3,4,2] pv)
            => (float[B,2,6] y, float[B,3,6,2] nk, float[B,3,6,2] nv) {
          y, nk, nv = com.microsoft.MultiHeadAttention<num_heads = 3>(q, k, v, , , , pk, pv)
        }""",
        more=MS,
    )
    feeds = [
        {name: hard(n, 2, 6, seed=i) for i, name in enumerate("qkv")}
        | {name: hard(n, 3, 4, 2, seed=i) for i, name in enumerate(("pk", "pv"))}
        for n in (2, 3)
    ]
    assert_same(model, *feeds, tolerance=1e-5)


@pytest.mark.parametrize("packed", ["all", "keys and values"])
def test_packed_queries_keys_and_values(packed: str) -> None:
    """Against the operator that is given them one by one: onnxruntime's takes them so alone."""
    node = "y = com.microsoft.MultiHeadAttention<num_heads = 3>"
    apart = f"g (float[B,4,6] q, float[B,4,6] k, float[B,4,6] v) => (float[B,4,6] y) {{ {node}"
    if packed == "all":
        together = f"g (float[B,4,3,3,2] q) => (float[B,4,6] y) {{ {node}(q) }}"
    else:
        together = f"g (float[B,4,6] q, float[B,4,3,2,2] k) => (float[B,4,6] y) {{ {node}(q, k) }}"
    read = read_onnx(parse(together, more=MS))
    for n in (2, 3):
        one_by_one = {name: hard(n, 4, 6, seed=i) for i, name in enumerate("qkv")}
        by_head = [a.reshape(n, 4, 3, 2) for a in one_by_one.values()]
        feed = {
            "q": np.stack(by_head, axis=3) if packed == "all" else one_by_one["q"],
            "k": np.stack(by_head[1:], axis=3),
        }
        expected = run(parse(apart + "(q, k, v) }", more=MS), one_by_one)["y"]
        np.testing.assert_allclose(run(read.model, feed)["y"], expected, atol=1e-5)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("form", ["flat", "by head"])
@pytest.mark.parametrize("placed", ["offset", "each"])
def test_rotary_embedding(interleaved: int, form: str, placed: str) -> None:
    shape = "B,5,12" if form == "flat" else "B,3,5,4"
    positions = "int64[1] p" if placed == "offset" else "int64[B,5] p"
    model = add_weights(
        parse(
            f"""
            g (float[{shape}] x, {positions}) => (float[{shape}] y) {{
              y = com.microsoft.RotaryEmbedding<interleaved = {interleaved}>(x, p, c, s)
            }}""",
            more=MS,
        ),
        c=hard(9, 2, seed=1),
        s=hard(9, 2, seed=2),
    )
    feeds = [
        {
            "x": hard(n, *(int(d) for d in shape.split(",")[1:])),
            "p": np.array([2]) if placed == "offset" else np.arange(n * 5).reshape(n, 5) % 9,
        }
        for n in (2, 3)
    ]
    assert_same(model, *feeds, tolerance=1e-5)


STANDARD = {
    "plain": ("", "", {}),
    "causal": ("", "is_causal = 1,", {}),
    "scale": ("", "scale = 0.3,", {}),
    "numbers": ("float[5,4] m", "", {"m": hard(5, 4, seed=8)}),
    "yes or no": ("bool[5,4] m", "", {"m": hard(5, 4, seed=8) > 0}),
    "a row without a key": ("bool[5,4] m", "", {"m": np.arange(20).reshape(5, 4) > 3}),
    "both": ("bool[5,4] m", "is_causal = 1,", {"m": hard(5, 4, seed=8) >= 0}),
}


@pytest.mark.parametrize("kind", STANDARD)
@pytest.mark.parametrize("keys", [4, 2])
@pytest.mark.parametrize("flat", [False, True])
def test_standard_attention(kind: str, keys: int, flat: bool) -> None:
    declared, attributes, more = STANDARD[kind]
    if flat:
        shapes = [(5, 4 * 6), (4, keys * 6), (4, keys * 3)]
        attributes += f"q_num_heads = 4, kv_num_heads = {keys},"
        output = "B,5,12"
    else:
        shapes, output = [(4, 5, 6), (keys, 4, 6), (keys, 4, 3)], "B,4,5,3"
    texts = [f"float[B,{','.join(map(str, s))}] {n}" for s, n in zip(shapes, "qkv", strict=True)]
    model = parse(
        f"""
        g ({", ".join([*texts, *([declared] if declared else [])])}) => (float[{output}] y) {{
          y = Attention<{attributes.rstrip(",")}>(q, k, v{", m" if declared else ""})
        }}""".replace("<>", ""),
        opset=23,
    )
    feeds = [
        {name: hard(n, *s, seed=i) for i, (name, s) in enumerate(zip("qkv", shapes, strict=True))}
        | more
        for n in (2, 3)
    ]
    read = assert_same(model, *feeds, tolerance=1e-5)
    assert weighs_a_value(read)


def test_standard_attention_with_a_past_is_what_onnx_says() -> None:
    model = parse(
        """
        g (float[B,4,2,6] q, float[B,4,2,6] k, float[B,4,2,3] v, float[B,4,3,6] pk,
           float[B,4,3,3] pv)
            => (float[B,4,2,3] y, float[B,4,5,6] nk, float[B,4,5,3] nv) {
          y, nk, nv = Attention<softcap = 2.0>(q, k, v, , pk, pv)
        }""",
        opset=23,
    )
    shapes = {"q": (4, 2, 6), "k": (4, 2, 6), "v": (4, 2, 3), "pk": (4, 3, 6), "pv": (4, 3, 3)}
    feeds = [
        {name: hard(n, *s, seed=i) for i, (name, s) in enumerate(shapes.items())} for n in (2, 3)
    ]
    read = assert_same(model, *feeds, tolerance=1e-5)
    assert "Attention" not in operators(read)
