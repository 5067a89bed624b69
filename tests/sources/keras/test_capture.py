"""Watching the calls of a model: every layer is reached, and nothing is left behind."""

import json
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SourceError
from tests import models


def test_shared_layers_have_a_point_for_each_call():
    model = models.siamese()
    points = pg.inspect(model)
    assert [p.name for p in points if p.path == "tower"] == ["tower#0", "tower#1"]
    left, right = models.images((7,), 1), models.images((7,), 2)
    outputs = pg.instrument(
        model, [pg.Activations("tower"), pg.InputGradient(), pg.Activations("tower#1", name="r")]
    )({"left": left, "right": right})
    tower = model.get_layer("tower")
    np.testing.assert_allclose(outputs["activation/tower#0"], tower(left), rtol=1e-6)
    np.testing.assert_allclose(outputs["r"], tower(right), rtol=1e-6)
    assert {"input_gradient/left", "input_gradient/right"} <= set(outputs)


def test_nested_models_are_reached():
    model, x = models.nested(), models.images((10, 7, 3))
    outputs = pg.instrument(model, [pg.Activations("backbone/conv*_out"), pg.GradCAM()])(x)
    assert "activation/backbone/conv1_out" in outputs
    assert outputs["grad_cam/backbone/conv2_out"].shape == (3, 6, 3)


def test_subclassed_models():
    model, x = models.Subclassed(), models.images((9, 6, 2))
    with pytest.raises(SourceError, match="not built"):
        pg.inspect(model)
    model(x)
    outputs = pg.instrument(model, [pg.Activations("conv"), pg.Saliency()])(x)
    np.testing.assert_array_equal(outputs["output"], model(x))
    assert outputs["activation/conv"].shape == (3, 7, 4, 5)
    assert outputs["saliency/x"].shape == (3, 9, 6)


def snapshot(model):
    layers = list(model._flatten_layers())
    return {
        "config": json.dumps(model.get_config(), sort_keys=True, default=str),
        "weights": [w.copy() for w in model.get_weights()],
        "nodes": [(id(layer), len(layer._inbound_nodes)) for layer in layers],
        "outputs": [id(t) for t in model.outputs],
        "losses": [len(layer._losses) for layer in layers],
        "trainable": [layer.trainable for layer in layers],
    }


@pytest.mark.parametrize("make", [models.cnn, models.transformer, models.nested])
def test_the_source_is_untouched(make):
    model = make()
    before = snapshot(model)
    x = models.tokens() if make is models.transformer else models.images(model.input_shape[1:])
    y = np.asarray(model(x))
    probed = pg.instrument(model, [pg.Saliency(), pg.GradCAM(), pg.Activations("*")])
    probed(x)
    after = snapshot(model)
    for key in before:
        if key == "weights":
            for a, b in zip(before[key], after[key], strict=True):
                np.testing.assert_array_equal(a, b)
        else:
            assert before[key] == after[key], key
    np.testing.assert_array_equal(model(x), y)


def test_stateful_layers_keep_their_state():
    x = keras.Input(batch_shape=(3, 6, 2), name="x")
    model = keras.Model(x, keras.layers.LSTM(4, stateful=True, name="lstm")(x))
    data = models.images((6, 2))
    pg.instrument(model, pg.Saliency())(data)
    assert all(np.all(np.asarray(s) == 0) for s in model.get_layer("lstm").states)


def test_layer_calls_are_restored_after_an_exception():
    original = keras.Layer.__call__

    class Broken(keras.layers.Layer):
        def call(self, x):
            if tf.inside_function() and x.shape[0] is None and hasattr(self, "armed"):
                raise ValueError("broken on purpose")
            return x * 2

    layer = Broken(name="broken")
    x = keras.Input((3,))
    model = keras.Model(x, layer(x))
    layer.armed = True
    with pytest.raises(InstrumentError, match="broken on purpose"):
        pg.instrument(model, pg.Activations("broken"))
    assert keras.Layer.__call__ is original


def test_other_threads_pass_through_while_a_model_is_traced():
    model, x = models.cnn(), models.images((11, 8, 2))
    expected = np.asarray(model(x))
    wrong, stop = [], threading.Event()

    def call():
        while not stop.is_set():
            if not np.array_equal(model(x), expected):
                wrong.append(1)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        for _ in range(3):
            pg.instrument(model, [pg.Saliency()])
    finally:
        stop.set()
        thread.join()
    assert not wrong


def test_outputs_have_to_be_tensors():
    class Pair(models.Subclassed):
        def call(self, x):
            return super().call(x), None

    model = Pair()
    model(models.images((9, 6, 2)))
    with pytest.raises(InstrumentError, match=r"output 'output_1' .* is a NoneType"):
        pg.instrument(model, pg.Activations("conv"))


class Reading(keras.layers.Layer):
    """Calls a table that the model of the layer calls as well, as OPT does to read and to write."""

    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def call(self, ids):
        return self.table(ids) * 2.0


def test_a_layer_of_a_graph_that_another_layer_calls_as_well(tmp_path):
    """Each of its calls has a number of its own, and the gradient is that of the right one."""
    keras.utils.set_random_seed(2)
    table = keras.layers.Embedding(7, 3, name="table")
    ids = keras.Input((4,), dtype="int32", name="ids")
    more = keras.Input((4,), dtype="int32", name="more")
    y = Reading(table, name="reading")(ids) + keras.ops.tanh(table(more))
    model = keras.Model([ids, more], keras.layers.Dense(2)(keras.ops.mean(y, axis=1)))
    probes = [pg.Activations("table#*"), pg.InputGradient(0, wrt="ids"), pg.Activations("reading")]
    pg.compile(model, probes, tmp_path / "m.onnx", verify=False)
    fed = {
        name: np.random.default_rng(i).integers(0, 7, (2, 4))
        for i, name in enumerate(("ids", "more"))
    }
    found = runtime.load(tmp_path / "m.onnx").run(fed)
    rows = keras.ops.convert_to_numpy(table.embeddings)
    calls = [found[f"activation/table#{i}"].array for i in (0, 1)]
    for name in fed:
        assert any(np.allclose(call, rows[fed[name]], rtol=1e-5) for call in calls), name
    np.testing.assert_allclose(found["activation/reading"].array, rows[fed["ids"]] * 2, rtol=1e-5)
    kernel = keras.ops.convert_to_numpy(model.layers[-1].kernel)[:, 0]
    slope = np.broadcast_to(kernel * 2 / 4, (2, 4, 3))
    np.testing.assert_allclose(found["input_gradient/ids"].array, slope, rtol=1e-5)
