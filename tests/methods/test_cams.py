"""Class activation maps against plain numpy, from gradient tapes and from finite differences."""

import keras
import numpy as np
import onnx.parser
import onnxruntime
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from tests.methods import cams
from tests.sources.keras.support import logits

#: Method -> its twin, of one sample's gradient and activations with the channels last.
TWINS = {
    pg.GradCAM: cams.grad_cam,
    pg.GradCAMPlusPlus: cams.grad_cam_plus_plus,
    pg.HiResCAM: cams.hires_cam,
    pg.LayerCAM: cams.layer_cam,
    pg.XGradCAM: cams.x_grad_cam,
    pg.EigenCAM: cams.eigen_cam,
}
SIZES = {1: (11,), 2: (9, 7), 3: (6, 5, 4)}
CONVOLUTIONS = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}


def model_of(rank, activation, seed=3):
    """One convolution with positions that count differently, and a third class that sees none."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((*SIZES[rank], 2), name="x")
    y = CONVOLUTIONS[rank](5, 3, activation=activation, name="maps")(x)
    y = layers.Flatten(name="flat")(y)
    y = layers.Dense(8, activation="tanh", name="hidden")(y)
    model = keras.Model(x, layers.Dense(3, activation="softmax", name="scores")(y))
    kernel, bias = model.get_layer("scores").get_weights()
    kernel[:, 2] = 0
    model.get_layer("scores").set_weights([kernel, bias])
    return model


def data_of(rank, count, seed=0):
    """Samples of both signs; the last is zeros."""
    drawn = np.random.default_rng(seed).standard_normal((count, *SIZES[rank], 2))
    drawn[-1] = 0
    return drawn.astype(np.float32)


def taped(model, x, target):
    """Returns gradient and activations by a tape on the untouched model."""
    plain = logits(model)
    both = keras.Model(plain.inputs, [plain.get_layer("maps").output, *plain.outputs])
    with tf.GradientTape() as tape:
        maps, scores = both(tf.constant(x))
        score = tf.reduce_sum(scores[:, target])
    return tape.gradient(score, maps).numpy(), maps.numpy()


def assert_maps(found, gradient, maps, what=""):
    """Compares every method of `found` with its twin."""
    for method, twin in TWINS.items():
        expected = np.stack([twin(g, a) for g, a in zip(gradient, maps, strict=True)])
        got = found[method.kind]
        assert got.shape == expected.shape, (what, method)
        assert (got >= 0).all(), (what, method)
        scale = max(np.abs(expected).max(), 1e-6)
        np.testing.assert_allclose(
            got, expected, rtol=2e-4, atol=2e-5 * scale, err_msg=f"{what} {method.__name__}"
        )


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_keras_maps_are_those_of_a_tape(tmp_path, rank, activation):
    model = model_of(rank, activation)
    probes = [m("maps", target=1, name=m.kind) for m in TWINS]
    # A class that does not see the layer has a map of zeros.
    unseen = [m("maps", target=2, name=f"{m.kind} unseen") for m in TWINS if m.needs_gradient]
    report = pg.compile(model, [*probes, *unseen], tmp_path / "m.onnx").report
    assert report.passed
    art, probed = runtime.load(tmp_path / "m.onnx"), pg.instrument(model, probes)
    for count in (2, 3):
        x = data_of(rank, count)
        gradient, maps = taped(model, x, 1)
        result, eager = art.run(x), probed(x)
        assert_maps({p.kind: result[p.kind].array for p in probes}, gradient, maps, "ONNX")
        assert_maps({p.kind: np.asarray(eager[p.kind]) for p in probes}, gradient, maps, "Keras")
        for probe in unseen:
            np.testing.assert_array_equal(result[probe.name].array, 0)


# -- ONNX files: channels first ----------------------------------------------------------------

#: What follows the layer; the weights of the positions make it differ from place to place.
TAIL = """
    squared = Mul (a, a)
    both = Add (squared, a)
    weighed = Mul (both, places)
    means = ReduceMean <axes = [{axes}], keepdims = 0> (weighed)
    bent = Tanh (means)
    scores = MatMul (bent, weights)
"""


def file_of(rank, activation):
    """Returns an ONNX file, and what follows its layer `a` as a file in double precision."""
    sizes = tuple(s - 2 for s in SIZES[rank])
    tail = TAIL.format(axes=", ".join(str(i + 2) for i in range(rank)))
    shape = ", ".join(map(str, SIZES[rank]))
    head = f"y = Conv (x, k)\n a = {activation} (y)"
    signature = '<ir_version: 8, opset_import: ["" : 13]>'
    whole = onnx.parser.parse_model(
        f"{signature} g (float[batch, 2, {shape}] x) => (float[batch, 3] scores) "
        f"{{ {head} {tail} }}"
    )
    inner = ", ".join(map(str, sizes))
    behind = onnx.parser.parse_model(
        f"{signature} g (double[batch, 5, {inner}] a) => (double[batch, 3] scores) {{ {tail} }}"
    )
    rng = np.random.default_rng(rank)
    weights = {
        "k": rng.standard_normal((5, 2, *(3,) * rank)) / 2,
        "places": rng.standard_normal((1, 5, *sizes)),
        "weights": rng.standard_normal((5, 3)),
    }
    for name, array in weights.items():
        single = onnx.numpy_helper.from_array(array.astype(np.float32), name)
        whole.graph.initializer.append(single)
        if name != "k":
            exact = array.astype(np.float32).astype(np.float64)
            behind.graph.initializer.append(onnx.numpy_helper.from_array(exact, name))
    onnx.checker.check_model(whole)
    return whole, behind


def differences(behind, maps, target, step=1e-5):
    """Returns the gradient at the layer by central differences, in double precision."""
    session = onnxruntime.InferenceSession(behind.SerializeToString())
    score = lambda a: session.run(None, {"a": a})[0][:, target]  # noqa: E731
    maps = maps.astype(np.float64)
    gradient = np.zeros_like(maps)
    for at in np.ndindex(maps.shape[1:]):
        moved = np.zeros_like(maps)
        moved[(slice(None), *at)] = step
        gradient[(slice(None), *at)] = (score(maps + moved) - score(maps - moved)) / (2 * step)
    return gradient


@pytest.mark.parametrize(
    ("rank", "activation"), [(1, "Relu"), (2, "Tanh"), (2, "Relu"), (3, "Tanh")]
)
def test_maps_of_a_file_are_those_of_differences(tmp_path, rank, activation):
    whole, behind = file_of(rank, activation)
    probes = [m("a", target=0, name=m.kind) for m in TWINS]
    assert pg.compile(whole, probes, tmp_path / "m.onnx").report.passed
    seen = onnx.ModelProto()
    seen.CopyFrom(whole)
    seen.graph.output.append(onnx.helper.make_empty_tensor_value_info("a"))
    session = onnxruntime.InferenceSession(seen.SerializeToString())
    art = runtime.load(tmp_path / "m.onnx")
    for count in (2, 3):
        x = np.moveaxis(data_of(rank, count), -1, 1)
        maps = session.run(["a"], {"x": x})[0]
        gradient = differences(behind, maps, 0)
        result = art.run(x)
        last = [np.moveaxis(v, 1, -1) for v in (gradient, maps)]
        assert_maps({p.kind: result[p.kind].array for p in probes}, *last, "file")


# -- EigenCAM ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "sizes"), [(40, (3, 4)), (3, (9, 8))])
def test_eigen_cam_of_more_channels_than_positions_and_of_fewer(tmp_path, channels, sizes):
    keras.utils.set_random_seed(1)
    x = keras.Input((*sizes, 2), name="x")
    y = layers.Conv2D(channels, 1, activation="tanh", name="maps")(x)
    y = layers.GlobalAveragePooling2D()(y)
    model = keras.Model(x, layers.Dense(2)(y))
    probes = [pg.EigenCAM(centre=centre, name=str(centre)) for centre in (False, True)]
    pg.compile(model, probes, tmp_path / "m.onnx")
    data = np.random.default_rng(2).standard_normal((4, *sizes, 2)).astype(np.float32)
    data[3] = 0
    result = runtime.load(tmp_path / "m.onnx").run(data)
    maps = np.asarray(keras.Model(x, model.get_layer("maps").output)(data))
    for centre in (False, True):
        found = result[str(centre)].array
        expected = np.stack([cams.eigen_cam(None, a, centre) for a in maps])
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
        assert (found[3] == 0).all()


def test_eigen_cam_of_two_equal_directions_is_finite_and_the_same_at_every_call(tmp_path):
    """Two channels that are one another's mirror image have no first direction."""
    x = keras.Input((4, 5, 2), name="x")
    y = layers.Activation("linear", name="maps")(x)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    pg.compile(model, pg.EigenCAM("maps"), tmp_path / "m.onnx")
    data = np.zeros((3, 4, 5, 2), np.float32)
    data[0, 0, 0, 0] = data[0, 1, 1, 1] = 1
    data[1, ..., 0], data[1, ..., 1] = 2, -2
    data[2, 0, 0, 0], data[2, 1, 1, 1] = 1, -1
    art = runtime.load(tmp_path / "m.onnx")
    found = art.run(data)["eigen_cam/maps"].array
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, art.run(data)["eigen_cam/maps"].array)
    # The first has any direction; the second has (1, -1), whose mean lies on the positive side.
    np.testing.assert_allclose(found[1], np.sqrt(8), rtol=1e-5)


def test_eigen_cam_needs_no_gradient(tmp_path):
    """Neither a gradient that stops, nor a class that does not see the layer, is in its way."""
    model = model_of(2, "relu")
    exported = pg.compile(model, [pg.EigenCAM("maps", target=2)], tmp_path / "m.onnx")
    figures = exported.report["eigen_cam/maps"]
    assert (figures.passed, figures.witness) == (True, "source model")
    names = {n.op_type for n in onnx.load(tmp_path / "m.onnx").graph.node}
    assert "ConvTranspose" not in names


# -- where maps are ----------------------------------------------------------------------------


def test_auto_finds_one_map_a_call_for_each_method(tmp_path):
    keras.utils.set_random_seed(2)
    a, b = keras.Input((8, 6, 2), name="a"), keras.Input((8, 6, 2), name="b")
    conv, pool = layers.Conv2D(3, 3, activation="relu", name="maps"), layers.GlobalMaxPooling2D()
    y = layers.Concatenate()([pool(conv(a)), pool(conv(b))])
    model = keras.Model([a, b], layers.Dense(2, name="scores")(y))
    probes = [m(target=1) for m in TWINS]
    exported = pg.compile(model, probes, tmp_path / "m.onnx")
    names = [f"{m.kind}/maps#{i}" for m in TWINS for i in range(2)]
    assert [o.name for o in exported.manifest.explanations] == names
    data = [
        np.random.default_rng(i).standard_normal((3, 8, 6, 2)).astype("float32") for i in (0, 1)
    ]
    result = runtime.load(tmp_path / "m.onnx").run({"a": data[0], "b": data[1]})
    with tf.GradientTape() as tape:
        maps = [conv(d) for d in data]
        for m in maps:
            tape.watch(m)
        scores = model.get_layer("scores")(tf.concat([pool(m) for m in maps], 1))
        score = tf.reduce_sum(scores[:, 1])
    for i, gradient in enumerate(tape.gradient(score, maps)):
        found = {m.kind: result[f"{m.kind}/maps#{i}"].array for m in TWINS}
        assert_maps(found, gradient.numpy(), maps[i].numpy(), f"call {i}")


def test_the_first_output_of_a_layer_with_several_is_explained():
    x = keras.Input((3, 7, 6, 2), name="film")
    y, _, _ = layers.ConvLSTM2D(3, 3, return_sequences=True, return_state=True, name="maps")(x)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling3D()(y)))
    for layer in ("auto", "maps"):
        (spec,) = pg.instrument(model, pg.LayerCAM(layer)).manifest.explanations
        assert spec.name == "layer_cam/maps"
        assert (spec.axes, spec.shape) == (("batch", "time", "height", "width"), (None, 3, 5, 4))


# -- sanity (Adebayo et al. 2018) --------------------------------------------------------------


def test_randomised_weights_change_the_maps():
    model = model_of(2, "relu")
    x = data_of(2, 3)[:2]
    probes = [m("maps", target=1, name=m.kind) for m in TWINS]
    before = pg.instrument(model, probes)(x)
    rng = np.random.default_rng(5)
    for name in ("scores", "hidden", "maps"):
        layer = model.get_layer(name)
        layer.set_weights([rng.standard_normal(w.shape) * w.std() for w in layer.get_weights()])
    after = pg.instrument(model, probes)(x)
    for method in TWINS:
        pairs = zip(*(np.asarray(result[method.kind]) for result in (before, after)), strict=True)
        for one, other in pairs:
            assert one.any(), method
            assert np.corrcoef(one.ravel(), other.ravel())[0, 1] < 0.9, method
