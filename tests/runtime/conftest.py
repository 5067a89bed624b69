"""Artefacts that the compiler makes once, of a model whose gradients are known."""

import pytest

from probegen import runtime
from tests.runtime.support import save_zoo


@pytest.fixture(scope="session")
def image_path(tmp_path_factory):
    return save_zoo(tmp_path_factory.mktemp("artefact") / "zoo.onnx")


@pytest.fixture(scope="session")
def optional_path(tmp_path_factory):
    """The same with a gate that is off by default."""
    return save_zoo(tmp_path_factory.mktemp("optional") / "zoo.onnx", gate="optional")


@pytest.fixture(scope="session")
def plain_path(tmp_path_factory):
    """The same without target and gate."""
    path = tmp_path_factory.mktemp("plain") / "plain.onnx"
    return save_zoo(path, target="argmax", gate=False)


@pytest.fixture(scope="session")
def saved_path(tmp_path_factory):
    """The same as a SavedModel."""
    return save_zoo(tmp_path_factory.mktemp("saved") / "zoo")


@pytest.fixture(scope="session")
def artefact(image_path):
    return runtime.load(image_path, threads=1)


@pytest.fixture(scope="session")
def plain_artefact(plain_path):
    return runtime.load(plain_path, threads=1)
