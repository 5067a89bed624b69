"""The score that is explained: which output or layer it is taken from, and what is refused."""

import keras
import numpy as np
import pytest

import probegen as pg
from probegen.errors import InstrumentError, SelectionError
from tests import models
from tests.sources.keras.support import plain_gradient


def test_several_outputs_need_a_choice():
    model, x = models.two_heads(), models.images((6, 5))
    with pytest.raises(InstrumentError, match=r"several outputs \['label', 'value'\]"):
        pg.instrument(model, pg.Saliency())
    probes = [pg.InputGradient(output="value", name="v"), pg.InputGradient(output=0, name="l")]
    outputs = pg.instrument(model, probes)(x)
    expected = plain_gradient(keras.Model(model.inputs, model.outputs[1]), x, lambda y: y[:, 0])
    np.testing.assert_allclose(outputs["v"], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "classes"), [(models.cnn, 4), (models.transformer, 3), (models.forecaster, 1)]
)
def test_targets_say_how_many_classes_there_are(make, classes):
    (planned,) = pg.instrument(make(), pg.Saliency()).manifest.explanations
    assert planned.target.classes == classes


def test_no_score_is_taken_from_one_step_of_a_loop():
    """Keras calls a cell for its shape first, at the first step: no score is taken from that."""
    x = keras.Input((5, 3), name="x")
    y = keras.layers.RNN(keras.layers.GRUCell(4, name="cell"), name="loop")(x)
    model = keras.Model(x, keras.layers.Dense(2, name="head")(y))
    with pytest.raises(SelectionError, match="no score can be taken from 'loop/cell': one step of"):
        pg.instrument(model, pg.InputGradient(target=1, of="loop/cell"))
