"""Gradients of Resize, held against what onnxruntime does to unit vectors, and TensorFlow."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_node, make_tensor_value_info

from probegen.errors import UnsupportedOpsError
from tests.graph.vjp.harness import (
    Case,
    check,
    differentiate,
    finish,
    one_node,
    run,
    uniform,
    written,
)

X = (2, 2, 3, 4)
TRANSFORM = "coordinate_transformation_mode"
#: Ways to map positions of which the graph can make the matrix where sizes are open.
AT_RUN_TIME = ("half_pixel", "asymmetric", "align_corners")


def resize(name: str, *, scales: Any = None, sizes: Any = None, x: Any = X, **more: Any) -> Case:
    """Returns a Resize by scales or to sizes; by default also with an open batch."""
    kept = {key: more.pop(key) for key in ("opset", "open_all") if key in more}
    case = Case(
        op="Resize",
        inputs=[
            uniform(*x),
            None,
            None if scales is None else np.array(scales, np.float32),
            None if sizes is None else np.array(sizes),
        ],
        attributes=more,
        constants=[2, 3],
        batch={0: {0: "batch"}} if scales is not None or len(sizes) < len(x) else {},
        numeric=False,
        # onnxruntime resizes in float32.
        rtol=1e-5,
        atol=1e-5,
        name=name,
        **{"open_all": False, "opset": 18, **kept},
    )
    forward = one_node(case, np.float32)
    return dataclasses.replace(case, twin=functools.partial(by_units, forward))


def by_units(forward: Any, dys: Any, x: Any, *_: Any) -> list[Any]:
    """Returns the gradient of a linear model that keeps images and channels apart.

    onnx's own evaluator differs from it where a scale is no whole number.
    """
    dx = np.zeros_like(x)
    for at in np.ndindex(*x.shape[2:]):
        unit = np.zeros(x.shape, np.float32)
        unit[(slice(None), slice(None), *at)] = 1
        column = run(forward, {"x0": unit}, need_kernels=True)["y0"]
        dx[(slice(None), slice(None), *at)] = (dys[0] * column).sum(axis=tuple(range(2, x.ndim)))
    return [dx]


def half_pixel(mode: str, **more: Any) -> dict[str, Any]:
    return {"mode": mode, "coordinate_transformation_mode": "half_pixel", **more}


LINEAR = [
    resize(
        f"linear, {transform}",
        scales=scales,
        mode="linear",
        coordinate_transformation_mode=transform,
        opset=19,
    )
    for transform in (
        "half_pixel",
        "asymmetric",
        "align_corners",
        "pytorch_half_pixel",
        "half_pixel_symmetric",
    )
    for scales in ([1, 1, 2, 3], [1, 1, 1.5, 0.6])
]
CUBIC = [
    resize(
        f"cubic, {transform}, {outside}",
        scales=[1, 1, 2, 1.5],
        mode="cubic",
        coordinate_transformation_mode=transform,
        exclude_outside=outside,
        cubic_coeff_a=-0.5,
    )
    for transform in ("half_pixel", "align_corners")
    for outside in (0, 1)
]
OTHERS = [
    resize("to sizes", sizes=[2, 2, 5, 2], **half_pixel("linear")),
    resize("to sizes of axes", sizes=[5, 2], axes=[2, 3], **half_pixel("linear")),
    resize(
        "to one row",
        sizes=[2, 2, 1, 6],
        mode="linear",
        coordinate_transformation_mode="align_corners",
    ),
    resize("one axis", scales=[1, 1, 1, 2.5], **half_pixel("linear")),
    resize("1-D", scales=[1, 1, 3], x=(2, 2, 4), **half_pixel("linear")),
    resize("nothing changed", scales=[1, 1, 1, 1], **half_pixel("nearest")),
    resize("opset 13", scales=[1, 1, 2, 2], opset=13, **half_pixel("linear")),
]


@pytest.mark.parametrize("case", [*LINEAR, *CUBIC, *OTHERS], ids=str)
def test_gradient_is_that_of_unit_vectors(case: Case) -> None:
    check(case)


REPEATED = [
    resize(
        "repeated",
        scales=[1, 1, 2, 3],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
        open_all=True,
    ),
    resize("repeated, half pixel", scales=[1, 1, 3, 2], open_all=True, **half_pixel("nearest")),
    resize(
        "repeated, 3-D",
        scales=[1, 1, 2, 1, 3],
        x=(2, 2, 3, 2, 2),
        open_all=True,
        **half_pixel("nearest"),
    ),
]


@pytest.mark.parametrize("case", REPEATED, ids=str)
def test_repetition_needs_no_sizes(case: Case) -> None:
    check(case)
    assert written(case, case.open_everything()) == ["AveragePool", "Mul"]


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("transform", ["half_pixel", "asymmetric", "align_corners"])
@pytest.mark.parametrize("scales", [[2, 3], [1.5, 0.5], [0.7, 2.3]])
def test_nearest_is_the_one_onnxruntime_takes(
    scales: list[float], transform: str, rounding: str
) -> None:
    attributes = {"coordinate_transformation_mode": transform, "nearest_mode": rounding}
    case = resize("", scales=[1, 1, *scales], mode="nearest", x=(1, 2, 6, 5), **attributes)
    forward = one_node(case, np.float32)
    x = np.arange(60, dtype=np.float32).reshape(1, 2, 6, 5)
    y = run(forward, {"x0": x}, need_kernels=True)["y0"]
    dy = uniform(*y.shape, seed=3).astype(np.float32)
    expected = np.zeros(60)
    np.add.at(expected, y.astype(int), dy)
    made = differentiate(forward, ["x0"], ["y0"])
    found = run(made.model, {"x0": x, "dy/y0": dy}, need_kernels=True)["d/x0"]
    np.testing.assert_allclose(found, expected.reshape(x.shape), atol=1e-5)


@pytest.mark.parametrize(("mode", "method"), [("linear", "bilinear"), ("cubic", "bicubic")])
@pytest.mark.parametrize("sizes", [(6, 12), (5, 3)])
def test_gradient_is_that_of_tensorflow(mode: str, method: str, sizes: tuple[int, int]) -> None:
    """With the attributes tf2onnx writes for what Keras calls."""

    def function(x: Any, *_: Any) -> Any:
        import tensorflow as tf

        resized = tf.image.resize(tf.transpose(x, [0, 2, 3, 1]), sizes, method)
        return tf.transpose(resized, [0, 3, 1, 2])

    more = {"cubic_coeff_a": -0.5, "exclude_outside": 1} if mode == "cubic" else {}
    check(
        Case(
            op="Resize",
            inputs=[uniform(*X), None, None, np.array([2, 2, *sizes])],
            attributes=half_pixel(mode, **more),
            constants=[3],
            batch={},
            open_all=False,
            numeric=False,
            tensorflow=function,
            # TensorFlow resizes in float32, and takes cubic weights from a table of 1024.
            rtol=1e-4,
            atol=1e-5 if mode == "linear" else 5e-3,
        )
    )


@pytest.mark.parametrize("rounding", ["floor", "round_prefer_floor"])
def test_the_transform_that_tf2onnx_writes_for_nearest(rounding: str) -> None:
    """ONNX dropped it from opset 13; tf2onnx writes it all the same, and onnxruntime runs it."""
    transform = {"coordinate_transformation_mode": "tf_half_pixel_for_nn"}
    test_nearest_is_the_one_onnxruntime_takes([1.5, 0.5], "tf_half_pixel_for_nn", rounding)
    repeated = resize("", scales=[1, 1, 2, 3], mode="nearest", nearest_mode=rounding, **transform)
    assert ("AveragePool" in written(repeated)) == (rounding == "floor")


def test_a_size_that_depends_on_the_precision_is_refused() -> None:
    """float32(7 / 12) * 12 is 7 in 32 bits, and a little less in more."""
    case = resize("", scales=[1, 1, 1, 7 / 12], x=(1, 1, 2, 12), **half_pixel("linear"))
    with pytest.raises(UnsupportedOpsError, match="axis 3 is 7 in 32 bits and 6 by shape"):
        written(case)


def test_interpolation_is_a_product_with_a_matrix_an_axis() -> None:
    case = resize("", scales=[1, 1, 2, 3], **half_pixel("linear"))
    assert written(case) == ["MatMul", "MatMul"]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        (
            {"mode": "nearest", "coordinate_transformation_mode": "half_pixel_symmetric"},
            "'nearest' with coordinate_transformation_mode 'half_pixel_symmetric'",
        ),
    ],
    ids=["transform"],
)
def test_other_uses_are_refused(attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedOpsError, match=reason):
        written(resize("", sizes=[2, 2, 2, 3], opset=19, **attributes))


def open_sizes(case: Case) -> Case:
    """Returns a case of which no size is known in one run; where sizes are asked for, two are."""
    return dataclasses.replace(case, open_all=True)


UNUSUAL = [
    *(
        resize(
            f"antialias {mode} {scales} {transform} {excluded}",
            scales=scales,
            mode=mode,
            antialias=1,
            exclude_outside=excluded,
            coordinate_transformation_mode=transform,
            x=(1, 2, 5, 8),
        )
        for mode, scales, transform, excluded in (
            ("linear", [1, 1, 0.5, 0.3], "half_pixel", 0),
            ("linear", [1, 1, 1.7, 0.6], "half_pixel", 1),
            ("cubic", [1, 1, 0.6, 0.5], "half_pixel", 0),
            ("cubic", [1, 1, 0.4, 1.5], "half_pixel", 1),
        )
    ),
    *(
        resize(
            f"aspect ratio {policy}",
            sizes=[7, 5],
            axes=axes,
            keep_aspect_ratio_policy=policy,
            x=(1, 2, 3, 4),
            **half_pixel("linear"),
        )
        for policy, axes in (
            ("not_larger", [2, 3]),
            ("not_smaller", [2, 3]),
            ("not_larger", [3, 2]),
        )
    ),
]
CROPS = [
    dataclasses.replace(
        case, inputs=[case.inputs[0], np.float32(region), *case.inputs[2:]], constants=[1, 2, 3]
    )
    for mode, region, sizes in (
        ("linear", [0, 0, 0.3, -0.4, 1, 1, 0.9, 1.3], [1, 2, 4, 6]),
        ("nearest", [0, 0, 0.9, 0.1, 1, 1, 0.2, 0.8], [1, 2, 3, 1]),
    )
    for case in [
        resize(
            f"crop {mode}",
            sizes=sizes,
            mode=mode,
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=2.0,
            x=(1, 2, 5, 4),
        )
    ]
]


@pytest.mark.parametrize("case", UNUSUAL, ids=str)
def test_unusual_ways(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("case", CROPS, ids=str)
def test_a_part_of_the_image(case: Case) -> None:
    """Against onnx's own evaluator: what stands beyond the image is constant."""
    check(dataclasses.replace(case, twin=None, numeric=True))


def test_a_part_that_is_computed_is_refused() -> None:
    case = dataclasses.replace(CROPS[0], constants=[2, 3], wrt=[0], twin=None)
    with pytest.raises(UnsupportedOpsError, match="Resize: its region is computed at run time"):
        written(case)


OPEN = [
    *(open_sizes(case) for case in LINEAR if case.attributes[TRANSFORM] in AT_RUN_TIME),
    *(open_sizes(case) for case in OTHERS if case.name in ("one axis", "1-D", "opset 13")),
    open_sizes(
        resize(
            "to sizes, nearest",
            sizes=[2, 2, 5, 2],
            mode="nearest",
            coordinate_transformation_mode="align_corners",
        )
    ),
    open_sizes(resize("to sizes of axes, open", sizes=[5, 2], axes=[2, 3], **half_pixel("linear"))),
    open_sizes(resize("rows", sizes=[4], axes=[2], x=(2, 2, 3, 2, 2), **half_pixel("nearest"))),
]


@pytest.mark.parametrize("case", OPEN, ids=str)
def test_sizes_may_be_open(case: Case) -> None:
    check(case)
    assert "Range" in written(case, case.open_everything())


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("transform", ["half_pixel", "asymmetric", "tf_half_pixel_for_nn"])
def test_the_nearest_is_the_same_one_where_sizes_are_open(transform: str, rounding: str) -> None:
    attributes = {TRANSFORM: transform, "nearest_mode": rounding, "mode": "nearest"}
    case = resize("", scales=[1, 1, 1.5, 0.7], x=(1, 2, 6, 5), **attributes)
    y = run(one_node(case, np.float32), {"x0": case.inputs[0].astype(np.float32)}, True)["y0"]
    feed = {"x0": case.inputs[0].astype(np.float32), "dy/y0": uniform(*y.shape).astype(np.float32)}
    found = [
        run(differentiate(one_node(case, np.float32, axes), ["x0"], ["y0"]).model, feed, True)
        for axes in ({}, case.open_everything())
    ]
    np.testing.assert_array_equal(found[1]["d/x0"], found[0]["d/x0"])


@pytest.mark.parametrize("asked", ["scales", "sizes"])
def test_what_is_asked_for_may_be_computed(asked: str) -> None:
    """As tf2onnx writes it: batch and channels of the image, then what the graph computes."""
    nodes = [
        make_node("Shape", ["x"], ["shape"], end=2),
        make_node("Concat", ["shape", "computed"], ["wanted"], axis=0),
    ]
    names = ["x", "", "", "wanted"]
    kind, value = TensorProto.INT64, np.array([5, 2], np.int64)
    if asked == "scales":
        names, nodes = ["x", "", "computed"], []
        kind, value = TensorProto.FLOAT, np.array([1, 1, 1.7, 0.55], np.float32)
    resized = make_node("Resize", names, ["y"], **half_pixel("linear"))
    sizes = ["batch", 2, "height", "width"]
    graph = make_graph(
        [*nodes, resized],
        "graph",
        [
            make_tensor_value_info("x", TensorProto.FLOAT, sizes),
            make_tensor_value_info("computed", kind, value.shape),
        ],
        [make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
    )
    made = differentiate(finish(graph, 18), ["x"], ["y"])
    x = uniform(*X).astype(np.float32)
    case = resize("", sizes=[2, 2, 5, 2], **half_pixel("linear"))
    if asked == "scales":
        case = resize("", scales=value, **half_pixel("linear"))
    dy = uniform(2, 2, 5, 2, seed=3).astype(np.float32)
    found = run(made.model, {"x": x, "computed": value, "dy/y": dy}, need_kernels=True)["d/x"]
    np.testing.assert_allclose(found, case.twin([dy], x)[0], atol=1e-5)
    # Batch and channels are the image's own: nothing is multiplied with a matrix there.
    assert made.written.count("MatMul") == (2 if asked == "sizes" else 4)


@pytest.mark.parametrize("case", [CUBIC[0], LINEAR[-1]], ids=str)
def test_other_ways_need_sizes(case: Case) -> None:
    with pytest.raises(UnsupportedOpsError, match=r"axis 2 is known at run time.*fixed sizes"):
        written(case, case.open_everything())
