"""The vector-Jacobian product of a graph, as part of the graph."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from probegen.errors import NotDifferentiableError
from probegen.graph.autodiff import gradients, obstacles
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import shape_of
from probegen.graph.vjp import BLOCKING, RULES

COTANGENT, GRADIENT = "cotangent", "gradient"


def write_vector_jacobian_product(
    graph: ir.Graph,
    opset: int,
    of: Mapping[str, ir.Value],
    wrt: Mapping[str, ir.Value],
) -> dict[str, ir.Value]:
    """Gives a graph the inputs `cotangent/<name>`, and writes the gradients into it.

    Args:
        graph: changed; its outputs are for the caller to set.
        opset: operator set of the graph.
        of: name -> a value that is differentiated.
        wrt: name -> a value by which.

    Returns:
        Name of `wrt` -> the gradient: the sum over `of` of the products of each cotangent with
        the Jacobian.

    Raises:
        UnsupportedOpsError: an operator on the way has no gradient; lists each.
        NotDifferentiableError: no gradient flows to one of `wrt`.
    """
    builder = Builder(graph, opset)
    seeds = {}
    for name, value in of.items():
        shape = shape_of(value)
        cotangent = ir.Value(
            name=f"{COTANGENT}/{name}",
            type=value.type,
            shape=None if shape is None else ir.Shape(list(shape)),
        )
        graph.inputs.append(cotangent)
        seeds[value] = cotangent
    found = gradients(builder, seeds, list(wrt.values()), RULES, BLOCKING)
    builder.attach()
    results = {}
    for (name, value), gradient in zip(wrt.items(), found, strict=True):
        if gradient is None:
            stopped = obstacles(graph, [value], list(of.values()), BLOCKING)
            raise NotDifferentiableError(
                f"no gradient flows from {', '.join(map(repr, of))} to {name!r}.", stopped
            )
        results[name] = gradient
    return results
