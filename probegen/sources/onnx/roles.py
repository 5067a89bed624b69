"""What an operator is for, in the words that Keras' layers have as well."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from probegen.graph.core.values import constant_of, shape_of

_BY_ROLE: Mapping[str, tuple[str, ...]] = {
    "convolution": ("Conv", "ConvTranspose", "DeformConv"),
    "recurrent": ("LSTM", "GRU", "RNN", "Loop", "Scan"),
    "normalisation": (
        "BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization",
        "RMSNormalization", "LpNormalization", "MeanVarianceNormalization", "LRN",
    ),
    "pooling": (
        "MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool",
        "MaxRoiPool", "RoiAlign", "ReduceMean", "ReduceMax", "ReduceSum",
    ),
    "dense": ("Gemm", "MatMul", "Einsum"),
    "activation": (
        "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Clip", "Sigmoid",
        "HardSigmoid", "Tanh", "Softmax", "LogSoftmax", "Softplus", "Softsign", "HardSwish", "Mish",
        "Gelu", "Swish", "Erf",
    ),
    "merging": ("Add", "Sub", "Mul", "Div", "Concat", "Sum", "Mean", "Max", "Min", "Where"),
    "reshaping": (
        "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Tile", "Pad", "Slice",
        "Split", "Resize", "Upsample", "DepthToSpace", "SpaceToDepth", "Identity", "Cast",
    ),
    "regularisation": ("Dropout",),
}  # fmt: skip
_ROLES = {op_type: role for role, names in _BY_ROLE.items() for op_type in names}


def role_of(node: ir.Node) -> str:
    """Returns the role of a node; `"other"` where its operator does not tell.

    A Gather from a stored table is an embedding; sums and products with one stored operand stand
    on the way and merge nothing.
    """
    if is_embedding(node):
        return "embedding"
    role = _ROLES.get(node.op_type, "other") if not node.domain else "other"
    if role == "merging" and sum(constant_of(v) is None for v in node.inputs) < 2:
        return "other"
    return role


def is_embedding(node: ir.Node) -> bool:
    """Tells whether a node looks whole numbers up in a stored table of vectors."""
    if node.op_type != "Gather" or node.domain:
        return False
    table, ids = node.inputs
    shape = None if table is None or not table.is_initializer() else shape_of(table)
    return shape is not None and len(shape) >= 2 and ids is not None and constant_of(ids) is None
