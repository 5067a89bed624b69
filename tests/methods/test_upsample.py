"""Maps in the size of the input: against linear interpolation, one line after the other."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.errors import InstrumentError, SpecError
from tests.methods.test_cams import SIZES, TWINS, data_of, file_of, model_of


def enlarged(array, axes, sizes):
    """Interpolates between the centres of elements, along one axis after the other."""
    for axis, size in zip(axes, sizes, strict=True):
        old = array.shape[axis]
        centres, wanted = (np.arange(old) + 0.5) / old, (np.arange(size) + 0.5) / size
        line = lambda v, c=centres, w=wanted: np.interp(w, c, v)  # noqa: E731
        array = np.apply_along_axis(line, axis, array.astype(np.float64))
    return array


def probes_of(layer, methods=TWINS):
    """Every method in both sizes."""
    return [m(layer, target=1, name=m.kind) for m in methods] + [
        m(layer, target=1, upsample=True, name=f"{m.kind} up") for m in methods
    ]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_maps_get_the_size_of_the_input(tmp_path, rank):
    model, probes = model_of(rank, "relu"), probes_of("maps")
    exported = pg.compile(model, probes, tmp_path / "m.onnx")
    assert exported.report.passed
    probed = pg.instrument(model, probes)
    art = runtime.load(tmp_path / "m.onnx")
    for count in (2, 3):
        x = data_of(rank, count)
        result, eager = art.run(x), probed(x)
        for method in TWINS:
            spec = art.manifest.output(f"{method.kind} up")
            assert spec.shape == (None, *SIZES[rank])
            assert (spec.input, spec.detail["upsampled_to"]) == ("x", "x")
            small = result[method.kind].array
            expected = enlarged(small, range(1, rank + 1), SIZES[rank])
            for got in (result[spec.name].array, np.asarray(eager[spec.name])):
                assert (got >= 0).all()
                scale = max(expected.max(), 1e-6)
                np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5 * scale)
        if rank == 2:  # it is what TensorFlow calls bilinear
            by_tensorflow = tf.image.resize(result["grad_cam"].array[..., None], SIZES[2])[..., 0]
            enlarged_here = result["grad_cam up"].array
            np.testing.assert_allclose(enlarged_here, by_tensorflow, rtol=1e-4, atol=1e-6)


def test_maps_of_a_file_with_channels_first(tmp_path):
    whole, _ = file_of(2, "Tanh")
    exported = pg.compile(whole, probes_of("a"), tmp_path / "m.onnx")
    assert exported.report.passed
    result = runtime.load(tmp_path / "m.onnx").run(np.moveaxis(data_of(2, 3), -1, 1))
    for method in TWINS:
        found = result[f"{method.kind} up"]
        assert found.shape == (3, *SIZES[2])
        expected = enlarged(result[method.kind].array, (1, 2), SIZES[2])
        np.testing.assert_allclose(found.array, expected, rtol=1e-4, atol=1e-6)


def test_open_sizes(tmp_path):
    keras.utils.set_random_seed(4)
    x = keras.Input((None, None, 2), name="x")
    y = layers.Conv2D(4, 3, strides=2, activation="relu", name="maps")(x)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    exported = pg.compile(model, probes_of("maps"), tmp_path / "m.onnx")
    assert exported.report.passed
    assert exported.manifest.output("grad_cam up").shape == (None, None, None)
    art = runtime.load(tmp_path / "m.onnx")
    for sizes in ((9, 7), (12, 17)):
        data = np.random.default_rng(1).standard_normal((2, *sizes, 2)).astype(np.float32)
        result = art.run(data)
        for method in TWINS:
            expected = enlarged(result[method.kind].array, (1, 2), sizes)
            got = result[f"{method.kind} up"].array
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_layer_larger_than_the_input_shrinks(tmp_path):
    keras.utils.set_random_seed(4)
    x = keras.Input((5, 4, 2), name="x")
    y = layers.Conv2DTranspose(3, 3, strides=2, activation="relu", name="maps")(x)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    pg.compile(model, probes_of("maps", [pg.LayerCAM]), tmp_path / "m.onnx")
    data = np.random.default_rng(1).standard_normal((2, 5, 4, 2)).astype(np.float32)
    result = runtime.load(tmp_path / "m.onnx").run(data)
    expected = enlarged(result["layer_cam"].array, (1, 2), (5, 4))
    np.testing.assert_allclose(result["layer_cam up"].array, expected, rtol=1e-4, atol=1e-6)


def test_each_tower_has_the_size_of_its_own_input(tmp_path):
    a, b = keras.Input((9, 8, 2), name="a"), keras.Input((7, 10, 1), name="b")
    towers = [layers.Conv2D(3, 3, name=f"of_{t.name}")(t) for t in (a, b)]
    both = layers.Concatenate()([layers.GlobalMaxPooling2D()(t) for t in towers])
    model = keras.Model([a, b], layers.Dense(2)(both))
    exported = pg.compile(model, pg.GradCAM(upsample=True), tmp_path / "m.onnx")
    found = {(o.name, o.input, o.shape) for o in exported.manifest.explanations}
    assert found == {
        ("grad_cam/of_a", "a", (None, 9, 8)),
        ("grad_cam/of_b", "b", (None, 7, 10)),
    }


def test_frames_have_the_size_of_the_films_frames(tmp_path):
    keras.utils.set_random_seed(4)
    x = keras.Input((3, 9, 8, 2), name="film")
    conv, pool = layers.Conv2D(3, 3, activation="relu", name="maps"), layers.GlobalMaxPooling2D()
    pooled = layers.Concatenate()([pool(conv(x[:, i])) for i in range(3)])
    model = keras.Model(x, layers.Dense(2)(pooled))
    exported = pg.compile(model, pg.HiResCAM(upsample=True), tmp_path / "m.onnx")
    assert [(o.name, o.shape) for o in exported.manifest.explanations] == [
        (f"hires_cam/maps#{i}", (None, 9, 8)) for i in range(3)
    ]


def test_a_second_input_of_other_axes_is_no_candidate():
    image, numbers = keras.Input((9, 8, 2), name="image"), keras.Input((2,), name="numbers")
    y = layers.Conv2D(2, 3, name="conv")(image) + layers.Reshape((1, 1, 2))(numbers)
    y = layers.Conv2D(3, 3, name="maps")(y)
    model = keras.Model([image, numbers], layers.Dense(2)(layers.GlobalMaxPooling2D()(y)))
    (spec,) = pg.instrument(model, pg.GradCAM(upsample=True)).manifest.explanations
    assert spec.shape == (None, 9, 8)


def patches():
    x = keras.Input((8, 8, 2), name="image")
    y = layers.Reshape((64, 2))(x)
    y = layers.Conv1D(3, 3, name="maps")(y)
    return keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling1D()(y)))


def two_images():
    a, b = keras.Input((8, 8, 2), name="a"), keras.Input((8, 8, 2), name="b")
    y = layers.Conv2D(3, 3, name="maps")(layers.Add()([a, b]))
    return keras.Model([a, b], layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            patches,
            r"positions of 'maps' \(.*\) do not come from one input.*'image' \(height, width",
        ),
        (two_images, r"'maps' \(height, width\) do not come from one input.* 'a' .*, 'b'"),
    ],
)
def test_positions_that_are_no_inputs(make, says):
    with pytest.raises(InstrumentError, match=says):
        pg.instrument(make(), pg.GradCAM("maps", upsample=True))


def test_the_field_is_checked():
    with pytest.raises(SpecError, match=r"upsample= takes True or False, got 'yes'"):
        pg.LayerCAM(upsample="yes")


def test_a_file_whose_rows_are_words(tmp_path):
    """Tokens: the positions of what follows an embedding are those of the ids."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    y = layers.Embedding(11, 4)(ids)
    y = layers.Conv1D(5, 3, activation="relu", name="maps")(y)
    model = keras.Model(ids, layers.Dense(2)(layers.GlobalMaxPooling1D()(y)))
    exported = pg.compile(model, pg.LayerCAM(upsample=True), tmp_path / "m.onnx")
    (spec,) = exported.manifest.explanations
    assert (spec.axes, spec.shape) == (("batch", "time"), (None, None))
    data = np.random.default_rng(0).integers(0, 11, (3, 9)).astype(np.int32)
    assert runtime.load(tmp_path / "m.onnx").run(data)["layer_cam/maps"].shape == (3, 9)


def test_a_text_form_holds_it():
    from probegen.methods import text_forms

    probe = pg.XGradCAM("conv", upsample=True)
    assert text_forms.from_json(text_forms.to_json([probe])) == (probe,)


def test_old_operator_sets(tmp_path):
    model = model_of(2, "relu")
    probes = [pg.EigenCAM("maps", upsample=True), pg.LayerCAM("maps", upsample=True)]
    assert pg.compile(model, probes, tmp_path / "m.onnx", opset=13).report.passed
