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


def settle_reshapes(graph: ir.Graph) -> None:
    """Gives a Reshape a constant target where at most one size of its result is open.

    Needs: shapes inferred.
    Leaves: the same values; what put the targets together is read no more.
    """
    b = Builder(graph, graph.opset_imports.get("", 0), prefix="settled")
    for node in graph:
        if node.op_type != "Reshape" or node.domain or constant_of(node.inputs[1]) is not None:
            continue
        shape = shape_of(node.outputs[0])
        if shape is None:
            continue
        known = [size for size in shape if isinstance(size, int)]
        if len(shape) - len(known) > 1 or math.prod(known) == 0:
            continue
        target = [size if isinstance(size, int) else -1 for size in shape]
        node.replace_input_with(1, b.const(np.array(target, np.int64)))
        node.attributes.pop("allowzero", None)
