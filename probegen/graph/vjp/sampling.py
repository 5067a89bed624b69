"""Rules of operators that read an image between its pixels.

The image is `[batch, channel, *in]`. A place of it is one coordinate an axis, in pixels; the
value there is a weighted sum of the pixels around. Weights and places have gradients, the choice
of pixels has none. Pixels are gathered with the channels last, so that one index serves all.

Of 16 bits all is done in 32: they cannot number the pixels of a row longer than 2048.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.graph.autodiff import Refused, Rule
from probegen.graph.core.builder import Builder, Size
from probegen.graph.core.values import Dim, attribute, dims_of, dtype_of, rank_of, shape_of
from probegen.graph.vjp.common import inputs, optional, required_ints, widened
from probegen.graph.vjp.decomposition import decomposed
from probegen.graph.vjp.spatial import known

_INT64 = ir.DataType.INT64

#: A pixel index along one axis, a weight for it, and whether the pixel exists (None: always).
_Tap = tuple[ir.Value, ir.Value | None, ir.Value | None]


class _Image:
    """An image, ready to be read at pixels.

    Attributes:
        b: the builder.
        sizes: of its spatial axes, as scalars of the image's element type.
    """

    def __init__(self, b: Builder, x: ir.Value) -> None:
        self.b = b
        self._x = x
        rank = rank_of(x)
        self._axes = rank - 2
        last = b.transpose(x, [0, *range(2, rank), 1])
        self._pixels = b.reshape(last, [(x, 0), -1, (x, 1)])
        self._counts = [b.squeeze(b.size(x, 2 + i), [0]) for i in range(self._axes)]
        self.sizes = [b.cast(count, dtype_of(x)) for count in self._counts]

    def read(self, taps: Sequence[Sequence[_Tap]]) -> ir.Value:
        """Returns the sum of pixels times weights, `[batch, places, channel]`.

        Args:
            taps: of each axis those that count, all of the shape `[batch, places]`; a pixel of
                the sum is one of each axis. Absent pixels count as 0.
        """
        b, rank = self.b, len(taps)
        flat: ir.Value | None = None
        weight: ir.Value | None = None
        for axis, of_axis in enumerate(taps):
            own = [i for i in range(1, 1 + rank) if i != 1 + axis]
            index = b.unsqueeze(_stacked(b, [tap[0] for tap in of_axis]), own)
            size = self._counts[axis]
            inside = b.elementwise("Max", b.elementwise("Min", index, b.sub(size, 1)), 0)
            flat = inside if flat is None else b.add(b.mul(flat, size), inside)
            share = self._weight(of_axis)
            if share is not None:
                wide = b.unsqueeze(share, own)
                weight = wide if weight is None else b.mul(weight, wide)
        if flat is None:
            raise ValueError("an image has axes")
        count = math.prod(len(of_axis) for of_axis in taps)
        batch, places = dims_of(flat)[0], dims_of(flat)[-1]
        channels = dims_of(self._x)[1]
        positions = b.reshape(flat, [(flat, 0), -1, 1])
        shape = [batch, dims_of(positions)[1], channels]
        values = b.op("GatherND", self._pixels, positions, shape=shape, batch_dims=1)
        if count == 1 and weight is None:
            return values
        split: list[Size] = [(flat, 0), count, (flat, rank + 1)]
        apart = b.reshape(values, [*split, (self._x, 1)])
        if weight is not None:
            each = b.reshape(weight, [*split])
            apart = b.mul(apart, b.unsqueeze(each, [3]))
        summed = b.reduce_sum(apart, [1], keepdims=False)
        summed.shape = ir.Shape([batch, places, channels])
        return summed

    def _weight(self, taps: Sequence[_Tap]) -> ir.Value | None:
        """Returns the weights of one axis, `[batch, taps, places]`, None where all are 1."""
        b, dtype = self.b, dtype_of(self._x)
        found = []
        for _, weight, present in taps:
            factors = [b.cast(f, dtype) for f in (weight, present) if f is not None]
            if factors:
                found.append(factors[0] if len(factors) == 1 else b.mul(*factors))
        return _stacked(b, found) if found else None

    def pixel(self, places: Sequence[tuple[ir.Value, int]], batches: ir.Value) -> ir.Value:
        """Returns pixels of one image of the batch each, `[images, rows, columns, channel]`.

        Args:
            places: of each axis the indices `[images, positions]`, and the axis of the result
                along which they are the same.
            batches: which image of the batch, `[images]`.
        """
        b = self.b
        flat = b.unsqueeze(b.cast(batches, _INT64), [1, 2])
        for (index, axis), count in zip(places, self._counts, strict=True):
            flat = b.add(b.mul(flat, count), b.unsqueeze(index, [axis]))
        channels = dims_of(self._x)[1]
        rows = b.reshape(self._pixels, [-1, (self._x, 1)])
        return b.op("Gather", rows, flat, shape=[*dims_of(flat), channels], axis=0)

    def exists(self, index: ir.Value, axis: int) -> ir.Value:
        """Returns where an index is one of a pixel."""
        b = self.b
        low = b.elementwise("GreaterOrEqual", index, 0)
        high = b.elementwise("Less", index, self._counts[axis])
        return b.op("And", low, high, shape=low)


def _stacked(b: Builder, values: Sequence[ir.Value]) -> ir.Value:
    """Returns values `[batch, places]` side by side, `[batch, values, places]`."""
    return b.concat([b.unsqueeze(value, [1]) for value in values], axis=1)


def _index(b: Builder, coordinate: ir.Value) -> ir.Value:
    return b.cast(coordinate, _INT64)


def _sum(b: Builder, values: Sequence[ir.Value]) -> ir.Value:
    total = values[0]
    for value in values[1:]:
        total = b.add(total, value)
    return total


# -- GridSample ------------------------------------------------------------------------------


def _grid_sample(b: Builder, node: ir.Node) -> list[ir.Value]:
    """GridSample: x `[batch, channel, *in]`, grid `[batch, *out, axes]`, the last axis first.

    Jaderberg et al. 2015 (arXiv:1506.02025), as PyTorch's `grid_sample` has it.
    """
    x, grid = (widened(b, value) for value in inputs(node))
    image = _Image(b, x)
    axes = rank_of(x) - 2
    mode = str(attribute(node, "mode", "linear")).removeprefix("bi")
    if mode == "cubic" and axes != 2:
        raise Refused("mode 'cubic' is for images of two axes alone")
    flat = b.reshape(grid, [(grid, 0), -1, axes])
    coordinates = [
        _in_pixels(b, node, _entry(b, flat, axes - 1 - i), image.sizes[i]) for i in range(axes)
    ]
    padding = str(attribute(node, "padding_mode", "zeros"))
    per_axis = [
        _TAPS[mode](b, _Axis(node, image, i, padding), coordinate)
        for i, coordinate in enumerate(coordinates)
    ]
    last = b.transpose(image.read(per_axis), [0, 2, 1])
    out = [(grid, i) for i in range(1, rank_of(grid) - 1)]
    return [b.cast(b.reshape(last, [(x, 0), (x, 1), *out]), dtype_of(inputs(node)[0]))]


class _Axis:
    """One axis of an image as GridSample sees it: which pixel an index beyond the edge means."""

    def __init__(self, node: ir.Node, image: _Image, axis: int, padding: str) -> None:
        self._node, self._image, self._axis, self._padding = node, image, axis, padding

    def bounded(self, coordinate: ir.Value) -> ir.Value:
        """Returns a coordinate brought into the image as the padding says."""
        b, size = self._image.b, self._image.sizes[self._axis]
        last = b.sub(size, 1.0)
        if self._padding == "reflection":
            coordinate = self._reflected(coordinate, size)
        if self._padding in ("reflection", "border"):
            # Along a border the place does not move the value: no gradient goes on.
            low = b.elementwise("Max", coordinate, 0.0)
            return b.elementwise("Min", low, last)
        return coordinate

    def tap(self, index: ir.Value, weight: ir.Value | None) -> _Tap:
        """Returns what one neighbour adds; nothing where it lies beyond the edge, with zeros."""
        b = self._image.b
        place = _index(b, index)
        present = self._image.exists(place, self._axis) if self._padding == "zeros" else None
        return place, weight, present

    def _reflected(self, coordinate: ir.Value, size: ir.Value) -> ir.Value:
        """Folds a coordinate at the centres of the outer pixels, or at their outer edges."""
        b = self._image.b
        aligned = bool(attribute(self._node, "align_corners", 0))
        low = 0.0 if aligned else -0.5
        span = b.sub(size, 1.0) if aligned else size
        span = b.elementwise("Max", span, 1e-6)  # a single pixel has no way to go
        away = b.elementwise("Abs", b.sub(coordinate, low))
        turns = b.elementwise("Floor", b.div(away, span))
        rest = b.sub(away, b.mul(turns, span))
        odd = b.sub(turns, b.mul(b.elementwise("Floor", b.mul(turns, 0.5)), 2.0))
        back = b.elementwise("Greater", odd, 0.5)
        return b.add(b.where(back, b.sub(span, rest), rest), low)


def _in_pixels(b: Builder, node: ir.Node, place: ir.Value, size: ir.Value) -> ir.Value:
    """Returns the pixel coordinate of a place from -1 to 1."""
    place = b.cast(place, dtype_of(size))
    if attribute(node, "align_corners", 0):
        return b.mul(b.mul(b.add(place, 1.0), 0.5), b.sub(size, 1.0))
    return b.mul(b.sub(b.mul(b.add(place, 1.0), size), 1.0), 0.5)


def _entry(b: Builder, value: ir.Value, position: int) -> ir.Value:
    """Returns one entry of the last axis."""
    index = b.const(position, _INT64)
    return b.op("Gather", value, index, shape=dims_of(value)[:-1], axis=rank_of(value) - 1)


def _nearest(b: Builder, axis: _Axis, coordinate: ir.Value) -> list[_Tap]:
    return [axis.tap(axis.bounded(b.elementwise("Round", axis.bounded(coordinate))), None)]


def _linear(b: Builder, axis: _Axis, coordinate: ir.Value) -> list[_Tap]:
    at = axis.bounded(coordinate)
    left = b.elementwise("Floor", at)
    share = b.sub(at, left)
    return [axis.tap(left, b.sub(1.0, share)), axis.tap(b.add(left, 1.0), share)]


def _cubic(b: Builder, axis: _Axis, coordinate: ir.Value) -> list[_Tap]:
    """Keys' kernel (1981) with -3/4, over four pixels; each is padded by itself."""
    left = b.elementwise("Floor", coordinate)
    share = b.sub(coordinate, left)
    taps = []
    for offset in (-1, 0, 1, 2):
        distance = b.sub(share, float(offset)) if offset <= 0 else b.sub(float(offset), share)
        weight = keys_kernel(b, distance, -0.75, far=offset in (-1, 2))
        taps.append(axis.tap(axis.bounded(b.add(left, float(offset))), weight))
    return taps


def keys_kernel(b: Builder, d: ir.Value, a: float, *, far: bool) -> ir.Value:
    """Writes Keys' kernel (1981) at distances from 0 to 1, or from 1 to 2 where `far`."""
    c3, c2, c1, c0 = (a, -5 * a, 8 * a, -4 * a) if far else (a + 2, -(a + 3), 0.0, 1.0)
    polynomial = b.add(b.mul(b.add(b.mul(d, c3), c2), d), c1)
    return b.add(b.mul(polynomial, d), c0)


_TAPS: Mapping[str, Callable[[Builder, _Axis, ir.Value], list[_Tap]]] = {
    "nearest": _nearest,
    "linear": _linear,
    "cubic": _cubic,
}


def _affine_grid(b: Builder, node: ir.Node) -> list[ir.Value]:
    """AffineGrid: theta `[batch, axes, axes + 1]` -> places `[batch, *out, axes]`, linear in it."""
    theta, size = inputs(node)
    told = [d for d in (shape_of(node.outputs[0]) or ())[1:-1] if isinstance(d, int)]
    # Sizes that are read of a picture are known of the result alone, where its samples are open.
    out = told if len(told) == dims_of(theta)[1] else required_ints(size, "its sizes")[2:]
    aligned = bool(attribute(node, "align_corners", 0))
    along = [_from_minus_one(n, aligned=aligned) for n in out]
    # The last axis of the image comes first.
    places = [grid.reshape(-1) for grid in reversed(np.meshgrid(*along, indexing="ij"))]
    rows = b.const(np.stack([*places, np.ones_like(places[0])], axis=1), dtype_of(theta))
    count, axes = len(places[0]), len(out)
    turned = b.transpose(theta, [0, 2, 1])
    shape = [dims_of(theta)[0], count, axes]
    grid = b.op("MatMul", rows, turned, shape=shape)
    return [b.reshape(grid, [(theta, 0), *out, axes])]


def _from_minus_one(count: int, *, aligned: bool) -> npt.NDArray[np.float64]:
    """Returns the middles of pixels from -1 to 1, or from one outer middle to the other."""
    if not aligned:
        return (2 * np.arange(count) + 1) / count - 1
    return np.linspace(-1, 1, count) if count > 1 else np.zeros(1)


# -- DeformConv ------------------------------------------------------------------------------


def _deformable_convolution(b: Builder, node: ir.Node) -> list[ir.Value]:
    """DeformConv: x `[batch, C, *in]`, w `[M, C/group, *k]`, y `[batch, M, *out]`.

    Each tap of the kernel reads the image at its usual place plus an offset, `[batch,
    groups*taps*axes, *out]`, times a mask `[batch, groups*taps, *out]`; pixels outside are 0
    (Dai et al. 2017, arXiv:1703.06211; Zhu et al. 2019, arXiv:1811.11168).
    """
    x, w, offset = (widened(b, value) for value in inputs(node)[:3])
    bias, mask = (
        None if value is None else widened(b, value)
        for value in (optional(node, 3), optional(node, 4))
    )
    kernel = [known(d if isinstance(d, int) else None) for d in dims_of(w)[2:]]
    channels = known(_number(dims_of(x)[1]))
    taps, rank = math.prod(kernel), len(kernel)
    group, groups = (int(attribute(node, n, 1)) for n in ("group", "offset_group"))
    out = [known(_number(d)) for d in dims_of(offset)[2:]]
    places = math.prod(out)
    usual = _usual_places(b, node, kernel, out, dtype_of(x))
    apart = b.reshape(offset, [(x, 0), groups, taps, rank, places])
    strengths = None if mask is None else b.reshape(mask, [(x, 0), groups, taps * places])
    each = channels // groups
    read = []
    for position in range(groups):
        part = x if groups == 1 else b.slice(x, 1, position * each, (position + 1) * each)
        image = _Image(b, part)
        of_group = _along(b, apart, 1, position)
        coordinates = [
            b.reshape(b.add(_along(b, of_group, 2, i), usual[i]), [(x, 0), taps * places])
            for i in range(rank)
        ]
        per_axis = [_between(b, image, i, at) for i, at in enumerate(coordinates)]
        values = image.read(per_axis)
        if strengths is not None:
            values = b.mul(values, b.unsqueeze(_along(b, strengths, 1, position), [2]))
        read.append(b.reshape(values, [(x, 0), taps, places, each]))
    columns = b.concat(read, 3)
    weights = b.reshape(w, [(w, 0), (w, 1), taps])
    y = _products(b, columns, weights, group)
    y = b.reshape(y, [(x, 0), (w, 0), *out])
    if bias is not None:
        y = b.add(y, b.reshape(bias, [-1, *[1] * rank]))
    return [b.cast(y, dtype_of(inputs(node)[0]))]


def _usual_places(
    b: Builder, node: ir.Node, kernel: Sequence[int], out: Sequence[int], dtype: ir.DataType
) -> list[ir.Value]:
    """Returns where the taps read without offsets: one coordinate an axis, `[taps, places]`."""
    rank = len(kernel)
    pads = attribute(node, "pads") or [0] * (2 * rank)
    strides, dilations = (attribute(node, n) or [1] * rank for n in ("strides", "dilations"))
    found = []
    for i in range(rank):
        of_tap, of_place = np.indices(kernel)[i].reshape(-1), np.indices(out)[i].reshape(-1)
        at = of_tap[:, None] * dilations[i] + of_place * strides[i] - pads[i]
        found.append(b.const(at, dtype))
    return found


def _between(b: Builder, image: _Image, axis: int, at: ir.Value) -> list[_Tap]:
    """Returns the two pixels around a coordinate; one outside counts as 0."""
    left = b.elementwise("Floor", at)
    share = b.sub(at, left)
    taps: list[_Tap] = []
    for index, weight in ((left, b.sub(1.0, share)), (b.add(left, 1.0), share)):
        place = _index(b, index)
        taps.append((place, weight, image.exists(place, axis)))
    return taps


def _products(b: Builder, columns: ir.Value, weights: ir.Value, group: int) -> ir.Value:
    """Returns the sums over taps and channels, `[batch, M, places]`, of each group by itself."""
    batch, _, places, channels = dims_of(columns)
    maps = known(_number(dims_of(weights)[0]))
    each, own = known(_number(channels)) // group, maps // group
    parts = []
    for g in range(group):
        of_group = columns if group == 1 else b.slice(columns, 3, g * each, (g + 1) * each)
        kernel = weights if group == 1 else b.slice(weights, 0, g * own, (g + 1) * own)
        equation, shape = "bkpc,mck->bmp", [batch, own, places]
        parts.append(b.op("Einsum", of_group, kernel, shape=shape, equation=equation))
    return b.concat(parts, 1)


def _along(b: Builder, value: ir.Value, axis: int, position: int) -> ir.Value:
    """Returns one entry of an axis."""
    shape = [d for i, d in enumerate(dims_of(value)) if i != axis]
    return b.op("Gather", value, b.const(position, _INT64), shape=shape, axis=axis)


def _number(size: Dim) -> int | None:
    return size if isinstance(size, int) else None


# -- RoiAlign --------------------------------------------------------------------------------


def _roi_align(b: Builder, node: ir.Node) -> list[ir.Value]:
    """RoiAlign: x `[batch, C, height, width]`, regions `[regions, 4]` -> `[regions, C, *out]`.

    Every cell of a region is the mean (or the greatest) of the image at some places between its
    pixels (He et al. 2017, arXiv:1703.06870).
    """
    x, regions, batches = (widened(b, value) for value in inputs(node))
    ratio = int(attribute(node, "sampling_ratio", 0))
    if ratio <= 0:
        raise Refused(
            "its sampling_ratio is 0: how many places it reads depends on the region; give a number"
        )
    scale = float(attribute(node, "spatial_scale", 1.0))
    out = [int(attribute(node, f"output_{name}", 1)) for name in ("height", "width")]
    shifted = attribute(node, "coordinate_transformation_mode", "half_pixel") == "half_pixel"
    corners = b.mul(b.cast(regions, dtype_of(x)), scale)
    if shifted:
        corners = b.sub(corners, 0.5)
    image = _Image(b, x)
    taps, present = [], []
    for axis in range(2):
        start, end = (_along(b, corners, 1, i) for i in (1 - axis, 3 - axis))
        extent = b.sub(end, start)
        if not shifted:
            extent = b.elementwise("Max", extent, 1.0)
        steps = out[axis] * ratio
        shares = b.const((np.arange(steps) + 0.5) / steps, dtype_of(x))
        at = b.add(b.mul(b.unsqueeze(extent, [1]), shares), b.unsqueeze(start, [1]))
        size = image.sizes[axis]
        inside = b.op(
            "And",
            b.elementwise("GreaterOrEqual", at, -1.0),
            b.elementwise("LessOrEqual", at, size),
            shape=at,
            dtype=ir.DataType.BOOL,
        )
        last = b.sub(size, 1.0)
        at = b.elementwise("Min", b.elementwise("Max", at, 0.0), last)
        low = b.elementwise("Floor", at)
        share = b.sub(at, low)
        high = b.elementwise("Min", b.add(low, 1.0), last)
        taps.append([(_index(b, low), b.sub(1.0, share)), (_index(b, high), share)])
        present.append(b.cast(inside, dtype_of(x)))
    rows, columns = (b.unsqueeze(p, [i]) for p, i in zip(present, (2, 1), strict=True))
    products = []
    for (row, row_weight), (column, column_weight) in itertools.product(*taps):
        weight = b.mul(b.unsqueeze(row_weight, [2]), b.unsqueeze(column_weight, [1]))
        weight = b.mul(weight, b.mul(rows, columns))
        pixel = image.pixel([(row, 2), (column, 1)], batches)
        products.append(b.mul(pixel, b.unsqueeze(weight, [3])))
    greatest = attribute(node, "mode", "avg") == "max"
    values = b.elementwise("Max", *products) if greatest else _sum(b, products)
    cells = b.reshape(values, [(regions, 0), out[0], ratio, out[1], ratio, (x, 1)])
    reduced = b.reduce("ReduceMax" if greatest else "ReduceMean", cells, [2, 4], keepdims=False)
    return [b.cast(b.transpose(reduced, [0, 3, 1, 2]), dtype_of(inputs(node)[0]))]


RULES: Mapping[str, Rule] = {
    "AffineGrid": decomposed(_affine_grid),
    "DeformConv": decomposed(_deformable_convolution),
    "RoiAlign": decomposed(_roi_align),
    "GridSample": decomposed(_grid_sample),
}
