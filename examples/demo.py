"""All three demos, one after the other: what `make demo` runs.

python examples/demo.py
"""

from __future__ import annotations

from pathlib import Path

import _common
import demo_digits
import demo_sunspots
import demo_words


def main(out: Path | None = None) -> list[Path]:
    """Runs the demos; returns the folders with their results."""
    return _common.run_all("three demos", (demo_digits, demo_words, demo_sunspots), out)


if __name__ == "__main__":
    main()
