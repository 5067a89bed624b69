"""Look-ups of whole numbers in a table (`IntegerLookup`), in operations that ONNX has.

ONNX has no tables. A table of whole numbers is two constants: its keys, sorted, and their values. A
key is found by halving, in as many steps as the number of keys has binary digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf


def look_up(original: Any, table: Any, keys: Any, *args: Any, **kwargs: Any) -> Any:
    """Stands in for `StaticHashTable.lookup`.

    Tables of other things, and without entries, are looked up as ever.

    Args:
        original: the method itself.
        table: the table.
        keys: what is looked up.
        args: what else the method was called with.
        kwargs: likewise.
    """
    plain = isinstance(keys, tf.Tensor) and table.key_dtype.is_integer
    if not plain or not table.value_dtype.is_integer:
        return original(table, keys, *args, **kwargs)
    with tf.init_scope():
        found, values = (array.numpy() for array in table.export())
    if not found.size:
        return original(table, keys, *args, **kwargs)
    order, steps = np.argsort(found), int(found.size - 1).bit_length()
    # The last entry goes on to a power of two.
    order = np.pad(order, (0, 2**steps - found.size), "edge")
    known, meant = tf.constant(found[order]), tf.constant(values[order])
    flat = tf.cast(tf.reshape(keys, [-1]), known.dtype)
    # Of the last key that is not larger. It begins as 0 times the keys: a row that is made from the
    # numbers of an input, and not of comparisons alone, stands for that input (`first_floats`).
    place = flat * 0
    for step in (2**i for i in reversed(range(steps))):
        further = place + step
        place = tf.where(tf.gather(known, further) <= flat, further, place)
    default = tf.cast(table.default_value, meant.dtype)
    chosen = tf.where(tf.equal(tf.gather(known, place), flat), tf.gather(meant, place), default)
    return tf.reshape(chosen, tf.shape(keys))
