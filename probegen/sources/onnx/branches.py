"""Branches whose condition is known: the one that is taken stands in the place of the `If`."""

from __future__ import annotations

from collections.abc import Callable

import onnx
import onnx_ir as ir

from probegen.graph.core.branches import known_branches, put_branch_in_place
from probegen.graph.core.values import UnknownShapeError
from probegen.sources.onnx.names import ORIGIN, nodes_of, origin_of

_BRANCHES = ("then_branch", "else_branch")
#: Elements of a weight that inference may want to know the content of.
_SMALL = 256


def take_known_branches(graph: ir.Graph) -> bool:
    """Puts the nodes of a branch in the place of an `If` whose condition is known.

    Needs: every value of the model has a name of its own.

    Returns:
        True where there was one.
    """
    changed = False
    for node, branch in known_branches(graph):
        _take(node, branch)
        changed = True
    return changed


def take_only_valid_branches(model: ir.Model, simplified: Callable[[ir.Model], object]) -> bool:
    """Takes the branch of an `If` where the other would leave a graph that is not valid.

    PyTorch writes `x.squeeze(1)` of an open size as an `If`: squeezed where the size is 1, else as
    it is. What follows most often takes one rank alone, so that with any other size a run fails.

    Args:
        model: changed in place.
        simplified: simplifies a copy in which a branch was taken.

    Needs: every node has a name of its own, shapes inferred.

    Returns:
        True where a branch was taken.
    """
    for node in nodes_of(model.graph):
        if node.op_type != "If" or node.domain or all(v.shape is not None for v in node.outputs):
            continue
        valid = [b for b in _BRANCHES if _is_valid(model, str(node.name), b, simplified)]
        if len(valid) == 1:
            _take(node, node.attributes[valid[0]].as_graph())
            return True
    return False


def _is_valid(
    model: ir.Model, name: str, branch: str, simplified: Callable[[ir.Model], object]
) -> bool:
    """Tells whether a model is valid, as far as ranks tell, where an `If` takes a branch."""
    copy = model.clone()
    node = next(n for n in nodes_of(copy.graph) if n.name == name)
    _take(node, node.attributes[branch].as_graph())
    try:
        simplified(copy)
        onnx.shape_inference.infer_shapes(_without_weights(copy), strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, UnknownShapeError, ValueError, IndexError):
        return False
    return True


def _without_weights(model: ir.Model) -> onnx.ModelProto:
    """Returns a model whose large weights are inputs, so that it is small; changes it."""
    graph = model.graph
    for name, value in list(graph.initializers.items()):
        if value.const_value is not None and value.const_value.size > _SMALL:
            value.type, value.shape = ir.TensorType(value.const_value.dtype), value.shape
            graph.initializers.pop(name)
            value.const_value = None
            graph.inputs.append(value)
    return ir.serde.serialize_model(model)


def _take(node: ir.Node, branch: ir.Graph) -> None:
    for identity in put_branch_in_place(node, branch):
        identity.meta[ORIGIN] = origin_of(node)
