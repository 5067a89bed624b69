"""Stages of the pipeline: what another library raises within one leaves it as an error of ours.

Keras, TensorFlow, tf2onnx, onnx and onnxruntime raise whatever they like. Each stage is wrapped in
one place; the error that comes out names the stage, the layer where that is known, and the cause.
Interrupts (Ctrl-C, `sys.exit`) pass through.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from probegen.errors import MissingFolderError, ProbegenError, WriteError
from probegen.text import shortened

#: Where an exception holds the path of the layer in whose call it was raised.
_LAYER = "probegen_layer"
_LONGEST = 2000

_ELSEWHERE = "or write to another place"
_ADVICE = {
    errno.ENOSPC: f"the disk is full; free some space, {_ELSEWHERE}",
    errno.EDQUOT: f"the quota is used up; free some space, {_ELSEWHERE}",
    errno.EROFS: "the file system is read-only; write to another place",
    errno.EACCES: f"there is no permission to write there; change it, {_ELSEWHERE}",
    errno.EPERM: f"there is no permission to write there; change it, {_ELSEWHERE}",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EFBIG: "the file is larger than may be written there; write to another place",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
}


@contextmanager
def stage(what: str, kind: type[ProbegenError], hint: str = "") -> Iterator[None]:
    """Turns what is raised within into an error of ours; also a decorator.

    Args:
        what: what cannot be done then, the beginning of the message.
        kind: the error.
        hint: what would work, a sentence.

    Raises:
        ProbegenError: of that kind; one that is raised within comes out as it is.
    """
    try:
        yield
    except ProbegenError:
        raise
    except Exception as error:
        layer = layer_of(error)
        where = f" (in layer {layer!r})" if layer else ""
        end = f" {hint}" if hint else ""
        raise kind(f"{what}{where}: {cause(error)}{end}") from error


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns failures to write into a `WriteError` that names the place and what to do.

    What is no failure of the place (a fault of a converter, say) comes out as it is.
    """
    try:
        yield
    except ProbegenError:
        raise
    except Exception as error:
        reason = _of_place(error)
        if reason is None:
            raise
        kind = MissingFolderError if isinstance(error, FileNotFoundError) else WriteError
        raise kind(f"cannot write {os.fspath(path)!r}: {reason}.") from error


def cause(error: BaseException) -> str:
    """Returns what another library says, as one sentence."""
    if isinstance(error, MemoryError):
        return "it needs more memory than there is."
    text = str(error).strip()
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return said if said.endswith((".", "!", "?", "...")) else f"{said}."


def one_line(error: BaseException) -> str:
    """Returns the first line of what an exception says, without what Keras puts around it."""
    text = str(error).strip().replace("\x1b[1m", "").replace("\x1b[0m", "")
    lines = [line.strip() for line in text.split("\n")]
    said = [s for s in lines if s and not s.startswith(("Exception encountered", "Arguments rec"))]
    return shortened(said[0] if said else type(error).__name__, 300)


def within_layer(error: Exception, path: str) -> None:
    """Notes on an exception the innermost layer in whose call it was raised."""
    if path and not hasattr(error, _LAYER):
        setattr(error, _LAYER, path)


def layer_of(error: BaseException | None) -> str:
    """Returns the layer that `within_layer` noted on an exception or on what caused it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if hasattr(error, _LAYER):
            return str(getattr(error, _LAYER))
        error = error.__cause__ or error.__context__
    return ""


def _of_place(error: BaseException) -> str | None:
    """Returns why a place cannot be written to, None where an exception tells of something else."""
    if isinstance(error, OSError):
        advice = _ADVICE.get(error.errno or 0)
        return advice or error.strerror or str(error) or type(error).__name__
    text = str(error)  # TensorFlow has exceptions of its own for files
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        if os.strerror(number) in text:
            return _ADVICE[number]
    return None


def check_name(path: Path, suffix: str = "") -> None:
    """Refuses a name that is too long for the folder it goes into.

    Raises:
        WriteError: it is, and says how long it may be; or it is no text.
    """
    if "\0" in path.name or not _is_text(path.name):
        raise WriteError(f"the name {path.name!a} cannot be written: it is no UTF-8 text.")
    above = next((p for p in path.parents if p.is_dir()), None)
    try:
        limit = os.pathconf(above or ".", "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # not known here
        return
    length = len(os.fsencode(path.name + suffix))
    if 0 < limit < length:
        what = f" with its {suffix!r} beside it" if suffix else ""
        raise WriteError(
            f"the name {path.name[:40]!r}... has {length} bytes{what}; {str(above)!r} takes names "
            f"of up to {limit}. Choose a shorter one."
        )


def _is_text(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:  # bytes of another encoding, as Python holds them
        return False
    return True
