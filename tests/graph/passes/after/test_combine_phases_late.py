"""Gradients of strided convolutions stay in phases behind them: structure, and the same values."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from probegen.graph.autodiff import gradients
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import shape_of
from probegen.graph.passes.after.combine_phases_late import combine_phases_late
from probegen.graph.passes.tidy import remove_unused_nodes
from probegen.graph.vjp import BLOCKING, RULES
from tests.graph.passes.harness import IMAGES, changed, node_of, operators, parsed, weight


def differentiated(body: str, inputs: str = IMAGES, **constants: np.ndarray) -> ir.Model:
    """Returns a model that gives the gradient of half the sum of squares of its value `y`."""
    model = parsed(body, inputs=inputs, **constants)
    graph = model.graph
    b = Builder(graph, 18)
    y = graph.outputs[0]
    (gradient,) = gradients(b, {y: y}, [graph.inputs[0]], RULES, BLOCKING)
    assert gradient is not None
    b.attach()
    graph.outputs[:] = [gradient]
    return model


def left_behind(model: ir.Model) -> Counter[str]:
    def change(_: ir.Model) -> None:
        combine_phases_late(model)
        remove_unused_nodes(model)

    return Counter(changed(model, change))


def widths(model: ir.Model, op_type: str) -> list[int]:
    """Returns the channels of what operators of a kind read."""
    shapes = (shape_of(n.inputs[0]) for n in model.graph if n.op_type == op_type)
    return [shape[1] for shape in shapes if shape is not None]


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
    model = differentiated(
        f"""a = Conv<pads={pads}>(x, wide) b = Relu(a) c = Conv(b, single) d = Relu(c)
        y = Conv<strides={strides}>(d, strided)""",
        wide=weight(24, 16, *kernel),
        single=weight(32, 24, 1, 1),
        strided=weight(8, 32, 1, 1),
    )
    masks = operators(model).count("HardSigmoid")
    left = left_behind(model)
    # The masks are taken of one phase, and no zeros are put between its elements any more.
    assert left["HardSigmoid"] == left["MaxPool"] == masks
    assert "MatMul" not in left


@pytest.mark.parametrize("size", ["6, 5", "4, 5"])
def test_windows_behind_the_image_have_no_part(size: str) -> None:
    """4 rows, of which windows every 3 read padding, row 2, and padding that would be row 5.

    Of 2 rows they read none but padding.
    """
    model = differentiated(
        "a = Conv(x, wide) y = Conv<strides=[3, 1], pads=[1, 1, 2, 2]>(a, strided, bias)",
        inputs=f"float[batch, 2, {size}] x",
        wide=weight(4, 2, 3, 3),
        strided=weight(3, 4, 1, 1),
        bias=weight(3),  # else nothing is asked of windows that read padding alone
    )
    left_behind(model)


@pytest.mark.parametrize(("size", "axes"), [("7", 1), ("5, 4, 3", 3)])
def test_phases_of_any_number_of_axes_are_picked(size: str, axes: int) -> None:
    model = differentiated(
        f"""a = Sigmoid(x) y = Conv<strides={[3] * axes}, pads={[1] * axes + [0] * axes}>(a, w)""",
        inputs=f"float[batch, 16, {size}] x",
        w=weight(8, 16, *[1] * axes),
    )
    masked = left_behind(model)
    assert masked["Expand"] == masked["Conv"] - 2 == 1


def test_branches_and_spine_are_added_in_phases() -> None:
    model = differentiated(
        """a = Conv(x, single) b = Add(a, x) c = Relu(b) d = Conv<strides=[2, 2]>(c, left)
        e = Conv<strides=[2, 2]>(c, right) y = Add(d, e)""",
        single=weight(16, 16, 1, 1),
        left=weight(8, 16, 1, 1),
        right=weight(8, 16, 1, 1),
    )
    assert operators(model).count("MatMul") == 2
    left = left_behind(model)
    assert left["MatMul"] == left["HardSigmoid"] == 1
    assert node_of(model, model.graph.outputs[0].name).op_type == "Reshape"


def test_a_depthwise_gradient_is_put_together_where_channels_are_few() -> None:
    model = differentiated(
        """a = Conv(x, widening) b = Clip(a, low, high)
        y = Conv<strides=[2, 2], pads=[0, 1, 1, 1], group=48>(b, each)""",
        widening=weight(48, 16, 1, 1),
        each=weight(48, 1, 3, 3),
        low=np.array(0, np.float32),
        high=np.array(6, np.float32),
    )
    assert set(widths(model, "Concat")) == {48}
    left_behind(model)
    assert set(widths(model, "Concat")) == {16}


def test_a_swish_is_taken_in_phases_too() -> None:
    model = differentiated(
        """a = Conv(x, widening) s = Sigmoid(a) b = Mul(a, s)
        y = Conv<strides=[3, 2], group=48>(b, each)""",
        widening=weight(48, 16, 1, 1),
        each=weight(48, 1, 3, 3),
    )
    left_behind(model)
    assert set(widths(model, "Concat")) == {16}


@pytest.mark.parametrize(
    "last",
    [
        "Mul(a, broad)",  # the other operand has no phases of its own
        "Transpose<perm=[0, 1, 3, 2]>(a)",
        "Conv<group=2>(a, grouped)",
        "Conv<dilations=[2, 2], pads=[2, 2, 2, 2]>(a, dilated)",
    ],
    ids=["broadcast", "transpose", "groups", "dilation"],
)
def test_what_sees_more_than_a_phase_gets_the_whole(last: str) -> None:
    model = differentiated(
        f"a = Identity(x) b = {last} y = Conv<strides=[2, 2]>(b, strided)",
        broad=weight(1, 16, 1, 1),
        grouped=weight(16, 8, 3, 3),
        dilated=weight(16, 16, 3, 3),
        strided=weight(8, 16, 1, 1),
    )
    before = Counter(operators(model))
    assert left_behind(model) == before
