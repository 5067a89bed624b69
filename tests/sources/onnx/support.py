"""Models in ONNX text, and what onnxruntime says of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import onnxruntime

from probegen.graph.core.marks import remove_marks
from probegen.sources.onnx.reading import OnnxModel, read_onnx


def parse(text: str, opset: int = 18, ir_version: int = 8, more: str = "") -> onnx.ModelProto:
    """Reads a graph, and functions behind it, written in ONNX text."""
    head = f'<ir_version: {ir_version}, opset_import: ["" : {opset}{more}]>\n'
    return onnx.parser.parse_model(head + text)


def add_weights(model: onnx.ModelProto, **arrays: Any) -> onnx.ModelProto:
    """Adds initializers."""
    for name, array in arrays.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    return model


def run(model: Any, feeds: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a model in onnxruntime; a path, bytes, or a model of onnx or onnx-ir."""
    if isinstance(model, ir.Model):
        # onnxruntime looks for other files beside a path alone, and knows no marks.
        model = ir.external_data.load_to_model(model.clone())
        remove_marks(model)
        model = ir.serde.serialize_model(model)
    if isinstance(model, onnx.ModelProto):
        model = model.SerializeToString()
    if isinstance(model, Path):
        model = str(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    given = {i.name for i in session.get_inputs()}
    found = session.run(None, {k: v for k, v in feeds.items() if k in given})
    return dict(zip(names, found, strict=True))


def assert_same(source: Any, *feeds: Mapping[str, Any], tolerance: float = 2e-6) -> OnnxModel:
    """Reads a model, checks that it says the same as before, and returns what was read."""
    read = read_onnx(source)
    for feed in feeds:
        expected, found = run(source, feed), run(read.model, feed)
        assert list(found) == list(expected)
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_allclose(
                found[name], array, rtol=tolerance, atol=tolerance, err_msg=name
            )
    return read


def operators(read: OnnxModel) -> list[str]:
    """Returns the operators of a model, in order, those of graphs within it too."""
    return [n.op_type for n in read.model.graph.all_nodes()]


def hard(*shape: int, seed: int = 0) -> Any:
    """Returns numbers of both signs, with zeros and ties among them."""
    rng = np.random.default_rng(seed)
    array = np.round(rng.normal(size=shape) * 2, 1).astype(np.float32)
    array.reshape(-1)[:: max(3, array.size // 7)] = 0
    return array
