"""An artefact without probes: the predictions alone, verified, in every format and by every way."""

import json

import keras
import numpy as np
import pytest
from click.testing import CliRunner

import probegen as pg
from probegen import runtime
from probegen.cli import cli
from tests import models


@pytest.mark.parametrize("name", ["m.onnx", "saved"])
def test_predictions_alone(name, tmp_path):
    model = models.cnn()
    exported = pg.compile(model, [], tmp_path / name)
    assert exported.report.passed
    assert list(exported.report) == ["scores"]
    artefact = runtime.load(tmp_path / name)
    assert artefact.manifest.explanations == ()
    assert not artefact.manifest.gate
    for count in (2, 5):
        x = models.images((11, 8, 2), count, count)
        for explain in (True, False):
            result = artefact.run(x, explain=explain)
            assert list(result) == ["scores"]
            np.testing.assert_allclose(result["scores"].array, model(x), rtol=1e-4, atol=1e-6)
    result.to_html(tmp_path / "report.html")
    result.plot(tmp_path / "picture.png")
    assert pg.verify(tmp_path / name, model).passed


def test_a_keras_file_without_probes(tmp_path):
    model, x = models.cnn(), models.images((11, 8, 2))
    pg.compile(model, [], tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    assert list(loaded(x)) == ["scores"]
    np.testing.assert_allclose(loaded(x)["scores"], model(x), rtol=1e-6)


def test_the_command_line_without_probes(tmp_path):
    model, out = tmp_path / "m.keras", tmp_path / "m.onnx"
    models.cnn().save(model)
    done = CliRunner().invoke(cli, ["compile", str(model), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "gives the predictions alone, and explains nothing" in done.stderr
    done = CliRunner().invoke(cli, ["verify", str(out), "--against", str(model)])
    assert done.exit_code == 0, done.output
    np.save(tmp_path / "x.npy", models.images((11, 8, 2)))
    done = CliRunner().invoke(cli, ["run", str(out), str(tmp_path / "x.npy"), "--json"])
    assert done.exit_code == 0, done.output
    assert [o["name"] for o in json.loads(done.stdout)["outputs"]] == ["scores"]
