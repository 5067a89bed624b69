"""DeepLIFT's rescale rule, once more, by numpy, on two runs of the forward pass."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.core.elementwise import FunctionOfOne, function_of_one
from probegen.graph.core.marks import MARK_DOMAIN, STRAIGHT_THROUGH
from probegen.graph.core.queries import captured_values, depending_on, key_of
from probegen.graph.core.values import attribute
from probegen.graph.loops.iteration import Iteration
from probegen.parity.witness.adjoints import (
    OwnStatistics,
    adjoint,
    axes_of,
    slope,
    slope_of,
    unbroadcast,
)
from probegen.parity.witness.bodies import Run, Values, runs_of
from probegen.parity.witness.evaluation import NodeEvaluator
from probegen.parity.witness.recurrent import RECURRENT, rescaled_through_time
from probegen.parity.witness.step import Step, Unknown
from probegen.parity.witness.walk import plain

Array = npt.NDArray[Any]

_SMALL = 1e-6
#: The same where a function jumps, of which a slope tells nothing.
_SMALLEST = 1e-10
#: Stands for the logarithm of 0, so that two of them have a difference; masks are above it.
_LEAST_LOGARITHM = -1e30
_STRAIGHT_THROUGH = f"{MARK_DOMAIN}::{STRAIGHT_THROUGH}"
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
#: What is linear in its first input, where the others do not change.
_LINEAR_IN_FIRST = (
    "Div", "GridSample", "RoiAlign", "MaxUnpool", "Col2Im", "Compress", "DFT", "STFT", "DeformConv",
    "AffineGrid",
)  # fmt: skip
_SCATTERS = ("ScatterElements", "ScatterND")
_TO_LARGEST = ("MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "TopK")
_NORMALISATIONS = frozenset(
    {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"}
)
#: Reductions `F(sum(f(x)))`: operator -> F, and f.
_OF_SUMS: Mapping[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "ReduceL1": (lambda s: s, np.abs),
    "ReduceSumSquare": (lambda s: s, np.square),
    "ReduceL2": (np.sqrt, np.square),
    "ReduceLogSum": (np.log, lambda x: x),
    "ReduceLogSumExp": (np.log, np.exp),
}


@dataclasses.dataclass(frozen=True)
class Rescaled:
    """The rule of the walk.

    Attributes:
        values: every tensor.
        there: every tensor where what is explained is at its baseline.
        places: what is explained.
    """

    values: Mapping[ir.Value, Array]
    there: dict[ir.Value, Array]
    places: frozenset[ir.Value]

    def __call__(
        self, step: Step, arrived: Sequence[Array | None], wanted: Sequence[int]
    ) -> Iterable[tuple[ir.Value, Array]]:
        """Yields what arrives at each input."""
        node, key = step.node, key_of(step.node)
        distinct = {node.inputs[i] for i in wanted}
        if key in RECURRENT or key == _STRAIGHT_THROUGH:
            yield from self._whole(step, arrived, wanted)
            return
        if key not in _SUMS:
            function = self._spelled(node)
            if function is not None:
                if arrived[0] is not None:
                    yield function.entry, self._function(step, function, arrived[0])
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
            or (key in (*_PRODUCTS, *_LINEAR_IN_FIRST) and len(wanted) == 1 and wanted[0] == 0)
        ):
            yield from plain(step, arrived, wanted)
        elif key in _PRODUCTS:
            yield from plain(self._between(step), arrived, wanted)
        elif arrived[0] is not None:
            yield from self._single(step, arrived[0], wanted, len(distinct))

    def of_runs(
        self,
        iteration: Iteration,
        values: Values,
        runs: Sequence[Run],
        evaluate: NodeEvaluator,
    ) -> list[Rescaled]:
        """Returns the rule of each step of a loop: the loop is run at the baseline too.

        Raises:
            Unknown: it runs another number of steps there.
        """
        others = runs_of(iteration.node, {**values, **self.there}, evaluate)
        if len(others) != len(runs):
            raise Unknown("a loop whose number of steps changes")
        starts = {v for v in captured_values(iteration.body) if v in self.there}
        starts |= {s.entering for s in iteration.scan_inputs if s.sequence in self.there}
        starts |= {s.entering for s in iteration.states}
        moved = depending_on(iteration.body, starts)
        return [
            Rescaled(run.values, self.there | {v: other.values[v] for v in moved}, self.places)
            for run, other in zip(runs, others, strict=True)
        ]

    def _whole(
        self, step: Step, arrived: Sequence[Array | None], wanted: Sequence[int]
    ) -> Iterable[tuple[ir.Value, Array]]:
        """Recurrent operators, and roundings, whose second input goes on."""
        node, first = step.node, arrived[0]
        if node.op_type not in RECURRENT:
            yield from () if first is None else self._single(step, first, [1], 1)
            return
        pairs = zip(node.inputs, step.inputs, strict=True)
        there = [a if v is None else self.there.get(v, a) for v, a in pairs]
        back = dataclasses.replace(step, inputs=there)
        for i in wanted:
            value = node.inputs[i]
            if value is not None:
                yield value, rescaled_through_time(step, back, arrived, i)

    def _spelled(self, node: ir.Node) -> FunctionOfOne | None:
        """Returns the function of one tensor that several nodes spell and a node ends.

        None where what is explained lies between these: each has a share then.
        """
        function = function_of_one(node)
        if function is None or len(function.nodes) < 2 or self.places & {*function.inner}:
            return None
        return function if function.entry in self.there else None

    def _same(self, value: ir.Value) -> bool:
        """Tells whether a tensor is the same at the baseline, where it is a number at all."""
        here, there = np.asarray(self.values[value]), self.there[value]
        if here.dtype.kind == "f":
            here = np.where(np.isnan(here), there, here)
        return np.array_equal(here, there)

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
        if key in ("Div", "GridSample"):
            yield from (self._quotient if key == "Div" else self._sampled)(step, g, wanted)
        elif key in ("Softmax", "LogSoftmax"):
            yield x, self._softmax(step, g)
        elif (
            key in _TO_LARGEST
            or (key in ("Max", "Min") and distinct > 2)
            or (key in _SCATTERS and attribute(node, "reduction", "none") in ("max", "min"))
        ):
            yield from self._largest(step, g, wanted)
        elif key in _OF_SUMS:
            yield x, self._of_a_sum(step, g, *_OF_SUMS[key])
        elif key == "LpNormalization":
            yield x, self._by_length(step, g)
        elif key in _NORMALISATIONS:
            yield x, self._normalised(step, g)
        elif distinct == 1:
            dx, dy = self.values[x] - self.there[x], self._difference(node.outputs[0])
            rounds = key == _STRAIGHT_THROUGH
            near = np.abs(dx) < (_SMALLEST if rounds else _SMALL)
            if key in _BENT_AT_ZERO:
                near &= (np.abs(dy) < 1e-3 * np.abs(step.y)) | (dx == 0)
            steep = adjoint(step, [np.ones_like(dy)], 1) if rounds else slope(step, wanted[0])
            steep = np.where(np.isfinite(steep), steep, 0.0)  # of the root of 0
            ratio = np.where(near, steep, dy / np.where(near, 1, dx))
            yield x, unbroadcast(g * ratio, dx.shape)
        elif distinct == 2 and len(node.inputs) == 2:
            yield from self._of_two(step, g)
        else:
            raise Unknown(f"{key} of {distinct} tensors that change")

    def _difference(self, value: ir.Value) -> Array:
        return np.asarray(self.values[value] - self.there[value])

    def _function(self, step: Step, function: FunctionOfOne, g: Array) -> Array:
        dx, dy = self._difference(function.entry), self._difference(function.result)
        steep = slope_of(function, self.values, step.evaluate)
        steep = np.where(np.isfinite(steep), steep, 0.0)
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
        ratio = np.maximum(log_p, _LEAST_LOGARITHM) - np.maximum(log_q, _LEAST_LOGARITHM)
        near = np.abs(ratio) < 1e-5
        mean = np.where(near, (p + q) / 2, (p - q) / np.where(near, 1, ratio))
        share = mean / mean.sum(axis=axis, keepdims=True)
        if logs:
            return np.asarray(g - share * g.sum(axis=axis, keepdims=True))
        found = mean * g - share * (mean * g).sum(axis=axis, keepdims=True)
        return np.where(np.isnan(y), 0.0, found)  # a row of which a mask leaves nothing

    def _of_two(self, step: Step, g: Array) -> Iterable[tuple[ir.Value, Array]]:
        """Shapley's value of each of two operands, over its difference."""
        values = [v for v in step.node.inputs if v is not None]
        there = [np.asarray(self.there[v]) for v in values]
        y, y_there = step.y, step.at(dict(enumerate(there)))
        for k, value in enumerate(values):
            gone, alone = step.at({k: there[k]}), step.at({1 - k: there[1 - k]})
            share = g * ((y - gone) + (alone - y_there)) / 2
            dx = np.broadcast_to(step.inputs[k] - there[k], y.shape)
            near = np.abs(dx) < _SMALL
            ratio = np.where(near, g * slope(step, k), share / np.where(near, 1, dx))
            yield value, unbroadcast(ratio, np.shape(step.inputs[k]))

    def _largest(
        self, step: Step, g: Array, wanted: Sequence[int]
    ) -> Iterable[tuple[ir.Value, Array]]:
        """What y has more than y' goes to where y comes from, the rest to where y' does."""
        node = step.node
        if node.op_type == "TopK" and step.y.shape[int(attribute(node, "axis", -1))] > 1:
            raise Unknown("TopK of several elements")
        dy = self._difference(node.outputs[0])
        there = [
            a if v is None else self.there.get(v, a)
            for v, a in zip(node.inputs, step.inputs, strict=True)
        ]
        # Positions of a TopK are those of its own run.
        results = [self.there.get(v) for v in node.outputs]
        back = dataclasses.replace(step, inputs=there, outputs=results)
        least = node.op_type in ("ReduceMin", "Min") or attribute(node, "reduction") == "min"
        least = least or not attribute(node, "largest", 1)
        up = dy < 0 if least else dy > 0
        for i in wanted:
            value = node.inputs[i]
            if value is None:
                continue
            total = adjoint(step, [np.where(up, g * dy, 0)], i)
            total = total + adjoint(back, [np.where(up, 0, g * dy)], i)
            dx = self._difference(value)
            yield value, np.where(dx == 0, 0, total / np.where(dx == 0, 1, dx))

    def _sampled(
        self, step: Step, g: Array, wanted: Sequence[int]
    ) -> Iterable[tuple[ir.Value, Array]]:
        """A picture at places that change: of every order that coordinates may change in."""
        (x, at), (here, places) = step.node.inputs, step.inputs
        if x is None or at is None:
            return
        there = np.broadcast_to(self.there[at], places.shape)
        runs = [dataclasses.replace(step, inputs=[here, p], outputs=[]) for p in (places, there)]
        if 0 in wanted:
            yield x, np.asarray(sum(adjoint(run, [g], 0) for run in runs) / 2)
        mean = self._mean(x, here)
        total, orders = np.zeros(places.shape), list(itertools.permutations(range(here.ndim - 2)))
        for order in orders:
            now = there.copy()
            for axis in order:
                before = step.at({0: mean, 1: now})
                now[..., axis] = places[..., axis]
                change = step.at({0: mean, 1: now.copy()}) - before
                total[..., axis] += (g * change).sum(axis=1) / len(orders)
        near = np.abs(places - there) < _SMALL
        steep = adjoint(dataclasses.replace(step, inputs=[mean, places], outputs=[]), [g], 1)
        yield at, np.where(near, steep, total / np.where(near, 1, places - there))

    def _of_a_sum(
        self,
        step: Step,
        g: Array,
        outer: Callable[[Array], Array],
        inner: Callable[[Array], Array],
    ) -> Array:
        """The rescale rule of the outer function, the sum, and that of the inner one."""
        x = step.node.inputs[0]
        if x is None:
            raise Unknown(step.node.op_type)
        here, there, axes = step.x, self.there[x], axes_of(step)
        kept = [1 if i in axes else n for i, n in enumerate(here.shape)]
        sums = [inner(v).sum(axis=axes, keepdims=True) for v in (here, there)]
        steep = _rescaled(outer, *sums)
        return np.asarray(g.reshape(kept) * steep * _rescaled(inner, here, there))

    def _by_length(self, step: Step, g: Array) -> Array:
        """x over its length: the mean of x, and of one over the length, as factors."""
        x, axis = step.node.inputs[0], int(attribute(step.node, "axis", -1))
        if x is None:
            raise Unknown(step.node.op_type)
        here, there = step.x, self.there[x]
        inner = np.square if int(attribute(step.node, "p", 2)) == 2 else np.abs
        outer = np.sqrt if inner is np.square else np.positive
        sums = [inner(v).sum(axis=axis, keepdims=True) for v in (here, there)]
        ones = [np.where(s == 0, 0, 1 / np.where(s == 0, 1, outer(s))) for s in sums]
        change = sums[0] - sums[1]
        near = np.abs(change) <= _SMALL * np.abs(sums[0])
        some = np.where(sums[0] == 0, np.inf, sums[0])  # a row of zeros stays one
        by = -0.5 * some**-1.5 if inner is np.square else -1 / some**2
        steep = np.where(near, by, (ones[0] - ones[1]) / np.where(near, 1, change))
        to_sum = (g * (here + there) / 2).sum(axis=axis, keepdims=True) * steep
        return np.asarray(g * (ones[0] + ones[1]) / 2 + to_sum * _rescaled(inner, here, there))

    def _normalised(self, step: Step, g: Array) -> Array:
        x = step.node.inputs[0]
        if x is None:
            raise Unknown(step.node.op_type)
        own = OwnStatistics.of(step)
        axes, bare = own.axes, step.node.op_type == "RMSNormalization"
        pair = [v.reshape(v.shape[0], *own.form[1:]) for v in (step.x, self.there[x])]
        c = [v if bare else v - v.mean(axis=axes, keepdims=True) for v in pair]
        v = [(a**2).mean(axis=axes, keepdims=True) + own.epsilon for a in c]
        s = [a**-0.5 for a in v]
        same = np.abs(v[0] - v[1]) < 1e-9 * v[0]
        steep = np.where(same, -0.5 * v[0] ** -1.5, (s[0] - s[1]) / np.where(same, 1, v[0] - v[1]))
        g = (g * own.scale).reshape(own.form)
        to_variance = (g * (c[0] + c[1]) / 2).sum(axis=axes, keepdims=True) * steep
        count = np.prod([own.form[i] for i in axes])
        inner = g * (s[0] + s[1]) / 2 + to_variance * (c[0] + c[1]) / count
        inner = inner if bare else inner - inner.mean(axis=axes, keepdims=True)
        return np.asarray(inner).reshape(step.x.shape)


def _rescaled(function: Callable[[Array], Array], here: Array, there: Array) -> Array:
    """Returns how a function differs over how its argument does; a slope where that is hardly."""
    change, h = here - there, _SMALL * np.maximum(np.abs(here), _SMALL)
    near = np.abs(change) < h
    ahead, behind = np.where(near, here + h, here), np.where(near, here - h, there)
    with np.errstate(all="ignore"):
        found = (function(ahead) - function(behind)) / (ahead - behind)
    return np.where(np.isfinite(found), found, 0.0)


def _log_softmax(x: Array, axis: int) -> Array:
    """Returns x less the logarithm of the sum of its exponentials along an axis."""
    with np.errstate(invalid="ignore"):  # NaN where everything is masked, as a softmax has it
        apart = x - x.max(axis=axis, keepdims=True)
    return np.asarray(apart - np.log(np.exp(apart).sum(axis=axis, keepdims=True)))
