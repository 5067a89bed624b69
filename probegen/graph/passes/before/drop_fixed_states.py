"""Loops read from outside what no step changes.

tf2onnx hands weights from step to step. A session then copies each at each step, and cannot prepare
it once; OpenVINO refuses a Loop whose body hands an input on as an output.
"""

from __future__ import annotations

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.replacing import replace_node, replace_value
from probegen.graph.loops.iteration import State, iteration_of

#: Positions of a Loop's states behind the number of steps and the condition.
_STATES = 2


def drop_fixed_states(model: ir.Model) -> None:
    """Takes out of Loops the states that no step changes; their bodies read them from outside.

    `Loop(n, go, s, w)` whose body returns w as it is -> `Loop(n, go, s)` whose body reads w
    """
    opset = model.graph.opset_imports.get("", 0)
    for node in list(model.graph.all_nodes()):
        if node.op_type == "Loop" and not node.domain:
            _drop(node, opset)


def _drop(node: ir.Node, opset: int) -> None:
    iteration = iteration_of(node)
    body = iteration.body
    fixed: dict[ir.Value, State] = {s.entering: s for s in iteration.states if s.fixed}
    if not fixed or node.graph is None:
        return
    count = len(body.inputs) - _STATES
    changing = [i for i in range(count) if body.inputs[_STATES + i] not in fixed]
    inputs = [*node.inputs[:_STATES], *(node.inputs[_STATES + i] for i in changing)]
    outputs = [*(node.outputs[i] for i in changing), *node.outputs[count:]]
    results = [body.outputs[i] for i in (0, *(1 + i for i in changing))]
    results += body.outputs[1 + count :]
    body.outputs.clear()
    for state in fixed.values():
        state.entering.replace_all_uses_with(state.initial)
        replace_value(state.final, state.initial)
    body.inputs[:] = [v for v in body.inputs if v not in fixed]
    inside = Builder(body, opset, prefix=f"{node.name}/fixed")
    made = {*body.inputs, *(v for n in body for v in n.outputs)}
    for value in results:
        source = fixed[value].initial if value in fixed else value
        body.outputs.append(value if value in made else inside.op("Identity", source, shape=value))
    inside.attach()
    if outputs:
        replace_node(node, inputs, outputs)
    else:  # nothing is left that a step computes
        node.graph.remove(node, safe=True)
