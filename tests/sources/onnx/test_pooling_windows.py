"""Poolings whose number of windows is rounded up keep the windows that onnxruntime has."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest

import probegen as pg
from probegen import runtime
from probegen.errors import UnsupportedOpsError
from probegen.graph.core.values import shape_of
from tests.sources.onnx.support import assert_same, hard, operators, parse, run


def _pooling(op: str, size: int, given: str) -> onnx.ModelProto:
    return parse(f"g (float[N,1,{size},5] x) => (float[N,1,h,w] y) {{ y = {op}<{given}>(x) }}")


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("size", [3, 6])
def test_windows_are_those_of_onnxruntime(op: str, size: int) -> None:
    """Whatever the window, the step and the padding: the same values, the shape that they have."""
    for kernel, stride, front, back in itertools.product((1, 3), (2, 3), (0, 1), (0, 2)):
        if max(front, back) >= kernel:
            continue
        for counted in ("", ", count_include_pad = 1") if op == "AveragePool" else ("",):
            given = (
                f"ceil_mode = 1, kernel_shape = [{kernel}, 1], strides = [{stride}, 3], "
                f"pads = [{front}, 0, {back}, 0]{counted}"
            )
            feed = {"x": hard(3, 1, size, 5)}
            read = assert_same(_pooling(op, size, given), feed)
            (made,) = read.model.graph.outputs
            assert shape_of(made) == ("N", *run(read.model, feed)["y"].shape[1:]), given


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_windows_with_holes_that_reach_far_and_those_that_pad_by_themselves(op: str) -> None:
    """No runtime pads by the width of a kernel; onnx counts a third window of the second."""
    holes = "ceil_mode = 1, kernel_shape = [2, 1], strides = [3, 1], dilations = [2, 1]"
    padded = 'ceil_mode = 1, kernel_shape = [3, 3], strides = [3, 3], auto_pad = "SAME_LOWER"'
    for given, size in ((holes, 7), (padded, 6)):
        feed = {"x": hard(3, 1, size, 5)}
        text = f"g (float[N,1,{size},5] x) => (float[N,1,h,w] y) {{ y = {op}<{given}>(x) }}"
        read = assert_same(parse(text, opset=22), feed)
        shape = shape_of(read.model.graph.outputs[0])
        assert shape == ("N", *run(read.model, feed)["y"].shape[1:]), given


def test_zeros_that_the_file_pads_with_are_counted_and_no_others() -> None:
    """4 elements and one zero on either side, windows of 3 every 2: the last one holds 4, 0."""
    given = (
        "ceil_mode = 1, kernel_shape = [3, 1], strides = [2, 1], pads = [1, 0, 1, 0], "
        "count_include_pad = 1"
    )
    x = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 4, 1) * np.ones(5, np.float32)
    read = assert_same(_pooling("AveragePool", 4, given), {"x": x})
    assert operators(read) == ["Pad", "AveragePool"]


def test_behind_windows_that_onnx_counts_and_onnxruntime_has_not(tmp_path: Path) -> None:
    """6 by steps of 3 with windows of 1 are 2, and not the 3 of onnx's shape inference."""
    model = parse(
        """
        g (float[N,1,6,5] x) => (float[N,1] y) {
          a = MaxPool<ceil_mode = 1, kernel_shape = [1, 1], strides = [3, 2]>(x)
          b = MaxPool<ceil_mode = 1, kernel_shape = [1, 1], strides = [1, 1]>(a)
          y = ReduceMean<axes = [2, 3], keepdims = 0>(b)
        }""",
        opset=17,
    )
    pg.compile(model, [pg.InputGradient(target=0)], tmp_path / "m.onnx")
    found = runtime.load(tmp_path / "m.onnx").run(hard(2, 1, 6, 5))
    expected = np.zeros((2, 1, 6, 5), np.float32)
    expected[:, 0, ::3, ::2] = 1 / 6
    np.testing.assert_allclose(found["input_gradient/x"].array, expected, rtol=1e-6)


@pytest.mark.parametrize(("opset", "counted"), [(18, 15), (19, 12)])
def test_average_over_more_than_all_of_the_input(tmp_path: Path, opset: int, counted: int) -> None:
    """2 rows and 2 of padding under a window of 5: so one runs, though none fits.

    Up to opset 18 onnxruntime divides by all of the window, from 19 on by 4 of its 5 rows.
    """
    given = "kernel_shape = [5, 3], strides = [2, 2], pads = [1, 1, 1, 1], count_include_pad = 1"
    model = parse(
        f"g (float[N,1,2,4] x) => (float[N,2] y) {{ a = AveragePool<{given}>(x) y = Flatten(a) }}",
        opset=opset,
    )
    pg.compile(model, [pg.InputGradient(target=0)], tmp_path / "m.onnx")
    x = hard(2, 1, 2, 4)
    found = runtime.load(tmp_path / "m.onnx").run(x)
    expected = np.zeros((2, 1, 2, 4), np.float32)
    expected[..., :2] = 1 / counted  # of columns -1 to 1
    np.testing.assert_allclose(found["input_gradient/x"].array, expected, rtol=1e-6)
    np.testing.assert_allclose(found["y"].array, run(model, {"x": x})["y"], rtol=1e-6)


@pytest.mark.parametrize(("size", "refused"), [("9", True), ("8", False), ("rows", True)])
def test_padding_by_a_negative_number_is_refused(tmp_path: Path, size: str, refused: bool) -> None:
    """9 by steps of 3 with windows of 1: onnxruntime begins behind the first element."""
    given = 'kernel_shape = [1], strides = [3], auto_pad = "SAME_UPPER"'
    model = parse(
        f"g (float[N,1,{size}] x) => (float[N,1] y) "
        f"{{ a = LpPool<{given}>(x) y = ReduceMax<axes = [2], keepdims = 0>(a) }}",
        opset=17,
    )
    probes = [pg.InputGradient(target=0)]
    if not refused:
        assert pg.compile(model, probes, tmp_path / "m.onnx").report.passed
        return
    with pytest.raises(UnsupportedOpsError, match="strides of 3 over windows of 1 pads by a neg"):
        pg.compile(model, probes, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())
