"""Restores what a call changes in a model: states, seeds, variables of layers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@contextlib.contextmanager
def unchanged(model: Any) -> Iterator[Callable[..., None]]:
    """Puts back what calls inside the `with` block change in a model.

    Yields:
        What does so at once; with `seeds=False` random generators stay where they are.
    """
    kept = [
        (variable, np.array(keras.ops.convert_to_numpy(variable)), is_seed)
        for variable, is_seed in states_of(model)
    ]

    def put_back(seeds: bool = True) -> None:
        for variable, value, is_seed in kept:
            now = np.asarray(keras.ops.convert_to_numpy(variable))
            same = np.array_equal(now, value, equal_nan=value.dtype.kind == "f")
            if not same and (seeds or not is_seed):
                variable.assign(value)

    try:
        yield put_back
    finally:
        put_back()


def states_of(model: Any) -> list[tuple[Any, bool]]:
    """Returns the variables that a call at inference may change, and which are of generators.

    States of recurrent layers are among no list that Keras keeps; plain TensorFlow variables of
    custom layers are not either.
    """
    found: dict[int, tuple[Any, bool]] = {}
    for layer in model._flatten_layers():
        own = list(getattr(layer, "_non_trainable_variables", ()))
        own += [v for v in keras.tree.flatten(getattr(layer, "states", None)) if _is_variable(v)]
        own += [v for v in vars(layer).values() if isinstance(v, tf.Variable)]
        found.update((id(v), (v, _is_seed(v))) for v in own)
        generators = getattr(layer, "_seed_generators", ())
        found.update((id(g.state), (g.state, True)) for g in generators)
    return list(found.values())


def _is_variable(value: Any) -> bool:
    return isinstance(value, keras.Variable | tf.Variable)


def _is_seed(variable: Any) -> bool:
    return "seed_generator" in str(getattr(variable, "path", ""))
