"""What tf2onnx writes wrongly, put right in the graph."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from probegen.graph.mends import mend_scales


def resize(size: int | str, scale: float, opset: int = 18) -> ir.Model:
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None])],
        [numpy_helper.from_array(np.array([1, scale], np.float32), "scales")],
    )
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))


def resized(model: ir.Model) -> np.ndarray:
    proto = ir.to_proto(model)
    proto.ir_version = 10
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (y,) = session.run(None, {"x": np.arange(24, dtype=np.float32).reshape(2, 12)})
    return y


def inferred(model: ir.Model) -> int:
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(model))
    return proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value


def test_shape_inference_finds_the_size_that_was_meant() -> None:
    model = resize(12, 7 / 12)
    before = resized(model)
    assert (inferred(model), before.shape) == (6, (2, 7))
    assert mend_scales(model.graph)
    assert inferred(model) == 7
    np.testing.assert_array_equal(resized(model), before)
    assert not mend_scales(model.graph)


@pytest.mark.parametrize(("size", "scale"), [(12, 0.5), (12, 2), (10, 0.75), ("width", 7 / 12)])
def test_other_scales_stay(size: int | str, scale: float) -> None:
    model = resize(size, scale)
    assert not mend_scales(model.graph)


def test_scales_stay_where_sizes_would_need_the_batch() -> None:
    assert not mend_scales(resize(12, 7 / 12, opset=13).graph)
