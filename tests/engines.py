"""Runs a file in engines other than onnxruntime, as somebody who has that engine alone would."""

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx.reference import ReferenceEvaluator

#: As exact as its CPU kernels are; elsewhere they may take bfloat16.
EXACT = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1"}


def with_onnxruntime(path):
    """Returns what runs a file there: feeds by name -> outputs by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options)
    names = [o.name for o in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, feeds), strict=True))


def with_openvino(path, *, from_memory=False):
    """Returns what runs a file there; a file and its bytes go through two readers of OpenVINO's."""
    core = openvino.Core()
    model = core.read_model(path.read_bytes() if from_memory else str(path))
    compiled = core.compile_model(model, "CPU", EXACT)
    inputs = {name: port for port in compiled.inputs for name in port.get_names()}
    outputs = {name: port for port in compiled.outputs for name in port.get_names()}

    def run(feeds):
        found = compiled({inputs[name]: array for name, array in feeds.items()})
        return {name: np.array(found[port]) for name, port in outputs.items()}

    return run


def with_the_reference(path):
    """Returns what runs a file in onnx's own evaluator in Python."""
    evaluator = ReferenceEvaluator(str(path))
    names = evaluator.output_names
    return lambda feeds: dict(zip(names, evaluator.run(None, feeds), strict=True))


def in_onnxruntime(path, feeds):
    """Returns the outputs by name."""
    return with_onnxruntime(path)(feeds)


def in_openvino(path, feeds, *, from_memory=False):
    """Returns the outputs by name."""
    return with_openvino(path, from_memory=from_memory)(feeds)


def in_the_reference(path, feeds):
    """Returns the outputs by name."""
    return with_the_reference(path)(feeds)


def apart(found, expected):
    """Returns by output how far two engines are apart: max |a - b| over max |b|.

    Infinite where one has another shape, or a number that the other has not.
    """
    assert found.keys() == expected.keys()
    return {name: _apart(found[name], expected[name]) for name in expected}


def _apart(a, b):
    if a.shape != b.shape or a.dtype != b.dtype or np.isnan(a).any() or np.isnan(b).any():
        return float("inf")
    if not b.size:
        return 0.0
    a, b = a.astype(float), b.astype(float)
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))


def save(text, path, **weights):
    """Writes a model given as text, with more weights than one would type."""
    model = onnx.parser.parse_model(text)
    for name, array in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(model, full_check=True)
    onnx.save(onnx.shape_inference.infer_shapes(model, data_prop=True), path)
    return path
