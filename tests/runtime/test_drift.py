"""Attribution drift: a shift that is there is found, by name; where there is none, none is said."""

import dataclasses
import json
import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from probegen.artefact.attribution_reference import AttributionReference
from probegen.artefact.features import Feature
from probegen.artefact.manifest import InputSpec, Manifest, OutputSpec, TargetSpec
from probegen.errors import InputError, ManifestError
from probegen.runtime import drift
from probegen.runtime.drift import Running, bins_of, reference_of, unit_names, unit_values

FEATURES = 12
X = InputSpec("x", "float32", (None, FEATURES), ("batch", "feature"))
P = OutputSpec("p", "prediction", "float32", (None, 2), ("batch", "class"))


def described(*axes, sizes=None, kind="saliency"):
    """A manifest with one attribution of such axes."""
    shape = tuple(None if a == "batch" else n for a, n in zip(axes, sizes, strict=True))
    return Manifest((X,), (P, OutputSpec("a", kind, "float32", shape, axes)))


TABLE = described("batch", "feature", sizes=(None, FEATURES))


def table(rng, rows, kind="normal", shift=0.0, feature=3):
    found = (
        rng.standard_t(2, (rows, FEATURES))
        if kind == "heavy"
        else rng.normal(size=(rows, FEATURES))
    )
    found[:, feature] += shift
    if kind == "rectified":
        found = np.maximum(found, 0)
    if kind == "constant":  # the slopes of a linear model, as two engines round them
        found = np.arange(FEATURES) + 1e-7 * found
    return found.astype(np.float32)


def moved(reference, values, described=TABLE, window=None):
    running = Running(described.replace(reference=reference), window)
    running.observe({"a": values}, np.ones(len(values), bool))
    (found,) = running.drift()
    return found


def test_a_shift_is_found_where_it_is():
    rng = np.random.default_rng(0)
    reference = reference_of(TABLE, {"a": table(rng, 500)})
    for kind in ("normal", "rectified"):
        reference = reference_of(TABLE, {"a": table(rng, 500, kind)})
        found = moved(reference, table(rng, 300, kind, shift=1.0))
        assert [unit.name for unit in found.moved] in (["feature 3"], ["feature 3", drift.WHOLE])
        assert found.moved[0].psi == found.psi > 0.25
        assert found.samples == 300


def test_what_was_always_the_same_and_is_no_more():
    rng = np.random.default_rng(1)
    reference = reference_of(TABLE, {"a": table(rng, 200, "constant")})
    changed = table(rng, 200, "constant")
    changed[:100, 5] = 0
    assert next(unit.name for unit in moved(reference, changed).moved) == "feature 5"


@pytest.mark.parametrize("kind", ["normal", "rectified", "constant", "heavy"])
def test_false_alarms_are_rare_where_nothing_moves(kind):
    """Of 150 reports over 13 units: 1.5 are to be expected, and above 6 there are in 1 of 900."""
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(150):
        reference = reference_of(TABLE, {"a": table(rng, 300, kind)})
        alarms += bool(moved(reference, table(rng, 300, kind)).moved)
    assert alarms <= 6


def test_few_samples_say_nothing():
    rng = np.random.default_rng(3)
    reference = reference_of(TABLE, {"a": table(rng, 300)})
    few = moved(reference, table(rng, drift.FEWEST - 1) + 50)
    assert few.psi > 1
    assert not few.moved
    assert moved(reference, table(rng, drift.FEWEST) + 50).moved


def test_distances_by_another_library():
    counts, now = np.array([5, 20, 30, 45]), np.array([15, 10, 45, 30])
    own = drift.OutputReference(
        "a", ("feature",), (1,), ((1.0, 2.0, 3.0),) * 2, (tuple(counts),) * 2
    )
    (found,) = drift.compared(AttributionReference(100, (own,)), {"a": [now, counts]}, {})
    p, q = (counts + 0.5) / 102, (now + 0.5) / 102
    unit, same = found.units
    assert unit.psi == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p))
    assert unit.js == pytest.approx(distance.jensenshannon(p, q, base=2))
    assert (same.psi, same.js) == (0, 0)
    level = 1 - drift.FALSE_ALARMS / 2
    assert unit.limit == pytest.approx(stats.chi2.ppf(level, 3) * 2 / 100, rel=1e-2)


# -- units -------------------------------------------------------------------------------------


def test_units_of_an_image():
    axes, sizes = ("batch", "height", "width", "channel"), (None, 8, 6, 3)
    spec = described(*axes, sizes=sizes).explanations[0]
    assert bins_of(spec) == {"height": 4, "width": 4}
    array = np.random.default_rng(0).normal(size=(2, 8, 6, 3))
    values = unit_values(axes, {"height": 4, "width": 3}, array)
    expected = array.reshape(2, 4, 2, 3, 2, 3).mean((2, 4, 5)).reshape(2, 12)
    np.testing.assert_allclose(values[:, :-1], expected)
    np.testing.assert_allclose(values[:, -1], np.abs(array).mean((1, 2, 3)))


@pytest.mark.parametrize("length", [1, 3, 7, 64, 200])
def test_open_sizes_have_the_same_units(length):
    axes = ("time", "batch")  # the batch may lie anywhere
    values = unit_values(axes, {"time": 8}, np.ones((length, 5)))
    np.testing.assert_allclose(values, np.ones((5, 9)))


def test_names_of_units():
    rng = np.random.default_rng(0)
    axes, sizes = ("batch", "height", "width"), (None, 3, 5)
    reference = reference_of(described(*axes, sizes=sizes), {"a": rng.normal(size=(40, 3, 5))})
    names = unit_names(reference.outputs[0])
    assert len(names) == 3 * 4 + 1
    assert names[:2] == ["height 1/3, width 1/4", "height 1/3, width 2/4"]
    named = dataclasses.replace(X, features=tuple(Feature(f"f{i}") for i in range(FEATURES)))
    gradient = dataclasses.replace(TABLE.outputs[1], input="x")
    table_of_names = TABLE.replace(inputs=(named,), outputs=(P, gradient))
    values = table(rng, 60)
    found = moved(reference_of(table_of_names, {"a": values}), values, table_of_names)
    assert [unit.name for unit in found.units][:2] == ["f0", "f1"]


# -- what is counted ---------------------------------------------------------------------------


def test_the_latest_samples_count_and_those_of_a_class_of_the_request_do_not():
    rng = np.random.default_rng(0)
    reference = reference_of(TABLE, {"a": table(rng, 200)})
    of_request = dataclasses.replace(TABLE.outputs[1], target=TargetSpec("input"))
    running = Running(TABLE.replace(outputs=(P, of_request), reference=reference), 100)
    target = np.array([-1, 3] * 50, np.int32)
    fixed = Running(TABLE.replace(reference=reference), 100)  # whose target no request says
    fixed.observe({"a": table(rng, 100)}, drift.chosen_by_the_model(target, 100))
    assert fixed.drift()[0].samples == 100
    running.observe({"a": table(rng, 100) + 9}, drift.chosen_by_the_model(target, 100))
    assert running.drift()[0].samples == 50
    running.observe({"a": table(rng, 90)}, drift.chosen_by_the_model(None, 90))
    running.observe({"p": np.zeros((9, 2))}, np.ones(9, bool))
    assert running.drift()[0].samples == 100
    values = table(rng, 20)
    values[4, 2] = np.nan
    running.observe({"a": values}, np.ones(20, bool))
    assert not running.drift()[0].moved


def test_a_reference_that_is_none():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="has 29 samples; a distribution takes at least 30"):
        reference_of(TABLE, {"a": table(rng, 29)})
    wrong = table(rng, 50)
    wrong[3, 2] = math.inf
    with pytest.raises(InputError, match="'a' of the reference hold numbers that are not finite"):
        reference_of(TABLE, {"a": wrong})
    with pytest.raises(InputError, match=r"holds no reference .*--reference FILE"):
        Running(TABLE)


def test_manifests_that_hold_a_damaged_one():
    rng = np.random.default_rng(0)
    whole = TABLE.replace(reference=reference_of(TABLE, {"a": table(rng, 40)}))
    assert Manifest.from_json(whole.to_json()) == whole
    for change, message in [
        (lambda o: o.update(output="b"), "is of an output 'b', which there is not"),
        (lambda o: o["bins"].__setitem__(0, 5), "has other units than it says"),
        (lambda o: o["edges"][2].reverse(), "holds no distributions"),
        (lambda o: o["counts"][2].__setitem__(0, 99), "holds no distributions"),
        (lambda o: o["counts"][2].pop(), "holds no distributions"),
        (lambda o: o["edges"].pop(), "has other units than it says"),
    ]:
        data = json.loads(whole.to_json())
        change(data["reference"]["outputs"][0])
        with pytest.raises(ManifestError, match=message):
            Manifest.from_json(json.dumps(data))
    assert dataclasses.asdict(whole)["reference"]["samples"] == 40
