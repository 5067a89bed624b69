"""Lists that loops of scripts put together, as scan outputs."""

from __future__ import annotations

import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import InputError
from tests.sources.onnx.support import add_weights, assert_same, hard, operators, parse, run

CONSTANTS = {"one": np.array([1]), "go": np.array(True), "units": np.array([4])}


def script(kind: str):
    """`for t in range(T): h = tanh(h @ w + x[:, t]); results...`, `[batch, T, 4] -> y`.

    Args:
        kind: `append` and `torch.stack`, `extend` and `torch.cat`, or `cat` at each step, from
            nothing or behind what there is (`behind`); or a list that a step reads as well.
    """
    sequence = kind in ("append", "extend")
    first = {"behind": "x", "read": "x"}.get(kind, "nothing")
    empty = "l = SequenceEmpty <dtype = 1> ()" if sequence else f"l = Identity ({first})"
    held = "seq(float[batch, 4])" if sequence else "float[batch, M, 4]"
    add = {
        "append": "l_next = SequenceInsert (l_in, h_next)",
        "extend": "both = Concat <axis = 1> (entry, h_next)\n l_next = SequenceInsert (l_in, both)",
        "read": "mean = ReduceMean (l_in, one)\n l_next = Concat <axis = 1> (l_in, mean)",
    }.get(kind, "h_1 = Unsqueeze (h_next, one)\n l_next = Concat <axis = 1> (l_in, h_1)")
    end = {
        "append": "y = ConcatFromSequence <axis = 1, new_axis = 1> (results)",
        "extend": "y = ConcatFromSequence <axis = -1> (results)",
    }.get(kind, "y = Neg (results)")
    sizes = "float[batch, W] y" if kind == "extend" else "float[batch, L, 4] y"
    text = f"""script (float[batch, T, 4] x) => ({sizes}) {{
    count = Shape <start = 1, end = 2> (x)
    steps = Squeeze (count)
    rows = Shape <start = 0, end = 1> (x)
    whole = Concat <axis = 0> (rows, units)
    start = ConstantOfShape (whole)
    rank = Concat <axis = 0> (rows, zero, units)
    nothing = ConstantOfShape (rank)
    {empty}
    last, results = Loop (steps, go, start, l) <body = step (int64 i, bool on, float[batch, 4] h,
      {held} l_in) => (bool on_next, float[batch, 4] h_next, {held} l_next) {{
      on_next = Identity (on)
      entry = Gather <axis = 1> (x, i)
      mixed = MatMul (h, w)
      sum = Add (mixed, entry)
      h_next = Tanh (sum)
      {add} }}>
    {end} }}"""
    w = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)
    return add_weights(parse(text), w=w, zero=np.array([0]), **CONSTANTS)


@pytest.mark.parametrize("kind", ["append", "extend", "cat", "behind"])
def test_a_list_becomes_a_scan_output(kind):
    read = assert_same(script(kind), {"x": hard(2, 5, 4)}, {"x": hard(3, 1, 4, seed=1)})
    (loop,) = (n for n in read.model.graph if n.op_type == "Loop")
    assert len(loop.inputs) == 3  # the length, the condition and the state
    assert not [kind for kind in operators(read) if "Sequence" in kind]


def test_a_list_that_a_step_reads_stays():
    read = assert_same(script("read"), {"x": hard(2, 5, 4)})
    (loop,) = (n for n in read.model.graph if n.op_type == "Loop")
    assert len(loop.inputs) == 4


@pytest.mark.parametrize("kind", ["append", "cat"])
def test_gradients_pass_lists(kind, tmp_path):
    source = script(kind)
    probes = [pg.States(), pg.InputGradient(target=(-1, 2))]
    pg.compile(source, probes, tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="size 0 on the axis 'time'"):
        art.run(np.zeros((2, 0, 4)))
    x = hard(2, 4, 4)
    found = art.run(x)
    slope = found["input_gradient/x"].array
    step = 1e-2
    for place in ((0, 0, 1), (1, 2, 3), (0, 3, 2)):
        moved = np.zeros_like(x)
        moved[place] = step
        ends = [run(source, {"x": x + s * moved})["y"][place[0], -1, 2] for s in (1, -1)]
        right = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(slope[place], right, rtol=1e-2, atol=1e-4)
    sign = -1 if kind == "cat" else 1
    (states,) = (n for n in found if n.startswith("states/"))
    np.testing.assert_allclose(found[states].array, sign * found["y"].array, rtol=1e-5, atol=1e-6)
