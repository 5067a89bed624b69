"""A file's outputs in float64, by onnx's reference evaluator: slow, and independent of runtimes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from sweep.onnx_models.case import Array

_SINGLE, _DOUBLE = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE


class Precise:
    """A model whose float32 tensors are float64.

    Attributes:
        inputs: names of its inputs.
        names: names of its outputs.
    """

    def __init__(self, path: Path) -> None:
        model = onnx.load(str(path))
        _widen(model.graph)
        for function in model.functions:
            for node in function.node:
                _widen_node(node)
        self.inputs = [i.name for i in model.graph.input]
        self.names = [o.name for o in model.graph.output]
        self._evaluator = ReferenceEvaluator(model)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the outputs by name."""
        wide = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in inputs.items()}
        found = self._evaluator.run(None, wide)
        return dict(zip(self.names, map(np.asarray, found), strict=True))


def _widen(graph: Any) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        if kind.elem_type == _SINGLE:
            kind.elem_type = _DOUBLE
    for node in graph.node:
        _widen_node(node)


def _widen_node(node: Any) -> None:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            _widen(attribute.g)
        elif attribute.type == onnx.AttributeProto.TENSOR:
            _widen_tensor(attribute.t)
        elif attribute.name in ("to", "dtype") and attribute.i == _SINGLE:
            attribute.i = _DOUBLE
        elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
            single = attribute.name == "value_float"
            array = np.asarray(attribute.f if single else list(attribute.floats), np.float64)
            attribute.Clear()
            attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
            attribute.t.CopyFrom(numpy_helper.from_array(array))


def _widen_tensor(tensor: Any) -> None:
    if tensor.data_type == _SINGLE:
        wide = numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
