"""Single nodes, evaluated by onnx's reference evaluator in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

Array = npt.NDArray[Any]

#: Functions of onnx's reference evaluator are as they are in this operator set and older ones.
_IR_VERSION = 10


class NodeEvaluator:
    """Evaluates nodes of one graph on arrays, each node prepared once."""

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._prepared: dict[ir.Node, ReferenceEvaluator] = {}

    def __call__(self, node: ir.Node, arrays: Sequence[Array | None]) -> list[Array]:
        """Returns the outputs of a node.

        Args:
            node: any node without subgraphs.
            arrays: its inputs, None where one is left out; floating ones as float64.
        """
        if node not in self._prepared:
            self._prepared[node] = self._prepare(node, arrays)
        feed = {f"i{k}": a for k, a in enumerate(arrays) if a is not None}
        with np.errstate(all="ignore"):
            return list(self._prepared[node].run(None, feed))

    def _prepare(self, node: ir.Node, arrays: Sequence[Array | None]) -> ReferenceEvaluator:
        proto = ir.serde.serialize_node(node)
        del proto.input[:], proto.output[:]
        proto.input.extend(f"i{k}" if a is not None else "" for k, a in enumerate(arrays))
        proto.output.extend(f"o{k}" for k in range(len(node.outputs)))
        values = [
            onnx.helper.make_tensor_value_info(
                f"i{k}", onnx.helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim
            )
            for k, a in enumerate(arrays)
            if a is not None
        ]
        outputs = [
            onnx.helper.make_tensor_value_info(f"o{k}", onnx.TensorProto.UNDEFINED, None)
            for k in range(len(node.outputs))
        ]
        graph = onnx.helper.make_graph([proto], "node", values, outputs)
        opsets = [onnx.helper.make_opsetid("", self._opset)]
        return ReferenceEvaluator(
            onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        )
