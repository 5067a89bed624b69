"""Runs SavedModel directories with TensorFlow, the only place in the runtime that imports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from probegen.artefact.manifest import SAVEDMODEL_ASSET
from probegen.errors import ArtefactError, ManifestError
from probegen.runtime.engines.base import Engine, Signature, TensorInfo, foreign, imported
from probegen.runtime.inputs import Array, as_strings
from probegen.stages import cause

PREDICT = "serving_default"
EXPLAIN = "explain"


class SavedModelEngine(Engine):
    """The signatures of a SavedModel that probegen wrote: one that predicts, one that explains."""

    product = "TensorFlow"

    def __init__(self, module: Any, manifest_text: str) -> None:
        """Takes a loaded SavedModel.

        Args:
            module: the loaded object; it owns the variables that its signatures only refer to.
            manifest_text: what lies in its assets.
        """
        self.module = module
        self.manifest_text = manifest_text
        self.functions = [module.signatures[name] for name in (PREDICT, EXPLAIN)]
        self.signatures = tuple(_signature(function) for function in self.functions)

    def graph_name(self, name: str) -> str:
        """Returns the argument for an input; TensorFlow makes Python identifiers of the names."""
        return _argument(name, self.signatures[-1].inputs)

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Computes outputs; see `Engine.run`."""
        import tensorflow as tf

        pairs = zip(self.functions, self.signatures, strict=True)
        function, signature = next(p for p in pairs if set(outputs) <= set(p[1].outputs))
        arguments = {self.graph_name(name): array for name, array in feeds.items()}
        computed = function(
            **{n: tf.constant(a) for n, a in arguments.items() if n in signature.inputs}
        )
        return {name: _array(computed[name], name) for name in outputs}


def open_folder(path: Path) -> SavedModelEngine:
    """Opens a directory.

    Raises:
        ArtefactError: it holds no SavedModel, a foreign or a damaged one, or TensorFlow is not
            installed.
        ManifestError: the manifest is no text.
    """
    if not (path / "saved_model.pb").is_file():
        raise ArtefactError(
            f"the directory {str(path)!r} holds no SavedModel (no saved_model.pb in it). "
            "Pass an ONNX file or a SavedModel directory that probegen exported."
        )
    asset = path / SAVEDMODEL_ASSET
    if not asset.is_file():
        raise foreign(path)
    manifest_text = _text(asset)
    tf = imported(
        "tensorflow",
        f"{str(path)!r} is a SavedModel, which runs with TensorFlow, and TensorFlow is not "
        "installed. Install it (pip install tensorflow), or export to ONNX: probegen compile ... "
        "-o m.onnx",
    )
    try:
        module = tf.saved_model.load(str(path))
    except Exception as error:  # whatever a damaged graph makes TensorFlow raise
        known = "" if isinstance(error, MemoryError) else " It is damaged or incomplete."
        raise ArtefactError(
            f"TensorFlow cannot load the SavedModel {str(path)!r}.{known} TensorFlow says: "
            f"{cause(error)}"
        ) from error
    for name in (PREDICT, EXPLAIN):
        if name not in module.signatures:
            raise ArtefactError(
                f"the SavedModel {str(path)!r} lacks the signature {name!r} (it has "
                f"{', '.join(sorted(module.signatures)) or 'none'}); compile it again."
            )
    return SavedModelEngine(module, manifest_text)


def _signature(function: Any) -> Signature:
    arguments = _described(function.structured_input_signature[1])
    return Signature(arguments, _described(function.structured_outputs), tuple(arguments))


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


def _described(specs: Mapping[str, Any]) -> dict[str, TensorInfo]:
    """Returns what TensorFlow says of the inputs or outputs of a signature."""
    return {
        name: TensorInfo(spec.dtype.name, None if spec.shape.rank is None else tuple(spec.shape))
        for name, spec in specs.items()
    }


def _array(tensor: Any, name: str) -> Array:
    """Returns a tensor as numpy holds it: text as text, which TensorFlow hands out as objects."""
    array: Array = tensor.numpy()
    return as_strings(array, f"output {name!r}") if array.dtype.kind == "O" else array


def _argument(name: str, arguments: Mapping[str, Any]) -> str:
    if name in arguments:
        return name
    identifier = "".join(c if c.isalnum() else "_" for c in name)
    return identifier if identifier[:1].isalpha() else "arg_" + identifier
