"""What planning is told of a tensor of a graph: sizes, element type and names of its axes."""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.queries import is_float
from probegen.graph.core.values import known_sizes
from probegen.plan.model_view import TensorFacts
from probegen.sources.onnx.layouts import Layouts


def facts_told_apart(value: ir.Value, layouts: Layouts) -> TensorFacts:
    """Returns what is known of a tensor as it comes out of an artefact.

    Along an axis that joins samples with heads, frames or windows, these have axes of their own.
    """
    apart = layouts.told_apart(value)
    if apart is not None and apart.parts:
        return TensorFacts(apart.sizes, element_type(value), apart.axes, is_float(value))
    return facts_of(value, layouts)


def facts_of(value: ir.Value, layouts: Layouts) -> TensorFacts:
    """Returns what is known of a tensor as the graph has it."""
    sizes = known_sizes(value) or ()
    return TensorFacts(sizes, element_type(value), layouts.axes(value), is_float(value))


def element_type(value: ir.Value) -> str:
    """Returns the name of a value's element type; float32 where the file does not say it."""
    if value.dtype == ir.DataType.STRING:
        return "string"
    return "float32" if value.dtype is None else str(value.dtype.numpy())
