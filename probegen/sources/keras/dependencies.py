"""Which operations of a TensorFlow graph the values of tensors depend on."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any


def ancestors(tensors: Iterable[Any], without: Collection[str] = ()) -> set[Any]:
    """Returns the operations that the tensors' values depend on, their own included.

    Args:
        tensors: what is made.
        without: types of operations behind which nothing is looked for: of sizes alone, say.
    """
    found: set[Any] = set()
    stack = [t.op for t in tensors]
    while stack:
        op = stack.pop()
        if op not in found:
            found.add(op)
            if op.type not in without:
                stack.extend(t.op for t in op.inputs)
    return found
