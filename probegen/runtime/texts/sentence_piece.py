"""SentencePiece models, by the library of that name (Kudo and Richardson 2018)."""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from typing import Any

from probegen.errors import InputError
from probegen.runtime.texts.base import unpacked
from probegen.runtime.texts.pieces import Pieces
from probegen.runtime.texts.whole_words import LOWER_BLOCK


class SentencePieces(Pieces):
    """What the library `sentencepiece` makes of a text.

    Settings: those of `Pieces`, and `model` (packed base64 of the model file).
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        try:
            import sentencepiece
        except ImportError as error:
            raise InputError(
                "texts of this artefact are taken apart by the library sentencepiece, which is not "
                "installed: pip install 'probegen[text]'; or pass ids."
            ) from error
        model = binascii.a2b_base64(unpacked(settings, "model"))
        self._model = sentencepiece.SentencePieceProcessor(model_proto=model)

    def pieces(self, text: str) -> list[int]:
        """Returns the ids of a text."""
        return list(self._model.encode(text, out_type=int))

    def token(self, piece: int) -> str:
        """Returns the piece of an id; a space is written as SentencePiece does."""
        return str(self._model.id_to_piece(piece)) if 0 <= piece < len(self._model) else str(piece)

    def begins(self, piece: int, before: int) -> bool:
        """Tells whether a piece has the mark of a space before it."""
        del before
        return self.token(piece).startswith(LOWER_BLOCK)

    def text(self, pieces: Sequence[int]) -> str:
        """Returns the text of ids."""
        return str(self._model.decode([p for p in pieces if 0 <= p < len(self._model)]))


def made_from(settings: Mapping[str, Any]) -> SentencePieces:
    """Returns the tokenizer of some settings."""
    return SentencePieces(settings)
