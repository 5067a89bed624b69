"""Slices that share an axis out become one Split.

That is how Keras takes the gates of a recurrent layer apart, and how exporters write `chunk`. The
gradient of each Slice is padded with zeros to the whole and added up; that of a Split is joined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from probegen.graph.core.values import constant_of, new_initializer, shape_of

#: The opset from which on the sizes of a Split are an input.
_OPSET = 13


def join_slices(model: ir.Model) -> None:
    """Makes a Split of the Slices of a value that share out one of its axes.

    `a = x[:, 0:2]; b = x[:, 2:9]` (of 9) -> `a, b = Split<axis=1>(x, [2, 7])`

    Needs: topological order, shapes inferred, `narrow_slices` done.
    Leaves: the same values under the same names; Slices that overlap or leave something out.
    """
    if model.graph.opset_imports.get("", 0) < _OPSET:
        return
    groups: dict[tuple[ir.Graph, ir.Value, int], dict[tuple[int, int], ir.Node]] = {}
    for node in model.graph.all_nodes():
        interval = _interval(node)
        whole = node.inputs[0] if node.inputs else None
        if interval is not None and whole is not None and isinstance(node.graph, ir.Graph):
            axis, start, end = interval
            groups.setdefault((node.graph, whole, axis), {}).setdefault((start, end), node)
    for (owner, whole, axis), slices in groups.items():
        ordered = sorted(slices)
        size = (shape_of(whole) or ())[axis]
        joints = [0, *(end for _, end in ordered)]
        if len(slices) > 1 and joints == [*(start for start, _ in ordered), size]:
            _split(owner, axis, [(slices[i], i[1] - i[0]) for i in ordered])


def _interval(node: ir.Node) -> tuple[int, int, int] | None:
    """Returns axis, start and end of a Slice that cuts one axis of known size, in steps of 1."""
    if node.op_type != "Slice" or node.domain or len(node.inputs) < 4:
        return None
    bounds = [constant_of(v) for v in node.inputs[1:]]
    shape = shape_of(node.inputs[0]) if node.inputs[0] is not None else None
    if shape is None or any(b is None or b.size != 1 for b in bounds):
        return None
    start, end, axis, *step = (int(b.reshape(())) for b in bounds if b is not None)
    axis %= len(shape)
    size = shape[axis]
    if not isinstance(size, int) or step not in ([], [1]):
        return None
    start, end, _ = slice(start, end).indices(size)
    return (axis, start, end) if start < end else None


def _split(owner: ir.Graph, axis: int, pieces: Sequence[tuple[ir.Node, int]]) -> None:
    """Puts one Split in the place of Slices: each with its size, in the order of what they take."""
    slices = [node for node, _ in pieces]
    first = next(node for node in owner if node in slices)
    values = [node.outputs[0] for node in slices]
    whole = first.inputs[0]  # which a Split written before may have put in place of a Slice
    sizes = np.array([size for _, size in pieces], np.int64)
    split = ir.node(
        "Split",
        [whole, new_initializer(owner, f"{values[0].name}/sizes", sizes)],
        {"axis": axis},
        num_outputs=len(values),
        name=first.name,
    )
    owner.insert_before(first, split)
    for value, part in zip(values, split.outputs, strict=True):
        part.type, part.shape = value.type, value.shape
        ir.convenience.replace_all_uses_with(value, part, replace_graph_outputs=True)
    names = [value.name for value in values]
    owner.remove(slices, safe=True)
    for name, part in zip(names, split.outputs, strict=True):
        part.name = name
