"""Records of several classes: taken apart, drawn one picture a class, and written down."""

import numpy as np
import pytest

from probegen import runtime
from probegen.artefact.manifest import InputSpec, Manifest, OutputSpec, TargetSpec
from probegen.errors import InputError
from probegen.runtime.result import Result, read_npz
from probegen.runtime.run import Run
from tests.runtime.figures import says, texts_of

NAMES = ("cat", "dog", "eel", "fox", "gnu")
SCORES = np.array([[1.0, 5, 3, 2, 4], [9, 1, 2, 3, 4], [0, 0, 0, 7, 1]], np.float32)
ORDER = np.argsort(-SCORES, axis=1)


def result(target, axes=("batch", "class", "height", "width"), names=NAMES, positions=()):
    """Three images of which classes are explained: each map is filled with its class's index."""
    count = {"top": 3, "all": 5, "list": 2}[target.mode]
    classes = {"top": ORDER[:, :3], "all": np.arange(5)[None], "list": np.array([[4, 1]])}
    filled = np.broadcast_to(classes[target.mode], (3, count)).astype(np.float32)
    sizes = {"batch": 3, "class": count, "height": 4, "width": 5}
    whole = np.broadcast_to(filled[:, :, None, None], (3, count, 4, 5)).copy()
    order = [("batch", "class", "height", "width").index(a) for a in axes]
    maps = whole.transpose(order)
    outputs = [
        OutputSpec("y", "prediction", "float32", (None, 5), ("batch", "class")),
        OutputSpec(
            "s",
            "saliency",
            "float32",
            tuple(sizes[a] for a in axes),
            axes,
            input="x",
            target=target,
        ),
    ]
    arrays = {"y": SCORES, "s": maps}
    if target.mode == "top":
        told = np.broadcast_to(
            ORDER[:, :3].reshape(3, 3, *[1] * len(positions)), (3, 3, *positions)
        ).astype(np.int32)
        outputs.append(
            OutputSpec(
                "s/classes",
                "classes",
                "int32",
                told.shape,
                ("batch", "class", *("height", "width")[: len(positions)]),
                target=target,
                draw="beside",
            )
        )
        arrays["s/classes"] = told
    inputs = (InputSpec("x", "float32", (None, 4, 5, 1), ("batch", "height", "width", "channel")),)
    manifest = Manifest(inputs, tuple(outputs), class_names=names)
    fed = {"x": np.zeros((3, 4, 5, 1), np.float32)}
    return Result(Run(manifest, fed, None, "m.onnx"), arrays)


TOP = TargetSpec("top", output="y", count=3)
ALL = TargetSpec("all", output="y", count=5)
LIST = TargetSpec("list", output="y", count=2, chosen=(4, 1))


def test_which_classes_are_explained():
    np.testing.assert_array_equal(result(TOP)["s"].classes, ORDER[:, :3])
    np.testing.assert_array_equal(result(ALL)["s"].classes, [range(5)] * 3)
    np.testing.assert_array_equal(result(LIST)["s"].classes, [[4, 1]] * 3)
    assert result(LIST)["y"].classes is None
    assert result(TOP)["s/classes"].classes is None


@pytest.mark.parametrize(
    "axes", [("batch", "class", "height", "width"), ("height", "batch", "class", "width")]
)
def test_one_class_of_all_samples(axes):
    found = result(ALL, axes)["s"].of_class("eel")
    assert found.axes == tuple(a for a in axes if a != "class")
    assert found.spec.shape == found.shape
    np.testing.assert_array_equal(found.array, np.full(found.shape, 2.0))
    np.testing.assert_array_equal(
        result(LIST, axes)["s"].of_class(4).array, np.full(found.shape, 4.0)
    )


def test_the_best_class_of_each_sample():
    for target, ranks in (
        (TOP, ORDER[:, :2]),
        (ALL, ORDER[:, :2]),
        (LIST, [[1, 4], [4, 1], [4, 1]]),
    ):
        record = result(target)["s"]
        for rank in range(2):
            expected = np.asarray(ranks)[:, rank]
            np.testing.assert_array_equal(record.top(rank).array[:, 0, 0], expected)
            np.testing.assert_array_equal(record.top(rank).run.target, expected)


def test_refusals():
    record = result(TOP)["s"]
    with pytest.raises(InputError, match=r"class 'gnu' in sample 2|class 'dog' in sample 1"):
        record.of_class("dog")
    with pytest.raises(InputError, match="no class 'hen'"):
        record.of_class("hen")
    with pytest.raises(InputError, match="explains 3 classes"):
        record.top(3)
    with pytest.raises(InputError, match="knows no class names"):
        result(ALL, names=None)["s"].of_class("cat")
    with pytest.raises(InputError, match="explains one class"):
        result(TOP)["y"].top()


def test_a_panel_a_class_with_its_name():
    figure = result(TOP)["s"].plot(sample=1)
    assert {NAMES[i] for i in ORDER[1, :3]} <= set(texts_of(figure))
    assert not {NAMES[i] for i in ORDER[1, 3:]} & set(texts_of(figure))
    assert {"class 4", "class 1"} <= set(texts_of(result(LIST, names=None)["s"].plot()))
    turned = result(TOP, ("height", "batch", "class", "width"))["s"].plot(sample=1)
    assert {NAMES[i] for i in ORDER[1, :3]} <= set(texts_of(turned))


def test_a_class_that_is_another_at_each_position():
    record = result(TOP, positions=(4, 5))["s"]
    assert record.classes is None
    assert says(record.plot(), "the second best at each position")
    np.testing.assert_array_equal(record.top(1).array[:, 0, 0], ORDER[:, 1])
    assert says(record.top(1).plot(), "explained: the second best class at each position")
    with pytest.raises(InputError, match="same at all positions"):
        record.of_class(1)


def test_figures_and_reports_of_all(tmp_path):
    found = result(TOP)
    figure = found.plot(tmp_path / "m.png")
    assert {NAMES[i] for i in ORDER[0, :3]} <= set(texts_of(figure))
    assert not says(figure, "s/classes")  # told by the names of the panels
    page = found.to_html(tmp_path / "m.html", samples=1).read_text()
    assert "the 3 best classes of each sample" in page
    assert "gnu (4); dog (1)" in result(LIST).to_html(tmp_path / "l.html").read_text()


def test_a_contrast_is_told(tmp_path):
    target = TargetSpec("contrast", output="y", chosen=(2, "argmax"))
    found = result(LIST)
    one = found["s"].of_class(4)
    spec = one.spec.__class__(**{**one.spec.__dict__, "target": target})
    manifest = found.manifest.replace(outputs=(found.manifest.outputs[0], spec))
    run = Run(manifest, found.run.inputs, None, "m.onnx")
    again = Result(run, {"y": SCORES, "s": one.array})
    assert says(again["s"].plot(), "explained: eel rather than the highest class")
    page = again.to_html(tmp_path / "m.html").read_text()
    assert "eel (2) rather than the highest class" in page


def test_what_is_written_comes_back(tmp_path):
    found = result(TOP)
    again = read_npz(found.to_npz(tmp_path / "m.npz"))
    np.testing.assert_array_equal(again["s"].classes, ORDER[:, :3])
    np.testing.assert_array_equal(again["s"].top().array, found["s"].top().array)
    assert runtime.Result is Result
