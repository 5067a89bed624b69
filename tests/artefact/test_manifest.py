"""The manifest: the same after JSON, and refused with a reason when it is not ours."""

import json
import random
import re

import pytest

from probegen.artefact.manifest import (
    ONNX_METADATA_KEY,
    SAVEDMODEL_ASSET,
    SCHEMA,
    InputSpec,
    Manifest,
    OutputSpec,
    TargetSpec,
    class_axis,
    wrong_class_names,
)
from probegen.errors import ManifestError

MANIFEST = Manifest(
    inputs=(InputSpec("x", "int32", (None, 5), ("batch", "time"), vocabulary=9),),
    outputs=(
        OutputSpec("y", "prediction", "float32", (None, 3), ("batch", "class")),
        OutputSpec(
            "saliency/x",
            "saliency",
            "float32",
            (None, 5),
            ("batch", "time"),
            target=TargetSpec("index", (None, 2), "y", True, 3),
            detail={"steps": 3},
        ),
    ),
    class_names=("a", "b", "c"),
    probes=({"probe": "saliency"},),
)


def test_round_trip():
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST


def test_predictions_and_explanations():
    assert [o.name for o in MANIFEST.predictions] == ["y"]
    assert [o.name for o in MANIFEST.explanations] == ["saliency/x"]


def test_unknown_output_names_the_nearest():
    with pytest.raises(KeyError, match="saliency/x"):
        MANIFEST.output("saliency/y")


def change(**fields):
    return json.dumps({**json.loads(MANIFEST.to_json()), **fields})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "no integer 'schema'"),
        ('{"schema": true}', "no integer 'schema'"),
        ("[" * 100_000, "nested too deep"),
        (f'{{"schema": 1, "inputs": {"9" * 5000}}}', "not valid JSON"),
        ('{"schema": 1, "inputs": [], "inputs": []}', "the key 'inputs' stands there twice"),
        (change(schema=SCHEMA + 1), "Install a newer probegen"),
        (change(outputs=[{"name": "y"}]), "damaged"),
        (change(surprise=1), "damaged: surprise is no field that this probegen knows"),
        (change(gat=False), "Did you mean 'gate'"),
    ],
)
def test_foreign_and_newer_manifests(text, says):
    with pytest.raises(ManifestError, match=says):
        Manifest.from_json(text)


NEW_FIELDS = ("title", "unit", "sign", "paper", "draw")


def test_a_manifest_of_schema_1_is_read_and_says_how_to_draw():
    data = json.loads(MANIFEST.to_json())
    for output in data["outputs"]:
        for name in NEW_FIELDS:
            del output[name]
    found = Manifest.from_json(json.dumps({**data, "schema": 1}))
    assert found == MANIFEST
    prediction, saliency = found.outputs
    assert (prediction.title, prediction.draw, prediction.sign) == (
        "Prediction",
        "prediction",
        "any",
    )
    assert [getattr(saliency, name) for name in NEW_FIELDS] == [
        "Saliency",
        "score per unit of input",
        "never negative",
        "Simonyan et al. 2013, sec. 3.1",
        "map",
    ]
    assert saliency.is_attribution
    assert not prediction.is_attribution


def test_a_kind_that_this_version_has_never_heard_of_is_read():
    new = OutputSpec(
        "tea_leaves/x",
        "tea_leaves",
        "float32",
        (None, 5),
        ("batch", "time"),
        title="Tea leaves",
        unit="omens",
        sign="signed",
        paper="Trelawney 1993",
        draw="map",
    )
    changed = MANIFEST.replace(outputs=(*MANIFEST.outputs, new))
    found = Manifest.from_json(changed.to_json())
    assert found == changed
    assert found.output("tea_leaves/x").is_attribution
    bare = OutputSpec("tea_leaves/x", "tea_leaves", "float32", (None, 5), ("batch", "time"))
    assert (bare.title, bare.draw, bare.sign) == ("Tea leaves", "map", "any")


def nested(levels):
    value = "end"
    for _ in range(levels):
        value = [value]
    return value


def edited(*path, value):
    """The manifest with one value exchanged."""
    data = json.loads(MANIFEST.to_json())
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(data)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("gate",), "yes", r'gate is .yes., expected false or "required" or "optional"'),
        (("gate",), 1, "gate is 1, expected false"),
        (("certificate",), "abc", "certificate is 'abc', expected an object"),
        (("certificate",), {"outputs": []}, "certificate.outputs is no object of objects"),
        (("certificate",), {"passed": "no"}, "certificate.passed is 'no'"),
        (("certificate",), {"outputs": nested(40)}, "nested more than 32 deep"),
        (("inputs",), [], "names no inputs"),
        (("inputs",), {}, "inputs is {}, expected a list"),
        (("inputs", 0), None, r"inputs\[0\] is None, expected an object"),
        (("inputs", 0, "name"), 7, r"inputs\[0\].name is 7, expected text"),
        (("inputs", 0, "name"), "", "an input has no name"),
        (("inputs", 0, "name"), "a\x1b[1mb", "holds a control character"),
        (("inputs", 0, "name"), "\ud800", "holds half a character"),
        (("inputs", 0, "dtype"), "int33", "unknown element type 'int33'"),
        (("inputs", 0, "axes"), ["batch"], "has 1 axis"),
        (("inputs", 0, "axes", 1), 1, r"axes\[1\] is 1, expected text"),
        (("inputs", 0, "shape"), [None, -5], r"has the shape \[None, -5\]"),
        (("inputs", 0, "shape"), [None, 5.0], r"shape\[1\] is 5.0, expected a whole number"),
        (("inputs", 0, "shape"), [None, True], r"shape\[1\] is True, expected a whole number"),
        (("inputs", 0, "shape"), [None, 10**40], r"shape\[1\] is 1000"),
        (("inputs", 0, "vocabulary"), 0, "has 0 legal values"),
        (("inputs", 0, "integer"), "no", "integer is 'no', expected true or false"),
        (("outputs", 1, "name"), "y", "two outputs are called 'y'"),
        (("outputs", 1, "call"), -1, "of call -1"),
        (("outputs", 1, "calls"), 0, "of its layer's 0"),
        (("outputs", 1, "kind"), "", "has no kind"),
        (("outputs", 1, "kind"), "prediction", "is a prediction that is drawn as a map"),
        (("outputs", 0, "kind"), "saliency", "is a saliency that is drawn as a prediction"),
        (("outputs", 1, "draw"), "cloud", "drawn as 'cloud', which is unknown"),
        (("outputs", 1, "sign"), "odd", "the unknown sign 'odd'"),
        (("outputs", 1, "title"), 3, r"title is 3, expected text"),
        (("outputs", 1, "target", "mode"), "first", "unknown mode 'first'"),
        (("outputs", 1, "target", "index"), ["a"], r"target.index\[0\] is 'a', expected a whole"),
        (("outputs", 1, "target", "classes"), 0, "a target of 0 classes"),
        (("outputs", 1, "detail"), [], "detail is \\[\\], expected an object"),
        (("class_names",), "abc", "class_names is 'abc', expected a list"),
        (("class_names",), [1, 2, 3], r"class_names\[0\] is 1, expected text"),
        (("model",), {"name": 3}, "model.name is 3, expected text"),
        (("probes",), ["saliency"], r"probes\[0\] is 'saliency', expected an object"),
    ],
)
def test_each_wrong_value_is_named(path, value, says):
    with pytest.raises(ManifestError, match=says):
        Manifest.from_json(edited(*path, value=value))


def test_a_figure_that_json_cannot_hold_becomes_null():
    figures = {"y": {"max_rel": float("inf"), "cosine": float("nan"), "max_abs": 0.5}}
    text = MANIFEST.replace(certificate={"outputs": figures}).to_json()
    figures = Manifest.from_json(text).certificate["outputs"]["y"]
    assert figures == {"max_rel": None, "cosine": None, "max_abs": 0.5}
    with pytest.raises(ManifestError, match="NaN is no number"):
        Manifest.from_json(text.replace("0.5", "NaN"))


def test_random_edits_are_answered_by_us():
    """Any value of the manifest against any other JSON: read, or refused by a ManifestError."""
    rng = random.Random(3)
    values = [None, True, 0, -1, 1.5, 10**30, "", "x", [], {}, [[]], {"a": 1}, nested(9)]
    refused = 0
    for _ in range(600):
        data = json.loads(MANIFEST.to_json())
        place = data
        while True:
            key = rng.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7:
                place = place[key]
                continue
            break
        if rng.random() < 0.2:
            del place[key]
        else:
            place[key] = rng.choice(values)
        try:
            Manifest.from_json(json.dumps(data)).to_json()
        except ManifestError:
            refused += 1
    assert 300 < refused < 600


@pytest.mark.parametrize(
    ("names", "sizes", "says"),
    [
        ("abc", [3], "takes a list with a name for each class, got 'abc'"),
        ({"a", "b", "c"}, [3], "takes a list with a name for each class"),
        ({0: "a", 1: "b"}, [2], "takes a list with a name for each class"),
        (iter("abc"), [3], "takes a list with a name for each class"),
        (["a", "b", "a"], [3], "has 'a' twice"),
        (["a", "b"], [3, 4], r"has 2 names; the model's outputs have \[3, 4\] classes"),
        (["a", "b", "c"], [1], "has 3 names"),
        (["a", "b"], [1], None),
        (["a", "b", "c"], [3, 1], None),
        (["a", "b"], [None], None),
    ],
)
def test_class_names(names, sizes, says):
    found = wrong_class_names(names, sizes)
    assert found is None if says is None else re.search(says, found)


def test_where_the_manifest_lies_is_part_of_the_format():
    """Artefacts of every version are found by these names."""
    assert ONNX_METADATA_KEY == "probegen.manifest"
    assert SAVEDMODEL_ASSET == "assets.extra/probegen.json"


@pytest.mark.parametrize("batch", [7, None])
def test_the_batch_of_every_input_and_output(batch):
    other = OutputSpec("a", "activation", "float32", (2, 4, None), ("batch", "time", "unit"))
    found = MANIFEST.replace(outputs=(*MANIFEST.outputs, other)).with_batch(batch)
    assert [i.shape for i in found.inputs] == [(batch, 5)]
    assert [o.shape for o in found.outputs] == [(batch, 3), (batch, 5), (batch, 4, None)]
    assert found.with_batch(None).outputs[:2] == MANIFEST.outputs
    assert MANIFEST.inputs[0].shape == (None, 5)


def test_the_batch_of_an_axis_that_is_not_the_first():
    states = InputSpec("state", "float32", (2, 5, 4), ("layer", "batch", "unit"))
    rate = InputSpec("rate", "float32", (), ())
    found = MANIFEST.replace(inputs=(states, rate)).with_batch(7)
    assert [i.shape for i in found.inputs] == [(2, 7, 4), ()]


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        (("batch", "class"), 1),
        (("batch", "unit", "height", "width"), 1),
        (("time", "batch", "class"), 2),
        (("batch", "height", "width"), -1),
    ],
)
def test_where_classes_lie(axes, expected):
    assert class_axis(axes) == expected


def test_the_bound_of_a_target_is_that_of_the_smallest_output_that_takes_it():
    def saliency(name, **target):
        axes = ("batch", "time")
        spec = TargetSpec(**{"mode": "input", **target})
        return OutputSpec(name, "saliency", "float32", (None, 5), axes, target=spec)

    outputs = [
        saliency("a", classes=7),
        saliency("b", classes=4),
        saliency("c", classes=2, mode="argmax"),
        saliency("d"),
        OutputSpec("e", "activation", "float32", (None, 3), ("batch", "unit")),
    ]
    assert MANIFEST.replace(outputs=outputs).target_classes == 4
    assert MANIFEST.replace(outputs=outputs[2:]).target_classes is None
