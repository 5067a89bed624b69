"""Targets of every step of a sequence: one map a step, each that of the step by itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InputError, InstrumentError, SpecError
from probegen.methods import text_forms
from probegen.methods.targets import checked_target, parse_target

UNITS, CLASSES = 3, 4
CLOSE = {"rtol": 1e-5, "atol": 2e-6}
STEPS = (0, 2, -1)


def network():
    """A tagger of series of any length."""
    keras.utils.set_random_seed(8)
    x = keras.Input((None, 2), name="series")
    y = layers.Conv1D(5, 3, padding="same", activation="relu", name="conv")(x)
    y = layers.Conv1D(UNITS, 2, padding="causal", name="inner")(y)
    return keras.Model(x, layers.Dense(CLASSES, activation="softmax", name="tags")(y))


def probes(target, name):
    """One probe of each way to an attribution."""
    return [
        pg.Saliency(target=target, name=f"saliency{name}"),
        pg.GradCAM("conv", target=target, name=f"cam{name}"),
        pg.IntegratedGradients(3, target=target, name=f"paths{name}", completeness=True),
        pg.SmoothGrad(samples=3, noise=0.1, target=target, name=f"smooth{name}"),
        pg.DeepLIFT(0.1, target=target, name=f"lift{name}"),
        pg.LRP(target=target, name=f"lrp{name}"),
        pg.Occlusion(2, target=target, name=f"occlusion{name}"),
        pg.InputGradient(wrt="inner", target=target, name=f"inside{name}"),
    ]


@pytest.fixture(scope="module")
def model():
    return network()


@pytest.fixture(scope="module")
def place(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    pg.compile(
        model, [*probes(("steps", 1), ""), pg.InputGradient(target="steps")], folder / "all.onnx"
    )
    return folder


@pytest.fixture(scope="module")
def each(model, tmp_path_factory):
    """The artefact of some steps, each with probes of its own."""
    path = tmp_path_factory.mktemp("steps") / "each.onnx"
    asked = [p for i, step in enumerate(STEPS) for p in probes((step, 1), f"_{i}")]
    pg.compile(model, asked, path, verify=False)
    return runtime.load(path)


def series(batch, time, seed=0):
    x = np.random.default_rng(seed).standard_normal((batch, time, 2)).astype("float32")
    x[-1, 1:] = 0
    return x


@pytest.mark.parametrize(("batch", "time"), [(3, 7), (2, 4)])
def test_each_is_what_the_step_alone_gives(place, each, batch, time):
    x = series(batch, time)
    found = runtime.load(place / "all.onnx").run(x)
    alone = each.run(x)
    for probe in probes(1, ""):
        record = found[probe.name]
        assert record.axes[:2] == ("batch", "step")
        assert record.shape[:2] == (batch, time)
        for i, step in enumerate(STEPS):
            expected = alone[f"{probe.name}_{i}"].array
            np.testing.assert_allclose(
                record.of_step(step).array, expected, err_msg=probe.name, **CLOSE
            )
    missing = found["completeness/paths"].array
    assert missing.shape == (batch, time)
    np.testing.assert_allclose(missing[:, 2], alone["completeness/paths_1"].array, **CLOSE)


def test_the_file_does_not_grow_with_the_steps(tmp_path):
    """A Scan over the steps: a fixed length writes as many nodes whatever it is."""
    import onnx

    sizes = []
    for time in (3, 40):
        keras.utils.set_random_seed(8)
        x = keras.Input((time, 2))
        fixed = keras.Model(x, layers.Dense(2)(layers.SimpleRNN(2, return_sequences=True)(x)))
        path = tmp_path / f"{time}.onnx"
        pg.compile(fixed, pg.Saliency(target=("steps", 1)), path, verify=False)
        sizes.append(len(onnx.load(path).graph.SerializeToString()))
        assert runtime.load(path).manifest.outputs[1].shape == (None, time, time)
    assert sizes[1] < 1.05 * sizes[0]


def test_the_best_class_at_each_step_is_the_greedy_path(model, place):
    x = series(2, 5, seed=3)
    head = model.get_layer("tags")
    body = keras.Model(model.input, model.get_layer("inner").output)
    found = runtime.load(place / "all.onnx").run(x)["input_gradient/series"]
    probed = pg.instrument(model, pg.InputGradient(target=(..., "steps")))
    with tf.GradientTape(persistent=True) as tape:
        given = tf.constant(x)
        tape.watch(given)
        scores = body(given) @ head.kernel + head.bias
        best = [tf.reduce_max(scores[:, t], -1) for t in range(5)]
    expected = np.stack([tape.gradient(one, given) for one in best], 1)
    np.testing.assert_allclose(found.array, expected, **CLOSE)
    np.testing.assert_allclose(probed(x)["input_gradient/series"], expected, **CLOSE)


def test_the_sum_over_steps_is_the_sum_of_the_maps(model, tmp_path):
    x = series(3, 6, seed=2)
    pg.compile(model, pg.InputGradient(target=(None, 1)), tmp_path / "m.onnx")
    whole = runtime.load(tmp_path / "m.onnx").run(x)["input_gradient/series"].array
    probed = pg.instrument(model, pg.InputGradient(target=("steps", "input")))
    each = probed({"series": tf.constant(x), "target": tf.constant([1] * 3)})
    np.testing.assert_allclose(np.sum(each["input_gradient/series"], 1), whole, **CLOSE)


def test_pictures_and_reports(place, tmp_path):
    found = runtime.load(place / "all.onnx").run(series(2, 5))
    for name in ("saliency", "cam", "occlusion", "inside"):
        assert found[name].plot(1).axes
    page = found.to_html(tmp_path / "a.html", samples=1).read_text("utf-8")
    assert "entry 1 at each step" in page
    assert "step 4" not in page  # one heat map, and not a picture for each step
    alone = found["saliency"].of_step(-1)
    assert alone.axes == ("batch", "time")
    assert alone.plot().axes
    with pytest.raises(InputError, match="explains 5 steps, 0 to 4"):
        found["saliency"].of_step(5)
    with pytest.raises(InputError, match=r"of_step\(0\)"):
        found["saliency"].top()


def test_an_onnx_file_with_time_first(tmp_path):
    import onnx
    from onnx import helper, numpy_helper

    rng = np.random.default_rng(0)
    w, r = (0.5 * rng.standard_normal((1, 9, n)).astype("float32") for n in (2, 3))
    nodes = [
        helper.make_node("GRU", ["x", "w", "r"], ["y"], "gru", hidden_size=3),
        helper.make_node("Squeeze", ["y", "one"], ["out"], "squeeze"),
    ]
    info = [
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["time", "batch", size])
        for n, size in (("x", 2), ("out", 3))
    ]
    stored = [
        numpy_helper.from_array(a, n) for a, n in ((w, "w"), (r, "r"), (np.array([1]), "one"))
    ]
    graph = helper.make_graph(nodes, "gru", info[:1], info[1:], stored)
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    axes = {"x": "time,batch,feature", "out": "time,batch,class"}
    target = ("steps", 2)
    pg.compile(
        file, pg.InputGradient(target=target, logits=False), tmp_path / "m.onnx", inputs=axes
    )
    x = rng.standard_normal((4, 2, 2)).astype("float32")
    found = runtime.load(tmp_path / "m.onnx").run(x)["input_gradient/x"]
    pg.compile(
        file, pg.InputGradient(target=(1, 2), logits=False), tmp_path / "n.onnx", inputs=axes
    )
    alone = runtime.load(tmp_path / "n.onnx").run(x)["input_gradient/x"]
    np.testing.assert_allclose(found.of_step(1).array, alone.array, **CLOSE)


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (("steps", np.int64(2)), ("steps", 2)),
        ((2, "steps"), ("steps", 2)),
        ("steps", ("steps",)),
        ((..., "steps"), ("steps",)),
        (("steps", "argmax"), ("steps",)),
        (("steps", "input"), ("steps", "input")),
        (("steps", None, -1), ("steps", None, -1)),
    ],
)
def test_forms_of_writing(given, plain):
    assert checked_target(given) == plain
    probe = pg.Saliency(target=given)
    assert text_forms.from_json(text_forms.to_json([probe])) == (probe,)
    assert parse_target(str(plain)) == plain


@pytest.mark.parametrize("target", [("steps", "steps"), ("steps", "top:2"), ("steps", "input", 1)])
def test_what_is_no_target_of_steps(target):
    with pytest.raises(SpecError, match="beside 'steps'"):
        pg.Saliency(target=target)


def test_outputs_without_steps_are_refused(model):
    x = keras.Input((5,))
    vector = keras.Model(x, layers.Dense(3, name="scores")(x))
    with pytest.raises(InstrumentError, match=r"no axis of steps.*'all' explains"):
        pg.instrument(vector, pg.Saliency(target=("steps", 1)))
    with pytest.raises(InstrumentError, match="2 entries beside 'steps'"):
        pg.instrument(model, pg.Saliency(target=("steps", 1, 1)))
    with pytest.raises(InstrumentError, match="out of range"):
        pg.instrument(model, pg.Saliency(target=("steps", CLASSES)))
