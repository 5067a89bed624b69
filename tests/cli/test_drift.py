"""A reference at compile time, `probegen drift`, and the server: a data set that moves is found."""

import json

import keras
import numpy as np
import pytest
from keras import layers
from starlette.testclient import TestClient

import probegen as pg
from probegen import runtime
from probegen.errors import ExportError, InputError
from probegen.runtime.drift import FEWEST
from probegen.serve.app import Server, Settings
from probegen.serve.inference import Served
from tests.serve.support import as_binary

FEATURES = 6


def model():
    keras.utils.set_random_seed(1)
    x = keras.Input((FEATURES,), name="row")
    y = layers.Dense(3, use_bias=False, name="hidden")(x)
    model = keras.Model(x, layers.Activation("softmax", name="kind")(y), name="rows")
    weights = np.random.default_rng(1).normal(size=(FEATURES, 3))
    weights[2] = 1.0  # speaks for each class alike: moved alone, it moves its own attribution alone
    model.set_weights([weights])
    return model


def rows(count, seed, shift=0.0):
    found = np.random.default_rng(seed).normal(size=(count, FEATURES))
    found[:, 2] += shift
    return found.astype(np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("drift") / "rows.onnx"
    probes = [pg.GradientXInput(target="input"), pg.Activations("hidden")]
    pg.compile(model(), probes, path, reference=rows(400, 0), samples=rows(3, 5))
    return path


def test_the_manifest_holds_the_distributions(path):
    art = runtime.load(path, check=True)
    reference = art.manifest.reference
    assert art.manifest.certificate["passed"]
    assert reference.samples == 400
    (own,) = reference.outputs  # activations are no attributions
    assert (own.output, own.axes, own.bins) == ("gradient_x_input/row", ("feature",), (FEATURES,))
    values = art.run(rows(400, 0))["gradient_x_input/row"].array
    for i, (edges, counts) in enumerate(zip(own.edges[:-1], own.counts[:-1], strict=True)):
        expected = [np.sum(values[:, i] < edges[0]), np.sum(values[:, i] >= edges[-1])]
        assert [counts[0], counts[-1]] == expected


def test_drift_of_results(probegen_cli, path, tmp_path):
    art = runtime.load(path)
    for name, x in (("same", rows(300, 1)), ("moved", rows(300, 2, shift=2.0))):
        art.run(x).to_npz(tmp_path / f"{name}.npz")
    status, out, _ = probegen_cli("drift", str(path), str(tmp_path / "same.npz"), "--fail")
    assert status == 0
    assert "300 samples: 0 moved" in out
    command = ("drift", str(path), str(tmp_path / "moved.npz"))
    status, out, _ = probegen_cli(*command, "--fail")
    assert status == 1
    assert "feature 2" in out
    assert "300 samples: 2 moved" in out  # and the size of the whole
    status, out, _ = probegen_cli(*command, "--json")
    told = json.loads(out)
    assert (status, told["moved"]) == (0, True)
    (output,) = told["outputs"]
    psi = {unit["name"]: unit["psi"] for unit in output["units"]}
    assert max(psi, key=psi.get) == "feature 2"
    assert output["psi"] == psi["feature 2"] > 0.25
    both = ("drift", str(path), str(tmp_path / "same.npz"), str(tmp_path / "moved.npz"))
    assert "600 samples" in probegen_cli(*both)[1]


def test_results_that_cannot_be_compared(probegen_cli, path, tmp_path):
    """An alarm that cannot ring is an error, with --fail and without."""
    art = runtime.load(path)
    art.run(rows(40, 1), target=1).to_npz(tmp_path / "target.npz")
    art.run(rows(40, 1), explain=False).to_npz(tmp_path / "plain.npz")
    x = keras.Input((FEATURES - 1,), name="row")
    other = keras.Model(x, layers.Dense(3, name="kind")(x), name="rows")
    pg.compile(other, pg.GradientXInput(target="input"), tmp_path / "other.onnx", verify=False)
    found = runtime.load(tmp_path / "other.onnx").run(rows(40, 1)[:, 1:])
    found.to_npz(tmp_path / "other.npz")
    for name, said in (
        ("target", "all 40 samples were explained for a class of the request's"),
        ("plain", "the results hold no attribution of the reference (gradient_x_input/row)"),
        ("other", "the shape [40, 5], and the artefact gives [batch, feature=6]"),
    ):
        status, _, err = probegen_cli("drift", str(path), str(tmp_path / f"{name}.npz"), "--fail")
        assert (status, said in " ".join(err.split())) == (1, True), err


def metric(client, name):
    lines = client.get("/metrics").text.splitlines()
    return {
        line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(f"probegen_attribution_{name}{{")
    }


def ask(client, x, **parameters):
    body, length = as_binary({"row": x}, parameters=parameters)
    headers = {"Inference-Header-Content-Length": str(length)}
    answer = client.post("/v2/models/rows/infer", content=body, headers=headers)
    assert answer.status_code == 200


def test_the_server_tells_what_has_moved(path):
    server = Server(Served(runtime.load(path), "rows"), Settings(drift_window=200))
    labels = '{model="rows",output="gradient_x_input/row"'
    with TestClient(server.app) as client:
        assert metric(client, "samples") == {}
        ask(client, rows(50, 3))  # explains nothing
        ask(client, rows(50, 3), explain=True, target=1)  # a class of the request's
        assert list(metric(client, "samples").values()) in ([], [0.0])
        for seed in range(8):
            ask(client, rows(25, 10 + seed), explain=True)
        assert metric(client, "samples") == {"probegen_attribution_samples" + labels + "}": 200}
        assert metric(client, "moved") == {"probegen_attribution_moved" + labels + "}": 0}
        assert metric(client, "moved_psi") == {}
        for seed in range(8):
            ask(client, rows(25, 30 + seed, shift=2.0), explain=True)
        moved = metric(client, "moved_psi")
        key = "probegen_attribution_moved_psi" + labels + ',unit="feature 2"}'
        assert moved[key] == max(moved.values()) > 0.25
        assert metric(client, "psi") == {"probegen_attribution_psi" + labels + "}": moved[key]}


def test_a_rate_of_nothing_and_an_artefact_without_a_reference(path, zoo_free):
    for served, settings in (
        (Served(runtime.load(path), "rows"), Settings(drift_rate=0)),
        (zoo_free, Settings()),
    ):
        assert Server(served, settings).drift is None


@pytest.fixture
def zoo_free(tmp_path):
    pg.compile(model(), pg.Saliency(), tmp_path / "free.onnx", verify=False)
    return Served(runtime.load(tmp_path / "free.onnx"), "free")


def test_references_that_cannot_be(tmp_path):
    out = tmp_path / "m.onnx"
    with pytest.raises(ExportError, match="no probe gives one"):
        pg.compile(model(), pg.Activations("hidden"), out, reference=rows(90, 0))
    with pytest.raises(ExportError, match="groups='input' exclude each other"):
        pg.compile(model(), pg.FeatureAblation(groups="input"), out, reference=rows(90, 0))
    with pytest.raises(ExportError, match=r"no runtime runs \.keras files"):
        pg.compile(model(), pg.Saliency(), tmp_path / "m.keras", reference=rows(90, 0))
    with pytest.raises(InputError, match=f"at least {FEWEST}"):
        pg.compile(model(), pg.Saliency(), out, reference=rows(9, 0), verify=False)
    with pytest.raises(InputError, match="'row' has the size 2 on the axis"):
        pg.compile(model(), pg.Saliency(), out, reference=rows(90, 0)[:, :2], verify=False)
    assert list(tmp_path.iterdir()) == []


def test_other_forms_of_an_artefact_hold_it_too(tmp_path):
    for name, options in (("saved", {}), ("s.onnx", {"gate": "split"})):
        exported = pg.compile(
            model(), pg.Saliency(), tmp_path / name, reference=rows(40, 0), verify=False, **options
        )
        read = runtime.load(tmp_path / name, check=True).manifest
        assert read.reference == exported.manifest.reference
        assert read.reference.samples == 40


@pytest.mark.parametrize("kind", ["parquet", "zarr"])
def test_drift_of_the_records_of_a_bulk_run(probegen_cli, path, tmp_path, kind):
    """The same distances as of the same samples in one .npz file."""
    if kind == "zarr":
        pytest.importorskip("zarr")
    x = rows(300, 7, shift=3.0)
    np.save(tmp_path / "x.npy", x)
    runtime.load(path).run(x).to_npz(tmp_path / "x.npz")
    out = tmp_path / f"out.{kind}"
    command = ("run", path, tmp_path / "x.npy", "--batch-size", 30, "--part-rows", 60)
    assert probegen_cli(*command, "--out", out)[0] == 0
    told = [json.loads(probegen_cli("drift", path, p, "--json")[1])
            for p in (out, tmp_path / "x.npz")]  # fmt: skip
    assert told[0]["moved"]
    assert told[0]["outputs"][0]["samples"] == 300
    assert told[0] == told[1]
    chosen = tmp_path / f"chosen.{kind}"
    assert probegen_cli(*command, "--out", chosen, "--target", "1")[0] == 0
    status, _, said = probegen_cli("drift", path, chosen)
    assert (status, "all 300 samples were explained for a class" in said) == (1, True)
