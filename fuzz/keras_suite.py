"""Random Keras models with random probes."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Collection

from fuzz.case import Case
from fuzz.keras_models import draw_case
from fuzz.keras_trial import attempt
from fuzz.outcome import INVALID, Outcome
from fuzz.shrinking import smaller, with_program

#: One case in so many is verified by probegen as well, as users have it; the others are held
#: against the witness alone. Some of these are inspected before.
_VERIFIED, _INSPECTED = 3, 9
#: One case in so many (that is not verified) has its input gradients held against differences.
_BY_DIFFERENCES = 3
#: One case in so many is written as a SavedModel as well.
_SAVED = 30
#: Methods that the witness knows nothing of: only what is verified has them.
_UNKNOWN = ("DeepLIFT", "DeepSHAP", "LRP")
_GUIDED = ("GuidedBackprop", "Deconvnet")
#: What is not witnessed of guided gradients: layers of one's own, functions, whole cells.
_UNGUIDED = ("ConvLSTM", "layers.RNN", "own_", "lambda", "loop", "scan")
#: Methods that TensorFlow's gradients cannot follow.
_OWN_RULES = (*_UNKNOWN, *_GUIDED)


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
    number = int(key.rpartition(":")[2])
    if number % _VERIFIED:
        is_told = not any(word in line.code for line in case.lines for word in _UNGUIDED)
        untold = _UNKNOWN if is_told else _OWN_RULES
        kept = tuple(code for code in case.probes if not any(name in code for name in untold))
        case = dataclasses.replace(case, probes=kept)
    own_rules = any(name in code for code in case.probes for name in _OWN_RULES)
    differences = number % _BY_DIFFERENCES == 1
    if differences and not any(code.startswith("pg.InputGradient(") for code in case.probes):
        case = dataclasses.replace(case, probes=(*case.probes, "pg.InputGradient()"))
    saved = number % _SAVED == 0 and not own_rules and "states" not in case.options
    formats = ("onnx", "savedmodel") if saved else ("onnx",)

    def again(case: Case) -> Outcome:
        verify, inspect = number % _VERIFIED == 0, number % _INSPECTED == 0
        return attempt(case, formats, verify, inspect, differences)

    return with_program(again(case), case, known, again, smaller)
