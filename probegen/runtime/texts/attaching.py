"""Attaches a tokenizer in the form of Hugging Face's `tokenizer.json` to inputs that take ids."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probegen.artefact.manifest import InputSpec, Manifest
from probegen.artefact.texts import IDS, MASK, SEGMENTS, TextSpec, pack
from probegen.errors import InputError, did_you_mean
from probegen.runtime.texts.base import NAMED_FOR, takes_whole_numbers
from probegen.runtime.texts.hugging_face import opened
from probegen.text import amount

#: Names of inputs that take ids, the likeliest first.
_IDS = ("input_ids", "token_ids", "tokens", "ids")
#: Tokens that fill up, the likeliest first.
_PADDING = ("[PAD]", "<pad>", "<|pad|>", "<|padding|>", "<|endoftext|>", "</s>")
_NAME = "text"


def attached(given: Any, manifest: Manifest) -> Manifest:
    """Returns a manifest whose inputs are made of a text by a tokenizer.

    Args:
        given: path of a `tokenizer.json`; or a dict with the path as `file` and the names of the
            inputs that take `ids`, `mask` and `segments`, where their names do not tell.
        manifest: of the artefact.

    Raises:
        InputError: there is no such file, or it does not fit the inputs; says how to tell.
    """
    if manifest.texts:
        raise InputError(
            f"the model takes text by itself ({manifest.texts[0].name!r}); leave tokenizer= out."
        )
    file, named = _told(given)
    content = _read(file)
    tokenizer = opened(json.dumps(content))
    makes = _places(named, manifest.inputs)
    ids = next(spec for spec in manifest.inputs if spec.name == makes[IDS])
    size = tokenizer.get_vocab_size()
    if ids.vocabulary is not None and size > ids.vocabulary:
        raise InputError(
            f"{file} has {amount(size, 'token')}, and the input {ids.name!r} takes ids up to "
            f"{ids.vocabulary - 1}: it is the tokenizer of another model."
        )
    added = content.get("added_tokens") or []
    settings = {
        "kind": "hugging_face",
        "file": pack(content),
        "special": True,
        "readable": "ByteLevel" in json.dumps(content.get("decoder")),
        "length": ids.shape[-1],
        "start": [],
        "end": [],
        "padding": _padding(content, tokenizer),
        "hidden": [int(entry["id"]) for entry in added if entry.get("special")],
        "dtype": ids.dtype,
        "side": str((content.get("padding") or {}).get("direction", "Right")).lower(),
    }
    return manifest.replace(texts=(TextSpec(_NAME, (ids.shape[0],), makes, settings),))


def _told(given: Any) -> tuple[str, dict[str, str]]:
    if isinstance(given, str | os.PathLike):
        return os.fspath(given), {}
    known = ("file", IDS, MASK, SEGMENTS)
    if not isinstance(given, Mapping) or "file" not in given:
        raise InputError(
            "tokenizer= takes the path of a tokenizer.json, or a dict such as "
            f"{{'file': 'tokenizer.json', 'ids': 'input_ids', 'mask': 'mask'}}; got {given!r}."
        )
    for name in given:
        if name not in known:
            raise InputError(f"tokenizer= has the key {name!r}.{did_you_mean(str(name), known)}")
    return os.fspath(given["file"]), {k: str(v) for k, v in given.items() if k != "file"}


def _read(file: str) -> dict[str, Any]:
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"the tokenizer {file} cannot be read: {error}") from error
    if not isinstance(content, dict) or "model" not in content:
        raise InputError(
            f"{file} is no tokenizer.json of Hugging Face's library tokenizers: it has no 'model'. "
            "tokenizer.save('tokenizer.json') of that library writes one."
        )
    return content


def _places(named: Mapping[str, str], inputs: Sequence[InputSpec]) -> dict[str, str]:
    """Returns which input takes what the tokenizer makes.

    Raises:
        InputError: a name is no input; or it cannot be told which takes the ids, or what another
            input takes.
    """
    names = [spec.name for spec in inputs]
    for name in named.values():
        if name not in names:
            raise InputError(f"tokenizer=: there is no input {name!r}.{did_you_mean(name, names)}")
    makes = dict(named)
    for what, words in NAMED_FOR.items():
        fitting = [n for n in names if any(w in n.lower() for w in words)]
        if what not in makes and len(fitting) == 1:
            makes[what] = fitting[0]
    if IDS not in makes:
        left = [s for s in inputs if s.name not in makes.values() and len(s.shape) == 2]
        whole = [s.name for s in left if takes_whole_numbers(s)]
        likely = [n for n in _IDS if n in whole] or whole
        if not likely or (len(likely) > 1 and likely[0] not in _IDS):
            raise InputError(_untold(names, "which input takes the ids"))
        makes[IDS] = likely[0]
    ids = next(spec for spec in inputs if spec.name == makes[IDS])
    if len(ids.shape) != 2:
        raise InputError(f"the input {ids.name!r} takes no rows of ids: {list(ids.axes)}.")
    left_over = [n for n in names if n not in makes.values()]
    if left_over:
        raise InputError(_untold(names, f"what {', '.join(map(repr, left_over))} takes"))
    return makes


def _untold(names: Sequence[str], what: str) -> str:
    return (
        f"tokenizer=: the model takes {', '.join(map(repr, names))}, and it cannot be told {what}. "
        f"Say it: tokenizer={{'file': 'tokenizer.json', 'ids': {names[0]!r}}}, with 'mask' and "
        "'segments' where there are such; other inputs are not made of text."
    )


def _padding(content: Mapping[str, Any], tokenizer: Any) -> int:
    told = (content.get("padding") or {}).get("pad_id")
    found = (tokenizer.token_to_id(token) for token in _PADDING)
    return int(told if told is not None else next((i for i in found if i is not None), 0))
