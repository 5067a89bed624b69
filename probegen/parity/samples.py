"""Inputs to verify on: ordinary samples, hard ones, and variants of what a user gave.

An artefact that is right at one batch size, one length and normal random numbers may be wrong
at others. So there are two calls of different batch sizes and different open sizes, none of
them a size that the model has itself, and some rows are hard: they stand where operations have
edges (zeros, padding, ties, huge values, integers next to a boundary).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import InputSpec, Manifest
from probegen.artefact.preprocessing import Preprocessing
from probegen.artefact.rows import (
    BATCH,
    as_described,
    batch_axis,
    count_rows,
    fixed_batch,
    rows_first,
    without_batch,
)
from probegen.artefact.texts import MASK

Array = npt.NDArray[Any]

DEFAULT_SAMPLES = 3

ORDINARY, ZEROS, LARGE, TIES = "ordinary", "zeros", "large values", "ties and padding"
VARIANT, PADDED = "other size", "padded"
#: Rows of the two calls, as far as their batches go; more rows are ordinary.
_ROWS = ((ORDINARY, ORDINARY, ZEROS, LARGE), (ORDINARY, TIES))
#: With a fixed batch the rows of its calls, in order.
_FIXED_ROWS = (ORDINARY, ORDINARY, TIES, ZEROS, LARGE)
#: Batch sizes in order of preference, of the first and the second call.
_BATCHES = ((4, 5, 6, 7, 9, 10, 11), (2, 3, 5, 7, 9, 10, 11))

#: How large "large values" are, by the element type that the model computes in.
_LARGE = {"float64": 100.0, "float32": 100.0, "float16": 8.0, "bfloat16": 100.0}
_TIED = np.array([-2.0, -1.0, 0.0, 0.5, 1.0, 1.0])
_WHOLE = np.array([-3, -2, -1, 0, 1, 2, 3, 7])
_BYTES = 256
_WORDS = ("", "a", "the", "Model", "x1")

#: Sizes of open axes of images and volumes, in order of preference; all are multiples of 16.
#: A size that is asked for and too small for the model is doubled, up to `_RUNGS` times.
_SPATIAL = {
    "height": (64, 48, 80, 112, 144, 176, 208),
    "width": (48, 80, 64, 112, 144, 176, 208),
    "depth": (16, 48, 80, 112, 144, 176, 208),
}
#: A size between those: what is resized comes as much larger or smaller as they are than this.
_USUAL = 57
_SPATIAL_AGAIN = {
    "height": (32, 48, 80, 112, 144, 176, 208),
    "width": (80, 48, 112, 64, 144, 176, 208),
    "depth": (32, 16, 48, 80, 112, 144, 176),
}
#: Sizes for methods that run the model once a position: all are multiples of 4.
_FEW_POSITIONS = {
    "height": (12, 20, 28, 36, 8),
    "width": (8, 20, 12, 28, 36),
    "depth": (4, 8, 12, 20, 28),
}
_FEW_POSITIONS_AGAIN = {
    "height": (8, 28, 20, 12, 36),
    "width": (16, 12, 20, 28, 36),
    "depth": (8, 4, 12, 20, 28),
}
#: Lengths of all other open axes, which have one size, since lengths of sequences and masks must
#: agree. So has an input that is open along one axis only and not alone.
_LENGTHS = ((13, 11, 17, 19, 23, 29), (10, 14, 15, 18, 21, 22))
_LONGER = ((32, 96, 160), (48, 80, 112))
_RUNGS = 9
#: How open axes of given samples change; long ones are cropped rather than made longer still.
_FACTORS, _LONG = (0.6, 2.3), 32


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the open axes of one call.

    Attributes:
        named: of axes of images and volumes, by name.
        length: of all others.
        before: of what states hold of the steps before; a series may begin.
    """

    named: Mapping[str, int]
    length: int
    before: int = 1


@dataclasses.dataclass(frozen=True)
class Batch:
    """The inputs of one call.

    Attributes:
        feed: input name -> array.
        rows: what each row is.
        source: for each row the given sample that it comes from, where samples were given.
    """

    feed: dict[str, Array]
    rows: tuple[str, ...]
    source: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """The number of rows."""
        return len(self.rows)

    @property
    def hard(self) -> list[bool]:
        """Which rows are hard."""
        return [row != ORDINARY for row in self.rows]

    @property
    def ordinary(self) -> list[int]:
        """The rows that are not hard, by number."""
        return [i for i, hard in enumerate(self.hard) if not hard]

    def labels(self, place: int) -> tuple[str, ...]:
        """Returns what to call each row in a message."""
        return tuple(
            f"sample {i} of call {place} (batch {self.size}, {row})"
            for i, row in enumerate(self.rows)
        )


# -- generated samples -------------------------------------------------------------------------


def generate_samples(
    described: Manifest, rng: np.random.Generator, count: int = DEFAULT_SAMPLES
) -> dict[str, Array]:
    """Returns random inputs that fit a manifest: normal floats, tokens within the vocabulary."""
    sizes = Sizes({name: known[0] for name, known in _SPATIAL.items()}, _LENGTHS[0][0])
    return draw(described, [ORDINARY] * (fixed_batch(described.inputs) or count), sizes, rng).feed


def planned_rows(described: Manifest, own: Collection[int]) -> list[tuple[str, ...]]:
    """Returns what the rows of each call are.

    Args:
        described: says whether the batch is fixed.
        own: sizes that the model has, which no batch should have.
    """
    fixed = fixed_batch(described.inputs)
    if fixed is not None:
        rows: tuple[str, ...] = _FIXED_ROWS[1:] if fixed > 1 else _FIXED_ROWS
        if fixed < len(rows):
            short = -len(rows) % fixed
            rows = (*rows, *[ORDINARY] * short)
            return [tuple(rows[i : i + fixed]) for i in range(0, len(rows), fixed)]
        return [(*rows, *[ORDINARY] * (fixed - len(rows)))] * 2
    taken = set(own)
    planned = []
    for sizes, kinds in zip(_BATCHES, _ROWS, strict=True):
        size = next((s for s in sizes if s not in taken), sizes[0])
        taken.add(size)
        spare = [ORDINARY] * max(0, size - len(kinds))
        planned.append((*spare, *kinds)[-size:])
    return planned


def other_batch(count: int, own: Collection[int]) -> int:
    """Returns a small batch size other than `count` and, if there is one, than the model's."""
    return next((s for s in _BATCHES[1] if s != count and s not in own), 2 if count != 2 else 3)


def is_open(described: Manifest) -> bool:
    """Tells whether an axis other than the batch is open."""
    return any(None in sample_shape(i) for i in described.inputs)


def rungs(own: Collection[int]) -> Iterator[tuple[Sizes, Sizes]]:
    """Yields pairs of open sizes to try, larger and larger ones.

    The two of a pair differ in every axis, and from the sizes that the model has itself.
    """
    free = [[n for n in each if n not in own] for each in _LENGTHS]
    one, other = (each[0] for each in (free if all(free) else _LENGTHS))
    for rung in range(_RUNGS):
        factor = 2**rung
        first = _spatial(_SPATIAL, factor, own, {})
        second = _spatial(_SPATIAL_AGAIN, factor, own, first)
        if rung:
            longer = [[n * factor // 2 for n in each] for each in _LONGER]
            one, other = (next((n for n in each if n not in own), each[0]) for each in longer)
        yield Sizes(first, one, one // 2), Sizes(second, other, 0)


def small_rungs(own: Collection[int]) -> Iterator[tuple[Sizes, Sizes]]:
    """Yields pairs of open sizes of few positions, the larger ones first; see `rungs`.

    Lengths are those of the first rung.
    """
    usual = next(rungs(own))
    for factor in (2, 1):
        first = _spatial(_FEW_POSITIONS, factor, own, {})
        second = _spatial(_FEW_POSITIONS_AGAIN, factor, own, first)
        yield (
            dataclasses.replace(usual[0], named=first),
            dataclasses.replace(usual[1], named=second),
        )


def _spatial(
    known: Mapping[str, Sequence[int]],
    factor: int,
    own: Collection[int],
    earlier: Mapping[str, int],
) -> dict[str, int]:
    chosen: dict[str, int] = {}
    for name, sizes in known.items():
        taken = {*chosen.values(), earlier.get(name)}
        able = [n * factor for n in sizes if n * factor not in taken]
        chosen[name] = next((n for n in able if n not in own), able[0])
    return chosen


def draw(
    described: Manifest,
    rows: Sequence[str],
    sizes: Sizes,
    rng: np.random.Generator,
    *,
    tame: bool = False,
    computed_in: str = "float32",
    words: Mapping[str, Sequence[str]] | None = None,
) -> Batch:
    """Returns random inputs for one call.

    Args:
        described: what the inputs are.
        rows: what each row is to be.
        sizes: of open axes.
        rng: where the numbers come from.
        tame: keep integers without a known vocabulary to 0 and 1, and large values moderate:
            for models that look such integers up, or overflow.
        computed_in: the coarsest element type that the model computes in.
        words: input of text -> texts that the model knows; tame samples hold no others.
    """
    alone = sum(None in sample_shape(i) for i in described.inputs) == 1
    kept = any(i.next_state is not None and None in sample_shape(i) for i in described.inputs)
    large = min(_LARGE.get(computed_in, 100.0), 5.0 if tame else np.inf)
    feed = {}
    for wanted in described.inputs:
        of_all = kept and MASK in wanted.name.lower()  # of the steps before as well
        longer = dataclasses.replace(sizes, length=sizes.length + sizes.before)
        shape = open_shape(wanted, longer if of_all else sizes, alone)
        known = (words or {}).get(wanted.name, ())
        values = [_row(wanted, shape, row, rng, tame, large, known) for row in rows]
        stacked = np.stack(values) if values else np.zeros((0, *shape))
        feed[wanted.name] = as_described(stacked, wanted.axes)
    return Batch(feed, tuple(rows))


def open_shape(wanted: InputSpec, sizes: Sizes, alone: bool) -> tuple[int, ...]:
    """Returns the shape of one sample of an input.

    Args:
        wanted: the input.
        sizes: of open axes.
        alone: whether it is the only input with open axes.
    """
    by_name = sizes.named if alone or sample_shape(wanted).count(None) > 1 else {}
    if wanted.preprocessing is not None:
        by_name = _around(wanted.preprocessing, by_name)
    length = sizes.length if wanted.next_state is None else sizes.before
    return tuple(
        by_name.get(axis, length) if size is None else size
        for size, axis in zip(
            sample_shape(wanted), without_batch(wanted.axes, wanted.axes), strict=True
        )
    )


def _around(how: Preprocessing, sizes: Mapping[str, int]) -> dict[str, int]:
    """Returns sizes of a picture that is resized: above and below what it is resized to."""
    own = dict(zip(how.axes, how.shape, strict=True))
    return {
        axis: max(1, round(size / _USUAL * wanted)) if how.resize and wanted else size
        for axis, size in sizes.items()
        for wanted in (own.get(axis),)
    }


def sample_shape(wanted: InputSpec) -> tuple[int | None, ...]:
    """Returns the sizes of one sample of an input."""
    return without_batch(wanted.shape, wanted.axes)


def _row(
    wanted: InputSpec,
    shape: tuple[int, ...],
    row: str,
    rng: np.random.Generator,
    tame: bool,
    large: float,
    words: Sequence[str],
) -> Array:
    """Returns one sample of an input."""
    values: Array
    if wanted.dtype == "string":
        if wanted.fewest_words is not None:  # each text has enough of them by itself
            known = [*words, *_WORDS[1:]]
            rows = rng.choice(np.array(known, dtype=object), (wanted.fewest_words, *shape))
            return np.asarray(functools.reduce(lambda text, word: text + " " + word, rows))
        if words and (tame or row != ZEROS):
            known = [*words, *([] if tame else _WORDS)]
        else:
            known = [""] if row == ZEROS else [*_WORDS]
        return rng.choice(np.array(known, dtype=object), shape)
    if wanted.dtype == "bool":
        values = np.full(shape, row == LARGE) if row in (ZEROS, LARGE) else rng.random(shape) < 0.5
    elif wanted.preprocessing is not None:  # a picture, in whichever element type
        values = _integers(dataclasses.replace(wanted, dtype="uint8"), shape, row, rng, tame)
    elif wanted.integer or not wanted.dtype.startswith(("float", "bfloat")):
        values = _integers(wanted, shape, row, rng, tame)
    elif row == ZEROS:
        values = np.zeros(shape)
    elif row == TIES:
        values = rng.choice(_TIED, shape)
    else:
        values = rng.standard_normal(shape).astype(np.float32)
        values *= np.float32(large if row == LARGE else 1.0)
    is_series = "time" in without_batch(wanted.axes, wanted.axes)[:1]
    return _padded(values, row, is_series).astype(wanted.dtype)


def _integers(
    wanted: InputSpec, shape: tuple[int, ...], row: str, rng: np.random.Generator, tame: bool
) -> Array:
    """Returns whole numbers: within the vocabulary where it is known, 0 and 1 where it is not.

    Bytes are all of them: an image of 0 and 1 is black, and two of them the same. Hard rows take
    the numbers at the vocabulary's ends, or around zero.
    """
    if row == ZEROS:
        return np.zeros(shape, np.int64)
    top = wanted.vocabulary
    if top is None and wanted.dtype == "uint8" and not tame and row != TIES:
        return rng.integers(0, _BYTES, shape)
    if row == ORDINARY or (tame and top is None):
        return _not_all_padding(rng.integers(0, top or 2, shape), wanted)
    if top is not None:
        return rng.choice(np.unique([0, min(1, top - 1), top - 1]), shape)
    if wanted.dtype.startswith("u"):
        return rng.choice(np.abs(_WHOLE), shape)
    return rng.choice(_WHOLE, shape)


def _not_all_padding(values: Array, wanted: InputSpec) -> Array:
    """Returns the ids of an ordinary sample with the last of the vocabulary in the first place.

    Where all of them are padding, that is: a mean over no tokens is no number.
    """
    told, top = wanted.padding, wanted.vocabulary
    if told is None or told.input != wanted.name or top is None or top - 1 in told.values:
        return values
    if values.size and np.isin(values, told.values).all():
        values.reshape(-1)[0] = top - 1
    return values


def _padded(values: Array, row: str, is_series: bool) -> Array:
    """Returns values with zeros at the end of their first axis, where the row is to have them.

    A series then has none but zeros at a step before as well: a mask that leaves it out is not
    told by a length.
    """
    if row == TIES and values.ndim and values.shape[0] > 2:
        values = values.copy()
        values[-(values.shape[0] // 3) :] = 0
        if is_series:
            values[values.shape[0] // 3] = 0
    return values


# -- variants of given samples -----------------------------------------------------------------


def variants(
    feed: Mapping[str, Array], described: Manifest, own: Collection[int]
) -> Iterator[Batch]:
    """Yields calls of another batch size and other open sizes, made of given samples.

    Those that are first change most. What the source model cannot run is not for use: the
    next one is.
    """
    count = count_rows(feed, described.inputs)
    fixed = fixed_batch(described.inputs) is not None
    size = count if fixed else other_batch(count, own)
    source = tuple(i % count for i in range(size))
    rows = {
        i.name: feed[i.name]
        if batch_axis(i.axes) is None
        else np.take(feed[i.name], list(source), axis=batch_axis(i.axes))
        for i in described.inputs
    }
    factors: Sequence[float] = (1.0,)
    if is_open(described):
        long = max(_open_sizes(feed, described)) > _LONG
        factors = _FACTORS if long else _FACTORS[::-1]
    for factor in factors:
        changed = _resized(rows, described, factor, own)
        padded = _last_padded(changed, described)
        if padded is not None:
            kinds = (VARIANT if factor != 1 else ORDINARY,) * (size - 1)
            yield Batch(padded, (*kinds, PADDED), source)
        if factor != 1:
            yield Batch(changed, (VARIANT,) * size, source)
    if not fixed:
        yield Batch(dict(rows), (ORDINARY,) * size, source)


def _open_sizes(feed: Mapping[str, Array], described: Manifest) -> list[int]:
    return [
        n
        for wanted in described.inputs
        for n, size, axis in zip(feed[wanted.name].shape, wanted.shape, wanted.axes, strict=True)
        if size is None and axis != BATCH
    ]


def _resized(
    feed: Mapping[str, Array], described: Manifest, factor: float, own: Collection[int]
) -> dict[str, Array]:
    """Returns arrays whose open axes are cropped, or tiled where they become longer.

    Axes that have one size now have one size afterwards.
    """
    changed = {}
    for wanted in described.inputs:
        value = feed[wanted.name]
        for axis, (size, name) in enumerate(zip(wanted.shape, wanted.axes, strict=True)):
            if name != BATCH and size is None:
                value = _to_size(value, axis, _new_size(value.shape[axis], factor, own))
        changed[wanted.name] = value
    return changed


def _new_size(size: int, factor: float, own: Collection[int]) -> int:
    wanted = max(1, round(size * factor))
    step = -1 if factor < 1 else 1
    able = [n for n in range(wanted, max(0, wanted + 8 * step), step) if n > 0 and n != size]
    fallback = size + 1 if size == 1 or factor > 1 else size - 1
    return next((n for n in able if n not in own), able[0] if able else fallback)


def _to_size(value: Array, axis: int, size: int) -> Array:
    resized: Array = np.take(value, np.arange(size) % value.shape[axis], axis=axis)
    return resized


def _last_padded(feed: Mapping[str, Array], described: Manifest) -> dict[str, Array] | None:
    """Returns arrays whose last row ends in padding, None where padding has no meaning.

    Sequences end in zeros from the middle on; vectors of features, images and strings stay.
    """
    changed = {}
    found = False
    for wanted in described.inputs:
        value = rows_first(feed[wanted.name], wanted.axes).copy()
        named = without_batch(wanted.axes, wanted.axes)
        sequence = "time" in named[:1] or wanted.vocabulary is not None
        if sequence and value.ndim > 1 and value.shape[1] > 1 and value.dtype.kind not in "OSU":
            value[-1, value.shape[1] - value.shape[1] // 2 :] = 0
            found = True
        changed[wanted.name] = as_described(value, wanted.axes)
    return changed if found else None
