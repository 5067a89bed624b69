"""Slopes along concept vectors: against a tape, against differences, and what does not fit."""

import keras
import numpy as np
import onnx
import onnx.reference
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SpecError
from probegen.methods import text_forms
from tests.methods.test_cams import SIZES, data_of, differences, file_of, model_of, taped

RNG = np.random.default_rng(3)


def vectors_of(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_slopes_are_those_of_a_tape(tmp_path, rank):
    model = model_of(rank, "tanh")
    sizes = tuple(s - 2 for s in SIZES[rank])
    whole, channels = vectors_of(4, *sizes, 5), vectors_of(3, 5)
    probes = [
        pg.ConceptSensitivity("maps", whole, target=1),
        pg.ConceptSensitivity("maps", channels, target=1, name="channels"),
    ]
    exported = pg.compile(model, probes, tmp_path / "m.onnx")
    assert exported.report.passed
    spec = exported.manifest.output("concept_sensitivity/maps")
    assert (spec.axes, spec.shape, spec.layer) == (("batch", "concept"), (None, 4), "maps")
    probed, art = pg.instrument(model, probes), runtime.load(tmp_path / "m.onnx")
    for count in (2, 3):
        x = data_of(rank, count)
        gradient, _ = taped(model, x, 1)
        expected = [(g * v).sum() for g in gradient for v in whole]
        over = [(g * v).sum() for g in gradient for v in channels]
        for found in (art.run(x), probed(x)):
            got = [
                np.asarray(getattr(found[n], "array", found[n])) for n in (spec.name, "channels")
            ]
            np.testing.assert_allclose(got[0].ravel(), expected, rtol=1e-3, atol=1e-5)
            np.testing.assert_allclose(got[1].ravel(), over, rtol=1e-3, atol=1e-5)


def test_slopes_of_a_file_with_channels_first_are_those_of_differences(tmp_path):
    whole, behind = file_of(2, "Tanh")
    sizes = tuple(s - 2 for s in SIZES[2])
    vectors = vectors_of(2, 5, *sizes)
    probe = pg.ConceptSensitivity("a", vectors, target=0)
    assert pg.compile(whole, probe, tmp_path / "m.onnx").report.passed
    seen = onnx.ModelProto()
    seen.CopyFrom(whole)
    seen.graph.output.append(onnx.helper.make_empty_tensor_value_info("a"))
    x = np.moveaxis(data_of(2, 3), -1, 1)
    maps = onnx.reference.ReferenceEvaluator(seen).run(["a"], {"x": x})[0]
    expected = np.einsum("bchw,ichw->bi", differences(behind, maps, 0), vectors)
    found = runtime.load(tmp_path / "m.onnx").run(x)["concept_sensitivity/a"].array
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_it_is_the_slope_of_the_score(tmp_path):
    """A step along a vector in a dense layer's output raises the score by step times slope."""
    keras.utils.set_random_seed(1)
    x = keras.Input((6,), name="x")
    y = layers.Dense(5, activation="tanh", name="hidden")(x)
    tail = keras.Sequential([layers.Dense(4, activation="tanh"), layers.Dense(2)], name="tail")
    model = keras.Model(x, tail(y))
    vectors = vectors_of(3, 5)
    pg.compile(model, pg.ConceptSensitivity("hidden", vectors, target=1), tmp_path / "m.onnx")
    data = RNG.standard_normal((4, 6)).astype(np.float32)
    found = runtime.load(tmp_path / "m.onnx").run(data)["concept_sensitivity/hidden"].array
    hidden = np.asarray(model.get_layer("hidden")(data))
    score = lambda h: np.asarray(tail(h))[:, 1]  # noqa: E731
    step = 1e-2
    for i, vector in enumerate(vectors):
        slope = (score(hidden + step * vector) - score(hidden - step * vector)) / (2 * step)
        np.testing.assert_allclose(found[:, i], slope, rtol=1e-2, atol=1e-3)


def test_every_call_has_an_output_and_the_artefact_holds_the_vectors_once(tmp_path):
    a, b = keras.Input((7,), name="a"), keras.Input((7,), name="b")
    shared = layers.Dense(50, activation="tanh", name="tower")
    model = keras.Model([a, b], layers.Dense(2)(layers.Concatenate()([shared(a), shared(b)])))
    vectors = vectors_of(40, 50)
    probe = pg.ConceptSensitivity("tower", vectors)
    exported = pg.compile(model, probe, tmp_path / "m.onnx", answers=False)
    names = [o.name for o in exported.manifest.explanations]
    assert names == ["concept_sensitivity/tower#0", "concept_sensitivity/tower#1"]
    assert (tmp_path / "m.onnx").stat().st_size < 2.5 * vectors.nbytes
    assert pg.verify(tmp_path / "m.onnx", model).passed


def test_a_class_that_does_not_see_the_layer_has_slopes_of_zero(tmp_path):
    model = model_of(2, "relu")
    pg.compile(
        model, pg.ConceptSensitivity("maps", vectors_of(2, 5), target=2), tmp_path / "m.onnx"
    )
    found = runtime.load(tmp_path / "m.onnx").run(data_of(2, 3))["concept_sensitivity/maps"].array
    np.testing.assert_array_equal(found, 0)


def test_tcav_calls_concepts_by_their_names(tmp_path):
    model = model_of(2, "tanh")
    probe = pg.ConceptSensitivity("maps", vectors_of(2, 5), target=1, names=["striped", "round"])
    pg.compile(model, probe, tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    assert art.manifest.output("concept_sensitivity/maps").detail["names"] == ["striped", "round"]
    x = data_of(2, 3)
    scores = runtime.tcav(art, x)
    slopes = art.run(x)["concept_sensitivity/maps"].array
    assert list(scores) == ["striped", "round"]
    assert scores["round"].score == (slopes[:, 1] > 0).mean()


def test_randomised_weights_change_the_slopes():
    model, probe = model_of(2, "relu"), pg.ConceptSensitivity("maps", vectors_of(6, 5), target=1)
    x = data_of(2, 3)[:2]
    before = np.asarray(pg.instrument(model, probe)(x)["concept_sensitivity/maps"])
    hidden = model.get_layer("hidden")
    hidden.set_weights([RNG.standard_normal(w.shape) * w.std() for w in hidden.get_weights()])
    after = np.asarray(pg.instrument(model, probe)(x)["concept_sensitivity/maps"])
    for one, other in zip(before, after, strict=True):
        assert np.corrcoef(one, other)[0, 1] < 0.95


@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        (vectors_of(2, 4), r"does not fit layer 'maps' \(height 7, width 5, channel 5\)"),
        (vectors_of(2, 7, 5), r"it takes \[concept, 7, 5, 5\] or \[concept, 5\]"),
        (vectors_of(2, 5, 7, 5), r"the shape \(2, 5, 7, 5\)"),
    ],
)
def test_vectors_of_another_shape(vectors, says):
    with pytest.raises(InstrumentError, match=says):
        pg.instrument(model_of(2, "relu"), pg.ConceptSensitivity("maps", vectors))


def test_open_sizes_take_vectors_over_channels():
    x = keras.Input((None, None, 2), name="x")
    y = layers.Conv2D(4, 3, name="maps")(x)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    found = pg.instrument(model, pg.ConceptSensitivity("maps", vectors_of(3, 4)))
    assert found.manifest.explanations[0].shape == (None, 3)
    with pytest.raises(InstrumentError, match=r"height open, .*it takes \[concept, 4\]"):
        pg.instrument(model, pg.ConceptSensitivity("maps", vectors_of(3, 6, 6, 4)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: pg.ConceptSensitivity("a", [1.0, 2.0]), r"it takes \[concept, \.\.\.\]"),
        (lambda: pg.ConceptSensitivity("a", [[np.nan, 2.0]]), "NaN or infinite"),
        (lambda: pg.ConceptSensitivity("a", [[1.0]], names=["x", "y"]), "there are 1 vectors"),
        (lambda: pg.ConceptSensitivity("a", [[1.0], [2]], names=["x", "x"]), "a name of its own"),
        (lambda: pg.ConceptSensitivity("a", [[1.0]], names=[3]), "a word for each concept"),
    ],
)
def test_fields_are_checked(make, says):
    with pytest.raises(SpecError, match=says):
        make()


def test_text_form(tmp_path):
    probe = pg.ConceptSensitivity("maps", [[1.0, 0.5], [0.0, -1.0]], names=("a", "b"), target=2)
    assert text_forms.from_json(text_forms.to_json([probe])) == (probe,)
    np.save(tmp_path / "v.npy", probe.vectors.values)
    assert (
        pg.ConceptSensitivity("maps", str(tmp_path / "v.npy"), names=("a", "b"), target=2) == probe
    )


def test_savedmodel(tmp_path):
    model = model_of(2, "tanh")
    probe = pg.ConceptSensitivity("maps", vectors_of(2, 5), target=1)
    assert pg.compile(model, probe, tmp_path / "saved").report.passed
    x = data_of(2, 3)
    gradient, _ = taped(model, tf.constant(x), 1)
    expected = np.einsum("bhwc,ic->bi", gradient, probe.vectors.values)
    found = runtime.load(tmp_path / "saved").run(x)["concept_sensitivity/maps"].array
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
