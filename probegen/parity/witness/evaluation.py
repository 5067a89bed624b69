"""Single nodes, evaluated by onnx's reference evaluator in float64.

Resizing is evaluated by onnxruntime, in float32: where a place falls on an element to rounding (7
elements to 17), the reference evaluator takes a wrong neighbour. `GridSample` is as well, in
float64: that evaluator needs seconds for a picture. `GatherElements` is written here: it takes no
axis counted from the end, and no indices of another size than the data. So is `Pad`, of which it
takes no widths below 0, which cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = npt.NDArray[Any]

#: Functions of onnx's reference evaluator are as they are in this operator set and older ones.
_IR_VERSION = 10
#: Operators that onnxruntime evaluates.
IN_FLOAT32 = frozenset({"Resize"})
_IN_FLOAT64 = frozenset({"GridSample"})
#: The operator set from which onnxruntime does so, and what ways of sampling were called before.
_SAMPLING, _CALLED_BEFORE = 20, {b"bilinear": b"linear", b"bicubic": b"cubic"}


class GatherElements(OpRun):
    """Takes elements along one axis; along the others those that the indices reach."""

    op_domain = ""

    def _run(self, data: Array, indices: Array, axis: int = 0) -> tuple[Array]:
        along = axis % data.ndim
        sizes = (None if i == along else n for i, n in enumerate(indices.shape))
        reached = data[tuple(slice(n) for n in sizes)]
        return (np.take_along_axis(reached, indices, along),)


class Pad(OpRun):
    """Cuts where a width is below 0, and then pads what is left."""

    op_domain = ""

    def _run(
        self,
        data: Array,
        pads: Array,
        constant_value: Array | None = None,
        axes: Array | None = None,
        mode: Any = "constant",
    ) -> tuple[Array]:
        widths = np.zeros((data.ndim, 2), np.int64)
        widths[slice(None) if axes is None else axes] = np.reshape(pads, (2, -1)).T
        ends = np.asarray(data.shape) + np.minimum(widths[:, 1], 0)
        starts = np.maximum(-widths[:, 0], 0)
        left = data[tuple(slice(a, b) for a, b in zip(starts, ends, strict=True))]
        filled = 0 if constant_value is None else np.asarray(constant_value).reshape(())
        options = {"constant_values": filled} if mode == "constant" else {}
        return (np.pad(left, np.maximum(widths, 0), mode, **options),)


class NodeEvaluator:
    """Evaluates nodes of one graph on arrays, each node prepared once."""

    def __init__(self, opset: int) -> None:
        self._opset = opset
        self._prepared: dict[ir.Node, Any] = {}

    def __call__(self, node: ir.Node, arrays: Sequence[Array | None]) -> list[Array]:
        """Returns the outputs of a node.

        Args:
            node: any node without subgraphs.
            arrays: its inputs, None where one is left out; floating ones as float64.
        """
        narrow = node.op_type in IN_FLOAT32
        if narrow:
            arrays = [_narrowed(a) for a in arrays]
        if node not in self._prepared:
            self._prepared[node] = self._prepare(node, arrays)
        feed = {f"i{k}": a for k, a in enumerate(arrays) if a is not None}
        with np.errstate(all="ignore"):
            found = list(self._prepared[node].run(None, feed))
        return [a.astype(np.float64) for a in found] if narrow else found

    def _prepare(self, node: ir.Node, arrays: Sequence[Array | None]) -> Any:
        proto, narrow = ir.serde.serialize_node(node), node.op_type in IN_FLOAT32
        del proto.input[:], proto.output[:]
        proto.input.extend(f"i{k}" if a is not None else "" for k, a in enumerate(arrays))
        proto.output.extend(f"o{k}" for k in range(len(node.outputs)))
        values = [
            onnx.helper.make_tensor_value_info(
                f"i{k}",
                onnx.helper.np_dtype_to_tensor_dtype(a.dtype),
                # onnxruntime wants to know how many sizes there are.
                list(a.shape) if a.ndim == 1 else [None] * a.ndim,
            )
            for k, a in enumerate(arrays)
            if a is not None
        ]
        quick = node.op_type in _IN_FLOAT64
        kind = onnx.TensorProto.FLOAT if narrow else onnx.TensorProto.UNDEFINED
        kind = onnx.TensorProto.DOUBLE if quick else kind
        outputs = [
            onnx.helper.make_tensor_value_info(f"o{k}", kind, None)
            for k in range(len(node.outputs))
        ]
        graph = onnx.helper.make_graph([proto], "node", values, outputs)
        opset = self._opset
        if quick and opset < _SAMPLING:
            opset = _SAMPLING
            for mode in (a for a in graph.node[0].attribute if a.name == "mode"):
                mode.s = _CALLED_BEFORE.get(mode.s, mode.s)
        opsets = [onnx.helper.make_opsetid("", opset)]
        model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        if not narrow and not quick:
            return ReferenceEvaluator(model, new_ops=[GatherElements, Pad])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers)


def wide(array: Array) -> Array:
    """Returns an array of floating numbers in 64 bits; others as they are."""
    return array.astype(np.float64) if array.dtype.kind in "fV" else array


def _narrowed(array: Array | None) -> Array | None:
    """Returns an array in 32 bits in the place of 64."""
    if array is None or array.dtype != np.float64:
        return array
    return array.astype(np.float32)
