"""All three demos, one after the other: what `make demo` runs.

python examples/demo.py
"""

from __future__ import annotations

import time
from pathlib import Path

import _common
import demo_digits
import demo_sunspots
import demo_words


def main(out: Path | None = None) -> list[Path]:
    """Runs the demos; returns the folders with their results."""
    start = time.perf_counter()
    folders = [demo.main(out) for demo in (demo_digits, demo_words, demo_sunspots)]
    _common.CONSOLE.rule("[bold]Done", align="left")
    _common.CONSOLE.print(f"three demos in {time.perf_counter() - start:.0f} s; look at")
    for folder in folders:
        _common.CONSOLE.print(f"  {_common.shown(folder / 'report.html')}")
    return folders


if __name__ == "__main__":
    main()
