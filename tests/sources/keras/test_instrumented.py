"""The instrumented model: TensorFlow's engine against gradients written out plainly."""

import json
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import probegen as pg
from probegen.errors import InstrumentError, NotDifferentiableError, SelectionError, SourceError
from probegen.sources.keras.instrumented import instrument_as
from probegen.sources.keras.keras_model import as_keras_model
from tests import models


def plain_gradient(model, x, score):
    """d score(outputs) / d x by an eager tape."""
    x = tf.convert_to_tensor(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = score(model(x))
    return tape.gradient(value, x).numpy()


def logits(model):
    """The same model without its last activation."""
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.layers[-1].activation = keras.activations.linear
    return clone


def test_predictions_come_first_and_are_unchanged():
    model, x = models.cnn(), models.images((11, 8, 2))
    probed = pg.instrument(model, [pg.Activations("conv*"), pg.Saliency()])
    outputs = probed(x)
    assert list(outputs) == ["scores", "activation/conv1", "activation/conv2", "saliency/image"]
    np.testing.assert_array_equal(outputs["scores"], model(x))
    np.testing.assert_array_equal(probed.predict(x, verbose=0)["scores"], outputs["scores"])


def test_activations_are_the_layers_outputs():
    model, x = models.cnn(), models.images((11, 8, 2))
    expected = keras.Model(model.inputs, model.get_layer("conv2").output)(x)
    outputs = pg.instrument(
        model,
        [
            pg.Activations("conv2"),
            pg.Activations("conv2", reduce="mean", axes="spatial", name="mean"),
            pg.Activations("conv2", reduce="max", name="max"),
            pg.Activations("conv2", reduce="norm", axes=(1, 3), name="norm"),
            pg.Activations("conv2", channels=(4, 1), dtype="float16", name="half"),
        ],
    )(x)
    e = np.asarray(expected)
    np.testing.assert_allclose(outputs["activation/conv2"], e, rtol=1e-6)
    np.testing.assert_allclose(outputs["mean"], e.mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(outputs["max"], e.max(-1), rtol=1e-6)
    np.testing.assert_allclose(outputs["norm"], np.sqrt((e**2).sum((1, 3))), rtol=1e-5)
    assert outputs["half"].dtype == "float16"
    np.testing.assert_array_equal(outputs["half"], e[..., [4, 1]].astype("float16"))


@pytest.mark.parametrize(
    ("target", "score"),
    [
        ("argmax", lambda y: tf.reduce_max(y, -1)),
        (2, lambda y: y[:, 2]),
        ((1,), lambda y: y[:, 1]),
        ((-1,), lambda y: y[:, 3]),
        ((None,), lambda y: tf.reduce_sum(y, -1)),
        (lambda y: y[:, 0] - 2 * y[:, 3], lambda y: y[:, 0] - 2 * y[:, 3]),
    ],
)
def test_targets_are_of_logits(target, score):
    model, x = models.cnn(), models.images((11, 8, 2))
    got = pg.instrument(model, pg.InputGradient(target=target))(x)["input_gradient/image"]
    np.testing.assert_allclose(got, plain_gradient(logits(model), x, score), rtol=1e-4, atol=1e-6)


def test_without_logits_the_prediction_itself_is_differentiated():
    model, x = models.cnn(), models.images((11, 8, 2))
    probed = pg.instrument(model, pg.InputGradient(target=1, logits=False))
    expected = plain_gradient(model, x, lambda y: y[:, 1])
    np.testing.assert_allclose(probed(x)["input_gradient/image"], expected, rtol=1e-4, atol=1e-7)
    assert probed.manifest.output("input_gradient/image").target.logits is False


def test_target_at_request_time():
    model, x = models.cnn(), models.images((11, 8, 2), count=4)
    probed = pg.instrument(model, pg.InputGradient(target="input"))
    fixed = [
        pg.instrument(model, pg.InputGradient(target=t))(x)["input_gradient/image"]
        for t in (0, 3, "argmax")
    ]
    got = probed(x, target=[0, 3, -1, -1])["input_gradient/image"]
    expected = np.stack([fixed[0][0], fixed[1][1], fixed[2][2], fixed[2][3]])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    by_dict = probed({"image": x, "target": np.array([0, 3, -1, -1])})
    np.testing.assert_array_equal(by_dict["input_gradient/image"], got)
    np.testing.assert_allclose(probed(x)["input_gradient/image"], fixed[2], rtol=1e-5, atol=1e-7)


def test_saliency_is_the_largest_absolute_gradient_over_channels():
    model, x = models.cnn(), models.images((11, 8, 2))
    outputs = pg.instrument(model, [pg.Saliency(), pg.InputGradient()])(x)
    expected = np.abs(outputs["input_gradient/image"]).max(-1)
    np.testing.assert_array_equal(outputs["saliency/image"], expected)


def test_grad_cam_by_its_equations():
    model, x = models.cnn(), models.images((11, 8, 2))
    outputs = pg.instrument(
        model, [pg.GradCAM(), pg.Activations("conv2"), pg.InputGradient(wrt="conv2")]
    )(x)
    maps = np.asarray(outputs["activation/conv2"])
    weights = np.asarray(outputs["input_gradient/conv2"]).mean((1, 2), keepdims=True)
    expected = np.maximum((weights * maps).sum(-1), 0)
    np.testing.assert_allclose(outputs["grad_cam/conv2"], expected, rtol=1e-5, atol=1e-7)
    # conv2 -> mean over 3x3 positions -> dense: its gradient is the dense kernel over 9.
    kernel = np.asarray(model.get_layer("scores").kernel)
    best = np.asarray(outputs["scores"]).argmax(-1)
    np.testing.assert_allclose(weights[:, 0, 0], kernel[:, best].T / 9, rtol=1e-5)


def test_integrated_gradients_are_complete():
    model, x = models.cnn(), models.images((11, 8, 2))
    baseline = 0.25
    probed = pg.instrument(model, pg.IntegratedGradients(steps=400, baseline=baseline, target=2))
    total = np.asarray(probed(x)["integrated_gradients/image"]).sum((1, 2, 3))
    f = logits(model)
    expected = f(x)[:, 2] - f(np.full_like(x, baseline))[:, 2]
    np.testing.assert_allclose(total, expected, atol=2e-3 * np.abs(expected).max())


def test_integrated_gradients_at_an_embedding():
    model, x = models.transformer(), models.tokens()
    outputs = pg.instrument(model, pg.IntegratedGradients(steps=300, target=0))(x)
    attribution = np.asarray(outputs["integrated_gradients/tokens"])
    assert attribution.shape == (3, 9, 6)
    f = logits(model)
    vectors = np.asarray(model.get_layer("embedding").embeddings)
    model.get_layer("embedding").embeddings.assign(np.zeros_like(vectors))
    f.set_weights(model.get_weights())
    at_zero = np.asarray(f(x))[:, 0]
    model.get_layer("embedding").embeddings.assign(vectors)
    f.set_weights(model.get_weights())
    expected = np.asarray(f(x))[:, 0] - at_zero
    np.testing.assert_allclose(attribution.sum((1, 2)), expected, atol=5e-3)


def test_gradients_are_independent_of_the_rest_of_the_batch():
    model, x = models.cnn(), models.images((11, 8, 2), count=8)
    probed = pg.instrument(model, [pg.Saliency(), pg.GradCAM()])
    whole, single = probed(x), probed(x[5:6])
    for name in whole:
        np.testing.assert_allclose(whole[name][5:6], single[name], rtol=1e-5, atol=1e-7)


def test_attention_weights_are_those_the_model_applies_even_where_padded():
    model, x = models.transformer(), models.tokens()
    probed = pg.instrument(model, pg.Attention())
    outputs = probed(x)
    assert list(outputs) == ["scores", "attention/block_1/mha", "attention/block_2/mha"]
    np.testing.assert_array_equal(outputs["scores"], model(x))
    weights = np.asarray(outputs["attention/block_1/mha"])
    assert weights.shape == (3, 2, 9, 9)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert np.all(weights[0, :, :6, 6:] == 0)  # padded keys get nothing from real queries
    layer = model.get_layer("block_1").attention
    e = model.get_layer("embedding")(x)
    _, explicit = layer(e, e, return_attention_scores=True)
    real = (x != 0)[:, None, :, None] & np.ones_like(weights, bool)
    np.testing.assert_allclose(weights[real], np.asarray(explicit)[real], rtol=1e-5, atol=1e-7)


ATTENTION = {
    "causal": lambda x: keras.layers.MultiHeadAttention(2, 3, name="a")(x, x, use_causal_mask=True),
    "explicit": lambda x: keras.layers.MultiHeadAttention(2, 3, dropout=0.5, name="a")(x, x),
    "grouped": lambda x: keras.layers.GroupQueryAttention(3, 4, 2, name="a")(x, x),
    "dot": lambda x: keras.layers.Attention(name="a")([x, x[:, :3]]),
    "additive": lambda x: keras.layers.AdditiveAttention(name="a")([x, x[:, :3]]),
}


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("causal", (3, 2, 5, 5)),
        ("explicit", (3, 2, 5, 5)),
        ("grouped", (3, 4, 5, 5)),
        ("dot", (3, 5, 3)),
        ("additive", (3, 5, 3)),
    ],
)
def test_every_attention_layer_of_keras(kind, shape):
    x = keras.Input((5, 7), name="x")
    model = keras.Model(x, keras.layers.Flatten()(ATTENTION[kind](x)))
    data = models.images((5, 7))
    outputs = pg.instrument(model, pg.Attention())(data)
    weights = np.asarray(outputs["attention/a"])
    assert weights.shape == shape
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(outputs[model.output_names[0]], model(data))
    if kind == "causal":
        assert np.all(np.triu(weights, 1) == 0)


def test_custom_layers_that_return_output_and_weights():
    x = keras.Input((5, 7), name="x")
    context, _ = models.Bahdanau(name="look")(x)
    model = keras.Model(x, keras.layers.Dense(2, name="head")(context))
    data = models.images((5, 7))
    outputs = pg.instrument(model, [pg.Activations("look"), pg.Attention("look")])(data)
    assert list(outputs) == [
        "head",
        "activation/look:0",
        "activation/look:1",
        "attention/look",
    ]
    np.testing.assert_array_equal(outputs["attention/look"], outputs["activation/look:1"])
    np.testing.assert_allclose(np.asarray(outputs["activation/look:1"]).sum(1), 1, rtol=1e-6)


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


def test_recurrent_forecaster():
    model, x = models.forecaster(), models.images((17, 2))
    outputs = pg.instrument(model, [pg.InputGradient(), pg.Activations("lstm")])(x)
    expected = plain_gradient(model, x, lambda y: y[:, 0])
    np.testing.assert_allclose(outputs["input_gradient/window"], expected, rtol=1e-4, atol=1e-7)


def test_several_outputs_need_a_choice():
    model, x = models.two_heads(), models.images((6, 5))
    with pytest.raises(InstrumentError, match=r"several outputs \['label', 'value'\]"):
        pg.instrument(model, pg.Saliency())
    probes = [pg.InputGradient(output="value", name="v"), pg.InputGradient(output=0, name="l")]
    outputs = pg.instrument(model, probes)(x)
    expected = plain_gradient(keras.Model(model.inputs, model.outputs[1]), x, lambda y: y[:, 0])
    np.testing.assert_allclose(outputs["v"], expected, rtol=1e-5, atol=1e-7)


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


def test_segmentation_and_sequence_outputs():
    x = keras.Input((6, 5, 2), name="x")
    maps = keras.layers.Conv2D(3, 3, padding="same", activation="softmax", name="maps")(x)
    model, data = keras.Model(x, maps), models.images((6, 5, 2))
    one = pg.instrument(model, pg.InputGradient(target=1))(data)["input_gradient/x"]
    expected = plain_gradient(logits(model), data, lambda y: tf.reduce_sum(y[..., 1], (1, 2)))
    np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-6)
    pixel = pg.instrument(model, pg.InputGradient(target=(4, 2, 0)))(data)["input_gradient/x"]
    expected = plain_gradient(logits(model), data, lambda y: y[:, 4, 2, 0])
    np.testing.assert_allclose(pixel, expected, rtol=1e-4, atol=1e-6)


def test_inputs_are_called_as_their_layers_over_saving_and_loading(tmp_path):
    x = keras.Input((5,))  # unnamed: the tensor's own name is a counter that a file forgets
    model = keras.Model(x, keras.layers.Dense(3, name="head")(x))
    probed = pg.instrument(model, pg.Saliency())
    name = model.layers[0].name
    assert [i.name for i in probed.manifest.inputs] == [name]
    probed.save(tmp_path / "m.keras")
    data = {name: models.images((5,))}
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for key, value in probed(data).items():
        np.testing.assert_allclose(loaded(data)[key], value, rtol=1e-6)


def test_nests_of_inputs():
    a, b, c = (keras.Input((n,), name=name) for n, name in ((5, "a"), (7, "b"), (2, "c")))
    dense = keras.layers.Dense(3, activation="tanh")
    y = keras.layers.Concatenate()([dense(a), keras.layers.Dense(4)(b), c])
    data = [models.images((n,), seed=n) for n in (5, 7, 2)]
    head = keras.layers.Dense(2, name="head")(y)
    for nest, given in (([a, [b, c]], [data[0], data[1:]]), ((a, b, c), data)):
        model = keras.Model(nest, head)
        probed = pg.instrument(model, pg.InputGradient())
        np.testing.assert_allclose(probed(data)["head"], model(given), rtol=1e-5)
        np.testing.assert_allclose(probed.predict(data, verbose=0)["head"], model(given), rtol=1e-5)
        assert [i.name for i in probed.manifest.inputs] == ["a", "b", "c"]
    model = keras.Model({"c": c, "b": b, "a": a}, {"y": head, "h": dense(a)})
    named = dict(zip("abc", data, strict=True))
    outputs = pg.instrument(model, pg.InputGradient(output=1))(named)
    np.testing.assert_allclose(outputs["h"], model(named)["h"], rtol=1e-5)


@keras.saving.register_keras_serializable(package="probegen_tests")
class Anonymous(keras.layers.Layer):
    """A layer whose inner layers have no names of their own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = keras.layers.MultiHeadAttention(2, 3)
        self.first, self.second = keras.layers.Dense(6), keras.layers.Dense(4)

    def build(self, shape):
        self.attention.build(shape, shape)
        self.first.build(shape)
        self.second.build((*shape[:-1], 6))

    def call(self, x):
        return self.second(self.first(self.attention(x, x)))


def test_layers_that_keras_numbers_anew_keep_their_outputs(tmp_path):
    x = keras.Input((5, 4), name="x")
    model = keras.Model(x, Anonymous(name="block")(x))
    probes = [
        pg.Attention(),
        pg.Activations("type:Dense", name="dense"),
        pg.InputGradient(wrt="block/dense*", target=(0, 1)),
        pg.GradCAM(model.layers[1].second, target=(0, 1)),
    ]
    probed = pg.instrument(model, probes)
    probed.save(tmp_path / "m.keras")
    model.save(tmp_path / "source.keras")
    pg.export(probed, tmp_path / "m.onnx", verify=False)
    for _ in range(2):  # the numbers go on counting
        loaded = keras.saving.load_model(tmp_path / "m.keras")
        assert loaded.source.layers[1].first.name != model.layers[1].first.name
        data = models.images((5, 4))
        outputs = loaded(data)
        assert list(outputs) == list(probed(data))
        for name, value in probed(data).items():
            np.testing.assert_allclose(outputs[name], value, rtol=1e-5, atol=1e-7)
    assert pg.verify(tmp_path / "m.onnx", tmp_path / "source.keras").passed


def test_integrated_gradients_at_layers_behind_each_other():
    model, x = models.cnn(), models.images((11, 8, 2))
    several = pg.instrument(model, pg.IntegratedGradients(3, target=1, wrt=["image", "conv*"]))(x)
    for place in ("image", "conv1", "conv2"):
        alone = pg.instrument(model, pg.IntegratedGradients(3, target=1, wrt=place))(x)
        name = f"integrated_gradients/{place}"
        np.testing.assert_allclose(several[name], alone[name], rtol=1e-5, atol=1e-7)


def test_grad_cam_finds_recurrent_maps():
    x = keras.Input((3, 7, 6, 2), name="x")
    y = keras.layers.ConvLSTM2D(3, 3, name="maps")(x)
    model = keras.Model(x, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(y)))
    assert pg.instrument(model, pg.GradCAM()).manifest.explanations[0].name == "grad_cam/maps"


def test_targets_of_a_call_are_checked():
    probed = pg.instrument(models.cnn(), pg.Saliency(target="input"))
    for target in (4, [0, 9, 1], -2):
        with pytest.raises(InstrumentError, match="legal are 0 to 3, or -1"):
            probed(models.images((11, 8, 2)), target=target)


def test_outputs_have_to_be_tensors():
    class Pair(models.Subclassed):
        def call(self, x):
            return super().call(x), None

    model = Pair()
    model(models.images((9, 6, 2)))
    with pytest.raises(InstrumentError, match=r"output 'output_1' .* is a NoneType"):
        pg.instrument(model, pg.Activations("conv"))


# -- the source ----------------------------------------------------------------------------


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


def test_instrumented_models_are_not_trained():
    probed = pg.instrument(models.cnn(), pg.Saliency())
    with pytest.raises(InstrumentError, match=r"train `probed\.source`"):
        probed.fit(models.images((11, 8, 2)))


# -- saving --------------------------------------------------------------------------------


def test_save_and_load_in_a_fresh_process(tmp_path):
    model, x = models.cnn(), models.images((11, 8, 2))
    probed = pg.instrument(
        model,
        [pg.Saliency(target="input"), pg.GradCAM(), pg.Activations("bn1", reduce="mean")],
        class_names=["a", "b", "c", "d"],
    )
    probed.save(tmp_path / "m.keras")
    np.savez(tmp_path / "x.npz", x=x, **{k.replace("/", "|"): v for k, v in probed(x).items()})
    code = """
import sys, numpy as np
import probegen
assert "tensorflow" not in sys.modules
import keras
model = keras.saving.load_model(sys.argv[1] + "/m.keras")
data = np.load(sys.argv[1] + "/x.npz")
outputs = model(data["x"])
for name, value in outputs.items():
    np.testing.assert_allclose(value, data[name.replace("/", "|")], rtol=1e-6, atol=1e-7)
assert model.manifest.class_names == ("a", "b", "c", "d")
print("same", len(outputs))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert "same 4" in done.stdout, done.stderr


def test_inputs_of_another_shape_are_refused():
    probed = pg.instrument(models.cnn(), [pg.Saliency()])
    with pytest.raises(InstrumentError, match=r"'image' .*\[\?, 11, 8, 2\], got \[3, 11, 8, 1\]"):
        probed(np.zeros((3, 11, 8, 1), "float32"))


def test_callable_targets_cannot_be_saved(tmp_path):
    probed = pg.instrument(models.cnn(), pg.Saliency(target=lambda y: y[:, 0]))
    with pytest.raises(pg.ProbegenError, match="a class index or a tuple"):
        probed.save(tmp_path / "m.keras")


# -- refusals ------------------------------------------------------------------------------


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
        (stopped, pg.Saliency(), NotDifferentiableError, "StopGradient in layer 'stop'"),
        (redefined, pg.Saliency(), NotDifferentiableError, "'odd' redefines its gradient"),
        (models.cnn, pg.Saliency(target=4), InstrumentError, r"has 4 entries \(0 to 3\)"),
        (models.cnn, pg.Saliency(target=(0, 1)), InstrumentError, "takes one for each of its 1"),
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


def test_what_is_no_model(tmp_path):
    with pytest.raises(SourceError, match="there is no model file"):
        pg.inspect(tmp_path / "no.keras")
    (tmp_path / "bad.keras").write_text("nonsense")
    with pytest.raises(SourceError, match="Keras cannot load"):
        pg.inspect(tmp_path / "bad.keras")
    with pytest.raises(SourceError, match=r"Call it once on data, call model.build"):
        pg.inspect(keras.Sequential([keras.layers.Dense(3)]))
    with pytest.raises(SourceError, match="Wrap the layer in a model"):
        pg.inspect(keras.layers.Dense(3))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_inspect_reads_files(tmp_path, suffix):
    model = models.cnn()
    model.save(tmp_path / f"m{suffix}")
    points = pg.inspect(tmp_path / f"m{suffix}")
    assert str(points) == str(pg.inspect(model))
    by_path = {p.path: p for p in points}
    assert by_path["image"].role == "input"
    assert (by_path["conv1"].role, by_path["conv1"].shape) == ("convolution", (None, 11, 8, 5))
    assert by_path["bn1"].role == "normalisation"
    assert by_path["scores"].roles == ("output", "dense")


def test_inspect_sees_inside_custom_layers():
    points = {p.path: p for p in pg.inspect(models.transformer())}
    assert points["block_1/mha"].role == "attention"
    assert "attention" in points["block_1/mha"].probes
    assert points["embedding"].role == "embedding"
    assert "step of lstm" in pg.inspect(models.forecaster())[3].reason
