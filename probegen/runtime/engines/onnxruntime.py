"""Runs ONNX files with onnxruntime: on CPUs, and where its build has others, on their devices.

By its own defaults CUDA multiplies float32 matrices in TF32, whose fraction has 10 bits. Here
float32 stays float32, which is what a certificate was measured in; options of a provider, given
with its name, have the last word.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probegen.artefact.manifest import ONNX_METADATA_KEY
from probegen.errors import ArtefactError, ManifestError, did_you_mean
from probegen.runtime.engines.base import Engine, Signature, TensorInfo, foreign, imported
from probegen.runtime.engines.onnx_loading import check_data, not_loaded
from probegen.runtime.engines.onnxruntime_faults import FLOAT_PRODUCTS, disabled_optimizers
from probegen.runtime.inputs import Array

if TYPE_CHECKING:
    import onnxruntime

#: onnxruntime's level "fatal": errors come as exceptions, and at each load it warns of an optional
#: gate, whose default can change.
_LOG_FATAL = 4
#: Element types that onnxruntime calls otherwise than numpy.
_ELEMENTS = {"float": "float32", "double": "float64"}
#: How onnxruntime's names of execution providers end: `device` leaves it out.
_PROVIDER = "ExecutionProvider"
_CPU, _CUDA = "CPU" + _PROVIDER, "CUDA" + _PROVIDER
#: What providers are told where the caller does not say otherwise.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {_CUDA: {"use_tf32": "0"}}

Provider = str | tuple[str, dict[str, Any]]


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
    device: str | None = None,
    providers: Sequence[Provider] | None = None,
    threads: int | None = None,
    session_options: onnxruntime.SessionOptions | None = None,
) -> OnnxruntimeEngine:
    """Opens a file; see `probegen.runtime.engines.base.Options`.

    Raises:
        ArtefactError: onnxruntime or a provider is missing or does not start, or the file is
            damaged or foreign, or its data file is missing, cut short or of another build.
        ManifestError: its metadata are damaged.
    """
    ort = imported(
        "onnxruntime",
        "onnxruntime is not installed, and ONNX artefacts run with it: pip install onnxruntime",
    )
    chosen = _providers(ort, device, providers)
    options = _session_options(ort, threads, session_options)
    try:
        session = ort.InferenceSession(
            str(path),
            sess_options=options,
            providers=chosen,
            disabled_optimizers=disabled_optimizers(path),
            enable_fallback=0,  # it would print to standard output, and run elsewhere
        )
    except Exception as error:
        raise not_loaded(path, OnnxruntimeEngine.product, error) from error
    _check_started(chosen, session.get_providers())
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
    options.add_session_config_entry(*FLOAT_PRODUCTS)
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _providers(
    ort: Any, device: str | None, providers: Sequence[Provider] | None
) -> list[tuple[str, dict[str, Any]]]:
    """Returns the execution providers that are asked for, each with its options.

    Raises:
        ArtefactError: this onnxruntime has no such provider (it would silently run on the CPU), or
            a device and providers are given.
    """
    available = ort.get_available_providers()
    if device is not None:
        if providers is not None:
            raise ArtefactError(
                "device and providers were both given; providers=[...] says where to run as well."
            )
        providers = [_provider_of(device, available), _CPU]
    chosen = []
    for provider in providers or [_CPU]:
        name, options = (provider, {}) if isinstance(provider, str) else provider
        if name not in available:
            raise ArtefactError(
                f"the execution provider {name!r} is not in this onnxruntime."
                f"{did_you_mean(name, available)}"
            )
        chosen.append((name, {**_DEFAULTS.get(name, {}), **options}))
    if any(name == _CUDA for name, _ in chosen) and hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what is not there
            ort.preload_dlls()  # CUDA's libraries where pip has put them
    return list({name: (name, options) for name, options in chosen}.values())


def _provider_of(device: str, available: Sequence[str]) -> Provider:
    """Returns the provider of a device, "cuda:1" as provider with a `device_id`.

    Raises:
        ArtefactError: this onnxruntime runs on no such device.
    """
    kind, _, number = device.partition(":")
    known = {name.removesuffix(_PROVIDER).lower(): name for name in available}
    if kind.lower() not in known or (number and not number.isdecimal()):
        hint = ""
        if kind.lower() in ("cuda", "gpu"):
            hint = (
                " For GPUs of NVIDIA: pip uninstall onnxruntime, then pip install "
                "'onnxruntime-gpu[cuda,cudnn]' in its place."
            )
        raise ArtefactError(
            f"this onnxruntime runs on no device {device!r}; there are "
            f"{', '.join(map(repr, known))}, and with a number for instance 'cuda:1'.{hint}"
        )
    name = known[kind.lower()]
    return (name, {"device_id": number}) if number else name


def _check_started(chosen: Sequence[tuple[str, Any]], started: Sequence[str]) -> None:
    """Raises where a provider did not start: onnxruntime logs it and runs on the CPU."""
    for name, _ in chosen:
        if name not in started:
            raise ArtefactError(
                f"onnxruntime's {name} does not start on this machine, and it would silently "
                f"run on {', '.join(n.removesuffix(_PROVIDER) for n in started)}: its device, "
                "its driver or its libraries are missing or of another version "
                "(`onnxruntime.print_debug_info()` tells what it finds)."
            )
