"""Sorts strings into bins as `keras.layers.Hashing` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.texts import IDS
from probegen.runtime.texts.base import one_hot_positions
from probegen.runtime.texts.fingerprint import fingerprint
from probegen.runtime.texts.lookup import COUNT, INT, ONE_HOT

Array = npt.NDArray[Any]


class Hashing:
    """A bin for each string; a bin does not tell which strings it stands for.

    Settings: `bins`, `mask` (the string of the first bin, or None), `mode` (`"int"`, `"one_hot"`,
    `"multi_hot"`, `"count"`) and `dtype` of what comes out.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._bins: int = settings["bins"]
        mask = settings["mask"]
        self._mask = None if mask is None else str(mask).encode()
        self._mode: str = settings["mode"]
        self._dtype: str = settings["dtype"]
        self.words = self._mode == INT

    def encode(self, texts: Array) -> dict[str, Array]:
        """Returns the bin of each string, in their shape, or how often each bin was met."""
        bins = np.array([self._bin(text) for text in texts.reshape(-1).tolist()], np.int64)
        if self.words:
            return {IDS: bins.reshape(texts.shape).astype(self._dtype)}
        if self._mode == ONE_HOT:  # each string by itself
            each = np.eye(self._bins, dtype=self._dtype)[bins]
            return {IDS: each.reshape(*one_hot_positions(texts.shape), self._bins)}
        counts = np.zeros((len(texts), self._bins), self._dtype)
        for row, found in zip(counts, bins.reshape(len(texts), -1), strict=True):
            np.add.at(row, found, 1)
        return {IDS: counts if self._mode == COUNT else np.minimum(counts, np.ones_like(counts))}

    def _bin(self, text: bytes) -> int:
        if self._mask is None or self._bins == 1:
            return fingerprint(text) % self._bins
        return 0 if text == self._mask else 1 + fingerprint(text) % (self._bins - 1)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Returns the number of each bin."""
        return [f"#{int(i)}" for i in (ids if self.words else range(self._bins))]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the numbers of the bins: their strings are lost."""
        return " ".join(self.tokens(ids))

    def starts(self, ids: Sequence[int]) -> list[bool]:
        """Returns that each bin stands for whole strings."""
        return [True] * len(self.tokens(ids))


def made_from(settings: Mapping[str, Any]) -> Hashing:
    """Returns the bins of some settings."""
    return Hashing(settings)
