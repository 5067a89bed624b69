"""Capture by interpretation: watch the layer calls of a model while it is traced.

`Layer.__call__` is wrapped for the length of a trace, as torch.fx's tracer does for modules.
That reaches layers inside nested models, custom layers and subclassed models alike. Every
layer runs exactly as it does unwatched; at most, an output is exchanged. The wrapper looks for
a watcher in a context variable, so that calls in other threads pass through; it is removed
when the last watcher leaves, whatever was raised.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

#: Names a call of a layer: its path and which call of that layer it is.
CallKey = tuple[str, int]
#: Layer call -> position of an output -> what makes the tensor that stands in for it.
Replacements = Mapping[CallKey, Mapping[int, Callable[[Any], Any]]]


@dataclasses.dataclass
class LayerCall:
    """One call of one layer that was watched.

    Attributes:
        layer: the layer.
        path: its path in the model.
        index: which call of this layer it is.
        first_op: number of operations in the graph before the call.
        last_op: number of operations in the graph after it.
        inputs: the tensors it was given, flat.
        outputs: the flat tensors it returned.
        step_of: path of the recurrent layer of which this call is one step, or `""`.
    """

    layer: Any
    path: str
    index: int
    first_op: int
    last_op: int = 0
    inputs: list[Any] = dataclasses.field(default_factory=list)
    outputs: list[Any] = dataclasses.field(default_factory=list)
    step_of: str = ""


class Watcher:
    """Records the calls of a model's layers in the order in which they begin.

    Attributes:
        calls: what was recorded.
    """

    def __init__(
        self,
        model: Any,
        replaced: Replacements | None = None,
    ) -> None:
        """Prepares for one call of `model`.

        Args:
            model: the model that is about to be called.
            replaced: outputs that other tensors stand in for from there on.
        """
        self.calls: list[LayerCall] = []
        self._model = model
        self._replaced = replaced or {}
        self._paths = layer_paths(model)
        self._counts: dict[int, int] = {}
        self._stack: list[LayerCall] = []

    def __call__(self, original: Any, layer: Any, args: Any, kwargs: Any) -> Any:
        """Stands in for `Layer.__call__`; `original` is the real one."""
        if layer is self._model and not self._stack:
            return original(layer, *args, **kwargs)
        call = self._begin(layer, args, kwargs)
        self._stack.append(call)
        try:
            outputs = original(layer, *args, **kwargs)
        finally:
            self._stack.pop()
        call.last_op = _operations()
        replaced = self._replaced.get((call.path, call.index))
        if replaced:
            outputs = _replace(outputs, replaced)
        call.outputs = keras.tree.flatten(outputs)
        return outputs

    def _begin(self, layer: Any, args: Any, kwargs: Any) -> LayerCall:
        path = self._paths.get(id(layer))
        if path is None:
            # Kept where Keras does not track it, say in a closure: named by who called it.
            path = "/".join([*(c.path for c in self._stack[-1:]), layer.name])
            self._paths[id(layer)] = path
        index = self._counts.get(id(layer), 0)
        self._counts[id(layer)] = index + 1
        tensors = [t for t in keras.tree.flatten((args, kwargs)) if tf.is_tensor(t)]
        call = LayerCall(layer, path, index, first_op=_operations(), inputs=tensors)
        for outer in self._stack:
            if isinstance(outer.layer, keras.layers.RNN):
                call.step_of = outer.path
        self.calls.append(call)
        return call


_watcher: contextvars.ContextVar[Watcher | None] = contextvars.ContextVar("watcher", default=None)


class _Wrapper:
    """Wraps `Layer.__call__` while somebody watches, in whatever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._original: Any = None

    def acquire(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._original = keras.Layer.__call__
                keras.Layer.__call__ = _watched(self._original)

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                keras.Layer.__call__ = self._original


def _watched(original: Any) -> Any:
    @functools.wraps(original)
    def watched_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        watcher = _watcher.get()
        if watcher is None:
            return original(self, *args, **kwargs)
        return watcher(original, self, args, kwargs)

    return watched_call


_wrapper = _Wrapper()


def _replace(outputs: Any, replaced: Mapping[int, Callable[[Any], Any]]) -> Any:
    """Returns a nest of outputs with some tensors exchanged; masks stay where they were."""
    flat = keras.tree.flatten(outputs)
    for position, stand_in in replaced.items():
        before = flat[position]
        flat[position] = stand_in(before)
        mask = getattr(before, "_keras_mask", None)
        if mask is not None:
            flat[position]._keras_mask = mask
    return keras.tree.pack_sequence_as(outputs, flat)


@contextlib.contextmanager
def watching(watcher: Watcher) -> Iterator[Watcher]:
    """Lets `watcher` see every layer call made in this thread inside the `with` block."""
    _wrapper.acquire()
    token = _watcher.set(watcher)
    try:
        yield watcher
    finally:
        _watcher.reset(token)
        _wrapper.release()


def layer_paths(model: Any) -> dict[int, str]:
    """Returns `id(layer)` -> path for every layer below `model`.

    A layer that is reachable in several ways has the path found first, outer models first.
    Namesakes under one parent are told apart by `~2`, `~3` and so on.
    """
    paths: dict[int, str] = {}
    queue: list[tuple[Any, str]] = [(model, "")]
    seen = {id(model)}
    while queue:
        parent, prefix = queue.pop(0)
        names: dict[str, int] = {}
        for layer in parent._flatten_layers(include_self=False, recursive=False):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            names[layer.name] = names.get(layer.name, 0) + 1
            count = names[layer.name]
            path = prefix + (layer.name if count == 1 else f"{layer.name}~{count}")
            paths[id(layer)] = path
            queue.append((layer, path + "/"))
    return paths


def _operations() -> int:
    """Returns how many operations the graph that is being traced has."""
    return 0 if tf.executing_eagerly() else int(tf.compat.v1.get_default_graph().version)
