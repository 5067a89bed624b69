"""Takes out what does nothing when a model is used: dropout, copies, and operands left empty."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from probegen.errors import SourceError
from probegen.graph.core.values import attribute, constant_of, shape_of
from probegen.sources.onnx.names import ORIGIN, nodes_of, origin_of, told
from probegen.sources.onnx.rewriting import graph_of


def drop_idle_nodes(graph: ir.Graph) -> None:
    """Takes `Dropout` and `Identity` out of a graph and those within it.

    `Relu(Identity(x))` -> `Relu(x)`, `Resize(x, [], [], sizes)` -> `Resize(x, , , sizes)`

    Leaves: one whose result is an output of a graph, as an `Identity`.

    Raises:
        SourceError: a node works as in training.
    """
    for node in nodes_of(graph):
        if node.domain:
            continue
        if node.op_type == "Dropout":
            _drop(node)
        elif node.op_type == "Identity":
            _pass_over(node)
        elif node.op_type == "Resize":
            _leave_out_empty(node)


def _leave_out_empty(node: ir.Node) -> None:
    """Leaves out operands that are constants without elements, as tf2onnx writes them.

    In a branch of an `If`, where onnx does not see how many elements they have, its inference
    takes them for given.
    """
    for place, value in enumerate(node.inputs):
        held = constant_of(value)
        if held is not None and held.size == 0:
            node.replace_input_with(place, None)


def leave_out_empty_pieces(graph: ir.Graph) -> bool:
    """Takes pieces of size 0 out of what joins, and out what then splits nothing off.

    `Concat(x, y [N, 0])` -> `x`; `Split(x)` into all of it and nothing -> `x`. The rotary embedding
    of all features, as onnx writes it out, is of this kind.

    Needs: shapes inferred.

    Returns:
        Whether anything changed.
    """
    changed = False
    for node in list(nodes_of(graph)):
        if node.domain or node.op_type not in ("Concat", "Split"):
            continue
        if node.op_type == "Concat":
            full = [v for v in node.inputs if _size_along(node, v) != 0]
            if not full or len(full) == len(node.inputs):
                continue
            for place, value in enumerate(full):
                node.replace_input_with(place, value)
            node.resize_inputs(len(full))
            changed = True
        else:
            empty = [v for v in node.outputs if _size_along(node, v) == 0]
            used = any(v.uses() or v.is_graph_output() for v in empty)
            if used or len(empty) != len(node.outputs) - 1 or node.outputs[0] in empty:
                continue
            node.resize_inputs(1)
            node.resize_outputs(1)
        if len(node.inputs) == 1:
            node.op_type = "Identity"
            node.attributes.clear()
            _pass_over(node)
            changed = True
    return changed


def _size_along(node: ir.Node, value: ir.Value | None) -> object:
    """Returns the size of a tensor along the axis that a node joins or splits."""
    shape = None if value is None else shape_of(value)
    axis = int(attribute(node, "axis", 0))
    known = shape is not None and -len(shape) <= axis < len(shape)
    return shape[axis] if shape is not None and known else None


def refuse_training(graph: ir.Graph) -> None:
    """Refuses normalisation by the batch.

    Needs: constants folded; the standardised weights of some networks are written so.

    Raises:
        SourceError: there is one.
    """
    for node in nodes_of(graph):
        if node.op_type == "BatchNormalization" and attribute(node, "training_mode", 0):
            raise SourceError(
                f"{told(node)} works in training mode: it normalises by the batch that it is "
                "given. Export the model for inference (model.eval() in PyTorch)."
            )


def _drop(node: ir.Node) -> None:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        training = constant_of(node.inputs[2])
        if training is None or training.any():
            raise SourceError(
                f"{told(node)} works in training mode: it drops values at random. Export the "
                "model for inference (model.eval() in PyTorch)."
            )
    mask = node.outputs[1] if len(node.outputs) > 1 else None
    if mask is not None and (mask.uses() or mask.is_graph_output()):
        write_mask(node, mask, True)
    node.resize_outputs(1)
    node.resize_inputs(1)
    node.op_type = "Identity"
    node.attributes.clear()
    _pass_over(node)


def write_mask(node: ir.Node, mask: ir.Value, kept: bool) -> None:
    """Lets a mask of the shape of a node's first input stand for an output of the node."""
    shape = ir.node("Shape", [node.inputs[0]], name=f"{node.name}/shape")
    shape.outputs[0].name = f"{mask.name}/shape"
    shape.outputs[0].dtype = ir.DataType.INT64
    each = ir.tensor(np.asarray([kept]))
    full = ir.node("ConstantOfShape", shape.outputs, {"value": each}, name=f"{node.name}/mask")
    for one in (shape, full):
        one.meta[ORIGIN] = origin_of(node)
    graph_of(node).insert_before(node, [shape, full])
    new = full.outputs[0]
    new.type, new.shape = ir.TensorType(ir.DataType.BOOL), mask.shape
    ir.convenience.replace_all_uses_with(mask, new, replace_graph_outputs=True)
    name, mask.name = mask.name, None
    new.name = name


def _pass_over(node: ir.Node) -> None:
    source, result = node.inputs[0], node.outputs[0]
    if source is None or result.is_graph_output():
        return
    ir.convenience.replace_all_uses_with(result, source)
    graph_of(node).remove(node, safe=True)
