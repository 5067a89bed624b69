"""Gradients of reductions, of running sums and of the k largest."""

from __future__ import annotations

import numpy as np
import pytest

from probegen.errors import UnsupportedOpsError
from tests.graph.vjp.harness import Case, apart, check, tf, uniform, written

#: Name -> what TensorFlow calls it, the lowest value it takes, its first opset with axes as input.
REDUCTIONS = {
    "ReduceSum": ("reduce_sum", -2.0, 13),
    "ReduceMean": ("reduce_mean", -2.0, 18),
    "ReduceProd": ("reduce_prod", 0.5, 18),
    "ReduceL1": (None, -2.0, 18),
    "ReduceL2": ("math.reduce_euclidean_norm", -2.0, 18),
    "ReduceSumSquare": (None, -2.0, 18),
    "ReduceLogSum": (None, 0.5, 18),
    "ReduceLogSumExp": ("reduce_logsumexp", -2.0, 18),
    "ReduceMax": ("reduce_max", -2.0, 18),
    "ReduceMin": ("reduce_min", -2.0, 18),
}


def _reduction(op, axes, keepdims, opset):
    twin, low, as_input = REDUCTIONS[op]
    inputs = [uniform(2, 3, 4, low=low)]
    attributes = {"keepdims": keepdims}
    if axes is not None and opset >= as_input:
        inputs.append(np.array(axes, dtype=np.int64))
    elif axes is not None:
        attributes["axes"] = list(axes)

    def by_tensorflow(x, *_):
        return tf(twin)(x, axis=axes, keepdims=bool(keepdims))

    return Case(
        op=op,
        inputs=inputs,
        attributes=attributes,
        constants={1},
        opset=opset,
        tensorflow=twin and by_tensorflow,
        name=f"axes {axes} keepdims {keepdims}",
    )


FORMS = [
    _reduction(op, axes, keepdims, opset)
    for op in REDUCTIONS
    for axes, keepdims, opset in (
        ((1,), 1, 18),
        ((-1, 1), 0, 18),
        ((0,), 0, 18),
        (None, 0, 18),
        ((2,), 1, 13),
        ((1, 2), 0, 13),
        (None, 1, 13),
    )
]

TIED = np.array([[[3.0, 1.0, 3.0], [2.0, 2.0, 2.0]], [[-1.0, 0.0, 0.0], [5.0, -5.0, 4.0]]])
ZEROS = np.array([[[3.0, 1.5, 0.0], [0.0, 2.0, 0.0]], [[-1.0, 2.0, 4.0], [0.0, 0.0, 0.0]]])
LAST = np.array([2])


def _at(op, x, twin, name):
    def by_tensorflow(x, _):
        return tf(twin)(x, axis=2, keepdims=True)

    return Case(
        op=op, inputs=[x, LAST], constants={1}, numeric=False, tensorflow=by_tensorflow, name=name
    )


HARD_PLACES = [
    _at("ReduceMax", TIED, "reduce_max", "ties"),
    _at("ReduceMin", TIED, "reduce_min", "ties"),
    _at("ReduceProd", ZEROS, "reduce_prod", "zeros"),
    Case(op="ReduceSum", inputs=[uniform(2, 3)], attributes={"noop_with_empty_axes": 1}),
    Case(op="ReduceSum", inputs=[uniform(2, 1), np.array([1])], constants={1}, name="size 1"),
    Case(op="ReduceMean", inputs=[uniform()], open_all=False),
]

RUNNING = [
    Case(
        op="CumSum",
        inputs=[uniform(2, 3, 4), np.array(axis)],
        attributes={"exclusive": exclusive, "reverse": reverse},
        constants=constants,
        opset=opset,
        tensorflow=lambda x, axis, e=exclusive, r=reverse: tf("cumsum")(
            x, axis, exclusive=bool(e), reverse=bool(r)
        ),
        name=f"axis {axis} exclusive {exclusive} reverse {reverse}",
    )
    for axis, exclusive, reverse, constants, opset in (
        (1, 0, 0, {1}, 13),
        (-1, 1, 0, {1}, 18),
        (0, 0, 1, {1}, 18),
        (2, 1, 1, set(), 18),
    )
]

PRODUCTS = [
    Case(
        op="CumProd",
        inputs=[uniform(3, 5, 2), np.array(axis)],
        attributes={"exclusive": exclusive, "reverse": reverse},
        constants={1},
        opset=26,
        open_all=False,
        single=False,  # onnxruntime does not know it yet
        name=f"axis {axis} exclusive {exclusive} reverse {reverse}",
    )
    for axis, exclusive, reverse in ((1, 0, 0), (-2, 1, 0), (1, 0, 1), (2, 1, 1))
]

LARGEST = [
    Case(
        op="TopK",
        inputs=[apart(3, 5), np.array([2])],
        constants={1},
        outputs=2,
        tensorflow=lambda x, _: tf("math.top_k")(x, k=2).values,
    ),
    Case(
        op="TopK",
        inputs=[apart(2, 4, 3), np.array([3])],
        attributes={"axis": 1, "largest": 0, "sorted": 1},
        outputs=2,
    ),
]

CASES = [*FORMS, *HARD_PLACES, *RUNNING, *PRODUCTS, *LARGEST]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient(case):
    check(case)


def test_a_mean_over_known_sizes_is_divided_before_it_is_broadcast():
    assert written(_reduction("ReduceMean", (2,), 1, 18)) == ["Mul", "Expand"]
    assert written(_reduction("ReduceMean", (1, 2), 0, 18)) == ["Unsqueeze", "Mul", "Expand"]


def test_a_mean_over_an_open_size_counts_at_run_time():
    case = _reduction("ReduceMean", (2,), 1, 18)
    nodes = written(case, {0: {0: "batch", 2: "time"}})
    assert nodes == ["Shape", "ReduceProd", "Cast", "Div", "Shape", "Expand"]


def test_axes_computed_at_run_time_are_refused():
    case = Case(op="ReduceSum", inputs=[uniform(2, 3), np.array([1])])
    with pytest.raises(UnsupportedOpsError, match="ReduceSum: its axes are computed at run time"):
        written(case)
