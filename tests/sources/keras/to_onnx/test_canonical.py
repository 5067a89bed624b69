"""The same model and probes give the same bytes, in whichever process they are compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime

import probegen
from probegen import runtime
from probegen.sources.keras.to_onnx.canonical import make_canonical

COMPILE = """
import sys
import probegen as pg
for time in range(int(sys.argv[3])):
    probes = [pg.InputGradient(), pg.Activations("scores")]  # the prediction comes out twice
    pg.compile(sys.argv[1], probes, f"{sys.argv[2]}_{time}.onnx", verify=False)
"""


def _model() -> keras.Model:
    """Recurrent layers, attention, an embedding with a mask and convolutions, all in one."""
    layers = keras.layers
    series, image = keras.Input((4, 5), name="series"), keras.Input((6, 8, 3), name="image")
    ids = keras.Input((4,), dtype="int32", name="ids")
    h = layers.GRU(6, return_sequences=True)(series)
    h = layers.MultiHeadAttention(2, 3)(h, h)
    h = layers.Flatten()(layers.LayerNormalization()(h))
    t = layers.SimpleRNN(3)(layers.Embedding(9, 3, mask_zero=True)(ids))
    c = layers.Conv2D(4, 3, activation="relu")(image)
    c = layers.Conv2DTranspose(3, 2)(layers.MaxPooling2D()(c))
    c = layers.GlobalAveragePooling2D()(c)
    h = layers.Concatenate()([h, t, keras.ops.cumprod(c, axis=-1)])
    return keras.Model([series, image, ids], layers.Dense(3, name="scores")(h))


def test_two_processes_write_the_same_bytes_each_time(tmp_path: Path) -> None:
    _model().save(tmp_path / "model.keras")
    root = str(Path(probegen.__file__).parents[1])
    running = []
    for seed, times in (("1", 2), ("2", 1)):
        # Sets of strings and of objects come in another order in each of them.
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": root}
        command = [sys.executable, "-c", COMPILE, "model.keras", seed, str(times)]
        running.append(subprocess.Popen(command, cwd=tmp_path, env=environment))
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    first, *others = [(tmp_path / f"{one}.onnx").read_bytes() for one in ("1_0", "1_1", "2_0")]
    assert [first == other for other in others] == [True] * 2


TWICE = """
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[n,3] x) => (float[n,3] y, float[m,n,3] z)
    <float[1] w__7 = {2}, float[1] v__3 = {2}, int64 count = {4}, bool go = {1}> {
        %s
        y = Add(p, q)
        last, z = Loop (count, go, x) <body = b (int64 i, bool c, float[n,3] s)
            => (bool c2, float[n,3] s2, float[n,3] e) { c2 = Identity(c) %s }>
    }
"""
#: One computation in two orders, under two sets of names, with either of two equal outputs first.
VARIANTS = [
    (
        "a__12 = Exp(x) unused = Sin(x) b = Exp(x) p = Mul(a__12, w__7) q = Mul(b, v__3)",
        "t = Mul(s, p) s2 = Tanh(t) e = Identity(s2)",
    ),
    (
        "b = Exp(x) a__4 = Exp(x) q = Mul(b, v__3) p = Mul(a__4, w__7)",
        "t = Mul(s, p) e = Tanh(t) s2 = Identity(e)",
    ),
]


def _variant(texts: tuple[str, str]) -> onnx.ModelProto:
    return onnx.parser.parse_model(TWICE % texts)


def test_order_and_names_come_from_what_is_computed() -> None:
    """One of the two equal nodes is left, one constant, no counter, nothing unused."""
    found = []
    for texts in VARIANTS:
        model = ir.from_proto(_variant(texts))
        make_canonical(model)
        found.append(model)
    texts = [onnx.printer.to_text(ir.to_proto(model)) for model in found]
    assert texts[0].replace("w__7", "w") == texts[0]
    kinds = [[node.op_type for node in model.graph] for model in found]
    assert kinds == [["Exp", "Mul", "Add", "Loop"]] * 2
    bodies = [[node.op_type for node in m.graph.node(3).attributes["body"].value] for m in found]
    assert bodies[0] == bodies[1]
    names = [[v.name for node in model.graph for v in node.outputs] for model in found]
    assert names[0] == names[1]


def test_what_is_computed_stays() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    for texts in VARIANTS:
        model = ir.from_proto(_variant(texts))
        make_canonical(model)
        made = ir.to_proto(model)
        onnx.checker.check_model(made, full_check=True)
        assert [o.name for o in made.graph.output] == ["y", "z"]
        before, after = (
            onnxruntime.InferenceSession(m.SerializeToString()).run(None, {"x": x})
            for m in (_variant(texts), made)
        )
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_branch_that_gives_back_its_input(tmp_path: Path) -> None:
    x = keras.Input((3,), name="x")

    def chosen(v: Any) -> Any:
        inner = lambda: keras.ops.cond(v[0, 0] > 0, lambda: v, lambda: -v)  # noqa: E731
        return keras.ops.cond(keras.ops.sum(v) > 0, inner, lambda: v - 1)

    y = keras.layers.Dense(2, name="y")(keras.layers.Lambda(chosen, output_shape=(3,))(x))
    model = keras.Model(x, y)
    probegen.compile(model, [], tmp_path / "m.onnx", verify=False)
    art = runtime.load(tmp_path / "m.onnx")
    for row in ([1.0, 2.0, 0.5], [-1.0, 4.0, 0.5], [-3.0, 1.0, 0.5]):
        given = np.array([row, row[::-1]], np.float32)
        np.testing.assert_allclose(art.run(given)["y"].array, model(given), atol=1e-6)
