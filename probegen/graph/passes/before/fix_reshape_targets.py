"""Reshapes to a size that is known before a request comes.

tf2onnx writes a Dense on more than two axes as a product of matrices and a Reshape back, whose
target it puts together from the shape of the input in six small operators. These keep a tensor
alive, and a transpose of it, that nothing else needs.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import constant_of, shape_of


def fix_reshape_targets(model: ir.Model) -> None:
    """Gives a Reshape a constant target where at most one size of its result is open.

    `Reshape(x, Concat(size_of_batch, [4, 7]))` -> `Reshape(x, [-1, 4, 7])`

    Needs: shapes inferred, `name_open_sizes` done.
    Leaves: what put the targets together, which is read no more.
    """
    graph = model.graph
    b = Builder(graph, graph.opset_imports.get("", 0), prefix="reshape_targets")
    for node in graph:
        if node.op_type != "Reshape" or node.domain or constant_of(node.inputs[1]) is not None:
            continue
        shape = shape_of(node.outputs[0])
        if shape is None:
            continue
        numbers = [size for size in shape if isinstance(size, int)]
        if len(shape) - len(numbers) > 1 or math.prod(numbers) == 0:
            continue
        target = [size if isinstance(size, int) else -1 for size in shape]
        node.replace_input_with(1, b.const(np.array(target, np.int64)))
        node.attributes.pop("allowzero", None)
