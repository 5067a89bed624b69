"""A model repository of NVIDIA Triton, for its onnxruntime backend.

The rules are those of Triton's model configuration. `max_batch_size` above 0 takes the batch off
every tensor, and so needs one on every tensor, in front and of any size; the gate is a scalar and
has none. With a gate the batch is therefore an axis like another, and `max_batch_size` is 0. With
`gate="split"` there are two models, `NAME` and `NAME_explain`, which Triton batches itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from probegen.artefact.manifest import (
    GATE_OPTIONAL,
    GATE_SPLIT,
    InputSpec,
    Manifest,
    OutputSpec,
)
from probegen.artefact.rows import batch_axis
from probegen.errors import SpecError
from probegen.runtime.interface import expected_inputs
from probegen.serve.config.base import Content, Options, Subject
from probegen.serve.datatypes import BYTES, NAMES

Spec = InputSpec | OutputSpec


def files(subject: Subject, options: Options) -> Mapping[str, Content]:
    """Returns a model repository.

    Raises:
        SpecError: Triton cannot serve the artefact as it is compiled.
    """
    subject.check_onnx("Triton")
    manifest, name = subject.manifest, subject.named(options)
    if manifest.gate == GATE_OPTIONAL:
        raise SpecError(
            "an optional gate is an initializer, which Triton cannot feed, so that it would never "
            "explain. Compile with gate=True (--gate required) or gate='split' (--gate split)."
        )
    if manifest.gate != GATE_SPLIT:
        return _model(name, manifest, subject.files[0], subject.files[1:], options)
    plain, second, *weights = subject.files
    return {
        **_model(name, manifest.plain_graph(), plain, weights, options),
        **_model(f"{name}_explain", manifest.replace(gate=False), second, weights, options),
    }


def _model(
    name: str, manifest: Manifest, model: Path, weights: Sequence[Path], options: Options
) -> dict[str, Content]:
    """Returns one model: its configuration, and version 1 under the names that it needs."""
    content: dict[str, Content] = {f"{name}/config.pbtxt": config(name, manifest, model, options)}
    return content | {f"{name}/1/{file.name}": file for file in (model, *weights)}


def config(name: str, manifest: Manifest, model: Path, options: Options) -> str:
    """Returns the text of `config.pbtxt`.

    Raises:
        SpecError: an element type is none of Triton's.
    """
    inputs = expected_inputs(manifest)
    tensors: list[Spec] = [*inputs, *manifest.outputs]
    batched = all(map(_open_in_front, tensors))
    parts = [
        f"name: {json.dumps(name)}",
        'backend: "onnxruntime"',
        f"default_model_filename: {json.dumps(model.name)}",
        f"max_batch_size: {options.max_batch if batched else 0}",
        _tensors("input", inputs, batched),
        _tensors("output", manifest.outputs, batched),
    ]
    if batched:
        parts.append("dynamic_batching { }")
    return "\n".join(parts) + "\n"


def _open_in_front(spec: Spec) -> bool:
    return batch_axis(spec.axes) == 0 and spec.shape[0] is None


def _tensors(field: str, specs: Sequence[Spec], batched: bool) -> str:
    entries = ",\n".join(_tensor(spec, batched, field == "output") for spec in specs)
    return f"{field} [\n{entries}\n]"


def _tensor(spec: Spec, batched: bool, output: bool) -> str:
    if spec.dtype not in NAMES:
        raise SpecError(f"{spec.name!r} is of {spec.dtype}, which Triton does not have.")
    datatype = NAMES[spec.dtype].replace(BYTES, "STRING")
    sizes = [-1 if n is None else n for n in spec.shape]
    if output and not batched and batch_axis(spec.axes) is not None:
        sizes[batch_axis(spec.axes) or 0] = -1  # 0 where a request wants no explanations
    sizes = sizes[1:] if batched else sizes
    lines = [f"    name: {json.dumps(spec.name)}", f"    data_type: TYPE_{datatype}"]
    if sizes:
        lines.append(f"    dims: [ {', '.join(map(str, sizes))} ]")
    else:  # Triton has no tensors without axes; this one is one to its clients, and none here
        lines += ["    dims: [ 1 ]", "    reshape { shape: [ ] }"]
    return "  {\n" + "\n".join(lines) + "\n  }"
