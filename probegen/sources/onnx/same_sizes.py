"""Open sizes of inputs that have no name of their own, and are one size all the same.

Where a model has two inputs, tf2onnx calls the batch of the one `unk__1` and that of the other
`unk__2`. Their tensors meet in a sum or a product, which takes one size alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import onnx_ir as ir

from probegen.graph.core.queries import BROADCASTING, RECURRENT, key_of
from probegen.graph.core.size_products import factors_of
from probegen.graph.core.values import Dim, attribute, shape_of
from probegen.graph.loops.iteration import nodes_with_bodies

#: How tf2onnx and onnx call a size that nobody gave a name.
UNNAMED = "unk__"
#: Positions of what a recurrent operator reads for each sequence, and where the batch is in it.
_BY_SEQUENCE = ((4, 0), (5, 1), (6, 1))


def join_unnamed_sizes(graph: ir.Graph) -> bool:
    """Gives unnamed sizes of inputs one name where an operator needs them to be equal.

    `Add(x [unk__1, 7], y [unk__2, 7])` -> `Add(x [unk__1, 7], y [unk__1, 7])`

    A size of 1, which is broadcast, is not told apart: who wants both writes a name for each.

    Needs: shapes inferred.

    Returns:
        Whether a size has another name now; shapes are then to be inferred anew.
    """
    sizes = [d for v in graph.inputs for d in shape_of(v) or ()]
    unnamed = [d for d in dict.fromkeys(sizes) if isinstance(d, str) and d.startswith(UNNAMED)]
    if len(unnamed) < 2:
        return False
    names = {name: name for name in unnamed}
    for node in nodes_with_bodies(graph):
        if node.domain:
            continue
        for group in _equal_sizes(node):
            for one, other in itertools.combinations(group, 2):
                same = {names[d] for d in _differing(one, other) if d in names}
                if len(same) > 1:
                    first = min(same, key=unnamed.index)
                    names = {old: first if new in same else new for old, new in names.items()}
    if all(old == new for old, new in names.items()):
        return False
    for value in graph.inputs:
        shape = shape_of(value)
        if shape is not None:
            value.shape = ir.Shape([names.get(d, d) if isinstance(d, str) else d for d in shape])
    return True


def _equal_sizes(node: ir.Node) -> Iterator[Sequence[Dim]]:
    """Yields groups of sizes that a node can work with only if they are equal, or some are 1."""
    shapes = [() if v is None else shape_of(v) or () for v in node.inputs]
    kind = key_of(node)
    if kind in BROADCASTING:
        yield from _aligned(shapes)
    elif kind == "MatMul" and min(map(len, shapes)) >= 2:
        left, right = shapes
        yield left[-1], right[-2]
        yield from _aligned([left[:-2], right[:-2]])
    elif kind == "Gemm" and [len(s) for s in shapes[:2]] == [2, 2]:
        yield shapes[0][1 - attribute(node, "transA", 0)], shapes[1][attribute(node, "transB", 0)]
    elif kind == "Concat" and len({len(s) for s in shapes}) == 1 and shapes[0]:
        joined = attribute(node, "axis") % len(shapes[0])
        yield from (d for i, d in enumerate(zip(*shapes, strict=True)) if i != joined)
    elif kind in RECURRENT and len(shapes[0]) == 3:
        first = attribute(node, "layout", 0) == 1
        sizes = [shapes[0][0 if first else 1]]
        for place, axis in _BY_SEQUENCE:
            sizes += () if place >= len(shapes) else shapes[place][0 if first else axis :][:1]
        yield sizes


def _aligned(shapes: Sequence[Sequence[Dim]]) -> Iterator[Sequence[Dim]]:
    """Yields the sizes that stand at one place, counted from behind."""
    for place in range(1, max(map(len, shapes), default=0) + 1):
        yield [shape[-place] for shape in shapes if len(shape) >= place]


def _differing(first: Dim, second: Dim) -> set[str]:
    """Returns the two names of which two sizes hold one each, all else the same; else none."""
    if not isinstance(first, str) or not isinstance(second, str):
        return set()
    (number, names), (other, others) = factors_of(first), factors_of(second)
    left, right = names - others, others - names
    if number != other or left.total() != 1 or right.total() != 1:
        return set()
    return {*left, *right}
