"""Naive numpy twins of the gradients of spatial operators: one loop over windows, any rank.

Arrays are `[batch, channels, *spatial]`. A geometry is a `Geometry`; padding is what stands
before and after, so that every window lies within the padded input.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Geometry:
    """Windows over the spatial axes, one number an axis."""

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    before: Sequence[int]
    after: Sequence[int]

    @classmethod
    def of(
        cls, sizes: Sequence[int], kernel: Sequence[int], attributes: dict[str, Any]
    ) -> Geometry:
        """Reads the attributes of a node over an input of the given spatial sizes."""
        rank = len(kernel)
        strides = attributes.get("strides", [1] * rank)
        dilations = attributes.get("dilations", [1] * rank)
        pads = attributes.get("pads", [0] * (2 * rank))
        before, after = list(pads[:rank]), list(pads[rank:])
        if attributes.get("auto_pad", "").startswith("SAME"):
            for i, size in enumerate(sizes):
                windows = -(-size // strides[i])
                extent = dilations[i] * (kernel[i] - 1) + 1
                total = max((windows - 1) * strides[i] + extent - size, 0)
                before[i], after[i] = total // 2, total - total // 2
                if attributes["auto_pad"] == "SAME_LOWER":
                    before[i], after[i] = after[i], before[i]
        return cls(kernel, strides, dilations, before, after)

    def windows(self, counts: Sequence[int]) -> Iterator[tuple[tuple, tuple, tuple]]:
        """Yields output position, kernel position and position in the padded input."""
        for o in itertools.product(*(range(n) for n in counts)):
            for t in itertools.product(*(range(k) for k in self.kernel)):
                at = tuple(
                    s * i + d * j
                    for s, d, i, j in zip(self.strides, self.dilations, o, t, strict=True)
                )
                yield o, t, at

    def padded(self, x: Array, value: float = 0.0) -> Array:
        """Returns `x` with its padding, and with room for windows that reach beyond it."""
        room = [e * d for e, d in zip(self.kernel, self.dilations, strict=True)]
        after = [a + r for a, r in zip(self.after, room, strict=True)]
        widths = [(0, 0), (0, 0), *zip(self.before, after, strict=True)]
        return np.pad(x, widths, constant_values=value)

    def cropped(self, padded: Array, sizes: Sequence[int]) -> Array:
        """Returns what lies at the input within a padded array."""
        cut = tuple(slice(p, p + n) for p, n in zip(self.before, sizes, strict=True))
        return padded[(slice(None), slice(None), *cut)]


def convolution_gradients(
    dy: Array, x: Array, w: Array, attributes: dict[str, Any]
) -> tuple[Array, Array, Array]:
    """Returns the gradients of input, kernel `[M, C/group, *k]` and bias of a Conv."""
    geometry = Geometry.of(x.shape[2:], w.shape[2:], attributes)
    group = attributes.get("group", 1)
    xp = geometry.padded(x)
    dx, dw = np.zeros_like(xp), np.zeros_like(w)
    outs, ins = w.shape[0] // group, w.shape[1]
    for o, t, at in geometry.windows(dy.shape[2:]):
        for i in range(group):
            m, c = slice(i * outs, (i + 1) * outs), slice(i * ins, (i + 1) * ins)
            here, there = (slice(None), c, *at), (slice(None), m, *o)
            tap = (m, slice(None), *t)
            dx[here] += dy[there] @ w[tap]
            dw[tap] += dy[there].T @ xp[here]
    return geometry.cropped(dx, x.shape[2:]), dw, dy.sum(axis=(0, *range(2, dy.ndim)))


def transposed_convolution_gradients(
    dy: Array, x: Array, w: Array, attributes: dict[str, Any], before: Sequence[int]
) -> tuple[Array, Array, Array]:
    """Returns the gradients of input, kernel `[C, M/group, *k]` and bias of a ConvTranspose.

    `before` is what is cut from the start of the full output.
    """
    none = [0] * len(before)
    geometry = Geometry.of(x.shape[2:], w.shape[2:], attributes)
    geometry = dataclasses.replace(geometry, before=before, after=none)
    group = attributes.get("group", 1)
    full = [
        s * n + d * k
        for s, n, d, k in zip(
            geometry.strides, x.shape[2:], geometry.dilations, w.shape[2:], strict=True
        )
    ]
    dyp = np.zeros((*dy.shape[:2], *(f + 8 for f in full)))
    geometry.cropped(dyp, dy.shape[2:])[...] = dy
    dx, dw = np.zeros_like(x), np.zeros_like(w)
    ins, outs = w.shape[0] // group, w.shape[1]
    for o, t, at in geometry.windows(x.shape[2:]):
        for i in range(group):
            c, m = slice(i * ins, (i + 1) * ins), slice(i * outs, (i + 1) * outs)
            tap = (c, slice(None), *t)
            dx[(slice(None), c, *o)] += dyp[(slice(None), m, *at)] @ w[tap].T
            dw[tap] += x[(slice(None), c, *o)].T @ dyp[(slice(None), m, *at)]
    return dx, dw, dy.sum(axis=(0, *range(2, dy.ndim)))


def max_pool_gradient(dy: Array, x: Array, attributes: dict[str, Any]) -> Array:
    """Returns the gradient of a MaxPool's input: all to the first greatest of each window."""
    geometry = Geometry.of(x.shape[2:], attributes["kernel_shape"], attributes)
    xp = geometry.padded(x, -np.inf)
    dx = np.zeros_like(xp)
    best: dict[tuple, tuple[float, tuple]] = {}
    for o, _, at in geometry.windows(dy.shape[2:]):
        for lead in np.ndindex(*x.shape[:2]):
            value = xp[lead + at]
            if lead + o not in best or value > best[lead + o][0]:
                best[lead + o] = value, lead + at
    for window, (_, at) in best.items():
        dx[at] += dy[window]
    return geometry.cropped(dx, x.shape[2:])


def average_pool_gradient(dy: Array, x: Array, attributes: dict[str, Any]) -> Array:
    """Returns the gradient of an AveragePool's input."""
    geometry = Geometry.of(x.shape[2:], attributes["kernel_shape"], attributes)
    with_padding = attributes.get("count_include_pad", 0)
    inside = np.ones(x.shape[2:])
    if with_padding:
        inside = np.pad(
            inside, list(zip(geometry.before, geometry.after, strict=True)), constant_values=1
        )
        room = dataclasses.replace(geometry, before=[0] * inside.ndim, after=[0] * inside.ndim)
        inside = room.padded(inside[None, None])[0, 0]
    else:
        inside = geometry.padded(inside[None, None])[0, 0]
    counts = np.zeros(dy.shape[2:])
    for o, _, at in geometry.windows(dy.shape[2:]):
        counts[o] += inside[at]
    dx = np.zeros_like(geometry.padded(x))
    for o, _, at in geometry.windows(dy.shape[2:]):
        dx[(slice(None), slice(None), *at)] += dy[(slice(None), slice(None), *o)] / counts[o]
    return geometry.cropped(dx, x.shape[2:])


def pad_gradient(dy: Array, x: Array, widths: Sequence[tuple[int, int]], mode: str) -> Array:
    """Returns the gradient of a Pad's input: each element gathers from wherever it went."""
    source = np.arange(x.size).reshape(x.shape)
    cut = tuple(
        slice(max(-low, 0), n - max(-high, 0))
        for (low, high), n in zip(widths, x.shape, strict=True)
    )
    grown = [(max(low, 0), max(high, 0)) for low, high in widths]
    options = {"constant_values": -1} if mode == "constant" else {}
    source = np.pad(source[cut], grown, mode=mode, **options)
    dx = np.zeros(x.size + 1)
    np.add.at(dx, source, dy)
    return dx[:-1].reshape(x.shape)
