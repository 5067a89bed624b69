"""What adds up to one along some axes: softmaxes, as one operation or written out."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

from probegen.sources.keras.links import constant, links

#: Operations that numbers pass unchanged, but for the order and number of their axes.
PASS = frozenset(
    {
        "BroadcastTo",
        "Cast",
        "CheckNumerics",
        "ConcatV2",
        "ExpandDims",
        "Identity",
        "IdentityN",
        "Pack",
        "PreventGradient",
        "Reshape",
        "Slice",
        "Squeeze",
        "StopGradient",
        "StridedSlice",
        "Tile",
        "Transpose",
    }
)
TIMES = frozenset({"Mul", "MulNoNan"})
OVER = frozenset({"RealDiv", "DivNoNan", "Div"})
_MIN_RANK = 2  # batch, key
#: What stands between a sum and a division by it: an epsilon against zero.
_GUARDS = frozenset({"AddV2", "Add", "Maximum", "Identity", "Cast"})
#: Operations followed back from one; what makes it stands near.
_MOST_STEPS = 200


class Softmax(NamedTuple):
    """Numbers that add up to one along some axes."""

    tensor: Any
    keys: frozenset[int]


def softmax_of(op: Any) -> Softmax | None:
    """Returns what an operation makes if that adds up to one: a softmax, written out or not.

    Written out it is `e / sum(e)`, `e * (1 / sum(e))`, `exp(x - logsumexp(x))` or
    `exp(log_softmax(x))`, with `e = exp(x)`, masked perhaps.
    """
    if op.type == "Softmax":
        rank = op.outputs[0].shape.rank
        keys = frozenset({rank - 1} if rank else ())
    elif op.type in OVER or op.type in TIMES:
        above = normalised(op)
        keys = frozenset()
        if above is not None and _is_exponential(above):
            keys = _summed_axes(_total(op, above))
    elif op.type == "Exp":
        keys = _over_several(op) or _of_logarithm(op.inputs[0])
    else:
        return None
    made = Softmax(op.outputs[0], keys)
    return made if keys and made.tensor.shape.rank >= _MIN_RANK else None


def normalised(op: Any) -> Any | None:
    """Returns what an operation divides by its own sum; None where it does nothing of the kind."""
    if op.type in OVER:
        return op.inputs[0] if _total(op, op.inputs[0]) is not None else None
    if op.type in TIMES:
        return next((t for t in op.inputs if _total(op, t) is not None), None)
    return None


def key_axes(tensor: Any) -> tuple[int, ...]:
    """Returns the axes of weights that a softmax sums over; empty if unknown."""
    made = softmax_of(tensor.op) if tensor is tensor.op.outputs[0] else None
    if made is not None:
        return tuple(sorted(made.keys))
    if tensor.op.type not in PASS | TIMES | OVER | {"Select", "SelectV2"}:
        return ()
    for link in links(tensor.op):
        if link.result is tensor and link.operand is not tensor:
            before = key_axes(link.operand)
            after = {b for a, b in link.pairs if a in before}
            if before and len(after) == len(before):
                return tuple(sorted(after))
    return ()


def _total(op: Any, above: Any) -> Any | None:
    """Returns the sum of `above` that an operation divides it by, None where it does not."""
    if op.type in OVER:
        total = op.inputs[1].op
    else:
        other = next((t.op for t in op.inputs if t is not above), None)
        while other is not None and other.type in ("Identity", "Cast"):
            other = other.inputs[0].op
        if other is None:
            return None
        if other.type == "Reciprocal":
            total = other.inputs[0].op
        elif other.type in OVER and tf.get_static_value(other.inputs[0]) is not None:
            total = other.inputs[1].op
        else:
            return None
    while total.type in _GUARDS:
        total = total.inputs[0].op
    return total if total.type == "Sum" and total.inputs[0] is above else None


def _summed_axes(total: Any) -> frozenset[int]:
    rank = total.inputs[0].shape.rank or 0
    return frozenset(a % rank for a in constant(total.inputs[1]) or () if rank)


def _is_exponential(tensor: Any) -> bool:
    """Tells whether numbers are exponentials, masked perhaps."""
    made = tensor.op
    for _ in range(_MOST_STEPS):
        if made.type == "Exp":
            return True
        if made.type in ("Select", "SelectV2"):
            made = made.inputs[1].op
        elif made.type in PASS | TIMES:
            made = made.inputs[0].op
        else:
            return False
    return False


def _over_several(op: Any) -> frozenset[int]:
    """Returns the axes of `exp(x - logsumexp(x))`, Keras's softmax over several axes."""
    difference = op.inputs[0].op
    if difference.type != "Sub":
        return frozenset()
    scores, total = difference.inputs
    made = total.op
    if made.type in ("AddV2", "Add"):
        made = next((t.op for t in made.inputs if t.op.type == "Log"), made)
    if made.type != "Log" or total.shape.rank != scores.shape.rank or not total.shape.rank:
        return frozenset()
    return frozenset(i for i in range(1, total.shape.rank) if total.shape[i] == 1)


def _of_logarithm(tensor: Any) -> frozenset[int]:
    """Returns the axes of a logarithm of a softmax, where it is one."""
    if tensor.op.type == "LogSoftmax":
        return frozenset({(tensor.shape.rank or 0) - 1})
    if tensor.op.type not in PASS:
        return frozenset()
    for link in links(tensor.op):
        if link.result is tensor:
            before = _of_logarithm(link.operand)
            return frozenset(b for a, b in link.pairs if a in before)
    return frozenset()
