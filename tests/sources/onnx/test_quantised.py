"""The gradient passes pairs of QuantizeLinear and DequantizeLinear where nothing was cut off."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import probegen as pg
from probegen import runtime
from probegen.graph.autodiff import gradients
from probegen.graph.core.builder import Builder
from probegen.graph.vjp import BLOCKING, RULES
from probegen.sources.onnx.reading import OnnxModel
from tests.sources.onnx.support import add_weights, assert_same, hard, operators, parse, run


def gradient(read: OnnxModel, feed: dict[str, Any], name: str = "x") -> Any:
    """Returns the gradient of the sum of the first output with respect to a value."""
    model = read.model.clone()
    graph = model.graph
    values = {v.name: v for v in graph.inputs} | {v.name: v for n in graph for v in n.outputs}
    builder = Builder(graph, read.opset)
    output = graph.outputs[0]
    one = builder.op("Expand", builder.scalar(1.0, output), builder.shape_value(output))
    one.shape = output.shape
    (found,) = gradients(builder, {output: one}, [values[name]], RULES, BLOCKING)
    assert found is not None
    builder.attach()
    found.name = "gradient"
    graph.outputs.append(found)
    return run(model, feed)["gradient"]


@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize("zero", [0, -100])
def test_activations(by_channel: bool, zero: int) -> None:
    """Twin: PyTorch's definition of fake quantisation, in numpy."""
    scale = np.array([0.02, 0.5, 0.05], np.float32) if by_channel else np.float32(0.02)
    zeros = np.full(scale.shape, zero, np.int8)
    attributes = "<axis = 1>" if by_channel else ""
    model = add_weights(
        parse(
            f"""
            g (float[N,3,4] x) => (float[N,3,4] y) {{
              s = Mul(x, x)
              q = QuantizeLinear{attributes}(s, scale, zero)
              d = DequantizeLinear{attributes}(q, scale, zero)
              y = Mul(d, w)
            }}"""
        ),
        scale=scale,
        zero=zeros,
        w=hard(3, 4, seed=1),
    )
    feeds = [{"x": hard(n, 3, 4)} for n in (2, 5)]
    read = assert_same(model, *feeds)
    assert "passes none where it was cut off" in read.notes[0]
    for feed in feeds:
        x = feed["x"]
        step = scale.reshape(-1, 1) if by_channel else scale
        whole = np.round(x * x / step) + zero
        kept = (whole >= -128) & (whole <= 127)
        assert 0 < kept.mean() < 1
        expected = hard(3, 4, seed=1) * kept * 2 * x
        np.testing.assert_allclose(gradient(read, feed), expected, rtol=1e-5, atol=1e-6)
    # The gradient at the dequantised tensor itself is nothing special.
    np.testing.assert_allclose(
        gradient(read, feeds[0], "d"), np.broadcast_to(hard(3, 4, seed=1), (2, 3, 4))
    )


def test_weights_stay_in_whole_numbers() -> None:
    rng = np.random.default_rng(0)
    model = add_weights(
        parse(
            """
            g (float[N,70] x) => (float[N,60] y) {
              w = DequantizeLinear<axis = 1>(whole, scale)
              y = MatMul(x, w)
            }"""
        ),
        whole=rng.integers(-128, 127, (70, 60), dtype=np.int8),
        scale=np.linspace(0.01, 0.1, 60, dtype=np.float32),
    )
    read = assert_same(model, {"x": hard(2, 70)}, {"x": hard(3, 70)}, tolerance=1e-4)
    assert operators(read) == ["DequantizeLinear", "MatMul"]
    assert read.notes == (
        "Weights are stored in whole numbers, and used as the numbers that they stand for.",
    )
    found = gradient(read, {"x": hard(2, 70)})
    weights = read.model.graph.initializers["whole"].const_value.numpy()
    expected = (weights * np.linspace(0.01, 0.1, 60)).sum(1)
    np.testing.assert_allclose(found, np.tile(expected, (2, 1)), rtol=1e-4, atol=1e-4)


def test_what_moves_elements_between_the_two() -> None:
    model = add_weights(
        parse(
            """
            g (float[N,2,6] x) => (float[N,12] y, float[N,6,2] z) {
              q = QuantizeLinear(x, scale, zero)
              turned = Transpose<perm = [0, 2, 1]>(q)
              flat = Flatten(turned)
              d = DequantizeLinear(flat, scale, zero)
              y = Mul(d, w)
              z = DequantizeLinear(turned, scale, zero)
            }"""
        ),
        scale=np.float32(0.02),
        zero=np.uint8(120),
        w=hard(12, seed=1),
    )
    feeds = [{"x": hard(n, 2, 6)} for n in (2, 3)]
    read = assert_same(model, *feeds)
    x = feeds[0]["x"]
    whole = np.round(x / np.float32(0.02)) + 120
    kept = (whole >= 0) & (whole <= 255)
    assert 0 < kept.mean() < 1
    expected = kept * hard(12, seed=1).reshape(6, 2).T
    np.testing.assert_allclose(gradient(read, feeds[0]), expected, atol=1e-6)
    assert isinstance(read.model, ir.Model)


def test_one_whole_tensor_for_several_and_a_scale_of_the_request() -> None:
    model = parse(
        """
        g (float[N,5] x) => (float[N,5] y) {
          q, s, z = DynamicQuantizeLinear(x)
          a = DequantizeLinear(q, s, z)
          b = DequantizeLinear(q, s, z)
          y = Mul(a, b)
        }"""
    )
    feed = {"x": hard(3, 5)}
    read = assert_same(model, feed, {"x": hard(2, 5)})
    expected = 2 * np.sqrt(run(model, feed)["y"]) * np.sign(feed["x"])
    np.testing.assert_allclose(gradient(read, feed), expected, atol=1e-5)


def test_a_quantised_output_keeps_its_name() -> None:
    model = add_weights(
        parse(
            """
            g (float[N,5] x) => (float[N,5] y) {
              q = QuantizeLinear(x, scale)
              y = DequantizeLinear(q, scale)
            }"""
        ),
        scale=np.float32(0.02),
    )
    read = assert_same(model, {"x": hard(2, 5)})
    assert read.model.graph.outputs[0].name == "y"


def test_other_backward_passes_go_through_steps_too(tmp_path: Path) -> None:
    scale = np.array([0.02, 0.5, 0.05], np.float32)
    weights = hard(3, 4, seed=1)
    model = add_weights(
        parse("""g (float[N,3,4] x) => (float[N,4] y) {
          q = QuantizeLinear <axis = 1> (x, scale, zero)
          d = DequantizeLinear <axis = 1> (q, scale, zero)
          r = Relu(d)  m = Mul(r, w)  y = ReduceSum <keepdims = 0> (m, axis) }"""),
        **{"scale": scale, "zero": np.zeros(3, np.int8), "w": weights, "axis": np.int64([1])},
    )
    pg.compile(model, [pg.GuidedBackprop(target=2), pg.Deconvnet(target=2)], tmp_path / "m.onnx")
    x = 2 * hard(5, 3, 4)
    result = pg.runtime.load(tmp_path / "m.onnx").run(x)
    arrived = np.maximum(weights, 0) * (np.arange(4) == 2)
    within = np.abs(np.round(x / scale[:, None]) + 0.5) < 128.1
    assert 0 < within.mean() < 1
    up = np.round(x / scale[:, None]) > 0
    for kind, right in (("guided_backprop", up), ("deconvnet", np.ones(x.shape))):
        expected = arrived * right * within
        assert expected.any()
        np.testing.assert_allclose(result[f"{kind}/x"].array, expected, rtol=1e-5, atol=1e-6)


def test_methods_by_scores_that_are_rounded_to_steps(tmp_path: Path) -> None:
    """As quantisers write a classifier: steps, then softmax, and steps again perhaps."""
    weights, steps = hard(3, 4, seed=1), np.float32(0.0625)
    for behind in ("y = Softmax(d)", "p = Softmax(d) r = QuantizeLinear(p, scale, zero)"):
        body = behind if behind[0] == "y" else f"{behind} y = DequantizeLinear(r, scale, zero)"
        model = add_weights(
            parse(f"""g (float[N,3] x) => (float[N,4] y) {{
              s = MatMul(x, w)
              q = QuantizeLinear(s, scale, zero)
              d = DequantizeLinear(q, scale, zero)
              {body} }}"""),
            **{"scale": steps, "zero": np.int8(2), "w": weights},
        )
        pg.compile(model, pg.Occlusion(window=1, target=2), tmp_path / "m.onnx")
        x = hard(5, 3)
        found = pg.runtime.load(tmp_path / "m.onnx").run(x)["occlusion/x"].array

        def score(x: np.ndarray) -> np.ndarray:
            whole = np.round((x @ weights)[:, 2] / steps) + 2
            return steps * (np.clip(whole, -128, 127) - 2)

        hidden = [score(x) - score(x * (np.arange(3) != i)) for i in range(3)]
        np.testing.assert_allclose(found, np.stack(hidden, 1), atol=1e-6)
        assert found.any()


def test_products_by_weights_of_four_bits(tmp_path: Path) -> None:
    """onnxruntime rounds what they multiply to 8 bits, and loads none that a branch reads.

    Twin: the products in float64.
    """
    rng = np.random.default_rng(3)
    whole, scale = rng.integers(-8, 8, (32, 3)), rng.uniform(0.1, 0.3, (2, 3)).astype(np.float32)
    model = parse("""g (float[N,32] x) => (float[N,3] y) {
        w = DequantizeLinear <axis = 0, block_size = 16> (stored, scale)
        a = MatMul (x, w)
        y = Tanh (a)
      }""")
    model.opset_import[0].version, model.ir_version = 21, 10
    stored = onnx.helper.make_tensor("stored", onnx.TensorProto.INT4, whole.shape, whole.ravel())
    model.graph.initializer.append(stored)
    add_weights(model, scale=scale)
    place = tmp_path / "m.onnx"
    pg.compile(model, [pg.InputGradient(target=1)], place)
    x, w = hard(2, 32), whole * np.repeat(scale.astype(np.float64), 16, axis=0)
    y = np.tanh(x @ w)
    loaded = runtime.load(place)
    explained = loaded.run(x)
    slope = (1 - y[:, 1:2] ** 2) * w[:, 1]
    np.testing.assert_allclose(explained["input_gradient/x"].array, slope, rtol=1e-3, atol=1e-5)
    for found in (explained, loaded.run(x, explain=False)):
        np.testing.assert_allclose(found["y"].array, y, rtol=1e-5, atol=1e-5)
    asked = {"x": x, "explain": np.array(False)}  # in a session as anybody opens it
    plain = onnxruntime.InferenceSession(place).run(["y"], asked)[0]
    np.testing.assert_allclose(plain, y, rtol=1e-5, atol=1e-5)


def _rounded(x: np.ndarray, scale: float, zero: int = 0) -> np.ndarray:
    return (np.clip(np.round(x / scale) + zero, -128, 127) - zero) * scale


def _network_in_whole_numbers(training: bool) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """`[N, 3, 5] -> [N, 2]`: a convolution and a head, as quantisers or training write it.

    Returns:
        The model; and the weights as the numbers that its layers use.
    """
    kernel, head = hard(4, 3, 2, seed=1), hard(4, 2, seed=2)
    scales = np.abs(kernel).max((1, 2)) / 127
    whole = np.round(kernel / scales[:, None, None]).astype(np.int8)
    step = np.float32(np.abs(head).max() / 127)
    bias = np.array([40, -900, 13, 77], np.int32)
    of_bias = np.float32(0.03) * scales
    stored = "w = DequantizeLinear <axis = 0> (whole, scales)"
    if training:
        stored = """wq = QuantizeLinear <axis = 0> (kernel, scales, zeros)
            w = DequantizeLinear <axis = 0> (wq, scales, zeros)"""
    text = f"""g (float[N,3,5] x) => (float[N,2] y) {{
        xq = QuantizeLinear(x, s, z)  xd = DequantizeLinear(xq, s, z)
        {stored}  b = DequantizeLinear <axis = 0> (bias, of_bias)
        c = Conv(xd, w, b)  r = Relu(c)
        rq = QuantizeLinear(r, t, z)  rd = DequantizeLinear(rq, t, z)
        p = ReduceMean <keepdims = 0> (rd, last)
        pq = QuantizeLinear(p, t, z)  pd = DequantizeLinear(pq, t, z)
        hd = DequantizeLinear(head, u)  hm = Transpose(hd)
        y = MatMul(pd, hm) }}"""
    given = {
        "s": np.float32(0.03), "t": np.float32(0.05), "z": np.int8(0), "u": step,
        "bias": bias, "of_bias": of_bias, "last": np.int64([2]),
        "head": np.round(head.T / step).astype(np.int8), "scales": scales,
    }  # fmt: skip
    given |= {"kernel": kernel, "zeros": np.zeros(4, np.int8)} if training else {"whole": whole}
    used = {
        "kernel": whole * scales[:, None, None],
        "bias": bias * of_bias,
        "head": np.round(head / step) * step,
    }
    return add_weights(parse(text), **given), used


def _windows(x: np.ndarray) -> np.ndarray:
    return np.stack([x[..., :-1], x[..., 1:]], -1)


@pytest.mark.parametrize("training", [False, True])
def test_relevance_through_layers_of_whole_numbers(tmp_path: Path, training: bool) -> None:
    model, used = _network_in_whole_numbers(training)
    pg.compile(model, pg.LRP(target=1, epsilon=1e-3), tmp_path / "m.onnx")
    x = 2 * hard(5, 3, 5)
    found = pg.runtime.load(tmp_path / "m.onnx").run(x)["lrp/x"].array

    def away(z: np.ndarray) -> np.ndarray:
        return np.where(z >= 0, z + 1e-3, z - 1e-3)

    xd = _rounded(x.astype(np.float64), 0.03)
    c = np.einsum("nctk,ock->not", _windows(xd), used["kernel"]) + used["bias"][:, None]
    rd = _rounded(np.maximum(c, 0), 0.05)
    p = rd.mean(2)
    pd = _rounded(p, 0.05)
    y = pd @ used["head"][:, 1]
    relevance = pd * used["head"][:, 1] * (y / away(y))[:, None]
    relevance = rd * (relevance / away(p))[..., None] / 4
    weight = relevance / away(c)
    expected = np.zeros(x.shape)
    for k in range(2):
        share = np.einsum("not,oc->nct", weight, used["kernel"][:, :, k])
        expected[:, :, k : k + 4] += xd[:, :, k : k + 4] * share
    # Kernels of whole numbers round halves otherwise: of each sample nearly all is as by hand.
    close = np.abs(found - expected) <= 1e-3 * np.abs(expected).max()
    assert close.mean() > 0.9
    np.testing.assert_allclose(found.sum((1, 2)), expected.sum((1, 2)), rtol=0.05, atol=0.02)


@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_differences_through_layers_of_whole_numbers_are_complete(
    tmp_path: Path, baseline: float
) -> None:
    model, _ = _network_in_whole_numbers(training=False)
    pg.compile(model, pg.DeepLIFT(baseline, target=1), tmp_path / "m.onnx")
    artefact = pg.runtime.load(tmp_path / "m.onnx")
    for count in (1, 6):
        x = 2 * hard(count, 3, 5, seed=count)
        x[0, :, 1:3] = baseline + 1e-5  # next to the baseline, and steps may lie between
        own, there = (run(model, {"x": v})["y"][:, 1] for v in (x, np.full_like(x, baseline)))
        found = artefact.run(x)["deep_lift/x"].array.sum((1, 2))
        np.testing.assert_allclose(found, own - there, rtol=1e-3, atol=1e-4)
