"""The table as a whole: nothing stands in it twice, and nothing stands in it untested."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import onnx
import pytest

from probegen.graph.vjp import BLOCKING, FAMILIES, RULES
from tests.graph.vjp.harness import Case, check, differentiate, feeds_of, one_node, run, seeds_of

#: Families whose test module has a table of cases under the name CASES.
TABLES = ["elementwise", "activation", "reduce", "linear", "shape", "selection", "normalisation"]


def _cases(family):
    return importlib.import_module(f"tests.graph.vjp.test_{family}").CASES


#: Operators whose forward op has no 16-bit form, or is there to change the type.
NO_HALF = {
    *("CumSum", "Celu", "MeanVarianceNormalization", "Cast", "Range", "DequantizeLinear"),
    "CumProd",
}

#: Operators of the tables that came after opset 13 and 22, and those refused there.
ABSENT = {
    13: {
        *("CastLike", "Gelu", "GroupNormalization", "HardSwish", "LayerNormalization", "Mish"),
        *("RMSNormalization", "Swish", "Trilu", "CumProd", "TensorScatter"),
        *("GatherElements", "GatherND"),
    },
    22: {"RMSNormalization", "Swish", "CumProd", "TensorScatter"},
}

#: The operators that tf2onnx 1.17 writes at opset 18 for ResNet50, MobileNetV2, EfficientNetB0,
#: DenseNet121, InceptionV3, Xception, VGG16, LSTM, GRU, SimpleRNN, ConvLSTM2D, encoders and
#: decoders of MultiHeadAttention, and every function of `keras.activations`; less `Erfc` and
#: `Expm1`, which ONNX does not know and `probegen.sources.keras.to_onnx.lowering` replaces.
CENSUS = """
    Abs Add And AveragePool Cast Clip Concat ConstantOfShape Conv CumSum Div Elu Equal Erf Exp
    Expand Gather Gemm Greater GreaterOrEqual Identity LSTM LeakyRelu Less LessOrEqual LogSoftmax
    Loop MatMul Max MaxPool Min Mul Neg Not Pad Pow Range Reciprocal ReduceMean ReduceProd
    ReduceSum Relu Reshape Selu Shape Sigmoid Slice Softmax Softplus Softsign Split Sqrt Squeeze
    Sub Tanh TopK Transpose Unsqueeze
"""


def _cases_by_operator():
    cases = {}
    for family in TABLES:
        for case in _cases(family):
            cases.setdefault(case.op, []).append(case)
    return cases


def _fits(case, opset):
    """Tells whether the case's node is one at that opset."""
    try:
        onnx.checker.check_model(one_node(dataclasses.replace(case, opset=opset), np.float32))
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def _cases_at(opset):
    for op, cases in _cases_by_operator().items():
        if op not in ABSENT[opset]:
            fitting = (case for case in cases if _fits(case, opset))
            yield dataclasses.replace(next(fitting), opset=opset)


def test_an_operator_stands_in_one_family():
    listed = [op for family in FAMILIES.values() for op in family]
    assert len(listed) == len(set(listed)) == len(RULES)


def test_what_blocks_has_no_rule_and_a_reason():
    assert not set(BLOCKING) & set(RULES)
    assert all(BLOCKING.values())


def _tested_operators(family):
    """Returns the operators of all cases in all tables of a family's test module."""
    module = importlib.import_module(f"tests.graph.vjp.test_{family}")
    tables = (value for value in vars(module).values() if isinstance(value, list))
    return {entry.op for table in tables for entry in table if isinstance(entry, Case)}


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"control", "mark", "composite"}))
def test_every_rule_has_a_case(family):
    # OneHot passes nothing on: its test is that it says so.
    assert set(FAMILIES[family]) - _tested_operators(family) <= {"OneHot"}


def test_every_operator_with_subgraphs_has_a_program():
    programs = importlib.import_module("tests.graph.vjp.test_control").PROGRAMS
    tested = {op for op in FAMILIES["control"] for p in programs if f"{op}(" in p.text}
    assert tested == set(FAMILIES["control"])


def test_keys_are_operators_of_onnx():
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert {op for op in (*RULES, *BLOCKING) if "::" not in op} <= known


def test_the_forward_census_is_covered():
    assert set(CENSUS.split()) <= {*RULES, *BLOCKING}


@pytest.mark.parametrize("opset", ABSENT)
def test_rules_write_what_the_opset_has(opset):
    for case in _cases_at(opset):
        check(case)


@pytest.mark.parametrize(
    "case",
    [cases[0] for op, cases in _cases_by_operator().items() if op not in NO_HALF],
    ids=lambda case: case.op,
)
def test_half_precision_keeps_its_type(case):
    """The checker finds any node that mixes types; the values are near those of float64."""
    rng = np.random.default_rng(3)
    rounded = feeds_of(case, np.float16)
    wrt = [f"x{i}" for i in case.wanted]
    dys: dict[str, np.ndarray] = {}
    found = {}
    for element in (np.float64 if case.double else np.float32, np.float16):
        model = one_node(case, element, case.open_batch())
        feeds = {k: v.astype(element) if v.dtype == np.float16 else v for k, v in rounded.items()}
        outputs = run(model, feeds)
        for name in (f"y{s}" for s in case.seeds):
            dys.setdefault(name, np.asarray(rng.uniform(0.5, 1, outputs[name].shape)))
        made = differentiate(model, wrt, list(dys))
        outputs = run(made.model, feeds | seeds_of(made.model, dys))
        found[element] = [outputs[f"d/{name}"] for name in wrt]
    full, half = found.values()
    for exact, rough in zip(full, half, strict=True):
        assert rough.dtype == np.float16
        np.testing.assert_allclose(rough, exact, rtol=0.03, atol=0.03)
