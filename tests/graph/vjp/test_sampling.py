"""Gradients of operators that read an image between its pixels."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from probegen.errors import UnsupportedOpsError
from tests.graph.vjp.harness import Case, check, differentiate, one_node, uniform, written

#: Places of which some lie well outside the image, and none on a pixel or half way between two.
PLACES = uniform(2, 2, 3, 2, low=-1.6, high=1.6, seed=4)


def grid_sample(shape=(2, 3, 4, 5), places=PLACES, **attributes):
    return Case(
        op="GridSample",
        inputs=[uniform(*shape), places],
        attributes=attributes,
        opset=20,
        wrt=[0] if attributes.get("mode") == "nearest" else None,
        name=" ".join(f"{k}={v}" for k, v in attributes.items()),
    )


GRIDS = [
    *(
        grid_sample(mode="linear", padding_mode=padding, align_corners=aligned)
        for padding in ("zeros", "border", "reflection")
        for aligned in (0, 1)
    ),
    grid_sample(mode="nearest", padding_mode="zeros"),
    grid_sample(mode="nearest", padding_mode="reflection", align_corners=1),
    grid_sample(shape=(2, 1, 4, 3), mode="cubic", padding_mode="zeros", align_corners=1),
    grid_sample(shape=(2, 1, 3, 5), mode="cubic", padding_mode="border"),
    grid_sample(shape=(2, 2, 4, 3), mode="cubic", padding_mode="reflection"),
    grid_sample(),
    grid_sample(shape=(2, 1, 1, 3), padding_mode="reflection"),
]

VOLUMES = [
    Case(
        op="GridSample",
        inputs=[uniform(2, 2, 3, 4, 5), uniform(2, 1, 2, 3, 3, low=-1.4, high=1.4, seed=4)],
        attributes={"mode": mode, "padding_mode": padding},
        opset=20,
        wrt=[0] if mode == "nearest" else None,
        open_all=False,
        name=f"volume {mode} {padding}",
    )
    for mode, padding in (("linear", "zeros"), ("linear", "reflection"), ("nearest", "border"))
]


def _deformable(group=1, groups=1, *, mask=True, bias=True, **attributes):
    """Returns a case whose kernel of 2x3 reads 4 channels of 5x4."""
    x = uniform(2, 4, 5, 4)
    w = uniform(6, 4 // group, 2, 3, seed=1)
    pads = attributes.get("pads", [0, 0, 0, 0])
    strides, dilations = (attributes.get(n, [1, 1]) for n in ("strides", "dilations"))
    out = [
        (n + pads[i] + pads[2 + i] - dilations[i] * (k - 1) - 1) // strides[i] + 1
        for i, (n, k) in enumerate(zip((5, 4), (2, 3), strict=True))
    ]
    inputs = [
        x,
        w,
        uniform(2, groups * 2 * 6, *out, low=-0.9, high=0.9, seed=2),
        uniform(6, seed=3) if bias else None,
        uniform(2, groups * 6, *out, low=0.1, high=1, seed=5) if mask else None,
    ]
    return Case(
        op="DeformConv",
        inputs=inputs,
        attributes={"group": group, "offset_group": groups, **attributes},
        opset=19,
        batch={},
        open_all=False,
        single=False,  # the forward kernel is not in all versions of onnxruntime
        name=f"{group} {groups} {attributes}",
    )


DEFORMABLE = [
    _deformable(),
    _deformable(mask=False, bias=False, pads=[1, 0, 0, 1], strides=[2, 1]),
    _deformable(group=2, groups=2, dilations=[2, 1]),
]

#: Regions of other sizes and proportions, one that reaches outside.
REGIONS = np.array([[0.3, 0.2, 3.6, 2.9], [-1.4, 0.6, 2.2, 5.3], [1.1, 1.3, 1.7, 4.1]])

REGION_CASES = [
    Case(
        op="RoiAlign",
        inputs=[uniform(2, 3, 5, 4), REGIONS, np.array([0, 1, 1])],
        attributes={
            "output_height": 2,
            "output_width": 3,
            "sampling_ratio": 2,
            "spatial_scale": 0.9,
            **attributes,
        },
        batch={0: {0: "batch"}},
        name=" ".join(f"{k}={v}" for k, v in attributes.items()),
    )
    for attributes in (
        {},
        {"coordinate_transformation_mode": "output_half_pixel"},
        {"mode": "max"},
    )
]

AFFINE = [
    Case(
        op="AffineGrid",
        inputs=[uniform(2, axes, axes + 1), np.array([2, 3, *sizes])],
        attributes={"align_corners": aligned},
        constants={1},
        opset=20,
        name=f"{sizes} aligned {aligned}",
    )
    for aligned in (0, 1)
    for axes, sizes in ((2, (3, 4)), (3, (2, 4, 3)))
]

CASES = [*AFFINE, *GRIDS, *VOLUMES, *DEFORMABLE, *REGION_CASES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient(case):
    check(case)


@pytest.mark.parametrize("case", [GRIDS[0], DEFORMABLE[0], REGION_CASES[0]], ids=str)
def test_16_bits_are_done_in_32(case):
    made = differentiate(one_node(case, np.float16), [f"x{i}" for i in case.wanted], ["y0"])
    types = {o.name: o.type.tensor_type.elem_type for o in made.model.graph.output}
    assert {types[f"d/x{i}"] for i in case.wanted} == {onnx.TensorProto.FLOAT16}
    assert ir.DataType.FLOAT in {dtype for dtype, _ in made.claims.values()}


def test_modes_have_other_names_before_opset_20():
    for old, new in (("bilinear", "linear"), ("bicubic", "cubic")):
        case = dataclasses.replace(grid_sample(mode=old), opset=16)
        assert written(case) == written(grid_sample(mode=new))


def test_a_ratio_that_depends_on_the_region_is_refused():
    case = Case(op="RoiAlign", inputs=[uniform(1, 2, 4, 4), REGIONS, np.array([0, 0, 0])])
    with pytest.raises(UnsupportedOpsError, match="RoiAlign: its sampling_ratio is 0"):
        written(case)
