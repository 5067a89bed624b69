"""What is done to a forward graph before it is differentiated: structure, and the same values."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common

from probegen.graph.core.values import shape_of
from probegen.graph.passes.before.name_open_sizes import name_open_sizes
from probegen.graph.passes.before.pools import (
    average_before_convolutions,
    pad_within_maxima,
    pool_globally,
)
from probegen.graph.passes.before.transpose_input_first import turn_first
from tests.graph.images import RNG, changed, model, node, run, weight

# -- open sizes ----------------------------------------------------------------------------


def shapes(nodes: list[onnx.NodeProto], **constants: object) -> dict[str, tuple[object, ...]]:
    """Returns the shapes of all values once sizes are named; x is `[batch, 16, time]`."""
    arrays = {name: np.asarray(array) for name, array in constants.items()}
    proto = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 16, "time"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in arrays.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    graph = ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True)).graph
    name_open_sizes(graph)
    return {v.name: shape_of(v) for n in graph for v in n.outputs}


def test_the_size_a_reshape_works_out_is_the_one_that_was_left() -> None:
    found = shapes(
        [
            node("ReduceMean", "x last", "mean", keepdims=0),
            node("Reshape", "mean wide", "image"),
            node("Sigmoid", "image", "gate"),
            node("Reshape", "gate flat", "row"),
            node("Unsqueeze", "row last", "column"),
            node("Mul", "x column", "y"),
        ],
        last=[2],
        wide=[-1, 16, 1, 1],
        flat=[-1, 16],
    )
    assert found["image"] == found["gate"] == ("batch", 16, 1, 1)
    assert found["y"] == ("batch", 16, "time")


def test_a_reshape_that_copies_one_open_size_works_out_the_other() -> None:
    found = shapes([node("Reshape", "x heads", "y")], heads=[0, 4, 4, -1])
    assert found["y"] == ("batch", 4, 4, "time")


def test_sizes_worked_out_are_numbers_where_nothing_is_open() -> None:
    found = shapes(
        [node("ReduceMax", "x ends", "m", keepdims=0), node("Reshape", "m halves", "y")],
        ends=[0, 2],
        halves=[2, -1],
    )
    assert found["y"] == (2, 8)


@pytest.mark.parametrize("target", [[-1, 8], [-1], [16, -1]], ids=str)
def test_products_of_sizes_keep_a_name_of_their_own(target: list[int]) -> None:
    found = shapes([node("Reshape", "x target", "y")], target=target)
    assert not {"batch", "time"} & set(found["y"])


# -- pooling -------------------------------------------------------------------------------


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_turned_images_is_a_global_pooling(keepdims: int) -> None:
    before = model(
        [
            node("Transpose", "x", "turned", perm=[0, 2, 3, 1]),
            node("ReduceMean", "turned axes", "mean", keepdims=keepdims),
            node("Sin", "mean", "y"),
        ],
        ["y"],
        axes=np.array([1, 2]),
    )
    left = changed(before, pool_globally)
    assert "GlobalAveragePool" in left
    assert "ReduceMean" not in left


def test_a_mean_behind_a_convolution_is_a_global_pooling() -> None:
    before = model(
        [
            node("Conv", "x w", "c"),
            node("Relu", "c", "r"),
            node("ReduceMean", "r axes", "mean", keepdims=1),
            node("Sin", "mean", "y"),
        ],
        ["y"],
        w=weight(8, 16, 1, 1),
        axes=np.array([-1, -2]),
    )
    assert changed(before, pool_globally) == ["Conv", "Relu", "GlobalAveragePool", "Sin"]


@pytest.mark.parametrize("axes", [[1], [2], [1, 2, 3], [3]], ids=str)
def test_means_over_other_axes_stay(axes: list[int]) -> None:
    before = model(
        [
            node("Transpose", "x", "turned", perm=[0, 2, 3, 1]),
            node("ReduceMean", "turned axes", "mean"),
            node("Sin", "mean", "y"),
        ],
        ["y"],
        axes=np.array(axes),
    )
    assert changed(before, pool_globally) == ["Transpose", "ReduceMean", "Sin"]


PADS = np.array([0, 0, 1, 0, 0, 0, 0, 1])


def test_a_maximum_of_rectified_images_pads_for_itself() -> None:
    before = model(
        [
            node("Relu", "x", "r"),
            node("Pad", "r pads", "p"),
            node("MaxPool", "p", "y", kernel_shape=[3, 2], strides=[2, 2]),
        ],
        ["y"],
        pads=PADS,
    )
    pool = before.graph.node("y")
    changed(before, pad_within_maxima, rtol=0)
    assert pool.inputs[0].name == "r"
    assert list(pool.attributes["pads"].as_ints()) == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("first", "pads", "kernel"),
    [("Sin", PADS, [3, 2]), ("Relu", PADS, [1, 2]), ("Relu", -PADS, [3, 2])],
    ids=["signed", "whole windows of padding", "cut"],
)
def test_other_padding_before_a_maximum_stays(
    first: str, pads: np.ndarray, kernel: list[int]
) -> None:
    before = model(
        [
            node(first, "x", "r"),
            node("Pad", "r pads", "p"),
            node("MaxPool", "p", "y", kernel_shape=kernel),
        ],
        ["y"],
        pads=pads,
    )
    pool = before.graph.node("y")
    changed(before, pad_within_maxima)
    assert pool.inputs[0].name == "p"


def test_a_convolution_of_single_elements_works_on_the_pooled_image() -> None:
    before = model(
        [
            node("Conv", "x w bias", "c"),
            node("AveragePool", "c", "p", kernel_shape=[2, 3], strides=[2, 1]),
            node("Sin", "p", "y"),
        ],
        ["y"],
        w=weight(8, 16, 1, 1),
        bias=weight(8),
    )
    assert changed(before, average_before_convolutions) == ["AveragePool", "Conv", "Sin"]
    pooled = before.graph[0].outputs[0]
    assert shape_of(pooled) == ("batch", 16, 3, 3)


@pytest.mark.parametrize(
    ("conv", "pool", "outputs"),
    [
        ({}, {"strides": [2, 1], "pads": [1, 0, 0, 0]}, ["y"]),
        ({}, {}, ["y"]),
        ({"strides": [2, 2]}, {"strides": [2, 1]}, ["y"]),
        ({"pads": [0, 0, 1, 0]}, {"strides": [2, 1]}, ["y"]),
        ({}, {"strides": [2, 1]}, ["y", "c"]),
        ({}, {"strides": [2, 1]}, ["y", "p"]),
    ],
    ids=["padded", "as large", "strided", "padded before", "read", "an output"],
)
def test_other_pairs_stay_in_order(
    conv: dict[str, object], pool: dict[str, object], outputs: list[str]
) -> None:
    before = model(
        [
            node("Conv", "x w", "c", **conv),
            node("AveragePool", "c", "p", kernel_shape=[2, 2], **pool),
            node("Sin", "p", "y"),
        ],
        outputs,
        w=weight(8, 16, 1, 1),
    )
    assert changed(before, average_before_convolutions) == ["Conv", "AveragePool", "Sin"]


# -- preprocessing -------------------------------------------------------------------------


def preprocessed(*steps: onnx.NodeProto, outputs: tuple[str, ...] = ("y",)) -> ir.Model:
    """Puts steps from `x` to `last` in front of a Transpose to channels first."""
    nodes = [*steps, node("Transpose", "last", "turned", perm=[0, 3, 1, 2])]
    nodes.append(node("Conv", "turned w", "y", pads=[1, 1, 1, 1]))
    return model(
        nodes,
        list(outputs),
        w=weight(8, 5, 3, 3),
        half=np.array(0.5, np.float32),
        each=weight(5) + 2,
        wide=weight(1, 1, 1, 5),
        rows=weight(6, 1),
    )


def left_behind(before: ir.Model) -> list[str]:
    def change(graph: ir.Graph) -> None:
        turn_first(graph)
        common.RemoveUnusedNodesPass()(before)

    return changed(before, change)


def test_scales_and_shifts_of_the_input_become_one_of_each() -> None:
    before = preprocessed(
        node("Mul", "half x", "a"),
        node("Sub", "a wide", "b"),
        node("Div", "b each", "c"),
        node("Sub", "half c", "last"),
    )
    assert left_behind(before) == ["Transpose", "Add", "Mul", "Conv"]


@pytest.mark.parametrize(
    "step",
    [
        node("Div", "half x", "last"),
        node("Mul", "x rows", "last"),
        node("Mul", "x x", "last"),
        node("Sin", "x", "last"),
    ],
    ids=["reciprocal", "rows", "square", "function"],
)
def test_other_steps_stay_before_the_turn(step: onnx.NodeProto) -> None:
    assert left_behind(preprocessed(step)) == [step.op_type, "Transpose", "Conv"]


def test_what_others_read_stays_before_the_turn() -> None:
    steps = (node("Mul", "x half", "a"), node("Add", "a wide", "last"))
    before = preprocessed(*steps, outputs=("y", "a"))
    assert left_behind(before) == ["Mul", "Transpose", "Add", "Mul", "Conv"]


def test_what_was_turned_keeps_its_place_among_the_outputs() -> None:
    steps = node("Mul", "x half", "a"), node("Add", "a wide", "last")
    before = preprocessed(*steps, outputs=("turned", "y"))
    assert left_behind(before) == ["Transpose", "Add", "Mul", "Conv"]


def test_a_mean_large_beside_the_deviation_cancels_as_before() -> None:
    mean = np.float32(30001)
    steps = node("Sub", "x mean", "a"), node("Div", "a each", "last")
    nodes = [*steps, node("Transpose", "last", "y", perm=[0, 3, 1, 2])]
    made = model(nodes, ["y"], mean=mean, each=np.array([0.3, 0.7, 0.9, 1.1, 0.6], np.float32))
    near = mean + RNG.uniform(-1, 1, (2, 16, 6, 5)).astype(np.float32)
    (expected,) = run(ir.to_proto(made), {"x": near, "z": near})
    turn_first(made.graph)
    (found,) = run(ir.to_proto(made), {"x": near, "z": near})
    np.testing.assert_allclose(found, expected, rtol=1e-6)
