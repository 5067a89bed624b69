"""Noise behind ids, texts and coarse inputs, and the certificates that rest on it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

import probegen as pg
from probegen.errors import VerificationError
from probegen.parity import measuring
from probegen.parity.witness.reference import reference_of
from probegen.plan.making import make_plan
from probegen.sources import open_source
from probegen.sources.base import Noise, Program
from probegen.sources.keras.rounding_noise import coarser_types

IDS = np.int32([[5, 6, 10, 8, 6, 5], [1, 0, 3, 3, 2, 0]])


def reference(model: Any, *probes: Any) -> Any:
    source = open_source(model)
    return source.reference(make_plan(source.view, probes))


def of_ids() -> keras.Model:
    keras.utils.set_random_seed(0)
    ids = keras.Input((6,), dtype="int32", name="ids")
    h = layers.Embedding(11, 5, name="table")(ids)
    return keras.Model(ids, layers.Dense(3, name="y")(layers.GlobalMaxPooling1D()(h)))


@pytest.mark.parametrize("size", [1e-5, 1e-3])
def test_what_ids_look_up_is_moved_in_proportion_and_both_ways(size: float) -> None:
    told = reference(of_ids(), pg.GradientXInput(target=1))
    rest = told.explanations({"ids": IDS}, None)
    ahead, behind = (told.explanations({"ids": IDS}, None, Noise(s)) for s in (size, -size))
    for other in (ahead, behind):
        moved = np.abs(other["y"] - rest["y"]).max() / np.abs(rest["y"]).max()
        assert size / 30 < moved < 30 * size
    again = told.explanations({"ids": IDS}, None, Noise(size))
    np.testing.assert_array_equal(again["gradient_x_input/ids"], ahead["gradient_x_input/ids"])


def test_equal_ids_stay_equal_unless_they_are_to_be_moved_apart() -> None:
    """The same id twice is a tie of maxima, which noise on either breaks one way or the other."""
    told = reference(of_ids(), pg.GradientXInput(target=1))

    def places(*noise: Any) -> Any:
        return told.explanations({"ids": IDS}, None, *noise)["gradient_x_input/ids"] != 0

    rest = places()
    for sign in (1e-5, -1e-5):
        np.testing.assert_array_equal(places(Noise(sign)), rest)
    apart = [places(Noise(sign, draw=1)) for sign in (1e-5, -1e-5)]
    assert all((a != rest).any() for a in apart) or (apart[0] != apart[1]).any()
    assert (places(Noise(1e-5, draw=2)) != apart[0]).any()


def test_zeros_stay_unless_they_are_to_be_moved() -> None:
    ids = keras.Input((4,), dtype="int32", name="ids")
    rows = layers.CategoryEncoding(3, output_mode="one_hot")(ops.expand_dims(ids, -1))
    told = reference(keras.Model(ids, layers.Identity(name="y")(rows)))
    x = np.int32([[0, 1, 2, 1]])
    plain = told.explanations({"ids": x}, None, Noise(1e-4))["y"]
    np.testing.assert_array_equal(plain == 0, np.eye(3)[x] == 0)
    assert (told.explanations({"ids": x}, None, Noise(1e-4, zeros=True))["y"] != 0).all()


def test_inputs_that_are_coarser_than_the_model_are_moved_behind_their_cast() -> None:
    x = keras.Input((3,), dtype="float16", name="x")
    wide = ops.cast(x, "float32")
    y = layers.Identity(name="y")(wide)
    told = reference(keras.Model(x, [y, ops.cast(x, "float32") - wide]))
    fed = np.float16([[0.5, -1.25, 0.0]])
    found = list(told.explanations({"x": fed}, None, Noise(1e-4)).values())
    off = found[0] - fed
    assert (off != 0).tolist() == [[True, True, False]]
    assert np.abs(off).max() < 1e-3
    np.testing.assert_array_equal(found[1], np.zeros((1, 3)))  # of two casts both alike


@pytest.mark.parametrize(
    ("inputs", "computed_in", "coarser"),
    [
        (["float16", "int32"], "float32", {tf.float16}),
        (["float32", "string"], "float64", {tf.float32}),
        (["float32", "float64"], "float16", set()),
    ],
)
def test_coarser_types(inputs: list[str], computed_in: str, coarser: set[Any]) -> None:
    assert coarser_types([tf.TensorSpec([], t) for t in inputs], computed_in) == coarser


def test_floating_numbers_that_are_cut_to_ids_begin_inside_too() -> None:
    """Equal ids among the largest: which ones is for rounding to say, in both computations."""
    x = keras.Input((6,), name="x")
    rows = layers.Embedding(11, 1, name="table")(x)
    largest = ops.top_k(ops.squeeze(rows, -1), 2)[0]
    model = keras.Model(x, layers.Dense(3, name="y")(largest))
    model.get_layer("table").set_weights([np.arange(11, dtype=np.float32)[:, None]])
    source = open_source(model)
    probes = [pg.GradientXInput(target=1), pg.GuidedBackprop(target=1)]
    told = reference_of(Program(source, make_plan(source.view, probes)))
    assert told.begins_inside
    fed = {"x": np.float32([[5.1, 9.7, 9.2, 8, 9.5, 0], [1, 3.9, 3.1, 0.5, 2, 3.4]])}
    noises = (None, *(Noise(s, draw=d) for s in (1e-5, -1e-5) for d in (1, 2)))
    found = [told.explanations(fed, None, n) for n in noises]
    for name in ("gradient_x_input/x", "guided_backprop/x"):
        places = [(f[name] != 0).reshape(2, 6) for f in found]
        assert all((p.sum(axis=1) == 2).all() for p in places)
        assert any((p != places[0]).any() for p in places[1:])
        cut = np.trunc(fed["x"])
        assert all((np.sort(cut[p].reshape(2, 2)) == [[9, 9], [3, 3]]).all() for p in places)


class Changed:
    """An artefact whose attributions of ids are changed."""

    def __init__(self, opened: Any, change: Any) -> None:
        self._art, self._change = opened, change
        self.manifest, self.engine, self.texts = opened.manifest, opened.engine, opened.texts

    def run(self, feed: Any, target: Any = None, **more: Any) -> Any:
        found = dict(self._art.run(feed, target, **more))
        return {
            n: SimpleNamespace(array=self._change(r.array, feed["ids"]) if "ids" in n else r.array)
            for n, r in found.items()
        }


def among_equal(values: Any, ids: Any) -> Any:
    """Gives what is at the first of several equal ids to the last one, and the other way round."""
    changed = values.copy()
    for row, of in enumerate(ids):
        for one in np.unique(of):
            at = np.flatnonzero(of == one)
            changed[row, at] = values[row, at[::-1]]
    return changed


@pytest.mark.parametrize(
    ("change", "passed"),
    [
        (among_equal, True),
        (lambda v, _: 1.05 * v, False),
        (lambda v, _: -v, False),
        (lambda v, ids: np.roll(among_equal(v, ids), 1, axis=1), False),
        (lambda v, ids: among_equal(v, ids) * np.float64([1, 1, 1, 1, 1.7]), False),
    ],
    ids=["equal ids", "larger", "turned", "other ids", "one channel"],
)
def test_equal_ids_may_stand_for_each_other_and_nothing_else_may(
    change: Any, passed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of equal maxima any may get the gradient: no noise on ids says so, noise behind them does."""
    model = of_ids()
    pg.compile(model, [pg.GradientXInput(target=1)], tmp_path / "m.onnx", verify=False)
    load = measuring.runtime.load
    monkeypatch.setattr(measuring.runtime, "load", lambda *a, **k: Changed(load(*a, **k), change))
    if passed:
        assert pg.verify(tmp_path / "m.onnx", model, IDS).passed
    else:
        with pytest.raises(VerificationError, match="gradient_x_input/ids"):
            pg.verify(tmp_path / "m.onnx", model, IDS)


def test_whole_numbers_stay_those_that_something_is_looked_up_by() -> None:
    ids = keras.Input((3,), dtype="int32", name="ids")
    wide = ops.cast(ids, "float32")
    rows = layers.Embedding(9, 2, embeddings_initializer="ones")(ops.cast(wide, "int32"))
    told = reference(keras.Model(ids, [wide / 9, ops.sum(rows * ops.one_hot(ids, 2), -1)]))
    fed = {"ids": np.int32([[8, 1, 0]])}
    rest, *moved = (told.explanations(fed, None, n) for n in (None, Noise(1e-4), Noise(-1e-4)))
    number, row = rest
    assert any((other[number] != rest[number]).any() for other in moved)
    for other in moved:
        np.testing.assert_allclose(other[number], rest[number], rtol=1e-3)
        np.testing.assert_allclose(other[row], rest[row], rtol=1e-2)
