# ruff: noqa: PLC0414 - what is imported under its own name is given on
"""Which axes of a tensor hold channels and which hold positions, told by their names."""

from __future__ import annotations

from collections.abc import Sequence

from probegen.artefact.rows import BATCH as BATCH
from probegen.artefact.rows import CHANNELS as CHANNELS
from probegen.artefact.rows import TIME as TIME

#: A name for each dimension, the batch first.
Axes = tuple[str, ...]
#: A size for each dimension, None where it is open.
Sizes = tuple[int | None, ...]

#: What the axis of frames is called that a model goes through one beside the other, as it goes
#: through samples: each has a map of its own.
FRAME = "frame"


def channel_axis(axes: Sequence[str]) -> int | None:
    """Returns which axis the channels lie along, or None where a tensor has none."""
    return next((i for i, name in enumerate(axes) if name in CHANNELS), None)


def channel_axes(axes: Sequence[str]) -> tuple[int, ...]:
    """Returns the axis that the channels lie along, to reduce over: none where there are none."""
    channel = channel_axis(axes)
    return () if channel is None else (channel,)


def position_axes(axes: Sequence[str]) -> tuple[int, ...]:
    """Returns the axes that are neither batch nor frames nor channels."""
    channel = channel_axis(axes)
    return tuple(i for i, n in enumerate(axes) if n not in (BATCH, FRAME) and i != channel)


def sample_axes(axes: Sequence[str]) -> tuple[int, ...]:
    """Returns the axes of one sample: all but the batch."""
    return tuple(i for i, name in enumerate(axes) if name != BATCH)


def without(axes: Sequence[str], *gone: int | None) -> Axes:
    """Returns the names of the axes that are left."""
    return tuple(name for i, name in enumerate(axes) if i not in gone)


def batch_first(axes: Axes) -> tuple[Axes, tuple[int, ...]]:
    """Returns axes with the batch in front, and the order in which they then come.

    What has no batch is one sample: it gets a batch axis in front, which the order counts as 0.
    """
    named = axes if BATCH in axes else (BATCH, *axes)
    at = named.index(BATCH)
    order = (at, *(i for i in range(len(named)) if i != at))
    return tuple(named[i] for i in order), order


def behind_batch(axes: Sequence[str]) -> int:
    """Returns the place right behind the batch, the first where there is none."""
    return axes.index(BATCH) + 1 if BATCH in axes else 0
