"""Which call of a layer one is: the number behind `#` in selectors.

Keras runs the calls of one layer in an order of its own, often from the last to the first. They are
numbered in the order in which a graph was written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras

from probegen.sources.keras.layer_calls import LayerCall

#: Calls of each layer so far, the numbers that these have, and the calls that each caller made.
_State = tuple[dict[int, int], dict[int, set[int]], dict[tuple[int, int], int]]


class CallNumbers:
    """Numbers the calls of the layers of a model while it runs."""

    def __init__(self, model: Any) -> None:
        """Prepares for one call of `model`."""
        self._model = model
        self._counts: dict[int, int] = {}
        self._taken: dict[int, set[int]] = {}
        self._orders = _orders(model)
        #: Caller and layer -> how many calls of the layer the caller has made.
        self._by_caller: dict[tuple[int, int], int] = {}

    def state(self) -> _State:
        """Returns how many calls of each layer were numbered so far."""
        taken = {layer: set(numbers) for layer, numbers in self._taken.items()}
        return dict(self._counts), taken, dict(self._by_caller)

    def restore(self, state: _State) -> None:
        """Lets calls be numbered as from an earlier time on."""
        counts, taken, by_caller = state
        self._counts, self._by_caller = dict(counts), dict(by_caller)
        self._taken = {layer: set(known) for layer, known in taken.items()}

    @contextlib.contextmanager
    def uncounted(self) -> Iterator[None]:
        """Lets calls inside have the numbers of the next ones: what is written on trial."""
        before = self.state()
        try:
            yield
        finally:
            self.restore(before)

    def not_counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function whose calls are not counted."""

        def uncounted(*values: Any) -> Any:
            with self.uncounted():
                return function(*values)

        return uncounted

    def count(self, call: LayerCall) -> None:
        """Counts a call under the number that it has."""
        layer = id(call.layer)
        self._counts[layer] = self._counts.get(layer, 0) + 1
        self._taken.setdefault(layer, set()).add(call.index)

    def next_of(self, layer: Any, caller: LayerCall | None) -> int:
        """Returns which call of a layer this is.

        What a model calls inside is numbered after the model's own call. A layer of a graph may
        be called by another layer as well, as a table of tokens is that OPT reads and writes with:
        each call has a number of its own.

        Args:
            layer: the layer.
            caller: the call that makes this one; None for the model itself.
        """
        number, taken = self._in_graph(layer, caller), self._taken.setdefault(id(layer), set())
        while number in taken:
            number += 1
        taken.add(number)
        return number

    def _in_graph(self, layer: Any, caller: LayerCall | None) -> int:
        """Returns which call this is in the graph that calls a layer, or so far where none does."""
        count = self._counts.get(id(layer), 0)
        self._counts[id(layer)] = count + 1
        runs = self._model if caller is None else caller.layer
        order = self._orders.get((id(runs), id(layer)))
        if order is None:
            return count
        key = (id(caller), id(layer))
        done = self._by_caller.get(key, 0)
        self._by_caller[key] = done + 1
        if done >= len(order):
            return count
        return len(order) * (0 if caller is None else caller.index) + order[done]


def _orders(model: Any) -> dict[tuple[int, int], list[int]]:
    """Returns in which order graphs, and models in a row, run the calls of their layers.

    Returns:
        `id(model)`, `id(layer)` -> for each call that is run, the how-many-th was written.
    """
    found: dict[tuple[int, int], list[int]] = {}
    users: dict[int, int] = {}
    parts = list(model._flatten_layers())
    in_a_row = [m for m in parts if isinstance(m, keras.Sequential)]
    inside = {id(m._functional) for m in in_a_row}  # what they are run by
    for graph in [m for m in parts if hasattr(m, "_nodes_by_depth") and id(m) not in inside]:
        nodes: dict[int, list[Any]] = {}
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                nodes.setdefault(id(node.operation), []).append(node)
        for layer, run in nodes.items():
            users[layer] = users.get(layer, 0) + 1
            written = [n for n in run[0].operation._inbound_nodes if n in run]
            found[id(graph), layer] = [written.index(n) for n in run]
    for row in in_a_row:
        for layer in {id(part) for part in row.layers}:
            users[layer] = users.get(layer, 0) + 1
            found[id(row), layer] = list(range(sum(id(part) == layer for part in row.layers)))
    # A layer that several models call is numbered by the calls themselves.
    return {key: order for key, order in found.items() if users[key[1]] == 1}
