"""Which axis is which: told from the layers, and the right numbers along them.

The witness for channels-first models is a twin: the same layers channels-last, with the same
weights, called eagerly on the transposed input.
"""

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.runtime import plot
from probegen.sources.keras.channels_last import channels_last
from probegen.sources.keras.keras_model import as_keras_model
from probegen.sources.keras.links import reshaped
from probegen.sources.keras.trace import trace
from tests import models

FIRST = "channels_first"


def plane(data_format):
    """Two convolutions, a transposed one, pooling, normalisation: 3 channels of 11 x 8."""
    keras.utils.set_random_seed(11)
    first = data_format == FIRST
    x = keras.Input((3, 11, 8) if first else (11, 8, 3), name="image")
    form, axis = {"data_format": data_format}, 1 if first else -1
    y = layers.Rescaling(0.5)(x)
    y = layers.Conv2D(5, 3, strides=2, padding="same", activation="tanh", name="conv", **form)(y)
    y = layers.BatchNormalization(axis=axis, name="norm")(y)
    y = layers.Conv2DTranspose(4, (3, 2), activation="relu", name="up", **form)(y)
    y = layers.MaxPooling2D((2, 1), name="pool", **form)(y)
    y = layers.Conv2D(6, 2, activation="relu", name="last", **form)(y)
    y = layers.GlobalAveragePooling2D(name="mean", **form)(y)
    return keras.Model(x, layers.Dense(3, activation="softmax", name="scores")(y), name="plane")


def twins():
    first, last = plane(FIRST), plane("channels_last")
    rng = np.random.default_rng(3)
    for w in first.weights:
        w.assign(w + 0.2 * rng.standard_normal(w.shape) ** 2)
    last.set_weights(first.get_weights())
    return first, last


PROBES = [
    pg.Saliency(target=2),
    pg.InputGradient(target=2),
    pg.GradCAM(target=2),
    pg.GradCAM("conv", target=2, name="early"),
    pg.IntegratedGradients(5, target=2),
    pg.Activations("conv", reduce="mean", axes="spatial", name="spatial"),
    pg.Activations("conv", reduce="max", name="channel"),
    pg.Activations("conv", channels=[4, 1], name="some"),
]


@pytest.fixture(scope="module")
def planes():
    first, last = twins()
    x = models.images((11, 8, 3), count=4)
    x[1] = 0
    x[2] *= -30
    return first, np.ascontiguousarray(np.moveaxis(x, -1, 1)), pg.instrument(last, PROBES)(x)


def assert_same_maps(got, expected):
    for name, map_of_twin in expected.items():
        value = np.asarray(map_of_twin)
        if name in ("input_gradient/image", "integrated_gradients/image", "some"):
            value = np.moveaxis(value, -1, 1)
        scale = np.abs(value).max()
        assert np.asarray(got[name]).shape == value.shape, name
        np.testing.assert_allclose(got[name], value, atol=2e-5 * scale, err_msg=name)


def test_channels_first_gives_the_maps_of_channels_last(planes):
    first, x, expected = planes
    assert_same_maps(pg.instrument(first, PROBES)(x), expected)


def test_channels_first_saliency_by_an_eager_tape(planes):
    first, x, _ = planes
    with channels_last(), tf.GradientTape() as tape:
        at = tf.constant(x)
        tape.watch(at)
        inner = keras.Model(first.inputs, first.get_layer("mean").output)(at)
        score = (inner @ first.get_layer("scores").kernel)[:, 1]
    expected = np.abs(tape.gradient(score, at).numpy()).max(1)
    got = pg.instrument(first, pg.Saliency(target=1))(x)["saliency/image"]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("suffix", [".onnx", ""])
def test_channels_first_artefacts(planes, tmp_path, suffix):
    first, x, expected = planes
    path = tmp_path / f"plane{suffix}"
    done = pg.compile(first, PROBES, path)
    assert done.report.passed
    assert done.manifest.inputs[0].axes == ("batch", "channel", "height", "width")
    axes = {o.name: o.axes for o in done.manifest.outputs}
    assert axes["saliency/image"] == ("batch", "height", "width")
    assert axes["input_gradient/image"] == ("batch", "channel", "height", "width")
    assert axes["grad_cam/last"] == ("batch", "height", "width")
    assert axes["spatial"] == ("batch", "channel")
    assert axes["channel"] == ("batch", "height", "width")
    assert_same_maps({k: v.array for k, v in runtime.load(path).run(x).items()}, expected)
    if suffix:
        graph = onnx.load(path).graph
        inside = [*graph.node, *(n for b in graph.node for a in b.attribute for n in a.g.node)]
        turned = [n for n in inside if n.op_type == "Transpose"]
        assert len(turned) <= 2, "the transpositions around convolutions cancel"


CHANNELS_FIRST = {
    "Conv1D": ((3, 11), lambda: layers.Conv1D(4, 3, padding="causal", data_format=FIRST)),
    "Conv2D": ((3, 9, 7), lambda: layers.Conv2D(4, 3, dilation_rate=2, data_format=FIRST)),
    "Conv3D": ((3, 5, 6, 4), lambda: layers.Conv3D(4, 2, data_format=FIRST)),
    "Conv1DTranspose": ((3, 11), lambda: layers.Conv1DTranspose(4, 3, 2, data_format=FIRST)),
    "Conv3DTranspose": ((3, 3, 4, 2), lambda: layers.Conv3DTranspose(2, 2, data_format=FIRST)),
    "ConvLSTM2D": ((3, 2, 6, 5), lambda: layers.ConvLSTM2D(3, 3, data_format=FIRST)),
    "dilated and grouped": (
        (6, 11),
        lambda: layers.Conv1D(3, 2, dilation_rate=2, groups=3, data_format=FIRST),
    ),
    "grouped": ((4, 9, 7), lambda: layers.Conv2D(6, 3, groups=2, data_format=FIRST)),
}


@pytest.mark.parametrize("name", CHANNELS_FIRST)
def test_nothing_that_is_traced_needs_channels_first_kernels(name):
    """TensorFlow on a CPU has none, but where oneDNN does it: a matter of the processor."""
    shape, make = CHANNELS_FIRST[name]
    x = keras.Input(shape, name="x")
    model = keras.Model(x, layers.Flatten()(make()(x)))
    traced = trace(as_keras_model(model))
    graphs, formats = [traced.graph.as_graph_def()], set()
    for nodes in [graphs[0].node, *(f.node_def for f in graphs[0].library.function)]:
        formats |= {n.attr["data_format"].s for n in nodes if n.op != "BiasAdd"}
    assert not formats & {b"NCHW", b"NCDHW"}
    data = models.images(shape)
    got = pg.instrument(model, pg.InputGradient(target=(1,)))(data)["input_gradient/x"]
    step = 1e-2 * np.random.default_rng(1).standard_normal(shape).astype("float32")
    with channels_last():
        moved = np.asarray(model(data + step))[:, 1] - np.asarray(model(data - step))[:, 1]
    told = (np.asarray(got) * 2 * step).reshape(len(data), -1).sum(1)
    np.testing.assert_allclose(told, moved, rtol=2e-2, atol=2e-5)


@pytest.mark.parametrize(
    ("shape", "sizes", "make"),
    [
        ((6, None), (6, 9), lambda **g: layers.Conv1D(3, 2, dilation_rate=2, groups=3, **g)),
        (
            (2, None, None),
            (2, 7, 8),
            lambda **g: layers.Conv2D(3, (2, 3), dilation_rate=(1, 2), **g),
        ),
        ((2, 5, 6, 4), (2, 5, 6, 4), lambda **g: layers.Conv3D(3, 2, dilation_rate=2, **g)),
    ],
    ids=["1-D", "2-D", "3-D"],
)
def test_a_dilated_convolution_is_one_node(tmp_path, shape, sizes, make):
    """TensorFlow's own form takes the channels apart with the image, and loses their number."""
    x = keras.Input(shape, name="x")
    model = keras.Model(x, make(data_format=FIRST, name="conv")(x))
    pg.compile(model, [], tmp_path / "m.onnx")
    last = make(data_format="channels_last")
    data = models.images(sizes)
    turned = np.moveaxis(data, 1, -1)
    last.build(turned.shape)
    last.set_weights(model.get_layer("conv").get_weights())
    got = runtime.load(tmp_path / "m.onnx").run(data)["conv"].array
    np.testing.assert_allclose(got, np.moveaxis(np.asarray(last(turned)), -1, 1), atol=1e-5)
    nodes = [n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node]
    assert sorted(nodes) in (["Conv"], ["Conv", "Squeeze", "Unsqueeze"])


def test_a_dilated_volume_of_open_size_keeps_its_groups(tmp_path):
    """No shape in the graph tells them: TensorFlow computes it in a batch of smaller volumes."""
    keras.utils.set_random_seed(7)
    x = keras.Input((2, 5, None, 3), name="x")
    given = {"padding": "same", "dilation_rate": 2, "groups": 2, "data_format": FIRST}
    model = keras.Model(x, layers.Conv3D(4, (3, 1, 1), name="conv", **given)(x))
    pg.compile(model, [], tmp_path / "m.onnx")
    data = models.images((2, 5, 4, 3))
    kernel, bias = model.get_layer("conv").get_weights()
    padded = np.pad(data, ((0, 0), (0, 0), (2, 2), (0, 0), (0, 0)))
    expected = np.zeros((len(data), 4, 5, 4, 3)) + bias.reshape(-1, 1, 1, 1)
    for filter_ in range(4):
        for at in range(3):
            part = padded[:, filter_ // 2, 2 * at : 2 * at + 5]
            expected[:, filter_] += part * kernel[at, 0, 0, 0, filter_]
    got = runtime.load(tmp_path / "m.onnx").run(data)["conv"].array
    np.testing.assert_allclose(got, expected, atol=1e-5)


# -- names ---------------------------------------------------------------------------------


def film():
    x = keras.Input((None, 9, 8, 2), name="x")
    y = layers.TimeDistributed(layers.Conv2D(3, 3), name="each")(x)
    y = layers.ConvLSTM2D(2, 3, return_sequences=True, name="over")(y)
    y = layers.ConvLSTM2D(2, 2, name="end")(y)
    return x, y


def rows():
    x = keras.Input((4, 3, 9), name="x")
    y = layers.TimeDistributed(layers.Conv1D(5, 3, data_format=FIRST), name="each")(x)
    return x, layers.ConvLSTM1D(2, 3, data_format=FIRST, name="end")(y)


def sentences():
    x = keras.Input((4, 5, 6), name="x")
    return x, layers.TimeDistributed(layers.TimeDistributed(layers.Dense(3)), name="end")(x)


def films():
    x = keras.Input((2, 3, 9, 8, 2), name="x")
    child = layers.TimeDistributed(layers.Conv2D(3, 3))
    return x, layers.TimeDistributed(child, name="end")(x)


def frames_of_a_model():
    x = keras.Input((3, 9, 8, 2), name="x")
    child = keras.Sequential([layers.Rescaling(0.1), layers.Conv2D(3, 3), layers.ReLU()])
    return x, layers.TimeDistributed(child, name="end")(x)


def grey():
    x = keras.Input((9, 8), name="x")
    return x, layers.Conv2D(3, 3, name="end")(layers.Reshape((9, 8, 1))(x))


def permuted():
    x = keras.Input((3, 9, 8), name="x")
    return x, layers.Conv2D(4, 3, name="end")(layers.Permute((2, 3, 1))(x))


def wave():
    x = keras.Input((9,), name="x")
    return x, layers.Conv1D(3, 3, name="end")(keras.ops.expand_dims(x, -1))


def text_lines():
    x = keras.Input((8, 20, 1), name="x")
    y = layers.MaxPooling2D(2)(layers.Conv2D(4, 3, padding="same")(x))
    y = layers.Reshape((10, 16))(layers.Permute((2, 1, 3))(y))
    return x, layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="end")(y)


def normalised():
    x = keras.Input((3, 9, 8), name="x")
    return x, layers.BatchNormalization(axis=1, name="end")(layers.ReLU()(x))


def custom():
    class Filter(layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(shape=(3, 3, shape[1], 4), name="k")

        def call(self, x):
            return tf.nn.conv2d(x, self.kernel, 1, "VALID", data_format="NCHW")

    x = keras.Input((3, 9, 8), name="x")
    return x, Filter(name="end")(keras.ops.abs(x) + 1)


def volume():
    x = keras.Input((6, 9, 8, 2), name="x")
    return x, layers.Conv3D(3, 2, name="end")(x)


def plain():
    x = keras.Input((9, 8, 2), name="x")
    return x, layers.Lambda(lambda v: v * 2, name="end")(x)


HEIGHT_WIDTH = ("height", "width")
NAMES = {
    film: (("time", *HEIGHT_WIDTH, "channel"), (*HEIGHT_WIDTH, "channel")),
    rows: (("time", "channel", "width"), ("channel", "width")),
    sentences: (("time", "step", "channel"), ("time", "step", "channel")),
    films: (("time", "step", *HEIGHT_WIDTH, "channel"), ("time", "step", *HEIGHT_WIDTH, "channel")),
    frames_of_a_model: (("time", *HEIGHT_WIDTH, "channel"), ("time", *HEIGHT_WIDTH, "channel")),
    grey: (HEIGHT_WIDTH, (*HEIGHT_WIDTH, "channel")),
    permuted: (("channel", *HEIGHT_WIDTH), (*HEIGHT_WIDTH, "channel")),
    wave: (("time",), ("time", "channel")),
    text_lines: ((*HEIGHT_WIDTH, "channel"), ("time", "channel")),
    normalised: (("channel", *HEIGHT_WIDTH), ("channel", *HEIGHT_WIDTH)),
    custom: (("channel", *HEIGHT_WIDTH), ("channel", *HEIGHT_WIDTH)),
    volume: (("depth", *HEIGHT_WIDTH, "channel"), ("depth", *HEIGHT_WIDTH, "channel")),
    plain: ((*HEIGHT_WIDTH, "channel"), (*HEIGHT_WIDTH, "channel")),
}


@pytest.mark.parametrize("make", NAMES, ids=lambda f: f.__name__)
def test_axes_are_named_by_the_layers_that_make_and_read_them(make):
    x, y = make()
    read, made = NAMES[make]
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    described = pg.instrument(model, [pg.Saliency(target=0), pg.Activations("end")]).manifest
    assert described.inputs[0].axes == ("batch", *read)
    assert described.output("activation/end").axes == ("batch", *made)
    positions = tuple(n for n in read if n != "channel")
    assert described.output("saliency/x").axes == ("batch", *positions)
    sizes = dict(zip(read, x.shape[1:], strict=True))
    assert described.output("saliency/x").shape == (None, *(sizes[n] for n in positions))


@pytest.mark.parametrize("mixes", [layers.Conv1D(3, 1), layers.Dense(3)], ids=["conv", "dense"])
def test_a_mean_over_the_features_of_a_series_does_not_turn_it_round(mixes):
    x = keras.Input((7, 3), name="x")
    y = x + layers.MultiHeadAttention(2, 4)(x, x)
    y = y + mixes(layers.LayerNormalization()(y))
    y = layers.GlobalAveragePooling1D(data_format=FIRST)(y)
    model = keras.Model(x, layers.Dense(2)(layers.Dense(4, activation="relu")(y)))
    described = pg.instrument(model, pg.Saliency(target=0)).manifest
    assert described.inputs[0].axes == ("batch", "time", "feature")
    assert described.output("saliency/x").shape == (None, 7)


def _classes_behind_a_pooling(activation):
    """Maps whose channels come first, and classes that have nothing of them."""
    x = keras.Input((5, 6), name="x")
    y = layers.MaxPooling1D(2, data_format=FIRST)(x)
    return keras.Model(x, layers.Dense(4, activation=activation, name="y")(y))


def test_classes_are_what_a_last_softmax_sums_over(tmp_path):
    model = _classes_behind_a_pooling("softmax")
    pg.compile(model, pg.InputGradient(target=(None, 2)), tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    (prediction,), (gradient,) = art.manifest.predictions, art.manifest.explanations
    assert prediction.axes[-1] == "class"
    assert gradient.target.classes == 4
    values = np.random.default_rng(3).normal(size=(2, 5, 6)).astype(np.float32)
    kernel, _ = model.get_layer("y").get_weights()
    pairs = values.reshape(2, 5, 3, 2)
    expected = (pairs == pairs.max(-1, keepdims=True)) * kernel[:, 2, None]
    found = art.run(values)[gradient.name].array
    np.testing.assert_allclose(found, expected.reshape(2, 5, 6), rtol=1e-5)
    described = pg.instrument(_classes_behind_a_pooling("log_softmax"), pg.Saliency()).manifest
    assert described.explanations[0].target.classes == 4


def test_frames_that_are_only_pooled():
    x = keras.Input((4, 9, 8, 3), name="x")
    y = layers.TimeDistributed(layers.GlobalMaxPooling2D())(x)
    model = keras.Model(x, layers.Dense(2)(layers.LSTM(2)(y)))
    described = pg.instrument(model, pg.Saliency(target=0)).manifest
    assert described.output("saliency/x").axes == ("batch", "time", *HEIGHT_WIDTH)


def test_layers_that_run_in_each_step_of_an_open_film():
    x = keras.Input((None, 9, 8, 2), name="x")
    child = keras.Sequential(
        [layers.Conv2D(3, 3), layers.ReLU(name="relu"), layers.GlobalMaxPooling2D()]
    )
    y = layers.LSTM(2)(layers.TimeDistributed(child, name="each")(x))
    model = keras.Model(x, layers.Dense(2)(y))
    described = pg.instrument(model, [pg.GradCAM(target=0), pg.Saliency(target=0)]).manifest
    maps, saliency = described.explanations
    assert maps.name.endswith("/relu")
    assert maps.axes == saliency.axes == ("batch", "time", "height", "width")
    assert maps.shape == (None, None, 7, 6)


def test_the_global_image_format_counts():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(FIRST)
    try:
        x = keras.Input((3, 9, 8), name="x")
        model = keras.Model(x, layers.Dense(2)(layers.Flatten()(layers.ZeroPadding2D(1)(x))))
    finally:
        keras.config.set_image_data_format(before)
    described = pg.instrument(model, pg.Saliency(target=0)).manifest
    assert described.inputs[0].axes == ("batch", "channel", "height", "width")
    assert described.output("saliency/x").shape == (None, 9, 8)


def test_a_grey_image_without_a_channel_axis_keeps_all_its_pixels():
    x, y = grey()
    model = keras.Model(x, layers.Dense(2)(layers.Flatten()(y)))
    data = models.images((9, 8))
    outputs = pg.instrument(model, [pg.Saliency(target=0), pg.InputGradient(target=0)])(data)
    np.testing.assert_array_equal(outputs["saliency/x"], np.abs(outputs["input_gradient/x"]))


def test_classes_that_stand_first():
    """Segmentation channels-first: the class is chosen along the softmax's axis, not the last."""

    def make(data_format):
        keras.utils.set_random_seed(5)
        first = data_format == FIRST
        x = keras.Input((2, 7, 6) if first else (7, 6, 2), name="x")
        y = layers.Conv2D(4, 3, data_format=data_format)(x)
        return keras.Model(x, layers.Softmax(axis=1 if first else -1, name="maps")(y))

    first, last = make(FIRST), make("channels_last")
    last.set_weights(first.get_weights())
    x = models.images((7, 6, 2))
    turned = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    probes = [
        pg.InputGradient(name="best"),
        pg.InputGradient(target=2, name="two"),
        pg.InputGradient(target="input", name="asked"),
    ]
    probed = pg.instrument(first, probes, class_names=["a", "b", "c", "d"])
    assert probed.manifest.output("maps").axes == ("batch", "class", "height", "width")
    assert probed.manifest.output("two").target.index == (2, None, None)
    assert probed.manifest.target_classes == 4
    got = probed(turned, target=[1, -1, 3])
    expected = pg.instrument(last, probes)(x, target=[1, -1, 3])
    for name in ("best", "two", "asked"):
        assert np.abs(expected[name]).max() > 1e-3
        np.testing.assert_allclose(
            got[name], np.moveaxis(np.asarray(expected[name]), -1, 1), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize(
    "add_axis", [layers.Reshape((6, 1)), lambda y: keras.ops.expand_dims(y, -1)], ids=["r", "e"]
)
def test_a_vector_with_one_feature_each_is_a_series(add_axis):
    """A forecast of six steps of one feature: the steps were its features, and 1 its steps."""
    x = keras.Input((None, 3), name="x")
    model = keras.Model(x, add_axis(layers.Dense(6, name="y")(layers.GlobalMaxPooling1D()(x))))
    described = pg.instrument(model, pg.Saliency(target=("steps", 0))).manifest
    assert described.outputs[0].axes == ("batch", "step", "unit")
    assert described.output("saliency/x").shape == (None, 6, None)


def test_a_column_is_no_series():
    """Vectors that ids look up are joined and added; a number a sample weighs a series."""
    ids, x = keras.Input((1,), dtype="int32", name="ids"), keras.Input((5, 3), name="x")
    bias = layers.Flatten(name="bias")(layers.Embedding(9, 1)(ids))
    score = layers.Add(name="score")([bias, layers.Dense(1, name="dense")(keras.ops.mean(x, 1))])
    steps = layers.LSTM(2, return_sequences=True, name="steps")(x)
    gate = layers.Dense(1, name="gate")(layers.LSTM(2)(x))
    weighed = layers.Multiply(name="weighed")([keras.ops.sum(steps, -1), gate])
    model = keras.Model([ids, x], [score, weighed])
    described = pg.instrument(model, pg.Activations("*")).manifest
    axes = {o.name: o.axes[1:] for o in described.outputs}
    columns = ("score", *(f"activation/{n}" for n in ("bias", "score", "dense", "gate")))
    assert {axes[name] for name in columns} == {("unit",)}
    assert axes["activation/weighed"] == ("time",)


def test_heads_that_a_reshape_splits_off_are_no_image():
    """As in models with external attention: nothing names the heads, and maps go by tokens."""
    x = keras.Input((6, 8, 3), name="x")
    rows = keras.ops.reshape(keras.ops.image.extract_patches(x, 2), (-1, 12, 12))
    rows = layers.LayerNormalization(name="rows")(rows)
    heads = layers.Reshape((12, 3, 4), name="split")(rows)
    heads = layers.Permute((2, 1, 3), name="heads")(heads)
    looked = layers.Dense(4)(layers.Softmax(2, name="look")(layers.Dense(5)(heads)))
    y = layers.Reshape((12, 12))(layers.Permute((2, 1, 3))(looked))
    y = layers.Add(name="sum")([rows, y])
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(y)))
    described = pg.instrument(model, [pg.GradCAM(), pg.Activations("*")]).manifest
    axes = {o.name: o.axes[1:] for o in described.outputs}
    assert axes["activation/split"] == ("time", "axis_2", "channel")
    assert axes["activation/heads"] == axes["activation/look"] == ("axis_1", "time", "channel")
    assert axes["grad_cam/sum"] == ("time",)


@pytest.mark.parametrize(
    ("before", "after", "pairs"),
    [
        ((None, 9, 8), (None, 9, 8, 1), ((0, 0), (1, 1), (2, 2))),
        ((None, 9, 8), (None, 1, 9, 8), ((0, 0), (1, 2), (2, 3))),
        ((None, 4, 4, 2), (None, 4, 8), ((0, 0), (1, 1))),
        ((None, 4, 3, 2), (None, 12, 2), ((0, 0), (3, 2))),
        ((None, None, None, 3), (None, None, 3), ((3, 2),)),
        ((None, None, 6), (None, None, 2, 3), ((0, 0), (1, 1))),
        ((None, 12, 5), (None, 5, 12), ((0, 0),)),
    ],
)
def test_what_a_reshape_leaves(before, after, pairs):
    assert reshaped(before, after) == pairs


# -- Grad-CAM ------------------------------------------------------------------------------


def test_grad_cam_over_a_film():
    x = keras.Input((3, 9, 8, 2), name="x")
    y = layers.TimeDistributed(layers.Conv2D(4, 3, activation="relu"), name="maps")(x)
    model = keras.Model(x, layers.Dense(2, name="out")(layers.Flatten()(y)))
    data = models.images((3, 9, 8, 2))
    probes = [pg.GradCAM(target=1), pg.Activations("maps")]
    outputs = pg.instrument(model, probes)(data)
    maps = np.asarray(outputs["activation/maps"])
    gradient = np.asarray(model.get_layer("out").kernel)[:, 1].reshape(maps.shape[1:])
    weights = gradient.mean((0, 1, 2))
    expected = np.maximum((maps * weights).sum(-1), 0)
    assert outputs["grad_cam/maps"].shape == (3, 3, 7, 6)
    np.testing.assert_allclose(outputs["grad_cam/maps"], expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def shared():
    """One tower for three frames, each pooled in its own way."""
    x = keras.Input((3, 9, 8, 2), name="frames")
    conv = layers.Conv2D(4, 3, activation="relu", name="conv")
    pooled = [layers.GlobalAveragePooling2D()(conv(x[:, i])) for i in range(3)]
    scores = layers.Dense(2, name="out")(layers.Concatenate()(pooled))
    return keras.Model(x, scores)


@pytest.mark.parametrize("layer", ["auto", "conv", "type:Conv2D"])
def test_grad_cam_of_every_call(shared, layer):
    data = models.images((3, 9, 8, 2))
    probed = pg.instrument(shared, pg.GradCAM(layer, target=1))
    outputs = probed(data)
    names = [f"grad_cam/conv#{i}" for i in range(3)]
    assert [o.name for o in probed.manifest.explanations] == names
    kernel = np.asarray(shared.get_layer("out").kernel)[:, 1].reshape(3, 4) / 42
    for i, name in enumerate(names):
        maps = np.asarray(shared.get_layer("conv")(data[:, i]))
        expected = np.maximum((maps * kernel[i]).sum(-1), 0)
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-4, atol=1e-7)


def test_grad_cam_of_one_call_and_over_saving(shared, tmp_path):
    assert "one" in pg.instrument(shared, pg.GradCAM("conv#1", name="one"))(
        models.images((3, 9, 8, 2))
    )
    done = pg.compile(shared, pg.GradCAM(name="cam"), tmp_path / "m.onnx")
    names = [o.name for o in done.manifest.explanations]
    assert names == ["cam/conv#0", "cam/conv#1", "cam/conv#2"]
    assert [plot.place(o) for o in done.manifest.explanations] == [f"conv#{i}" for i in range(3)]
    assert pg.verify(tmp_path / "m.onnx", shared).passed


@pytest.mark.parametrize("kind", ["graph", "row", "twice inside"])
def test_calls_inside_a_model_are_numbered_as_the_models_own(kind):
    """Keras runs the later of two calls first."""
    keras.utils.set_random_seed(6)
    inner = keras.Input((6, 5, 3))
    conv = layers.Conv2D(3, 3, padding="same", activation="tanh", name="conv")
    y = conv(conv(inner)) if kind == "twice inside" else conv(inner)
    tower = keras.Sequential([conv], name="tower") if kind == "row" else None
    tower = tower or keras.Model(inner, y, name="tower")
    x = keras.Input((6, 10, 3), name="x")
    halves = [tower(x[:, :, :5]), tower(x[:, :, 5:])]
    model = keras.Model(x, [layers.Flatten()(half) for half in halves])
    data = models.images((6, 10, 3))
    got = pg.instrument(model, pg.Activations("tower*"))(data)
    for call, half in enumerate((data[:, :, :5], data[:, :, 5:])):
        last = 2 * call + 1 if kind == "twice inside" else call
        for name in (f"tower#{call}", f"tower/conv#{last}"):
            np.testing.assert_allclose(got[f"activation/{name}"], tower(half), atol=1e-6)


def test_grad_cam_of_every_tower():
    a, b = keras.Input((9, 8, 2), name="a"), keras.Input((7, 10, 1), name="b")
    towers = [layers.Conv2D(3, 3, name=f"of_{t.name}")(t) for t in (a, b)]
    both = layers.Concatenate()([layers.GlobalMaxPooling2D()(t) for t in towers])
    described = pg.instrument(keras.Model([a, b], layers.Dense(2)(both)), pg.GradCAM()).manifest
    found = {(o.name, o.input, o.shape) for o in described.explanations}
    assert found == {
        ("grad_cam/of_a", "a", (None, 7, 6)),
        ("grad_cam/of_b", "b", (None, 5, 8)),
    }


def test_grad_cam_takes_the_last_map_where_ways_meet_again():
    x = keras.Input((9, 8, 2), name="x")
    y = layers.Conv2D(3, 3, name="first")(x)
    side = layers.GlobalAveragePooling2D()(y)
    y = layers.Add(name="sum")([y, layers.Conv2D(3, 1, name="second")(y)])
    y = layers.Concatenate()([side, layers.GlobalAveragePooling2D()(y)])
    described = pg.instrument(keras.Model(x, layers.Dense(2)(y)), pg.GradCAM()).manifest
    assert [o.name for o in described.explanations] == ["grad_cam/sum"]


def test_grad_cam_is_never_of_attention_weights():
    x = keras.Input((5, 6, 4), name="x")
    y = layers.Conv2D(4, 1, name="conv")(x)
    rows = layers.Reshape((30, 4))(y)
    y = layers.MultiHeadAttention(2, 3, name="look")(rows, rows)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(y)))
    described = pg.instrument(model, pg.GradCAM()).manifest
    assert [o.name for o in described.explanations] == ["grad_cam/conv"]


def test_a_recurrent_step_is_listed_once():
    x = keras.Input((5, 2), name="x")
    y = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name="both")(x)
    y = layers.GRU(3, name="gru")(y)
    points = pg.inspect(keras.Model(x, layers.Dense(2)(y)))
    steps = [p for p in points if p.class_name.endswith("Cell")]
    assert len(steps) == len({p.path for p in steps}) == 3
    assert all(p.name == p.path and "one step of" in p.reason for p in steps)


@pytest.mark.parametrize(
    ("shape", "layer", "axes"),
    [
        ((None, 1), {"expand_dims": True}, ("time", "feature")),
        ((61, 2), {}, ("time", "feature")),
        ((2, 61), {"data_format": FIRST}, ("feature", "time")),
    ],
)
def test_a_waveform_is_a_series_though_its_spectrogram_is_an_image(shape, layer, axes):
    x = keras.Input(shape, name="wave")
    y = layers.STFTSpectrogram(frame_length=16, frame_step=5, name="spectrogram", **layer)(x)
    if "expand_dims" in layer:
        y = layers.Conv2D(3, 3, name="conv")(y)
    model = keras.Model(x, layers.GlobalMaxPooling2D()(y) if len(y.shape) == 4 else y[:, 0])
    described = pg.instrument(model, pg.InputGradient(target=0)).manifest
    assert described.inputs[0].axes == ("batch", *axes)
    assert described.output("input_gradient/wave").axes == ("batch", *axes)


def test_a_waveform_without_channels_is_a_series():
    x = keras.Input((None,), name="wave")
    mel = layers.MelSpectrogram(fft_length=32, sequence_stride=8, num_mel_bins=7, name="mel")
    y = layers.Conv2D(3, 3, name="conv")(mel(x)[..., None])
    described = pg.instrument(keras.Model(x, layers.GlobalMaxPooling2D()(y)), []).manifest
    assert described.inputs[0].axes == ("batch", "time")


class ConvolvedState(layers.Layer):
    """A cell that convolves positions of its input and its state, `[batch, 4, 1]` and 4 * 2."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.state_size, self.units = layers.Conv1D(2, 2, padding="same"), 8, 2

    def build(self, shape):
        self.conv.build((shape[0], shape[1], shape[2] + 2))
        self.built = True

    def call(self, x, states, training=None):
        """One step."""
        del training
        before = keras.ops.reshape(states[0], (-1, 4, 2))
        after = keras.ops.tanh(self.conv(keras.ops.concatenate([x, before], -1)))
        flat = keras.ops.reshape(after, (-1, 8))
        return flat, [flat]


def test_steps_of_a_recurrent_layer_are_time_whatever_its_cell_convolves():
    x = keras.Input((3, 4, 1), name="maps")
    y = layers.RNN(ConvolvedState(), name="steps")(x)
    described = pg.instrument(keras.Model(x, layers.Dense(2)(y)), []).manifest
    assert described.inputs[0].axes == ("batch", "time", "axis_2", "channel")
