"""What operators of ONNX do to positions: see `probegen.plan.positions`."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterator, Mapping, Sequence

import onnx_ir as ir

from probegen.graph.core.marks import MARK_DOMAIN
from probegen.graph.core.queries import BROADCASTING, inputs_of, key_of
from probegen.graph.core.values import Dim, attribute, constant_of, shape_of, whole_numbers
from probegen.plan.directions import Turn, turned_round
from probegen.plan.positions import (
    Link,
    Positions,
    Step,
    Weights,
    factor_pairs,
    summed_letters,
)

Pairs = list[tuple[int, int]]
#: Kept, moved.
_Found = tuple[Pairs, Pairs]

_SIZES = frozenset({"Shape", "Size"})
_ELEMENTWISE = BROADCASTING | {"Expand"}
#: Operators that keep the axes of their first operand, whatever its others are.
_IN_PLACE = frozenset(
    {"Softmax", "LogSoftmax", "LayerNormalization", "RMSNormalization", "BatchNormalization"}
    | {"InstanceNormalization", "GroupNormalization", "LpNormalization", "Dropout", "Clip"}
    | {"QuantizeLinear", "DequantizeLinear", "CumSum", "Trilu", "MeanVarianceNormalization"}
)
_WINDOWS = frozenset({"Conv", "MaxPool", "AveragePool", "LpPool"})
#: Operators that make an entry of those at other positions, and keep them in their places.
_OVER_POSITIONS = frozenset(
    {"InstanceNormalization", "GroupNormalization", "MeanVarianceNormalization", "CumSum"}
)
_POOLS = _WINDOWS - {"Conv"}
#: Operators with one operand, the axes of whose results are none of its.
_OPAQUE = frozenset({"If", "Loop", "Scan", "NonZero", "Unique", "DFT", "Det", "EyeLike"})


#: As many channels an image has: red and blue change places, and nothing is turned round.
_FEW = 4
#: Axes of what has no positions.
_PLAIN = 2


def follow_graph(
    graph: ir.Graph,
    inputs: Sequence[tuple[ir.Value, int | None, int | None]],
    weights: Mapping[Hashable, Weights],
) -> Positions:
    """Follows positions through a graph.

    Args:
        graph: with shapes inferred.
        inputs: the model's inputs, each with its axis of the batch and that of channels.
        weights: attention weights -> where they have what.
    """
    positions = Positions(weights)
    for value, batch, channel in inputs:
        positions.feed(value, shape_of(value) or (), batch, channel)
    for node in graph:
        if node.op_type not in _SIZES or node.domain:
            positions.follow(_step(node))
    return positions


def turned_values(graph: ir.Graph, inputs: Sequence[ir.Value]) -> frozenset[Hashable]:
    """Returns the values of a graph whose positions run against those of an input."""
    steps: list[Turn] = []
    #: Values of few axes that have positions nonetheless: ids, or joined with the batch.
    flat = {value for value in inputs if not _has_many_axes(value)}
    for node in graph:
        if node.op_type in _SIZES and not node.domain:
            continue
        read = list(inputs_of(node))
        few = [v for v in node.outputs if not _has_many_axes(v)]
        if _joins_with_batch(node) or not flat.isdisjoint(read):
            flat.update(few)
        made = [v for v in node.outputs if v in flat or v not in few]
        steps.append((read, made, _turns(node)))
    return turned_round(inputs, steps)


def _has_many_axes(value: ir.Value) -> bool:
    """Tells whether a value has axes beside those of a batch of vectors, as far as is known."""
    shape = shape_of(value)
    return shape is None or len(shape) > _PLAIN


def _joins_with_batch(node: ir.Node) -> bool:
    """Tells whether a node makes `[batch * positions, features]` of `[batch, positions, features]`.

    Products with matrices are written so. What is `[batch, positions * features]` is a vector.
    """
    if node.domain or node.op_type not in ("Reshape", "Flatten") or node.inputs[0] is None:
        return False
    before, after = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if not before or after is None or len(after) != _PLAIN:
        return False
    return before[-1] == after[-1] is not None and sum(size != 1 for size in before) > _PLAIN


def _turns(node: ir.Node) -> bool:
    """Tells whether a node turns an axis round that is not one of a few channels."""
    if node.domain or node.op_type not in ("ReverseSequence", "Slice"):
        return False
    if node.op_type == "ReverseSequence":
        return True
    source = shape_of(node.inputs[0]) if node.inputs[0] is not None else None
    steps = whole_numbers(node, "steps", 4) or ()
    axes = whole_numbers(node, "axes", 3) or range(len(steps))
    sizes = [source[a] if source is not None else None for a in axes]
    return any(
        step < 0 and not (isinstance(size, int) and size <= _FEW)
        for step, size in zip(steps, sizes, strict=False)
    )


def _step(node: ir.Node) -> Step:
    operands = tuple(inputs_of(node))
    results = tuple((v, shape_of(v) or ()) for v in node.outputs)
    first = node.inputs[0] if node.inputs else None
    if node.op_type in ("Reshape", "Flatten") and not node.domain and first is not None:
        return Step((first,), results, reshaped=(first, node.outputs[0]))
    kept, moved = [], []
    for operand, (still, others) in _links(node):
        for result in node.outputs:
            kept.append(Link(operand, result, tuple(still)))
            moved.append(Link(operand, result, tuple(others)))
    return Step(
        operands,
        results,
        tuple(kept),
        tuple(moved),
        summed=tuple(_summed(node)),
        selects=_selects(node),
        mixed=_mixed(node),
    )


def _mixed(node: ir.Node) -> tuple[int, ...]:
    """Returns the axes along which an operator makes an entry of several."""
    source = shape_of(node.inputs[0]) if node.inputs and node.inputs[0] is not None else None
    if source is None or node.domain:
        return ()
    every = tuple(range(len(source)))
    if node.op_type in _WINDOWS:
        kernel = attribute(node, "kernel_shape") or (
            (shape_of(node.inputs[1]) or ())[2:]
            if node.op_type == "Conv" and node.inputs[1]
            else ()
        )
        return tuple(i + 2 for i, size in enumerate(kernel) if size != 1)
    if node.op_type in ("Softmax", "LogSoftmax", "LpNormalization"):
        return (attribute(node, "axis", -1) % len(source),)
    if node.op_type in ("LayerNormalization", "RMSNormalization"):
        return every[attribute(node, "axis", -1) % len(source) :]
    if node.op_type in _OVER_POSITIONS:
        return every[1:]
    return ()


def _selects(node: ir.Node) -> bool:
    """Tells whether an operator takes entries out, of which `_links` says along which axes."""
    if node.domain:
        return False
    if node.op_type == "Gather":
        ids = None if node.inputs[1] is None else shape_of(node.inputs[1])
        return ids is not None and all(d == 1 for d in ids)
    if node.op_type == "GatherND":
        ids = None if node.inputs[1] is None else shape_of(node.inputs[1])
        batched = attribute(node, "batch_dims", 0) or int(_counts_samples(node.inputs[1]))
        return ids is not None and all(d == 1 for d in ids[batched:-1])
    return node.op_type == "Slice"


def _links(node: ir.Node) -> Iterator[tuple[ir.Value, _Found]]:
    """Yields operands, with the axes that are kept and those that are moved."""
    if node.domain == MARK_DOMAIN and node.inputs[0] is not None:
        yield node.inputs[0], (_every(shape_of(node.inputs[0])), [])
        return
    if node.domain or not node.inputs:
        return
    result = shape_of(node.outputs[0])
    if result is None:
        return
    if node.op_type in _ELEMENTWISE:
        for value in node.inputs[: 1 if node.op_type == "Expand" else None]:
            shape = None if value is None else shape_of(value)
            if value is not None and shape is not None and len(shape) <= len(result):
                ahead = len(result) - len(shape)
                yield value, ([(i, i + ahead) for i in range(len(shape))], [])
        return
    if node.op_type in _OF_SEVERAL:
        yield from _OF_SEVERAL[node.op_type](node, result)
        return
    value = node.inputs[0]
    source = None if value is None else shape_of(value)
    if value is None or source is None:
        return
    rule = _OF_ONE.get(node.op_type)
    if rule is None and node.op_type.startswith("Reduce"):
        rule = _reduced
    if rule is not None:
        yield value, rule(node, source, result)
    elif node.op_type in _IN_PLACE or (
        len(node.inputs) == 1 and len(source) == len(result) and node.op_type not in _OPAQUE
    ):
        yield value, (_every(source), [])


def _every(shape: Sequence[Dim] | None) -> Pairs:
    return [(i, i) for i in range(len(shape or ()))]


def _apart(rank: int, along: set[int] | None) -> _Found:
    """Returns all axes but some as kept, those as moved; all as moved where it is not known."""
    gone = set(range(rank)) if along is None else along
    return [(i, i) for i in range(rank) if i not in gone], [(i, i) for i in sorted(gone)]


# -- operators of one operand ------------------------------------------------------------------


def _transposed(node: ir.Node, source: Sequence[Dim], _: Sequence[Dim]) -> _Found:
    order = attribute(node, "perm") or list(range(len(source)))[::-1]
    return [(int(a), i) for i, a in enumerate(order)], []


def _squeezed(node: ir.Node, source: Sequence[Dim], result: Sequence[Dim]) -> _Found:
    axes = whole_numbers(node, "axes", 1)
    gone = (
        {i for i, d in enumerate(source) if d == 1}
        if axes is None
        else {a % len(source) for a in axes}
    )
    rest = [i for i in range(len(source)) if i not in gone]
    return ([(a, i) for i, a in enumerate(rest)] if len(rest) == len(result) else []), []


def _unsqueezed(node: ir.Node, source: Sequence[Dim], result: Sequence[Dim]) -> _Found:
    axes = whole_numbers(node, "axes", 1)
    if axes is None:
        return [], []
    new = {a % len(result) for a in axes}
    rest = [i for i in range(len(result)) if i not in new]
    return ([(a, i) for a, i in enumerate(rest)] if len(rest) == len(source) else []), []


def _reduced(node: ir.Node, source: Sequence[Dim], result: Sequence[Dim]) -> _Found:
    axes = whole_numbers(node, "axes", 1)
    given = len(node.inputs) > 1 and node.inputs[1] is not None
    if axes is None and given:
        return [], []
    rank = len(source)
    gone = set(range(rank)) if not axes else {a % rank for a in axes}
    if not axes and attribute(node, "noop_with_empty_axes", 0):
        return _every(source), []
    return _without(rank, gone, result), []


def _without(rank: int, gone: Container[int], result: Sequence[Dim]) -> Pairs:
    """Returns the axes that a reduction leaves, whether it keeps the others at size 1 or not."""
    rest = [i for i in range(rank) if i not in gone]
    return [(a, a if len(result) == rank else i) for i, a in enumerate(rest)]


def _place_of_largest(node: ir.Node, source: Sequence[Dim], result: Sequence[Dim]) -> _Found:
    rank = len(source)
    return _without(rank, {attribute(node, "axis", 0) % rank}, result), []


def _split(node: ir.Node, source: Sequence[Dim], _: Sequence[Dim]) -> _Found:
    return _apart(len(source), {attribute(node, "axis", 0) % len(source)})


def _sliced(node: ir.Node, source: Sequence[Dim], result: Sequence[Dim]) -> _Found:
    rank = len(source)
    starts, ends = whole_numbers(node, "starts", 1), whole_numbers(node, "ends", 2)
    axes, steps = whole_numbers(node, "axes", 3), whole_numbers(node, "steps", 4)
    without_axes = len(node.inputs) < 4 or node.inputs[3] is None
    if axes is None and (not without_axes or starts is None):
        return _apart(rank, None)
    along = {a % rank for a in (axes if axes is not None else range(len(starts or ())))}
    turned = {a % rank for a, s in zip(axes or range(rank), steps or [], strict=False) if s != 1}
    whole = {i for i in along if source[i] is not None and source[i] == result[i]} - turned
    if ends is None or starts is None:
        whole = set()
    return _apart(rank, along - whole)


def _padded(node: ir.Node, source: Sequence[Dim], _: Sequence[Dim]) -> _Found:
    rank, widths = len(source), whole_numbers(node, "pads", 1)
    axes = whole_numbers(node, "", 3)
    if widths is None or len(widths) != 2 * len(axes or source):
        return _apart(rank, None)
    named = [a % rank for a in (axes or range(rank))]
    half = len(named)
    return _apart(rank, {a for i, a in enumerate(named) if widths[i] or widths[half + i]})


def _tiled(node: ir.Node, source: Sequence[Dim], _: Sequence[Dim]) -> _Found:
    times = whole_numbers(node, "", 1)
    if times is None:
        return _apart(len(source), None)
    return _apart(len(source), {i for i, n in enumerate(times) if n != 1})


def _windowed(node: ir.Node, source: Sequence[Dim], result: Sequence[Dim]) -> _Found:
    """Returns batch, and the positions of windows that are centred on each: one step, padded."""
    rank = len(source)
    kernel = attribute(node, "kernel_shape")
    if kernel is None and node.op_type == "Conv" and node.inputs[1] is not None:
        kernel = (shape_of(node.inputs[1]) or ())[2:]
    count = rank - 2
    strides = list(attribute(node, "strides") or [1] * count)
    pads = list(attribute(node, "pads") or [0] * (2 * count))
    dilations = list(attribute(node, "dilations") or [1] * count)
    automatic = str(attribute(node, "auto_pad", "NOTSET"))
    moved = set() if node.op_type in _POOLS else {1}
    for i in range(count):
        size = kernel[i] if kernel is not None and len(kernel) == count else None
        span = (size - 1) * dilations[i] if isinstance(size, int) else None
        centred = automatic.startswith("SAME") or (
            span is not None
            and pads[i] + pads[count + i] == span
            and abs(pads[i] - pads[count + i]) <= 1
        )
        if strides[i] != 1 or not centred:
            moved.add(2 + i)
    del result
    return _apart(rank, moved)


def _along_axis(node: ir.Node, source: Sequence[Dim], _: Sequence[Dim]) -> _Found:
    default = {"TopK": -1, "OneHot": -1}.get(node.op_type, 0)
    return _apart(len(source), {attribute(node, "axis", default) % len(source)})


def _pooled_globally(node: ir.Node, source: Sequence[Dim], _: Sequence[Dim]) -> _Found:
    """Returns batch and channels; exporters write means over any last axes so."""
    del node
    return _apart(len(source), set(range(2, len(source))))


def _nothing(node: ir.Node, source: Sequence[Dim], _: Sequence[Dim]) -> _Found:
    del node
    return _apart(len(source), None)


_OF_ONE: Mapping[str, Callable[[ir.Node, Sequence[Dim], Sequence[Dim]], _Found]] = {
    "Transpose": _transposed,
    "Squeeze": _squeezed,
    "Unsqueeze": _unsqueezed,
    "Split": _split,
    "Slice": _sliced,
    "Pad": _padded,
    "Tile": _tiled,
    "TopK": _along_axis,
    **dict.fromkeys(("ArgMax", "ArgMin"), _place_of_largest),
    "GatherElements": _along_axis,
    "ScatterElements": _along_axis,
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _pooled_globally),
    **dict.fromkeys(_WINDOWS, _windowed),
    **dict.fromkeys(
        frozenset(
            {"Resize", "Upsample", "ReverseSequence", "Compress", "DepthToSpace", "SpaceToDepth"}
            | {"ConvTranspose"}
        ),
        _nothing,
    ),
}


# -- operators of several ----------------------------------------------------------------------


def _multiplied(node: ir.Node, result: Sequence[Dim]) -> Iterator[tuple[ir.Value, _Found]]:
    sides = [(v, shape_of(v)) for v in node.inputs[:2] if v is not None]
    if len(sides) != 2 or any(s is None for _, s in sides):
        return
    (a, first), (b, second) = ((v, s or ()) for v, s in sides)
    rank = len(result)
    if len(first) < 2 or len(second) < 2:
        rest = [(i, i) for i in range(len(first) - 1)] if len(second) == 1 else []
        yield a, (rest, [])
        return
    yield a, (factor_pairs(len(first), rank, 0, len(first) - 1), [])
    yield b, (factor_pairs(len(second), rank, 1, len(second) - 2), [])


def _gemm(node: ir.Node, result: Sequence[Dim]) -> Iterator[tuple[ir.Value, _Found]]:
    del result
    for place, name in enumerate(("transA", "transB")):
        value = node.inputs[place]
        if value is not None:
            summed = place if attribute(node, name, 0) else 1 - place
            yield value, (factor_pairs(2, 2, place, summed), [])


def _einsum(node: ir.Node, result: Sequence[Dim]) -> Iterator[tuple[ir.Value, _Found]]:
    del result
    terms, arrow, made = str(attribute(node, "equation")).replace(" ", "").partition("->")
    if not arrow or "." in terms:
        return
    for value, letters in zip(node.inputs, terms.split(","), strict=False):
        if value is not None:
            yield value, ([(i, made.index(c)) for i, c in enumerate(letters) if c in made], [])


def _concatenated(node: ir.Node, result: Sequence[Dim]) -> Iterator[tuple[ir.Value, _Found]]:
    axis = attribute(node, "axis", 0) % len(result)
    for value in node.inputs:
        if value is not None and len(shape_of(value) or ()) == len(result):
            yield value, _apart(len(result), {axis})


def _gathered(node: ir.Node, result: Sequence[Dim]) -> Iterator[tuple[ir.Value, _Found]]:
    data, ids = node.inputs[0], node.inputs[1]
    source = None if data is None else shape_of(data)
    chosen = None if ids is None else shape_of(ids)
    if data is None or ids is None or source is None or chosen is None:
        return
    axis, more = attribute(node, "axis", 0) % len(source), len(chosen)
    before = [(i, i) for i in range(axis)]
    behind = [(i, i + more - 1) for i in range(axis + 1, len(source))]
    yield data, ([*before, *behind], [(axis, axis)] if more == 1 else [])
    yield ids, ([(i, i + axis) for i in range(more)] if data.is_initializer() else [], [])
    del result


def _picked(node: ir.Node, result: Sequence[Dim]) -> Iterator[tuple[ir.Value, _Found]]:
    """Yields what a GatherND picks from: the axes that its numbers say nothing of are kept."""
    data, ids = node.inputs[0], node.inputs[1]
    source = None if data is None else shape_of(data)
    chosen = None if ids is None else shape_of(ids)
    if data is None or source is None or not chosen or not isinstance(chosen[-1], int):
        return
    batched = attribute(node, "batch_dims", 0)
    told = batched + chosen[-1]
    kept = [(i, i) for i in range(batched)]
    if not batched and len(chosen) == 2 and _counts_samples(ids):
        kept = [(0, 0)]
    ahead = len(result) - len(source)
    yield data, ([*kept, *((i, i + ahead) for i in range(told, len(source)))], [])


def _counts_samples(ids: ir.Value | None) -> bool:
    """Tells whether the first column of places is 0, 1, 2...: one place of each sample.

    As exporters write `x[arange(len(x)), last]`.
    """
    joined = None if ids is None else ids.producer()
    if joined is None or joined.op_type != "Concat":
        return False
    value = joined.inputs[0]
    while value is not None and (made := value.producer()) is not None:
        if made.op_type == "Range":
            bounds = [constant_of(made.inputs[i]) for i in (0, 2)]
            return all(b is not None and b == n for b, n in zip(bounds, (0, 1), strict=True))
        if made.op_type not in ("Unsqueeze", "Reshape", "Cast", "Identity"):
            return False
        value = made.inputs[0]
    return False


_OF_SEVERAL: Mapping[str, Callable[[ir.Node, Sequence[Dim]], Iterator[tuple[ir.Value, _Found]]]] = {
    "MatMul": _multiplied,
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Concat": _concatenated,
    "Gather": _gathered,
    "GatherND": _picked,
}


def _summed(
    node: ir.Node,
) -> Iterator[tuple[tuple[ir.Value, int], tuple[ir.Value, int]]]:
    """Yields the axes that a product sums over, of both operands."""
    if key_of(node) not in ("MatMul", "Einsum") or len(node.inputs) != 2:
        return
    a, b = node.inputs
    if a is None or b is None:
        return
    first, second = shape_of(a), shape_of(b)
    if first is None or second is None:
        return
    if node.op_type == "MatMul":
        if len(first) >= 2 and len(second) >= 2:
            yield (a, len(first) - 1), (b, len(second) - 2)
        return
    terms, _, result = str(attribute(node, "equation")).replace(" ", "").partition("->")
    if "." in terms:
        return
    one, other = terms.split(",")
    for i, j in summed_letters(one, other, result):
        yield (a, i), (b, j)
