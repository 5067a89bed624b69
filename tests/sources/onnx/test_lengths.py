"""How long the sequences of an ONNX graph may be, told by the tables that it cuts."""

import onnx.parser
import pytest

from probegen.sources import open_source

_TEXT = """
<ir_version: 8, opset_import: ["" : 18]>
positions (float[batch, time, 2] x) => (float[batch, 2] y)
<float[4, 2] table = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0}, int64[1] zero = {0},
 int64[1] one = {1}, int64[2] zeros = {0, 0}, int64[1] width = {2}, int64 first = {0},
 int64 step = {1}, int64 two = {2}, int64 axis = {1}>
{
    sizes = Shape (x)
    NODES
    summed = Add (x, rows)
    y = ReduceMean <keepdims = 0> (summed, one)
}
"""

_SLICED = """
    time = Gather (sizes, one)
    rows = Slice (table, zero, time, zero)
"""
#: As tf2onnx writes TensorFlow's Slice.
_ADDED = """
    time = Gather (sizes, one)
    both = Concat <axis = 0> (time, width)
    ends = Add (zeros, both)
    rows = Slice (table, zeros, ends)
"""
_COUNTED = """
    time = Gather (sizes, axis)
    numbers = Range (first, time, step)
    moved = Add (two, numbers)
    rows = Gather (table, moved)
"""
_OTHER = "rows = Slice (table, zero, one, zero)"


_BEHIND = """
<ir_version: 8, opset_import: ["" : 18]>
positions (float[batch, time, 2] x) => (float[batch, 1] y)
<float[4, 1] table = {1.0, 2.0, 3.0, 4.0}, int64[1] zero = {0}, int64[1] one = {1},
 int64[1] two = {2}, int64[2] last = {1, 2}>
{
    turned = Transpose <perm = [0, 2, 1]> (x)
    NODES
    back = Transpose <perm = [0, 2, 1]> (z)
    sizes = Shape (back)
    time = Gather (sizes, one)
    rows = Slice (table, zero, time, zero)
    summed = Add (back, rows)
    each = ReduceMean <keepdims = 0> (summed, last)
    y = Unsqueeze (each, one)
}
"""


@pytest.mark.parametrize(
    ("nodes", "expected"), [(_SLICED, {0: 4}), (_ADDED, {0: 4}), (_COUNTED, {0: 2}), (_OTHER, {})]
)
def test_tables_of_positions(nodes, expected):
    model = onnx.parser.parse_model(_TEXT.replace("NODES", nodes))
    assert open_source(model).view.longest() == expected


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("z = AveragePool <kernel_shape = [2], strides = [2]> (turned)", {}),
        ("z = AveragePool <kernel_shape = [3]> (turned)", {}),
        ("z = AveragePool <kernel_shape = [3], pads = [1, 1]> (turned)", {0: 4}),
        ("z = Concat <axis = 2> (turned, turned)", {}),
        ("z = Concat <axis = 1> (turned, turned)", {0: 4}),
        ("z = Slice (turned, zero, one, two)", {}),
        ("z = Slice (turned, zero, one, one)", {0: 4}),
    ],
)
def test_a_table_behind_what_makes_another_length_limits_no_input(nodes, expected):
    model = onnx.parser.parse_model(_BEHIND.replace("NODES", nodes))
    assert open_source(model).view.longest() == expected
