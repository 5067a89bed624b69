"""Gradients with products of a method's own for some operators."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from probegen.graph.array_operations import OnnxOperations
from probegen.graph.autodiff import Rule
from probegen.graph.vjp import RULES
from probegen.graph.vjp.common import Local, unary
from probegen.methods.tables import OwnProducts, Product


def own_products(table: OwnProducts) -> Mapping[str, Rule]:
    """Returns the gradients' rules, with those of a method in their places."""
    return {**RULES, **{operator: _rule(product) for operator, product in table.products}}


def _rule(product: Product) -> Rule:
    """Returns the rule of the walk that a method's own product makes."""

    def derivative(local: Local) -> ir.Value:
        found: ir.Value = product(OnnxOperations(local.b), local.x, local.y, local.g)
        return found

    return unary(derivative)
