"""Unused nodes, opsets, order, names."""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.passes.tidy import (
    make_names_unique,
    remove_unused_nodes,
    remove_unused_opsets,
    sort_topologically,
)
from tests.graph.passes.harness import IMAGES, changed, node_of, operators, parsed, weight


def test_what_nothing_needs_goes() -> None:
    model = parsed("a = Exp(x) b = Sin(a) y = Relu(x)")
    assert changed(model, remove_unused_nodes) == ["Relu"]


def test_what_only_a_body_that_goes_reads_goes_with_it() -> None:
    """Otherwise a part of a graph that predicts reads inputs that only explanations have."""
    model = parsed(
        """a = Exp(x) b = Neg(a)
        c = If (on) <
          then_branch = yes () => (float[batch, 16, 6, 5] d) { d = Relu(b) },
          else_branch = no () => (float[batch, 16, 6, 5] e) {
            e = If (on) <
              then_branch = inner () => (float[batch, 16, 6, 5] f) { f = Sin(a) },
              else_branch = other () => (float[batch, 16, 6, 5] g) { g = Cos(a) }
            >
          }
        >
        y = Relu(x)""",
        inputs=f"{IMAGES}, bool on",
    )
    assert changed(model, remove_unused_nodes) == ["Relu"]


def test_opsets_of_no_node_go() -> None:
    model = parsed("y = Relu(x)")
    assert set(model.graph.opset_imports) == {"", "probegen"}
    remove_unused_opsets(model)
    assert set(model.graph.opset_imports) == {""}


def test_nodes_come_behind_what_they_read() -> None:
    model = parsed("a = Exp(x) y = Relu(a)")
    first = node_of(model, "a")
    model.graph.remove(first)
    model.graph.append(first)
    assert operators(model) == ["Relu", "Exp"]
    sort_topologically(model)
    assert operators(model) == ["Exp", "Relu"]


def test_names_that_stand_twice_get_a_number() -> None:
    model = parsed(
        """a = Mul(x, w)
        y = If (on) <
          then_branch = yes () => (float[batch, 16, 6, 5] b) { b = Relu(a) },
          else_branch = no () => (float[batch, 16, 6, 5] c) { d = Exp(a) c = Neg(d) }
        >""",
        inputs=f"{IMAGES}, bool on",
        w=weight(5),
    )

    def change(_: ir.Model) -> None:
        node_of(model, "a").outputs[0].name = "w"  # as the weight
        inside = {n.op_type: n for n in model.graph.all_nodes()}
        inside["Exp"].outputs[0].name = "x"  # as an input of the graph around
        make_names_unique(model)

    changed(model, change)
    names = [v.name for n in model.graph.all_nodes() for v in n.outputs]
    assert names == ["w_1", "y", "b", "x_1", "c"]
    assert list(model.graph.initializers) == ["w"]


def test_outputs_that_a_node_leaves_out_stay_so() -> None:
    model = parsed("y = MaxPool<kernel_shape=[2, 2]>(x)")
    pool = node_of(model, "y")
    pool.resize_outputs(2)
    pool.outputs[1].name = ""
    make_names_unique(model)
    assert [v.name for v in pool.outputs] == ["y", ""]
