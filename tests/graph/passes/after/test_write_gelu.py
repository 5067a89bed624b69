"""The composite operator Gelu in operators of ONNX."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from probegen.graph.core.composite_ops import COMPOSITE_DOMAIN
from probegen.graph.passes.after.write_gelu import write_gelu
from tests.graph.passes.harness import hard, operators, parsed

FORMS = {
    ("float", "none"): ["Mul", "Erf", "HardSigmoid", "Mul"],
    ("float", "tanh"): ["Mul", "Mul", "Add", "Mul", "Tanh", "HardSigmoid", "Mul"],
    ("double", "none"): ["Mul", "Erf", "Add", "Mul", "Mul"],
    ("float16", "none"): ["Mul", "Erf", "Add", "Mul", "Mul"],
}


def composite(kind: str, approximate: str) -> ir.Model:
    """Returns ONNX's own Gelu made composite: `[batch, 3, 5]`."""
    body = f'y = Gelu<approximate="{approximate}">(x)'
    model = parsed(body, inputs=f"{kind}[batch, 3, 5] x", opset=20)
    for node in model.graph:
        node.domain = COMPOSITE_DOMAIN
    model.graph.opset_imports[COMPOSITE_DOMAIN] = 1
    return model


@pytest.mark.parametrize(("kind", "approximate"), FORMS)
def test_it_is_what_onnx_has_by_that_name(kind: str, approximate: str) -> None:
    model = composite(kind, approximate)
    write_gelu(model)
    assert operators(model) == FORMS[kind, approximate]
    assert COMPOSITE_DOMAIN not in model.graph.opset_imports
    for batch in (1, 4):
        x = hard((batch, 3, 5)).astype({"float": "f4", "double": "f8", "float16": "f2"}[kind])
        (found,) = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
        own = parsed(
            f'y = Gelu<approximate="{approximate}">(x)', inputs="double[b, 3, 5] x", opset=20
        )
        (wanted,) = ReferenceEvaluator(ir.to_proto(own)).run(None, {"x": x.astype(np.float64)})
        tolerance = {"float": 1e-6, "double": 1e-8, "float16": 3e-3}[kind]
        np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def test_inner_values_may_be_asked_for() -> None:
    model = composite("float", "none")
    node = model.graph[0]
    node.resize_outputs(3)
    for value, name in zip(node.outputs[1:], "pu", strict=True):
        value.name, value.type, value.shape = name, node.outputs[0].type, node.outputs[0].shape
        model.graph.outputs.append(value)
    write_gelu(model)
    x = hard((2, 3, 5)).astype(np.float32)
    y, p, u = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})
    np.testing.assert_allclose(u, x / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(p * x, y, rtol=1e-6)


def test_other_operators_of_that_name_stay() -> None:
    model = parsed("y = Gelu(x)", inputs="float[batch, 3] x", opset=20)
    write_gelu(model)
    assert operators(model) == ["Gelu"]
