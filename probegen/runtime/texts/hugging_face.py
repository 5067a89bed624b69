"""Tokenizers in the form of Hugging Face's `tokenizer.json`: byte pairs, unigrams, word pieces."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from probegen.errors import InputError, ManifestError
from probegen.runtime.texts.base import unpacked
from probegen.runtime.texts.pieces import Pieces
from probegen.runtime.texts.whole_words import BYTE_SPACES, LOWER_BLOCK, goes_on


class HuggingFace(Pieces):
    """What the library `tokenizers` makes of a text.

    Settings: those of `Pieces`, and `file` (packed: the content of a `tokenizer.json`), `special`
    (whether the file's own special tokens are put around each text), `readable` (whether tokens are
    written byte by byte, so that they are shown decoded).
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        content = unpacked(settings, "file")
        self._tokenizer = opened(json.dumps(content))
        self._marks = _Marks.of(content)
        self._special: bool = settings["special"]
        self._readable: bool = settings["readable"]
        if self._length is not None and self._special:  # keeps the special tokens at the end
            self._tokenizer.enable_truncation(self._length)

    def pieces(self, text: str) -> list[int]:
        """Returns the ids of a text."""
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=self._special).ids
        return found

    @property
    def pairs(self) -> bool:
        """Whether two texts may stand in the place of one: the file says how they are joined."""
        return self._special or super().pairs

    def pair(self, first: str, second: str) -> tuple[list[int], list[int]]:
        """Returns the ids of two texts, cut to the length, and segments."""
        if not self._special:
            return super().pair(first, second)
        found = self._tokenizer.encode(first, second, add_special_tokens=True)
        return list(found.ids), list(found.type_ids)

    def token(self, piece: int) -> str:
        """Returns the token of an id; of one made of bytes the text, where it is some."""
        token: str | None = self._tokenizer.id_to_token(piece)
        if token is None:
            return str(piece)
        if not self._readable or piece in self._hidden:
            return token
        decoded = self._tokenizer.decode([piece], skip_special_tokens=False)
        return token if "\ufffd" in decoded or not decoded else str(decoded)

    def begins(self, piece: int, before: int) -> bool:
        """Tells whether a piece begins a word, by how this kind of tokenizer marks it."""
        raw = self._tokenizer.id_to_token
        return self._marks.begins(raw(piece) or "", raw(before) or "")

    def text(self, pieces: Sequence[int]) -> str:
        """Returns the text of ids."""
        return str(self._tokenizer.decode(list(pieces), skip_special_tokens=True))


@dataclasses.dataclass(frozen=True)
class _Marks:
    """How a tokenizer marks where words begin; without any mark each token is a word.

    Attributes:
        inside: what stands before pieces inside of words.
        ends: what stands behind the last piece of a word.
        spaces: what stands before the first piece of a word, one of these.
    """

    inside: str = ""
    ends: str = ""
    spaces: tuple[str, ...] = ()

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> _Marks:
        """Returns those of the content of a `tokenizer.json`."""
        model = content.get("model") or {}
        parts = [content.get(part) for part in ("pre_tokenizer", "decoder", "normalizer")]
        ways = json.dumps(parts, ensure_ascii=False)
        if model.get("continuing_subword_prefix"):
            return cls(inside=str(model["continuing_subword_prefix"]))
        if model.get("end_of_word_suffix"):
            return cls(ends=str(model["end_of_word_suffix"]))
        if "ByteLevel" in ways:
            return cls(spaces=BYTE_SPACES)
        if "Metaspace" in ways or LOWER_BLOCK in ways:
            return cls(spaces=(LOWER_BLOCK,))
        return cls()

    def begins(self, token: str, before: str) -> bool:
        """Tells whether a token begins a word, by itself and the one before."""
        if self.inside:
            return not goes_on(token, self.inside)
        if self.ends:
            return before.endswith(self.ends)
        return token.startswith(self.spaces) if self.spaces else True


def opened(content: str) -> Any:
    """Returns a tokenizer of the library, without padding and cutting of its own.

    Raises:
        InputError: the library is not installed.
        ManifestError: the content is none of its files.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise InputError(
            "texts of this artefact are taken apart by the library tokenizers, which is not "
            "installed: pip install 'probegen[text]'; or pass ids."
        ) from error
    try:
        found = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # the library raises plain Exception
        raise ManifestError(f"it holds no tokenizer of Hugging Face's: {error}") from error
    found.no_padding()
    found.no_truncation()
    return found


def made_from(settings: Mapping[str, Any]) -> HuggingFace:
    """Returns the tokenizer of some settings."""
    return HuggingFace(settings)
