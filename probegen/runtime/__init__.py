"""Loads, runs, decodes and draws artefacts, without TensorFlow.

    from probegen import runtime

    artefact = runtime.load("m.onnx")
    result = artefact.run(x)
    result["saliency/image"].plot()

Only the ground, `probegen.artefact` and numpy are imported here; onnxruntime comes with the first
`load`, matplotlib with the first picture, TensorFlow only where a SavedModel is loaded.
"""

from probegen.runtime.load import load
from probegen.runtime.loaded import Artefact
from probegen.runtime.result import Record, Result, read_npz

__all__ = ["Artefact", "Record", "Result", "load", "read_npz"]
