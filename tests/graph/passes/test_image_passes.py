"""Passes that suit images: what they change, what they leave, and that values stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from probegen.graph.passes.after.add_before_linear_op import sum_first
from probegen.graph.passes.after.drop_plain_shapes import drop_plain_shapes
from probegen.graph.passes.after.keep_blocked_layout import keep_blocks
from probegen.graph.passes.before.merge_into_convolutions import merge_into_convolutions
from probegen.graph.passes.scales import merge_into_normalisations, scale_before_masks
from tests.graph.images import changed, model, node, weight

PADS = np.array([0, 0, 1, 0, 0, 0, 0, 2])
ZERO = np.array(0, np.float32)

# -- into convolutions ---------------------------------------------------------------------


def test_convolutions_take_zero_padding() -> None:
    before = model(
        [node("Pad", "x pads zero", "p"), node("Conv", "p w", "y", pads=[0, 1, 1, 0])],
        ["y"],
        pads=PADS,
        zero=ZERO,
        w=weight(4, 16, 3, 3),
    )
    merged = before.graph.node("y")
    assert changed(before, merge_into_convolutions) == ["Pad", "Conv"]
    assert merged.inputs[0].name == "x"
    assert list(merged.attributes["pads"].as_ints()) == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("pads", "fill", "attributes"),
    [
        (PADS, ZERO + 1, {}),
        (np.array([0, 1, 0, 0, 0, -1, 0, 0]), ZERO, {}),
        (np.array([0, 0, -1, 0, 0, 0, 0, 2]), ZERO, {}),
        (PADS, ZERO, {"mode": "edge"}),
    ],
    ids=["filled", "channels", "cut", "edge"],
)
def test_other_padding_stays(
    pads: np.ndarray, fill: np.ndarray, attributes: dict[str, str]
) -> None:
    before = model(
        [node("Pad", "x pads fill", "p", **attributes), node("Conv", "p w", "y")],
        ["y"],
        pads=pads,
        fill=fill,
        w=weight(4, 16, 2, 2),
    )
    reader = before.graph.node("y")
    changed(before, merge_into_convolutions)
    assert reader.inputs[0].name == "p"


def test_padding_stays_where_the_convolution_chooses_its_own() -> None:
    before = model(
        [node("Pad", "x pads", "p"), node("Conv", "p w", "y", auto_pad="SAME_UPPER")],
        ["y"],
        pads=PADS,
        w=weight(4, 16, 3, 3),
    )
    reader = before.graph.node("y")
    changed(before, merge_into_convolutions)
    assert reader.inputs[0].name == "p"


@pytest.mark.parametrize("bias", [[], ["b"]], ids=["no bias", "bias"])
def test_depthwise_convolutions_take_scale_and_shift(bias: list[str]) -> None:
    before = model(
        [
            node("Conv", " ".join(["x", "w", *bias]), "c", group=16),
            node("Mul", "c scale", "m"),
            node("Add", "shift m", "y"),
        ],
        ["y"],
        w=weight(16, 1, 3, 3),
        b=weight(16),
        scale=weight(1, 16, 1, 1),
        shift=weight(16, 1, 1),
    )
    assert changed(before, merge_into_convolutions) == ["Conv"]


@pytest.mark.parametrize(
    ("nodes", "left"),
    [
        ([node("Conv", "x w", "c"), node("Mul", "c map", "y")], ["Conv", "Mul"]),
        ([node("Conv", "x w", "c"), node("Mul", "c c", "y")], ["Conv", "Mul"]),
        ([node("Conv", "x w", "c"), node("Mul", "c scale", "y"), node("Relu", "c", "r")], None),
    ],
    ids=["by a map", "by itself", "read twice"],
)
def test_other_products_stay(nodes: list[onnx.NodeProto], left: list[str] | None) -> None:
    before = model(
        nodes,
        [nodes[-1].output[0], nodes[1].output[0]],
        w=weight(16, 16, 1, 1),
        map=weight(1, 1, 6, 5),
        scale=weight(1, 16, 1, 1),
    )
    assert changed(before, merge_into_convolutions) == (left or [n.op_type for n in nodes])


def test_a_weight_that_others_read_stays_as_it_is() -> None:
    before = model(
        [
            node("Conv", "x w", "c"),
            node("Mul", "c scale", "y"),
            node("Conv", "z w", "other"),
        ],
        ["y", "other"],
        w=weight(16, 16, 1, 1),
        scale=weight(1, 16, 1, 1),
    )
    assert changed(before, merge_into_convolutions) == ["Conv", "Conv"]


# -- scales --------------------------------------------------------------------------------


def test_scale_and_shift_become_a_normalisation() -> None:
    before = model(
        [node("Mul", "x scale", "m"), node("Add", "m shift", "a"), node("Relu", "a", "y")],
        ["y"],
        scale=weight(1, 16, 1, 1),
        shift=weight(16, 1, 1),
    )
    assert changed(before, merge_into_normalisations) == ["BatchNormalization", "Relu"]


def test_normalisations_of_one_width_share_what_they_do_not_need() -> None:
    before = model(
        [
            node("Mul", "x scale", "m"),
            node("Add", "m shift", "a"),
            node("Relu", "a", "r"),
            node("Mul", "r shift", "n"),
            node("Add", "n scale", "y"),
        ],
        ["y"],
        scale=weight(1, 16, 1, 1),
        shift=weight(1, 16, 1, 1),
    )
    changed(before, merge_into_normalisations)
    first, second = (n for n in before.graph if n.op_type == "BatchNormalization")
    assert list(first.inputs[3:]) == list(second.inputs[3:])


@pytest.mark.parametrize(
    ("outputs", "left"), [(["y"], "BatchNormalization"), (["m", "y"], "Mul Add")]
)
def test_a_product_that_is_an_output_is_not_normalised(outputs: list[str], left: str) -> None:
    before = model(
        [
            node("MatMul", "x matrix", "m"),
            node("Transpose", "m", "t", perm=[0, 3, 1, 2]),
            node("Mul", "t scale", "s"),
            node("Add", "s shift", "y"),
        ],
        outputs,
        matrix=weight(5, 7),
        scale=weight(1, 7, 1, 1),
        shift=weight(1, 7, 1, 1),
    )
    assert changed(before, merge_into_normalisations) == ["MatMul", "Transpose", *left.split()]


def test_scales_of_other_sizes_stay() -> None:
    before = model(
        [node("Mul", "x scale", "m"), node("Add", "m shift", "y")],
        ["y"],
        scale=weight(1, 16, 1, 5),
        shift=weight(16, 1, 1),
    )
    assert changed(before, merge_into_normalisations) == ["Mul", "Add"]


def test_scales_move_next_to_the_convolution() -> None:
    before = model(
        [
            node("Conv", "x w", "c"),
            node("HardSigmoid", "z", "mask"),
            node("Mul", "c mask", "once"),
            node("Mul", "mask once", "twice"),
            node("Mul", "twice scale", "y"),
        ],
        ["y"],
        w=weight(16, 16, 1, 1),
        scale=weight(1, 16, 1, 1),
    )
    assert changed(before, scale_before_masks) == ["Conv", "HardSigmoid", "Mul", "Mul", "Mul"]
    products = [n for n in before.graph if n.op_type == "Mul"]
    assert [n.inputs[0].producer().op_type for n in products] == ["Conv", "Mul", "HardSigmoid"]
    assert products[0].inputs[1].name == "scale"


def test_scales_stay_behind_what_others_read() -> None:
    before = model(
        [
            node("Conv", "x w", "c"),
            node("Mul", "c z", "masked"),
            node("Mul", "masked scale", "y"),
            node("Relu", "masked", "other"),
        ],
        ["y", "other"],
        w=weight(16, 16, 1, 1),
        scale=weight(1, 16, 1, 1),
    )
    changed(before, scale_before_masks)
    assert before.graph.node("y").inputs[0].name == "masked"


# -- sums ----------------------------------------------------------------------------------


def test_sums_come_before_what_both_terms_go_through() -> None:
    before = model(
        [
            node("MatMul", "x matrix", "a"),
            node("MatMul", "z matrix", "b"),
            node("Reshape", "a shape", "c"),
            node("Reshape", "b shape", "d"),
            node("Add", "c d", "y"),
        ],
        ["y"],
        matrix=weight(5, 10),
        shape=np.array([-1, 16, 12, 5]),
    )
    assert changed(before, sum_first) == ["Add", "MatMul", "Reshape"]


@pytest.mark.parametrize(
    ("second", "outputs"),
    [
        (node("MatMul", "z other", "b"), ["y"]),
        (node("MatMul", "z matrix", "b"), ["y", "b"]),
    ],
    ids=["differently", "read by others"],
)
def test_sums_of_what_goes_different_ways_stay(second: onnx.NodeProto, outputs: list[str]) -> None:
    before = model(
        [node("MatMul", "x matrix", "a"), second, node("Add", "a b", "y")],
        outputs,
        matrix=weight(5, 10),
        other=weight(5, 10),
    )
    assert changed(before, sum_first) == ["MatMul", "MatMul", "Add"]


# -- layout --------------------------------------------------------------------------------


def spine(last: onnx.NodeProto) -> ir.Model:
    """A plain tensor enters products and sums with convolutions, as in a residual network."""
    return model(
        [
            node("Conv", "x w", "kept"),
            node("HardSigmoid", "kept", "mask"),
            node("Transpose", "z", "turned", perm=[0, 1, 3, 2]),
            node("Transpose", "turned", "plain", perm=[0, 1, 3, 2]),
            node("Sin", "plain", "odd"),
            node("Mul", "odd mask", "masked"),
            node("Conv", "masked w", "branch"),
            node("Add", "masked branch", "total"),
            node("Mul", "total mask", "again"),
            last,
        ],
        ["y"],
        w=weight(16, 16, 1, 1),
    )


def reorders(proto: onnx.ModelProto, folder: Path) -> int:
    """Returns how often a session changes between layouts."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    left = onnx.load(folder / "optimised.onnx").graph.node
    return sum(n.op_type.startswith("Reorder") for n in left)


def test_a_plain_gradient_does_not_take_a_network_out_of_blocks(tmp_path: Path) -> None:
    last = node("Conv", "again w", "y")
    plain = reorders(ir.to_proto(spine(last)), tmp_path)
    kept = spine(last)
    assert changed(kept, keep_blocks).count("MaxPool") == 1
    assert kept.graph.node("masked").inputs[0].producer().op_type == "MaxPool"
    # One reorder at the input, one at the output, and one where the plain tensor comes in.
    assert reorders(ir.to_proto(kept), tmp_path) <= 3 < plain


def test_nothing_is_put_in_where_no_convolution_follows() -> None:
    last = node("Sin", "again", "y")
    ending = model(
        [
            node("Conv", "x w", "kept"),
            node("Sin", "z", "odd"),
            node("Mul", "odd kept", "again"),
            last,
        ],
        ["y"],
        w=weight(16, 16, 1, 1),
    )
    assert "MaxPool" not in changed(ending, keep_blocks)


@pytest.mark.parametrize(
    ("op_type", "inputs"),
    [
        ("Mul", "c half"),
        ("Add", "half c"),
        ("Sub", "c half"),
        ("Sub", "half c"),
    ],
)
def test_a_number_and_blocked_images_meet_in_a_convolution(op_type: str, inputs: str) -> None:
    before = model(
        [
            node("Conv", "x w", "c"),
            node(op_type, inputs, "a"),
            node("Mul", "a c", "b"),
            node("Conv", "b w", "y"),
        ],
        ["y"],
        w=weight(16, 16, 1, 1),
        half=np.array(0.5, np.float32),
    )
    left = changed(before, keep_blocks)
    assert op_type not in left[:-2]
    assert before.graph.node("a").attributes["group"].as_int() == 16


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Sin", "x", "c"), node("Sub", "half c", "b"), node("Conv", "b w", "y")],
        [node("Conv", "x w", "c"), node("Sub", "half c", "b"), node("Sin", "b", "y")],
        [node("Conv", "x odd", "c"), node("Sub", "half c", "b"), node("Conv", "b of_odd", "y")],
        [node("Conv", "x w", "c"), node("Sub", "rows c", "b"), node("Conv", "b w", "y")],
    ],
    ids=["not in blocks", "no convolution follows", "no whole blocks", "more than one number"],
)
def test_other_sums_with_numbers_stay(nodes: list[onnx.NodeProto]) -> None:
    constants = {
        "w": weight(16, 16, 1, 1),
        "odd": weight(9, 16, 1, 1),
        "of_odd": weight(4, 9, 1, 1),
        "half": np.array(0.5, np.float32),
        "rows": weight(6, 1),
    }
    used = {name for n in nodes for name in n.input}
    before = model(nodes, ["y"], **{k: v for k, v in constants.items() if k in used})
    assert "Sub" in changed(before, keep_blocks)


def test_the_sum_of_blocked_images_is_a_pooling() -> None:
    before = model(
        [
            node("Conv", "x w", "c"),
            node("ReduceSum", "c axes", "s", keepdims=1),
            node("Sin", "s", "y"),
        ],
        ["y"],
        w=weight(16, 16, 1, 1),
        axes=np.array([2, 3]),
    )
    assert changed(before, keep_blocks) == ["Conv", "GlobalAveragePool", "Mul", "Sin"]


@pytest.mark.parametrize(("axes", "keepdims"), [([2], 1), ([2, 3], 0), ([1, 2, 3], 1)])
def test_sums_over_other_axes_stay(axes: list[int], keepdims: int) -> None:
    before = model(
        [node("Conv", "x w", "c"), node("ReduceSum", "c axes", "y", keepdims=keepdims)],
        ["y"],
        w=weight(16, 16, 1, 1),
        axes=np.array(axes),
    )
    assert changed(before, keep_blocks) == ["Conv", "ReduceSum"]


def expanded(other: onnx.NodeProto) -> ir.Model:
    """A share of each channel is added to images, as the gradient of a mean is."""
    return model(
        [
            node("ReduceMax", "z axes", "share", keepdims=1),
            node("Expand", "share sizes", "all"),
            other,
            node("Add", "all images", "sum"),
            node("Conv", "sum w", "y"),
        ],
        ["y"],
        axes=np.array([2, 3]),
        sizes=np.array([1, 1, 6, 5]),
        w=weight(16, 16, 1, 1),
    )


def test_a_sum_of_plain_images_broadcasts_by_itself() -> None:
    before = expanded(node("Sin", "x", "images"))
    total = before.graph.node("sum")
    changed(before, keep_blocks)
    assert total.inputs[0].name == "share"


def test_what_meets_blocked_images_is_expanded_before() -> None:
    before = expanded(node("Conv", "x w", "images"))
    total = before.graph.node("sum")
    changed(before, keep_blocks)
    assert total.inputs[0].producer().op_type == "MaxPool"


# -- shapes --------------------------------------------------------------------------------


def test_shapes_that_any_runtime_finds_are_left_out_of_the_file() -> None:
    before = model(
        [
            node("Conv", "x w", "c"),
            node("Reshape", "c flat", "r"),
            node("Relu", "r", "a"),
            node("Sin", "a", "y"),
        ],
        ["y"],
        w=weight(16, 16, 1, 1),
        flat=np.array([-1, 480]),
    )
    changed(before, drop_plain_shapes)
    kept = {v.name for v in ir.to_proto(before).graph.value_info}
    assert kept - set(before.graph.initializers) == {"r"}
    assert before.graph.outputs[0].shape is not None
