"""A single score is that of the second of two classes, also where somebody says its name."""

import numpy as np
import pytest

from probegen.artefact.manifest import InputSpec, Manifest, OutputSpec, TargetSpec
from probegen.errors import InputError
from probegen.runtime.plot.verdict import verdict
from probegen.runtime.report import _targets
from probegen.runtime.result import Result
from probegen.runtime.run import Run
from probegen.runtime.target import check_target
from tests.runtime.support import result_of

NAMES = ("benign", "malignant")
#: The model takes the first sample for benign, the second for malignant.
SCORES = np.array([[0.1], [0.8]], np.float32)


def manifest(target: TargetSpec, names: tuple[str, ...] = NAMES) -> Manifest:
    axes: tuple[str, ...] = ("batch", "feature")
    shape: tuple[int | None, ...] = (None, 3)
    if target.several:
        axes, shape = ("batch", "class", "feature"), (None, 1, 3)
    outputs = (
        OutputSpec("y", "prediction", "float32", (None, 1), ("batch", "unit")),
        OutputSpec("s", "saliency", "float32", shape, axes, input="x", target=target),
    )
    inputs = (InputSpec("x", "float32", (None, 3), ("batch", "feature")),)
    chosen = target.mode == "input"
    return Manifest(inputs, outputs, class_names=names, target_input=chosen)


def result(target: TargetSpec) -> Result:
    described = manifest(target)
    shape = [2 if size is None else size for size in described.output("s").shape]
    arrays = {"y": SCORES, "s": np.arange(np.prod(shape), dtype=np.float32).reshape(shape)}
    run = Run(described, {"x": np.zeros((2, 3), np.float32)}, None, "m.onnx")
    return Result(run, arrays)


CHOSEN = TargetSpec("input", output="y", classes=1)


def test_its_name_is_a_target() -> None:
    target = check_target(["malignant", -1], manifest(CHOSEN), 2)
    assert target is not None
    assert target.tolist() == [0, -1]


def test_the_other_class_has_no_score() -> None:
    with pytest.raises(InputError, match=r"one score, that of 'malignant'.*the other sign"):
        check_target("benign", manifest(CHOSEN), 1)


def test_names_of_another_output() -> None:
    described = manifest(TargetSpec("input", output="y", classes=5))
    with pytest.raises(InputError, match=r"2 names of classes, .* has 5: pass an index"):
        check_target("malignant", described, 1)


def test_what_explains_a_class_is_found_by_its_name() -> None:
    record = result(TargetSpec("all", output="y", classes=1, count=1))["s"]
    np.testing.assert_array_equal(record.of_class("malignant").array, record.array[:, 0])
    with pytest.raises(InputError, match="one score, that of 'malignant'"):
        record.of_class("benign")


def test_pictures_say_which_class_they_explain() -> None:
    record = result(TargetSpec("argmax", output="y", classes=1))["s"]
    assert verdict(record, 0, NAMES) == "predicted benign (p = 0.90), explained: malignant"
    assert verdict(record, 1, NAMES) == "predicted malignant (p = 0.80)"


@pytest.mark.parametrize(
    ("axes", "index", "names", "says"),
    [
        (("step", "unit"), (1, 2), None, "explained: step 1, unit 2"),
        (("step", "unit"), (-1, None), None, "explained: last step"),
        (("step", "unit"), (None, None), None, ""),
        (("step", "class"), (0, 1), "abc", "explained: step 0, b"),
        (("height", "width", "class"), (None, None, 2), None, "explained: class 2"),
        (("unit",), (1,), None, "explained: unit 1"),
        (("class",), (1,), None, "explained: class 1"),
    ],
)
def test_outputs_without_classes_explain_none(axes, index, names, says) -> None:
    """The title of a forecast said that a class was explained, and not which step."""
    scores = np.zeros((1, *(4, 5)[: len(axes) - 1], 3), np.float32)
    target = TargetSpec("index", index, "y", classes=3)
    result = result_of(
        {"x": (np.zeros((1, 3), np.float32), ("batch", "feature"), {})},
        {
            "y": (scores, "prediction", ("batch", *axes), {}),
            "s": (np.zeros((1, 3)), "saliency", ("batch", "feature"), {"target": target}),
        },
    )
    assert verdict(result["s"], 0, names) == says


@pytest.mark.parametrize("target", [TargetSpec("argmax", output="y", classes=1), CHOSEN])
def test_reports_say_which_class_they_explain(target: TargetSpec) -> None:
    found = result(target)
    labels = type("Labels", (), {"class_names": None})()
    assert "malignant" in _targets(found, labels)
    assert "benign" not in _targets(found, labels)
