"""What a Keras model tells the plan: what stands inside attention, what made an output."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import probegen as pg
from probegen.errors import NotDifferentiableError
from probegen.plan.making import make_plan
from probegen.sources import open_source


class GuidedAttention(layers.Layer):
    """Attention within attention: a layer that is called so, which asks another one."""

    def build(self, shape):
        self.before = layers.Dense(shape[-1], name="before")
        self.inner = layers.MultiHeadAttention(2, 3, name="inner")
        self.before.build(shape)
        self.inner.build(shape, shape)

    def call(self, x):
        return self.inner(self.before(x), x)


def view_of(model):
    return open_source(model).view


def inside(model):
    """The layers that stand inside attention, of all that are called."""
    view = view_of(model)
    called = [p for p in view.points if p.role != "input"]
    return {p.name for p in called if view.inside_attention(p)}, {p.name for p in called}


def test_what_stands_inside_attention_however_deep():
    x = keras.Input((5, 4), name="x")
    y = layers.Conv1D(4, 2, name="conv")(x)
    y = GuidedAttention(name="guided")(y)
    y = layers.Dense(3, name="after")(layers.Flatten(name="flat")(y))
    found, every = inside(keras.Model(x, y))
    assert {n for n in every if n.startswith("guided/inner/")} <= found
    assert {"guided/before", "guided/inner"} <= found
    assert not found & {"conv", "guided", "flat", "after"}


def test_a_softmax_that_is_the_weights_stands_inside_attention():
    x = keras.Input((5, 4), name="x")
    scores = layers.Dense(1, name="scores")(x)
    weights = layers.Softmax(axis=1, name="weights")(scores)
    y = layers.Dot(axes=1, name="weighed")([weights, x])
    y = layers.Softmax(name="head")(layers.Flatten(name="flat")(y))
    found, every = inside(keras.Model(x, y))
    assert found == {"weights"}
    assert {"scores", "weighed", "head"} <= every


def test_grad_cam_finds_no_map_inside_attention():
    x = keras.Input((5, 4), name="x")
    y = layers.Conv1D(4, 2, name="conv")(x)
    y = layers.Add(name="sum")([y, GuidedAttention(name="guided")(y)])
    model = keras.Model(x, layers.Dense(3, name="head")(layers.Flatten()(y)))
    (probed,) = pg.instrument(model, pg.GradCAM(layer="auto")).manifest.explanations
    assert probed.layer == "sum"


class Counted(layers.Layer):
    """Whole numbers made by a layer within a layer."""

    def __init__(self, **options):
        super().__init__(**options)
        self.inner = layers.Lambda(lambda v: ops.argmax(v, axis=-1), name="choice")

    def call(self, x):
        return ops.cast(self.inner(ops.tanh(x)), "int64")


@pytest.mark.parametrize("calls", [1, 2])
def test_the_innermost_layer_is_named_that_made_whole_numbers(calls):
    x = keras.Input((5,), name="x")
    y = layers.Dense(3, name="hidden")(x)
    counted = Counted(name="counted")
    outputs = [counted(y) for _ in range(calls)]
    model = keras.Model(x, outputs)
    assert view_of(model).made_by(calls - 1) == "It is made by ArgMax in layer 'counted/choice'."
    with pytest.raises(NotDifferentiableError, match=r"made by ArgMax in layer 'counted/choice'\."):
        pg.instrument(model, pg.Saliency(output=calls - 1))


def test_whole_numbers_that_no_layer_makes():
    class Alone(keras.Model):
        def call(self, x):
            return ops.cast(ops.argmax(x, axis=-1), "int32")

    model = Alone(name="alone")
    model(np.zeros((2, 5), np.float32))
    assert view_of(model).made_by(0) == "It is made by ArgMax."


def test_a_target_that_is_a_function_leaves_the_layers_of_operations_known():
    """It writes operations of its own into the graph, which no layer has made."""
    x = keras.Input((4, 3), name="x")
    cut = layers.Lambda(lambda t: ops.cast(t > 0.5, "float32"), name="cut")(x)
    view = view_of(keras.Model(x, layers.Dense(3, name="y")(layers.Flatten()(cut))))
    make_plan(view, [])
    make_plan(view, [pg.FeatureAblation(target=lambda y: y[:, 0] * y[:, 1])])
    with pytest.raises(NotDifferentiableError, match="stops at Greater in layer 'cut'"):
        make_plan(view, [pg.InputGradient()])
