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


def squares(ops, x):
    """x times its own transpose."""
    return ops.matmul(x, ops.transpose(x, (0, 2, 1)))


def powered(matrices, power):
    """Powers by repeated multiplication, each over its largest element."""
    found = np.stack([np.linalg.matrix_power(m.astype(np.float64), power) for m in matrices])
    return (found / np.abs(found).max((1, 2), keepdims=True)).astype(np.float32)


def interpolated(x, axis, size):
    """Linear interpolation between the centres of elements, one line after the other."""
    old = x.shape[axis]
    centres = (np.arange(old) + 0.5) / old
    wanted = (np.arange(size) + 0.5) / size
    return np.apply_along_axis(lambda line: np.interp(wanted, centres, line), axis, x).astype(
        np.float32
    )


#: name -> (what the operations write, what numpy gives)
CASES = {
    "constant": (
        lambda o, x, _: o.mul(x, o.constant([1, 2, 3, 4], x)),
        lambda x, _: x * np.array([1, 2, 3, 4], np.float32),
    ),
    "cast": (lambda o, x, y: o.cast(o.greater(x, y), x), lambda x, y: (x > y).astype(np.float32)),
    "zeros_like": (lambda o, x, y: o.add(o.zeros_like(x), y), lambda x, y: 0 * x + y),
    "abs": (lambda o, x, _: o.abs(x), lambda x, _: np.abs(x)),
    "exp": (lambda o, x, _: o.exp(x), lambda x, _: np.exp(x)),
    "log": (lambda o, x, _: o.log(o.add(o.abs(x), 0.5)), lambda x, _: np.log(np.abs(x) + 0.5)),
    "cos": (lambda o, x, _: o.cos(x), lambda x, _: np.cos(x)),
    "numbered": (
        lambda o, x, y: o.add(o.numbered(x, (1, 2)), o.mul(x, y)),
        lambda x, y: np.arange(12, dtype=np.float32).reshape(1, 3, 4) + x * y,
    ),
    "numbered with the batch": (
        lambda o, x, _: o.numbered(x, (0, 2)),
        lambda x, _: np.arange(4 * len(x), dtype=np.float32).reshape(len(x), 1, 4),
    ),
    "correlate": (
        lambda o, x, _: o.correlate(x, [0.5, -1.0, 2.0], 2),
        lambda x, _: np.apply_along_axis(np.correlate, 2, x, [0.5, -1, 2], "same"),
    ),
    "correlate, wider than the axis": (
        lambda o, x, _: o.correlate(x, np.arange(9.0), 1),
        lambda x, _: np.apply_along_axis(
            lambda line: np.correlate(np.pad(line, 4), np.arange(9.0), "valid"), 1, x
        ).astype(np.float32),
    ),
    "correlate along the batch": (
        lambda o, x, _: o.correlate(x, [1.0, 2.0, 3.0], 0),
        lambda x, _: np.apply_along_axis(
            lambda line: np.correlate(np.pad(line, 1), [1.0, 2, 3], "valid"), 0, x
        ).astype(np.float32),
    ),
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
    "widened": (lambda o, x, _: o.widened(x), lambda x, _: x),
    "at_least": (lambda o, x, _: o.at_least(x, x), lambda x, _: x),
    "transpose": (lambda o, x, _: o.transpose(x, (0, 2, 1)), lambda x, _: x.transpose(0, 2, 1)),
    "joined": (lambda o, x, _: o.joined(x, 1, 2), lambda x, _: x.reshape(len(x), 12)),
    "joined with the batch": (
        lambda o, x, _: o.joined(o.transpose(x, (1, 0, 2)), 1, 2),
        lambda x, _: x.transpose(1, 0, 2).reshape(3, -1),
    ),
    "joined of one axis": (lambda o, x, y: o.add(o.joined(x, 1, 1), y), lambda x, y: x + y),
    "reshape_like": (
        lambda o, x, y: o.reshape_like(o.joined(x, 0, 3), o.mul(x, y)),
        lambda x, _: x,
    ),
    "stack": (
        lambda o, x, _: o.stack([x, o.abs(x), x], 1),
        lambda x, _: np.stack([x, np.abs(x), x], 1),
    ),
    "stack of one": (lambda o, x, _: o.stack([x], 3), lambda x, _: x[..., None]),
    "top": (lambda o, x, _: o.top(o.abs(x), 3)[0], lambda x, _: -np.sort(-np.abs(x))[..., :3]),
    "places of top": (
        lambda o, x, _: o.cast(o.top(x, 2)[1], x),
        lambda x, _: np.argsort(-x, kind="stable")[..., :2].astype(np.float32),
    ),
    "places of top, all equal": (
        lambda o, x, _: o.cast(o.top(o.zeros_like(x), 3)[1], x),
        lambda x, _: np.broadcast_to(np.arange(3, dtype=np.float32), (*x.shape[:-1], 3)),
    ),
    "top of an open number": (
        lambda o, x, _: o.top(o.transpose(x, (1, 2, 0)), 3)[0],
        lambda x, _: -np.sort(-x.transpose(1, 2, 0))[..., :3],
    ),
    "counted": (
        lambda o, x, _: o.mul(x, o.counted(x, 2)),
        lambda x, _: x * np.arange(4, dtype=np.float32),
    ),
    "counted along an open axis": (
        lambda o, x, _: o.mul(o.transpose(x, (1, 2, 0)), o.counted(x, 0)),
        lambda x, _: x.transpose(1, 2, 0) * np.arange(len(x), dtype=np.float32),
    ),
    "matmul": (
        lambda o, x, _: o.matmul(x, o.transpose(x, (0, 2, 1))),
        lambda x, _: x @ x.transpose(0, 2, 1),
    ),
    "matmul of a stack with one": (
        lambda o, x, _: o.matmul(x, o.constant(np.arange(8).reshape(4, 2), x)),
        lambda x, _: x @ np.arange(8, dtype=np.float32).reshape(4, 2),
    ),
    "matrix_power": (
        lambda o, x, y: o.matrix_power(squares(o, o.add(x, y)), 2),
        lambda x, y: powered(np.einsum("bij,bkj->bik", x + y, x + y), 4),
    ),
    "matrix_power of zeros": (
        lambda o, x, _: o.matrix_power(squares(o, o.mul(x, 0.0)), 3),
        lambda x, _: np.zeros((len(x), 3, 3), np.float32),
    ),
    "resize": (
        lambda o, x, _: o.resize(x, 1, o.constant(np.zeros(7), x), 0),
        lambda x, _: interpolated(x, 1, 7),
    ),
    "resize to less": (
        lambda o, x, _: o.resize(x, 2, o.constant(np.zeros((1, 3)), x), 1),
        lambda x, _: interpolated(x, 2, 3),
    ),
    "resize to an open size": (
        lambda o, x, _: o.resize(x, 2, o.transpose(x, (1, 0, 2)), 1),
        lambda x, _: interpolated(x, 2, len(x)),
    ),
    "resize of an open size": (
        lambda o, x, _: o.resize(x, 0, x, 2),
        lambda x, _: interpolated(x, 0, 4),
    ),
    "floor": (lambda o, x, _: o.floor(x), lambda x, _: np.floor(x)),
    "expand_dims": (
        lambda o, x, y: o.mul(o.expand_dims(x, (1, 3)), y),
        lambda x, y: x[:, None, :, None] * y,
    ),
    "reshape": (lambda o, x, _: o.reshape(x, (-1, 2, 6)), lambda x, _: x.reshape(-1, 2, 6)),
    "gather": (
        lambda o, x, _: o.gather(x, o.constant([[2, 0], [1, 1]], x), 1),
        lambda x, _: x[:, [[2, 0], [1, 1]]],
    ),
    "take from the end": (lambda o, x, _: o.take(x, (-1, 0), 2), lambda x, _: x[:, :, [-1, 0]]),
    "min": (lambda o, x, _: o.min(x, (2,)), lambda x, _: x.min(2)),
    "min of no axes": (lambda o, x, y: o.add(o.min(x, ()), y), lambda x, y: x + y),
    "identity": (
        lambda o, x, _: o.matmul(x, o.add(o.max(x, (1,), keepdims=True), o.identity(x))),
        lambda x, _: x @ (x.max(1, keepdims=True) + np.eye(4, dtype=np.float32)),
    ),
    "identity of open size": (
        lambda o, x, _: o.matmul(o.identity(o.transpose(x, (1, 2, 0))), o.sum(x, (1,))),
        lambda x, _: x.sum(1),
    ),
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
        assert len(said) == found.ndim
        assert all(a == b for a, b in zip(said, found.shape, strict=True) if isinstance(a, int))
        assert any(isinstance(a, int) for a in said)
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


def test_what_is_not_finite_has_no_power_and_leaves_the_others_alone():
    x = np.stack([np.eye(2), np.full((2, 2), np.nan), np.full((2, 2), 3.0)]).astype(np.float32)
    for ops, given in ((NumpyOperations(), x), (TensorFlowOperations(), tf.constant(x))):
        found = np.asarray(ops.matrix_power(given, 5))
        np.testing.assert_allclose(found[0], np.eye(2), atol=1e-6)
        assert np.isnan(found[1]).all()
        np.testing.assert_allclose(found[2], 1, rtol=1e-6)


def test_sixteen_bits_are_widened():
    x = np.array([1.5, -2.0], np.float16)
    y = x.astype(np.float32)
    assert NumpyOperations().widened(x).dtype == np.float32
    assert TensorFlowOperations().widened(tf.constant(x)).dtype == tf.float32
    assert NumpyOperations().widened(x.astype(np.float64)).dtype == np.float64
    half = ir.Value(name="x", shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT16))
    ops = OnnxOperations(Builder(ir.Graph([half], [], nodes=[], opset_imports={"": 18}), 18))
    assert ops.widened(half).dtype == ir.DataType.FLOAT
    single = ir.Value(name="y", shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT))
    assert ops.at_least(half, single).dtype == ir.DataType.FLOAT
    assert ops.at_least(single, half) is single
    for a, b in ((x, y), (y, x)):
        assert NumpyOperations().at_least(a, b).dtype == np.float32
        assert TensorFlowOperations().at_least(tf.constant(a), tf.constant(b)).dtype == tf.float32
