"""One artefact, timed with explanations on and off, without its model."""

import json

import pytest
from click.testing import CliRunner

import probegen as pg
from bench import artefact
from bench.__main__ import main
from tests import models


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    place = tmp_path_factory.mktemp("timed")
    pg.compile(models.cnn(), [pg.InputGradient()], place / "kept.onnx")
    pg.compile(models.cnn(), [pg.InputGradient()], place / "none.onnx", answers=False)
    return place


def test_rows_have_both_times_and_their_ratio(paths, monkeypatch, tmp_path):
    monkeypatch.setattr(artefact, "_ENOUGH", 0)
    command = [
        "artefact",
        str(paths / "kept.onnx"),
        "--batch",
        "3",
        "--batch",
        "5",
        "--rounds",
        "2",
    ]
    done = CliRunner().invoke(main, [*command, "--device", "cpu", "--json", str(tmp_path / "f")])
    assert done.exit_code == 0, done.output
    assert "kept.onnx in onnxruntime, CPUExecutionProvider" in done.output
    rows = json.loads((tmp_path / "f").read_text())
    assert [row["batch"] for row in rows] == [3, 5]
    for row in rows:
        assert row["plain"] > 0
        assert row["ratio"] == pytest.approx(row["explained"] / row["plain"])
        assert row["least"] <= row["most"]


def test_an_artefact_without_answers_cannot_be_asked(paths):
    with pytest.raises(ValueError, match=r"none\.onnx keeps no answers"):
        artefact.time_artefact(str(paths / "none.onnx"), None, [1], 1)
