"""Asks an artefact again what it answered when it was verified: `runtime.verify`.

The source model is not needed, nor the framework that it is made with. An artefact keeps a few
requests and its answers (see `probegen.artefact.answers`), each with the distance that is rounding.
This finds a weight that was changed, by however little its digest is made to fit again, a file that
another program wrote anew and made wrong, and an engine or a machine that computes it wrongly.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np

from probegen.artefact import answers, integrity
from probegen.artefact.answers import Answer, Request
from probegen.artefact.comparison import Comparison
from probegen.artefact.manifest import OutputSpec, finite
from probegen.artefact.rows import batch_axis
from probegen.errors import ArtefactError, VerificationError
from probegen.runtime.engines.base import Options
from probegen.runtime.feeds import Feeds
from probegen.runtime.inputs import Array
from probegen.runtime.interface import expected_inputs
from probegen.runtime.load import load
from probegen.runtime.loaded import Artefact

COLUMNS = ("output", "compared", "max abs", "L2 rel", "share of limit", "verdict")

_WITHOUT = "it was compiled with verify=False or answers=False, or by an older probegen"
#: A sketch tells a distance within a fifth or so; it may be more than what is allowed by this.
_OF_SKETCH = 1.5


@dataclasses.dataclass(frozen=True)
class Difference:
    """How far an output is from what it was when the artefact was verified.

    Attributes:
        compared: `"whole"`, or `"sketch"` where the answer was too large to be kept; the Euclidean
            distance is then an estimate.
        max_abs: the largest difference of an element; None of a sketch.
        l2_rel: the Euclidean distance over the norm of what was stored, of the worst sample; of
            whole numbers and text the share of elements that are others.
        share: the distance of the worst sample over what it is allowed; at most 1 where it agrees.
        samples: how many were compared.
        left_out: how many were not, since rounding alone may change them.
        passed: whether all samples agree.
    """

    compared: str
    max_abs: float | None
    l2_rel: float
    share: float
    samples: int
    left_out: int
    passed: bool

    def verdict(self) -> str:
        """Says it in a word or two."""
        if not self.passed:
            return "DIFFERS"
        return "agrees" if self.samples else "not compared: rounding decides"


@dataclasses.dataclass(frozen=True)
class Reproduction(Comparison[Difference]):
    """What `verify` found: output name -> `Difference`; prints as a table.

    Attributes:
        artefact: its path.
        engine: what runs it here.
        answered_by: what gave the answers that it keeps.
        requests: how many were asked again; 0 where it keeps none.
        why: why it keeps none.
        digest: the SHA-256 of its contents, which hold; None where they were not compared.
        outputs: the figures.
    """

    columns: ClassVar[tuple[str, ...]] = COLUMNS

    artefact: str
    engine: str
    answered_by: str
    requests: int
    why: str
    digest: str | None
    outputs: Mapping[str, Difference]

    def to_json(self) -> dict[str, Any]:
        """Returns it as plain JSON values; a figure that is no number becomes null."""
        values: dict[str, Any] = {
            "artefact": self.artefact,
            "sha256": self.digest,
            "engine": self.engine,
            "answered_by": self.answered_by,
            "requests": self.requests,
            "why": self.why,
            "passed": self.passed,
            "outputs": {name: dataclasses.asdict(d) for name, d in self.outputs.items()},
        }
        return {name: finite(value) for name, value in values.items()}

    def row(self, name: str, figures: Difference) -> tuple[str, ...]:
        """Returns what the table says of an output; see `COLUMNS`."""
        return (
            name,
            figures.compared,
            "-" if figures.max_abs is None else f"{figures.max_abs:.1e}",
            f"{figures.l2_rel:.1e}",
            f"{figures.share:.2g}",
            figures.verdict(),
        )

    def title(self) -> str:
        """Says what was compared, in a line."""
        asked = f"{self.requests} stored request{'s' if self.requests > 1 else ''}"
        return f"{self.artefact} in {self.engine} on {asked}, answered by {self.answered_by}"


def verify(
    path: str | os.PathLike[str],
    *,
    engine: str | None = None,
    digests: bool = True,
    **options: Unpack[Options],
) -> Reproduction:
    """Compares the answers of an artefact with those it gave when it was verified.

    Its contents are held against their digests, and the requests that it keeps are asked again.
    An artefact that was compiled with `verify=False` or `answers=False`, or by an older probegen,
    keeps none: its digests alone are compared, and `requests` is 0.

    Args:
        path: an ONNX file or a SavedModel directory.
        engine: what runs it; see `load`. Another than the one that answered is what this is for.
        digests: False leaves contents out: of an artefact that another program wrote anew (a
            simplifier, a quantiser) the answers alone are compared.
        options: of the engine, see `load`.

    Raises:
        VerificationError: an answer differs; holds the figures.
        ArtefactError: contents are not those of the digests, it cannot be opened, or keeps
            damaged answers.
    """
    report = reproduce(path, engine=engine, digests=digests, **options)
    require_same(report)
    return report


def reproduce(
    path: str | os.PathLike[str],
    *,
    engine: str | None = None,
    digests: bool = True,
    **options: Unpack[Options],
) -> Reproduction:
    """Returns the figures of `verify`, whether answers are as they were or not.

    Raises:
        ArtefactError: as in `verify`.
    """
    place = Path(path)
    artefact = load(path, engine=engine, check=digests, **options)
    kept = answers.answers_of(place)
    outputs: dict[str, Difference] = {}
    for request in () if kept is None else kept.requests:
        for name, found in _asked_again(artefact, request):
            outputs[name] = _worse(outputs.get(name), found)
    return Reproduction(
        artefact=str(path),
        engine=artefact.engine.name,
        answered_by="" if kept is None else kept.engine,
        requests=0 if kept is None else len(kept.requests),
        why=_WITHOUT if kept is None else kept.why,
        digest=integrity.sealed(place) if digests else None,
        outputs=outputs,
    )


def require_same(report: Reproduction) -> None:
    """Raises a VerificationError that says what differs, if anything does."""
    wrong = [
        f"{name!r} (L2 {d.l2_rel:.1e}, {_times(d.share)})"
        for name, d in report.items()
        if not d.passed
    ]
    if wrong:
        raise VerificationError(
            f"{report.artefact} in {report.engine} does not answer as it did when it was "
            f"verified: {'; '.join(wrong)}.",
            report,
        )


def _times(share: float) -> str:
    if not np.isfinite(share):
        return "which rounding does not explain"
    return f"{share:.2g} times what rounding explains"


def feeds_of(request: Request) -> Feeds:
    """Returns what a stored request feeds.

    Raises:
        ArtefactError: it is damaged.
    """
    inputs = {drawn.name: drawn.array() for drawn in request.inputs}
    return Feeds(inputs, {drawn.name: drawn.array() for drawn in request.asked}, True)


def _asked_again(artefact: Artefact, request: Request) -> Iterator[tuple[str, Difference]]:
    """Yields each output with its difference; predictions both with and without explanations."""
    manifest = artefact.manifest
    _check_fits(artefact, request)
    feeds = feeds_of(request)
    found = artefact.compute(feeds)
    plain = {}
    if manifest.gate or len(artefact.engine.signatures) > 1:
        plain = artefact.compute(dataclasses.replace(feeds, explain=False))
    for answer in request.answers:
        spec = manifest.output(answer.name)
        yield answer.name, compared(spec, answer, found[answer.name])
        if answer.name in plain:
            yield answer.name, compared(spec, answer, plain[answer.name])


def _check_fits(artefact: Artefact, request: Request) -> None:
    """Refuses a request that is of another artefact.

    Raises:
        ArtefactError: names or numbers of axes are others.
    """
    manifest = artefact.manifest
    own = {i.name for i in manifest.inputs}
    asked = {s.name: s for s in expected_inputs(manifest) if s.name in own or s.shape}
    given = {drawn.name: drawn for drawn in (*request.inputs, *request.asked)}
    same = given.keys() == asked.keys() and all(
        len(given[name].shape) == len(spec.shape) for name, spec in asked.items()
    )
    outputs = [answer.name for answer in request.answers]
    if not same or outputs != [o.name for o in manifest.outputs]:
        raise ArtefactError(
            f"the answers that {artefact.path!r} keeps are of another artefact: they name "
            f"{', '.join(map(repr, [*given, *outputs]))}. Compile it again."
        )


def compared(spec: OutputSpec, answer: Answer, array: Array) -> Difference:
    """Returns how far an output is from a stored answer.

    Args:
        spec: the output.
        answer: what was stored.
        array: what came out now.
    """
    kept = answers.values_in(answer)
    at = batch_axis(spec.axes)
    if len(answer.allowed) != (1 if at is None else dict(enumerate(answer.shape)).get(at)):
        raise ArtefactError(
            f"the stored answer {answer.name!r} is damaged: it has {len(answer.allowed)} limits "
            f"for the shape {list(answer.shape)}. Compile the artefact again."
        )
    how = "sketch" if kept is None else "whole"
    rows = len(answer.allowed)
    judged = [row for row, allowed in enumerate(answer.allowed) if allowed is not None]
    allowed = np.array([answer.allowed[row] for row in judged], np.float64)
    dtype = "string" if array.dtype.kind in "US" else array.dtype.name
    if tuple(array.shape) != answer.shape or dtype != answer.dtype:
        return Difference(how, None, np.inf, np.inf, rows, 0, False)
    largest: float | None = None
    if kept is None:
        then, now = answers.sketch_in(answer), answers.sketch(array, spec.axes)
        with np.errstate(over="ignore", invalid="ignore"):
            apart = np.sqrt(np.mean((then - now)[:, 2:] ** 2, axis=1))
        apart = np.where(then[:, 0] == now[:, 0], apart, np.inf)
        size, slack = then[:, 1], _OF_SKETCH
    else:
        apart, size, each = _distances(kept, array, spec)
        largest = float(each[judged].max(initial=0.0))
        slack = 1.0
    apart, size = apart[judged], size[judged]
    apart = np.where(np.isnan(apart), np.inf, apart)
    share = np.where(allowed > 0, apart / np.where(allowed > 0, allowed * slack, 1.0), np.inf)
    share = np.where(apart == 0, 0.0, share)
    relative = np.where(size > 0, apart / np.where(size > 0, size, 1.0), apart)
    return Difference(
        compared=how,
        max_abs=largest,
        l2_rel=float(relative.max(initial=0.0)),
        share=float(share.max(initial=0.0)),
        samples=len(judged),
        left_out=rows - len(judged),
        passed=bool((share <= 1).all()),
    )


def _distances(kept: Array, array: Array, spec: OutputSpec) -> tuple[Array, Array, Array]:
    """Returns for each sample the distance, the norm of what was kept, and the largest distance."""
    then, now = (answers.samples(a, spec.axes) for a in (kept, array))
    if then.dtype.kind in "US":
        now = np.array([answers.as_text(v) for v in now.ravel().tolist()], np.str_)
        off = (then != now.reshape(then.shape)).astype(np.float64)
        return np.sqrt(off.sum(axis=1)), np.sqrt(np.full(len(off), off.shape[1])), off.max(axis=1)
    a, b = answers.as_numbers(then), answers.as_numbers(now)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.where(same, 0.0, np.abs(a - b))
        off = np.where(np.isnan(off), np.inf, off)
        size = np.linalg.norm(np.where(np.isfinite(a), a, 0.0), axis=1)
        return np.linalg.norm(off, axis=1), size, off.max(axis=1, initial=0.0)


def _worse(one: Difference | None, other: Difference) -> Difference:
    """Joins what was found for two requests."""
    if one is None:
        return other
    most = [m for m in (one.max_abs, other.max_abs) if m is not None]
    return Difference(
        compared=one.compared if one.compared == other.compared else "whole, sketch",
        max_abs=max(most, default=None),
        l2_rel=max(one.l2_rel, other.l2_rel),
        share=max(one.share, other.share),
        samples=one.samples + other.samples,
        left_out=one.left_out + other.left_out,
        passed=one.passed and other.passed,
    )
