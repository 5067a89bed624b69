"""The suites by name: what draws a case, tries it, and cuts it down."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from types import ModuleType

from fuzz.outcome import Outcome

#: Suite -> its module, with a function `attempted(key, known)`.
SUITES = {
    "keras": "fuzz.keras_suite",
    "onnx": "fuzz.onnx_suite",
    "artefacts": "fuzz.artefacts",
    "saved": "fuzz.saved_artefacts",
    "endurance": "fuzz.endurance",
    "exports": "fuzz.exports",
}


def attempt(suite: str, key: str, known: Collection[str] | None = ()) -> Outcome:
    """Returns the outcome of a case of a suite.

    Args:
        suite: its name.
        key: of the case.
        known: kinds of findings that are not cut down to the smallest that shows them, as all
            others are; None to cut down none.
    """
    module: ModuleType = importlib.import_module(SUITES[suite])
    found: Outcome = module.attempted(key, known)
    return found
