"""Lets tests import the examples as a reader's own script would: by file name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
