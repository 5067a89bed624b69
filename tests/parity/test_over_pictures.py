"""Which outputs lie over pictures, and what samples of pictures are like."""

import numpy as np

from probegen.artefact.manifest import InputSpec, Manifest, OutputSpec
from probegen.artefact.preprocessing import ImageInput, resolved
from probegen.parity.samples import draw, planned_rows, rungs
from probegen.runtime.read.ranges import doubts

NHWC = ("batch", "height", "width", "channel")


def described(**image):
    asked = ImageInput(**image)
    how, shape, axes = resolved(asked, "photo", "float32", (None, 40, 60, 3), NHWC)
    photo = InputSpec("photo", asked.dtype, shape, axes, preprocessing=how)
    score = OutputSpec("y", "prediction", "float32", (None, 4), ("batch", "class"))
    return Manifest((photo,), (score,), certificate={"generated": True})


def test_samples_are_larger_and_smaller_than_what_the_model_takes():
    manifest = described()
    rng = np.random.default_rng(0)
    first, second = next(rungs(()))
    rows = planned_rows(manifest, ())
    sizes = [
        draw(manifest, r, s, rng).feed["photo"].shape[1:3]
        for r, s in zip(rows, (first, second), strict=True)
    ]
    heights, widths = zip(*sizes, strict=True)
    assert min(heights) < 40 < max(heights)
    assert min(widths) < 60 < max(widths)
    assert not {40, 60} & {*heights, *widths}


def test_floating_pictures_hold_bytes_as_well():
    """Numbers around 0, divided by 255, would be one grey to the model."""
    manifest = described(dtype="float32", layout="NCHW")
    rng = np.random.default_rng(0)
    photo = draw(manifest, planned_rows(manifest, ())[0], next(rungs(()))[0], rng).feed["photo"]
    assert photo.dtype == np.float32
    assert photo.shape[1] == 3
    assert photo.max() > 200
    assert photo.min() == 0
    assert not list(doubts({"photo": photo}, manifest, pixels=True))
