"""What a caller can say about the axes of a picture, resolved for one sample."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypedDict, cast

import numpy as np
import numpy.typing as npt

from probegen.errors import InputError, did_you_mean

Array = npt.NDArray[Any]

#: One list for all samples, a list for each sample, a vocabulary (id to token), or a function
#: from a sample's ids to its tokens.
Tokens = (
    Sequence[str] | Sequence[Sequence[str]] | Mapping[int, str] | Callable[[Array], Sequence[str]]
)


class PlotOptions(TypedDict, total=False):
    """Keyword arguments of `Record.plot`, `Result.plot` and `Result.to_html`.

    Keys:
        tokens: what stands at each position of a sequence: one list, a list of lists (one a
            sample), a dict from id to token, or a function from a row of ids to tokens. Shorter
            than the sequence means that the rest is padding and is left out.
        query_tokens: tokens of the query axis of cross-attention; by default `tokens`.
        class_names: names along the class axis; by default the manifest's.
        feature_names: names of the features of tabular data and of time series.
        time: what stands at each time step: numbers, dates or text.
        image: pictures to draw attributions over in place of the model's own (perhaps
            preprocessed) input: `[batch, height, width, 3]` or one `[height, width, 3]`.
        max_panels: at most this many maps, heads or frames in one picture.
        top: at most this many bars.
        max_outputs: at most this many records in the figure of a whole result.
    """

    tokens: Tokens | None
    query_tokens: Tokens | None
    class_names: Sequence[str] | None
    feature_names: Sequence[str] | None
    time: Sequence[Any] | Array | None
    image: npt.ArrayLike | None
    max_panels: int
    top: int
    max_outputs: int


@dataclasses.dataclass(frozen=True)
class Labels:
    """The options of a plot with their defaults; see `PlotOptions`."""

    tokens: Tokens | None = None
    query_tokens: Tokens | None = None
    class_names: Sequence[str] | None = None
    feature_names: Sequence[str] | None = None
    time: Sequence[Any] | Array | None = None
    image: npt.ArrayLike | None = None
    max_panels: int = 64
    top: int = 20
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
        for name in ("max_panels", "top", "max_outputs"):
            if getattr(labels, name) < 1:
                raise InputError(f"{name} is {getattr(labels, name)}; it must be 1 or more.")
        return labels


def check(labels: Labels, sizes: Collection[int], samples: int) -> None:
    """Checks the labels against the axes there are, so that a wrong one is not just ignored.

    A label is drawn on every axis it fits, and must fit one.

    Args:
        labels: what the caller said.
        sizes: lengths of the non-batch axes of the inputs and outputs.
        samples: number of rows in the batch.

    Raises:
        InputError: a label fits nothing.
    """
    legal = {
        "class_names": {*sizes, *([2] if 1 in sizes else [])},
        "feature_names": set(sizes),
        "time": set(sizes),
    }
    for name, fitting in legal.items():
        given = getattr(labels, name)
        if given is not None and len(given) not in fitting:
            raise InputError(
                f"{name} has {len(given)} entries, but no axis has that length; "
                f"there are axes of {', '.join(map(str, sorted(fitting))) or 'none'}."
            )
    longest = max(sizes, default=0)
    for name in ("tokens", "query_tokens"):
        for row in _rows(name, getattr(labels, name), samples):
            if len(row) > longest:
                raise InputError(
                    f"{name} has {len(row)} entries, but the longest axis has {longest}."
                )


def _rows(name: str, tokens: Tokens | None, samples: int) -> list[Sequence[str]]:
    """Returns the token lists that the caller spelt out, one or one a sample."""
    if tokens is None or isinstance(tokens, Mapping) or callable(tokens):
        return []
    if isinstance(tokens, str):
        raise InputError(f"{name} is one string; pass a list of tokens: list({tokens[:10]!r}).")
    if not _is_nested(tokens):
        return [cast("Sequence[str]", tokens)]
    if len(tokens) != samples:
        raise InputError(f"{name} has lists for {len(tokens)} samples of a batch of {samples}.")
    return [row for row in tokens if not isinstance(row, str)]


def _is_nested(tokens: Sequence[Any]) -> bool:
    return len(tokens) > 0 and all(not isinstance(t, str) for t in tokens)


def spelt_tokens(tokens: Tokens | None, sample: int) -> list[str] | None:
    """Returns one sample's tokens where the caller spelt them out, else None."""
    if tokens is None or isinstance(tokens, Mapping) or callable(tokens):
        return None
    row = tokens[sample] if _is_nested(tokens) else tokens
    return [str(t) for t in row]


def decoded_tokens(tokens: Tokens | None, ids: Array) -> list[str]:
    """Returns the tokens of ids, shape `[time]`, by the caller's vocabulary or function."""
    if isinstance(tokens, Mapping):
        return [str(tokens.get(int(i), int(i))) for i in ids]
    if callable(tokens):
        return [str(t) for t in tokens(ids)][: len(ids)]
    return [str(int(i)) for i in ids]


def fitting(names: Sequence[Any] | Array | None, size: int) -> list[str] | None:
    """Returns the names where there is one for each of `size` entries, else None."""
    return [str(n) for n in names] if names is not None and len(names) == size else None


def image_of(image: npt.ArrayLike | None, sample: int) -> Array | None:
    """Returns the picture to draw one sample's attribution over, or None where none was given.

    Raises:
        InputError: it is no picture and no batch of pictures that has this sample.
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
    if sample >= len(pictures):
        raise InputError(f"image has {len(pictures)} pictures, but sample {sample} was asked for.")
    picture: Array = pictures[sample]
    return picture
