"""The command line as a whole: help, errors, streams."""

import json
import subprocess
import sys

import pytest

import probegen
import probegen as pg
from probegen import runtime
from probegen.cli import _explain


def test_version(probegen_cli):
    assert probegen_cli("--version") == (0, f"probegen, version {probegen.__version__}\n", "")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ((), ["inspect", "compile", "verify", "run", "--traceback", "--html report.html"]),
        (("inspect",), ["--select SEL", "--json", "--import MODULE", "role:attention"]),
        (("compile",), ["--grad-cam [LAYER]", "--attention [SEL]", "[[probes]]", "default: 18"]),
        (("verify",), ["--against MODEL", "--samples", "status 1"]),
        (("run",), ["--tokens", "--target T", "--npz", "Needs no TensorFlow"]),
    ],
)
def test_help(probegen_cli, command, says):
    status, out, err = probegen_cli(*command, "--help")
    assert (status, err) == (0, "")
    for text in says:
        assert text in out


def test_errors_are_one_message_and_status_1(probegen_cli):
    status, out, err = probegen_cli("inspect", "no.keras")
    assert (status, out) == (1, "")
    assert err.splitlines()[-1] == "probegen: there is no model file 'no.keras'."
    assert "Traceback" not in err


@pytest.mark.parametrize("where", [0, 1, 2])
def test_traceback_on_request_wherever_it_stands(probegen_cli, where):
    arguments = ["inspect", "no.keras"]
    arguments.insert(where, "--traceback")
    with pytest.raises(pg.ProbegenError, match="there is no model file"):
        probegen_cli(*arguments)


def test_errors_nobody_foresaw_are_no_traceback_either(probegen_cli, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(runtime, "load", broken)
    status, _, err = probegen_cli("run", "cnn.onnx", "images.npy")
    assert status == 1
    assert "RuntimeError: out of luck" in err
    assert "--traceback shows where" in err


def test_wrong_use_is_status_2(probegen_cli):
    assert probegen_cli("compile", "cnn.keras", "--saliency")[0] == 2
    assert probegen_cli("run", "cnn.onnx", "no.npy")[0] == 2
    assert probegen_cli("nonsense")[0] == 2


def test_a_missing_module_is_named(probegen_cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    status, _, err = probegen_cli("inspect", "cnn.keras")
    assert status == 1
    assert "tensorflow is not installed" in err
    assert "pip install 'probegen[compiler]'" in err


def test_a_process_keeps_its_streams_apart(place, tmp_path):
    command = [sys.executable, "-m", "probegen", "compile", "rows.keras"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "m.onnx"), "--saliency", "--json"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["verification"]["passed"]
    assert [line for line in done.stderr.splitlines() if not line.endswith(" ...")] == []


def test_a_failing_process_ends_with_1(place):
    done = subprocess.run(
        [sys.executable, "-m", "probegen", "run", "no.onnx", "images.npy"],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("probegen: there is no artefact at 'no.onnx'")


@pytest.mark.parametrize(
    ("module", "extra"),
    [("onnx_ir", "'probegen[onnx]'"), ("onnx.helper", "'probegen[onnx]'"),
     ("tensorflow", "install 'probegen[compiler]'"), ("keras.ops", "install 'probegen[compiler]'")],
)  # fmt: skip
def test_what_is_missing_is_named_with_the_smallest_extra(module, extra):
    """ONNX files need no TensorFlow to be compiled."""
    said = _explain(ModuleNotFoundError(f"No module named {module!r}", name=module))
    assert said.startswith(f"{module} is not installed.")
    assert extra in said
