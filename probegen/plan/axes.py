# ruff: noqa: PLC0414 - what is imported under its own name is given on
"""Names for the dimensions of tensors.

What the axes of a tensor are is told by `layouts`; here is what they are called, and which of
them hold channels and positions.
"""

from __future__ import annotations

from collections.abc import Sequence

from probegen.methods.axes import BATCH as BATCH
from probegen.methods.axes import CHANNELS as CHANNELS
from probegen.methods.axes import TIME as TIME
from probegen.methods.axes import Axes as Axes
from probegen.methods.axes import Sizes as Sizes
from probegen.methods.axes import batch_first, behind_batch
from probegen.methods.axes import channel_axis as channel_axis
from probegen.methods.axes import position_axes as position_axes
from probegen.methods.axes import without as without

CHANNEL, KEY = "channel", "key"
#: Heads of attention in groups that share keys and values: which group, and which head of it.
GROUPED_HEADS = ("head_0", "head_1")
#: Parts of an image within which there is attention; `window_0`, `window_1` where they have axes.
WINDOW = "window"
#: Names of positions, by how many axes they have.
SPATIAL = {1: (TIME,), 2: ("height", "width"), 3: ("depth", "height", "width")}

#: A name for each axis, None where there is none yet.
Names = Sequence[str | None]


def complete(names: Names, *, usual: bool = True) -> Axes:
    """Returns names for all axes: channels last where none are known.

    Args:
        names: those that are known.
        usual: give positions the usual names where none of them has one: one is time, two are
            height and width. The others are called `axis_1`, `axis_2` and so on.
    """
    found = [BATCH, *names[1:]] if names else []
    if len(found) > 1 and CHANNEL not in found and found[-1] is None:
        found[-1] = CHANNEL
    places = [i for i, n in enumerate(found) if n not in (BATCH, CHANNEL)]
    missing = [i for i in places if found[i] is None]
    words = SPATIAL.get(len(places), ()) if usual and len(missing) == len(places) else ()
    for number, i in enumerate(missing):
        found[i] = words[number] if words else neutral(i)
    return tuple(str(n) for n in found)


def neutral(place: int) -> str:
    """Returns what an axis is called that nothing tells of."""
    return f"axis_{place}"


def is_neutral(name: str) -> bool:
    """Tells whether a name says nothing but where the axis stands."""
    return name.startswith("axis_")


def with_batch_first(
    axes: Axes, shape: Sequence[int | None]
) -> tuple[Axes, tuple[int | None, ...], tuple[int, ...]]:
    """Returns names and sizes with the batch in front, and the axes in that order.

    What has no batch is one sample: it gets a batch axis of size 1 in front, which the order
    counts as axis 0.
    """
    named, order = batch_first(axes)
    whole = tuple(shape) if BATCH in axes else (1, *shape)
    return named, tuple(whole[i] for i in order), order


# -- by what a tensor is -----------------------------------------------------------------------


def input_axes(axes: Axes, tokens: bool) -> Axes:
    """Returns the axes of a model input; `tokens` where it goes into an embedding."""
    rank = len(axes)
    if tokens:
        first = next((i for i, name in enumerate(axes) if name != BATCH), rank)
        return tuple(
            name if name == BATCH else TIME if i == first else neutral(i)
            for i, name in enumerate(axes)
        )
    return _called(axes, "feature" if rank <= 3 else CHANNEL)


def look_up_axes(rank: int) -> Axes:
    """Returns the axes of the vectors that ids look up."""
    ids = (BATCH, *map(neutral, range(1, rank - 1)))
    return (*input_axes(ids[: rank - 1], tokens=True), CHANNEL)


def activation_axes(axes: Axes) -> Axes:
    """Returns the axes of a layer's output."""
    return _called(axes, "unit" if len(axes) == 2 else CHANNEL)


def gradient_axes(axes: Axes, embedding: bool) -> Axes:
    """Returns the axes of a gradient at a layer's output; `embedding` where it is one."""
    return _called(axes, "embedding") if embedding else activation_axes(axes)


def prediction_axes(axes: Axes, classes: bool) -> Axes:
    """Returns the axes of a model output; `classes` where its channels are classes."""
    steps = tuple("step" if n == TIME and len(axes) == 3 else n for n in axes)
    return _called(steps, "class" if classes else "unit")


def with_windows(axes: Axes, count: int) -> Axes:
    """Returns axes with some more behind the batch: of windows that a model joins with it."""
    names = [WINDOW] if count == 1 else [f"{WINDOW}_{i}" for i in range(count)]
    return (*axes[:1], *names, *axes[1:])


def over_steps_axes(step: Axes, rank: int) -> Axes:
    """Returns the axes of what a layer gives over the steps of a loop, `[batch, time, ...]`.

    Args:
        step: the axes of what it gives in one step; time there is that of something else.
        rank: of what comes out, which has an axis more for each length around the loop.
    """
    count = rank - len(step) + 1  # of what stands before the axes of a step: batch and lengths
    times = [TIME, *(["step"] if count == 3 else map(neutral, range(2, count)))]
    own = (
        neutral(count + i) if name == TIME or is_neutral(name) else name
        for i, name in enumerate(step[1:])
    )
    return (BATCH, *times, *own)


def attention_axes(given: Axes, keys: Sequence[int] = (), steps: int = 0) -> Axes:
    """Returns the axes of attention weights.

    What the softmax sums over is the key, or `key_0`, `key_1` and so on where these are several.
    Before the keys stand the queries, and before these the heads. Weights of one query,
    `[batch, time, 1]` with the softmax over time, are `batch, key, query`.

    Args:
        given: names as far as they are known; of these the batch, windows and grouped heads keep
            theirs.
        keys: the axes that the softmax sums over; the last where it is not known.
        steps: how many axes behind the batch are time, or `time_0`, `time_1`: weights of each step.
    """
    rank = len(given)
    keys = sorted(keys) or [rank - 1]
    kept = (BATCH, *GROUPED_HEADS)
    names = {i: n for i, n in enumerate(given) if n in kept or n.startswith(WINDOW)}
    first = behind_batch(given)
    names.update(_numbered(range(first, first + steps), TIME))
    rest = [i for i in range(rank) if i not in keys and i not in names]
    count = len(keys)
    queries = rest[-count:]
    others = rest[:-count]
    names.update(_numbered(keys, KEY))
    names.update(_numbered(queries, "query"))
    names.update((i, neutral(i)) for i in others[:-1])
    names.update((i, "head") for i in others[-1:])
    return tuple(names[i] for i in range(rank))


def _numbered(places: Sequence[int], name: str) -> dict[int, str]:
    if not places:
        return {}
    if len(places) == 1:
        return {places[0]: name}
    return {place: f"{name}_{i}" for i, place in enumerate(places)}


def _called(axes: Axes, channels: str) -> Axes:
    return tuple(channels if name == CHANNEL else name for name in axes)
