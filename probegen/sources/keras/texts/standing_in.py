"""Lets something else run in the place of layers' `call`, for the length of a `with` block."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

#: Called with the real `call`, the layer, and what it was called with.
StandIn = Callable[..., Any]

_stand_in: contextvars.ContextVar[StandIn | None] = contextvars.ContextVar("stand_in", default=None)


class _Wrapper:
    """Wraps the `call` of classes while somebody stands in, in whatever thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[type, int] = {}
        self._originals: dict[type, Any] = {}

    def acquire(self, classes: Iterable[type]) -> None:
        with self._lock:
            for cls in classes:
                self._users[cls] = self._users.get(cls, 0) + 1
                if self._users[cls] == 1:
                    self._originals[cls] = cls.__dict__["call"]
                    cls.call = _wrapped(cls.__dict__["call"])  # type: ignore[attr-defined]

    def release(self, classes: Iterable[type]) -> None:
        with self._lock:
            for cls in classes:
                self._users[cls] -= 1
                if self._users[cls] == 0:
                    cls.call = self._originals.pop(cls)  # type: ignore[attr-defined]


_wrapper = _Wrapper()


def _wrapped(original: Any) -> Any:
    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        stand_in = _stand_in.get()
        if stand_in is None:
            return original(self, *args, **kwargs)
        # What a text layer calls inside is its own affair.
        token = _stand_in.set(None)
        try:
            return stand_in(functools.partial(original, self), self, *args, **kwargs)
        finally:
            _stand_in.reset(token)

    return call


@contextlib.contextmanager
def standing_in(layers: Iterable[Any], stand_in: StandIn) -> Iterator[None]:
    """Calls `stand_in` where one of some layers is called; calls inside such a call are left alone.

    Layers of the same classes that are not among them run as they do.
    """
    chosen = {id(layer) for layer in layers}
    owners = {next(c for c in type(layer).__mro__ if "call" in c.__dict__) for layer in layers}

    def only_chosen(original: Any, layer: Any, *args: Any, **kwargs: Any) -> Any:
        if id(layer) not in chosen:
            return original(*args, **kwargs)
        return stand_in(original, layer, *args, **kwargs)

    _wrapper.acquire(owners)
    token = _stand_in.set(only_chosen)
    try:
        yield
    finally:
        _stand_in.reset(token)
        _wrapper.release(owners)
