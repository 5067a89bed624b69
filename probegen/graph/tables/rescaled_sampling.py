"""DeepLIFT's multipliers of samples of a picture (`GridSample`) whose places change as well.

With `y = S(x, p)`, linear in the picture x, and p the places: Owen's value of the two, in which the
coordinates of a place are one coalition (Owen 1977). So that `dy` is shared as it is for a product:

- x has the mean of `S(dx, p)` and `S(dx, p')`.
- p has `S(m, p) - S(m, p')`, m the mean of x and x', which its coordinates share by the values of
  Shapley, from pictures sampled where some coordinates are at their reference. Over what a
  coordinate differs by; where that is next to nothing, the slope.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.graph.autodiff import Walk
from probegen.graph.core.copying import standing_apart
from probegen.graph.core.values import rank_of
from probegen.graph.tables.common import plainly
from probegen.graph.vjp import RULES


@dataclasses.dataclass(frozen=True)
class Sampled:
    """A `GridSample` at a request and at its reference.

    Attributes:
        walk: the walk.
        node: the node.
        g: the multiplier of its result.
        x: the picture, and what that is in the reference.
        places: likewise; both in the full shape.
        middle: the mean of the picture and its reference.
        small: below which difference of a coordinate its slope counts.
    """

    walk: Walk
    node: ir.Node
    g: ir.Value
    x: ir.Value
    places: tuple[ir.Value, ir.Value]
    middle: ir.Value
    small: float

    def of_picture(self) -> ir.Value:
        """Returns the multiplier of the picture."""
        b, found = self.walk.builder, []
        for places in self.places:
            node = standing_apart(self.node, [self.x, places])
            found.append(self._gradient(node, self.x))
        return b.mul(b.add(*found), 0.5)

    def of_places(self) -> ir.Value:
        """Returns the multipliers of the places."""
        b, (here, there) = self.walk.builder, self.places
        dp = b.sub(here, there)
        near = b.elementwise("LessOrEqual", b.op("Abs", dp, shape=dp), self.small)
        share = b.div(self._shares(), b.where(near, 1.0, dp))
        apart = b.op("Identity", here, shape=here)
        slope = self._gradient(standing_apart(self.node, [self.middle, apart]), apart)
        return b.where(near, slope, share)

    def _shares(self) -> ir.Value:
        """Returns what each coordinate has of the multiplier times the result's difference."""
        b, count = self.walk.builder, rank_of(self.x) - 2
        chosen = list(itertools.product([False, True], repeat=count))
        sampled = {here: self._sampled(here) for here in chosen}
        shares = []
        for axis in range(count):
            terms = []
            for here in chosen:
                if not here[axis]:
                    ahead = tuple(h or i == axis for i, h in enumerate(here))
                    rest = count - 1 - sum(here)
                    weight = math.factorial(sum(here)) * math.factorial(rest)
                    change = b.sub(sampled[ahead], sampled[here])
                    terms.append(b.mul(change, weight / math.factorial(count)))
            total = b.mul(self.g, functools.reduce(b.add, terms))
            over_channels = b.reduce_sum(total, [1], keepdims=False)
            shares.append(b.unsqueeze(over_channels, [count + 1]))
        return b.concat(shares, axis=count + 1)

    def _sampled(self, chosen: Sequence[bool]) -> ir.Value:
        """Returns the mean picture where some coordinates of places are at their reference."""
        b, (here, there) = self.walk.builder, self.places
        at = b.where(b.const(np.array(chosen)), here, there)
        y: ir.Value = self.node.outputs[0]
        attributes: dict[str, Any] = dict(self.node.attributes.items())
        return b.op(self.node.op_type, self.middle, at, shape=y, **attributes)

    def _gradient(self, node: ir.Node, of: ir.Value) -> ir.Value:
        only = dataclasses.replace(plainly(self.walk), wanted={of})
        pairs = RULES[self.node.op_type](only, node, [self.g])
        found = next((gradient for value, gradient in pairs if value is of), None)
        return self.walk.builder.zeros_like(of) if found is None else found
