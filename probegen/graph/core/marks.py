"""Marks in a forward graph: identities of our own domain that say something to the walk.

`Mark` is a tensor that gradients are taken at, or a mask, which paths hold; `StopGradient` is one
that gradients do not pass. `StraightThrough(y, x, scale)` is y, and passes gradients on to x: y
is x rounded to whole steps of that scale. All are taken out before the graph is finished.
"""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.replacing import replace_value

MARK_DOMAIN = "probegen"
MARK = "Mark"
STOP_GRADIENT = "StopGradient"
STRAIGHT_THROUGH = "StraightThrough"
#: In the names of marks that masks pass.
MASK_NAME = "probegen_mask"
#: Key in the metadata that nodes carry in memory: all gradients of the node's first output add up
#: to 0 along its last axis, by the way it is read.
CENTRED = "probegen.centred"


def remove_marks(model: ir.Model) -> None:
    """Replaces every mark by what it marks, in all subgraphs too.

    `Relu(probegen.Mark(x))` -> `Relu(x)`
    """
    for node in list(model.graph.all_nodes()):
        if node.domain != MARK_DOMAIN:
            continue
        marked, result = node.inputs[0], node.outputs[0]
        if marked is None or node.graph is None:
            continue
        replace_value(result, marked)
        node.graph.remove(node, safe=True)
    model.graph.opset_imports.pop(MARK_DOMAIN, None)
