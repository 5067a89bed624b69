"""Random Keras models with random probes."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from fuzz.case import Case
from fuzz.keras_models import draw_case
from fuzz.keras_trial import attempt
from fuzz.outcome import INVALID, Outcome
from fuzz.shrinking import smaller, with_program

#: One case in so many is written as a SavedModel as well,
_SAVED = 6
#: but for methods that TensorFlow's gradients cannot follow.
_OWN_RULES = ("GuidedBackprop", "Deconvnet", "DeepLIFT", "DeepSHAP", "LRP")


def attempted(key: str, known: Collection[str] | None = ()) -> Outcome:
    """Returns the outcome of the case of a key; a finding comes with a program that shows it.

    Args:
        key: of the case.
        known: kinds of findings that are not cut down; None for all.
    """
    warnings.simplefilter("ignore")
    try:
        case = draw_case(key)
    except ValueError as error:
        return Outcome(key, INVALID, str(error))
    own_rules = any(name in code for name in _OWN_RULES for code in case.probes)
    saved = int(key.rpartition(":")[2]) % _SAVED == 0 and not own_rules
    formats = ("onnx", "savedmodel") if saved else ("onnx",)

    def again(case: Case) -> Outcome:
        return attempt(case, formats)

    return with_program(again(case), case, known, again, smaller)
