"""Methods that need the model's scores at changed inputs, and no gradient.

Such a method says which changed versions of a tensor it looks at (its points), how a point is made
of the tensor and the number of the point, what the score there adds to the result, and what
becomes of the sums. The engines run the model at the points in a loop, several at once where they
can, and keep the sums alone: neither the graph nor its memory grows with the number of points.

Everything here has its samples first: axis 0 of a tensor is the batch. What belongs to several
points has one axis more in front, that of the points.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Generic

from probegen.errors import InstrumentError, SpecError
from probegen.methods.axes import BATCH, Axes, Sizes, channel_axis
from probegen.methods.base import GradientProbe, OfInputs, OfLayer
from probegen.methods.fields import check_chunk, check_whole
from probegen.methods.operations import Operations, T
from probegen.methods.samples import Place
from probegen.methods.tokens import EMBEDDING
from probegen.text import amount

#: Windows along an axis: the first position of each, and the position behind its last.
Windows = tuple[tuple[int, int], ...]
#: How far apart equal numbers may be after some operations in float32, relative to their size.
_ROUNDED = 2e-6
#: The least range that numbers are divided by, relative to their size: some hundred roundings in
#: float32, so that what rounds them stays below a hundredth of what comes out.
LEAST_RANGE = 1e-4


@dataclasses.dataclass(frozen=True)
class Subject(Generic[T]):
    """What a method looks at.

    Attributes:
        value: the tensor that is explained, the batch first.
        axes: its axes.
        moved: the tensors that are changed together, each with its axes, the batch first. All have
            the positions of each other; of most methods the first is `value`.
        groups: whole numbers `[batch, ...positions]` that came with the request, where the method
            asked for them.
    """

    value: T
    axes: Axes
    moved: tuple[tuple[T, Axes], ...]
    groups: T | None = None


@dataclasses.dataclass(frozen=True)
class ByScores(GradientProbe, abc.ABC):
    """A method that needs scores at changed inputs.

    Attributes:
        stays_wide: True where what comes out has 32 bits at least, whatever the tensor has.
        chunk: how many points go through the model at once; chosen where it is left out (the
            largest activation of a run takes 32 MiB a sample at most, and no run has more than 16
            points). The result does not depend on it. Where a graph is written for a fixed number
            of samples, it is 1.
    """

    needs_gradient: ClassVar[bool] = False
    stays_wide: ClassVar[bool] = False

    chunk: int | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_chunk(self.chunk)

    @property
    def takes_groups(self) -> bool:
        """Tells whether groups of positions come with each request."""
        return False

    @property
    def most_groups(self) -> int | None:
        """The most groups that a request may have; None where there may be any number."""
        return None

    def check_places(self, places: Sequence[tuple[Place, Sizes]]) -> None:
        """Refuses tensors that this probe cannot explain; see `check_subject`."""
        for place, sizes in places:
            self.check_subject(place.axes, sizes, place.name)

    def check_subject(self, axes: Axes, sizes: Sizes, name: str) -> None:
        """Refuses a tensor that this probe cannot explain.

        Args:
            axes: of what is explained, as the model has them.
            sizes: its sizes, None where they are open.
            name: what it is called.

        Raises:
            InstrumentError: it is one; says what was expected.
        """

    @abc.abstractmethod
    def count(self, axes: Axes, sizes: Sizes) -> int | None:
        """Returns the number of points; None where that is known at run time alone.

        Args:
            axes: of what is explained, the batch first.
            sizes: its sizes, None where they are open.
        """

    def windows(self, axes: Axes, sizes: Sizes) -> tuple[Windows, ...] | None:
        """Returns where a point changes the tensor; None where it is no window, or not known.

        What a window does not reach is then not computed again.

        Args:
            axes: of what is explained, the batch first.
            sizes: its sizes, None where they are open.

        Returns:
            For each of `hidden_axes` the windows along it, `(first position, behind the last)`. A
            point has one along each axis, the last axis counted fastest: see `in_each_axis`.
        """
        del axes, sizes
        return None

    @abc.abstractmethod
    def prepared(self, ops: Operations[T], subject: Subject[T]) -> tuple[T, ...]:
        """Returns what all points share, computed once."""

    def counted(self, ops: Operations[T], prepared: Sequence[T]) -> T:
        """Returns the number of points as a floating scalar, where `count` does not know it."""
        raise NotImplementedError

    @abc.abstractmethod
    def changed(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, value: T, axes: Axes
    ) -> T:
        """Returns changed versions of a tensor, `[points, ...axes]`.

        Args:
            ops: the array operations.
            prepared: what `prepared` returned.
            numbers: which points: whole numbers from 0, as floating ones, `[points]`.
            value: one of the tensors that are changed.
            axes: its axes.
        """

    def changed_one(
        self,
        ops: Operations[T],
        prepared: Sequence[T],
        numbers: T,
        value: T,
        axes: Axes,
        which: int,
    ) -> T:
        """Returns changed versions of the tensor that is number `which` of those changed.

        As `changed` does, where it does not matter which one it is.
        """
        del which
        return self.changed(ops, prepared, numbers, value, axes)

    @abc.abstractmethod
    def start(self, ops: Operations[T], prepared: Sequence[T], score: T) -> tuple[T, ...]:
        """Returns zeros in the shapes of the sums.

        Args:
            ops: the array operations.
            prepared: what `prepared` returned.
            score: of the unchanged samples, `[batch]`.
        """

    @abc.abstractmethod
    def added(
        self, ops: Operations[T], prepared: Sequence[T], numbers: T, scores: T, score: T
    ) -> tuple[T, ...]:
        """Returns what points add to each of the sums, `[points, ...]`, still apart.

        Args:
            ops: the array operations.
            prepared: what `prepared` returned.
            numbers: which points, as for `changed`.
            scores: of the changed samples, `[points, batch]`.
            score: of the unchanged samples, `[batch]`.
        """

    @abc.abstractmethod
    def explained(
        self,
        ops: Operations[T],
        subject: Subject[T],
        prepared: Sequence[T],
        sums: Sequence[T],
        score: T,
    ) -> T:
        """Returns the attribution, the batch first."""


@dataclasses.dataclass(frozen=True)
class OfInputsByScores(ByScores, OfInputs):
    """Explains the inputs (or what `wrt` selects) by hiding parts of them.

    All channels of a position are hidden together: the result is `[batch, ...positions]`, or
    `[batch, feature]` of plain vectors, which have no positions. Of an input of tokens the
    positions of what the tokens look up are hidden, all its look-ups together; of one id a sample
    all that it looks up, `[batch]`. Other inputs stay as they are.
    """

    # No option of the command line: there is one number a token as it is.
    per_token: str | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_token is not None:
            raise SpecError(
                f"pg.{type(self).__name__}(per_token={self.per_token!r}): this method hides whole "
                "tokens and gives one number for each as it is; leave per_token out."
            )

    def kept_axes(self, axes: Axes, layer: str = "the layer") -> tuple[int, ...]:
        """Returns the batch and what can be hidden."""
        del layer
        hidden = hidden_axes(axes)
        return tuple(i for i, name in enumerate(axes) if name == BATCH or i in hidden)


@dataclasses.dataclass(frozen=True)
class OfLayerByScores(ByScores, OfLayer):
    """Explains the positions of a layer's output by scores.

    Attributes:
        moves_inputs: whether what is changed are the inputs that the layer depends on, and not the
            layer's output itself.
    """

    moves_inputs: ClassVar[bool] = False


def in_each_axis(ops: Operations[T], numbers: T, counts: Sequence[T]) -> list[T]:
    """Returns which place along each axis numbers mean, the last axis counted fastest.

    Args:
        ops: the array operations.
        numbers: whole numbers as floating ones, `[points]`.
        counts: places along each axis.
    """
    found = []
    for count in reversed(counts):
        rounds = ops.floor(ops.div(numbers, count))
        found.append(ops.sub(numbers, ops.mul(rounds, count)))
        numbers = rounds
    return found[::-1]


def hidden_axes(axes: Axes) -> tuple[int, ...]:
    """Returns the axes along which parts are hidden: the positions, or all of a plain vector.

    None of what one id looks up, `[batch, embedding]`: it is hidden as a whole.
    """
    is_vector = sum(name != BATCH for name in axes) < 2 and EMBEDDING not in axes
    channel = None if is_vector else channel_axis(axes)
    return tuple(i for i, name in enumerate(axes) if name != BATCH and i != channel)


def share_of_range(ops: Operations[T], x: T, over: Sequence[int]) -> T:
    """Returns x from 0, its smallest value over axes, to 1, its largest; 0 where both are one.

    They are one where they differ by what rounds them: a map of one number alone, as a saturated
    unit gives it, is not quite that any more once it has been resized. Where they differ by little
    more than that, x is divided by what would be a range far above rounding: it stays below 1.
    """
    least, largest = (f(x, over, keepdims=True) for f in (ops.min, ops.max))
    span = ops.sub(largest, least)
    size = ops.mul(ops.add(ops.abs(least), ops.abs(largest)), 0.5)
    varies = ops.greater(span, ops.mul(size, 2 * _ROUNDED))
    floor = ops.mul(size, LEAST_RANGE)
    divisor = ops.where(ops.greater(span, floor), span, floor)
    share = ops.div(ops.sub(x, least), ops.where(varies, divisor, 1.0))
    return ops.where(varies, share, 0.0)


def checked_for_axes(field: str, value: Any) -> int | tuple[int, ...]:
    """Returns a whole number of at least 1, or one for each hidden axis, in its plain form.

    Raises:
        SpecError: it is neither.
    """
    several = isinstance(value, list | tuple) and len(value) > 0
    for one in value if several else (value,):
        check_whole(field, one, 1)
    return tuple(value) if several else int(value)


def of_each_axis(given: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    """Returns one number for each hidden axis, of which there are `axes`."""
    return given if isinstance(given, tuple) else (given,) * axes


def check_for_axes(field: str, given: int | tuple[int, ...] | None, axes: int, what: str) -> None:
    """Refuses a number too many or too few.

    Args:
        field: what the numbers are called.
        given: one for all hidden axes, or one for each.
        axes: how many hidden axes there are.
        what: what is done along them, and which they are.

    Raises:
        InstrumentError: there is one.
    """
    if isinstance(given, tuple) and len(given) != axes:
        raise InstrumentError(
            f"{field}={given} has {amount(len(given), 'entry')}; {what}: give one number for each, "
            "or one for all."
        )


def of_positions(ops: Operations[T], value: T, axes: Axes, like: T) -> T:
    """Returns zeros `[batch, ...positions]` of a tensor, of the element type of `like`."""
    hidden = hidden_axes(axes)
    others = tuple(i for i in range(1, len(axes)) if i not in hidden)
    return ops.cast(ops.zeros_like(ops.max(value, others)), like)


def beside_channels(ops: Operations[T], mask: T, axes: Axes) -> T:
    """Returns a mask `[points, batch or 1, ...positions]` so that it goes with a tensor."""
    hidden = hidden_axes(axes)
    others = tuple(i + 1 for i in range(1, len(axes)) if i not in hidden)
    return ops.expand_dims(mask, others)


def masked(ops: Operations[T], value: T, mask: T, axes: Axes) -> T:
    """Returns a tensor times masks `[points, batch or 1, ...positions]`: `[points, ...axes]`.

    What is masked is rounded to the tensor's element type once, even where masks are finer.
    """
    beside = beside_channels(ops, mask, axes)
    finer = ops.at_least(value, beside)
    product = ops.mul(ops.expand_dims(finer, (0,)), ops.cast(beside, finer))
    return ops.cast(product, value)


def beside_positions(ops: Operations[T], scores: T, positions: int) -> T:
    """Returns `[points, batch]` so that it goes with `[points, batch, ...positions]`."""
    return ops.expand_dims(scores, tuple(range(2, 2 + positions)))
