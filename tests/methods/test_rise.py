"""RISE against its definition: masks by interpolation of a grid, and loops over the model."""

import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SpecError
from tests import models
from tests.methods.scoring import best_of, onnx_model, onnx_scores, scores_of


def masks_of(probe, sizes):
    """The masks: each grid interpolated to `cells + 1` cells and cut at its place."""
    cells = probe._cells(len(sizes))
    grids, cuts = probe._drawn(len(sizes))
    found = []
    for grid, cut in zip(grids, cuts, strict=True):
        mask = grid.astype(np.float64)
        for axis, size in enumerate(sizes):
            count = cells[axis] if probe.cells is not None else min(size, cells[axis])
            mask = np.take(mask, range(count), axis=axis)
            side = -(-size // count)
            wide = side * (count + 1)
            at = (np.arange(wide) + 0.5) * count / wide - 0.5
            mask = np.apply_along_axis(
                lambda line, at=at, n=count: np.interp(at, np.arange(n), line), axis, mask
            )
            start = int(cut[axis] * side)
            mask = np.take(mask, range(start, start + size), axis=axis)
        found.append(mask)
    return np.stack(found)


def twin(best, x, masks, keep):
    total = 0.0
    for mask in masks:
        score = best((x * mask[None, ..., None]).astype(x.dtype))
        total = total + score.reshape(-1, *[1] * mask.ndim) * mask
    return total / (len(masks) * keep)


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=4e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("cells", "name"), [((4, 3), "m.onnx"), (2, "saved")])
def test_an_image_of_a_keras_model(tmp_path, cells, name):
    model, probe = models.cnn(), pg.RISE(30, cells, 0.4, seed=3, chunk=8)
    pg.compile(model, probe, tmp_path / name)
    art = runtime.load(tmp_path / name)
    for count in (1, 3):
        x = models.images((11, 8, 2), seed=count, count=count)
        found = art.run(x)["rise/image"]
        assert found.axes == ("batch", "height", "width")
        best = best_of(scores_of(model))(x)
        close(found.array, twin(best, x, masks_of(probe, (11, 8)), 0.4))


@pytest.mark.parametrize("cells", [3, None])
def test_a_sequence_of_an_onnx_file(tmp_path, cells):
    """Of 5 entries there are 5 cells at most, where nobody says how many."""
    probe = pg.RISE(25, cells, keep=0.6)
    pg.compile(onnx_model(), probe, tmp_path / "m.onnx")
    x = models.images((5, 3), count=2)
    found = runtime.load(tmp_path / "m.onnx").run(x)["rise/x"].array
    close(found, twin(best_of(onnx_scores)(x), x, masks_of(probe, (5,)), 0.6))


def test_masks_keep_their_share_and_follow_the_seed():
    probe = pg.RISE(600, 5, 0.3)
    masks = masks_of(probe, (13, 9))
    assert masks.min() >= 0
    assert masks.max() <= 1
    assert abs(masks.mean() - 0.3) < 0.02
    again = masks_of(pg.RISE(600, 5, 0.3), (13, 9))
    other = masks_of(pg.RISE(600, 5, 0.3, seed=1), (13, 9))
    assert np.array_equal(masks, again)
    assert not np.array_equal(masks, other)


def test_the_file_holds_cells_and_not_masks(tmp_path):
    sizes = []
    for masks in (20, 520):
        path = tmp_path / f"{masks}.onnx"
        pg.compile(models.cnn(), pg.RISE(masks, 4), path, verify=False, gate=False)
        sizes.append(path.stat().st_size)
    assert sizes[1] - sizes[0] < 500 * (16 + 2 * 4 + 4) + 2000


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"masks": 0}, "masks= takes a whole number of at least 1"),
        ({"cells": (3, 0)}, "cells= takes a whole number of at least 1, got 0"),
        ({"keep": 1.0}, "keep= takes a share between 0 and 1, got 1.0"),
    ],
)
def test_fields_that_mean_nothing(fields, says):
    with pytest.raises(SpecError, match=says):
        pg.RISE(**fields)


@pytest.mark.parametrize(
    ("cells", "says"), [(9, "cells=9 are more than 'image' has"), ((2, 2, 2), "has 3 entries")]
)
def test_cells_that_do_not_fit(tmp_path, cells, says):
    with pytest.raises(InstrumentError, match=says):
        pg.compile(models.cnn(), pg.RISE(5, cells), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
