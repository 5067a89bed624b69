"""onnx's own cases of operators that are taken apart, as far as onnxruntime runs them."""

import importlib
import warnings
from typing import Any

import numpy as np
import pytest
from onnx.backend.test.case import node as backend

from probegen.sources.onnx.reading import read_onnx
from tests.sources.onnx.support import operators, run

#: Their one output that differs is scores before the softmax, in which onnx has minus infinity
#: where onnxruntime has the lowest number.
_OTHERWISE = ("bias_3d_mask_causal", "bias_4d_mask_causal")
#: Cases of an operator that are looked at, spread over all of them.
_ENOUGH = 30


def cases(op_type: str, module: str) -> list[Any]:
    """Returns the cases of one operator; to collect those of all takes ten times as long."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(f"{backend.__name__}.{module}")
    found = [c for c in backend._NodeTestCases if c.model.graph.node[0].op_type == op_type]
    found = [c for c in found if "expanded" not in c.name and not c.name.endswith(_OTHERWISE)]
    return found[:: 1 + len(found) // _ENOUGH]


@pytest.mark.parametrize(
    ("op_type", "module", "least"),
    [
        ("Attention", "attention", 15),
        ("RotaryEmbedding", "rotaryembedding", 5),
        ("CenterCropPad", "center_crop_pad", 5),
    ],
)
def test_cases_of_onnx(op_type: str, module: str, least: int) -> None:
    compared = 0
    for case in cases(op_type, module):
        inputs, _ = case.data_sets[0]
        feed = {v.name: a for v, a in zip(case.model.graph.input, inputs, strict=True)}
        try:
            expected = run(case.model, feed)
        except Exception:  # this onnxruntime does not run it
            continue
        read = read_onnx(case.model)
        assert op_type not in operators(read), case.name
        found = run(read.model, feed)
        for name, array in expected.items():
            half = array.dtype.itemsize == 2
            assert found[name].dtype == array.dtype, case.name
            np.testing.assert_allclose(
                found[name].astype(np.float64),
                array.astype(np.float64),
                rtol=1e-2 if half else 1e-4,
                atol=1e-2 if half else 1e-5,
                err_msg=case.name,
            )
        compared += 1
    assert compared >= least
