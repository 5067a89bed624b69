"""What an artefact answered when it was verified, kept in it, so that it can be asked again.

Requests are kept as seeds (`portable_random`), never as samples of a user: an artefact goes to
places where these may not go. Answers are kept whole where they are small. Of a large one the
*sketch* is kept: of each sample how many elements are not finite, the Euclidean norm, and
`PROJECTIONS` sums of its elements with random signs. The difference of two such sums has the
Euclidean distance of the two arrays as its standard deviation (Alon, Matias and Szegedy 1999), so
that 16 of them tell the distance within a fifth, wherever in the array the difference is.

The text is in the metadata of an ONNX file under `METADATA_KEY` (with `gate="split"` of the graph
that predicts), and in the file `SAVEDMODEL_ASSET` of a SavedModel; the digests of the artefact
cover it. Reading it executes nothing.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from probegen.artefact import onnx_file, portable_random, schema
from probegen.artefact.rows import batch_axis
from probegen.errors import ArtefactError

Array = npt.NDArray[Any]

METADATA_KEY = "probegen.answers"
SAVEDMODEL_ASSET = "assets.extra/probegen.answers.json"
VERSION = 1

#: Sums with random signs in a sketch, and where the signs come from.
PROJECTIONS, _SIGNS = 16, 20
#: An answer of so many bytes is kept whole.
WHOLE = 2048
#: An input of a request has no more elements, and no larger whole numbers; a damaged file could ask
#: for any number.
MOST_ELEMENTS, _LARGEST = 2**25, 2**53
_WORDS = ("", "a", "the", "Model", "x1")


@dataclasses.dataclass(frozen=True)
class Drawn:
    """An array that is kept as a seed: each time it is drawn it is the same.

    Attributes:
        name: the input.
        dtype: numpy name of its element type; `"string"` for text.
        shape: its sizes.
        kind: `"normal"`, `"uniform"` from `low` to `high`, `"integers"` from `low` up to and
            without `high`, or `"words"`.
        seed: of its numbers.
        low, high: the bounds.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    kind: Literal["normal", "uniform", "integers", "words"]
    seed: int
    low: float = 0.0
    high: float = 0.0

    def array(self) -> Array:
        """Returns it.

        Raises:
            ArtefactError: it cannot be drawn: the text was damaged.
        """
        count = math.prod(self.shape)
        bounds = max(abs(self.low), abs(self.high)) <= _LARGEST and self.low < self.high
        fits = self.kind in ("normal", "words") or bounds
        if min(self.shape, default=0) < 0 or count > MOST_ELEMENTS or not fits:
            raise ArtefactError(f"the stored request {self.name!r} is damaged: {self.shape}.")
        if self.kind == "words":
            drawn = portable_random.integers(self.seed, count, 0, len(_WORDS))
            return np.array([_WORDS[i] for i in drawn.tolist()], np.str_).reshape(self.shape)
        values: Array
        if self.kind == "integers":
            values = portable_random.integers(self.seed, count, int(self.low), int(self.high))
        elif self.kind == "uniform":
            values = portable_random.uniform(self.seed, count, self.low, self.high)
        else:
            values = portable_random.normal(self.seed, count)
        try:
            return values.astype(self.dtype).reshape(self.shape)
        except TypeError as error:
            raise ArtefactError(
                f"the stored request {self.name!r} is damaged: {self.dtype!r} is no element type."
            ) from error


@dataclasses.dataclass(frozen=True)
class Answer:
    """One output of one request.

    Attributes:
        name: the output.
        dtype: numpy name of its element type; `"string"` for text.
        shape: its sizes.
        allowed: for each sample the Euclidean distance that counts as rounding; for whole numbers
            and text 0. None where rounding alone may change the answer, so that it says nothing.
        values: its bytes in base64, little end first; None where the sketch is kept.
        texts: its elements, where they are text.
        sketch: base64 of float64 `[sample, 2 + PROJECTIONS]`; see the module.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    allowed: tuple[float | None, ...]
    values: str | None = None
    texts: tuple[str, ...] | None = None
    sketch: str | None = None


@dataclasses.dataclass(frozen=True)
class Request:
    """One request and what was answered.

    Attributes:
        inputs: the model's own.
        asked: what is fed beside them: `target`, `region`, `groups`.
        answers: by all outputs.
    """

    inputs: tuple[Drawn, ...]
    asked: tuple[Drawn, ...]
    answers: tuple[Answer, ...]


@dataclasses.dataclass(frozen=True)
class Answers:
    """All that an artefact keeps.

    Attributes:
        engine: what gave the answers, with its version.
        requests: none where none could be made up that the model runs on.
        why: why there are none.
    """

    engine: str
    requests: tuple[Request, ...]
    why: str = ""

    def to_text(self) -> str:
        """Returns it as JSON."""
        plain = dataclasses.asdict(self, dict_factory=_without_nothing)
        return json.dumps({"version": VERSION, **plain}, allow_nan=False)

    @classmethod
    def from_text(cls, text: str) -> Answers:
        """Reads what `to_text` wrote.

        Raises:
            ArtefactError: it is damaged, or of a newer version.
        """
        try:
            data = schema.parse(text)
            version = data.pop("version", None) if isinstance(data, dict) else None
            if type(version) is int and version > VERSION:
                raise ArtefactError(
                    f"the stored answers have version {version}, this probegen reads up to "
                    f"{VERSION}. Install a newer probegen to check this artefact."
                )
            return schema.read(cls, data)
        except schema.SchemaError as error:
            raise ArtefactError(
                f"the stored answers are damaged: {error}. Compile the artefact again."
            ) from error


def answers_of(path: Path) -> Answers | None:
    """Returns the answers that an artefact keeps; None where it keeps none.

    Raises:
        ArtefactError: they are damaged.
    """
    if path.is_dir():
        place = path / SAVEDMODEL_ASSET
        if not place.is_file():
            return None
        return Answers.from_text(place.read_text(encoding="utf-8", errors="replace"))
    entry = onnx_file.metadata(path).get(METADATA_KEY)
    return None if entry is None else Answers.from_text(entry.text)


def write_beside_savedmodel(folder: Path, kept: Answers) -> None:
    """Writes answers into the folder of a SavedModel."""
    (folder / SAVEDMODEL_ASSET).write_text(kept.to_text(), encoding="utf-8")


def stored(name: str, array: Array, axes: Sequence[str], allowed: Sequence[float | None]) -> Answer:
    """Returns an output as it is kept.

    Args:
        name: of the output.
        array: what came out.
        axes: names of its axes.
        allowed: see `Answer`.
    """
    shape = tuple(array.shape)
    dtype = "string" if array.dtype.kind in "US" else array.dtype.name
    rounded = tuple(None if a is None else float(f"{a:.2e}") for a in allowed)
    if dtype == "string":
        texts = tuple(as_text(value) for value in array.ravel().tolist())
        return Answer(name, dtype, shape, rounded, texts=texts)
    if array.nbytes <= WHOLE and array.dtype.kind != "V":
        little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
        return Answer(name, dtype, shape, rounded, values=_encoded(little))
    return Answer(name, dtype, shape, rounded, sketch=_encoded(sketch(array, axes)))


def sketch(array: Array, axes: Sequence[str]) -> npt.NDArray[np.float64]:
    """Returns what is kept of a large array of numbers, `[sample, 2 + PROJECTIONS]`."""
    flat = as_numbers(samples(array, axes))
    finite = np.isfinite(flat)
    values = np.where(finite, flat, 0.0)
    signs = portable_random.signs(_SIGNS, values.shape[1], PROJECTIONS)
    turned = [(values * sign).sum(axis=1) for sign in signs]  # `@` sums in another order each time
    missing = (~finite).sum(axis=1)
    norm = np.linalg.norm(values, axis=1)
    return np.stack([missing.astype(np.float64), norm, *turned], axis=1)


def samples(array: Array, axes: Sequence[str]) -> Array:
    """Returns an output as `[sample, element]`; one without a batch axis is one sample."""
    at = batch_axis(axes)
    first = array[np.newaxis] if at is None else np.moveaxis(array, at, 0)
    return first.reshape(len(first), -1) if first.size else np.zeros((len(first), 0), array.dtype)


def as_numbers(flat: Array) -> npt.NDArray[np.float64]:
    """Returns `[sample, element]` as float64, complex numbers as pairs."""
    if flat.dtype.kind == "c":
        flat = np.concatenate([flat.real, flat.imag], axis=1)
    return flat.astype(np.float64)


def values_in(answer: Answer) -> Array | None:
    """Returns a whole answer; None where its sketch is kept.

    Raises:
        ArtefactError: it is damaged.
    """
    if answer.texts is not None:
        if len(answer.texts) != math.prod(answer.shape):
            raise _damaged(answer)
        return np.array(answer.texts, np.str_).reshape(answer.shape)
    if answer.values is None:
        return None
    try:
        dtype = np.dtype(answer.dtype).newbyteorder("<")
        found = np.frombuffer(base64.b64decode(answer.values, validate=True), dtype)
        return found.reshape(answer.shape)
    except (TypeError, ValueError) as error:
        raise _damaged(answer) from error


def sketch_in(answer: Answer) -> npt.NDArray[np.float64]:
    """Returns the sketch of a large answer.

    Raises:
        ArtefactError: it is damaged.
    """
    try:
        data = base64.b64decode(answer.sketch or "", validate=True)
        found = np.frombuffer(data, "<f8").reshape(-1, 2 + PROJECTIONS)
    except ValueError as error:
        raise _damaged(answer) from error
    if len(found) != len(answer.allowed):
        raise _damaged(answer)
    return found


def _damaged(answer: Answer) -> ArtefactError:
    return ArtefactError(
        f"the stored answer {answer.name!r} is damaged: it has not the shape "
        f"{list(answer.shape)}. Compile the artefact again."
    )


def _encoded(array: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def as_text(value: Any) -> str:
    """Returns an element of text; bytes that are no UTF-8 are written out."""
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _without_nothing(pairs: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    return {name: value for name, value in pairs if value is not None}
