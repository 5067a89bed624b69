"""Leaves out of a file the shapes that every runtime works out for itself.

They take as much room as the nodes do. Those stay that follow from what an input holds, or that
we know better than shape inference does: that of a Reshape, say, whose open size is the batch.
Runtimes that lose the batch there no longer see that two operands have one shape.
"""

from __future__ import annotations

import onnx_ir as ir

#: Operators whose output has a shape that follows from shapes and attributes alone.
_PLAIN = frozenset(
    {"Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Conv", "Div"}
    | {"Elu", "Erf", "Exp", "Gemm", "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity"}
    | {"LayerNormalization", "LeakyRelu", "Log", "MatMul", "MaxPool", "Mul", "Neg", "Pow", "Relu"}
    | {"Sigmoid", "Softmax", "Softplus", "Sqrt", "Sub", "Sum", "Tanh", "Transpose"}
)


def drop_plain_shapes(model: ir.Model) -> None:
    """Forgets shape and type of what plain operators make, in a graph and the branches of an If.

    `Relu(x)`, noted as `float[batch, 16]` -> `Relu(x)`, nothing noted

    Leaves: those of outputs and in bodies of loops: inference there does not see what a state
    looks like.
    """
    _drop(model.graph)


def _drop(graph: ir.Graph) -> None:
    outputs = set(graph.outputs)
    for node in graph:
        if node.op_type in _PLAIN and not node.domain:
            for value in node.outputs:
                if value not in outputs:
                    value.shape, value.type = None, None
        if node.op_type == "If" and not node.domain:
            for branch in node.attributes.values():
                _drop(branch.as_graph())
