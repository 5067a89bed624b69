"""Holds a manifest against the graph it came with: names, ranks, sizes and element types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from probegen.artefact.manifest import GATE_INPUT, TARGET_INPUT, InputSpec, Manifest, OutputSpec
from probegen.artefact.rows import BATCH, batch_axis
from probegen.errors import ArtefactError
from probegen.runtime.engines.base import Engine, TensorInfo

_ADVICE = "The file was changed after probegen wrote it; compile it again."

Spec = InputSpec | OutputSpec


def expected_inputs(manifest: Manifest) -> list[InputSpec]:
    """Returns the inputs that the graph of an artefact has: the model's and probegen's own."""
    ours = []
    if manifest.target_input:
        places = [(spec, batch_axis(spec.axes)) for spec in manifest.inputs]
        sizes = [spec.shape[at] for spec, at in places if at is not None]
        ours.append(InputSpec(TARGET_INPUT, "int32", (sizes[0] if sizes else None,), (BATCH,)))
    asked = (manifest.region_input, manifest.groups_input)
    ours.extend(spec for spec in asked if spec is not None)
    if manifest.has_gate_input:
        ours.append(InputSpec(GATE_INPUT, "bool", (), ()))
    return [*manifest.inputs, *ours]


def check_interface(path: str, manifest: Manifest, engine: Engine) -> None:
    """Raises where a manifest and its graph do not belong together.

    Every signature takes the model's inputs; `target` and the gate, and what comes out, has at
    least one. A size that either leaves open fits any; so does that of an output along its batch,
    which may be another (a model may fold its steps into it).

    Raises:
        ArtefactError: a name is unknown, or rank, size or element type are others.
    """
    inputs = {engine.graph_name(spec.name): spec for spec in expected_inputs(manifest)}
    outputs = {spec.name: spec for spec in manifest.outputs}
    own = [engine.graph_name(spec.name) for spec in manifest.inputs]
    known_inputs = {n: i for s in reversed(engine.signatures) for n, i in s.inputs.items()}
    known_outputs = {n: o for s in reversed(engine.signatures) for n, o in s.outputs.items()}
    _check_names(path, "input", inputs, known_inputs)
    _check_names(path, "output", outputs, known_outputs)
    for signature in engine.signatures:
        _check_names(path, "input", {name: inputs[name] for name in own}, signature.inputs)
        _check_tensors(path, "input", inputs, signature.inputs)
        _check_tensors(path, "output", outputs, signature.outputs)
        for name in signature.required:
            if name not in inputs:
                raise ArtefactError(
                    f"the graph of {path!r} needs the input {name!r}, which its manifest does not "
                    f"name. {_ADVICE}"
                )


def _check_names(
    path: str, role: str, described: Mapping[str, Spec], graph: Mapping[str, TensorInfo]
) -> None:
    for name, spec in described.items():
        if name not in graph:
            raise ArtefactError(
                f"the manifest of {path!r} names the {role} {spec.name!r}, which its graph "
                f"does not have (it has {', '.join(map(repr, graph))}). {_ADVICE}"
            )


def _check_tensors(
    path: str, role: str, described: Mapping[str, Spec], graph: Mapping[str, TensorInfo]
) -> None:
    """Raises where both have a name, and say other things of it."""
    for name in [name for name in described if name in graph]:
        spec, tensor = described[name], graph[name]
        says = f"the manifest of {path!r} says that the {role} {spec.name!r}"
        if tensor.dtype != spec.dtype:
            raise ArtefactError(
                f"{says} is of type {spec.dtype}; in its graph it is of {tensor.dtype}. {_ADVICE}"
            )
        free = batch_axis(spec.axes) if role == "output" else None
        if tensor.shape is not None and not _fit(spec.shape, tensor.shape, free):
            raise ArtefactError(
                f"{says} has the shape {_shown(spec.shape)}; in its graph it has "
                f"{_shown(tensor.shape)}. {_ADVICE}"
            )


def _fit(one: Sequence[int | None], other: Sequence[int | None], free: int | None) -> bool:
    pairs = list(zip(one, other, strict=False))
    same = all(None in p or p[0] == p[1] or at == free for at, p in enumerate(pairs))
    return len(one) == len(other) and same


def _shown(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"
