"""The layout of TensorFlow Serving for a SavedModel, with warm-up requests for both signatures.

TensorFlow Serving runs `assets.extra/tf_serving_warmup_requests` before a version is available: a
TFRecord file of `PredictionLog` messages. Its messages are written here by their field numbers
(`prediction_log.proto`, `predict.proto`, `model.proto`), since the package that has them brings a
server's whole client. The inputs are zeros of the sizes that are said, and texts of one letter.
A server takes no version that fails on its requests; so they are tried, and left out where they do.
"""

from __future__ import annotations

import json
import struct
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probegen.artefact import integrity
from probegen.artefact.manifest import TARGET_INPUT
from probegen.artefact.rows import BATCH
from probegen.errors import SpecError
from probegen.runtime.engines.base import Signature, imported
from probegen.runtime.engines.savedmodel import EXPLAIN, PREDICT, SavedModelEngine
from probegen.runtime.interface import expected_inputs
from probegen.serve.config.base import Content, Options, Subject
from probegen.stages import cause

WARM_UP = "assets.extra/tf_serving_warmup_requests"


def files(subject: Subject, options: Options) -> Mapping[str, Content]:
    """Returns a folder of versions, and the server's list of models.

    Raises:
        SpecError: the artefact is an ONNX file, or the size of an open axis is not said.
    """
    if not subject.path.is_dir():
        raise SpecError(
            f"{str(subject.path)!r} is an ONNX file; TensorFlow Serving serves SavedModels. "
            "Compile to the name of a folder (--format savedmodel), or use triton."
        )
    name = subject.named(options)
    requests = _warm_up(subject, name, options)
    content: dict[str, Content] = {"models.config": _listed(name)}
    for path in sorted(p for p in subject.path.rglob("*") if p.is_file()):
        relative = path.relative_to(subject.path).as_posix()
        if relative not in (WARM_UP, integrity.SAVEDMODEL_DIGESTS):
            content[f"{name}/1/{relative}"] = path
    if requests is not None:
        content[f"{name}/1/{WARM_UP}"] = requests
    digests = _with_digest(subject.path / integrity.SAVEDMODEL_DIGESTS, requests)
    return {**content, f"{name}/1/{integrity.SAVEDMODEL_DIGESTS}": digests}


def _listed(name: str) -> str:
    """Returns the server's list of models."""
    return f"""\
model_config_list {{
  config {{
    name: {json.dumps(name)}
    base_path: {json.dumps(f"/models/{name}")}
    model_platform: "tensorflow"
  }}
}}
"""


def _with_digest(listed: Path, requests: bytes | None) -> str:
    """Returns the digests of the files, with that of the warm-up requests, if there are some."""
    kept = [line for line in listed.read_text().splitlines() if not line.endswith(f" {WARM_UP}")]
    if requests is not None:
        kept.append(f"{integrity.digest_of(requests)}  {WARM_UP}")
    return "".join(f"{line}\n" for line in sorted(kept, key=lambda line: line.split("  ", 1)[1]))


def _warm_up(subject: Subject, name: str, options: Options) -> bytes | None:
    """Returns the records: a request of one sample for each signature.

    None where the model fails on one, which is warned of.
    """
    engine = subject.artefact.engine
    assert isinstance(engine, SavedModelEngine)
    tf = imported("tensorflow", "TensorFlow is not installed: pip install tensorflow")
    axes = {engine.graph_name(spec.name): spec.axes for spec in expected_inputs(subject.manifest)}
    signatures = zip((PREDICT, EXPLAIN), engine.functions, engine.signatures, strict=True)
    logs = []
    for signature_name, function, signature in signatures:
        arrays = _zeros(signature, axes, options.sizes)
        try:
            function(**{argument: tf.constant(array) for argument, array in arrays.items()})
        except Exception as error:
            warnings.warn(
                f"{str(subject.path)!r} fails on a request of zeros, so that no warm-up requests "
                f"are written. TensorFlow says: {cause(error)}",
                stacklevel=2,
            )
            return None
        inputs = {
            argument: tf.make_tensor_proto(array).SerializeToString()
            for argument, array in arrays.items()
        }
        logs.append(prediction_log(name, signature_name, inputs))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "requests"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for log in logs:
                writer.write(log)
        return path.read_bytes()


def _zeros(
    signature: Signature, axes: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]
) -> dict[str, Any]:
    """Returns inputs of one sample.

    Raises:
        SpecError: the size of an open axis is not said.
    """
    found = {}
    for name, tensor in signature.inputs.items():
        shape = []
        for i, size in enumerate(tensor.shape or ()):
            axis = axes[name][i]
            known = 1 if size is None and axis == BATCH else size or sizes.get(axis)
            if known is None:
                raise SpecError(
                    f"the axis {axis!r} of {name!r} is open; say what warm-up requests have there: "
                    f"--size {axis}=128."
                )
            shape.append(known)
        if tensor.dtype == "string":
            found[name] = np.full(shape, b"a", object)  # some models fail on a text of no words
        else:
            filled = -1 if name == TARGET_INPUT else 0
            found[name] = np.full(shape, filled, tensor.dtype)
    return found


def prediction_log(model: str, signature: str, inputs: Mapping[str, bytes]) -> bytes:
    """Returns a serialized `PredictionLog` of a `PredictRequest`.

    Args:
        model: name of the model.
        signature: which signature is asked.
        inputs: a serialized `TensorProto` for each argument.
    """
    spec = _field(1, model.encode()) + _field(3, signature.encode())
    entries = [_field(1, name.encode()) + _field(2, tensor) for name, tensor in inputs.items()]
    request = _field(1, spec) + b"".join(_field(2, entry) for entry in entries)
    return _field(6, _field(1, request))  # predict_log.request


def _field(number: int, content: bytes) -> bytes:
    """Returns a field with a length, as protobuf writes it."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return struct.pack(f"{len(parts) + 1}B", *parts, value)
