"""A convolution of single elements and the AveragePool behind it."""

from __future__ import annotations

import pytest

from probegen.graph.core.values import shape_of
from probegen.graph.passes.before.average_before_convolution import average_before_convolution
from tests.graph.passes.harness import changed, parsed, weight


def test_a_convolution_of_single_elements_works_on_the_pooled_image() -> None:
    model = parsed(
        """c = Conv(x, w, bias) p = AveragePool<kernel_shape=[2, 3], strides=[2, 1]>(c)
        y = Sin(p)""",
        w=weight(8, 16, 1, 1),
        bias=weight(8),
    )
    assert changed(model, average_before_convolution) == ["AveragePool", "Conv", "Sin"]
    assert shape_of(model.graph[0].outputs[0]) == ("batch", 16, 3, 3)
    assert shape_of(model.graph[1].outputs[0]) == ("batch", 8, 3, 3)


@pytest.mark.parametrize(
    ("conv", "pool", "outputs"),
    [
        ("", ", strides=[2, 1], pads=[1, 0, 0, 0]", "y"),
        ("", "", "y"),
        ("<strides=[2, 2]>", ", strides=[2, 1]", "y"),
        ("<pads=[0, 0, 1, 0]>", ", strides=[2, 1]", "y"),
        ("", ", strides=[2, 1], ceil_mode=1", "y"),
        ("", ", strides=[2, 1]", "y c"),
        ("", ", strides=[2, 1]", "y p"),
    ],
    ids=["padded", "as large", "strided", "padded before", "ceil", "read", "an output"],
)
def test_other_pairs_stay_in_order(conv: str, pool: str, outputs: str) -> None:
    model = parsed(
        f"c = Conv{conv}(x, w) p = AveragePool<kernel_shape=[2, 2]{pool}>(c) y = Sin(p)",
        outputs,
        w=weight(8, 16, 1, 1),
    )
    assert changed(model, average_before_convolution) == ["Conv", "AveragePool", "Sin"]
