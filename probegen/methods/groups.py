"""Parts of an input that are hidden together: features, tokens, cells of a grid, superpixels."""

from __future__ import annotations

import abc
import dataclasses
import itertools
import math
import re
from typing import Any

import numpy as np

from probegen.errors import InstrumentError, SpecError
from probegen.methods.arrays import StoredArray, is_array_like, stored_array
from probegen.methods.axes import Axes, Sizes
from probegen.methods.by_scores import OfInputsByScores, Subject, Windows, hidden_axes, of_positions
from probegen.methods.operations import Operations, T

#: What a field `groups` may hold: nothing (each feature or token by itself), `"grid:7"`, an array
#: of numbers, or `"input"`.
GroupsField = str | StoredArray | None

INPUT = "input"
_GRID = re.compile(r"grid:([1-9][0-9]*)")


@dataclasses.dataclass(frozen=True)
class ByGroups(OfInputsByScores, abc.ABC):
    """Explains groups of positions: all positions of a group carry the group's value."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "groups", checked_groups(self.groups))

    @property
    def groups(self) -> GroupsField:
        """Which positions belong together: a field with a default."""
        raise NotImplementedError

    @property
    def takes_groups(self) -> bool:
        """Tells whether groups come with each request."""
        return self.groups == INPUT

    def check_subject(self, axes: Axes, sizes: Sizes, name: str) -> None:
        """Refuses an array of groups that has another shape than the positions.

        Raises:
            InstrumentError: it has.
        """
        if not isinstance(self.groups, StoredArray):
            return
        hidden = hidden_axes(axes)
        wanted = tuple(sizes[i] for i in hidden)
        given = self.groups.shape
        if given != wanted:  # an open size is None, which no size is
            shown = " x ".join(f"{axes[i]} {sizes[i] or '(open)'}" for i in hidden)
            instead = (
                " An array has a fixed size: give the model's input one, or groups='input', which "
                "takes an array with each request, or groups='grid:7'."
            )
            raise InstrumentError(
                f"groups= has the shape {given}; {name!r} takes a number for each position of one "
                f"sample: {shown}.{instead if None in wanted else ''}"
            )

    def group_count(self, axes: Axes, sizes: Sizes) -> int | None:
        """Returns the number of groups; None where it is known at run time alone."""
        if isinstance(self.groups, StoredArray):
            return len(np.unique(self.groups.values))
        if self.takes_groups:
            return None
        cells = self._cells(axes, sizes)
        known = [c for c in cells if c is not None]
        return math.prod(known) if len(known) == len(cells) else None

    def _cells(self, axes: Axes, sizes: Sizes) -> list[int | None]:
        """Returns into how many groups each hidden axis is cut, None where each entry is one."""
        side = _side(self.groups)
        found: list[int | None] = []
        for axis in hidden_axes(axes):
            size = sizes[axis]
            found.append(size if side is None else side if size is None else min(side, size))
        return found

    def windows_of_groups(self, axes: Axes, sizes: Sizes) -> tuple[Windows, ...] | None:
        """Returns the windows that the groups are; None where they are none, or not known."""
        found = []
        for axis, cells in zip(hidden_axes(axes), self._cells(axes, sizes), strict=True):
            size = sizes[axis]
            if isinstance(self.groups, StoredArray) or self.takes_groups or not size or not cells:
                return None
            ends = [math.ceil(i * size / cells) for i in range(cells + 1)]
            found.append(tuple(itertools.pairwise(ends)))
        return tuple(found)

    def group_numbers(self, ops: Operations[T], subject: Subject[T]) -> T:
        """Returns which group each position belongs to: floating, `[1 or batch, ...positions]`."""
        value, axes = subject.value, subject.axes
        if subject.groups is not None:
            return subject.groups
        like = ops.widened(value)
        if isinstance(self.groups, StoredArray):
            _, numbers = np.unique(self.groups.values, return_inverse=True)
            return ops.constant(numbers.reshape((1, *self.groups.shape)), like)
        hidden = hidden_axes(axes)
        sizes = tuple(ops.size(value, i) for i in range(len(axes)))
        total: T | None = None
        for place, (axis, cells) in enumerate(
            zip(hidden, self._cells(axes, sizes), strict=True), start=1
        ):
            positions = ops.counted(like, axis)
            size = ops.add(ops.max(positions, (0,)), 1.0)
            count: T | float = size if cells is None else float(cells)
            if _side(self.groups) is not None:
                positions = ops.floor(ops.div(ops.mul(positions, count), size))
            others = tuple(i for i in range(len(hidden) + 1) if i != place)
            positions = ops.expand_dims(positions, others)
            total = positions if total is None else ops.add(ops.mul(total, count), positions)
        # A single number a sample, or the vector of one id, is not cut: it is one group.
        one = ops.max(of_positions(ops, value, axes, like), (0,), keepdims=True)
        return one if total is None else total

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns what the groups are."""
        del axes
        named = self.groups if isinstance(self.groups, str) else None
        return {"groups": "stored" if isinstance(self.groups, StoredArray) else named}


def checked_groups(value: Any) -> GroupsField:
    """Returns what was given for groups in its plain form.

    Raises:
        SpecError: it is none; says what is.
    """
    if value is None or (isinstance(value, str) and (value == INPUT or _GRID.fullmatch(value))):
        return value
    if is_array_like(value):
        array = stored_array(value, "groups", whole=True)
        if array.values.min() < 0:
            raise SpecError("groups= holds negative numbers; groups are counted from 0.")
        return array
    raise SpecError(
        "groups= takes None (each feature or token by itself), 'grid:7' (7 cells along each axis), "
        f"an array of whole numbers, one for each position, or 'input'; got {value!r}."
    )


def _side(groups: GroupsField) -> int | None:
    """Returns the cells of a grid along an axis."""
    found = _GRID.fullmatch(groups) if isinstance(groups, str) else None
    return int(found[1]) if found else None


def spread(ops: Operations[T], values: T, numbers: T, groups: int, per_sample: bool) -> T:
    """Returns the value of each position's group: `[batch, ...positions]`; 0 without a group.

    Args:
        ops: the array operations.
        values: of the groups, `[batch, groups]`.
        numbers: which group each position belongs to, `[1 or batch, ...positions]`.
        groups: how many there are.
        per_sample: whether each sample has its own.
    """
    if not per_sample:
        return ops.gather(values, ops.max(numbers, (0,)), 1)
    rank = ops.rank(numbers)
    flat = ops.joined(numbers, 1, rank - 1)
    found = ops.reshape_like(ops.take_along(values, within(ops, flat, groups)), numbers)
    return ops.where(has_group(ops, numbers, groups), found, 0.0)


def within(ops: Operations[T], numbers: T, groups: int) -> T:
    """Returns numbers of groups, those that are none as the nearest that is one."""
    last = float(groups - 1)
    return ops.sub(last, ops.relu(ops.sub(last, ops.relu(numbers))))


def has_group(ops: Operations[T], numbers: T, groups: int) -> T:
    """Returns true where a number is that of a group; for `where` alone."""
    middle = (groups - 1) / 2
    return ops.greater(groups / 2, ops.abs(ops.sub(numbers, middle)))


def kept(ops: Operations[T], flags: T, numbers: T, groups: int, per_sample: bool) -> T:
    """Returns which positions are kept: `[points, 1 or batch, ...positions]`.

    Args:
        ops: the array operations.
        flags: which groups are kept, 1 or 0, `[points, groups]`.
        numbers: which group each position belongs to; what has none is kept.
        groups: how many there are.
        per_sample: whether each sample has its own groups.
    """
    if not per_sample:
        return ops.gather(flags, numbers, 1)
    found = ops.gather(flags, within(ops, numbers, groups), 1)
    inside = ops.expand_dims(ops.cast(has_group(ops, numbers, groups), found), (0,))
    return ops.where(ops.greater(inside, 0.5), found, 1.0)


def present(ops: Operations[T], numbers: T, groups: int) -> T:
    """Returns 1 for each group that a sample has, else 0: `[1 or batch, groups]`."""
    every = ops.expand_dims(ops.constant(np.arange(groups), numbers), (0, 1))
    rank = ops.rank(numbers)
    flat = ops.expand_dims(ops.joined(numbers, 1, rank - 1), (2,))
    same = ops.greater(0.5, ops.abs(ops.sub(flat, every)))
    return ops.max(ops.cast(same, numbers), (1,))
