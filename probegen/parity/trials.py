"""Which calls to compare on: samples that the source model can run, hard ones where it can.

The source model is tried first. Where it does not run on hard samples, tamer ones are drawn;
where it needs a longer sequence or a larger image, larger ones; and where none will do, the
error says to pass samples.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import Manifest
from probegen.artefact.rows import BATCH, count_rows, fixed_batch, some_rows
from probegen.errors import InputError, VerificationError
from probegen.parity import samples as drawing
from probegen.parity.comparison import TOLERANCES
from probegen.parity.costly_methods import with_fewer_positions
from probegen.parity.finite import finite
from probegen.parity.samples import Batch, Sizes
from probegen.runtime.inputs import why_too_short
from probegen.sources.base import Reference

Array = npt.NDArray[np.generic]

#: A batch and the source model's predictions for it.
Tried = tuple[Batch, dict[str, Array]]

#: What exporters call the keys and values of tokens before.
_CACHE = re.compile(r"(?i)past|cache")

#: Open sizes are not tried where a sample would have more elements.
_MOST_ELEMENTS = 2_000_000


def generated(
    described: Manifest, reference: Reference, name: str, rng: np.random.Generator
) -> tuple[list[Tried], list[Tried]]:
    """Returns generated batches with the predictions of the source model for them.

    The second list is of those to predict alone: at the usual open sizes, where methods by scores
    are tried at smaller ones.

    Raises:
        InputError: the source model runs on none that can be made up.
        VerificationError: it draws random numbers at inference.
    """
    usual = _open_sizes(described, reference, name, rng)
    sizes = usual
    if drawing.is_open(described):
        one_row = functools.partial(_one_row, described, reference, rng)
        smaller = (
            pair
            for pair in drawing.small_rungs(reference.sizes)
            if all(_too_short(one_row(each), described) is None for each in pair)
        )
        sizes = with_fewer_positions(usual, smaller, reference, one_row)
    found = _drawn(described, reference, name, rng, sizes)
    return found, [] if sizes == usual else _drawn(described, reference, name, rng, usual)


def _drawn(
    described: Manifest,
    reference: Reference,
    name: str,
    rng: np.random.Generator,
    sizes: Sequence[Sizes],
) -> list[Tried]:
    """Returns batches of open sizes that the source model runs on, the first of the first sizes.

    Raises:
        InputError, VerificationError: see `generated`.
    """
    planned = drawing.planned_rows(described, reference.sizes)
    found: list[Tried] = []
    for place, rows in enumerate(planned):
        of = sizes[min(place, len(sizes) - 1)]
        attempts = (
            drawing.draw(
                *(described, kinds, of, rng),
                tame=tame,
                computed_in=reference.computed_in,
                words=reference.words,
            )
            for kinds, tame in ((rows, False), (rows, True), ([drawing.ORDINARY] * len(rows), True))
        )
        steady = place == len(planned) - 1
        tried = _first_that_runs(attempts, described, reference, name, steady=steady)
        if not isinstance(tried, str):
            found.append(tried)
        elif not found:
            raise _unsuitable(name, tried, described)
    return found


def given(
    feed: dict[str, Array], described: Manifest, reference: Reference, name: str
) -> list[Tried]:
    """Returns given samples and a variant of other sizes, with the predictions for them.

    Raises:
        InputError: the source model does not run on the samples.
        VerificationError: it draws random numbers at inference.
    """
    count = count_rows(feed, described.inputs)
    own = Batch(feed, (drawing.ORDINARY,) * count, tuple(range(count)))
    tried = drawing.variants(feed, described, reference.sizes)
    able = (b for b in tried if _able(b, described, reference))
    variants = list(itertools.islice(able, 1))
    first = _first_that_runs([own], described, reference, name, steady=not variants)
    if isinstance(first, str):
        raise InputError(
            f"the model {name!r} cannot run on the samples: {first} Pass samples that it takes."
        )
    other = _first_that_runs(variants, described, reference, name, steady=True)
    return [first] if isinstance(other, str) else [first, other]


def two_ordinary(
    described: Manifest, reference: Reference, rng: np.random.Generator
) -> list[Tried]:
    """Returns one generated batch of ordinary samples with the predictions for them.

    None where the source model runs on none of three sizes; nothing else is tried of it.
    """
    rows = [drawing.ORDINARY] * (fixed_batch(described.inputs) or 2)
    rungs = (sizes for sizes, _ in itertools.islice(drawing.rungs(()), 3))
    batches = (
        drawing.draw(described, rows, sizes, rng, tame=True, words=reference.words)
        for sizes in rungs
    )
    found = next((b for b in batches if _able(b, described, reference)), None)
    return [] if found is None else [(found, reference.predictions(found.feed)[0])]


def _able(batch: Batch, described: Manifest, reference: Reference) -> bool:
    return _why_not(batch.feed, described, reference) is None


def _why_not(feed: Mapping[str, Array], described: Manifest, reference: Reference) -> str | None:
    """Says why inputs are no samples: the artefact takes none so short, or the model fails."""
    return _too_short(feed, described) or reference.cause_of_failure(feed)


def _too_short(feed: Mapping[str, Array], described: Manifest) -> str | None:
    found = (why_too_short(feed[spec.name], spec) for spec in described.inputs)
    return next((why for why in found if why is not None), None)


def _open_sizes(
    described: Manifest, reference: Reference, name: str, rng: np.random.Generator
) -> list[Sizes]:
    """Returns open sizes that the source model runs at: two, where it runs at two.

    Raises:
        InputError: there are none.
    """
    own = reference.sizes
    if not drawing.is_open(described):
        return [next(drawing.rungs(own))[0]]
    found: list[Sizes] = []
    why = ""
    for pair in drawing.rungs(own):
        for sizes in pair:
            feed = _one_row(described, reference, rng, sizes)
            if found and found[0] == sizes:
                continue
            if sum(value.size for value in feed.values()) > _MOST_ELEMENTS:
                continue
            failed = _why_not(feed, described, reference)
            if failed is None:
                found.append(sizes)
            else:
                why = why or failed
        if len(found) > 1:
            break
    if not found:
        raise _unsuitable(name, why or "none of the sizes tried is small enough.", described)
    return found[:2]


def _one_row(
    described: Manifest, reference: Reference, rng: np.random.Generator, sizes: Sizes
) -> dict[str, Array]:
    """Returns inputs of one ordinary sample, or of as many as the batch is fixed to."""
    row = [drawing.ORDINARY] * (fixed_batch(described.inputs) or 1)
    return drawing.draw(described, row, sizes, rng, tame=True, words=reference.words).feed


def _first_that_runs(
    batches: Iterable[Batch], described: Manifest, reference: Reference, name: str, steady: bool
) -> Tried | str:
    """Returns the first batch that the source model runs on, or why it runs on none.

    Where a model mixes its rows, a hard row may make ordinary ones infinite: a batch of ordinary
    rows alone is better then, and the last one is returned whatever comes out.
    """
    why = ""
    found: Tried | None = None
    for batch in batches:
        short = _why_words_are_too_few(batch.feed, described, reference)
        if short is not None:
            why = why or short
            continue
        try:
            answers = reference.predictions(batch.feed, times=2 if steady else 1)
        except Exception as error:
            why = why or reference.cause_of(error)
            continue
        if steady:
            check_same(name, *answers)
        found = batch, answers[0]
        if not any(batch.hard) or finite(found[1], batch.hard):
            break
    return found or why


def _why_words_are_too_few(
    feed: Mapping[str, Array], described: Manifest, reference: Reference
) -> str | None:
    """Says why texts are too short for the model's windows, alone or together; None if none are.

    What it answers to these may be whatever lies in memory.
    """
    needed = [s for s in described.inputs if s.fewest_words is not None]
    if not needed:
        return None
    alone = range(0 if fixed_batch(described.inputs) else count_rows(feed, described.inputs))
    rows = (
        {s.name: some_rows(feed[s.name], s.axes, slice(i, i + 1)) for s in described.inputs}
        for i in alone
    )
    for each in itertools.chain([feed], rows):
        if reference.cause_of_failure(each) is not None:
            spec = needed[0]
            return (
                f"it needs {spec.fewest_words} words of {spec.name!r} at least, and has fewer of "
                f"{each[spec.name].ravel().tolist()}."
            )
    return None


def check_same(
    name: str, once: Mapping[str, npt.NDArray[Any]], again: Mapping[str, npt.NDArray[Any]]
) -> None:
    """Refuses a model that answers otherwise the second time.

    Raises:
        VerificationError: it draws random numbers at inference.
    """
    for output, before in once.items():
        if before.dtype.kind not in "fc" or before.shape != again[output].shape:
            continue
        a, b = before.astype(np.float64), again[output].astype(np.float64)
        both = np.isfinite(a) & np.isfinite(b)
        off = np.abs(a[both] - b[both]).max(initial=0.0)
        size = np.abs(a[both]).max(initial=0.0)
        if off > TOLERANCES.get(before.dtype.name, 1e-4) * size:
            raise VerificationError(
                f"{name!r} draws random numbers at inference: called twice "
                f"on the same samples it answers {off:.1e} apart in {output!r}, whose largest "
                f"value is {size:.1e}. An artefact cannot be compared with it: draw only "
                "where training is true, or give the numbers as an input."
            )


def _unsuitable(name: str, why: str, described: Manifest) -> InputError:
    hint = ""
    told = any(i.next_state is not None for i in described.inputs)
    cached = next((i.name for i in described.inputs if _CACHE.search(i.name)), None)
    if cached is not None and not told:
        hint = (
            f" {cached!r} looks like a cache that the model goes on with: states='io' "
            "(--feed-states io) says so, and which sizes then belong together."
        )
    return InputError(
        f"the model {name!r} cannot run on samples that verification "
        f"makes up: {why} Pass some that it takes with samples= (--samples), in the sizes that "
        f"it is used with.{hint}"
    )


def open_sizes(feed: Mapping[str, npt.NDArray[Any]], described: Manifest) -> dict[str, int]:
    """Returns the open sizes of a feed, `{"input[axis]": size}`, as a certificate has them."""
    return {
        f"{wanted.name}[{axis}]": int(feed[wanted.name].shape[place])
        for wanted in described.inputs
        for place, (axis, size) in enumerate(zip(wanted.axes, wanted.shape, strict=True))
        if axis != BATCH and size is None
    }


def described_runs(tried: Sequence[Tried], described: Manifest) -> list[dict[str, object]]:
    """Returns what a certificate says of each call: batch, open sizes, what the rows are."""
    return [
        {
            "batch": batch.size,
            "sizes": open_sizes(batch.feed, described),
            "rows": list(batch.rows) if batch.size <= _MOST_ROWS_NAMED else [],
        }
        for batch, _ in tried
    ]


#: Batches of more rows are not listed row by row.
_MOST_ROWS_NAMED = 16
