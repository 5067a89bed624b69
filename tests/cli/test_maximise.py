"""`probegen maximise`: what it writes and refuses."""

import json

import numpy as np
import pytest

import probegen as pg
from tests import models


@pytest.fixture(scope="module")
def gradient(place):
    pg.compile(
        models.cnn(), pg.InputGradient(target="input"), place / "gradient.onnx", verify=False,
        class_names=["ant", "bee", "cow", "dog"],
    )  # fmt: skip
    return place / "gradient.onnx"


def test_it_writes_a_picture_and_the_input(probegen_cli, gradient, tmp_path):
    arguments = ("maximise", gradient, "--target", "cow", "--steps", "20", "--bounds", "-1", "1")
    status, out, err = probegen_cli(
        *arguments, "-o", tmp_path / "a.png", "--npy", tmp_path / "a.npy"
    )
    assert (status, err) == (0, "")
    assert "followed input_gradient/image: 1x11x8x2, -" in out
    assert f"wrote {tmp_path / 'a.png'}" in out
    found = np.load(tmp_path / "a.npy")
    assert found.shape == (1, 11, 8, 2)
    assert np.abs(found).max() <= 1
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    status, out, _ = probegen_cli(*arguments, "--json")
    told = json.loads(out)
    assert len(told["history"]) == 21
    assert told["history"][-1] > told["history"][0]


def test_what_it_refuses(probegen_cli, gradient):
    for arguments, says in (
        (("maximise", "cnn.onnx", "--target", "1"), "has no gradient of an input"),
        (("maximise", gradient), "say which class"),
        (("maximise", gradient, "--target", "1", "--size", "height"), "--size takes for instance"),
        (("maximise", gradient, "--target", "1", "--steps", "-1"), "steps is -1"),
    ):
        status, out, err = probegen_cli(*arguments)
        assert (status, out) == (1, "")
        assert says in err
