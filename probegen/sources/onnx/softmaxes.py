"""What adds up to one along axes in a graph: softmaxes, as one operator or written out."""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.queries import operands, varying_inputs
from probegen.graph.core.values import attribute, constant_of, shape_of, whole_numbers

#: Operators that exponentials pass on the way to their sum.
_PASS = frozenset({"Identity", "Cast", "Mul", "Where"})
_GUARDS = frozenset({"Add", "Max", "Identity", "Cast", "Clip"})
#: Operators that bring a reduced tensor back to the axes of what was reduced.
_RESTORE = frozenset({"Reshape", "Unsqueeze", "Identity", "Cast"})
_MOST_STEPS = 16


def softmax_axes(node: ir.Node) -> tuple[int, ...]:
    """Returns the axes along which the result of a node adds up to one; none where none are known.

    Beside Softmax that is `e / sum(e)`, `e * (1 / sum(e))`, `exp(x - logsumexp(x))` and
    `exp(log_softmax(x))`, with `e = exp(x)`, masked perhaps; written out over one axis or several.
    """
    shape = shape_of(node.outputs[0]) if node.outputs and not node.domain else None
    if shape is None or len(shape) < 2:
        return ()
    rank = len(shape)
    if node.op_type == "Softmax":
        return (int(attribute(node, "axis", -1)) % rank,)
    if node.op_type in ("Div", "Mul"):
        above = normalised(node)
        return () if above is None or not _is_exponential(above[0]) else above[1]
    if node.op_type == "Exp" and node.inputs[0] is not None:
        return _of_logarithm(node.inputs[0], rank)
    return ()


def scores_before(node: ir.Node) -> ir.Value | None:
    """Returns what the result of a node is the softmax of, over one axis, however it is written.

    Written out, whatever is subtracted from all classes alike is left out, such as their largest.
    None where the result is no softmax, or where it is masked.
    """
    axes = softmax_axes(node)
    if len(axes) != 1:
        return node.inputs[0] if node.op_type == "Softmax" and not node.domain else None
    if node.op_type == "Softmax":
        return node.inputs[0]
    if node.op_type == "Exp":
        exponent: ir.Value | None = node.inputs[0]
    else:
        found = normalised(node)
        made = None if found is None else _without_casts(found[0])
        exponent = made.inputs[0] if made is not None and made.op_type == "Exp" else None
    return None if exponent is None else _before_shift(exponent, axes[0])


def _without_casts(value: ir.Value) -> ir.Node | None:
    node = value.producer()
    while node is not None and not node.domain and node.op_type in ("Identity", "Cast"):
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    return None if node is None or node.domain else node


def _before_shift(exponent: ir.Value, axis: int) -> ir.Value:
    """Returns what a number alike for all classes was subtracted from, or the value itself."""
    node = exponent.producer()
    if node is not None and node.op_type == "LogSoftmax" and not node.domain:
        return node.inputs[0] or exponent
    for scores, shift in operands(exponent, "Sub", both=False):
        for kind in ("ReduceMax", "ReduceLogSumExp"):
            if _reduced(scores, shift, kind) == (axis,):
                return scores
    return exponent


def normalised(node: ir.Node) -> tuple[ir.Value, tuple[int, ...]] | None:
    """Returns what a node divides by its own sum along axes, and these; None for all others."""
    if node.op_type == "Div":
        pairs = operands(node.outputs[0], "Div", both=False)
    elif node.op_type == "Mul":
        pairs = (
            (above, under)
            for above, other in operands(node.outputs[0], "Mul")
            for under in [_reciprocal(other)]
            if under is not None
        )
    else:
        return None
    for above, under in pairs:
        axes = _summed(above, under)
        if axes:
            return above, axes
    return None


def _reciprocal(value: ir.Value) -> ir.Value | None:
    """Returns what a value is one over."""
    node = value.producer()
    if node is None or node.domain:
        return None
    if node.op_type == "Reciprocal":
        return node.inputs[0]
    one = node.inputs[0] if node.op_type == "Div" else None
    return node.inputs[1] if one is not None and constant_of(one) is not None else None


def _summed(above: ir.Value, under: ir.Value) -> tuple[int, ...]:
    """Returns the axes along which a value is summed up by another, kept from zero perhaps."""
    node = under.producer()
    for _ in range(_MOST_STEPS):
        if node is None or node.domain or node.op_type not in _GUARDS:
            break
        own = varying_inputs(node)
        node = own[0].producer() if len(own) == 1 else None
    if node is None or node.op_type != "ReduceSum" or node.inputs[0] is not above:
        return ()
    return _kept_axes(node, above)


def _kept_axes(node: ir.Node, value: ir.Value) -> tuple[int, ...]:
    """Returns the axes that a node reduces and keeps, as far as they are known."""
    axes, shape = whole_numbers(node, "axes", 1), shape_of(value)
    if not axes or shape is None or not attribute(node, "keepdims", 1):
        return ()
    return tuple(sorted(a % len(shape) for a in axes))


def _is_exponential(value: ir.Value) -> bool:
    node = value.producer()
    for _ in range(_MOST_STEPS):
        if node is None or node.domain:
            return False
        if node.op_type == "Exp":
            return True
        if node.op_type not in _PASS:
            return False
        before = node.inputs[1 if node.op_type == "Where" else 0]
        node = None if before is None else before.producer()
    return False


def _of_logarithm(value: ir.Value, rank: int) -> tuple[int, ...]:
    """Returns the axes of a logarithm of a softmax, where a value is one."""
    node = value.producer()
    if node is None or node.domain:
        return ()
    if node.op_type == "LogSoftmax":
        return (int(attribute(node, "axis", -1)) % rank,)
    if node.op_type == "Transpose" and node.inputs[0] is not None:
        before = _of_logarithm(node.inputs[0], rank)
        perm = list(attribute(node, "perm") or range(rank)[::-1])
        return tuple(sorted(perm.index(axis) for axis in before))
    for scores, total in operands(value, "Sub", both=False):
        axes = _reduced(scores, total, "ReduceLogSumExp")
        if axes:
            return axes
    return ()


def _reduced(value: ir.Value, result: ir.Value, kind: str) -> tuple[int, ...]:
    """Returns the axes along which an operator reduced a value to one that stands beside it.

    Axes that it dropped may have been put back.
    """
    node = result.producer()
    for _ in range(_MOST_STEPS):
        if node is None or node.domain or node.op_type not in _RESTORE or node.inputs[0] is None:
            break
        node = node.inputs[0].producer()
    if node is None or node.domain or node.op_type != kind or node.inputs[0] is not value:
        return ()
    sizes, own = shape_of(value), shape_of(result)
    axes = whole_numbers(node, "axes", 1)
    if not axes or sizes is None or own is None or len(own) != len(sizes):
        return ()
    axes = sorted(a % len(sizes) for a in axes)
    others = [i for i in range(len(sizes)) if i not in axes]
    # One size that is not known is the one that is left.
    unlike = sum(own[i] is None or own[i] != sizes[i] for i in others)
    return tuple(axes) if all(own[a] == 1 for a in axes) and unlike <= 1 else ()
