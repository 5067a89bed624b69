"""Slices name the axes they cut and no others, and those that share an axis out are a Split.

tf2onnx writes `x[:, a:b]` as a Slice over both axes, the first from 0 to the largest integer.
Shape inference then no longer knows that an open first size stayed what it was. Several such
Slices are how Keras takes the gates of a recurrent layer apart; the gradient of each is padded
with zeros to the whole and added up, that of a Split is joined.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.values import constant_of, new_initializer, shape_of

#: From here on an end stands for "to the end", as the ONNX specification recommends it.
_UNBOUNDED = 2**31 - 1


def narrow_slices(graph: ir.Graph) -> None:
    """Leaves out of every Slice the axes of which it takes everything.

    Needs: opset 10 or later (bounds are inputs).
    Leaves: the same values; a Slice that cuts nothing at all stays as it is.
    """
    for node in list(graph.all_nodes()):
        if node.op_type == "Slice" and not node.domain:
            _narrow(node)


def _narrow(node: ir.Node) -> None:
    bounds = [constant_of(v) for v in node.inputs[1:]]
    if any(b is None for b in bounds) or len(bounds) < 2:
        return
    starts, ends = (b for b in bounds[:2] if b is not None)
    axes = bounds[2] if len(bounds) > 2 and bounds[2] is not None else np.arange(len(starts))
    steps = bounds[3] if len(bounds) > 3 and bounds[3] is not None else np.ones(len(starts), int)
    cut = (starts != 0) | (ends < _UNBOUNDED) | (steps != 1)
    if cut.all() or not cut.any():
        return
    node.resize_inputs(5)
    for position, array in enumerate((starts, ends, axes, steps), start=1):
        node.replace_input_with(position, _constant(node, f"bound_{position}", array[cut]))


def split_slices(graph: ir.Graph) -> None:
    """Makes a Split of the Slices of a value that share out one of its axes.

    Needs: opset 13 or later, shapes inferred, `narrow_slices` done.
    Leaves: the same values, under the same names.
    """
    groups: dict[tuple[ir.Graph | None, ir.Value, int], dict[tuple[int, int], ir.Node]] = {}
    for node in graph.all_nodes():
        interval = _interval(node)
        whole = node.inputs[0] if node.inputs else None
        if interval is not None and whole is not None:
            axis, start, end = interval
            owner = node.graph if isinstance(node.graph, ir.Graph) else None
            groups.setdefault((owner, whole, axis), {}).setdefault((start, end), node)
    for (owner, whole, axis), parts in groups.items():
        ordered = sorted(parts)
        size = (shape_of(whole) or ())[axis]
        joints = [0, *(end for _, end in ordered)]
        if owner is not None and len(parts) > 1 and joints == [*(s for s, _ in ordered), size]:
            _split(owner, axis, [parts[interval] for interval in ordered])


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
    return axis, start, end


def _split(owner: ir.Graph, axis: int, slices: Sequence[ir.Node]) -> None:
    """Puts one Split in the place of Slices, in the order of what they take."""
    first = next(node for node in owner if node in slices)
    values = [node.outputs[0] for node in slices]
    whole = first.inputs[0]  # which a Split written before may have put in place of a Slice
    sizes = np.array([(shape_of(v) or ())[axis] for v in values])
    split = ir.node(
        "Split",
        [whole, _constant(first, "sizes", sizes)],
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


def _constant(node: ir.Node, hint: str, array: npt.NDArray[np.generic]) -> ir.Value:
    """Returns a new initializer of the node's graph, named after the node's output.

    Raises:
        TypeError: the node belongs to no graph.
    """
    if not isinstance(node.graph, ir.Graph):
        raise TypeError(f"{node.name!r} belongs to no graph")
    return new_initializer(node.graph, f"{node.outputs[0].name}/{hint}", array.astype(np.int64))
