"""Weights in float16: half the file; numbers are computed in float32 as before.

Engines turn the weights back when they open the file, so that it runs wherever the artefact ran, at
the same speed, and no gradient is lost below float16's smallest number (6e-8) or above its largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.graph.core.builder import Builder

#: Tensors of fewer elements stay: a mean or an epsilon costs nothing, and may be small.
_FEWEST = 32


def rewrite(model: ir.Model, predictions: int, requests: Sequence[Any], folder: Path) -> ir.Model:
    """Stores the large weights of a model as float16.

    `MatMul(x, w)` -> `MatMul(x, Cast(w in float16, to float32))`

    Leaves: weights that hold a number beyond float16's largest, 65504.

    See `probegen.quantisation.Rewrite`.
    """
    del predictions, requests, folder
    graph = model.graph
    builder = Builder(graph, graph.opset_imports[""], prefix="probegen/float16")
    for name, value in list(graph.initializers.items()):
        stored = value.const_value
        if stored is None or stored.dtype != ir.DataType.FLOAT or stored.size < _FEWEST:
            continue
        with np.errstate(over="ignore"):
            coarse = stored.numpy().astype(np.float16)
        if not np.isfinite(coarse).all() or value in graph.inputs:
            continue
        half = builder.const(coarse)
        back = builder.op("Cast", half, to=ir.DataType.FLOAT.value, shape=tuple(coarse.shape))
        back.type = ir.TensorType(ir.DataType.FLOAT)
        ir.convenience.replace_all_uses_with(value, back)
        graph.initializers.pop(name)
    if builder.nodes:
        graph.insert_before(graph[0], builder.nodes)
        builder.nodes = []
    return model
