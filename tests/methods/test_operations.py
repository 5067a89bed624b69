"""The array operations: ONNX, TensorFlow and numpy give what plain numpy gives."""

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import tensorflow as tf

from probegen.graph.array_operations import OnnxOperations
from probegen.graph.core.builder import Builder
from probegen.methods.numpy_operations import NumpyOperations
from probegen.sources.keras.array_operations import TensorFlowOperations

#: name -> (what the operations write, what numpy gives)
CASES = {
    "constant": (
        lambda o, x, _: o.mul(x, o.constant([1, 2, 3, 4], x)),
        lambda x, _: x * np.array([1, 2, 3, 4], np.float32),
    ),
    "cast": (lambda o, x, y: o.cast(o.greater(x, y), x), lambda x, y: (x > y).astype(np.float32)),
    "abs": (lambda o, x, _: o.abs(x), lambda x, _: np.abs(x)),
    "exp": (lambda o, x, _: o.exp(x), lambda x, _: np.exp(x)),
    "sqrt": (lambda o, x, _: o.sqrt(o.abs(x)), lambda x, _: np.sqrt(np.abs(x))),
    "relu": (lambda o, x, _: o.relu(x), lambda x, _: np.where(x > 0, x, 0)),
    "add": (lambda o, x, y: o.add(x, y), lambda x, y: x + y),
    "add a number": (lambda o, x, _: o.add(2.5, x), lambda x, _: 2.5 + x),
    "sub": (lambda o, x, y: o.sub(x, y), lambda x, y: x - y),
    "sub from a number": (lambda o, x, _: o.sub(0.0, x), lambda x, _: -x),
    "sub a number": (lambda o, x, _: o.sub(x, -0.5), lambda x, _: x + 0.5),
    "mul": (lambda o, x, y: o.mul(x, y), lambda x, y: x * y),
    "div": (lambda o, x, _: o.div(1.5, o.add(o.abs(x), 1.0)), lambda x, _: 1.5 / (abs(x) + 1)),
    "where": (
        lambda o, x, y: o.where(o.greater(x, y), y, -1.0),
        lambda x, y: np.where(x > y, y, -1),
    ),
    "where not": (
        lambda o, x, y: o.where(o.greater(0.0, x), 0.0, y),
        lambda x, y: np.where(x < 0, 0, y),
    ),
    "sum": (lambda o, x, _: o.sum(x, (1,)), lambda x, _: x.sum(1)),
    "mean": (
        lambda o, x, _: o.mean(x, (1, 2), keepdims=True),
        lambda x, _: x.mean((1, 2), keepdims=True),
    ),
    "max": (lambda o, x, _: o.max(x, (2,)), lambda x, _: x.max(2)),
    "max of no axes": (lambda o, x, y: o.add(o.max(x, ()), y), lambda x, y: x + y),
    "mean of no axes": (lambda o, x, y: o.add(o.mean(x, ()), y), lambda x, y: x + y),
    "sum of no axes": (lambda o, x, y: o.add(o.sum(x, ()), y), lambda x, y: x + y),
    "take": (lambda o, x, _: o.take(x, (2, 0), 1), lambda x, _: x[:, [2, 0]]),
}


def arrays(batch):
    """Values with zeros, negatives and ties, `[batch, 3, 4]` and `[1, 3, 1]`."""
    x = np.random.default_rng(batch).integers(-3, 4, (batch, 3, 4)).astype(np.float32) / 2
    return x, np.array([-0.5, 0.0, 0.5], np.float32).reshape(1, 3, 1)


def in_onnx(write, x, y):
    values = [
        ir.Value(name=n, shape=ir.Shape(s), type=ir.TensorType(ir.DataType.FLOAT))
        for n, s in (("x", ("batch", 3, 4)), ("y", (1, 3, 1)))
    ]
    graph = ir.Graph(values, [], nodes=[], opset_imports={"": 18}, name="g")
    builder = Builder(graph, 18)
    graph.outputs.append(write(OnnxOperations(builder), *values))
    builder.attach()
    said = graph.outputs[0].shape
    model = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": x, "y": y})[0]
    if said is not None:
        assert [d for d in said if isinstance(d, int)] == list(found.shape[1:])
    return found


@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("case", CASES)
def test_each_library_gives_what_numpy_gives(case, batch):
    write, twin = CASES[case]
    x, y = arrays(batch)
    expected = twin(x, y)
    found = {
        "onnx": in_onnx(write, x, y),
        "tensorflow": write(TensorFlowOperations(), tf.constant(x), tf.constant(y)).numpy(),
        "numpy": write(NumpyOperations(), x, y),
    }
    for library, value in found.items():
        assert value.shape == expected.shape, library
        assert value.dtype == np.float32, library
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-7, err_msg=library)


def test_numbers_that_change_nothing_write_nothing():
    x = ir.Value(name="x", shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT))
    builder = Builder(ir.Graph([x], [], nodes=[], opset_imports={"": 18}), 18)
    ops = OnnxOperations(builder)
    assert ops.sub(x, 0.0) is x
    assert ops.add(x, 0.0) is x
    assert ops.mul(1.0, x) is x
    assert ops.sum(x, ()) is ops.mean(x, ()) is ops.max(x, ()) is x
    assert builder.nodes == []
    assert ops.sub(0.0, x) is not x
