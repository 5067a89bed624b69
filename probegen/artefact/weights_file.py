"""External data: the large weights of an ONNX artefact in one file beside it.

Protobuf holds 2 GB at most, so ONNX lets tensors lie in another file. An artefact `NAME.onnx`
keeps them in `NAME.onnx.data`. The data file starts with a header that holds the SHA-256 of what
follows, and the model's metadata say which data it was written with; so a data file that was left
behind, cut short or swapped is told from the right one without reading it whole. Two data files
with one SHA-256 are interchangeable. To other programs the header is a gap before the first
tensor. Reading any of this executes nothing and needs neither onnx nor onnxruntime.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from probegen.artefact import onnx_file
from probegen.errors import ArtefactError

METADATA_KEY = "probegen.external_data"
SUFFIX = ".data"
HEADER_BYTES = 128
_MAGIC = b"probegen external data 1\n"
_DIGITS = 64


@dataclasses.dataclass(frozen=True)
class ExternalData:
    """The data file that a model was written with.

    Attributes:
        location: its name; it lies in the folder of the model.
        size: its bytes.
        sha256: of what follows the header, as 64 hexadecimal digits.
    """

    location: str
    size: int
    sha256: str

    def to_json(self) -> str:
        """Returns the entry of the model's metadata."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ExternalData:
        """Reads what `to_json` wrote.

        Raises:
            ArtefactError: it was not written by `to_json`, or names a file in another folder.
        """
        try:
            fields = json.loads(text)
            data = cls(str(fields["location"]), int(fields["size"]), str(fields["sha256"]))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise ArtefactError(f"the metadata {METADATA_KEY!r} are damaged: {error!r}") from error
        if not data.location or Path(data.location).name != data.location:
            raise ArtefactError(
                f"the metadata {METADATA_KEY!r} name {data.location!r}; expected the name of a "
                "file beside the model."
            )
        return data

    def header(self) -> bytes:
        """Returns the first `HEADER_BYTES` bytes of the data file."""
        return (_MAGIC + self.sha256.encode() + b"\n").ljust(HEADER_BYTES, b"\0")


def data_path(model: Path) -> Path:
    """Returns where the data of an artefact lie."""
    return model.with_name(model.name + SUFFIX)


def read_sha256(path: Path) -> str | None:
    """Returns the SHA-256 in the header of a data file, None for any other file."""
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or not header.startswith(_MAGIC):
        return None
    return header[len(_MAGIC) :][:_DIGITS].decode("ascii", "replace")


def data_of(model: Path) -> ExternalData | None:
    """Returns what the metadata of an ONNX file say of its data; None where there are none.

    Reads a few bytes of the file, however large it is. What is no ONNX file has no data.

    Raises:
        ArtefactError: the entry is damaged.
    """
    entry = onnx_file.metadata(model).get(METADATA_KEY)
    return None if entry is None else ExternalData.from_json(entry.text)


def check_data(model: Path, data: ExternalData, *, may_lack: bool = False) -> None:
    """Holds the data file beside a model against what the model was written with.

    Args:
        model: path of the model.
        data: what its metadata say.
        may_lack: let a missing file pass: of a model that has been loaded nonetheless, since
            another program has put the tensors elsewhere.

    Raises:
        ArtefactError: the data file is missing, of another size, or of another build.
    """
    path = model.with_name(data.location)
    remedy = (
        f"{model.name!r} and {data.location!r} are one artefact: copy both from where it was "
        "made, or export it again."
    )
    if not path.is_file():
        if may_lack:
            return
        raise ArtefactError(
            f"{str(model)!r} keeps its weights in {data.location!r}, {data.size} bytes, and there "
            f"is no such file beside it. {remedy}"
        )
    size = path.stat().st_size
    if size != data.size:
        raise ArtefactError(
            f"{str(path)!r} has {size} bytes, and {str(model)!r} was written with {data.size}: it "
            f"was {'cut short' if size < data.size else 'changed'}, or belongs to another "
            f"build. {remedy}"
        )
    found = read_sha256(path)
    if found != data.sha256:
        what = "none that probegen wrote" if found is None else f"of another build ({found[:12]})"
        raise ArtefactError(
            f"{str(path)!r} has the {size} bytes that {str(model)!r} was written with, but is "
            f"{what}; expected the data {data.sha256[:12]}. {remedy}"
        )


def check_data_contents(model: Path, data: ExternalData) -> None:
    """Compares every byte of the data file with what the model was written with.

    Raises:
        ArtefactError: one is another.
    """
    path = model.with_name(data.location)
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if header != data.header() or found != data.sha256:
        raise ArtefactError(
            f"{str(path)!r} is not as probegen wrote it: the SHA-256 of its contents is "
            f"{found[:12]}..., and it was written with {data.sha256[:12]}... Copy {model.name!r} "
            f"and {data.location!r} again from where they were made, or export them again."
        )
