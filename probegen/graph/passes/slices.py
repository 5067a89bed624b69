"""Slices name the axes they cut, and no others.

tf2onnx writes `x[:, a:b]` as a Slice over both axes, the first from 0 to the largest integer.
Shape inference then no longer knows that an open first size stayed what it was.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from probegen.graph.builder import constant_of

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
    if any(b is None for b in bounds) or len(bounds) < 2 or node.graph is None:
        return
    starts, ends = (b for b in bounds[:2] if b is not None)
    axes = bounds[2] if len(bounds) > 2 and bounds[2] is not None else np.arange(len(starts))
    steps = bounds[3] if len(bounds) > 3 and bounds[3] is not None else np.ones(len(starts), int)
    cut = (starts != 0) | (ends < _UNBOUNDED) | (steps != 1)
    if cut.all() or not cut.any():
        return
    node.resize_inputs(5)
    for position, array in enumerate((starts, ends, axes, steps), start=1):
        name = f"{node.outputs[0].name}/bound_{position}"
        kept = array[cut].astype(np.int64)
        value = ir.Value(
            name=name,
            type=ir.TensorType(ir.DataType.INT64),
            shape=ir.Shape(kept.shape),
            const_value=ir.Tensor(kept, name=name),
        )
        node.graph.register_initializer(value)
        node.replace_input_with(position, value)
