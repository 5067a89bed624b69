"""What every test needs: TensorFlow quiet, and each shared model built once."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pytest

from tests.wide import WIDE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of `tests.wide`."""
    for item in items:
        if item.nodeid.startswith(WIDE):
            item.add_marker(pytest.mark.wide)
