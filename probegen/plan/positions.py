"""Which positions lie along the axes of a model's tensors, and what attention they went through.

Attention layers make up one stream where the positions that one reads are those that the one
before has written. Sizes do not tell: encoder and decoder may be of one length. So positions are
followed through the graph, operation by operation. Each axis of an input has a label; an operation
that leaves the entries of an axis where they are hands it on; one that joins axes joins labels,
one that cuts an axis gives the parts labels of their own. What cuts, turns, pools or mixes makes
new positions. Sources say what an operation does (`Step`); nothing here knows a framework.

    [batch, time, 6] -> Reshape -> [batch*time, 6] -> MatMul -> Reshape -> [batch, time, 8]: the
    axis `time` is the same before and behind
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

from probegen.plan.axes import BATCH, Axes, attention_axes, channel_axis

T = TypeVar("T")

#: A size as far as it is known: a number, a name, or None.
Size = int | str | None


@dataclasses.dataclass(frozen=True)
class Link:
    """Axes of an operand that are axes of a result.

    Attributes:
        operand: a tensor.
        result: a tensor.
        pairs: axis of the operand, axis of the result.
    """

    operand: Hashable
    result: Hashable
    pairs: tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True)
class Step:
    """What an operation does to axes.

    Attributes:
        operands: the tensors that it reads.
        results: the tensors that it makes, with their sizes.
        kept: axes whose entries stay where they are.
        moved: axes that are cut, padded, turned round, pooled: other positions of the same kind.
        reshaped: operand and result of a reshape.
        keeps_first: whether a reshape leaves the first axis as it is.
        summed: operand and axis that are summed over with another operand's.
        selects: whether it takes entries out along the axes that it does not keep: one where the
            axis is gone, or of size 1.
        mixed: axes of operands along which an entry of the result is made of several, though it
            stays in its place.
    """

    operands: tuple[Hashable, ...]
    results: tuple[tuple[Hashable, tuple[Size, ...]], ...]
    kept: tuple[Link, ...] = ()
    moved: tuple[Link, ...] = ()
    reshaped: tuple[Hashable, Hashable] | None = None
    keeps_first: bool = False
    summed: tuple[tuple[tuple[Hashable, int], tuple[Hashable, int]], ...] = ()
    selects: bool = False
    mixed: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Reading:
    """What attention weights read, in the terms of positions.

    Positions along several axes are those of one stream, the axes in the order of their labels:
    attention along the rows of an image, and then along its columns, is from pixels to pixels.

    Attributes:
        queries: what the queries are positions of.
        keys: what the keys are positions of.
        queries_after: numbers of the attentions whose sums the queries are made of.
        keys_after: the same of the keys.
        problem: why these weights are no part of a stream; empty where they are.
        beside: of these the labels of positions beside which there is attention of their own:
            a query attends to keys of the same such positions.
        heads: labels of the axes that are no positions.
        along: labels along each axis of the weights as they come out, the slowest first; empty
            where it is not known.
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    queries_after: frozenset[int]
    keys_after: frozenset[int]
    problem: str = ""
    beside: frozenset[int] = frozenset()
    heads: frozenset[int] = frozenset()
    along: tuple[tuple[int, ...], ...] = ()


@dataclasses.dataclass(frozen=True)
class _Factor:
    """A part of an axis: positions of one kind.

    Attributes:
        label: which positions.
        size: how many.
        after: the attentions whose weighted sums lie along it.
        keys_of: the attentions that have it for their keys.
    """

    label: int
    size: Size
    after: frozenset[int] = frozenset()
    keys_of: frozenset[int] = frozenset()


#: The factors of an axis, the slowest first; none for an axis of one entry.
_Axis = tuple[_Factor, ...]

_NOTHING: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True)
class _Read:
    """What attention weights read, before it is known which of it their values have as well.

    Attributes:
        queries: the axis that is of queries by its place.
        keys: the axes of the keys.
        others: the axes beside these, without the samples.
        problem: why these weights are no part of a stream; empty where they are.
    """

    queries: _Axis
    keys: tuple[_Axis, ...]
    others: tuple[_Axis, ...]
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Weights:
    """Which axes of attention weights are those of samples, heads, queries and keys.

    Attributes:
        query: the last axis that may be of queries; None where there is one query, which has no
            axis.
        keys: the axes of the keys.
        others: axes of further queries, of heads, and of what there is attention beside.
        batch: the axis of the samples, None where there is none.
        apart: whether what is joined with samples along an axis is told apart from them.
    """

    query: int | None
    keys: tuple[int, ...]
    others: tuple[int, ...] = ()
    batch: int | None = None
    apart: bool = False


def weight_axes(names: Axes, keys: Sequence[int], apart: bool = False) -> Weights:
    """Returns which axes of attention weights are those of samples, heads, queries and keys.

    Args:
        names: of their axes as far as known.
        keys: the axes that the softmax sums over.
        apart: whether what is joined with samples along an axis is told apart from them.
    """
    named = attention_axes(names, keys)
    summed = tuple(sorted(keys)) or (len(named) - 1,)
    queries = [i for i, n in enumerate(named) if n.split("_")[0] == "query"]
    query = queries[-1] if queries else None
    batch = named.index(BATCH) if BATCH in named else None
    others = tuple(i for i in range(len(named)) if i not in (query, *summed, batch))
    return Weights(query, summed, others, batch, apart)


def factor_pairs(own: int, rank: int, place: int, summed: int) -> list[tuple[int, int]]:
    """Returns which axes of a factor are which axes of a matrix product.

    Args:
        own: rank of the factor, which is a matrix or a stack of such.
        rank: of the product.
        place: 0 for the left factor, 1 for the right one.
        summed: the factor's axis that is summed over.
    """
    lead = rank - own
    stays = own - 1 if summed == own - 2 else own - 2
    return [*((i, i + lead) for i in range(own - 2)), (stays, rank - 2 + place)]


def summed_letters(first: str, second: str, result: str) -> list[tuple[int, int]]:
    """Returns the axes of two terms of an Einsum that are summed over together."""
    return [(i, second.index(c)) for i, c in enumerate(first) if c in second and c not in result]


def batch_and_channel(names: Axes) -> tuple[int | None, int | None]:
    """Returns which axis is that of the samples, and which is that of channels."""
    return (names.index(BATCH) if BATCH in names else None), channel_axis(names)


class Positions:
    """Follows positions through a graph, in the order of its operations.

    Attributes:
        steps: the operations that it went over, in order.
    """

    def __init__(self, weights: Mapping[Hashable, Weights]) -> None:
        """Prepares.

        Args:
            weights: the tensors that are attention weights.
        """
        self.steps: list[Step] = []
        self._weights = dict(weights)
        self._readings: dict[Hashable, _Read] = {}
        self._numbers = {tensor: number for number, tensor in enumerate(weights)}
        self._axes: dict[Hashable, tuple[_Axis, ...]] = {}
        self._parents: list[int] = []
        self._is_position: list[bool] = []
        self._cuts: dict[tuple[int, tuple[Size, ...]], tuple[int, ...]] = {}
        self._batch = self._new(is_position=True)
        self._mismatched: set[int] = set()
        # Attention -> labels along which its values lie beside each other as its weights do.
        self._shared: dict[int, set[int]] = {}

    def feed(
        self, tensor: Hashable, sizes: Sequence[Size], batch: int | None, channel: int | None
    ) -> None:
        """Begins at an input of the model.

        Args:
            tensor: the input.
            sizes: its sizes.
            batch: which of its axes is that of the samples.
            channel: which of its axes is no position.
        """
        self._axes[tensor] = tuple(
            (_Factor(self._batch, size),)
            if axis == batch
            else ()
            if size == 1
            else (_Factor(self._new(is_position=axis != channel), size),)
            for axis, size in enumerate(sizes)
        )

    def knows(self, tensor: Hashable) -> bool:
        """Tells whether a tensor depends on what is fed."""
        return tensor in self._axes

    def axes_of(self, tensor: Hashable) -> list[tuple[int, ...]]:
        """Returns the labels along each axis of a tensor, the slowest first: one a part of it."""
        return [self._labels(axis) for axis in self._axes.get(tensor, ())]

    def beside_batch(self, tensor: Hashable) -> tuple[int, ...]:
        """Returns the sizes of what the first axis of a tensor joins with the samples.

        Empty where these are alone there, do not come first, or a size is open.
        """
        first = (self._axes.get(tensor) or ((),))[0]
        if len(first) < 2 or self._root(first[0].label) != self._root(self._batch):
            return ()
        sizes = [f.size for f in first[1:]]
        known = tuple(n for n in sizes if isinstance(n, int))
        return known if len(known) == len(sizes) else ()

    def follow(self, step: Step) -> None:
        """Goes over one operation."""
        if not any(map(self.knows, step.operands)):
            return
        self.steps.append(step)
        for (a, i), (b, j) in step.summed:
            self._check_sum(a, i, b, j)
            self._note_shared(step, a, i, b)
            self._note_shared(step, b, j, a)
        for tensor, sizes in step.results:
            if step.reshaped is not None and step.reshaped[1] == tensor:
                operand = self._axes.get(step.reshaped[0], ())
                whole = operand[:1] if step.keeps_first else ()
                count = len(whole)
                found = [*whole, *self._regrouped(operand[count:], sizes[count:])]
            else:
                found = [self._joined(step, tensor, i, size) for i, size in enumerate(sizes)]
            self._axes[tensor] = tuple(found)
            if tensor in self._weights:
                self._readings[tensor] = self._read(tensor, self._weights[tensor])

    def readings(self) -> list[Reading]:
        """Returns what each attention reads, in the order of the weights; numbers count in it."""
        nothing = _Read((), (), (), "it does not depend on the model's inputs")
        return [
            self._settled(number, self._readings.get(tensor, nothing))
            for tensor, number in self._numbers.items()
        ]

    # -- attention -------------------------------------------------------------------------

    def _read(self, tensor: Hashable, weights: Weights) -> _Read:
        """Returns what attention weights read, and notes what goes through them from here on."""
        axes, number = self._axes[tensor], self._numbers[tensor]
        query, batch = weights.query, weights.batch
        first = () if batch is None else axes[batch]
        others: list[_Axis] = []
        samples = False
        for axis in (first, *(axes[i] for i in weights.others)):
            if self._root(self._batch) not in self._labels(axis):
                others += [axis] if axis else []
                continue
            # What is joined with the samples has axes of its own as weights come out.
            others += [(f,) for f in axis if self._root(f.label) != self._root(self._batch)]
            samples = True
        problem = ""
        if not weights.apart and samples and len(first) > 1:
            problem = "its first axis joins samples with windows, frames or heads"
        queries = axes[query] if query is not None else ()
        if not queries and not any(self._positional(f.label) for axis in others for f in axis):
            # A single query is a position as well: what it sums up goes on from it.
            queries = (_Factor(self._new(is_position=True), 1),)
        keys = tuple(axes[i] for i in weights.keys if axes[i])
        changed = list(axes)
        for i in range(len(axes)):
            if i in weights.keys:
                changed[i] = tuple(
                    dataclasses.replace(f, keys_of=f.keys_of | {number}) for f in axes[i]
                )
            elif i == query:
                changed[i] = tuple(
                    dataclasses.replace(f, after=f.after | {number}) for f in queries
                )
            else:
                changed[i] = tuple(
                    dataclasses.replace(f, after=f.after | {number}) if self._is_beside(f) else f
                    for f in axes[i]
                )
        self._axes[tensor] = tuple(changed)
        return _Read(queries, keys, tuple(others), problem)

    def _is_beside(self, factor: _Factor) -> bool:
        root = self._root(factor.label)
        return root != self._root(self._batch) and self._is_position[root]

    def _settled(self, number: int, read: _Read) -> Reading:
        """Returns a reading once the whole graph was followed: labels may have become one."""
        problem = read.problem
        positional = [a for a in read.others if any(self._positional(f.label) for f in a)]
        shared = set(map(self._root, self._shared.get(number, ())))
        beside = [a for a in positional if set(self._labels(a)) <= shared]
        queries = [a for a in positional if a not in beside]
        heads = [a for a in read.others if a not in positional]
        if any(set(self._labels(a)) & shared for a in queries) or (
            positional and number not in self._shared
        ):
            problem = problem or (
                "it attends over several axes, or within windows, frames or the like, one beside "
                "the other"
            )
        if any(self._positional(f.label) for f in read.queries):
            (beside if set(self._labels(read.queries)) <= shared else queries).append(read.queries)
        elif positional:
            heads.append(read.queries)
        else:
            queries.append(read.queries)
        if number in self._mismatched:
            problem = problem or "it weighs values of other positions than its keys are of"
        own, read_from = self._stream(queries), self._stream(read.keys)
        if self._are_windows(self._stream(beside), {*own, *read_from}):
            problem = problem or "it attends within windows, one beside the other"
        every, others = self._stream([*queries, *beside]), self._stream([*read.keys, *beside])
        over_channels = not any(map(self._positional, read_from)) and (
            bool(positional) or (own != read_from and not any(map(self._positional, own)))
        )
        if over_channels and every and read_from:
            problem = problem or "it attends over channels"
        return Reading(
            every,
            others,
            _NOTHING.union(*(_after(a) for a in queries or beside)),
            _NOTHING.union(*(_after(a) for a in read.keys or beside)),
            problem,
            frozenset(self._stream(beside)),
            frozenset(self._stream(heads)),
        )

    def _stream(self, axes: Iterable[_Axis]) -> tuple[int, ...]:
        """Returns the labels of positions along some axes, in the order of these labels."""
        return tuple(label for labels in sorted(map(self._labels, axes)) for label in labels)

    def _are_windows(self, beside: Sequence[int], own: Collection[int]) -> bool:
        """Tells whether attention is within one part of an axis, beside the others of it."""
        return any(
            self._root(a) in beside and self._root(b) in own
            for parts in self._cuts.values()
            for a, b in (parts, parts[::-1])
        )

    # -- labels ----------------------------------------------------------------------------

    def _new(self, is_position: bool) -> int:
        self._parents.append(len(self._parents))
        self._is_position.append(is_position)
        return len(self._parents) - 1

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            label = self._parents[label]
        return label

    def _positional(self, label: int) -> bool:
        return self._is_position[self._root(label)]

    def _labels(self, axis: _Axis) -> tuple[int, ...]:
        return tuple(self._root(f.label) for f in axis)

    def _unite(self, a: int, b: int) -> None:
        a, b = sorted((self._root(a), self._root(b)))
        self._parents[b] = a
        self._is_position[a] = self._is_position[a] or self._is_position[b]

    # -- one operation ---------------------------------------------------------------------

    def _joined(self, step: Step, tensor: Hashable, axis: int, size: Size) -> _Axis:
        """Returns an axis of a result: what is kept of the operands' axes, or a new one."""
        if size == 1:
            return self._single(step, tensor, axis)
        found: _Axis | None = None
        for other in self._handed(step.kept, tensor, axis):
            if not other:
                continue  # of one entry, which is repeated
            joined = other if found is None else self._united(found, other)
            if joined is None:
                return self._fresh(size, [found or (), other])
            found = joined
        if found is None:
            return self._fresh(size, self._handed(step.moved, tensor, axis))
        return _sized(found, size)

    def _single(self, step: Step, tensor: Hashable, axis: int) -> _Axis:
        """Returns an axis of one entry: one sample, or a query that attention has gone through."""
        for other in self._handed(step.kept, tensor, axis):
            if other and (other[0].size == 1 or self._root(other[0].label) == self._batch):
                return other
        return ()

    def _handed(self, links: Iterable[Link], tensor: Hashable, axis: int) -> list[_Axis]:
        return [
            self._axes[link.operand][a]
            for link in links
            if link.result == tensor and link.operand in self._axes
            for a, b in link.pairs
            if b == axis and a < len(self._axes[link.operand])
        ]

    def _fresh(self, size: Size, instead_of: Iterable[_Axis] = ()) -> _Axis:
        of_positions = any(self._positional(f.label) for axis in instead_of for f in axis)
        return (_Factor(self._new(is_position=of_positions), size),)

    def _united(self, a: _Axis, b: _Axis) -> _Axis | None:
        """Returns an axis along which two lie side by side; None where they cannot."""
        if len(a) != len(b):
            return self._known_beside_unknown(a, b)
        if any(
            isinstance(f.size, int) and isinstance(g.size, int) and f.size != g.size
            for f, g in zip(a, b, strict=True)
        ):
            return None
        for f, g in zip(a, b, strict=True):
            self._unite(f.label, g.label)
        return tuple(
            _Factor(
                self._root(f.label),
                g.size if f.size is None else f.size,
                f.after | g.after,
                f.keys_of | g.keys_of,
            )
            for f, g in zip(a, b, strict=True)
        )

    def _known_beside_unknown(self, a: _Axis, b: _Axis) -> _Axis | None:
        """Returns the axis of positions, where the other is one of which nothing is known.

        So a mask that is computed from sizes lies beside scores of the rows and columns of a map.
        """
        for known, other in ((a, b), (b, a)):
            plain = len(other) == 1 and not self._positional(other[0].label)
            if plain and not other[0].after and not other[0].keys_of:
                sizes = [f.size for f in known]
                whole = math.prod(s for s in sizes if isinstance(s, int))
                is_whole = all(isinstance(s, int) for s in sizes)
                if not is_whole or other[0].size in (None, whole):
                    return known
        return None

    def _check_sum(self, a: Hashable, i: int, b: Hashable, j: int) -> None:
        """Notes attention whose keys are no positions of the values that it weighs."""
        if a not in self._axes or b not in self._axes:
            return
        one, other = self._axes[a][i], self._axes[b][j]
        for keys, values in ((one, other), (other, one)):
            numbers = _NOTHING.union(*(f.keys_of for f in keys))
            if not numbers or not values:
                continue
            if self._labels(keys) != self._labels(values) or _after(keys) != _after(values):
                self._mismatched |= numbers

    def _note_shared(self, step: Step, weights: Hashable, key: int, values: Hashable) -> None:
        """Notes beside which positions of its values attention weighs: those of the same there."""
        if weights not in self._axes or values not in self._axes or weights == values:
            return
        numbers = _NOTHING.union(*(f.keys_of for f in self._axes[weights][key]))
        of_values = {
            b
            for link in step.kept
            if link.operand == values
            for a, b in link.pairs
            if self._axes[values][a]
        }
        for link in step.kept if numbers else ():
            if link.operand == weights:
                labels = {
                    f.label for a, b in link.pairs if b in of_values for f in self._axes[weights][a]
                }
                for number in numbers:
                    self._shared.setdefault(number, set()).update(labels)

    # -- reshapes --------------------------------------------------------------------------

    def _regrouped(self, axes: Sequence[_Axis], sizes: tuple[Size, ...]) -> list[_Axis]:
        """Returns the axes of a reshaped tensor.

        Sizes are matched from the front and from behind; one axis in the middle gets what is left.
        """
        left = [f for axis in axes for f in axis if f.size != 1]
        kept = list(left)
        found, places = matched_from_both_ends(
            sizes, lambda size, backwards: self._taken(left, size, backwards)
        )
        if len(places) == 1:
            found[places[0]] = tuple(left)
        elif len(places) == len(left):
            for place, factor in zip(places, left, strict=True):
                known = isinstance(factor.size, int) and isinstance(sizes[place], int)
                found[place] = None if known and factor.size != sizes[place] else (factor,)
        return [
            self._fresh(size, [tuple(kept)] if size != 1 else []) if axis is None else
            self._whole(axis)
            for axis, size in zip(found, sizes, strict=True)
        ]  # fmt: skip

    def _taken(self, left: list[_Factor], size: Size, backwards: bool) -> _Axis | None:
        """Takes the factors of one size away from an end; None where they do not make it up."""
        if size == 1:
            return ()
        end = -1 if backwards else 0
        if not isinstance(size, int):
            same = bool(left) and size is not None and left[end].size == size
            return (left.pop(end),) if same else None
        taken: list[_Factor] = []
        rest, pending = size, list(left)
        while rest > 1:
            factor = pending.pop(end) if pending else None
            if factor is None or not isinstance(factor.size, int):
                return None
            if rest % factor.size:
                if factor.size % rest:
                    return None
                parts = (factor.size // rest, rest) if backwards else (rest, factor.size // rest)
                cut = self._cut(factor, parts)
                factor, left_over = cut[::-1] if backwards else cut
                pending.insert(len(pending) if backwards else 0, left_over)
            taken.append(factor)
            rest //= int(factor.size or 1)
        left[:] = pending
        return tuple(reversed(taken)) if backwards else tuple(taken)

    def _cut(self, factor: _Factor, sizes: tuple[int, int]) -> tuple[_Factor, _Factor]:
        """Returns the parts of a factor, which are the same wherever it is cut so."""
        key = (self._root(factor.label), sizes)
        if key not in self._cuts:
            kind = self._positional(factor.label)
            self._cuts[key] = (self._new(kind), self._new(kind))
        first, second = (
            dataclasses.replace(factor, label=label, size=size)
            for label, size in zip(self._cuts[key], sizes, strict=True)
        )
        return first, second

    def _whole(self, axis: _Axis) -> _Axis:
        """Returns an axis with the parts of a factor joined again that was cut."""
        found = list(axis)
        for (label, sizes), parts in self._cuts.items():
            for i in range(len(found) - 1):
                here = (self._root(found[i].label), self._root(found[i + 1].label))
                if here == tuple(map(self._root, parts)):
                    after = found[i].after | found[i + 1].after
                    keys_of = found[i].keys_of | found[i + 1].keys_of
                    size = math.prod(s for s in sizes if isinstance(s, int))
                    found[i : i + 2] = [_Factor(self._root(label), size, after, keys_of)]
                    break
        return tuple(found)


def _sized(axis: _Axis, size: Size) -> _Axis:
    """Returns an axis with the size that its tensor has, where its own is not a number.

    A table of 8 positions is added to `n` tokens: there are 8 of them. One that is cut to as many
    gives them another name, by which the reshapes that follow call them.
    """
    if len(axis) != 1 or isinstance(axis[0].size, int) or size is None:
        return axis
    return (dataclasses.replace(axis[0], size=size),)


def matched_from_both_ends(
    sizes: Sequence[Size], take: Callable[[Size, bool], T | None]
) -> tuple[list[T | None], list[int]]:
    """Matches sizes with what `take` has for them, until one size is left or there is no match.

    Args:
        sizes: of the axes of a tensor.
        take: takes what makes up a size from the front, or from behind; None where nothing does.

    Returns:
        What each axis has got, and the axes that have got nothing.
    """
    found: list[T | None] = [None] * len(sizes)
    places = list(range(len(sizes)))
    for backwards in (False, True):
        for i in list(reversed(places)) if backwards else list(places):
            taken = take(sizes[i], backwards) if len(places) > 1 else None
            if taken is None:
                break
            found[i] = taken
            places.remove(i)
    return found, places


def _after(axis: _Axis) -> frozenset[int]:
    """Returns the attentions whose weighted sums lie along an axis."""
    return _NOTHING.union(*(f.after for f in axis))
