"""What a session of onnxruntime is opened without, because of its faults: for all who open one."""

from __future__ import annotations

from pathlib import Path

from probegen.artefact.float16_graphs import computes_in_float16

#: In onnxruntime 1.32 it ends the process where several operators read a transposed sum of float16.
#: It blocks no channels of float16.
_BREAKS_FLOAT16 = "NchwcTransformer"


def disabled_optimizers(model: Path | bytes) -> list[str] | None:
    """Returns the argument of `InferenceSession` of that name, for a file or its content."""
    return [_BREAKS_FLOAT16] if computes_in_float16(model) else None
