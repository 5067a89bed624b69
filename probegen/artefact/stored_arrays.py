"""Arrays of probes in a manifest: each is in the artefact once.

An array stands in a manifest as `{"array": {"dtype", "shape", "sha256", "data"}}`, its bytes in
base64 under `data`. The graph of an artefact holds the same bytes, for it computes with them. So
where an array is large, `data` is left out: whoever needs it finds the constant of the graph that
has the digest.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.errors import ManifestError

Array = npt.NDArray[Any]

#: Gives the constants of a graph that have one of some numbers of elements.
Constants = Callable[[Container[int]], Iterable[Array]]

#: Key of an array in the text form of a probe.
ARRAY = "array"
#: Arrays of so many bytes stand in the manifest itself.
SMALL = 1024


def digest_of(array: Array) -> str:
    """Returns the SHA-256 of an array's bytes, in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def encoded(array: Array) -> dict[str, Any]:
    """Returns the text form of an array, with its bytes."""
    return {
        ARRAY: {
            "dtype": array.dtype.name,
            "shape": list(array.shape),
            "sha256": digest_of(array),
            "data": _text_of(array),
        }
    }


def is_encoded(value: Any) -> bool:
    """Tells whether a JSON value is the text form of an array."""
    inner = value.get(ARRAY) if isinstance(value, Mapping) and len(value) == 1 else None
    return isinstance(inner, Mapping) and "sha256" in inner


def decoded(value: Mapping[str, Any]) -> Array:
    """Reads what `encoded` wrote.

    Raises:
        ManifestError: the bytes are not there, or are not those of the digest.
    """
    inner = value[ARRAY]
    if "data" not in inner:
        raise ManifestError(
            f"an array of shape {inner.get('shape')} is kept in the graph of its artefact, and is "
            "not in this text; read the probes of the artefact, or give the array itself."
        )
    try:
        data = base64.b64decode(inner["data"], validate=True)
        array = np.frombuffer(data, np.dtype(inner["dtype"])).reshape(inner["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"an array in a probe cannot be read: {error}.") from error
    if digest_of(array) != inner["sha256"]:
        raise ManifestError("an array in a probe has other bytes than its digest says.")
    return array


def shortened(probes: Iterable[Any], constants: Constants) -> tuple[Any, ...]:
    """Returns the text forms of probes without the bytes that constants of the graph hold.

    Args:
        probes: text forms.
        constants: gives those of the graph; not called where no array is large.
    """
    listed = list(probes)
    large = [a for a in _arrays_in(listed) if len(a.get("data", "")) * 3 // 4 > SMALL]
    held = _digests(constants, large)
    return tuple(_replaced(listed, lambda inner: _without_data(inner, held)))


def completed(probes: Iterable[Any], constants: Constants) -> tuple[Any, ...]:
    """Returns text forms with all bytes; the reverse of `shortened`.

    Args:
        probes: text forms.
        constants: gives those of the graph; not called where nothing is left out.

    Raises:
        ManifestError: an array is not among the constants: the graph was changed.
    """
    listed = list(probes)
    wanted = [a for a in _arrays_in(listed) if "data" not in a]
    if not wanted:
        return tuple(listed)
    found = _digests(constants, wanted)
    for inner in wanted:
        if inner["sha256"] not in found:
            raise ManifestError(
                f"the artefact no longer holds an array of shape {inner['shape']} that one of its "
                "probes was made with: its graph was changed. Compile it again, or pass the "
                "instrumented model to pg.verify."
            )
    return tuple(_replaced(listed, lambda inner: _with_data(inner, found)))


def _digests(constants: Constants, wanted: Iterable[Mapping[str, Any]]) -> dict[str, Array]:
    """Returns digest -> constant, for the constants that may be one of the arrays."""
    kinds = {(w["dtype"], int(np.prod(w["shape"]))) for w in wanted}
    alike = constants({size for _, size in kinds}) if kinds else ()
    return {digest_of(c): c for c in alike if (c.dtype.name, c.size) in kinds}


def _arrays_in(value: Any) -> list[Mapping[str, Any]]:
    if is_encoded(value):
        return [value[ARRAY]]
    parts = value.values() if isinstance(value, Mapping) else value
    if isinstance(value, Mapping | list | tuple):
        return [array for part in parts for array in _arrays_in(part)]
    return []


def _replaced(value: Any, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Any:
    if is_encoded(value):
        return {ARRAY: change(value[ARRAY])}
    if isinstance(value, Mapping):
        return {key: _replaced(part, change) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(part, change) for part in value]
    return value


def _without_data(inner: Mapping[str, Any], held: Mapping[str, Array]) -> dict[str, Any]:
    return {k: v for k, v in inner.items() if k != "data" or inner["sha256"] not in held}


def _with_data(inner: Mapping[str, Any], found: Mapping[str, Array]) -> Mapping[str, Any]:
    if "data" in inner:
        return inner
    return {**inner, "data": _text_of(found[inner["sha256"]])}


def _text_of(array: Array) -> str:
    """Returns the bytes of an array, in C order, in base64."""
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
