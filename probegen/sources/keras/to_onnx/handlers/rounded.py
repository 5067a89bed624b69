"""Numbers rounded to steps, as training for quantised weights does, whose gradient passes."""

from __future__ import annotations

import math
from typing import Any

from probegen.graph.core.marks import STOP_GRADIENT
from probegen.sources.keras.to_onnx.handlers.writer import Writer

#: Attributes, and inputs behind the first, that say between which numbers steps lie.
_BOUNDS = ("min", "max")


def fake_quantised(context: Any, node: Any, _: str, __: Any) -> None:
    """Writes `FakeQuantWithMinMaxArgs(x)` as `c + StopGradient(steps(c) - c)`, `c = Clip(x)`.

    As in TensorFlow the bounds are moved so that 0 is a step, and the gradient between them is 1.
    Leaves: bounds that are computed, which tf2onnx refuses.
    """
    w = Writer(context, node)
    known = len(w.inputs) == 1
    given = [w.attribute(n) if known else w.value_of(w.inputs[i]) for i, n in enumerate(_BOUNDS, 1)]
    if any(bound is None for bound in given):
        return
    first = 1.0 if w.attribute("narrow_range", 0) else 0.0
    last = 2.0 ** w.attribute("num_bits", 8) - 1
    low, scale, high = _steps(float(given[0]), float(given[1]), first, last)
    x = w.op("Clip", w.inputs[0], w.const(low), w.const(high))
    steps = w.op("Div", w.op("Sub", x, w.const(low)), w.const(scale))
    whole = w.op("Floor", w.op("Add", steps, w.const(0.5)))
    value = w.op("Add", w.op("Mul", whole, w.const(scale)), w.const(low))
    off = w.mark(STOP_GRADIENT, w.op("Sub", value, x))
    w.finish("Add", x, off)


def _steps(low: float, high: float, first: float, last: float) -> tuple[float, float, float]:
    """Returns the lower bound, the width of a step and the upper bound, with 0 on a step.

    Args:
        low, high: the bounds as they are given.
        first, last: the numbers of the steps at them.
    """
    scale = (high - low) / (last - first)
    zero = min(max(math.floor(first - low / scale + 0.5), first), last)
    return (first - zero) * scale, scale, (last - zero) * scale
