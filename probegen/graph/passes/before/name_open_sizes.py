"""One name for each open size, as far as it can be told where it went.

Shape inference gives the size that a Reshape works out, its -1, a new name, though it most often
is the batch; where the result meets the batch in a sum or product, the sum of the two gets yet
another. A gradient would then be summed over sizes that are found equal at run time only, one by
one, from the first such layer on (the squeeze-and-excite blocks of EfficientNet have two).
"""

from __future__ import annotations

import math

import onnx_ir as ir

from probegen.graph.core.values import Dim, broadcast, constant_of, shape_of

#: Operators whose inputs are broadcast to the shape of their output.
_BROADCASTING = frozenset(
    {"Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max"}
    | {"Mean", "Min", "Mod", "Mul", "Or", "Pow", "PRelu", "Sub", "Sum", "Where", "Xor"}
)


def name_open_sizes(graph: ir.Graph) -> None:
    """Gives sizes that are equal by the way they were made one name, or their number.

    Needs: topological order, shapes inferred.
    Leaves: the same nodes; values of subgraphs keep their names.
    """
    same: dict[str, Dim] = {}
    for node in graph:
        for value in node.outputs:
            _rename(value, same)
        made = _shape_made(node)
        given = shape_of(node.outputs[0]) if made is not None else None
        if made is None or given is None or len(made) != len(given):
            continue
        for old, new in zip(given, made, strict=True):
            if isinstance(old, str) and new is not None and old != new:
                same[old] = new
        _rename(node.outputs[0], same)


def _rename(value: ir.Value, same: dict[str, Dim]) -> None:
    shape = shape_of(value)
    if shape is not None and any(d in same for d in shape if isinstance(d, str)):
        value.shape = ir.Shape([same.get(d, d) if isinstance(d, str) else d for d in shape])


def _shape_made(node: ir.Node) -> tuple[Dim, ...] | None:
    """Returns what the inputs of a node tell of the shape of its output, None for nothing."""
    if node.domain:
        return None
    if node.op_type == "Reshape":
        return _reshaped(node)
    if node.op_type in _BROADCASTING:
        return broadcast(*(shape_of(v) for v in node.inputs if v is not None))
    if node.op_type == "MatMul":
        return _stacked(node)
    return None


def _stacked(node: ir.Node) -> tuple[Dim, ...] | None:
    """Returns the shape of a product of stacks of matrices, None where one of them is a vector."""
    left, right = (None if v is None else shape_of(v) for v in node.inputs)
    if left is None or right is None or min(len(left), len(right)) < 2:
        return None
    return (*(broadcast(left[:-2], right[:-2]) or ()), left[-2], right[-1])


def _reshaped(node: ir.Node) -> tuple[Dim, ...] | None:
    """Finds the size that a Reshape works out: what the others leave of the input's elements."""
    target = constant_of(node.inputs[1])
    given = shape_of(node.inputs[0]) if node.inputs[0] is not None else None
    if target is None or given is None or None in given:
        return None
    wanted: list[Dim] = [
        given[i] if size == 0 and i < len(given) else int(size) for i, size in enumerate(target)
    ]
    if wanted.count(-1) != 1:
        return None
    left = [d for d in given if isinstance(d, str)]
    for size in wanted:
        if size in left:
            left.remove(str(size))
        elif isinstance(size, str):
            return None
    before = math.prod(d for d in given if isinstance(d, int))
    after = math.prod(d for d in wanted if isinstance(d, int) and d != -1)
    if after == 0 or before % after:
        return None
    if not left:
        found: Dim = before // after
    elif len(left) == 1 and before == after:
        found = left[0]
    else:
        return None
    return tuple(found if size == -1 else size for size in wanted)
