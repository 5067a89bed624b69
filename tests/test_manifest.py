"""The manifest: the same after JSON, and refused with a reason when it is not ours."""

import json

import pytest

from probegen.errors import ManifestError
from probegen.manifest import SCHEMA, InputSpec, Manifest, OutputSpec, TargetSpec

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
        (change(schema=SCHEMA + 1), "Install a newer probegen"),
        (change(outputs=[{"name": "y"}]), "damaged"),
        (change(surprise=1), "damaged"),
        (change(outputs=[{**json.loads(MANIFEST.to_json())["outputs"][0], "kind": "x"}]), "kind"),
    ],
)
def test_foreign_and_newer_manifests(text, says):
    with pytest.raises(ManifestError, match=says):
        Manifest.from_json(text)
