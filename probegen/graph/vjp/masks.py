"""Masks, 1 where a value lies beyond a bound and 0 elsewhere, in the form that is cheapest.

On 1x256x56x56 floats in onnxruntime's CPU kernels, a mask and its product take 0.3 ms as
HardSigmoid and Mul, 0.4 as Greater, Cast and Mul, and 3.4 as Greater and Where; the first
also stays within the blocked layout of convolutions. `HardSigmoid(x) = clip(slope * x +
shift, 0, 1)` is a step where the slope is so large that the bound's nearest neighbour is at
least 1 away. A slope that is a power of two makes `slope * x` exact, so the step is exact as
well, at every float but the subnormal ones.

A mask multiplies, as in TensorFlow's own ReluGrad, and an infinite gradient times 0 would be
NaN. Rules therefore multiply by `edges.product`, which sees to that where a gradient may be
infinite at all.

The constants fit 32-bit floats. Other element types, and bounds too near 0 for any finite
slope, get a comparison.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.values import dtype_of

#: Exponents of 32-bit floats: of the largest power of two, and of the width of a step.
_LARGEST = 127
_MANTISSA = 24

#: Stands for a shift of 0, which OpenVINO's reader takes for the operator's default of 0.5. It
#: changes no product of a float with the slope but 0, and that is clipped to 0.
_NO_SHIFT = -1e-38


def above(b: Builder, x: ir.Value, bound: float, inclusive: bool = False) -> ir.Value:
    """Returns 1 where x > bound (x >= bound where `inclusive`), else 0, typed as `x`."""
    step = _step(bound, inclusive) if dtype_of(x) == ir.DataType.FLOAT else None
    if step is None:
        return _compared(b, "GreaterOrEqual" if inclusive else "Greater", x, bound)
    slope, shift = step
    return b.op("HardSigmoid", x, shape=x, alpha=slope, beta=shift)


def below(b: Builder, x: ir.Value, bound: float, inclusive: bool = False) -> ir.Value:
    """Returns 1 where x < bound (x <= bound where `inclusive`), else 0, typed as `x`."""
    step = _step(-bound, inclusive) if dtype_of(x) == ir.DataType.FLOAT else None
    if step is None:
        return _compared(b, "LessOrEqual" if inclusive else "Less", x, bound)
    slope, shift = step
    return b.op("HardSigmoid", x, shape=x, alpha=-slope, beta=shift)


def _step(bound: float, inclusive: bool) -> tuple[float, float] | None:
    """Returns slope and shift of a step at `bound`, or None where floats have none."""
    if bound == 0:
        return 2.0**_LARGEST, 1.0 if inclusive else _NO_SHIFT
    if inclusive:
        bound = float(np.nextafter(np.float32(bound), np.float32(-np.inf)))
    if not math.isfinite(bound):
        return None
    _, exponent = math.frexp(bound)
    power = min(_LARGEST, _LARGEST - 1 - exponent)
    if power < 1 or power + exponent - 1 - _MANTISSA < 0:
        return None
    return 2.0**power, -bound * 2.0**power


def _compared(b: Builder, comparison: str, x: ir.Value, bound: float) -> ir.Value:
    return b.cast(b.elementwise(comparison, x, bound), dtype_of(x))
