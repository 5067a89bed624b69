"""Slices name the axes that they cut, and no others."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from probegen.graph.core.values import constant_of, new_initializer

#: From here on an end stands for "to the end", as the ONNX specification recommends it.
_UNBOUNDED = 2**31 - 1


def narrow_slices(model: ir.Model) -> None:
    """Leaves out of every Slice the axes of which it takes everything.

    `Slice(x, starts=[0, 2], ends=[2147483647, 5], axes=[0, 1])` -> `Slice(x, [2], [5], [1], [1])`

    tf2onnx writes `x[:, a:b]` as a Slice over both axes. Shape inference then no longer knows that
    an open first size stayed what it was. So this runs before shapes are inferred.

    Leaves: a Slice that cuts nothing at all, and one whose bounds are computed.
    """
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Slice" and not node.domain:
            _narrow(node)


def _narrow(node: ir.Node) -> None:
    bounds = [constant_of(v) for v in node.inputs[1:]]
    if any(b is None for b in bounds) or len(bounds) < 2:  # before opset 10 they are attributes
        return
    starts, ends = (b for b in bounds[:2] if b is not None)
    axes = bounds[2] if len(bounds) > 2 and bounds[2] is not None else np.arange(len(starts))
    steps = bounds[3] if len(bounds) > 3 and bounds[3] is not None else np.ones(len(starts), int)
    cuts = (starts != 0) | (ends < _UNBOUNDED) | (steps != 1)
    if cuts.all() or not cuts.any() or not isinstance(node.graph, ir.Graph):
        return
    node.resize_inputs(5)
    for position, array in enumerate((starts, ends, axes, steps), start=1):
        name = f"{node.outputs[0].name}/bound_{position}"
        bound = new_initializer(node.graph, name, array[cuts].astype(np.int64))
        node.replace_input_with(position, bound)
