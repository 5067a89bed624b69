"""Random ONNX graphs with random probes."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from fuzz.onnx_case import OnnxCase, smaller
from fuzz.onnx_models import drawn
from fuzz.onnx_trial import attempt
from fuzz.outcome import INVALID, Outcome
from fuzz.shrinking import with_program

#: One case in so many is verified by probegen as well, as users have it.
_VERIFIED = 10


def attempted(key: str, known: Collection[str] | None = ()) -> Outcome:
    """Returns the outcome of the case of a key; a finding comes with a program that shows it.

    Args:
        key: of the case.
        known: kinds of findings that are not cut down; None for all.
    """
    warnings.simplefilter("ignore")
    try:
        case = drawn(key)
    except Exception as error:  # no graph
        return Outcome(key, INVALID, f"{type(error).__name__}: {error}")
    verify = int(key.rpartition(":")[2]) % _VERIFIED == 0

    def again(case: OnnxCase) -> Outcome:
        return attempt(case, verify)

    return with_program(again(case), case, known, again, smaller)
