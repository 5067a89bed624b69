"""Means of images over height and width."""

from __future__ import annotations

import numpy as np
import pytest

from probegen.graph.passes.before.pool_globally import pool_globally
from tests.graph.passes.harness import changed, operator, parsed, weight


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_transposed_images_is_a_global_pooling(keepdims: int) -> None:
    model = parsed(
        f"""t = Transpose<perm=[0, 2, 3, 1]>(x) m = ReduceMean<keepdims={keepdims}>(t, axes)
        y = Sin(m)""",
        axes=[1, 2],
    )
    left = changed(model, pool_globally)
    assert "GlobalAveragePool" in left
    assert "ReduceMean" not in left


@pytest.mark.parametrize("opset", [17, 18])
def test_a_mean_behind_a_convolution_is_a_global_pooling(opset: int) -> None:
    mean = "ReduceMean(r, axes)" if opset == 18 else "ReduceMean<axes=[-1, -2]>(r)"
    model = parsed(
        f"c = Conv(x, w) r = Relu(c) m = {mean} y = Sin(m)",
        opset=opset,
        w=weight(8, 16, 1, 1),
        axes=[-1, -2],
    )
    assert changed(model, pool_globally) == ["Conv", "Relu", "GlobalAveragePool", "Sin"]


@pytest.mark.parametrize(
    "mean",
    [
        "ReduceMean(t, one)",
        "ReduceMean(t, two)",
        "ReduceMean(t, all)",
        "ReduceMean(t, last)",
        "ReduceMean(t)",
        "ReduceMean<noop_with_empty_axes=1>(t)",
        "ReduceMax(t, both)",
    ],
)
def test_means_over_other_axes_stay(mean: str) -> None:
    axes = {"one": [1], "two": [2], "all": [1, 2, 3], "last": [3], "both": [1, 2]}
    model = parsed(
        f"t = Transpose<perm=[0, 2, 3, 1]>(x) m = {mean} y = Sin(m)",
        **{name: np.array(array) for name, array in axes.items()},
    )
    assert changed(model, pool_globally) == ["Transpose", operator(mean), "Sin"]


def test_a_mean_of_what_is_no_image_stays() -> None:
    model = parsed("s = Sin(x) m = ReduceMean(s, axes) y = Sin(m)", axes=[2, 3])
    assert changed(model, pool_globally) == ["Sin", "ReduceMean", "Sin"]


def test_a_mean_of_64_bit_numbers_stays() -> None:
    model = parsed(
        "d = Cast<to=11>(x) t = Transpose<perm=[0, 2, 3, 1]>(d) m = ReduceMean(t, axes) y = Sin(m)",
        axes=[1, 2],
    )
    assert "ReduceMean" in changed(model, pool_globally)
