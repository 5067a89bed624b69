"""Names for the dimensions of tensors, from what they are and how many they have."""

from __future__ import annotations

_SPATIAL = {3: ("time",), 4: ("height", "width"), 5: ("depth", "height", "width")}


def positions(rank: int) -> tuple[str, ...]:
    """Returns names for the axes between batch and channel."""
    return _SPATIAL.get(rank, tuple(f"axis_{i}" for i in range(1, rank - 1)))


def named_axes(rank: int, last: str, middle: tuple[str, ...] | None = None) -> tuple[str, ...]:
    """Returns names for all axes of a batched tensor whose last axis is called `last`."""
    if rank == 0:
        return ()
    if rank == 1:
        return ("batch",)
    between = positions(rank) if middle is None else middle
    return ("batch", *between, last)


def input_axes(rank: int, tokens: bool) -> tuple[str, ...]:
    """Returns names for the axes of a model input; `tokens` where it goes into an embedding."""
    if tokens:
        return ("batch", "time", *(f"axis_{i}" for i in range(2, rank)))[:rank]
    return named_axes(rank, {2: "feature", 3: "feature"}.get(rank, "channel"))


def activation_axes(rank: int) -> tuple[str, ...]:
    """Returns names for the axes of a layer's output."""
    return named_axes(rank, "unit" if rank == 2 else "channel")


def prediction_axes(rank: int, classes: bool) -> tuple[str, ...]:
    """Returns names for the axes of a model output; `classes` where its last axis is classes."""
    last = "class" if classes else "unit"
    return named_axes(rank, last, ("step",) if rank == 3 else None)


def attention_axes(rank: int) -> tuple[str, ...]:
    """Returns names for the axes of attention weights."""
    known = {
        2: ("batch", "key"),  # a custom layer that sums a sequence up has one query
        3: ("batch", "query", "key"),
        4: ("batch", "head", "query", "key"),
    }
    if rank in known:
        return known[rank]
    each = (rank - 2) // 2
    queries = tuple(f"query_{i}" for i in range(each))
    return ("batch", "head", *queries, *(f"key_{i}" for i in range(rank - 2 - each)))


def gradient_axes(rank: int, of_layer: str | None) -> tuple[str, ...]:
    """Returns names for a gradient at a layer's output (role `of_layer`)."""
    return named_axes(rank, "embedding") if of_layer == "embedding" else activation_axes(rank)
