"""What is left of attention weights (`reduce=`), and several layers as one tensor (`stack=`)."""

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen.errors import InstrumentError, SpecError
from probegen.methods.attention_keys import AttentionKeys
from probegen.methods.numpy_operations import NumpyOperations
from probegen.parity import ties
from tests.sources.onnx.support import add_weights, parse

AXES = ("batch", "head", "query", "key")
REDUCE = (None, "heads", "max", "last_query", "cls", "top:3", "cls,heads", "heads,top:2")


def largest(w, count):
    order = np.argsort(-w, axis=-1, kind="stable")[..., :count]
    return np.take_along_axis(w, order, -1)


#: What each leaves of `[batch, head, query, key]`, and of which axes.
TWINS = {
    None: (lambda w: w, AXES),
    "heads": (lambda w: w.mean(1), ("batch", "query", "key")),
    "max": (lambda w: w.max(1), ("batch", "query", "key")),
    "last_query": (lambda w: w[:, :, -1], ("batch", "head", "key")),
    "cls": (lambda w: w[:, :, 0], ("batch", "head", "key")),
    "top:3": (lambda w: largest(w, 3), ("batch", "head", "query", "rank")),
    "cls,heads": (lambda w: w[:, :, 0].mean(1), ("batch", "key")),
    "heads,top:2": (lambda w: largest(w.mean(1), 2), ("batch", "query", "rank")),
}


def encoder():
    """Two self-attentions over an open length, and one that attends to a fixed memory."""
    keras.utils.set_random_seed(4)
    x = keras.Input((None, 6), name="x")
    memory = keras.Input((4, 6), name="memory")
    y = layers.MultiHeadAttention(2, 3, name="first")(x, x)
    y = layers.MultiHeadAttention(2, 3, name="second")(y, y)
    z = layers.MultiHeadAttention(2, 3, name="cross")(y, memory)
    return keras.Model([x, memory], layers.Dense(3)(layers.GlobalAveragePooling1D()(z)))


def fed(batch, length, seed=0):
    rng = np.random.default_rng(seed)
    x = 3 * rng.standard_normal((batch, length, 6)).astype("float32")
    x[-1] = 0  # all weights alike
    return {"x": x, "memory": rng.standard_normal((batch, 4, 6)).astype("float32")}


@pytest.fixture(scope="module", params=["onnx", "savedmodel"])
def compiled(request, tmp_path_factory):
    """All reductions, of each layer and stacked."""
    path = tmp_path_factory.mktemp("attention") / f"m.{request.param}"
    probes = [
        pg.Attention(reduce=reduce, stack=stack, name=f"{reduce} {stack}")
        for reduce in REDUCE
        for stack in (False, True)
    ]
    probes.append(pg.Attention(reduce="top:3", stack=True, dtype="float16", name="half"))
    more = {} if request.param == "onnx" else {"format": "savedmodel"}
    report = pg.compile(encoder(), probes, path, **more).report
    return pg.runtime.load(path), report


@pytest.mark.parametrize("reduce", REDUCE)
@pytest.mark.parametrize(("batch", "length"), [(2, 5), (3, 7)])
def test_what_is_left(compiled, reduce, batch, length):
    art, report = compiled
    assert report.passed
    result = art.run(fed(batch, length))
    twin, axes = TWINS[reduce]
    for layer in ("first", "second", "cross"):
        whole = result[f"None False/{layer}"].array
        record = result[f"{reduce} False/{layer}"]
        assert record.axes == axes
        np.testing.assert_allclose(record.array, twin(whole), rtol=1e-5, atol=1e-7)
        if "rank" in axes:
            places = result[f"{record.name}/keys"]
            assert places.dtype == np.int32
            assert places.axes == axes
            from_whole = whole.mean(1) if reduce.startswith("heads") else whole
            at_places = np.take_along_axis(from_whole, places.array, -1)
            np.testing.assert_allclose(at_places, record.array, rtol=1e-5, atol=1e-7)
            assert record.keys is places.array


def test_stacked_layers_in_another_type(compiled):
    art, _ = compiled
    result = art.run(fed(2, 5))
    record, wide = result["half:0"], result["top:3 True:0"]
    assert record.array.dtype == np.float16 == np.dtype(record.spec.dtype)
    np.testing.assert_allclose(record.array, wide.array, atol=1e-3)


@pytest.mark.parametrize("reduce", REDUCE)
def test_layers_of_one_shape_are_one_tensor(compiled, reduce):
    """Lengths are open: only what is followed through the graph tells that they agree."""
    art, _ = compiled
    result = art.run(fed(2, 5))
    groups = [r for r in result.values() if r.name.startswith(f"{reduce} True:")]
    groups = [r for r in groups if not r.name.endswith("/keys")]
    assert [r.spec.detail["layers"] for r in groups] == [["first", "second"], ["cross"]]
    for record in groups:
        assert record.axes == ("batch", "layer", *TWINS[reduce][1][1:])
        for i, layer in enumerate(record.spec.detail["layers"]):
            alone = result[f"{reduce} False/{layer}"]
            np.testing.assert_array_equal(record.array[:, i], alone.array)
            if alone.keys is not None:
                np.testing.assert_array_equal(record.keys[:, i], alone.keys)


def test_fewer_keys_than_asked_for(tmp_path):
    x = keras.Input((None, 6), name="x")
    y = layers.MultiHeadAttention(2, 3, name="mha")(x, x)
    model = keras.Model(x, layers.GlobalAveragePooling1D()(y))
    pg.compile(model, pg.Attention(reduce="top:4"), tmp_path / "m.onnx")
    art = pg.runtime.load(tmp_path / "m.onnx")
    for length, kept in ((3, 3), (6, 4)):
        result = art.run(fed(2, length)["x"])
        assert result["attention/mha"].shape == (2, 2, length, kept)
        assert result["attention/mha/keys"].shape == (2, 2, length, kept)
        sums = result["attention/mha"].array.sum(-1)
        assert np.allclose(sums, 1, atol=1e-5) if length == kept else (sums < 1 + 1e-5).all()


def test_more_than_there_are_of_a_fixed_number_is_refused():
    x = keras.Input((5, 6), name="x")
    y = layers.MultiHeadAttention(2, 3, name="mha")(x, x)
    model = keras.Model(x, y)
    with pytest.raises(InstrumentError, match="'mha' has 5 keys; 'top:5' is the most"):
        pg.instrument(model, pg.Attention(reduce="top:6"))
    grid = keras.Input((3, 4, 6), name="x")
    over_both = layers.MultiHeadAttention(2, 3, attention_axes=(1, 2), name="mha")(grid, grid)
    with pytest.raises(InstrumentError, match=r"axes batch, head, query_0.*lie along one axis"):
        pg.instrument(keras.Model(grid, over_both), pg.Attention(reduce="top:2"))


@pytest.mark.parametrize(
    ("reduce", "message"),
    [
        ("mean", "takes one of 'heads', 'max'.*got 'mean'"),
        ("top:0", "got 'top:0'"),
        ("last", "Did you mean 'last_query'"),
        ("heads,max", "heads and max exclude each other"),
        ("cls,last_query", "exclude each other"),
        ("top:2,heads", "top:k comes last"),
        (3, "got 3"),
        ((), "empty"),
    ],
)
def test_what_cannot_be_reduced(reduce, message):
    with pytest.raises(SpecError, match=message):
        pg.Attention(reduce=reduce)


def test_one_spelling():
    assert pg.Attention(reduce=("heads", "top:5")) == pg.Attention(reduce="heads, top:5")
    with pytest.raises(SpecError, match="stack= takes True or False"):
        pg.Attention(stack=1)


def test_positions_are_looked_up_where_weights_are_alike():
    """Equal weights stand in either order; any other position is wrong."""
    weights = np.array([[0.3, 0.3, 0.3, 0.1], [0.4, 0.3, 0.2, 0.1]])
    _, keys = NumpyOperations().top(weights, 2)
    plan = pg.instrument(_attending(), pg.Attention(reduce="top:2", name="a")).plan
    names = {"a/keys": keys, "what a/keys are chosen from": weights}

    def settled(row, positions):
        got = keys.copy()
        got[row] = positions
        found = ties.with_keys_settled({"a/keys": got}, names, plan, "float32")["a/keys"]
        return np.array_equal(found, keys)

    assert settled(0, [2, 1])
    assert not settled(0, [2, 2])
    assert not settled(0, [2, 3])
    assert not settled(1, [1, 0])
    assert not settled(1, [0, 4])


def _attending():
    x = keras.Input((4, 3), name="x")
    scores = layers.Softmax(axis=1, name="weights")(layers.Dense(1)(x))
    return keras.Model(x, layers.Dot((1, 1))([scores, x]))


def test_planted_positions_fail(tmp_path, monkeypatch):
    """An artefact that names other keys than the largest is refused."""
    text = """
        g (float[N,5,4] x) => (float[N,4] y) {
          s = ReduceMean<keepdims=1>(x, two)
          w = Softmax<axis=1>(s)
          m = Mul(w, x)
          y = ReduceSum<keepdims=0>(m, one)
        }"""
    model = add_weights(parse(text), two=np.array([2]), one=np.array([1]))
    right = AttentionKeys.payload

    def payload(self, ops, value, axes):
        found = right(self, ops, value, axes)
        as_it_is = isinstance(ops, NumpyOperations) or self.candidates
        return found if as_it_is else ops.cast(ops.sub(2.0, ops.cast(found, value)), found)

    monkeypatch.setattr(AttentionKeys, "payload", payload)
    with pytest.raises(pg.errors.VerificationError, match="/keys"):
        pg.compile(model, pg.Attention(reduce="top:2"), tmp_path / "m.onnx")
