"""An artefact made without TensorFlow: a linear classifier in an ONNX file."""

import numpy as np
import onnx
import onnx.parser

import probegen as pg

HEIGHT, WIDTH, CLASSES = 4, 3, 5
TEXT = """
<ir_version: 8, opset_import: ["" : 18]>
linear (float[batch, 4, 3] x) => (float[batch, 5] scores)
{
    flat = Flatten (x)
    scores = MatMul (flat, weights)
}
"""


def linear_artefact(path, target="input", **options):
    """Writes it; returns the path as text."""
    model = onnx.parser.parse_model(TEXT)
    weights = np.random.default_rng(0).normal(size=(HEIGHT * WIDTH, CLASSES)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    pg.compile(model, pg.InputGradient(target=target), path, verify=False, **options)
    return str(path)
