"""DeepLIFT: an independent computation, completeness on models of many kinds, and refusals."""

import keras
import numpy as np
import onnx.parser
import onnxruntime
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SpecError, UnsupportedOpsError, VerificationError
from probegen.graph.tables.rescale import Reference
from probegen.runtime import plot
from tests import models
from tests.methods import ruled
from tests.methods.test_guided_backprop import ALL, BIAS, W1, W2, network

BASELINE = 0.3


# -- an independent computation ----------------------------------------------------------------


def dense(rows, function, baseline, target):
    """`[?, 5] -> dense -> function -> dense`, by the definition, layer after layer."""
    x, there = (
        np.asarray(v, np.float64) @ W1 + BIAS for v in (rows, baseline + np.zeros_like(rows))
    )
    dx = x - there
    ratio = (function(x) - function(there)) / dx
    return (rows - baseline) * ((ratio * W2[:, target]) @ W1.T)


@pytest.mark.parametrize("name", ALL)
def test_functions_of_one_tensor_pass_dy_over_dx_however_they_are_spelled(tmp_path, name):
    middle, function = ALL[name]
    path = tmp_path / "m.onnx"
    exported = pg.compile(network(middle), pg.DeepLIFT(BASELINE, target=2), path)
    for count in (1, 4):
        rows = models.images((5,), seed=count, count=count) * 2
        found = runtime.load(path).run(rows)["deep_lift/row"].array
        expected = dense(rows, function, BASELINE, 2)
        np.testing.assert_allclose(found, expected, rtol=5e-4, atol=5e-5)
    assert "numpy on the forward graph" in exported.report["deep_lift/row"].witness


# -- completeness: the sum is the score less that of the baseline ------------------------------


def score(model, feed, target):
    """The model's own prediction, which ends in no softmax here."""
    return np.asarray(model.predict_on_batch(feed))[:, target]


def check_complete(tmp_path, model, feed, target=1, baseline=BASELINE, rtol=2e-4):
    """Compiles, verifies and compares sums with the untouched model's scores."""
    path = tmp_path / "m.onnx"
    pg.compile(model, pg.DeepLIFT(baseline, target=target), path)
    art = runtime.load(path)
    for count in (1, len(next(iter(feed.values())))):
        fed = {name: value[:count] for name, value in feed.items()}
        found = art.run(fed)
        names = [o.name for o in art.manifest.explanations]
        total = sum(found[n].array.reshape(count, -1).astype(float).sum(1) for n in names)
        there = {name: np.full_like(value, baseline) for name, value in fed.items()}
        own = score(model, fed, target)
        change = own - score(model, there, target)
        assert np.abs(change).max() > 1e-3
        np.testing.assert_allclose(total, change, rtol=rtol, atol=rtol * np.abs(own).max())


def attention(x):
    y = keras.layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    y = keras.layers.LayerNormalization(name="norm")(keras.layers.Add(name="sum")([x, y]))
    y = keras.layers.Dense(7, activation="gelu", name="widen")(y)
    return keras.layers.GlobalAveragePooling1D(name="mean")(y)


def squeeze_and_excite(x):
    y = keras.layers.Conv2D(6, 3, activation="silu", padding="same", name="conv")(x)
    s = keras.layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(y)
    s = keras.layers.Conv2D(6, 1, activation="sigmoid", name="excite")(s)
    y = keras.layers.Multiply(name="scale")([y, s])
    y = keras.layers.MaxPooling2D((2, 3), name="pool")(y)
    return keras.layers.Flatten(name="flat")(y)


def norms(x):
    y = keras.layers.Conv2D(4, (2, 3), name="conv")(x)
    y = keras.layers.GroupNormalization(2, name="group")(y)
    y = keras.layers.DepthwiseConv2D(2, activation="elu", name="depthwise")(y)
    y = keras.layers.LayerNormalization(name="norm")(y)
    return keras.layers.GlobalMaxPooling2D(name="most")(y)


def residual(x):
    y = keras.layers.Conv2D(2, 3, padding="same", name="conv")(x)
    y = keras.layers.BatchNormalization(name="bn")(y)
    y = keras.layers.Add(name="sum")([keras.layers.ReLU(name="relu")(y), x])
    y = keras.layers.AveragePooling2D(2, name="pool")(y)
    y = keras.layers.Concatenate(name="both")([y, y * y])
    return keras.layers.Flatten(name="flat")(keras.ops.maximum(y, keras.ops.tanh(-y)))


def quotient(x):
    a = keras.layers.Dense(6, activation="softplus", name="above")(x)
    b = keras.layers.Dense(6, activation="sigmoid", name="below")(x)
    y = a / (b + 0.5) * keras.layers.Dense(6, activation="tanh", name="gate")(x)
    return keras.ops.softmax(y, axis=-1) + keras.ops.sqrt(a + 1.0)


BODIES = {
    "attention": (attention, (6, 5)),
    "squeeze_and_excite": (squeeze_and_excite, (9, 7, 2)),
    "norms": (norms, (8, 7, 3)),
    "residual": (residual, (6, 8, 2)),
    "quotient": (quotient, (5,)),
}


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_completeness_against_the_untouched_model(tmp_path, name, seed):
    body, shape = BODIES[name]
    keras.utils.set_random_seed(seed)
    x = keras.Input(shape, name="x")
    model = keras.Model(x, keras.layers.Dense(3, name="scores")(body(x)))
    rng = np.random.default_rng(seed)
    model.set_weights(
        [w + 0.3 * rng.uniform(0, 1, w.shape) if w.ndim == 1 else w for w in model.get_weights()]
    )
    check_complete(tmp_path, model, {"x": models.images(shape, seed=seed, count=3)})


def softmax_of_large_numbers(x):
    return keras.ops.softmax(60.0 * x, axis=-1)


def log_of_small_numbers(x):
    return keras.ops.log(keras.ops.square(x) + 1e-6)


def root_of_small_numbers(x):
    return 1e4 * keras.ops.sqrt(keras.ops.square(x) + 1e-9)


@pytest.mark.parametrize(
    ("body", "scale"),
    [(softmax_of_large_numbers, 3.0), (log_of_small_numbers, 3e-3), (root_of_small_numbers, 1e-4)],
)
def test_completeness_where_floats_end_and_slopes_say_nothing(tmp_path, body, scale):
    # Of the first a share of the classes is 0 in float32, of the others each step is below 1e-4.
    x = keras.Input((5,), name="x")
    model = keras.Model(x, keras.layers.Dense(3, name="scores")(body(x)))
    rows = scale * np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    check_complete(tmp_path, model, {"x": rows}, baseline=0.0)


def test_completeness_behind_reductions_and_extrema(tmp_path):
    parts = [name for name in ruled.PARTS if name != "product"]
    model, path = ruled.network(*parts, bias=0.2), tmp_path / "m.onnx"
    exported = pg.compile(model, pg.DeepLIFT(BASELINE, target=2), path)
    assert "numpy on the forward graph" in exported.report["deep_lift/row"].witness
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (1, 6):
        rows = models.images((5,), seed=count, count=count) * 2
        own, there = (
            session.run(None, {"row": v})[0][:, 2] for v in (rows, np.full_like(rows, BASELINE))
        )
        found = runtime.load(path).run(rows)["deep_lift/row"].array
        np.testing.assert_allclose(found.sum(1), own - there, rtol=1e-3, atol=1e-3)


def test_completeness_from_vectors_without_length(tmp_path):
    """A baseline of zeros: what divides by a length of 0 gives 0, which one over it stands for."""
    model, path = ruled.network("lengths"), tmp_path / "m.onnx"
    pg.compile(model, pg.DeepLIFT(0.0, target=2), path)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (2, 6):
        rows = models.images((5,), seed=count, count=count) * 2
        rows[0] = 0.0
        found = runtime.load(path).run(rows)["deep_lift/row"].array
        own = session.run(None, {"row": rows})[0][:, 2]
        assert not found[0].any()
        np.testing.assert_allclose(found.sum(1), own, rtol=1e-4, atol=1e-5)


def test_rms_normalisation_and_roundings_whose_slope_is_passed_straight_through(tmp_path):
    """As one operator, and a pair of QuantizeLinear and DequantizeLinear: the numbers are whole."""
    text = """<ir_version: 10, opset_import: ["" : 23]>
      net (float[n, 5] row) => (float[n, 3] scores) {
        m = MatMul(row, w1)  r = RMSNormalization<epsilon = 0.01>(m, scale)
        q = QuantizeLinear(r, step, zero)  d = DequantizeLinear(q, step, zero)
        t = Tanh(d)  scores = MatMul(t, w2) }"""
    model, path = onnx.parser.parse_model(text), tmp_path / "m.onnx"
    given = {"w1": W1, "w2": W2, "scale": np.linspace(-1, 2.2, 7), "step": np.array(0.25)}
    for name, values in given.items():
        array = onnx.numpy_helper.from_array(values.astype(np.float32), name)
        model.graph.initializer.append(array)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.int8), "zero"))
    pg.compile(model, pg.DeepLIFT(BASELINE, target=2), path)
    rows = models.images((5,), count=6) * 2

    def forward(x):
        m = x.astype(np.float64) @ W1
        size = 1 / np.sqrt((m**2).mean(-1, keepdims=True) + 0.01)
        r = m * size * given["scale"]
        d = np.clip(np.round(r / 0.25), -128, 127) * 0.25
        return m, size, r, d, np.tanh(d)

    here, there = forward(rows), forward(np.full_like(rows, BASELINE))
    dm, _, dr, dd, dt = (a - b for a, b in zip(here, there, strict=True))
    found = runtime.load(path).run(rows)["deep_lift/row"].array
    np.testing.assert_allclose(found.sum(1), dt @ W2[:, 2], rtol=1e-4, atol=1e-4)
    # d / r and tanh by differences, the product m * size by halves, size by its own sum of squares.
    ratio = np.where(dd == 0, 1 - here[4] ** 2, dt / np.where(dd == 0, 1, dd))
    g = W2[:, 2] * ratio * dd / dr * given["scale"]
    mean = [(a + b) / 2 for a, b in zip(here[:2], there[:2], strict=True)]
    of_size = (g * mean[0]).sum(-1, keepdims=True)
    squares = [(m**2).mean(-1, keepdims=True) for m in (here[0], there[0])]
    slope = (here[1] - there[1]) / (squares[0] - squares[1])
    g = g * mean[1] + of_size * slope * 2 * mean[0] / 7
    np.testing.assert_allclose(found, g @ W1.T * (rows - BASELINE), rtol=1e-3, atol=1e-4)
    assert np.abs(dm).max() > 1


def test_completeness_through_time(tmp_path):
    (model, feed), path = ruled.cells(bias=0.5), tmp_path / "m.onnx"
    probe = pg.DeepLIFT(BASELINE, target=1, completeness=True)
    pg.compile(model, probe, path, samples=feed)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (1, 5):
        fed = {name: value[:count] for name, value in feed.items()}
        own, there = (
            session.run(None, fed | {"series": v})[0][:, 1]
            for v in (fed["series"], np.full_like(fed["series"], BASELINE))
        )
        found = runtime.load(path).run(fed)["deep_lift/series"].array
        np.testing.assert_allclose(found.sum((1, 2)), own - there, rtol=1e-3, atol=1e-4)
        beyond = np.arange(6)[None] >= fed["lengths"][:, None]
        assert not found[beyond].any()


def test_a_recurrent_network_of_keras(tmp_path):
    assert pg.compile(models.forecaster(), pg.DeepLIFT(), tmp_path / "m.onnx").report.passed


def test_a_tensor_times_its_whole_part_has_two_shares(tmp_path):
    """The whole part has no slope, so that it is explained by itself, beside the input."""
    x = keras.Input((3,), name="x")
    whole = keras.ops.cast(keras.ops.cast(3.0 * x, "int32"), "float32")
    model = keras.Model(x, keras.layers.Dense(2, name="scores")(whole * x))
    pg.compile(model, pg.DeepLIFT(target=0), tmp_path / "m.onnx")
    data = np.array([[0.5, 1.2, -2.3], [2.0, -0.1, 0.7]], np.float32)
    found = runtime.load(tmp_path / "m.onnx").run(data)
    half = np.trunc(3 * data) * data * model.layers[-1].kernel.numpy()[:, 0] / 2
    for name in ("deep_lift/x", "deep_lift/x/cast"):
        np.testing.assert_allclose(found[name].array, half, rtol=1e-5)
    at_input, at_cast = (found[name].spec for name in ("deep_lift/x", "deep_lift/x/cast"))
    assert (plot.place(at_input), plot.place(at_cast)) == ("x", "x/cast (after the cast)")
    assert at_cast.method == f"{at_input.method}; at 'x/cast', to which the model casts 'x'"


@pytest.mark.parametrize("operator", ["Max", "Min"])
def test_the_larger_of_two_tensors_by_the_values_of_shapley(tmp_path, operator):
    model = onnx.parser.parse_model(f"""<ir_version: 9, opset_import: ["" : 17]>
      net (float[n, 4] a, float[n, 4] b) => (float[n, 4] y) {{ y = {operator}(a, b) }}""")
    path, largest = tmp_path / "m.onnx", np.maximum if operator == "Max" else np.minimum
    pg.compile(model, pg.DeepLIFT(BASELINE, target=2), path)
    a, b = (models.images((4,), seed=seed, count=9) for seed in (3, 4))
    found = runtime.load(path).run({"a": a, "b": b})
    for name, x, other in (("a", a, b), ("b", b, a)):
        ahead = largest(x, other) - largest(BASELINE, other)
        behind = largest(x, BASELINE) - BASELINE
        expected = np.zeros_like(x)
        expected[:, 2] = ((ahead + behind) / 2)[:, 2]
        array = found[f"deep_lift/{name}"].array
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-6)


def test_completeness_over_two_inputs_together(tmp_path):
    model = models.siamese()
    model.layers[-1].activation = keras.activations.linear
    feed = {name: models.images((7,), seed=i, count=3) for i, name in enumerate(("left", "right"))}
    check_complete(tmp_path, model, feed, target=0)


def test_layers_have_a_baseline_of_their_own(tmp_path):
    model, path = models.cnn(), tmp_path / "m.onnx"
    pg.compile(model, pg.DeepLIFT(0.1, wrt="pool1", target=2), path)
    images = models.images((11, 8, 2), count=2)
    found = runtime.load(path).run(images)["deep_lift/pool1"].array
    pooled = keras.Model(model.input, model.get_layer("pool1").output).predict_on_batch(images)

    def tail(value):
        y = value
        for name in ("conv2", "gap"):
            y = model.get_layer(name)(y)
        head = model.get_layer("scores")
        return np.asarray(y) @ head.kernel.numpy()[:, 2]

    change = tail(pooled) - tail(np.full_like(pooled, 0.1))
    np.testing.assert_allclose(found.reshape(2, -1).sum(1), change, rtol=1e-4, atol=1e-6)


def test_at_the_baseline_nothing_is_attributed(tmp_path):
    model, path = models.cnn(), tmp_path / "m.onnx"
    pg.compile(model, pg.DeepLIFT(BASELINE), path, verify=False)
    found = runtime.load(path).run(np.full((2, 11, 8, 2), BASELINE, np.float32))
    assert not found["deep_lift/image"].array.any()


def test_tokens_start_from_embeddings_at_the_baseline(tmp_path):
    pg.compile(models.transformer(), pg.DeepLIFT(), tmp_path / "m.onnx")


# -- the reference costs a request nothing -----------------------------------------------------


def test_runtimes_fold_the_reference_and_the_file_does_not_grow_by_it(tmp_path):
    """onnxruntime computes the baseline's forward pass at load, also within the gate."""
    model, path, folded = models.cnn(), tmp_path / "m.onnx", tmp_path / "folded.onnx"
    pg.compile(model, pg.DeepLIFT(BASELINE), path, verify=False)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def convolutions(file):
        branch = next(n for n in onnx.load(file).graph.node if n.op_type == "If").attribute
        then = next(a.g for a in branch if a.name == "then_branch")
        return [n.op_type for n in then.node].count("Conv")

    alone = tmp_path / "gradient.onnx"
    pg.compile(model, pg.InputGradient(), alone, verify=False)
    assert convolutions(alone) == 4  # two forward, two backward
    assert (convolutions(path), convolutions(folded)) == (6, 4)
    assert path.stat().st_size < alone.stat().st_size + 2**14


# -- what is refused ---------------------------------------------------------------------------


def test_a_choice_by_a_comparison_of_another_tensor_is_refused(tmp_path):
    model = network("s = Sum(x, x) t = MatMul(s, w3) on = Greater(t, zero) y = Where(on, x, s)")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.eye(7, dtype="f"), "w3"))
    with pytest.raises(UnsupportedOpsError, match="through a comparison"):
        pg.compile(model, pg.DeepLIFT(), tmp_path / "m.onnx")


@pytest.mark.parametrize("baseline", ["zero", True, np.inf])
def test_a_baseline_is_a_finite_number(baseline):
    with pytest.raises(SpecError, match="baseline= takes a finite number"):
        pg.DeepLIFT(baseline)


def test_tensorflow_formats_refuse_it(tmp_path):
    with pytest.raises(InstrumentError, match=r"differences from a baseline.*\.onnx"):
        pg.compile(models.cnn(), pg.DeepLIFT(), tmp_path / "saved")


def test_the_verification_finds_a_wrong_multiplier(tmp_path, monkeypatch):
    model, path = models.cnn(), tmp_path / "m.onnx"
    right = Reference._rescaled
    with monkeypatch.context() as changed:
        changed.setattr(Reference, "_rescaled", lambda *all: all[1].builder.mul(right(*all), 1.05))
        pg.compile(model, pg.DeepLIFT(), path, verify=False)
    with pytest.raises(VerificationError, match="deep_lift/image"):
        pg.verify(path, model)


def test_several_classes_at_once_are_verified(tmp_path):
    model, path = models.cnn(), tmp_path / "m.onnx"
    probes = [pg.DeepLIFT(target="top:2"), pg.GuidedBackprop(target="all")]
    report = pg.compile(model, probes, path).report
    assert "numpy" in report["deep_lift/image"].witness
    images = models.images((11, 8, 2), count=2)
    found = runtime.load(path).run(images)
    assert found["deep_lift/image"].array.shape == (2, 2, 11, 8, 2)
    single = tmp_path / "one.onnx"
    pg.compile(model, [pg.GuidedBackprop(target=3), pg.DeepLIFT(target="argmax")], single)
    one = runtime.load(single).run(images)
    for name, row in (("guided_backprop/image", 3), ("deep_lift/image", 0)):
        np.testing.assert_allclose(found[name].array[:, row], one[name].array, rtol=1e-4, atol=1e-7)


def joined(batch):
    """A model that joins samples and heads in one axis, between two reshapes."""
    rng = np.random.default_rng(3)
    nodes = [
        onnx.helper.make_node("Reshape", ["x", "rows"], ["heads"]),  # [3 * batch, 4, 2]
        onnx.helper.make_node("Transpose", ["heads"], ["keys"], perm=[0, 2, 1]),
        onnx.helper.make_node("MatMul", ["heads", "keys"], ["products"]),
        onnx.helper.make_node("Softmax", ["products"], ["weights"], axis=-1),
        onnx.helper.make_node("MatMul", ["weights", "heads"], ["read"]),
        onnx.helper.make_node("Reshape", ["read", "whole"], ["flat"]),
        onnx.helper.make_node("MatMul", ["flat", "w"], ["scores"]),
    ]
    stored = [
        onnx.numpy_helper.from_array(np.array([-1, 4, 2]), "rows"),
        onnx.numpy_helper.from_array(np.array([-1, 24]), "whole"),
        onnx.numpy_helper.from_array(rng.normal(size=(24, 5)).astype(np.float32), "w"),
    ]
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "joined",
        [info("x", 1, [batch, 3, 4, 2])],
        [info("scores", 1, [batch, 5])],
        stored,
    )
    opsets = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, ir_version=8, opset_imports=opsets)


@pytest.mark.parametrize("batch", ["batch", 4])
def test_samples_that_are_joined_with_another_axis_meet_a_reference_of_the_whole_batch(
    tmp_path, batch
):
    model, path = joined(batch), tmp_path / "m.onnx"
    pg.compile(model, pg.DeepLIFT(BASELINE, target=2), path)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for count in (1, 4) if batch == "batch" else (4,):
        rows = models.images((3, 4, 2), seed=count, count=count)
        own, there = (
            session.run(None, {"x": v})[0][:, 2] for v in (rows, np.full_like(rows, BASELINE))
        )
        found = runtime.load(path).run(rows)["deep_lift/x"].array
        np.testing.assert_allclose(found.reshape(count, -1).sum(1), own - there, atol=2e-5)
        assert np.abs(own - there).min() > 1e-2


def test_masks_that_move_with_the_input_are_differences_of_their_full_size(tmp_path):
    """The logarithm of what a softmax leaves of a masked score is about -1e9, not a bound of it."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    masked (double[N, 4] x) => (double[N, 2] y)
    <double zero = {0}, double one = {1}, double low = {-1e9},
     double[4, 2] w = {1, 2, -3, 0.5, 2, 1, -1, 4}> {
      size = Abs (x)  there = Clip (size, zero, one)  gone = Sub (one, there)
      mask = Mul (gone, low)  scores = Add (x, mask)
      weights = Softmax <axis = -1> (scores)  y = MatMul (weights, w) }""")
    path = tmp_path / "m.onnx"
    pg.compile(model, pg.DeepLIFT(0.0, target=1), path, verify=False)
    rows = np.array([[1.5, -2, 0, 0], [3, 1, 2, 0]])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    own, there = (session.run(None, {"x": v})[0][:, 1] for v in (rows, np.zeros_like(rows)))
    found = runtime.load(path).run(rows)["deep_lift/x"].array
    np.testing.assert_allclose(found.sum(1), own - there, atol=1e-6)


@pytest.mark.parametrize("kind", ["float", "float16"])
def test_the_smaller_of_two_tensors_that_are_as_in_the_reference(tmp_path, kind):
    """In float16 the bound below which a slope stands for a quotient is rounded to 0."""
    one, minus = (0x3C00, 0xBC00) if kind == "float16" else (1, -1)  # ONNX's text: bits of halves
    source = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 18]>
        smaller ({kind}[batch, 3] x) => ({kind}[batch, 3] y)
        <{kind} one = {{{one}}}, {kind} minus = {{{minus}}}>
        {{ other = Mul (x, minus)  ahead = Add (other, one)  y = Min (x, ahead) }}""")
    pg.compile(source, pg.DeepLIFT(target=(None,)), tmp_path / "m.onnx")
    x = np.array([[0, 2, -1], [0, 0, 0.5]], np.float16 if kind == "float16" else np.float32)
    found = runtime.load(tmp_path / "m.onnx").run(x)["deep_lift/x"].array
    np.testing.assert_allclose(found, np.minimum(x, 1 - x), rtol=2e-3)


def test_a_baseline_at_which_the_model_is_no_number_is_blamed_itself(tmp_path):
    """A deviation of 0 divides; what works is a baseline of rows with different numbers."""
    model = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["" : 18]>
      net (float[n, 5] x) => (float[n, 2] y) <float[5] s = {1, 2, -1, 0.5, 1}> {
        a = LayerNormalization<epsilon = 0.0>(x, s)  y = Slice(a, zero, two, one) }""")
    for name, number in (("zero", 0), ("one", 1), ("two", 2)):
        array = onnx.numpy_helper.from_array(np.array([number]), name)
        model.graph.initializer.append(array)
    with pytest.raises(VerificationError, match=r"none that is at its baseline.*samples of the da"):
        pg.compile(model, pg.DeepLIFT(target=1), tmp_path / "m.onnx")
    start = models.images((5,), seed=3, count=1)
    pg.compile(model, pg.DeepLIFT(start[0], target=1), tmp_path / "m.onnx")
    rows = models.images((5,), count=4)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    own, there = (session.run(None, {"x": v})[0][:, 1] for v in (rows, start))
    found = runtime.load(tmp_path / "m.onnx").run(rows)["deep_lift/x"].array
    np.testing.assert_allclose(found.sum(1), own - there, rtol=1e-4, atol=1e-5)
