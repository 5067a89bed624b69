"""Bodies that run once a step, and what is computed for all steps at once instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from probegen.graph.core.builder import Builder
from probegen.graph.loops.batch_over_steps import batch_over_steps
from probegen.graph.loops.hoist import Collected
from probegen.graph.loops.step_writer import StepWriter, reverse, shift_by_one_step
from tests.graph.vjp.harness import Array, run, uniform

STEPS, BATCH = 3, 2
DOUBLE = ir.TensorType(ir.DataType.DOUBLE)

Body = Callable[[Builder, list[ir.Value]], list[ir.Value]]


class Sketch:
    """A graph in the making: its inputs hold arrays, its outputs are run."""

    def __init__(self, **inputs: Array) -> None:
        self.feeds = inputs
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": 18}, name="sketch")
        self.builder = Builder(self.graph, 18)
        self.values: dict[str, ir.Value] = {}
        for name, array in inputs.items():
            sizes = [
                "steps" if d == STEPS and not axis else d for axis, d in enumerate(array.shape)
            ]
            kind = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            self.values[name] = ir.Value(name=name, type=kind, shape=ir.Shape(sizes))
            self.graph.inputs.append(self.values[name])

    def run(self, *outputs: ir.Value) -> list[Array]:
        """Runs what was written; checks that claims of type and shape hold."""
        self.graph.outputs.extend(outputs)
        self.builder.attach()
        model = ir.to_proto(ir.Model(self.graph, ir_version=9))
        onnx.checker.check_model(model, full_check=True)
        found = run(model, self.feeds)
        for value in outputs:
            assert found[value.name].dtype == value.dtype.numpy()
            if value.shape is not None:
                sizes = zip(value.shape, found[value.name].shape, strict=True)
                assert all(a == b for a, b in sizes if isinstance(a, int))
        return [found[v.name] for v in outputs]

    def written(self) -> list[str]:
        return [n.op_type for n in self.builder.nodes]


def x(*shape: int, seed: int = 0) -> Array:
    return uniform(STEPS, *shape, seed=seed)


#: operator, sequences (one entry a step), values that are the same in all steps, attributes
FORMS: list[tuple[str, list[Array], list[Any], dict[str, Any]]] = [
    ("Tanh", [x(2, 4)], [], {}),
    ("Mul", [x(2, 4), x(2, 4, seed=1)], [], {}),
    ("Mul", [x(2, 4), x(4, seed=1)], [], {}),
    ("Add", [x(4), x(3, 2, 4, seed=1)], [], {}),
    ("Sub", [x(2, 1, 4)], [uniform(5, 4, seed=1)], {}),
    ("Where", [x(2, 4) > 0, x(2, 4), x(4, seed=1)], [], {}),
    ("Cast", [x(2, 4) > 0], [], {"to": int(ir.DataType.DOUBLE)}),
    ("Clip", [x(2, 4)], [np.array(-0.5), np.array(0.5)], {}),
    ("MatMul", [x(2, 4)], [uniform(4, 5, seed=1)], {}),
    ("MatMul", [x(2, 3, 4)], [uniform(4, 5, seed=1)], {}),
    ("MatMul", [x(2, 4), x(4, 5, seed=1)], [], {}),
    ("Concat", [x(2, 4), x(2, 3, seed=1)], [], {"axis": 1}),
    ("Concat", [x(2, 4), x(2, 3, seed=1)], [], {"axis": -1}),
    ("Transpose", [x(2, 4, 5)], [], {"perm": [2, 0, 1]}),
    ("Transpose", [x(2, 4, 5)], [], {}),
    ("Reshape", [x(2, 4, 5)], [np.array([0, -1])], {}),
    ("Reshape", [x(2, 4)], [np.array([4, 2, 1])], {}),
    ("Softmax", [x(2, 4)], [], {"axis": 0}),
    ("Softmax", [x(2, 4)], [], {}),
    ("Slice", [x(2, 6)], [np.array([1, 0]), np.array([4, 1]), np.array([1, 0])], {}),
    ("Slice", [x(2, 6)], [np.array([-3]), np.array([6]), np.array([-1])], {}),
    ("Slice", [x(5, 3)], [np.array([n], np.int32) for n in (1, 4, 0)], {}),
    ("Squeeze", [x(2, 1, 4)], [np.array([1])], {}),
    ("Unsqueeze", [x(2, 4)], [np.array([0, -1])], {}),
    ("ReduceSum", [x(2, 4, 5)], [np.array([0, 2])], {"keepdims": 0}),
    ("ReduceMean", [x(2, 4, 5)], [np.array([-1])], {}),
    ("Conv", [x(2, 3, 5, 6)], [uniform(4, 3, 2, 3, seed=1), uniform(4)], {"strides": [2, 1]}),
    ("Gemm", [x(2, 4)], [uniform(5, 4, seed=1), uniform(5)], {"transB": 1, "alpha": 0.5}),
    ("Gemm", [x(2, 4)], [uniform(4, 5, seed=1)], {}),
    ("MaxPool", [x(2, 3, 5, 6)], [], {"kernel_shape": [2, 3]}),
]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f"{f[0]}{[v.shape for v in f[1]]}")
def test_all_steps_at_once_are_the_steps_one_by_one(form: tuple) -> None:
    op, sequences, others, attributes = form
    names = [f"s{k}" for k in range(len(sequences))]
    one = Sketch(**{n: v[0] for n, v in zip(names, sequences, strict=True)})
    fixed = [one.builder.const(v) for v in others]
    inputs = [one.values[n] for n in names]
    expected = []
    result = one.builder.op(op, *inputs, *fixed, **attributes)
    node = result.producer()
    result.type = DOUBLE
    one.graph.outputs.append(result)
    one.builder.attach()
    model = onnx.shape_inference.infer_shapes(ir.to_proto(ir.Model(one.graph, ir_version=9)))
    inferred = ir.from_proto(model).graph.outputs[0]
    for step in range(STEPS):
        feeds = {n: v[step] for n, v in zip(names, sequences, strict=True)}
        expected.append(run(model, feeds)[result.name])
    result.shape, result.type = inferred.shape, inferred.type

    whole = Sketch(**dict(zip(names, sequences, strict=True)))
    differs = [True] * len(sequences) + [False] * len(others)
    write = batch_over_steps(node, differs)
    assert write is not None
    operands = [whole.values[n] for n in names] + [whole.builder.const(v) for v in others]
    (made,) = write(whole.builder, operands, "steps")
    (found,) = whole.run(made)
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("op", "shapes", "differs", "attributes"),
    [
        ("Concat", [(2, 4), (2, 4)], [True, False], {"axis": 0}),
        ("Clip", [(2, 4), ()], [True, True], {}),
        ("MatMul", [(2, 4), (3, 4, 5)], [True, True], {}),
        ("MatMul", [(4,), (4, 5)], [True, False], {}),
        ("Conv", [(2, 3, 5), (4, 3, 2)], [True, True], {}),
        ("Reshape", [(2, 4), (1,)], [True, False], {}),
        ("CumSum", [(2, 4), ()], [True, False], {}),
        ("Slice", [(2, 4), (1,), (1,), (1,)], [True, False, False, False], {}),
    ],
)
def test_what_has_no_form_for_all_steps_stays(
    op: str, shapes: list[tuple], differs: list[bool], attributes: dict[str, Any]
) -> None:
    """Shapes that are not constants, and operands that differ where they must not."""
    values = [ir.Value(name=f"v{k}", type=DOUBLE, shape=ir.Shape(s)) for k, s in enumerate(shapes)]
    node = ir.node(op, values, attributes)
    node.outputs[0].shape = ir.Shape([2, 4])
    assert batch_over_steps(node, differs) is None


def test_indices_of_a_pooling_stay() -> None:
    """They count over the whole batch, which is another for all steps at once."""
    value = ir.Value(name="x", type=DOUBLE, shape=ir.Shape([2, 3, 4]))
    node = ir.node("MaxPool", [value], {"kernel_shape": [2]}, num_outputs=2)
    for output in node.outputs:
        output.shape = ir.Shape([2, 3, 3])
    assert batch_over_steps(node, [True]) is None


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("hoist", [False, True])
@pytest.mark.parametrize("counted", [False, True], ids=["Scan", "Loop"])
def test_a_recurrence(counted: bool, hoist: bool, backwards: bool) -> None:
    """Work before, in and after the recurrence; results in time order whatever the direction."""
    a, b = x(BATCH, 4, seed=1), x(4, seed=2)
    start, w = uniform(BATCH, 4, seed=3), uniform(4, 4, seed=4)
    sketch = Sketch(a=a, b=b, start=start, w=w)
    v, builder = sketch.values, sketch.builder
    walk = StepWriter(builder)
    body = walk.body
    state = walk.carry(v["start"])
    at, bt = (walk.read(v[n], backwards=backwards) for n in "ab")
    scaled = body.mul(body.op("Sin", at, shape=at), bt)
    turned = body.transpose(v["w"], [1, 0])
    product = body.op("MatMul", state, turned, shape=state)
    new = body.op("Tanh", body.add(product, scaled), shape=state)
    collected = [new, state, scaled, body.op("Cos", body.mul(new, at), shape=state)]
    count = builder.const(STEPS, ir.DataType.INT64) if counted else None
    stacked = [Collected(one, backwards) for one in collected]
    (last,), stacks = walk.finish([new], stacked, count, hoist=hoist)
    found = sketch.run(last, *stacks)

    order = range(STEPS)[:: -1 if backwards else 1]
    h, rows = start, {}
    for t in order:
        s = np.sin(a[t]) * b[t]
        after = np.tanh(h @ w.T + s)
        rows[t] = [after, h, s, np.cos(after * a[t])]
        h = after
    expected = [h, *(np.stack([rows[t][k] for t in range(STEPS)]) for k in range(4))]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_only_what_carries_stays_in_the_body() -> None:
    sketch = Sketch(a=x(BATCH, 4), w=uniform(4, 4), start=uniform(BATCH, 4))
    v = sketch.values
    walk = StepWriter(sketch.builder)
    body = walk.body
    state, at = walk.carry(v["start"]), walk.read(v["a"], backwards=False)
    ahead = body.op("Exp", body.op("Sin", at, shape=at), shape=at)
    new = body.mul(body.op("MatMul", state, body.transpose(v["w"], [1, 0]), shape=state), ahead)
    after = body.op("Cos", body.op("Tanh", new, shape=new), shape=new)
    _, (cosines,) = walk.finish([new], [Collected(after, False)], hoist=True)
    scan = next(n for n in sketch.builder.nodes if n.op_type == "Scan")
    inside = [n.op_type for n in scan.attributes["body"].as_graph()]
    assert sorted(inside) == ["Identity", "MatMul", "Mul"]
    assert sketch.written() == ["Sin", "Exp", "Transpose", "Scan", "Tanh", "Cos"]
    h, expected = sketch.feeds["start"], []
    for at in sketch.feeds["a"]:
        h = (h @ sketch.feeds["w"].T) * np.exp(np.sin(at))
        expected.append(np.cos(np.tanh(h)))
    np.testing.assert_allclose(sketch.run(cosines)[0], np.stack(expected), rtol=1e-12)


@pytest.mark.parametrize("rank", [1, 2])
def test_a_sum_in_a_gemm_may_differ_from_step_to_step(rank: int) -> None:
    a, w, c = x(2, 4), uniform(4, 5, seed=1), x(*(2, 5)[2 - rank :], seed=2)
    sketch = Sketch(a=a, w=w, c=c)
    inside = [
        ir.Value(name=n, type=DOUBLE, shape=ir.Shape(v.shape))
        for n, v in (("a", a[0]), ("w", w), ("c", c[0]))
    ]
    node = ir.node("Gemm", inside, {"beta": 0.5})
    node.outputs[0].type, node.outputs[0].shape = DOUBLE, ir.Shape([2, 5])
    write = batch_over_steps(node, [True, False, True])
    (made,) = write(sketch.builder, list(sketch.values.values()), "steps")
    expected = a @ w + 0.5 * (c if rank == 2 else c[:, None])
    np.testing.assert_allclose(sketch.run(made)[0], expected, rtol=1e-12)


def test_products_by_what_is_known_are_merged() -> None:
    """Chains of factors, sums of products of one value, and joined products."""
    arrays = {n: x(BATCH, 4, seed=k) for k, n in enumerate("abcd")}
    sketch = Sketch(start=uniform(BATCH, 4, seed=9), w=uniform(8, 4, seed=8), **arrays)
    walk = StepWriter(sketch.builder)
    body = walk.body
    state = walk.carry(sketch.values["start"])
    a, b, c, d = (walk.read(sketch.values[n], backwards=False) for n in "abcd")
    chained = body.neg(body.mul(body.mul(state, a), b))
    summed = body.add(body.mul(state, c), chained)
    scaled = body.mul(body.mul(summed, 0.5), d)
    joined = body.concat([scaled, body.mul(state, b)], 1)
    new = body.op("MatMul", joined, sketch.values["w"], shape=state)
    (last,), (sums,) = walk.finish([new], [Collected(joined, False)], hoist=True)
    scan = next(n for n in sketch.builder.nodes if n.op_type == "Scan")
    inside = [n.op_type for n in scan.attributes["body"].as_graph()]
    assert inside == ["Concat", "Mul", "MatMul"]
    h, expected = sketch.feeds["start"], []
    for a, b, c, d in zip(*arrays.values(), strict=True):
        expected.append(np.concatenate([(h * c - h * a * b) * 0.5 * d, h * b], 1))
        h = expected[-1] @ sketch.feeds["w"]
    found = sketch.run(last, sums)
    np.testing.assert_allclose(found[0], h, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found[1], np.stack(expected), rtol=1e-12, atol=1e-14)


def test_products_that_something_else_reads_are_not_merged() -> None:
    sketch = Sketch(start=uniform(BATCH, 4, seed=9), a=x(BATCH, 4), b=x(BATCH, 4, seed=1))
    walk = StepWriter(sketch.builder)
    body = walk.body
    state = walk.carry(sketch.values["start"])
    a, b = (walk.read(sketch.values[n], backwards=False) for n in "ab")
    once = body.mul(state, a)
    new = body.op("Tanh", body.add(body.mul(once, b), once), shape=state)
    (last,), (products,) = walk.finish([new], [Collected(once, False)], hoist=True)
    h, expected = sketch.feeds["start"], []
    for a, b in zip(sketch.feeds["a"], sketch.feeds["b"], strict=True):
        expected.append(h * a)
        h = np.tanh(h * a * b + h * a)
    found = sketch.run(last, products)
    np.testing.assert_allclose(found[0], h, rtol=1e-12)
    np.testing.assert_allclose(found[1], np.stack(expected), rtol=1e-12)


def test_nothing_carried_needs_no_loop() -> None:
    sketch = Sketch(a=x(BATCH, 4))
    walk = StepWriter(sketch.builder)
    at = walk.read(sketch.values["a"], backwards=True)
    result = walk.body.op("Sin", at, shape=at)
    _, (sines,) = walk.finish([], [Collected(result, False)], hoist=True)
    assert "Scan" not in sketch.written()
    found = sketch.run(sines)[0]
    np.testing.assert_allclose(found, np.sin(sketch.feeds["a"][::-1]), rtol=1e-15)


def test_what_no_result_needs_is_not_read() -> None:
    sketch = Sketch(a=x(BATCH, 4), b=x(BATCH, 4, seed=1), start=uniform(BATCH, 4))
    walk = StepWriter(sketch.builder)
    state = walk.carry(sketch.values["start"])
    at, bt = (walk.read(sketch.values[n], backwards=False) for n in "ab")
    walk.body.mul(bt, state)
    (last,), _ = walk.finish([walk.body.add(state, at)])
    scan = sketch.builder.nodes[-1]
    assert [i.name for i in scan.inputs] == ["start", "a"]
    assert not sketch.values["b"].uses()
    np.testing.assert_allclose(
        sketch.run(last)[0], sketch.feeds["start"] + sketch.feeds["a"].sum(0), rtol=1e-13
    )


def test_a_scan_of_which_nothing_is_read_has_its_steps_still() -> None:
    sketch = Sketch(a=x(BATCH, 4), start=uniform(4))
    walk = StepWriter(sketch.builder)
    state = walk.carry(sketch.values["start"])
    at = walk.read(sketch.values["a"], backwards=False)
    doubled, sine = walk.body.mul(state, 2.0), walk.body.op("Sin", at, shape=at)
    (last,), (sines,) = walk.finish([doubled], [Collected(sine, False)], hoist=True)
    found = sketch.run(last, sines)
    np.testing.assert_allclose(found[0], sketch.feeds["start"] * 2**STEPS, rtol=1e-15)
    np.testing.assert_allclose(found[1], np.sin(sketch.feeds["a"]), rtol=1e-15)


def test_a_loop_may_run_no_step() -> None:
    sketch = Sketch(a=x(4)[:0], start=uniform(4), count=np.array(0))
    walk = StepWriter(sketch.builder)
    state = walk.carry(sketch.values["start"])
    new = walk.body.add(state, walk.read(sketch.values["a"], backwards=True))
    (last,), (states,) = walk.finish([new], [Collected(new, True)], sketch.values["count"])
    found = sketch.run(last, states)
    np.testing.assert_array_equal(found[0], sketch.feeds["start"])
    assert found[1].shape == (0, 4)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("steps", [STEPS, 1, 0])
def test_before_and_reverse(backwards: bool, steps: int) -> None:
    sketch = Sketch(left=x(BATCH, 4)[:steps], initial=uniform(BATCH, 4))
    left, initial = sketch.feeds["left"], sketch.feeds["initial"]
    found = shift_by_one_step(sketch.builder, *sketch.values.values(), backwards=backwards)
    turned = reverse(sketch.builder, sketch.values["left"])
    parts = [left[1:], initial[None]] if backwards else [initial[None], left[:-1]]
    results = sketch.run(found, turned)
    expected = np.concatenate(parts) if steps else left
    np.testing.assert_array_equal(results[0], expected)
    np.testing.assert_array_equal(results[1], left[::-1])
