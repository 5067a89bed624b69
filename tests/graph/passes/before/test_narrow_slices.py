"""Slices name the axes that they cut, and no others."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx_ir.passes.common import ShapeInferencePass

from probegen.graph.core.values import constant_of, shape_of
from probegen.graph.passes.before.narrow_slices import narrow_slices
from probegen.graph.shape_inference import infer_shapes
from tests.graph.passes.harness import changed, node_of, parsed

X = "float[batch, 8, 3] x, int64[3] bounds"
END = 2**31 - 1


def bounds(model: ir.Model, output: str) -> list[list[int]]:
    return [constant_of(v).tolist() for v in node_of(model, output).inputs[1:]]


def unread(body: str, outputs: str = "y", **constants: object) -> ir.Model:
    """Returns a model whose Slices are still as they are written."""
    arrays = {name: np.array(array) for name, array in constants.items()}
    return parsed(body, outputs, inputs=X, infer=ShapeInferencePass(), **arrays)


def test_axes_that_are_taken_whole_are_left_out() -> None:
    model = unread(
        "y = Slice(x, starts, ends, axes) z = Slice(x, zeros, ends)",
        "y z",
        starts=[0, 2, 0],
        ends=[END, 5, END],
        axes=[0, 1, 2],
        zeros=[0, 0, 0],
    )
    changed(model, narrow_slices, rtol=0)
    assert bounds(model, "y") == [[2], [5], [1], [1]]
    assert bounds(model, "z") == [[0], [5], [1], [1]]
    infer_shapes(model)
    assert shape_of(model.graph.outputs[0]) == ("batch", 3, 3)
    assert shape_of(model.graph.outputs[1]) == ("batch", 5, 3)


def test_bounds_of_32_bits_and_steps_are_read_too() -> None:
    model = unread(
        "y = Slice(x, starts, ends, axes, steps)",
        starts=np.array([0, 7], np.int32),
        ends=np.array([END, -9], np.int32),
        axes=np.array([0, -2], np.int32),
        steps=np.array([1, -2], np.int32),
    )
    changed(model, narrow_slices, rtol=0)
    assert bounds(model, "y") == [[7], [-9], [-2], [-2]]


@pytest.mark.parametrize(
    "body",
    ["y = Slice(x, zeros, all)", "y = Slice(x, zeros, bounds)", "y = Slice(x, one, two, axis)"],
    ids=["nothing is cut", "bounds of the request", "nothing is taken whole"],
)
def test_others_stay(body: str) -> None:
    model = unread(body, zeros=[0, 0, 0], all=[END] * 3, one=[1], two=[2], axis=[1])
    before = list(node_of(model, "y").inputs)
    narrow_slices(model)
    assert list(node_of(model, "y").inputs) == before
