"""Weights used both ways: the same numbers, stored once, and right in OpenVINO."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from probegen.graph.passes.after.separate_turned_weights import separate_turned_weights
from tests.engines import apart, in_onnxruntime, in_openvino, save

#: Shape of x; what computes y from x and w and z from the tanh of y; shape of w; how often it is
#: turned apart.
CASES = {
    "matrices": ((4, 6), "y = MatMul(x, w)", "z = Gemm<transB=1>(t, w)", (6, 6), 1),
    "a stack": (
        (4, 5, 6),
        "y = MatMul(x, w)",
        "v = Transpose<perm=[1, 0]>(w) z = MatMul(t, v)",
        (6, 6),
        1,
    ),
    "a scaled gradient": (
        (4, 6),
        "y = MatMul(x, w)",
        "z = Gemm<transB=1, alpha=0.5>(t, w)",
        (6, 6),
        1,
    ),
    "turned forwards": (
        (4, 5, 6),
        "v = Transpose<perm=[1, 0]>(w) y = MatMul(x, v)",
        "z = MatMul(t, w)",
        (6, 6),
        1,
    ),
    "turned twice": (
        (4, 6),
        "y = MatMul(x, w)",
        "u = Gemm<transB=1>(t, w) a = Tanh(u) z = Gemm<transB=1>(a, w)",
        (6, 6),
        1,
    ),
    "into heads": (
        (4, 5, 6),
        'y = Einsum<equation="abc,cde->abde">(x, w)',
        'z = Einsum<equation="abde,cde->abc">(t, w)',
        (6, 2, 3),
        1,
    ),
    "out of heads": (
        (4, 5, 2, 3),
        'y = Einsum<equation="abcd,cde->abe">(x, w)',
        'z = Einsum<equation="abe, cde -> abcd">(t, w)',
        (2, 3, 6),
        1,
    ),
    "of one direction": (
        (4, 6),
        "r = Squeeze(w, first) y = MatMul(x, r)",
        "z = Gemm<transB=1>(t, r)",
        (1, 6, 6),
        1,
    ),
    "not square": ((4, 5), "y = MatMul(x, w)", "z = Gemm<transB=1>(t, w)", (5, 6), 0),
    "turned only": ((4, 6), "y = Gemm<transB=1>(x, w)", "z = Gemm<transB=1>(t, w)", (6, 6), 0),
    "as stored only": ((4, 6), "y = MatMul(x, w)", "z = MatMul(t, w)", (6, 6), 0),
}


def written(name, path):
    x_shape, forwards, backwards, w_shape, _ = CASES[name]
    sizes = ", ".join(map(str, ["n", *x_shape[1:]]))
    open_sizes = {y: ", ".join(f"{y}{i}" for i in range(rank)) for y, rank in _ranks(name)}
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
    agraph (float[{sizes}] x) => (float[{open_sizes["y"]}] y, float[{open_sizes["z"]}] z)
    <int64[1] first = {{0}}>
    {{ {forwards} t = Tanh(y) {backwards} kept = Identity(first) }}"""
    w = np.random.default_rng(0).normal(size=w_shape).astype(np.float32)
    return save(text, path, w=w)


def _ranks(name):
    x_shape = CASES[name][0]
    y = {"into heads": 4, "out of heads": 3}.get(name, len(x_shape))
    return ("y", y), ("z", len(x_shape))


@pytest.mark.parametrize("name", CASES)
def test_right_in_openvino_and_the_same_in_onnxruntime(tmp_path, name):
    before = written(name, tmp_path / "before.onnx")
    model = ir.load(before)
    separate_turned_weights(model)
    assert sum(n.op_type == "Unsqueeze" for n in model.graph) == CASES[name][-1]
    assert [v.name for v in model.graph.initializers.values() if v.dtype == ir.DataType.FLOAT] == [
        "w"
    ]
    ir.save(model, tmp_path / "after.onnx")
    onnx.checker.check_model(tmp_path / "after.onnx", full_check=True)
    x = np.random.default_rng(1).normal(size=CASES[name][0]).astype(np.float32)
    expected = in_onnxruntime(before, {"x": x})
    assert max(apart(in_onnxruntime(tmp_path / "after.onnx", {"x": x}), expected).values()) < 1e-6
    for from_memory in (False, True):
        found = in_openvino(tmp_path / "after.onnx", {"x": x}, from_memory=from_memory)
        assert max(apart(found, expected).values()) < 1e-6
