"""`probegen serve-config`."""

import json

import pytest

from probegen.cli.serve_config import _SERVERS
from probegen.serve.config import SERVERS
from tests.serve.linear import linear_artefact


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return linear_artefact(tmp_path_factory.mktemp("config") / "m.onnx")


def test_every_server_of_the_table_can_be_named():
    assert tuple(SERVERS) == _SERVERS


def test_what_is_written_is_told(probegen_cli, path, tmp_path):
    status, out, _ = probegen_cli("serve-config", "docker", path, "-o", str(tmp_path / "d"))
    assert (status, out.count("wrote ")) == (0, 2)
    options = ("--name", "n", "--max-batch", "4", "--json")
    command = ("serve-config", "triton", path, "-o", str(tmp_path / "t"), *options)
    status, out, _ = probegen_cli(*command)
    told = json.loads(out)
    assert (status, told["server"]) == (0, "triton")
    assert str(tmp_path / "t/n/config.pbtxt") in told["written"]
    status, _, err = probegen_cli(*command)
    assert (status, "--overwrite" in err) == (1, True)
    assert probegen_cli(*command, "--overwrite")[0] == 0
