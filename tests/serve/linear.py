"""Artefacts made without TensorFlow: linear classifiers in ONNX files, of images and of words."""

import json

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


WORDS = """
<ir_version: 8, opset_import: ["" : 18]>
words (int64[batch, time] input_ids) => (float[batch, 2] scores)
{
    vectors = Gather (table, input_ids)
    axes = Constant <value_ints = [1]> ()
    scores = ReduceMean <keepdims = 0> (vectors, axes)
}
"""


def words_artefact(folder):
    """Writes one whose text a library takes apart; returns the path as text."""
    vocabulary = {"[UNK]": 0, "good": 1, "bad": 2}
    tokenizer = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    model = onnx.parser.parse_model(WORDS)
    table = np.float32([[0, 0], [1, -1], [-2, 2]])
    model.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
    path = folder / "words.onnx"
    pg.compile(model, [], path, verify=False, tokenizer=folder / "tokenizer.json")
    return str(path)
