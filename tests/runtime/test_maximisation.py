"""Activation maximisation: against what is known in closed form, and what is refused."""

import keras
import numpy as np
import onnx
import onnx.parser
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import InputError
from probegen.runtime import metrics
from probegen.runtime.bases import Basis, total_variation
from tests import models
from tests.runtime.figures import says, titled
from tests.runtime.metrics.conftest import images, network

LINEAR = """
<ir_version: 8, opset_import: ["" : 18]>
line (float[batch, 2, 5, 7] image) => (float[batch, 3] y)
{
    flat = Flatten (image)
    y = MatMul (flat, weights)
}
"""
WEIGHTS = np.random.default_rng(5).normal(size=(2, 5, 7, 3)).astype(np.float32)


COLUMNS = WEIGHTS.reshape(-1, 3)


def compiled(place, probes, text=LINEAR, weights=COLUMNS, **options):
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    pg.compile(proto, probes, place / "m.onnx", verify=False, **options)
    return runtime.load(place / "m.onnx", threads=1)


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    """`y = image . WEIGHTS`, with a gate and the gradient of a class that a run names."""
    place = tmp_path_factory.mktemp("linear")
    return compiled(place, pg.InputGradient(target="input"), class_names=["a", "b", "c"])


@pytest.fixture(scope="module")
def keras_images(tmp_path_factory):
    place = tmp_path_factory.mktemp("keras")
    pg.compile(
        models.cnn(), [pg.InputGradient(target="input"), pg.Saliency()], place / "m.onnx",
        verify=False, class_names=["ant", "bee", "cow", "dog"],
    )  # fmt: skip
    return runtime.load(place / "m.onnx", threads=1)


@pytest.mark.parametrize("basis", ["element", "frequency"])
def test_a_linear_score_with_a_cost_has_one_best_input(linear, basis):
    """`w x - l2 x^2` is largest at `w / (2 l2)`."""
    found = runtime.maximise(linear, target=[1, 2], l2=0.5, steps=400, rate=0.2, basis=basis)
    expected = np.moveaxis(WEIGHTS[..., [1, 2]], -1, 0)
    np.testing.assert_allclose(found.input, expected, atol=1e-3)
    assert found.history.shape == (401, 2)
    scores = np.einsum("bchw,chwk->bk", found.input, WEIGHTS)[[0, 1], [1, 2]]
    np.testing.assert_allclose(found.history[-1], scores, rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(found), found.result.run.inputs["image"])


@pytest.mark.parametrize("basis", ["element", "frequency"])
def test_bounds_hold_and_are_reached(linear, basis):
    """A linear score is largest at the ends: each element by the sign of its weight."""
    found = runtime.maximise(
        linear, target="b", bounds=(-2, 3), steps=300, rate=0.3, basis=basis
    ).input
    assert found.min() >= -2
    assert found.max() <= 3
    strong = np.abs(WEIGHTS[..., 1]) > 0.3
    agree = (found[0] > 0.5) == (WEIGHTS[..., 1] > 0)
    assert agree[strong].all()
    assert np.abs(found[0][strong] - 0.5).mean() > 2


def test_a_row_does_not_depend_on_the_others(linear):
    alone = runtime.maximise(linear, target=2, steps=9, jitter=1)
    three = runtime.maximise(linear, target=[0, 2, 1], steps=9, jitter=1)
    np.testing.assert_allclose(three.input[1:2], alone.input, rtol=1e-4, atol=1e-6)


def test_the_seed_decides(keras_images):
    def run(seed):
        return runtime.maximise(keras_images, target="cow", steps=8, jitter=2, seed=seed).input

    np.testing.assert_array_equal(run(0), run(0))
    assert np.abs(run(0) - run(1)).max() > 1e-3


def test_the_score_of_a_network_grows(keras_images):
    model = models.cnn()
    model.get_layer("scores").activation = keras.activations.linear
    for name in (None, "input_gradient/image", "scores"):
        found = runtime.maximise(keras_images, name, target=[0, 3], steps=60, bounds=(-2, 2))
        assert found.output == "input_gradient/image"
        assert found.input.shape == (2, 11, 8, 2)
        assert (found.history[-1] > found.history[0]).all()
        begun = runtime.maximise(keras_images, name, target=[0, 3], steps=1, rate=1e-9)
        logits = [model.predict_on_batch(f.input)[[0, 1], [0, 3]] for f in (begun, found)]
        assert (logits[1] > logits[0] + 0.05).all()


def test_a_start_is_where_it_begins(keras_images):
    x = models.images((11, 8, 2))[:2]
    for bounds in (None, (float(x.min()) - 1, float(x.max()) + 1)):
        found = runtime.maximise(keras_images, target=1, start=x, steps=1, rate=1e-9, bounds=bounds)
        np.testing.assert_allclose(found.input, x, atol=1e-4)
    scores = keras_images.run(x, explain=False)["scores"].array[:, 1]
    np.testing.assert_allclose(found.history[0], scores, rtol=1e-3)


def test_total_variation_makes_it_smoother(linear):
    def rough(cost):
        found = runtime.maximise(linear, target=0, l2=0.5, total_variation=cost, steps=100)
        return total_variation(found.input.astype(float), [2, 3])[0][0]

    assert rough(1.0) < 0.5 * rough(0.0)


def test_the_gradient_of_total_variation():
    """Finite differences of the value, which is a plain loop's."""
    x = np.random.default_rng(3).normal(size=(2, 4, 3))
    value, gradient = total_variation(x, [1, 2])
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1)), mode="edge")
    expected = [
        sum(np.hypot(row[i + 1, j] - row[i, j], row[i, j + 1] - row[i, j])
            for i in range(4) for j in range(3)) for row in padded
    ]  # fmt: skip
    np.testing.assert_allclose(value, expected, rtol=1e-2)
    for at in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[at] = 1e-6
        slope = sum(total_variation(x + s * step, [1, 2])[0][at[0]] * s for s in (1, -1)) / 2e-6
        assert gradient[at] == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "axes"), [((3, 5, 7, 2), (1, 2)), ((2, 6, 3), (1,)), ((2, 4), ())]
)
def test_a_basis_turns_back_and_its_gradient_is_its_transpose(shape, axes):
    rng = np.random.default_rng(4)
    basis = Basis.of(shape, axes)
    x, g = rng.normal(size=shape), rng.normal(size=shape)
    np.testing.assert_allclose(basis.input_of(basis.coefficients_of(x)), x, atol=1e-12)
    inner = (basis.input_of(x) * g).sum()
    np.testing.assert_allclose((x * basis.gradient_of(g)).sum(), inner)
    assert (basis.scale**2).mean() == pytest.approx(1)


def test_low_frequencies_count_more():
    scale = Basis.of((1, 8, 1), (1,)).scale[0, :, 0]
    np.testing.assert_allclose(scale[1] / scale[[0, 1, 2, 4, 7]], [1, 1, 2, 4, 1])
    np.testing.assert_allclose(Basis.of((1, 8, 1), (1,), decay=0).scale, 1)


def test_a_table_and_an_open_size(tmp_path):
    table = """
    <ir_version: 8, opset_import: ["" : 18]>
    line (float[batch, 6] row) => (float[batch, 3] y) { y = MatMul (row, weights) }
    """
    weights = COLUMNS[:6]
    art = compiled(tmp_path, pg.InputGradient(target=2), table, weights, gate=False)
    found = runtime.maximise(art, l2=0.5, steps=300, rate=0.2)
    np.testing.assert_allclose(found.input, weights[None, :, 2], atol=1e-3)
    figure = found.plot(feature_names=list("uvwxyz"))
    assert says(figure, "u")
    with pytest.raises(InputError, match="has no positions, and so no frequencies"):
        runtime.maximise(art, basis="frequency")
    with pytest.raises(InputError, match="cost of neighbours"):
        runtime.maximise(art, total_variation=1.0)
    with pytest.raises(InputError, match="jitter shifts positions"):
        runtime.maximise(art, jitter=1)
    with pytest.raises(InputError, match="it was fixed when the artefact was compiled"):
        runtime.maximise(art, target=1)

    pooled = """
    <ir_version: 8, opset_import: ["" : 18]>
    mean (float[batch, 2, H, W] image) => (float[batch, 3] y)
    {
        c = GlobalAveragePool (image)
        d = Flatten (c)
        y = MatMul (d, weights)
    }
    """
    art = compiled(tmp_path, pg.InputGradient(target=2), pooled, COLUMNS[:2])
    with pytest.raises(InputError, match=r"any size on the axis 'height'; say which: sizes="):
        runtime.maximise(art)
    found = runtime.maximise(art, sizes={"height": 4, "width": 6, "batch": 2}, steps=3)
    assert found.input.shape == (2, 2, 4, 6)
    with pytest.raises(InputError, match="sizes names the axis 'depth'"):
        runtime.maximise(art, sizes={"depth": 4})


def test_several_inputs(tmp_path):
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    two (float[batch, 6] row, float[batch, 6] other) => (float[batch, 3] y)
    { a = Mul (row, other)
      y = MatMul (a, weights) }
    """
    weights = COLUMNS[:6]
    art = compiled(tmp_path, pg.InputGradient(target=0, wrt="input"), text, weights)
    other = np.array([[1, 2, 0.5, -1, 1, 3]] * 2, np.float32)
    found = runtime.maximise(
        art, "input_gradient/row", start={"other": other}, l2=0.5, steps=300, rate=0.3
    )
    np.testing.assert_allclose(found.input, other * weights[:, 0], atol=5e-3)
    np.testing.assert_array_equal(found.result.run.inputs["other"], other)
    with pytest.raises(InputError, match="several gradients could be followed"):
        runtime.maximise(art, start={"other": other})
    with pytest.raises(InputError, match=r"takes 'other' as well.*start=\{'other'"):
        runtime.maximise(art, "input_gradient/row")


def test_pictures(keras_images, tmp_path):
    found = runtime.maximise(keras_images, target="dog", steps=5)
    figure = found.plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert says(figure, "Maximised input: image")
    assert says(figure, "the ascent is on the score before softmax")
    grey = compiled(tmp_path, pg.InputGradient(target=0), LINEAR.replace("2, 5, 7", "10, 7, 1"))
    found = runtime.maximise(grey, steps=5)
    panel = titled(found.plot(), "found").images[0].get_array()
    assert panel.shape == (10, 7, 3)
    with pytest.raises(InputError, match="no sample 3"):
        found.plot(sample=3)


def test_what_has_no_gradient_is_refused(tmp_path, keras_images):
    none = compiled(tmp_path, pg.Saliency(target="input"))
    with pytest.raises(InputError, match=r"has no gradient of an input.*InputGradient\(target="):
        runtime.maximise(none, target=1)
    best = compiled(tmp_path, pg.InputGradient())
    with pytest.raises(InputError, match=r"whichever class is the highest.*InputGradient"):
        runtime.maximise(best)
    inner = compiled(tmp_path, pg.InputGradient(target=0, wrt="flat"))
    with pytest.raises(InputError, match="has no gradient of an input"):
        runtime.maximise(inner)
    with pytest.raises(InputError, match=r"no output 'input_gradient/imag'.*mean"):
        runtime.maximise(keras_images, "input_gradient/imag", target=1)
    with pytest.raises(InputError, match="'saliency/image' is no gradient of an input"):
        runtime.maximise(keras_images, "saliency/image", target=1)


def test_ids_are_refused(tmp_path):
    ids = keras.Input((9,), dtype="int32", name="tokens")
    y = keras.layers.Flatten()(keras.layers.Embedding(13, 2)(ids))
    model = keras.Model(ids, keras.layers.Dense(3)(y))
    pg.compile(model, pg.InputGradient(target=1), tmp_path / "m.onnx", verify=False)
    art = runtime.load(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="holds whole numbers, such as ids"):
        runtime.maximise(art)


def test_a_dead_start_is_said(tmp_path):
    text = """
    <ir_version: 8, opset_import: ["" : 18]>
    dead (float[batch, 6] row) => (float[batch, 3] y)
    { a = Relu (row)
      y = MatMul (a, weights) }
    """
    art = compiled(tmp_path, pg.InputGradient(target=0), text, COLUMNS[:6])
    with pytest.raises(InputError, match="was zero in every step"):
        runtime.maximise(art, start=np.full((1, 6), -5.0), steps=3)


def test_wrong_arguments(keras_images):
    for options, says_ in (
        ({}, "say which class"),
        ({"target": -1}, "-1 is no class"),
        ({"target": [1, None]}, "None is no class"),
        ({"target": 4}, "out of range"),
        ({"target": "eel"}, "no class 'eel'"),
        ({"target": 1, "steps": 0}, "steps is 0"),
        ({"target": 1, "rate": -1}, "rate is -1"),
        ({"target": 1, "l2": -1}, "l2 is -1"),
        ({"target": 1, "l2": float("nan")}, "l2 is nan"),
        ({"target": 1, "bounds": (1, 0)}, "bounds is"),
        ({"target": 1, "bounds": 3}, "bounds is 3"),
        ({"target": 1, "basis": "wavelet"}, "basis is 'wavelet'"),
        ({"target": 1, "jitter": 8}, "only 8 positions"),
        ({"target": 1, "jitter": -2}, "jitter is -2"),
        ({"target": 1, "start": np.zeros((1, 3))}, "input 'image'"),
        ({"target": 1, "start": np.full((1, 11, 8, 2), np.nan)}, "not finite"),
        (
            {"target": 1, "start": np.full((1, 11, 8, 2), 5.0), "bounds": (0, 1)},
            "beyond the bounds",
        ),
        ({"target": [1, 2], "start": np.zeros((1, 11, 8, 2))}, "start has 1 sample"),
        ({"target": 1, "sizes": {"height": 4}}, "has the size 11 on the axis 'height', not 4"),
    ):
        with pytest.raises(InputError, match=says_):
            runtime.maximise(keras_images, **{"steps": 2, **options})


def test_a_bar_is_shown_where_it_is_asked_for(linear, capsys):
    runtime.maximise(linear, target=1, steps=2)
    assert capsys.readouterr().err == ""
    runtime.maximise(linear, target=1, steps=2, progress=True)


def test_a_channel_of_a_layer(tmp_path):
    """Its history is read where the artefact gives the layer's activations out, too."""
    x = images(1)
    for more in ([], [pg.Activations("a")]):
        probes = [pg.InputGradient(of="a", target=3), *more]
        pg.compile(network(), probes, tmp_path / "m.onnx", verify=False, overwrite=True)
        art = runtime.load(tmp_path / "m.onnx", threads=1)
        found = runtime.maximise(art, start=x, l2=0.1, steps=40, rate=0.3)
        assert (found.history is None) == (not more)
        with pytest.raises(InputError, match="explains entries of the layer 'a'"):
            metrics.deletion(art, x, "input_gradient/image")
    channel = found.result["activation/a"].array[0, 3].sum()
    assert found.history[-1] == pytest.approx(channel, rel=1e-4)
    assert found.history[-1] > found.history[0] + 10
    assert says(found.plot(), "channel 3 of a")
