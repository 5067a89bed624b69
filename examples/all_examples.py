"""All examples of texts, series, sounds and films, one after the other: what `make examples` runs.

python examples/all_examples.py
"""

from __future__ import annotations

import importlib
from pathlib import Path

import _common

#: The examples in the order in which they are best read.
NAMES = ("sentiment", "misspellings", "dates", "forecast", "keywords", "moving_digits")


def main(out: Path | None = None) -> list[Path]:
    """Runs the examples; returns the folders with their results."""
    modules = (importlib.import_module(f"example_{name}") for name in NAMES)
    return _common.run_all(f"{len(NAMES)} examples", modules, out)


if __name__ == "__main__":
    main()
