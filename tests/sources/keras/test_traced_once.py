"""All operations of a function that is traced for a few calls have one place in the program."""

import threading

import numpy as np
import pytest
import tensorflow as tf

from probegen.sources.keras.traced_once import trace_once


def double(x):
    return tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, y + x), (0, tf.zeros_like(x)))[1]


def lines_of(function):
    """The places in this file at which operations were made."""
    here = [[f.lineno for f in o.traceback if f.filename == __file__] for o in operations(function)]
    return {tuple(lines) for lines in here}


def operations(function):
    return [o for o in function.graph.get_operations() if o.type != "Placeholder"]


def test_all_operations_are_made_at_one_place_and_elsewhere_at_their_own():
    spec = tf.TensorSpec([None, 3], "float32")
    elsewhere = []

    def watched(x):
        def trace():
            elsewhere.append(tf.function(double, autograph=False).get_concrete_function(spec))

        thread = threading.Thread(target=trace)
        thread.start()
        thread.join()
        return double(x)

    traced = trace_once(watched, [spec])
    assert len(lines_of(traced)) == 1
    assert len(lines_of(elsewhere[0])) > 1
    x = np.arange(6, dtype="float32").reshape(2, 3)
    np.testing.assert_array_equal(traced(x), 2 * x)
    after = tf.function(double, autograph=False).get_concrete_function(spec)
    assert len(lines_of(after)) > 1


def test_what_fails_leaves_nothing_behind():
    def fails(_):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        trace_once(fails, [tf.TensorSpec([1])])
    assert len(lines_of(tf.function(double).get_concrete_function(tf.TensorSpec([2])))) > 1
