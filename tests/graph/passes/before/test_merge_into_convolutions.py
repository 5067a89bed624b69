"""Padding before a convolution, scale and shift behind it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from probegen.graph.passes.before.merge_into_convolutions import merge_into_convolutions
from tests.graph.passes.harness import IMAGES, changed, node_of, parsed, weight

PADS = np.array([0, 0, 1, 0, 0, 0, 0, 2])
ZERO = np.array(0, np.float32)


@pytest.mark.parametrize("fill", ["", ", zero"])
def test_convolutions_take_zero_padding(fill: str) -> None:
    model = parsed(
        f"p = Pad(x, pads{fill}) y = Conv<pads=[0, 1, 1, 0]>(p, w)",
        pads=PADS,
        zero=ZERO,
        w=weight(4, 16, 3, 3),
    )
    assert changed(model, merge_into_convolutions) == ["Pad", "Conv"]
    assert node_of(model, "y").inputs[0].name == "x"
    assert list(node_of(model, "y").attributes["pads"].as_ints()) == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("pads", "fill", "mode", "conv"),
    [
        (PADS, ZERO + 1, "constant", ""),
        (np.array([0, 1, 0, 0, 0, -1, 0, 0]), ZERO, "constant", ""),
        (np.array([0, 0, -1, 0, 0, 0, 0, 2]), ZERO, "constant", ""),
        (PADS, ZERO, "edge", ""),
        (PADS, ZERO, "constant", '<auto_pad="SAME_UPPER">'),
    ],
    ids=["filled", "channels", "cut", "edge", "the convolution chooses its own"],
)
def test_other_padding_stays(pads: np.ndarray, fill: np.ndarray, mode: str, conv: str) -> None:
    model = parsed(
        f'p = Pad<mode="{mode}">(x, pads, fill) y = Conv{conv}(p, w)',
        pads=pads,
        fill=fill,
        w=weight(4, 16, 2, 2),
    )
    changed(model, merge_into_convolutions)
    assert node_of(model, "y").inputs[0].name == "p"


def test_padding_of_axes_by_number_stays() -> None:
    model = parsed(
        "p = Pad(x, two, , axes) y = Conv(p, w)",
        two=np.array([1, 2]),
        axes=np.array([3]),
        w=weight(4, 16, 2, 2),
    )
    changed(model, merge_into_convolutions)
    assert node_of(model, "y").inputs[0].name == "p"


@pytest.mark.parametrize("bias", ["", ", b"], ids=["no bias", "bias"])
def test_depthwise_convolutions_take_scale_and_shift(bias: str) -> None:
    model = parsed(
        f"c = Conv<group=16>(x, w{bias}) m = Mul(c, scale) y = Add(shift, m)",
        w=weight(16, 1, 3, 3),
        b=weight(16),
        scale=weight(1, 16, 1, 1),
        shift=weight(16, 1, 1),
    )
    assert changed(model, merge_into_convolutions) == ["Conv"]


def test_a_shift_may_take_the_bias_back() -> None:
    b = weight(16)
    model = parsed(
        "c = Conv(x, w, b) y = Add(c, back)",
        w=weight(16, 16, 1, 1),
        b=b,
        back=-b.reshape(16, 1, 1),
    )
    assert changed(model, merge_into_convolutions) == ["Conv"]


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        ("c = Conv(x, w) y = Mul(c, map)", "y"),
        ("c = Conv(x, w) y = Mul(c, c)", "y"),
        ("c = Conv(x, w) y = Mul(c, scale) r = Relu(c)", "y r"),
        ("c = Conv(x, w) y = Mul(c, scale)", "y c"),
        ("c = Conv(x, z) y = Mul(c, number)", "y"),
        ("c = Conv(x, w) y = Mul(c, longer)", "y"),
        ("c = Conv(x, one) y = Mul(c, scale)", "y"),
        ("c = Conv(x, w) y = Mul(c, infinite)", "y"),
    ],
    ids=[
        *("by a map", "by itself", "read twice", "an output", "a kernel of the request"),
        *("a longer shape", "one channel made many", "an infinite scale"),
    ],
)
def test_other_products_stay(body: str, outputs: str) -> None:
    model = parsed(
        body,
        outputs,
        inputs="float[batch, 16, 6, 5] x, float[4, 16, 1, 1] z",
        w=weight(16, 16, 1, 1),
        one=weight(1, 16, 1, 1),
        map=weight(1, 1, 6, 5),
        scale=weight(1, 16, 1, 1),
        number=np.array(0.5, np.float32),
        longer=weight(1, 1, 16, 1, 1),
        infinite=np.array(np.inf, np.float32),
    )
    before = [n.op_type for n in model.graph]
    assert changed(model, merge_into_convolutions) == before


def test_a_weight_that_others_read_stays_as_it_is() -> None:
    model = parsed(
        "c = Conv(x, w) y = Mul(c, scale) other = Conv(z, w)",
        "y other",
        w=weight(16, 16, 1, 1),
        scale=weight(1, 16, 1, 1),
    )
    assert changed(model, merge_into_convolutions) == ["Conv", "Conv"]


def test_a_product_in_a_branch_stays_there() -> None:
    model = parsed(
        """c = Conv(x, w)
        y = If (on) <
          then_branch = yes () => (float[batch, 16, 6, 5] m) { m = Mul(c, scale) },
          else_branch = no () => (float[batch, 16, 6, 5] n) { n = Neg(x) }
        >""",
        inputs=f"{IMAGES}, bool on",
        w=weight(16, 16, 1, 1),
        scale=weight(1, 16, 1, 1),
    )
    changed(model, merge_into_convolutions)
    assert [n.op_type for n in model.graph.all_nodes()] == ["Conv", "If", "Mul", "Neg"]


def test_16_bit_kernels_that_would_run_over_stay() -> None:
    model = parsed(
        "h = Cast<to=10>(x) c = Conv(h, w) m = Mul(c, scale) y = Cast<to=1>(m)",
        w=np.full((2, 16, 1, 1), 300, np.float16),
        scale=np.full((1, 2, 1, 1), 300, np.float16),
    )
    before = [n.op_type for n in model.graph]
    merge_into_convolutions(model)
    assert [n.op_type for n in model.graph] == before
    assert isinstance(model, ir.Model)
