"""Random ONNX graphs of a fixed seed are right, and the fuzzer finds what is planted."""

import dataclasses
import types

import numpy as np
import onnx.parser
import pytest

import probegen as pg
from fuzz import onnx_trial
from fuzz.judging import off
from fuzz.onnx_case import OnnxCase, Output, smaller
from fuzz.onnx_channels import channel_axis
from fuzz.onnx_drawing import Input
from fuzz.onnx_models import drawn
from fuzz.onnx_suite import attempted
from fuzz.onnx_trial import attempt
from fuzz.onnx_witness import OnnxWitness
from fuzz.outcome import CRASHES, DIFFERS, EQUAL, INVALID, REFUSED
from fuzz.planting import broken
from fuzz.shrinking import shrunk
from fuzz.weights import with_weights
from probegen import runtime

_TEXT = """
<ir_version: 8, opset_import: ["" : 18]>
small (float[batch, 2, 5, 4] x) => (float[batch, 3] scores)
<float[3, 2, 3, 3] kernel, float[36, 3] dense, float[3] bias>
{
    conv = Conv <pads = [1, 1, 1, 1]> (x, kernel)
    bent = Tanh (conv)
    pooled = MaxPool <kernel_shape = [2, 2], strides = [1, 1]> (bent)
    flat = Flatten (pooled)
    logits = Gemm (flat, dense, bias)
    scores = Softmax (logits)
}
"""


def _case(**changes):
    model = with_weights(_TEXT, np.random.default_rng(0))
    case = OnnxCase(
        "9:1",
        model,
        (Input("x", "float32", (2, 5, 4)),),
        (Output("scores", "logits", -1),),
        ("pg.InputGradient(target=1)",),
        {},
    )
    return dataclasses.replace(case, **changes)


@pytest.mark.parametrize("start", [0, 7])
def test_random_graphs_are_right(start):
    outcomes = [attempted(f"1:{number}") for number in range(start, start + 7)]
    assert not [o for o in outcomes if o.verdict not in (EQUAL, REFUSED, INVALID)]
    assert sum(o.witnessed for o in outcomes) > 4


def test_infinity_is_not_nan():
    right = np.array([1, np.inf, np.nan])
    assert off(right, right) == 0
    assert off(np.array([1, np.nan, np.nan]), right) == np.inf
    assert off(np.array([1, -np.inf, np.nan]), right) == np.inf


def test_channels_are_told_by_what_reads_an_input():
    text = """<ir_version: 8, opset_import: ["" : 18]>
    g (float[N, 2, 5] a, float[N, 5, 2] b, float[N, 5, 2] c, float[N, 2, 5] d, float[N, 2, 2] k,
       float[N, 2, 2] l) => (float[N] y)
    <float[3, 2, 2] kernel, float[2, 3] matrix, float[5, 3] wide> {
      e = Tanh (a)  f = Conv (e, kernel)  g = MatMul (b, matrix)  h = ReduceMean (c)
      i = MaxPool <kernel_shape = [2]> (d)  j = MatMul (d, wide)  m = MatMul (k, matrix)
      n = Conv (m, kernel)  o = MatMul (l, l)  y = Sum (f, g, h, i, j, n, o) }"""
    model = with_weights(text, np.random.default_rng(0))
    told = {name: channel_axis(model, name, 3) for name in "abcdkl"}
    assert told == {"a": 1, "b": 2, "c": None, "d": None, "k": None, "l": None}


def test_channels_that_a_manifest_has_elsewhere_are_found(monkeypatch):
    case = _case(probes=("pg.Saliency(target=1)",))
    assert attempt(case).verdict == EQUAL
    monkeypatch.setattr(onnx_trial, "channel_axis", lambda *_: 3)
    assert attempt(case).verdict == DIFFERS


def test_a_graph_is_the_same_each_time():
    first, again = drawn("1:3"), drawn("1:3")
    assert first.model == again.model
    assert (first.probes, first.options) == (again.probes, again.options)
    assert all(np.array_equal(first.samples(1)[n], x) for n, x in again.samples(1).items())


@pytest.mark.parametrize("op", ["Conv", "Tanh", "MaxPool", "Gemm"])
def test_a_rule_that_is_wrong_by_a_tenth_is_found(op):
    case = _case()
    assert attempt(case).verdict == EQUAL
    with broken(op) as used:
        outcome = attempt(case)
    assert used
    assert outcome.verdict == DIFFERS
    assert "input_gradient" in outcome.reason


#: Probes that the witness computes anew.
WITNESSED = (
    "pg.InputGradient()",
    "pg.InputGradient(target=1, logits=False)",
    "pg.GradientXInput(target=[0, 2])",
    "pg.Saliency(target=pg.contrast(0, 'argmax'))",
    "pg.IntegratedGradients(steps=3, baseline=0.5)",
    "pg.Occlusion(window=2, stride=1, target='input')",
    "pg.FeatureAblation(fill=0.5, target='top:2')",
    "pg.GradCAM(layer='conv')",
    "pg.HiResCAM(layer='conv', target=2)",
    "pg.LayerCAM(layer='conv', target='all')",
    "pg.InputGradient(wrt='bent')",
    "pg.Activations('pooled')",
)


class _Wrong:
    """An artefact whose explanations are wrong behind the back of its verification."""

    def __init__(self, path, **given):
        self._right = runtime.load(path, **given)

    def __getattr__(self, name):
        return getattr(self._right, name)

    def run(self, *args, **given):
        result = self._right.run(*args, **given)
        for spec in self._right.manifest.explanations:
            if spec.name in result and spec.dtype == "float32":
                result[spec.name].array[...] *= 1.02
        return result


@pytest.mark.parametrize("probe", WITNESSED)
def test_an_attribution_has_a_witness(monkeypatch, probe):
    case = _case(probes=(probe,))
    outcome = attempt(case)
    assert (outcome.verdict, outcome.witnessed) == (EQUAL, 2), outcome  # two batches
    monkeypatch.setattr(onnx_trial, "runtime", types.SimpleNamespace(load=_Wrong))
    assert attempt(case).verdict == DIFFERS


def test_where_the_evaluator_says_nothing_onnxruntime_does(monkeypatch):
    monkeypatch.setattr(OnnxWitness, "_by_evaluator", lambda *_: None)
    monkeypatch.setattr(OnnxWitness, "_by_wide_runtime", lambda *_: None)
    assert attempt(_case()).witnessed == 2
    with broken("Conv"):
        assert attempt(_case()).verdict == DIFFERS


def test_exact_shapley_values_have_a_witness():
    model = with_weights(
        """
        <ir_version: 8, opset_import: ["" : 18]>
        small (float[batch, 4] x) => (float[batch, 3] scores) <float[4, 3] dense>
        { logits = MatMul (x, dense)  scores = Sigmoid (logits) }
        """,
        np.random.default_rng(0),
    )
    probes = ("pg.KernelSHAP(samples=32, background=0.3, target=1, logits=False)",)
    case = _case(model=model, inputs=(Input("x", "float32", (4,)),), probes=probes)
    assert attempt(case).witnessed == 2


_EDGES = """
<ir_version: 8, opset_import: ["" : 18]>
edges (float[batch, 2, 5, 4] x) => (float[batch, 40] scores)
<float factor = {1e37}>
{
    root = Sqrt (x)
    pooled = MaxPool <kernel_shape = [1, 1]> (root)
    flat = Flatten (pooled)
    scores = Mul (flat, factor)
}
"""


def test_rows_at_the_ends_of_a_type_are_not_known():
    """Maxima lose NaN or not, and slopes of 1e37 are not told from infinite ones."""
    outputs = (Output("scores", "scores", -1),)
    case = _case(model=onnx.parser.parse_model(_EDGES), outputs=outputs)
    witness, x = OnnxWitness(case), np.full((3, 2, 5, 4), 4.0, np.float32)
    x[1, 0, 2, 3], x[2, 0, 0, 1] = -1.0, 1e-4
    assert witness.loses_nan({"x": x}).tolist() == [False, True, False]
    known = witness.attribution(pg.InputGradient(target=1), {"x": x}, "x", 1, {}).array
    assert np.isfinite(known[0]).all()
    assert np.isnan(known[1:]).all()


def test_a_graph_is_cut_down_to_what_shows_the_fault():
    case = _case(probes=("pg.InputGradient(target=1)", "pg.Saliency(target=1)"))
    with broken("Tanh"):
        small = shrunk(case, attempt, smaller)
    assert [node.op_type for node in small.model.graph.node] == [
        "Tanh",
        "Flatten",
        "Gemm",
        "Softmax",
    ]
    assert small.probes == ("pg.InputGradient()",)
    assert "Tanh" in small.code()


def test_a_foreign_traceback_is_found(monkeypatch):
    def fails(*_):
        raise KeyError("gone")

    monkeypatch.setattr(pg.InputGradient, "combine", fails)
    outcome = attempt(_case())
    assert outcome.verdict in (CRASHES, REFUSED)
    assert "gone" in outcome.reason


def test_what_onnxruntime_does_not_want_is_no_fault():
    model = with_weights(_TEXT.replace("Tanh (conv)", "Nope (conv)"), np.random.default_rng(0))
    assert attempt(_case(model=model)).verdict == INVALID
