"""Sizes that are computed at run time though shapes say them: found, and written as constants.

Exporters write `x.reshape(x.size(0), -1)` as a chain of Shape, Gather and Concat. Of each such
value is known, element by element, a number, an open size (a name, or a product of such), or
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from probegen.graph.core.values import Dim, attribute, broadcast, shape_of
from probegen.graph.passes.before.name_open_sizes import rename_sizes, reshaped, shape_by_inputs
from probegen.sources.onnx.constants import put_constant
from probegen.sources.onnx.known_elements import WHOLE, Known, evaluated, known_of
from probegen.sources.onnx.names import nodes_of
from probegen.sources.onnx.same_sizes import UNNAMED
from probegen.sources.onnx.size_operands import FIXES


def write_known_sizes(graph: ir.Graph) -> tuple[bool, Mapping[ir.Value, Known]]:
    """Writes what shapes decide as constants: whole values, targets of reshapes.

    `Reshape(x, Concat(Gather(Shape(x), 0), [-1]))` -> `Reshape(x, [0, -1])`

    Open sizes of the graph's values get the names that they are equal to by the way.

    Needs: topological order, shapes inferred.

    Returns:
        Whether something was written; and of values that are made of open sizes what is known,
        element by element.
    """
    known: dict[ir.Value, Known] = {}
    equal: dict[str, Dim] = {}
    changed = False
    for node in nodes_of(graph):
        for value in node.outputs:
            rename_sizes(value, equal)
        if node.domain:
            continue
        fix = FIXES.get(node.op_type)
        if fix is not None and fix(node, known):
            changed = True
            if node.graph is None:
                continue
        if node.graph is graph:  # in graphs of nodes a size may differ from step to step
            _name(node, known, equal)
        for value, found in zip(node.outputs, evaluated(node, known), strict=False):
            if found is None or not value.name or node.graph is None:
                continue
            if all(isinstance(d, (int, bool, np.integer, np.bool_)) for d in found.reshape(-1)):
                if value.dtype in WHOLE and not _is_stored(node):
                    put_constant(value, found.astype(value.dtype.numpy()))
                    changed = True
            else:
                known[value] = found
    return changed, known


def _name(node: ir.Node, known: Mapping[ir.Value, Known], equal: dict[str, Dim]) -> None:
    """Finds out open sizes of a node's first output that have a name of their own, or a number."""
    noted = shape_of(node.outputs[0])
    made = _shape_by_content(node, known) or shape_by_inputs(node)
    if noted is None or made is None or len(noted) != len(made):
        return
    for old, new in zip(noted, made, strict=True):
        if isinstance(old, str) and new is not None and old != new and old.startswith(UNNAMED):
            equal[old] = new
    rename_sizes(node.outputs[0], equal)
    if None in (shape_of(node.outputs[0]) or ()):
        sizes = [n if o is None else o for o, n in zip(noted, made, strict=True)]
        node.outputs[0].shape = ir.Shape(sizes)


def _shape_by_content(node: ir.Node, known: Mapping[ir.Value, Known]) -> tuple[Dim, ...] | None:
    """Returns what the content of inputs tells of the shape of a node's output."""
    if node.op_type == "Range":
        start, end, step = (known_of(v, known) for v in node.inputs)
        counts = start is not None and step is not None and (start.item(), step.item()) == (0, 1)
        length = end.item() if end is not None and counts else None
        return (length,) if isinstance(length, str) else None
    if node.op_type == "Slice":
        return _shape_of_slice(node, known)
    position = {"ConstantOfShape": 0, "Reshape": 1, "Expand": 1}.get(node.op_type)
    target = None if position is None else known_of(node.inputs[position], known)
    if target is None or target.ndim != 1:
        return None
    sizes: list[Dim] = [d if d is None or isinstance(d, str) else int(d) for d in target.tolist()]
    source = None if node.inputs[0] is None else shape_of(node.inputs[0])
    if node.op_type == "Expand":
        return broadcast(source, sizes)
    literal = bool(attribute(node, "allowzero", 0)) and 0 in sizes
    if node.op_type == "Reshape" and source is not None and not literal:
        # The one size that is left to be inferred may need sizes that are not known.
        sizes = [None if d == -1 else d for d in reshaped(source, sizes) or sizes]
    return None if any(isinstance(d, int) and d < 1 for d in sizes) else tuple(sizes)


def _shape_of_slice(node: ir.Node, known: Mapping[ir.Value, Known]) -> tuple[Dim, ...] | None:
    """Returns the sizes of the axes that a Slice does not cut, None for the others."""
    shape = None if node.inputs[0] is None else shape_of(node.inputs[0])
    axes = known_of(node.inputs[3], known) if len(node.inputs) > 3 else None
    if shape is None or axes is None or None in axes.tolist():
        return None
    cut = {int(axis) % len(shape) for axis in axes.tolist()}
    return tuple(None if i in cut else size for i, size in enumerate(shape))


def _is_stored(node: ir.Node) -> bool:
    return node.op_type == "Identity" and node.outputs[0].is_graph_output()
