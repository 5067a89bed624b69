"""Converts a signature of a SavedModel for LiteRT, with built-in operators alone.

With the option `probegen` by `probegen litert`, else by TensorFlow's converter as it is.

The models of a request are SavedModels; beside each `NAME.SIGNATURE.tflite` is written. Options:
`signature`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from runs_where.exchange import Array, work


def opener(options: Mapping[str, Any]) -> Any:
    """Returns what runs a model; see `runs_where.exchange.Opener`."""

    @functools.cache
    def convert(path: str) -> None:
        signature = options["signature"]
        if options.get("probegen"):
            from probegen.litert import to_litert

            to_litert(path, f"{path}.{signature}.tflite", signature)
            return
        converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=[signature])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            Path(f"{path}.{signature}.tflite").write_bytes(converter.convert())
        except Exception as error:
            raise RuntimeError(_words(str(error))) from error

    def run(path: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        del feeds
        convert(path)
        return {}

    return run


def _words(said: str) -> str:
    """Returns what matters of a refusal of several thousand letters."""
    absent = re.search(r"(?:needed|ops)[^\n]*:\s*([A-Z][\w, ]+)", said)
    if absent:
        return f"no built-in operator for {absent.group(1).strip()}"
    operation = re.search(r"'(tf\.\w+' op [^\n]+)", said)
    return f"'{operation.group(1)}" if operation else said.strip().splitlines()[0]


if __name__ == "__main__":
    work(lambda _: f"TensorFlow {tf.__version__}", opener)
