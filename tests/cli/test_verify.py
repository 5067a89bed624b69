"""`probegen verify`: figures, digests and status."""

import json
import re

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
