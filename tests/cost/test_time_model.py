"""Estimated against measured times; these were taken with `python -m bench recurrent`."""

import keras
import pytest
from keras import layers

import probegen as pg

#: Layer of 128 units, 200 steps of 32 features, batch 1 -> explained over plain, one thread.
MEASURED = {"LSTM": 5.9, "SimpleRNN": 2.0}


@pytest.mark.parametrize("layer", MEASURED)
def test_gradients_of_recurrent_layers(layer):
    x = keras.Input((200, 32), name="x")
    y = layers.Dense(10, activation="softmax")(getattr(layers, layer)(128)(x))
    told = pg.inspect(keras.Model(x, y), probes=pg.Saliency(target=1)).cost.together.time
    assert 0.75 < told / MEASURED[layer] < 1.35
