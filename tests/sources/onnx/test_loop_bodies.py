"""Tensors inside the bodies of loops, over time, beside decoders written in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from scipy.special import softmax

import probegen as pg
from probegen import runtime
from probegen.errors import SelectionError, VerificationError
from probegen.sources.onnx import loop_bodies
from probegen.sources.onnx.reading import read_onnx
from tests.sources.onnx.support import add_weights, hard, parse

CLOSE = {"rtol": 1e-5, "atol": 2e-6}
INPUT, ENCODED, UNITS, SCORED, CLASSES = 3, 5, 4, 6, 2


def weights(seed: int = 0) -> dict[str, Any]:
    """Of a cell with additive attention, `[in, out]`."""
    rng = np.random.default_rng(seed)
    sizes = {
        "w_key": (ENCODED, SCORED), "w_query": (UNITS, SCORED), "w_score": (SCORED, 1),
        "w_in": (INPUT, UNITS), "w_context": (ENCODED, UNITS), "w_state": (UNITS, UNITS),
        "w_out": (UNITS, CLASSES),
    }  # fmt: skip
    return {n: (0.7 * rng.standard_normal(s)).astype(np.float32) for n, s in sizes.items()}


#: One step of a decoder: `entry` [batch, 3] and the state `h` -> `h_next`, `logits`. The keys and
#: the mask come from outside of the loop.
STEP = """
      query = MatMul (h, w_query)
      query_1 = Unsqueeze (query, ax1)
      sums = Add (keys, query_1)
      bounded = Tanh (sums)
      scores_1 = MatMul (bounded, w_score)
      scores = Squeeze (scores_1, ax2)
      masked = Where (kept, scores, far)
      weights = Softmax <axis = 1> (masked)
      weights_1 = Unsqueeze (weights, ax2)
      weighed = Mul (weights_1, encoded)
      context = ReduceSum <keepdims = 0> (weighed, ax1)
      a = MatMul (entry, w_in)
      b = MatMul (context, w_context)
      c = MatMul (h, w_state)
      ab = Add (a, b)
      abc = Add (ab, c)
      h_next = Tanh (abc)
      logits = MatMul (h_next, w_out)
"""
AROUND = """
    keys = MatMul (encoded, w_key)
    sizes = Shape <start = 0, end = 1> (encoded)
    whole = Concat <axis = 0> (sizes, units)
    zeros = ConstantOfShape (whole)
"""
HEAD = """decoder (float[batch, T, 3] x, float[batch, S, 5] encoded, bool[batch, S] kept)
    => (float[batch, T, 2] tags, float[batch, 4] last) {"""
CONSTANTS = {
    "ax1": np.array([1]), "ax2": np.array([2]), "units": np.array([UNITS]),
    "far": np.float32(-1e9), "go": np.array(True), "n1": np.array(1),
}  # fmt: skip


def as_loop() -> onnx.ModelProto:
    """As exporters write a `for` over the steps: a Loop that picks its entries itself."""
    text = f"""{HEAD} {AROUND}
    count = Shape <start = 1, end = 2> (x)
    steps = Squeeze (count)
    last, stacked = Loop (steps, go, zeros) <body = step (int64 i, bool on, float[batch, 4] h)
      => (bool on_next, float[batch, 4] h_next, float[batch, 2] logits) {{
      on_next = Identity (on)
      entry = Gather <axis = 1> (x, i)
      {STEP} }}>
    tags = Transpose <perm = [1, 0, 2]> (stacked) }}"""
    return add_weights(parse(text), **weights(), **CONSTANTS)


def as_scan(backwards: bool = False) -> onnx.ModelProto:
    """As a Scan over the steps; both directions have the axes of the input."""
    way = int(backwards)
    text = f"""{HEAD} {AROUND}
    turned = Transpose <perm = [1, 0, 2]> (x)
    last, stacked = Scan <num_scan_inputs = 1, scan_input_directions = [{way}],
      scan_output_directions = [{way}], body = step (float[batch, 4] h, float[batch, 3] entry)
      => (float[batch, 4] h_next, float[batch, 2] logits) {{ {STEP} }}> (zeros, turned)
    tags = Transpose <perm = [1, 0, 2]> (stacked) }}"""
    return add_weights(parse(text), **weights(), **CONSTANTS)


def by_numpy(
    feed: dict[str, Any], backwards: bool = False, given: Any = None, added: Any = None
) -> dict[str, Any]:
    """The decoder as its equations say it.

    Args:
        feed: its inputs.
        backwards: whether it starts with the last step.
        given: weights in the place of its own.
        added: what is added to its states, `[batch, time, unit]`.
    """
    w = weights()
    x, encoded = feed["x"], feed["encoded"]
    h = np.zeros((len(x), UNITS), np.float32)
    found: dict[int, tuple[Any, ...]] = {}
    order = range(x.shape[1])[:: -1 if backwards else 1]
    for t in order:
        scores = np.tanh(encoded @ w["w_key"] + (h @ w["w_query"])[:, None]) @ w["w_score"]
        scores = np.where(feed["kept"], scores[..., 0], np.float32(-1e9))
        attended = softmax(scores, 1) if given is None else given[:, t]
        context = (attended[..., None] * encoded).sum(1)
        h = np.tanh(x[:, t] @ w["w_in"] + context @ w["w_context"] + h @ w["w_state"])
        h = h if added is None else h + added[:, t]
        found[t] = (attended, h, h @ w["w_out"], context)
    names = ("weights", "states", "tags", "context")
    stacked = zip(*(found[t] for t in sorted(found)), strict=True)
    return dict(zip(names, (np.stack(a, 1) for a in stacked), strict=True)) | {"last": h}


def feed(batch: int, steps: int, length: int, seed: int = 0) -> dict[str, Any]:
    """Numbers of both signs with zeros and ties, and a row that is all padding but one."""
    kept = np.arange(length) < np.arange(1, batch + 1)[:, None]
    x, encoded = hard(batch, steps, INPUT, seed=seed), hard(batch, length, ENCODED, seed=seed + 1)
    return {"x": x, "encoded": encoded, "kept": kept}


PROBES = [
    pg.Attention(),
    pg.Activations("*/context", name="context"),
    pg.States(),
    pg.InputGradient(target=(-1, 1), output="tags", wrt="x"),
    pg.InputGradient(target=(1, 0), output="tags", wrt="states:*", name="at_states"),
    pg.GradientXInput(target=(1, 0), output="tags", wrt="states:*", name="of_states"),
]


def slopes_at_states(given: dict[str, Any], backwards: bool) -> Any:
    """What a tag's score changes by as each state is moved, by differences in float64."""
    wide = {n: v if v.dtype == bool else v.astype(np.float64) for n, v in given.items()}
    batch, steps = given["x"].shape[:2]
    found = np.zeros((batch, steps, UNITS))
    for t, unit in np.ndindex(steps, UNITS):
        moved = np.zeros((batch, steps, UNITS))
        moved[:, t, unit] = 1e-4
        ahead, behind = (
            by_numpy(wide, backwards, added=s * moved)["tags"][:, 1, 0] for s in (1, -1)
        )
        found[:, t, unit] = (ahead - behind) / 2e-4
    return found


@pytest.mark.parametrize(("kind", "backwards"), [("Loop", False), ("Scan", False), ("Scan", True)])
def test_a_decoder_gives_its_attention_over_time(kind, backwards, tmp_path):
    source = as_loop() if kind == "Loop" else as_scan(backwards)
    compiled = pg.compile(source, PROBES, tmp_path / "m.onnx")
    assert compiled.report.passed
    art = runtime.load(tmp_path / "m.onnx")
    (loop,) = (p.path for p in pg.inspect(source) if p.class_name == kind)
    name = f"attention/{loop}/weights"
    assert art.manifest.output(name).axes == ("batch", "time", "key")
    assert art.manifest.output(f"states/{loop}").axes == ("batch", "time", "unit")
    for batch, steps, length in ((2, 3, 5), (3, 2, 4), (1, 6, 2)):
        given = feed(batch, steps, length)
        found, right = art.run(given), by_numpy(given, backwards)
        slope = slopes_at_states(given, backwards)
        np.testing.assert_allclose(found["at_states"].array, slope, rtol=1e-4, atol=2e-6)
        product = slope * right["states"]
        np.testing.assert_allclose(found["of_states"].array, product, rtol=1e-4, atol=2e-6)
        for output, twin in (
            (name, "weights"), ("context", "context"), (f"states/{loop}", "states"),
            ("tags", "tags"), ("last", "last"),
        ):  # fmt: skip
            np.testing.assert_allclose(found[output].array, right[twin], err_msg=output, **CLOSE)
        again = by_numpy(given, backwards, found[name].array)
        np.testing.assert_allclose(again["tags"], found["tags"].array, **CLOSE)
    plain = art.run(given, explain=False)
    np.testing.assert_array_equal(plain["tags"].array, found["tags"].array)
    assert pg.verify(tmp_path / "m.onnx", source).passed


def test_the_plain_branch_collects_nothing_more(tmp_path):
    pg.compile(as_loop(), [pg.Attention()], tmp_path / "m.onnx", verify=False)
    (gate,) = (n for n in onnx.load(tmp_path / "m.onnx").graph.node if n.op_type == "If")
    counts = {
        a.name: [len(n.output) for n in a.g.node if n.op_type == "Loop"] for a in gate.attribute
    }
    assert counts == {"then_branch": [3], "else_branch": [2]}


def test_gradients_inside_a_loop_are_refused_by_name(tmp_path):
    source = as_loop()
    with pytest.raises(SelectionError, match=r"inside loop .*: no gradient is taken at it"):
        pg.compile(source, pg.InputGradient(output="last", wrt="*/context"), tmp_path / "m.onnx")
    with pytest.raises(SelectionError, match=r"no score can be taken from .* inside loop"):
        pg.compile(source, pg.InputGradient(of="*/context"), tmp_path / "m.onnx")
    with pytest.raises(SelectionError, match="attends anew in each step of a loop"):
        pg.compile(source, pg.AttentionRollout(), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_wrong_step_is_found(tmp_path, monkeypatch):
    """What runs the body by itself does not take over what the artefact collects."""
    right = loop_bodies.give_out_steps

    def wrong(builder, value, loops):
        return builder.mul(right(builder, value, loops), 1.001)

    monkeypatch.setattr("probegen.sources.onnx.lowering.give_out_steps", wrong)
    with pytest.raises(VerificationError, match="attention/"):
        pg.compile(as_loop(), [pg.Attention()], tmp_path / "m.onnx")


def of_heads() -> onnx.ModelProto:
    """As torch writes heads in a loop: joined with the samples, `[batch*heads, query, key]`."""
    text = """heads (float[batch, T, 6] x, float[batch, S, 6] memory) => (float[batch, T, 6] y) {
    apart = Reshape (memory, split)
    by_head = Transpose <perm = [0, 2, 1, 3]> (apart)
    joined = Reshape (by_head, rows)
    turned = Transpose <perm = [0, 2, 1]> (joined)
    count = Shape <start = 1, end = 2> (x)
    steps = Squeeze (count)
    sizes = Shape <start = 0, end = 1> (x)
    whole = Concat <axis = 0> (sizes, width)
    zeros = ConstantOfShape (whole)
    last, stacked = Loop (steps, go, zeros) <body = step (int64 i, bool on, float[batch, 6] h)
      => (bool on_next, float[batch, 6] h_next, float[batch, 6] out) {
      on_next = Identity (on)
      entry = Gather <axis = 1> (x, i)
      mixed = Add (entry, h)
      asked = Reshape (mixed, query_rows)
      products = MatMul (asked, turned)
      weights = Softmax <axis = 2> (products)
      attended = MatMul (weights, joined)
      together = Reshape (attended, together_rows)
      h_next = Tanh (together)
      out = Identity (h_next) }>
    y = Transpose <perm = [1, 0, 2]> (stacked) }"""
    return add_weights(
        parse(text), split=np.array([0, 0, 2, 3]), rows=np.array([-1, 4, 3]),
        query_rows=np.array([-1, 1, 3]), together_rows=np.array([-1, 6]),
        width=np.array([6]), go=np.array(True),
    )  # fmt: skip


def test_heads_that_are_joined_with_the_samples_come_apart(tmp_path):
    source = of_heads()
    source.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 4
    pg.compile(source, pg.Attention(), tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    (output,) = art.manifest.explanations
    assert output.axes == ("batch", "time", "head", "query", "key")
    for batch, steps in ((2, 3), (3, 5)):
        x, memory = hard(batch, steps, 6), hard(batch, 4, 6, seed=2)
        found = art.run({"x": x, "memory": memory})
        keys = memory.reshape(batch, 4, 2, 3).transpose(0, 2, 1, 3)
        h = np.zeros((batch, 6), np.float32)
        for t in range(steps):
            asked = (x[:, t] + h).reshape(batch, 2, 1, 3)
            weights = softmax(asked @ keys.transpose(0, 1, 3, 2), -1)
            np.testing.assert_allclose(found[output.name].array[:, t], weights, **CLOSE)
            h = np.tanh((weights @ keys).reshape(batch, 6))
        np.testing.assert_allclose(found["y"].array[:, -1], h, **CLOSE)


def nested() -> onnx.ModelProto:
    """A loop of two rounds in each step: each round attends anew with what the last one found."""
    text = """rounds (float[batch, T, 5] x, float[batch, S, 5] memory) => (float[batch, T, 5] y) {
    turned = Transpose <perm = [0, 2, 1]> (memory)
    first = Transpose <perm = [1, 0, 2]> (x)
    start = ReduceSum <keepdims = 0> (x, ax1)
    last, stacked = Scan <num_scan_inputs = 1, body = step (float[batch, 5] h, float[batch, 5] e)
      => (float[batch, 5] h_next, float[batch, 5] out) {
      asked = Add (h, e)
      found = Loop (two, go, asked) <body = round (int64 i, bool on, float[batch, 5] q)
        => (bool on_next, float[batch, 5] q_next) {
        on_next = Identity (on)
        q_1 = Unsqueeze (q, ax1)
        products = MatMul (q_1, turned)
        attended = Softmax <axis = 2> (products)
        mixed = MatMul (attended, memory)
        flat = Squeeze (mixed, ax1)
        q_next = Tanh (flat) }>
      h_next = Tanh (found)
      out = Identity (h_next) }> (start, first)
    y = Transpose <perm = [1, 0, 2]> (stacked) }"""
    return add_weights(parse(text), ax1=np.array([1]), two=np.array(2), go=np.array(True))


def test_a_loop_inside_a_loop_has_two_axes_of_time(tmp_path):
    source = nested()
    pg.compile(source, [pg.Attention(), pg.States()], tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    names = {o.name.partition("/")[0]: o for o in art.manifest.explanations}
    assert names["attention"].axes == ("batch", "time_0", "time_1", "query", "key")
    inner = next(
        o for o in art.manifest.explanations if "time_1" in o.axes and o is not names["attention"]
    )
    for batch, steps, length in ((2, 3, 4), (3, 1, 2)):
        x, memory = 0.3 * hard(batch, steps, 5), 0.3 * hard(batch, length, 5, seed=4)
        found = art.run({"x": x, "memory": memory})
        h = x.sum(1)
        for t in range(steps):
            q = h + x[:, t]
            for r in range(2):
                weights = softmax(q[:, None] @ memory.transpose(0, 2, 1), -1)
                got = found[names["attention"].name].array[:, t, r]
                np.testing.assert_allclose(got, weights, **CLOSE)
                q = np.tanh((weights @ memory)[:, 0])
                np.testing.assert_allclose(found[inner.name].array[:, t, r], q, **CLOSE)
            h = np.tanh(q)
        np.testing.assert_allclose(found["y"].array[:, -1], h, **CLOSE)


def branching() -> onnx.ModelProto:
    """A step attends in a branch, and otherwise hands on what it has."""
    text = """sometimes (float[batch, T, 5] x, float[batch, S, 5] memory, bool attend)
      => (float[batch, T, 5] y) {
    turned = Transpose <perm = [0, 2, 1]> (memory)
    first = Transpose <perm = [1, 0, 2]> (x)
    start = ReduceSum <keepdims = 0> (x, ax1)
    last, stacked = Scan <num_scan_inputs = 1, body = step (float[batch, 5] h, float[batch, 5] e)
      => (float[batch, 5] h_next, float[batch, 5] out) {
      asked = Add (h, e)
      found = If (attend) <then_branch = looks () => (float[batch, 5] flat) {
        q_1 = Unsqueeze (asked, ax1)
        products = MatMul (q_1, turned)
        attended = Softmax <axis = 2> (products)
        mixed = MatMul (attended, memory)
        flat = Squeeze (mixed, ax1) }, else_branch = skips () => (float[batch, 5] same) {
        same = Identity (asked) }>
      h_next = Tanh (found)
      out = Identity (h_next) }> (start, first)
    y = Transpose <perm = [1, 0, 2]> (stacked) }"""
    return add_weights(parse(text), ax1=np.array([1]))


def test_a_branch_inside_a_loop_is_refused_by_name(tmp_path):
    points = {p.path.rpartition("/")[2]: p for p in pg.inspect(branching())}
    assert points["attended"].role == "attention"
    assert not points["attended"].probes
    assert points["asked"].probes == ("activation",)
    with pytest.raises(SelectionError, match="in a branch of If"):
        pg.compile(branching(), pg.Attention("*attended"), tmp_path / "m.onnx")


def growing() -> onnx.ModelProto:
    """A decoder with a memory that each step makes longer by what it found."""
    text = """longer (float[batch, T, 5] x) => (float[batch, T, 5] y) {
    first = Transpose <perm = [1, 0, 2]> (x)
    count = Shape <start = 1, end = 2> (x)
    steps = Squeeze (count)
    start = Slice (x, zero, one, one)
    last, stacked = Loop (steps, go, start) <body = step (int64 i, bool on, float[batch, M, 5] m)
      => (bool on_next, float[batch, M2, 5] longer_m, float[batch, 5] out) {
      on_next = Identity (on)
      entry = Gather <axis = 1> (x, i)
      q = Unsqueeze (entry, one)
      turned = Transpose <perm = [0, 2, 1]> (m)
      products = MatMul (q, turned)
      attended = Softmax <axis = 2> (products)
      mixed = MatMul (attended, m)
      longer_m = Concat <axis = 1> (m, mixed)
      out = Squeeze (mixed, one) }>
    y = Transpose <perm = [1, 0, 2]> (stacked) }"""
    return add_weights(parse(text), zero=np.array([0]), one=np.array([1]), go=np.array(True))


def test_what_changes_its_size_is_refused_and_the_rest_is_not(tmp_path):
    points = {p.path.rpartition("/")[2]: p for p in pg.inspect(growing())}
    assert points["attended"].probes == ()
    assert "its size changes from step to step" in points["attended"].reason
    with pytest.raises(SelectionError, match="its size changes from step to step"):
        pg.compile(growing(), pg.Attention("*attended"), tmp_path / "m.onnx")
    pg.compile(growing(), pg.Activations("*mixed"), tmp_path / "m.onnx")
    x = hard(2, 4, 5)
    found = runtime.load(tmp_path / "m.onnx").run(x)
    (output,) = (o for o in found if o.startswith("activation/"))
    np.testing.assert_allclose(found[output].array[:, :, 0], found["y"].array, **CLOSE)


def test_random_numbers_inside_a_loop_are_refused(tmp_path):
    text = """noisy (float[batch, T, 5] x) => (float[batch, T, 5] y) {
    first = Transpose <perm = [1, 0, 2]> (x)
    start = ReduceSum <keepdims = 0> (x, ax1)
    last, stacked = Scan <num_scan_inputs = 1, body = step (float[batch, 5] h, float[batch, 5] e)
      => (float[batch, 5] h_next, float[batch, 5] out) {
      noise = RandomNormalLike (e)
      asked = Add (h, noise)
      h_next = Tanh (asked)
      out = Identity (h_next) }> (start, first)
    y = Transpose <perm = [1, 0, 2]> (stacked) }"""
    with pytest.raises(pg.errors.InstrumentError, match="'y' is drawn at random"):
        pg.compile(add_weights(parse(text), ax1=np.array([1])), [], tmp_path / "m.onnx")


def test_every_step_has_a_place_of_its_own_in_a_view():
    """Nodes of bodies stand behind their loop's path, and only once."""
    paths = [p.path for p in pg.inspect(nested())]
    assert len(paths) == len(set(paths))
    inner = [p for p in paths if p.endswith("attended")]
    assert len(inner) == 1
    assert inner[0].count("/") == 1
    assert read_onnx(nested()).model.graph.inputs[0].name == "x"


def test_what_the_preparation_leaves_out_has_a_type_too(tmp_path):
    """An Expand that changes nothing, which the loop reads from outside."""
    text = """m (double[batch, 3] x) => (double[batch, 3] y) {
      same = Expand (x, ones)
      y = Loop (turns, go, same) <body = body
        (int64 i, bool going, double[batch, 3] carried) => (bool on, double[batch, 3] next) {
          bent = Tanh (carried)
          next = Add (bent, same)
          on = Identity (going)
      }>
    }
    """
    model = add_weights(parse(text), ones=np.array([1, 1]), turns=np.array(2), go=np.array(True))
    report = pg.compile(model, [pg.States()], tmp_path / "m.onnx").report
    assert report.passed


def test_lists_beside_a_loop_keep_their_type(tmp_path):
    """One that is read by name, and one that went through other operators."""
    text = """m (float[batch, 3] x) => (float[batch, 6] y) {
      list = SequenceConstruct (x, x)
      same = Identity (list)
      wide = ConcatFromSequence <axis = 1> (same)
      y = Loop (turns, go, wide) <body = body
        (int64 i, bool going, float[batch, 6] carried) => (bool on, float[batch, 6] next) {
          bent = Tanh (carried)
          next = Add (bent, wide)
          on = Identity (going)
      }>
    }
    """
    model = add_weights(parse(text), turns=np.array(2), go=np.array(True))
    report = pg.compile(model, [pg.States()], tmp_path / "m.onnx").report
    assert report.passed
