"""Vertex AI's explanation metadata as probes: the same numbers, or refused by name."""

import itertools
import json
import math

import keras
import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import SpecError
from tests import models
from tests.command_line import status_of

IG = {"integratedGradientsAttribution": {"stepCount": 40}}
SHAPLEY = {"sampledShapleyAttribution": {"pathCount": 10}}


def metadata(inputs, outputs=None):
    return {"inputs": inputs, "outputs": outputs or {"probabilities": {"outputTensorName": "y"}}}


@pytest.fixture(scope="module")
def wine():
    keras.utils.set_random_seed(3)
    x = keras.Input((4,), name="wine")
    y = keras.layers.Dense(6, activation="tanh")(x)
    return keras.Model(x, keras.layers.Dense(3, activation="softmax", name="grower")(y))


ROWS = np.array([[0.3, -1.0, 2.0, 0.1], [0.0, 0.0, 0.0, 0.0], [-2.0, 1.0, 0.5, 4.0]], np.float32)
WINE = {
    "wine": {
        "inputTensorName": "serving_default_wine:0",
        "encoding": "BAG_OF_FEATURES",
        "indexFeatureMapping": ["alcohol", "ash", "hue", "proline"],
        "inputBaselines": [[0.5, 0.0, -0.5, 1.0]],
        "modality": "numeric",
    }
}
GROWERS = {
    "grower": {
        "outputTensorName": "StatefulPartitionedCall:0",
        "indexDisplayNameMapping": ["first", "second", "third"],
    }
}


def test_integrated_gradients_of_probabilities(wine, tmp_path):
    """Their definition, by finite differences of the untouched model."""
    spec = {"metadata": metadata(WINE, GROWERS), "parameters": IG}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    found = pg.from_vertex(tmp_path / "spec.json", wine)
    assert found.options == {
        "class_names": ["first", "second", "third"],
        "feature_names": {"wine": ["alcohol", "ash", "hue", "proline"]},
    }
    pg.compile(wine, found.probes, tmp_path / "m.onnx", **found.options, verify=False)
    result = runtime.load(tmp_path / "m.onnx").run(ROWS)
    attribution = result["integrated_gradients/wine"].array
    start = np.array([0.5, 0.0, -0.5, 1.0], np.float32)
    best = wine(ROWS).numpy().argmax(axis=1)

    def score(x):
        return wine(x.astype(np.float32)).numpy()[np.arange(len(x)), best].astype(float)

    np.testing.assert_allclose(attribution.sum(axis=1), score(ROWS) - score(start + 0 * ROWS),
                               atol=2e-3)  # fmt: skip
    expected = np.zeros_like(ROWS, float)
    for step in range(40):
        at = start + (step + 0.5) / 40 * (ROWS - start)
        for i in range(4):
            h = np.eye(4)[i] * 1e-2
            expected[:, i] += (score(at + h) - score(at - h)) / 2e-2 / 40
    np.testing.assert_allclose(attribution, expected * (ROWS - start), atol=2e-3)
    assert "completeness/integrated_gradients/wine" in result


def test_shapley_values_by_their_own_formula(wine, tmp_path):
    found = pg.from_vertex(metadata(WINE), wine, {**SHAPLEY, "outputIndices": [2]})
    pg.compile(wine, found.probes, tmp_path / "m.onnx", verify=False)
    values = runtime.load(tmp_path / "m.onnx").run(ROWS)["kernel_shap/wine"].array[:, 0]
    start = np.array([0.5, 0.0, -0.5, 1.0], np.float32)
    expected = np.zeros((3, 4))
    for order in itertools.permutations(range(4)):
        at = np.broadcast_to(start, ROWS.shape).copy()
        before = wine(at).numpy()[:, 2]
        for feature in order:
            at[:, feature] = ROWS[:, feature]
            now = wine(at).numpy()[:, 2]
            expected[:, feature] += (now - before) / math.factorial(4)
            before = now
    np.testing.assert_allclose(values, expected, atol=1e-5)
    assert any("pathCount" in line for line in found.notes)


def test_several_inputs_baselines_and_classes(tmp_path):
    model = models.siamese()
    told = metadata(
        {
            "a": {"input_tensor_name": "left:0", "input_baselines": [0, [0.1] * 7]},
            "b": {"input_tensor_name": "right:0", "input_baselines": [0.5]},
        },
        {"same": {"output_tensor_name": "same"}},
    )
    found = pg.from_vertex(told, model, {"integrated_gradients_attribution": {"step_count": 8}})
    pg.compile(model, found.probes, tmp_path / "m.onnx", verify=False)
    rng = np.random.default_rng(0)
    x = {name: rng.normal(size=(3, 7)).astype(np.float32) for name in ("left", "right")}
    result = runtime.load(tmp_path / "m.onnx").run(x)
    total = sum(result[f"integrated_gradients/{name}"].array.sum(axis=1) for name in x)
    starts = [
        model([np.full((3, 7), low, np.float32), np.full((3, 7), 0.5, np.float32)]).numpy()[:, 0]
        for low in (0, 0.1)
    ]
    score = model([x["left"], x["right"]]).numpy()[:, 0]
    np.testing.assert_allclose(total, score - np.mean(starts, axis=0), atol=2e-3)


def test_ids_are_explained_one_number_a_token(tmp_path):
    model = models.transformer()
    told = metadata(
        {"text": {"inputTensorName": "tokens", "encoding": "CONCAT_EMBEDDING",
                  "encodedTensorName": "embedding/Identity:0"}},
        {"label": {"outputTensorName": "scores"}},
    )  # fmt: skip
    found = pg.from_vertex(told, model, {**IG, "topK": 2})
    (probe,) = found.probes
    assert (probe.target, probe.per_token, probe.logits) == ("top:2", "dot", False)
    assert found.notes[0].startswith("inputs['text'].inputBaselines is missing")
    pg.compile(model, found.probes, tmp_path / "m.onnx", verify=False)
    result = runtime.load(tmp_path / "m.onnx").run(models.tokens())
    assert result["integrated_gradients/tokens"].array.shape == (3, 2, 9)


def test_a_blurred_baseline_and_what_pictures_are_told(wine):
    image = {"inputTensorName": "image", "modality": "image",
             "visualization": {"type": "PIXELS", "polarity": "BOTH", "clipPercentUpperbound": 99},
             "featureValueDomain": {"minValue": 0, "maxValue": 1}}  # fmt: skip
    method = {"stepCount": 5, "blurBaselineConfig": {"maxBlurSigma": 2.5}}
    found = pg.from_vertex(
        metadata({"image": image}), models.cnn(), {"integratedGradientsAttribution": method}
    )
    assert found.probes[0].baseline == "blur:2.5"
    assert [line.split()[0] for line in found.notes] == [
        "outputs['probabilities']:", "inputs['image'].visualization",
        "inputs['image'].featureValueDomain",
    ]  # fmt: skip
    del wine


REFUSED = {
    "XRAI": ({}, {"xraiAttribution": {"stepCount": 5}}, "there is no XRAI here"),
    "examples": ({}, {"examples": {"neighborCount": 3}}, "search in a data set"),
    "SmoothGrad": (
        {},
        {"integratedGradientsAttribution": {"stepCount": 5, "smoothGradConfig": {}}},
        "smoothGradConfig",
    ),
    "no method": ({}, {"topK": 3}, "take one of"),
    "a group": ({"groupName": "g"}, IG, "groupName"),
    "sparse": ({"indicesTensorName": "i"}, IG, "sparse tensors"),
    "an encoding": ({"encoding": "COMBINED_EMBEDDING"}, IG, "'COMBINED_EMBEDDING' has no"),
    "a field": ({"inputTensor": "wine"}, IG, "Did you mean 'input_tensor_name'"),
    "a type": ({"inputTensorName": 3}, IG, "expected text"),
    "a shape": ({"inputBaselines": [[1, 2]]}, IG, r"\(2,\)"),
    "words": ({"inputBaselines": ["black"]}, IG, "no array of numbers"),
    "steps": ({}, {"integratedGradientsAttribution": {"stepCount": "5"}}, "a whole number"),
    "indices": ({}, {**IG, "outputIndices": [[0, 1]]}, "outputIndices"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_counterpart_is_named(wine, case):
    more, parameters, said = REFUSED[case]
    told = metadata({"wine": {**WINE["wine"], **more}}, GROWERS)
    if case == "a shape":
        with pytest.raises(pg.ProbegenError, match=said):
            pg.compile(wine, pg.from_vertex(told, wine, parameters).probes, "never.onnx")
        return
    with pytest.raises(SpecError, match=said):
        pg.from_vertex(told, wine, parameters)


def test_shapley_values_of_several_inputs_and_of_ids_are_refused():
    told = metadata({"left": {}, "right": {}}, {"same": {}})
    with pytest.raises(SpecError, match="several inputs together"):
        pg.from_vertex(told, models.siamese(), SHAPLEY)
    with pytest.raises(SpecError, match="other ids in the place of ids"):
        pg.from_vertex(metadata({"tokens": {}}, {"scores": {}}), models.transformer(), SHAPLEY)
    with pytest.raises(SpecError, match=r"has no input 'lef'.*Did you mean 'left'"):
        pg.from_vertex(metadata({"lef": {}}, {"same": {}}), models.siamese(), IG)
    with pytest.raises(SpecError, match="parameters of the explanation are missing"):
        pg.from_vertex(told, models.siamese())


def test_in_a_shell(wine, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wine.save("wine.keras")
    (tmp_path / "explanation_metadata.json").write_text(json.dumps(metadata(WINE, GROWERS)))
    (tmp_path / "parameters.json").write_text(json.dumps(SHAPLEY))
    vertex = ("--vertex", "explanation_metadata.json", "--vertex-parameters", "parameters.json")
    assert status_of("compile", "wine.keras", "-o", "m.onnx", *vertex) == 0
    assert "pathCount is left out" in capsys.readouterr().err
    manifest = runtime.load("m.onnx").manifest
    assert [o.kind for o in manifest.explanations] == ["kernel_shap", "completeness"]
    assert manifest.class_names == ("first", "second", "third")
    assert [f.name for f in manifest.inputs[0].features] == ["alcohol", "ash", "hue", "proline"]
    assert status_of("compile", "wine.keras", "-o", "n.onnx", *vertex[2:]) == 1
    assert "goes with --vertex" in capsys.readouterr().err
