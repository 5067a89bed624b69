"""Gradients of strided convolutions stay in phases behind them: structure, and the same values."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from probegen.graph.autodiff import gradients
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import shape_of
from probegen.graph.passes.after.strided_phases import work_in_phases
from probegen.graph.vjp import BLOCKING, RULES
from tests.graph.images import changed, model, node, weight


def differentiated(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> ir.Model:
    """Returns a model that gives the gradient of half the sum of squares of its value `y`."""
    forward = model(nodes, ["y"], **constants)
    graph = forward.graph
    b = Builder(graph, 18)
    y = graph.outputs[0]
    (found,) = gradients(b, {y: y}, [graph.inputs[0]], RULES, BLOCKING)
    assert found is not None
    b.attach()
    graph.outputs[:] = [found]
    return forward


def pushed(before: ir.Model) -> Counter[str]:
    def change(graph: ir.Graph) -> None:
        work_in_phases(graph)
        common.RemoveUnusedNodesPass()(before)

    return Counter(changed(before, change))


def widths(graph: ir.Model, op_type: str) -> list[int]:
    """Returns the channels of what operators of a kind read."""
    found = (shape_of(n.inputs[0]) for n in graph.graph if n.op_type == op_type)
    return [shape[1] for shape in found if shape is not None]


@pytest.mark.parametrize("strides", [[2, 2], [2, 1], [3, 2]], ids=str)
@pytest.mark.parametrize(
    ("kernel", "pads"),
    [
        ((3, 3), [1, 1, 1, 1]),
        ((3, 2), [0, 1, 2, 0]),
        ((2, 5), [0, 0, 0, 0]),
        ((4, 1), [3, 0, 2, 0]),
    ],
    ids=str,
)
def test_zeros_are_not_convolved(
    kernel: tuple[int, int], pads: list[int], strides: list[int]
) -> None:
    before = differentiated(
        [
            node("Conv", "x wide", "a", pads=pads),
            node("Relu", "a", "b"),
            node("Conv", "b single", "c"),
            node("Relu", "c", "d"),
            node("Conv", "d strided", "y", strides=strides),
        ],
        wide=weight(24, 16, *kernel),
        single=weight(32, 24, 1, 1),
        strided=weight(8, 32, 1, 1),
    )
    masks = [n for n in before.graph if n.op_type == "HardSigmoid"]
    left = pushed(before)
    # The masks are taken of one phase, and no zeros are put between its elements any more.
    assert left["HardSigmoid"] == len(masks)
    assert left["MaxPool"] == len(masks)
    assert "MatMul" not in left


def test_branches_and_spine_are_added_in_phases() -> None:
    before = differentiated(
        [
            node("Conv", "x single", "a"),
            node("Add", "a x", "b"),
            node("Relu", "b", "c"),
            node("Conv", "c left", "d", strides=[2, 2]),
            node("Conv", "c right", "e", strides=[2, 2]),
            node("Add", "d e", "y"),
        ],
        single=weight(16, 16, 1, 1),
        left=weight(8, 16, 1, 1),
        right=weight(8, 16, 1, 1),
    )
    assert Counter(n.op_type for n in before.graph)["MatMul"] == 2
    left = pushed(before)
    assert left["MatMul"] == left["HardSigmoid"] == 1
    assert before.graph.outputs[0].producer().op_type == "Reshape"


def test_a_depthwise_gradient_is_put_together_where_channels_are_few() -> None:
    before = differentiated(
        [
            node("Conv", "x widening", "a"),
            node("Clip", "a low high", "b"),
            node("Conv", "b each", "y", strides=[2, 2], pads=[0, 1, 1, 1], group=48),
        ],
        widening=weight(48, 16, 1, 1),
        each=weight(48, 1, 3, 3),
        low=np.array(0, np.float32),
        high=np.array(6, np.float32),
    )
    assert set(widths(before, "Concat")) == {48}
    pushed(before)
    assert set(widths(before, "Concat")) == {16}


def test_a_swish_is_taken_in_phases_too() -> None:
    before = differentiated(
        [
            node("Conv", "x widening", "a"),
            node("Sigmoid", "a", "s"),
            node("Mul", "a s", "b"),
            node("Conv", "b each", "y", strides=[3, 2], group=48),
        ],
        widening=weight(48, 16, 1, 1),
        each=weight(48, 1, 3, 3),
    )
    pushed(before)
    assert set(widths(before, "Concat")) == {16}


@pytest.mark.parametrize(
    "last",
    [
        node("Mul", "a broad", "b"),  # the other operand has no phases of its own
        node("Transpose", "a", "b", perm=[0, 1, 3, 2]),
        node("Conv", "a grouped", "b", group=2),
        node("Conv", "a dilated", "b", dilations=[2, 2], pads=[2, 2, 2, 2]),
    ],
    ids=["broadcast", "transpose", "groups", "dilation"],
)
def test_what_sees_more_than_a_phase_gets_the_whole(last: onnx.NodeProto) -> None:
    nodes = [
        node("Identity", "x", "a"),
        last,
        node("Conv", "b strided", "y", strides=[2, 2]),
    ]
    constants = {
        "broad": weight(1, 16, 1, 1),
        "grouped": weight(16, 8, 3, 3),
        "dilated": weight(16, 16, 3, 3),
        "strided": weight(8, 16, 1, 1),
    }
    used = {name for n in nodes for name in n.input}
    before = differentiated(nodes, **{k: v for k, v in constants.items() if k in used})
    structure = Counter(n.op_type for n in before.graph)
    assert pushed(before) == structure
