"""Gradients of operators that move values about and change none of them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.vjp.harness import Case, check, tf, uniform, written

LAYOUTS = [
    Case(op="Reshape", inputs=[uniform(2, 3, 4), np.array([2, 12])], constants={1}),
    Case(op="Reshape", inputs=[uniform(2, 3, 4), np.array([-1, 6])], constants={1}),
    Case(op="Reshape", inputs=[uniform(2, 3, 4), np.array([0, 4, 3])], constants={1}),
    Case(op="Reshape", inputs=[uniform(2, 3, 4), np.array([6, 4])], ranks={0: 2}),
    Case(op="Flatten", inputs=[uniform(2, 3, 4)]),
    Case(op="Flatten", inputs=[uniform(2, 3, 4)], attributes={"axis": 2}),
    Case(op="Squeeze", inputs=[uniform(2, 1, 3, 1), np.array([-1, 1])], constants={1}),
    Case(op="Squeeze", inputs=[uniform(2, 1, 3, 1)], ranks={0: 2}),
    Case(op="Squeeze", inputs=[uniform(2, 1, 3), np.array([1])], ranks={0: 2}),
    Case(op="Unsqueeze", inputs=[uniform(2, 3), np.array([1, -1])], constants={1}),
    Case(op="Unsqueeze", inputs=[uniform(2, 3), np.array([0])], ranks={0: 3}),
    Case(op="Transpose", inputs=[uniform(2, 3, 4)]),
    Case(op="Transpose", inputs=[uniform(2, 3, 4)], attributes={"perm": [2, 0, 1]}),
    Case(op="Expand", inputs=[uniform(2, 3), np.array([4, 2, 3])], constants={1}),
    Case(op="Expand", inputs=[uniform(2, 1), np.array([1, 3])], constants={1}),
    Case(op="Expand", inputs=[uniform(2, 1, 4), np.array([5, 2, 3, 4])], ranks={0: 4}),
    Case(
        op="DepthToSpace",
        inputs=[uniform(2, 12, 2, 3)],
        attributes={"blocksize": 2},
        tensorflow=lambda x: tf("transpose")(
            tf("nn.depth_to_space")(tf("transpose")(x, [0, 2, 3, 1]), 2), [0, 3, 1, 2]
        ),
    ),
    Case(
        op="DepthToSpace",
        inputs=[uniform(2, 12, 2, 3)],
        attributes={"blocksize": 2, "mode": "CRD"},
        name="CRD",
    ),
    Case(op="SpaceToDepth", inputs=[uniform(2, 3, 4, 6)], attributes={"blocksize": 2}),
    Case(
        op="ReverseSequence",
        inputs=[uniform(2, 4, 3), np.array([3, 1])],
        attributes={"batch_axis": 0, "time_axis": 1},
        constants={1},
        tensorflow=lambda x, n: tf("reverse_sequence")(x, n, seq_axis=1),
    ),
    Case(op="Trilu", inputs=[uniform(2, 3, 4)]),
    Case(op="Trilu", inputs=[uniform(2, 3, 4), np.array(-1)], attributes={"upper": 0}),
]

PARTS = [
    Case(op="Concat", inputs=[uniform(2, 3), uniform(2, 4, seed=1)], attributes={"axis": 1}),
    Case(op="Concat", inputs=[uniform(2, 3), uniform(4, 3, seed=1)], attributes={"axis": 0}),
    Case(
        op="Concat",
        inputs=[uniform(2, 3, 2), uniform(2, 1, 2, seed=1), uniform(2, 2, 2, seed=2)],
        attributes={"axis": -2},
        wrt=[1],
    ),
    Case(op="Concat", inputs=[uniform(2, 3)], attributes={"axis": 1}),
    Case(
        op="Split",
        inputs=[uniform(2, 6), np.array([1, 2, 3])],
        attributes={"axis": 1},
        constants={1},
        outputs=3,
        seeds=[0, 1, 2],
    ),
    Case(op="Split", inputs=[uniform(6, 2)], outputs=3, seeds=[1], opset=13),
    Case(
        op="Split",
        inputs=[uniform(2, 7)],
        attributes={"axis": -1, "num_outputs": 4},
        outputs=4,
        seeds=[0, 2],
    ),
    *(
        Case(
            op="Split",
            inputs=[uniform(2, 7, 3), np.array([4, 3])],
            attributes={"axis": 1},
            constants=constants,
            outputs=2,
            ranks={0: 3, 1: 3},
        )
        for constants in ({1}, ())
    ),
]

TILES = [
    Case(
        op="Tile", inputs=[uniform(*shape), np.array(n)], constants=constants, tensorflow=tf("tile")
    )
    for shape, n, constants in (
        ((2, 3), [1, 2], {1}),
        ((2, 3, 4), [3, 1, 2], {1}),
        ((2, 1, 4), [1, 5, 1], {1}),
        ((2, 3), [1, 1], {1}),
        ((2, 3), [2, 4], ()),
    )
]

CASES = [*LAYOUTS, *PARTS, *TILES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient(case):
    check(case)


def test_an_open_batch_needs_no_shape_at_run_time():
    flat = Case(op="Flatten", inputs=[uniform(2, 3, 4)])
    assert written(flat) == ["Reshape"]
    # The batch is copied from its place, the time is the one size to infer.
    assert written(flat, {0: {0: "batch", 1: "time"}}) == ["Reshape"]
    expanded = Case(op="Expand", inputs=[uniform(2, 1), np.array([1, 3])], constants={1})
    assert written(expanded) == ["ReduceSum"]


def test_what_nobody_wants_is_not_cut_from_a_concat():
    inputs = [uniform(2, 3), uniform(2, 1), uniform(2, 4)]
    case = Case(op="Concat", inputs=inputs, attributes={"axis": 1})
    assert written(case) == ["Split"]
    case = Case(op="Concat", inputs=inputs, attributes={"axis": 1}, wrt=[2])
    assert written(case) == ["Slice"]


def test_parts_without_a_gradient_are_padded():
    case = Case(
        op="Split", inputs=[uniform(2, 6)], attributes={"axis": 1, "num_outputs": 3}, outputs=3
    )
    assert written(case) == ["Pad"]


def test_a_tiled_axis_of_size_1_is_summed_in_one_node():
    case = Case(op="Tile", inputs=[uniform(2, 1, 4), np.array([1, 5, 1])], constants={1})
    assert written(case) == ["ReduceSum"]
