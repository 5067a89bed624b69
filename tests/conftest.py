"""What every test needs: TensorFlow quiet, and each shared model built once."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import pytest

from tests.processor_time import ProcessorTime
from tests.wide import WIDE


def pytest_configure(config: pytest.Config) -> None:
    """Has the processor time of the tests counted."""
    config.pluginmanager.register(ProcessorTime())


def pytest_collection_finish() -> None:
    """Takes all that is there by now out of what Python looks through for garbage again and again.

    TensorFlow and thousands of tests are most of what there is, and stay.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of `tests.wide`."""
    for item in items:
        if item.nodeid.startswith(WIDE):
            item.add_marker(pytest.mark.wide)
