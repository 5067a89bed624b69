"""LSTM, GRU and RNN against twins in numpy and against TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest

from probegen.graph.vjp.recurrent import RULES
from tests import reference_recurrent as reference
from tests.graph.vjp.harness import (
    Array,
    Case,
    differentiate,
    feeds_of,
    finite_differences,
    one_node,
    run,
    runner,
    uniform,
)

TIME, BATCH, INPUT, HIDDEN = 5, 2, 3, 4
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STATES = {"LSTM": 2, "GRU": 1, "RNN": 1}
TWINS = {"LSTM": reference.lstm, "GRU": reference.gru, "RNN": reference.rnn}
NAMES = ("x", "w", "r", "b", None, "h0", "c0")


def layer(
    op: str,
    direction: str = "forward",
    *,
    bias: bool = True,
    initial: bool = True,
    seeds: Sequence[int] | None = None,
    time: int = TIME,
    batch: int = BATCH,
    name: str = "",
    activations: Sequence[str] = (),
    **attributes: object,
) -> Case:
    """Returns a layer with random weights; all outputs have a gradient by default."""
    count = 2 if direction == "bidirectional" else 1
    gates, states = GATES[op], STATES[op]
    inputs = [
        uniform(time, batch, INPUT, seed=1),
        uniform(count, gates * HIDDEN, INPUT, low=-1, high=1, seed=2),
        uniform(count, gates * HIDDEN, HIDDEN, low=-1, high=1, seed=3),
        uniform(count, 2 * gates * HIDDEN, low=-1, high=1, seed=4) if bias else None,
        None,
        *(
            uniform(count, batch, HIDDEN, low=-1, high=1, seed=5 + k) if initial else None
            for k in range(states)
        ),
    ]
    if activations:
        attributes["activations"] = list(activations) * count
    open_axes = {0: {0: "time", 1: "batch"}}
    if initial:
        open_axes |= {5 + k: {1: "batch"} for k in range(states)}
    return Case(
        op=op,
        inputs=inputs,
        attributes={"hidden_size": HIDDEN, "direction": direction, **attributes},
        constants={1, 2, 3},
        outputs=1 + states,
        seeds=tuple(range(1 + states)) if seeds is None else seeds,
        batch=open_axes,
        name="-".join(filter(None, (direction, name))),
    )


CASES = [
    *(layer(op, way) for op in GATES for way in ("forward", "reverse", "bidirectional")),
    *(
        layer("GRU", way, linear_before_reset=1, name="reset after")
        for way in ("forward", "reverse", "bidirectional")
    ),
    *(layer(op, bias=False, initial=False, seeds=(0,), name="bare") for op in GATES),
    layer("GRU", bias=False, linear_before_reset=1, name="reset after, no bias"),
    *(layer(op, seeds=(1,), time=1, name="one step, last state") for op in GATES),
    layer("LSTM", "bidirectional", seeds=(2,), initial=False, name="cell state only"),
    layer("LSTM", activations=("Relu", "Sigmoid", "Relu"), name="relu"),
    layer("LSTM", "bidirectional", activations=("Tanh", "Relu", "Sigmoid"), name="mixed"),
    layer("GRU", "bidirectional", activations=("Tanh", "Relu"), name="mixed"),
    layer("RNN", "bidirectional", activations=("Relu",), name="relu"),
    layer("RNN", "reverse", activations=("Sigmoid",), name="sigmoid"),
    # Several blocks: whole ones, and one that is filled up.
    layer("LSTM", "bidirectional", time=16, name="two blocks"),
    layer("LSTM", "bidirectional", time=19, name="more than two blocks"),
    layer("GRU", "bidirectional", time=35, name="more than two blocks"),
    layer("GRU", time=33, linear_before_reset=1, name="reset after, more than two blocks"),
    layer("RNN", "reverse", time=17, name="more than a block"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_agree_with_the_complex_step(case: Case) -> None:
    dys = cotangents(case)
    expected = [
        reference.complex_step(twin(case), feeds64(case), dys, f"x{k}") for k in case.wanted
    ]
    for open_axes in ({}, case.batch):
        found = gradients(case, np.float64, open_axes, dys)
        for position, (a, b) in enumerate(zip(found, expected, strict=True)):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12, err_msg=f"input {position}")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float32_in_onnxruntime_agrees_with_float64(case: Case) -> None:
    dys = cotangents(case)
    for open_axes in ({}, case.batch):
        single = gradients(case, np.float32, open_axes, dys)
        double = gradients(case, np.float64, open_axes, dys)
        for a, b in zip(single, double, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("bias", [12, -18])
@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_saturated_gates_keep_their_slopes(op: str, bias: float) -> None:
    """Where float32 rounds every gate to 1, their slopes are all that is left.

    Near 0 the engine's sigmoid has no digits: it is exact to a rounding of 1.
    """
    case = layer(op, time=3, initial=False, seeds=(0,))
    case.inputs[3][:, : GATES[op] * HIDDEN] += bias
    dys = cotangents(case)
    (single,) = gradients(case, np.float32, case.batch, dys)
    (expected,) = [reference.complex_step(twin(case), feeds64(case), dys, "x0")]
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("op", GATES)
def test_twins_agree_with_finite_differences(op: str) -> None:
    """The complex step itself is held against something simpler once."""
    case = layer(op, "bidirectional")
    dys = cotangents(case)
    names = [f"x{k}" for k in case.wanted]
    rough = finite_differences(twin(case), feeds64(case), dys, names)
    exact = [reference.complex_step(twin(case), feeds64(case), dys, name) for name in names]
    for a, b in zip(rough, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_twins_agree_with_onnxruntime(case: Case) -> None:
    outputs = run(one_node(case, np.float32), feeds_of(case, np.float32), need_kernels=True)
    for name, expected in twin(case)(feeds64(case)).items():
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", GATES)
def test_samples_do_not_see_each_other(op: str) -> None:
    """Gradients of a batch are those of its samples one by one."""
    case = layer(op, "bidirectional", batch=3)
    dys = cotangents(case)
    made = differentiate(
        one_node(case, np.float32, case.batch), ["x0"], list(dys), rules=RULES, blocking=()
    )
    go = runner(made.model, need_kernels=True)
    feeds = feeds_of(case, np.float32) | {f"dy/{k}": v.astype("f") for k, v in dys.items()}
    batch_axis = {"dy/y0": 2}
    together = go(feeds)["d/x0"]
    for k in range(3):
        alone = {n: np.take(v, [k], axis=batch_axis.get(n, 1)) for n, v in feeds.items()}
        np.testing.assert_allclose(go(alone)["d/x0"][:, 0], together[:, k], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("op", GATES)
def test_gradients_that_fade_end_at_zero(op: str) -> None:
    """Numbers below the normal ones would slow every product down with them."""
    case = layer(op, initial=False, seeds=(1,), time=400)
    case.inputs[2] *= 0.1
    (found,) = gradients(case, np.float32, case.batch, cotangents(case))
    assert np.abs(found[-1]).min() > 0
    assert not found[:8].any()
    small = np.abs(found[found != 0])
    assert (small < np.finfo(np.float32).tiny).mean() < 0.01


def test_an_output_that_was_left_out_is_added() -> None:
    """Only Y_h is an output of the forward node: the rule adds Y to it."""
    case = layer("LSTM", initial=False, seeds=(1,))
    model = one_node(case, np.float32, case.batch)
    dys = cotangents(case)
    whole = gradients(case, np.float32, {}, dys)
    model.graph.node[0].output[:] = ["", "y1"]
    kept = [o for o in model.graph.output if o.name == "y1"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    made = differentiate(model, ["x0"], ["y1"], rules=RULES, blocking=())
    feeds = feeds_of(case, np.float32) | {"dy/y1": dys["y1"].astype("f")}
    found = run(made.model, feeds, need_kernels=True)["d/x0"]
    np.testing.assert_array_equal(found, whole[0])


@pytest.mark.parametrize(
    ("case", "scans", "limit"),
    [
        (layer("LSTM"), 2, 90),
        (layer("LSTM", "bidirectional"), 2, 160),
        (layer("GRU", "bidirectional", linear_before_reset=1), 1, 140),
        (layer("RNN", "bidirectional"), 1, 90),
    ],
    ids=str,
)
def test_the_number_of_nodes_does_not_grow_with_time(case: Case, scans: int, limit: int) -> None:
    made = differentiate(
        one_node(case, np.float32, case.batch),
        ["x0"],
        [f"y{s}" for s in case.seeds],
        rules=RULES,
        blocking=(),
    )
    assert made.written.count("Scan") == scans
    assert len(made.written) < limit


def twin(case: Case):
    """Returns the case's twin as a function from feeds to outputs."""
    options = {k: v for k, v in case.attributes.items() if k != "hidden_size"}
    if "activations" in options:
        count = 2 if options["direction"] == "bidirectional" else 1
        options["activations"] = options["activations"][: len(options["activations"]) // count]

    def forward(feeds: Mapping[str, Array]) -> dict[str, Array]:
        operands = {
            name: feeds.get(f"x{k}", case.inputs[k])
            for k, name in enumerate(NAMES[: len(case.inputs)])
            if name is not None
        }
        outputs = TWINS[case.op](**operands, **options)
        return {f"y{k}": v for k, v in enumerate(outputs)}

    return forward


def feeds64(case: Case) -> dict[str, Array]:
    return feeds_of(case, np.float64)


def cotangents(case: Case) -> dict[str, Array]:
    outputs = twin(case)(feeds64(case))
    return {f"y{s}": uniform(*outputs[f"y{s}"].shape, seed=20 + s) for s in case.seeds}


def gradients(
    case: Case, element: type, open_axes: Mapping, dys: Mapping[str, Array]
) -> list[Array]:
    """Returns the gradients of the case's inputs; in float64 with the twin's forward pass.

    onnxruntime has no float64 kernel of the recurrent operators, but of all that a gradient
    is made of: the forward node is taken out and its outputs are fed.
    """
    wrt = [f"x{k}" for k in case.wanted]
    model = one_node(case, element, open_axes)
    made = differentiate(model, wrt, list(dys), rules=RULES, blocking=(), expose=True)
    assert not made.missing
    feeds = feeds_of(case, element) | {f"dy/{k}": v.astype(element) for k, v in dys.items()}
    if element is np.float64:
        cut(made.model, case.op)
        given = {i.name for i in made.model.graph.input}
        feeds |= {k: v for k, v in twin(case)(feeds64(case)).items() if k in given}
    outputs = run(made.model, feeds, need_kernels=True)
    for name, (dtype, shape) in made.claims.items():
        assert outputs[name].dtype == dtype.numpy(), name
        sizes = outputs[name].shape
        assert len(shape) == len(sizes), name
        fits = [not isinstance(a, int) or a == b for a, b in zip(shape, sizes, strict=True)]
        assert all(fits), name
    return [outputs[f"d/{name}"] for name in wrt]


def cut(model: onnx.ModelProto, op: str) -> None:
    """Makes the outputs of the node `op` inputs of the graph."""
    graph = model.graph
    (node,) = [n for n in graph.node if n.op_type == op]
    graph.node.remove(node)
    for output in [o for o in graph.output if o.name in node.output]:
        graph.input.append(output)
        graph.output.remove(output)
