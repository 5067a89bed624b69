"""Names of axes, and what they say: positions, sequences, channels."""

from __future__ import annotations

from collections.abc import Sequence

HEIGHT, WIDTH, DEPTH = "height", "width", "depth"
#: Axes of space, the outermost first.
SPACE = (DEPTH, HEIGHT, WIDTH)
HEAD, QUERY, KEY = "head", "query", "key"
#: The place in the order from the largest weight down.
RANK = "rank"
#: Axes along which a sequence runs, and axes whose order means nothing.
SEQUENCE = ("time", "step", "sequence", "position", "token", "frame")
CHANNEL = ("channel", "feature", "unit", "embedding", "class", "filter")
#: Axes along which neighbours are near each other.
NEIGHBOURS = (*SPACE, *SEQUENCE)
#: What the columns of a table or the lines of a series are called.
FEATURES = ("feature", "channel")


def features_axis(axes: Sequence[str]) -> int | None:
    """Returns the axis of the features of a row or a series; None for others, such as pictures."""
    others = [axis for axis in axes if axis not in (*FEATURES, *SEQUENCE)]
    return None if others else axis_of(axes, FEATURES)


def axis_of(axes: Sequence[str], names: str | Sequence[str]) -> int | None:
    """Returns the position of the first axis with one of the names, or None."""
    wanted = (names,) if isinstance(names, str) else names
    return next((i for i, axis in enumerate(axes) if axis in wanted), None)
