"""What configurations are written from."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from probegen.artefact import explain_file, weights_file
from probegen.artefact.manifest import Manifest
from probegen.errors import SpecError
from probegen.runtime import Artefact, load
from probegen.serve.protocol import check_model_name

#: What a file of a configuration holds: text, bytes, or what another file holds.
Content = str | bytes | Path


@dataclasses.dataclass(frozen=True)
class Options:
    """What is said about the place where it will be served.

    Attributes:
        name: what requests call the model; the artefact's name where it is None.
        max_batch: the most samples in a batch.
        image: name of the container's image.
        port: where the container listens.
        sizes: of open axes, by name: what warm-up requests have.
    """

    name: str | None = None
    max_batch: int = 16
    image: str = "probegen-serve:latest"
    port: int = 8080
    sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Subject:
    """An artefact that is to be served.

    Attributes:
        path: where it lies.
        artefact: the same, opened.
        files: all files that belong to it, the model first; of a SavedModel the folder.
    """

    path: Path
    artefact: Artefact
    files: tuple[Path, ...]

    @property
    def manifest(self) -> Manifest:
        """What the artefact says of itself."""
        return self.artefact.manifest

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Subject:
        """Opens an artefact, so that nothing is written for one that is damaged.

        Raises:
            ArtefactError: it cannot be opened.
        """
        artefact, place = load(path), Path(path)
        if place.is_dir():
            return cls(place, artefact, (place,))
        beside = (explain_file.explain_file_of(place), weights_file.data_of(place))
        named = [place.with_name(file.location) for file in beside if file is not None]
        return cls(place, artefact, (place, *named))

    def named(self, options: Options) -> str:
        """Returns what the model is called.

        Raises:
            SpecError: the name cannot stand in a path or an address.
        """
        return check_model_name(options.name or self.path.stem)

    def check_onnx(self, server: str) -> None:
        """Raises a SpecError for a SavedModel."""
        if self.path.is_dir():
            raise SpecError(
                f"{str(self.path)!r} is a SavedModel; {server} is configured for ONNX artefacts. "
                "Use tensorflow-serving, or compile to a name ending in .onnx."
            )
