"""What every test needs: TensorFlow quiet, and each shared model built once."""

import gc
import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import onnxruntime
import pytest

from tests.processor_time import ProcessorTime
from tests.wide import wide


def pytest_configure(config: pytest.Config) -> None:
    """Has the processor time of the tests counted."""
    config.pluginmanager.register(ProcessorTime())


_open = onnxruntime.InferenceSession.__init__


def _open_without_spinning(
    self: Any, model: Any, sess_options: Any = None, *arguments: Any, **options: Any
) -> None:
    """Opens a session whose threads sleep while they have nothing to do.

    By default they spin. That is as much work as the small graphs here are, and on two cores each
    of two workers would take it from the other.
    """
    chosen = onnxruntime.SessionOptions() if sess_options is None else sess_options
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    _open(self, model, chosen, *arguments, **options)


onnxruntime.InferenceSession.__init__ = _open_without_spinning


def pytest_collection_finish() -> None:
    """Takes all that is there by now out of what Python looks through for garbage again and again.

    TensorFlow and thousands of tests are most of what there is, and stay.
    """
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of `tests.wide`."""
    for item, is_wide in zip(items, wide(item.nodeid for item in items), strict=True):
        if is_wide:
            item.add_marker(pytest.mark.wide)
