"""What is verified on: sizes that differ, rows that are hard, variants of given samples."""

import itertools
from types import SimpleNamespace

import numpy as np

from probegen.artefact.manifest import InputSpec, Padding
from probegen.parity import samples as drawing

OWN = frozenset({1, 2, 4, 8, 13, 32, 64})


def manifest(*inputs):
    return SimpleNamespace(inputs=inputs)


def spec(name="x", dtype="float32", shape=(None, 7, 3), axes=("batch", "time", "feature"), **more):
    return InputSpec(name, dtype, shape, axes, **more)


def drawn(described, own=OWN, **options):
    pair = next(iter(drawing.rungs(own)))
    rng = np.random.default_rng(0)
    planned = drawing.planned_rows(described, own)
    return [
        drawing.draw(described, r, s, rng, **options) for r, s in zip(planned, pair, strict=True)
    ]


def test_batches_differ_from_each_other_and_from_the_models_sizes():
    for own in (OWN, {3, 5, 6}, set(range(1, 9)), set()):
        sizes = [len(rows) for rows in drawing.planned_rows(manifest(spec()), own)]
        assert len(set(sizes)) == 2
        assert not set(sizes) & set(own)


def test_a_model_that_has_every_size_gets_the_first_two():
    planned = drawing.planned_rows(manifest(spec()), range(20))
    assert [len(rows) for rows in planned] == [4, 2]


def test_open_sizes_differ_from_each_other_and_from_the_models_sizes():
    image = spec("image", shape=(None, None, None, 3), axes=("batch", "height", "width", "channel"))
    text = spec("text", shape=(None, None), axes=("batch", "time"))
    for described in (manifest(image), manifest(text), manifest(image, text)):
        first, second = drawn(described)
        for a, b in zip(first.feed.values(), second.feed.values(), strict=True):
            fixed = int(a.ndim == 4)  # the channels of the image
            assert not any(x == y for x, y in zip(a.shape, b.shape[: a.ndim - fixed], strict=False))
            assert not {*a.shape[:1], *b.shape[:1]} & OWN
    pairs = list(drawing.rungs(OWN))
    for earlier, later in itertools.pairwise(drawing.rungs(())):  # they grow
        assert earlier[0].length < later[0].length
        assert earlier[1].named["height"] < later[1].named["height"]
    for pair in pairs:
        assert not OWN & {s.length for s in pair}
        assert all(pair[0].named[axis] != pair[1].named[axis] for axis in pair[0].named)


def test_a_fixed_batch_keeps_its_size():
    for fixed in (1, 2, 3, 4, 7):
        batches = drawing.planned_rows(manifest(spec(shape=(fixed, 7, 3))), OWN)
        assert {len(rows) for rows in batches} == {fixed}
        kinds = {kind for rows in batches for kind in rows}
        assert kinds == {drawing.ORDINARY, drawing.ZEROS, drawing.LARGE, drawing.TIES}
        assert drawing.ORDINARY in batches[0]


def test_hard_rows_of_floats():
    rows = [drawing.ORDINARY, drawing.ZEROS, drawing.LARGE, drawing.TIES]
    sizes = next(iter(drawing.rungs(OWN)))[0]
    x = drawing.draw(manifest(spec()), rows, sizes, np.random.default_rng(0)).feed["x"]
    assert x.dtype == np.float32
    assert not x[1].any()
    assert np.abs(x[2]).max() > 100
    assert (x[2] < 0).any()
    assert len(np.unique(x[3])) < x[3].size / 2
    assert not x[3][-2:].any()
    steps = (x[3].reshape(len(x[3]), -1) == 0).all(1)
    assert steps[len(steps) // 3]  # a mask with a hole, which no length tells
    assert not steps[: len(steps) // 3].all()
    tame = drawing.draw(manifest(spec()), rows, sizes, np.random.default_rng(0), tame=True)
    assert np.abs(tame.feed["x"]).max() < 30


def test_whole_numbers_stand_around_each_boundary():
    rows = [drawing.ORDINARY, drawing.ZEROS, drawing.LARGE, drawing.TIES]
    shape, axes = (None, 99), ("batch", "time")
    sizes = next(iter(drawing.rungs(OWN)))[0]

    def of(dtype="int32", tame=False, **more):
        described = manifest(spec("x", dtype, shape, axes, **more))
        return drawing.draw(described, rows, sizes, np.random.default_rng(0), tame=tame).feed["x"]

    known = of(vocabulary=17)
    assert (known.min(), known.max()) == (0, 16)
    assert set(np.unique(known[2])) == {0, 1, 16}
    free = of()
    assert {-3, -1, 0, 1, 2} <= set(np.unique(free[2]))
    assert set(np.unique(free[0])) == {0, 1}
    assert set(np.unique(of(tame=True))) == {0, 1}
    assert of("uint8").min() == 0
    assert of("float32", vocabulary=5, integer=True).max() == 4
    flags = of("bool")
    assert flags[2].all()
    assert not flags[1].any()
    assert flags[0].any() and not flags[0].all()  # noqa: PT018


def test_an_ordinary_sample_is_not_all_padding():
    described = manifest(
        spec("x", "int32", (None, 1), ("batch", "time"), vocabulary=2, padding=Padding("x", (0.0,)))
    )
    rows, sizes = [drawing.ORDINARY] * 20 + [drawing.ZEROS], next(iter(drawing.rungs(OWN)))[0]
    drawn = drawing.draw(described, rows, sizes, np.random.default_rng(0)).feed["x"]
    assert drawn[:-1].all()
    assert not drawn[-1].any()


def test_variants_of_given_samples():
    text = spec("ids", "int32", (None, None), ("batch", "time"), vocabulary=9)
    mask = spec("mask", "int32", (None, None), ("batch", "time"))
    image = spec("image", shape=(None, 6, 5, 3), axes=("batch", "height", "width", "channel"))
    rng = np.random.default_rng(0)
    feed = {
        "ids": rng.integers(1, 9, (5, 11)).astype("int32"),
        "mask": np.ones((5, 11), "int32"),
        "image": rng.standard_normal((5, 6, 5, 3)).astype("float32"),
    }
    described = manifest(text, mask, image)
    made = list(drawing.variants(feed, described, OWN))
    assert all(b.size not in (5, *OWN) for b in made)
    lengths = {b.feed["ids"].shape[1] for b in made}
    assert len(lengths) >= 3  # shorter, longer, and as it was
    for batch in made:
        assert batch.feed["mask"].shape == batch.feed["ids"].shape
        assert batch.feed["image"].shape[1:] == (6, 5, 3)
        for row, source in enumerate(batch.source):
            np.testing.assert_array_equal(batch.feed["image"][row], feed["image"][source])
    padded = next(b for b in made if drawing.PADDED in b.rows)
    assert not padded.feed["ids"][-1, -3:].any()
    assert not padded.feed["mask"][-1, -3:].any()
    assert padded.feed["ids"][0].all()


def test_variants_keep_a_fixed_batch_and_fixed_sizes():
    feed = {"x": np.ones((4, 7, 3), "float32")}
    for batch in drawing.variants(feed, manifest(spec(shape=(4, 7, 3))), OWN):
        assert batch.feed["x"].shape == (4, 7, 3)
    image = spec("x", shape=(None, 7, 3, 2), axes=("batch", "height", "width", "channel"))
    made = list(drawing.variants({"x": np.ones((4, 7, 3, 2), "float32")}, manifest(image), OWN))
    assert [b.rows for b in made] == [(drawing.ORDINARY,) * made[0].size]


def test_bytes_are_all_of_them_and_tame_where_they_may_be_looked_up():
    pixels = manifest(spec(dtype="uint8"))
    ordinary = drawn(pixels)[0].feed["x"][0]
    assert ordinary.max() > 200
    assert len(np.unique(ordinary)) > 20
    assert drawn(pixels, tame=True)[0].feed["x"][0].max() <= 1
    assert drawn(manifest(spec(dtype="uint8", vocabulary=5)))[0].feed["x"].max() < 5
