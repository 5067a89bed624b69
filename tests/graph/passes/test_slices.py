"""Slices: what they name, and what several of them come to."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common
import pytest

from probegen.graph.core.values import constant_of, shape_of
from probegen.graph.passes.slices import narrow_slices, split_slices
from tests.graph.vjp.harness import run, uniform


def parsed(text: str) -> ir.Model:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> m {text}')
    made = ir.from_proto(model)
    infer(made)
    return made


def infer(model: ir.Model) -> None:
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    ir.passes.common.ShapeInferencePass(data_prop=True)(model)


def test_slices_name_the_axes_they_cut_only() -> None:
    model = parsed(
        """(float[batch, 8, 3] x) => (float[a, b, c] y, float[d, e, f] z) {
          starts = Constant<value_ints = [0, 2, 0]>()
          ends = Constant<value_ints = [2147483647, 5, 2147483647]>()
          axes = Constant<value_ints = [0, 1, 2]>()
          y = Slice(x, starts, ends, axes)
          none = Constant<value_ints = [0, 0, 0]>()
          z = Slice(x, none, ends)
        }"""
    )
    before = {o.name: shape_of(o) for o in model.graph.outputs}
    narrow_slices(model.graph)
    infer(model)
    y, z = model.graph.outputs
    cut = {v.name: [constant_of(i).tolist() for i in v.producer().inputs[1:]] for v in (y, z)}
    assert before["y"] != ("batch", 3, 3)
    assert cut == {"y": [[2], [5], [1], [1]], "z": [[0], [5], [1], [1]]}
    assert shape_of(y) == ("batch", 3, 3)
    assert shape_of(z) == ("batch", 5, 3)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    x = uniform(2, 8, 3).astype("f")
    found = run(ir.to_proto(model), {"x": x})
    np.testing.assert_array_equal(found["y"], x[:, 2:5])
    np.testing.assert_array_equal(found["z"], x[:, :5])


SLICES = """(float[batch, 9, 3] x) => ({outputs}) {{
  axis = Constant<value_ints = [1]>()
  {slices}
}}"""


def sliced(*intervals: tuple[int, int]) -> ir.Model:
    lines, outputs = [], []
    for k, (start, end) in enumerate(intervals):
        lines.append(
            f"s{k} = Constant<value_ints = [{start}]>() e{k} = Constant<value_ints = [{end}]>() "
            f"y{k} = Slice(x, s{k}, e{k}, axis)"
        )
        outputs.append(f"float[a{k}, b{k}, c{k}] y{k}")
    return parsed(SLICES.format(outputs=", ".join(outputs), slices=" ".join(lines)))


@pytest.mark.parametrize(
    "intervals",
    [[(0, 2), (2, 5), (5, 9)], [(5, 2**31 - 1), (0, 5)], [(0, -7), (-7, 9)]],
)
def test_slices_that_share_an_axis_out_are_a_split(intervals: list[tuple[int, int]]) -> None:
    model = sliced(*intervals)
    shapes = {v.name: shape_of(v) for v in model.graph.outputs}
    split_slices(model.graph)
    assert [n.op_type for n in model.graph if n.op_type != "Constant"] == ["Split"]
    assert {v.name: shape_of(v) for v in model.graph.outputs} == shapes
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    x = uniform(2, 9, 3).astype("f")
    found = run(proto, {"x": x})
    for k, (start, end) in enumerate(intervals):
        np.testing.assert_array_equal(found[f"y{k}"], x[:, start:end])


@pytest.mark.parametrize(
    "intervals",
    [[(0, 2), (2, 5)], [(0, 5), (4, 9)], [(0, 4), (5, 9)], [(0, 9)], [(0, 4), (0, 4), (4, 8)]],
)
def test_other_slices_stay(intervals: list[tuple[int, int]]) -> None:
    model = sliced(*intervals)
    split_slices(model.graph)
    assert [n.op_type for n in model.graph if n.op_type != "Constant"] == ["Slice"] * len(intervals)


NESTED = """(float[n, 9, 3] x) => (float[a, b, c] y0, float[d, e, f] y1, float[g, h, i] y2) {
    axis = Constant<value_ints = [1]>()
    zero = Constant<value_ints = [0]>() two = Constant<value_ints = [2]>()
    four = Constant<value_ints = [4]>() nine = Constant<value_ints = [9]>()
    part = Slice(x, zero, four, axis)
    y0 = Slice(x, four, nine, axis)
    y1 = Slice(part, zero, two, axis)
    y2 = Slice(part, two, four, axis)
}"""


def test_slices_of_a_slice_are_a_split_of_a_split() -> None:
    model = parsed(NESTED)
    split_slices(model.graph)
    assert [n.op_type for n in model.graph if n.op_type != "Constant"] == ["Split", "Split"]
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    x = uniform(2, 9, 3).astype("f")
    found = run(proto, {"x": x})
    np.testing.assert_array_equal(found["y0"], x[:, 4:])
    np.testing.assert_array_equal(found["y1"], x[:, :2])
    np.testing.assert_array_equal(found["y2"], x[:, 2:4])
