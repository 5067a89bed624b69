"""What tokenizers of pieces share: special tokens around a text, cutting, padding, masks."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.texts import IDS, MASK, SEGMENTS
from probegen.errors import InputError
from probegen.runtime.texts.base import padded, shown, without_padding

Array = npt.NDArray[Any]


class Pieces(abc.ABC):
    """A tokenizer that makes a row of ids of each text.

    Settings: `length` of the rows (None pads to the longest of a batch), `start` and `end` (lists
    of ids around each text), `padding` (the id that fills up), `hidden` (ids that are no part of a
    decoded text: special tokens), `dtype` of the ids.
    """

    words = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._length: int | None = settings["length"]
        self._start: list[int] = list(settings["start"])
        self._end: list[int] = list(settings["end"])
        self._padding: int = settings["padding"]
        self._hidden = {self._padding, *self._start, *self._end, *settings["hidden"]}
        self._dtype: str = settings["dtype"]

    @abc.abstractmethod
    def pieces(self, text: str) -> list[int]:
        """Returns the ids of a text, without special tokens around it."""

    @abc.abstractmethod
    def token(self, piece: int) -> str:
        """Returns how an id reads."""

    def begins(self, piece: int, before: int) -> bool:
        """Tells whether an id begins a word, where neither it nor the one before is special."""
        del piece, before
        return True

    @abc.abstractmethod
    def text(self, pieces: Sequence[int]) -> str:
        """Returns the text of ids."""

    def encode(self, texts: Array) -> dict[str, Array]:
        """Returns ids `[batch, time]`, a mask that is true where they are no padding, segments."""
        rows = [self.row(text) for text in texts.reshape(-1).tolist()]
        ids = padded(rows, self._length, self._padding, self._dtype)
        lengths = np.array([[len(row)] for row in rows])
        mask = np.arange(ids.shape[1])[np.newaxis] < lengths
        return {IDS: ids, MASK: mask, SEGMENTS: np.zeros_like(ids)}

    def row(self, text: bytes) -> list[int]:
        """Returns the ids of one text with its special tokens, cut to the length.

        Raises:
            InputError: it is no UTF-8.
        """
        try:
            pieces = self.pieces(text.decode())
        except UnicodeDecodeError as error:
            raise InputError(f"the text {shown(text)[:60]!r} is no UTF-8.") from error
        if self._length is not None:
            pieces = pieces[: max(0, self._length - len(self._start) - len(self._end))]
        return [*self._start, *pieces, *self._end][: self._length]

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """Returns how each id reads, padding at the end left out."""
        return [self.token(i) for i in without_padding(ids, self._padding)]

    def starts(self, ids: Sequence[int]) -> list[bool]:
        """Returns which tokens begin a word; special tokens stand alone."""
        row = without_padding(ids, self._padding)
        alone = [i in self._hidden for i in row]
        return [
            place == 0 or alone[place] or alone[place - 1] or self.begins(piece, row[place - 1])
            for place, piece in enumerate(row)
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of ids, special tokens and padding left out."""
        return self.text([int(i) for i in ids if int(i) not in self._hidden])
