"""The backward pass stays in the layout of the runtime's convolutions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from probegen.graph.passes.after.keep_blocked_layout import keep_blocked_layout
from tests.graph.passes.harness import changed, node_of, parsed, weight

CONSTANTS = {
    "w": weight(16, 16, 1, 1),
    "odd": weight(9, 16, 1, 1),
    "of_odd": weight(4, 9, 1, 1),
    "half": np.array(0.5, np.float32),
    "rows": weight(6, 1),
    "sizes": np.array([1, 1, 6, 5]),
    "both": np.array([2, 3]),
    "two": np.array([2]),
    "three": np.array([1, 2, 3]),
}


def spine(last: str) -> ir.Model:
    """A plain tensor enters products and sums with convolutions, as in a residual network."""
    return parsed(
        f"""kept = Conv(x, w) mask = HardSigmoid(kept)
        turned = Transpose<perm=[0, 1, 3, 2]>(z) plain = Transpose<perm=[0, 1, 3, 2]>(turned)
        bent = Sin(plain) masked = Mul(bent, mask) branch = Conv(masked, w)
        total = Add(masked, branch) again = Mul(total, mask) y = {last}""",
        **CONSTANTS,
    )


def reorders(model: ir.Model, folder: Path) -> int:
    """Returns how often a session changes between layouts."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    proto = ir.to_proto(model).SerializeToString()
    onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    left = onnx.load(folder / "optimised.onnx").graph.node
    return sum(n.op_type.startswith("Reorder") for n in left)


def test_a_plain_gradient_does_not_take_a_network_out_of_blocks(tmp_path: Path) -> None:
    plain = reorders(spine("Conv(again, w)"), tmp_path)
    model = spine("Conv(again, w)")
    assert changed(model, keep_blocked_layout).count("MaxPool") == 1
    assert node_of(model, "masked").inputs[0].producer().op_type == "MaxPool"
    # One reorder at the input, one at the output, and one where the plain tensor comes in.
    assert reorders(model, tmp_path) <= 3 < plain


def test_nothing_is_put_in_where_no_convolution_follows() -> None:
    model = parsed("c = Conv(x, w) b = Sin(z) a = Mul(b, c) y = Sin(a)", **CONSTANTS)
    assert "MaxPool" not in changed(model, keep_blocked_layout)


@pytest.mark.parametrize("line", ["Mul(c, half)", "Add(half, c)", "Sub(c, half)", "Sub(half, c)"])
def test_a_number_and_blocked_images_meet_in_a_convolution(line: str) -> None:
    model = parsed(f"c = Conv(x, w) a = {line} b = Mul(a, c) y = Conv(b, w)", **CONSTANTS)
    left = changed(model, keep_blocked_layout)
    assert line[:3] not in left[:-2]
    assert node_of(model, "a").attributes["group"].as_int() == 16


@pytest.mark.parametrize(
    "body",
    [
        "c = Sin(x) b = Sub(half, c) y = Conv(b, w)",
        "c = Conv(x, w) b = Sub(half, c) y = Sin(b)",
        "c = Conv(x, odd) b = Sub(half, c) y = Conv(b, of_odd)",
        "c = Conv(x, w) b = Sub(rows, c) y = Conv(b, w)",
    ],
    ids=["not in blocks", "no convolution follows", "no whole blocks", "more than one number"],
)
def test_other_sums_with_numbers_stay(body: str) -> None:
    assert "Sub" in changed(parsed(body, **CONSTANTS), keep_blocked_layout)


def test_the_sum_of_blocked_images_is_a_pooling() -> None:
    model = parsed("c = Conv(x, w) s = ReduceSum<keepdims=1>(c, both) y = Sin(s)", **CONSTANTS)
    left = changed(model, keep_blocked_layout)
    assert left == ["Conv", "GlobalAveragePool", "Mul", "Sin"]


@pytest.mark.parametrize(("axes", "keepdims"), [("two", 1), ("both", 0), ("three", 1)])
def test_sums_over_other_axes_stay(axes: str, keepdims: int) -> None:
    model = parsed(f"c = Conv(x, w) y = ReduceSum<keepdims={keepdims}>(c, {axes})", **CONSTANTS)
    assert changed(model, keep_blocked_layout) == ["Conv", "ReduceSum"]


def expanded(images: str) -> ir.Model:
    """A share of each channel is added to images, as the gradient of a mean is."""
    return parsed(
        f"""share = ReduceMax<keepdims=1>(z, both) all = Expand(share, sizes) images = {images}
        sum = Add(all, images) y = Conv(sum, w)""",
        **CONSTANTS,
    )


def test_a_sum_of_plain_images_broadcasts_by_itself() -> None:
    model = expanded("Sin(x)")
    changed(model, keep_blocked_layout)
    assert node_of(model, "sum").inputs[0].name == "share"


def test_what_meets_blocked_images_is_expanded_before() -> None:
    model = expanded("Conv(x, w)")
    changed(model, keep_blocked_layout)
    assert node_of(model, "sum").inputs[0].producer().op_type == "MaxPool"


def test_images_that_are_a_constant_node_stay() -> None:
    model = parsed(
        "k = Expand(half, sizes) c = Conv(x, w) a = Mul(k, c) y = Conv(a, w)",
        **CONSTANTS,
    )
    constant = ir.node("Constant", [], {"value": ir.Tensor(weight(1, 16, 6, 5))})
    constant.outputs[0].name = "images"
    constant.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    constant.outputs[0].shape = ir.Shape([1, 16, 6, 5])
    model.graph.insert_before(model.graph[0], constant)
    node_of(model, "a").replace_input_with(0, constant.outputs[0])
    changed(model, keep_blocked_layout)
