"""Loads, runs, decodes and draws artefacts, without TensorFlow.

    from probegen import runtime

    artefact = runtime.load("m.onnx")
    result = artefact.run(x)
    result["saliency/image"].plot()
    runtime.metrics.deletion(artefact, x, "saliency/image")

Only the ground, `probegen.artefact` and numpy are imported here; onnxruntime comes with the first
`load`, matplotlib with the first picture, TensorFlow only where a SavedModel is loaded. What is
done with a loaded artefact comes with its first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from probegen.runtime.load import load
from probegen.runtime.loaded import Artefact
from probegen.runtime.result import Record, Result, read_npz

if TYPE_CHECKING:
    from probegen.runtime import metrics
    from probegen.runtime.concept_scores import ConceptScore, ConceptScores, tcav
    from probegen.runtime.concepts import concept_vector
    from probegen.runtime.generation import Generated, generate
    from probegen.runtime.maximisation import Maximised, maximise
    from probegen.runtime.superpixel_labels import superpixels
    from probegen.runtime.verification import Reproduction, verify

__all__ = [
    "Artefact",
    "ConceptScore",
    "ConceptScores",
    "Generated",
    "Maximised",
    "Record",
    "Reproduction",
    "Result",
    "concept_vector",
    "generate",
    "load",
    "maximise",
    "metrics",
    "read_npz",
    "superpixels",
    "tcav",
    "verify",
]

#: Where the functions live that come with their first use.
_HOMES = {
    "ConceptScore": "probegen.runtime.concept_scores",
    "ConceptScores": "probegen.runtime.concept_scores",
    "Generated": "probegen.runtime.generation",
    "Maximised": "probegen.runtime.maximisation",
    "Reproduction": "probegen.runtime.verification",
    "concept_vector": "probegen.runtime.concepts",
    "generate": "probegen.runtime.generation",
    "maximise": "probegen.runtime.maximisation",
    "superpixels": "probegen.runtime.superpixel_labels",
    "tcav": "probegen.runtime.concept_scores",
    "verify": "probegen.runtime.verification",
}


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return importlib.import_module("probegen.runtime.metrics")
    if name not in _HOMES:
        raise AttributeError(f"module 'probegen.runtime' has no attribute {name!r}")
    found = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
