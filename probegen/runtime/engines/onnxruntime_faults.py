"""Options of onnxruntime sessions that work around its faults."""

from __future__ import annotations

from pathlib import Path

from probegen.artefact.float16_graphs import computes_in_float16

#: In onnxruntime 1.32 it ends the process at a product of float16 whose batch a Transpose moved.
#: It blocks no channels of float16.
_BREAKS_FLOAT16 = "NchwcTransformer"
#: Has floats multiplied as floats by weights of whole numbers. By default onnxruntime rounds them
#: to 8 bits where it joins such a product with its DequantizeLinear, which depends on who else
#: reads the result: predictions with and without their explanation would be apart by percents.
FLOAT_PRODUCTS = ("session.qdq_matmulnbits_accuracy_level", "1")


def disabled_optimizers(model: Path | bytes) -> list[str] | None:
    """Returns the argument of `InferenceSession` of that name, for a file or its content."""
    return [_BREAKS_FLOAT16] if computes_in_float16(model) else None
