"""Scales of channels move next to the convolution that they scale."""

from __future__ import annotations

import pytest

from probegen.graph.core.values import shape_of
from probegen.graph.passes.after.scale_before_masks import scale_before_masks
from probegen.graph.shape_inference import infer_shapes
from tests.graph.passes.harness import IMAGES, changed, node_of, parsed, weight

CONSTANTS = {
    "w": weight(16, 16, 1, 1),
    "narrow": weight(1, 16, 6, 5),
    "scale": weight(1, 16, 1, 1),
    "map": weight(1, 1, 6, 5),
}


def test_scales_move_next_to_the_convolution() -> None:
    model = parsed(
        """c = Conv(x, w) mask = HardSigmoid(z) once = Mul(c, mask) twice = Mul(mask, once)
        y = Mul(twice, scale)""",
        **CONSTANTS,
    )
    assert changed(model, scale_before_masks) == ["Conv", "HardSigmoid", "Mul", "Mul", "Mul"]
    products = [n for n in model.graph if n.op_type == "Mul"]
    assert [n.inputs[0].producer().op_type for n in products] == ["Conv", "Mul", "HardSigmoid"]
    assert products[0].inputs[1].name == "scale"


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("c = Conv(x, w) m = Mul(c, z) y = Mul(m, scale) other = Relu(m)", "y other"),
        ("c = Conv(x, w) m = Mul(c, z) y = Mul(m, scale)", "y m"),
        ("c = Conv(x, w) m = Mul(c, z) y = Mul(m, map)", "y"),
        ("c = Sin(x) m = Mul(c, z) y = Mul(m, scale)", "y"),
    ],
    ids=["read by others", "an output", "a map", "no convolution"],
)
def test_other_products_stay(body: str, outputs: str) -> None:
    model = parsed(body, outputs, **CONSTANTS)
    changed(model, scale_before_masks)
    assert node_of(model, "y").inputs[0].name == "m"


def test_what_is_known_of_shapes_stays_true_where_the_mask_is_the_larger() -> None:
    model = parsed("c = Conv(x, narrow) m = Mul(c, z) y = Mul(m, scale)", **CONSTANTS)
    assert shape_of(node_of(model, "c").outputs[0]) == ("batch", 1, 1, 1)
    changed(model, scale_before_masks)
    claimed = {v.name: shape_of(v) for n in model.graph for v in n.outputs}
    infer_shapes(model)
    assert claimed == {v.name: shape_of(v) for n in model.graph for v in n.outputs}


def test_a_scale_in_a_branch_stays_there() -> None:
    model = parsed(
        """c = Conv(x, w) m = Mul(c, z)
        y = If (on) <
          then_branch = yes () => (float[batch, 16, 6, 5] a) { a = Mul(m, scale) },
          else_branch = no () => (float[batch, 16, 6, 5] b) { b = Neg(x) }
        >""",
        inputs=f"{IMAGES}, bool on",
        **CONSTANTS,
    )
    changed(model, scale_before_masks)
    assert [n.op_type for n in model.graph.all_nodes()] == ["Conv", "Mul", "If", "Mul", "Neg"]
