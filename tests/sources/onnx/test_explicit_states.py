"""States of ONNX files as inputs and outputs: a series in chunks is the series."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

import probegen as pg
from probegen import runtime
from probegen.errors import (
    ArtefactError,
    ExportError,
    InputError,
    SelectionError,
    VerificationError,
)
from probegen.sources.onnx import explicit_states
from tests.sources.onnx.support import add_weights, parse

CLOSE = {"rtol": 1e-5, "atol": 2e-6}
WIDTH, UNITS = 3, 4


def stored(rng, name, gates, width):
    arrays = {
        "w": rng.standard_normal((1, gates * UNITS, width)),
        "r": 0.5 * rng.standard_normal((1, gates * UNITS, UNITS)),
        "b": 0.2 * rng.standard_normal((1, 2 * gates * UNITS)),
    }
    return {name + key: array.astype("float32") for key, array in arrays.items()}


def model(nodes, arrays, inputs, outputs, opset=17):
    def infos(named):
        return [helper.make_tensor_value_info(n, 1, s) for n, s in named.items()]

    held = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "tagger", infos(inputs), infos(outputs), held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def tagger(zeros=None, opset=17, turned=False, lower_from=None):
    """An LSTM and a GRU over series, `[batch, time, 3]` -> `[batch, 2]`; its own last state inside.

    Args:
        zeros: the batch of the zeros that the LSTM starts from; left out where None.
        opset: 11 has axes as attributes.
        turned: whether the series is read from its end.
        lower_from: a constant that the LSTM starts from instead.
    """
    rng = np.random.default_rng(3)
    arrays = stored(rng, "l", 4, WIDTH) | stored(rng, "g", 3, UNITS)
    arrays["d"] = rng.standard_normal((UNITS, 2)).astype("float32")
    start = []
    if zeros or lower_from is not None:
        arrays["z"] = np.zeros((1, zeros or 1, UNITS), "float32") + (lower_from or 0)
        start = ["", "z", "z"]
    series = "xt"
    nodes = [helper.make_node("Transpose", ["x"], ["xt"], "turn", perm=[1, 0, 2])]
    if turned:
        for name, number in (("from", -1), ("to", -(2**31)), ("along", 0), ("by", -1)):
            arrays[name] = np.array([number])
        nodes += [helper.make_node("Slice", ["xt", "from", "to", "along", "by"], ["xr"], "back")]
        series = "xr"
    squeeze = {"axes": [1]} if opset < 13 else {}
    arrays |= {} if opset < 13 else {"one": np.array([1]), "zero": np.array([0])}
    more = [] if opset < 13 else ["one"]
    nodes += [
        helper.make_node("LSTM", [series, "lw", "lr", "lb", *start], ["y"], "lower", hidden_size=4),
        helper.make_node("Squeeze", ["y", *more], ["ys"], "alone", **squeeze),
        helper.make_node(
            "GRU", ["ys", "gw", "gr", "gb"], ["", "h"], "enc/upper", hidden_size=4,
            linear_before_reset=1,
        ),
        helper.make_node(
            "Squeeze", ["h", *([] if opset < 13 else ["zero"])], ["last"], "flat",
            **({"axes": [0]} if opset < 13 else {}),
        ),
        helper.make_node("MatMul", ["last", "d"], ["logits"], "dense"),
        helper.make_node("Softmax", ["logits"], ["tags"], "softmax"),
    ]  # fmt: skip
    return model(nodes, arrays, {"x": ["N", "T", WIDTH]}, {"tags": ["N", 2]}, opset)


def by_itself(file, feed):
    return ort.InferenceSession(file.SerializeToString()).run(None, feed)


def series(batch, time, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, time, WIDTH)).astype("float32")


@pytest.mark.parametrize("kind", [{}, {"zeros": 1}, {"zeros": 2, "opset": 11}])
def test_two_chunks_give_what_the_whole_gives(kind, tmp_path):
    file = tagger(**kind)
    probes = [pg.InputGradient(target=1), pg.States("*upper"), pg.Saliency(1, wrt="state/lower")]
    pg.compile(file, probes, tmp_path / "m.onnx", states="io")
    art = runtime.load(tmp_path / "m.onnx")
    x = series(kind.get("zeros") or 3, 9)
    whole = art.run(x)
    np.testing.assert_allclose(whole["tags"].array, by_itself(file, {"x": x})[0], **CLOSE)
    first = art.run(x[:, :4], explain=False)
    assert list(first.states) == ["state/lower", "state/lower:1", "state/enc/upper"]
    second = art.run(x[:, 4:], states=first.states)
    for name, value in second.states.items():
        np.testing.assert_allclose(value, whole.states[name], err_msg=name, **CLOSE)
    np.testing.assert_allclose(second["tags"].array, whole["tags"].array, **CLOSE)
    for name in ("input_gradient/x", "states/enc/upper"):
        got, right = second[name].array, whole[name].array[:, 4:]
        np.testing.assert_allclose(got, right, err_msg=name, **CLOSE)
    other = art.run(series(5, 2))  # zeros of the size of one export do not bind it
    assert other.states["state/lower:1"].shape == (5, UNITS)
    assert pg.verify(tmp_path / "m.onnx", file).passed


def test_one_operator_alone(tmp_path):
    pg.compile(tagger(), pg.Saliency(1), tmp_path / "m.onnx", states="io:enc/*")
    assert list(runtime.load(tmp_path / "m.onnx").run(series(2, 3)).states) == ["state/enc/upper"]


def stepping(names=("h0", "hn"), given_out=True):
    """A GRU of two layers whose states are one input and one output: `[layer, batch, unit]`."""
    rng = np.random.default_rng(4)
    arrays = stored(rng, "a", 3, WIDTH) | stored(rng, "b", 3, UNITS)
    arrays |= {"one": np.array([1]), "each": np.array([1, 1])}
    before, after = names
    nodes = [
        helper.make_node("Split", [before, "each"], ["s0", "s1"], "split", axis=0),
        helper.make_node("GRU", ["x", "aw", "ar", "ab", "", "s0"], ["y0", "e0"], "a",
                         hidden_size=4),
        helper.make_node("Squeeze", ["y0", "one"], ["x1"], "inner"),
        helper.make_node("GRU", ["x1", "bw", "br", "bb", "", "s1"], ["y1", "e1"], "b",
                         hidden_size=4),
        helper.make_node("Squeeze", ["y1", "one"], ["out"], "outer"),
    ]  # fmt: skip
    outputs = {"out": ["T", "N", UNITS]}
    if given_out:
        nodes.append(helper.make_node("Concat", ["e0", "e1"], [after], "both", axis=0))
        outputs[after] = [2, "N", UNITS]
    inputs = {"x": ["T", "N", WIDTH], before: [2, "N", UNITS]}
    return model(nodes, arrays, inputs, outputs)


@pytest.mark.parametrize("states", ["io", {"memory": "left"}])
def test_states_that_a_file_has_already(states, tmp_path):
    """What the graph does with them tells, whatever they are called."""
    file = stepping(("memory", "left"))
    pg.compile(file, pg.InputGradient(target=(-1, 1)), tmp_path / "m.onnx", states=states)
    art = runtime.load(tmp_path / "m.onnx")
    assert [i.next_state for i in art.inputs] == [None, "left"]
    x = np.swapaxes(series(3, 7), 0, 1)
    whole = art.run(x)
    np.testing.assert_allclose(
        whole["out"].array,
        by_itself(file, {"x": x, "memory": np.zeros((2, 3, UNITS), "float32")})[0],
        **CLOSE,
    )
    first = art.run(x[:3])
    second = art.run(x[3:], states=first.states)
    np.testing.assert_allclose(second["out"].array, whole["out"].array[3:], **CLOSE)
    for name in ("input_gradient/x", "left"):
        right = whole[name].array
        right = right[3:] if name != "left" else right
        np.testing.assert_allclose(second[name].array, right, err_msg=name, **CLOSE)
    with pytest.raises(InputError, match="'memory' has 2 rows and the inputs have 3"):
        art.run(x, states={"memory": np.zeros((2, 2, UNITS))})
    assert pg.verify(tmp_path / "m.onnx", file).passed


def test_states_that_a_file_has_are_told(tmp_path):
    with pytest.raises(ExportError, match=r"'a' .* among the file's inputs already: 'h0'"):
        pg.compile(stepping(), pg.Saliency(0), tmp_path / "m.onnx", states="io:a")
    for given, said in (
        ({"x": "hn"}, r"one shape, and 'x' is float32 \[None, None, 3\] and 'hn'"),
        ({"h1": "hn"}, "no input 'h1'; it has 'x', 'h0'"),
        ({}, "states= takes 'io'"),
    ):
        with pytest.raises(ExportError, match=said):
            pg.compile(stepping(), pg.Saliency(0), tmp_path / "m.onnx", states=given)


def test_a_series_is_no_state_whatever_it_is_called(tmp_path):
    """A forecaster predicts `next_x` of `x`; what goes from chunk to chunk is its hidden state."""
    arrays = stored(np.random.default_rng(5), "l", 4, WIDTH) | {"one": np.array([1])}
    arrays["d"] = np.random.default_rng(6).standard_normal((UNITS, WIDTH)).astype("float32")
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"], "turn", perm=[1, 0, 2]),
        helper.make_node("LSTM", ["xt", "lw", "lr", "lb"], ["y"], "lower", hidden_size=4),
        helper.make_node("Squeeze", ["y", "one"], ["ys"], "alone"),
        helper.make_node("Transpose", ["ys"], ["yt"], "back", perm=[1, 0, 2]),
        helper.make_node("MatMul", ["yt", "d"], ["next_x"], "dense"),
    ]
    sizes = ["N", "T", WIDTH]
    file = model(nodes, arrays, {"x": sizes}, {"next_x": sizes})
    pg.compile(file, [], tmp_path / "m.onnx", states="io")
    art = runtime.load(tmp_path / "m.onnx")
    x = series(2, 9)
    first = art.run(x[:, :4])
    assert list(first.states) == ["state/lower", "state/lower:1"]
    second = art.run(x[:, 4:], states=first.states)
    right = by_itself(file, {"x": x})[0][:, 4:]
    np.testing.assert_allclose(second["next_x"].array, right, **CLOSE)


def forecaster(kind):
    """Files whose names go together, and whose input is data all the same; shapes are equal."""
    rng = np.random.default_rng(8)
    arrays = stored(rng, "l", 4, WIDTH)
    arrays |= {
        "to_units": rng.standard_normal((WIDTH, UNITS)).astype("float32"),
        "to_width": rng.standard_normal((UNITS, WIDTH)).astype("float32"),
        "zero": np.array([0]), "one": np.array([1]), "last": np.array([-1]),
        "far": np.array([2**31 - 1]),
    }  # fmt: skip
    node = helper.make_node
    if kind == "one step":  # a model of a system: the next state of it is predicted
        nodes = [
            node("MatMul", ["x", "to_units"], ["a"], "a"), node("Tanh", ["a"], ["b"], "b"),
            node("MatMul", ["b", "to_width"], ["c"], "c"), node("Add", ["c", "u"], ["next_x"], "d"),
        ]  # fmt: skip
        sizes = ["N", WIDTH]
    else:  # a window of a series, which moves on by the step that is predicted
        nodes = [
            node("Transpose", ["x"], ["xt"], "turn", perm=[1, 0, 2]),
            node("ReduceMean", ["x"], ["m"], "mean", axes=[1], keepdims=1),
            node("MatMul", ["m", "to_units"], ["a"], "a"),
            node("MatMul", ["a", "to_width"], ["b"], "b"),
            node("Unsqueeze", ["u", "one"], ["u1"], "u1"), node("Add", ["b", "u1"], ["step"], "c"),
            node("Slice", ["x", "one", "far", "one"], ["rest"], "rest"),
            node("Concat", ["rest", "step"], ["next_x"], "window", axis=1),
        ]  # fmt: skip
        sizes = ["N", "T", WIDTH]
    return model(nodes, arrays, {"x": sizes, "u": ["N", WIDTH]}, {"next_x": sizes})


@pytest.mark.parametrize("kind", ["one step", "window"])
def test_a_name_alone_makes_no_state(kind, tmp_path):
    """Who names the states has them."""
    with pytest.raises(ExportError, match=r"may be some: states=\{'x': 'next_x'\}"):
        pg.compile(forecaster(kind), [], tmp_path / "m.onnx", states="io")
    pg.compile(forecaster(kind), [], tmp_path / "m.onnx", states={"x": "next_x"})
    assert [i.next_state for i in runtime.load(tmp_path / "m.onnx").inputs] == ["next_x", None]


def decoder_of_pictures(kind):
    """A GRU that starts from `h` and gives out `next_h`: what `h` is, the other nodes say."""
    rng = np.random.default_rng(9)
    arrays = stored(rng, "g", 3, WIDTH) | {"zero": np.array([0]), "one": np.array([1])}
    arrays["d"] = rng.standard_normal((UNITS, UNITS)).astype("float32")
    node = helper.make_node
    start = {"through a layer": "hd", "read elsewhere": "h", "a state": "h"}[kind]
    nodes = [
        node("MatMul", ["h", "d"], ["hd"], "bridge"),
        node("Unsqueeze", [start, "zero"], ["s"], "one"),
        node("GRU", ["x", "gw", "gr", "gb", "", "s"], ["y", "e"], "cell", hidden_size=4),
        node("Squeeze", ["e", "zero"], ["next_h"], "end"),
        node("Squeeze", ["y", "one"], ["ys"], "all"),
        node("Add", ["ys", "hd" if kind == "read elsewhere" else "ys"], ["out"], "out"),
    ]
    if kind == "a state":
        nodes = nodes[1:]
    sizes = {"x": ["T", "N", WIDTH], "h": ["N", UNITS]}
    return model(nodes, arrays, sizes, {"out": ["T", "N", UNITS], "next_h": ["N", UNITS]})


def test_what_a_recurrence_starts_from_is_a_state_where_nothing_else_reads_it(tmp_path):
    path = tmp_path / "m.onnx"
    pg.compile(decoder_of_pictures("a state"), [], path, states="io")
    assert [i.next_state for i in runtime.load(path).inputs] == [None, "next_h"]
    for kind in ("through a layer", "read elsewhere"):
        with pytest.raises(ExportError, match=r"may be some: states=\{'h': 'next_h'\}"):
            pg.compile(decoder_of_pictures(kind), [], tmp_path / "other.onnx", states="io")


def test_states_of_a_scan_that_are_inputs_and_outputs(tmp_path):
    """A cell of one's own, from an input to an output; what a Scan keeps itself is refused."""
    text = """<ir_version: 8, opset_import: ["" : 17]> own (float[T, N, 4] x, float[N, 4] memory)
      => (float[T, N, 4] out, float[N, 4] left) {
      left, out = Scan <num_scan_inputs = 1, body = step (float[N, 4] h, float[N, 4] e)
        => (float[N, 4] h_next, float[N, 4] y) {
        s = Add (h, e)
        h_next = Tanh (s)
        y = Neg (h_next) }> (memory, x) }"""
    file, path = onnx.parser.parse_model(text), tmp_path / "m.onnx"
    probes = [pg.States(), pg.InputGradient(output="out", target=(-1, 1), wrt="x")]
    pg.compile(file, probes, path, states="io", inputs={"x": "time,batch,feature"})
    art = runtime.load(path)
    assert [i.next_state for i in art.inputs] == [None, "left"]
    x = np.random.default_rng(2).standard_normal((7, 3, 4)).astype("float32")
    whole = art.run(x)
    first = art.run(x[:3])
    second = art.run(x[3:], states=first.states)
    np.testing.assert_allclose(second["out"].array, whole["out"].array[3:], **CLOSE)
    np.testing.assert_allclose(
        second["states/left"].array, whole["states/left"].array[:, 3:], **CLOSE
    )
    with pytest.raises(ExportError, match="'left' is a Scan, whose states cannot be fed"):
        pg.compile(file, [], tmp_path / "other.onnx", states="io:left")


def own_cell(
    zeros: str = "ConstantOfShape (size)", turned: int = 0, counts: bool = False
) -> onnx.ModelProto:
    """A cell of two states in a Scan, as somebody writes it who has no LSTM."""
    count = ("n, ", "start, ", "int64 n, ", "int64 n_next, ", "n_next = Add (n, one)")
    carried, initial, entering, leaving, counting = count if counts else ("",) * 5
    return onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]>
      own (float[N, T, 4] x) => (float[N, T, 4] out)
      <int64[1] four = {{4}}, int64 start = {{0}}, int64 one = {{1}}, float half = {{0.5}}> {{
      shape = Shape <start = 0, end = 1> (x)
      size = Concat <axis = 0> (shape, four)
      zero = {zeros}
      over = Transpose <perm = [1, 0, 2]> (x)
      {carried}h_last, c_last, turned = Scan <
        num_scan_inputs = 1, scan_input_directions = [{turned}],
        body = step ({entering}float[N, 4] h, float[N, 4] c, float[N, 4] e)
        => ({leaving}float[N, 4] h_next, float[N, 4] c_next, float[N, 4] y) {{
        {counting}
        sum = Add (h, e)
        squashed = Tanh (sum)
        faded = Mul (c, half)
        c_next = Add (faded, squashed)
        gate = Sigmoid (e)
        h_next = Mul (gate, c_next)
        y = Neg (h_next) }}> ({initial}zero, zero, over)
      out = Transpose <perm = [1, 0, 2]> (turned) }}""")


def test_states_of_a_scan_that_starts_from_zeros(tmp_path):
    file, path = own_cell(), tmp_path / "m.onnx"
    probes = [pg.InputGradient(target=(-1, 1), wrt="x"), pg.Saliency((-1, 1), wrt="state/h_last")]
    pg.compile(file, probes, path, states="io")
    art = runtime.load(path)
    x = np.random.default_rng(2).standard_normal((3, 7, 4)).astype("float32")
    whole, first = art.run(x), art.run(x[:, :3])
    assert list(first.states) == ["state/h_last", "state/h_last:1"]
    second = art.run(x[:, 3:], states=first.states)
    np.testing.assert_allclose(whole["out"].array, by_itself(file, {"x": x})[0], **CLOSE)
    np.testing.assert_allclose(second["out"].array, whole["out"].array[:, 3:], **CLOSE)
    for name, value in second.states.items():
        np.testing.assert_allclose(value, whole.states[name], err_msg=name, **CLOSE)
    name = "input_gradient/x"
    np.testing.assert_allclose(second[name].array, whole[name].array[:, 3:], **CLOSE)
    assert pg.verify(path, file).passed


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({"turned": 1}, "reads a series from its end"),
        ({"counts": True}, "carries whole numbers"),
        ({"zeros": "Expand (half, size)"}, "not all that it carries starts from zeros"),
    ],
)
def test_a_scan_whose_states_cannot_be_fed_says_why(kind, said, tmp_path):
    path = "n" if kind.get("counts") else "h_last"
    with pytest.raises(ExportError, match=said):
        pg.compile(own_cell(**kind), [], tmp_path / "m.onnx", states=f"io:{path}")
    with pytest.raises(ExportError, match="no recurrent operator"):
        pg.compile(own_cell(**kind), [], tmp_path / "m.onnx", states="io")


def test_what_cannot_be_run_in_chunks(tmp_path):
    rng = np.random.default_rng(1)
    arrays = {k: np.concatenate([v, v]) for k, v in stored(rng, "w", 3, WIDTH).items()}
    both = helper.make_node(
        "GRU", ["x", "ww", "wr", "wb"], ["", "h"], "both", hidden_size=4, direction="bidirectional"
    )
    total = helper.make_node("ReduceSum", ["h", "zero"], ["out"], "sum", keepdims=0)
    arrays["zero"] = np.array([0])
    file = model([both, total], arrays, {"x": ["T", "N", WIDTH]}, {"out": ["N", UNITS]})
    path = tmp_path / "m.onnx"
    for source, states, said in (
        (file, "io", "'both' .* reads a series from its end"),
        (tagger(turned=True), "io", "'lower' .* reads a series from its end"),
        (tagger(lower_from=0.5), "io:lower", "'lower' .* starts from states that are not zero"),
        (stepping(("past", "later"), given_out=False), "io", "has no recurrent operator"),
    ):
        with pytest.raises(ExportError, match=said):
            pg.compile(source, [], path, states=states)
    with pytest.raises(SelectionError, match="can be probed for states"):
        pg.compile(tagger(), [], path, states="io:dense")
    assert not path.exists()


def test_a_file_that_was_changed_wrongly_is_found(tmp_path, monkeypatch):
    """From zeros the changed file has to predict what the untouched one does."""
    monkeypatch.setattr(explicit_states, "starts_from_zero", lambda _: True)
    with pytest.raises(VerificationError, match="apart from what it predicts by itself"):
        pg.compile(tagger(lower_from=0.5, zeros=1), [], tmp_path / "m.onnx", states="io")


def test_an_original_on_disk_is_left_alone(tmp_path):
    onnx.save(tagger(), tmp_path / "source.onnx")
    before = (tmp_path / "source.onnx").read_bytes()
    pg.compile(tmp_path / "source.onnx", [], tmp_path / "m.onnx", states="io")
    assert (tmp_path / "source.onnx").read_bytes() == before
    assert "state/lower" in runtime.load(tmp_path / "m.onnx").run(series(2, 3)).states


def decoder(heads=2, width=3, size=11, longest=20):
    """One layer of causal attention with a cache, as exporters write decoders.

    Takes ids, the mask of all tokens, those before included, and positions.
    """
    rng = np.random.default_rng(7)
    whole = heads * width
    arrays = {
        "table": rng.standard_normal((size, whole)),
        "places": rng.standard_normal((longest, whole)),
        **{name: 0.5 * rng.standard_normal((whole, whole)) for name in ("wq", "wk", "wv", "wo")},
        "head": rng.standard_normal((whole, size)),
        "far": np.array(-1e4), "one_": np.array(1.0), "root": np.array(width**0.5),
    }  # fmt: skip
    arrays = {name: array.astype("float32") for name, array in arrays.items()}
    arrays |= {
        "apart": np.array([0, 0, heads, width]), "joined": np.array([0, 0, whole]),
        "first": np.array(0), "one": np.array(1), "third": np.array(2), "ax0": np.array([0]),
        "ax1": np.array([1]), "ax12": np.array([1, 2]),
    }  # fmt: skip

    def node(kind, given, made, **more):
        return helper.make_node(kind, given.split(), made.split(), made.split()[0], **more)

    nodes = [
        node("Gather", "table input_ids", "words"), node("Gather", "places position_ids", "where"),
        node("Add", "words where", "x"),
    ]  # fmt: skip
    for part in "qkv":
        nodes += [
            node("MatMul", f"x w{part}", f"{part}1"), node("Reshape", f"{part}1 apart", f"{part}2"),
            node("Transpose", f"{part}2", f"{part}3", perm=[0, 2, 1, 3]),
        ]  # fmt: skip
    nodes += [
        node("Concat", "past_key_values.0.key k3", "present.0.key", axis=2),
        node("Concat", "past_key_values.0.value v3", "present.0.value", axis=2),
        node("Transpose", "present.0.key", "kt", perm=[0, 1, 3, 2]),
        node("MatMul", "q3 kt", "products"), node("Div", "products root", "scaled"),
        # A key counts where its place is not behind the query's, and its mask is not 0.
        node("Shape", "present.0.key", "sizes"), node("Gather", "sizes third", "count"),
        node("Range", "first count one", "keys"), node("Unsqueeze", "keys ax0", "keys_row"),
        node("Unsqueeze", "position_ids third_", "queries"),
        node("LessOrEqual", "keys_row queries", "seen"), node("Unsqueeze", "seen ax1", "seen4"),
        node("Cast", "attention_mask", "counts", to=9), node("Unsqueeze", "counts ax12", "counts4"),
        node("And", "seen4 counts4", "allowed"), node("Where", "allowed scaled far", "masked"),
        node("Softmax", "masked", "weights", axis=-1),
        node("MatMul", "weights present.0.value", "mixed"),
        node("Transpose", "mixed", "back", perm=[0, 2, 1, 3]),
        node("Reshape", "back joined", "flat"),
        node("MatMul", "flat wo", "projected"), node("Add", "projected x", "residual"),
        node("MatMul", "residual head", "logits"),
    ]  # fmt: skip
    arrays["third_"] = np.array([2])
    held = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    past, now = (
        ["batch_size", heads, "past_sequence_length", width],
        ["batch_size", "sequence_length"],
    )
    total = ["batch_size", "total_sequence_length"]
    inputs = [
        helper.make_tensor_value_info("input_ids", 7, now),
        helper.make_tensor_value_info("attention_mask", 7, total),
        helper.make_tensor_value_info("position_ids", 7, now),
        helper.make_tensor_value_info("past_key_values.0.key", 1, past),
        helper.make_tensor_value_info("past_key_values.0.value", 1, past),
    ]  # fmt: skip
    present = ["batch_size", heads, "total_sequence_length", width]
    outputs = [
        helper.make_tensor_value_info("logits", 1, [*now, size]),
        *(helper.make_tensor_value_info(f"present.0.{k}", 1, present) for k in ("key", "value")),
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "decoder", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("decoder") / "m.onnx"
    probes = [
        pg.InputGradient(target="input", region="input", per_token="dot", wrt="input_ids"),
        pg.Attention(),
    ]
    assert pg.compile(decoder(), probes, path, states="io").report.passed
    return runtime.load(path)


def fed(ids, before=0):
    """The inputs of ids behind some that the cache holds, as a user feeds them."""
    rows, new = np.shape(ids)
    return {
        "input_ids": np.asarray(ids),
        "attention_mask": np.ones((rows, before + new), np.int64),
        "position_ids": np.broadcast_to(np.arange(before, before + new), (rows, new)),
    }


def test_an_exported_decoder_goes_on_from_its_cache(written):
    """Token by token and in chunks as the whole, which is what the file itself says."""
    kept = [(i.name, i.next_state) for i in written.inputs if i.next_state]
    assert kept == [(f"past_key_values.0.{k}", f"present.0.{k}") for k in ("key", "value")]
    ids = np.random.default_rng(0).integers(0, 11, (2, 7))
    empty = {f"past_key_values.0.{k}": np.zeros((2, 2, 0, 3), "float32") for k in ("key", "value")}
    right = by_itself(decoder(), {**fed(ids), **empty})[0]
    last = np.eye(7)[[6, 6]]
    whole = written.run(fed(ids), target=[3, 5], region=last)
    np.testing.assert_allclose(whole["logits"].array, right, **CLOSE)
    (name,) = (n for n in whole if n.startswith("attention/"))
    for ends in ((3, 5, 7), range(1, 8)):
        states, start = None, 0
        for end in ends:
            chunk = ids[:, start:end]
            region = np.eye(end - start)[[-1, -1]]
            found = written.run(fed(chunk, start), states=states, target=[3, 5], region=region)
            np.testing.assert_allclose(found["logits"].array, right[:, start:end], **CLOSE)
            states, start = found.states, end
        new = chunk.shape[1]
        for got, of_whole in (
            (
                found["input_gradient/input_ids"].array,
                whole["input_gradient/input_ids"].array[:, -new:],
            ),
            (found[name].array[:, :, -1], whole[name].array[:, :, -1]),
        ):
            np.testing.assert_allclose(got, of_whole, **CLOSE)


def test_an_exported_decoder_writes_on(tmp_path):
    """By its cache, one token a run, prompts of several lengths; as by the whole text each time."""
    pg.compile(decoder(), [pg.Attention()], tmp_path / "m.onnx", states="io", verify=False)
    prompts = [[3, 1, 4], [2], [5, 5, 9, 0]]
    empty = {f"past_key_values.0.{k}": np.zeros((1, 2, 0, 3), "float32") for k in ("key", "value")}
    made = runtime.generate(runtime.load(tmp_path / "m.onnx"), prompts, 5)
    for prompt, found in zip(prompts, made, strict=True):
        ids = list(prompt)
        for token in found.ids:
            assert token == int(by_itself(decoder(), {**fed([ids]), **empty})[0][0, -1].argmax())
            ids.append(token)
        (rows,) = found.attention.values()
        np.testing.assert_allclose(np.nansum(rows, 1), 1, rtol=1e-5)


def test_a_mask_of_the_new_tokens_alone_is_found(tmp_path):
    """What the states hold needs a mask as well: the engine says that sizes do not fit."""
    pg.compile(decoder(), [], tmp_path / "m.onnx", states="io", verify=False)
    art = runtime.load(tmp_path / "m.onnx")
    first = art.run(fed([[1, 2, 3]]))
    with pytest.raises(ArtefactError):
        art.run({**fed([[4]], 3), "attention_mask": [[1, 1]]}, states=first.states)


def test_a_cache_that_nobody_speaks_of_is_told_of(tmp_path) -> None:
    """Sizes that belong together cannot be guessed: the error says how they are found."""
    text = """
    g (float[B,S,4] x, float[B,P,4] past_key, float[B,T,1] mask)
        => (float[B,S2,4] y, float[B,T2,4] present_key) {
      present_key = Concat<axis = 1>(past_key, x)
      kept = Mul(present_key, mask)
      total = ReduceSum<keepdims = 1>(kept, one)
      y = Add(x, total)
    }"""
    model = add_weights(parse(text), one=np.array([1]))
    with pytest.raises(InputError, match=r"'past_key' looks like a cache.*states='io'"):
        pg.compile(model, pg.Saliency(wrt="x", output="y"), tmp_path / "m.onnx")
