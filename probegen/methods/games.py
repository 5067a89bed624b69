"""Methods whose values are weighted sums of the scores of coalitions of groups."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from probegen.errors import InstrumentError, SpecError, did_you_mean
from probegen.methods.arrays import ByName, StoredArray, is_array_like, stored_array
from probegen.methods.axes import Axes, Sizes, sample_axes
from probegen.methods.baselines import check_shape
from probegen.methods.by_scores import Subject, beside_channels, hidden_axes
from probegen.methods.coalitions import Coalitions
from probegen.methods.fields import check_whole, checked_number
from probegen.methods.groups import ByGroups, kept, present, spread
from probegen.methods.operations import Operations, T
from probegen.methods.samples import Place

#: What stands in the place of hidden groups: a number, an array of one sample, or several; or one
#: of these for each tensor.
Background = float | StoredArray | ByName[Any]

#: The largest matrix of weights that is stored, in numbers. It is 64 MiB of the file.
_LARGEST = 2**24


@dataclasses.dataclass(frozen=True)
class ByCoalitions(ByGroups, abc.ABC):
    """Explains groups by the scores of coalitions: some groups kept, the others hidden."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "background", checked_background(self.background))
        check_whole("seed", self.seed, 0)
        check_whole("max_groups", self.max_groups, 1)

    @property
    def background(self) -> Background:
        """What stands in the place of hidden groups: a field with a default."""
        raise NotImplementedError

    @property
    def seed(self) -> int:
        """Of what is drawn: a field with a default."""
        raise NotImplementedError

    @property
    def max_groups(self) -> int:
        """The most groups that a request may have: a field with a default."""
        raise NotImplementedError

    @property
    def most_groups(self) -> int | None:
        """The most groups that a request may have."""
        return self.max_groups if self.takes_groups else None

    def at_place(self, place: Place) -> Self:
        """Returns the probe with the background of one tensor."""
        if not isinstance(self.background, ByName):
            return self
        own = self.background.of(*place.names)
        if own is None:
            raise InstrumentError(
                f"background= says nothing for {place.name!r}: give it a value too, or explain one "
                "input with wrt=."
            )
        changes: dict[str, Any] = {"background": own}
        return dataclasses.replace(self, **changes)

    def check_places(self, places: Sequence[tuple[Place, Sizes]]) -> None:
        """Checks the fields against each tensor, and the names that they are given by."""
        if isinstance(self.background, ByName):
            known = list(dict.fromkeys(name for place, _ in places for name in place.names))
            for name in self.background.names:
                if name not in known:
                    raise InstrumentError(
                        f"background= names {name!r}, which is not explained."
                        f"{did_you_mean(name, known)}"
                    )
        for place, sizes in places:
            self.at_place(place).check_subject(place.axes, sizes, place.name)

    @abc.abstractmethod
    def coalitions(self, groups: int) -> Coalitions:
        """Returns the points and their weights for so many groups.

        Raises:
            InstrumentError: there are too few samples.
        """

    def group_count(self, axes: Axes, sizes: Sizes) -> int | None:
        """Returns the number of groups; of a request the most that it may have."""
        return self.max_groups if self.takes_groups else super().group_count(axes, sizes)

    def check_subject(self, axes: Axes, sizes: Sizes, name: str) -> None:
        """Refuses what cannot be cut into a known number of groups, and unfit backgrounds.

        Raises:
            InstrumentError: it is such; says what would work.
        """
        super().check_subject(axes, sizes, name)
        method = type(self).__name__
        groups = self.group_count(axes, sizes)
        if groups is None:
            raise InstrumentError(
                f"pg.{method} needs to know the number of groups, and {name!r} has open sizes: "
                "give groups='grid:8', or groups='input', or the model's input fixed sizes."
            )
        self._check_background(axes, sizes, name)
        if self.point_count(groups) * groups > _LARGEST:
            raise InstrumentError(
                f"{groups} groups are too many for pg.{method} of {name!r}: it stores a "
                f"weight for each group at each of {self.point_count(groups)} points. Give fewer "
                "groups, such as groups='grid:7', or groups='input' with superpixels, or fewer "
                "samples."
            )
        self.coalitions(groups)

    @abc.abstractmethod
    def point_count(self, groups: int) -> int:
        """Returns how many points there will be, as a bound."""

    def _check_background(self, axes: Axes, sizes: Sizes, name: str) -> None:
        if isinstance(self.background, StoredArray):
            sample = tuple(sizes[i] for i in sample_axes(axes))
            check_shape(self.background, "background=", name, sample)

    def _backgrounds(self, rank: int) -> Any:
        """Returns the backgrounds as an array of that rank, `[backgrounds, ...]`."""
        if not isinstance(self.background, StoredArray):
            return np.full((1,) * rank, self.background)
        values = self.background.values
        return values[None] if values.ndim == rank - 1 else values

    def count(self, axes: Axes, sizes: Sizes) -> int:
        """Returns the number of points: coalitions times backgrounds."""
        return len(self._game(axes, sizes).kept) * len(self._backgrounds(len(axes)))

    def _game(self, axes: Axes, sizes: Sizes) -> Coalitions:
        groups = self.group_count(axes, sizes)
        assert groups is not None
        return self.coalitions(groups)

    def prepared(self, ops: Operations[T], subject: Subject[T]) -> tuple[T, ...]:
        """Returns groups, which are kept, weights, backgrounds and how many of them there are."""
        value, axes = subject.value, subject.axes
        game = self._game(axes, tuple(ops.size(value, i) for i in range(len(axes))))
        numbers = self.group_numbers(ops, subject)
        like = ops.widened(value)
        backgrounds = self._backgrounds(len(axes))
        weights = ops.constant(game.weights / len(backgrounds), like)
        # As what is changed has its axes, which may be in another order.
        order = [axes.index(name) for name in subject.moved[0][1]]
        filling = ops.transpose(ops.constant(backgrounds, value), order)
        return numbers, ops.flags(game.kept), weights, filling

    def _split(self, ops: Operations[T], prepared: Sequence[T], numbers: T) -> tuple[T, T]:
        """Returns the coalition and the background of points."""
        times = ops.size(prepared[3], 0) or 1
        if times == 1:
            return numbers, ops.mul(numbers, 0.0)
        coalition = ops.floor(ops.div(numbers, float(times)))
        return coalition, ops.sub(numbers, ops.mul(coalition, float(times)))

    def changed(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, value: T, axes: Axes
    ) -> T:
        """Returns the tensor with the groups that are not in a coalition filled."""
        groups, flags, weights, backgrounds = prepared
        coalition, background = self._split(ops, prepared, numbers)
        chosen = ops.cast(ops.gather(flags, coalition, 0), groups)
        count = ops.size(weights, 1) or 1
        mask = beside_channels(ops, kept(ops, chosen, groups, count, self.takes_groups), axes)
        there, whole = ops.greater(mask, 0.5), ops.expand_dims(value, (0,))
        if isinstance(self.background, float):
            return ops.where(there, whole, self.background)
        return ops.where(
            there, whole, ops.expand_dims(ops.gather(backgrounds, background, 0), (1,))
        )

    def start(self, ops: Operations[T], prepared: Sequence[T], score: T) -> tuple[T, ...]:
        """Returns zeros, one a group."""
        row = ops.cast(ops.zeros_like(ops.max(prepared[2], (0,), keepdims=True)), score)
        return (ops.add(ops.expand_dims(ops.zeros_like(score), (1,)), row),)

    def added(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, scores: T, score: T
    ) -> tuple[T, ...]:
        """Returns the difference of a point's score times its weights."""
        coalition, _ = self._split(ops, prepared, numbers)
        weights = ops.cast(ops.gather(prepared[2], coalition, 0), score)
        difference = ops.sub(scores, ops.expand_dims(score, (0,)))
        return (ops.mul(ops.expand_dims(difference, (2,)), ops.expand_dims(weights, (1,))),)

    def explained(
        self,
        ops: Operations[T],
        subject: Subject[T],
        prepared: Sequence[T],
        sums: Sequence[T],
        score: T,
    ) -> T:
        """Returns the value of each position's group."""
        del score
        numbers, count = prepared[0], ops.size(prepared[2], 1) or 1
        values = sums[0]
        if self._may_lack_groups(ops, subject):
            there = ops.cast(present(ops, numbers, count), values)
            values = self.without_absent(ops, values, there)
        return spread(ops, values, numbers, count, self.takes_groups)

    def _may_lack_groups(self, ops: Operations[T], subject: Subject[T]) -> bool:
        """Tells whether a sample may not have all groups: those of a request, or of a grid."""
        sizes = [ops.size(subject.value, i) for i in hidden_axes(subject.axes)]
        return self.takes_groups or (self.groups is not None and None in sizes)

    def without_absent(self, ops: Operations[T], values: T, there: T) -> T:
        """Returns values of groups where some are absent, which get nothing.

        Args:
            ops: the array operations.
            values: of all groups, `[batch, groups]`.
            there: 1 for each group that a sample has, else 0.
        """
        return ops.mul(values, there)

    def detail(self, axes: Axes) -> dict[str, Any]:
        """Returns the groups and the background."""
        stored = isinstance(self.background, StoredArray)
        return {**super().detail(axes), "background": "stored" if stored else self.background}


def checked_background(value: Any) -> Background:
    """Returns a background in its plain form.

    Raises:
        SpecError: it is neither a number nor an array, nor a table of these by name.
    """
    if isinstance(value, ByName):
        return value
    if isinstance(value, Mapping) and not is_array_like(value):
        if not value or not all(isinstance(name, str) for name in value):
            raise SpecError("background= takes a table of names of inputs or layers.")
        items = tuple((name, _one(one, f"background[{name!r}]")) for name, one in value.items())
        return ByName(items)
    return _one(value, "background")


def _one(value: Any, field: str) -> float | StoredArray:
    if is_array_like(value):
        return stored_array(value, field)
    return checked_number(field, value)
