"""Guided backpropagation and deconvolution, once more, by numpy.

Which functions are rectifiers is told as the artefact tells it; what they let through is not: the
slope is a difference of the function's own values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.tables.rectifiers import rectifier_at, scale_of
from probegen.parity.witness.adjoints import slope, slope_of
from probegen.parity.witness.step import Step
from probegen.parity.witness.walk import Rule, plain

Array = npt.NDArray[Any]


def rectified(values: dict[ir.Value, Array], *, guided: bool) -> Rule:
    """Returns the rule of guided backpropagation, or of deconvolution.

    Args:
        values: every tensor of the forward pass.
        guided: which of the two.
    """

    def rule(
        step: Step, arrived: Sequence[Array | None], wanted: Sequence[int]
    ) -> Iterable[tuple[ir.Value, Array]]:
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
            steep = slope_of(function, values[function.entry])
            yield function.entry, positive * np.maximum(steep, 0)
        for position in wanted:
            if len(function.nodes) == 1 and step.node.inputs[position] is not function.entry:
                yield from plain(step, arrived, [position])

    return rule
