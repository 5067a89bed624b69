"""What engines that open ONNX files share: the check of the data file, and why loading failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from probegen.artefact import weights_file
from probegen.errors import ArtefactError
from probegen.stages import cause


def check_data(path: Path, metadata: Mapping[str, str]) -> None:
    """Holds the data file of a model that has been loaded against the model's metadata.

    After loading, so that no other file can slip in between.

    Raises:
        ArtefactError: the file was cut short, or belongs to another build.
    """
    if weights_file.METADATA_KEY in metadata:
        data = weights_file.ExternalData.from_json(metadata[weights_file.METADATA_KEY])
        weights_file.check_data(path, data, may_lack=True)


def not_loaded(path: Path, product: str, error: Exception) -> ArtefactError:
    """Returns why a model could not be loaded.

    Raises:
        ArtefactError: its data file is why.
    """
    data = weights_file.data_of(path)
    if data is not None:
        weights_file.check_data(path, data)
    told = f"{product} says: {cause(error)}"
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return ArtefactError(
            f"{product} cannot load {str(path)!r}: it needs more memory than there is. {told}"
        )
    if "NOT_IMPLEMENTED" in str(error):  # as onnxruntime says it
        return ArtefactError(
            f"{product} cannot run {str(path)!r}: it lacks an operator for this element type "
            f"(on the CPU float64 and bfloat16 are rare). {told}"
        )
    return ArtefactError(
        f"{product} cannot load {str(path)!r}; the file is damaged, cut short or no ONNX model. "
        f"{told}"
    )
