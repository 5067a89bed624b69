"""The options that say which probes are meant."""

import json

import keras
import numpy as np
import pytest

from tests.cli.support import compiled


def test_optional_values(probegen_cli, tmp_path):
    out = tmp_path / "m.onnx"
    common = ("-o", out, "--no-verify")
    status, _, _ = probegen_cli("compile", "words.keras", *common, "--attention", "--saliency")
    assert status == 0
    named = [o.name for o in compiled(out).explanations]
    assert named == ["attention/block_1/mha", "attention/block_2/mha", "saliency/tokens"]
    status, _, _ = probegen_cli(
        "compile", "words.keras", *common, "--attention", "block_2/*", "--grad-cam", "block_1"
    )
    assert status == 0
    named = [o.name for o in compiled(out).explanations]
    assert named == ["attention/block_2/mha", "grad_cam/block_1"]
    status, _, err = probegen_cli("compile", *common, "--grad-cam", "cnn.keras")
    assert status == 2
    assert "Put MODEL first" in err


@pytest.mark.parametrize(
    ("text", "mode", "index"),
    [
        ("argmax", "argmax", None),
        ("input", "input", None),
        ("2", "index", (2,)),
        ("(-1,)", "index", (-1,)),
        ("(None,)", "index", (None,)),
    ],
)
def test_targets(probegen_cli, tmp_path, text, mode, index):
    out = tmp_path / "m.keras"
    status, _, err = probegen_cli(
        "compile", "rows.keras", "-o", out, "--saliency", "--target", text
    )
    if text == "2":
        assert status == 1
        assert "has 2 entries (0 to 1)" in err
        return
    assert status == 0
    target = keras.saving.load_model(out).manifest.output("saliency/row").target
    assert (target.mode, target.index) == (mode, index)


def test_rules_of_relevance(probegen_cli, tmp_path):
    """A composite is what transformers take (AttnLRP)."""
    out = tmp_path / "m.onnx"
    common = ("compile", "words.keras", "-o", out, "--no-verify", "--lrp")
    status, _, err = probegen_cli(*common, "--lrp-composite", "attn_lrp")
    assert status == 0, err
    (probe,) = compiled(out).probes
    assert probe["composite"] == "attn_lrp"
    status, _, err = probegen_cli(*common, "--lrp-composite", "attn")
    assert status != 0
    assert "composite= takes one of" in err


SPEC = {
    "probes.toml": '[[probes]]\nprobe = "input_gradient"\ntarget = ["all"]\nname = "mine"\n',
    "probes.json": '{"probes": [{"probe": "input_gradient", "target": [null], "name": "mine"}]}',
}


@pytest.mark.parametrize("name", SPEC)
def test_spec_files(probegen_cli, tmp_path, name):
    (tmp_path / name).write_text(SPEC[name])
    out = tmp_path / "m.onnx"
    status, said, _ = probegen_cli(
        "compile", "rows.keras", "-o", out, "--spec", tmp_path / name, "--saliency", "--json",
        "--no-gate", "--static-batch", "--opset", "17",
    )  # fmt: skip
    assert status == 0
    told = json.loads(said)
    assert told["outputs"] == ["kind", "mine", "saliency/row"]
    assert told["verification"]["passed"]
    assert told["bytes"] == out.stat().st_size
    described = compiled(out)
    assert described.output("mine").target.index == (None,)
    assert not described.gate
    assert described.inputs[0].shape == (1, 3)


def test_broken_specs_name_the_file(probegen_cli, tmp_path):
    (tmp_path / "bad.toml").write_text("[[probes]]\nprobe = 'salency'\n")
    status, _, err = probegen_cli(
        "compile", "cnn.keras", "-o", tmp_path / "m.onnx", "--spec", tmp_path / "bad.toml"
    )
    assert status == 1
    assert "bad.toml: unknown probe 'salency'. Did you mean 'saliency'" in err


def test_maps_in_the_size_of_the_input(probegen_cli, tmp_path):
    out = tmp_path / "m.onnx"
    common = ("compile", "cnn.keras", "-o", out, "--no-verify")
    status, _, err = probegen_cli(*common, "--layer-cam", "--eigen-cam", "conv1", "--upsample")
    assert status == 0, err
    inputs, outputs = compiled(out).inputs, compiled(out).explanations
    assert [o.name.partition("/")[0] for o in outputs] == ["layer_cam", "eigen_cam"]
    assert {o.shape[1:] for o in outputs} == {inputs[0].shape[1:3]}
    status, _, err = probegen_cli(*common, "--saliency", "--upsample")
    assert status == 1
    assert "--upsample goes with an option such as --grad-cam or " in err


def test_concept_vectors_come_from_a_file(probegen_cli, tmp_path):
    out = tmp_path / "m.onnx"
    np.save(tmp_path / "v.npy", np.eye(2, 7, dtype=np.float32))
    status, _, err = probegen_cli(
        "compile", "cnn.keras", "-o", out, "--no-verify",
        "--concept-sensitivity", "conv2", "--vectors", tmp_path / "v.npy",
    )  # fmt: skip
    assert status == 0, err
    (found,) = compiled(out).explanations
    assert (found.axes, found.shape) == (("batch", "concept"), (None, 2))
