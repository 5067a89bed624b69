"""Notes the sums of float16 in which a large number leaves nothing of what it is added to.

A model masks scores so: `scores - 65504` is the same for all of them in float16, so that a query
all of whose keys are masked weighs them alike. Computed in float32 they would be told apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.marks import ROUNDED
from probegen.graph.core.values import constant_of

#: Of what is added to such a number float16 keeps multiples of 8 alone.
_LARGE = 8192.0
_SUMS = frozenset({"Add", "Sub"})
#: Operators that give large numbers where they read one: products with a mask, and choices.
_HANDING_ON = frozenset({"Mul", "Where"})


def note_large_sums(graph: ir.Graph) -> None:
    """Notes sums of float16 with a large constant, or with what is made of one and a mask."""
    for node in graph.all_nodes():
        is_sum = not node.domain and node.op_type in _SUMS
        is_half = is_sum and node.outputs[0].dtype == ir.DataType.FLOAT16
        if is_half and any(map(_is_large, node.inputs)):
            node.meta[ROUNDED] = True


def _is_large(value: ir.Value | None) -> bool:
    """Tells whether a value is a large number in places, or made of one."""
    if value is None:
        return False
    maker, made_of = value.producer(), [value]
    if maker is not None and not maker.domain and maker.op_type in _HANDING_ON:
        made_of += [x for x in maker.inputs if x is not None]
    arrays = (known for x in made_of if (known := constant_of(x)) is not None)
    return any(_has_large(array) for array in arrays)


def _has_large(array: npt.NDArray[Any]) -> bool:
    """Tells whether there are large numbers of float16 that are not endless."""
    return array.dtype == np.float16 and bool((np.abs(array[np.isfinite(array)]) >= _LARGE).any())
