"""Pieces of words joined into words, and what is made of their numbers.

Tokenizers mark pieces in one of a few ways: WordPiece writes `##` before what goes on with a
word, SentencePiece `\u2581` before what begins one, byte pairs a space (in files `\u0120`), others
`</w>` or `@@` behind a piece. An artefact's own tokenizer knows which; of tokens that are given
it is told from the marks that are there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

GOES_ON = "##"
LOWER_BLOCK = "\u2581"
#: How byte pairs write a space, a line break and a tabulator.
BYTE_SPACES = ("\u0120", "\u010a", "\u0109")
END_OF_WORD, CUT = "</w>", "@@"
#: Special tokens such as `[CLS]`, `<s>`, `<|endoftext|>`: each stands alone.
SPECIAL = re.compile(r"\[[A-Z]+\d*\]|<[^<>\s]+>")

#: How the numbers of pieces become that of their word.
SUM, MEAN, NORM, LARGEST = "sum", "mean", "Euclidean norm", "largest"


@dataclasses.dataclass(frozen=True)
class Word:
    """A word.

    Attributes:
        text: how it reads.
        places: where its tokens stand in the row.
    """

    text: str
    places: tuple[int, ...]


def grouped(starts: Sequence[bool], spelt: Callable[[Sequence[int]], str]) -> list[Word]:
    """Returns the words of a row.

    Args:
        starts: whether a token begins a word, one a token; the first always does.
        spelt: returns how the word at some places reads.
    """
    groups: list[list[int]] = []
    for place, begins in enumerate(starts):
        if begins or not groups:
            groups.append([])
        groups[-1].append(place)
    return [Word(spelt(group), tuple(group)) for group in groups]


def guessed(tokens: Sequence[str]) -> list[Word]:
    """Returns the words of tokens whose tokenizer is not known, by the marks in them.

    Without any mark each token is a word.
    """
    special = [bool(SPECIAL.fullmatch(token)) for token in tokens]
    plain = [token for token, alone in zip(tokens, special, strict=True) if not alone]

    def begins(place: int) -> bool:
        token, before = tokens[place], tokens[place - 1]
        if special[place] or special[place - 1]:
            return True
        return _begins(token, before, plain)

    def spelt(places: Sequence[int]) -> str:
        text = "".join(_bare(tokens[i]) for i in places).strip()
        return text or "".join(tokens[i] for i in places)

    return grouped([place == 0 or begins(place) for place in range(len(tokens))], spelt)


def goes_on(token: str, mark: str = GOES_ON) -> bool:
    """Tells whether a token goes on with a word: a mark stands before it, and something behind."""
    return token.startswith(mark) and len(token) > len(mark)


def _begins(token: str, before: str, plain: Sequence[str]) -> bool:
    """Tells whether a token begins a word, by the first way of marking that a row has."""
    if any(map(goes_on, plain)):
        return not goes_on(token)
    for marks in ((LOWER_BLOCK,), BYTE_SPACES, (" ",)):
        if any(t.startswith(marks) for t in plain):
            return token.startswith(marks)
    for mark in (END_OF_WORD, CUT):
        if any(t.endswith(mark) for t in plain):
            return before.endswith(mark) == (mark == END_OF_WORD)
    return True


def _bare(token: str) -> str:
    """Returns a token without marks."""
    if goes_on(token):
        token = token[len(GOES_ON) :]
    token = token.removesuffix(END_OF_WORD)
    token = token.removesuffix(CUT) if len(token) > len(CUT) else token
    for mark in (LOWER_BLOCK, *BYTE_SPACES):
        token = token.replace(mark, " ")
    return token


def spaces_begin(signs: Sequence[str]) -> list[bool]:
    """Returns where words begin among single signs: a space belongs to the word behind it."""
    return [
        place == 0 or (sign.isspace() and not signs[place - 1].isspace())
        for place, sign in enumerate(signs)
    ]


def joined_by(*, signed: bool, share: bool, derivative: bool) -> str:
    """Returns how the numbers of pieces become that of their word.

    Args:
        signed: whether they are for and against something.
        share: whether they are shares of a whole, as attention is.
        derivative: whether they are slopes, which cannot be added up.
    """
    if signed or share:
        return SUM
    return NORM if derivative else LARGEST


def join(values: Array, words: Sequence[Word], how: str, axis: int = 0) -> Array:
    """Returns a number for each word along an axis.

    Args:
        values: any shape, with a number for each token along `axis`.
        words: the words.
        how: `SUM`, `MEAN`, `NORM` or `LARGEST`.
        axis: which axis the tokens lie along.
    """
    moved = np.moveaxis(values, axis, 0)
    parts = [moved[list(word.places)] for word in words]
    found = [_join(part, how) for part in parts]
    empty = moved[:0]
    return np.moveaxis(np.stack(found) if found else empty, 0, axis)


def without(words: Sequence[Word], places: Iterable[int]) -> list[Word]:
    """Returns the words without the tokens at some places, those with no other left out."""
    gone = set(map(int, places))
    kept = [Word(w.text, tuple(p for p in w.places if p not in gone)) for w in words]
    return [word for word in kept if word.places]


def _join(part: Array, how: str) -> Array:
    if how in (SUM, MEAN):
        return np.asarray(part.sum(0) if how == SUM else part.mean(0))
    return np.asarray(np.linalg.norm(part, axis=0) if how == NORM else part.max(0))
