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
    """Transposes, reshapes, casts and splits weights at compile time, in the bodies of loops too.

    `MatMul(x, Transpose(w))` -> `MatMul(x, w/folded)`

    What stays out of the conversion from Keras comes with these operators before it, and so do the
    weights that PyTorch exports; they hide a kernel from the passes that merge into it. In a body
    they are done anew at each step, as where a ConvLSTM has one kernel for all gates.

    Needs: shapes inferred.
    Leaves: weights that others read as they are, which would otherwise be stored twice, and those
    that a request may override.
    """
    graph, done = model.graph, set[ir.Node]()
    for node in list(graph.all_nodes()):
        weight = node.inputs[0] if node.inputs and not node.domain else None
        if weight is None or node in done or weight.is_graph_output():
            continue
        if graph.initializers.get(weight.name or "") is not weight:
            continue
        readers = list(dict.fromkeys(use.node for use in weight.uses()))
        if not all(_makes_the_same(node, other, weight) for other in readers):
            continue
        folded = _folded(node, weight)
        if folded is None:
            continue
        for place, array in enumerate(folded):
            name = f"{node.outputs[place].name}/folded"
            new = new_initializer(graph, name, np.asarray(array, order="C"))
            for reader in readers:
                reader.outputs[place].replace_all_uses_with(new)
        for reader in readers:
            assert reader.graph is not None
            reader.graph.remove(reader, safe=True)
        done.update(readers)
        graph.initializers.pop(weight.name or "")
        weight.const_value = None  # the graph remembers what was once an input of it


def _makes_the_same(node: ir.Node, other: ir.Node, weight: ir.Value) -> bool:
    """Tells whether two nodes make the same of a weight, and nobody outside sees what."""
    alike = (node.op_type, node.attributes) == (other.op_type, other.attributes)
    if not alike or other.domain or list(other.inputs).count(weight) != 1:
        return False
    if other.inputs[0] is not weight or any(v.is_graph_output() for v in other.outputs):
        return False
    shapes = [[static_shape(v) for v in one.outputs] for one in (node, other)]
    return other is node or (shapes[0] == shapes[1] and None not in shapes[0])


def _folded(node: ir.Node, weight: ir.Value) -> list[npt.NDArray[Any]] | None:
    """Returns what a node makes of a weight, None where that is not for here to say."""
    shape = static_shape(node.outputs[0])
    if node.op_type == "Split":
        return _parts(node, weight)
    if node.op_type == "Transpose":
        array = constant_of(weight)
        return None if array is None else [np.transpose(array, attribute(node, "perm"))]
    if node.op_type in _RESHAPES and shape is not None:
        array = constant_of(weight)
        return None if array is None else [array.reshape(shape)]
    if node.op_type == "Cast" and weight.dtype in _FLOATS:
        to = ir.DataType(attribute(node, "to"))
        array = constant_of(weight) if to in _FLOATS else None
        return None if array is None else [array.astype(to.numpy())]
    return None


def _parts(node: ir.Node, weight: ir.Value) -> list[npt.NDArray[Any]] | None:
    """Returns the parts that a Split makes of a weight, None where their sizes are not known."""
    axis, array = attribute(node, "axis", 0), constant_of(weight)
    if array is None or weight.dtype not in _FLOATS:
        return None
    sizes = constant_of(node.inputs[1]) if len(node.inputs) > 1 and node.inputs[1] else None
    if sizes is None:
        shapes = [static_shape(result) for result in node.outputs]
        if None in shapes:
            return None
        sizes = np.array([s[axis] for s in shapes if s is not None])
    ends = np.cumsum(sizes)
    return np.split(array, ends[:-1], axis) if ends[-1] == array.shape[axis] else None
