"""Runs ONNX files with OpenVINO, as they are: on CPUs, and on Intel's GPUs and NPUs.

By its own defaults OpenVINO computes float32 in bfloat16 where the processor can. Here float32
stays float32, which is what a certificate was measured in; `config` has the last word. Its CPU
computes float64 in float32, whatever is asked for; an engine that does so says so in its name.

An initializer that is an input as well (the optional gate) is a constant to OpenVINO, so that its
default could never be overridden. Here each of them is made an input again before the graph is
compiled.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact import onnx_file
from probegen.artefact.manifest import ONNX_METADATA_KEY
from probegen.errors import ArtefactError
from probegen.runtime.engines.base import Engine, Signature, TensorInfo, foreign, imported
from probegen.runtime.engines.onnx_loading import check_data, not_loaded
from probegen.runtime.inputs import Array
from probegen.stages import cause

#: Element types that OpenVINO calls otherwise than by kind and bits.
_ELEMENTS = {"boolean": "bool", "string": "string", "bf16": "bfloat16"}
_KINDS = {"f": "float", "i": "int", "u": "uint"}


class OpenvinoEngine(Engine):
    """A compiled model. Each call takes a request of its own, so threads do not meet."""

    product = "OpenVINO"

    def __init__(self, model: Any, compiled: Any, manifest_text: str) -> None:
        """Takes a model, the same compiled, and the manifest of its file."""
        self.compiled = compiled
        self.manifest_text = manifest_text
        # Compiling gives inputs and outputs more names: those of operations that it leaves out.
        inputs = {port.node.get_friendly_name(): _described(port) for port in model.inputs}
        outputs = {name: _described(port) for name, port in _by_name(model.outputs).items()}
        self.signatures = (Signature(inputs, outputs, tuple(inputs)),)
        self._inputs = _by_name(compiled.inputs)
        self._outputs = _by_name(compiled.outputs)
        self._types = {name: tensor.dtype for name, tensor in outputs.items()}
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Engine and devices, and what those compute otherwise than the artefact says."""
        devices = self.compiled.get_property("EXECUTION_DEVICES")
        (signature,) = self.signatures
        types = {t.dtype for t in (*signature.inputs.values(), *signature.outputs.values())}
        less = ["float64 in float32"] if "float64" in types else []
        return ", ".join([self.product, *devices, *less])

    def run(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Computes outputs; see `Engine.run`."""
        with self._request() as request:
            fed = {self._inputs[n]: a for n, a in feeds.items()}
            computed = request.infer(fed, share_outputs=True)  # copied below, once
            return {n: _copy(computed[self._outputs[n]], self._types[n]) for n in outputs}

    @contextmanager
    def _request(self) -> Iterator[Any]:
        """Lends an inference request that no other thread has; as many are made as are needed."""
        with self._lock:
            request = self._idle.pop() if self._idle else None
        request = request or self.compiled.create_infer_request()
        yield request  # one that failed is not used again
        with self._lock:
            self._idle.append(request)


def open_file(
    path: Path,
    *,
    device: str | None = None,
    threads: int | None = None,
    config: Mapping[str, Any] | None = None,
) -> OpenvinoEngine:
    """Opens a file; see `probegen.runtime.engines.base.Options`.

    Raises:
        ArtefactError: OpenVINO is not installed or has no such device, or the file is damaged or
            foreign, or its data file is missing, cut short or of another build, or OpenVINO would
            compute other numbers.
    """
    openvino = imported(
        "openvino", "OpenVINO is not installed: pip install 'probegen[openvino]' (or openvino)"
    )
    core = openvino.Core()
    device = device or "CPU"
    try:
        model = core.read_model(str(path))
        _make_inputs(openvino, model, onnx_file.inputs_with_default(path))
    except Exception as error:
        raise not_loaded(path, OpenvinoEngine.product, error) from error
    metadata = {key: entry.text for key, entry in onnx_file.metadata(path).items()}
    check_data(path, metadata)
    if ONNX_METADATA_KEY not in metadata:
        raise foreign(path)
    if _has_lengths(model):
        raise ArtefactError(
            f"{str(path)!r} tells an LSTM, GRU or RNN how long each sequence is (its input "
            "sequence_lens), which OpenVINO ignores silently, so that its results are "
            'wrong. Run it in onnxruntime: engine="onnxruntime".'
        )
    try:
        compiled = core.compile_model(model, device, _properties(threads, config))
        return OpenvinoEngine(model, compiled, metadata[ONNX_METADATA_KEY])
    except Exception as error:
        raise ArtefactError(
            f"OpenVINO cannot compile {str(path)!r} for the device {device!r} (it finds "
            f"{', '.join(core.available_devices) or 'none'}). OpenVINO says: {cause(error)}"
        ) from error


def _has_lengths(model: Any) -> bool:
    """Tells whether a recurrent operator has lengths other than the size of its input's time."""
    for operation in model.get_ops():
        kind = operation.get_type_name()
        lengths = {"LSTMSequence": 3, "GRUSequence": 2, "RNNSequence": 2}.get(kind)
        if lengths is not None and _depends_on_values(operation.input(lengths)):
            return True
        if kind in ("If", "Loop", "TensorIterator"):
            places: list[list[int]] = [[0], [1]] if kind == "If" else [[]]
            if any(_has_lengths(operation.get_function(*place)) for place in places):
                return True
    return False


def _depends_on_values(port: Any) -> bool:
    """Tells whether an input is computed of what is fed, and not of its sizes alone."""
    waiting, seen = [port], set()
    while waiting:
        node = waiting.pop().get_source_output().get_node()
        kind, name = node.get_type_name(), node.get_name()
        if kind == "Parameter":
            return True
        if kind not in ("ShapeOf", "Constant") and name not in seen:
            waiting += node.inputs()
        seen.add(name)
    return False


def _properties(threads: int | None, config: Mapping[str, Any] | None) -> dict[str, Any]:
    properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        properties["INFERENCE_NUM_THREADS"] = threads
    return {**properties, **(config or {})}


def _make_inputs(openvino: Any, model: Any, names: Sequence[str]) -> None:
    """Makes inputs of constants that go by these names."""
    constants = {
        name: operation
        for operation in model.get_ops()
        if operation.get_type_name() == "Constant"
        for name in operation.output(0).get_names()
    }
    made = []
    for name in names:
        if name in constants:  # else nothing reads it
            old = constants[name].output(0)
            parameter = openvino.opset13.parameter(old.get_partial_shape(), old.get_element_type())
            parameter.set_friendly_name(name)
            parameter.output(0).set_names({name})
            old.replace(parameter.output(0))
            made.append(parameter)
    model.add_parameters(made)
    model.validate_nodes_and_infer_types()


def _by_name(ports: Iterable[Any]) -> dict[str, Any]:
    """Returns inputs or outputs by each of their names."""
    return {name: port for port in ports for name in sorted(port.get_names())}


def _described(port: Any) -> TensorInfo:
    """Returns what OpenVINO says of an input or output."""
    sizes, shape = port.get_partial_shape(), None
    if sizes.rank.is_static:
        shape = tuple(None if n.is_dynamic else n.get_length() for n in sizes)
    return TensorInfo(_element(port.get_element_type().get_type_name()), shape)


def _copy(array: Array, dtype: str) -> Array:
    """Returns an output on its own: the next call writes into the request's arrays.

    numpy has no bfloat16, and OpenVINO hands out its bits as those of another type. They become
    float32, which holds each of its numbers.
    """
    if dtype == "bfloat16":
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.array(array)


def _element(name: str) -> str:
    """Returns the numpy name of an element type, `float32` for `f32`."""
    return _ELEMENTS.get(name) or _KINDS.get(name[0], name[0]) + name[1:]
