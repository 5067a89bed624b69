"""TensorFlow's gradients of saturated functions, against numpy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops as tf_ops

import probegen as pg
from probegen import runtime
from probegen.sources.keras.exact_slopes import exact_slopes, gradients_at

X = np.array([[0, 1e-6, 0.3, 1, 3, 8.9, 12, 14.1, 16.9, 18, 30, 70, 100]], np.float32)


def of_sigmoid(x):
    bell = np.exp(-np.abs(x))
    return bell / (1 + bell) ** 2


SLOPES = {
    "sigmoid": (tf.sigmoid, of_sigmoid),
    "tanh": (tf.tanh, lambda x: 4 * of_sigmoid(2 * x)),
    "elu": (tf.nn.elu, lambda x: np.exp(np.minimum(x, 0))),
    "selu": (
        tf.nn.selu,
        lambda x: (
            1.0507009873554805 * np.where(x < 0, 1.6732632423543772 * np.exp(np.minimum(x, 0)), 1)
        ),
    ),
    "a sigmoid in a loop": (
        lambda x: tf.while_loop(lambda k, _: k < 1, lambda k, y: (k + 1, tf.sigmoid(y)), (0, x))[1],
        of_sigmoid,
    ),
}


@pytest.mark.parametrize("name", SLOPES)
def test_slopes_keep_their_digits(name):
    """`y (1 - y)` of a sigmoid was 0 from 17 on, and off by a tenth at 14."""
    function, slope = SLOPES[name]
    x = np.concatenate([X, -X])

    @tf.function(autograph=False)
    def found(x):
        return gradients_at([function(x)], [x], [3 * tf.ones_like(x)])[0]

    np.testing.assert_allclose(found(x), 3 * slope(x.astype(np.float64)), rtol=4e-6, atol=1e-37)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_the_gradient_at_the_winner_of_a_softmax(name):
    x, g = np.array([[30, 2, -4, 1]]), np.array([[0.7, -2, 0.4, 1]])
    p = np.exp(x - x.max())
    p /= p.sum()
    if name == "softmax":
        expected = p * (p @ (g - g.T))  # g_k - g_j, summed over j
    else:
        rest = np.array([p[0, np.arange(4) != k].sum() for k in range(4)])
        expected = g * rest - p * (g.sum() - g)

    @tf.function(autograph=False)
    def found(x, g):
        return gradients_at([getattr(tf.nn, name)(x)], [x], [g])[0]

    np.testing.assert_allclose(found(x.astype("f"), g.astype("f")), expected, rtol=1e-5)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("size", "step"), [((2, 3, 1), (1, 2, 1)), ((3, 2, 2), (3, 1, 2))])
def test_the_first_of_equal_maxima_has_the_gradient(padding, size, step):
    """As in two dimensions; TensorFlow gives it whole to each of them in three."""
    x = np.random.default_rng(0).integers(0, 3, (2, 4, 5, 3, 2)).astype(np.float32)
    y = np.asarray(tf.nn.max_pool3d(x, size, step, padding))
    g = np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    expected = np.zeros(x.shape)
    for n, *where, c in np.ndindex(y.shape):
        starts = []
        for axis, k, s, at in zip((1, 2, 3), size, step, where, strict=True):
            lacking = max((y.shape[axis] - 1) * s + k - x.shape[axis], 0)
            starts.append(at * s - (lacking // 2 if padding == "SAME" else 0))
        inside = [
            tuple(p)
            for p in np.ndindex(x.shape[1:4])
            if all(0 <= i - b < k for i, b, k in zip(p, starts, size, strict=True))
        ]
        best = max(inside, key=lambda p: x[(n, *p, c)])
        expected[(n, *best, c)] += g[(n, *where, c)]

    @tf.function(autograph=False)
    def found(x, g):
        return gradients_at([tf.nn.max_pool3d(x, size, step, padding)], [x], [g])[0]

    np.testing.assert_allclose(found(x, g), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("function", [tf.nn.selu, tf.nn.elu, tf.tanh, tf.sigmoid, tf.nn.softmax])
def test_a_gradient_in_slices_is_put_together(function):
    """Look-ups hand them on as such."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.constant(np.linspace(-2, 2, 8, dtype="f4").reshape(4, 2))
        y, weights = function(x), tf.constant(np.array([[1], [0], [3], [0]], "f4"))
        looked_up = tf.reduce_sum(tf.gather(y, [0, 2])[:, :1] * [[1.0], [3.0]])
        found, right = (
            gradients_at(score, [x], None)[0]
            for score in (looked_up, tf.reduce_sum(y[:, :1] * weights))
        )
        np.testing.assert_allclose(*session.run([found, right]), rtol=1e-6)


def test_tensorflow_has_its_own_gradients_again():
    own = tf_ops.gradient_registry.lookup("Sigmoid")

    def fail():
        with exact_slopes():
            assert tf_ops.gradient_registry.lookup("Sigmoid") is not own
            raise ValueError("a model that cannot be differentiated")

    with pytest.raises(ValueError, match="cannot be differentiated"):
        fail()
    assert tf_ops.gradient_registry.lookup("Sigmoid") is own


def test_the_last_of_several_users_puts_them_back():
    """Threads overlap: the first to begin is the first to leave."""
    own = tf_ops.gradient_registry.lookup("Tanh")
    first, second = exact_slopes(), exact_slopes()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert tf_ops.gradient_registry.lookup("Tanh") is not own
    second.__exit__(None, None, None)
    assert tf_ops.gradient_registry.lookup("Tanh") is own


@pytest.mark.parametrize("method", ["bicubic", "lanczos3"])
def test_resizing_halves_has_the_gradient_of_resizing_their_values(method):
    """What comes out is float32; TensorFlow's own gradient of the first was None, silently."""
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=(2, 3, 4, 2)), rng.normal(size=(2, 5, 7, 2)).astype(np.float32)

    @tf.function(autograph=False)
    def found(x):
        y = tf.image.resize(x, (5, 7), method)
        return gradients_at([y], [x], [tf.constant(g)])[0]

    half, single = (np.asarray(found(x.astype(kind))) for kind in (np.float16, np.float32))
    assert half.dtype == np.float16
    assert np.abs(single).max() > 0.5
    np.testing.assert_allclose(half, single, rtol=1e-2, atol=1e-2)


def test_celu_at_zero_has_the_slope_of_both_sides(tmp_path):
    """Keras adds up a maximum and a minimum with 0: it was 2, of TensorFlow's gradients too."""
    given = keras.Input((3,), name="row")
    hidden = keras.ops.celu(given, alpha=0.7)
    model = keras.Model(given, keras.layers.Dense(2, "celu", name="scores")(hidden))
    probes = [pg.InputGradient(target=0), pg.GuidedBackprop(target=0)]
    assert pg.compile(model, probes, tmp_path / "m.onnx").report.passed
    x = np.array([[0, 0, 0], [2, -1, 0]], np.float32)
    found = runtime.load(tmp_path / "m.onnx").run(x)
    weights = model.get_weights()[0][:, 0].astype(np.float64)
    wide = x.astype(np.float64)
    scores = np.where(wide > 0, wide, 0.7 * np.expm1(wide / 0.7)) @ weights
    slopes = np.where(wide > 0, 1, np.exp(wide / 0.7))
    outer = np.where(scores > 0, 1, np.exp(scores))[:, None]
    expected = outer * weights * slopes
    np.testing.assert_allclose(found["input_gradient/row"].array, expected, rtol=1e-5)
    guided = slopes * np.maximum(outer * weights, 0)
    np.testing.assert_allclose(found["guided_backprop/row"].array, guided, rtol=1e-5)
    with tf.GradientTape() as tape:
        zero = tf.zeros([1])
        tape.watch(zero)
        made = keras.ops.celu(zero)
    assert float(tape.gradient(made, zero)[0]) == 2.0  # what a user trains is their own
