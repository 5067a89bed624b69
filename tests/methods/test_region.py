"""`region="input"`: positions of an output weighed by the request, against plain models."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InputError, InstrumentError, SpecError, VerificationError
from probegen.graph import attribution
from tests import models
from tests.command_line import status_of


def close(found, expected, size=None):
    size = max(np.abs(expected).max(), 1e-6) if size is None else size
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * size)


def segmenting(sizes=(7, 5), classes=4):
    keras.utils.set_random_seed(7)
    image = keras.Input((*sizes, 2), name="image")
    x = layers.Conv2D(5, 3, padding="same", activation="tanh", name="first")(image)
    x = layers.Conv2D(classes, (3, 2), padding="same", name="before")(x)
    return keras.Model(image, layers.Softmax(name="segments")(x))


def region_of(shape, count):
    """Any numbers, negative ones too; one position; zeros; ones."""
    found = np.random.default_rng(5).normal(size=(count, *shape)).astype(np.float32)
    found[1:] = 0
    found[1:2, 2, 1:2] = -1.5
    found[3:] = 1
    return found


def scores_of(model, name="before"):
    return keras.Model(model.inputs, model.get_layer(name).output)


def gradient(scores, x, seed_of):
    """The gradient of the weighed sum of scores, by TensorFlow on the untouched model."""
    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = scores(x)
        total = tf.reduce_sum(values * seed_of(values.numpy()))
    return tape.gradient(total, x).numpy()


def best_at_each(region):
    return lambda values: (
        np.eye(values.shape[-1])[values.argmax(-1)].astype("f4") * region[..., None]
    )


@pytest.mark.parametrize("path", ["m.onnx", "saved"])
@pytest.mark.parametrize("sizes", [(7, 5), (None, None)])
def test_a_segmentation(tmp_path, path, sizes):
    model = segmenting(sizes)
    probes = [
        pg.InputGradient(region="input"),
        pg.InputGradient(2, region="input", name="of_2"),
        pg.InputGradient(pg.contrast(1, "argmax"), region="input", name="contrast"),
        pg.InputGradient("top:2", region="input", name="best"),
        pg.InputGradient(name="unweighed"),
    ]
    exported = pg.compile(model, probes, tmp_path / path)
    assert all(p.passed for p in exported.report.values())
    art, scores = runtime.load(tmp_path / path), scores_of(model)
    assert art.manifest.region_input.axes == ("batch", "height", "width")
    for count, size in ((1, (7, 5)), (4, (7, 5) if sizes[0] else (4, 9))):
        x, region = models.images((*size, 2), count=count), region_of(size, count)
        found = art.run(x, region=region)
        close(found["input_gradient/image"].array, gradient(scores, x, best_at_each(region)))

        def second(_, region=region):
            return np.eye(4, dtype="f4")[2] * region[..., None]

        close(found["of_2"].array, gradient(scores, x, second))

        def differing(values, region=region):
            return np.eye(4, dtype="f4")[1] * region[..., None] - best_at_each(region)(values)

        close(found["contrast"].array, gradient(scores, x, differing))
        order = np.argsort(-scores(x).numpy(), -1, kind="stable")
        for k in range(2):

            def ranked(_, region=region, order=order, k=k):
                return np.eye(4, dtype="f4")[order[..., k]] * region[..., None]

            close(found["best"].array[:, k], gradient(scores, x, ranked))
        ones = best_at_each(np.ones_like(region))
        plain = gradient(scores, x, ones)
        close(found["unweighed"].array, plain)
        close(art.run(x)["input_gradient/image"].array, plain)
        alone = art.run(x, region=region[0])["input_gradient/image"].array[:1]
        close(alone, found["input_gradient/image"].array[:1])


def test_other_methods_weigh_alike(tmp_path):
    probes = [
        pg.IntegratedGradients(40, region="input", completeness=True),
        pg.DeepLIFT(0.2, region="input", completeness=True),
        pg.Occlusion(3, region="input"),
        pg.GradCAM("first", region="input"),
        pg.KernelSHAP("grid:2", region="input"),
        pg.Saliency("all", region="input"),
    ]
    model = segmenting()
    exported = pg.compile(model, probes, tmp_path / "m.onnx")
    assert all(p.passed for p in exported.report.values())
    x, region = models.images((7, 5, 2), count=4), region_of((7, 5), 4)
    found = runtime.load(tmp_path / "m.onnx").run(x, region=region)
    scores = scores_of(model)
    seed = best_at_each(region)(scores(x).numpy()).astype(np.float64)

    def worth(y):
        return (scores(y).numpy() * seed).sum((1, 2, 3))

    size = np.abs(worth(x)).max()
    for name, start in (("integrated_gradients", 0.0), ("deep_lift", 0.2)):
        whole = found[f"{name}/image"].array.astype(np.float64).sum((1, 2, 3))
        gained = worth(x) - worth(np.full_like(x, start))
        close(found[f"completeness/{name}/image"].array, whole - gained, size)
        np.testing.assert_allclose(whole, gained, atol=1e-2 * size)
    left = x.copy()
    left[:, :3, :3] = 0
    corner = found["occlusion/image"].array[:, 0, 0]
    close(corner, worth(x) - worth(left), size)
    assert np.all(found["occlusion/image"].array[2] == 0)
    assert found["saliency/image"].array.shape == (4, 4, 7, 5)


#: Scores `[n, 3, h, w]`, the classes before the positions.
ONNX_TEXT = """<ir_version: 9, opset_import: ["" : 17]>
  g (float[n, 2, h, w] x) => (float[n, 3, h, w] y)
  <float[3, 2, 3, 3] k = {%s}>
  { bent = Tanh(x)  z = Conv <pads = [1, 1, 1, 1]> (bent, k)  scores = Mul(z, z)
    y = Softmax <axis = 1> (scores) }"""
K = ((np.arange(54) * 11 % 17 - 8) / 9).astype(np.float32)


def test_an_onnx_file_with_classes_before_positions(tmp_path):
    proto = onnx.parser.parse_model(ONNX_TEXT % ", ".join(map(str, K)))
    probes = [
        pg.InputGradient(region="input"),
        pg.InputGradient(1, region="input", name="of_1"),
        pg.FeatureAblation("grid:2", region="input"),
    ]
    pg.compile(proto, probes, tmp_path / "m.onnx")
    art = runtime.load(tmp_path / "m.onnx")
    assert art.manifest.region_input.shape == (None, None, None)
    proto.graph.output[0].name = "scores"
    plain = onnxruntime.InferenceSession(proto.SerializeToString())
    for count, (height, width) in ((1, (5, 4)), (4, (3, 6))):
        x = models.images((2, height, width), count=count)
        region = region_of((height, width), count)
        found = art.run(x, region=region)
        (scores,) = plain.run(["scores"], {"x": x})
        best = np.moveaxis(np.eye(3)[scores.argmax(1)], -1, 1) * region[:, None]
        second = np.eye(3)[1].reshape(1, 3, 1, 1) * region[:, None]
        for name, seed in (("input_gradient/x", best), ("of_1", second)):
            slopes = np.zeros(x.shape)
            for at in np.ndindex(x.shape[1:]):
                step = np.zeros(x.shape, np.float32)
                step[(slice(None), *at)] = 1e-2
                ahead, behind = (plain.run(["scores"], {"x": x + s})[0] for s in (step, -step))
                slopes[(slice(None), *at)] = ((ahead - behind) * seed).sum((1, 2, 3)) / 2e-2
            np.testing.assert_allclose(
                found[name].array, slopes, atol=2e-3 * max(1, np.abs(slopes).max())
            )


def test_steps_of_a_sequence_and_both_forms_of_a_keras_model(tmp_path):
    keras.utils.set_random_seed(2)
    series = keras.Input((6, 3), name="series")
    x = layers.Conv1D(4, 3, padding="causal", activation="relu", name="kept")(series)
    model = keras.Model(series, layers.Dense(5, name="before")(x))
    probe = pg.InputGradient("input", region="input")
    pg.compile(model, probe, tmp_path / "m.onnx")
    x, region = models.images((6, 3), count=4), region_of((6, 1), 4)[..., 0]
    target = np.array([0, 3, -1, 4])
    art = runtime.load(tmp_path / "m.onnx")
    found = art.run(x, target=target, region=region)["input_gradient/series"].array

    def asked(values):
        chosen = np.where(target[:, None] < 0, values.argmax(-1), target[:, None])
        return np.eye(5, dtype="f4")[chosen] * region[..., None]

    expected = gradient(scores_of(model), x, asked)
    close(found, expected)
    parts = art.run_batched(x, 3, target=target, region=region)
    close(parts["input_gradient/series"].array, expected)
    probed = pg.instrument(model, probe)
    close(np.asarray(probed(x, target=target, region=region)["input_gradient/series"]), expected)
    close(
        np.asarray(
            probed({"series": x, "region": region, "target": target})["input_gradient/series"]
        ),
        expected,
    )
    ones = np.asarray(probed(x, target=target)["input_gradient/series"])
    close(ones, art.run(x, target=target)["input_gradient/series"].array)
    assert [i.name for i in onnx.load(tmp_path / "m.onnx").graph.input] == [
        "series",
        "target",
        "region",
        "explain",
    ]


def test_positions_of_a_layer(tmp_path):
    model = models.cnn()
    layer = next(v for v in model.layers if isinstance(v, layers.Conv2D))
    probes = [
        pg.InputGradient(of=layer.name, region="input", name="best"),
        pg.InputGradient(1, of=layer.name, region="input", name="one"),
        pg.InputGradient("top:2", of=layer.name, region="input", name="two"),
    ]
    pg.compile(model, probes, tmp_path / "m.onnx")
    scores = scores_of(model, layer.name)
    size = scores.output.shape[1:3]
    x, region = models.images((11, 8, 2), count=4), region_of(size, 4)
    region[2, 1] = 0.5
    found = runtime.load(tmp_path / "m.onnx").run(x, region=region)
    values = scores(x).numpy()
    sums = (values * region[..., None]).sum((1, 2))
    order = np.argsort(-sums, -1, kind="stable")
    units = np.eye(values.shape[-1], dtype="f4")

    def weighed(chosen):
        return gradient(scores, x, lambda _: chosen[:, None, None] * region[..., None])

    close(found["best"].array, weighed(units[order[:, 0]]))
    close(found["one"].array, weighed(np.broadcast_to(units[1], (4, len(units)))))
    close(found["two"].array[:, 1], weighed(units[order[:, 1]]))
    assert np.array_equal(found["two/classes"].array, order[:, :2])


def test_what_does_not_fit(tmp_path):
    with pytest.raises(InstrumentError, match=r"weighs positions.*output 'scores'.*has none"):
        pg.compile(models.cnn(), pg.Saliency(region="input"), tmp_path / "m.onnx")
    with pytest.raises(SpecError, match="region= takes one of 'input'"):
        pg.Saliency(region="all")
    with pytest.raises(SpecError, match="goes without region="):
        pg.Saliency(lambda y: y[:, 0, 0, 0], region="input")
    named = keras.Input((4, 3), name="region")
    taken = keras.Model(named, layers.Conv1D(2, 3, padding="same")(named))
    with pytest.raises(InstrumentError, match="an input called 'region'"):
        pg.compile(taken, pg.Saliency(region="input"), tmp_path / "m.onnx")
    model = segmenting()
    pooled = layers.MaxPooling2D(2, name="pooled")(model.get_layer("first").output)
    both = keras.Model(model.input, [model.output, pooled])
    several = [pg.Saliency(region="input", output=i) for i in range(2)]
    with pytest.raises(InstrumentError, match=r"one input for all probes.*several shapes"):
        pg.compile(both, several, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_regions_that_do_not_fit(tmp_path):
    pg.compile(segmenting(), pg.Saliency(region="input"), tmp_path / "m.onnx", verify=False)
    art, x = runtime.load(tmp_path / "m.onnx"), models.images((7, 5, 2))
    for region, says in (
        (np.ones((3, 7, 4)), "has the size 4 on the axis 'width'"),
        (np.ones((2, 7, 5)), "has the size 2 on the axis 'batch'"),
        (np.full((7, 5), np.nan), "holds numbers that are not finite"),
        (np.full((7, 5), "a"), "region"),
    ):
        with pytest.raises(InputError, match=says):
            art.run(x, region=region)
    mask = np.zeros((7, 5), bool)
    mask[2:4, 1:] = True
    weighed = art.run(x, region=mask)["saliency/image"].array
    close(weighed, art.run(x, region=mask.astype(float))["saliency/image"].array)
    rows = np.arange(1, 8)[:, None]  # an axis of size 1 holds for all positions along it
    whole = art.run(x, region=np.broadcast_to(rows, (7, 5)))["saliency/image"].array
    for region in (rows, np.broadcast_to(rows, (len(x), 7, 1))):
        close(art.run(x, region=region)["saliency/image"].array, whole)
    assert "region" in repr(art)
    pg.compile(models.cnn(), pg.Saliency(), tmp_path / "n.onnx", verify=False)
    with pytest.raises(InputError, match="takes none: compile with region='input'"):
        runtime.load(tmp_path / "n.onnx").run(models.images((11, 8, 2)), region=np.ones((7, 5)))
    with pytest.raises(InstrumentError, match="region takes arrays of shape"):
        pg.instrument(segmenting(), pg.Saliency(region="input"))(x, region=np.ones((3, 7, 4)))


def test_the_command_line(tmp_path, capsys):
    model = segmenting()
    model.save(tmp_path / "m.keras")
    made = ("compile", tmp_path / "m.keras", "-o", tmp_path / "m.onnx", "--no-verify")
    assert status_of(*made, "--input-gradient", "--region") == 0
    np.save(tmp_path / "x.npy", models.images((7, 5, 2)))
    np.save(tmp_path / "r.npy", np.zeros((7, 5)))
    capsys.readouterr()
    given = ("run", tmp_path / "m.onnx", tmp_path / "x.npy", "--npz", tmp_path / "o.npz")
    assert status_of(*given, "--region", tmp_path / "r.npy") == 0
    assert np.all(runtime.read_npz(tmp_path / "o.npz")["input_gradient/image"].array == 0)
    assert status_of(*given) == 0
    assert np.any(runtime.read_npz(tmp_path / "o.npz")["input_gradient/image"].array != 0)


def test_a_region_that_is_left_out_is_found(tmp_path, monkeypatch):
    right = attribution.seed
    monkeypatch.setattr(attribution, "seed", lambda *given: right(*given[:4]))
    with pytest.raises(VerificationError, match="input_gradient/image"):
        pg.compile(segmenting(), pg.InputGradient(region="input"), tmp_path / "m.onnx")
