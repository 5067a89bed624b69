"""Attention rollout: against plain numpy, from Keras models and from ONNX files."""

import keras
import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SpecError
from probegen.methods.chains import Attending
from probegen.methods.numpy_operations import NumpyOperations
from tests import transformers
from tests.transformers import by_hand, data, encoder_by_hand, rollout, weights

TIME = 5
PROBES = (
    pg.AttentionRollout(name="mean"),
    pg.AttentionRollout("max", 0.3, name="max"),
    pg.AttentionRollout("min", 0.0, name="min"),
    pg.AttentionRollout(query=-1, name="last"),
    pg.AttentionRollout(query="mean", name="average"),
)


def expected(matrices):
    """What the probes give, by numpy."""
    whole = rollout(matrices)
    return {
        "mean": whole,
        "max": rollout(matrices, np.max, 0.3),
        "min": rollout(matrices, np.min, 0.0),
        "last": whole[:, -1],
        "average": whole.mean(1),
    }


CASES = transformers.encoders(3, TIME)


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_product_of_the_layers_matrices(tmp_path, case):
    make, mask = CASES[case]
    w = weights(3)
    path = tmp_path / "m.onnx"
    done = pg.compile(make(w), list(PROBES), path)
    assert done.report.passed
    art = runtime.load(path)
    for rows, time in ((1, TIME), (4, 7 if "open" in case else TIME)):
        x = data(time, rows, seed=rows, zeros=2)
        matrices, _ = by_hand(
            encoder_by_hand(w, 3, x, None if mask is None else mask(time)), [-1] * rows
        )
        found = art.run(x)
        for name, twin in expected(matrices).items():
            np.testing.assert_allclose(found[name].array, twin, atol=2e-6, err_msg=name)
    by_name = {o.name: o for o in art.manifest.explanations}
    assert by_name["mean"].axes == ("batch", "query", "key")
    assert by_name["last"].axes == by_name["average"].axes == ("batch", "key")
    assert by_name["max"].detail["fuse"] == "max"
    assert len(by_name["max"].detail["layers"]) == 3


def test_it_is_what_the_untouched_layers_say_of_padded_rows(tmp_path):
    """The weights that Keras returns itself where it is asked for them."""
    w = weights(2, seed=3)
    x = keras.Input((TIME, 6), name="x")
    mask = keras.ops.any(x != 0, -1)[:, None]
    y = transformers.keras_block(w, 0, x, x, attention_mask=mask)
    y = transformers.keras_block(w, 1, y, y, attention_mask=mask)
    model = keras.Model(x, transformers.keras_head(w, y))
    pg.compile(model, pg.AttentionRollout(), tmp_path / "m.onnx")
    rows = data(TIME, 4, zeros=2)
    found = runtime.load(tmp_path / "m.onnx").run(rows)["attention_rollout/attention_1"].array
    named = [model.get_layer(f"attention_{i}") for i in (0, 1)]
    inner = keras.Model(x, [keras.tree.flatten(layer.input)[0] for layer in named])
    matrices = []
    for layer, query in zip(named, inner(rows), strict=True):
        _, a = layer(
            query, query, return_attention_scores=True, attention_mask=(rows != 0).any(-1)[:, None]
        )
        matrices.append(np.asarray(a, np.float64))
    assert not matrices[0][..., -2:].any()
    np.testing.assert_allclose(found, rollout(matrices), atol=1e-6)


@pytest.mark.parametrize("path", ["saved", "m.keras"])
def test_tensorflow_computes_it_too(tmp_path, path):
    w = weights(2)
    model = transformers.keras_encoder(w, 2, None)
    pg.compile(model, [pg.AttentionRollout(query=1), pg.Attention()], tmp_path / path)
    x = data(7, 2)
    matrices, _ = by_hand(encoder_by_hand(w, 2, x), [-1, -1])
    if path == "saved":
        found = runtime.load(tmp_path / path).run(x)["attention_rollout/attention_1"].array
    else:
        found = keras.models.load_model(tmp_path / path)(x)["attention_rollout/attention_1"]
    np.testing.assert_allclose(found, rollout(matrices)[:, 1], atol=1e-6)


# -- what holds for any weights ----------------------------------------------------------------

AXES = ("batch", "head", "query", "key")
CHAIN = tuple(
    Attending(f"layer {i}", AXES, 0, 0, None if i == 0 else i - 1, None if i == 0 else i - 1)
    for i in range(3)
)


def random_weights(seed, rows=4, heads=3, time=7, zeros=False):
    """Attention weights of three layers; with `zeros` some are 0, and some whole rows."""
    rng = np.random.default_rng(seed)
    found = rng.dirichlet(np.ones(time), (3, rows, heads, time))
    if zeros:
        found[..., -2:] = 0
        found[:, 0, :, 1] = 0
    return list(found)


def rolled(matrices, **fields):
    probe = pg.AttentionRollout(**fields)
    return probe.follow(NumpyOperations(), matrices, [], CHAIN[: len(matrices)], 0)


@pytest.mark.parametrize("fuse", ["mean", "max", "min"])
@pytest.mark.parametrize("residual", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("seed", [0, 1])
def test_rows_add_up_to_one(fuse, residual, seed):
    found = rolled(random_weights(seed), fuse=fuse, residual=residual)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)
    assert (found >= 0).all()


def test_a_residual_of_one_is_the_identity():
    found = rolled(random_weights(2), residual=1)
    np.testing.assert_array_equal(found, np.broadcast_to(np.eye(7), found.shape))


def test_rows_of_zeros_are_no_division_by_zero():
    found = rolled(random_weights(3, zeros=True), residual=0)
    assert np.isfinite(found).all()
    assert not found[0, 1].any()


def test_samples_do_not_depend_on_each_other():
    matrices = random_weights(4)
    alone = rolled([m[2:3] for m in matrices])
    np.testing.assert_allclose(rolled(matrices)[2:3], alone, rtol=1e-12)


def test_positions_in_another_order_are_the_same_in_that_order():
    order = np.random.default_rng(5).permutation(7)
    matrices = random_weights(5)
    turned = [m[..., order, :][..., order] for m in matrices]
    found = rolled(matrices)[:, order][:, :, order]
    np.testing.assert_allclose(rolled(turned), found, rtol=1e-12)


@pytest.mark.parametrize("axes", [("batch", "query", "key"), ("batch", "key", "query")])
def test_weights_without_heads_and_in_another_order(axes):
    matrices = [m[:, 0] for m in random_weights(6)]
    chain = [Attending(a.name, axes, 0, 0, a.queries_after, a.keys_after) for a in CHAIN]
    turned = [np.swapaxes(m, 1, 2) if axes[1] == "key" else m for m in matrices]
    found = pg.AttentionRollout().follow(NumpyOperations(), turned, [], chain, 0)
    np.testing.assert_allclose(found, rollout([m[:, None] for m in matrices]), rtol=1e-12)


# -- asked wrongly -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"fuse": "sum"}, "fuse= takes one of 'mean', 'max', 'min', got 'sum'"),
        ({"fuse": None}, "fuse= takes one of"),
        ({"residual": 1.5}, "residual= takes a number from 0 to 1, got 1.5"),
        ({"residual": float("nan")}, "residual= takes a number"),
        ({"residual": True}, "residual= takes a number"),
        ({"query": "cls"}, "query= takes an index, 'mean' or None, got 'cls'"),
        ({"query": 1.0}, "query= takes an index"),
        ({"query": True}, "query= takes an index"),
        ({"name": " "}, "non-empty string"),
    ],
)
def test_fields_that_make_no_sense(fields, says):
    with pytest.raises(SpecError, match=says):
        pg.AttentionRollout(**fields)


@pytest.mark.parametrize("query", [TIME, -TIME - 1])
def test_a_query_that_is_not_there(tmp_path, query):
    model = transformers.keras_encoder(weights(1), 1, TIME)
    with pytest.raises(InstrumentError, match=rf"query={query} is out of range.*5 queries, 0 to 4"):
        pg.compile(model, pg.AttentionRollout(query=query), tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_wrong_rollout_is_found(tmp_path, monkeypatch):
    model = transformers.keras_encoder(weights(2), 2, TIME)
    pg.compile(model, pg.AttentionRollout(), tmp_path / "m.onnx", verify=False)
    follow = pg.AttentionRollout.follow

    def forwards(self, ops, weights, gradients, layers, keys):
        return follow(self, ops, weights[::-1], gradients, layers, keys)

    monkeypatch.setattr(pg.AttentionRollout, "follow", forwards)
    with pytest.raises(pg.ProbegenError, match="attention_rollout/attention_1"):
        pg.verify(tmp_path / "m.onnx", model)
