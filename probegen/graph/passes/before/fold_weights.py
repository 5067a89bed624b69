"""Stores weights as the operator that reads them wants them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.values import attribute, constant_of, new_initializer, static_shape

_RESHAPES = frozenset({"Reshape", "Squeeze", "Unsqueeze"})
_FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE})


def fold_weights(model: ir.Model) -> None:
    """Transposes, reshapes and casts weights at compile time.

    `MatMul(x, Transpose(w))` -> `MatMul(x, w/folded)`

    What stays out of the conversion from Keras comes with these operators before it, and so do the
    weights that PyTorch exports; they hide a kernel from the passes that merge into it.

    Needs: shapes inferred.
    Leaves: weights that something else reads as well, which would otherwise be stored twice, and
    those that a request may override.
    """
    graph = model.graph
    for node in list(graph):
        weight = node.inputs[0] if node.inputs and not node.domain else None
        if weight is None or not weight.is_initializer() or len(weight.uses()) != 1:
            continue
        result = node.outputs[0]
        if result.is_graph_output() or weight.is_graph_output():
            continue
        folded = _folded(node, weight)
        if folded is None:
            continue
        new = new_initializer(graph, f"{result.name}/folded", np.asarray(folded, order="C"))
        result.replace_all_uses_with(new)
        graph.remove(node, safe=True)
        graph.initializers.pop(weight.name or "")
        weight.const_value = None  # the graph remembers what was once an input of it


def _folded(node: ir.Node, weight: ir.Value) -> npt.NDArray[Any] | None:
    """Returns what a node makes of a weight, None where that is not for here to say."""
    shape = static_shape(node.outputs[0])
    if node.op_type == "Transpose":
        array = constant_of(weight)
        return None if array is None else np.transpose(array, attribute(node, "perm"))
    if node.op_type in _RESHAPES and shape is not None:
        array = constant_of(weight)
        return None if array is None else array.reshape(shape)
    if node.op_type == "Cast" and weight.dtype in _FLOATS:
        to = ir.DataType(attribute(node, "to"))
        array = constant_of(weight) if to in _FLOATS else None
        return None if array is None else array.astype(to.numpy())
    return None
