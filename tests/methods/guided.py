"""A throw-away method with a product of its own: rectifiers let only positive gradients pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from probegen.methods.base import OfInputs, Selector
from probegen.methods.operations import Operations
from probegen.methods.tables import Product
from probegen.methods.targets import Target


def positive_both_ways(ops: Operations[Any], x: Any, y: Any, gradient: Any) -> Any:
    """The gradient where it and the rectifier's input are positive, else 0."""
    del y
    return ops.where(ops.greater(x, 0.0), ops.relu(gradient), 0.0)


@dataclasses.dataclass(frozen=True)
class Guided(OfInputs):
    """The gradient through rectifiers that are positive both ways."""

    kind: ClassVar[str] = "guided"
    title: ClassVar[str] = "Guided"
    help: ClassVar[str] = "Gradient through rectifiers that are positive both ways."
    unit: ClassVar[str] = "score per unit of input"
    equation: ClassVar[str] = "d target / d input with another product for Relu"
    paper: ClassVar[str] = "Nobody 2026, eq. 8"
    products: ClassVar[Mapping[str, Product]] = {"Relu": positive_both_ways}

    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None
