"""What the axes of a graph's tensors are, told from the operators that make and read them.

A convolution has its channels behind the batch, a matrix product has them last, a recurrent layer
has time before the batch. From these the names are carried to all tensors that have the same axes:
through elementwise operators, transposes, reductions and reshapes that leave leading axes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from probegen.graph.core.values import Dim, attribute, constant_of, shape_of
from probegen.plan.axes import BATCH, CHANNEL, SPATIAL, TIME, Axes

#: A name for each axis as far as it is known.
_Names = tuple[str | None, ...]

_CHANNELS_SECOND = frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "MaxPool", "AveragePool", "LpPool", "GlobalMaxPool"}
    | {"GlobalAveragePool", "GlobalLpPool", "BatchNormalization", "InstanceNormalization"}
    | {"GroupNormalization", "LRN", "DepthToSpace", "SpaceToDepth", "GridSample"}
)
_CHANNELS_LAST = frozenset({"LayerNormalization", "RMSNormalization"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
#: Operators whose first output has the axes of its first input, perhaps other sizes.
_KEEPS = frozenset(
    {"Slice", "Pad", "Resize", "Upsample", "Concat", "Split", "Softmax", "LogSoftmax", "Hardmax"}
    | {"LpNormalization", "MeanVarianceNormalization", "CumSum", "Trilu", "ReverseSequence", "Tile"}
    | {"ScatterElements", "ScatterND", "TopK", "Dropout", "Gather"}
    | _CHANNELS_SECOND
    | _CHANNELS_LAST
)


class Layouts:
    """Names for the axes of every tensor of a graph."""

    def __init__(self, graph: ir.Graph, given: dict[str, Axes]) -> None:
        """Finds the names.

        Args:
            graph: with shapes inferred.
            given: input or output name -> its axes, where a user says them.
        """
        self._known: dict[ir.Value, _Names] = {}
        ends = {v.name: v for v in [*graph.inputs, *graph.outputs]}
        self._given = {ends[name]: axes for name, axes in given.items() if name in ends}
        for value, axes in self._given.items():
            self._learn(value, axes)
        fed = [s for v in graph.inputs if not v.is_initializer() and (s := shape_of(v))]
        self._batch = _batch_size(fed)
        self._others = {d for s in fed for d in s if isinstance(d, str) and d != self._batch}
        for value in [*graph.inputs, *graph.outputs]:
            sizes = shape_of(value) or ()
            if isinstance(self._batch, str) and sizes.count(self._batch) == 1:
                self._learn(value, [BATCH if d == self._batch else None for d in sizes])
        nodes = list(graph)
        for strong in (True, False):
            for node in nodes:
                self._make(node, strong)
            self._carry(nodes)

    def axes(self, value: ir.Value) -> Axes:
        """Returns a name for each axis: usual ones where nothing tells."""
        shape = shape_of(value)
        if shape is None:
            return ()
        if value in self._given:
            return self._given[value]
        names = list(self._known.get(value, (None,) * len(shape)))
        if BATCH not in names and names and names[0] is None and self._may_be_batch(shape[0]):
            names[0] = BATCH
        if CHANNEL not in names and len(names) > 1 and names[-1] is None:
            names[-1] = CHANNEL
        places = [i for i, name in enumerate(names) if name not in (BATCH, CHANNEL)]
        usual = SPATIAL.get(len(places), ())
        if len(places) == len([i for i in places if names[i] is None]) and usual:
            for place, word in zip(places, usual, strict=True):
                names[place] = word
        taken = {name for name in names if name}
        for i, name in enumerate(names):
            if name is None or (name == TIME and {"height", "width"} & taken):
                names[i] = f"axis_{i}"
        return tuple(str(name) for name in names)

    def _may_be_batch(self, size: object) -> bool:
        """Tells whether a first axis of this size is the batch, as far as sizes tell.

        Behind computed reshapes the size of the batch often has no name.
        """
        if isinstance(self._batch, int):
            return size == self._batch
        return not isinstance(size, int) and size not in self._others

    # -- learning --------------------------------------------------------------------------

    def _learn(self, value: ir.Value | None, names: Sequence[str | None]) -> bool:
        """Notes names of a value's axes where none are known yet; tells whether any was new."""
        shape = None if value is None else shape_of(value)
        if value is None or shape is None or len(shape) != len(names):
            return False
        before = self._known.get(value, (None,) * len(shape))
        after = list(before)
        for i, name in enumerate(names):
            single = name in (BATCH, CHANNEL)
            if after[i] is None and name is not None and not (single and name in after):
                after[i] = name
        self._known[value] = tuple(after)
        return tuple(after) != before

    def _make(self, node: ir.Node, strong: bool) -> None:
        """Learns from an operator that knows what its axes are; matrix products know less."""
        if node.domain:
            return
        if strong and node.op_type in _CHANNELS_SECOND:
            for value in (node.inputs[0], node.outputs[0]):
                self._learn(value, self._second(value))
        elif strong and node.op_type in _RECURRENT:
            batch_first = attribute(node, "layout", 0) == 1
            own = (BATCH, TIME, CHANNEL) if batch_first else (TIME, BATCH, CHANNEL)
            self._learn(node.inputs[0], own)
            every = (BATCH, TIME, None, CHANNEL) if batch_first else (TIME, None, BATCH, CHANNEL)
            last = (BATCH, None, CHANNEL) if batch_first else (None, BATCH, CHANNEL)
            for value in node.inputs[5:7]:
                self._learn(value, last)
            for value, names in zip(node.outputs, (every, last, last), strict=False):
                self._learn(value, names)
        elif not strong and _has_channels_last(node):
            for value in (node.inputs[0], node.outputs[0]):
                shape = None if value is None else shape_of(value)
                if shape is not None and len(shape) > 1:
                    self._learn(value, (*(None for _ in shape[1:]), CHANNEL))

    def _second(self, value: ir.Value | None) -> Sequence[str | None]:
        shape = None if value is None else shape_of(value)
        if shape is None or len(shape) < 2:
            return ()
        return (BATCH, CHANNEL, *SPATIAL.get(len(shape) - 2, (None,) * (len(shape) - 2)))

    def _carry(self, nodes: Sequence[ir.Node]) -> None:
        """Carries names along the graph, both ways, until there is nothing new."""
        changed = True
        while changed:
            changed = False
            for order in (nodes, list(reversed(nodes))):
                for node in order:
                    changed |= self._carry_over(node)

    def _carry_over(self, node: ir.Node) -> bool:
        there, back = _moves(node)
        source, result = node.inputs[0] if node.inputs else None, node.outputs[0]
        changed = False
        if there is not None and source in self._known:
            changed |= self._learn(result, there(self._known[source]))
        if back is not None and result in self._known:
            changed |= self._learn(source, back(self._known[result]))
        if there is None and not node.domain:
            changed |= self._carry_elementwise(node)
        return changed

    def _carry_elementwise(self, node: ir.Node) -> bool:
        """Carries names between operands and result of one rank, by their sizes."""
        if node.op_type in _NOT_ELEMENTWISE:
            return False
        result = node.outputs[0]
        shape = shape_of(result)
        if shape is None:
            return False
        changed = False
        operands = [v for v in node.inputs if v is not None]
        alike = [v for v in operands if (s := shape_of(v)) is not None and len(s) == len(shape)]
        for value in alike:
            same = [a == b for a, b in zip(shape_of(value) or (), shape, strict=True)]
            if value in self._known:
                names = [n if s else None for n, s in zip(self._known[value], same, strict=True)]
                changed |= self._learn(result, names)
            if result in self._known and constant_of(value) is None and not value.is_initializer():
                names = [n if s else None for n, s in zip(self._known[result], same, strict=True)]
                changed |= self._learn(value, names)
        return changed


def _batch_size(fed: Sequence[Sequence[Dim]]) -> Dim:
    """Returns the size of the batch: a number, a name, or None where it is open without one.

    It is the first open size that stands in front of an input; where none does, the first size
    of the first input that has any.
    """
    firsts = [sizes[0] for sizes in fed if sizes]
    return next((d for d in firsts if not isinstance(d, int)), firsts[0] if firsts else None)


#: Operators with results that have other axes than their operands, and no move of their own.
_NOT_ELEMENTWISE = frozenset(
    {"Reshape", "Flatten", "MatMul", "Gemm", "Einsum", "Shape", "Size", "Expand", "ArgMax"}
    | {"ArgMin", "NonZero", "OneHot", "Gather", "GatherND", "GatherElements", "Compress", "If"}
    | {"Loop", "Scan", "ConstantOfShape", "Range", "Constant", "TopK", "Unique"}
    | _RECURRENT
)

_Move = Callable[[_Names], Sequence[str | None]]


def _moves(node: ir.Node) -> tuple[_Move | None, _Move | None]:
    """Returns how names come from a node's first input to its first output, and back."""
    first = node.inputs[0] if node.inputs else None
    source, result = (None if v is None else shape_of(v) for v in (first, node.outputs[0]))
    moves: tuple[_Move | None, _Move | None] = (None, None)
    if node.domain or source is None or result is None:
        return moves
    if node.op_type == "Transpose":
        perm = attribute(node, "perm") or list(range(len(source)))[::-1]
        moves = (
            lambda names: [names[p] for p in perm],
            lambda names: [names[perm.index(i)] for i in range(len(perm))],
        )
    elif node.op_type in ("Squeeze", "Unsqueeze") or node.op_type.startswith("Reduce"):
        moves = _with_other_axes(node, source, result)
    elif node.op_type in ("Reshape", "Flatten", "MatMul", "Expand"):
        moves = _with_leading_axes(node, source, result)
    elif node.op_type == "Gemm" and not attribute(node, "transA", 0):
        moves = (lambda names: (names[0], None)), (lambda names: (names[0], None))
    elif node.op_type in _KEEPS and len(source) == len(result):
        moves = (lambda names: names), (lambda names: names)
    return moves


def _with_other_axes(
    node: ir.Node, source: Sequence[object], result: Sequence[object]
) -> tuple[_Move | None, _Move | None]:
    """Returns the moves of an operator that takes axes away or puts some in."""
    if len(source) == len(result):
        return (lambda names: names), (lambda names: names)
    named = attribute(node, "axes")
    if named is None and len(node.inputs) > 1:
        found = constant_of(node.inputs[1])
        named = None if found is None else found.reshape(-1).tolist()
    if named is None and node.op_type == "Squeeze":
        named = [i for i, size in enumerate(source) if size == 1]
    longer = max(len(source), len(result))
    if named is None or abs(len(source) - len(result)) != len(named):
        return None, None
    places = {int(a) % longer for a in named}

    def without(names: _Names) -> list[str | None]:
        return [n for i, n in enumerate(names) if i not in places]

    def with_more(names: _Names) -> list[str | None]:
        rest = iter(names)
        return [None if i in places else next(rest) for i in range(longer)]

    return (with_more, without) if len(result) > len(source) else (without, with_more)


def _with_leading_axes(
    node: ir.Node, source: Sequence[object], result: Sequence[object]
) -> tuple[_Move | None, _Move | None]:
    """Returns the moves of an operator that leaves the first axes as they are."""
    pairs = list(zip(source, result, strict=False))
    other = (i for i, (a, b) in enumerate(pairs) if a is None or a != b)
    same = next(other, len(pairs))
    if node.op_type == "MatMul":
        same = len(result) - 1 if len(result) == len(source) else 0
    if not same:
        return None, None

    def onto(rank: int) -> _Move:
        return lambda names: (*names[:same], *(None for _ in range(rank - same)))

    return onto(len(result)), onto(len(source))


def _has_channels_last(node: ir.Node) -> bool:
    if node.op_type in _CHANNELS_LAST:
        axis = attribute(node, "axis", -1)
        shape = shape_of(node.outputs[0])
        return axis == -1 or (shape is not None and axis == len(shape) - 1)
    if node.op_type == "Gemm":
        return True
    if node.op_type == "MatMul":
        weight = node.inputs[1]
        return weight is not None and (weight.is_initializer() or constant_of(weight) is not None)
    return False
