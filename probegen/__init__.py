"""probegen: a compiler for explainable models.

It rewrites a copy of a Keras 3 model's computation so that chosen activations, attention
weights and input gradients are real outputs beside the prediction, and exports it to ONNX or
SavedModel. Importing this package loads neither TensorFlow nor Keras; the compiler's names do,
when they are first used.

No module is called like a public function: importing it would hide the function.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from probegen._keras_hook import register_with_keras
from probegen._version import __version__ as __version__

if TYPE_CHECKING:
    from probegen.compiler import Exported, compile, export
    from probegen.errors import ProbegenError
    from probegen.inspection import inspect
    from probegen.parity import verify
    from probegen.sources.keras.attention import register_attention
    from probegen.sources.keras.instrumented import instrument
    from probegen.spec import (
        Activations,
        Attention,
        GradCAM,
        InputGradient,
        IntegratedGradients,
        Saliency,
    )

__all__ = [
    "Activations",
    "Attention",
    "Exported",
    "GradCAM",
    "InputGradient",
    "IntegratedGradients",
    "ProbegenError",
    "Saliency",
    "compile",
    "export",
    "inspect",
    "instrument",
    "register_attention",
    "verify",
]

_HOMES = {
    "Activations": "probegen.spec",
    "Attention": "probegen.spec",
    "Exported": "probegen.compiler",
    "GradCAM": "probegen.spec",
    "InputGradient": "probegen.spec",
    "IntegratedGradients": "probegen.spec",
    "ProbegenError": "probegen.errors",
    "Saliency": "probegen.spec",
    "compile": "probegen.compiler",
    "export": "probegen.compiler",
    "inspect": "probegen.inspection",
    "instrument": "probegen.sources.keras.instrumented",
    "register_attention": "probegen.sources.keras.attention",
    "verify": "probegen.parity",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'probegen' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


register_with_keras()
