"""Sizes at which methods by scores are verified: few positions, and enough of them."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import VerificationError
from probegen.methods import FeatureAblation, Occlusion, Saliency
from probegen.methods.chains import Attending, Grid
from probegen.parity import samples as drawing
from probegen.parity.costly_methods import with_fewer_positions

AXES = ("batch", "height", "width", "channel")
OWN = {8, 16, 32}


class Model:
    """A reference whose only tensor is explained: the input, pooled."""

    def __init__(self, *probes, pooled=1, multiple=1):
        outputs = [SimpleNamespace(probe=p, axes=AXES, ref="tensor") for p in probes]
        self.plan = SimpleNamespace(groups=[SimpleNamespace(outputs=outputs)], chains=[])
        self.pooled, self.multiple = pooled, multiple

    def moved_scores(self):
        return self

    def at(self, feed, shifts):
        assert not shifts
        batch, height, width, channels = feed["x"].shape
        shape = (batch, -(-height // self.pooled), -(-width // self.pooled), channels)
        return [], {"tensor": np.zeros(shape)}

    def cause_of_failure(self, feed):
        fits = all(n % self.multiple == 0 for n in feed["x"].shape[1:3])
        return None if fits else "it does not fit"


def fed(sizes):
    return {"x": np.zeros((1, sizes.named["height"], sizes.named["width"], 3), np.float32)}


def chosen(model):
    usual = list(next(drawing.rungs(OWN)))
    return usual, with_fewer_positions(usual, drawing.small_rungs(OWN), model, fed)


@pytest.mark.parametrize("multiple", [1, 4])
def test_a_method_of_many_points_gets_few_positions(multiple):
    usual, few = chosen(Model(FeatureAblation(), multiple=multiple))
    assert few != usual
    areas = [s.named["height"] * s.named["width"] for s in few]
    assert max(areas) < 400
    one, other = few
    assert all(one.named[axis] != other.named[axis] for axis in one.named)
    assert not OWN & {*one.named.values(), *other.named.values()} - {8}  # 8: a depth at most


@pytest.mark.parametrize(
    "model",
    [
        Model(Saliency()),
        Model(Occlusion(window=16)),
        Model(FeatureAblation(), multiple=16),  # as a U-Net that halves four times
        Model(FeatureAblation(groups="input")),
    ],
    ids=["gradients", "few windows", "does not run at others", "groups of the request"],
)
def test_others_keep_the_usual_sizes(model):
    usual, few = chosen(model)
    assert few == usual


@pytest.mark.parametrize(("pooled", "probes", "smaller"), [(8, 3, True), (32, 30, False)])
def test_what_is_explained_keeps_two_positions_an_axis(pooled, probes, smaller):
    model = Model(*[FeatureAblation()] * probes, pooled=pooled)
    usual, few = chosen(model)
    assert (few != usual) == smaller
    for sizes in few:
        _, tensors = model.at(fed(sizes), {})
        assert min(tensors["tensor"].shape[1:3]) >= 2


@pytest.mark.parametrize(("side", "smaller"), [(None, True), (9, False)])
def test_attention_from_all_pixels_to_all_gets_few_positions(side, smaller):
    """A matrix of 64 by 48 pixels to as many has nine million numbers a sample."""
    model = Model()
    both = Grid(("query_0", "query_1"), ("key_0", "key_1"))
    layer = Attending("a", ("batch", *both.queries, *both.keys), 0, 0, grid=both)
    spec = SimpleNamespace(shape=(None, side, side, side, side))
    model.plan.chains = [SimpleNamespace(layers=[layer], spec=spec)]
    usual, few = chosen(model)
    assert (few != usual) == smaller
    assert max(s.named["height"] * s.named["width"] for s in few) < 400 or not smaller


def test_a_model_without_that_witness_keeps_the_usual_sizes():
    model = Model(FeatureAblation())
    model.moved_scores = lambda: None
    usual, few = chosen(model)
    assert few == usual


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory):
    """A model of open sizes, and its artefact with a method that is tried at few positions."""
    x = keras.Input((None, None, 2))
    y = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    model = keras.Model(x, keras.layers.Conv2D(3, 1, name="pixels")(y))
    path = tmp_path_factory.mktemp("costly") / "m.onnx"
    pg.compile(model, [FeatureAblation(target=1)], path, verify=False)
    return model, runtime.load(path)


def test_predictions_are_tried_at_the_usual_sizes_too(segmentation, monkeypatch):
    model, artefact = segmentation
    assert pg.verify(artefact, model).passed
    run = type(artefact).run
    seen = set()

    def wrong_where_it_is_large(self, inputs, **options):
        result = run(self, inputs, **options)
        (x,) = inputs.values()
        seen.add((x.shape[1:3], options.get("explain", True)))
        if x.shape[1] > 40:
            result["pixels"].array[:] += 0.1
        return result

    monkeypatch.setattr(type(artefact), "run", wrong_where_it_is_large)
    with pytest.raises(VerificationError, match="'pixels'"):
        pg.verify(artefact, model)
    assert {size for size, explains in seen if explains} < {size for size, _ in seen}
    assert max(height for (height, _), explains in seen if explains) < 40
