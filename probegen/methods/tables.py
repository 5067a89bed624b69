"""What a backward pass is made of where that is not gradients: one class a table of rules.

A method's `table` returns one of these, or None for gradients. It holds names and numbers alone;
the rules themselves stand in `probegen.graph.tables`, an independent computation of them that
artefacts are verified against in `probegen.parity.witness`. Methods with equal tables share a
backward pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from probegen.methods.baselines import Baseline
from probegen.methods.operations import Operations

#: What takes the place of the vector-Jacobian product of an operator with one input:
#: (array operations, the operator's input, its output, the gradient of that) -> the gradient of
#: the input.
Product = Callable[[Operations[Any], Any, Any, Any], Any]


@dataclasses.dataclass(frozen=True)
class Table:
    """Base of all tables.

    Attributes:
        name: what the table goes by.
        what: what it is, to follow "pg.SomeMethod ": says why no gradient can stand in for it.
        from_baseline: whether what arrives at tensors depends on a baseline of theirs, so that
            those that stand for inputs belong together.
        by_layers: whether it matters which layers there are, so that they must not be merged or
            exchanged with one another before the walk.
        keeps_loops: whether loops of Keras' recurrent layers stay loops where they are over a fixed
            length and could be written step by step.
        gives_slopes: whether what arrives at a tensor is a slope, so that it may be averaged over
            points as a gradient is.
    """

    name: ClassVar[str] = ""
    what: ClassVar[str] = ""
    from_baseline: ClassVar[bool] = False
    by_layers: ClassVar[bool] = False
    keeps_loops: ClassVar[bool] = True
    gives_slopes: ClassVar[bool] = True

    def described(self) -> str:
        """Returns `what`, with more where a table has parameters."""
        return self.what


@dataclasses.dataclass(frozen=True)
class OwnProducts(Table):
    """Gradients, but for operators whose product a method brings along.

    Attributes:
        products: operator and product.
    """

    name: ClassVar[str] = "own_products"

    products: frozenset[tuple[str, Product]]

    def described(self) -> str:
        """Returns which operators have a product of their own."""
        operators = ", ".join(sorted(operator for operator, _ in self.products))
        return f"has its own gradient of {operators}"


@dataclasses.dataclass(frozen=True)
class GuidedRectifiers(Table):
    """Gradients, but rectifiers let positive gradients pass alone (Springenberg et al. 2014)."""

    name: ClassVar[str] = "guided_rectifiers"
    what: ClassVar[str] = "has its own gradient of rectifiers"


@dataclasses.dataclass(frozen=True)
class DeconvolvedRectifiers(Table):
    """Gradients, but rectifiers rectify the gradient in their place (Zeiler and Fergus 2014)."""

    name: ClassVar[str] = "deconvolved_rectifiers"
    what: ClassVar[str] = "has its own gradient of rectifiers"


@dataclasses.dataclass(frozen=True)
class RescaledDifferences(Table):
    """Differences from a reference in the place of slopes (Shrikumar et al. 2017).

    Attributes:
        baseline: what the explained tensors are in the reference; several are averaged over.
    """

    name: ClassVar[str] = "rescaled_differences"
    what: ClassVar[str] = "takes differences from a baseline in the place of gradients"
    from_baseline: ClassVar[bool] = True
    keeps_loops: ClassVar[bool] = False
    gives_slopes: ClassVar[bool] = False

    baseline: Baseline = 0.0


@dataclasses.dataclass(frozen=True)
class LayerRule:
    """How a layer with weights passes relevance back.

    Attributes:
        kind: `"epsilon"`, `"zplus"`, `"alpha_beta"`, `"gamma"`, `"wsquare"`, `"flat"` or `"zbox"`.
        epsilon: what denominators are moved away from 0 by.
        alpha, beta: of `"alpha_beta"`.
        gamma: of `"gamma"`.
        low, high: of `"zbox"`: the bounds of the input.
    """

    kind: str
    epsilon: float = 1e-6
    alpha: float = 2.0
    beta: float = 1.0
    gamma: float = 0.25
    low: float = 0.0
    high: float = 1.0


@dataclasses.dataclass(frozen=True)
class Relevance(Table):
    """Relevance in the place of gradients (Bach et al. 2015).

    Attributes:
        dense: the rule of layers that are no convolutions.
        convolution: the rule of convolutions.
        first: the rule of layers that no other one comes before; None for those above.
        first_convolution_only: whether that is for convolutions alone.
        epsilon: what the denominators of sums are moved away from 0 by.
    """

    name: ClassVar[str] = "relevance"
    what: ClassVar[str] = "passes relevance back in the place of gradients"
    by_layers: ClassVar[bool] = True
    keeps_loops: ClassVar[bool] = False
    gives_slopes: ClassVar[bool] = False

    dense: LayerRule
    convolution: LayerRule
    first: LayerRule | None = None
    first_convolution_only: bool = False
    epsilon: float = 1e-6
