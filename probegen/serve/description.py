"""What the server says of itself and of a model: the metadata of the Open Inference Protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probegen._version import __version__
from probegen.artefact import integrity
from probegen.artefact.manifest import InputSpec, Manifest, OutputSpec
from probegen.serve.datatypes import NAMES
from probegen.serve.inference import Served

EXTENSIONS = ("binary_tensor_data",)


def server_metadata() -> dict[str, Any]:
    """Returns what `GET /v2` answers."""
    return {"name": "probegen", "version": __version__, "extensions": list(EXTENSIONS)}


def model_metadata(served: Served) -> dict[str, Any]:
    """Returns what `GET /v2/models/NAME` answers.

    Inputs are the model's own. What a request may say beside them, and what outputs mean, stands
    in `parameters`; clients that know nothing of these lose nothing.
    """
    manifest = served.artefact.manifest
    return {
        "name": served.name,
        "versions": [served.version],
        "platform": "probegen",
        "inputs": [_tensor(spec) for spec in manifest.inputs],
        "outputs": [_tensor(spec) for spec in manifest.outputs],
        "parameters": {
            "model": manifest.model.get("name", ""),
            "engine": served.artefact.engine.name,
            "sha256": _digest(Path(served.artefact.path)),
            "verified": bool((manifest.certificate or {}).get("passed")),
            "class_names": list(manifest.class_names or ()),
            "request": _own(manifest),
            "meaning": {spec.name: _meaning(spec) for spec in manifest.outputs},
        },
    }


def _tensor(spec: InputSpec | OutputSpec) -> dict[str, Any]:
    sizes = [-1 if n is None else n for n in spec.shape]
    return {"name": spec.name, "datatype": NAMES[spec.dtype], "shape": sizes}


def _own(manifest: Manifest) -> dict[str, Any]:
    """Returns what a request may say beside the inputs, by name: a datatype and a shape."""
    found: dict[str, Any] = {}
    if manifest.explanations:
        found["explain"] = {"datatype": "BOOL", "shape": [], "default": False}
    if manifest.target_input:
        found["target"] = {"datatype": "INT32", "shape": [-1], "default": -1}
        if manifest.target_classes is not None:
            found["target"]["classes"] = manifest.target_classes
    for spec in (manifest.region_input, manifest.groups_input):
        if spec is not None:
            found[spec.name] = {k: v for k, v in _tensor(spec).items() if k != "name"}
    for text in manifest.texts:  # in the place of the ids that are made of it
        sizes = [-1 if n is None else n for n in text.shape]
        found[text.name] = {"datatype": "BYTES", "shape": sizes}
    return found


def _meaning(spec: OutputSpec) -> dict[str, Any]:
    said = {
        "kind": spec.kind,
        "title": spec.title,
        "axes": list(spec.axes),
        "unit": spec.unit,
        "sign": spec.sign,
        "paper": spec.paper,
    }
    return {key: value for key, value in said.items() if value}


def _digest(path: Path) -> str | None:
    """Returns the digest of the whole that an artefact carries; None where it has none."""
    try:
        return integrity.sealed(path)
    except (KeyError, OSError):  # of an older probegen, or moved away since
        return None
