"""One name for each open size, as far as it can be told where it went.

Shape inference gives the size that a Reshape works out, its -1, a new name, though it most often
is the batch; where the result meets the batch in a sum or product, the sum of the two gets yet
another. A gradient would then be summed over sizes that are found equal at run time only, one by
one, from the first such layer on (the squeeze-and-excite blocks of EfficientNet have two).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from probegen.graph.core.queries import BROADCASTING
from probegen.graph.core.size_products import product_of, quotient_of
from probegen.graph.core.values import Dim, attribute, broadcast, constant_of, shape_of


def name_open_sizes(model: ir.Model) -> None:
    """Gives sizes that are equal by the way they were made one name, or their number.

    `Reshape(x [batch, 16], [-1, 4, 4])`, noted as `[unk_0, 4, 4]` -> noted as `[batch, 4, 4]`

    Needs: topological order, shapes inferred.
    Leaves: all nodes as they are; in subgraphs shapes too.
    """
    equal: dict[str, Dim] = {}
    for node in model.graph:
        for value in node.outputs:
            rename_sizes(value, equal)
        by_inputs = shape_by_inputs(node)
        noted = shape_of(node.outputs[0]) if by_inputs is not None else None
        if by_inputs is None or noted is None or len(by_inputs) != len(noted):
            continue
        for old, new in zip(noted, by_inputs, strict=True):
            if isinstance(old, str) and new is not None and old != new:
                equal[old] = new
        rename_sizes(node.outputs[0], equal)


def rename_sizes(value: ir.Value, equal: Mapping[str, Dim]) -> None:
    """Notes open sizes of a value under the names, or as the numbers, that they are equal to."""
    shape = shape_of(value)
    if shape is not None and any(d in equal for d in shape if isinstance(d, str)):
        value.shape = ir.Shape([equal.get(d, d) if isinstance(d, str) else d for d in shape])


def shape_by_inputs(node: ir.Node) -> tuple[Dim, ...] | None:
    """Returns what the inputs of a node tell of the shape of its output, None for nothing."""
    if node.domain:
        return None
    if node.op_type == "Reshape":
        return _shape_of_reshape(node)
    if node.op_type in BROADCASTING:
        return broadcast(*(shape_of(v) for v in node.inputs if v is not None))
    if node.op_type == "MatMul":
        return _shape_of_product(node)
    return None


def _shape_of_product(node: ir.Node) -> tuple[Dim, ...] | None:
    """Returns the shape of a product of stacks of matrices, None where one of them is a vector."""
    left, right = (None if v is None else shape_of(v) for v in node.inputs)
    if left is None or right is None or min(len(left), len(right)) < 2:
        return None
    return (*(broadcast(left[:-2], right[:-2]) or ()), left[-2], right[-1])


def _shape_of_reshape(node: ir.Node) -> tuple[Dim, ...] | None:
    """Finds the size that a Reshape works out: what the others leave of the input's elements."""
    target = constant_of(node.inputs[1])
    if target is None or node.inputs[0] is None:
        return None
    if attribute(node, "allowzero", 0) and 0 in target:
        return None
    before = shape_of(node.inputs[0])
    return None if before is None else reshaped(before, [int(size) for size in target])


def reshaped(before: Sequence[Dim], target: Sequence[Dim]) -> tuple[Dim, ...] | None:
    """Returns the sizes that a Reshape makes, None where the one that it works out is not known.

    `reshaped(["batch", 12, "time"], [0, 3, -1])` -> `("batch", 3, "4 * time")`

    Args:
        before: the sizes of what is reshaped.
        target: what they are to be: sizes, 0 for the one that stands there, -1 for what is left;
            None where that is not known.
    """
    after = [before[i] if d == 0 and i < len(before) else d for i, d in enumerate(target)]
    if after.count(-1) != 1:
        return None
    inferred = quotient_of(product_of(before), product_of(d for d in after if d != -1))
    return None if inferred is None else tuple(inferred if d == -1 else d for d in after)
