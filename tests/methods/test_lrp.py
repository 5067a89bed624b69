"""LRP: every rule against numpy, conservation, layers that are merged, composites, refusals."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SpecError, VerificationError
from probegen.graph.tables import layer_relevance
from tests import models
from tests.methods import ruled
from tests.methods.test_guided_backprop import BIAS, W1, W2, network
from tests.sources.onnx.support import add_weights, parse

RULES = ("epsilon", "zplus", "alpha_beta", "gamma", "wsquare", "flat", "zbox")
EPSILON, GAMMA, LOW, HIGH = 1e-3, 0.4, -2.0, 2.5


# -- an independent computation ----------------------------------------------------------------


def away(z, epsilon):
    return z + epsilon * np.where(z >= 0, 1, -1)


def shared(x, w, b, r, rule):
    """Relevance of x, where `z = x @ w + b` has the relevance r: z_ij over its sum, by loops."""
    found = np.zeros_like(x)
    for n, row in enumerate(x):
        for j in range(w.shape[1]):
            found[n] += r[n, j] * one_unit(row, w[:, j], b[j], rule)
    return found


def one_unit(x, w, b, rule):
    """The share of each input of one unit."""
    z = x * w
    positive, negative = np.maximum(z, 0), np.minimum(z, 0)
    if rule == "epsilon":
        return z / away(z.sum() + b, EPSILON)
    if rule == "zplus":
        return positive / away(positive.sum() + max(b, 0), 1e-6)
    if rule == "alpha_beta":
        up = positive / away(positive.sum() + max(b, 0), 1e-6)
        return 2 * up - negative / away(negative.sum() + min(b, 0), 1e-6)
    if rule == "gamma":
        side, bias = (positive, max(b, 0)) if z.sum() + b > 0 else (negative, min(b, 0))
        raised = z + GAMMA * side
        return raised / away(raised.sum() + b + GAMMA * bias, 1e-6)
    if rule in ("wsquare", "flat"):
        like, bias = (w**2, b**2) if rule == "wsquare" else (np.ones_like(w), 0.0)
        return like / away(like.sum() + bias, 1e-6)
    boxed = z - LOW * np.maximum(w, 0) - HIGH * np.minimum(w, 0)
    return boxed / away(boxed.sum(), 1e-6)


def two_layers(rows, rule, target):
    """`[?, 5] -> dense -> relu -> dense`: the second layer has no bias."""
    x = rows.astype(np.float64)
    y = np.maximum(x @ W1 + BIAS, 0)
    scores = y @ W2
    start = np.eye(3)[target] * scores
    return shared(x, W1, BIAS, shared(y, W2, np.zeros(3), start, rule), rule)


def probe(rule, **more):
    bounds = {"low": LOW, "high": HIGH} if rule == "zbox" else {}
    return pg.LRP(rule, EPSILON, gamma=GAMMA, **bounds, **more)


@pytest.fixture(scope="module")
def every_rule(tmp_path_factory):
    """All rules in one artefact of two layers."""
    path = tmp_path_factory.mktemp("rules") / "m.onnx"
    probes = [probe(rule, target=1, name=rule) for rule in RULES]
    return pg.compile(network("y = Relu(x)"), probes, path)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule(every_rule, rule):
    assert "numpy" in every_rule.report[rule].witness
    for count in (1, 4):
        rows = models.images((5,), seed=count, count=count) * 2
        found = runtime.load(every_rule.path).run(rows)[rule].array
        expected = two_layers(rows, rule, 1)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


# -- layers: convolutions, batch normalisation, order --------------------------------------------


@pytest.mark.parametrize("rule", ["flat", "wsquare"])
def test_a_maximum_of_rectified_zeros_passes_relevance_on(rule, tmp_path):
    """A gradient stops at such a zero; these rules give relevance to it, and so nothing is lost."""
    rng = np.random.default_rng(5)
    kernel, last = rng.normal(size=(4, 2, 3)), rng.normal(size=(12, 3))
    text = """
    g (float[N, 2, 8] x) => (float[N, 3] y) {
      c = Conv(x, w)
      r = Relu(c)
      p = MaxPool<kernel_shape=[2], strides=[2]>(r)
      f = Flatten(p)
      y = MatMul(f, v)
    }
    """
    model = add_weights(parse(text), w=kernel.astype("f"), v=last.astype("f"))
    pg.compile(model, probe(rule, target=1), tmp_path / "m.onnx")
    rows = rng.normal(size=(5, 2, 8)).astype("f")
    rows[0] = 0
    result = runtime.load(tmp_path / "m.onnx").run(rows)
    sums = result["lrp/x"].array.sum((1, 2))
    np.testing.assert_allclose(sums, result["y"].array[:, 1], rtol=1e-4, atol=1e-5)


def convolutional(seed=3, bias=True, normalised=False):
    """`[?, 7, 5, 2] -> conv -> relu -> max -> conv -> relu -> dense`."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((7, 5, 2), name="image")
    y = keras.layers.Conv2D(4, (3, 2), use_bias=bias, name="first")(x)
    if normalised:
        y = keras.layers.BatchNormalization(name="norm")(y)
    y = keras.layers.ReLU(name="relu")(y)
    y = keras.layers.MaxPooling2D((1, 2), name="pool")(y)
    y = keras.layers.Conv2D(3, 2, padding="same", use_bias=bias, name="second")(y)
    y = keras.layers.Flatten(name="flat")(keras.layers.ReLU(name="relu2")(y))
    model = keras.Model(x, keras.layers.Dense(3, use_bias=bias, name="scores")(y))
    rng = np.random.default_rng(seed)
    model.set_weights([w + 0.2 * rng.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    return model


def unrolled(layer, shape):
    """The matrix of a convolution, and its bias."""
    count = int(np.prod(shape))
    at_zero = np.asarray(layer(np.zeros((1, *shape), np.float32)))[0]
    basis = np.asarray(layer(np.eye(count, dtype=np.float32).reshape(count, *shape)))
    return (basis - at_zero).reshape(count, -1).astype(np.float64), at_zero.reshape(-1)


def test_a_convolution_is_a_matrix_of_its_windows(tmp_path):
    """Padding aside, which flat counts: the rules of a convolution are those of its matrix."""
    keras.utils.set_random_seed(1)
    x = keras.Input((5, 4, 2), name="image")
    conv = keras.layers.Conv2D(3, (2, 3), strides=(2, 1), bias_initializer="normal", name="conv")
    y = keras.layers.Flatten()(keras.layers.ReLU()(conv(x)))
    model = keras.Model(x, keras.layers.Dense(2, use_bias=False, name="scores")(y))
    path = tmp_path / "m.onnx"
    pg.compile(model, [probe(rule, target=0, name=rule) for rule in RULES], path)
    matrix, bias = unrolled(conv, (5, 4, 2))
    last = model.get_layer("scores").kernel.numpy().astype(np.float64)
    images = models.images((5, 4, 2), count=2)
    flat = images.reshape(2, -1).astype(np.float64)
    middle = np.maximum(flat @ matrix + bias, 0)
    start = np.eye(2)[0] * (middle @ last)
    result = runtime.load(path).run(images)
    for rule in RULES:
        r = shared(middle, last, np.zeros(2), start, rule)
        if rule == "flat":  # outside of its window a unit has no inputs
            inside = (matrix != 0).astype(float)
            expected = (r / away(inside.sum(0), 1e-6)) @ inside.T
        else:
            expected = shared(flat, matrix, bias, r, rule)
        found = result[rule].array.reshape(2, -1)
        atol = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=atol, err_msg=rule)


def test_batch_normalisation_is_taken_into_the_layer_before_it(tmp_path):
    with_norm, merged = convolutional(normalised=True), convolutional()
    norm, first = with_norm.get_layer("norm"), with_norm.get_layer("first")
    gamma, beta, mean, variance = norm.get_weights()
    gamma[0] = -gamma[0]  # a factor that turns signs
    norm.set_weights([gamma, beta, mean, variance])
    factor = gamma / np.sqrt(variance + norm.epsilon)
    kernel, bias = first.get_weights()
    merged.get_layer("first").set_weights([kernel * factor, (bias - mean) * factor + beta])
    for name in ("second", "scores"):
        merged.get_layer(name).set_weights(with_norm.get_layer(name).get_weights())
    rules = ("epsilon", "zplus", "gamma")
    probes = [probe(rule, target=2, name=rule) for rule in rules]
    images, found = models.images((7, 5, 2), count=2), []
    for i, model in enumerate((with_norm, merged)):
        pg.compile(model, probes, tmp_path / f"{i}.onnx")
        found.append(runtime.load(tmp_path / f"{i}.onnx").run(images))
    for rule in rules:
        one, two = (result[rule].array for result in found)
        np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4 * np.abs(two).max(), err_msg=rule)


def test_a_normalisation_in_an_onnx_file_is_taken_into_the_matrix_before_it(tmp_path):
    """MatMul, bias, factor and shift are one layer."""
    factor, shift = np.linspace(-1, 2, 7), np.linspace(0.5, -0.5, 7)
    apart = network("f = Mul(x, factor) h = Add(f, shift) y = Relu(h)")
    for name, values in (("factor", factor), ("shift", shift)):
        apart.graph.initializer.append(onnx.numpy_helper.from_array(values.astype("f"), name))
    pg.compile(apart, probe("zplus", target=0), tmp_path / "m.onnx")
    rows = models.images((5,), count=3).astype(np.float64)
    w, b = W1 * factor, BIAS * factor + shift
    y = np.maximum(rows @ w + b, 0)
    start = np.eye(3)[0] * (y @ W2)
    expected = shared(rows, w, b, shared(y, W2, np.zeros(3), start, "zplus"), "zplus")
    found = runtime.load(tmp_path / "m.onnx").run(rows.astype("f"))["lrp/row"].array
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


# -- conservation ------------------------------------------------------------------------------


def test_without_biases_relevance_is_conserved(tmp_path):
    """Through convolutions, rectifiers, poolings, a residual sum and a concatenation."""
    keras.utils.set_random_seed(5)
    x = keras.Input((6, 8, 2), name="image")
    y = keras.layers.Conv2D(3, 3, padding="same", use_bias=False, activation="relu")(x)
    y = keras.layers.MaxPooling2D(2)(y)
    z = keras.layers.Conv2D(3, 1, use_bias=False, activation="relu")(y)
    y = keras.layers.Concatenate()([keras.layers.Add()([y, z]), z])
    y = keras.layers.GlobalAveragePooling2D()(y)
    model = keras.Model(x, keras.layers.Dense(3, use_bias=False, name="scores")(y))
    kernel = model.get_layer("scores").kernel
    kernel.assign(np.abs(kernel.numpy()) + 0.1)  # every unit has a positive part
    path = tmp_path / "m.onnx"
    rules = ("epsilon", "zplus", "gamma", "alpha_beta", "flat")
    pg.compile(model, [pg.LRP(rule, 1e-7, target=1, name=rule) for rule in rules], path)
    images = np.abs(models.images((6, 8, 2), count=3)) + 0.1
    result = runtime.load(path).run(images)
    score = np.asarray(model(images))[:, 1]
    for rule in rules:
        total = result[rule].array.reshape(3, -1).astype(float).sum(1)
        if rule == "alpha_beta":  # a unit without negative parts passes on alpha of its relevance
            assert (total >= 0.99 * score).all()
        else:
            np.testing.assert_allclose(total, score, rtol=1e-3, err_msg=rule)


def test_reductions_extrema_and_quotients_conserve_relevance(tmp_path):
    model, path = ruled.network(*ruled.PARTS), tmp_path / "m.onnx"
    exported = pg.compile(model, pg.LRP(epsilon=1e-7, target=2), path)
    assert "numpy" in exported.report["lrp/row"].witness
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (1, 6):
        rows = models.images((5,), seed=count, count=count) * 2
        found = runtime.load(path).run(rows)["lrp/row"].array
        own = session.run(None, {"row": rows})[0][:, 2]
        np.testing.assert_allclose(found.sum(1), own, rtol=1e-3, atol=1e-3 * np.abs(own).max())


def test_without_biases_relevance_is_conserved_through_time(tmp_path):
    (model, feed), path = ruled.cells(bias=0.0), tmp_path / "m.onnx"
    pg.compile(model, pg.LRP(epsilon=1e-8, target=1), path, samples=feed)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (1, 5):
        fed = {name: value[:count] for name, value in feed.items()}
        found = runtime.load(path).run(fed)["lrp/series"].array
        own = session.run(None, fed)[0][:, 1]
        np.testing.assert_allclose(found.sum((1, 2)), own, rtol=2e-3, atol=1e-3 * np.abs(own).max())
        assert not found[np.arange(6)[None] >= fed["lengths"][:, None]].any()


def linear(x, w, z, r):
    """Relevance of x where `z = x @ w + ...` has the relevance r (Arras et al. 2017, eq. 3)."""
    return x * ((r / away(z, EPSILON)) @ w.T)


def test_an_lstm_as_arras_et_al_have_it(tmp_path):
    """A gate has no relevance, the signal that it lets through has all: step by step, by numpy."""
    keras.utils.set_random_seed(4)
    shape = keras.Input((5, 3), name="series")
    lstm, head = keras.layers.LSTM(4, bias_initializer="glorot_uniform"), keras.layers.Dense(2)
    model, path = keras.Model(shape, head(lstm(shape))), tmp_path / "m.onnx"
    pg.compile(model, pg.LRP(epsilon=EPSILON, target=1), path)
    w, u, bias = (np.asarray(v, np.float64) for v in lstm.get_weights())
    series = models.images((5, 3), count=3)
    h, c, kept = np.zeros((3, 4)), np.zeros((3, 4)), []
    for t in range(5):
        z = series[:, t] @ w + h @ u + bias
        i, f, g, o = np.split(z, 4, axis=1)
        i, f, o = (1 / (1 + np.exp(-v)) for v in (i, f, o))
        new = f * c + i * np.tanh(g)
        kept.append((h, f * c, i * np.tanh(g), new, g))
        h, c = o * np.tanh(new), new
    kernel, shift = (np.asarray(v, np.float64) for v in head.get_weights())
    scores = h @ kernel + shift
    of_h, of_c = linear(h, kernel[:, 1:], scores[:, 1:], scores[:, 1:]), 0.0
    expected = np.zeros(series.shape)
    for t in range(4, -1, -1):
        before, old, fresh, new, g = kept[t]
        total = of_h + of_c
        of_g = total * fresh / away(new, EPSILON)
        of_c = total * old / away(new, EPSILON)
        expected[:, t] = linear(series[:, t].astype(np.float64), w[:, 8:12], g, of_g)
        of_h = linear(before, u[:, 8:12], g, of_g)
    found = runtime.load(path).run(series)["lrp/series"].array
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_log_softmax_by_its_expansion(tmp_path):
    """The relevance of x is x times the product of the Jacobian with that over y."""
    model, path = network("y = LogSoftmax(x)"), tmp_path / "m.onnx"
    pg.compile(model, pg.LRP(epsilon=EPSILON, target=2), path)
    rows = models.images((5,), count=4).astype(np.float64)
    x = rows @ W1 + BIAS
    y = x - np.log(np.exp(x).sum(1, keepdims=True))
    of_y = y * ((np.eye(3)[2] * (y @ W2) / away(y @ W2, EPSILON)) @ W2.T)
    ratio = of_y / away(y, EPSILON)
    of_x = x * (ratio - np.exp(y) * ratio.sum(1, keepdims=True))
    expected = rows * ((of_x / away(x, EPSILON)) @ W1.T)
    found = runtime.load(path).run(rows.astype("f"))["lrp/row"].array
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


# -- composites and transformers -----------------------------------------------------------------

COMPOSITES = {
    "epsilon_plus": ("zplus", "zplus", "epsilon"),
    "epsilon_plus_flat": ("flat", "zplus", "epsilon"),
    "epsilon_alpha2_beta1": ("alpha_beta", "alpha_beta", "epsilon"),
    "epsilon_alpha2_beta1_flat": ("flat", "alpha_beta", "epsilon"),
    "epsilon_gamma_box": ("zbox", "gamma", "epsilon"),
    "excitation_backprop": ("zplus", "zplus", "zplus"),
    "attn_lrp": ("epsilon", "epsilon", "epsilon"),
}


@pytest.mark.parametrize("composite", COMPOSITES)
def test_composites_choose_a_rule_for_each_layer(composite):
    table = pg.LRP(composite=composite).table()
    first, convolution, dense = COMPOSITES[composite]
    assert (table.first or table.convolution).kind == first
    assert (table.convolution.kind, table.dense.kind) == (convolution, dense)
    assert table.first_convolution_only == (first == "zbox")


def test_composites_are_verified_and_share_no_pass(tmp_path):
    probes = [pg.LRP(composite=c, name=c, low=-3.0, high=3.0) for c in COMPOSITES]
    report = pg.compile(convolutional(), probes, tmp_path / "m.onnx").report
    assert report.passed
    found = runtime.load(tmp_path / "m.onnx").run(models.images((7, 5, 2), count=2))
    arrays = [found[c].array for c in COMPOSITES if c != "attn_lrp"]
    for i, one in enumerate(arrays):
        for other in arrays[:i]:
            assert np.abs(one - other).max() > 1e-4 * np.abs(one).max()


def test_attention_by_hand(tmp_path):
    """Softmax, products of two tensors and layer normalisation: AttnLRP's equations."""
    text = """<ir_version: 9, opset_import: ["" : 17]>
      net (float[n, 4, 3] x) => (float[n, 4, 3] y) {
        s = LayerNormalization(x, scale, shift)
        q = MatMul(s, wq)  t = Transpose<perm = [0, 2, 1]>(s)
        a = MatMul(q, t)  p = Softmax(a)  y = MatMul(p, s) }"""
    model = onnx.parser.parse_model(text)
    wq = np.random.default_rng(2).normal(size=(3, 3)).astype(np.float32)
    scale, shift = np.array([0.7, -1.3, 1.1], "f"), np.array([0.2, 0.4, -0.3], "f")
    for name, v in (("scale", scale), ("shift", shift), ("wq", wq)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(v, name))
    path = tmp_path / "m.onnx"
    pg.compile(model, pg.LRP(composite="attn_lrp", target=(2, 1)), path)
    x = models.images((4, 3), count=2)
    found = runtime.load(path).run(x)["lrp/x"].array
    d = x.astype(np.float64) - x.mean(-1, keepdims=True)
    deviation = np.sqrt((d**2).mean(-1, keepdims=True) + 1e-5)
    s = d / deviation * scale + shift
    q = s @ wq
    a = q @ s.transpose(0, 2, 1)
    p = np.exp(a) / np.exp(a).sum(-1, keepdims=True)
    y = p @ s
    r = np.zeros_like(y)
    r[:, 2, 1] = y[:, 2, 1]
    ratio = r / away(y, 1e-6) / 2
    of_p, of_s = p * (ratio @ s.transpose(0, 2, 1)), s * (p.transpose(0, 2, 1) @ ratio)
    of_a = a * (of_p - p * of_p.sum(-1, keepdims=True))
    ratio = of_a / away(a, 1e-6) / 2
    of_q, of_t = q * (ratio @ s), s * (ratio.transpose(0, 2, 1) @ q)
    of_s = of_s + of_t + s * ((of_q / away(q, 1e-6)) @ wq.T)
    ratio = of_s / away(s, 1e-6) * scale / deviation
    expected = x * (ratio - ratio.mean(-1, keepdims=True))
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4 * np.abs(expected).max())


def test_what_is_written_in_simpler_operators_is_linear_for_lrp_and_deep_lift(tmp_path):
    """Pixels sampled at fixed places, added to a product of what is not explained.

    All is linear, so that what x has is the gradient times x by each method.
    """
    text = """<ir_version: 9, opset_import: ["" : 18]>
      net (float[n, 2, 3, 4] x, float[n, 2] more) => (float[n, 3] y) {
        row = Shape<end = 1>(x)  sizes = Concat<axis = 0>(row, rest)
        places = Expand(grid, sizes)  s = GridSample<mode = "bilinear">(x, places)
        f = Flatten(s)  c = MatMul(f, w)  y = Gemm(more, v, c) }"""
    rng = np.random.default_rng(5)
    model = onnx.parser.parse_model(text)
    arrays = {"w": rng.normal(size=(12, 3)), "v": rng.normal(size=(2, 3))}
    arrays |= {"grid": rng.uniform(-1.2, 1.1, (1, 3, 2, 2)), "rest": np.array([3, 2, 2])}
    for name, array in arrays.items():
        kind = np.int64 if name == "rest" else np.float32
        model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(kind), name))
    asked = {"wrt": "x", "target": 1}
    probes = [kind(**asked) for kind in (pg.GradientXInput, pg.LRP, pg.DeepLIFT)]
    path = tmp_path / "m.onnx"
    pg.compile(model, probes, path)
    x, more = (rng.normal(size=(3, *shape)).astype("f") for shape in ((2, 3, 4), (2,)))
    found = runtime.load(path).run({"x": x, "more": more})
    expected = found["gradient_x_input/x"].array
    for name in ("lrp/x", "deep_lift/x"):
        np.testing.assert_allclose(found[name].array, expected, rtol=1e-4, atol=1e-5)


def test_a_mask_of_minus_infinity_takes_places_out(tmp_path):
    """As torch writes attention with a mask of booleans: the same as one of a large number.

    Of a row without any place the softmax is NaN, which the model makes 0: nothing has a part.
    DeepLIFT is held against the same.
    """
    text = """<ir_version: 9, opset_import: ["" : 17]>
      net (float[n, 5, 4] x, int64[n, 5] mask) => (float[n, 5, 3] y)
      <float none = {0}, int64[1] one = {1}> {
        q = MatMul(x, wq)  t = Transpose<perm = [0, 2, 1]>(x)  a = MatMul(q, t)
        seen = Cast<to = 9>(mask)  row = Unsqueeze(seen, one)  shut = Where(row, none, least)
        m = Add(a, shut)  p = Softmax(m)  odd = IsNaN(p)  w = Where(odd, none, p)
        v = MatMul(x, wv)  y = MatMul(w, v) }"""
    rng = np.random.default_rng(3)
    weights = {"wq": rng.normal(size=(4, 4)) / 2, "wv": rng.normal(size=(4, 3))}
    x = rng.normal(size=(3, 5, 4)).astype(np.float32)
    mask = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]])
    asked = {"wrt": "x", "target": (2, 1)}
    found = []
    for least in (-np.inf, -1e9):
        model = onnx.parser.parse_model(text)
        for name, array in {**weights, "least": least}.items():
            stored = onnx.numpy_helper.from_array(np.asarray(array, np.float32), name)
            model.graph.initializer.append(stored)
        path = tmp_path / f"{least}.onnx"
        pg.compile(model, [pg.LRP(composite="attn_lrp", **asked), pg.DeepLIFT(**asked)], path)
        found.append(runtime.load(path).run({"x": x, "mask": mask}))
    for name in ("lrp/x", "deep_lift/x"):
        infinite, large = (np.asarray(f[name].array) for f in found)
        size = np.abs(large).max()
        np.testing.assert_allclose(infinite[:2], large[:2], rtol=1e-4, atol=1e-5 * size)
        assert not infinite[2].any()


def test_a_local_norm_passes_relevance_on_and_choices_send_it_back(tmp_path):
    """LRN as it is; Trilu and TopK to where an element comes from."""
    text = """<ir_version: 9, opset_import: ["" : 18]>
      net (float[n, 5] row) => (float[n, 3] scores) {
        m = MatMul(row, w1)
        x = Reshape(m, image)  a = LRN<size = 3, alpha = 0.5>(x)  k = Flatten(a)
        z = Reshape(m, square)  b = Trilu<upper = 0>(z)  l = Flatten(b)
        c, at = TopK(m, five)
        y = Concat<axis = 1>(k, l, c)  scores = MatMul(y, w2) }"""
    model, path = onnx.parser.parse_model(text), tmp_path / "m.onnx"
    rng = np.random.default_rng(4)
    w1, w2 = rng.normal(size=(5, 16)), rng.normal(size=(37, 3))
    given = {
        "w1": w1.astype(np.float32),
        "w2": w2.astype(np.float32),
        "image": np.array([0, 4, 2, 2]),
        "square": np.array([0, 4, 4]),
        "five": np.array([5]),
    }
    for name, array in given.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    pg.compile(model, pg.LRP(epsilon=1e-3, target=1), path)
    for count in (1, 3):
        rows = models.images((5,), count=count)
        m = rows.astype(np.float64) @ w1
        squares = np.pad((m.reshape(-1, 4, 2, 2) ** 2), ((0, 0), (1, 1), (0, 0), (0, 0)))
        around = squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]
        lrn = m / (1 + 0.5 / 3 * around.reshape(count, 16)) ** 0.75
        kept = np.tril(np.ones((4, 4))).reshape(16)
        places = np.argsort(-m, 1)[:, :5]
        top = np.take_along_axis(m, places, 1)
        y = np.concatenate([lrn, m * kept, top], 1)
        scores = y @ w2[:, 1]
        r = y * w2[:, 1] * (scores / away(scores, 1e-3))[:, None]
        of_m = r[:, :16] + r[:, 16:32]
        for row, at, relevance_of_top in zip(of_m, places, r[:, 32:], strict=True):
            row[at] += relevance_of_top
        expected = rows * ((of_m / away(m, 1e-3)) @ w1.T)
        found = runtime.load(path).run(rows)["lrp/row"].array
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-4 * np.abs(expected).max())


#: `x / sqrt(mean(x^2) + epsilon) * scale` as exporters spell it.
RMS = {
    "fused": (23, "s = RMSNormalization <epsilon = 0.01> (x, scale)"),
    "rsqrt": (
        18,
        "q = Mul (x, x) m = ReduceMean (q, last) e = Add (m, tiny) d = Sqrt (e)\n"
        "i = Reciprocal (d) n = Mul (x, i) s = Mul (n, scale)",
    ),
    "pooled": (  # tf2onnx up to opset 17
        13,
        "q = Mul (x, x) m = GlobalAveragePool (q) e = Add (m, tiny) d = Sqrt (e)\n"
        "i = Reciprocal (d) n = Mul (x, i) s = Mul (n, scale)",
    ),
    "scale first": (
        18,
        "q = Pow (x, two) m = ReduceMean (q, last) e = Add (m, tiny) i = Pow (e, half)\n"
        "f = Mul (i, scale) s = Mul (f, x)",
    ),
    "division": (
        18,
        "q = Pow (x, two) m = ReduceMean (q, last) e = Add (m, tiny) d = Sqrt (e)\n"
        "n = Div (x, d) s = Mul (scale, n)",
    ),
}


@pytest.mark.parametrize("spelling", RMS)
def test_rms_normalisation_and_gates_by_hand(tmp_path, spelling):
    """One over the size passes relevance on, a gate halves it: AttnLRP's secs. 3.3.3 and 3.3.2."""
    opset, lines = RMS[spelling]
    text = f"""<ir_version: 10, opset_import: ["" : {opset}]>
      net (float[n, 4, 5] x) => (float[n, 4, 3] y) {{
        {lines}
        up = MatMul (s, wu) gate = MatMul (s, wg) c = Sigmoid (gate) g = Mul (gate, c)
        h = Mul (g, up) y = MatMul (h, wd) }}"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(3)
    wu, wg, wd = (rng.normal(size=s).astype(np.float32) for s in ((5, 6), (5, 6), (6, 3)))
    scale = np.array([0.7, -1.3, 1.1, 0.4, 2.0], "f")
    given = {"wu": wu, "wg": wg, "wd": wd, "scale": scale, "last": np.array([2])}
    given |= {"tiny": np.float32(0.01), "two": np.float32(2), "half": np.float32(-0.5)}
    for name, v in given.items():
        if name in lines or name.startswith("w"):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(v), name))
    path = tmp_path / "m.onnx"
    probe = pg.LRP(epsilon=1e-6, target=(2, 1))
    pg.compile(model, probe, path)
    x = models.images((4, 5), count=2)
    found = runtime.load(path).run(x)["lrp/x"].array
    s = x / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + 0.01) * scale
    up, gate = s @ wu, s @ wg
    h = gate / (1 + np.exp(-gate)) * up
    y = h @ wd
    r = np.zeros_like(y)
    r[:, 2, 1] = y[:, 2, 1]
    half = h * ((r / away(y, 1e-6)) @ wd.T) / 2
    expected = s * ((half / away(up, 1e-6)) @ wu.T) + s * ((half / away(gate, 1e-6)) @ wg.T)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4 * np.abs(expected).max())


def test_transformers_are_verified(tmp_path):
    assert pg.compile(
        models.transformer(), pg.LRP(composite="attn_lrp"), tmp_path / "m.onnx"
    ).report.passed


def small_transformer():
    """One block, normalised before and behind."""
    keras.utils.set_random_seed(7)
    x = shape = keras.Input((5, 6), name="x")
    y = keras.layers.LayerNormalization()(x)
    x = x + keras.layers.MultiHeadAttention(2, 3)(y, y)
    y = keras.layers.LayerNormalization()(x)
    y = keras.ops.gelu(keras.layers.Dense(7)(y), approximate=True)
    x = keras.layers.LayerNormalization()(x + keras.layers.Dense(6)(y))
    scores = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling1D()(x))
    model = keras.Model(shape, scores)
    rng = np.random.default_rng(8)
    for weight in model.weights:
        if weight.path.endswith(("bias", "beta")):
            weight.assign(rng.normal(scale=0.3, size=weight.shape))
    return model


def test_a_transformer_and_its_onnx_export_say_the_same(tmp_path):
    """Passed whole through the normalisations, relevance would come to 7.5 times the scores."""
    model, rows = small_transformer(), models.images((5, 6), count=9)
    scores = np.asarray(model(rows))[:, 2]
    model.export(tmp_path / "source.onnx", format="onnx", verbose=False)
    probes = [pg.LRP(target=2, composite=c, name=str(c)) for c in ("attn_lrp", None)]
    found = []
    for source in (model, tmp_path / "source.onnx"):
        path = tmp_path / "m.onnx"
        assert pg.compile(source, probes, path).report.passed
        found.append(runtime.load(path).run(rows))
    for probe in probes:
        one, two = (result[probe.name].array for result in found)
        assert np.linalg.norm(one - two) < 1e-4 * np.linalg.norm(one), probe.name
        assert np.abs(one).sum() < 4 * np.abs(scores).sum(), probe.name


def test_a_normalisation_without_shift_conserves_relevance(tmp_path):
    """Softmax alone would lose some; here are sums, layers and normalisations."""
    keras.utils.set_random_seed(9)
    x = shape = keras.Input((5, 6), name="x")
    x = x + keras.layers.Dense(6, use_bias=False)(keras.layers.LayerNormalization()(x))
    y = keras.layers.Dense(7, activation="relu", use_bias=False)(
        keras.layers.LayerNormalization(axis=(1, 2))(x)
    )
    scores = keras.layers.Dense(3, use_bias=False)(keras.layers.Flatten()(y))
    model, rows = keras.Model(shape, scores), models.images((5, 6), count=7)
    pg.compile(model, pg.LRP(composite="attn_lrp", target=1), tmp_path / "m.onnx")
    found = runtime.load(tmp_path / "m.onnx").run(rows)["lrp/x"].array
    own = np.asarray(model(rows))[:, 1]
    np.testing.assert_allclose(found.reshape(7, -1).sum(1), own, atol=1e-3 * np.abs(own).max())


def test_normalisations_in_pieces_by_hand(tmp_path):
    """Below opset 17 no operator stands for a layer normalisation, and none for one of groups."""
    keras.utils.set_random_seed(3)
    x = shape = keras.Input((4, 6), name="x")
    layers = [keras.layers.LayerNormalization(), keras.layers.GroupNormalization(3)]
    for layer in layers:
        x = layer(x)
    last = keras.layers.Dense(2)
    model = keras.Model(shape, last(keras.layers.Flatten()(x)))
    rng = np.random.default_rng(5)
    for weight in model.weights:
        weight.assign(rng.normal(loc=0.4, size=weight.shape))
    pg.compile(model, pg.LRP(target=1, epsilon=EPSILON), tmp_path / "m.onnx", opset=13)
    values = [models.images((4, 6), count=3).astype(np.float64)]
    slopes = []
    # one tensor's axes: sample, position, group, entry
    for layer, groups, axes in zip(layers, (1, 3), ((3,), (1, 3)), strict=True):
        x = values[-1].reshape(3, 4, groups, -1)
        scale, shift = (np.reshape(w, (groups, -1)) for w in layer.get_weights())
        slope = scale / np.sqrt(x.var(axis=axes, keepdims=True) + 1e-3)
        slopes.append((np.broadcast_to(slope, x.shape), axes))
        values.append(((x - x.mean(axis=axes, keepdims=True)) * slope + shift).reshape(3, 4, 6))
    kernel, bias = last.get_weights()
    score = values[-1].reshape(3, 24) @ kernel[:, 1] + bias[1]
    weight = np.outer(score / away(score, EPSILON), kernel[:, 1]).reshape(3, 4, 6)
    relevance = values[-1] * weight
    for (slope, axes), x, y in zip(slopes[::-1], values[-2::-1], values[:0:-1], strict=True):
        own = (relevance / away(y, EPSILON)).reshape(slope.shape) * slope
        relevance = x * (own - own.mean(axis=axes, keepdims=True)).reshape(x.shape)
    found = runtime.load(tmp_path / "m.onnx").run(values[0].astype("f"))["lrp/x"].array
    np.testing.assert_allclose(found, relevance, rtol=2e-3, atol=2e-4 * np.abs(relevance).max())


@pytest.mark.parametrize("operator", ["Max", "Min"])
def test_the_largest_of_two_tensors_has_the_relevance(tmp_path, operator):
    text = f"""<ir_version: 9, opset_import: ["" : 17]>
      net (float[n, 4] x) => (float[n, 3] y) {{
        a = MatMul(x, wa)  b = MatMul(x, wb)  m = {operator}(a, b)  y = MatMul(m, w) }}"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(4)
    wa, wb, w = (rng.normal(size=s).astype(np.float32) for s in ((4, 5), (4, 5), (5, 3)))
    for name, v in (("wa", wa), ("wb", wb), ("w", w)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(v, name))
    path = tmp_path / "m.onnx"
    pg.compile(model, pg.LRP(target=1), path)
    for count in (1, 6):
        x = models.images((4,), count=count)
        a, b = x @ wa, x @ wb
        first = a > b if operator == "Max" else a < b
        assert first.any()
        assert not first.all()
        r = np.where(first, a, b) * w[:, 1]
        of_a, of_b = (np.where(c, r, 0) / v for c, v in ((first, a), (~first, b)))
        expected = x * (of_a @ wa.T + of_b @ wb.T)
        found = runtime.load(path).run(x)["lrp/x"].array
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_a_function_in_pieces_passes_relevance_on_whole(tmp_path):
    """Keras' `sparse_plus`: the 1 that a piece adds before it squares is no summand of its own."""
    text = """<ir_version: 9, opset_import: ["" : 17]>
      net (float[n, 4] x) => (float[n, 3] y)
      <float one = {1}, float two = {2}, float quarter = {0.25}> {
        a = MatMul(x, wa)  c = Less(a, one)  d = Add(a, one)  e = Pow(d, two)  f = Mul(quarter, e)
        m = Where(c, f, a)  y = MatMul(m, w) }"""
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(4)
    wa, w = (rng.normal(size=s).astype(np.float32) for s in ((4, 5), (5, 3)))
    for name, v in (("wa", wa), ("w", w)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(v, name))
    path = tmp_path / "m.onnx"
    exported = pg.compile(model, pg.LRP(epsilon=1e-7, target=1), path)
    assert "numpy" in exported.report["lrp/x"].witness
    for count in (1, 6):
        x = models.images((4,), count=count)
        a = x @ wa
        assert (a < 1).any()
        relevance = np.where(a < 1, (a + 1) ** 2 / 4, a) * w[:, 1]
        expected = x * ((relevance / a) @ wa.T)
        found = runtime.load(path).run(x)["lrp/x"].array
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_weights_that_another_input_gives_pass_all_relevance(tmp_path):
    x, weights = keras.Input((5,), name="x"), keras.Input((5, 3), name="weights")
    scores = keras.layers.Lambda(lambda v: v + 0.0, name="scores")(
        keras.ops.matmul(keras.ops.expand_dims(x, 1), weights)[:, 0]
    )
    path = tmp_path / "m.onnx"
    pg.compile(keras.Model([x, weights], scores), pg.LRP(target=1, wrt="x"), path)
    for count in (1, 4):
        rng = np.random.default_rng(count)
        fed = {
            "x": rng.normal(size=(count, 5)).astype(np.float32),
            "weights": rng.normal(size=(count, 5, 3)).astype(np.float32),
        }
        found = runtime.load(path).run(fed)["lrp/x"].array
        np.testing.assert_allclose(found, fed["x"] * fed["weights"][:, :, 1], rtol=1e-3, atol=1e-5)


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rule": "zminus"}, "rule= takes one of"),
        ({"composite": "epsilon_minus"}, "composite= takes one of"),
        ({"rule": "gamma", "composite": "epsilon_plus"}, "leave rule= out"),
        ({"epsilon": 0}, "above 0"),
        ({"rule": "zbox", "low": 1.0, "high": 2.0}, "0 between them"),
        ({"gamma": "much"}, "gamma= takes a finite number"),
    ],
)
def test_fields(fields, message):
    with pytest.raises(SpecError, match=message):
        pg.LRP(**fields)


def test_tensorflow_formats_refuse_it(tmp_path):
    with pytest.raises(InstrumentError, match=r"relevance.*\.onnx"):
        pg.compile(models.cnn(), pg.LRP(), tmp_path / "saved")


def test_the_verification_finds_a_wrong_share(tmp_path, monkeypatch):
    model, path = models.cnn(), tmp_path / "m.onnx"
    with monkeypatch.context() as changed:
        changed.setattr(layer_relevance, "stabilised", lambda b, z, _: b.add(z, 0.3))
        pg.compile(model, pg.LRP(), path, verify=False)
    with pytest.raises(VerificationError, match="lrp/image"):
        pg.verify(path, model)


# -- normalisations of pictures, whose channels come before them in the graph ----------------------


def standardised(axes):
    def function(x):
        deviation = keras.ops.std(x, axes, keepdims=True)
        return (x - keras.ops.mean(x, axes, keepdims=True)) / (deviation + 1e-3)

    return function


NORMS = {
    "last": keras.layers.LayerNormalization,
    "all axes": lambda: keras.layers.LayerNormalization(axis=(1, 2, 3)),
    "positions": lambda: keras.layers.LayerNormalization(axis=(1, 2)),
    "height": lambda: keras.layers.LayerNormalization(axis=1),
    "width and channels": lambda: keras.layers.LayerNormalization(axis=(2, 3)),
    "groups": lambda: keras.layers.GroupNormalization(2),
    "by hand, positions": lambda: keras.layers.Lambda(standardised((1, 2))),
    "by hand, all axes": lambda: keras.layers.Lambda(standardised((1, 2, 3))),
}


@pytest.mark.parametrize("name", NORMS)
def test_normalisations_behind_a_convolution(tmp_path, name):
    """The deviation passes relevance on: where it is held, all is linear, and x times its slope.

    The statistics are those of the convolution's own output, channels first, while what they
    normalise is transposed. A probe of that layer beside it changes nothing.
    """
    keras.utils.set_random_seed(4)
    x = keras.Input((5, 4, 2), name="x")
    conv = keras.layers.Conv2D(4, 2, use_bias=False, name="conv")
    norm, head = NORMS[name](), keras.layers.Dense(3, use_bias=False)
    model = keras.Model(x, head(keras.layers.Flatten()(norm(conv(x)))))
    images = np.random.default_rng(4).normal(size=(2, 5, 4, 2)).astype(np.float32)
    inner = conv(images).numpy().astype(np.float64)
    outer = norm(conv(images)).numpy().astype(np.float64)
    # y = (c - mean(c)) k: k is known from both, whatever the axes
    means, axes = means_of(name, inner)
    k = outer / (inner - means)
    scores = head(outer.reshape(2, -1).astype(np.float32)).numpy()
    chosen = head.kernel.numpy().astype(np.float64)[:, scores.argmax(1)].T.reshape(outer.shape)
    slope = chosen * k
    slope = slope - means_of(name, slope)[0] if axes else slope
    with tf.GradientTape() as tape:
        given = tf.constant(images)
        tape.watch(given)
        total = tf.reduce_sum(conv(given) * slope.astype(np.float32))
    expected = images * tape.gradient(total, given).numpy()
    for beside in ([], [pg.GradCAM("conv")]):
        pg.compile(model, [pg.LRP(), *beside], tmp_path / "m.onnx", verify=not beside)
        found = runtime.load(tmp_path / "m.onnx").run(images)["lrp/x"].array
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * scale)


def means_of(name, values):
    """Means over the axes of a normalisation, of `[2, 4, 3, 4]`, and the axes."""
    axes = {
        "last": (3,), "all axes": (1, 2, 3), "positions": (1, 2), "height": (1,),
        "width and channels": (2, 3), "groups": (1, 2, 4),
        "by hand, positions": (1, 2), "by hand, all axes": (1, 2, 3),
    }[name]  # fmt: skip
    parts = values.reshape(2, 4, 3, 2, 2) if name == "groups" else values
    means = np.broadcast_to(parts.mean(axes, keepdims=True), parts.shape)
    return means.reshape(values.shape), axes
