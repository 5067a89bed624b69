"""Shapes that any runtime finds for itself."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from probegen.graph.passes.after.drop_plain_shapes import drop_plain_shapes
from tests.graph.passes.harness import IMAGES, changed, parsed, weight


def noted(model: ir.Model) -> set[str]:
    proto = ir.to_proto(model)
    return {v.name for v in proto.graph.value_info} - set(model.graph.initializers)


def test_they_are_left_out_of_the_file() -> None:
    model = parsed(
        "c = Conv(x, w) r = Reshape(c, flat) a = Relu(r) y = Sin(a)",
        w=weight(16, 16, 1, 1),
        flat=np.array([-1, 480]),
    )
    assert noted(model) == {"c", "r", "a"}
    changed(model, drop_plain_shapes)
    assert noted(model) == {"r"}
    assert model.graph.outputs[0].shape is not None


def test_branches_lose_theirs_and_bodies_of_loops_do_not() -> None:
    model = parsed(
        """go = Constant<value_int = 2>()
        a = If (on) <
          then_branch = yes () => (float[batch, 16, 6, 5] t) { s = Exp(x) t = Sin(s) },
          else_branch = no () => (float[batch, 16, 6, 5] e) { e = Exp(x) }>
        y = Loop(go, on, a) <body = step
          (int64 i, bool c, float[batch, 16, 6, 5] v) => (bool c2, float[batch, 16, 6, 5] w)
          { u = Tanh(v) w = Sin(u) c2 = Identity(c) }>""",
        inputs=f"{IMAGES}, bool on",
    )
    values = {v.name: v for n in model.graph.all_nodes() for v in n.outputs}
    assert values["s"].shape is not None
    assert values["u"].shape is not None
    changed(model, drop_plain_shapes)
    assert values["s"].shape is None
    assert values["u"].shape is not None
    assert values["t"].shape is not None
