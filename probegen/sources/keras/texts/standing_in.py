"""Runs other functions in the place of layers' `call`, for the length of a `with` block."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from probegen.sources.keras.patching import Patch, Patches, set_to

#: Called with the real `call`, the layer, and what it was called with.
StandIn = Callable[..., Any]

_stand_in: contextvars.ContextVar[StandIn | None] = contextvars.ContextVar("stand_in", default=None)


_patches = Patches()


def _wrapped(original: Any) -> Any:
    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        stand_in = _stand_in.get()
        if stand_in is None:
            return original(self, *args, **kwargs)
        # What a text layer calls inside is its own affair.
        with set_to(_stand_in, None):
            return stand_in(functools.partial(original, self), self, *args, **kwargs)

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

    patches = [Patch(owner, "call", _wrapped) for owner in owners]
    with _patches.applied(patches), set_to(_stand_in, only_chosen):
        yield
