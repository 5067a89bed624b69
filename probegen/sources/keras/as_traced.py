"""Runs functions of TensorFlow as they were traced: without its graph optimiser.

A reference has to compute what the model says. The optimiser rewrites a graph before
it runs it, and is a program with faults of its own: of two calls of a layer that cancel out
(`(x * s + m) + (-x * s + m)`), with differences of scores beside their gradients, it makes a
function all of whose results are `[0]`, without a word. It also takes longer than a few runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

_OFF = "disable_meta_optimizer"


def run_as_traced(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a function gives that runs as it was traced.

    Where an operation has no form on this processor but the one that the optimiser brings it into,
    as convolutions with channels first, it runs as TensorFlow would run it by itself.
    """
    try:
        with _without_optimiser():
            return function(*arguments)
    except tf.errors.OpError:
        return function(*arguments)


@contextlib.contextmanager
def _without_optimiser() -> Iterator[None]:
    options = tf.config.optimizer
    before = options.get_experimental_options().get(_OFF, False)
    options.set_experimental_options({_OFF: True})
    try:
        yield
    finally:
        options.set_experimental_options({_OFF: before})
