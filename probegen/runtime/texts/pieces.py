"""What tokenizers of pieces share: special tokens around a text, cutting, padding, masks."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from probegen.artefact.texts import IDS, MASK, SEGMENTS
from probegen.errors import InputError
from probegen.runtime.texts.base import padded, shown, without_padding

Array = npt.NDArray[Any]

#: Texts of a pair, and the axes of an array of pairs.
_PAIRS = 2


class Pieces(abc.ABC):
    """A tokenizer that makes a row of ids of each text.

    Settings: `length` of the rows (None pads to the longest of a batch), `start` and `end` (lists
    of ids around each text), `padding` (the id that fills up), `hidden` (ids that are no part of a
    decoded text: special tokens), `dtype` of the ids; and where they are not as usual `side` (of
    the padding, `"left"`), `between` (ids between the two texts of a pair; None where it takes no
    pairs) and `truncate` (`"round_robin"` cuts both texts of a pair, `"waterfall"` the second).
    """

    words = True

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._length: int | None = settings["length"]
        self._start: list[int] = list(settings["start"])
        self._end: list[int] = list(settings["end"])
        self._padding: int = settings["padding"]
        self._hidden = {self._padding, *self._start, *self._end, *settings["hidden"]}
        self._dtype: str = settings["dtype"]
        self._left = settings.get("side") == "left"
        between = settings.get("between")
        self._between: list[int] | None = None if between is None else list(between)
        self._in_turn = settings.get("truncate", "round_robin") == "round_robin"
        if self._between is not None:
            self._hidden |= set(self._between)

    @property
    def pairs(self) -> bool:
        """Whether two texts may stand in the place of one."""
        return self._between is not None

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
        """Returns ids `[batch, time]`, a mask that is true where they are no padding, segments.

        Args:
            texts: `[batch]`, or `[batch, 2]` of pairs; then the segment of the second is 1.
        """
        if texts.ndim == _PAIRS and texts.shape[1] == _PAIRS and self.pairs:
            made = [self.pair(_read(first), _read(second)) for first, second in texts.tolist()]
        else:
            rows = [self.row(text) for text in texts.reshape(-1).tolist()]
            made = [(row, [0] * len(row)) for row in rows]
        ids, segments = (
            padded([one[part] for one in made], self._length, filler, self._dtype, self._left)
            for part, filler in ((0, self._padding), (1, 0))
        )
        there = [[1] * len(row) for row, _ in made]
        mask = padded(there, self._length, 0, "bool", self._left)
        return {IDS: ids, MASK: mask, SEGMENTS: segments}

    def pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        """Returns the ids of two texts with special tokens, cut to the length, and segments."""
        between = self._between or []
        one, other = self.pieces(first), self.pieces(second)
        if self._length is not None:
            room = self._length - len(self._start) - len(between) - len(self._end)
            one, other = _cut(one, other, max(0, room), self._in_turn)
        ids = [*self._start, *one, *between, *other, *self._end]
        before = len(self._start) + len(one) + len(between)
        return ids, [0] * before + [1] * (len(ids) - before)

    def row(self, text: bytes) -> list[int]:
        """Returns the ids of one text with its special tokens, cut to the length.

        Raises:
            InputError: it is no UTF-8.
        """
        pieces = self.pieces(_read(text))
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


def _read(text: bytes) -> str:
    """Returns a text that was encoded.

    Raises:
        InputError: it is no UTF-8.
    """
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the text {shown(text)[:60]!r} is no UTF-8.") from error


def _cut(one: list[int], other: list[int], room: int, in_turn: bool) -> tuple[list[int], list[int]]:
    """Returns two texts cut to a number of pieces: each in turn gets one, or the first gets all."""
    most = max(room - len(other), -(-room // 2)) if in_turn else room
    first = one[:most]
    return first, other[: room - len(first)]
