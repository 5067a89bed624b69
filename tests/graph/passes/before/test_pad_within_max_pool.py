"""Zero padding before a maximum."""

from __future__ import annotations

import numpy as np
import pytest

from probegen.graph.passes.before.pad_within_max_pool import pad_within_max_pool
from tests.graph.passes.harness import changed, node_of, parsed

PADS = np.array([0, 0, 1, 0, 0, 0, 0, 1])


@pytest.mark.parametrize("first", ["Relu", "Sigmoid", "Softplus", "HardSigmoid"])
def test_a_maximum_of_rectified_images_pads_for_itself(first: str) -> None:
    model = parsed(
        f"r = {first}(x) p = Pad(r, pads) y = MaxPool<kernel_shape=[3, 2], strides=[2, 2]>(p)",
        pads=PADS,
    )
    changed(model, pad_within_max_pool, rtol=0)
    pool = node_of(model, "y")
    assert pool.inputs[0].name == "r"
    assert list(pool.attributes["pads"].as_ints()) == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("first", "pads", "pool"),
    [
        ("Sin", PADS, "kernel_shape=[3, 2]"),
        ("Relu", PADS, "kernel_shape=[1, 2]"),
        ("Relu", -PADS, "kernel_shape=[3, 2]"),
        ("Relu", PADS, "kernel_shape=[3, 2], ceil_mode=1, strides=[2, 2]"),
        ("Relu", PADS, "kernel_shape=[3, 2], dilations=[2, 1]"),
        ("Relu", PADS, "kernel_shape=[3, 2], pads=[1, 0, 0, 0]"),
        ("Relu", PADS, 'kernel_shape=[3, 2], auto_pad="SAME_UPPER"'),
    ],
    ids=["signed", "whole windows of padding", "cut", "ceil", "dilated", "padded", "same"],
)
def test_other_padding_stays(first: str, pads: np.ndarray, pool: str) -> None:
    model = parsed(f"r = {first}(x) p = Pad(r, pads) y = MaxPool<{pool}>(p)", pads=pads)
    changed(model, pad_within_max_pool, rtol=0)
    assert node_of(model, "y").inputs[0].name == "p"


def test_positions_of_the_maximum_count_from_the_padded_image() -> None:
    model = parsed(
        "r = Relu(x) p = Pad(r, pads) y, i = MaxPool<kernel_shape=[3, 2]>(p)", "y i", pads=PADS
    )
    changed(model, pad_within_max_pool, rtol=0)
    assert node_of(model, "y").inputs[0].name == "p"
