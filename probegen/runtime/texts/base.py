"""What a tokenizer of the runtime does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import InputSpec
from probegen.artefact.texts import MASK, SEGMENTS, unpack
from probegen.errors import ManifestError

Array = npt.NDArray[Any]

#: What is in the name of an input that takes what a tokenizer makes beside ids.
NAMED_FOR = {MASK: ("mask",), SEGMENTS: ("segment", "token_type", "type_ids")}


class Tokenizer(Protocol):
    """Turns texts into numbers, and numbers back.

    Texts are bytes (UTF-8 as a rule), since that is what TensorFlow's text layers work on.

    Attributes:
        words: whether what it makes are ids, a row of them a text, with a token for each; false
            where words are counted, and what it makes are features.
    """

    words: bool

    def encode(self, texts: Array) -> dict[str, Array]:
        """Returns what is made of texts (`IDS`, and `MASK` and `SEGMENTS` where it makes these).

        Args:
            texts: bytes as objects, `[batch]` or of the shape that the text's spec says.

        Raises:
            InputError: a text is none that the model takes.
        """

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Returns how each id reads, padding at the end left out; of features their names."""

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, as the model's own tokenizer writes it; padding left out."""

    def starts(self, ids: Sequence[int]) -> list[bool]:
        """Returns which of `tokens(ids)` begin a word; all where tokens are words."""


def unpacked(settings: Mapping[str, Any], name: str) -> Any:
    """Returns a packed setting of a tokenizer.

    Raises:
        ManifestError: it is missing or damaged.
    """
    try:
        return unpack(settings[name])
    except (KeyError, ValueError) as error:
        raise ManifestError(
            f"the {name} of the tokenizer in the manifest is damaged: {error}. Compile the "
            "artefact again."
        ) from error


def takes_whole_numbers(spec: InputSpec) -> bool:
    """Tells whether an input takes whole numbers, as ids are."""
    return spec.integer or spec.dtype.startswith(("int", "uint"))


def shown(token: bytes | str) -> str:
    """Returns how a token reads; bytes that are no UTF-8 are written as `\\xff`."""
    return token if isinstance(token, str) else token.decode("utf-8", "backslashreplace")


def without_padding(ids: Sequence[int], padding: int) -> list[int]:
    """Returns ids up to the last one that is no padding."""
    row = [int(i) for i in ids]
    while row and row[-1] == padding:
        row.pop()
    return row


def one_hot_positions(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the axes before those of the words, where Keras makes `one_hot` of strings.

    Each string has a row of words by itself; a last axis of one string is left out.
    """
    return tuple(shape[:-1] if len(shape) > 1 and shape[-1] == 1 else shape)


def padded(
    rows: Sequence[Sequence[int]],
    length: int | None,
    padding: int,
    dtype: str,
    left: bool = False,
) -> Array:
    """Returns rows as one array, `[batch, length]`, cut and filled up; None is the longest row.

    Args:
        rows: the ids of each text.
        length: of the rows.
        padding: what fills up.
        dtype: of the array.
        left: whether it stands in front of a text.
    """
    size = max((len(row) for row in rows), default=0) if length is None else length
    array = np.full((len(rows), size), padding, dtype)
    for place, row in enumerate(rows):
        kept = row[:size]
        start = size - len(kept) if left else 0
        array[place, start : start + len(kept)] = kept
    return array


def written(token: str) -> str:
    """Returns a token so that white space in it can be seen."""
    visible = token.replace(" ", "\u2423").replace("\t", "\u21e5").replace("\n", "\u21b5")
    return visible or "\u2205"
