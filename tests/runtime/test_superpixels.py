"""Superpixels: labels that follow the picture, and what is refused."""

import sys

import numpy as np
import pytest

from probegen import runtime
from probegen.errors import InputError


def halves(channels):
    """Two pictures `[9, 12, channel]` of two colours, one cut upright, one across."""
    pictures = np.zeros((2, 9, 12, channels), np.float32)
    pictures[0, :, 5:] = np.arange(1, channels + 1)
    pictures[1, 4:] = 1.0
    return pictures


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_superpixels_follow_the_edges(channels):
    pytest.importorskip("skimage")
    x = halves(channels)
    labels = runtime.superpixels(x, segments=12, compactness=1.0)
    assert labels.shape == (2, 9, 12)
    assert labels.dtype == np.int32
    for picture, regions in zip(x, labels, strict=True):
        assert set(np.unique(regions)) == set(range(regions.max() + 1))
        assert 3 < regions.max() < 12
        for label in range(regions.max() + 1):
            assert len(np.unique(picture[regions == label], axis=0)) == 1
    np.testing.assert_array_equal(labels, runtime.superpixels(x, segments=12, compactness=1.0))
    np.testing.assert_array_equal(labels, runtime.superpixels(255 * x, segments=12, compactness=1))


@pytest.mark.parametrize("segments", [1, 2, 3, 7, 16, 40])
def test_there_are_at_most_so_many(segments):
    pytest.importorskip("skimage")
    down, across = np.mgrid[:57, :69] / 20
    x = np.stack([np.sin(down + across), np.cos(across), down], -1)
    x = np.stack([x, x[::-1] ** 2])
    labels = runtime.superpixels(x, segments=segments)
    assert (labels.reshape(2, -1).max(1) < segments).all()
    assert labels.max() + 1 >= 0.6 * segments


def test_one_picture_and_extremes():
    pytest.importorskip("skimage")
    x = halves(3)
    np.testing.assert_array_equal(runtime.superpixels(x[0]), runtime.superpixels(x[:1]))
    grey = runtime.superpixels(x[0, ..., 0], segments=4)
    assert grey.shape == (1, 9, 12)
    assert runtime.superpixels(np.ones((5, 7, 3)), segments=1).tolist() == [[[0] * 7] * 5]
    many = runtime.superpixels(x, segments=10**6)
    assert many.max() < 9 * 12


def test_what_is_refused(monkeypatch):
    x = halves(3)
    for given, says in (
        (np.zeros(5), r"shape \(5,\)"),
        (np.zeros((0, 5, 5, 3)), "shape"),
        (np.full((5, 5), np.nan), "not finite"),
        ([["a", "b"]], "type <U1"),
        ([[1], [1, 2]], "no regular array"),
    ):
        with pytest.raises(InputError, match=says):
            runtime.superpixels(given)
    for options in ({"segments": 0}, {"segments": 2.5}, {"compactness": 0}):
        with pytest.raises(InputError, match=f"{next(iter(options))} is"):
            runtime.superpixels(x, **options)
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(InputError, match=r"scikit-image, which is not installed.*\[superpixels\]"):
        runtime.superpixels(x)
