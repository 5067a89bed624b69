"""The output that a caller names, where it must be one of a certain kind, and its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np

from probegen.artefact.manifest import OutputSpec
from probegen.artefact.rows import rows_first
from probegen.errors import InputError, did_you_mean
from probegen.runtime.arguments import counted
from probegen.runtime.inputs import Array, Inputs
from probegen.runtime.loaded import Artefact
from probegen.runtime.request import Request


def named_output(
    artefact: Artefact, output: str, able: Sequence[OutputSpec], otherwise: str, advice: str
) -> OutputSpec:
    """Returns the manifest's entry of an output.

    Args:
        artefact: the artefact.
        output: what the caller named.
        able: the outputs of the artefact that are of the kind.
        otherwise: what is said of an output that is not.
        advice: what is said where the artefact has none of the kind.

    Raises:
        InputError: it is no output, or of another kind.
    """
    known = [spec.name for spec in able]
    if output not in known:
        other = output in [spec.name for spec in artefact.outputs]
        what = otherwise if other else "is no output of the artefact."
        raise InputError(f"{output!r} {what}{did_you_mean(str(output), known) or f' {advice}'}")
    return able[known.index(output)]


def values_of(
    artefact: Artefact,
    spec: OutputSpec,
    inputs: Inputs,
    batch_size: int | None,
    **request: Unpack[Request],
) -> Array:
    """Returns what an output is for some inputs, float64 with rows first.

    Args:
        artefact: the artefact.
        spec: the output.
        inputs: as `Artefact.run` takes them.
        batch_size: how many samples are run at once; all where it is None.
        request: what is asked for beside the inputs.

    Raises:
        InputError: something does not fit, or the inputs are not finite.
    """
    if batch_size is None:
        result = artefact.run(inputs, check_finite=True, **request)
    else:
        size = counted("batch_size", batch_size)
        result = artefact.run_batched(inputs, size, check_finite=True, **request)
    return rows_first(np.asarray(result[spec.name].array, np.float64), spec.axes)
