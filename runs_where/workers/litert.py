"""LiteRT on a converted signature; see `to_litert`. Option: `signature`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runs_where.exchange import Array, work


def file_of(path: str, signature: str, feeds: Mapping[str, Array] | None = None) -> str:
    """Returns the file of a converted signature: of any sizes, or of those of a request."""
    if feeds is None:
        return f"{path}.{signature}.tflite"
    sizes = "_".join("x".join(map(str, feeds[name].shape[1:])) for name in sorted(feeds))
    return f"{path}.{signature}.{sizes}.tflite"


def opener(options: Mapping[str, Any]) -> Any:
    """Returns what runs a model; see `runs_where.exchange.Opener`."""
    from ai_edge_litert.interpreter import Interpreter

    def run(path: str, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        # Anew for each request: sizes are settled when tensors are laid out.
        name = options["signature"]
        file = file_of(path, name, feeds)
        file = file if Path(file).is_file() else file_of(path, name)
        interpreter = Interpreter(file, num_threads=1)
        runner = interpreter.get_signature_runner(name)
        found: Mapping[str, Array] = runner(**feeds)
        return found

    return run


if __name__ == "__main__":
    work(lambda _: f"LiteRT {importlib.metadata.version('ai-edge-litert')}", opener)
