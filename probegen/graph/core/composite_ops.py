"""Composite operators: operators of our own domain that stand for several of ONNX' for a while.

A function whose gradient is much shorter than that of its pieces one by one is joined into one
operator before the graph is differentiated, and written out after; its rule may ask for outputs
beyond the first, which are what is left over on the way to it.

`Gelu(x)` has the attribute `approximate`, as ONNX' operator of opset 20, and the outputs
y = x * P, P, and u: P is (1 + erf(u)) / 2 with u = x / sqrt(2), or (1 + tanh(u)) / 2 with
u = c (x + 0.044715 x**3), c = sqrt(2 / pi), where `approximate` is `"tanh"`.
"""

from __future__ import annotations

import math

COMPOSITE_DOMAIN = "probegen.composite"
GELU = "Gelu"
#: The factor of u, and the coefficient of the cube in it, in the approximate form.
GELU_C = math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715
