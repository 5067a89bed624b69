"""Writes the composite operator Gelu out in operators of ONNX."""

from __future__ import annotations

import math

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.composite_ops import COMPOSITE_DOMAIN, GELU, GELU_C, GELU_CUBIC

_ROOT_HALF = math.sqrt(0.5)


def write_gelu(model: ir.Model) -> None:
    """Writes each composite Gelu as ONNX operators, in subgraphs too.

    `probegen.composite.Gelu(x)` -> `Mul(x, HardSigmoid<0.5, 0.5>(Erf(Mul(x, 0.7071))))`

    The way from erf or tanh to P is one HardSigmoid, which passes over a tensor once, and is
    exact: P lies within its bounds. It is there for 32-bit floats only.
    """
    graph = model.graph
    builders: dict[ir.Graph, Builder] = {}
    opset = graph.opset_imports.get("", 0)
    for node in list(graph.all_nodes()):
        owner = node.graph
        if node.domain != COMPOSITE_DOMAIN or node.op_type != GELU:
            continue
        if not isinstance(owner, ir.Graph):
            raise TypeError(f"{node.name!r} belongs to no graph")
        if owner not in builders:
            builders[owner] = Builder(owner, opset, prefix=f"gelu_{len(builders)}")
        b = builders[owner]
        b.replace(node, _write(b, node)[: len(node.outputs)])
    graph.opset_imports.pop(COMPOSITE_DOMAIN, None)


def _write(b: Builder, node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Writes x * P, P, and the argument of erf or tanh."""
    x = node.inputs[0]
    if x is None:
        raise ValueError(f"{node.name!r} has no input")
    if node.attributes["approximate"].as_string() == "tanh":
        cubic = b.add(b.mul(b.mul(x, x), GELU_C * GELU_CUBIC), GELU_C)
        u = b.mul(x, cubic)
        curve = b.elementwise("Tanh", u)
    else:
        u = b.mul(x, _ROOT_HALF)
        curve = b.elementwise("Erf", u)
    if x.dtype == ir.DataType.FLOAT:
        p = b.op("HardSigmoid", curve, shape=curve, alpha=0.5, beta=0.5)
    else:
        p = b.mul(b.add(curve, 1.0), 0.5)
    return b.mul(x, p), p, u
