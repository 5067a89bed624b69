"""Rule of Resize: interpolation is linear and falls apart into its axes.

Along one axis y = A x with a matrix A `[out, in]` that sizes and attributes determine, and the
gradient is A^T g. Whole-number repetition needs no sizes: its gradient is a sum over blocks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule
from probegen.graph.builder import Builder, attribute, constant_of, rank_of, shape_of
from probegen.graph.vjp.common import Dys, Gradients, Wanted, given, inputs, optional
from probegen.graph.vjp.spatial import along, known

_Coordinates = npt.NDArray[np.floating]


def resize(b: Builder, node: ir.Node, dy: Dys, wanted: Wanted) -> Gradients:
    """Resize: x and y of one rank; the axes it changes need known sizes, unless it repeats."""
    g, x = given(dy), inputs(node)[0]
    if x not in wanted:
        return
    if attribute(node, "antialias", 0):
        raise Refused("antialias has no gradient rule")
    axes = [axis for axis in _axes(node, x) if not axis.unchanged]
    if len(axes) > 0 and all(axis.repeats and axis.index >= 2 for axis in axes):
        yield x, _block_sums(b, g, x, axes)
    else:
        yield x, along(b, g, {axis.index: axis.matrix() for axis in axes})


RULES: dict[str, Rule] = {"Resize": resize}


def _block_sums(b: Builder, g: ir.Value, x: ir.Value, axes: list[_Axis]) -> ir.Value:
    times = [1] * (rank_of(x) - 2)
    for axis in axes:
        times[axis.index - 2] = axis.repeats
    means = b.op("AveragePool", g, shape=x, kernel_shape=times, strides=times)
    return b.mul(means, math.prod(times))


@dataclasses.dataclass(frozen=True)
class _Axis:
    """How one axis is resized.

    Attributes:
        index: of the axis.
        size, count: of x and y; None where open.
        scale: as the node gives it, or the ratio of the sizes; None where that is open.
        node: has the attributes.
    """

    index: int
    size: int | None
    count: int | None
    scale: float | None
    node: ir.Node

    @property
    def unchanged(self) -> bool:
        """Whether y is x along this axis, whatever the attributes."""
        return self.scale == 1 and self.size == self.count

    @property
    def repeats(self) -> int:
        """How often every element is repeated, 0 where y is anything else."""
        times = round(self.scale or 0)
        if self.scale != times or self._get("mode", "nearest") != "nearest":
            return 0
        return times if (self._get(_TRANSFORM, "half_pixel"), self._rounding) in _REPEATS else 0

    def matrix(self) -> npt.NDArray[np.float64]:
        """Returns A `[count, size]`.

        Raises:
            Refused: a size is open, or an attribute has a value that is not known here.
        """
        if self.size is None or self.count is None or self.scale is None:
            raise Refused(
                f"the size of its axis {self.index} is known at run time only, and it does not "
                "repeat elements a whole number of times"
            )
        mode = self._get("mode", "nearest")
        # Which element is nearest is decided in the precision in which runtimes decide it.
        precision = np.float32 if mode == "nearest" else np.float64
        at = self._positions(precision)
        if mode == "nearest":
            return self._weights(_ROUNDINGS[self._rounding](at)[:, None], np.ones((self.count, 1)))
        if mode == "linear":
            return self._linear(np.clip(at, 0, self.size - 1))
        if mode == "cubic":
            return self._cubic(at)
        raise Refused(f"its mode {mode!r} is none of nearest, linear, cubic")

    def _positions(self, precision: type[np.floating]) -> _Coordinates:
        """Returns where the elements of y lie along x, `[count]`."""
        i = np.arange(known(self.count), dtype=precision)
        n, m = precision(known(self.size)), precision(known(self.count))
        scale, half = precision(self.scale or 0), precision(0.5)
        at: _Coordinates
        match self._get(_TRANSFORM, "half_pixel"):
            case "half_pixel":
                at = (i + half) / scale - half
            case "pytorch_half_pixel":
                at = (i + half) / scale - half if m > 1 else 0 * i
            case "half_pixel_symmetric" if precision is np.float64:
                at = n * half * (1 - m / (scale * n)) + (i + half) / scale - half
            case "tf_half_pixel_for_nn":
                at = (i + half) / scale
            case "asymmetric":
                at = i / scale
            case "align_corners":
                at = i * (n - 1) / (m - 1) if m > 1 else 0 * i
            case other:
                mode = self._get("mode", "nearest")
                raise Refused(f"mode {mode!r} with {_TRANSFORM} {other!r} has no gradient rule")
        return at

    def _linear(self, at: _Coordinates) -> npt.NDArray[np.float64]:
        left = np.floor(at)
        share = at - left
        return self._weights(left[:, None] + [0, 1], np.stack([1 - share, share], axis=1))

    def _cubic(self, at: _Coordinates) -> npt.NDArray[np.float64]:
        """Keys' kernel (1981, eq. 4) with `a` for his -1/2."""
        a = float(self._get("cubic_coeff_a", -0.75))
        left = np.floor(at)
        taps = left[:, None] + [-1, 0, 1, 2]
        d = np.abs(at[:, None] - taps)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        weights = np.where(d <= 1, near, far)
        if self._get("exclude_outside", 0):
            weights = np.where((taps >= 0) & (taps < known(self.size)), weights, 0)
            weights /= weights.sum(axis=1, keepdims=True)
        return self._weights(taps, weights)

    def _weights(
        self, taps: _Coordinates, weights: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Puts weights `[count, taps]` into the matrix; taps outside stand for the edge."""
        matrix = np.zeros((known(self.count), known(self.size)))
        columns = np.clip(taps, 0, known(self.size) - 1).astype(np.int64)
        np.add.at(matrix, (np.arange(known(self.count))[:, None], columns), weights)
        return matrix

    @property
    def _rounding(self) -> str:
        name = self._get("nearest_mode", "round_prefer_floor")
        if name not in _ROUNDINGS:
            raise Refused(f"its nearest_mode {name!r} is none of {', '.join(_ROUNDINGS)}")
        return str(name)

    def _get(self, name: str, default: float | str) -> float | str:
        found: float | str = attribute(self.node, name, default)
        return found


def _axes(node: ir.Node, x: ir.Value) -> list[_Axis]:
    """Returns all axes of a node."""
    rank = rank_of(x)
    sizes = _numbers(shape_of(x) or ())
    counts = _numbers(shape_of(node.outputs[0]) or (None,) * rank)
    chosen = attribute(node, "axes")
    resized = range(rank) if chosen is None else [axis % rank for axis in chosen]
    scales: list[float | None] = [1.0] * rank
    found = constant_of(optional(node, 2))
    if found is not None and found.size:
        for axis, scale in zip(resized, found.tolist(), strict=True):
            scales[axis] = float(scale)
            size = sizes[axis]
            if size is not None:
                # As runtimes multiply: in 32 bits 7/12 of 12 is 7, and less in more.
                count = math.floor(np.float32(scale) * np.float32(size))
                if counts[axis] not in (None, count):
                    raise Refused(
                        f"the size of its axis {axis} is {count} in 32 bits and {counts[axis]} "
                        "by shape inference; give it sizes in place of scales"
                    )
                counts[axis] = count
        return [_Axis(i, sizes[i], counts[i], scales[i], node) for i in range(rank)]
    if attribute(node, "keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Refused("it keeps the aspect ratio")
    asked = constant_of(optional(node, 3))
    for position, axis in enumerate(resized):
        if asked is not None:
            counts[axis] = int(asked[position])
        size, count = sizes[axis], counts[axis]
        same = (shape_of(x) or ())[axis] == (shape_of(node.outputs[0]) or ())[axis]
        scales[axis] = count / size if size and count is not None else 1.0 if same else None
    return [_Axis(i, sizes[i], counts[i], scales[i], node) for i in range(rank)]


def _numbers(shape: tuple[int | str | None, ...]) -> list[int | None]:
    return [d if isinstance(d, int) else None for d in shape]


_TRANSFORM = "coordinate_transformation_mode"

_ROUNDINGS: dict[str, Callable[[_Coordinates], _Coordinates]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}

#: What makes of a whole scale a repetition: the nearest element is the one a block began with.
_REPEATS = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
    ("tf_half_pixel_for_nn", "floor"),
}
