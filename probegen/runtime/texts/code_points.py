"""Bytes or code points as ids, as `keras_hub`'s `ByteTokenizer` and `UnicodeCodepointTokenizer`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from probegen.runtime.texts.base import unpacked
from probegen.runtime.texts.pieces import Pieces
from probegen.runtime.texts.word_piece import folded, signs

_FORMS = {form: form for form in ("NFC", "NFD", "NFKC", "NFKD")}


class CodePoints(Pieces):
    """Folds and normalises a text, and gives its bytes or code points.

    Settings: those of `Pieces`, and `unit` (`"byte"` or `"code point"`), `lowercase`, `form` (of
    Unicode's normalisation, or None), `ignorable` (packed ranges of signs that folding leaves out),
    `most` (how many ids there are; greater ones become the last), or None.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self._bytes = settings["unit"] == "byte"
        self._lowercase: bool = settings["lowercase"]
        self._form: Any = _FORMS[settings["form"]] if settings["form"] else None
        self._ignorable = re.compile(signs(unpacked(settings, "ignorable")))
        self._most: int | None = settings["most"]

    def pieces(self, text: str) -> list[int]:
        """Returns the bytes or code points of a text."""
        if self._lowercase:
            text = folded(text, self._ignorable)
        if self._form is not None:
            text = unicodedata.normalize(self._form, text)
        ids = list(text.encode()) if self._bytes else [ord(c) for c in text]
        return ids if self._most is None else [min(i, self._most - 1) for i in ids]

    def token(self, piece: int) -> str:
        """Returns the sign of an id; of a byte beyond ASCII its number."""
        if self._bytes and piece > 127:
            return f"\\x{piece:02x}"
        return chr(piece) if 0 <= piece < 0x110000 else str(piece)

    def begins(self, piece: int, before: int) -> bool:
        """Tells whether a sign is a space behind a letter: spaces belong to the word behind."""
        return self.token(piece).isspace() and not self.token(before).isspace()

    def text(self, pieces: Sequence[int]) -> str:
        """Returns the text of bytes or code points; what is none becomes U+FFFD."""
        if self._bytes:
            return bytes(p for p in pieces if 0 <= p < 256).decode(errors="replace")
        legal = (0 <= p < 0x110000 and not 0xD800 <= p < 0xE000 for p in pieces)
        return "".join(chr(p) if ok else "\ufffd" for p, ok in zip(pieces, legal, strict=True))


def made_from(settings: Mapping[str, Any]) -> CodePoints:
    """Returns the tokenizer of some settings."""
    return CodePoints(settings)
