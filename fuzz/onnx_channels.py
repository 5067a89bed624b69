"""Which axis of an input holds the channels, by what reads it: nothing of probegen is asked."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx

#: Read `[batch, channel, ...positions]`.
_SECOND = frozenset(
    {
        "AveragePool", "BatchNormalization", "Conv", "ConvTranspose", "DepthToSpace",
        "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "GroupNormalization",
        "InstanceNormalization", "LRN", "LpPool", "MaxPool", "SpaceToDepth",
    }
)  # fmt: skip
#: Read `[..., channel]`; a product does with a matrix that is stored.
_LAST = frozenset({"GRU", "LSTM", "RNN", "MatMul"})
#: Leave each axis what it is.
_SAME = frozenset(
    {
        "Abs", "Cast", "Celu", "Clip", "Cos", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid",
        "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Sin",
        "Softplus", "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
    }
)  # fmt: skip


def channel_axis(model: onnx.ModelProto, name: str, rank: int) -> int | None:
    """Returns the axis of the channels of an input, None where no reader tells, or they differ.

    Only what reads the input itself is asked, or reads it behind operators that leave its axes. A
    product with a matrix takes the last axis whatever it is: with something anywhere behind it that
    has its channels second, both may be right.
    """
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for read in dict.fromkeys(node.input):
            readers.setdefault(read, []).append(node)
    stored = {i.name for i in model.graph.initializer}
    stored |= {n.output[0] for n in model.graph.node if n.op_type == "Constant"}
    told = _told(readers, name, rank, stored)
    if told - {1} and any(node.op_type in _SECOND for node in _behind(readers, name)):
        return None
    return told.pop() if len(told) == 1 else None


def _behind(readers: Mapping[str, list[onnx.NodeProto]], name: str) -> list[onnx.NodeProto]:
    """Returns the nodes that depend on a tensor."""
    found: list[onnx.NodeProto] = []
    names, seen = [name], {name}
    while names:
        for node in readers.get(names.pop(), ()):
            found.append(node)
            new = [output for output in node.output if output not in seen]
            names += new
            seen.update(new)
    return found


def _told(
    readers: Mapping[str, list[onnx.NodeProto]], name: str, rank: int, stored: Collection[str]
) -> set[int]:
    found: set[int] = set()
    for node in readers.get(name, ()):
        if node.domain or node.input[0] != name:
            continue
        if node.op_type in _SECOND:
            found.add(1)
        elif node.op_type in _LAST and rank > 1 and node.input[1] in stored:
            found.add(rank - 1)
        elif node.op_type in _SAME:
            found |= _told(readers, node.output[0], rank, stored)
    return found
