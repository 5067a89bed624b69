"""Baselines, backgrounds and fills that may be an input's own numbers where it has a stand-in."""

import keras
import numpy as np
import onnx.parser
import pytest
from keras import layers, ops

import probegen as pg
from probegen.errors import InstrumentError
from probegen.plan.making import make_plan
from probegen.sources.keras.source import open_source
from probegen.sources.onnx import source as onnx_source


@pytest.fixture(scope="module")
def view():
    """A table: a category, a number that is sorted into bins, whole numbers, tokens, a length."""
    city = keras.Input((1,), dtype="int32", name="city")
    age, length = keras.Input((1,), name="age"), keras.Input((1,), name="length")
    day = keras.Input((3,), dtype="int32", name="day")
    words = keras.Input((3,), dtype="int32", name="words")
    features = [
        layers.CategoryEncoding(5, output_mode="one_hot", name="cities")(city),
        layers.Discretization([20.0, 40.0], output_mode="one_hot", name="bins")(age),
        ops.cast(day // 7, "float32"),
        layers.Flatten()(layers.Embedding(9, 4, name="embed")(words)),
        length,
    ]
    out = layers.Dense(2, name="out")(layers.Concatenate()(features))
    return open_source(keras.Model([city, age, day, words, length], out)).view


def planned(view, probe):
    return make_plan(view, (probe,)).manifest.explanations


#: What each input holds: rows of it, a number of it.
OWN = {
    "city": ([[3.0], [0.0]], 3.0),
    "age": ([[25.0], [37.5]], 37.5),
    "day": ([[8.0, 0.0, 14.0], [1.0, 2.0, 3.0]], 8.0),
    "words": ([[8.0, 0.0, 1.0], [1.0, 2.0, 3.0]], 1.0),
}
GRADIENTS = [
    lambda rows, _, wrt: pg.ExpectedGradients(rows, samples=2, wrt=wrt),
    lambda rows, _, wrt: pg.DeepSHAP(rows, wrt=wrt),
    lambda rows, _, wrt: pg.IntegratedGradients(2, rows[0], wrt=wrt),
    lambda rows, _, wrt: pg.IntegratedGradients(2, rows, wrt=wrt),
    lambda _, number, wrt: pg.IntegratedGradients(2, number, wrt=wrt),
    lambda _, number, wrt: pg.DeepLIFT({wrt: number}, wrt=wrt),
]
BY_SCORES = [
    lambda rows, _, wrt: pg.KernelSHAP(background=rows, wrt=wrt),
    lambda _, number, wrt: pg.LIME(background=number, samples=9, kernel_width=1.0, wrt=wrt),
    lambda _, number, wrt: pg.Occlusion(1, fill=number, wrt=wrt),
    lambda _, number, wrt: pg.FeatureAblation(fill=number, wrt=wrt),
]


@pytest.mark.parametrize("name", OWN)
def test_numbers_of_the_input_are_none_of_its_stand_in(view, name):
    """An array broadcasts over the one-hot row, or has its shape by chance: 4 ids, 4 classes."""
    rows, number = OWN[name]
    for make in GRADIENTS if name in ("age", "day") else [*GRADIENTS, *BY_SCORES]:
        with pytest.raises(InstrumentError, match=f"input '{name}' itself, and would be read as"):
            planned(view, make(rows, number, name))


@pytest.mark.parametrize("name", ["age", "day"])
def test_numbers_that_are_sorted_into_bins_are_hidden_by_their_own(view, name):
    rows, number = OWN[name]
    for make in BY_SCORES:
        (spec,) = planned(view, make(rows, number, name))
        assert spec.dtype == "float32"
        assert spec.axes == ("batch", "feature")
        assert "makes of" not in spec.method


@pytest.mark.parametrize(
    "probe",
    [
        pg.IntegratedGradients(2),
        pg.KernelSHAP(wrt="words", background=0.25),
        pg.KernelSHAP(wrt="city", background=np.eye(5)[:2]),
        pg.Occlusion(1, fill=-1.0, wrt="city"),
        pg.IntegratedGradients(2, 103.0, wrt="embed"),
        pg.IntegratedGradients(2, {"length": 30.0, "age": 0.0, "city": 0.5, "day": 0, "words": 0}),
        pg.ExpectedGradients(np.full((2, 3, 4), 7.0), samples=2, wrt="words"),
    ],
)
def test_numbers_of_the_stand_in_are_taken(view, probe):
    assert planned(view, probe)


def test_a_message_says_what_works(view):
    works = r"What works: 0.0; an array of that, \[3, 4\] for a sample; wrt='embed', whose"
    with pytest.raises(InstrumentError, match=works):
        planned(view, pg.KernelSHAP(wrt="words", background=[[8, 0, 1]]))
    with pytest.raises(InstrumentError, match="for a sample; a model that casts the input before"):
        planned(view, pg.DeepLIFT(8, wrt="day"))


def test_whole_numbers_that_are_hidden_themselves_are_filled_with_whole_ones(view):
    expected = (
        "input 'day' is int32, which is hidden itself, and takes whole numbers from -16777215"
    )
    for probe in (
        pg.FeatureAblation(fill=0.5, wrt="day"),
        pg.Occlusion(1, fill=2.0**24, wrt="day"),
        pg.KernelSHAP(background=[[1.0, 2.5, 3.0]], wrt="day"),
    ):
        with pytest.raises(InstrumentError, match=expected):
            planned(view, probe)


def test_the_method_says_what_stands_for_an_input(view):
    said = {spec.name: spec.method.partition("; of ")[2] for spec in planned(view, pg.Saliency())}
    assert said == {
        "saliency/city": "what 'cities' makes of 'city'",
        "saliency/age": "what 'bins' makes of 'age'",
        "saliency/day": "what 'day/cast' makes of 'day'",
        "saliency/words": "what 'embed' makes of 'words'",
        "saliency/length": "",
    }


@pytest.mark.parametrize("made_by", ["keras", "onnx"])
def test_the_cast_of_a_picture_has_the_numbers_of_its_bytes(made_by):
    if made_by == "keras":
        x = keras.Input((4, 3, 2), dtype="uint8", name="x")
        y = layers.Dense(2)(layers.Flatten()(layers.Rescaling(1 / 255)(x)))
        view = open_source(keras.Model(x, y)).view
    else:
        text = """<ir_version: 8, opset_import: ["" : 18]>
          g (uint8[n, 4, 3, 2] x) => (float[n, 24] y) { f = Cast<to = 1>(x) y = Flatten(f) }"""
        view = onnx_source.open_source(onnx.parser.parse_model(text)).view
    bytes_ = np.arange(24.0).reshape(4, 3, 2)
    for probe in (pg.IntegratedGradients(2, bytes_), pg.Occlusion(1, fill=255)):
        (spec,) = planned(view, probe)
        assert "makes of" not in spec.method
