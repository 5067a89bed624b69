"""DeepLIFT's rescale rule, once more, by numpy, on two runs of the forward pass."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.elementwise import FunctionOfOne, function_of_one
from probegen.graph.core.queries import key_of
from probegen.graph.core.values import attribute
from probegen.parity.witness.adjoints import (
    Step,
    Unknown,
    adjoint,
    normalisation_of,
    slope,
    slope_of,
    unbroadcast,
)
from probegen.parity.witness.walk import plain

Array = npt.NDArray[Any]

_SMALL = 1e-6
#: Have a large curvature near 0, where a slope tells nothing of a difference.
_BENT_AT_ZERO = ("Div", "Log", "Mul", "Pow", "Reciprocal", "Sqrt")
_PRODUCTS = ("Mul", "MatMul", "Gemm", "Einsum")
_SUMS = ("Add", "Sub", "Sum")
#: What is linear in all its floating inputs, so that a gradient is a multiplier.
_LINEAR = frozenset(
    {
        "Add", "Sub", "Sum", "Mean", "Neg", "Identity", "Cast", "CastLike", "Dropout", "Concat",
        "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Expand",
        "Tile", "Pad", "ReduceSum", "ReduceMean", "AveragePool", "GlobalAveragePool", "Conv",
        "ConvTranspose", "BatchNormalization", "DepthToSpace", "SpaceToDepth", "CumSum", "Trilu",
        "ReverseSequence", "Gather", "GatherElements", "GatherND", "Where", "Resize", "Upsample",
        "probegen::Mark", "probegen::StopGradient",
    }
)  # fmt: skip
_SCATTERS = ("ScatterElements", "ScatterND")
_TO_LARGEST = ("MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin")
_NORMALISATIONS = ("LayerNormalization", "InstanceNormalization")


@dataclasses.dataclass(frozen=True)
class Rescaled:
    """The rule of the walk.

    Attributes:
        values: every tensor.
        there: every tensor where what is explained is at its baseline.
    """

    values: Mapping[ir.Value, Array]
    there: Mapping[ir.Value, Array]

    def __call__(
        self, step: Step, arrived: Sequence[Array | None], wanted: Sequence[int]
    ) -> Iterable[tuple[ir.Value, Array]]:
        """Yields what arrives at each input."""
        node, key = step.node, key_of(step.node)
        distinct = {node.inputs[i] for i in wanted}
        if key not in _SUMS:
            function = function_of_one(node)
            if function is not None and len(function.nodes) > 1 and function.entry in self.there:
                if arrived[0] is not None:
                    yield function.entry, self._function(function, arrived[0])
                return
        for i, value in enumerate(node.inputs):
            if (
                value is not None
                and value in self.there
                and i not in wanted
                and not self._same(value)
            ):
                raise Unknown(f"{key} of what changes without a slope")
        adds = key in _SCATTERS and attribute(node, "reduction", "none") in ("none", "add")
        if (
            adds
            or key in _LINEAR
            or (key in (*_PRODUCTS, "Div") and len(wanted) == 1 and wanted[0] == 0)
        ):
            yield from plain(step, arrived, wanted)
        elif key in _PRODUCTS:
            yield from plain(self._between(step), arrived, wanted)
        elif arrived[0] is not None:
            yield from self._single(step, arrived[0], wanted, len(distinct))

    def _same(self, value: ir.Value) -> bool:
        """Tells whether a tensor is the same at the baseline."""
        return np.array_equal(self.values[value], self.there[value])

    def _between(self, step: Step) -> Step:
        """Returns a node on the means of its inputs and their references."""
        means = [self._mean(v, a) for v, a in zip(step.node.inputs, step.inputs, strict=True)]
        return dataclasses.replace(step, inputs=means)

    def _mean(self, value: ir.Value | None, array: Any) -> Any:
        if value is None or value not in self.there or array.dtype.kind != "f":
            return array
        return (array + self.there[value]) / 2

    def _single(
        self, step: Step, g: Array, wanted: Sequence[int], distinct: int
    ) -> Iterable[tuple[ir.Value, Array]]:
        node, key = step.node, key_of(step.node)
        x = node.inputs[wanted[0]]
        if x is None:
            return
        if key == "Div":
            yield from self._quotient(step, g, wanted)
        elif key in ("Softmax", "LogSoftmax"):
            yield x, self._softmax(step, g)
        elif key in _TO_LARGEST:
            yield x, self._largest(step, g)
        elif key in _NORMALISATIONS:
            yield x, self._normalised(step, g)
        elif distinct == 1:
            dx, dy = self.values[x] - self.there[x], self._difference(node.outputs[0])
            near = np.abs(dx) < _SMALL
            if key in _BENT_AT_ZERO:
                near &= (np.abs(dy) < 1e-3 * np.abs(step.y)) | (dx == 0)
            ratio = np.where(near, slope(step, wanted[0]), dy / np.where(near, 1, dx))
            yield x, unbroadcast(g * ratio, dx.shape)
        else:
            raise Unknown(f"{key} of {distinct} tensors that change")

    def _difference(self, value: ir.Value) -> Array:
        return np.asarray(self.values[value] - self.there[value])

    def _function(self, function: FunctionOfOne, g: Array) -> Array:
        dx, dy = self._difference(function.entry), self._difference(function.result)
        steep = slope_of(function, self.values[function.entry])
        near = np.abs(dx) < _SMALL
        return np.asarray(g * np.where(near, steep, dy / np.where(near, 1, dx)))

    def _quotient(
        self, step: Step, g: Array, wanted: Sequence[int]
    ) -> Iterable[tuple[ir.Value, Array]]:
        a, by = step.node.inputs[:2]
        if a is None or by is None:
            return
        above, below = step.inputs[:2]
        there = self.there.get(by, below)
        if 0 in wanted:
            yield a, unbroadcast(g * (1 / below + 1 / there) / 2, above.shape)
        mean = (above + self.there.get(a, above)) / 2
        yield by, unbroadcast(-g * mean / (below * there), below.shape)

    def _softmax(self, step: Step, g: Array) -> Array:
        axis = int(attribute(step.node, "axis", -1))
        y, z = step.y, self.there[step.node.outputs[0]]
        logs = step.node.op_type == "LogSoftmax"
        x = step.node.inputs[0]
        if x is None:
            raise Unknown(step.node.op_type)
        places = (self.values[x], self.there[x])
        log_p, log_q = (y, z) if logs else (_log_softmax(v, axis) for v in places)
        p, q = (np.exp(y), np.exp(z)) if logs else (y, z)
        ratio = np.maximum(log_p, -6e4) - np.maximum(log_q, -6e4)
        near = np.abs(ratio) < 1e-5
        mean = np.where(near, (p + q) / 2, (p - q) / np.where(near, 1, ratio))
        share = mean / mean.sum(axis=axis, keepdims=True)
        if logs:
            return np.asarray(g - share * g.sum(axis=axis, keepdims=True))
        return np.asarray(mean * g - share * (mean * g).sum(axis=axis, keepdims=True))

    def _largest(self, step: Step, g: Array) -> Array:
        x = step.node.inputs[0]
        if x is None:
            raise Unknown(step.node.op_type)
        dx, dy = self._difference(x), self._difference(step.node.outputs[0])
        back = dataclasses.replace(
            step, inputs=[self.there[x], *step.inputs[1:]], outputs=[step.y - dy]
        )
        up = dy < 0 if step.node.op_type == "ReduceMin" else dy > 0
        total = adjoint(step, [np.where(up, g * dy, 0)], 0)
        total = total + adjoint(back, [np.where(up, 0, g * dy)], 0)
        return np.where(dx == 0, 0, total / np.where(dx == 0, 1, dx))

    def _normalised(self, step: Step, g: Array) -> Array:
        x = step.node.inputs[0]
        if x is None:
            raise Unknown(step.node.op_type)
        axes, scale, epsilon = normalisation_of(step)
        c = [v - v.mean(axis=axes, keepdims=True) for v in (step.x, self.there[x])]
        v = [(a**2).mean(axis=axes, keepdims=True) + epsilon for a in c]
        s = [a**-0.5 for a in v]
        same = np.abs(v[0] - v[1]) < 1e-9 * v[0]
        steep = np.where(same, -0.5 * v[0] ** -1.5, (s[0] - s[1]) / np.where(same, 1, v[0] - v[1]))
        g = g * scale
        to_variance = (g * (c[0] + c[1]) / 2).sum(axis=axes, keepdims=True) * steep
        count = np.prod([step.x.shape[i] for i in axes])
        inner = g * (s[0] + s[1]) / 2 + to_variance * (c[0] + c[1]) / count
        return np.asarray(inner - inner.mean(axis=axes, keepdims=True))


def _log_softmax(x: Array, axis: int) -> Array:
    """Returns x less the logarithm of the sum of its exponentials along an axis."""
    apart = x - x.max(axis=axis, keepdims=True)
    return np.asarray(apart - np.log(np.exp(apart).sum(axis=axis, keepdims=True)))
