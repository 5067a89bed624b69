"""Artefacts that take a fixed number of rows: manifests say so, and they run on that alone."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import ArtefactError, InputError
from tests.runtime.support import with_manifest

ROWS = 3
WEIGHTS = np.random.default_rng(4).normal(size=(4 * 5, 2)).astype(np.float32)
PROBES = [pg.InputGradient(target="input"), pg.Activations("hidden")]


def gradients(targets):
    return WEIGHTS.T[targets].reshape(-1, 4, 5)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The same linear model for 3 rows, as an ONNX file and as a SavedModel; and for one row."""
    place = tmp_path_factory.mktemp("declared")
    found = {}
    for rows, names in ((ROWS, ("m.onnx", "folder")), (None, ("one.onnx",))):
        x = keras.Input((4, 5), name="x", batch_size=rows)
        hidden = layers.Flatten(name="hidden")(x)
        model = keras.Model(x, layers.Dense(2, use_bias=False, name="y")(hidden))
        model.set_weights([WEIGHTS])
        for name in names:
            found[name] = place / name
            pg.compile(model, PROBES, place / name, verify=False, dynamic_batch=False)
    return found


def test_the_manifest_says_how_many_rows(paths):
    for name, rows in (("m.onnx", ROWS), ("folder", ROWS), ("one.onnx", 1)):
        manifest = runtime.load(paths[name]).manifest
        assert [spec.shape for spec in manifest.inputs] == [(rows, 4, 5)]
        assert [spec.shape for spec in manifest.outputs] == [(rows, 2), (rows, 4, 5), (rows, 20)]


def test_groups_are_taken_apart_with_the_rows(tmp_path):
    x = keras.Input((4,), name="x", batch_size=ROWS)
    model = keras.Model(x, layers.Dense(1, use_bias=False, name="y")(x))
    weights = np.array([1.0, -2, 3, 0.5], np.float32)
    model.set_weights([weights[:, None]])
    probe = pg.FeatureAblation("input", 0.0)
    pg.compile(model, probe, tmp_path / "m.onnx", verify=False, dynamic_batch=False)
    art = runtime.load(tmp_path / "m.onnx")
    rows = np.random.default_rng(5).normal(size=(2 * ROWS, 4)).astype(np.float32)
    groups = np.array([[0, 0, 1, 2], [0, 1, 1, 0], [2, 1, 0, 1]] * 2)[::-1]
    parts = rows * weights
    expected = [[p[g == own].sum() for own in g] for p, g in zip(parts, groups, strict=True)]
    found = art.run_batched(rows, ROWS, groups=groups)["feature_ablation/x"].array
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    alike = art.run_batched(rows, ROWS, groups=groups[0])["feature_ablation/x"].array
    np.testing.assert_allclose(alike[:1], found[:1], rtol=1e-5)
    plain = art.run_batched(rows, ROWS, explain=False)
    np.testing.assert_allclose(plain["y"].array[:, 0], parts.sum(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "engine"), [("m.onnx", "onnxruntime"), ("m.onnx", "openvino"), ("folder", None)]
)
def test_it_runs_on_those_rows_alone(paths, name, engine):
    art = runtime.load(paths[name], engine=engine)
    x = np.random.default_rng(0).normal(size=(2 * ROWS, 4, 5)).astype(np.float32)
    targets = [1, 0, -1, 0, 0, 1]
    best = (x.reshape(len(x), -1) @ WEIGHTS).argmax(1)
    expected = gradients([b if t < 0 else t for t, b in zip(targets, best, strict=True)])
    first = art.run(x[:ROWS], target=targets[:ROWS])
    np.testing.assert_allclose(first["input_gradient/x"].array, expected[:ROWS], rtol=1e-6)
    whole = art.run_batched(x, ROWS, target=targets)
    np.testing.assert_allclose(whole["input_gradient/x"].array, expected, rtol=1e-6)
    np.testing.assert_allclose(whole["activation/hidden"].array, x.reshape(-1, 20), rtol=1e-6)
    assert art.run(x[:ROWS], explain=False)["y"].shape == (ROWS, 2)
    for rows in (1, 4):
        with pytest.raises(InputError, match=f"size {rows} on the axis 'batch'.*expected 3"):
            art.run(x[:rows])
    with pytest.raises(InputError, match="takes 3 rows at a time, and 2 of 5 are left over"):
        art.run_batched(x[:5], ROWS)
    with pytest.raises(InputError, match="size 6 on the axis 'batch'"):
        art.run_batched(x, 2)


def test_a_manifest_of_other_rows_does_not_belong_to_the_graph(paths, tmp_path):
    manifest = runtime.load(paths["m.onnx"]).manifest
    inputs = (dataclasses.replace(manifest.inputs[0], shape=(2, 4, 5)),)
    text = manifest.replace(inputs=inputs).to_json()
    path = with_manifest(paths["m.onnx"], tmp_path / "m.onnx", text)
    for engine in ("onnxruntime", "openvino"):
        with pytest.raises(ArtefactError, match=r"the shape \[2, 4, 5\]; in its graph it has \[3"):
            runtime.load(path, engine=engine)
