"""Graphs in ONNX text as files, which every engine reads; and what is asked of loops in them."""

import numpy as np
import onnx
import onnx_ir as ir

from tests.engines import save

HEADER = '<ir_version: 9, opset_import: ["" : 18]>\n'


def rng(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def prepared(text, path, **weights):
    """Returns a model that lies at `path` as well."""
    save(HEADER + text, path, **weights)
    return ir.load(path)


def body_of(model, op_type):
    return (
        next(n for n in model.graph.all_nodes() if n.op_type == op_type)
        .attributes["body"]
        .as_graph()
    )


def checked(model, path):
    ir.save(model, path)
    onnx.checker.check_model(path, full_check=True)
    return path
