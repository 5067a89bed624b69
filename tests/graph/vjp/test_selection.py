"""Gradients of operators that pick values by position, and of those that put them back."""

from __future__ import annotations

import numpy as np
import pytest

from probegen.errors import UnsupportedOpsError
from tests.graph.vjp.harness import (
    Case,
    check,
    differentiate,
    one_node,
    run,
    tf,
    uniform,
    written,
)

FAR = 2**63 - 1


def _slice(shape, *axes, constants=(1, 2, 3, 4), **more):
    """Returns a case of Slice; each of `axes` is (axis, start, stop, step)."""
    columns = [np.array(column, dtype=np.int64) for column in zip(*axes, strict=True)]
    numbers, starts, stops, steps = columns
    name = " ".join(f"{a}:{b}:{c}:{d}" for a, b, c, d in axes).replace(str(FAR), "far")
    inputs = [uniform(*shape), starts, stops, numbers, steps]
    return Case(op="Slice", inputs=inputs, constants=constants, name=name, **more)


SLICES = [
    _slice((2, 5), (1, 1, 3, 1)),
    _slice((2, 5), (1, 0, 5, 1)),
    _slice((2, 5), (-1, -3, FAR, 1)),
    _slice((2, 5), (1, -3, -1, 1)),
    _slice((2, 5), (1, 1, -1, 1)),
    _slice((2, 5), (1, 2, FAR, 1)),
    _slice((2, 5), (1, -4, 4, 1)),
    _slice((2, 5), (1, 1, 99, 1)),
    _slice((2, 5), (1, 0, FAR, 2)),
    _slice((2, 6), (1, 1, FAR, 2)),
    _slice((2, 6), (1, -1, -FAR, -1)),
    _slice((2, 7), (1, -2, -FAR, -3)),
    _slice((2, 6), (1, 4, 1, -2)),
    _slice((2, 6), (1, 3, 2, -1)),
    _slice((3, 4, 5), (2, 1, 4, 1), (1, 1, 3, 1)),
    _slice((3, 4, 5), (2, 4, 0, -2), (0, 1, FAR, 1), (1, 0, FAR, 3)),
    _slice((3, 4, 5), (2, 1, 4, 1), (1, 3, 0, -2), constants=(3,)),
    _slice((3, 4, 5), (1, 1, 3, 1), constants=(2, 3, 4)),
    Case(op="Slice", inputs=[uniform(3, 4), np.array([0, 1]), np.array([2, 3])], constants={1, 2}),
    Case(
        op="Slice",
        inputs=[uniform(3, 4), np.array([1, 1], np.int32), np.array([3, 4], np.int32)],
        open_all=False,
        name="int32 at run time",
    ),
]


def _gather(shape, indices, axis, constants=(1,), **more):
    def by_tensorflow(x, i):
        return tf("gather")(x, tf("math.floormod")(i, x.shape[axis]), axis=axis)

    return Case(
        op="Gather",
        inputs=[uniform(*shape), np.array(indices, dtype=np.int64)],
        attributes={"axis": axis},
        constants=constants,
        tensorflow=by_tensorflow,
        name=f"{indices} of {shape} along {axis}",
        **more,
    )


GATHERS = [
    _gather((2, 5, 3), 0, 1),
    _gather((2, 5, 3), -1, 1),
    _gather((2, 5, 3), -2, 1),
    _gather((2, 5, 3), [1, 2], 1),
    _gather((2, 5, 3), [3, 0, -1], 1),
    _gather((2, 3), [2, 0, 1], -1),
    _gather((5, 3), [[0, 2], [4, 1]], 0),
    _gather((2, 5, 3), [[0, 2], [0, 1]], 1),
    _gather((2, 5, 3), [1, 1, -4], 1),
    _gather((5, 3), [1, 1, 4], 0, opset=13),
    _gather((2, 5, 3), [1, -1, 4], 1, (), opset=13),
    _gather((2, 5, 3), [[1, 1], [4, -1]], 1, ()),
    _gather((5, 3), [[1, 1], [4, 0]], 0, ()),
    _gather((2, 5), 3, 1, ()),
    Case(op="Gather", inputs=[uniform(5, 2), np.array([1, 1], np.int32)], name="int32"),
    Case(
        op="GatherElements",
        inputs=[uniform(2, 4), np.array([[0, 0, -1], [2, 1, 2]])],
        attributes={"axis": 1},
    ),
    Case(
        op="GatherND",
        inputs=[uniform(2, 3, 4), np.array([[[1, 0], [1, 0]], [[0, 2], [1, 1]]])],
        tensorflow=tf("gather_nd"),
        ranks={0: 3},
    ),
    *(
        Case(
            op="GatherND",
            inputs=[uniform(2, 3, 4), indices],
            attributes={"batch_dims": batch_dims},
            tensorflow=lambda x, i, n=batch_dims: tf("gather_nd")(x, i, batch_dims=n),
            ranks={0: 4 - batch_dims},
            name=f"batch_dims {batch_dims}",
        )
        for batch_dims, indices in (
            (1, np.array([[[0], [0]], [[2], [1]]])),
            (2, np.array([[[0], [3], [3]], [[2], [1], [0]]])),
        )
    ),
    *(
        Case(
            op="Compress",
            inputs=[uniform(2, 4), np.array([False, True, False, True])[:kept]],
            attributes={} if axis is None else {"axis": axis},
            constants=constants,
            name=f"axis {axis} of {kept}",
        )
        for axis, kept, constants in (
            (1, 4, {1}),
            (-1, 3, {1}),
            (1, 4, ()),
            (None, 4, {1}),
            (None, 4, ()),
        )
    ),
    Case(op="Compress", inputs=[uniform(2, 4), np.array([True, True])], attributes={"axis": 0}),
]

SCATTERS = [
    Case(
        op="ScatterND",
        inputs=[uniform(4, 3), np.array([[2], [0]]), uniform(2, 3, seed=1)],
        attributes=attributes,
        tensorflow=lambda x, i, u, twin=twin: tf(twin)(x, i, u),
        name=twin,
    )
    for attributes, twin in (
        ({}, "tensor_scatter_nd_update"),
        ({"reduction": "add"}, "tensor_scatter_nd_add"),
    )
] + [
    Case(
        op="ScatterElements",
        inputs=[uniform(2, 4), np.array([[0, -1], [2, 1]]), uniform(2, 2, seed=1)],
        attributes={"axis": 1, **attributes},
    )
    for attributes in ({}, {"reduction": "add"})
]

#: Several updates of one place, of which the last one stays.
OVERWRITTEN = [
    Case(
        op=op,
        inputs=[uniform(4, 3), indices, uniform(*shape, seed=1)],
        attributes=attributes,
        constants=constants,
        name=f"overwritten {'constant' if constants else 'open'}",
    )
    for constants in ((), {1})
    for op, indices, shape, attributes in (
        ("ScatterND", np.array([[2], [0], [-2]]), (3, 3), {}),
        ("ScatterND", np.array([[[2, 1], [0, 1]], [[-2, 1], [2, 0]]]), (2, 2), {}),
        ("ScatterElements", np.array([[0, 2, 0], [-4, 2, 1]]), (2, 3), {"axis": 0}),
        ("ScatterElements", np.array([[0, 2, 0], [-3, 2, 1]]), (2, 3), {"axis": -1}),
    )
]

MEETING = [
    Case(
        op=op,
        inputs=[uniform(4, 3), indices, uniform(*shape, seed=1)],
        attributes={"reduction": reduction, **attributes},
        constants=constants,
        name=f"{reduction} {'constant' if constants else 'open'}",
    )
    for reduction, constants in (("mul", ()), ("max", {1}), ("min", ()))
    for op, indices, shape, attributes in (
        ("ScatterND", np.array([[2], [0], [2]]), (3, 3), {}),
        ("ScatterElements", np.array([[0, 2, 0], [3, 2, 1]]), (2, 3), {"axis": 0}),
    )
]

OTHERS = (
    [
        Case(
            op="OneHot",
            inputs=[np.array([[1, 0], [-1, 9]]), np.array(3), uniform(2)],
            attributes={"axis": axis},
            constants={1},
            batch={0: {0: "batch"}},
            name=f"axis {axis}",
        )
        for axis in (-1, 1)
    ]
    + [
        Case(
            op="Unique",
            inputs=[np.array([[0.5, -1.25, 2.0], [1.5, 0.75, -0.5]])],
            attributes=attributes,
            outputs=outputs,
            ranks={0: rank},
            name=str(attributes),
        )
        for attributes, outputs, rank in (({}, 1, 1), ({"axis": 1}, 3, 2), ({"sorted": 0}, 2, 1))
    ]
    + [
        Case(
            op="TensorScatter",
            inputs=[uniform(2, 3, 5, 4), uniform(*rows, seed=1), starts],
            attributes=attributes,
            opset=24,
            open_all=False,
            name=str(attributes),
        )
        for rows, starts, attributes in (
            ((2, 3, 2, 4), np.array([3, 0]), {}),
            ((2, 3, 2, 4), np.array([4, 2]), {"mode": "circular"}),
            ((2, 2, 5, 4), np.array([1, 2]), {"axis": 1, "mode": "circular"}),
            ((2, 3, 2, 4), None, {}),
        )
    ]
)

CASES = [*SLICES, *GATHERS, *SCATTERS, *OVERWRITTEN, *MEETING, *OTHERS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient(case):
    check(case)


@pytest.mark.parametrize(
    ("case", "nodes"),
    [
        (_slice((2, 5, 4), (1, 1, 3, 1), (2, 0, 3, 1)), ["Pad"]),
        (_slice((2, 5), (1, 0, FAR, 1)), []),
        (_slice((2, 5), (1, 0, FAR, 2)), ["Pad", "Gather"]),
        (_slice((2, 5), (1, -1, -FAR, -1)), ["Gather"]),
        (_gather((2, 5, 3), 0, 1), ["Unsqueeze", "Pad"]),
        (_gather((2, 5, 3), [1, 2], 1), ["Pad"]),
        (_gather((2, 5, 3), [4, 0, 1], 1), ["Pad", "Gather"]),
        (_gather((2, 3), [2, 0, 1], 1), ["Gather"]),
    ],
    ids=str,
)
def test_known_positions_need_no_scatter(case, nodes):
    assert written(case) == nodes


@pytest.mark.parametrize(
    ("case", "nodes"),
    [
        (_slice((2, 5, 4), (1, 1, FAR, 1)), ["Pad"]),
        (_slice((2, 5, 4), (1, 0, -1, 1)), ["Pad"]),
        (_slice((2, 5, 4), (1, -1, -FAR, -1)), ["Slice"]),
        (_slice((2, 5, 4), (1, -1, FAR, 1)), ["Shape", "Shape", "Sub", "Concat", "Pad"]),
    ],
    ids=str,
)
def test_slices_of_an_open_axis(case, nodes):
    assert written(case, {0: {0: "batch", 1: "time"}}) == nodes


@pytest.mark.parametrize(
    "case",
    [
        Case(op="GatherElements", inputs=[uniform(2, 3), np.array([[0, 0]])], opset=13),
        Case(op="GatherND", inputs=[uniform(2, 3), np.array([[0], [0]])], opset=15),
    ],
    ids=str,
)
def test_repeated_positions_need_an_adding_scatter(case):
    with pytest.raises(UnsupportedOpsError, match=f"{case.op}: .* opset 16 or later has"):
        written(case)


def test_the_first_of_equal_entries_gets_the_gradient_of_a_unique():
    case = Case(op="Unique", inputs=[np.array([2.0, 1.0, 2.0, 1.0])], ranks={0: 1})
    made = differentiate(one_node(case, np.float32), ["x0"], ["y0"])
    feeds = {"x0": np.float32([2, 1, 2, 1]), "dy/y0": np.float32([3, 5])}
    np.testing.assert_array_equal(run(made.model, feeds)["d/x0"], [5, 3, 0, 0])


def test_slicing_axes_known_only_at_run_time_is_refused():
    inputs = [uniform(3, 4), np.array([0]), np.array([2]), np.array([1])]
    with pytest.raises(UnsupportedOpsError, match="Slice: its axes are computed at run time"):
        written(Case(op="Slice", inputs=inputs, constants={1, 2}))
