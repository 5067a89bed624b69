"""Word pieces, as `keras_hub.tokenizers.WordPieceTokenizer` makes them (Devlin et al. 2018).

Which signs divide words, stay as words of their own, or are left out when letters are folded is
stored with the vocabulary: such sets grow from one version of Unicode to the next.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from probegen.runtime.texts.base import unpacked
from probegen.runtime.texts.pieces import Pieces
from probegen.runtime.texts.whole_words import goes_on

#: Longer words are unknown, whatever they consist of.
_MOST_BYTES = 100

#: Code points, first and last of each range.
Ranges = Sequence[tuple[int, int]]


class WordPieces(Pieces):
    """Splits at white space and punctuation, then takes the longest piece that is known.

    Settings: those of `Pieces`, and `vocabulary` (packed, by id), `unknown` and `suffix` (the token
    of unknown words, what stands before pieces inside of words), `lowercase`, `strip_accents`,
    `split`, `special` (tokens that are never split; None for none), `dividers` and `kept` (packed
    ranges of signs at which words end, and of those of them that are words), `ignorable`.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._tokens: list[str] = unpacked(settings, "vocabulary")
        self._ids = {token: place for place, token in enumerate(self._tokens)}
        self._unknown: str = settings["unknown"]
        self._suffix: str = settings["suffix"]
        self._lowercase: bool = settings["lowercase"]
        self._strip: bool = settings["strip_accents"]
        self._split: bool = settings["split"]
        self._special: list[str] = settings["special"] or []
        kept = signs(unpacked(settings, "kept"))
        special = [re.escape(token) for token in self._special]
        self._divider = re.compile("|".join([*special, signs(unpacked(settings, "dividers"))]))
        self._kept = re.compile("|".join([*special, kept]))
        self._ignorable = re.compile(signs(unpacked(settings, "ignorable")))

    def pieces(self, text: str) -> list[int]:
        """Returns the ids of the pieces of a text."""
        if self._strip:
            apart = unicodedata.normalize("NFD", text)
            text = "".join(c for c in apart if unicodedata.category(c) != "Mn")
        words = self._words(text) if self._split else [text]
        if self._lowercase:
            words = [w if w in self._special else folded(w, self._ignorable) for w in words]
        return [self._ids[token] for word in words for token in self._of_word(word)]

    def _words(self, text: str) -> list[str]:
        words, at = [], 0
        for found in self._divider.finditer(text):
            if found.start() > at:
                words.append(text[at : found.start()])
            if self._kept.fullmatch(found.group()):
                words.append(found.group())
            at = found.end()
        return [*words, text[at:]] if at < len(text) else words

    def _of_word(self, word: str) -> list[str]:
        if not word:
            return []
        if len(word.encode("utf-8", "surrogatepass")) > _MOST_BYTES:
            return [self._unknown]
        found: list[str] = []
        start = 0
        while start < len(word):
            prefix = self._suffix if start else ""
            ends = range(len(word), start, -1)
            end = next((e for e in ends if prefix + word[start:e] in self._ids), None)
            if end is None:
                return [self._unknown]
            found.append(prefix + word[start:end])
            start = end
        return found

    def token(self, piece: int) -> str:
        """Returns the token of an id."""
        return self._tokens[piece] if 0 <= piece < len(self._tokens) else str(piece)

    def begins(self, piece: int, before: int) -> bool:
        """Tells whether a piece has no mark of those inside of words."""
        del before
        return not goes_on(self.token(piece), self._suffix)

    def text(self, pieces: Sequence[int]) -> str:
        """Returns words with spaces between, pieces inside of words joined to them."""
        words: list[str] = []
        for token in map(self.token, pieces):
            if words and goes_on(token, self._suffix):
                words[-1] += token[len(self._suffix) :]
            else:
                words.append(token)
        return " ".join(words)


def folded(text: str, ignorable: re.Pattern[str]) -> str:
    """Returns a text in Unicode's folded form (NFKC_Casefold).

    Args:
        text: any.
        ignorable: the signs that folding leaves out.
    """
    lowered = unicodedata.normalize("NFKC", text).casefold()
    return ignorable.sub("", unicodedata.normalize("NFKC", lowered))


def signs(ranges: Ranges) -> str:
    """Returns a regular expression of one sign out of some ranges."""
    return "[" + "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in ranges) + "]" if ranges else r"(?!)"


def made_from(settings: Mapping[str, Any]) -> WordPieces:
    """Returns the tokenizer of some settings."""
    return WordPieces(settings)
