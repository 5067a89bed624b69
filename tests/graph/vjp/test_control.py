"""If, Loop and Scan: against finite differences in float64, and what is written for them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common
import pytest

from probegen.errors import UnsupportedOpsError
from probegen.graph.autodiff import Walk
from probegen.graph.loops.iteration import infer_with_loops
from probegen.graph.passes import clean
from probegen.graph.vjp import RULES
from tests.graph.vjp.harness import (
    Array,
    Differentiated,
    differentiate,
    finite_differences,
    run,
    runner,
    uniform,
)

Feeds = Mapping[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A small model in onnx's text form.

    Attributes:
        name: shown by pytest.
        text: the graph; all numbers are double.
        feeds: a list of inputs to try.
        wrt: inputs whose gradient is asked for.
        of: outputs that a gradient comes in through.
        writes: operators that must (True) or must not (False) be written at the top level.
        outputs: number of outputs of the forward loop when its gradient is written.
    """

    name: str
    text: str
    feeds: Sequence[Feeds]
    wrt: Sequence[str]
    of: Sequence[str]
    writes: Mapping[str, bool] = dataclasses.field(default_factory=dict)
    outputs: int | None = None

    def __str__(self) -> str:
        return self.name

    def model(self) -> onnx.ModelProto:
        return onnx.parser.parse_model(
            f'<ir_version: 9, opset_import: ["" : 18]> program {self.text}'
        )


#: A recurrent layer as tf2onnx writes it: weights as a state that no step changes or captured,
#: a count of its own; the hidden state is not collected, but something made of it.
LAYER = """(double[{time}, 2, 3] x, double[2, 4] h0, double[3, 4] w, double[4, 4] r{more})
=> (double[2, 4] h, double[steps, 2, 4] ys)
{{
  {count}
  go = Constant<value = bool {{1}}>()
  first = Constant<value = int32 {{{start}}}>()
  end, h, same, ys = Loop(m, go, first, h0, w) <body = step
    (int64 i, bool c, int32 at, double[2, 4] old, double[3, 4] kernel)
    => (bool c2, int32 next, double[2, 4] new, double[3, 4] kernel2, double[2, 4] y)
  {{
    one = Constant<value = int32 {{1}}>()
    next = Add(at, one)
    xt = Gather(x, at)
    a = MatMul(xt, kernel)
    b = MatMul(old, r)
    sum = Add(a, b)
    new = Tanh(sum)
    y = Mul(new, new)
    kernel2 = Identity(kernel)
    c2 = Identity(c)
  }}>
}}"""


def layer_feeds(time: int, **more: Array) -> Feeds:
    return {
        "x": uniform(time, 2, 3, seed=1),
        "h0": uniform(2, 4, seed=2),
        "w": uniform(3, 4, seed=3),
        "r": uniform(4, 4, low=-1, high=1, seed=4),
        **more,
    }


def layer(name: str, time: int | str, count: str, start: int = 0, **options: object) -> Program:
    feeds = options.pop("feeds", [layer_feeds(time if isinstance(time, int) else 5)])
    more = options.pop("more", "")
    return Program(
        name=name,
        text=LAYER.format(time=time, count=count, start=start, more=more),
        feeds=feeds,
        wrt=["x", "h0", "w", "r"],
        of=["h", "ys"],
        **options,
    )


FIXED = "m = Constant<value_int = 5>()"
PROGRAMS = [
    layer("fixed steps", 5, FIXED, outputs=4, writes={"Scan": True, "Loop": False, "Pad": False}),
    layer("longer sequence", 8, FIXED, outputs=4, writes={"Scan": True, "Pad": True}),
    layer("later start", 8, FIXED, start=2, writes={"Scan": True, "Pad": True}),
    layer(
        "as many steps as entries",
        "T",
        "length = Shape<start = 0, end = 1>(x)  m = Squeeze(length)",
        outputs=4,
        writes={"Scan": True, "Loop": False, "Pad": False},
        feeds=[layer_feeds(3), layer_feeds(6)],
    ),
    layer(
        "steps given by an input",
        "T",
        "m = Identity(count)",
        start=1,
        more=", int64 count",
        outputs=5,
        writes={"Loop": True, "Scan": False},
        feeds=[layer_feeds(7, count=np.array(n)) for n in (4, 6, 0)],
    ),
    Program(
        name="while",
        text="""(double[3] x, double limit) => (double[3] y) {
          none = Constant<value_ints = [0]>()
          square0 = Mul(x, x)
          norm0 = ReduceSum<keepdims = 0>(square0, none)
          go = Less(norm0, limit)
          y = Loop(, go, x) <body = step (int64 i, bool c, double[3] v) => (bool c2, double[3] w)
          {
            squared = Mul(v, v)
            grown = Mul(squared, x)
            w = Add(v, grown)
            square = Mul(w, w)
            norm = ReduceSum<keepdims = 0>(square, none)
            c2 = Less(norm, limit)
          }>
        }""",
        feeds=[
            {"x": np.array([0.9, 0.4, 1.1]), "limit": np.array(limit)} for limit in (60.0, 4.0, 0.5)
        ],
        wrt=["x"],
        of=["y"],
        outputs=2,
        writes={"Loop": True},
    ),
    Program(
        name="states that change places",
        text="""(double[4] a0, double[4] b0, double[6, 4] x) => (double[4] a, double[4] b) {
          m = Constant<value_int = 6>()
          a, b = Loop(m, , a0, b0) <body = step
            (int64 i, bool c, double[4] p, double[4] q)
            => (bool c2, double[4] p2, double[4] q2)
          {
            xt = Gather(x, i)
            p2 = Identity(q)
            both = Mul(p, q)
            q2 = Add(both, xt)
            c2 = Identity(c)
          }>
        }""",
        feeds=[{"a0": uniform(4, seed=1), "b0": uniform(4, seed=2), "x": uniform(6, 4, seed=3)}],
        wrt=["a0", "b0", "x"],
        of=["a", "b"],
        outputs=2,
    ),
    Program(
        name="counts in the arithmetic",
        text="""(double[12, 2] x, double[2] s0) => (double[2] s) {
          m = Constant<value_int = 4>()
          first = Constant<value = int64 {3}>()
          end, s = Loop(m, , first, s0) <body = step
            (int64 i, bool c, int64 k, double[2] v) => (bool c2, int64 k2, double[2] w)
          {
            two = Constant<value = int64 {2}>()
            k2 = Add(k, two)
            xk = Gather(x, k)
            ki = Mul(k, i)
            weight = Cast<to = 11>(ki)
            part = Mul(xk, weight)
            old = Sin(v)
            w = Add(old, part)
            c2 = Identity(c)
          }>
        }""",
        feeds=[{"x": uniform(12, 2, seed=1), "s0": uniform(2, seed=2)}],
        wrt=["x", "s0"],
        of=["s"],
        outputs=2,
    ),
    Program(
        name="an index that is carried",
        text="""(double[3, 2] x, double[2] s0) => (double[2] s) {
          m = Constant<value_int = 5>()
          first = Constant<value = int64 {1}>()
          end, s = Loop(m, , first, s0) <body = step
            (int64 i, bool c, int64 k, double[2] v) => (bool c2, int64 k2, double[2] w)
          {
            three = Constant<value = int64 {3}>()
            k2 = Sub(three, k)
            at = Squeeze(k)
            xk = Gather(x, at)
            old = Mul(v, xk)
            w = Add(old, xk)
            c2 = Identity(c)
          }>
        }""",
        feeds=[{"x": uniform(3, 2, seed=1), "s0": uniform(2, seed=2)}],
        wrt=["x", "s0"],
        of=["s"],
        outputs=2,
    ),
    Program(
        name="nothing carried",
        text="""(double[5, 2] x, double[2] q) => (double[5, 2] y, double[5, 2] z) {
          m = Constant<value_int = 5>()
          go = Constant<value = bool {1}>()
          y, z = Loop(m, go) <body = step (int64 i, bool c) => (bool c2, double[2] u, double[2] v)
          {
            xt = Gather(x, i)
            u = Tanh(xt)
            v = Mul(u, q)
            c2 = Identity(c)
          }>
        }""",
        feeds=[{"x": uniform(5, 2, seed=1), "q": uniform(2, seed=2)}],
        wrt=["x"],
        of=["y", "z"],
        writes={"Scan": False, "Loop": False},
    ),
    Program(
        name="collected twice, and from before the step",
        text="""(double[3] s0) => (double[3] s, double[4, 3] y, double[4, 3] z) {
          m = Constant<value_int = 4>()
          s, y, z = Loop(m, , s0) <body = step
            (int64 i, bool c, double[3] v) => (bool c2, double[3] w, double[3] y1, double[3] z1)
          {
            w = Sin(v)
            y1 = Identity(w)
            z1 = Identity(v)
            c2 = Identity(c)
          }>
        }""",
        feeds=[{"s0": uniform(3, seed=1)}],
        wrt=["s0"],
        of=["s", "y", "z"],
        outputs=3,
    ),
    Program(
        name="scan over other axes, one backwards",
        text="""(double[2, 5] s0, double[2, 4, 5] a, double[4, 5] b, double[5] q)
        => (double[2, 5] s, double[2, 5, 4] y, double[4, 2, 5] z) {
          s, y, z = Scan(s0, a, b) <
            num_scan_inputs = 2, scan_input_axes = [-2, 0], scan_input_directions = [0, 1],
            scan_output_axes = [-1, 0], scan_output_directions = [1, 0],
            body = step (double[2, 5] v, double[2, 5] at, double[5] bt)
              => (double[2, 5] w, double[2, 5] y1, double[2, 5] z1)
          {
            scaled = Mul(v, bt)
            moved = Add(scaled, at)
            w = Tanh(moved)
            y1 = Mul(w, q)
            z1 = Mul(at, bt)
          }>
        }""",
        feeds=[
            {
                "s0": uniform(2, 5, seed=1),
                "a": uniform(2, 4, 5, seed=2),
                "b": uniform(4, 5, seed=3),
                "q": uniform(5, seed=4),
            }
        ],
        wrt=["s0", "a", "b", "q"],
        of=["s", "y", "z"],
    ),
    Program(
        name="if",
        text="""(double[2, 3] x, double[3] q, double[3] r, bool c)
        => (double[2, 3] y, double[3] z) {
          y, z = If(c) <
            then_branch = yes () => (double[2, 3] y1, double[3] z1) {
              y1 = Mul(x, q)
              z1 = Mul(q, q)
            },
            else_branch = no () => (double[2, 3] y2, double[3] z2) {
              inner = Tanh(x)
              y2 = Mul(inner, r)
              z2 = Identity(q)
            }>
        }""",
        feeds=[
            {
                "x": uniform(2, 3, seed=1),
                "q": uniform(3, seed=2),
                "r": uniform(3, seed=3),
                "c": np.array(c),
            }
            for c in (True, False)
        ],
        wrt=["x", "q", "r"],
        of=["y", "z"],
        writes={"If": True},
    ),
    Program(
        name="if in a loop",
        text="""(double[5, 2] x, double[2] s0, double[2] q) => (double[2] s) {
          m = Constant<value_int = 5>()
          s = Loop(m, , s0) <body = step (int64 i, bool c, double[2] v) => (bool c2, double[2] w)
          {
            two = Constant<value = int64 {2}>()
            zero = Constant<value = int64 {0}>()
            rest = Mod(i, two)
            even = Equal(rest, zero)
            xt = Gather(x, i)
            w = If(even) <
              then_branch = yes () => (double[2] w1) {
                product = Mul(v, xt)
                w1 = Tanh(product)
              },
              else_branch = no () => (double[2] w2) {
                shifted = Add(v, q)
                w2 = Mul(shifted, xt)
              }>
            c2 = Identity(c)
          }>
        }""",
        feeds=[{"x": uniform(5, 2, seed=1), "s0": uniform(2, seed=2), "q": uniform(2, seed=3)}],
        wrt=["x", "s0", "q"],
        of=["s"],
    ),
    Program(
        name="loop in a scan in an if",
        text="""(double[2] s0, double[4, 2] x, double[3, 2] k, bool c) => (double[2] s) {
          s = If(c) <
            then_branch = yes () => (double[2] t1) {
              t1 = Scan(s0, x) <num_scan_inputs = 1, body = outer
                (double[2] v, double[2] xt) => (double[2] w)
              {
                m = Constant<value_int = 3>()
                start = Mul(v, xt)
                w = Loop(m, , start) <body = inner
                  (int64 i, bool g, double[2] u) => (bool g2, double[2] u2)
                {
                  ki = Gather(k, i)
                  inside = Mul(u, ki)
                  waved = Sin(inside)
                  u2 = Add(waved, xt)
                  g2 = Identity(g)
                }>
              }>
            },
            else_branch = no () => (double[2] t2) {
              t2 = Identity(s0)
            }>
        }""",
        feeds=[
            {
                "s0": uniform(2, seed=1),
                "x": uniform(4, 2, seed=2),
                "k": uniform(3, 2, seed=3),
                "c": np.array(c),
            }
            for c in (True, False)
        ],
        wrt=["s0", "x", "k"],
        of=["s"],
    ),
]


@pytest.mark.parametrize("settled", [True, False], ids=["settled", "unsettled"])
@pytest.mark.parametrize("program", PROGRAMS, ids=str)
def test_gradients_agree_with_finite_differences(program: Program, settled: bool) -> None:
    """With the shapes that loops keep known to the rules, and without."""
    model = program.model()
    made = differentiated(model, program, settled=settled)
    assert not made.missing
    forward, both = runner(model), runner(made.model)
    for feeds in program.feeds:
        outputs = forward(feeds)
        dys = {k: uniform(*outputs[k].shape, seed=30 + n) for n, k in enumerate(program.of)}
        found = both({**feeds, **{f"dy/{k}": v for k, v in dys.items()}})
        for name in outputs:
            np.testing.assert_array_equal(found[name], outputs[name], err_msg=name)
        expected = finite_differences(forward, feeds, dys, program.wrt)
        for name, gradient in zip(program.wrt, expected, strict=True):
            np.testing.assert_allclose(
                found[f"d/{name}"], gradient, rtol=2e-6, atol=2e-7, err_msg=name
            )


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p.writes], ids=str)
def test_what_is_written(program: Program) -> None:
    made = differentiated(program.model(), program)
    for op, there in program.writes.items():
        assert (op in made.written) is there, made.written


@pytest.mark.parametrize("program", [p for p in PROGRAMS if p.outputs], ids=str)
def test_the_forward_loop_collects_more_only_where_it_has_to(program: Program) -> None:
    """That is: where it is not known beforehand how many steps there are."""
    made = differentiated(program.model(), program)
    loop = next(n for n in made.model.graph.node if n.op_type == "Loop")
    assert len(loop.output) == program.outputs


def test_a_carried_value_that_changes_its_shape_is_refused() -> None:
    program = Program(
        name="growing",
        text="""(double[1, 2] s0, double[2] q) => (double[n, 2] s) {
          m = Constant<value_int = 3>()
          s = Loop(m, , s0) <body = step
            (int64 i, bool c, double[1, 2] v) => (bool c2, double[2, 2] w)
          {
            scaled = Mul(v, q)
            w = Concat<axis = 0>(v, scaled)
            c2 = Identity(c)
          }>
        }""",
        feeds=[],
        wrt=["q"],
        of=["s"],
    )
    with pytest.raises(UnsupportedOpsError, match=r"'v', whose shape changes"):
        differentiated(program.model(), program, settled=False)


def test_what_stands_in_the_way_inside_a_body_is_named() -> None:
    """All of it, with the names its nodes have in the forward graph."""
    program = next(p for p in PROGRAMS if p.name == "if in a loop")
    model = program.model()
    loop = next(n for n in model.graph.node if n.op_type == "Loop")
    choice = next(n for n in loop.attribute[0].g.node if n.op_type == "If")
    tanh = next(n for n in choice.attribute[0].g.node if n.op_type == "Tanh")
    tanh.op_type, tanh.name = "Atan", "curved"
    with pytest.raises(UnsupportedOpsError) as caught:
        differentiate(
            model, ["x"], ["s"], rules={k: v for k, v in RULES.items() if k not in ("Atan", "Add")}
        )
    found = {r.op_type: r.nodes for r in caught.value.refusals}
    assert found["Atan"] == ("curved",)
    assert set(found) == {"Atan", "Add"}


def test_bodies_are_differentiated_by_the_tables_of_the_graph_around() -> None:
    """A rule of one's own holds inside a Loop too."""
    program = next(p for p in PROGRAMS if p.name == "fixed steps")

    def straight(_: Walk, node: ir.Node, dy: Sequence[ir.Value]):
        yield node.inputs[0], dy[0]

    feeds = program.feeds[0]
    made = differentiate(program.model(), ["x"], ["h"], rules={**RULES, "Tanh": straight})
    found = run(made.model, {**feeds, "dy/h": np.ones((2, 4))})["d/x"]
    flow = np.ones((2, 4))
    for t in reversed(range(5)):
        np.testing.assert_allclose(found[t], flow @ feeds["w"].T, rtol=1e-12)
        flow = flow @ feeds["r"].T


def test_an_output_that_nobody_asked_for_is_used() -> None:
    """The hidden states are collected, under no name: they are read, not computed again."""
    program = Program(
        name="collected under no name",
        text="""(double[5, 2] x, double[2] s0) => (double[2] s, double[5, 2] zs) {
          m = Constant<value_int = 5>()
          s, ys, zs = Loop(m, , s0) <body = step
            (int64 i, bool c, double[2] v)
            => (bool c2, double[2] w, double[2] y, double[2] z)
          {
            xt = Gather(x, i)
            sum = Add(v, xt)
            w = Tanh(sum)
            y = Identity(w)
            z = Sin(xt)
            c2 = Identity(c)
          }>
        }""",
        feeds=[{"x": uniform(5, 2, seed=1), "s0": uniform(2, seed=2)}],
        wrt=["x"],
        of=["s"],
    )
    model = program.model()
    named = differentiated(model, program)
    next(n for n in model.graph.node if n.op_type == "Loop").output[1] = ""
    unnamed = differentiated(model, program)
    assert unnamed.written == named.written
    assert unnamed.written.count("Scan") == 1
    feeds = {**program.feeds[0], "dy/s": np.ones(2)}
    found, expected = run(unnamed.model, feeds), run(named.model, feeds)
    np.testing.assert_array_equal(found["d/x"], expected["d/x"])


def test_large_constants_of_a_body_are_stored_once() -> None:
    weights = uniform(60, 60, low=-0.2, high=0.2, seed=5)
    program = Program(
        name="constants inside",
        text="""(double[3, 60] x, double[60] s0) => (double[60] s) {
          m = Constant<value_int = 3>()
          s = Loop(m, , s0) <body = step
            (int64 i, bool c, double[60] v) => (bool c2, double[60] w)
          {
            product = MatMul(v, weights)
            xt = Gather(x, i)
            sum = Add(product, xt)
            w = Tanh(sum)
            c2 = Identity(c)
          }>
        }""",
        feeds=[{"x": uniform(3, 60, seed=1), "s0": uniform(60, seed=2)}],
        wrt=["x"],
        of=["s"],
    )
    model = program.model()
    body = next(n for n in model.graph.node if n.op_type == "Loop").attribute[0].g
    body.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    made = differentiate(model, ["x"], ["s"])
    assert made.model.ByteSize() < 1.9 * weights.nbytes
    dys = {"s": uniform(60, seed=6)}
    found = run(made.model, {**program.feeds[0], "dy/s": dys["s"]})["d/x"]
    (expected,) = finite_differences(runner(model), program.feeds[0], dys, ["x"])
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("settled", [True, False], ids=["settled", "unsettled"])
def test_cleaning_up_changes_nothing(settled: bool) -> None:
    """Passes over the finished graph go into bodies as well."""
    for program in PROGRAMS:
        made = differentiated(program.model(), program, settled=settled)
        cleaned = ir.from_proto(made.model)
        clean(cleaned)
        for graph in (cleaned.graph, *cleaned.graph.subgraphs()):
            unread = [n for n, v in graph.initializers.items() if not v.uses()]
            assert not unread, program
        outputs = run(program.model(), program.feeds[0])
        dys = {f"dy/{k}": uniform(*outputs[k].shape, seed=3) for k in program.of}
        feeds = {**program.feeds[0], **dys}
        after = run(ir.to_proto(cleaned), feeds)
        for name, value in run(made.model, feeds).items():
            np.testing.assert_array_equal(after[name], value, err_msg=f"{program}: {name}")


def differentiated(
    model: onnx.ModelProto, program: Program, settled: bool = True
) -> Differentiated:
    if settled:
        parsed = ir.from_proto(model)
        infer_with_loops(parsed, ir.passes.common.ShapeInferencePass(data_prop=True))
        model = ir.to_proto(parsed)
    return differentiate(model, program.wrt, program.of)
