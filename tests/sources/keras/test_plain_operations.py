"""Operations of gradients in plain ones, against TensorFlow's own."""

import numpy as np
import pytest
import tensorflow as tf

from probegen.sources.keras.plain_operations import PLAIN, in_plain_operations


def compared(function, *feeds):
    """Yields what a function gives, and what its copy gives, which has none of the operations.

    Args:
        function: of one tensor or several; it is traced once, with all but the last size open.
        feeds: what both are called with, one after another: arrays, or tuples of some.
    """
    feeds = [feed if isinstance(feed, tuple) else (feed,) for feed in feeds]
    names = [f"x{i}" for i in range(len(feeds[0]))]
    specs = {
        name: tf.TensorSpec([*[None] * (array.ndim - 1), *array.shape[-1:]], array.dtype, name)
        for name, array in zip(names, feeds[0], strict=True)
    }
    traced = tf.function(lambda **x: {"y": function(*(x[n] for n in names))}, autograph=False)
    old = traced.get_concrete_function(**specs)
    new = in_plain_operations(old, specs)
    assert new is not old
    assert not {o.type for o in new.graph.get_operations()} & set(PLAIN)
    for feed in feeds:
        fed = {n: tf.constant(a) for n, a in zip(names, feed, strict=True)}
        yield old(**fed)["y"].numpy(), new(**fed)["y"].numpy()


def gradient(function, *, also=lambda y: y * y):
    def found(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(also(function(x)))
        return tape.gradient(y, x)

    return found


def images(height=7, width=9, channels=4):
    """Numbers with ties, negative ones among them, of an even and an odd size."""
    x = np.random.default_rng(0).integers(-4, 5, (2, height, width, channels))
    return x.astype(np.float32) / 2


FUNCTIONS = {
    "relu": tf.nn.relu,
    "relu6": lambda x: tf.nn.relu6(3 * x),
    "leaky relu": lambda x: tf.nn.leaky_relu(x, 0.3),
    "elu": tf.nn.elu,
    "softplus": tf.nn.softplus,
    "sigmoid": tf.sigmoid,
    "tanh": tf.tanh,
    "root": lambda x: tf.sqrt(x + 9),
    "reciprocal root": lambda x: tf.math.rsqrt(x + 9),
    "reciprocal": lambda x: 1 / (x + 9),
    "bias": lambda x: x + tf.reduce_sum(x, 2, keepdims=True),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_one_number(name):
    ((expected, found),) = compared(gradient(FUNCTIONS[name]), images())
    largest = np.abs(expected).max()
    assert largest > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7 * largest)


@pytest.mark.parametrize("function", [tf.math.erf, tf.math.erfc])
def test_erf(function):
    x = np.concatenate([np.linspace(-6, 6, 4001), [0.0, 1e-6, -1e-6, 30, -30]]).astype(np.float32)
    ((expected, found),) = compared(function, x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=6e-7)
    flat = np.abs(x) >= 4
    np.testing.assert_array_equal(found[flat & (x > 0)], round(function(9.0).numpy()))
    np.testing.assert_array_equal(found[flat & (x < 0)], round(function(-9.0).numpy()))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("window", "stride"), [(2, 2), (3, 2), ((2, 3), 1), ((3, 2), (2, 3)), (1, 2)]
)
@pytest.mark.parametrize("pool", [tf.nn.max_pool2d, tf.nn.avg_pool2d])
def test_pooling(pool, window, stride, padding):
    """Ties go to the first, windows overlap, leave gaps, reach over the end or end before it."""
    pooled = gradient(lambda x: pool(x, window, stride, padding))
    for expected, found in compared(pooled, images(7, 9), images(8, 6)):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
        assert np.abs(expected).max() > 0


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("kernel", "stride", "step"),
    [
        ((3, 3, 4, 1), 1, 1),
        ((3, 2, 4, 1), 2, 1),
        ((2, 3, 4, 3), 2, 1),
        ((3, 2, 4, 2), 1, 2),
        ((1, 1, 4, 1), 3, 1),
    ],
)
def test_depthwise_convolutions(kernel, stride, step, padding):
    weights = np.random.default_rng(1).normal(size=kernel).astype(np.float32)

    def convolved(x):
        return tf.nn.depthwise_conv2d(
            x, weights, [1, stride, stride, 1], padding, dilations=[step, step]
        )

    for expected, found in compared(gradient(convolved), images(7, 9), images(8, 6)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_axes_of_broadcasting():
    def scaled(x, s):
        with tf.GradientTape() as tape:
            tape.watch(s)
            y = tf.reduce_sum(tf.sin(x) * s)
        return tape.gradient(y, s)

    x = np.random.default_rng(1).normal(size=(2, 5, 3)).astype(np.float32)
    for shape in ((2, 5, 3), (1, 5, 3), (2, 1, 3), (5, 3), (1, 1, 3)):
        ((expected, found),) = compared(scaled, (x, np.ones(shape, np.float32)))
        assert found.shape == shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_what_changes_states_and_float64_stay_as_they_are():
    state = tf.Variable(1.0)
    specs = {"x": tf.TensorSpec([None], tf.float32, "x")}

    def counting(x):
        state.assign_add(1.0)
        return {"y": gradient(tf.nn.relu)(x) * state}

    traced = tf.function(counting, autograph=False).get_concrete_function(**specs)
    assert in_plain_operations(traced, specs) is traced
    specs = {"x": tf.TensorSpec([None], tf.float64, "x")}
    traced = tf.function(lambda x: {"y": tf.math.erf(x)}).get_concrete_function(**specs)
    assert in_plain_operations(traced, specs) is traced
