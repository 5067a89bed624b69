"""Where a graph works on all samples of a batch together: a maximum, a sum, a softmax over them.

Which axis holds the samples is followed from the inputs, operator by operator, as far as that is
certain. What is not certain joins nothing here, so that nothing is said without ground.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import onnx_ir as ir

from probegen.graph.core.marks import MARK, MARK_DOMAIN, STOP_GRADIENT, STRAIGHT_THROUGH
from probegen.graph.core.queries import is_float, key_of, needed_for
from probegen.graph.core.values import (
    attribute,
    constant_of,
    shape_of,
    subgraphs_of,
    whole_numbers,
)

#: Values -> the axis along which samples lie, perhaps joined with windows, frames or the like.
_Places = Mapping[ir.Value, int]

#: Operators whose operands are aligned from behind.
_BROADCASTING = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "Where", "PRelu", "Mod"}
    | {"Expand", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor"}
)
#: Operators whose result has the axes of their first operand.
_IN_PLACE = frozenset(
    {"Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "CastLike", "Ceil", "Celu"}
    | {"Clip", "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid"}
    | {"HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not"}
    | {"Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"}
    | {"Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu", "Pad", "Tile", "Resize"}
)
#: Operators on images and series, which treat the samples along their first axis by themselves.
_OF_MAPS = frozenset(
    {"Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "LRN"}
    | {"GlobalAveragePool", "GlobalLpPool", "InstanceNormalization", "GroupNormalization"}
    | {"DepthToSpace", "SpaceToDepth"}
)
#: Operators that work along one axis -> the axis where none is said; of LayerNormalization all
#: axes behind it.
_ALONG = {
    "Softmax": -1,
    "LogSoftmax": -1,
    "Hardmax": -1,
    "LpNormalization": -1,
    "TopK": -1,
}
#: Operators that have all their results alike.
_SEVERAL = frozenset({"Split", "TopK"})
#: `axes` of MeanVarianceNormalization where none are said.
_MEAN_AND_VARIANCE = (0, 2, 3)
#: A slice that ends there or behind goes to the end of an axis: converters write various numbers.
_FAR = 10**6


def node_that_joins(graph: ir.Graph, samples: _Places, ends: Sequence[ir.Value]) -> ir.Node | None:
    """Returns the first node that makes one number of several samples, on the way to some values.

    None where there is none, as far as can be told. Whole numbers do not count: the longest of the
    texts of a batch is what masks are as long as.

    Args:
        graph: its nodes are in order.
        samples: inputs that hold samples -> the axis of the samples.
        ends: what is asked for.
    """
    needed = needed_for(graph, ends)
    places = dict(samples)
    for node in graph:
        if node in needed and (found := _joining(node, places)) is not None:
            return found
    return None


def _joining(node: ir.Node, places: dict[ir.Value, int]) -> ir.Node | None:
    """Notes where the samples of a node's results lie; returns what joins them, if it does."""
    for inner in (n for body in _branches(node) for n in body):
        if (found := _joining(inner, places)) is not None:
            return found
    given = [None if v is None else places.get(v) for v in node.inputs]
    if all(at is None for at in given):
        return None
    rule = _RULES.get(key_of(node))
    at = None if rule is None else rule(node, given)
    if at == _JOINED:
        floating = (v for v, place in zip(node.inputs, given, strict=True) if place is not None)
        return node if any(v is not None and _counts(v) for v in floating) else None
    if at is not None:
        made = node.outputs if node.op_type in _SEVERAL else node.outputs[:1]
        places.update((v, at) for v in made if at < (_rank(v) or 0))
    return None


def _branches(node: ir.Node) -> Iterable[ir.Graph]:
    return subgraphs_of(node) if node.op_type == "If" else ()


def _counts(value: ir.Value) -> bool:
    """Tells whether a value holds numbers of its own, and none made of whole ones, or of masks."""
    node = value.producer()
    before = node.inputs[0] if node is not None and node.op_type == "Cast" else None
    return is_float(value) and (before is None or _counts(before))


#: What a rule says of an operator that joins samples.
_JOINED = -1
#: A node, and for each operand where the samples lie, if that is known -> where they lie in the
#: first result.
_Rule = Callable[[ir.Node, Sequence[int | None]], int | None]


def _rank(value: ir.Value | None) -> int | None:
    shape = None if value is None else shape_of(value)
    return None if shape is None else len(shape)


def _broadcast(node: ir.Node, given: Sequence[int | None]) -> int | None:
    ranks = [_rank(v) for v in node.inputs]
    whole = _rank(node.outputs[0])
    if whole is None:
        return None
    found = {
        at + whole - rank
        for at, rank in zip(given, ranks, strict=True)
        if at is not None and rank is not None
    }
    # Batches along two axes: every sample beside every other.
    return found.pop() if len(found) == 1 else _JOINED if found else None


def _in_place(node: ir.Node, given: Sequence[int | None]) -> int | None:
    del node
    return given[0]


def _of_maps(node: ir.Node, given: Sequence[int | None]) -> int | None:
    del node
    return 0 if given[0] == 0 else None


def _batch_normalised(node: ir.Node, given: Sequence[int | None]) -> int | None:
    return _JOINED if given[0] == 0 and attribute(node, "training_mode", 0) else given[0]


def _along(node: ir.Node, given: Sequence[int | None]) -> int | None:
    rank = _rank(node.inputs[0])
    if given[0] is None or rank is None:
        return None
    axis = attribute(node, "axis", _ALONG[node.op_type]) % rank
    return _JOINED if axis == given[0] else given[0]


def _accumulated(node: ir.Node, given: Sequence[int | None]) -> int | None:
    axes, rank = whole_numbers(node, "", 1), _rank(node.inputs[0])
    if given[0] is None or rank is None or not axes:
        return None
    return _JOINED if axes[0] % rank == given[0] else given[0]


def _layer_normalised(node: ir.Node, given: Sequence[int | None]) -> int | None:
    rank = _rank(node.inputs[0])
    if given[0] is None or rank is None:
        return None
    return _JOINED if attribute(node, "axis", -1) % rank <= given[0] else given[0]


def _mean_and_variance(node: ir.Node, given: Sequence[int | None]) -> int | None:
    axes = attribute(node, "axes", list(_MEAN_AND_VARIANCE))
    return _JOINED if given[0] in axes else given[0]


def _reduced(node: ir.Node, given: Sequence[int | None]) -> int | None:
    rank, at = _rank(node.inputs[0]), given[0]
    if at is None or rank is None:
        return None
    axes = whole_numbers(node, "axes", 1)
    if axes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        return None  # computed at run time
    if not axes and attribute(node, "noop_with_empty_axes", 0):
        return at
    return _without(node, at, rank, axes or range(rank))


def _best(node: ir.Node, given: Sequence[int | None]) -> int | None:
    rank, at = _rank(node.inputs[0]), given[0]
    if at is None or rank is None:
        return None
    return _without(node, at, rank, [attribute(node, "axis", 0)])


def _without(node: ir.Node, at: int, rank: int, axes: Collection[int]) -> int:
    """Returns where samples lie once some axes are summed up."""
    gone = {axis % rank for axis in axes}
    if at in gone:
        return _JOINED
    kept = bool(attribute(node, "keepdims", 1))
    return at if kept else at - sum(axis < at for axis in gone)


def _transposed(node: ir.Node, given: Sequence[int | None]) -> int | None:
    rank = _rank(node.inputs[0])
    if given[0] is None or rank is None:
        return None
    return list(attribute(node, "perm", range(rank)[::-1])).index(given[0])


def _unsqueezed(node: ir.Node, given: Sequence[int | None]) -> int | None:
    axes, rank = whole_numbers(node, "axes", 1), _rank(node.outputs[0])
    if given[0] is None or rank is None or axes is None:
        return None
    new = {axis % rank for axis in axes}
    return [i for i in range(rank) if i not in new][given[0]]


def _squeezed(node: ir.Node, given: Sequence[int | None]) -> int | None:
    axes, rank = whole_numbers(node, "axes", 1), _rank(node.inputs[0])
    if given[0] is None or rank is None or axes is None:
        return None
    gone = {axis % rank for axis in axes}
    return None if given[0] in gone else given[0] - sum(axis < given[0] for axis in gone)


def _reshaped(node: ir.Node, given: Sequence[int | None]) -> int | None:
    """Samples that come first stay in the first axis that has more than one entry."""
    before = None if node.inputs[0] is None else shape_of(node.inputs[0])
    after = shape_of(node.outputs[0])
    if before is None or after is None or given[0] is None:
        return None
    if given[0] > 0:
        same = given[0] + 1
        kept = before[:same] == after[:same] and None not in before[:same]
        return given[0] if kept else None
    first = next((i for i, size in enumerate(after) if size != 1), None)
    return None if first is None or isinstance(after[first], int) else first


def _flattened(node: ir.Node, given: Sequence[int | None]) -> int | None:
    return 0 if given[0] == 0 and attribute(node, "axis", 1) > 0 else None


def _sliced(node: ir.Node, given: Sequence[int | None]) -> int | None:
    """A part of the batch alone is one that the others are told by, if it is always the same."""
    rank, at = _rank(node.inputs[0]), given[0]
    starts, ends = (constant_of(v) for v in node.inputs[1:3])
    axes = whole_numbers(node, "", 3)
    if at is None or rank is None or starts is None:
        return None
    along = range(rank) if axes is None else [axis % rank for axis in axes]
    far = [_FAR] * len(starts) if ends is None else ends  # an end is computed from sizes
    cut = {axis: (int(a), int(b)) for axis, a, b in zip(along, starts, far, strict=False)}
    start, end = cut.get(at, (0, _FAR))
    return at if start == 0 and end >= _FAR else _JOINED


def _gathered(node: ir.Node, given: Sequence[int | None]) -> int | None:
    rank, more = _rank(node.inputs[0]), _rank(node.inputs[1])
    at = given[0]
    if at is None or rank is None or more is None:
        return None
    axis = attribute(node, "axis", 0) % rank
    return None if axis == at else at if at < axis else at + more - 1


def _joined_along(node: ir.Node, given: Sequence[int | None]) -> int | None:
    """Batches behind each other, as those that one network sees, are not joined yet."""
    del node
    found = {at for at in given if at is not None}
    return found.pop() if len(found) == 1 else None


def _product(node: ir.Node, given: Sequence[int | None]) -> int | None:
    ranks = [_rank(v) for v in node.inputs[:2]]
    whole = _rank(node.outputs[0])
    if whole is None or ranks[0] is None or ranks[1] is None or min(ranks[0], ranks[1]) < 2:
        return None
    return _of_matrices(given[:2], (ranks[0], ranks[1]), whole, (False, False))


def _gemm(node: ir.Node, given: Sequence[int | None]) -> int | None:
    turned = (bool(attribute(node, "transA", 0)), bool(attribute(node, "transB", 0)))
    return _of_matrices(given[:2], (2, 2), 2, turned)


def _of_matrices(
    given: Sequence[int | None], ranks: tuple[int, int], whole: int, turned: tuple[bool, bool]
) -> int | None:
    """Returns where the samples of a product lie; two batches whose every pair is in it are joined.

    Args:
        given: where they lie in the factors.
        ranks: of the factors.
        whole: rank of the product.
        turned: which factors are transposed.
    """
    found = set()
    for number, (at, rank) in enumerate(zip(given, ranks, strict=True)):
        if at is None:
            continue
        if at < rank - 2:
            found.add(at + whole - rank)
            continue
        is_row = (at == rank - 2) != turned[number]
        if is_row == (number == 1):
            return _JOINED  # summed over
        found.add(whole - 2 + number)
    return found.pop() if len(found) == 1 else _JOINED


def _einsum(node: ir.Node, given: Sequence[int | None]) -> int | None:
    terms, arrow, result = str(attribute(node, "equation")).replace(" ", "").partition("->")
    if not arrow or "." in terms:
        return None
    letters = {term[at] for term, at in zip(terms.split(","), given, strict=True) if at is not None}
    if len(letters) != 1:
        return _JOINED
    letter = letters.pop()
    return result.index(letter) if letter in result else _JOINED


def _recurrent(node: ir.Node, given: Sequence[int | None]) -> int | None:
    return 2 if given[0] == 1 and not attribute(node, "layout", 0) else None


_REDUCING = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
_RULES: Mapping[str, _Rule] = {
    **dict.fromkeys(_BROADCASTING, _broadcast),
    **dict.fromkeys(_IN_PLACE, _in_place),
    **dict.fromkeys(_OF_MAPS, _of_maps),
    **dict.fromkeys(_ALONG, _along),
    **{f"Reduce{name}": _reduced for name in _REDUCING},
    **dict.fromkeys(("ArgMax", "ArgMin"), _best),
    **dict.fromkeys(("Concat", "Split"), _joined_along),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **{f"{MARK_DOMAIN}::{mark}": _in_place for mark in (MARK, STOP_GRADIENT, STRAIGHT_THROUGH)},
    "BatchNormalization": _batch_normalised,
    "CumSum": _accumulated,
    "Einsum": _einsum,
    "Flatten": _flattened,
    "Gather": _gathered,
    "Gemm": _gemm,
    "LayerNormalization": _layer_normalised,
    "MatMul": _product,
    "MeanVarianceNormalization": _mean_and_variance,
    "Reshape": _reshaped,
    "Slice": _sliced,
    "Squeeze": _squeezed,
    "Transpose": _transposed,
    "Unsqueeze": _unsqueezed,
}
