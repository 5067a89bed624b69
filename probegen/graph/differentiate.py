"""The vector-Jacobian product of a graph, as part of the graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from probegen.errors import NotDifferentiableError
from probegen.graph.assemble import finish, name_outputs, prepared
from probegen.graph.autodiff import gradients, obstacles
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import shape_of
from probegen.graph.forward import ForwardGraph
from probegen.graph.passes.after.drop_plain_shapes import drop_plain_shapes
from probegen.graph.vjp import BLOCKING, RULES
from probegen.plan.plan import Plan, TensorRef

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


def differentiated(
    plan: Plan, forward: ForwardGraph, of: Sequence[str], wrt: Mapping[str, TensorRef]
) -> ir.Model:
    """Returns a model that gives its own outputs, and vector-Jacobian products.

    Args:
        plan: has a group for each of `of`, whose scores are differentiated.
        forward: the forward graph of that plan; it becomes the model.
        of: what the cotangents are called after.
        wrt: name -> a tensor of the plan.

    Raises:
        UnsupportedOpsError, NotDifferentiableError: see `write_vector_jacobian_product`.
        ExportError: names collide.
    """
    prepared(plan, forward, None)
    sources = {name: forward.sources[ref] for name, ref in wrt.items()}
    found = write_vector_jacobian_product(
        forward.graph, forward.opset, dict(zip(of, forward.targets, strict=True)), sources
    )
    finish(forward.model, forward.predictions, list(found.values()), False)
    names = [o.name for o in plan.manifest.predictions]
    name_outputs(forward.graph, [*names, *(f"{GRADIENT}/{name}" for name in found)])
    drop_plain_shapes(forward.model)
    forward.graph.name = plan.manifest.model.get("name", "model")
    return forward.model
