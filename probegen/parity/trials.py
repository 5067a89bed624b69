"""Which calls to compare on: samples that the source model can run, hard ones where it can.

The source model is tried first. Where it does not run on hard samples, tamer ones are drawn;
where it needs a longer sequence or a larger image, larger ones; and where none will do, the
error says to pass samples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import Manifest
from probegen.errors import InputError, VerificationError
from probegen.parity import samples as drawing
from probegen.parity.samples import Batch, Sizes
from probegen.sources.keras.reference import Reference, cause, finite

Array = npt.NDArray[np.generic]

#: A batch and the source model's predictions for it.
Tried = tuple[Batch, dict[str, Array]]

#: Open sizes are not tried where a sample would have more elements.
_MOST_ELEMENTS = 2_000_000


def generated(
    described: Manifest, reference: Reference, computed_in: str, rng: np.random.Generator
) -> list[Tried]:
    """Returns generated batches with the predictions of the source model for them.

    Raises:
        InputError: the source model runs on none that can be made up.
        VerificationError: it draws random numbers at inference.
    """
    sizes = _open_sizes(described, reference, rng)
    planned = drawing.planned_rows(described, reference.sizes)
    found: list[Tried] = []
    for place, rows in enumerate(planned):
        of = sizes[min(place, len(sizes) - 1)]
        attempts = (
            drawing.draw(described, kinds, of, rng, tame=tame, computed_in=computed_in)
            for kinds, tame in ((rows, False), (rows, True), ([drawing.ORDINARY] * len(rows), True))
        )
        tried = _first_that_runs(attempts, reference, steady=place == len(planned) - 1)
        if not isinstance(tried, str):
            found.append(tried)
        elif not found:
            raise _unsuitable(reference, tried)
    return found


def given(feed: dict[str, Array], described: Manifest, reference: Reference) -> list[Tried]:
    """Returns given samples and a variant of other sizes, with the predictions for them.

    Raises:
        InputError: the source model does not run on the samples.
        VerificationError: it draws random numbers at inference.
    """
    count = len(next(iter(feed.values())))
    own = Batch(feed, (drawing.ORDINARY,) * count, tuple(range(count)))
    tried = drawing.variants(feed, described, reference.sizes)
    variants = list(itertools.islice((b for b in tried if _able(b, reference)), 1))
    first = _first_that_runs([own], reference, steady=not variants)
    if isinstance(first, str):
        raise InputError(
            f"the model {reference.probed.source.name!r} cannot run on the samples: {first} Pass "
            "samples that it takes."
        )
    other = _first_that_runs(variants, reference, steady=True)
    return [first] if isinstance(other, str) else [first, other]


def _able(batch: Batch, reference: Reference) -> bool:
    return reference.cause_of_failure(batch.feed) is None


def _open_sizes(described: Manifest, reference: Reference, rng: np.random.Generator) -> list[Sizes]:
    """Returns open sizes that the source model runs at: two, where it runs at two.

    Raises:
        InputError: there are none.
    """
    own = reference.sizes
    if not drawing.is_open(described):
        return [next(drawing.rungs(own))[0]]
    found: list[Sizes] = []
    row = [drawing.ORDINARY] * (drawing.fixed_batch(described) or 1)
    why = ""
    for pair in drawing.rungs(own):
        for sizes in pair:
            feed = drawing.draw(described, row, sizes, rng, tame=True).feed
            if found and found[0] == sizes:
                continue
            if sum(value.size for value in feed.values()) > _MOST_ELEMENTS:
                continue
            failed = reference.cause_of_failure(feed)
            if failed is None:
                found.append(sizes)
            else:
                why = why or failed
        if len(found) > 1:
            return found[:2]
    if found:
        return found
    raise _unsuitable(reference, why or "none of the sizes tried is small enough.")


def _first_that_runs(batches: Iterable[Batch], reference: Reference, steady: bool) -> Tried | str:
    """Returns the first batch that the source model runs on, or why it runs on none.

    Where a model mixes its rows, a hard row may make ordinary ones infinite: a batch of ordinary
    rows alone is better then, and the last one is returned whatever comes out.
    """
    why = ""
    found: Tried | None = None
    for batch in batches:
        try:
            found = batch, reference.predictions(batch.feed, steady=steady)
        except VerificationError:
            raise
        except Exception as error:
            why = why or cause(error)
            continue
        if not any(batch.hard) or finite(found[1], batch.hard):
            break
    return found or why


def _unsuitable(reference: Reference, why: str) -> InputError:
    return InputError(
        f"the model {reference.probed.source.name!r} cannot run on samples that verification "
        f"makes up: {why} Pass some that it takes with samples= (--samples), in the sizes that "
        "it is used with."
    )


def described_runs(tried: Sequence[Tried], described: Manifest) -> list[dict[str, object]]:
    """Returns what a certificate says of each call: batch, open sizes, what the rows are."""
    return [
        {
            "batch": batch.size,
            "sizes": {
                f"{wanted.name}[{axis}]": int(batch.feed[wanted.name].shape[place])
                for wanted in described.inputs
                for place, (axis, size) in enumerate(zip(wanted.axes, wanted.shape, strict=True))
                if place and size is None
            },
            "rows": list(batch.rows) if batch.size <= _MOST_ROWS_NAMED else [],
        }
        for batch, _ in tried
    ]


#: Batches of more rows are not listed row by row.
_MOST_ROWS_NAMED = 16
