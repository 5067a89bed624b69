"""`probegen web`."""

import json

import pytest

from tests.serve.linear import linear_artefact
from tests.web.support import fake_package


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return linear_artefact(tmp_path_factory.mktemp("page") / "m.onnx")


def test_what_is_written_is_told(probegen_cli, path, tmp_path):
    package = str(fake_package(tmp_path / "npm"))
    command = ("web", path, "-o", str(tmp_path / "site"), "--onnxruntime-web", package)
    status, out, err = probegen_cli(*command, "--title", "Digits", "--scale", "0.00392")
    assert (status, out, err) == (0, f"wrote {tmp_path / 'site' / 'index.html'}\n", "")
    page = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert "<h1>Digits</h1>" in page
    status, _, err = probegen_cli(*command)
    assert (status, "--overwrite" in err) == (1, True)
    status, out, _ = probegen_cli(*command, "--overwrite", "--json")
    assert (status, json.loads(out)["written"][0]) == (0, str(tmp_path / "site" / "index.html"))
    one = ("web", path, "-o", str(tmp_path / "p.html"), "--onnxruntime-web", package)
    assert probegen_cli(*one, "--single-file")[0] == 0
    status, _, err = probegen_cli(*one[:4], "--onnxruntime-web", str(tmp_path), "--single-file")
    assert (status, "no folder of onnxruntime-web" in err) == (1, True)
