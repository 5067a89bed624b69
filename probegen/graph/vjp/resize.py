"""Rule of Resize: interpolation is linear and falls apart into its axes.

Along one axis y = A x with a matrix A `[out, in]` that sizes and attributes determine, and the
gradient is A^T g. Where a size is open the graph makes A itself. Whole-number repetition needs
no sizes: its gradient is a sum over blocks.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule, Walk
from probegen.graph.core.builder import Builder
from probegen.graph.core.values import attribute, constant_of, dims_of, dtype_of, rank_of, shape_of
from probegen.graph.vjp.common import Dys, Gradients, given, inputs, optional
from probegen.graph.vjp.spatial import along, known

_Coordinates = npt.NDArray[np.floating]


def resize(walk: Walk, node: ir.Node, dy: Dys) -> Gradients:
    """Resize: x and y of one rank."""
    b = walk.builder
    g, x = given(dy), inputs(node)[0]
    if x not in walk.wanted:
        return
    axes = [axis for axis in _axes(node, x) if not axis.unchanged]
    if len(axes) > 0 and all(axis.repeats and axis.index >= 2 for axis in axes):
        yield x, _block_sums(b, g, x, axes)
    elif all(axis.static for axis in axes):
        yield x, along(b, g, {axis.index: axis.matrix() for axis in axes})
    else:
        for axis in axes:
            g = _along_at_run_time(b, g, x, axis.index, _matrix_at_run_time(b, g, x, axis))
        yield x, g


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
        crop: start and end of the part of x that is taken, as shares, for `tf_crop_and_resize`.
    """

    index: int
    size: int | None
    count: int | None
    scale: float | None
    node: ir.Node
    crop: tuple[float, float] | None = None

    @property
    def unchanged(self) -> bool:
        """Whether y is x along this axis, whatever the attributes."""
        same = self.scale == 1 and (self.size == self.count or not self.static)
        return same and self.crop in (None, (0.0, 1.0))

    @property
    def static(self) -> bool:
        """Whether its sizes are known at compile time, and so its matrix."""
        return self.size is not None and self.count is not None and self.scale is not None

    @property
    def mode(self) -> str:
        """How it interpolates."""
        return str(self._get("mode", "nearest"))

    @property
    def transform(self) -> str:
        """How positions in y are mapped to positions in x."""
        return str(self._get(_TRANSFORM, "half_pixel"))

    @property
    def repeats(self) -> int:
        """How often every element is repeated, 0 where y is anything else."""
        times = round(self.scale or 0)
        if self.scale != times or self.mode != "nearest":
            return 0
        return times if (self.transform, self.rounding) in _REPEATS else 0

    def matrix(self) -> npt.NDArray[np.float64]:
        """Returns A `[count, size]`.

        Raises:
            Refused: an attribute has a value that is not known here.
        """
        mode = self.mode
        # Which element is nearest is decided in the precision in which runtimes decide it.
        precision = np.float32 if mode == "nearest" else np.float64
        at = self._positions(precision)
        if mode == "nearest":
            weights = self._weights(
                _ROUNDINGS[self.rounding](at)[:, None], np.ones((known(self.count), 1))
            )
        elif mode in ("linear", "cubic") and self._get("antialias", 0):
            weights = self._antialiased(at)
        elif mode == "linear":
            weights = self._linear(np.clip(at, 0, known(self.size) - 1))
        elif mode == "cubic":
            weights = self._cubic(at)
        else:
            raise Refused(f"its mode {mode!r} is none of nearest, linear, cubic")
        if self.transform == _CROP:  # beyond the image stands a constant
            weights[(at < 0) | (at > known(self.size) - 1)] = 0
        return weights

    def _positions(self, precision: type[np.floating]) -> _Coordinates:
        """Returns where the elements of y lie along x, `[count]`."""
        i = np.arange(known(self.count), dtype=precision)
        n, m = precision(known(self.size)), precision(known(self.count))
        scale, half = precision(self.scale or 0), precision(0.5)
        at: _Coordinates
        match self.transform:
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
            case "tf_crop_and_resize" if self.crop is not None:
                start, end = (precision(share) * (n - 1) for share in self.crop)
                at = start + i * (end - start) / (m - 1) if m > 1 else 0 * i + half * (start + end)
            case other:
                raise Refused(
                    f"mode {self.mode!r} with {_TRANSFORM} {other!r} has no gradient rule"
                )
        return at

    def _linear(self, at: _Coordinates) -> npt.NDArray[np.float64]:
        left = np.floor(at)
        share = at - left
        return self._weights(left[:, None] + [0, 1], np.stack([1 - share, share], axis=1))

    def _cubic(self, at: _Coordinates) -> npt.NDArray[np.float64]:
        """Keys' kernel (1981, eq. 4) with `a` for his -1/2."""
        taps = np.floor(at)[:, None] + [-1, 0, 1, 2]
        weights = self._keys(np.abs(at[:, None] - taps))
        return self._weights(taps, self._summing_to_one(taps, weights))

    def _keys(self, d: _Coordinates) -> npt.NDArray[np.float64]:
        """Returns Keys' kernel at distances, 0 beyond 2."""
        a = float(self._get("cubic_coeff_a", -0.75))
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        weights: npt.NDArray[np.float64] = np.where(d <= 1, near, np.where(d < 2, far, 0))
        return weights

    def _antialiased(self, at: _Coordinates) -> npt.NDArray[np.float64]:
        """Interpolates with a kernel as much wider as y is smaller, so that all of x counts."""
        stretch = min(float(self.scale or 1), 1.0)
        cubic = self.mode == "cubic"
        reach = math.ceil((2 if cubic else 1) / stretch)
        taps = np.floor(at)[:, None] + np.arange(1 - reach, reach + 1, dtype=at.dtype)
        distance = np.abs(at[:, None] - taps) * stretch
        weights = self._keys(distance) if cubic else np.clip(1 - distance, 0, None)
        return self._weights(taps, self._summing_to_one(taps, weights))

    def _summing_to_one(
        self, taps: _Coordinates, weights: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Returns weights that sum to 1, those outside left out first where the node says so."""
        if self._get("exclude_outside", 0):
            weights = np.where((taps >= 0) & (taps < known(self.size)), weights, 0)
        total: npt.NDArray[np.float64] = weights.sum(axis=1, keepdims=True)
        return weights / total

    def _weights(
        self, taps: _Coordinates, weights: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Puts weights `[count, taps]` into the matrix; taps outside stand for the edge."""
        matrix = np.zeros((known(self.count), known(self.size)))
        columns = np.clip(taps, 0, known(self.size) - 1).astype(np.int64)
        np.add.at(matrix, (np.arange(known(self.count))[:, None], columns), weights)
        return matrix

    @property
    def rounding(self) -> str:
        """Which of two neighbours is the nearest."""
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
    crops = _crops(node, list(resized), rank)
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
        return [_Axis(i, sizes[i], counts[i], scales[i], node, crops[i]) for i in range(rank)]
    asked = constant_of(optional(node, 3))
    policy = attribute(node, "keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        return _with_one_ratio(node, sizes, list(resized), asked, policy)
    for position, axis in enumerate(resized):
        if asked is not None:
            counts[axis] = int(asked[position])
        size, count = sizes[axis], counts[axis]
        if size and count is not None:
            scales[axis] = count / size
        elif _is_size_of(optional(node, 3), position, x, axis):
            scales[axis] = 1.0
        else:
            scales[axis] = None
    return [_Axis(i, sizes[i], counts[i], scales[i], node, crops[i]) for i in range(rank)]


def _with_one_ratio(
    node: ir.Node,
    sizes: list[int | None],
    resized: list[int],
    asked: npt.NDArray[np.generic] | None,
    policy: str,
) -> list[_Axis]:
    """Returns the axes where all are resized by one ratio: the least or the greatest asked for."""
    if asked is None or any(sizes[axis] is None for axis in resized):
        raise Refused("it keeps the aspect ratio of sizes that are known at run time only")
    ratios = [int(n) / known(sizes[axis]) for n, axis in zip(asked, resized, strict=True)]
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    axes = []
    for index, size in enumerate(sizes):
        if index in resized:
            count = math.floor(ratio * known(size) + 0.5)
            axes.append(_Axis(index, size, count, ratio, node))
        else:
            axes.append(_Axis(index, size, size, 1.0, node))
    return axes


def _crops(node: ir.Node, resized: Sequence[int], rank: int) -> list[tuple[float, float] | None]:
    """Returns start and end of what is taken of each axis, where the node crops.

    Raises:
        Refused: they are computed at run time.
    """
    found: list[tuple[float, float] | None] = [None] * rank
    if attribute(node, _TRANSFORM) != _CROP:
        return found
    region = constant_of(optional(node, 1))
    if region is None:
        raise Refused("its region is computed at run time; a gradient needs it as a constant")
    for position, axis in enumerate(resized):
        found[axis] = float(region[position]), float(region[len(resized) + position])
    return found


def _is_size_of(sizes: ir.Value | None, position: int, x: ir.Value, axis: int) -> bool:
    """Tells whether an element of computed sizes is known to be the size of an axis of x."""
    while sizes is not None and (node := sizes.producer()) is not None:
        if node.op_type == "Shape":
            return node.inputs[0] is x and position + int(attribute(node, "start", 0)) == axis
        sizes, position = _moved_by(node, position)
    return False


def _moved_by(node: ir.Node, position: int) -> tuple[ir.Value | None, int]:
    """Returns which element of which input an element of a node's output is, if that is known."""
    reads = inputs(node)
    if node.op_type in ("Cast", "Identity"):
        return reads[0], position
    if node.op_type == "Slice" and (start := constant_of(reads[1])) is not None and start[0] >= 0:
        step = constant_of(optional(node, 4))
        return (reads[0] if step is None or step[0] == 1 else None), position + int(start[0])
    if node.op_type == "Gather" and (picked := constant_of(reads[1])) is not None:
        return reads[0], int(picked.reshape(-1)[position])
    if node.op_type == "Concat":
        for part in reads:
            length = dims_of(part)[0]
            if not isinstance(length, int):
                break
            if position < length:
                return part, position
            position -= length
    return None, 0


def _numbers(shape: tuple[int | str | None, ...]) -> list[int | None]:
    return [d if isinstance(d, int) else None for d in shape]


# -- sizes that are open -------------------------------------------------------------------


def _along_at_run_time(
    b: Builder, g: ir.Value, x: ir.Value, axis: int, matrix: ir.Value
) -> ir.Value:
    """Returns `result[.., j, ..] = sum_i g[.., i, ..] matrix[i, j]` for one axis."""
    rank = rank_of(g)
    shape = list(dims_of(g))
    shape[axis] = dims_of(x)[axis]
    if axis == rank - 2:
        left = b.transpose(matrix, [1, 0])
        return b.op("MatMul", left, g, shape=shape)
    perm = list(range(rank))
    perm[axis], perm[-1] = perm[-1], perm[axis]
    moved = b.transpose(g, perm)
    product = b.op("MatMul", moved, matrix, shape=[shape[i] for i in perm])
    return b.transpose(product, perm)


def _matrix_at_run_time(b: Builder, g: ir.Value, x: ir.Value, axis: _Axis) -> ir.Value:
    """Returns A `[count, size]` of an axis, made by the graph.

    Raises:
        Refused: the way it interpolates needs the sizes at compile time.
    """
    if axis.mode not in ("nearest", "linear") or attribute(axis.node, "antialias", 0):
        raise Refused(_needs_sizes(axis))
    size, count = b.size(x, axis.index), b.size(g, axis.index)
    columns = b.unsqueeze(b.count_up(size), [0])
    # As in `_Axis.matrix`: which element is nearest is decided in 32 bits.
    kind = ir.DataType.FLOAT if axis.mode == "nearest" else ir.DataType.DOUBLE
    at = _positions_at_run_time(b, axis, size, count, kind)
    if axis.mode == "nearest":
        at = _ROUNDINGS_AT_RUN_TIME[axis.rounding](b, at)
    last = b.cast(b.sub(size, b.ints(1)), kind)
    inside = b.elementwise("Min", b.elementwise("Max", at, 0), last)
    rows = b.unsqueeze(inside, [1])
    if axis.mode == "nearest":
        return b.cast(b.elementwise("Equal", b.cast(rows, ir.DataType.INT64), columns), dtype_of(g))
    distance = b.cast(b.sub(rows, b.cast(columns, kind)), dtype_of(g))
    return b.elementwise("Relu", b.sub(1, b.elementwise("Abs", distance)))


def _positions_at_run_time(
    b: Builder, axis: _Axis, size: ir.Value, count: ir.Value, kind: ir.DataType
) -> ir.Value:
    """Returns where the elements of y lie along x, `[count]`; see `_Axis._positions`."""
    i, n, m = (b.cast(v, kind) for v in (b.count_up(count), size, count))
    match axis.transform:
        case "half_pixel":
            return b.sub(b.div(b.add(i, 0.5), _scale_at_run_time(b, axis, n, m)), 0.5)
        case "tf_half_pixel_for_nn":
            return b.div(b.add(i, 0.5), _scale_at_run_time(b, axis, n, m))
        case "asymmetric":
            return b.div(i, _scale_at_run_time(b, axis, n, m))
        case "align_corners":
            # A single element lies at 0, whatever is divided by.
            return b.div(b.mul(i, b.sub(n, 1)), b.elementwise("Max", b.sub(m, 1), 1))
    raise Refused(_needs_sizes(axis))


def _scale_at_run_time(b: Builder, axis: _Axis, size: ir.Value, count: ir.Value) -> ir.Value:
    """Returns the scale of an axis, `[1]`."""
    if axis.scale is not None:
        return b.const([axis.scale], dtype_of(size))
    scales = optional(axis.node, 2)
    if scales is None or shape_of(scales) == (0,):
        return b.div(count, size)
    chosen = attribute(axis.node, "axes")
    rank = rank_of(inputs(axis.node)[0])
    position = axis.index if chosen is None else [a % rank for a in chosen].index(axis.index)
    return b.cast(b.op("Gather", scales, b.ints(position), shape=[1], axis=0), dtype_of(size))


def _needs_sizes(axis: _Axis) -> str:
    return (
        f"the size of its axis {axis.index} is known at run time only, which does not do for "
        f"mode {axis.mode!r} with {_TRANSFORM} {axis.transform!r}; give the model's Input fixed "
        "sizes"
    )


_TRANSFORM = "coordinate_transformation_mode"
_CROP = "tf_crop_and_resize"

_ROUNDINGS: dict[str, Callable[[_Coordinates], _Coordinates]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}

_ROUNDINGS_AT_RUN_TIME: dict[str, Callable[[Builder, ir.Value], ir.Value]] = {
    "round_prefer_floor": lambda b, at: b.elementwise("Ceil", b.sub(at, 0.5)),
    "round_prefer_ceil": lambda b, at: b.elementwise("Floor", b.add(at, 0.5)),
    "floor": lambda b, at: b.elementwise("Floor", at),
    "ceil": lambda b, at: b.elementwise("Ceil", at),
}

#: What makes of a whole scale a repetition: the nearest element is the one a block began with.
_REPEATS = {
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
    ("tf_half_pixel_for_nn", "floor"),
}
