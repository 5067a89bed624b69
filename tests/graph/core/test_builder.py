"""The graph builder: what it writes, and what it leaves out."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import (
    UnknownShapeError,
    broadcast,
    constant_of,
    rank_of,
    same_shape,
    shape_of,
)

FLOAT = ir.DataType.FLOAT


def value(name, *shape, dtype=FLOAT):
    return ir.Value(name=name, shape=ir.Shape(list(shape)), type=ir.TensorType(dtype))


def empty(*inputs, opset=18):
    """Returns a builder over a graph with these inputs and nothing in it."""
    graph = ir.Graph(list(inputs), [], nodes=[], name="test", opset_imports={"": opset})
    return Builder(graph, opset)


def ops(builder):
    return [node.op_type for node in builder.nodes]


def run(builder, result, feeds):
    """Attaches what was built, makes `result` the output, checks the model and runs it."""
    builder.attach()
    if result.dtype is None or result in builder.graph.inputs:
        raise AssertionError("the result has to be written by the builder")
    builder.graph.outputs.append(result)
    proto = ir.to_proto(ir.Model(builder.graph, ir_version=10))
    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)[0]


# -- names and constants ---------------------------------------------------------------------


def test_new_names_are_no_names_of_the_graph():
    x = value("probegen/Neg_0", 2)
    b = empty(x)
    b.neg(x)
    assert b.nodes[0].name != x.name
    names = [b.nodes[0].name, b.nodes[0].outputs[0].name, x.name]
    assert len(set(names)) == 3


def test_names_within_subgraphs_are_taken_too():
    inner = value("probegen/hint_0", 2)
    body = ir.Graph([inner], [inner], nodes=[], name="body")
    x = value("x", 2)
    scan = ir.node("Scan", [x], attributes={"body": body, "num_scan_inputs": 1})
    graph = ir.Graph([x], [], nodes=[scan], name="test", opset_imports={"": 18})
    assert Builder(graph, 18).fresh("hint") != "probegen/hint_0"


def test_equal_constants_share_one_initializer():
    b = empty()
    assert b.ints(1, 2) is b.ints(1, 2)
    assert b.ints(1, 2) is not b.ints(1, 3)
    assert b.const(np.float32(1)) is not b.const(np.float64(1))
    assert len(b.graph.initializers) == 4


def test_an_initializer_that_can_be_overridden_is_not_known():
    b = empty()
    fixed = b.ints(3)
    assert constant_of(fixed).tolist() == [3]
    b.graph.inputs.append(fixed)
    assert constant_of(fixed) is None
    assert constant_of(None) is None


def test_nodes_stay_apart_until_attached():
    x = value("x", 2)
    b = empty(x)
    y = b.neg(x)
    assert len(b.graph) == 0
    b.attach()
    assert [node.op_type for node in b.graph] == ["Neg"]
    assert b.nodes == []
    assert y.producer().graph is b.graph


def test_what_stands_for_a_node_has_the_names_of_its_outputs():
    """One output is made anew, one is handed on, one stands for two, one is not read."""
    x = value("x", 2, 3)
    first, second = ir.node("Split", [x], num_outputs=2), ir.node("Split", [x], num_outputs=2)
    for node, names in ((first, ("a", "b")), (second, ("c", "d"))):
        for made, name in zip(node.outputs, names, strict=True):
            made.name, made.dtype, made.shape = name, FLOAT, ir.Shape([1, 3])
    reader = ir.node("Neg", [first.outputs[0]])
    reader.outputs[0].name = "read"
    outputs = [*first.outputs, second.outputs[0], *reader.outputs]
    graph = ir.Graph([x], outputs, nodes=[first, second, reader], opset_imports={"": 18})
    b = Builder(graph, 18)
    made = b.op("Abs", x, shape=[None, 3])
    replaced = b.replace(first, [made, made])
    assert [node.op_type for node in replaced] == ["Abs", "Identity"]
    assert shape_of(made) == (1, 3)
    assert reader.inputs[0] is made
    assert b.replace(second, [x, None])[0].op_type == "Identity"
    assert [v.name for v in graph.outputs] == ["a", "b", "c", "read"]
    assert x.name == "x"
    assert b.nodes == []
    assert [node.op_type for node in graph] == ["Abs", "Identity", "Identity", "Neg"]


# -- what is known of shapes -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ([(2, 3), (3,)], (2, 3)),
        ([(2, 1), (1, 3)], (2, 3)),
        ([("n", 3), ("n", 1)], ("n", 3)),
        ([("n",), (1,)], ("n",)),
        ([("n",), (4,)], (4,)),
        ([("n",), ("m",)], (None,)),
        ([(None,), (1,)], (None,)),
        ([(), ()], ()),
        ([(2,), None], None),
    ],
)
def test_broadcast(shapes, expected):
    assert broadcast(*shapes) == expected


def test_same_shape_needs_every_size_known():
    assert same_shape(value("a", "n", 3), value("b", "n", 3))
    assert not same_shape(value("a", "n", 3), value("b", "m", 3))
    assert not same_shape(value("a", None, 3), value("b", None, 3))


def test_an_unknown_rank_is_an_error_that_names_the_value():
    with pytest.raises(UnknownShapeError, match="the rank of 'lost' is unknown"):
        rank_of(ir.Value(name="lost"))


def test_an_unknown_element_type_is_an_error_that_names_the_value():
    with pytest.raises(UnknownShapeError, match="the element type of 'lost' is unknown"):
        empty().scalar(1.0, ir.Value(name="lost"))


# -- helpers that write nothing where nothing is needed --------------------------------------


def test_neutral_operations_write_nothing():
    x = value("x", 2, 3)
    b = empty(x)
    assert b.add(x, 0) is x
    assert b.mul(1.0, x) is x
    assert b.cast(x, FLOAT) is x
    assert b.transpose(x, [0, 1]) is x
    assert b.pad(x, [0, 0], [0, 0]) is x
    assert b.squeeze(x, []) is x
    assert b.unsqueeze(x, []) is x
    assert b.reduce_sum(x, [], keepdims=True) is x
    assert b.concat([x], axis=0) is x
    assert b.expand(x, value("y", 2, 3)) is x
    assert b.reshape_like(x, value("y", 2, 3)) is x
    assert b.unbroadcast(x, value("y", 2, 3)) is x
    assert ops(b) == []


def test_shapes_and_types_of_what_is_written():
    x, y = value("x", "n", 3), value("y", 4, 1, 3)
    b = empty(x, y)
    assert shape_of(b.mul(x, y)) == (4, "n", 3)
    assert b.elementwise("Less", x, 0.0).dtype == ir.DataType.BOOL
    assert shape_of(b.transpose(y, [2, 0, 1])) == (3, 4, 1)
    assert shape_of(b.unsqueeze(x, [0, 2])) == (1, "n", 1, 3)
    assert shape_of(b.squeeze(y, [1])) == (4, 3)
    assert shape_of(b.pad(x, [1, 0], [0, 2])) == (None, 5)
    assert shape_of(b.slice(y, 2, 1, 3)) == (4, 1, 2)
    assert shape_of(b.concat([y, y], axis=1)) == (4, 2, 3)
    assert shape_of(b.concat([x, x], axis=0)) == (None, 3)
    assert shape_of(b.shape_value(x)) == (2,)
    assert b.where(b.elementwise("Less", x, 0.0), 1.0, x).dtype == FLOAT


def test_where_needs_one_value_to_choose():
    b = empty()
    with pytest.raises(TypeError, match="one of the two choices has to be a value"):
        b.where(b.const(np.array(True)), 1.0, 2.0)


@pytest.mark.parametrize(("opset", "inputs"), [(13, 1), (18, 2)])
def test_axes_of_a_reduction_are_where_the_opset_has_them(opset, inputs):
    x = value("x", 2, 3)
    b = empty(x, opset=opset)
    b.reduce("ReduceMax", x, [1], keepdims=False)
    assert len(b.nodes[0].inputs) == inputs
    b.reduce_sum(x, [1], keepdims=False)
    assert len(b.nodes[1].inputs) == 2


# -- sizes that are open ---------------------------------------------------------------------


def test_reshape_is_constant_with_one_open_size():
    x = value("x", "n", 12)
    b = empty(x)
    y = b.reshape_like(x, value("y", "n", 3, 4))
    assert ops(b) == ["Reshape"]
    assert shape_of(y) == ("n", 3, 4)


def test_reshape_copies_an_open_size_from_its_place_and_infers_one_more():
    x = value("x", "n", "t", 12)
    b = empty(x)
    b.reshape_like(x, value("y", "n", "t", 3, 4))
    assert ops(b) == ["Reshape"]
    assert constant_of(b.nodes[0].inputs[1]).tolist() == [0, 0, 3, 4]
    b.reshape(x, [(value("y", "m"), 0), (x, 1), 12])
    assert constant_of(b.nodes[1].inputs[1]).tolist() == [-1, 0, 12]


def test_reshape_measures_what_it_cannot_infer():
    x, like = value("x", 24), value("like", "n", "t", 4)
    b = empty(x, like)
    y = b.reshape_like(x, like)
    assert ops(b) == ["Shape", "Reshape"]
    feeds = {"x": np.arange(24, dtype=np.float32), "like": np.zeros((2, 3, 4), np.float32)}
    assert run(b, y, feeds).shape == (2, 3, 4)


@pytest.mark.parametrize("opset", [13, 18])
def test_reshape_puts_measured_sizes_together(opset):
    x, like = value("x", 24), value("like", "n", "t", 2)
    b = empty(x, like, opset=opset)
    y = b.reshape(x, [(like, 1), 2, (like, 0), 2])
    feeds = {"x": np.arange(24, dtype=np.float32), "like": np.zeros((2, 3, 2), np.float32)}
    assert run(b, y, feeds).shape == (3, 2, 2, 2)


def test_reshape_of_nothing_keeps_its_other_sizes():
    x, like = value("x", "n", 6), value("like", "n", "t", 2)
    b = empty(x, like)
    y = b.reshape(x, [(like, 1), (like, 0), 2])
    feeds = {"x": np.zeros((0, 6), np.float32), "like": np.zeros((0, 3, 2), np.float32)}
    assert run(b, y, feeds).shape == (3, 0, 2)


def test_expand_is_constant_where_open_sizes_are_there_already():
    x = value("x", "n", 1)
    b = empty(x)
    b.expand(x, value("y", "n", 5))
    assert ops(b) == ["Expand"]
    assert constant_of(b.nodes[0].inputs[1]).tolist() == [1, 5]
    b.expand(x, value("z", "n", "t"))
    assert ops(b) == ["Expand", "Shape", "Expand"]


@pytest.mark.parametrize(("opset", "nodes"), [(13, ["Shape", "Gather"]), (15, ["Shape"])])
def test_the_size_of_one_axis(opset, nodes):
    x = value("x", 3, "n")
    b = empty(x, opset=opset)
    assert constant_of(b.size(x, 0)).tolist() == [3]
    size = b.size(x, 1)
    assert ops(b) == nodes
    assert run(b, size, {"x": np.zeros((3, 7), np.float32)}).tolist() == [7]


@pytest.mark.parametrize(("shape", "nodes"), [((2, 3), 1), (("n", 3), 2)])
def test_zeros_like(shape, nodes):
    x = value("x", *shape, dtype=ir.DataType.DOUBLE)
    b = empty(x)
    zeros = b.zeros_like(x)
    assert len(ops(b)) == nodes
    found = run(b, zeros, {"x": np.ones((2, 3))})
    np.testing.assert_array_equal(found, np.zeros((2, 3)))
    assert found.dtype == np.float64


@pytest.mark.parametrize(
    ("opset", "nodes"), [(18, ["ConstantOfShape", "Cast"]), (20, ["ConstantOfShape"])]
)
def test_zeros_of_16_bits_with_a_long_exponent(opset, nodes):
    x = value("x", 2, 3, dtype=ir.DataType.BFLOAT16)
    b = empty(x, opset=opset)
    zeros = b.zeros_like(x)
    assert ops(b) == nodes
    assert zeros.dtype == x.dtype
    b.attach()
    b.graph.outputs.append(zeros)
    onnx.checker.check_model(ir.to_proto(ir.Model(b.graph, ir_version=10)), full_check=True)


def test_a_second_output_is_asked_of_the_forward_node_once():
    x = value("x", 2, 3, 4, 4)
    pool = ir.node("MaxPool", [x], attributes={"kernel_shape": [2, 2]})
    graph = ir.Graph([x], [], nodes=[pool], name="test", opset_imports={"": 18})
    b = Builder(graph, 18)
    indices = b.output(pool, 1, [2, 3, 3, 3], ir.DataType.INT64)
    assert b.output(pool, 1, [2, 3, 3, 3], ir.DataType.INT64) is indices
    assert indices.producer() is pool
    assert (shape_of(indices), indices.dtype) == ((2, 3, 3, 3), ir.DataType.INT64)


# -- undoing a broadcast ---------------------------------------------------------------------


def _summed(gradient, shape):
    """The naive twin: sum over every axis that was added or repeated."""
    extra = gradient.ndim - len(shape)
    gradient = gradient.sum(axis=tuple(range(extra)))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and gradient.shape[i] != 1)
    return gradient.sum(axis=repeated, keepdims=True)


@st.composite
def _broadcasts(draw):
    """Draws a full shape, a shape that broadcasts to it, and which sizes are open."""
    full = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    small = [draw(st.sampled_from((1, n))) for n in full[draw(st.integers(0, len(full))) :]]
    open_sizes = draw(st.lists(st.booleans(), min_size=8, max_size=8))
    return tuple(full), tuple(small), open_sizes


@given(_broadcasts())
@settings(max_examples=60, deadline=None)
def test_unbroadcast(drawn):
    full, small, open_sizes = drawn
    g = value("g", *(f"g{i}" if open_sizes[i] else n for i, n in enumerate(full)))
    like = value("like", *(f"x{i}" if open_sizes[4 + i] else n for i, n in enumerate(small)))
    b = empty(g, like)
    array = np.arange(np.prod(full), dtype=np.float32).reshape(full)
    found = b.unbroadcast(g, like)
    if found is g:
        assert full == small
        return
    feeds = {"g": array, "like": np.zeros(small, np.float32)}
    np.testing.assert_allclose(run(b, found, feeds), _summed(array, small))


@pytest.mark.parametrize(
    ("gradient", "like", "nodes"),
    [
        (("n", 3), ("n", 3), []),
        (("n", 3), (3,), ["ReduceSum"]),
        (("n", 3), ("n", 1), ["ReduceSum"]),
        (("n", 4, 3), (1, 3), ["ReduceSum", "Squeeze"]),
        (("n", 3), (), ["ReduceSum"]),
        (
            ("n", 3),
            ("m", 3),
            ["Shape", "Shape", "Max", "Div", "Concat", "Gather", "Reshape", "ReduceSum"],
        ),
        ((1, 3), ("n", 3), []),
    ],
)
def test_unbroadcast_decides_when_the_graph_is_written_where_it_can(gradient, like, nodes):
    g, x = value("g", *gradient), value("x", *like)
    b = empty(g, x)
    b.unbroadcast(g, x)
    assert ops(b) == nodes
