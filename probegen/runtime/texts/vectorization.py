"""Takes text apart as `keras.layers.TextVectorization` does.

TensorFlow's text operations work on bytes: `tf.strings.lower` changes the letters A to Z alone (not
the dotted capital I, not accents), the punctuation that is taken out is that of ASCII, and text is
split at the six ASCII signs of white space (a non-breaking space holds words together).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from probegen.artefact.texts import IDS
from probegen.errors import InputError
from probegen.runtime.texts.base import padded, shown
from probegen.runtime.texts.lookup import Lookup
from probegen.runtime.texts.whole_words import spaces_begin

Array = npt.NDArray[Any]

LOWER, STRIP, BOTH = "lower", "strip_punctuation", "lower_and_strip_punctuation"
WHITESPACE, CHARACTER = "whitespace", "character"

#: What Keras' regular expression of punctuation matches.
_PUNCTUATION = b"!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'"


class Vectorization:
    """Standardises, splits, joins n-grams, and looks up.

    Settings: those of `lookup.Lookup`, and `standardize` (one of `LOWER`, `STRIP`, `BOTH`, or
    None), `split` (`WHITESPACE`, `CHARACTER` or None), `ngrams` (widths, or None), `length` (of the
    sequences; None pads to the longest of a batch). Without a split there are neither n-grams nor a
    length.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._lookup = Lookup(settings)
        self._standardize: str | None = settings["standardize"]
        self._split: str | None = settings["split"]
        self._ngrams: Sequence[int] | None = settings["ngrams"]
        self._length: int | None = settings["length"]
        self._dtype: str = settings["dtype"]
        self.words = self._lookup.words

    def encode(self, texts: Array) -> dict[str, Array]:
        """Returns ids `[batch, time]`, or what the mode makes of them `[batch, word]`."""
        rows = [self._lookup.ids(self.split(text)) for text in texts.reshape(-1).tolist()]
        if not self.words:
            return {IDS: self._lookup.counted(rows)}
        if self._split is None:  # a text is one word, and stays where it is
            return {IDS: padded(rows, 1, 0, self._dtype).reshape(texts.shape)}
        return {IDS: padded(rows, self._length, 0, self._dtype)}

    def split(self, text: bytes) -> list[bytes]:
        """Returns the words of a text, as they are looked up.

        Raises:
            InputError: it is to be split into characters and is no UTF-8.
        """
        if self._standardize in (LOWER, BOTH):
            text = text.lower()
        if self._standardize in (STRIP, BOTH):
            text = text.translate(None, _PUNCTUATION)
        if self._split == WHITESPACE:
            words = text.split()
        elif self._split == CHARACTER:
            words = [character.encode() for character in _decoded(text)]
        else:
            words = [text]
        if self._ngrams is None:
            return words
        return [
            b" ".join(words[at : at + width])
            for width in self._ngrams
            for at in range(len(words) - width + 1)
        ]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Returns the word of each id; `[UNK]` for those outside of the vocabulary."""
        return self._lookup.tokens(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the words with a space between, the characters without."""
        words = self.tokens(ids)
        return ("" if self._split == CHARACTER else " ").join(words)

    def starts(self, ids: Sequence[int]) -> list[bool]:
        """Returns that each token is a word; of characters those that are a space, or the first."""
        tokens = self.tokens(ids)
        if self._split == CHARACTER and self._ngrams is None:
            return spaces_begin(tokens)
        return [True] * len(tokens)


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"the text {shown(text)[:60]!r} is no UTF-8, so it has no characters to split into."
        ) from error


def made_from(settings: Mapping[str, Any]) -> Vectorization:
    """Returns the vectorisation of some settings."""
    return Vectorization(settings)
