"""What twins of methods by scores share: scores of a Keras model or an ONNX file, by themselves."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import onnxruntime


def scores_of(model):
    """Returns what gives the scores before the last softmax of a Keras model, in float64."""
    last = model.layers[-1]
    before = keras.Model(model.inputs, last.input)
    kernel, bias = (v.astype(np.float64) for v in last.get_weights())
    return lambda x: before.predict_on_batch(x).astype(np.float64) @ kernel + bias


def best_of(scores):
    """Returns what gives the score of the class that is best at `x`, at other inputs."""

    def best(x):
        classes = scores(x).argmax(1)
        return lambda changed: scores(changed)[np.arange(len(classes)), classes]

    return best


#: `softmax(tanh(relu(x K1 + b) P) W)`: `x` has rows of 3 channels, K1 mixes channels.
ONNX_TEXT = """<ir_version: 9, opset_import: ["" : 17]>
  g (float[n, 5, 3] x) => (float[n, 4] y)
  <float[3, 4] k = {%s}, float[20, 4] w = {%s}, int64[2] flat = {0, -1}>
  { mixed = MatMul(x, k)  kept = Relu(mixed)  row = Reshape(kept, flat)
    bent = Tanh(row)  scores = MatMul(bent, w)  y = Softmax(scores) }"""
K = ((np.arange(12).reshape(3, 4) * 5 % 7 - 3) / 4).astype(np.float32)
W = ((np.arange(80).reshape(20, 4) * 11 % 13 - 6) / 5).astype(np.float32)


def onnx_model():
    """Returns a small ONNX model: `[n, 5, 3]` -> 4 classes."""
    text = ONNX_TEXT % tuple(", ".join(map(str, v.reshape(-1))) for v in (K, W))
    return onnx.parser.parse_model(text)


def onnx_scores(x):
    """Returns its scores before the softmax, by numpy in float64."""
    mixed = np.maximum(np.asarray(x, np.float64) @ K.astype(np.float64), 0)
    return np.tanh(mixed.reshape(len(x), -1)) @ W.astype(np.float64)


def scans_in(path):
    """Returns the operators of the graphs in the loops of an ONNX file, each with its loop's."""
    found = []

    def visit(graph, inside):
        for node in graph.node:
            if inside:
                found.append(node.op_type)
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    visit(attribute.g, inside or node.op_type in ("Scan", "Loop"))

    visit(onnx.load(path).graph, False)
    return found


def session(path):
    """Returns a session on a file."""
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
