"""The tables of rules: what a backward pass is made of, by the name of the method's table.

One table a file; `TABLES` lists them. `None` stands for gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from probegen.graph.tables.base import BackwardPass, Rules
from probegen.graph.tables.own_products import own_products
from probegen.graph.tables.rectifiers import deconvolved, guided
from probegen.graph.tables.relevance import Propagation
from probegen.graph.tables.rescale import Rescale
from probegen.graph.vjp import RULES
from probegen.methods.tables import (
    DeconvolvedRectifiers,
    GuidedRectifiers,
    OwnProducts,
    Relevance,
    RescaledDifferences,
    Table,
)

#: Name of a table -> makes its backward pass.
TABLES: Mapping[str, Callable[[Any], BackwardPass]] = {
    OwnProducts.name: lambda table: Rules(own_products(table)),
    GuidedRectifiers.name: lambda _: Rules(guided()),
    DeconvolvedRectifiers.name: lambda _: Rules(deconvolved()),
    Relevance.name: Propagation,
    RescaledDifferences.name: lambda table: Rescale(table.baseline),
}


def backward_pass(table: Table | None) -> BackwardPass:
    """Returns how a table's backward pass is written; that of gradients for None."""
    return Rules(RULES) if table is None else TABLES[table.name](table)
