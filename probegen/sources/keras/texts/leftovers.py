"""Looks for strings that are left in a model once its text layers are cut off."""

from __future__ import annotations

from typing import Any

from probegen.errors import ExportError
from probegen.sources.keras.dependencies import ancestors
from probegen.sources.keras.trace import Trace

#: What holds the strings that stand where a text was.
_STAND_INS = frozenset({"Const", "Fill", "Identity"})
_MOVING = frozenset({"Identity", "Reshape", "Squeeze", "ExpandDims"})
_ELSEWHERE = "or export to SavedModel (format='savedmodel')"


def _is_number(tensor: Any) -> bool:
    """Tells whether a string is a number written out to be hashed, which lowering takes as one."""
    while tensor.op.type in _MOVING:
        tensor = tensor.op.inputs[0]
    return bool(tensor.op.type == "AsString")


def refuse_strings(trace: Trace) -> None:
    """Refuses a model whose outputs still depend on strings.

    Raises:
        ExportError: they do; names the operations and their layers.
    """
    left = [
        op
        for op in ancestors(trace.outputs)
        if any(t.dtype.name == "string" for t in [*op.inputs, *op.outputs] if not _is_number(t))
    ]
    if left:
        told = [op for op in left if op.type not in _STAND_INS] or left
        shown = sorted({f"{op.type} in layer {trace.layer_of(op) or 'the model'!r}" for op in told})
        raise ExportError(
            f"strings are not only taken apart by text layers but used elsewhere too: "
            f"{', '.join(shown[:5])}. ONNX runtimes cannot compute with them. Let a "
            f"TextVectorization or StringLookup do it, {_ELSEWHERE}."
        )
