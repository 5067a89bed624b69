"""Rules of composite operators, which stand for several; see `graph.core.composite_ops`.

`g` is the gradient of the first output of such an operator. The others are read by rules alone, so
that no gradient comes in through them.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from probegen.graph.autodiff import Rule
from probegen.graph.core.composite_ops import COMPOSITE_DOMAIN, GELU
from probegen.graph.core.values import attribute, dtype_of
from probegen.graph.vjp.activation import slope_by_erf, slope_by_tanh
from probegen.graph.vjp.common import Local, pointwise


def _gelu(v: Local) -> ir.Value:
    """The rule of ONNX' Gelu, from what is on the way to the result anyway."""
    b = v.b
    p, u = (b.output(v.node, i, v.x, dtype_of(v.x)) for i in (1, 2))
    if attribute(v.node, "approximate") == "tanh":
        return b.mul(v.g, slope_by_tanh(b, v.x, p, u))
    return b.mul(v.g, slope_by_erf(b, p, u))


RULES: Mapping[str, Rule] = {f"{COMPOSITE_DOMAIN}::{GELU}": pointwise(_gelu)}
