"""Every function of `keras.activations`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import activations
from keras import layers as kl

from sweep.subject import Subject, absent, around

_HELPERS = frozenset({"get", "serialize", "deserialize"})
_SHAPE = (5, 6)
#: What an `Activation` layer cannot hold: it takes arguments, or halves an axis.
_SPECIAL: Mapping[str, Callable[[Any], Any]] = {
    "glu": activations.glu,
    "threshold": lambda x: activations.threshold(x, 0.3, -0.2),
}


def subjects() -> list[Subject]:
    """Returns a row for each activation, inside and behind a softmax where it ends a model."""
    rows = []
    for name in public_functions():
        if name in _HELPERS:
            rows.append(absent(f"activations.{name}", "no activation: turns names into functions"))
        else:
            function = _SPECIAL.get(name) or _in_a_layer(getattr(activations, name))
            rows.append(Subject(f"activations.{name}", _applied(function)))
    exact = keras.ops.gelu
    rows.append(Subject("activations.gelu: exact", _applied(lambda x: exact(x, approximate=False))))
    rows.append(Subject("activations.gelu: tanh", _applied(lambda x: exact(x, approximate=True))))
    for name in ("softmax", "sigmoid"):
        rows.append(Subject(f"activations.{name}: last", _last(name)))
    return rows


def public_functions() -> list[str]:
    """Returns the names in `keras.activations`."""
    names = (n for n in dir(activations) if not n.startswith("_"))
    return [n for n in names if inspect.isfunction(getattr(activations, n))]


def _in_a_layer(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda x: kl.Activation(function)(x)


def _applied(function: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: around(lambda x: function(kl.Dense(6)(x)), _SHAPE)


def _last(name: str) -> Callable[[], Any]:
    def build() -> Any:
        keras.utils.set_random_seed(3)
        x = keras.Input(_SHAPE)
        hidden = kl.Dense(6, activation="tanh")(kl.Flatten()(x))
        return keras.Model(x, kl.Dense(3, activation=name)(hidden))

    return build
