"""How far windows of an image reach into a forward pass: what it need not compute again.

Where a window of an image changes, a convolution changes at the positions whose windows read it,
and nowhere else. So layer after layer a growing part is computed anew, and the rest is what it is
for the unchanged image, until the part is about as large as all (Nakandala et al. 2019,
"Incremental and Approximate Inference for Faster Occlusion-based Deep CNN Explanations", sec. 4).
Nothing but the rounding changes.

Here is told which parts these are; `within_reach` writes the nodes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from probegen.graph.attribution.spans import Span, hull, sliding_over
from probegen.graph.autodiff import Refused
from probegen.graph.core.elementwise import COMPUTED
from probegen.graph.core.multiply_adds import multiply_adds
from probegen.graph.core.queries import inputs_of, is_float, key_of, nodes_from
from probegen.graph.core.values import Dim, attribute, constant_of, dims_of, shape_of, whole_numbers
from probegen.graph.vjp.spatial import Axis, axes_of, sizes_of

#: Convolutions and poolings of which a larger share changes are computed whole.
MOST = 0.75
#: Parts of tensors of one size are made alike where the largest has no more times the positions.
LEVEL = 1.4
#: A pass of which a smaller share is saved is computed whole, and one of which less is saved a
#: node: to put a part together takes the time of about so many products.
LEAST_SAVED, LEAST_A_NODE = 0.1, 1_000_000


@dataclasses.dataclass(frozen=True)
class Part:
    """The part of a tensor that a window reaches.

    Attributes:
        axes: of the tensor, one for each axis of the window.
        spans: the part along each of them.
    """

    axes: tuple[int, ...]
    spans: tuple[Span, ...]


Parts = Mapping[ir.Value, Part]


@dataclasses.dataclass(frozen=True)
class Reach:
    """What windows reach.

    Attributes:
        parts: tensor -> the part of it that changes.
        nodes: what is computed in part, in order.
        ends: those of the tensors that the rest of the forward pass reads.
    """

    parts: Parts
    nodes: tuple[ir.Node, ...]
    ends: tuple[ir.Value, ...]


def reach_of(
    graph: ir.Graph, moved: Parts, scores: ir.Value, held: Collection[ir.Node] = ()
) -> Reach | None:
    """Returns what windows reach on the way to scores; None where that saves little.

    Args:
        graph: holds the forward pass.
        moved: the tensors that change, the batch first -> where.
        scores: what is wanted of the forward pass.
        held: nodes whose results are those of the unchanged tensors: masks.
    """
    nodes = nodes_from(graph, moved, [scores], held)
    parts, chosen, read = dict(moved), list[ir.Node](), set[ir.Value]()
    depending = {*moved, *(v for node in nodes for v in node.outputs)}
    work = saved = 0
    for node in nodes:
        changed = [v for v in inputs_of(node) if v in depending]
        part = _part(node, parts) if all(v in parts for v in changed) else None
        work += (own := multiply_adds(node))
        if part is None:
            read.update(v for v in changed if v in parts)
            continue
        saved += int(own * (1 - _share(node.outputs[0], part)))
        parts[node.outputs[0]] = part
        chosen.append(node)
    if scores in parts:
        read.add(scores)
    ends = tuple(v for v in parts if v in read)
    if saved < max(1, LEAST_SAVED * work, LEAST_A_NODE * len(chosen)):
        return None
    return Reach(_levelled(parts, moved, chosen), tuple(chosen), ends)


def _levelled(parts: Parts, moved: Parts, chosen: Sequence[ir.Node]) -> Parts:
    """Returns somewhat larger parts, so that tensors of one size have fewer different ones.

    What is put together of a small part and of what lies around it costs more than to compute a
    somewhat larger one.
    """
    alike: dict[tuple[Any, ...], list[ir.Value]] = {}
    for value in (node.outputs[0] for node in chosen if key_of(node) != "Pad"):
        part = parts[value]
        alike.setdefault((part.axes, _lengths(value, part)), []).append(value)
    found = dict(moved)
    for (axes, lengths), values in alike.items():
        levels: list[list[ir.Value]] = []
        for value in sorted(values, key=lambda v: _elements(parts[v])):
            if levels and _elements(parts[value]) <= LEVEL * _elements(parts[levels[-1][0]]):
                levels[-1].append(value)
            else:
                levels.append([value])
        for level in levels:
            found.update(dict.fromkeys(level, _around(parts, level, axes, lengths)))
    for node in chosen:
        padded = _padded(node, found) if key_of(node) == "Pad" else None
        if padded is not None:
            found[node.outputs[0]] = padded
    return found


def _around(
    parts: Parts, values: Sequence[ir.Value], axes: tuple[int, ...], lengths: Sequence[int]
) -> Part:
    """Returns the smallest part that covers those of some tensors of one size."""
    spans = zip(*(parts[v].spans for v in values), strict=True)
    return Part(axes, tuple(hull(s, n) for s, n in zip(spans, lengths, strict=True)))


def _elements(part: Part) -> int:
    """Returns how many positions a part has."""
    return math.prod(s.size for s in part.spans)


def _lengths(value: ir.Value, part: Part) -> tuple[int, ...]:
    """Returns the sizes of a tensor along the axes of a part."""
    sizes = dims_of(value)
    known = (sizes[axis] for axis in part.axes)
    return tuple(d for d in known if isinstance(d, int))


def _part(node: ir.Node, parts: Parts) -> Part | None:
    """Returns which part of a node's result changes; None where it has to be computed whole."""
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return None
    key = key_of(node)
    rule = _joined if key in COMPUTED else _RULES.get(key)
    made = shape_of(node.outputs[0])
    part = None if rule is None or made is None else rule(node, parts)
    if part is None or made is None or not all(isinstance(made[a], int) for a in part.axes):
        return None
    return part


def _share(value: ir.Value, part: Part) -> float:
    """Returns how much of a tensor a part is."""
    return _elements(part) / math.prod(_lengths(value, part))


# -- the operators -----------------------------------------------------------------------------


def _joined(node: ir.Node, parts: Parts) -> Part | None:
    """What is computed position by position of several tensors changes where one of them does."""
    made = shape_of(node.outputs[0])
    changed = [parts[v] for v in inputs_of(node) if v in parts]
    axes = changed[0].axes
    if made is None or any(p.axes != axes for p in changed):
        return None
    for value in inputs_of(node):
        sizes = along(value, axes, len(made))
        wanted = [made[axis] for axis in axes]
        if sizes is None or not all(isinstance(d, int) for d in wanted):
            return None
        alike = [
            s == w or (s == 1 and value not in parts) for s, w in zip(sizes, wanted, strict=True)
        ]
        if not all(alike) or (value in parts and len(dims_of(value)) != len(made)):
            return None
    lengths = [d for d in (made[axis] for axis in axes) if isinstance(d, int)]
    spans = zip(*(p.spans for p in changed), strict=True)
    return Part(axes, tuple(hull(s, n) for s, n in zip(spans, lengths, strict=True)))


def along(value: ir.Value, axes: Sequence[int], rank: int) -> list[Dim] | None:
    """Returns the sizes of an operand along axes of what it is broadcast to, None if unknown.

    Args:
        value: the operand.
        axes: of the result.
        rank: of the result.
    """
    sizes = shape_of(value)
    if sizes is None:
        return None
    full: list[Dim] = [*[1] * (rank - len(sizes)), *sizes]
    return [full[axis] for axis in axes]


def _put_together(node: ir.Node, parts: Parts) -> Part | None:
    """Tensors behind each other along an axis that windows do not have."""
    rank = len(dims_of(node.outputs[0]))
    part = _joined(node, parts)
    at = int(attribute(node, "axis", 0)) % rank
    return part if part is not None and at not in part.axes else None


def _turned(node: ir.Node, parts: Parts) -> Part | None:
    """The samples stay in front."""
    part = _first_alone(node, parts)
    order = attribute(node, "perm", [])
    if part is None or not order or order[0] != 0:
        return None
    return Part(tuple(order.index(axis) for axis in part.axes), part.spans)


def _reranked(node: ir.Node, parts: Parts) -> Part | None:
    """Axes of size 1 come or go; the samples stay in front."""
    part, ones = _first_alone(node, parts), whole_numbers(node, "axes", 1)
    if part is None or ones is None or node.inputs[0] is None:
        return None
    goes = node.op_type == "Squeeze"
    rank = len(dims_of(node.inputs[0] if goes else node.outputs[0]))
    kept = [axis for axis in range(rank) if axis not in {one % rank for one in ones}]
    if kept[0] != 0:
        return None
    axes = (kept.index(axis) if goes else kept[axis] for axis in part.axes)
    return Part(tuple(axes), part.spans)


def _padded(node: ir.Node, parts: Parts) -> Part | None:
    """What is put around a tensor does not change."""
    part = _first_alone(node, parts)
    widths = constant_of(node.inputs[1]) if len(node.inputs) > 1 else None
    some = len(node.inputs) > 3 and node.inputs[3] is not None  # widths of some axes alone
    if part is None or widths is None or some or attribute(node, "mode", "constant") != "constant":
        return None
    ahead, behind = widths.reshape(2, -1).tolist()
    others = [i for i in range(len(ahead)) if i not in part.axes]
    if min(*ahead, *behind) < 0 or any(ahead[i] or behind[i] for i in others):
        return None
    return Part(
        part.axes,
        tuple(s.moved(int(ahead[a])) for a, s in zip(part.axes, part.spans, strict=True)),
    )


def _first_alone(node: ir.Node, parts: Parts) -> Part | None:
    """Returns the part of the first operand, None where another one changes as well."""
    first, *others = node.inputs
    if first is None or any(v in parts for v in others if v is not None):
        return None
    return parts.get(first)


def _of_channels(
    reads: Callable[[ir.Node, int], Iterable[int]],
) -> Callable[[ir.Node, Parts], Part | None]:
    """Returns the rule of an operator that reads whole axes, which windows must not have.

    Args:
        reads: which axes it reads, of a node and the rank of its first operand.
    """

    def rule(node: ir.Node, parts: Parts) -> Part | None:
        part = _first_alone(node, parts)
        if part is None or node.inputs[0] is None:
            return None
        return None if set(reads(node, len(dims_of(node.inputs[0])))) & set(part.axes) else part

    return rule


def _multiplied(node: ir.Node, rank: int) -> Iterable[int]:
    weights = shape_of(node.inputs[1]) if node.inputs[1] is not None else None
    return (rank - 1,) if weights is not None and len(weights) == 2 and rank > 2 else range(rank)


def _scaled(node: ir.Node, rank: int) -> Iterable[int]:
    # By stored statistics; in training by those of all positions.
    return range(rank) if attribute(node, "training_mode", 0) else (1,)


def _normalised(node: ir.Node, rank: int) -> Iterable[int]:
    return range(int(attribute(node, "axis", -1)) % rank, rank)


def _slid_over(node: ir.Node, parts: Parts) -> Part | None:
    """A convolution or pooling changes where its windows read what changes."""
    part, axes = _first_alone(node, parts), geometry(node)
    if part is None or axes is None or any(axis < 2 for axis in part.axes):
        return None
    spans = []
    for axis, span in zip(part.axes, part.spans, strict=True):
        one = axes[axis - 2]
        before, _ = one.padding
        spans.append(sliding_over(span.moved(before), one.extent, one.stride, one.count or 0))
    found = Part(part.axes, tuple(spans))
    return found if _share(node.outputs[0], found) <= MOST else None


def geometry(node: ir.Node) -> list[Axis] | None:
    """Returns how a convolution or pooling slides along each spatial axis.

    None where that is not known before it runs, and where its edges are computed otherwise than
    its middle: averages that leave padding out, and windows beyond the end.
    """
    x = node.inputs[0]
    if x is None or shape_of(x) is None or shape_of(node.outputs[0]) is None or not is_float(x):
        return None
    kernel = attribute(node, "kernel_shape")
    if node.op_type == "Conv":
        weights = None if node.inputs[1] is None else shape_of(node.inputs[1])
        kernel = None if weights is None else list(weights[2:])
    if kernel is None or not all(isinstance(k, int) for k in kernel):
        return None
    try:
        axes = axes_of(node, kernel, sizes_of(x), sizes_of(node.outputs[0]))
        paddings = [axis.padding for axis in axes]
    except Refused:
        return None
    for axis, (before, after) in zip(axes, paddings, strict=True):
        if axis.size is None or axis.count is None or min(before, after) < 0:
            return None
        if (axis.size + before + after - axis.extent) // axis.stride + 1 != axis.count:
            return None
    is_padded = any(before or after for before, after in paddings)
    leaves_out = node.op_type == "AveragePool" and not attribute(node, "count_include_pad", 0)
    return None if is_padded and leaves_out else axes


#: Operators of which only the first operand changes, and which keep positions where they are.
ALONE = frozenset(
    {"BatchNormalization", "LayerNormalization", "MatMul", "Squeeze", "Transpose", "Unsqueeze"}
)
#: Operators beside those that work element by element -> which part of their result changes.
_RULES: Mapping[str, Callable[[ir.Node, Parts], Part | None]] = {
    "AveragePool": _slid_over,
    "BatchNormalization": _of_channels(_scaled),
    "Concat": _put_together,
    "Conv": _slid_over,
    "LayerNormalization": _of_channels(_normalised),
    "MatMul": _of_channels(_multiplied),
    "MaxPool": _slid_over,
    "Pad": _padded,
    "Squeeze": _reranked,
    "Transpose": _turned,
    "Unsqueeze": _reranked,
}
