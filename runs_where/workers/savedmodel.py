"""TensorFlow on a SavedModel, with Keras and probegen out of reach. Option: `signature`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from typing import Any

from runs_where.exchange import Array, work

for _absent in ("keras", "tf_keras", "probegen"):
    sys.modules[_absent] = None  # type: ignore[assignment]

import tensorflow as tf  # noqa: E402  (after what it is not to find)


def opener(options: Mapping[str, Any]) -> Any:
    """Returns what runs a model; see `runs_where.exchange.Opener`."""
    opened = functools.cache(tf.saved_model.load)

    def run(path: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        signature = opened(path).signatures[options["signature"]]
        found = signature(**{name: tf.constant(array) for name, array in feeds.items()})
        return {name: value.numpy() for name, value in found.items()}

    return run


if __name__ == "__main__":
    work(lambda _: f"TensorFlow {tf.__version__}", opener)
