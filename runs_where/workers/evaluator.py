"""onnx's reference evaluator: Python and numpy, independent of onnxruntime."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from runs_where.exchange import Array, work


def opener(options: Mapping[str, Any]) -> Any:
    """Returns what runs a model; see `runs_where.exchange.Opener`."""
    del options
    opened = functools.cache(ReferenceEvaluator)

    def run(path: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        evaluator = opened(path)
        with np.errstate(all="ignore"):
            found = evaluator.run(None, dict(feeds))
        return dict(zip(evaluator.output_names, found, strict=True))

    return run


if __name__ == "__main__":
    work(lambda _: f"onnx {onnx.__version__}", opener)
