"""Relevance through attention: against numpy and a gradient tape, from Keras and from ONNX."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from matplotlib.image import AxesImage
from matplotlib.text import Text

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, NotDifferentiableError, VerificationError
from probegen.methods.chains import Attending
from probegen.methods.numpy_operations import NumpyOperations
from tests import transformers
from tests.transformers import (
    block,
    by_hand,
    cam,
    causal,
    data,
    encoder_by_hand,
    relevance,
    weights,
)

TIME = 5
CLASSES = [2, -1, 0, 3]


def close(found, twin, name=""):
    """Float32 against float64: what was added to the identity agrees to some digits."""
    np.testing.assert_allclose(found, twin, rtol=2e-4, atol=1e-5 * np.abs(twin).max(), err_msg=name)


CASES = transformers.encoders(3, TIME)


@pytest.mark.parametrize("case", CASES)
def test_each_layer_adds_its_weights_times_their_gradients(tmp_path, case):
    make, mask = CASES[case]
    w = weights(3)
    path = tmp_path / "m.onnx"
    probes = [
        pg.AttentionRelevance(target="input", name="whole"),
        pg.AttentionRelevance(target="input", query=1, name="row"),
        pg.AttentionRelevance(target="input", query="mean", name="average"),
    ]
    done = pg.compile(make(w), probes, path)
    assert done.report.passed
    if "ONNX" in case:
        assert "differences of the source model" in done.report["whole"].witness
    art = runtime.load(path)
    for rows, time in ((1, TIME), (4, 7 if "open" in case else TIME)):
        x = data(time, rows, seed=rows, zeros=1)
        forward = encoder_by_hand(w, 3, x, None if mask is None else mask(time))
        twin = relevance(*by_hand(forward, CLASSES[:rows]))
        assert np.abs(twin - np.eye(time)).max() > 0.01
        found = art.run(x, target=CLASSES[:rows])
        close(found["whole"].array, twin)
        close(found["row"].array, twin[:, 1])
        close(found["average"].array, twin.mean(1))
    assert art.manifest.output("whole").axes == ("batch", "query", "key")
    assert art.manifest.output("row").axes == ("batch", "key")


def test_tensorflow_computes_it_too(tmp_path):
    w = weights(2)
    model = transformers.keras_encoder(w, 2, None)
    pg.compile(model, pg.AttentionRelevance(target=3), tmp_path / "saved")
    x = data(7, 2)
    twin = relevance(*by_hand(encoder_by_hand(w, 2, x), [3, 3]))
    found = runtime.load(tmp_path / "saved").run(x)["attention_relevance/attention_1"].array
    close(found, twin)


# -- encoder and decoder -----------------------------------------------------------------------

SOURCE, DECODER = 7, 5
W = weights(4, seed=2, cross=(10, 11))


def keras_translator(source=SOURCE, time=DECODER):
    """Two encoder blocks, two decoder blocks of self-attention and cross-attention each."""
    x = keras.Input((source, 6), name="source")
    y = keras.Input((time, 6), name="so_far")
    e, d = x, y
    for i in (0, 1):
        e = transformers.keras_block(W, i, e, e)
    for i in (2, 3):
        d = transformers.keras_block(W, i, d, d, use_causal_mask=True)
        d = transformers.keras_block(W, 8 + i, d, e)
    return keras.Model([x, y], transformers.keras_head(W, d))


def onnx_translator(source=SOURCE, time=DECODER):
    body, e, d = "", "source", "so_far"
    for i in (0, 1):
        body += transformers.onnx_block(i, e, e)
        e = f"x{i}"
    for i in (2, 3):
        body += transformers.onnx_block(i, d, d, mask="causal")
        body += transformers.onnx_block(8 + i, f"x{i}", e)
        d = f"x{8 + i}"
    mask = np.where(causal(time), 0, -1e9).astype(np.float32)
    inputs = f"float[N,{source},6] source, float[N,{time},6] so_far"
    return transformers.onnx_model(inputs, body, d, W, causal=mask)


def translated(x, y):
    """The scores by hand; notes weights in the order encoder, then self and cross in turns."""

    def forward(seen):
        e, d = tf.constant(x), tf.constant(y)
        for i in (0, 1):
            e = block(W, i, e, e, None, seen)
        for i in (2, 3):
            d = block(W, i, d, d, causal(y.shape[1]), seen)
            d = block(W, 8 + i, d, e, None, seen)
        return tf.reduce_mean(d, 1) @ W["head"]

    return forward


def normalised(matrix):
    """Eqs. 8 and 9."""
    added = matrix - np.eye(matrix.shape[-1])
    total = added.sum(-1, keepdims=True)
    return added / np.where(total > 0, total, 1) + np.eye(matrix.shape[-1])


def translated_relevance(matrices, gradients):
    """Eqs. 3 to 11: of decoder positions to decoder positions, and to encoder positions."""
    cams = [cam(a, g) for a, g in zip(matrices, gradients, strict=True)]
    rows = len(cams[0])
    encoder = np.broadcast_to(np.eye(SOURCE), (rows, SOURCE, SOURCE))
    own = np.broadcast_to(np.eye(DECODER), (rows, DECODER, DECODER))
    other = np.zeros((rows, DECODER, SOURCE))
    for c in cams[:2]:
        encoder = encoder + c @ encoder
    for inner, cross in ((cams[2], cams[3]), (cams[4], cams[5])):
        own, other = own + inner @ own, other + inner @ other
        other = other + np.swapaxes(normalised(own), 1, 2) @ cross @ normalised(encoder)
    return own, other


@pytest.mark.parametrize("make", [keras_translator, onnx_translator])
def test_an_encoder_and_a_decoder(tmp_path, make):
    path = tmp_path / "m.onnx"
    done = pg.compile(make(), pg.AttentionRelevance(target="input"), path)
    assert done.report.passed
    art = runtime.load(path)
    outputs = art.manifest.explanations
    assert {o.shape[1:] for o in outputs} == {(5, 7), (5, 5)}
    names = {o.shape[1:]: o.name for o in outputs}
    for rows in (1, 4):
        x, y = data(SOURCE, rows, seed=rows), data(DECODER, rows, seed=9, zeros=1)
        own, other = translated_relevance(*by_hand(translated(x, y), CLASSES[:rows]))
        found = art.run({"source": x, "so_far": y}, target=CLASSES[:rows])
        close(found[names[5, 5]].array, own)
        close(found[names[5, 7]].array, other)
    if make is keras_translator:
        assert names == {
            (5, 5): "attention_relevance/attention_3",
            (5, 7): "attention_relevance/attention_11",
        }


def test_streams_of_one_length_are_told_apart():
    plan = pg.instrument(keras_translator(5, 5), pg.AttentionRelevance()).plan
    layers_seen = plan.chains[0].layers
    assert [a.is_self for a in layers_seen] == [True, True, True, False, True, False]
    assert len(plan.chains) == 2


def test_attention_both_ways_reads_the_states_before():
    """Two streams that read each other, as in LXMERT: by the rules of eqs. 10 and 11."""
    axes = ("batch", "query", "key")
    chain = [
        Attending("words", axes, 0, 0),
        Attending("boxes", axes, 1, 1),
        Attending("words to boxes", axes, 0, 1, 0, 1),
        Attending("boxes to words", axes, 1, 0, 1, 0),
        Attending("words again", axes, 0, 1, 2, 3),
    ]
    rng = np.random.default_rng(0)
    sizes = [(3, 3), (4, 4), (3, 4), (4, 3), (3, 4)]
    matrices = [rng.random((2, *s)) for s in sizes]
    gradients = [rng.normal(size=(2, *s)) for s in sizes]
    c = [np.maximum(a * g, 0) for a, g in zip(matrices, gradients, strict=True)]
    words, boxes = np.eye(3) + c[0], np.eye(4) + c[1]
    to_boxes = np.swapaxes(normalised(words), 1, 2) @ c[2] @ normalised(boxes)
    to_words = np.swapaxes(normalised(boxes), 1, 2) @ c[3] @ normalised(words)
    # The last layer: its keys have read words themselves.
    again = to_boxes + np.swapaxes(normalised(words), 1, 2) @ c[4] @ normalised(boxes)
    own = words + c[4] @ to_words
    probe = pg.AttentionRelevance()
    found = [probe.follow(NumpyOperations(), matrices, gradients, chain, s) for s in (0, 1)]
    np.testing.assert_allclose(found[0], own, rtol=1e-12)
    np.testing.assert_allclose(found[1], again, rtol=1e-12)


# -- targets -----------------------------------------------------------------------------------


def two_branches():
    """Attention whose result goes into the second output alone, and a class that ignores it."""
    w = weights(2)
    x = keras.Input((TIME, 6), name="x")
    y = transformers.keras_block(w, 0, x, x)
    z = transformers.keras_block(w, 1, y, y)
    first = transformers.keras_head(w, y)
    second = layers.Dense(2, name="other")(ops.mean(z, 1))
    return keras.Model(x, [first, second]), w


def test_layers_that_the_target_does_not_depend_on_are_left_out(tmp_path):
    model, w = two_branches()
    done = pg.compile(model, pg.AttentionRelevance(target=1, output="scores"), tmp_path / "m.onnx")
    assert list(done.report) == ["scores", "other", "attention_relevance/attention_0"]
    x = data(TIME, 3)
    found = runtime.load(tmp_path / "m.onnx").run(x)["attention_relevance/attention_0"].array
    close(found, relevance(*by_hand(encoder_by_hand(w, 1, x), [1] * 3)))


def test_a_target_that_depends_on_no_attention(tmp_path):
    w = weights(1)
    x = keras.Input((TIME, 6), name="x")
    plain = layers.Dense(2, name="plain")(ops.mean(x, 1))
    y = transformers.keras_head(w, transformers.keras_block(w, 0, x, x))
    model = keras.Model(x, [plain, y])
    with pytest.raises(NotDifferentiableError, match="does not depend on the attention weights"):
        pg.compile(model, pg.AttentionRelevance(output="plain"), tmp_path / "m.onnx")


class FirstPosition(layers.Layer):
    """Keeps the first position alone."""

    def call(self, x):
        return x[:, :1]


def test_queries_that_the_target_ignores_have_no_relevance(tmp_path):
    """A target of the first position: in the last layer, the other queries do nothing."""
    w = weights(1)
    x = keras.Input((TIME, 6), name="x")
    y = FirstPosition()(transformers.keras_block(w, 0, x, x))
    model = keras.Model(x, transformers.keras_head(w, y))
    pg.compile(model, pg.AttentionRelevance(), tmp_path / "m.onnx")
    name = "attention_relevance/attention_0"
    found = runtime.load(tmp_path / "m.onnx").run(data(TIME, 2))[name].array
    np.testing.assert_array_equal(found[:, 1:], np.broadcast_to(np.eye(TIME)[1:], (2, 4, 5)))
    assert np.abs(found[:, 0, 1:]).max() > 1e-4


@pytest.mark.parametrize("turned", [False, True])
def test_weights_that_a_layer_returns_beside_what_it_applies(tmp_path, turned):
    """A copy has no gradient, and one that is turned another order: the weights on the way."""

    class Returns(layers.Layer):
        def call(self, x):
            a = ops.softmax(ops.matmul(x, ops.transpose(x, (0, 2, 1))) / 3)
            return x + ops.matmul(a, x), ops.transpose(a, (0, 2, 1)) if turned else ops.copy(a)

    x = keras.Input((TIME, 6), name="x")
    y, _ = Returns(name="pair")(x)
    head = layers.Dense(3, name="scores")
    model = keras.Model(x, head(ops.mean(y, 1)))
    pg.compile(model, pg.AttentionRelevance(target=1), tmp_path / "m.onnx")
    rows = data(TIME, 3)

    def forward(seen):
        t = tf.constant(rows)
        a = seen(tf.nn.softmax(t @ tf.transpose(t, (0, 2, 1)) / 3))
        return tf.reduce_mean(t + a @ t, 1) @ head.kernel + head.bias

    (a,), (g,) = by_hand(forward, [1] * 3)
    found = runtime.load(tmp_path / "m.onnx").run(rows)["attention_relevance/pair"].array
    close(found, np.eye(TIME) + np.maximum(a * g, 0))


def test_it_shares_the_backward_pass_of_its_target():
    model = transformers.keras_encoder(weights(2), 2, TIME)
    relevances = [pg.AttentionRelevance(target=1), pg.AttentionRelevance(target=2, name="b")]
    probes = [pg.Saliency(target=1), *relevances]
    assert len(pg.instrument(model, probes).plan.groups) == 2


def test_two_outputs_of_a_model_are_told_apart(tmp_path):
    model, _ = two_branches()
    probes = [pg.AttentionRelevance(output=o, select="attention_0") for o in ("scores", "other")]
    pg.compile(model, probes, tmp_path / "m.onnx")
    found = runtime.load(tmp_path / "m.onnx").run(data(TIME, 2))
    a, b = (found[f"attention_relevance/{o}/attention_0"].array for o in ("scores", "other"))
    assert np.abs(a - b).max() > 1e-4


# -- verification ------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["Keras", "ONNX"])
def test_a_wrong_gradient_is_found_beside_the_identity(tmp_path, monkeypatch, source):
    """What gradients add is small beside the ones of the identity, and is looked at alone."""
    w = {n: a * 0.2 for n, a in weights(2).items()}
    made = {"Keras": transformers.keras_encoder, "ONNX": transformers.onnx_encoder}
    model = made[source](w, 2, TIME)
    pg.compile(model, pg.AttentionRelevance(), tmp_path / "m.onnx", verify=False)
    follow = pg.AttentionRelevance.follow

    def wrong(self, ops, weights, gradients, layers, keys):
        return follow(self, ops, weights, [ops.mul(g, 1.3) for g in gradients], layers, keys)

    monkeypatch.setattr(pg.AttentionRelevance, "follow", wrong)
    with pytest.raises(VerificationError, match="attention_relevance/"):
        pg.verify(tmp_path / "m.onnx", model)


def test_a_query_that_is_not_there(tmp_path):
    model = transformers.keras_encoder(weights(1), 1, TIME)
    with pytest.raises(InstrumentError, match=r"query=9 is out of range"):
        pg.compile(model, pg.AttentionRelevance(query=9), tmp_path / "m.onnx")


@pytest.mark.parametrize("source", ["Keras", "ONNX", "SavedModel"])
def test_several_classes_at_once(tmp_path, source):
    w = weights(2)
    onnx = source == "ONNX"
    model = (transformers.onnx_encoder if onnx else transformers.keras_encoder)(w, 2, TIME)
    path = tmp_path / ("saved" if source == "SavedModel" else "m.onnx")
    probes = [
        pg.AttentionRelevance(target="all", name="all"),
        pg.AttentionRelevance(target="top:2", query=1, name="best"),
    ]
    done = pg.compile(model, probes, path)
    assert done.report.passed
    art = runtime.load(path)
    assert art.manifest.output("all").axes == ("batch", "class", "query", "key")
    assert art.manifest.output("best").axes == ("batch", "class", "key")
    for rows in (1, 4):
        x = data(TIME, rows, seed=rows)
        found = art.run(x)
        forward = encoder_by_hand(w, 2, x)
        each = [relevance(*by_hand(forward, [c] * rows)) for c in range(4)]
        close(found["all"].array, np.stack(each, 1))
        order = np.argsort(-forward(lambda a: a).numpy(), 1)[:, :2]
        np.testing.assert_array_equal(found["best/classes"].array, order)
        twin = [[each[c][i, 1] for c in row] for i, row in enumerate(order)]
        close(found["best"].array, np.array(twin))


def test_a_picture_leaves_the_identity_out(tmp_path):
    """Its ones would outshine what gradients have added."""
    model = transformers.keras_encoder(weights(2), 2, TIME)
    probes = [pg.AttentionRelevance(name="whole"), pg.AttentionRelevance(query=1, name="row")]
    pg.compile(model, probes, tmp_path / "m.onnx", verify=False)
    found = runtime.load(tmp_path / "m.onnx").run(data(TIME, 2))
    for name in ("whole", "row"):
        assert not found[name].spec.is_gradient
        assert found[name].spec.detail["holds_identity"] is True
        figure = found[name].plot(0)
        said = " ".join(t.get_text() for t in figure.findobj(Text))
        assert "without the identity that it begins with" in " ".join(said.split())
    drawn = max(i.get_array().max() for i in found["whole"].plot(0).findobj(AxesImage))
    assert drawn < found["whole"].array.max()
