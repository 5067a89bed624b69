"""Plans of gradients: which output, which names, and what is refused with the reason."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import probegen as pg
from probegen.errors import InstrumentError, NotDifferentiableError, SelectionError
from probegen.plan.making import make_plan
from probegen.plan.plan import TensorRef
from probegen.sources.keras.instrumented import instrument_as
from probegen.sources.keras.keras_model import as_keras_model
from probegen.sources.keras.source import open_source
from tests import models
from tests.sources.keras.support import logits, plain_gradient


def test_probes_of_several_outputs_are_named_after_these():
    model, x = models.two_heads(), models.images((6, 5))
    probes = [
        pg.InputGradient(output="value"),
        pg.InputGradient(output="label", target=1),
        pg.Saliency(output="label", target=1),
        pg.InputGradient(output="label", target=2, name="second"),
    ]
    probed = pg.instrument(model, probes)
    names = ["input_gradient/value/x", "input_gradient/label/x", "saliency/x", "second"]
    assert [o.name for o in probed.manifest.explanations] == names
    outputs = probed(x)
    of_value = plain_gradient(keras.Model(model.inputs, model.outputs[1]), x, lambda y: y[:, 0])
    np.testing.assert_allclose(outputs[names[0]], of_value, rtol=1e-5, atol=1e-7)
    label = logits(keras.Model(model.inputs, model.outputs[0]))
    of_label = plain_gradient(label, x, lambda y: y[:, 1])
    np.testing.assert_allclose(outputs[names[1]], of_label, rtol=1e-4, atol=1e-6)
    again = instrument_as(as_keras_model(model), probed.manifest)
    assert [o.name for o in again.manifest.explanations] == names
    with pytest.raises(InstrumentError, match="different targets of one output are not"):
        pg.instrument(model, [*probes, pg.InputGradient(output="label", target=0)])


def test_what_cannot_be_probed_is_named_with_its_own_reason():
    x = keras.Input((3, 4), name="x")
    y = keras.layers.GRU(2, name="gru")(x)
    for n in range(4):
        y = keras.layers.Dense(4, name=f"dense_{n}")(y)
    says = r"the function matches 'x' .* and 2 more, none of .* \('gru/gru_cell'\)\. This model"
    with pytest.raises(SelectionError, match=says):
        pg.instrument(keras.Model(x, y), pg.Attention(lambda point: bool(point.path)))


def integers():
    x = keras.Input((5,), dtype="int32", name="ids")
    y = keras.Input((4,), dtype="int32", name="unused")
    return keras.Model([x, y], keras.layers.Dense(2)(keras.ops.cast(x, "float32")))


def argmax_inside():
    x = keras.Input((5,), name="x")
    return keras.Model(x, keras.ops.argmax(keras.layers.Dense(3)(x), -1))


def stopped():
    x = keras.Input((5,), name="x")
    y = keras.layers.Lambda(keras.ops.stop_gradient, name="stop")(keras.layers.Dense(4)(x))
    return keras.Model(x, keras.layers.Dense(3)(y))


def redefined():
    @tf.custom_gradient
    def doubled(v):
        return v * 2, lambda g: g * 5

    x = keras.Input((5,), name="x")
    return keras.Model(x, keras.layers.Lambda(doubled, name="odd")(x))


@pytest.mark.parametrize(
    ("make", "probe", "error", "says"),
    [
        (
            integers,
            pg.Saliency(wrt="unused"),
            NotDifferentiableError,
            "'unused' is int32 and goes into no Embedding, look-up or cast",
        ),
        (argmax_inside, pg.Saliency(), NotDifferentiableError, "made by ArgMax"),
        (
            stopped,
            pg.Saliency(),
            NotDifferentiableError,
            "StopGradient in layer 'stop'.*no gradient .pg.Occlusion",
        ),
        (
            redefined,
            pg.Saliency(),
            NotDifferentiableError,
            "'odd' redefines its gradient.*before model.quantize.*no gradient .pg.Occlusion",
        ),
        (models.cnn, pg.Saliency(target=4), InstrumentError, r"has 4 entries \(0 to 3\)"),
        (models.cnn, pg.Saliency(target=(0, 1)), InstrumentError, "behind the batch, 1 in all"),
        (models.cnn, pg.Saliency(output="x"), InstrumentError, r"one of \['scores'\]"),
        (models.cnn, pg.Activations("conv3"), SelectionError, "Did you mean 'conv2'"),
        (models.cnn, pg.Attention(), SelectionError, "no layer that can be probed for attention"),
        (models.cnn, pg.GradCAM("gap"), SelectionError, "such as 'conv2'"),
        (models.cnn, pg.Saliency(target=lambda y: y), InstrumentError, "one scalar a sample"),
        (models.cnn, pg.Activations("conv1", channels=[9]), InstrumentError, "5 channels"),
        (models.forecaster, pg.Saliency(target=1), InstrumentError, "single unit is target 0"),
        (
            models.siamese,
            pg.GradCAM("tower"),
            SelectionError,
            "'tower#0'.* cannot carry a Grad-CAM",
        ),
        (models.cnn, pg.GradCAM("conv*"), SelectionError, "takes one layer, .* 'conv1', 'conv2'"),
    ],
)
def test_refusals(make, probe, error, says):
    model = make()
    with pytest.raises(error, match=says):
        pg.instrument(model, probe)


def test_outputs_need_names_of_their_own():
    with pytest.raises(InstrumentError, match="tell them apart with name="):
        pg.instrument(models.cnn(), [pg.Saliency(target=0), pg.Saliency(target=1)])
    x = keras.Input((3,))
    layer = keras.layers.Dense(3, name="twice")
    probed = pg.instrument(keras.Model(x, [layer(x), layer(2 * x)]), pg.Saliency(output="twice:1"))
    assert [o.name for o in probed.manifest.predictions] == ["twice", "twice:1"]


def column(ids):
    return keras.layers.Embedding(13, 4)(ids[:, 2])


def windows(ids):
    return keras.layers.Flatten()(keras.layers.Embedding(13, 4)(ids[:, ::2]))


def all_ids(ids):
    return keras.layers.Flatten()(keras.layers.Embedding(13, 4)(ids))


@pytest.mark.parametrize(
    ("make", "axes", "follows"),
    [
        (all_ids, ("batch", "time", "embedding"), "ids"),
        (windows, ("batch", "id", "embedding"), None),
        (column, ("batch", "embedding"), None),
    ],
)
def test_what_does_not_run_along_its_input_has_axes_of_its_own(make, axes, follows):
    ids = keras.Input((7,), dtype="int32", name="ids")
    model = keras.Model(ids, keras.layers.Dense(3, name="head")(make(ids)))
    (planned,) = pg.instrument(model, pg.InputGradient()).manifest.explanations
    assert (planned.axes, planned.input) == (axes, follows)


def test_ids_of_several_axes_are_counted():
    ids = keras.Input((7, 3), dtype="int32", name="ids")
    y = keras.layers.Flatten()(keras.layers.Embedding(13, 4)(ids[:, ::2]))
    model = keras.Model(ids, keras.layers.Dense(3, name="head")(y))
    (planned,) = pg.instrument(model, pg.InputGradient()).manifest.explanations
    assert planned.axes == ("batch", "id_0", "id_1", "embedding")


def test_a_number_that_is_only_compared_is_hidden_beside_others():
    """A gradient reaches neither it nor the whole numbers that another is cut to."""
    a, b, c = (keras.Input((2,), name=name) for name in "abc")
    cut = keras.ops.cast(keras.ops.cast(c, "int32"), "float32")
    parts = [a, keras.ops.cast(b > 50.0, "float32"), cut]
    out = keras.layers.Dense(2, name="out")(keras.layers.Concatenate()(parts))
    plan = make_plan(open_source(keras.Model([a, b, c], out)).view, (pg.Occlusion(1),))
    assert plan.refs == tuple(TensorRef(None, position=i) for i in range(3))
