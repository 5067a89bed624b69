"""Pictures over images and of feature maps: the right ones, with the right numbers in them."""

import numpy as np
import pytest
from matplotlib.image import AxesImage

from probegen.artefact.manifest import TargetSpec
from probegen.errors import InputError
from probegen.runtime.plot.image import to_rgb_image
from probegen.runtime.plot.style import DIVERGING, HEAT, colour_map
from probegen.runtime.resize import resize
from tests.runtime.figures import axes_of, image_result, images_of, says, texts_of, titled
from tests.runtime.support import IMAGE, result_of

RNG = np.random.default_rng(5)
TABLE = ("batch", "feature")


# -- resampling ----------------------------------------------------------------------------------


def naive_resize(image, height, width):
    """Bilinear with half-pixel centres, a pixel at a time."""
    rows, columns = image.shape
    out = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(y), int(x)
            below, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            upper = image[top, left] + (x - left) * (image[top, right] - image[top, left])
            lower = image[below, left] + (x - left) * (image[below, right] - image[below, left])
            out[i, j] = upper + (y - top) * (lower - upper)
    return out


@pytest.mark.parametrize("size", [(7, 11), (2, 3), (3, 16), (1, 1), (3, 5)])
def test_resize_against_a_loop(size):
    image = RNG.normal(size=(3, 5))
    np.testing.assert_allclose(resize(image, size), naive_resize(image, *size), atol=1e-12)


def test_resize_known_values():
    np.testing.assert_allclose(resize(np.array([0.0, 1.0]), (4,)), [0, 0.25, 0.75, 1])
    assert resize(np.ones((2, 3, 4)), (5, 7)).shape == (5, 7, 4)


# -- over images ---------------------------------------------------------------------------------


def test_saliency_stands_beside_and_over_the_image():
    heat = RNG.random((2, 6, 9))
    result = image_result(heat)
    figure = result["it"].plot(1)
    x = result.run.inputs["image"][1]
    np.testing.assert_allclose(titled(figure, "input").images[0].get_array(), x, atol=1e-6)
    np.testing.assert_allclose(titled(figure, "Saliency").images[0].get_array(), heat[1], atol=1e-6)
    assert titled(figure, "overlay").images[0].get_array().shape == (6, 9, 3)
    assert titled(figure, "Saliency").images[0].get_cmap().name == colour_map(HEAT).name
    assert "Saliency: image \u2014 predicted ant (p = 0.50)" in texts_of(figure)


def test_colour_bar_is_as_tall_as_the_image():
    figure = image_result(RNG.random((2, 6, 9)))["it"].plot()
    overlay = titled(figure, "overlay")
    (bar,) = overlay.child_axes
    assert bar.get_window_extent().height == pytest.approx(overlay.get_window_extent().height)
    assert bar.get_window_extent().y0 == pytest.approx(overlay.get_window_extent().y0)


def test_grad_cam_is_brought_to_the_image():
    cam = RNG.random((2, 2, 3))
    figure = image_result(cam, "grad_cam", layer="conv", input=None)["it"].plot()
    np.testing.assert_allclose(
        titled(figure, "Grad-CAM").images[0].get_array(), resize(cam[0], (6, 9)), atol=1e-6
    )
    assert says(figure, "2\u00d73 map brought to the input's size")


def test_signed_attribution_is_symmetric_and_summed_over_channels():
    gradient = RNG.normal(size=(2, 6, 9, 3))
    figure = image_result(gradient, "input_gradient", IMAGE)["it"].plot()
    drawn = titled(figure, "Input gradient").images[0]
    np.testing.assert_allclose(drawn.get_array(), gradient[0].sum(-1), atol=1e-5)
    low, high = drawn.get_clim()
    assert low == -high == pytest.approx(-np.abs(gradient[0].sum(-1)).max(), rel=1e-5)
    assert drawn.get_cmap().name == colour_map(DIVERGING).name
    assert says(figure, "sum over 3 channels")


def test_channels_first_is_turned():
    axes = ("batch", "channel", "height", "width")
    heat = RNG.random((2, 3, 6, 9))
    figure = image_result(heat, axes=axes)["it"].plot()
    np.testing.assert_allclose(
        titled(figure, "Saliency").images[0].get_array(), heat[0].max(0), atol=1e-6
    )


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_any_number_of_channels(channels):
    figure = image_result(RNG.random((2, 6, 9)), channels=channels)["it"].plot()
    shown = titled(figure, "input").images[0].get_array()
    assert shown.shape == (6, 9, 3)
    joined = f"input drawn as the mean of its {channels} channels"
    assert says(figure, joined) == (channels not in (1, 3))


def test_the_caller_s_own_picture():
    picture = RNG.integers(0, 256, (12, 18, 3)).astype(np.uint8)
    figure = image_result(RNG.random((2, 6, 9)))["it"].plot(image=picture)
    shown = titled(figure, "input").images[0].get_array()
    np.testing.assert_allclose(shown, picture / 255, atol=1e-6)
    for count in (1, 3):
        pictures = np.repeat(picture[None], count, axis=0)
        with pytest.raises(InputError, match=rf"image has {count} pictures?, and the batch 2 "):
            image_result(RNG.random((2, 6, 9)))["it"].plot(0, image=pictures)


@pytest.mark.parametrize("scale", [(1, 0), (255, 0), (2, -1), (5, -124)])
def test_any_value_range(scale):

    picture = RNG.random((4, 5, 3))
    shown, _ = to_rgb_image(picture * scale[0] + scale[1])
    assert shown.min() >= 0
    assert shown.max() <= 1
    order = np.argsort(picture, axis=None)
    assert np.all(np.diff(shown.ravel()[order]) >= 0)


def test_explained_class_is_said_where_it_is_another():
    of = TargetSpec("index", (2,), "animal", True, 3)
    figure = image_result(RNG.random((2, 6, 9)), target=of)["it"].plot()
    assert any("predicted bee (p = 0.70), explained: cat" in t for t in texts_of(figure))


def test_label_map():
    scores = RNG.random((1, 4, 5, 3))
    x = RNG.random((1, 4, 5, 1))
    axes = ("batch", "height", "width", "class")
    result = result_of(
        {"image": (x, IMAGE, {})},
        {"mask": (scores, "prediction", axes, {})},
        class_names=("sky", "sea", "land"),
    )
    figure = result["mask"].plot()
    drawn = titled(figure, "most probable class").images[0].get_array()
    colours = {tuple(c) for c in np.asarray(drawn).reshape(-1, 3)}
    labels = scores[0].argmax(-1)
    assert len(colours) == len(np.unique(labels))
    assert np.all(drawn[labels == labels[0, 0]] == drawn[0, 0])
    assert {"sky", "sea", "land"} <= set(texts_of(figure)) | {"sky", "sea", "land"} - {
        ("sky", "sea", "land")[c] for c in np.unique(labels)
    }


# -- feature maps --------------------------------------------------------------------------------


def activation(array, axes, **spec):
    rows = len(array)
    spec = {"layer": "conv", **spec}
    return result_of(
        {"x": (np.ones((rows, 3), np.float32), TABLE, {})},
        {"it": (array, "activation", axes, spec)},
    )["it"]


@pytest.mark.parametrize(("channels", "shown"), [(1, 1), (5, 5), (64, 64), (65, 64), (2048, 64)])
def test_feature_maps(channels, shown):
    maps = RNG.random((1, 4, 3, channels))
    figure = activation(maps, IMAGE).plot()
    drawn = [i for i in images_of(figure) if i.shape == (4, 3)]
    np.testing.assert_allclose(drawn, np.moveaxis(maps[0], -1, 0)[:shown], atol=1e-6)
    note = f"showing 64 of {channels} channels"
    assert says(figure, note) == (channels > shown)


def test_kept_channels_keep_their_numbers():
    maps = RNG.random((1, 4, 3, 2))
    figure = activation(maps, IMAGE, detail={"channels": [7, 31]}).plot()
    assert {"channel 7", "channel 31"} <= set(texts_of(figure))


def test_relu_maps_start_at_zero_and_signed_maps_are_symmetric():
    def limits(values):
        figure = activation(values, IMAGE).plot()
        return figure.findobj(AxesImage)[0].get_clim()

    low, high = limits(RNG.random((1, 4, 3, 2)) + 0.1)
    assert low == 0
    assert high > 0.9
    low, high = limits(RNG.normal(size=(1, 4, 3, 2)))
    assert low == -high


def test_channels_over_time():
    values = RNG.normal(size=(1, 8, 5))
    record = activation(values, ("batch", "time", "channel"))
    (drawn,) = [i for i in images_of(record.plot()) if i.shape == (5, 8)]
    np.testing.assert_allclose(drawn, values[0].T, atol=1e-6)


def test_slices_of_volumes_show_the_strongest_voxel():
    values = RNG.random((1, 5, 4, 3, 2))
    values[0, 4, 1, 2, 0], values[0, 0, 3, 0, 1] = 7, -9
    figure = activation(values, ("batch", "depth", *IMAGE[1:])).plot()
    drawn = [i for i in images_of(figure) if i.shape == (4, 3)]
    np.testing.assert_allclose(drawn, [values[0, 4, ..., 0], values[0, 0, ..., 1]], atol=1e-6)


def test_attributions_of_volumes_are_cut_where_they_are_strongest():
    heat = np.zeros((1, 7, 6, 5))
    heat[0, 6, 0, 1] = 3.0
    axes = ("batch", "depth", "height", "width")
    record = result_of(
        {"x": (RNG.random((1, 7, 6, 5)), axes, {})},
        {"it": (heat, "saliency", axes, {"input": "x"})},
    )["it"]
    said = " ".join(texts_of(record.plot()))
    for cut in ("depth 7/7, strongest", "height 1/6, strongest"):
        assert cut in said
    assert "depth 4/7, middle" in said


def test_a_peak_on_a_large_map_is_drawn():
    heat = np.full((1, 950, 1300), 0.01)
    heat[0, 777, 1111] = 5.0
    axes = ("batch", "height", "width")
    figure = result_of(
        {"x": (np.zeros((1, 950, 1300)), axes, {})},
        {"it": (heat, "saliency", axes, {"input": "x"})},
    )["it"].plot()
    maps = [i for i in images_of(figure) if i.ndim == 2]
    assert max(m.max() for m in maps) == 5.0
    assert all(max(m.shape) < 900 for m in maps)


def test_frames():
    values = RNG.random((1, 5, 4, 3, 2))
    figure = activation(values, ("batch", "time", *IMAGE[1:])).plot()
    drawn = [i for i in images_of(figure) if i.shape == (4, 3)]
    np.testing.assert_allclose(drawn, values[0].mean(-1), atol=1e-6)


def test_units_are_columns():
    values = RNG.normal(size=(2, 6))
    figure = activation(values, ("batch", "unit")).plot(1)
    (ax,) = axes_of(figure)
    np.testing.assert_allclose([p.get_height() for p in ax.patches], values[1], rtol=1e-6)
