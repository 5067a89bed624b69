"""Which tensors have their positions in the opposite order of the inputs'.

A recurrent layer that runs backwards gives its steps last first; `flip` turns an image round. What
stands in such an order is no map of the input as it lies. Turning twice is not turning: a
bidirectional layer turns what its backward half gives.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

#: What an operation reads, what it makes that has positions, and whether it turns these round.
Turn = tuple[Sequence[Hashable], Sequence[Hashable], bool]


def turned_round(inputs: Iterable[Hashable], steps: Iterable[Turn]) -> frozenset[Hashable]:
    """Returns the tensors that some way from an input has turned round an odd number of times.

    Which axis was turned is not followed: one is enough to make a map that does not lie over its
    input.

    Args:
        inputs: the model's inputs.
        steps: the operations, each behind those whose results it reads.
    """
    ways: dict[Hashable, frozenset[bool]] = {key: frozenset({False}) for key in inputs}
    for read, made, turns in steps:
        found = frozenset(way != turns for key in read for way in ways.get(key, ()))
        if found:
            ways.update(dict.fromkeys(made, found))
    return frozenset(key for key, found in ways.items() if True in found)
