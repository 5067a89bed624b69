"""SavedModel artefacts for LiteRT, with its built-in operators alone."""

from __future__ import annotations

import dataclasses
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from probegen import runtime
from probegen.artefact.manifest import CLASSES, TARGET_INPUT, Manifest
from probegen.artefact.rows import BATCH, rows_first
from probegen.errors import ExportError, InputError, nearest
from probegen.parity import Report, require_agreement
from probegen.parity.comparison import ROUNDING, Rows, judge, measure_rows
from probegen.parity.noise import Moved, moved, noisy_feeds
from probegen.quantisation.comparison import requests_of
from probegen.runtime.feeds import Feeds
from probegen.runtime.files import write_atomic
from probegen.runtime.inputs import STRING
from probegen.runtime.loaded import Artefact
from probegen.sources.keras.graph_copy import holds_loops
from probegen.sources.keras.plain_operations import in_plain_operations
from probegen.sources.keras.savedmodel import argument_name
from probegen.stages import cause, stage, writing

EXPLAIN = "explain"
#: What works where LiteRT lacks an operator.
_ADVICE = {
    "ResizeBicubic": "Preprocess with resize='bilinear'.",
    "ScaleAndTranslate": "Preprocess without antialias.",
}


def to_litert(
    artefact: str | os.PathLike[str],
    path: str | os.PathLike[str],
    signature: str = EXPLAIN,
    *,
    samples: Any = None,
    sizes: Mapping[str, int] | None = None,
) -> dict[str, float]:
    """Converts a signature of a SavedModel artefact to a file that LiteRT runs.

    Inputs and outputs keep their names, as the signature's. What TensorFlow writes gradients with
    is written in operations that LiteRT has: of dense, convolutional (also depthwise), pooling,
    normalisation, attention and recurrent layers and their usual activations. LiteRT has no lists
    of tensors: a loop that needs some (a recurrent layer) is written out step by step, for a fixed
    number of steps. Other loops (integrated gradients) stay loops. The file is run and compared
    with the artefact before it appears.

    Args:
        artefact: the folder of a SavedModel that probegen wrote.
        path: `something.tflite`.
        signature: `"explain"` or `"serving_default"`.
        samples: inputs to compare on; generated where left out, at two batch sizes and two of every
            open size, hard ones (zeros, ties, large values) among them.
        sizes: of open axes by name, `{"time": 20}`: the file takes inputs of these alone.

    Returns:
        How far each output is off in its worst sample, |a - b| / |b|.

    Raises:
        ArtefactError: the folder holds no artefact.
        ExportError: it is no folder or has no such signature, `path` does not end in .tflite, or
            LiteRT lacks operators for it.
        InputError: the samples do not fit, or there are none that can be made up; or a size is of
            no open axis.
        VerificationError: a sample of an output is further off than `parity` allows; says which,
            and holds the report. Nothing was written.
    """
    given, final = Path(artefact), Path(path)
    if given.is_file():
        raise ExportError(f"{str(given)!r} is a file; LiteRT is converted to from a SavedModel.")
    if final.suffix.lower() != ".tflite":
        raise ExportError(
            f"LiteRT's files end in .tflite, and {final.name!r} does not: give "
            f"{final.with_suffix('.tflite').name!r}, say."
        )
    art = runtime.load(given, engine="savedmodel")
    described = _with_sizes(art.manifest, sizes or {})
    if texts := [spec.name for spec in described.inputs if spec.dtype == STRING]:
        raise ExportError(
            f"{str(given)!r} takes text ({', '.join(map(repr, texts))}), and LiteRT has no "
            "operators that take text apart: compile the part of the model behind its text layers, "
            "which takes ids, to a SavedModel and convert that."
        )
    module = tf.saved_model.load(str(given))
    if signature not in module.signatures:
        known = ", ".join(sorted(module.signatures))
        raise ExportError(f"{str(given)!r} has no signature {signature!r}; it has {known}.")
    with stage(f"{str(given)!r} cannot be converted for LiteRT", ExportError):
        content = _converted(given, module.signatures[signature], signature, described)
    report = _compared(content, signature, art, samples, final, described)
    require_agreement(report)
    with writing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(final, lambda file: file.write(content))
    return {name: figures.worst for name, figures in report.items()}


def _converted(given: Path, function: Any, signature: str, described: Manifest) -> bytes:
    specs = _specs(function, described)
    if holds_loops(function.graph):  # which TensorFlow cannot freeze
        plain, folder_given = in_plain_operations(function, specs), False
    else:
        frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
        plain = in_plain_operations(frozen, specs, sorted(function.structured_outputs))
        folder_given = plain is frozen
    with tempfile.TemporaryDirectory() as made:
        folder = str(given) if folder_given else made
        if not folder_given:
            tf.saved_model.save(tf.Module(), folder, signatures={signature: plain})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=[signature])
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            converted: bytes = converter.convert()
        except Exception as error:
            raise ExportError(_refusal(str(error), cause(error))) from error
    return converted


def _specs(function: Any, described: Manifest) -> dict[str, Any]:
    """Returns the arguments of a signature, with the fixed sizes that a manifest says."""
    specs = dict(function.structured_input_signature[1])
    for spec in described.inputs:
        name = argument_name(spec.name)
        if name in specs:
            own = specs[name]
            specs[name] = tf.TensorSpec([own.shape[0], *spec.shape[1:]], own.dtype, name=name)
    return specs


def _with_sizes(described: Manifest, sizes: Mapping[str, int]) -> Manifest:
    """Returns a manifest whose inputs have fixed sizes in the place of open ones.

    Raises:
        InputError: an axis is none of an input's, or has another size.
    """
    open_axes = {
        axis
        for spec in described.inputs
        for axis, n in zip(spec.axes, spec.shape, strict=True)
        if n is None and axis != BATCH
    }
    for axis, size in sizes.items():
        if axis not in open_axes:
            known = ", ".join(sorted(open_axes)) or "none"
            raise InputError(
                f"sizes= (--size) says {axis}={size}, and the inputs have no open axis of that "
                f"name; open are: {known}.{nearest(axis, sorted(open_axes))}"
            )
        if size < 1:
            raise InputError(f"sizes= (--size) takes sizes of at least 1, got {axis}={size}.")
    inputs = tuple(
        dataclasses.replace(
            spec,
            shape=tuple(
                sizes.get(axis) if n is None else n
                for axis, n in zip(spec.axes, spec.shape, strict=True)
            ),
        )
        for spec in described.inputs
    )
    return described.replace(inputs=inputs)


def _refusal(said: str, short: str) -> str:
    """Returns why something cannot be converted: the operators that LiteRT lacks, by name."""
    absent = sorted(set(re.findall(r"'tf\.(\w+)' op is neither", said)))
    if not absent:
        return f"LiteRT's converter refuses it: {short[:400]}"
    advice = " ".join(_ADVICE[name] for name in absent if name in _ADVICE)
    return f"LiteRT lacks operators for it: {', '.join(absent)}. {advice}".rstrip()


def _compared(
    content: bytes,
    signature: str,
    art: Artefact,
    samples: Any,
    final: Path,
    described: Manifest,
) -> Report:
    """Returns how the file agrees with the artefact, sample by sample, by the limits of `parity`.

    It is run at two batch sizes and two of every open size, on ordinary samples and on hard ones.
    Where a sample of an explanation is off, it may be off by no more than the artefact's own
    explanation moves by under rounding noise on its inputs.
    """
    explain = signature == EXPLAIN
    specs = described.outputs if explain else described.predictions
    rng, run = np.random.default_rng(0), _runner(content, signature)
    rows: dict[str, list[Rows]] = {spec.name: [] for spec in specs}
    noise: dict[str, list[Moved]] = {spec.name: [] for spec in specs}
    requests = requests_of(art, samples, 0, described)
    for place, request in enumerate(requests, start=1):
        feeds = _asked(request.feeds, described, explain, rng)
        given = {**feeds.inputs, **(feeds.asked if explain else {})}
        found = run(**{art.engine.graph_name(name): array for name, array in given.items()})
        near = noisy_feeds(feeds.inputs, "float32", rng, zeros=False)
        answers = [art.compute(f) for f in (feeds, *(_with(feeds, noisy) for noisy in near))]
        count = len(request.hard)
        for spec in specs:
            got, right, *beside = (
                rows_first(np.asarray(arrays[spec.name]), spec.axes, count)
                for arrays in (found, *answers)
            )
            labels = [f"sample {i} of call {place} (batch {count})" for i in range(count)]
            noise[spec.name].append(moved(spec, right, got, beside))
            known = noise[spec.name][-1]
            measured = measure_rows(spec, got, right, request.hard, labels, known.unsettled)
            if spec.kind == CLASSES:  # scores that noise brings into another order
                off = np.where(known.beside == 0, 0.0, measured.difference)
                measured = dataclasses.replace(measured, difference=off)
            rows[spec.name].append(measured)
    return Report(
        artefact=str(final),
        against=art.path,
        samples=sum(len(request.hard) for request in requests),
        generated=samples is None,
        outputs={
            spec.name: dataclasses.replace(
                judge(
                    spec,
                    Rows.joined(rows[spec.name]),
                    np.concatenate([m.by for m in noise[spec.name]]),
                    np.concatenate([m.beside for m in noise[spec.name]]),
                    computed_in="float32",
                    floor=0.0 if spec.is_attribution else ROUNDING["float32"],
                ),
                witness="the SavedModel",
            )
            for spec in specs
        },
    )


def _runner(content: bytes, signature: str) -> Callable[..., Mapping[str, Any]]:
    """Returns what runs a signature of a file, by the names of its inputs."""
    runner: Callable[..., Mapping[str, Any]]
    runner = tf.lite.Interpreter(model_content=content).get_signature_runner(signature)
    return runner


def _asked(feeds: Feeds, described: Manifest, explain: bool, rng: np.random.Generator) -> Feeds:
    """Returns what is fed, with targets of all kinds where the artefact takes some."""
    asked = dict(feeds.asked)
    if TARGET_INPUT in asked:
        drawn = rng.integers(-1, described.target_classes or 1, len(asked[TARGET_INPUT]))
        asked[TARGET_INPUT] = drawn.astype(np.int32)
    return dataclasses.replace(feeds, asked=asked, explain=explain)


def _with(feeds: Feeds, inputs: Mapping[str, Any]) -> Feeds:
    return dataclasses.replace(feeds, inputs=inputs)
