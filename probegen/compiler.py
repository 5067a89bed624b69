"""The pipeline, one line a stage: load, instrument, export, verify."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.artefact import answers as kept_answers
from probegen.artefact import integrity, manifest
from probegen.artefact.answers import Answers
from probegen.artefact.attribution_reference import AttributionReference
from probegen.artefact.explain_file import explain_path
from probegen.artefact.manifest import GATE_OPTIONAL, GATE_REQUIRED, GATE_SPLIT, Gate, Manifest
from probegen.artefact.publishing import (
    aside,
    check_companions,
    check_not_source,
    check_place,
    put,
)
from probegen.artefact.rows import BATCH
from probegen.artefact.weights_file import SUFFIX, data_path
from probegen.artefact.work_folder import follow
from probegen.errors import ArtefactError, ExportError, InstrumentError, SpecError
from probegen.graph import assemble
from probegen.graph.assemble import DEFAULT_OPSET
from probegen.graph.writing import write_model, write_split
from probegen.methods.lookup import as_probes
from probegen.parity import Report, measure, require_agreement
from probegen.parity.measuring import open_to_verify
from probegen.parity.recording import record
from probegen.parity.samples_apart import warn_of_mixed_samples
from probegen.plan.making import make_plan
from probegen.runtime import load
from probegen.runtime.drift import attributions, reference_of
from probegen.runtime.feature_names import named
from probegen.runtime.loaded import Artefact
from probegen.runtime.read.ranges import ranges
from probegen.runtime.states import checked_samples
from probegen.runtime.texts import Texts
from probegen.runtime.texts.attaching import attached
from probegen.sources import computing_in, instrumented_program, open_source
from probegen.sources.base import Program, Source
from probegen.sources.preprocessed import with_preprocessing
from probegen.sources.written import (
    AskedStates,
    as_written,
    source_with_states,
    with_states,
)
from probegen.stages import check_name, stage, writing

FORMATS = ("onnx", "savedmodel", "keras")

#: Suffixes of files that other programs write, which a folder is not to be called by mistake.
_FOREIGN = frozenset(
    {".h5", ".hdf5", ".pb", ".tflite", ".pt", ".pth", ".pkl", ".ort", ".npz", ".npy", ".json"}
    | {".toml", ".txt", ".zip", ".bin", ".xml", ".mlmodel", ".engine", ".safetensors", ".data"}
)
#: What is said where a format cannot be written.
_FAILED = {
    "onnx": "the model cannot be written as ONNX",
    "savedmodel": "TensorFlow cannot save the model",
    "keras": "Keras cannot save the model",
}

#: Samples of a reference that are run together.
_REFERENCE_BATCH = 16

#: Called with a line that says what is being done.
Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A written artefact.

    Attributes:
        path: where it lies.
        format: `"onnx"`, `"savedmodel"` or `"keras"`.
        manifest: what its outputs mean.
        report: how it agrees with the source model; None where it was not verified.
        data: the file beside it that holds its weights; None where it needs none.
        explain: with `gate="split"` the file beside it with the graph that explains, else None.
    """

    path: Path
    format: str
    manifest: Manifest
    report: Report | None
    data: Path | None = None
    explain: Path | None = None


def compile(
    source: Any,
    probes: Any,
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    inputs: Any = None,
    precision: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Exported:
    """Instruments a model, exports it and verifies the artefact, in one call.

    Args:
        source: a built `keras.Model`, the path of a `.keras`, `.h5`, `.hdf5` or `.onnx` file, or an
            `onnx.ModelProto`.
        probes: a probe or a list of probes; with an empty list the artefact gives the
            predictions alone.
        path: where the artefact goes; the suffix says the format, see `export`.
        class_names: names along the class axis of the prediction.
        inputs: sample inputs for a subclassed model whose inputs Keras does not record; for an
            ONNX model the axes of inputs and outputs where their sizes do not tell, such as
            `{"x": "time,batch,feature"}`.
        precision: `"float32"` computes a Keras model in float32 whose layers ask for bfloat16 or
            float16 (dtype policies such as `mixed_bfloat16`), which runtimes compute slowly or
            not at all on processors. The model is as it was afterwards. The certificate says how
            far the predictions are from those of the model by itself.
        progress: called with a line before each stage.
        **options: those of `export`.

    Raises:
        ProbegenError: see `instrument` and `export`.
    """
    say = progress or _silent
    check_not_source(source, path)
    say("tracing and planning")
    kind = _format(path, options.get("format"))
    if precision is not None and kind == "keras":
        raise SpecError(
            "precision= is for ONNX and SavedModel: in a .keras file layers keep their policies."
        )
    with computing_in(source, precision) as model:
        with stage("the model cannot be instrumented", InstrumentError):
            opened = open_source(model, inputs)
            _check_format(opened, kind)
            opened = opened.as_written(kind)
            opened = source_with_states(opened, options.get("states"))
            plan = make_plan(opened.view, as_probes(probes), class_names)
        return export(Program(opened, plan), path, progress=progress, **options)


def export(
    probed: Any,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    gate: bool | str = True,
    opset: int = DEFAULT_OPSET,
    dynamic_batch: bool = True,
    external_data: bool | None = None,
    overwrite: bool = False,
    states: AskedStates = None,
    preprocess: Any = None,
    verify: bool = True,
    samples: Any = None,
    answers: bool = True,
    tokenizer: Any = None,
    feature_names: Any = None,
    reference: Any = None,
    progress: Progress | None = None,
) -> Exported:
    """Writes an instrumented model as one artefact, whole or not at all.

    Weights of more than protobuf's 2 GB go into a second file, `something.onnx.data`, which an
    ONNX artefact then needs beside it, wherever both are moved. A data file that an earlier
    artefact of the same name had is replaced with it, or removed.

    Args:
        probed: what `instrument` returned, or a model and what is compiled into it.
        path: `something.onnx` for ONNX, `something.keras` for Keras, a folder for SavedModel.
        format: `"onnx"`, `"savedmodel"` or `"keras"`, whatever the suffix says.
        gate: ONNX only: put what only explanations need behind the scalar bool input `explain`;
            with false a request pays for the prediction alone. True makes it a required input,
            which onnxruntime in every language, in node and in browsers, OpenVINO, onnxslim and
            onnxsim all honour. `"optional"` gives it the default false, so that clients which
            know nothing of it get the prediction at its old price; only onnxruntime's Python, C,
            C# and Java honour that (onnxruntime-node, onnxruntime-web, OpenVINO, onnxslim and
            onnxsim do not). `"split"` writes two graphs over one weights file, `m.onnx.data`:
            `m.onnx` predicts, `m.explain.onnx` predicts and explains. It is for engines that have
            no `If`; `runtime.load("m.onnx")` knows the two as one model. False leaves the gate
            out: everything is computed at each request.
        opset: ONNX only: the operator set.
        dynamic_batch: accept any batch size; otherwise the batch is 1. A model with stateful
            layers keeps its own.
        external_data: ONNX only: write the weights to a second file. By default only where one
            file cannot hold them; False refuses then. With `gate="split"` they always are.
        overwrite: replace an existing folder, or a data file that belongs to something else.
            Other files are always replaced.
        states: `"io"`: recurrent states become inputs `state/<path>` (a second state of a layer
            `state/<path>:1`) and outputs `next_state/<path>`, `[batch, unit]`, so that a series can
            be run chunk by chunk: `art.run(chunk, states=before.states)`. Of a Keras model those of
            the stateful layers, or of all recurrent layers where none is stateful; of an ONNX file
            those of LSTM, GRU and RNN that start from zeros. Of some others with a selector,
            `"io:lstm*"`. Of a causal model of KerasHub the cache of keys and values is the state
            `state/cache`. The runtime feeds zeros where a request gives none. No layer that reads a
            series from its end. States that an ONNX file takes and gives out already keep their
            names and shapes, and are noted: those that its graph leads from an input to an output
            of one operator, and those whose names go together, such as `past_key_values.0.key` and
            `present.0.key`. Or a dict says them, `{input: output}`, of Keras models too.
        preprocess: ONNX and SavedModel: `pg.ImageInput(...)`, or a dict of them by input name: the
            artefact takes pictures as a server has them, and its graph makes of them what the model
            takes. Probes explain what the model takes, in its size and units.
        verify: compare the artefact with the source model before it appears, and write the
            figures into its manifest.
        samples: inputs to verify on; generated where left out. Of models that take text, a list
            of texts as well.
        answers: keep some requests and what the verified artefact answered in it, some kB, so that
            `runtime.verify` and `probegen verify OUT` can ask them again without the source, in
            any engine. Requests are made up and kept as seeds: nothing of `samples` is kept.
        tokenizer: for a model that takes ids, a `tokenizer.json` of Hugging Face's library
            `tokenizers`, so that the artefact takes text: its path, or a dict with the path as
            `file` and the inputs that take `ids`, `mask` and `segments`, where their names do not
            tell.
        feature_names: names of the features of the table or series that is the input, with their
            units: `["wind [m/s]", ("load", "MW")]`; a dict by input name where several have some.
        reference: inputs, hundreds at best, whose attributions are what later ones are compared
            with: the manifest gets their distributions, and `probegen serve` and `probegen drift`
            tell what has moved (see `probegen.runtime.drift`).
        progress: called with a line before each stage.

    Raises:
        InputError: the tokenizer is none, or it or the names of features do not fit the inputs.
        SpecError: `preprocess` is none, or does not fit an input.
        OutputExistsError: the folder, or a data file of something else, exists and `overwrite`
            is not given.
        UnsupportedOpsError: operations without ONNX form or gradient; lists each.
        ExportError: the model cannot be written in this format.
        VerificationError: the artefact does not agree with the source model.
    """
    kind = _format(path, format)
    program = _prepared(probed, kind, states, preprocess)
    program = _told(program, tokenizer, feature_names)
    chosen = _gate(gate)
    say = progress or _silent
    final = follow(Path(path))
    check_place(final, kind, overwrite)
    _check_onnx_only(kind, chosen, external_data)
    if external_data:
        check_name(final, SUFFIX)
    if chosen == GATE_SPLIT and external_data is False:
        raise ExportError(
            "gate='split' (--gate split) keeps the weights of both graphs in one file beside them, "
            "which external_data=False (--no-external-data) forbids; leave one of the two out."
        )
    if reference is not None:
        _check_reference(program.plan.manifest, kind)
    batch = program.source.batch or (None if dynamic_batch else 1)
    if kind != "keras":
        _check_samples(program, samples, batch, verify)
    write = _write_onnx if kind == "onnx" else _write_own
    with aside(final) as place:
        say(f"writing {kind}")
        options = _Options(kind, chosen, opset, batch, external_data)
        with stage(_FAILED[kind], ExportError), writing(final):
            described, rewrite, said = write(program, place, options)
        if said:
            warnings.warn(said, stacklevel=2)
        check_companions(place, final, overwrite)
        report, kept = None, None
        changes: dict[str, Any] = {}
        if verify and kind != "keras":
            say("verifying against the source model")
            opened, report = _verified(place, final, program, samples)
            report = dataclasses.replace(report, notes=[*filter(None, [said]), *report.notes])
            changes["certificate"] = _certificate(report, samples, described)
            if answers:
                kept = _answers(opened, report, changes["certificate"].get("range"))
            del opened  # it holds the file that is written anew below
        if reference is not None:
            say("attributing the reference")
            changes["reference"] = _reference(place, reference)
        with writing(final):
            if changes:
                described = rewrite(changes, kept)
            if kind != "keras":  # an archive with checksums of its own
                integrity.seal(place)
            data, explain = (
                beside(final) if os.path.exists(beside(place)) else None
                for beside in (data_path, explain_path)
            )
            put(place, final)
    return Exported(Path(path), kind, described, report, data, explain)


def _prepared(probed: Any, kind: str, states: AskedStates, preprocess: Any) -> Program:
    """Returns what is written: with states and pictures as inputs, where these are asked for.

    Raises:
        ExportError: it is no instrumented model, or cannot be written as `kind`.
        SpecError: `preprocess` is none, or does not fit an input.
    """
    program = instrumented_program(probed)
    if program is None:
        raise ExportError(
            f"expected what pg.instrument returned, got {type(probed).__name__}; "
            "use pg.compile(model, probes, path) to do all in one call."
        )
    _check_format(program.source, kind)
    program = with_states(as_written(program, kind), states)
    if preprocess is not None and kind == "keras":
        raise ExportError(
            "preprocess= is for ONNX and SavedModel: use a name ending in .onnx, or a folder; or "
            "put layers such as keras.layers.Resizing and Rescaling in front of the model and "
            "compile both."
        )
    return with_preprocessing(program, preprocess)


def _told(program: Program, tokenizer: Any, feature_names: Any) -> Program:
    """Returns a program whose manifest says what the caller knows of its inputs.

    Raises:
        InputError: the tokenizer or the names do not fit the inputs.
        ExportError: a name, of a class say, is none that an artefact can hold.
    """
    described = program.plan.manifest
    if tokenizer is not None:
        described = attached(tokenizer, described)
    if feature_names is not None:
        described = named(feature_names, described)
    if (wrong := described.unreadable()) is not None:
        raise ExportError(f"the artefact could not be read again: {wrong}. Name it otherwise.")
    return Program(program.source, dataclasses.replace(program.plan, manifest=described))


def _check_samples(program: Program, samples: Any, batch: int | None, verify: bool) -> None:
    """Refuses samples that do not fit, before it takes long.

    Where nothing is verified they are not looked at, and a model that mixes samples is warned of.

    Raises:
        InputError: they do not fit.
    """
    described = program.plan.manifest.with_batch(batch)
    if not verify:
        warn_of_mixed_samples(program, described)
    elif samples is not None:
        _fed(samples, described)


def _verified(place: Path, final: Path, program: Program, samples: Any) -> tuple[Artefact, Report]:
    """Opens and verifies what lies at `place` under the name that it will have.

    Raises:
        VerificationError: it does not agree with the source model.
        ExportError: it cannot be run here at all.
    """
    try:
        opened = open_to_verify(place)
        report = dataclasses.replace(measure(opened, program, samples), artefact=str(final))
    except ArtefactError as error:
        reason = str(error).replace(str(place), str(final))
        raise ExportError(
            f"what was exported cannot be run here, and so not be verified: {reason} Nothing was "
            "written; verify=False (--no-verify) writes it nonetheless."
        ) from error
    require_agreement(report)
    return opened, report


def _answers(opened: Artefact, report: Report, ranges: Mapping[str, Any] | None) -> Answers:
    """Returns what a verified artefact answers; see `probegen.parity.recording`."""
    limits = {name: figures.limit for name, figures in report.items()}
    return record(opened, report.runs, limits, ranges)


def _certificate(report: Report, samples: Any, described: Manifest) -> Mapping[str, Any]:
    """Returns a report as JSON, with the range of each floating input in the user's samples."""
    if samples is None:
        return report.to_json()
    return {**report.to_json(), "range": ranges(_fed(samples, described), described.inputs)}


def _fed(samples: Any, described: Manifest) -> Mapping[str, Any]:
    """Returns samples as inputs by name.

    Raises:
        InputError: they do not fit.
    """
    return checked_samples(Texts(described).given(samples), described.inputs)


def _check_reference(described: Manifest, kind: str) -> None:
    """Refuses a reference where nothing can be compared with it.

    Raises:
        ExportError: the format has no runtime, there is no attribution, or groups are missing.
    """
    if kind == "keras":
        raise ExportError("reference= is for ONNX and SavedModel: no runtime runs .keras files.")
    if not attributions(described):
        raise ExportError(
            "reference= keeps the distributions of attributions, and no probe gives one: add one "
            "such as pg.Saliency()."
        )
    if described.groups_input is not None:
        raise ExportError(
            "reference= and groups='input' exclude each other: groups are the request's, so that "
            "attributions of different requests cannot be compared."
        )


def _reference(place: Path, inputs: Any) -> AttributionReference:
    """Returns the distributions of an artefact's attributions over inputs.

    Raises:
        InputError: the inputs do not fit, are too few, or give attributions that are not finite.
    """
    artefact = load(place)
    spec = artefact.inputs[0]
    sizes = [n for n, axis in zip(spec.shape, spec.axes, strict=True) if axis == BATCH]
    result = artefact.run_batched(inputs, next(iter(sizes), None) or _REFERENCE_BATCH)
    arrays = {o.name: np.asarray(result[o.name].array) for o in attributions(artefact.manifest)}
    return reference_of(artefact.manifest, arrays)


#: Writes changes of the manifest, and answers, into an artefact; returns the manifest.
Rewrite = Callable[[Mapping[str, Any], Answers | None], Manifest]
#: The manifest of what was written, what changes it, and what is to be said of samples that are
#: joined, `""` where they are not.
Written = tuple[Manifest, Rewrite, str]


@dataclasses.dataclass(frozen=True)
class _Options:
    """What `export` was told of the form of the artefact; `batch` is None for any size."""

    kind: str
    gate: Gate
    opset: int
    batch: int | None
    external_data: bool | None


def _write_onnx(program: Program, place: Path, options: _Options) -> Written:
    split = options.gate == GATE_SPLIT
    model, described, said = assemble.onnx_model(
        program.plan,
        program.source.forward_graph,
        gate=False if split else options.gate,
        opset=options.opset,
        batch=options.batch,
    )
    if split and described.explanations:
        return (*_write_split(model, described, place), said)
    write_model(model, place, options.external_data)

    def rewrite(changes: Mapping[str, Any], kept: Answers | None) -> Manifest:
        certified = described.replace(**changes)
        assemble.write_manifest(model, certified, kept)
        ir.save(model, place)  # external data, if any, stay as they are
        return certified

    return described, rewrite, said


def _write_split(model: ir.Model, described: Manifest, place: Path) -> tuple[Manifest, Rewrite]:
    """Writes two graphs; each has a manifest of its own, and both have the same certificate."""
    of_both = described.replace(gate=GATE_SPLIT)
    plain = write_split(model, place, of_both)

    def rewrite(changes: Mapping[str, Any], kept: Answers | None) -> Manifest:
        certified = of_both.replace(**changes)
        assemble.write_manifest(model, described.replace(**changes))
        assemble.write_manifest(plain, certified, kept)
        ir.save(model, explain_path(place))
        ir.save(plain, place)
        return certified

    return of_both, rewrite


def _write_own(program: Program, place: Path, options: _Options) -> Written:
    """Writes a format of the source's own."""
    described = program.source.write(options.kind, program.plan, place, options.batch)

    def rewrite(changes: Mapping[str, Any], kept: Answers | None) -> Manifest:
        certified = described.replace(**changes)
        manifest.write_beside_savedmodel(place, certified)
        if kept is not None:
            kept_answers.write_beside_savedmodel(place, kept)
        return certified

    lower = functools.partial(program.source.forward_graph, placeholders=True)
    own = options.kind == "keras"  # it tells at its first call
    said = "" if own else assemble.joined_in_forward_graph(program.plan, lower, options.batch)
    return described, rewrite, said


def _check_format(source: Source, kind: str) -> None:
    if kind not in source.formats:
        raise ExportError(
            f"{source.name!r} can be written as {' or '.join(source.formats)}, not as {kind}; use "
            "a name ending in .onnx."
        )


def _format(path: str | os.PathLike[str], given: str | None) -> str:
    if given is not None:
        if given not in FORMATS:
            raise ExportError(f"format= takes one of {', '.join(FORMATS)}, got {given!r}.")
        return given
    suffix = Path(path).suffix.lower()
    if suffix in (".onnx", ".keras"):
        return suffix[1:]
    if suffix in _FOREIGN:
        raise ExportError(
            f"cannot write {suffix} files; use a name ending in .onnx, or a folder for SavedModel."
        )
    near = difflib.get_close_matches(suffix, (".onnx", ".keras"), n=1, cutoff=0.6)
    if near:
        raise ExportError(
            f"{Path(path).name!r} ends in {suffix!r}: is {Path(path).stem + near[0]!r} meant? For "
            "a SavedModel in a folder of that name pass format='savedmodel' (--format savedmodel)."
        )
    return "savedmodel"


def _check_onnx_only(kind: str, gate: Gate, external_data: bool | None) -> None:
    """Refuses what says how an ONNX file is made, where another format is written.

    Raises:
        ExportError: it was asked for.
    """
    if kind == "onnx":
        return
    if gate in (GATE_OPTIONAL, GATE_SPLIT):
        known = (
            "a SavedModel has two signatures, `serving_default` and `explain`"
            if kind == "savedmodel"
            else "a Keras model computes everything at each call"
        )
        raise ExportError(
            f"gate={gate!r} (--gate {gate}) is of ONNX files alone: {known}. Leave gate= out, or "
            "write to a name ending in .onnx."
        )
    if external_data is not None:
        raise ExportError(
            "external_data= (--external-data) is of ONNX files alone; leave it out, or write to a "
            "name ending in .onnx."
        )


def _gate(given: bool | str) -> Gate:
    if given == GATE_OPTIONAL:
        return GATE_OPTIONAL
    if given == GATE_SPLIT:
        return GATE_SPLIT
    if not isinstance(given, bool):
        raise ExportError(
            "gate= takes True (a required input `explain`), 'optional' (an input with the default "
            f"false), 'split' (two graphs) or False (none), got {given!r}."
        )
    return GATE_REQUIRED if given else False


def _silent(_: str) -> None:
    return None
