"""Small models over images, and passes applied to them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

RNG = np.random.default_rng(0)


def model(nodes: list[onnx.NodeProto], outputs: list[str], **constants: np.ndarray) -> ir.Model:
    """Returns a model over images `x` and `z` of 16 channels, shapes inferred."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 16, 6, 5])
            for name in ("x", "z")
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto, strict_mode=True))


def node(op_type: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=output, **attributes)


def changed(before: ir.Model, change: Callable[[ir.Graph], None], rtol: float = 1e-5) -> list[str]:
    """Applies a pass, compares the outputs, and returns the operators that are left."""
    feeds = {name: RNG.uniform(-2, 2, (3, 16, 6, 5)).astype(np.float32) for name in ("x", "z")}
    expected = run(ir.to_proto(before), feeds)
    change(before.graph)
    proto = ir.to_proto(before)
    onnx.checker.check_model(proto, full_check=True)
    for found, wanted in zip(run(proto, feeds), expected, strict=True):
        # Sums that cancel keep the rounding of their terms, which are as large as others.
        largest = float(np.abs(wanted).max(initial=0.0))
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=max(1e-5, 5e-7 * largest))
    return [n.op_type for n in before.graph]


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = {i.name for i in session.get_inputs()}
    return session.run(None, {k: v for k, v in feeds.items() if k in names})


def weight(*shape: int) -> np.ndarray:
    return RNG.uniform(-1, 1, shape).astype(np.float32)
