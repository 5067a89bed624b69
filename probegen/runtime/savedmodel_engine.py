"""Runs SavedModel artefacts with TensorFlow, the only place in the runtime that imports it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from probegen.artefact.manifest import SAVEDMODEL_ASSET, TARGET_INPUT, Manifest
from probegen.errors import ArtefactError, ManifestError
from probegen.runtime.artefact import FOREIGN
from probegen.runtime.inputs import Array, as_strings
from probegen.runtime.interface import Held, check_interface, expected_inputs
from probegen.stages import cause

PREDICT = "serving_default"
EXPLAIN = "explain"


@dataclasses.dataclass(frozen=True)
class SavedModelEngine:
    """The two signatures of a SavedModel and the manifest that lies in its assets.

    Attributes:
        signatures: concrete functions by signature name.
        manifest: what the outputs mean.
        path: the directory.
        module: the loaded object; it owns the variables that the signatures only refer to.
    """

    signatures: Mapping[str, Any]
    manifest: Manifest
    path: str
    module: Any

    name = "TensorFlow"

    @classmethod
    def open(cls, path: Path) -> SavedModelEngine:
        """Loads the directory.

        Raises:
            ArtefactError: it holds no SavedModel, a foreign or a damaged one, or TensorFlow is
                not installed.
            ManifestError: the manifest is damaged or of a newer schema.
        """
        if not (path / "saved_model.pb").is_file():
            raise ArtefactError(
                f"the directory {str(path)!r} holds no SavedModel (no saved_model.pb in it). "
                "Pass an ONNX file or a SavedModel directory that probegen exported."
            )
        asset = path / SAVEDMODEL_ASSET
        if not asset.is_file():
            raise ArtefactError(f"{str(path)!r} {FOREIGN}")
        manifest = Manifest.from_json(_text(asset))
        try:
            import tensorflow as tf
        except ImportError as error:
            raise ArtefactError(
                f"{str(path)!r} is a SavedModel, which runs with TensorFlow, and TensorFlow is "
                "not installed. Install it, or export to ONNX: probegen compile ... -o m.onnx"
            ) from error
        try:
            module = tf.saved_model.load(str(path))
        except Exception as error:  # whatever a damaged graph makes TensorFlow raise
            known = "" if isinstance(error, MemoryError) else " It is damaged or incomplete."
            raise ArtefactError(
                f"TensorFlow cannot load the SavedModel {str(path)!r}.{known} TensorFlow says: "
                f"{cause(error)}"
            ) from error
        signatures = dict(module.signatures)
        needed = [PREDICT, *([EXPLAIN] if manifest.explanations else [])]
        for name in needed:
            if name not in signatures:
                raise ArtefactError(
                    f"the SavedModel {str(path)!r} lacks the signature {name!r} (it has "
                    f"{', '.join(sorted(signatures)) or 'none'}); compile it again."
                )
        engine = cls(signatures, manifest, str(path), module)
        engine._check_interface()
        return engine

    def _check_interface(self) -> None:
        """Raises where the manifest and the signatures describe other inputs or outputs."""
        manifest = self.manifest
        explains = bool(manifest.explanations)
        for name in (PREDICT, EXPLAIN)[: 1 + explains]:
            signature = self.signatures[name]
            arguments = signature.structured_input_signature[1]
            described = manifest.replace(target_input=manifest.target_input and name == EXPLAIN)
            inputs = [
                dataclasses.replace(spec, name=_argument(spec.name, arguments))
                for spec in expected_inputs(described.replace(gate=False))
            ]
            check_interface(self.path, "input", inputs, _held(arguments), list(arguments))
            outputs = manifest.outputs if name == EXPLAIN else manifest.predictions
            check_interface(self.path, "output", outputs, _held(signature.structured_outputs))

    def run(
        self, feeds: Mapping[str, Array], target: Array | None, explain: bool
    ) -> dict[str, Array]:
        """Computes the predictions and, with `explain`, everything else."""
        import tensorflow as tf

        explain = explain and bool(self.manifest.explanations)
        signature = self.signatures[EXPLAIN if explain else PREDICT]
        fed = dict(feeds)
        if explain and target is not None:
            fed[TARGET_INPUT] = target
        arguments = signature.structured_input_signature[1]
        constants = {_argument(n, arguments): tf.constant(a) for n, a in fed.items()}
        wanted = self.manifest.outputs if explain else self.manifest.predictions
        try:
            outputs = signature(**constants)
            return {spec.name: _array(outputs[spec.name], spec.name) for spec in wanted}
        except Exception as error:
            raise ArtefactError(
                f"TensorFlow could not run {self.path!r}: {cause(error)}"
            ) from error


def _text(asset: Path) -> str:
    """Returns the text of the manifest.

    Raises:
        ManifestError: it is no text.
    """
    try:
        return asset.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"the probegen manifest {str(asset)!r} is damaged: {error}. Compile the artefact again."
        ) from error


def _held(specs: Mapping[str, Any]) -> dict[str, Held]:
    """Returns what TensorFlow says of the inputs or outputs of a signature."""
    return {
        name: Held(spec.dtype.name, None if spec.shape.rank is None else tuple(spec.shape))
        for name, spec in specs.items()
    }


def _array(tensor: Any, name: str) -> Array:
    """Returns a tensor as numpy holds it: text as text, which TensorFlow hands out as objects."""
    array: Array = tensor.numpy()
    return as_strings(array, f"output {name!r}") if array.dtype.kind == "O" else array


def _argument(name: str, arguments: Mapping[str, Any]) -> str:
    """Returns the argument for an input; TensorFlow makes Python identifiers of input names."""
    if name in arguments:
        return name
    identifier = "".join(c if c.isalnum() else "_" for c in name)
    return identifier if identifier[:1].isalpha() else "arg_" + identifier
