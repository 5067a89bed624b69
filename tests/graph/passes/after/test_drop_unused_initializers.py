"""Constants that nothing reads."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from probegen.graph.passes.after.drop_unused_initializers import drop_unused_initializers
from tests.graph.passes.harness import onnxruntime_of

TEXT = """<ir_version: 9, opset_import: ["" : 18]>
g (float[b, 3] x, bool on, float[3] given) => (float[b, 3] y, float[3] out)
<float[3] read = {1, 2, 3}, float[3] unread = {4, 5, 6}, float[3] given = {7, 8, 9},
 float[3] out = {1, 1, 1}>
{
  y = If (on) <
    then_branch = yes () => (float[b, 3] t) <float[3] inner = {1, 0, 1}, float[3] lost = {2, 2, 2}>
      { t = Mul(x, inner) },
    else_branch = no () => (float[b, 3] e) { e = Mul(x, read) }
  >
}"""


def test_what_nothing_reads_goes_and_inputs_and_outputs_stay() -> None:
    model = ir.from_proto(onnx.parser.parse_model(TEXT))
    drop_unused_initializers(model)
    held = {g.name: set(g.initializers) for g in (model.graph, *model.graph.subgraphs())}
    assert held["g"] == {"read", "given", "out"}
    assert held["yes"] == {"inner"}
    assert onnxruntime_of(model)
