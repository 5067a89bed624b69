"""Attention weights: every softmax that weighs values, and no other; and how they come out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import runtime
from probegen.plan.making import make_plan
from probegen.sources import open_source
from probegen.sources.onnx.attention_weights import attention_weights
from probegen.sources.onnx.reading import read_onnx
from tests.sources.onnx.joined_heads import joined_heads
from tests.sources.onnx.support import add_weights, hard, parse, run


def _found(text: str, opset: int = 18, **weights):
    graph = read_onnx(add_weights(parse(text, opset), **weights)).model.graph
    varying = set(graph.inputs)
    for node in graph:
        if any(v in varying for v in node.inputs):
            varying.update(node.outputs)
    return [
        (str(w.value.name), w.keys[0] if len(w.keys) == 1 else w.keys)
        for w in attention_weights(graph, varying)
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("t = Transpose<perm=[0,2,1]>(x) s = MatMul(x, t) w = Softmax(s) y = MatMul(w, x)", 2),
        # Weights behind the values: summed over their rows.
        ("t = Transpose<perm=[0,2,1]>(x) s = MatMul(x, t) w = Softmax<axis=1>(s) "
         "u = Transpose<perm=[0,2,1]>(w) y = MatMul(u, x)", 1),
        ("t = Transpose<perm=[0,2,1]>(x) s = MatMul(x, t) w = Softmax(s) "
         'y = Einsum<equation="bqk,bkc->bqc">(w, x)', 2),
        # Additive attention of one query: weighed and summed.
        ("s = ReduceMean<axes=[2], keepdims=1>(x) w = Softmax<axis=1>(s) m = Mul(w, x) "
         "y = ReduceSum<keepdims=1>(m, one)", 1),
    ],
)  # fmt: skip
def test_what_weighs_values(body: str, expected: int) -> None:
    opset = 17 if "axes=[2]" in body else 18
    text = f"g (float[N,5,4] x) => (float[N,P,4] y) {{ {body} }}"
    assert _found(text, opset, one=np.array([1])) == [("w", expected)]


@pytest.mark.parametrize(
    "body",
    [
        "y = Softmax(x)",
        # Classes: multiplied with a stored matrix, or summed over something else.
        "w = Softmax(x) y = MatMul(w, m)",
        "w = Softmax(x) p = Mul(w, x) y = ReduceSum<keepdims=1>(p, one)",
        "w = Softmax(x) y = Add(w, x)",
    ],
)
def test_what_does_not(body: str) -> None:
    text = f"g (float[N,5,4] x) => (float[N,P,Q] y) {{ {body} }}"
    assert not _found(text, m=np.ones((4, 3), np.float32), one=np.array([1]))


_SCORES = "t = Transpose<perm=[0,2,1]>(x) s = MatMul(x, t) "


@pytest.mark.parametrize(
    "body",
    [
        "e = Exp(s) d = ReduceSum<keepdims=1>(e, last) w = Div(e, d) y = MatMul(w, x)",
        "e = Exp(s) d = ReduceSum<keepdims=1>(e, last) g = Add(d, small) w = Div(e, g) "
        "y = MatMul(w, x)",
        "e = Exp(s) d = ReduceSum<keepdims=1>(e, last) r = Reciprocal(d) w = Mul(e, r) "
        "y = MatMul(w, x)",
        "p = LogSoftmax(s) w = Exp(p) y = MatMul(w, x)",
        "l = ReduceLogSumExp<keepdims=1>(s, last) p = Sub(s, l) w = Exp(p) y = MatMul(w, x)",
        # Normalised again behind a mask, of truths or of numbers that are fed.
        "a = Softmax(s) m = Mul(a, kept) d = ReduceSum<keepdims=1>(m, last) w = Div(m, d) "
        "y = MatMul(w, x)",
        "a = Softmax(s) m = Mul(a, fed) d = ReduceSum<keepdims=1>(m, last) w = Div(m, d) "
        "y = MatMul(w, x)",
    ],
)
def test_softmaxes_that_are_written_out(body: str, tmp_path) -> None:
    text = f"""
        g (float[N,5,4] x, bool[N,5,5] mask, float[N,5,5] fed) => (float[N,5,4] y) {{
          kept = Cast<to=1>(mask) {_SCORES} {body} }}"""
    held = {"last": np.array([2]), "small": np.float32(1e-9)}
    used = {n: v for n, v in held.items() if n in body}
    assert _found(text, **used) == [("w", 2)]
    model = add_weights(parse(text), **used)
    assert pg.compile(model, [pg.Attention()], tmp_path / "m.onnx").report.passed


@pytest.mark.parametrize(
    "body",
    [
        "l = ReduceLogSumExp<keepdims=1>(s, axes) p = Sub(s, l) w = Exp(p) "
        'y = Einsum<equation="nabde,ndec->nabc">(w, x)',
        "e = Exp(s) d = ReduceSum<keepdims=1>(e, axes) w = Div(e, d) "
        "one = Reshape(w, joined) v = Reshape(x, line) z = MatMul(one, v) y = Reshape(z, map)",
        # A sum over one of the two alone weighs nothing.
        "e = Exp(s) d = ReduceSum<keepdims=1>(e, axes) w = Div(e, d) f = ReduceMax(w, last) "
        "y = Mul(f, x)",
    ],
)
def test_softmaxes_over_two_axes(body: str) -> None:
    text = f"""
        g (float[N,3,5,4] x) => (float[N,3,5,4] y) {{
          s = Einsum<equation="nabc,ndec->nabde">(x, x) {body} }}"""
    held = {
        "axes": np.array([3, 4]),
        "last": np.array([4]),
        "joined": np.array([-1, 15, 15]),
        "line": np.array([-1, 15, 4]),
        "map": np.array([-1, 3, 5, 4]),
    }
    found = _found(text, **{n: v for n, v in held.items() if n in body})
    assert found == ([("w", (3, 4))] if "Max" not in body else [])


def test_a_sum_that_no_output_needs_is_none() -> None:
    text = f"""
        g (float[N,5,4] x) => (float[N,5,5] y) {{
          {_SCORES} w = Softmax(s) lost = MatMul(w, x) y = Identity(w) }}"""
    assert not _found(text)


def test_rows_that_are_masked_whole_are_taken_where_they_are_applied() -> None:
    """torch writes 0 in the place of the NaN of a row in which everything is masked."""
    text = """
        g (float[N,5,4] x, float[N,5,5] mask) => (float[N,5,4] y) {
          t = Transpose<perm=[0,2,1]>(x)
          s = MatMul(x, t)
          m = Add(s, mask)
          w = Softmax(m)
          lost = IsNaN(w)
          applied = Where(lost, zero, w)
          y = MatMul(applied, x)
        }"""
    assert _found(text, zero=np.float32(0)) == [("applied", 2)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("m = Mul(w, kept) y = MatMul(m, x)", "m"),
        # As tf2onnx writes where(mask, w, 0).
        ("m = Mul(kept, w) n = Not(mask) f = Cast<to=1>(n) z = Mul(zero, f) a = Add(m, z) "
         "y = MatMul(a, x)", "a"),
        ("b = Sub(one, kept) m = Mul(w, b) y = MatMul(m, x)", "m"),
        # A scale, and what depends on more than a mask, is no mask.
        ("m = Mul(w, two) y = MatMul(m, x)", "w"),
        ("g = ReduceMean<keepdims=1>(x) m = Mul(w, g) y = MatMul(m, x)", "w"),
    ],
)  # fmt: skip
def test_weights_are_taken_behind_masks(body: str, expected: str) -> None:
    """A softmax says 1 / keys where everything is masked; what is applied there is 0."""
    text = f"""
        g (float[N,5,4] x, bool[N,5,5] mask) => (float[N,5,4] y) {{
          t = Transpose<perm=[0,2,1]>(x) s = MatMul(x, t)
          kept = Cast<to=1>(mask)
          w = Softmax(s) {body} }}"""
    held = {"zero": np.float32(0), "one": np.float32(1), "two": np.float32([2])}
    used = {name: v for name, v in held.items() if f"{name}," in body or f", {name}" in body}
    assert _found(text, **used) == [(expected, 2)]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("c = Slice(w, zero, five, two) y = MatMul(c, x)", "c"),
        ("c = Slice(w, zero, five, last) m = Mul(c, kept) y = MatMul(m, x)", "m"),
        # Of scaled weights it is not known what is applied.
        ("h = Mul(w, half) c = Slice(h, zero, five, two) y = MatMul(c, x)", "w"),
    ],
)
def test_keys_that_are_cut_off_weigh_nothing(body: str, expected: str) -> None:
    """A sink takes its share of the softmax and has no value."""
    text = f"""
        g (float[N,5,4] x, bool[N,5,5] mask) => (float[N,5,4] y) {{
          t = Transpose<perm=[0,2,1]>(x) s = MatMul(x, t) sink = ReduceMax<keepdims=1>(s, last)
          kept = Cast<to=1>(mask)
          a = Concat<axis=2>(s, sink)
          w = Softmax(a) {body} }}"""
    held = {"zero": [0], "five": [5], "two": [2], "last": [-1]}
    used = {n: np.array(v) for n, v in held.items() if f"{n}," in body or f"{n})" in text}
    if "half" in body:
        used["half"] = np.float32([0.5])
    assert _found(text, **used) == [(expected, 2)]


@pytest.mark.parametrize("batch", ["N", "2"])
def test_heads_that_are_joined_with_samples_come_out_apart(tmp_path, batch: str) -> None:
    source, path = tmp_path / "m.onnx", tmp_path / "probed.onnx"
    onnx.save(joined_heads(batch), source)
    pg.compile(str(source), [pg.Attention()], str(path))
    art = runtime.load(path)
    (spec,) = art.manifest.explanations
    assert spec.axes == ("batch", "head", "query", "key")
    assert spec.shape[1:] == (3, 5, 5)
    model = joined_heads(batch)
    del model.graph.output[:]
    model.graph.output.add().name = "weights"
    for rows in (2, 7) if batch == "N" else (2,):
        x = hard(rows, 5, 12)
        expected = run(model, {"x": x})["weights"].reshape(rows, 3, 5, 5)
        np.testing.assert_allclose(art.run(x)[spec.name].array, expected, atol=1e-6)


def _windows() -> onnx.ModelProto:
    """A model that attends within windows of 2 x 5 positions."""
    return add_weights(
        parse(
            """
            g (float[N,6,10,8] x) => (float[M,10,8] y) {
              six = Reshape(x, cut)
              t = Transpose<perm=[0,1,3,2,4,5]>(six)
              windows = Reshape(t, joined)
              turned = Transpose<perm=[0,2,1]>(windows)
              scores = MatMul(windows, turned)
              w = Softmax(scores)
              y = MatMul(w, windows)
            }"""
        ),
        cut=np.array([-1, 3, 2, 2, 5, 8]),
        joined=np.array([-1, 10, 8]),
    )


def test_attention_within_windows(tmp_path) -> None:
    """[batch*windows, query, key]: windows are no samples, and are told apart from them."""
    model = _windows()
    (point,) = [p for p in pg.inspect(model) if "attention" in p.probes]
    assert "joined with other positions" in point.reason
    plan = make_plan(open_source(model).view, [pg.Attention()], None)
    (spec,) = plan.manifest.explanations
    assert spec.axes == ("batch", "window_0", "window_1", "query", "key")
    assert spec.shape == (None, 3, 2, 10, 10)
    path = tmp_path / "probed.onnx"
    pg.compile(model, [pg.Attention(), pg.Activations("*y")], str(path))
    art = runtime.load(path)
    x = hard(3, 6, 10, 8)
    (weights,) = [o for o in art.manifest.explanations if o.kind == "attention"]
    cut = x.reshape(3, 3, 2, 2, 5, 8).transpose(0, 1, 3, 2, 4, 5).reshape(3, 3, 2, 10, 8)
    scores = np.einsum("buvqc,buvkc->buvqk", cut, cut).astype(np.float64)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    found = art.run(x)
    np.testing.assert_allclose(found[weights.name].array, shares, atol=1e-5)
