"""KerasHub's tokenizers and preprocessors as data; KerasHub is never imported, only met."""

from __future__ import annotations

import binascii
import functools
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from probegen.artefact.texts import pack
from probegen.errors import ExportError

#: Code points of all planes.
_ALL = 0x110000


def tokenizer(layer: Any, path: str) -> dict[str, Any]:
    """Returns the settings of a tokenizer that stands in a model, without anything around a text.

    Raises:
        ExportError: it is of a kind that the runtime does not know, or gives ragged tensors.
    """
    if layer.sequence_length is None:
        raise ExportError(
            f"the tokenizer {path!r} gives ragged tensors, which ONNX does not have: make it with "
            "sequence_length=."
        )
    padding = getattr(layer, "pad_token_id", None) if _pads_with_own(layer) else 0
    return {**_core(layer, path), **_packed(layer.sequence_length, (), (), padding or 0, layer)}


def _pads_with_own(layer: Any) -> bool:
    return _is(layer, "BytePairTokenizer") or _is(layer, "SentencePieceTokenizer")


def _packed(length: int | None, start: Any, end: Any, padding: int, layer: Any) -> dict[str, Any]:
    """Returns what is put around texts; see `runtime.texts.pieces`."""
    hidden = [i for i in _special_ids(layer) if i is not None]
    return {
        "length": None if length is None else int(length),
        "start": [int(i) for i in start],
        "end": [int(i) for i in end],
        "padding": int(padding),
        "hidden": sorted({int(i) for i in hidden}),
        "dtype": str(layer.compute_dtype),
    }


def _special_ids(layer: Any) -> list[Any]:
    try:
        return list(layer.special_token_ids)
    except ValueError:
        return []


def preprocessed(preprocessor: Any, length: int | None, *, ends: bool) -> dict[str, Any]:
    """Returns the settings of a preprocessor of one text: its tokenizer, start, end and padding.

    Args:
        preprocessor: of a task.
        length: of the rows; None pads to the longest.
        ends: whether an end token is put behind each text.

    Raises:
        ExportError: its tokenizer is of a kind that the runtime does not know.
    """
    layer = preprocessor.tokenizer
    packer = preprocessor.packer
    start = packer.start_value if getattr(preprocessor, "add_start_token", True) else None
    end = packer.end_value if ends else None
    padding = packer.pad_value or 0
    settings = {**_core(layer, layer.name)}
    settings |= _packed(length, start or (), end or (), padding, layer)
    settings["side"] = getattr(packer, "padding_side", "right")
    between = getattr(packer, "sep_value", None)
    if ends and between is not None:
        settings |= {"between": [int(i) for i in between], "truncate": packer.truncate}
    return settings


def _core(layer: Any, path: str) -> dict[str, Any]:
    for name, describe in _KINDS.items():
        if _is(layer, name):
            return describe(layer, path)
    raise ExportError(
        f"the tokenizer {path!r} is a {type(layer).__name__}, which the runtime does not know; it "
        f"knows {', '.join(_KINDS)} and what derives from them. Compile the part behind it and "
        "pass tokenizer='tokenizer.json' (--tokenizer), or feed ids."
    )


def _is(layer: Any, name: str) -> bool:
    hub = sys.modules.get("keras_hub")
    return hub is not None and isinstance(layer, getattr(hub.tokenizers, name))


def _word_pieces(layer: Any, path: str) -> dict[str, Any]:
    if not layer.split:
        raise ExportError(
            f"the tokenizer {path!r} takes words that are split already (split=False), not texts: "
            "make it with split=True."
        )
    words = layer.get_vocabulary()
    by_id = sorted(words, key=layer.token_to_id)
    dividers, kept = _dividers(layer.split_on_cjk)
    special = layer._special_tokens_for_splitting()
    return {
        "kind": "word_piece",
        "vocabulary": pack(by_id),
        "unknown": layer.oov_token,
        "suffix": layer.suffix_indicator,
        "lowercase": bool(layer.lowercase),
        "strip_accents": bool(layer.strip_accents),
        "split": True,
        "special": list(special) if special else None,
        "dividers": pack(dividers),
        "kept": pack(kept),
        "ignorable": pack(_ignorable()),
    }


def _byte_pairs(layer: Any, path: str) -> dict[str, Any]:
    del path
    layer._maybe_initialized_tokenizers()
    content = json.loads(layer._tokenizer.to_str())
    return {"kind": "hugging_face", "file": pack(content), "special": False, "readable": True}


def _sentence_pieces(layer: Any, path: str) -> dict[str, Any]:
    if layer.add_bos or layer.add_eos:
        raise ExportError(
            f"the tokenizer {path!r} puts tokens around texts itself (add_bos=, add_eos=), which "
            "the runtime leaves to a preprocessor: make it without."
        )
    model = binascii.b2a_base64(layer.proto, newline=False).decode()
    return {"kind": "sentence_piece", "model": pack(model)}


def _bytes(layer: Any, path: str) -> dict[str, Any]:
    del path
    return _code_points(layer, "byte", None)


def _unicode(layer: Any, path: str) -> dict[str, Any]:
    if layer.input_encoding != "UTF-8":
        raise ExportError(
            f"the tokenizer {path!r} reads {layer.input_encoding}; the runtime knows UTF-8 alone."
        )
    return _code_points(layer, "code point", layer._vocabulary_size)


def _code_points(layer: Any, unit: str, most: int | None) -> dict[str, Any]:
    return {
        "kind": "code_points",
        "unit": unit,
        "lowercase": bool(layer.lowercase),
        "form": layer.normalization_form,
        "ignorable": pack(_ignorable()),
        "most": most,
    }


_KINDS: Mapping[str, Callable[[Any, str], dict[str, Any]]] = {
    "WordPieceTokenizer": _word_pieces,
    "BytePairTokenizer": _byte_pairs,
    "SentencePieceTokenizer": _sentence_pieces,
    "ByteTokenizer": _bytes,
    "UnicodeCodepointTokenizer": _unicode,
}


# -- sets of signs, as KerasHub's own patterns have them -------------------------------------------


@functools.cache
def _dividers(on_cjk: bool) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Returns the signs at which words end, and those of them that are words, as ranges."""
    from keras_hub.src.tokenizers.word_piece_tokenizer import _get_split_patterns

    dividing, keeping = _get_split_patterns(on_cjk, ())
    return _ranges(dividing.fullmatch), _ranges(keeping.fullmatch)


@functools.cache
def _ignorable() -> list[tuple[int, int]]:
    """Returns the signs that folding leaves out, as ranges."""
    from keras_hub.src.utils.tensor_utils import _is_default_ignorable

    return _ranges(_is_default_ignorable)


def _ranges(test: Callable[[str], Any]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for point in range(_ALL):
        if test(chr(point)):
            if found and found[-1][1] == point - 1:
                found[-1] = (found[-1][0], point)
            else:
                found.append((point, point))
    return found
