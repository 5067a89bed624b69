"""`probegen verify`: figures, digests and status."""

import json
import re

from probegen.artefact import answers
from tests import models


def test_a_failed_verification_shows_the_figures_and_ends_with_1(probegen_cli, tmp_path):
    models.cnn(seed=8).save(tmp_path / "other.keras")
    status, out, err = probegen_cli("verify", "cnn.onnx", "--against", tmp_path / "other.keras")
    assert status == 1
    assert "DIFFERS" in out
    assert "does not agree with 'cnn': 'scores'" in err
    status, out, _ = probegen_cli(
        "verify", "cnn.onnx", "--against", tmp_path / "other.keras", "--json"
    )
    assert status == 1
    assert json.loads(out)["passed"] is False


def test_verify_without_a_model_checks_the_contents(probegen_cli, place, tmp_path):
    status, out, err = probegen_cli("verify", "cnn.onnx")
    assert (status, err) == (0, "")
    assert re.fullmatch(r"cnn\.onnx is as probegen wrote it: SHA-256 [0-9a-f]{64}\n", out)
    data = bytearray((place / "cnn.onnx").read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "cnn.onnx").write_bytes(data)
    for command in (("verify", tmp_path / "cnn.onnx"),
                    ("run", tmp_path / "cnn.onnx", "images.npy", "--check")):  # fmt: skip
        status, out, err = probegen_cli(*command)
        assert (status, out) == (1, "")
        assert "is not as probegen wrote it" in err
    status, _, err = probegen_cli("verify", "cnn.onnx", "--samples", "images.npy")
    assert status == 1
    assert "go with --against MODEL" in err


def test_verify_without_a_model_asks_again(probegen_cli, tmp_path):
    status, _, err = probegen_cli(
        "compile", "rows.keras", "-o", tmp_path / "rows.onnx", "--input-gradient"
    )
    assert status == 0, err
    status, out, _ = probegen_cli("verify", tmp_path / "rows.onnx")
    assert status == 0
    assert "is as probegen wrote it" in out
    assert "agrees" in out
    command = ("verify", tmp_path / "rows.onnx", "--engine", "openvino", "--answers-only")
    status, out, _ = probegen_cli(*command, "--json")
    told = json.loads(out)
    assert (status, told["passed"], told["sha256"]) == (0, True, None)
    assert "OpenVINO" in told["engine"]
    assert set(told["outputs"]) == {"kind", "input_gradient/row"}
    data = (tmp_path / "rows.onnx").read_bytes()
    values = json.dumps(answers.answers_of(tmp_path / "rows.onnx").requests[0].answers[0].values)
    exponent = 5  # behind the quotation mark and three bytes of the mantissa
    other = values[:exponent] + "Q" + values[exponent + 1 :]  # 2 or more
    (tmp_path / "rows.onnx").write_bytes(data.replace(values.encode(), other.encode()))
    status, out, err = probegen_cli("verify", tmp_path / "rows.onnx", "--answers-only")
    assert status == 1
    assert "DIFFERS" in out
    assert "'kind' (L2" in err
    status, _, err = probegen_cli("verify", "cnn.onnx", "--answers-only")
    assert status == 1
    assert "keeps no answers: it was compiled with verify=False" in err
    status, _, err = probegen_cli("verify", "cnn.onnx", "--against", "cnn.keras", *command[2:])
    assert status == 1
    assert "do not go with --against" in err
