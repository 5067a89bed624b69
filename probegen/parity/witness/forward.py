"""The forward pass as the source wrote it, with the values of all its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime

from probegen.graph.core.marks import MARK_DOMAIN
from probegen.graph.core.queries import is_float
from probegen.graph.core.values import constant_of
from probegen.graph.forward import ForwardGraph
from probegen.parity.witness.evaluation import NodeEvaluator

Array = npt.NDArray[Any]

_LOG_FATAL = 4


class ForwardValues:
    """Runs a forward graph, before any pass, and gives all its tensors.

    Attributes:
        graph: the graph, marks included.
        evaluate: evaluates single nodes of it.
    """

    def __init__(self, forward: ForwardGraph) -> None:
        self.graph = forward.graph
        self.evaluate = NodeEvaluator(forward.opset)
        self._constants = {
            v: _wide(known)
            for v in self.graph.initializers.values()
            if (known := constant_of(v)) is not None
        }
        model = forward.model.clone()
        for node in list(model.graph.all_nodes()):
            if node.domain == MARK_DOMAIN:  # onnxruntime knows no marks: each is its first input
                node.domain, node.op_type = "", "Identity"
                node.attributes.clear()
                node.resize_inputs(1)
        model.graph.opset_imports.pop(MARK_DOMAIN, None)
        made = [v for node in model.graph for v in node.outputs if v.name]
        model.graph.outputs[:] = made
        self._names = [str(v.name) for v in made]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _LOG_FATAL
        data = ir.serde.serialize_model(model).SerializeToString()
        self._session = onnxruntime.InferenceSession(
            data, options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {
            str(v.name): v.dtype.numpy() for v in self.graph.inputs if v.dtype is not None
        }

    def at(self, feed: Mapping[str, Array]) -> dict[ir.Value, Array]:
        """Returns every tensor for some inputs; floating ones as float64."""
        fed = {
            i.name: np.ascontiguousarray(np.asarray(feed[i.name]).astype(self._inputs[i.name]))
            for i in self._session.get_inputs()
        }
        by_name = dict(zip(self._names, self._session.run(self._names, fed), strict=True))
        values = dict(self._constants)
        values.update((v, _wide(np.asarray(feed[str(v.name)]))) for v in self.graph.inputs)
        for node in self.graph:
            values.update((v, _wide(by_name[str(v.name)])) for v in node.outputs if v.name)
        return values


def _wide(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind in "fV" else array


def floating(value: ir.Value | None) -> bool:
    """Tells whether a value is there and holds floating numbers."""
    return value is not None and is_float(value)
