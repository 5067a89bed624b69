"""Runs ONNX artefacts with onnxruntime."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probegen.artefact import weights_file
from probegen.artefact.manifest import GATE_INPUT, ONNX_METADATA_KEY, TARGET_INPUT, Manifest
from probegen.errors import ArtefactError, ManifestError, did_you_mean
from probegen.runtime.artefact import FOREIGN
from probegen.runtime.inputs import Array
from probegen.runtime.interface import Held, check_interface, expected_inputs
from probegen.stages import cause

if TYPE_CHECKING:
    import onnxruntime

#: onnxruntime's level "fatal": errors come as exceptions, and at each load it warns of an optional
#: gate, whose default can change.
_LOG_FATAL = 4
#: Element types that onnxruntime calls otherwise than numpy.
_ELEMENTS = {"float": "float32", "double": "float64"}


@dataclasses.dataclass(frozen=True)
class OnnxEngine:
    """An onnxruntime session and the manifest it carries. Sessions are safe with threads."""

    session: onnxruntime.InferenceSession
    manifest: Manifest
    path: str

    @property
    def name(self) -> str:
        """Engine and where it runs, for people."""
        return "onnxruntime, " + ", ".join(self.session.get_providers())

    @classmethod
    def open(
        cls,
        path: Path,
        providers: Sequence[str | tuple[str, dict[str, Any]]] | None,
        threads: int | None,
        options: onnxruntime.SessionOptions | None,
    ) -> OnnxEngine:
        """Opens the file, reads the manifest and holds the two against each other.

        Raises:
            ArtefactError: onnxruntime is missing, or the file is damaged or foreign, or its
                data file is missing, cut short or of another build.
            ManifestError: the manifest is damaged or of a newer schema.
        """
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise ArtefactError(
                "onnxruntime is not installed, and ONNX artefacts run with it: "
                "pip install onnxruntime"
            ) from error
        providers = list(providers or ["CPUExecutionProvider"])
        _check_providers(providers, ort.get_available_providers())
        chosen = _options(threads, options)
        try:
            session = ort.InferenceSession(
                str(path),
                sess_options=chosen,
                providers=providers,
                enable_fallback=0,  # it would print to standard output, and run elsewhere
            )
        except Exception as error:
            _check_data(path)
            raise ArtefactError(_why_not_loaded(path, error)) from error
        metadata = _metadata(session, path)
        if weights_file.METADATA_KEY in metadata:
            # Checked when they have been read, so that none can slip in between.
            data = weights_file.ExternalData.from_json(metadata[weights_file.METADATA_KEY])
            weights_file.check_data(path, data, may_lack=True)
        if ONNX_METADATA_KEY not in metadata:
            raise ArtefactError(f"{str(path)!r} {FOREIGN}")
        engine = cls(session, Manifest.from_json(metadata[ONNX_METADATA_KEY]), str(path))
        engine._check_interface()
        return engine

    def run(
        self, feeds: Mapping[str, Array], target: Array | None, explain: bool
    ) -> dict[str, Array]:
        """Computes the predictions and, with `explain`, everything else."""
        wanted = self.manifest.outputs if explain else self.manifest.predictions
        names = [spec.name for spec in wanted]
        fed = dict(feeds)
        if target is not None:
            fed[TARGET_INPUT] = target
        if self.manifest.gate:
            fed[GATE_INPUT] = np.array(explain)
        with _told(f"onnxruntime could not run {self.path!r}"):
            return dict(zip(names, self.session.run(names, fed), strict=True))

    def _check_interface(self) -> None:
        """Raises where the manifest and the graph name or describe other inputs or outputs."""
        session, manifest = self.session, self.manifest
        needed = session.get_inputs()
        inputs = _held([*needed, *session.get_overridable_initializers()])
        wanted = expected_inputs(manifest)
        check_interface(self.path, "input", wanted, inputs, [i.name for i in needed])
        check_interface(self.path, "output", manifest.outputs, _held(session.get_outputs()))


def _held(values: Iterable[Any]) -> dict[str, Held]:
    """Returns what onnxruntime says of inputs or outputs.

    It gives the shape [] to a scalar and to what has no known rank alike.
    """
    found = {}
    for value in values:
        element = value.type.removeprefix("tensor(").removesuffix(")")
        sizes = tuple(n if isinstance(n, int) and n >= 0 else None for n in value.shape)
        found[value.name] = Held(_ELEMENTS.get(element, element), sizes or None)
    return found


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


def _options(
    threads: int | None, options: onnxruntime.SessionOptions | None
) -> onnxruntime.SessionOptions:
    import onnxruntime as ort

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


def _check_data(path: Path) -> None:
    """Raises where a model's data file is why it cannot be loaded."""
    data = weights_file.data_of(path)
    if data is not None:
        weights_file.check_data(path, data)


def _why_not_loaded(path: Path, error: Exception) -> str:
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        return f"onnxruntime cannot load {str(path)!r}: it needs more memory than there is. {error}"
    if "NOT_IMPLEMENTED" in str(error):
        return (
            f"onnxruntime cannot run {str(path)!r}: it lacks an operator for this element type "
            f"(on the CPU float64 and bfloat16 are rare). onnxruntime says: {error}"
        )
    return (
        f"onnxruntime cannot load {str(path)!r}; the file is damaged, cut short or no ONNX model. "
        f"onnxruntime says: {error}"
    )


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Turns onnxruntime's errors, which share no base class, into an `ArtefactError`."""
    try:
        yield
    except Exception as error:
        raise ArtefactError(f"{what}. onnxruntime says: {cause(error)}") from error
