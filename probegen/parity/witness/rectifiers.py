"""Guided backpropagation and deconvolution, once more, by numpy.

Which functions are rectifiers is told as the artefact tells it; what they let through is not: the
slope is a difference of the function's own values.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.queries import key_of
from probegen.graph.tables.rectifiers import RECTIFIERS_OF_CELLS, rectifier_at, scale_of
from probegen.parity.witness.adjoints import slope, slope_of
from probegen.parity.witness.recurrent import RECURRENT, through_time
from probegen.parity.witness.step import Step
from probegen.parity.witness.walk import Rule, plain

Array = npt.NDArray[Any]


def rectified(*, guided: bool) -> Rule:
    """Returns the rule of guided backpropagation, or of deconvolution (if not `guided`)."""
    in_cells = functools.partial(_arriving, guided=guided)

    def rule(
        step: Step, arrived: Sequence[Array | None], wanted: Sequence[int]
    ) -> Iterable[tuple[ir.Value, Array]]:
        if key_of(step.node) in RECURRENT:
            for position in wanted:
                value = step.node.inputs[position]
                if value is not None:
                    yield value, through_time(step, arrived, position, in_cells)
            return
        found, g = rectifier_at(step.node), arrived[0]
        if found is None or g is None:
            yield from plain(step, arrived, wanted)
            return
        function, _ = found
        positive = np.maximum(g, 0)
        if not guided:
            yield function.entry, positive * scale_of(function)
        elif len(function.nodes) == 1:
            yield function.entry, positive * np.maximum(slope(step), 0)
        else:
            steep = slope_of(function, step.values, step.evaluate)
            yield function.entry, positive * np.maximum(steep, 0)
        for position in wanted:
            if len(function.nodes) == 1 and step.node.inputs[position] is not function.entry:
                yield from plain(step, arrived, [position])

    return rule


def _arriving(name: str, slope: Array, g: Array, *, guided: bool) -> Array:
    """Returns what arrives before an activation of a recurrent cell."""
    if name not in RECTIFIERS_OF_CELLS:
        return slope * g
    return np.asarray(np.maximum(g, 0) * (np.maximum(slope, 0) if guided else 1.0))
