"""Dates of the steps, names and units of the features: kept, checked, read from tables, drawn."""

import dataclasses
import datetime

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.artefact.features import Feature
from probegen.artefact.manifest import InputSpec, Manifest, OutputSpec
from probegen.errors import InputError
from probegen.runtime.feature_names import named
from probegen.runtime.read import read_input
from tests.runtime.figures import texts_of

DATES = [f"2024-0{m}-15" for m in (1, 2, 3, 4, 5)]
DAYS = [datetime.date.fromisoformat(day) for day in DATES]
ROWS = "".join(f"{d},{i}.5,{i * i}\n" for i, d in enumerate(DATES))
TABLE = "day,wind [m/s],load\n" + ROWS


def manifest_of(*specs):
    output = OutputSpec("y", "prediction", "float32", (None, 2), ("batch", "unit"))
    inputs = [InputSpec(n, "float32", shape, axes) for n, shape, axes in specs]
    return Manifest(inputs=tuple(inputs), outputs=(output,))


SERIES = ("x", (None, None, 2), ("batch", "time", "feature"))
ROW = ("r", (None, 3), ("batch", "feature"))
IDS = ("ids", (None, 4), ("batch", "time"))


@pytest.mark.parametrize(
    ("specs", "given", "expected"),
    [
        ([SERIES], ["wind [m/s]", "load"], {"x": (Feature("wind", "m/s"), Feature("load"))}),
        ([SERIES, ROW], [("a", "kg"), ("b", None), "c"],
         {"r": (Feature("a", "kg"), Feature("b"), Feature("c"))}),
        ([SERIES, ROW], {"x": ["a", "b [%]"]}, {"x": (Feature("a"), Feature("b", "%"))}),
        ([SERIES], ["x[0]", "x[1]"], {"x": (Feature("x[0]"), Feature("x[1]"))}),
    ],
)  # fmt: skip
def test_names_of_features_are_kept(specs, given, expected):
    kept = Manifest.from_json(named(given, manifest_of(*specs)).to_json())
    assert {s.name: s.features for s in kept.inputs if s.features} == expected


@pytest.mark.parametrize(
    ("specs", "given", "says"),
    [
        ([SERIES], ["a"], r"has 1 entry, and no input has that many features \('x' has 2\)"),
        ([SERIES, SERIES[:1] + SERIES[1:]], ["a", "a"], "has 'a' twice"),
        ([SERIES, ("z", *SERIES[1:])], ["a", "b"], r"several inputs have.*feature_names=\{'x': \["),
        ([SERIES], {"y": ["a", "b"]}, "'y', which is no input"),
        ([SERIES, IDS], {"ids": list("abcd")}, "features of 'ids', which has none"),
        ([SERIES], {"x": list("abc")}, "3 entries for the input 'x', which has 2 features"),
        ([SERIES], "ab", "takes a list with a name for each feature"),
        ([SERIES], ["a", " "], "an empty name"),
    ],
)
def test_names_that_fit_nothing(specs, given, says):
    with pytest.raises(InputError, match=says):
        named(given, manifest_of(*specs))


def read(tmp_path, text, manifest=None, **options):
    path = tmp_path / "series.csv"
    path.write_text(text)
    said = []
    return read_input(path, manifest or manifest_of(SERIES), say=said.append, **options), said


@pytest.mark.parametrize(
    "text", [TABLE, ROWS, TABLE.replace(",", ";"), ROWS.replace("-15", "-15T06:30")]
)
def test_a_column_of_dates_is_no_feature(tmp_path, text):
    found, said = read(tmp_path, text)
    np.testing.assert_array_equal(found.feed[0], [[i + 0.5, i * i] for i in range(5)])
    clock = "T06:30" if "T06" in text else ""
    assert found.time.tolist() == [datetime.datetime.fromisoformat(d + clock) for d in DATES]
    assert found.feature_names == (["wind [m/s]", "load"] if "wind" in text else None)
    assert any("column 1" in line and "is no feature" in line for line in said)


def test_a_column_that_is_named(tmp_path):
    text = "year,wind,load\n1990,1,2\n1991,3,4\n"
    found, _ = read(tmp_path, text, time_column="year")
    assert found.time.tolist() == [1990, 1991]
    np.testing.assert_array_equal(found.feed, [[[1, 2], [3, 4]]])
    found, _ = read(tmp_path, text.replace("19", "w"), time_column="1")
    assert found.time.tolist() == ["w90", "w91"]
    found, _ = read(tmp_path, "1,2\n3,4\n")
    assert found.time is None


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (TABLE, {"time_column": "dya"}, r"time_column='dya'.*no such column.*Did you mean 'day'"),
        ("2024-01-01,2024-01-02,1\n" * 2, {}, "several columns of dates"),
        ("day,a,b\n2024-02-30,1,2\n", {}, "line 2: 2024-02-30 is no date"),
        ("day,a,b\n01/02/2024,1,2\n", {}, "is no number"),
    ],
)
def test_dates_that_are_refused(tmp_path, text, options, says):
    with pytest.raises(InputError, match=says):
        read(tmp_path, text, **options)


def test_dates_of_what_is_no_series(tmp_path):
    with pytest.raises(InputError, match="is no number"):
        read(tmp_path, "2024-01-01,1,2\n", manifest_of(ROW))
    with pytest.raises(InputError, match="for a series in a table, and the artefact takes none"):
        read(tmp_path, "1,2,3\n", manifest_of(ROW), time_column="1")


def test_columns_are_brought_into_the_order_of_the_features(tmp_path):
    kept = named(["load [MW]", "wind"], manifest_of(SERIES))
    found, said = read(tmp_path, TABLE, kept)
    np.testing.assert_array_equal(found.feed[0], [[i * i, i + 0.5] for i in range(5)])
    assert any("brought into the order of the features: load, wind" in line for line in said)
    found, said = read(tmp_path, TABLE.replace("load", "price"), kept)
    np.testing.assert_array_equal(found.feed[0], [[i + 0.5, i * i] for i in range(5)])
    assert any("taken in the order in which they stand" in line for line in said)


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forecast")
    x = keras.Input((None, 2), name="weather")
    y = layers.Dense(3, name="ahead")(layers.SimpleRNN(4)(x))
    path = folder / "m.onnx"
    probes = [pg.GradientXInput(target=0, logits=False)]
    pg.compile(
        keras.Model(x, y), probes, path, verify=False, feature_names=["wind [m/s]", ("load", "MW")]
    )
    return folder


def test_times_go_along_with_a_run(forecaster, tmp_path):
    art = runtime.load(forecaster / "m.onnx")
    x = np.random.default_rng(1).normal(size=(2, 5, 2)).astype(np.float32)
    each = np.stack([np.arange(5) + 1900, np.arange(5) + 2000])
    result = art.run(x, time=each)
    texts = texts_of(result["gradient_x_input/weather"].plot(sample=1))
    assert {"2000", "2004", "wind [m/s]", "load [MW]"} <= set(texts)
    again = art.run_batched(x, 1, time={"weather": DATES})
    assert set(DATES) & set(texts_of(again["gradient_x_input/weather"].plot()))
    for kept, time in ((result, each), (again, DATES), (art.run(x, time=DAYS), DATES)):
        kept.to_npz(tmp_path / "r.npz")
        back = runtime.read_npz(tmp_path / "r.npz").run.time
        found = back["weather"] if isinstance(back, dict) else back
        np.testing.assert_array_equal(found, np.asarray(time, found.dtype))
    moments = [datetime.time(hour, 30) for hour in range(5)]
    art.run(x, time=moments).to_npz(tmp_path / "r.npz")
    assert list(runtime.read_npz(tmp_path / "r.npz").run.time) == [str(t) for t in moments]
    for wrong, says in (
        (range(4), "time has 4 entries"),
        (each[:1], r"time has the shape \(1, 5\)"),
        ({"wether": DATES}, "'wether', which is no input with steps"),
    ):
        with pytest.raises(InputError, match=says):
            art.run(x, time=wrong)
    idle = dataclasses.replace(art, engine=None)
    with pytest.raises(InputError, match="time has 4 entries"):  # before anything is computed
        idle.run_batched(x, 1, time=range(4))
