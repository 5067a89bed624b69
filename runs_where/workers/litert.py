"""LiteRT on a converted signature; see `to_litert`. Option: `signature`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from typing import Any

from ai_edge_litert.interpreter import Interpreter

from runs_where.exchange import Array, work


def opener(options: Mapping[str, Any]) -> Any:
    """Returns what runs a model; see `runs_where.exchange.Opener`."""

    def run(path: str, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        # Anew for each request: sizes are settled when tensors are laid out.
        name = options["signature"]
        interpreter = Interpreter(f"{path}.{name}.tflite", num_threads=1)
        runner = interpreter.get_signature_runner(name)
        found: Mapping[str, Array] = runner(**feeds)
        return found

    return run


if __name__ == "__main__":
    work(lambda _: f"LiteRT {importlib.metadata.version('ai-edge-litert')}", opener)
