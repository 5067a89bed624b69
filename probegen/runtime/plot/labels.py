"""What a caller can say about the axes of a picture, resolved for one sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypedDict, cast

import numpy as np
import numpy.typing as npt

from probegen.artefact.features import feature
from probegen.artefact.manifest import wrong_class_names
from probegen.errors import InputError, did_you_mean
from probegen.runtime import times
from probegen.runtime.feature_names import check_count, fitting_input
from probegen.runtime.times import Times
from probegen.text import amount

Array = npt.NDArray[Any]

#: One list for all samples, a list for each sample, a vocabulary (id to token), or a function
#: from a sample's ids to its tokens; or a dict with one of these for inputs or outputs by name.
Tokens = (
    Sequence[str]
    | Sequence[Sequence[str]]
    | Mapping[int, str]
    | Callable[[Array], Sequence[str]]
    | Mapping[str, Any]
)
#: Names along an axis of the one input that they fit, or a dict of them by input name.
Names = Sequence[Any] | Mapping[str, Sequence[Any]]
#: Features of a series that a prediction goes on with.
Forecast = bool | str | int | Sequence[str | int]

#: How features of a vector are drawn: bars, or parts of a score one upon the other.
BARS, WATERFALL, FORCE = "bars", "waterfall", "force"
FORMS = (BARS, WATERFALL, FORCE)


class PlotOptions(TypedDict, total=False):
    """Keyword arguments of `Record.plot`, `Result.plot` and `Result.to_html`.

    Keys:
        tokens: what stands at each position of a sequence: one list, a list of lists (one a
            sample), a dict from id to token, or a function from a row of ids to tokens. Shorter
            than the sequence means that the rest is padding and is left out. Where a model has
            several sequences, a dict of these by the name of the input or of the output.
        query_tokens: tokens of the query axis of cross-attention; by default `tokens`.
        whole_words: join the pieces of words that a tokenizer makes (`##`, `\u2581`, `\u0120`) into
            words. Their numbers are summed up where they are signed or attention; of slopes the
            Euclidean norm is taken, of others the largest. Attention from a word is the mean of its
            pieces' (Clark et al. 2019, sec. 4.1), so that rows still sum to 1.
        class_names: names along the class axis; by default the manifest's.
        feature_names: names of the features of the table or time series that has as many, with
            units if known (`"load [MW]"`, or a pair of name and unit); a dict by input name where
            several do. By default those that the artefact keeps.
        time: what stands at each time step: numbers, dates or text, for all samples or for each
            (`[batch, time]`); a dict by input name where sequences differ. By default what was
            passed to `run`.
        forecast: the feature of the series that the prediction goes on with, by name or number; a
            list of them in the prediction's order; True for all features in their order. The
            forecast is then drawn behind the past of that feature, in the series' units.
        truth: what really came, of the prediction's shape, for one sample or with the samples
            first; a dict by name where there are several predictions. Drawn beside the forecast,
            or beside a predicted sequence.
        image: pictures to draw attributions over in place of the model's own (perhaps
            preprocessed) input: `[batch, height, width, 3]` or one `[height, width, 3]`.
        max_panels: at most this many maps, heads or frames in one picture.
        top: at most this many bars; the rest is summed up where it can be.
        form: of features of a vector: `"bars"`, or where the method's numbers add up to the score
            `"waterfall"` (one after the other) or `"force"` (for and against, in one line).
        max_outputs: at most this many records in the figure of a whole result.
    """

    tokens: Tokens | None
    query_tokens: Tokens | None
    whole_words: bool
    class_names: Sequence[str] | None
    feature_names: Names | None
    time: Times | None
    forecast: Forecast | None
    truth: npt.ArrayLike | Mapping[str, npt.ArrayLike] | None
    image: npt.ArrayLike | None
    max_panels: int
    top: int
    form: str
    max_outputs: int


@dataclasses.dataclass(frozen=True)
class Labels:
    """The options of a plot with their defaults; see `PlotOptions`."""

    tokens: Tokens | None = None
    query_tokens: Tokens | None = None
    whole_words: bool = False
    class_names: Sequence[str] | None = None
    feature_names: Names | None = None
    time: Times | None = None
    forecast: Forecast | None = None
    truth: npt.ArrayLike | Mapping[str, npt.ArrayLike] | None = None
    image: npt.ArrayLike | None = None
    max_panels: int = 64
    top: int = 20
    form: str = BARS
    max_outputs: int = 12

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Labels:
        """Reads the keyword arguments of a plot.

        Raises:
            InputError: an option is unknown or a limit is not positive.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in options:
            if name not in known:
                raise InputError(f"unknown plot option {name!r}.{did_you_mean(name, known)}")
        labels = cls(**options)
        for name in ("tokens", "query_tokens", "class_names", "feature_names", "time"):
            given = getattr(labels, name)
            if isinstance(given, int | float):
                raise InputError(f"{name} is {given!r}; it must be a list, or a dict by name.")
        for name in ("max_panels", "top", "max_outputs"):
            if getattr(labels, name) < 1:
                raise InputError(f"{name} is {getattr(labels, name)}; it must be 1 or more.")
        if labels.form not in FORMS:
            shown = ", ".join(map(repr, FORMS))
            raise InputError(f"form is {labels.form!r}; it takes one of {shown}.")
        return labels


@dataclasses.dataclass(frozen=True)
class Place:
    """An input that labels can belong to.

    Attributes:
        name: its name.
        features: how many features it has; None for what has none, such as a picture.
        length: how many steps its sequence has; None where it is none.
        is_text: whether its steps are tokens.
    """

    name: str
    features: int | None
    length: int | None
    is_text: bool


def is_by_name(given: Any) -> bool:
    """Tells whether labels are given for each input (or output) by name."""
    return isinstance(given, Mapping) and any(isinstance(key, str) for key in given)


def check(
    labels: Labels,
    places: Sequence[Place],
    known: Collection[str],
    samples: int,
    longest: int,
) -> None:
    """Checks that each label belongs to one input, so that a wrong one is not just ignored.

    Args:
        labels: what the caller said.
        places: the inputs.
        known: names of inputs and outputs that labels may be given for.
        samples: number of rows in the batch.
        longest: length of the longest sequence.

    Raises:
        InputError: a label fits no input, or several; says which there are.
    """
    for name in ("feature_names", "time", "tokens", "query_tokens"):
        given = getattr(labels, name)
        for key in given if is_by_name(given) else ():
            if key not in known:
                raise InputError(
                    f"{name} has the key {key!r}, which is no input or output."
                    f"{did_you_mean(str(key), known)}"
                )
    _check_feature_names(labels.feature_names, places)
    _check_time(labels.time, places, samples)
    for name in ("tokens", "query_tokens"):
        _check_tokens(name, getattr(labels, name), samples, longest)


def _check_feature_names(given: Any, places: Sequence[Place]) -> None:
    if given is None:
        return
    counts = {p.name: p.features for p in places if p.features is not None}
    if not is_by_name(given):
        fitting_input(given, counts)
        return
    inputs = {p.name for p in places}
    for name, names in given.items():
        if name in inputs:
            check_count(names, name, counts)


def _check_time(given: Any, places: Sequence[Place], samples: int) -> None:
    by_name = {p.name: p.length for p in places if p.length is not None}
    if not is_by_name(given):
        if given is not None:
            _check_steps("time", given, set(by_name.values()), samples)
        return
    for name, steps in given.items():
        if steps is not None:
            # How long an output is, its picture checks.
            able = {by_name[name]} if name in by_name else None
            _check_steps(f"time of {name!r}", steps, able, samples)


def _check_steps(what: str, given: Any, lengths: set[int] | None, samples: int) -> None:
    values = times.as_array(given)
    if values.ndim == 2 and len(values) != samples:
        raise InputError(
            f"{what} has rows for {amount(len(values), 'sample')} of a batch of {samples}."
        )
    if values.ndim not in (1, 2) or (lengths is not None and values.shape[-1] not in lengths):
        count = values.shape[-1] if values.ndim else 0
        has = ", ".join(map(str, sorted(lengths or ()))) or "none"
        raise InputError(
            f"{what} has {amount(count, 'entry')}, but no input has that many steps; there are "
            f"inputs of {has}."
        )


def _check_tokens(name: str, tokens: Tokens | None, samples: int, longest: int) -> None:
    for row in _rows(name, tokens, samples):
        if len(row) > longest:
            raise InputError(
                f"{name} has {amount(len(row), 'entry')}, but the longest sequence has {longest} "
                "steps."
            )


def check_class_names(names: Sequence[str] | None, sizes: Collection[int]) -> None:
    """Checks names of classes against the class axes of the predictions.

    Args:
        names: a list with one name a class, or None.
        sizes: lengths of those axes; an axis of 1 stands for two classes.

    Raises:
        InputError: it is one string, names a class twice, or fits no prediction.
    """
    if names is None:
        return
    wrong = wrong_class_names(names, ())
    if wrong is not None:
        raise InputError(wrong)
    legal = {*sizes, *([2] if 1 in sizes else [])}
    if len(names) not in legal:
        raise InputError(
            f"class_names has {amount(len(names), 'entry')}, but no prediction has that many "
            f"classes; there are {', '.join(map(str, sorted(legal))) or 'none'}."
        )


def _rows(name: str, tokens: Tokens | None, samples: int) -> list[Sequence[str]]:
    """Returns the token lists that the caller spelt out for all inputs alike."""
    if tokens is None or isinstance(tokens, Mapping) or callable(tokens):
        return []
    if isinstance(tokens, str):
        raise InputError(f"{name} is one string; pass a list of tokens: list({tokens[:10]!r}).")
    if not _is_nested(tokens):
        return [cast("Sequence[str]", tokens)]
    if len(tokens) != samples:
        raise InputError(
            f"{name} has lists for {amount(len(tokens), 'sample')} of a batch of {samples}."
        )
    return [row for row in tokens if not isinstance(row, str)]


def _is_nested(tokens: Sequence[Any]) -> bool:
    return len(tokens) > 0 and all(not isinstance(t, str) for t in tokens)


def belongs_to(given: Any, name: str) -> Any:
    """Returns what labels given by name say of one input or output, else None."""
    return given.get(name) if is_by_name(given) else None


def feature_names_of(given: Any, place: Place, places: Sequence[Place]) -> list[str] | None:
    """Returns the names of an input's features where the caller named them."""
    if is_by_name(given):
        names = given.get(place.name)
    else:
        fitting = [p for p in places if given is not None and p.features == len(given)]
        names = given if fitting == [place] else None
    if names is None:
        return None
    return fitting_names([feature(name).label for name in names], place.features or 0)


def length_of(row: Sequence[str], places: Sequence[Place]) -> int | None:
    """Returns the length of the sequence that a list of tokens belongs to.

    A list as long as an input belongs to it; a shorter one leaves padding out, and belongs to
    text if there is some. None where inputs of several lengths would do.
    """
    lengths = {p.length for p in places if p.length is not None}
    if len(row) in lengths:
        return len(row)
    text = {p.length for p in places if p.is_text and p.length is not None} or lengths
    longer = {n for n in text if n > len(row)}
    return longer.pop() if len(longer) == 1 else None


def spelt_tokens(tokens: Tokens | None, sample: int) -> list[str] | None:
    """Returns one sample's tokens where the caller spelt them out, else None."""
    if tokens is None or isinstance(tokens, Mapping) or callable(tokens):
        return None
    row = tokens[sample] if _is_nested(tokens) else tokens
    return [str(t) for t in row]


def decoded_tokens(tokens: Tokens | None, ids: Array) -> list[str]:
    """Returns the tokens of ids, shape `[time]`, by the caller's vocabulary or function."""
    if isinstance(tokens, Mapping) and not is_by_name(tokens):
        vocabulary = cast("Mapping[int, str]", tokens)
        return [str(vocabulary.get(int(i), int(i))) for i in ids]
    if callable(tokens):
        return [str(t) for t in tokens(ids)][: len(ids)]
    return [str(int(i)) for i in ids]


def fitting_names(names: Sequence[Any] | Array | None, size: int) -> list[str] | None:
    """Returns the names where there is one for each of `size` entries, else None."""
    return [str(n) for n in names] if names is not None and len(names) == size else None


def image_of(image: npt.ArrayLike | None, sample: int, rows: int) -> Array | None:
    """Returns the picture to draw one sample's attribution over, or None where none was given.

    Args:
        image: one picture, or one for each sample.
        sample: the row of the batch.
        rows: how many samples the batch has.

    Raises:
        InputError: it is no picture, and no batch of as many pictures as there are samples.
    """
    if image is None:
        return None
    pictures = np.asarray(image)
    if pictures.ndim not in (2, 3, 4) or pictures.dtype.kind not in "biuf":
        raise InputError(
            f"image has the shape {pictures.shape} and type {pictures.dtype}, expected "
            "[height, width], [height, width, channel] or [batch, height, width, channel]."
        )
    if pictures.ndim < 4:
        return pictures
    if len(pictures) != rows:
        raise InputError(
            f"image has {amount(len(pictures), 'picture')}, and the batch "
            f"{amount(rows, 'sample')}; it takes one for "
            "each of them, or one picture [height, width, channel]."
        )
    picture: Array = pictures[sample]
    return picture
