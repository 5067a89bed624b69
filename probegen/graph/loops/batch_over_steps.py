"""An operator of a loop's body, applied to all steps at once.

Each value gets a leading time axis. What an operator becomes then depends on which operands
differ from step to step; `batch_over_steps` answers with a writer, or with None where the
operator has no such form here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import Dim, attribute, constant_of, shape_of, subgraphs_of

#: Writes an operator for all steps: (builder, operands, number of steps) -> its outputs.
#: Operands that differ from step to step come with a leading time axis, others as they are.
Writer = Callable[[Builder, Sequence[ir.Value | None], Dim], tuple[ir.Value, ...]]


def batch_over_steps(node: ir.Node, differs: Sequence[bool]) -> Writer | None:
    """Returns what writes `node` for all steps at once.

    Args:
        node: a node of a body.
        differs: for each input, whether it differs from step to step; one at least does.
    """
    find = _FORMS.get(node.op_type)
    ranked = all(v is None or v.shape is not None for v in (*node.inputs, *node.outputs))
    if find is None or node.domain or not ranked or any(True for _ in subgraphs_of(node)):
        return None
    return find(node, differs)


def copy_once(node: ir.Node) -> Writer | None:
    """Returns what writes a node whose inputs are the same in all steps: one copy of it."""
    if node.op_type in RANDOM or any(True for _ in subgraphs_of(node)):
        return None

    def write(b: Builder, operands: Sequence[ir.Value | None], _: Dim) -> tuple[ir.Value, ...]:
        return b.again(node, operands, [shape_of(v) for v in node.outputs])

    return write


def _written(
    b: Builder,
    node: ir.Node,
    operands: Sequence[ir.Value | None],
    steps: Dim,
    changes: Mapping[str, Any] | None = None,
) -> tuple[ir.Value, ...]:
    """Writes the node's operator over other operands, its outputs with a time axis."""
    shapes = [[steps, *(shape_of(v) or ())] for v in node.outputs]
    return b.again(node, operands, shapes, changes or {})


def _rank(value: ir.Value | None) -> int:
    return 0 if value is None else len(shape_of(value) or ())


def _later(axis: int) -> int:
    """Returns where an axis lies behind the time axis; one counted from the end stays."""
    return axis if axis < 0 else axis + 1


# -- forms ---------------------------------------------------------------------------------


def _elementwise(node: ir.Node, differs: Sequence[bool]) -> Writer:
    """Broadcasting aligns shapes at the end: operands of lower rank get axes after time."""
    rank = max(map(_rank, node.inputs))

    def write(b: Builder, operands: Sequence[ir.Value | None], steps: Dim) -> tuple[ir.Value, ...]:
        aligned = [
            b.unsqueeze(v, range(1, 1 + rank - _rank(one))) if moved and v is not None else v
            for v, one, moved in zip(operands, node.inputs, differs, strict=True)
        ]
        return _written(b, node, aligned, steps)

    return write


def _first_only(node: ir.Node, differs: Sequence[bool]) -> Writer | None:
    """Elementwise in the first input; bounds and slopes are the same in all steps."""
    if any(differs[1:]) or any(_rank(v) for v in node.inputs[1:]):
        return None
    return lambda b, operands, steps: _written(b, node, operands, steps)


def _matmul(node: ir.Node, differs: Sequence[bool]) -> Writer | None:
    ranks = [_rank(v) for v in node.inputs]
    equal = ranks[0] == ranks[1]
    plain = [rank == 2 for rank, moved in zip(ranks, differs, strict=True) if not moved]
    if min(ranks) < 2 or not (all(plain) if plain else equal):
        return None
    return lambda b, operands, steps: _written(b, node, operands, steps)


def _along_axis(default: int) -> Callable[[ir.Node, Sequence[bool]], Writer | None]:
    """For operators with one attribute `axis`, whose first input differs and others do not."""

    def find(node: ir.Node, differs: Sequence[bool]) -> Writer | None:
        if any(differs[1:]):
            return None
        axis = _later(int(attribute(node, "axis", default)))
        return lambda b, operands, steps: _written(b, node, operands, steps, {"axis": axis})

    return find


def _concat(node: ir.Node, differs: Sequence[bool]) -> Writer | None:
    if not all(differs):
        return None
    axis = _later(int(attribute(node, "axis")))
    return lambda b, operands, steps: _written(b, node, operands, steps, {"axis": axis})


def _with_axes(position: int) -> Callable[[ir.Node, Sequence[bool]], Writer | None]:
    """For operators whose axes are a constant input at `position`, given without fail.

    They keep their element type: a Slice has all its bounds in one.
    """

    def find(node: ir.Node, differs: Sequence[bool]) -> Writer | None:
        array = constant_of(node.inputs[position]) if position < len(node.inputs) else None
        if array is None or any(differs[1:]):
            return None
        axes = np.array([_later(int(axis)) for axis in array.reshape(-1)], array.dtype)

        def write(
            b: Builder, operands: Sequence[ir.Value | None], steps: Dim
        ) -> tuple[ir.Value, ...]:
            moved = [b.const(axes) if i == position else v for i, v in enumerate(operands)]
            return _written(b, node, moved, steps)

        return write

    return find


def _transpose(node: ir.Node, _: Sequence[bool]) -> Writer:
    rank = _rank(node.inputs[0])
    order = attribute(node, "perm", list(range(rank))[::-1])
    perm = [0, *(p + 1 for p in order)]
    return lambda b, operands, steps: _written(b, node, operands, steps, {"perm": perm})


def _reshape(node: ir.Node, differs: Sequence[bool]) -> Writer | None:
    """A size of 0 copies the size at its place: so does one more in front."""
    sizes = constant_of(node.inputs[1])
    if sizes is None or any(differs[1:]) or attribute(node, "allowzero", 0):
        return None
    target = [0, *(int(s) for s in sizes)]
    return lambda b, operands, steps: _written(b, node, [operands[0], b.ints(*target)], steps)


def _batched(node: ir.Node, differs: Sequence[bool]) -> Writer | None:
    """For operators whose first axis is a batch: steps and batch become one axis, and two."""
    sizes = [() if v is None else shape_of(v) or () for v in (node.inputs[0], *node.outputs)]
    inner, *outer = [dims[1:] for dims in sizes]
    static = all(isinstance(d, int) for d in (*inner, *(d for dims in outer for d in dims)))
    if not static or any(differs[1:]) or len(node.outputs) > 1:
        return None  # a second output is the indices of a MaxPool: they count over the batch

    def write(b: Builder, operands: Sequence[ir.Value | None], steps: Dim) -> tuple[ir.Value, ...]:
        whole = operands[0]
        if whole is None:
            raise ValueError(f"{node.op_type} has no first input")
        folded = b.reshape(whole, [-1, *(d for d in inner if isinstance(d, int))])
        results = b.again(node, [folded, *operands[1:]], [[None, *dims] for dims in outer])
        unfolded = []
        for result, dims, one in zip(results, outer, node.outputs, strict=True):
            time_and_batch = b.concat([b.size(whole, 0), b.size(whole, 1)], 0)
            target = b.concat([time_and_batch, b.ints(*(d for d in dims if isinstance(d, int)))], 0)
            shape = [steps, *(shape_of(one) or ())]
            unfolded.append(b.op("Reshape", result, target, shape=shape))
        return tuple(unfolded)

    return write


def _gemm(node: ir.Node, differs: Sequence[bool]) -> Writer | None:
    """Becomes MatMul and Add: Gemm has no batch axes."""
    if differs[1] or attribute(node, "transA", 0):
        return None
    alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)

    def write(b: Builder, operands: Sequence[ir.Value | None], steps: Dim) -> tuple[ir.Value, ...]:
        a, weights, *rest = (v for v in operands if v is not None)
        if attribute(node, "transB", 0):
            weights = b.transpose(weights, [1, 0])
        shape = [steps, *(shape_of(node.outputs[0]) or ())]
        result = b.mul(b.op("MatMul", a, weights, shape=shape), alpha)
        for added in rest:
            ranked = b.unsqueeze(added, [1] if differs[2] and _rank(node.inputs[2]) == 1 else [])
            result = b.add(result, b.mul(ranked, beta))
        result.type = node.outputs[0].type
        return (result,)

    return write


_FORMS: Mapping[str, Callable[[ir.Node, Sequence[bool]], Writer | None]] = {
    **dict.fromkeys(
        (
            *("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Pow", "Where", "PRelu"),
            *("And", "Or", "Not", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"),
            *("Identity", "Cast", "Neg", "Abs", "Sign", "Exp", "Log", "Sqrt", "Reciprocal"),
            *("Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Floor", "Ceil", "Round", "Mod"),
            *("Sigmoid", "Tanh", "Relu", "HardSigmoid", "HardSwish", "LeakyRelu", "Elu", "Selu"),
            *("Softplus", "Softsign", "ThresholdedRelu", "Erf", "Gelu", "Celu", "Mish"),
        ),
        _elementwise,
    ),
    "Clip": _first_only,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Concat": _concat,
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Split": _along_axis(0),
    "Softmax": _along_axis(-1),
    "LogSoftmax": _along_axis(-1),
    "Slice": _with_axes(3),
    **dict.fromkeys(
        ("Squeeze", "Unsqueeze", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin"),
        _with_axes(1),
    ),
    **dict.fromkeys(("Conv", "ConvTranspose", "MaxPool", "AveragePool", "DepthToSpace"), _batched),
}
RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike"}
    | {"RandomUniform", "RandomUniformLike"}
)
