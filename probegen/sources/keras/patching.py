"""Replaces functions of a library while somebody needs other ones in their place."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class Patch(NamedTuple):
    """What stands in the place of a function.

    Attributes:
        owner: the class or the module that has the function.
        name: what it is called there.
        wrap: makes of the original what stands there instead.
    """

    owner: Any
    name: str
    wrap: Callable[[Any], Any]


@contextlib.contextmanager
def set_to(variable: contextvars.ContextVar[T], value: T) -> Iterator[None]:
    """Gives a context variable a value inside the `with` block."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


class Patches:
    """Functions that are wrapped as long as any thread needs them to be.

    What stands there is seen by all threads; whoever needs it looks in a context variable whether
    it is meant. The originals come back when the last one leaves, whatever was raised.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[tuple[Any, str], int] = {}
        self._originals: dict[tuple[Any, str], Any] = {}

    @contextlib.contextmanager
    def applied(self, patches: Sequence[Patch]) -> Iterator[None]:
        """Applies patches inside the `with` block, each of another function."""
        self._acquire(patches)
        try:
            yield
        finally:
            self._release(patches)

    def _acquire(self, patches: Sequence[Patch]) -> None:
        with self._lock:
            new = [p for p in patches if not self._users.get((p.owner, p.name))]
            # All before any is replaced: a class may have its function of another one.
            self._originals.update({(p.owner, p.name): getattr(p.owner, p.name) for p in new})
            for owner, name, wrap in new:
                setattr(owner, name, wrap(self._originals[owner, name]))
            for patch in patches:
                key = (patch.owner, patch.name)
                self._users[key] = self._users.get(key, 0) + 1

    def _release(self, patches: Sequence[Patch]) -> None:
        with self._lock:
            for owner, name, _ in patches:
                self._users[owner, name] -= 1
                if self._users[owner, name] == 0:
                    setattr(owner, name, self._originals.pop((owner, name)))
                    del self._users[owner, name]
