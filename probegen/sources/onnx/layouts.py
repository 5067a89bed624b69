"""What the axes of a graph's tensors are, told from the operators that make and read them.

A convolution has its channels behind the batch, a matrix product has them last, a recurrent layer
has time before the batch. From these the names are carried to all tensors that have the same axes:
through elementwise operators, transposes, reductions and reshapes that leave leading axes alone.

Which axis of an input is the batch is told by a user, by the name of an open size (`batch`, `N`),
by operators that know (recurrent ones, convolutions), and last by where it stands: the first open
size in front of an input. From there `batch_axes` follows it; what is not known to be the batch is
not called so.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.batch_axes import BatchAxes
from probegen.graph.core.axis_factors import SAMPLES
from probegen.graph.core.marks import MARK_DOMAIN
from probegen.graph.core.queries import RECURRENT
from probegen.graph.core.values import Dim, attribute, constant_of, shape_of, whole_numbers
from probegen.graph.loops.iteration import nodes_with_bodies
from probegen.plan.axes import BATCH, CHANNEL, SPATIAL, TIME, Axes, neutral

#: A name for each axis as far as it is known.
_Names = tuple[str | None, ...]

_CHANNELS_SECOND = frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "MaxPool", "AveragePool", "LpPool", "GlobalMaxPool"}
    | {"GlobalAveragePool", "GlobalLpPool", "BatchNormalization", "InstanceNormalization"}
    | {"GroupNormalization", "LRN", "DepthToSpace", "SpaceToDepth", "GridSample"}
)
_CHANNELS_LAST = frozenset({"LayerNormalization", "RMSNormalization"})
#: What exporters and people call the size of the batch.
_BATCH_NAME = re.compile(r"(?i)(dynamic_)?(batch|batch_?size|n_?batch|bs|n|b)(_?(axis|dim))?")
#: How many channels images have.
_IMAGE_CHANNELS = (1, 3, 4)
#: Tensors of this rank that nothing is known of are taken for `[batch, time, channel]`.
_TOKENS = 3
#: Operators whose first output has the axes of its first input, perhaps other sizes.
_KEEPS = frozenset(
    {"Slice", "Pad", "Resize", "Upsample", "Concat", "Split", "Softmax", "LogSoftmax", "Hardmax"}
    | {"LpNormalization", "MeanVarianceNormalization", "CumSum", "Trilu", "ReverseSequence", "Tile"}
    | {"ScatterElements", "ScatterND", "TopK", "Dropout", "Gather"}
    | _CHANNELS_SECOND
    | _CHANNELS_LAST
)


@dataclasses.dataclass(frozen=True)
class Apart:
    """How samples are told apart that are joined with other positions along an axis.

    Attributes:
        axis: the axis.
        parts: what it is to be reshaped to: -1 for the samples, numbers, and for an open size the
            input and the axis that have it; None where nobody can tell.
        sizes: of the reshaped tensor.
        axes: of the reshaped tensor.
    """

    axis: int
    parts: tuple[int | tuple[str, int], ...] | None
    sizes: tuple[int | None, ...]
    axes: Axes

    def apart(
        self, array: npt.NDArray[Any], feed: Mapping[str, npt.NDArray[Any]]
    ) -> npt.NDArray[Any]:
        """Returns an array with an axis for each part.

        Args:
            array: as the tensor is.
            feed: the inputs that it was computed from, by name.
        """
        before, behind = array.shape[: self.axis], array.shape[self.axis + 1 :]
        parts = [p if isinstance(p, int) else feed[p[0]].shape[p[1]] for p in self.parts or ()]
        return array.reshape(*before, *parts, *behind)

    def joined(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns an array whose parts are apart as the tensor has it."""
        end = self.axis + len(self.parts or ())
        return array.reshape(*array.shape[: self.axis], -1, *array.shape[end:])


class Layouts:
    """Names for the axes of every tensor of a graph."""

    def __init__(
        self, graph: ir.Graph, given: dict[str, Axes], *, channels_second: bool = False
    ) -> None:
        """Finds the names.

        Args:
            graph: with shapes inferred.
            given: input or output name -> its axes, where a user says them.
            channels_second: whether its writer has images with channels before positions, which
                counts where no operator tells.
        """
        self._known: dict[ir.Value, _Names] = {}
        ends = {v.name: v for v in [*graph.inputs, *graph.outputs]}
        self._ends = set(ends.values())
        self._given = {ends[name]: axes for name, axes in given.items() if name in ends}
        for value, axes in self._given.items():
            self._learn(value, axes)
        fed = [v for v in graph.inputs if not v.is_initializer()]
        named = _named_batch([shape_of(v) or () for v in fed])
        self._learn_batch([*graph.inputs, *graph.outputs], named)
        nodes = list(nodes_with_bodies(graph))
        for strong in (True, False):
            for node in nodes:
                self._make(node, strong)
            self._carry(nodes)
        images = [self._learn_image(v) for v in fed if channels_second]
        if any(images):
            self._carry(nodes)
        #: Whether the batch was told by what the outputs begin with.
        self._by_outputs = False
        size = named if named is not None else self._size_of_batch(fed, graph.outputs)
        self._learn_batch(graph.inputs, size)
        self._others = {d for v in fed for d in shape_of(v) or () if isinstance(d, str)} - {size}
        self._size = size
        self._places = {
            d: (str(v.name), i)
            for v in reversed(fed)
            for i, d in enumerate(shape_of(v) or ())
            if isinstance(d, str)
        }
        places = {v: self._batch_of_input(v) for v in fed}
        self._batched = any(place is not None for place in places.values())
        self._batch = BatchAxes(graph, places, size)

    @property
    def batched(self) -> bool:
        """Whether some input has an axis of samples."""
        return self._batched

    @property
    def batch(self) -> int | None:
        """The number of samples that the graph is bound to, None where any will do.

        1 where no input has an axis of samples.
        """
        if not self._batched:
            return 1
        return self._size if isinstance(self._size, int) else None

    def axes(self, value: ir.Value) -> Axes:
        """Returns a name for each axis: usual ones where nothing tells."""
        shape = shape_of(value)
        if shape is None:
            return ()
        if value in self._given:
            return self._given[value]
        names = self._but_batch(value, shape)
        at = self._batch_axis(value, shape)
        if at is not None:
            names[at] = BATCH
        few = len(shape) <= _TOKENS or value in self._ends
        # Of tensors with something before the batch, open sizes are steps; states have fixed ones.
        steps_first = self._by_outputs or not isinstance(next(iter(shape), None), int)
        usual = few and (at == 0 or (at == 1 and steps_first))
        return _completed(names, usual=usual)

    def _but_batch(self, value: ir.Value, shape: Sequence[Dim]) -> list[str | None]:
        """Returns the names that are known of a value's axes, that of the batch left out."""
        known = self._known.get(value, (None,) * len(shape))
        return [None if name == BATCH else name for name in known]

    def has_samples(self, value: ir.Value, inputs: Iterable[ir.Value]) -> bool:
        """Tells whether samples lie along the first axis of a value, or where inputs have theirs.

        Where there is one sample alone, always.
        """
        if not self._batched:
            return True
        axes = self.axes(value)
        places = [self.axes(v).index(BATCH) for v in inputs if BATCH in self.axes(v)]
        return BATCH in axes and axes.index(BATCH) in (0, *places)

    def told_apart(self, value: ir.Value) -> Apart | None:
        """Says how to tell samples apart that are joined with something else along an axis.

        Returns:
            None where samples have an axis of their own, or none at all.
        """
        shape, found, axis = shape_of(value), self._batch.factors(value), self._batch.joined(value)
        if axis is None or found is None or shape is None:
            return None
        own = found[axis]
        parts: list[int | tuple[str, int]] = []
        for factor in own:
            if factor is SAMPLES:
                parts.append(-1)
            elif isinstance(factor, int):
                parts.append(factor)
            elif factor in self._places:
                parts.append(self._places[factor])
            else:
                return Apart(axis, None, (), ())
        size = self._size if isinstance(self._size, int) else None
        sizes = [None if not isinstance(d, int) else d for d in shape]
        names = self._but_batch(value, shape)
        names[axis : axis + 1] = [BATCH if p == -1 else None for p in parts]
        every = [size if p == -1 else p for p in parts]
        sizes[axis : axis + 1] = [p if isinstance(p, int) else None for p in every]
        return Apart(axis, tuple(parts), tuple(sizes), _completed(names, usual=False))

    def is_lost(self, value: ir.Value) -> bool:
        """Tells whether it is not known along which axis samples lie."""
        return self._batched and self._batch.is_lost(value)

    def _batch_axis(self, value: ir.Value, shape: Sequence[Dim]) -> int | None:
        """Returns the axis of the batch: the one it was followed to, or a first open one.

        Behind computed reshapes nothing may be known; two batch sizes are verified, which a
        wrong guess does not survive.
        """
        if not self._batched:
            # One sample without a batch axis: operators that need one get one of size 1.
            known = self._known.get(value, ())
            at = known.index(BATCH) if BATCH in known else None
            return at if at is not None and shape[at] == 1 else None
        if self._batch.factors(value) is not None:
            return self._batch.axis(value)
        if self.is_lost(value) and value not in self._ends:
            return None
        guessed = bool(shape) and self._may_be_batch(shape[0])
        return 0 if guessed else None

    def _may_be_batch(self, size: object) -> bool:
        """Tells whether a first axis of this size is the batch, as far as sizes tell."""
        if isinstance(self._size, int):
            return size == self._size
        return not isinstance(size, int) and size not in self._others

    def _batch_of_input(self, value: ir.Value) -> int | None:
        """Returns the axis of an input's batch: known, or the first where its size may be that."""
        shape = shape_of(value) or ()
        if value in self._given:
            given = self._given[value]
            return given.index(BATCH) if BATCH in given else None
        known = self._known.get(value, ())
        if BATCH in known:
            # Inputs that disagree: steps that convolutions take for samples, a state for one.
            at = known.index(BATCH)
            return None if isinstance(self._size, int) and shape[at] != self._size else at
        if shape and self._may_be_batch(shape[0]) and not (known and known[0]):
            return 0
        # Sizes without a name: the only open one of a state is that of the batch.
        unnamed = [i for i, d in enumerate(shape) if d is None]
        return unnamed[0] if self._size is None and len(unnamed) == 1 else None

    def _size_of_batch(self, fed: Sequence[ir.Value], given: Sequence[ir.Value]) -> Dim:
        """Returns the size of the batch: a number, a name, or None where it is open without one.

        That of an axis that operators or a user call so, a number where one is fixed; else the
        first open size in front of an input; else the one open size of the inputs that all outputs
        begin with (`[7, N, 8]` -> `[N, 3]`: time is first, and fixed); else the first size of the
        first input that has any.

        Args:
            fed: the inputs.
            given: the outputs.
        """
        told = [
            (shape_of(v) or ())[known.index(BATCH)]
            for v in fed
            if BATCH in (known := self._known.get(v, ()))
        ]
        if told:
            return next((d for d in told if isinstance(d, int)), told[0])
        unnamed = [v for v in fed if not any(self._known.get(v, ())[:1])]
        firsts = [s[0] for v in unnamed if (s := shape_of(v))]
        if not firsts or any(not isinstance(d, int) for d in firsts):
            return next((d for d in firsts if not isinstance(d, int)), None)
        leading = {s[0] for v in given if (s := shape_of(v))}
        opened = {d for v in fed for d in shape_of(v) or () if isinstance(d, str)}
        if len(leading) == 1 and leading <= opened and firsts[0] != 1:
            self._by_outputs = True
            return leading.pop()
        return firsts[0]

    def _learn_batch(self, values: Iterable[ir.Value], size: Dim) -> None:
        """Notes which axis has the name of the batch, where one alone has."""
        for value in values:
            sizes = shape_of(value) or ()
            if isinstance(size, str) and sizes.count(size) == 1:
                self._learn(value, [BATCH if d == size else None for d in sizes])

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
        if strong and node.op_type in _CHANNELS_SECOND and not _centres(node):
            for value in (node.inputs[0], node.outputs[0]):
                self._learn(value, self._second(value, _mixes_positions(node)))
        elif strong and node.op_type in RECURRENT:
            batch_first = attribute(node, "layout", 0) == 1
            own = (BATCH, TIME, CHANNEL) if batch_first else (TIME, BATCH, CHANNEL)
            self._learn(node.inputs[0], own)
            ways = "direction"
            every = (BATCH, TIME, ways, CHANNEL) if batch_first else (TIME, ways, BATCH, CHANNEL)
            last = (BATCH, "layer", CHANNEL) if batch_first else ("layer", BATCH, CHANNEL)
            for value in node.inputs[5:7]:
                self._learn(value, last)
            for value, names in zip(node.outputs, (every, last, last), strict=False):
                self._learn(value, names)
        elif not strong and _has_channels_last(node):
            for value in (node.inputs[0], node.outputs[0]):
                shape = None if value is None else shape_of(value)
                if shape is not None and len(shape) > 1:
                    self._learn(value, (*(None for _ in shape[1:]), CHANNEL))

    def _learn_image(self, value: ir.Value) -> bool:
        """Learns that an input of which nothing else is known is an image, if its sizes say so."""
        shape = shape_of(value) or ()
        known = [name for name in self._known.get(value, ()) if name not in (None, BATCH)]
        places = SPATIAL.get(len(shape) - 2, ())
        if known or len(places) < len(SPATIAL[2]):
            return False
        if shape[1] not in _IMAGE_CHANNELS or shape[-1] in _IMAGE_CHANNELS:
            return False
        return self._learn(value, (None, CHANNEL, *places))

    def _second(self, value: ir.Value | None, positions: bool) -> Sequence[str | None]:
        shape = None if value is None else shape_of(value)
        if shape is None or len(shape) < 2:
            return ()
        nothing = (None,) * (len(shape) - 2)
        return (BATCH, CHANNEL, *(SPATIAL.get(len(nothing), nothing) if positions else nothing))

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
            names = there(self._known[source])
            changed |= self._learn(result, _of_one_feature(names, self._known[source], result))
        if back is not None and result in self._known:
            changed |= self._learn(source, back(self._known[result]))
        if there is None and node.domain in ("", MARK_DOMAIN):
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
            pairs = list(zip(shape_of(value) or (), shape, strict=True))
            same = [a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in pairs]
            if value in self._known:
                names = [n if s else None for n, s in zip(self._known[value], same, strict=True)]
                changed |= self._learn(result, names)
            if result in self._known and constant_of(value) is None and not value.is_initializer():
                names = [n if s else None for n, s in zip(self._known[result], same, strict=True)]
                changed |= self._learn(value, names)
        return changed


def _of_one_feature(
    names: Sequence[str | None], before: _Names, made: ir.Value
) -> Sequence[str | None]:
    """Returns what becomes of names where a last axis of one entry is added: `[24]` -> `[24, 1]`.

    Entries that were channels are steps then, of one feature: nothing is carried to them.
    """
    last, shape = len(before) - 1, shape_of(made)
    added = shape is not None and len(shape) == len(names) == len(before) + 1 and shape[-1] == 1
    if added and before and before[-1] == CHANNEL == names[last]:
        return (*names[:last], None, *names[last + 1 :])
    return names


def _named_batch(fed: Sequence[Sequence[Dim]]) -> str | None:
    """Returns the open size that is called after the batch, None where none is."""
    named = (d for sizes in fed for d in sizes if isinstance(d, str) and _BATCH_NAME.fullmatch(d))
    return next(named, None)


def _completed(names: list[str | None], *, usual: bool) -> Axes:
    """Returns names for all axes.

    Args:
        names: those that are known.
        usual: give the others the usual ones: channels last, one position is time, two are height
            and width.
    """
    if usual and CHANNEL not in names and len(names) > 1 and names[-1] is None:
        names[-1] = CHANNEL
    places = [i for i, name in enumerate(names) if name not in (BATCH, CHANNEL)]
    words = SPATIAL.get(len(places), ())
    if usual and words and all(names[i] is None for i in places):
        for place, word in zip(places, words, strict=True):
            names[place] = word
    taken = {name for name in names if name}
    beside = {"height", "width"} & taken
    if beside:  # the width of an image that is read from left to right
        left = next(iter({"height", "width"} - taken), None)
        names = [left if name == TIME else name for name in names]
    return tuple(neutral(i) if name is None else name for i, name in enumerate(names))


#: Operators with results that have other axes than their operands, and no move of their own.
_NOT_ELEMENTWISE = frozenset(
    {"Reshape", "Flatten", "MatMul", "Gemm", "Einsum", "Shape", "Size", "Expand", "ArgMax"}
    | {"ArgMin", "NonZero", "OneHot", "Gather", "GatherND", "GatherElements", "Compress", "If"}
    | {"Loop", "Scan", "ConstantOfShape", "Range", "Constant", "TopK", "Unique"}
    | RECURRENT
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
    elif node.op_type == "Gather" and len(result) == len(source) - 1:
        moves = _with_other_axes(node, source, result, [attribute(node, "axis", 0)])
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
    node: ir.Node,
    source: Sequence[object],
    result: Sequence[object],
    named: list[int] | None = None,
) -> tuple[_Move | None, _Move | None]:
    """Returns the moves of an operator that takes axes away or puts some in."""
    if len(source) == len(result):
        return (lambda names: names), (lambda names: names)
    named = named if named is not None else whole_numbers(node, "axes", 1)
    if named is None and node.op_type == "Squeeze":
        named = [i for i, size in enumerate(source) if size == 1]
    longer = max(len(source), len(result))
    if named is None or abs(len(source) - len(result)) != len(named):
        return None, None
    places = {a % longer for a in named}

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

    # Which of several axes of one entry a reshape leaves, nobody can tell.
    unsure = node.op_type in ("Reshape", "Flatten") and len(source) != len(result)
    single = {i for i in range(1, same) if unsure and source[i] == 1}

    def onto(rank: int) -> _Move:
        kept = [None if i in single else i for i in range(same)]
        lost = [None] * (rank - same)
        return lambda names: [*(None if i is None else names[i] for i in kept), *lost]

    return onto(len(result)), onto(len(source))


def _mixes_positions(node: ir.Node) -> bool:
    """Tells whether an operator knows positions: a convolution of single ones may see anything."""
    kernel = attribute(node, "kernel_shape")
    if kernel is None and node.op_type == "Conv" and len(node.inputs) > 1:
        weight = node.inputs[1]
        kernel = None if weight is None else (shape_of(weight) or ())[2:]
    if node.op_type != "Conv" or not kernel or any(size != 1 for size in kernel):
        return True
    return node.inputs[0] is not None and node.inputs[0].producer() is None


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


def _centres(node: ir.Node) -> bool:
    """Tells whether a pooling stands for a mean of a normalisation, whatever the axes are.

    tf2onnx writes the mean over the last of three axes as `GlobalAveragePool`, and Keras' layer
    normalisation as `x - mean(x)`, then the mean of its square.
    """
    value = node.inputs[0]
    if node.op_type != "GlobalAveragePool" or value is None:
        return False
    made = value.producer()
    if made is not None and made.op_type == "Mul" and made.inputs[0] is made.inputs[1]:
        return True
    return any(
        use.node.op_type == "Sub" and use.node.inputs[0] is value for use in node.outputs[0].uses()
    )
