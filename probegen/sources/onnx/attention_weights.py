"""Attention weights in a graph: a softmax whose result weighs values.

A softmax counts where what it gives is multiplied with something that depends on the input, and
summed over the axes along which it adds up to one, and the sum has a part in an output. Names are
not looked at.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Container, Iterator

import onnx_ir as ir

from probegen.graph.core.marks import STRAIGHT_THROUGH
from probegen.graph.core.queries import needed_for, varying_inputs
from probegen.graph.core.values import (
    Dim,
    attribute,
    same_shape,
    shape_of,
    whole_numbers,
)
from probegen.sources.onnx.softmaxes import normalised, softmax_axes

#: Operators that leave what a row of weights adds up over where it is.
_THE_SAME = frozenset(
    {"Identity", "Cast", "Dropout", "Where", "Mul", "Div", "Add"}
    | {"QuantizeLinear", "DequantizeLinear"}
)
#: Operators behind which weights are still what is applied, in the place of the softmax's result:
#: rows in which everything is masked are NaN before and 0 behind.
_APPLIED = frozenset({"Where", "Identity", "Dropout"})
#: Operators that make other masks of masks and constants.
_MAKING_MASKS = frozenset(
    {"Mul", "Sub", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Expand", "Transpose"}
)


@dataclasses.dataclass(frozen=True)
class Weights:
    """Attention weights.

    Attributes:
        softmax: the node that makes them.
        value: the weights, as they are applied.
        keys: the axes that the softmax sums over.
        inside: the nodes from the scores' product to the weighted sum.
    """

    softmax: ir.Node
    value: ir.Value
    keys: tuple[int, ...]
    inside: frozenset[ir.Node]


def attention_weights(graph: ir.Graph, varying: Container[ir.Value]) -> list[Weights]:
    """Returns the attention weights of a graph, in its order.

    Args:
        graph: with shapes inferred.
        varying: the values that depend on the inputs.
    """
    found: dict[ir.Value, Weights] = {}
    needed = needed_for(graph, graph.outputs)
    for node in graph:
        keys = softmax_axes(node)
        if not keys:
            continue
        value = node.outputs[0]
        ways = [w for w in _ways_to_a_sum(value, keys, varying, 0) if w[-1] in needed]
        # A sum of the weights under a mask that is fed as numbers is no sum of values.
        way = next((w for w in ways if _is_wide(w[-1])), ways[0] if ways else None)
        if way is not None:
            inside = frozenset([node, *way, *_scores(node)])
            applied = _applied(value, way, keys)
            found.setdefault(applied, Weights(node, applied, keys, inside))
    return list(found.values())


def _is_wide(node: ir.Node) -> bool:
    """Tells whether a node multiplies weights with values of more entries than these."""
    if node.op_type != "Mul":
        return True
    product = shape_of(node.outputs[0]) or ()
    sizes = [s for v in node.inputs if v is not None and (s := shape_of(v)) is not None]
    return sum(tuple(s) == tuple(product) for s in sizes) < 2


def _applied(value: ir.Value, way: list[ir.Node], keys: tuple[int, ...]) -> ir.Value:
    """Returns weights behind masks, cuts and the second normalisation, on the way to their sum."""
    at, as_they_are = value, True
    for node in way:
        if _cuts(node, keys):
            at = node.outputs[0]
            value = at if as_they_are else value
            continue
        if not same_shape(at, node.outputs[0]):
            break
        others = [v for v in node.inputs if v is not at]
        masked = node.op_type in ("Mul", "Add") and all(_is_mask(v) for v in others)
        again = normalised(node)
        if again is not None and again[0] is at:
            as_they_are = True
        elif node.op_type not in _APPLIED and not masked:
            as_they_are = False  # scaled: only what is normalised again counts
        at = node.outputs[0]
        value = at if as_they_are else value
    return value


def _cuts(node: ir.Node, keys: tuple[int, ...]) -> bool:
    """Tells whether a node cuts keys off, which then weigh nothing: a sink that is learned."""
    if node.op_type != "Slice" or node.inputs[0] is None:
        return False
    rank = len(shape_of(node.inputs[0]) or ())
    axes = whole_numbers(node, "axes", 3)
    if axes is None and (starts := whole_numbers(node, "starts", 1)) is not None:
        axes = list(range(len(starts)))
    return bool(rank) and not {a % rank for a in axes or ()}.isdisjoint(keys)


def _is_mask(value: ir.Value | None, depth: int = 0) -> bool:
    """Tells whether a value is made of what is true and false, and of constants.

    So tf2onnx writes `where(kept, weights, 0)`: `kept * weights + 0 * not kept`.
    """
    node = None if value is None else value.producer()
    if node is None or node.domain or depth > _FARTHEST:
        return False
    if node.op_type == "Cast":
        return node.inputs[0] is not None and node.inputs[0].dtype == ir.DataType.BOOL
    if node.op_type not in _MAKING_MASKS:
        return False
    made = varying_inputs(node)
    return all(_is_mask(v, depth + 1) for v in made)


_FARTHEST = 8


def _ways_to_a_sum(
    value: ir.Value, keys: tuple[int, ...], varying: Container[ir.Value], depth: int
) -> Iterator[list[ir.Node]]:
    """Yields the nodes on ways from weights to a sum over their key axes, weighed with values."""
    shape = shape_of(value)
    if shape is None or depth > _FARTHEST:
        return
    for use in value.uses():
        node = use.node
        if node.domain and node.op_type != STRAIGHT_THROUGH:
            continue
        if _sums_over(node, use.idx, keys, len(shape), varying):
            yield [node]
            if _is_wide(node):
                continue
        after = _followed(node, use.idx, keys, shape)
        if after is not None:
            for way in _ways_to_a_sum(node.outputs[0], after, varying, depth + 1):
                yield [node, *way]


def _sums_over(
    node: ir.Node, place: int, keys: tuple[int, ...], rank: int, varying: Container[ir.Value]
) -> bool:
    """Tells whether a node multiplies weights with values and sums over the key axes."""
    other = node.inputs[1 - place] if len(node.inputs) == 2 else None
    if other is None or other not in varying:
        return False
    if node.op_type == "MatMul":
        return keys == (rank - 1 if place == 0 else max(rank - 2, 0),)
    if node.op_type == "Einsum":
        terms, _, result = str(attribute(node, "equation")).replace(" ", "").partition("->")
        mine, others = terms.split(",")[place], terms.split(",")[1 - place]
        named = "..." not in mine and len(mine) == rank
        return named and all(mine[key] in others and mine[key] not in result for key in keys)
    product, weighed = shape_of(node.outputs[0]), shape_of(other)
    if node.op_type != "Mul" or product is None or weighed is None or len(product) < len(weighed):
        return False
    moved = {key + len(product) - rank for key in keys}
    return any(_reduces(use.node, moved, len(product)) for use in node.outputs[0].uses())


def _reduces(node: ir.Node, along: set[int], rank: int) -> bool:
    if node.op_type not in ("ReduceSum", "ReduceMean"):
        return False
    axes = whole_numbers(node, "axes", 1)
    return axes is not None and along <= {a % rank for a in axes}


def _followed(
    node: ir.Node, place: int, keys: tuple[int, ...], shape: tuple[Dim, ...]
) -> tuple[int, ...] | None:
    """Returns where the key axes are behind a node that leaves weights what they are."""
    after = shape_of(node.outputs[0])
    if node.op_type == STRAIGHT_THROUGH:
        return keys if place < 2 else None
    if node.op_type in _THE_SAME and after is not None and len(after) == len(shape):
        others = [v for i, v in enumerate(node.inputs) if i != place and v is not None]
        # Masks and scales: what has other sizes along the keys does not leave them what they are.
        return keys if all(_fits(v, len(shape)) for v in others) else None
    if node.op_type == "Slice":
        return keys if place == 0 else None
    if node.op_type == "Transpose":
        perm = attribute(node, "perm") or list(range(len(shape)))[::-1]
        return tuple(sorted(int(perm.index(key)) for key in keys))
    if node.op_type in ("Squeeze", "Unsqueeze", "Reshape") and after is not None:
        return _reshaped(keys, shape, _as_asked(node, shape, after))
    return None


def _reshaped(
    keys: tuple[int, ...], shape: tuple[Dim, ...], after: tuple[object, ...]
) -> tuple[int, ...] | None:
    """Returns where the key axes are behind a reshape; None where nothing tells.

    `[batch, head, query, key]` -> `[batch * head, query, key]`: what stands last stays in its place
    `[batch, query, key_0, key_1]` -> `[batch, query, key_0 * key_1]`: joined
    """
    first, last = keys[0], keys[-1]
    behind = len(shape) - first
    if behind <= len(after) and shape[first:] == after[len(after) - behind :]:
        return tuple(key + len(after) - len(shape) for key in keys)
    if len(keys) == 1:
        among = _among(first, shape, after)
        return None if among is None else (among,)
    sizes, rest = shape[first : last + 1], shape[last + 1 :]
    known = [size for size in sizes if isinstance(size, int)]
    joined = (math.prod(known), *rest)
    if len(known) < len(sizes) or len(keys) != len(sizes) or after[-len(joined) :] != joined:
        return None
    return (len(after) - len(joined),)


def _as_asked(
    node: ir.Node, shape: tuple[object, ...], after: tuple[object, ...]
) -> tuple[object, ...]:
    """Returns the sizes behind a Reshape as far as its target tells more than inference does.

    A size that is copied, and one that is left over, are sizes of before.
    """
    target = whole_numbers(node, "", 1) if node.op_type == "Reshape" else None
    if target is None or len(target) != len(after) or attribute(node, "allowzero", 0):
        return after
    found = [shape[i] if n == 0 and i < len(shape) else n for i, n in enumerate(target)]
    left = [d for d in shape if d != 1]
    for size in (n for n in found if n not in (1, -1)):
        if size not in left:
            return after
        left.remove(size)
    rest = left[0] if len(left) == 1 else None
    if rest is None and left:
        return after
    return tuple((rest if rest is not None else 1) if n == -1 else n for n in found)


def _among(key: int, shape: tuple[object, ...], after: tuple[object, ...]) -> int | None:
    """Returns where an axis is once axes of size 1 were put in or taken out; None if others were.

    `[batch, key]` -> `[batch, key, 1]`: axis 1
    """
    before, behind = ([i for i, d in enumerate(s) if d != 1] for s in (shape, after))
    same = [shape[i] for i in before] == [after[i] for i in behind]
    known = sum(shape[i] is None for i in before) <= 1
    return behind[before.index(key)] if same and known and key in before else None


def _fits(value: ir.Value, rank: int) -> bool:
    shape = shape_of(value)
    return shape is not None and len(shape) <= rank


def _scores(softmax: ir.Node) -> list[ir.Node]:
    """Returns the nodes back from a softmax to the product that makes its scores."""
    found: list[ir.Node] = []
    pending = [v for v in softmax.inputs if v is not None]
    while pending and len(found) < 32:
        node = pending.pop().producer()
        if node is None or node in found:
            continue
        found.append(node)
        if node.op_type not in ("MatMul", "Einsum", "Gemm"):
            pending.extend(v for v in node.inputs if v is not None)
    return found
