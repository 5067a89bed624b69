"""Look-ups of whole numbers in a table (`IntegerLookup`), in operations that ONNX has.

ONNX has no tables. A table of whole numbers is two constants: its keys, sorted, and their values.
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
    order = np.argsort(found)
    known, meant = tf.constant(found[order]), tf.constant(values[order])
    flat = tf.cast(tf.reshape(keys, [-1]), known.dtype)
    place = tf.minimum(tf.searchsorted(known, flat), len(found) - 1)
    default = tf.cast(table.default_value, meant.dtype)
    chosen = tf.where(tf.equal(tf.gather(known, place), flat), tf.gather(meant, place), default)
    return tf.reshape(chosen, tf.shape(keys))
