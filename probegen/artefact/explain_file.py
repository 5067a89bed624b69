"""The second graph of an artefact with `gate="split"`: `m.explain.onnx` beside `m.onnx`.

Engines that have no `If` (TensorRT, WebGPU, CoreML) get one graph that predicts and another that
predicts and explains. Both keep their weights in the one file `m.onnx.data`. The first graph names
the second in its metadata, with the SHA-256 that the second carries (see `integrity`), so that two
files of different builds are never taken for a pair. The second is an artefact without a gate by
itself. Reading any of this executes nothing and needs neither onnx nor onnxruntime.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from probegen.artefact import onnx_file
from probegen.errors import ArtefactError

METADATA_KEY = "probegen.explain"
_SUFFIX = ".explain"
#: As `sha256sum` writes it. The digits stand first, where `integrity.seal` fills them in.
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


@dataclasses.dataclass(frozen=True)
class ExplainFile:
    """The graph that explains, as the graph that predicts knows it.

    Attributes:
        location: its name; it lies in the same folder.
        sha256: the digest that it carries.
    """

    location: str
    sha256: str = onnx_file.NO_DIGEST

    def to_text(self) -> str:
        """Returns the entry of the metadata."""
        return f"{self.sha256}  {self.location}"

    @classmethod
    def from_text(cls, text: str) -> ExplainFile:
        """Reads what `to_text` wrote.

        Raises:
            ArtefactError: it was not written by `to_text`, or names a file in another folder.
        """
        match = _LINE.fullmatch(text)
        if match is None or Path(match[2]).name != match[2]:
            raise ArtefactError(
                f"the metadata {METADATA_KEY!r} are {text[:90]!a}; expected a SHA-256 and the name "
                "of a file beside the model."
            )
        return cls(match[2], match[1])


def explain_path(model: Path) -> Path:
    """Returns where the second graph of an artefact lies: `m.explain.onnx` for `m.onnx`."""
    if model.suffix.lower() == ".onnx":
        return model.with_name(f"{model.stem}{_SUFFIX}{model.suffix}")
    return model.with_name(f"{model.name}{_SUFFIX}")


def explain_file_of(model: Path) -> ExplainFile | None:
    """Returns what an ONNX file says of its second graph; None where it has none.

    Raises:
        ArtefactError: the entry is damaged.
    """
    entry = onnx_file.metadata(model).get(METADATA_KEY)
    return None if entry is None else ExplainFile.from_text(entry.text)


def check_explain_file(model: Path, expected: ExplainFile) -> Path:
    """Returns the path of the second graph, held against what the first was written with.

    Reads a few bytes: that the contents are as the digest says is what `integrity.check` checks.

    Raises:
        ArtefactError: it is missing, cut short, or of another build.
    """
    path = model.with_name(expected.location)
    remedy = (
        f"{model.name!r} and {expected.location!r} are one artefact, with their weights beside "
        "them: copy all of it from where it was made, or export it again."
    )
    if not path.is_file():
        raise ArtefactError(
            f"{str(model)!r} explains with a second graph, {expected.location!r}, and there is no "
            f"such file beside it. {remedy}"
        )
    found = onnx_file.digest_in(path)
    if found is None:
        raise ArtefactError(
            f"{str(path)!r} was cut short, or is none that probegen wrote: it carries no digest. "
            f"{remedy}"
        )
    if found != expected.sha256:
        raise ArtefactError(
            f"{str(path)!r} is of another build ({found[:12]!a}) than {str(model)!r}, which "
            f"was written with {expected.sha256[:12]}. {remedy}"
        )
    return path
