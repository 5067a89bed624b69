"""Random weights for graphs in ONNX's text form."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser


def with_weights(text: str, rng: np.random.Generator) -> onnx.ModelProto:
    """Returns a model whose weights are the values that the text declares and gives no content."""
    model = onnx.parser.parse_model(text)
    for value in model.graph.value_info:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        array = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
    del model.graph.value_info[:]
    return model
