"""Runs ONNX files with onnxruntime."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegen.artefact.manifest import ONNX_METADATA_KEY
from probegen.errors import ArtefactError, ManifestError, did_you_mean
from probegen.runtime.engines.base import Engine, Signature, TensorInfo, foreign, imported
from probegen.runtime.engines.onnx_loading import check_data, not_loaded
from probegen.runtime.inputs import Array

if TYPE_CHECKING:
    import onnxruntime

#: onnxruntime's level "fatal": errors come as exceptions, and at each load it warns of an optional
#: gate, whose default can change.
_LOG_FATAL = 4
#: Element types that onnxruntime calls otherwise than numpy.
_ELEMENTS = {"float": "float32", "double": "float64"}


class OnnxruntimeEngine(Engine):
    """An onnxruntime session. Sessions are safe with threads."""

    product = "onnxruntime"

    def __init__(self, session: onnxruntime.InferenceSession, manifest_text: str) -> None:
        """Takes a session and the manifest of its model."""
        self.session = session
        self.manifest_text = manifest_text
        required = session.get_inputs()
        inputs = _described([*required, *session.get_overridable_initializers()])
        outputs = _described(session.get_outputs())
        self.signatures = (Signature(inputs, outputs, tuple(i.name for i in required)),)

    @property
    def name(self) -> str:
        """Engine and execution providers."""
        return f"{self.product}, " + ", ".join(self.session.get_providers())

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Computes outputs; see `Engine.run`."""
        return dict(zip(outputs, self.session.run(list(outputs), dict(feeds)), strict=True))


def open_file(
    path: Path,
    *,
    providers: Sequence[str | tuple[str, dict[str, Any]]] | None = None,
    threads: int | None = None,
    session_options: onnxruntime.SessionOptions | None = None,
) -> OnnxruntimeEngine:
    """Opens a file; see `probegen.runtime.engines.base.Options`.

    Raises:
        ArtefactError: onnxruntime or a provider is missing, or the file is damaged or foreign,
            or its data file is missing, cut short or of another build.
        ManifestError: its metadata are damaged.
    """
    ort = imported(
        "onnxruntime",
        "onnxruntime is not installed, and ONNX artefacts run with it: pip install onnxruntime",
    )
    providers = list(providers or ["CPUExecutionProvider"])
    _check_providers(providers, ort.get_available_providers())
    chosen = _session_options(ort, threads, session_options)
    try:
        session = ort.InferenceSession(
            str(path),
            sess_options=chosen,
            providers=providers,
            enable_fallback=0,  # it would print to standard output, and run elsewhere
        )
    except Exception as error:
        raise not_loaded(path, OnnxruntimeEngine.product, error) from error
    metadata = _metadata(session, path)
    check_data(path, metadata)
    if ONNX_METADATA_KEY not in metadata:
        raise foreign(path)
    return OnnxruntimeEngine(session, metadata[ONNX_METADATA_KEY])


def _described(values: Iterable[Any]) -> dict[str, TensorInfo]:
    """Returns what onnxruntime says of inputs or outputs.

    It gives the shape [] to a scalar and to what has no known rank alike.
    """
    described = {}
    for value in values:
        element = value.type.removeprefix("tensor(").removesuffix(")")
        sizes = tuple(n if isinstance(n, int) and n >= 0 else None for n in value.shape)
        described[value.name] = TensorInfo(_ELEMENTS.get(element, element), sizes or None)
    return described


def _metadata(session: onnxruntime.InferenceSession, path: Path) -> dict[str, str]:
    """Returns the metadata of a model.

    Raises:
        ManifestError: they are no text.
    """
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"the metadata of {str(path)!r} are damaged: {error}. Compile the artefact again."
        ) from error


def _session_options(
    ort: Any, threads: int | None, options: onnxruntime.SessionOptions | None
) -> onnxruntime.SessionOptions:
    if options is not None:
        if threads is not None:
            raise ArtefactError(
                "threads and session_options were both given; set "
                "session_options.intra_op_num_threads instead of threads."
            )
        return options
    options = ort.SessionOptions()
    options.log_severity_level = _LOG_FATAL
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _check_providers(
    providers: Sequence[str | tuple[str, dict[str, Any]]], available: Sequence[str]
) -> None:
    """Raises for an unknown provider, where onnxruntime would silently fall back to the CPU."""
    for provider in providers:
        name = provider if isinstance(provider, str) else provider[0]
        if name not in available:
            raise ArtefactError(
                f"the execution provider {name!r} is not in this onnxruntime."
                f"{did_you_mean(name, available)}"
            )
