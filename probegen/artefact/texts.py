"""How text becomes inputs of an artefact: what a manifest says of it.

ONNX runtimes take no strings apart as Keras does. So a model is cut behind its text layers, and
what these do is written down as plain data: the kind of tokenizer, its settings, its vocabulary.
The runtime carries it out without TensorFlow (`probegen.runtime.texts`).
"""

from __future__ import annotations

import binascii
import dataclasses
import json
import zlib
from collections.abc import Mapping
from typing import Any

#: What a tokenizer makes: ids, which of them are no padding, and which text each belongs to.
IDS, MASK, SEGMENTS = "ids", "mask", "segments"
#: Beginning of what a graph of TensorFlow says where texts are too short for the model's windows.
TOO_FEW_WORDS = "the longest text has fewer words than the windows of the model need:"
#: Bytes that packed data may have when they are unpacked: none that is damaged fills the memory.
_MOST_BYTES = 2**29


@dataclasses.dataclass(frozen=True)
class TextSpec:
    """A text that the runtime makes inputs of.

    Attributes:
        name: what the text is called: the string input of the source model.
        shape: sizes of its strings, the batch first; `[batch]` is one text a sample.
        makes: what the tokenizer makes (`IDS`, `MASK`, `SEGMENTS`) -> the input that takes it.
        tokenizer: `kind`, a key of `probegen.runtime.texts.KINDS`, and the settings of that kind;
            long lists of words are packed (`pack`).
        layer: path of the layer whose work it does; empty for a tokenizer that was attached.
    """

    name: str
    shape: tuple[int | None, ...]
    makes: Mapping[str, str]
    tokenizer: Mapping[str, Any]
    layer: str = ""


def pack(value: Any) -> str:
    """Returns JSON data as compressed text: a vocabulary takes a third of its space."""
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # A word of a vocabulary may be no UTF-8 at all.
    packed = zlib.compress(data.encode("utf-8", "surrogateescape"), 9)
    return binascii.b2a_base64(packed, newline=False).decode()


def unpack(text: Any) -> Any:
    """Returns what was packed.

    Raises:
        ValueError: it is damaged, or larger than any vocabulary.
    """
    try:
        opened = zlib.decompressobj()
        data = opened.decompress(binascii.a2b_base64(text, strict_mode=True), _MOST_BYTES)
        if opened.unconsumed_tail or not opened.eof:
            raise ValueError("it is cut short, or larger than any vocabulary")
        return json.loads(data.decode("utf-8", "surrogateescape"))
    except (binascii.Error, zlib.error, TypeError, UnicodeError, RecursionError) as error:
        raise ValueError(f"it is no packed data: {error}") from error
