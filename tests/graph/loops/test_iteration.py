"""What a loop carries, how often it runs, which shapes it keeps."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import onnx_ir.passes.common
import pytest

from probegen.graph.core.values import shape_of
from probegen.graph.loops.iteration import (
    carry_the_same,
    infer_with_loops,
    iteration_of,
    trip_count,
)

COUNTED = """(float[T, batch, 3] x, float[batch, 3] s0, int64 other) => (float[p, 3] s) {{
  length = Shape<start = 0, end = 1>(x)
  whole = Cast<to = 6>(length)
  limit = Squeeze(whole)
  sizes = Shape(x)
  rows = Constant<value = int64 {{1}}>()
  second = Gather(sizes, rows)
  {bound}
  first = Constant<value = int32 {{{first}}}>()
  {go}
  end, s = Loop({inputs}, first, s0) <body = step
    (int64 i, bool c, int32 k, float[a, 3] v) => (bool c2, int32 k2, float[b, 3] w)
  {{
    by = Constant<value = int32 {{{by}}}>()
    k2 = Add(k, by)
    xt = Gather(x, k)
    w = Add(v, xt)
    {goes_on}
  }}>
}}"""

LESS = "kf = Cast<to = 1>(k2)  lf = Cast<to = 1>(limit)  c2 = Less(kf, lf)"
ALWAYS = "c2 = Identity(c)"


def counted(
    bound: str = "m = Cast<to = 7>(limit)",
    inputs: str = "m, ",
    goes_on: str = LESS,
    go: str = "",
    first: int = 0,
    by: int = 1,
) -> ir.Model:
    text = COUNTED.format(bound=bound, inputs=inputs, goes_on=goes_on, go=go, first=first, by=by)
    return parsed(text)


def parsed(text: str) -> ir.Model:
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]> m {text}')
    made = ir.from_proto(model)
    infer(made)
    return made


def infer(model: ir.Model) -> None:
    ir.passes.common.ShapeInferencePass(data_prop=True)(model)


def loop_in(model: ir.Model) -> ir.Node:
    return next(n for n in model.graph.all_nodes() if n.op_type in ("Loop", "Scan"))


@pytest.mark.parametrize(
    ("options", "trips"),
    [
        ({}, "T"),
        ({"goes_on": ALWAYS}, "T"),
        ({"bound": "m = Identity(second)"}, None),
        ({"bound": "m = Identity(second)", "goes_on": ALWAYS}, "batch"),
        ({"bound": "m = Constant<value_int = 7>()", "goes_on": ALWAYS}, 7),
        ({"bound": "m = Constant<value_int = 7>()"}, None),
        ({"bound": "m = Identity(other)", "goes_on": ALWAYS}, None),
        ({"inputs": ", ", "bound": ""}, "T"),
        ({"inputs": ", ", "bound": "", "first": 1}, None),
        ({"inputs": ", ", "bound": "", "by": 2}, None),
        (
            {
                "inputs": ", ",
                "bound": "",
                "goes_on": "four = Constant<value = int64 {4}>()  c2 = Less(i, four)",
            },
            5,
        ),
        (
            {
                "inputs": "m, go",
                "go": "zero = Constant<value = int64 {0}>()  go = Less(zero, rows)",
                "bound": "m = Constant<value_int = 7>()",
                "goes_on": ALWAYS,
            },
            7,
        ),
        (
            {
                "inputs": "m, go",
                "go": "go = Less(rows, rows)",
                "bound": "m = Constant<value_int = 7>()",
            },
            0,
        ),
        ({"inputs": ", ", "bound": "", "goes_on": ALWAYS}, None),
    ],
)
def test_trip_count(options: dict[str, object], trips: int | str | None) -> None:
    assert trip_count(iteration_of(loop_in(counted(**options)))) == trips


def test_trip_count_of_a_scan_is_the_length_of_what_it_reads() -> None:
    text = """(float[3] s0, float[T, 3] a, float[3, {size}] b) => (float[3] s) {{
      s = Scan(s0, a, b) <num_scan_inputs = 2, scan_input_axes = [0, 1], body = step
        (float[3] v, float[3] at, float[3] bt) => (float[3] w)
      {{ u = Add(v, at)  w = Mul(u, bt) }}>
    }}"""
    assert trip_count(iteration_of(loop_in(parsed(text.format(size="U"))))) == "T"
    assert trip_count(iteration_of(loop_in(parsed(text.format(size=6))))) == 6


def test_shapes_that_a_loop_keeps_are_known_after_it() -> None:
    model = counted()
    assert shape_of(model.graph.outputs[0]) != ("batch", 3)
    infer_with_loops(model, infer)
    iteration = iteration_of(loop_in(model))
    assert [shape_of(s.final) for s in iteration.states] == [(), ("batch", 3)]
    assert shape_of(iteration.states[1].entering) == ("batch", 3)


def test_sizes_that_a_step_changes_stay_open() -> None:
    model = parsed(
        """(float[1, 2] s0, float[n, 2] t0, float[n, 2] q) => (float[a, b] s, float[c, 2] t) {
          m = Constant<value_int = 3>()
          s, t, y = Loop(m, , s0, t0) <body = step
            (int64 i, bool g, float[d, 2] v, float[e, 2] u)
            => (bool g2, float[f, 2] w, float[h, 2] u2, float[k, 2] y1)
          {
            w = Concat<axis = 0>(v, v)
            u2 = Add(u, q)
            y1 = Mul(u2, u2)
            g2 = Identity(g)
          }>
        }"""
    )
    infer_with_loops(model, infer)
    iteration = iteration_of(loop_in(model))
    assert shape_of(iteration.states[0].final)[0] not in (1, 2)
    assert shape_of(iteration.states[1].final) == ("n", 2)
    assert shape_of(iteration.scan_outputs[0].stacked) == (3, "n", 2)


TWINS = """(float[2, 3] x, float[3] q) => (float[3] a, float[3] b) {{
  m = Constant<value_int = 2>()
  shape = Constant<value_ints = [3]>()
  a0 = ConstantOfShape(shape)
  zero = Constant<value = float {{0.0}}>()
  b0 = {b0}
  a, b = Loop(m, , a0, b0) <body = step
    (int64 i, bool c, float[3] v, float[3] w) => (bool c2, float[3] v2, float[3] w2)
  {{
    xt = Gather(x, i)
    half1 = Constant<value = float {{0.5}}>()
    half2 = Constant<value = float {{{factor}}}>()
    old1 = Mul(v, half1)
    old2 = {old}
    v2 = Add(old1, xt)
    w2 = Add(old2, xt)
    c2 = Identity(c)
  }}>
}}"""


@pytest.mark.parametrize(
    ("b0", "factor", "old", "same"),
    [
        ("Expand(zero, shape)", 0.5, "Mul(w, half2)", True),
        ("Identity(a0)", 0.5, "Mul(w, half2)", True),
        ("Identity(q)", 0.5, "Mul(w, half2)", False),
        ("Expand(zero, shape)", 0.25, "Mul(w, half2)", False),
        ("Expand(zero, shape)", 0.5, "Mul(half2, w)", False),
        ("Expand(zero, shape)", 0.5, "Div(w, half2)", False),
        ("Expand(zero, shape)", 0.5, "Mul(xt, half2)", False),
    ],
)
def test_states_that_carry_the_same(b0: str, factor: float, old: str, same: bool) -> None:
    model = parsed(TWINS.format(b0=b0, factor=factor, old=old))
    infer_with_loops(model, infer)
    a, b = iteration_of(loop_in(model)).states
    assert carry_the_same(a, b) is same
    assert carry_the_same(b, a) is same
    assert carry_the_same(a, a)
