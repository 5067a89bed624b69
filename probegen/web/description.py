"""What a page is told of its artefact: the manifest as it is, and what it needs beside that.

Artefacts that cannot run in a browser are refused here, before anything is written.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from probegen._version import __version__
from probegen.artefact import explain_file, weights_file
from probegen.artefact.manifest import GATE_OPTIONAL, Manifest
from probegen.errors import SpecError
from probegen.runtime.plot import style
from probegen.text import shortened

#: Element types that the page makes tensors of, and reads.
DTYPES = frozenset(
    {"bool", "float16", "float32", "float64"}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
#: Kinds of tokenizers that the page has (`page/texts.js`).
TOKENIZERS = frozenset(
    {"string_lookup", "text_vectorization", "hashing", "word_piece", "code_points"}
)
#: Those that fold letters by Unicode's tables.
_FOLDING = frozenset({"word_piece", "code_points"})
#: Bytes of graph and weights. WebAssembly addresses 4 GB, and has them twice for a moment.
MOST_BYTES = 1_500_000_000
#: Colours of a map, as matplotlib has them.
_LEVELS = 256
_COLOURS = (style.DIVERGING, style.MAGNITUDE, style.HEAT, style.LIGHT, style.WARM)


def check(path: Path, manifest: Manifest) -> None:
    """Refuses an artefact that does not run in a browser.

    Raises:
        SpecError: it does not; says why, and what would.
    """
    if path.is_dir():
        raise SpecError(
            f"{str(path)!r} is a SavedModel, and browsers run ONNX: compile to a name ending in "
            ".onnx."
        )
    if manifest.gate == GATE_OPTIONAL:
        raise SpecError(
            f"{str(path)!r} has an optional gate, which onnxruntime-web does not know: compile it "
            "with gate=True (or 'split', or False)."
        )
    typed = [("input", spec.name, spec.dtype) for spec in manifest.inputs]
    typed += [("output", spec.name, spec.dtype) for spec in manifest.outputs]
    for what, name, dtype in typed:
        if dtype not in DTYPES:
            raise SpecError(
                f"the {what} {name!r} is {dtype}, of which a page can make nothing; it takes "
                f"{', '.join(sorted(DTYPES))}."
            )
    size = sum(file.stat().st_size for file in files_of(path))
    if size > MOST_BYTES:
        raise SpecError(
            f"{str(path)!r} has {size / 1e9:.1f} GB, and a page in a browser holds "
            f"{MOST_BYTES / 1e9:g} GB. `probegen quantise` makes artefacts smaller; larger ones "
            "need a server (`probegen serve`)."
        )


def files_of(path: Path) -> tuple[Path, ...]:
    """Returns all files of an ONNX artefact, the first graph first."""
    beside = (explain_file.explain_file_of(path), weights_file.data_of(path))
    return (path, *(path.with_name(file.location) for file in beside if file is not None))


def unread_texts(manifest: Manifest) -> dict[str, str]:
    """Returns the texts that the page cannot take apart, with the kinds of their tokenizers."""
    kinds = {text.name: str(text.tokenizer.get("kind")) for text in manifest.texts}
    return {name: kind for name, kind in kinds.items() if kind not in TOKENIZERS}


def description(
    path: Path, manifest: Manifest, *, onnxruntime: str, scale: float | None
) -> dict[str, Any]:
    """Returns what the page is told, as JSON values.

    Args:
        path: of the artefact.
        manifest: of the artefact, without what no longer holds of it.
        onnxruntime: version of onnxruntime-web.
        scale: what pixels are multiplied by unless the user of the page says otherwise.
    """
    data, second = weights_file.data_of(path), explain_file.explain_file_of(path)
    folds = any(text.tokenizer.get("kind") in _FOLDING for text in manifest.texts)
    return {
        "probegen": __version__,
        "onnxruntime": onnxruntime,
        "manifest": json.loads(manifest.to_json()),
        "graph": path.name,
        "explainGraph": None if second is None else second.location,
        "data": None if data is None else data.location,
        "scale": scale,
        "colours": {name: _hexadecimal(name) for name in _COLOURS},
        "casefold": _casefold() if folds else {},
        "unreadTexts": unread_texts(manifest),
    }


def title_of(path: Path, manifest: Manifest) -> str:
    """Returns what a page is called by default."""
    return shortened(str(manifest.model.get("name") or path.stem), 80)


def _hexadecimal(colours: str) -> str:
    """Returns the colours of a map, six digits each, from the lowest value to the highest."""
    levels = style.colour_map(colours)(range(_LEVELS))[:, :3]
    return bytes(round(float(part) * 255) for level in levels for part in level).hex()


def _casefold() -> Mapping[str, str]:
    """Returns what each character becomes when case is folded: JavaScript has no such function."""
    every = map(chr, _characters())
    return {one: folded for one in every if (folded := one.casefold()) != one}


def _characters() -> Iterable[int]:
    assigned = (n for n in range(sys.maxunicode + 1) if not 0xD800 <= n < 0xE000)
    return (n for n in assigned if unicodedata.category(chr(n)) != "Cn")
