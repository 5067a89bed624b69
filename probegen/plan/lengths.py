"""How long sequences may be at most: as long as a model has positions for.

A model adds the first rows of a table to its steps, or looks up `0, 1, 2...` in one: a sequence
longer than the table has no positions. Sizes of tensors are followed through the graph as numbers,
`size + something`, to where a stored table is cut or looked up by them. Sources say what an
operation does; nothing here knows a framework.

    Shape(x)[1] -> Slice(table [512, 64], 0, size): no more than 512 steps
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Mapping, Sequence


@dataclasses.dataclass(frozen=True)
class Length:
    """The size of an open axis, plus a number.

    Attributes:
        inputs: positions of the inputs whose size it is.
        plus: the number.
    """

    inputs: frozenset[int]
    plus: int = 0

    def __add__(self, more: int) -> Length:
        return Length(self.inputs, self.plus + more)


#: A number as far as it is known.
Entry = int | Length | None


class LengthFinder:
    """Follows sizes through one graph.

    Attributes:
        entries: tensor -> the numbers that it holds, where it is made of sizes and constants.
        counted: tensor -> one more than the largest number in it, where it counts up from 0.
    """

    def __init__(self, inputs: Sequence[tuple[Hashable, Sequence[int | None]]]) -> None:
        """Prepares for one graph.

        Args:
            inputs: what is fed, in order: the tensor and its sizes.
        """
        self.entries: dict[Hashable, list[Entry]] = {}
        self.counted: dict[Hashable, Length] = {}
        self._from = {key: frozenset([i]) for i, (key, _) in enumerate(inputs)}
        self._sized = dict(self._from)
        open_axes = [sum(d is None for d in sizes[1:]) for _, sizes in inputs]
        self._open = frozenset(i for i, count in enumerate(open_axes) if count == 1)
        self._limits: dict[int, int] = {}

    def depends(self, key: Hashable) -> bool:
        """Tells whether the numbers of a tensor, and not its sizes alone, hang on what is fed."""
        return key in self._from

    def follow(
        self, operands: Sequence[Hashable], results: Sequence[Hashable], *, keeps_sizes: bool
    ) -> None:
        """Notes that an operation makes some tensors of others.

        Args:
            operands: what it reads.
            results: what it makes.
            keeps_sizes: whether an open axis is as long behind it as before. Strides, padding,
                slices and what is put beside make another length of it.
        """
        for known in (self._from, self._sized) if keeps_sizes else (self._from,):
            of = frozenset[int]().union(*(known.get(o, frozenset()) for o in operands))
            if of:
                known.update(dict.fromkeys(results, of))

    def shape(self, result: Hashable, tensor: Hashable, sizes: Sequence[int | None]) -> None:
        """Notes that a tensor holds the sizes of another; the batch, in front, is none of ours."""
        of = self._sized.get(tensor, frozenset()) & self._open
        length = Length(of) if of else None
        self.entries[result] = [
            d if d is not None else length if i else None for i, d in enumerate(sizes)
        ]

    def add(self, result: Hashable, a: Sequence[Entry], b: Sequence[Entry]) -> None:
        """Notes that a tensor holds sums of numbers."""
        count = max(len(a), len(b))
        if {len(a), len(b)} <= {1, count}:
            first, second = (list(x) * (count // len(x)) for x in (a, b))
            self.entries[result] = [_sum(x, y) for x, y in zip(first, second, strict=True)]

    def cut(self, rows: int | None, start: Entry, end: Entry) -> None:
        """Notes that a stored table is cut along an axis of so many rows."""
        if rows is not None and isinstance(start, int) and start >= 0 and isinstance(end, Length):
            self._limit(end, rows)

    def looked_up(self, rows: int | None, index: Hashable) -> None:
        """Notes that a stored table of so many rows is looked up."""
        if rows is not None and index in self.counted:
            self._limit(self.counted[index], rows)

    def _limit(self, length: Length, rows: int) -> None:
        for i in length.inputs:
            self._limits[i] = min(rows - length.plus, self._limits.get(i, rows - length.plus))

    def found(self) -> Mapping[int, int]:
        """Returns the positions of inputs -> the most steps that they may have, where known."""
        return {i: limit for i, limit in self._limits.items() if limit > 0}


def _sum(a: Entry, b: Entry) -> Entry:
    if isinstance(a, int):
        a, b = b, a
    return a + b if a is not None and isinstance(b, int) else None


def holds_as_much(before: Sequence[int | None], after: Sequence[int | None]) -> bool:
    """Tells whether a tensor of other sizes may have its open axes as long as they were.

    It has where what lies behind a step is as much as before: `[batch, time, 6]` as
    `[batch, time, 2, 3]`, but not as `[batch, half the time, 12]`. What lies there is not known
    where products of matrices are written on flat ones.
    """
    if None in (*before[-1:], *after[-1:]) or None not in after[1:]:
        return True
    sizes = [[d for d in one[1:] if d is not None] for one in (before, after)]
    return math.prod(sizes[0]) == math.prod(sizes[1])
