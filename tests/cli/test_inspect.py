"""`probegen inspect`: what it prints and refuses."""

import json
import re


def test_inspect_prints_a_table(probegen_cli):
    status, out, err = probegen_cli("inspect", "cnn.keras")
    assert status == 0
    assert out.splitlines()[0] == "cnn: 8 probe points"
    row = next(line for line in out.splitlines() if " conv1 " in line)
    assert "[?, 11, 8, 5]" in row
    assert "activation, gradient, grad_cam" in row
    assert err == "reading the model ...\n"


def test_inspect_as_json_with_a_selector(probegen_cli):
    status, out, _ = probegen_cli("inspect", "cnn.keras", "--select", "type:Conv2D", "--json")
    found = json.loads(out)
    assert status == 0
    assert (found["model"], [p["name"] for p in found["points"]]) == ("cnn", ["conv1", "conv2"])
    assert found["points"][0]["shapes"] == [[None, 11, 8, 5]]
    status, _, err = probegen_cli("inspect", "cnn.keras", "--select", "conv3")
    assert status == 1
    assert "Did you mean 'conv2'" in err


def test_tables_fit_narrow_terminals(probegen_cli, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    status, out, _ = probegen_cli("inspect", "words.keras")
    assert status == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", out).splitlines()
    assert max(map(len, lines)) <= 60
    assert any("block_1" in line for line in lines)
