"""Rules of operators that are differentiated through simpler ones.

Such a rule says what an operator computes, in operators that have rules of their own; the walk
differentiates that. What of it the gradient reads is computed once more in the backward pass,
which costs about as much as the operator itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from probegen.graph.autodiff import Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import inputs_of
from probegen.graph.loops.hoist import needed
from probegen.graph.vjp.common import Dys, Gradients

#: Writes a node's outputs once more; those that have no gradient may be None.
Forward = Callable[[Builder, ir.Node], Sequence[ir.Value | None]]


def decomposed(forward: Forward) -> Rule:
    """Returns the rule of an operator that `forward` writes in simpler ones."""

    def rule(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
        yield from through(walk, node, dy, forward)

    return rule


def through(walk: Walk, node: ir.Node, dy: Dys, forward: Forward) -> Gradients:
    """Yields the gradients of a node's inputs, through what `forward` writes.

    Raises:
        UnsupportedOpsError: a simpler operator has no gradient here.
    """
    b = walk.builder
    name = b.fresh(node.op_type)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": b.opset}, name=name)
    writer = Builder(graph, b.opset, prefix=name)
    outputs = forward(writer, node)
    pairs = zip(outputs, dy, strict=False)
    seeds = {y: g for y, g in pairs if y is not None and g is not None}
    writer.attach()
    wanted = [x for x in dict.fromkeys(inputs_of(node)) if x in walk.wanted]
    found = walk.inside(writer, seeds, wanted)
    written = list(graph)
    graph.remove(written)
    results = [gradient for gradient in found if gradient is not None]
    nodes, _ = needed([*written, *writer.nodes], results)
    b.nodes.extend(nodes)
    for constant in list(graph.initializers.values()):
        graph.initializers.pop(str(constant.name))
        b.graph.register_initializer(constant)
    for x, gradient in zip(wanted, found, strict=True):
        if gradient is not None:
            yield x, gradient
