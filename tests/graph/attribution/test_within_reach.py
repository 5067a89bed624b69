"""What windows reach alone is computed again: against loops over the untouched file."""

import itertools

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.graph.attribution import by_scores, reach
from tests import models
from tests.methods.test_occlusion import twin


@pytest.fixture(autouse=True)
def found(monkeypatch):
    """Lets small graphs be computed in part; holds what was, a list of `Reach` or None."""
    made, told = [], reach.reach_of
    monkeypatch.setattr(reach, "LEAST_A_NODE", 0)
    monkeypatch.setattr(reach, "LEAST_SAVED", 0.01)

    def noted(*given):
        made.append(told(*given))
        return made[-1]

    monkeypatch.setattr(by_scores, "reach_of", noted)
    return made


def computed_in_part(found):
    assert len(found) == 1
    return [node.op_type for node in found[0].nodes]


def weights(rng, **shapes):
    """Returns initializers of ONNX's text form, drawn by chance."""
    parts = []
    for name, shape in shapes.items():
        values = rng.normal(size=shape).astype(np.float32) / np.sqrt(max(1, np.prod(shape[1:])))
        text = ", ".join(map(str, values.reshape(-1)))
        parts.append(f"float[{', '.join(map(str, shape))}] {name} = {{{text}}}")
    return ", ".join(parts)


def file_of(steps, size, last, **shapes):
    """Returns `[n, 3, *size]` -> 4 classes: some nodes from x to y, a sum by weights."""
    rng = np.random.default_rng(3)
    stored = weights(rng, v=(int(np.prod(last)), 4), **shapes)
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
      g (float[n, 3, {", ".join(map(str, size))}] x) => (float[n, 4] scores)
      <{stored}, int64[2] flat = {{0, -1}}> {{
        {steps}
        row = Reshape(y, flat) scores = MatMul(row, v) }}"""
    return onnx.parser.parse_model(text)


def best_in(model):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def score_of(x):
        best = session.run(None, {"x": x})[0].argmax(1)
        return lambda changed: session.run(None, {"x": changed})[0][np.arange(len(best)), best]

    return score_of


#: Name -> nodes, size of the image, of what comes out, weights, and what is computed in part.
FILES = {
    "padding, a branch and strides": (
        """a = Conv <pads = [2, 1, 2, 3], strides = [2, 1], kernel_shape = [5, 5]> (x, k1, b1)
           r = Relu(a)
           m = MaxPool <kernel_shape = [3, 2], strides = [2, 2], pads = [1, 0, 1, 1]> (r)
           c = Conv <pads = [1, 1, 1, 1]> (m, k2) d = Tanh(c) e = Add(m, d)
           y = Conv <strides = [2, 3]> (e, k3)""",
        (34, 29),
        (4, 5, 5),
        {"k1": (6, 3, 5, 5), "b1": (6,), "k2": (6, 6, 3, 3), "k3": (4, 6, 1, 1)},
        "Conv Relu MaxPool Conv Tanh Add Conv",
    ),
    "holes, groups, and channels behind each other": (
        """a = Conv <dilations = [2, 3], group = 3, pads = [2, 1, 2, 5]> (x, k1)
           b = Sigmoid(a) s = Mul(a, b) t = Mul(x, far)
           c = Concat <axis = 1> (s, t)
           p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (c)
           y = Conv <auto_pad = "VALID", strides = [4, 3]> (p, k2)""",
        (26, 31),
        (4, 3, 5),
        {"k1": (6, 1, 3, 3), "far": (3, 26, 1), "k2": (4, 9, 3, 2)},
        "Conv Sigmoid Mul Mul Concat AveragePool Conv",
    ),
    "padding of its own, and axes that are turned": (
        """p = Pad(x, ahead) h = Transpose <perm = [0, 3, 2, 1]> (p)
           z = Mul(h, scale) q = Transpose <perm = [0, 3, 1, 2]> (z)
           y = Conv <strides = [3, 4]> (q, k1)""",
        (21, 30),
        (4, 10, 6),
        {"scale": (31, 1, 3), "k1": (4, 3, 2, 3)},
        "Pad Transpose Mul Transpose Conv",
    ),
    "windows that skip positions": (
        """a = Conv <strides = [3, 2]> (x, k1) b = Relu(a)
           c = MaxPool <kernel_shape = [2, 1], strides = [3, 2]> (b) y = Identity(c)""",
        (41, 38),
        (5, 5, 10),
        {"k1": (5, 3, 1, 1)},
        "Conv Relu MaxPool",
    ),
    "a series": (
        """w = Unsqueeze(x, two) a = Conv <kernel_shape = [1, 4], pads = [0, 3, 0, 0]> (w, k1)
           n = Squeeze(a, two) t = Transpose <perm = [0, 2, 1]> (n)
           l = LayerNormalization <axis = -1> (t, gain) g = MatMul(l, k2) r = Elu(g)
           u = Transpose <perm = [0, 2, 1]> (r) y = Conv <strides = [5]> (u, k3)""",
        (47,),
        (4, 10),
        {"k1": (6, 3, 1, 4), "gain": (6,), "k2": (6, 5), "k3": (4, 5, 2)},
        "Unsqueeze Conv Squeeze Transpose LayerNormalization MatMul Elu Transpose Conv",
    ),
    "a volume": (
        """a = Conv <pads = [1, 1, 1, 1, 1, 1]> (x, k1) r = Relu(a)
           y = MaxPool <kernel_shape = [2, 2, 2], strides = [2, 2, 3]> (r)""",
        (12, 10, 14),
        (4, 6, 5, 5),
        {"k1": (4, 3, 3, 3, 3)},
        "Conv Relu MaxPool",
    ),
    "a normalisation that stays, and a padding of its own kind": (
        """a = Exp(x) b = BatchNormalization (a, m, m, m, m) d = Sin(b)
           y = Conv <auto_pad = "SAME_LOWER", strides = [2, 3]> (d, k1)""",
        (18, 23),
        (4, 9, 8),
        {"k1": (4, 3, 4, 3)},
        "Exp BatchNormalization Sin Conv",
    ),
}
CONSTANTS = {
    "p = Pad": "int64[8] ahead = {0, 0, 2, 0, 0, 0, 3, 1}",
    "w = Unsqueeze": "int64[1] two = {2}",
    "b = BatchNormalization": "float[3] m = {0.5, 1, 2}",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(("window", "stride"), [(4, None), (7, 5)])
def test_files(tmp_path, found, name, window, stride):
    steps, size, last, shapes, expected = FILES[name]
    model = file_of(steps, size, last, **shapes)
    for start, constant in CONSTANTS.items():
        if start in steps:
            text = onnx.printer.to_text(model)
            model = onnx.parser.parse_model(
                text.replace("int64[2] flat", f"{constant}, int64[2] flat")
            )
    probe = pg.Occlusion(window, stride, fill=0.5)
    pg.compile(model, probe, tmp_path / "m.onnx")
    assert computed_in_part(found) == expected.split()
    art = runtime.load(tmp_path / "m.onnx")
    for count in (1, 3):
        x = np.random.default_rng(count).normal(size=(count, 3, *size)).astype(np.float32)
        x[0, :, :5] = 0
        last_first = np.moveaxis(x, 1, -1)
        best = best_in(model)

        def score_of(start, best=best):
            score = best(np.ascontiguousarray(np.moveaxis(start, -1, 1)))
            return lambda v: score(np.ascontiguousarray(np.moveaxis(v, -1, 1)))

        rank = len(size)
        wanted = twin(score_of, last_first, (window,) * rank, (stride or window,) * rank, 0.5)
        got = art.run(x)["occlusion/x"].array
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=3e-6 * np.abs(wanted).max())


def network():
    """A small residual network of two images, which one convolution reads after the other."""
    keras.utils.set_random_seed(4)
    first = layers.Conv2D(6, 5, strides=2, padding="same", activation="relu")
    inner = layers.Conv2D(6, 3, padding="same")
    sides = [layers.Input((31, 26, 3), name=name) for name in ("left", "right")]
    ends = []
    for side in sides:
        x = layers.MaxPool2D(3, 1, padding="same")(first(side))
        ends.append(layers.Add()([x, layers.LeakyReLU()(inner(x))]))
    x = layers.Conv2D(5, 2, strides=3)(layers.Concatenate()(ends))
    return keras.Model(sides, layers.Dense(4, "softmax")(layers.Flatten()(x)))


@pytest.mark.parametrize("chunk", [None, 4])
def test_two_images_classes_and_the_gate(tmp_path, found, chunk):
    model = network()
    probes = [
        pg.Occlusion((9, 7), (8, 7), wrt="left", target=2, chunk=chunk, name="one"),
        pg.Occlusion(8, target="all", chunk=chunk, name="both"),
        pg.FeatureAblation("grid:4", wrt="right", target=[3, 1], chunk=chunk, name="cells"),
    ]
    pg.compile(model, probes, tmp_path / "m.onnx")
    assert all(found)
    art = runtime.load(tmp_path / "m.onnx")
    scores = keras.Model(model.inputs, model.layers[-1].input)
    kernel, bias = model.layers[-1].get_weights()

    def score(x, k):
        return (scores.predict_on_batch(x).astype(np.float64) @ kernel + bias)[:, k]

    for count in (1, 3):
        x = [models.images((31, 26, 3), seed=i, count=count) for i in range(2)]
        got = art.run(x, explain=True)
        for name, which, window, stride, k in (
            ("one", 0, (9, 7), (8, 7), 2),
            ("both/left", 0, (8, 8), (8, 8), 1),
            ("both/right", 1, (8, 8), (8, 8), 3),
            ("cells", 1, None, None, 1),
        ):

            def at(_, x=x, k=k, which=which):
                return lambda v: score([v if i == which else x[i] for i in range(2)], k)

            value = got[name].array
            value = value[:, k] if name.startswith("both") else value
            value = value[:, 1] if name.startswith("cells") else value
            expected = (
                cells(at(x[1]), x[1]) if window is None else twin(at, x[which], window, stride)
            )
            np.testing.assert_allclose(
                value, expected, rtol=1e-4, atol=3e-6 * np.abs(expected).max()
            )
        assert set(art.run(x, explain=False)) == set(model.output_names)


def cells(score, x):
    """What hiding each of 4 x 4 cells takes."""
    expected, whole_ = np.zeros(x.shape[:3]), score(x)
    groups = [np.arange(n) * 4 // n for n in x.shape[1:3]]
    for i, j in itertools.product(range(4), repeat=2):
        at = (groups[0] == i)[:, None] & (groups[1] == j)
        taken = whole_ - score(np.where(at[..., None], 0, x))
        expected += at * taken.reshape(-1, 1, 1)
    return expected


def test_scores_of_each_position(tmp_path, found):
    keras.utils.set_random_seed(4)
    start = layers.Input((22, 17, 2), name="input_layer")
    x = layers.Conv2D(5, 3, padding="same", activation="relu")(start)
    model = keras.Model(start, layers.Conv2D(3, 3, padding="same")(x))
    pg.compile(model, pg.Occlusion(4, target=(None, None, 1)), tmp_path / "m.onnx")
    assert computed_in_part(found)[-1] == "Identity"
    x = models.images((22, 17, 2), count=2)
    got = runtime.load(tmp_path / "m.onnx").run(x)["occlusion/input_layer"].array

    def at(_):
        return lambda v: model.predict_on_batch(v).astype(np.float64)[..., 1].sum((1, 2))

    expected = twin(at, x, (4, 4), (4, 4))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
