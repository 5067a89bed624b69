"""All examples of texts, series, sounds and films, one after the other: what `make examples` runs.

python examples/all_examples.py
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path

import _common

#: The examples in the order in which they are best read.
NAMES = ("sentiment", "misspellings", "dates", "forecast", "keywords", "moving_digits")


def main(out: Path | None = None) -> list[Path]:
    """Runs the examples; returns the folders with their results."""
    start = time.perf_counter()
    folders = [importlib.import_module(f"example_{name}").main(out) for name in NAMES]
    _common.CONSOLE.rule("[bold]Done", align="left")
    seconds = time.perf_counter() - start
    _common.CONSOLE.print(f"{len(NAMES)} examples in {seconds:.0f} s; look at")
    for folder in folders:
        _common.CONSOLE.print(f"  {_common.shown(folder / 'report.html')}")
    return folders


if __name__ == "__main__":
    main()
