"""Tensors that a layer makes inside its call and does not return: attention weights.

They are found again in every trace by what makes them: the how-many-th operation of a type within
the call of a layer. Those of loops do not count, which traces write in different ways. As they are
made, others can be put in their places.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from probegen.plan.plan import CallKey, TensorRef
from probegen.sources.keras.capture import Watcher
from probegen.sources.keras.exchanging import exchanging

#: What counts operations in no layer's call, but in the whole model.
_WHOLE_MODEL: CallKey = ("", 0)


def number_in_call(operations: list[Any], op: Any) -> int:
    """Returns how many operations of its type stand before one; -1 where it is not among them.

    Args:
        operations: those of the layer call, in their order, without those of loops.
        op: one of them.
    """
    before = 0
    for other in operations:
        if other is op:
            return before
        before += other.type == op.type
    return -1


class InnerTensors:
    """Puts others in the place of inner tensors, in one trace.

    Attributes:
        tensors: what stands in for each.
    """

    def __init__(self, stand_ins: Mapping[TensorRef, Callable[[Any], Any]]) -> None:
        """Prepares for one trace.

        Args:
            stand_ins: what makes the tensor that stands in for an inner one.
        """
        self.tensors: dict[TensorRef, Any] = {}
        self._stand_ins = dict(stand_ins)
        self._calls: dict[CallKey, list[TensorRef]] = {}
        for ref in stand_ins:
            self._calls.setdefault(ref.within or ref.key, []).append(ref)
        self._counts: Counter[tuple[CallKey, str]] = Counter()

    @contextlib.contextmanager
    def listening(self, watcher: Watcher) -> Iterator[None]:
        """Sees every operation that is written into the graph of now, and exchanges tensors."""

        def instead(tensor: Any) -> Any:
            return None if watcher.in_loop else self._seen(tensor, watcher.under_way)

        with exchanging(instead):
            yield

    def _seen(self, tensor: Any, calls: list[CallKey]) -> Any:
        """Counts an operation; returns what stands in for its result, None where nothing does."""
        kind, after = tensor.op.type, None
        for key in [_WHOLE_MODEL, *calls]:
            if key not in self._calls:
                continue
            number = self._counts[key, kind]
            self._counts[key, kind] += 1
            for ref in self._calls[key]:
                if ref.operation == kind and ref.position == number:
                    after = self._stand_ins[ref](tensor if after is None else after)
                    self.tensors[ref] = after
        return after
