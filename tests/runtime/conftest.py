"""One artefact made by hand, loaded once."""

import pytest

from probegen import runtime
from tests.runtime.support import save_image_model


@pytest.fixture(scope="session")
def image_path(tmp_path_factory):
    return save_image_model(tmp_path_factory.mktemp("artefact") / "zoo.onnx")


@pytest.fixture(scope="session")
def artefact(image_path):
    return runtime.load(image_path, threads=1)


@pytest.fixture(scope="session")
def plain_artefact(tmp_path_factory):
    """The same without target and gate."""
    path = tmp_path_factory.mktemp("plain") / "plain.onnx"
    return runtime.load(save_image_model(path, target_input=False, gate=False), threads=1)
