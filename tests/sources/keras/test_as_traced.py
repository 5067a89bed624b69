"""References are what the model says, and not what TensorFlow's graph optimiser makes of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import probegen as pg
from probegen.plan.making import make_plan
from probegen.sources import open_source
from probegen.sources.keras.as_traced import run_as_traced


def test_two_calls_of_a_layer_that_cancel_out():
    """The optimiser makes a function of it all of whose results are `[0]`."""
    keras.utils.set_random_seed(3)
    x = keras.Input([4, 3], name="x")
    scaled = keras.layers.Normalization(mean=[-0.8, 0.6, -0.6], variance=[0.7] * 3, invert=True)
    both = keras.layers.Add()([scaled(x), scaled(-x)])
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.Flatten()(both)))
    source = open_source(model)
    plan = make_plan(source.view, (pg.IntegratedGradients(steps=2, completeness=True),))
    feed = np.linspace(-1, 2, 60, dtype=np.float32).reshape(5, 4, 3)
    found = source.reference(plan).explanations({"x": feed}, None)
    assert found["integrated_gradients/x"].shape == feed.shape
    np.testing.assert_allclose(found["integrated_gradients/x"], 0, atol=1e-6)


def test_settings_stay_and_what_needs_the_optimiser_has_it():
    before = tf.config.optimizer.get_experimental_options()
    seen = []

    def needs_it():
        seen.append(tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"])
        if seen[-1]:
            raise tf.errors.UnimplementedError(None, None, "channels first")
        return 3

    assert run_as_traced(needs_it) == 3
    assert seen == [True, False]
    assert tf.config.optimizer.get_experimental_options() == {
        **before,
        "disable_meta_optimizer": False,
    }
    with pytest.raises(ValueError, match="its own"):
        run_as_traced(_fails)
    assert not tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"]


def _fails():
    raise ValueError("its own")
