"""The forward pass that second computations run on, held against the file itself."""

import dataclasses

import numpy as np
import pytest

import probegen as pg
from probegen import runtime
from probegen.graph.core.marks import MARK_DOMAIN
from probegen.parity.measuring import program_of
from probegen.parity.witness.reference import reference_of, tables_last
from tests.sources.onnx.support import add_weights, hard, parse, run


def gated(kind):
    """A quantised convolution, times a hard sigmoid of it: kernels of whole numbers compute all."""
    draw, zero = np.random.default_rng(5), kind(0)
    text = """g (float[N, 3, 9] x) => (float[N, 4] y) {
        xq = QuantizeLinear(x, s, z)  xd = DequantizeLinear(xq, s, z)
        w = DequantizeLinear <axis = 0> (whole, scales)  c = Conv(xd, w)
        cq = QuantizeLinear(c, t, z)  cd = DequantizeLinear(cq, t, z)
        a = HardSigmoid(cd)  aq = QuantizeLinear(a, u, z)  ad = DequantizeLinear(aq, u, z)
        m = Mul(cd, ad)  mq = QuantizeLinear(m, t, z)  md = DequantizeLinear(mq, t, z)
        p = GlobalAveragePool(md)  f = Flatten(p)  y = MatMul(f, head) }"""
    given = {"s": np.float32(0.03), "t": np.float32(0.15), "u": np.float32(0.05), "z": zero}
    given |= {"whole": draw.integers(-127, 128, (4, 3, 2)).astype(np.int8)}
    given |= {"scales": draw.uniform(0.005, 0.02, 4).astype(np.float32)}
    return add_weights(parse(text), head=draw.normal(size=(4, 4)).astype(np.float32), **given)


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_what_is_quantised_comes_from_the_kernels_of_the_file(tmp_path, kind):
    """Marks that stand between nodes do not keep onnxruntime from joining these."""
    model, path = gated(kind), tmp_path / "m.onnx"
    pg.compile(model, pg.DeepLIFT(target=1), path, verify=False)
    program = program_of(model, runtime.load(path).manifest)
    plan = tables_last(program.plan)
    reference = reference_of(dataclasses.replace(program, plan=plan))
    graph, forward = reference._forward(False)
    x = hard(40, 3, 9)
    values = forward.at({"x": x})
    np.testing.assert_array_equal(values[graph.predictions[0]], run(model, {"x": x})["y"])
    marks = [node for node in forward.graph if node.domain == MARK_DOMAIN]
    assert marks
    for node in marks:
        np.testing.assert_array_equal(values[node.outputs[0]], values[node.inputs[0]])
    moved = {marks[0].outputs[0]: np.zeros_like(values[marks[0].outputs[0]])}
    still = forward.at({"x": x}, moved)
    assert not still[marks[0].outputs[0]].any()
    assert np.ptp(still[graph.predictions[0]], axis=0).max() == 0


def test_a_certificate_says_how_far_a_quantised_file_is_from_its_own_operators(tmp_path):
    text = """g (float[N, 3, 9] x) => (float[N, 4, 9] y) {
        xq = QuantizeLinear(x, s, z)  xd = DequantizeLinear(xq, s, z)
        w = DequantizeLinear(whole, s)  c = Conv(xd, w)
        cq = QuantizeLinear(c, t, z)  y = DequantizeLinear(cq, t, z) }"""
    draw = np.random.default_rng(5)
    given = {"s": np.float32(0.1), "t": np.float32(0.2), "z": np.int8(0)}  # ties, but for rounding
    model = add_weights(parse(text), whole=draw.integers(-5, 6, (4, 3, 1)).astype(np.int8), **given)
    exported = pg.compile(model, pg.InputGradient(target=(1, 0)), tmp_path / "m.onnx")
    assert any("compile the model as it was before" in note for note in exported.report.notes)
    plain = parse("g (float[N, 3] x) => (float[N, 3] y) { y = Tanh(x) }")
    exported = pg.compile(plain, pg.InputGradient(target=1), tmp_path / "plain.onnx")
    assert not any("quantised" in note for note in exported.report.notes)
