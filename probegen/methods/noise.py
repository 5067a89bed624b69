"""Normal noise that the graph makes by itself: the same numbers in every runtime, and each time.

A number depends on the seed, on which draw it is, on which tensor it is for and on where in the
tensor it stands, and on nothing else: not on the row of the batch, nor on what else is in it.

The number of an element, 24 bits, goes through a Feistel network of six rounds, each of which adds
to one half of the bits the middle bits of the square of the other half plus a key. The keys are
those of the draw. That maps the numbers of elements one to one on numbers without a pattern, of
which Box and Muller's formula makes normal ones. All of it is whole numbers below 2^24, which
float32 holds exactly, with sums, products and `floor` alone: no runtime rounds them, as OpenVINO
does with whole numbers of 32 bits. Only the last step, a logarithm and a cosine, may differ in the
last digit.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from probegen.methods.operations import Operations, T

#: Half of the bits of a number, and how many rounds mix the halves.
_HALF, ROUNDS = 4096, 6


def keys_of_draws(seed: int, draws: int) -> tuple[npt.NDArray[np.float32], ...]:
    """Returns the keys of each draw: an array `[draws]` for each round."""
    rows = [_words(f"draw {draw} of seed {seed}") for draw in range(draws)]
    return tuple(np.asarray(column, np.float32) for column in zip(*rows, strict=True))


def keys_of_tensor(number: int) -> tuple[float, ...]:
    """Returns what the keys of the tensor with a number differ by from those of a draw."""
    return tuple(float(w) for w in _words(f"tensor {number}"))


def halves(ops: Operations[T], like: T, axes: Sequence[int]) -> tuple[T, T]:
    """Returns the numbers of the elements of a tensor along some axes, as two halves of bits.

    Args:
        ops: the array operations.
        like: the tensor.
        axes: all but that of the samples.
    """
    numbers = ops.numbered(ops.widened(like), axes)
    high = ops.floor(ops.mul(numbers, 1 / _HALF))
    return _wrapped(ops, high), ops.sub(numbers, ops.mul(high, float(_HALF)))


def normal_noise(ops: Operations[T], numbers: tuple[T, T], keys: Sequence[T], tensor: int) -> T:
    """Returns normal noise, of mean 0 and variance 1, along the axes that elements are numbered in.

    Args:
        ops: the array operations.
        numbers: what `halves` returned.
        keys: those of the draw, one a round.
        tensor: the number of the tensor that the noise is for.
    """
    high, low = numbers
    for key, own in zip(keys, keys_of_tensor(tensor), strict=True):
        mixed = _wrapped(ops, ops.add(low, ops.add(ops.cast(key, low), own)))
        middle = ops.floor(ops.mul(ops.mul(mixed, mixed), 1 / 64))
        high, low = low, _wrapped(ops, ops.add(high, middle))
    first, second = (ops.mul(ops.add(half, 0.5), 1 / _HALF) for half in (high, low))
    radius = ops.sqrt(ops.mul(ops.log(first), -2.0))
    return ops.mul(radius, ops.cos(ops.mul(second, 2 * math.pi)))


def uniform(seed: int, label: str, count: int) -> list[float]:
    """Returns numbers in [0, 1) for tables that are stored: by a hash, as generators may change."""
    hashes = (hashlib.sha256(f"{label} {i} of seed {seed}".encode()) for i in range(count))
    return [int.from_bytes(h.digest()[:6], "big") / 2**48 for h in hashes]


def permutation(seed: int, label: str, count: int) -> list[int]:
    """Returns the numbers below `count` in an order that the seed says."""
    drawn = uniform(seed, label, count)
    return sorted(range(count), key=drawn.__getitem__)


def _wrapped(ops: Operations[T], x: T) -> T:
    """Returns the lower half of the bits of whole numbers."""
    return ops.sub(x, ops.mul(ops.floor(ops.mul(x, 1 / _HALF)), float(_HALF)))


def _words(text: str) -> list[int]:
    digest = hashlib.sha256(text.encode()).digest()
    return [int.from_bytes(digest[2 * i : 2 * i + 2], "big") % _HALF for i in range(ROUNDS)]
