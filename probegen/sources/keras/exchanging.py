"""Replaces the tensors that operations make, while these operations are traced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from tensorflow.python.framework import op_callbacks


@contextlib.contextmanager
def exchanging(instead: Callable[[Any], Any]) -> Iterator[None]:
    """Shows every operation that is written into the graph of now.

    Args:
        instead: gets the first result of an operation; returns what those who read it get, None
            where it stays.
    """
    watched = tf.compat.v1.get_default_graph()

    def callback(
        _: str, __: Any, ___: Any, outputs: Any, op_name: Any = None, graph: Any = None
    ) -> Any:
        del op_name
        if graph is not watched or not outputs:
            return list(outputs)
        after = instead(outputs[0])
        # What stays is handed on too. TensorFlow takes None of one listener for what the next one
        # sees, and of the last one for the operation's own results, whatever an earlier one gave.
        # It hands listeners a tuple, and its callers a list: Keras turns that round in its place.
        return list(outputs) if after is None else [after, *outputs[1:]]

    op_callbacks.add_op_callback(callback)
    try:
        yield
    finally:
        op_callbacks.remove_op_callback(callback)
