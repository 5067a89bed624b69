"""Looks words up as `keras.layers.StringLookup` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.texts import IDS
from probegen.errors import InputError
from probegen.runtime.texts.base import one_hot_positions, shown, unpacked, without_padding
from probegen.runtime.texts.fingerprint import fingerprint

Array = npt.NDArray[Any]

#: How ids become what the layer gives.
INT, ONE_HOT, MULTI_HOT, COUNT, TF_IDF = "int", "one_hot", "multi_hot", "count", "tf_idf"
MODES = (INT, ONE_HOT, MULTI_HOT, COUNT, TF_IDF)


class Lookup:
    """A vocabulary, and what stands for words that are not in it.

    Settings: `vocabulary` (packed, without special tokens), `mask_token` and `oov_token` (text or
    None), `oov` (how many ids words outside of the vocabulary share), `mode` (one of `MODES`),
    `depth` and `weights` (packed) of the modes that count, `dtype` of what comes out.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        words: list[str] = unpacked(settings, "vocabulary")
        self._mask = _bytes(settings["mask_token"])
        self._oov_token = str(settings["oov_token"])
        self._oov: int = settings["oov"]
        self._mode: str = settings["mode"]
        self._depth: int | None = settings.get("depth")
        self._dtype: str = settings["dtype"]
        self._weights = None
        if settings.get("weights"):
            self._weights = np.asarray(unpacked(settings, "weights"), self._dtype)
        self._is_int = self._mode == INT
        # A mask takes an id where ids come out; where words are counted it is left out.
        self._oov_at: int = int(self._mask is not None and self._is_int)
        first = self._oov_at + self._oov
        raw = [word.encode("utf-8", "surrogateescape") for word in words]
        self._ids: dict[bytes, int] = {word: first + place for place, word in enumerate(raw)}
        self._names = [shown(self._mask or b"")] * self._oov_at + [self._oov_token] * self._oov
        self._names += [shown(word) for word in raw]
        self.words = self._is_int

    def ids(self, words: Sequence[bytes]) -> list[int]:
        """Returns the id of each word; -1 for what is masked where words are counted.

        Raises:
            InputError: a word is not in a vocabulary without an id for such words.
        """
        return [self._id(word) for word in words]

    def _id(self, word: bytes) -> int:
        if self._mask is not None and word == self._mask:
            return 0 if self._is_int else -1
        found = self._ids.get(word)
        if found is not None:
            return found
        if self._oov == 0:
            raise InputError(
                f"{shown(word)!r} is not in the vocabulary, and the model has no id for other "
                "words (num_oov_indices=0)."
            )
        return self._oov_at + (fingerprint(word) % self._oov if self._oov > 1 else 0)

    def counted(self, rows: Sequence[Sequence[int]]) -> Array:
        """Returns what is made of the ids of each sample that are counted, `[batch, word]`."""
        depth = self._depth or len(self._names)
        counts = np.zeros((len(rows), depth), self._dtype)
        for place, row in enumerate(rows):
            for i in row:
                if i >= 0:
                    counts[place, i] += 1
        if self._mode in (MULTI_HOT, ONE_HOT):
            counts = np.minimum(counts, np.ones_like(counts))
        return counts if self._weights is None else counts * self._weights

    def encode(self, texts: Array) -> dict[str, Array]:
        """Returns the ids of strings in their shape, or what the mode makes of them."""
        if self._is_int:
            flat = self.ids(texts.reshape(-1).tolist())
            return {IDS: np.array(flat, self._dtype).reshape(texts.shape)}
        if self._mode == ONE_HOT:  # each string by itself
            each = self.counted([self.ids([text]) for text in texts.reshape(-1).tolist()])
            return {IDS: each.reshape(*one_hot_positions(texts.shape), each.shape[-1])}
        rows = texts.reshape(len(texts), -1).tolist()
        return {IDS: self.counted([self.ids(row) for row in rows])}

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Returns the word of each id, `[UNK]` or the like for those outside of the vocabulary."""
        if not self._is_int:
            return list(self._names)
        row = without_padding(ids, 0) if self._mask is not None else [int(i) for i in ids]
        return [self._names[i] if 0 <= i < len(self._names) else str(i) for i in row]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the words with a space between."""
        return " ".join(self.tokens(ids))

    def starts(self, ids: Sequence[int]) -> list[bool]:
        """Returns that each token is a word."""
        return [True] * len(self.tokens(ids))


def _bytes(word: str | None) -> bytes | None:
    return None if word is None else word.encode("utf-8", "surrogateescape")


def made_from(settings: Mapping[str, Any]) -> Lookup:
    """Returns the look-up of some settings."""
    return Lookup(settings)
