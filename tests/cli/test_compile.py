"""`probegen compile`: what it writes and refuses."""

import json
import os
import re
import subprocess
import sys

import click
import pytest

from probegen.artefact.manifest import Manifest
from probegen.cli.compile import compile as compile_command
from tests.cli.support import compiled


def test_compile_and_verify(probegen_cli, tmp_path):
    out = tmp_path / "m.onnx"
    status, said, err = probegen_cli(
        "compile", "cnn.keras", "-o", out, "--saliency", "--input-gradient", "--grad-cam",
        "--integrated-gradients", "--steps", "3", "--activations", "conv1",
        "--activations", "re:2$", "--class-names", "ant, bee,cow,dog",
    )  # fmt: skip
    assert status == 0
    described = compiled(out)
    assert [o.name for o in described.explanations] == [
        "activation/conv1", "activation/conv2", "input_gradient/image", "saliency/image",
        "grad_cam/conv2", "integrated_gradients/image",
    ]  # fmt: skip
    assert described.output("integrated_gradients/image").detail["steps"] == 3
    assert described.class_names == ("ant", "bee", "cow", "dog")
    assert described.gate == "required"
    assert "agrees" in said
    assert said.splitlines()[-1].startswith(f"{out}  onnx  0.0")
    assert err.splitlines() == [
        "reading the model ...",
        "tracing and planning ...",
        "writing onnx ...",
        "verifying against the source model ...",
    ]
    status, said, _ = probegen_cli("verify", out, "--against", "cnn.keras")
    assert status == 0
    assert re.search(r"on \d+ generated samples", said)
    status, said, _ = probegen_cli(
        "verify", out, "--against", "cnn.keras", "--samples", "images.npy", "--json"
    )
    report = json.loads(said)
    assert (status, report["passed"], report["generated"], report["samples"]) == (0, True, False, 3)


@pytest.mark.parametrize(
    ("options", "gate"),
    [
        (["--gate"], "required"),
        (["--gate=required"], "required"),
        (["--gate", "optional"], "optional"),
        (["--gate", "split"], "split"),
        (["--gate=none"], False),
    ],
)
def test_gates(probegen_cli, tmp_path, options, gate):
    # Before MODEL, which a gate without a value must not take for one.
    out = tmp_path / "m.onnx"
    status, _, err = probegen_cli(
        "compile", *options, "rows.keras", "-o", out, "--saliency", "--no-verify"
    )
    assert status == 0, err
    assert compiled(out).gate == gate


def test_gates_that_are_none(probegen_cli, tmp_path):
    common = ("compile", "rows.keras", "-o", tmp_path / "m.onnx", "--saliency")
    status, _, err = probegen_cli(*common, "--gate=maybe")
    assert status == 2
    assert "'maybe' is not one of 'required', 'optional', 'split', 'none'" in err
    status, _, err = probegen_cli(*common, "--gate=optional", "--no-gate")
    assert status == 1
    assert "--gate and --no-gate were both given" in err


def test_formats_folders_and_overwriting(probegen_cli, tmp_path):
    folder = tmp_path / "saved.v1"
    names = tmp_path / "names.txt"
    names.write_text("off\non\n")
    command = ("compile", "rows.keras", "-o", folder, "--saliency", "--class-names", names)
    status, out, _ = probegen_cli(*command, "--format", "savedmodel")
    assert status == 0
    assert "savedmodel" in out
    manifest = Manifest.from_json((folder / "assets.extra" / "probegen.json").read_text())
    assert manifest.class_names == ("off", "on")
    status, _, err = probegen_cli(*command)
    assert status == 1
    assert "--overwrite" in err
    assert probegen_cli(*command, "--overwrite", "--no-verify")[0] == 0


def test_samples_to_verify_on(probegen_cli, tmp_path):
    for name in ("images.npy", "images.npz", "unnamed.npz"):
        status, out, _ = probegen_cli(
            "compile", "cnn.keras", "-o", tmp_path / "m.onnx", "--grad-cam", "--samples", name,
            "--json",
        )  # fmt: skip
        assert status == 0
        assert json.loads(out)["verification"]["generated"] is False
    status, _, err = probegen_cli(
        "compile", "cnn.keras", "-o", tmp_path / "n.onnx", "--grad-cam", "--samples", "tokens.npy"
    )
    assert status == 1
    assert "'image' has the shape (3, 9)" in err
    assert not (tmp_path / "n.onnx").exists()


def test_custom_classes_are_imported(probegen_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_layers.py").write_text(
        "import keras\n"
        "@keras.saving.register_keras_serializable(package='mine')\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
    )
    make = (
        "import keras, my_layers\nx = keras.Input((3,), name='x')\n"
        "keras.Model(x, keras.layers.Dense(2)(my_layers.Twice(name='twice')(x))).save('m.keras')\n"
    )
    # In a process of its own, so that the class is unknown here until it is imported.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", make], check=True, env=environment, capture_output=True)
    status, _, err = probegen_cli("inspect", "m.keras")
    assert status == 1
    assert "--import MODULE" in err
    status, out, _ = probegen_cli("inspect", "m.keras", "--import", "my_layers")
    assert status == 0
    assert "twice" in out
    status, _, err = probegen_cli("inspect", "m.keras", "--import", "no_such_module")
    assert status == 1
    assert "--import no_such_module: ModuleNotFoundError" in err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--saliency", "--target", "cow"), "target= takes 'argmax', 'input', a class index"),
        (("--activations", "conv1", "--target", "1"), "--target goes with an option such as"),
        (("--saliency", "--steps", "3"), "--steps goes with an option such as --integrated"),
        (("--saliency", "--opset", "9"), "opset=9 is out of range"),
        (("--saliency", "--class-names", "a,b"), "class_names has 2 names"),
        (("--saliency", "--spec", "images.npy"), "images.npy is no UTF-8 text"),
        (("--saliency", "--samples", "cnn.onnx"), "cnn.onnx is no .npy or .npz file"),
        (("--saliency", "--model-output", "label"), r"output= takes one of ['scores']"),
    ],
)
def test_what_compile_refuses(probegen_cli, tmp_path, options, says):
    status, out, err = probegen_cli("compile", "cnn.keras", "-o", tmp_path / "m.onnx", *options)
    assert (status, out) == (1, "")
    assert says in err
    assert not list(tmp_path.iterdir())


def test_states_that_a_file_has(probegen_cli, tmp_path):
    status, _, err = probegen_cli(
        "compile", "cnn.keras", "-o", tmp_path / "m.onnx", "--feed-states", "image=out,b"
    )
    assert status == 2
    assert "'b' is no pair of names" in err
    status, _, err = probegen_cli(
        "compile", "cnn.keras", "-o", tmp_path / "m.onnx", "--feed-states", "picture=out"
    )
    assert status == 1
    assert "has no input 'picture'; it has 'image'" in err


def test_no_option_has_two_meanings():
    context = click.Context(compile_command)
    names = [name for p in compile_command.get_params(context) for name in p.opts]
    assert sorted(names) == sorted(set(names))
