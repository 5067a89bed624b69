"""Converts a signature of a SavedModel for LiteRT by `probegen litert`.

The models of a request are SavedModels; beside each `NAME.SIGNATURE.tflite` is written, or one a
request, `NAME.SIGNATURE.SIZES.tflite`, where the length of a recurrent model has to be fixed.
Options: `signature`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from probegen import runtime
from probegen.errors import ExportError
from probegen.litert import to_litert
from runs_where.exchange import Array, work
from runs_where.workers.litert import file_of


def opener(options: Mapping[str, Any]) -> Any:
    """Returns what runs a model; see `runs_where.exchange.Opener`."""
    signature = options["signature"]

    @functools.cache
    def of_any_size(path: str) -> bool:
        try:
            to_litert(path, file_of(path, signature), signature)
        except ExportError as error:
            if "fixed size" not in str(error):
                raise
            return False
        return True

    @functools.cache
    def of_sizes(path: str, sizes: Sequence[tuple[str, int]], file: str) -> None:
        to_litert(path, file, signature, sizes=dict(sizes))

    def run(path: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        if not of_any_size(path):
            sizes = tuple(
                (axis, feeds[spec.name].shape[i])
                for spec in runtime.load(path).inputs
                for i, (axis, n) in enumerate(zip(spec.axes, spec.shape, strict=True))
                if n is None and axis != "batch"
            )
            of_sizes(path, sizes, file_of(path, signature, feeds))
        return {}

    return run


if __name__ == "__main__":
    work(lambda _: f"TensorFlow {tf.__version__}", opener)
