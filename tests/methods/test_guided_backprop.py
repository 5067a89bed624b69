"""Guided backpropagation and deconvolution of every rectifier, against numpy."""

import dataclasses

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, UnsupportedOpsError, VerificationError
from probegen.graph.tables import rectifiers
from probegen.methods.samples import NumpyWalk, Place
from tests import models
from tests.methods import ruled
from tests.sources.onnx.support import add_weights, parse, run

rng = np.random.default_rng(5)
W1, W2 = rng.normal(size=(5, 7)), rng.normal(size=(7, 3))
BIAS = rng.normal(size=7)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return x * (1 + tf.math.erf(x / np.sqrt(2)).numpy()) / 2


def gelu_tanh(x):
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def leaky(x, slope=0.3):
    return np.where(x > 0, x, slope * x)


def elu(x, alpha=1.0):
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def selu(x):
    return 1.0507009873554805 * elu(x, 1.6732632423543772)


SLOPES = np.array([0.1, 0.3, 0.5, 0.0, 0.2, 0.7, 0.05])

#: What a function is -> its ONNX text from `x` to `y`, and the function by numpy.
SPELLED = {
    "relu": ("y = Relu(x)", lambda x: np.maximum(x, 0)),
    "max": ("y = Max(x, zero)", lambda x: np.maximum(x, 0)),
    "mask": ("on = Greater(x, zero) f = Cast<to=1>(on) y = Mul(x, f)", lambda x: x * (x > 0)),
    "where": ("on = Greater(x, zero) y = Where(on, x, zero)", lambda x: x * (x > 0)),
    "relu6": ("y = Clip(x, zero, six)", lambda x: np.clip(x, 0, 6)),
    "relu6_as_minimum": ("r = Relu(x) y = Min(r, six)", lambda x: np.clip(x, 0, 6)),
    "relu2_as_minimum": ("r = Relu(x) y = Min(two, r)", lambda x: np.clip(x, 0, 2)),
    "relu2_as_maximum": ("r = Min(x, two) y = Max(r, zero)", lambda x: np.clip(x, 0, 2)),
    "relu2_the_other_way": ("r = Min(x, two) y = Relu(r)", lambda x: np.clip(x, 0, 2)),
    "from_below": ("y = Clip(x, half)", lambda x: np.maximum(x, 0.5)),
    "leaky": ("y = LeakyRelu<alpha=0.3>(x)", leaky),
    "leaky_as_maximum": ("l = Mul(x, slope) y = Max(x, l)", leaky),
    "leaky_as_difference": (
        "r = Relu(x) n = Neg(x) k = Relu(n) l = Mul(k, slope) y = Sub(r, l)", leaky
    ),
    "prelu": ("y = PRelu(x, slopes)", lambda x: leaky(x, SLOPES)),
    "prelu_by_absolute": (
        "a = Abs(x) d = Sub(x, a) l = Mul(d, slopes) h = Mul(l, half) r = Relu(x) y = Add(r, h)",
        lambda x: leaky(x, SLOPES),
    ),
    "thresholded": ("y = ThresholdedRelu<alpha=0.4>(x)", lambda x: x * (x > 0.4)),
    "elu": ("y = Elu<alpha=0.8>(x)", lambda x: elu(x, 0.8)),
    "elu_in_pieces": (
        "e = Exp(x) k = Sub(e, one) on = Greater(x, zero) y = Where(on, x, k)", elu
    ),
    "selu": ("y = Selu(x)", selu),
    "celu": ("y = Celu<alpha=0.7>(x)", lambda x: elu(x / 0.7, 1.0) * 0.7),
    "softplus": ("y = Softplus(x)", lambda x: np.logaddexp(0, x)),
    "silu": ("s = Sigmoid(x) y = Mul(x, s)", lambda x: x * sigmoid(x)),
    "silu_other_way": ("s = Sigmoid(x) y = Mul(s, x)", lambda x: x * sigmoid(x)),
    "quick_gelu": ("k = Mul(x, c) s = Sigmoid(k) y = Mul(x, s)", lambda x: x * sigmoid(1.702 * x)),
    "gelu": ("y = Gelu(x)", gelu),
    "gelu_tanh_operator": ('y = Gelu<approximate="tanh">(x)', gelu_tanh),
    "gelu_in_pieces": (
        "u = Mul(x, root) e = Erf(u) p = Add(e, one) h = Mul(x, half) y = Mul(h, p)", gelu
    ),
    "gelu_by_division": (
        "u = Div(x, two_root) e = Erf(u) p = Add(one, e) q = Mul(x, p) y = Mul(q, half)", gelu
    ),
    "gelu_tanh": (
        "c3 = Pow(x, three) b = Mul(c3, cubic) i = Add(x, b) u = Mul(i, outer) t = Tanh(u) "
        "p = Add(t, one) h = Mul(half, x) y = Mul(h, p)", gelu_tanh
    ),
    "mish": (
        "s = Softplus(x) t = Tanh(s) y = Mul(x, t)", lambda x: x * np.tanh(np.logaddexp(0, x))
    ),
    "hard_swish": ("y = HardSwish(x)", lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "hard_swish_in_pieces": (
        "p = Add(x, three) k = Clip(p, zero, six) q = Div(k, six) y = Mul(x, q)",
        lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    ),
}  # fmt: skip
#: Functions that are no rectifiers.
OTHERS = {
    "sigmoid": ("y = Sigmoid(x)", sigmoid),
    "tanh": ("y = Tanh(x)", np.tanh),
    "square": ("y = Mul(x, x)", np.square),
    "absolute": ("y = Abs(x)", np.abs),
    "saturated_on_both_sides": ("y = Clip(x, minus, one)", lambda x: np.clip(x, -1, 1)),
    "saturated_by_two": ("r = Max(x, minus) y = Min(r, one)", lambda x: np.clip(x, -1, 1)),
    "saturated_the_other_way": ("r = Min(x, one) y = Max(r, minus)", lambda x: np.clip(x, -1, 1)),
    "where_it_is_a_number": (  # as Keras's logsumexp has it
        "i = IsInf(x) n = IsNaN(x) o = Or(i, n) f = Not(o) y = Where(f, x, zero)",
        np.positive,
    ),
    "hard_shrink": (  # as Keras has it, beside zeros of x's own open shape
        "a = Abs(x) g = Greater(a, half) s = Shape(x) o = ConstantOfShape(s) y = Where(g, x, o)",
        lambda x: x * (np.abs(x) > 0.5),
    ),
    "hard_sigmoid": (
        "a = Add(x, three) bounded = Clip(a, zero, six) y = Div(bounded, six)",
        lambda x: np.clip(x / 6 + 0.5, 0, 1),
    ),
    "hard_sigmoid_as_minimum": (
        "h = Mul(x, slope) a = Add(half, h) r = Relu(a) y = Min(r, one)",
        lambda x: np.clip(0.3 * x + 0.5, 0, 1),
    ),
    "tanh_in_pieces": (
        "e = Exp(x) n = Neg(x) f = Exp(n) a = Sub(e, f) b = Add(e, f) y = Div(a, b)",
        np.tanh,
    ),
}
NUMBERS = {
    "zero": 0.0, "half": 0.5, "one": 1.0, "minus": -1.0, "two": 2.0, "three": 3.0, "six": 6.0,
    "slope": 0.3, "c": 1.702, "root": np.sqrt(0.5), "two_root": np.sqrt(2.0), "cubic": 0.044715,
    "outer": np.sqrt(2 / np.pi),
}  # fmt: skip


def network(middle):
    """`[?, 5] -> [?, 3]`: two matrices with a function between them."""
    text = f"""<ir_version: 10, opset_import: ["" : 20]>
      net (float[n, 5] row) => (float[n, 3] scores) {{
        m = MatMul(row, w1)  x = Add(m, bias)  {middle}  scores = MatMul(y, w2) }}"""
    model = onnx.parser.parse_model(text)
    known = {"w1": W1, "w2": W2, "bias": BIAS, "slopes": SLOPES, **NUMBERS}
    for name, values in known.items():
        array = np.asarray(values, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    used = {n for node in model.graph.node for n in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)
    return model


def slope_of(function, x):
    return (function(x + 1e-6) - function(x - 1e-6)) / 2e-6


def backwards(function, rows, target, method):
    """The rule by numpy: `method` says what the function makes of the gradient."""
    x = rows.astype(np.float64) @ W1 + BIAS
    g = np.broadcast_to(W2[:, target], x.shape)
    f = slope_of(function, x)
    arrived = {
        "guided_backprop": np.maximum(f, 0) * np.maximum(g, 0),
        "deconvnet": np.maximum(g, 0) * (1.0507009873554805 if function is selu else 1.0),
        "input_gradient": f * g,
    }[method]
    return arrived @ W1.T


ALL = {**SPELLED, **OTHERS}
#: A class whose weights W2 have both signs, and rows enough for functions to fall where these are
#: positive.
CLASS = 0
METHODS = [m(target=CLASS) for m in (pg.GuidedBackprop, pg.Deconvnet, pg.InputGradient)]


@pytest.mark.parametrize("name", ALL)
def test_each_rectifier_however_it_is_spelled(tmp_path, name):
    middle, function = ALL[name]
    path = tmp_path / "m.onnx"
    exported = pg.compile(network(middle), METHODS, path)
    art = runtime.load(path)
    for count in (2, 40):
        rows = models.images((5,), seed=count, count=count) * 2
        found = art.run(rows)
        for probe in METHODS:
            kind = probe.kind if name in SPELLED else "input_gradient"
            expected = backwards(function, rows, CLASS, kind)
            got = found[f"{probe.kind}/row"].array
            np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5, err_msg=probe.kind)
    assert "numpy on the forward graph" in exported.report["guided_backprop/row"].witness
    if name in SPELLED:
        guided = art.run(rows)["guided_backprop/row"].array
        assert np.abs(guided - backwards(function, rows, CLASS, "input_gradient")).max() > 0.05


def test_at_noisy_copies(tmp_path):
    """SmoothGrad of both, beside one that looks at the sample alone and shares their rules."""
    middle, function = SPELLED["relu"]
    names = [m.kind for m in METHODS[:2]]
    probes = [pg.SmoothGrad(3, 0.4, of_method=n, target="all", name=n) for n in names]
    path = tmp_path / "m.onnx"
    exported = pg.compile(network(middle), [*probes, pg.GuidedBackprop("all")], path)
    assert "numpy on the forward graph" in exported.report["deconvnet"].witness
    rows, place = models.images((5,), seed=1, count=4), Place("row", ("batch", "feature"))
    found = runtime.load(path).run(rows)
    points = NumpyWalk(probes[0].gradients_at().of([place]), rows, place).points()
    copies = [point.at for point in points]
    for name, kind, where in [
        *((n, n, copies) for n in names),
        ("guided_backprop/row", names[0], [rows]),
    ]:
        each = [[backwards(function, x, target, kind) for x in where] for target in range(3)]
        expected = np.mean(each, axis=1).swapaxes(0, 1)
        np.testing.assert_allclose(found[name].array, expected, rtol=2e-4, atol=2e-5)


KERAS = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: leaky(x, 0.2),
    "elu": elu,
    "selu": selu,
    "celu": elu,
    "silu": lambda x: x * sigmoid(x),
    "gelu": gelu,
    "hard_silu": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "softplus": lambda x: np.logaddexp(0, x),
}
LAYERS = {
    "PReLU": (lambda: keras.layers.PReLU(alpha_initializer=keras.initializers.Constant(SLOPES)),
              lambda x: leaky(x, SLOPES)),
    "LeakyReLU": (lambda: keras.layers.LeakyReLU(negative_slope=0.15), lambda x: leaky(x, 0.15)),
    "ReLU_of_three_numbers": (
        lambda: keras.layers.ReLU(max_value=4.0, negative_slope=0.1, threshold=0.5),
        lambda x: np.where(x > 0.5, np.minimum(x, 4), 0.1 * (x - 0.5)),
    ),
    "gelu_approximate": (
        lambda: keras.layers.Lambda(lambda t: keras.ops.gelu(t, approximate=True)), gelu_tanh
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def activated(tmp_path_factory):
    """A model with an output for each activation, and all methods at each, in one artefact."""
    x = keras.Input((5,), name="row")
    first = keras.layers.Dense(7, name="first")
    y, scores = first(x), keras.layers.Dense(3, use_bias=False, name="scores")
    outputs = {}
    for name in (*KERAS, *LAYERS):
        layer = LAYERS[name][0]() if name in LAYERS else keras.layers.Activation(name)
        outputs[name] = keras.layers.Identity(name=name)(scores(layer(y)))
    first.set_weights([W1, BIAS])
    scores.set_weights([W2])
    probes = [
        dataclasses.replace(probe, output=name, name=f"{probe.kind} {name}")
        for name in outputs
        for probe in METHODS
    ]
    path = tmp_path_factory.mktemp("activations") / "m.onnx"
    pg.compile(keras.Model(x, list(outputs.values())), probes, path)
    return runtime.load(path)


@pytest.mark.parametrize("name", [*KERAS, *LAYERS])
def test_keras_activations(activated, name):
    function = LAYERS[name][1] if name in LAYERS else KERAS[name]
    rows = models.images((5,), seed=3, count=40) * 2
    found = activated.run(rows)
    for probe in METHODS:
        expected = backwards(function, rows, CLASS, probe.kind)
        got = found[f"{probe.kind} {name}"].array
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5, err_msg=probe.kind)


def test_a_convolutional_network_with_pooling(tmp_path):
    """The rectifier before a max pooling is passed by its own rule (TensorFlow as twin)."""
    model, path = models.cnn(), tmp_path / "m.onnx"
    pg.compile(model, [pg.GuidedBackprop(target="input"), pg.Deconvnet(target="input")], path)
    layer = model.get_layer

    def score(x, guided, classes):
        @tf.custom_gradient
        def rectifier(v):
            mask = tf.cast(v > 0, v.dtype) if guided else 1.0
            return tf.nn.relu(v), lambda g: tf.nn.relu(g) * mask

        y = rectifier(layer("bn1")(layer("conv1")(x), training=False))
        second, head = layer("conv2"), layer("scores")
        y = tf.nn.conv2d(layer("pool1")(y), second.kernel, 1, "VALID") + second.bias
        scores = tf.reduce_mean(rectifier(y), (1, 2)) @ head.kernel + head.bias
        return tf.gather(scores, classes, axis=1, batch_dims=1)

    for count in (1, 3):
        images, classes = models.images((11, 8, 2), count=count), [2, 0, 3][:count]
        found = runtime.load(path).run(images, target=classes)
        for kind in ("guided_backprop", "deconvnet"):
            x = tf.constant(images)
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = score(x, kind == "guided_backprop", classes)
            expected = tape.gradient(value, x).numpy()
            assert np.abs(expected).max() > 0
            np.testing.assert_allclose(found[f"{kind}/image"].array, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("shape", "convolution"),
    [
        ((5, 4, 2), lambda: keras.layers.Conv2D(3, 2)),
        ((4, 2), lambda: keras.layers.Conv1DTranspose(3, 3, strides=2, use_bias=False)),
    ],
    ids=["Conv2D", "Conv1DTranspose"],
)
def test_slopes_of_each_position_behind_a_convolution(shape, convolution, tmp_path):
    """What the lowering turns in the middle of a PReLU is one rectifier all the same.

    So is what stands behind a transposed convolution, whose sizes have to be known for that.
    """
    slopes = keras.initializers.RandomUniform(0.1, 0.6, seed=1)
    model = keras.Sequential([
        keras.Input(shape, name="image"),
        convolution(),
        keras.layers.PReLU(alpha_initializer=slopes),
        keras.layers.Flatten(),
        keras.layers.Dense(2),
    ])  # fmt: skip
    probes = [pg.GuidedBackprop(target=CLASS), pg.Deconvnet(target=CLASS)]
    pg.compile(model, probes, tmp_path / "m.onnx")
    conv, rectifier, _, head = model.layers
    images = models.images(shape, count=3)
    found = runtime.load(tmp_path / "m.onnx").run(images)
    x = tf.constant(images)
    y = conv(x)
    arrives = np.maximum(head.kernel.numpy()[:, CLASS].reshape(y.shape[1:]), 0)
    kept = np.where(y.numpy() > 0, 1, rectifier.alpha.numpy()) * arrives
    for probe in probes:
        g = kept if probe.kind == "guided_backprop" else np.broadcast_to(arrives, y.shape)
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = tf.reduce_sum(conv(x) * g.astype(np.float32))
        expected = tape.gradient(score, x).numpy()
        got = found[f"{probe.kind}/image"].array
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6, err_msg=probe.kind)


def test_bounds_of_places_in_a_sampled_picture_are_no_rectifiers(tmp_path):
    """A picture sampled at places that it makes itself; against differences of the plain file."""
    text = """net (float[n, 2, 4, 5] x) => (float[n, 3, 4, 5] s) {
        a = Conv<pads = [0, 1, 0, 1]>(x, places)  b = Tanh(a)
        at = Transpose<perm = [0, 2, 3, 1]>(b)
        c = GridSample<padding_mode = "border">(x, at)  s = Conv(c, kernel) }"""
    draw = np.random.default_rng(3)
    arrays = {
        "places": 0.3 * draw.normal(size=(2, 2, 1, 3)),
        "kernel": draw.normal(size=(3, 2, 1, 1)),
    }
    before = add_weights(parse(text, 20), **{k: v.astype(np.float32) for k, v in arrays.items()})
    head = draw.normal(size=(3, 2)).astype(np.float32)
    whole = text.replace("float[n, 3, 4, 5] s", "float[n, 2] y").replace(
        "s = Conv(c, kernel)", "s = Conv(c, kernel) r = Relu(s) p = GlobalAveragePool(r) "
        "f = Flatten(p) y = MatMul(f, head)"
    )  # fmt: skip
    model = add_weights(parse(whole, 20), head=head)
    model.graph.initializer.extend(before.graph.initializer)
    probes = [pg.GuidedBackprop(target=CLASS % 2), pg.Deconvnet(target=CLASS % 2)]
    pg.compile(model, probes, tmp_path / "m.onnx")
    x = models.images((2, 4, 5), count=3)
    found = runtime.load(tmp_path / "m.onnx").run(x)
    arrives = np.maximum(head[:, CLASS % 2], 0).reshape(1, 3, 1, 1) / 20
    passed = {"guided_backprop": run(before, {"x": x})["s"] > 0, "deconvnet": 1.0}
    for kind, passes in passed.items():
        expected = np.zeros_like(x)
        for place in np.ndindex(x.shape[1:]):
            step = np.zeros_like(x)
            step[:, *place] = 2e-3
            change = run(before, {"x": x + step})["s"] - run(before, {"x": x - step})["s"]
            expected[:, *place] = (change * arrives * passes).sum((1, 2, 3)) / 4e-3
        got = found[f"{kind}/x"].array
        far = np.linalg.norm(got - expected) / np.linalg.norm(expected)
        assert far < 0.02, (kind, far)


def test_behind_recurrent_layers(tmp_path):
    """Cells keep their gradients, the rectifiers around them have the rule (TensorFlow as twin)."""
    keras.utils.set_random_seed(0)
    shape = keras.Input((6, 5), name="series")
    middle = keras.Sequential([
        keras.layers.Bidirectional(keras.layers.LSTM(3, return_sequences=True)),
        keras.layers.GRU(4),
    ])  # fmt: skip
    first, last = (keras.layers.Dense(n, activation="relu") for n in (7, 5))
    head = keras.layers.Dense(3, name="scores")
    model, path = keras.Model(shape, head(last(middle(first(shape))))), tmp_path / "m.onnx"
    exported = pg.compile(model, [pg.GuidedBackprop(target=1), pg.Deconvnet(target=1)], path)
    assert "numpy on the forward graph" in exported.report["deconvnet/series"].witness

    def score(x, guided):
        @tf.custom_gradient
        def rectifier(v):
            mask = tf.cast(v > 0, v.dtype) if guided else 1.0
            return tf.nn.relu(v), lambda g: tf.nn.relu(g) * mask

        y = middle(rectifier(x @ first.kernel.value + first.bias.value))
        return head(rectifier(y @ last.kernel.value + last.bias.value))[:, 1]

    for count in (1, 4):
        series = models.images((6, 5), seed=count, count=count)
        found = runtime.load(path).run(series)
        for kind in ("guided_backprop", "deconvnet"):
            x = tf.constant(series)
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = score(x, kind == "guided_backprop")
            expected = tape.gradient(value, x).numpy()
            assert np.abs(expected).max() > 1e-4
            array = found[f"{kind}/series"].array
            np.testing.assert_allclose(array, expected, rtol=1e-3, atol=1e-6)


def test_cells_of_every_form_keep_their_gradients(tmp_path):
    """Both directions, lengths of their own, an activation that goes step by step."""
    (model, feed), path = ruled.cells(bias=0.5), tmp_path / "m.onnx"
    pg.compile(model, [pg.GuidedBackprop(target=1), pg.InputGradient(target=1)], path, samples=feed)
    found = runtime.load(path).run(feed)
    gradient = found["input_gradient/series"].array
    assert np.abs(gradient).max() > 1e-2
    guided = found["guided_backprop/series"].array
    np.testing.assert_allclose(guided, gradient, rtol=1e-4, atol=1e-6)


def test_a_gate_with_an_input_of_its_own_is_no_rectifier(tmp_path):
    """`a * sigmoid(b)` and a maximum of two tensors keep their gradient."""
    text = "a = MatMul(x, w3) s = Sigmoid(a) q = Mul(x, s) y = Max(q, a)"
    model = network(text)
    square = np.random.default_rng(1).normal(size=(7, 7)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(square, "w3"))
    pg.compile(model, METHODS, tmp_path / "m.onnx")
    found = runtime.load(tmp_path / "m.onnx").run(models.images((5,), count=3))
    gradient = found["input_gradient/row"].array
    for kind in ("guided_backprop", "deconvnet"):
        np.testing.assert_allclose(found[f"{kind}/row"].array, gradient, rtol=1e-4, atol=1e-6)


# -- what is refused ---------------------------------------------------------------------------


def test_what_lies_within_a_rectifier_cannot_be_explained(tmp_path):
    model = network(SPELLED["silu"][0])
    next(n for n in model.graph.node if n.op_type == "Sigmoid").name = "gate"
    with pytest.raises(UnsupportedOpsError, match="lies between"):
        pg.compile(model, pg.GuidedBackprop(wrt=["row", "gate"]), tmp_path / "m.onnx")


@pytest.mark.parametrize("path", ["saved", "m.keras"])
def test_tensorflow_formats_refuse_it(tmp_path, path):
    with pytest.raises(InstrumentError, match=r"own gradient of rectifiers.*\.onnx"):
        pg.compile(models.cnn(), pg.GuidedBackprop(), tmp_path / path)


def test_the_verification_finds_a_rule_that_is_forgotten(tmp_path, monkeypatch):
    """A SiLU in two nodes that is passed with its plain gradient is found out."""
    model, path = network(SPELLED["silu"][0]), tmp_path / "m.onnx"
    with monkeypatch.context() as changed:
        changed.setattr(rectifiers, "rectifier_at", lambda _: None)
        pg.compile(model, pg.GuidedBackprop(), path, verify=False)
    with pytest.raises(VerificationError, match="guided_backprop/row"):
        pg.verify(path, model)
