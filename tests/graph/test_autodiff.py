"""The reverse walk: what it passes, what it adds up, what it refuses and what it says then."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from probegen.errors import Refusal, UnsupportedOpsError
from probegen.graph.autodiff import Refused, gradients, nodes_between, obstacles
from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import captured_values
from probegen.graph.core.values import UnknownShapeError
from probegen.graph.vjp import BLOCKING, RULES
from tests.graph.vjp.harness import (
    differentiate,
    finish,
    finite_differences,
    named_values,
    run,
    runner,
    uniform,
)


def model_of(text, opset=18):
    """Returns the model of one graph in ONNX's text form."""
    return finish(onnx.parser.parse_graph(text), opset)


def graph_of(text):
    return ir.from_proto(model_of(text)).graph


def check(text, wrt, of=("y",), **inputs):
    """Holds the gradients of a float64 model against finite differences; returns the model."""
    model = model_of(text)
    feeds = inputs or {"x": uniform(2, 3)}
    outputs = run(model, feeds)
    dys = {name: uniform(*outputs[name].shape, low=0.5, seed=5) for name in of}
    made = differentiate(model, wrt, of)
    found = run(made.model, feeds | {f"dy/{name}": dy for name, dy in dys.items()})
    expected = finite_differences(runner(model), feeds, dys, wrt)
    for name, gradient in zip(wrt, expected, strict=True):
        np.testing.assert_allclose(found[f"d/{name}"], gradient, rtol=1e-6, atol=1e-8)
    return made


# -- what is added up ------------------------------------------------------------------------


def test_a_chain():
    made = check("g (double[n,3] x) => (double[n,3] y) { a = Sin(x) y = Exp(a) }", ["x"])
    assert made.written == ["Mul", "Cos", "Mul"]


def test_a_value_used_twice_gets_the_sum():
    made = check(
        "g (double[n,3] x) => (double[n,3] y) { a = Sin(x) b = Cos(x) y = Mul(a, b) }", ["x"]
    )
    assert made.written.count("Add") == 1


def test_a_diamond_is_walked_once():
    made = check(
        """g (double[n,3] x) => (double[n,3] y) {
            s = Sin(x) a = Exp(s) b = Neg(s) y = Add(a, b)
        }""",
        ["x"],
    )
    assert made.written.count("Cos") == 1


def test_one_value_in_both_places():
    check("g (double[n,3] x) => (double[n,3] y) { y = Mul(x, x) }", ["x"])
    check("g (double[n,3] x) => (double[n,3] y) { y = Sub(x, x) }", ["x"])


def test_nothing_comes_from_what_has_no_elements():
    """onnxruntime pads a tensor without elements with whatever lies in memory."""
    made = check(
        """g (double[n,1] x) => (double[n] y) {
            one = Constant<value_ints = [1]>() end = Constant<value_ints = [9]>()
            a = Slice(x, one, end, one) b = Exp(a) s = ReduceSum<keepdims = 0>(b, one)
            t = Squeeze(x, one) c = Sin(t) y = Add(s, c)
        }""",
        ["x"],
        x=uniform(2, 1),
    )
    assert "Pad" not in made.written


def test_two_sources():
    check(
        "g (double[n,3] x, double[3] w) => (double[n,3] y) { a = Mul(x, w) y = Sin(a) }",
        ["x", "w"],
        x=uniform(2, 3),
        w=uniform(3, seed=1),
    )


def test_a_source_on_the_way_of_another():
    text = "g (double[n,3] x) => (double[n,3] y, double[n,3] a) { a = Sin(x) y = Exp(a) }"
    made = differentiate(model_of(text), ["x", "a"], ["y"])
    x, dy = uniform(2, 3), uniform(2, 3, seed=1)
    found = run(made.model, {"x": x, "dy/y": dy})
    np.testing.assert_allclose(found["d/a"], dy * np.exp(np.sin(x)))
    np.testing.assert_allclose(found["d/x"], dy * np.exp(np.sin(x)) * np.cos(x))


def test_two_seeds_of_which_one_lies_on_the_way_of_the_other():
    check(
        "g (double[n,3] x) => (double[n,3] a, double[n,3] y) { a = Sin(x) y = Exp(a) }",
        ["x"],
        of=("a", "y"),
    )


def test_the_gradient_of_a_seed_is_the_seed():
    text = "g (double[n,3] x) => (double[n,3] y) { y = Sin(x) }"
    made = differentiate(model_of(text), ["y"], ["y"])
    assert made.written == []
    dy = uniform(2, 3)
    np.testing.assert_array_equal(run(made.model, {"x": dy, "dy/y": dy})["d/y"], dy)


def test_float_types_may_change_on_the_way():
    text = """g (double[n,3] x) => (double[n,3] y) {
        a = Cast<to = 1>(x) b = Sin(a) c = Cast<to = 11>(b) y = Mul(c, x)
    }"""
    made = differentiate(model_of(text), ["x"], ["y"])
    x, dy = uniform(2, 3), uniform(2, 3, seed=1)
    found = run(made.model, {"x": x, "dy/y": dy})["d/x"]
    np.testing.assert_allclose(found, dy * (np.cos(x) * x + np.sin(x)), rtol=1e-5)
    assert found.dtype == np.float64


# -- what is not passed ----------------------------------------------------------------------


def test_only_what_leads_to_a_source_is_walked():
    made = check(
        """g (double[n,3] x, double[n,3] z) => (double[n,3] y) {
            a = Sin(x) b = Tan(z) c = Tanh(b) y = Mul(a, c)
        }""",
        ["x"],
        x=uniform(2, 3),
        z=uniform(2, 3, low=-1, high=1),
    )
    assert made.written == ["Mul", "Cos", "Mul"]


BLOCKED = "g (double[n,3] x) => (double[n,3] y) { a = Sin(x) s = Sign(a) y = Neg(s) }"


def test_a_blocked_way_gives_none():
    made = differentiate(model_of(BLOCKED), ["x"], ["y"])
    assert made.missing == ["x"]
    assert made.written == []


def test_a_way_around_what_blocks_is_taken():
    text = "g (double[n,3] x) => (double[n,3] y) { s = Sign(x) y = Mul(s, x) }"
    made = differentiate(model_of(text), ["x"], ["y"])
    assert made.written == ["Mul"]


def test_integers_carry_no_gradient():
    text = """g (double[n,3] x) => (double[n,3] y) {
        i = Cast<to = 7>(x) y = Cast<to = 11>(i)
    }"""
    assert differentiate(model_of(text), ["x"], ["y"]).missing == ["x"]


def test_an_operator_without_a_rule_off_the_way_is_no_obstacle():
    text = """g (double[2,2] x, double[2,2] z) => (double[2,2] y) { d = Det(z) y = Mul(x, d) }"""
    assert differentiate(model_of(text), ["x"], ["y"]).written == ["Mul"]


def test_stop_gradient_is_not_passed():
    graph = graph_of("g (double[n,3] x) => (double[n,3] y) { a = Sin(x) y = Neg(a) }")
    values = named_values(graph)
    stop = ir.node("StopGradient", [values["a"]], domain="probegen", name="stop")
    stop.outputs[0].dtype = ir.DataType.DOUBLE
    graph.insert_before(values["y"].producer(), stop)
    values["y"].producer().replace_input_with(0, stop.outputs[0])
    seed = ir.Value(name="dy")
    found = gradients(Builder(graph, 18), {values["y"]: seed}, [values["x"]], RULES, BLOCKING)
    assert found == [None]
    stopped = obstacles(graph, [values["x"]], [values["y"]], BLOCKING)
    assert [(o.op_type, o.nodes) for o in stopped] == [("probegen::StopGradient", ("stop",))]
    assert stopped[0].reason == "the model stops the gradient here"


# -- what stands in the way, and what is said --------------------------------------------------


def _obstacles(text):
    graph = graph_of(text)
    values = named_values(graph)
    return [o.op_type for o in obstacles(graph, [values["x"]], [values["y"]], BLOCKING)]


def test_obstacles_are_named_in_order():
    text = """g (double[n,3] x) => (double[n,3] y) {
        a = Floor(x) b = Sin(a) c = Cast<to = 7>(b) y = Cast<to = 11>(c)
    }"""
    assert _obstacles(text) == ["Floor", "Cast"]


def test_obstacles_off_the_way_are_not_named():
    text = """g (double[n,3] x, double[n,3] z) => (double[n,3] y) {
        a = Sign(z) b = Ceil(x) y = Add(a, b)
    }"""
    assert _obstacles(text) == ["Ceil"]


def test_obstacles_behind_the_target_are_not_named():
    text = """g (double[n,3] x) => (double[n,3] y, double[n,3] other) {
        a = Floor(x) b = Sin(a) y = Neg(b) side = Ceil(b) other = Sign(side)
    }"""
    assert _obstacles(text) == ["Floor"]


def test_where_nothing_depends_there_is_no_obstacle():
    text = "g (double[n,3] x, double[n,3] z) => (double[n,3] y) { y = Sign(z) }"
    assert _obstacles(text) == []


def _refusals(text, rules=RULES, wrt="x"):
    with pytest.raises(UnsupportedOpsError) as caught:
        differentiate(model_of(text), [wrt], ["y"], rules=rules)
    return caught.value


LONG = """g (double[n,3] x) => (double[n,3] y) {
    a = Sin(x) b = Cos(a) c = Sin(b) d = Exp(c) y = Tan(d)
}"""


def test_all_operators_without_a_rule_are_listed_in_one_error():
    error = _refusals(LONG, rules={"Exp": RULES["Exp"]})
    assert {r.op_type for r in error.refusals} == {"Sin", "Cos", "Tan"}
    for op in ("Sin", "Cos", "Tan"):
        assert f"  {op}: no gradient rule (at " in str(error)
    assert "Exp" not in str(error).split("\n", 1)[1]


def test_the_nodes_of_one_operator_are_listed_together():
    error = _refusals(LONG, rules={})
    sines = next(r for r in error.refusals if r.op_type == "Sin")
    assert isinstance(sines, Refusal)
    assert len(sines.nodes) == 2


def test_the_reasons_of_rules_are_in_the_error():
    def refuse(*_):
        raise Refused("not on a Tuesday")

    error = _refusals(LONG, rules={**RULES, "Exp": refuse, "Cos": refuse})
    assert "  Exp: not on a Tuesday (at " in str(error)
    assert "  Cos: not on a Tuesday (at " in str(error)


def test_what_lies_below_a_refused_operator_is_listed_too():
    def refuse(*_):
        raise Refused("never")

    rules = {"Tan": refuse, **{op: RULES[op] for op in ("Exp", "Sin")}}
    error = _refusals(LONG, rules=rules)
    assert [(r.op_type, r.reason) for r in error.refusals] == [
        ("Cos", "no gradient rule"),
        ("Tan", "never"),
    ]


def test_an_unknown_shape_is_a_refusal():
    def unknown(*_):
        raise UnknownShapeError("the rank of 'z' is unknown")

    error = _refusals(LONG, rules={**RULES, "Cos": unknown})
    assert "  Cos: the rank of 'z' is unknown (at " in str(error)


def test_an_unknown_shape_is_no_news_beside_an_operator_without_a_rule():
    def unknown(*_):
        raise UnknownShapeError("the rank of 'z' is unknown")

    error = _refusals(LONG, rules={"Tan": RULES["Tan"], "Sin": RULES["Sin"], "Cos": unknown})
    assert [r.op_type for r in error.refusals] == ["Exp"]


def test_an_operator_of_another_domain_is_named_with_it():
    graph = graph_of("g (double[n,3] x) => (double[n,3] y) { y = Sin(x) }")
    values = named_values(graph)
    values["y"].producer().domain = "com.example"
    with pytest.raises(UnsupportedOpsError, match=r"com\.example::Sin: no gradient rule"):
        gradients(Builder(graph, 18), {values["y"]: ir.Value(name="dy")}, [values["x"]], RULES, ())


# -- subgraphs -------------------------------------------------------------------------------

CAPTURING = """g (bool c, double[n,3] x, double[n,3] z) => (double[n,3] y) {
    a = Sin(x)
    y = If(c) <
        then_branch = t () => (double[n,3] u) { p = Neg(a) u = Mul(p, z) },
        else_branch = e () => (double[n,3] v) { v = Identity(z) }
    >
}"""


def test_what_a_subgraph_reads_from_outside():
    graph = graph_of(CAPTURING)
    node = next(n for n in graph if n.op_type == "If")
    then_branch = node.attributes["then_branch"].as_graph()
    assert [v.name for v in captured_values(then_branch)] == ["a", "z"]


def test_a_way_through_a_subgraph_is_a_way():
    graph = graph_of(CAPTURING)
    values = named_values(graph)
    path = nodes_between(graph, [values["x"]], [values["y"]], BLOCKING)
    assert [node.op_type for node in path] == ["Sin", "If"]
