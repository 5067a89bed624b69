"""Where whole numbers become floating in ONNX files: look-ups, one-hot rows, casts, masks."""

import re

import numpy as np
import onnx_ir as ir
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import NotDifferentiableError
from probegen.graph.shape_inference import infer_shapes
from probegen.plan.model_view import Tie
from probegen.plan.plan import TensorRef
from probegen.sources import open_source
from probegen.sources.onnx.first_floats import starts
from probegen.sources.onnx.layouts import Layouts
from tests.sources.onnx.support import add_weights, parse

TABLE = np.random.default_rng(0).normal(size=(13, 4)).astype(np.float32)


def found(body, inputs="int64[batch, 7] ids", result="float[batch, 7, 4] y", **weights):
    """Name of the value -> start, for the first floating values of a graph."""
    proto = parse(f"g ({inputs}) => ({result}) {{ {body} }}")
    model = ir.from_proto(add_weights(proto, **weights))
    infer_shapes(model)
    values = [v for node in model.graph for v in node.outputs]
    refs = {v: TensorRef(v.name) for v in values}
    labels = {v: f"label of {v.name}" for v in values}
    fed = [v for v in model.graph.inputs if not v.is_initializer()]
    layouts = Layouts(model.graph, {})
    return {s.ref.path: s for s in starts(model.graph, fed, refs, labels, layouts.has_samples)}


def test_a_look_up():
    (start,) = found("y = Gather(table, ids)", table=TABLE).values()
    assert (start.is_lookup, start.rows, start.masks, start.usable) == (True, 13, False, True)
    assert start.ties == {0: Tie.WHOLE}
    assert start.label == "label of y"


@pytest.mark.parametrize("table", ["y = Gather(x, ids)", "h = Exp(x) y = Gather(h, ids)"])
def test_what_picks_from_other_inputs_says_where_to_look(table):
    start = found(table, "int64[batch, 7] ids, float[13, 4] x")["y"]
    assert (start.is_lookup, start.rows, start.ties) == (False, None, {0: Tie.INDIRECT})


def test_a_cast():
    start = found("y = Cast <to = 1> (ids)", result="float[batch, 7] y")["y"]
    assert (start.is_lookup, start.rows, start.masks, start.usable) == (False, None, False, True)
    assert start.ties == {0: Tie.WHOLE}


@pytest.mark.parametrize(
    ("body", "tie"),
    [
        ("a = Identity(ids) y = Gather(table, a)", Tie.WHOLE),
        ("a = Cast <to = 6> (ids) y = Gather(table, a)", Tie.WHOLE),
        ("a = Cast <to = 9> (ids) b = Cast <to = 7> (a) y = Gather(table, b)", Tie.COMPUTED),
        ("a = Slice(ids, zero, three, one) y = Gather(table, a)", Tie.PART),
        ("a = Add(ids, one) y = Gather(table, a)", Tie.COMPUTED),
        ("a = Slice(ids, zero, three, one) b = Neg(a) y = Gather(table, b)", Tie.COMPUTED),
        ("a = Greater(ids, one) b = Cast <to = 7> (a) y = Gather(table, b)", Tie.INDIRECT),
    ],
)
def test_how_closely_numbers_are_tied_to_their_input(body, tie):
    numbers = {"zero": np.int64([0]), "one": np.int64([1]), "three": np.int64([3])}
    assert found(body, table=TABLE, **numbers)["y"].ties == {0: tie}


def test_numbers_of_two_inputs():
    inputs = "int64[batch, 7] ids, int64[batch, 7] types"
    start = found("a = Add(ids, types) y = Gather(table, a)", inputs, table=TABLE)["y"]
    assert start.ties == {0: Tie.COMPUTED, 1: Tie.COMPUTED}


def test_sizes_do_not_hang_on_the_numbers():
    body = "a = Shape(ids) b = Cast <to = 1> (a) y = Gather(table, ids)"
    assert set(found(body, table=TABLE)) == {"y"}


def test_what_is_floating_already_starts_nothing():
    body = "y = Mul(x, x)"
    assert not found(body, "float[batch, 7] x", "float[batch, 7] y")


MASK = "int64[batch, 7] attention_mask"
PENALTY = "a = Cast <to = 1> (ids) b = Sub(one, a) c = Unsqueeze(b, axes) y = Mul(c, {})"


def test_numbers_that_say_which_positions_count():
    cast = "y = Cast <to = 1> ({})"
    flat = "float[batch, 7] y"
    assert found(cast.format("attention_mask"), MASK, flat)["y"].masks
    assert not found(cast.format("ids"), result=flat)["y"].masks
    numbers = {"one": np.float32(1), "axes": np.int64([1])}
    numbers |= {"large": np.float32(-1e9), "small": np.float32(-10)}
    deep = "float[batch, 1, 7] y"
    assert found(PENALTY.format("large"), result=deep, **numbers)["a"].masks
    assert not found(PENALTY.format("small"), result=deep, **numbers)["a"].masks
    body = "y = Gather(table, attention_mask)"
    assert not found(body, MASK, table=TABLE)["y"].masks


@pytest.mark.parametrize(
    ("body", "result", "usable"),
    [
        ("y = Gather(table, ids)", "float[batch, 7, 4] y", True),
        ("a = Transpose(ids) y = Gather(table, a)", "float[7, batch, 4] y", False),
        ("a = Reshape(ids, joined) y = Gather(table, a)", "float[n, 4] y", False),
    ],
)
def test_what_can_be_explained_begins_with_the_batch(body, result, usable):
    start = found(body, result=result, table=TABLE, joined=np.int64([-1]))["y"]
    assert start.usable is usable


def test_time_before_the_batch_is_usable():
    inputs, result = "int64[time, batch] ids", "float[time, batch, 4] y"
    assert found("y = Gather(table, ids)", inputs, result, table=TABLE)["y"].usable


# -- whole models ------------------------------------------------------------------------------


def _of_model(text, **weights):
    view = open_source(add_weights(parse(text), **weights)).view
    return {str(view.value(s.ref).name): s for s in view.starts}


def test_casts_and_one_hot_rows():
    found = _of_model(
        """
        g (int64[N,5] a, int64[N,5] b) => (float[N,5] y, float[N,5,7] z) {
          f = Cast<to=1>(a)
          y = Sin(f)
          o = OneHot(b, depth, values)
          z = Sin(o)
        }""",
        depth=np.array(7),
        values=np.array([0, 1], np.float32),
    )
    assert {n: (s.is_lookup, s.ties) for n, s in found.items()} == {
        "f": (False, {0: Tie.WHOLE}),
        "o": (True, {1: Tie.COMPUTED}),
    }


def test_an_id_that_becomes_one_hot_is_hidden_as_a_whole(tmp_path):
    """As torch writes it: whole numbers that are cast behind."""
    text = """g (int64[batch] id, float[batch, 2] x) => (float[batch, 3] y) {
      o = OneHot(id, depth, values)  f = Cast<to=1>(o)  c = Concat<axis=1>(f, x)
      y = MatMul(c, w) }"""
    weights = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    more = {"depth": np.array(4), "values": np.array([0, 1])}
    model = add_weights(parse(text), w=weights, **more)
    pg.compile(model, [pg.FeatureAblation(target=2)], tmp_path / "m.onnx")
    ids, x = np.array([3, 0, 3]), np.ones((3, 2), np.float32)
    found = runtime.load(tmp_path / "m.onnx").run({"id": ids, "x": x})["feature_ablation/id"]
    assert found.axes == ("batch",)
    np.testing.assert_allclose(found.array, weights[ids, 2], rtol=1e-4)


def test_sizes_are_none_of_the_numbers():
    """A floating tensor that is expanded to the shape of the ids says nothing of them."""
    found = _of_model(
        """
        g (int64[N,T] ids, float[N,1] x) => (float[N,T] y) {
          shape = Shape(ids)
          wide = Expand(x, shape)
          f = Cast<to=1>(ids)
          y = Add(f, wide)
        }"""
    )
    assert list(found) == ["f"]


def test_positions_are_explained_by_no_one(tmp_path):
    """The gradient of a model of words is that of its words, not of where they stand."""
    model = add_weights(
        parse(
            """
            g (int64[N,6] ids) => (float[N,3] y) {
              e = Gather(table, ids)
              p = Add(e, positions)
              s = ReduceMean<keepdims=0>(p, one)
              t = Tanh(s)
              y = MatMul(t, m)
            }"""
        ),
        table=TABLE,
        positions=np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32),
        one=np.array([1]),
        m=np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32),
    )
    path = tmp_path / "m.onnx"
    report = pg.compile(model, [pg.InputGradient(target=2)], path).report
    art = runtime.load(path)
    (spec,) = art.manifest.explanations
    assert (spec.name, spec.axes) == ("input_gradient/ids", ("batch", "time", "embedding"))
    assert report[spec.name].witness.endswith("differences of the source model's scores")
    ids = np.array([[1, 10, 3, 3, 0, 7], [2, 2, 2, 2, 2, 2]])
    e = TABLE[ids] + np.random.default_rng(1).normal(size=(6, 4)).astype(np.float32)
    m = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    slope = (1 - np.tanh(e.mean(1)) ** 2) * m[:, 2] / 6
    np.testing.assert_allclose(
        art.run(ids)[spec.name].array, np.repeat(slope[:, None], 6, 1), atol=1e-6
    )


def test_methods_by_scores_explain_what_is_looked_up_alone(tmp_path):
    """Keras' exporter compares ids with 0, as floats, before it looks them up."""
    body = """g (int64[batch, 7] ids) => (float[batch, 3] y) {
      number = Cast <to = 1> (ids)
      below = Less(number, zero)
      wrapped = Add(ids, thirteen)
      row = Where(below, wrapped, ids)
      vectors = Gather(table, row)
      mean = ReduceMean <keepdims = 0> (vectors, one)
      y = MatMul(mean, w) }"""
    weights = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    held = {"zero": np.float32(0), "thirteen": np.int64(13), "one": np.asarray([1])}
    model = add_weights(parse(body), table=TABLE, w=weights, **held)
    pg.compile(model, pg.Occlusion(1, target=2), tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    assert [o.name for o in artefact.manifest.explanations] == ["occlusion/ids"]
    ids = np.random.default_rng(2).integers(-13, 13, (3, 7))
    found = artefact.run(ids)["occlusion/ids"].array
    np.testing.assert_allclose(found, TABLE[ids] @ weights[:, 2] / 7, rtol=1e-4, atol=1e-6)


def test_what_comparisons_alone_read_is_explained_where_there_is_nothing_else(tmp_path):
    body = """g (uint8[batch, 7] ids) => (float[batch, 3] y) {
      number = Cast <to = 1> (ids)
      bright = Greater(number, limit)
      kept = Cast <to = 1> (bright)
      y = MatMul(kept, w) }"""
    weights = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    model = add_weights(parse(body), w=weights, limit=np.float32(100))
    pg.compile(model, pg.Occlusion(1, target=2), tmp_path / "m.onnx")
    ids = np.random.default_rng(2).integers(0, 256, (3, 7), np.uint8)
    found = runtime.load(tmp_path / "m.onnx").run(ids)["occlusion/ids"].array
    np.testing.assert_allclose(found, (ids > 100) * weights[:, 2], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sizes", ["N,H,W,3", "N,20,13,3"])
def test_a_file_that_preprocesses_bytes_itself(sizes, tmp_path):
    """The cast of the picture is explained, at its own size, through what resizes it."""
    body = f"""g (uint8[{sizes}] photo) => (float[N,4] y) {{
      pixels = Cast <to = 1> (photo)
      centred = Sub(pixels, mean)
      normal = Mul(centred, scale)
      planes = Transpose <perm = [0, 3, 1, 2]> (normal)
      shape = Shape(planes)
      front = Slice(shape, zero, two)
      whole = Concat <axis = 0> (front, size)
      small = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
        (planes, , , whole)
      conv = Conv(small, kernel)
      active = Relu(conv)
      pooled = GlobalAveragePool(active)
      y = Flatten(pooled) }}"""
    rng = np.random.default_rng(1)
    held = {
        "mean": np.array([120, 110, 100], np.float32),
        "scale": np.float32(1 / 60),
        "kernel": rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "zero": np.array([0]), "two": np.array([2]), "size": np.array([9, 7]),
    }  # fmt: skip
    model = add_weights(parse(body), **held)
    pg.compile(model, [pg.InputGradient(target=2), pg.GradCAM(upsample=True)], tmp_path / "m.onnx")
    artefact = runtime.load(tmp_path / "m.onnx")
    photo = rng.integers(0, 256, (2, 20, 13, 3), np.uint8)
    result = artefact.run(photo)
    gradient = result["input_gradient/photo"].array
    assert gradient.shape == photo.shape
    # One byte more or less: the slope of the file's own scores, but at the edge of a rectifier.
    place = np.unravel_index(np.abs(gradient[0]).argmax(), photo.shape[1:])
    more, less = photo.copy(), photo.copy()
    photo[(0, *place)] = 128
    more[(0, *place)], less[(0, *place)] = 129, 127
    scores = [artefact.run(x).predictions["y"].array[0, 2] for x in (more, less)]
    slope = artefact.run(photo)["input_gradient/photo"].array[(0, *place)]
    assert (scores[0] - scores[1]) / 2 == pytest.approx(slope, rel=0.05)


def test_columns_that_are_looked_up_one_by_one_are_hidden_by_themselves(tmp_path):
    """Each with all of its vector, and none with another's, with which it has nothing to do."""
    body = """a = Gather<axis=1>(ids, zero)  b = Gather<axis=1>(ids, one)
      u = Gather(first, a)  v = Gather(second, b)  c = Concat<axis=-1>(u, v)  y = MatMul(c, w)"""
    rng = np.random.default_rng(1)
    first, second = (rng.normal(size=(9, 3)).astype(np.float32) for _ in range(2))
    weights = rng.normal(size=(6, 2)).astype(np.float32)
    places = {"zero": np.array(0), "one": np.array(1)}
    text = f"g (int64[batch, 2] ids) => (float[batch, 2] y) {{ {body} }}"
    model = add_weights(parse(text), first=first, second=second, w=weights, **places)
    pg.compile(model, pg.FeatureAblation(target=1), tmp_path / "m.onnx")
    ids = np.array([[3, 8], [0, 5]])
    result = runtime.load(tmp_path / "m.onnx").run(ids)
    names = [n for n in result if n.startswith("feature_ablation/")]
    assert len(names) == 2
    for name, rows, part in zip(names, (first[ids[:, 0]], second[ids[:, 1]]), (0, 3), strict=True):
        expected = (rows * weights[part : part + 3, 1]).sum(1)
        assert result[name].axes == ("batch",)
        np.testing.assert_allclose(result[name].array, expected, rtol=1e-4, atol=1e-6)


def test_look_ups_whose_axes_are_turned_say_how_they_can_be_explained(tmp_path):
    """XLNet looks its words up with the steps in front."""
    body = """t = Transpose<perm = [1, 0]>(ids)  words = Gather(table, t)
      k = Tanh(words)  m = ReduceMean<keepdims = 0>(k, zero)  y = MatMul(m, w)"""
    w = np.random.default_rng(2).normal(size=(4, 3)).astype(np.float32)
    text = f"g (int64[batch, 7] ids) => (float[batch, 3] y) {{ {body} }}"
    model = add_weights(parse(text), table=TABLE, w=w, zero=np.array([0]))
    with pytest.raises(
        NotDifferentiableError, match=r"another order.*give wrt='(.*)', whose"
    ) as said:
        pg.compile(model, pg.InputGradient(target=1), tmp_path / "m.onnx")
    wrt = re.search("wrt='(.*)'", str(said.value))[1]
    pg.compile(model, pg.InputGradient(target=1, wrt=wrt), tmp_path / "m.onnx")
    ids = np.array([[0, 3, 12, 5, 5, 0, 1], [7, 1, 0, 2, 9, 4, 4]])
    found = runtime.load(tmp_path / "m.onnx").run(ids)[f"input_gradient/{wrt}"]
    assert found.axes == ("id", "batch", "embedding")
    slopes = (1 - np.tanh(TABLE[ids.T]) ** 2) * w[:, 1] / 7
    np.testing.assert_allclose(found.array, slopes, rtol=1e-5, atol=1e-7)
