"""Smaller artefacts: `pg.quantise`. A form of weights is one file here and one line in `FORMS`.

Quantising is done on an artefact that has been verified against its source; what comes out is held
against that artefact, and carries the figures of this comparison, not those of the old weights.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
import onnx_ir as ir

from probegen import runtime
from probegen.artefact import integrity
from probegen.artefact.answers import Answers, answers_of
from probegen.artefact.manifest import GATE_OPTIONAL, GATE_REQUIRED, GATE_SPLIT, Manifest
from probegen.artefact.publishing import aside, check_companions, check_not_source, check_place, put
from probegen.artefact.work_folder import follow
from probegen.errors import ExportError, nearest
from probegen.graph import assemble
from probegen.graph.gate import add_gate
from probegen.graph.ungate import remove_gate
from probegen.graph.writing import write_model
from probegen.parity import Report, require_agreement
from probegen.parity.comparison import base_limit
from probegen.parity.recording import record
from probegen.quantisation import float16, int8
from probegen.quantisation.comparison import Asked, Limits, compare, requests_of
from probegen.runtime.loaded import Artefact
from probegen.stages import stage, writing

Array = npt.NDArray[Any]


class Rewrite(Protocol):
    """Stores the weights of a model in another form."""

    def __call__(
        self,
        model: ir.Model,
        predictions: int,
        requests: Sequence[Mapping[str, Array]],
        folder: Path,
    ) -> ir.Model:
        """Returns the rewritten model.

        Args:
            model: an artefact's, without a gate; may be changed in place.
            predictions: how many of its outputs, the first ones, are predictions.
            requests: feeds of the samples that were given, some samples each.
            folder: where files may be left.

        Raises:
            ExportError: there is nothing in it that can be rewritten.
        """


@dataclasses.dataclass(frozen=True)
class Form:
    """A line of the table.

    Attributes:
        rewrite: what brings a model into it.
        limits: how far explanations may be off by default; see `quantise`.
        needs_samples: True where ranges of activations are taken from samples.
        help: what it is, for people.
    """

    rewrite: Rewrite
    limits: Limits
    needs_samples: bool
    help: str


FORMS: Mapping[str, Form] = {
    "float16": Form(
        float16.rewrite, Limits(0.05, 0.5), False, "weights in float16, computed in float32"
    ),
    "int8": Form(
        int8.rewrite_dynamic, Limits(0.5, 1.0), False, "weights in int8, activations by each run"
    ),
    "int8-static": Form(
        int8.rewrite_static, Limits(0.5, 1.0), True, "weights and activations in int8"
    ),
}


@dataclasses.dataclass(frozen=True)
class Quantised:
    """A quantised artefact.

    Attributes:
        path: where it lies.
        manifest: what its outputs mean, with the certificate of the quantised weights.
        report: how it agrees with the artefact that it was made of.
        bytes: its size, and that of the artefact before.
    """

    path: Path
    manifest: Manifest
    report: Report
    bytes: tuple[int, int]


def quantise(
    artefact: str | os.PathLike[str],
    path: str | os.PathLike[str],
    to: str = "float16",
    *,
    samples: Any = None,
    limit: float | None = None,
    worst: float | None = None,
    overwrite: bool = False,
    seed: int = 0,
) -> Quantised:
    """Writes an ONNX artefact with smaller weights, and verifies it against the one given.

    Gradients and everything else that explains are made of the same small weights, which are stored
    once; the gate stays as it is. With int8 the prediction's products are computed in int8 by
    onnxruntime's quantisers, and a gradient passes the rounding of activations as if it were none.

    Args:
        artefact: path of an ONNX artefact as probegen wrote it; with `gate="split"` none.
        path: `something.onnx`, where the new one goes.
        to: `"float16"` (stored in float16, computed in float32: half the size, runs wherever the
            artefact runs), `"int8"` (matrices and kernels of the prediction in int8, activations
            rounded by the range of each run) or `"int8-static"` (activations by the ranges in
            `samples`: give a hundred samples as they are in use).
        samples: inputs to verify on, and to take ranges from; generated to verify on where they are
            left out.
        limit: the most that an explanation may be off, in the median sample: the Euclidean norm
            of the difference over that of the explanation. By default 0.05 for float16, 0.5 for
            int8. A prediction may be off by a fifth of it.
        worst: the most that any sample may be off, likewise; by default 0.5 for float16, 1 for
            int8: an explanation that is further off than zeros would be says nothing. Samples whose
            predicted class has changed have another explanation, and are told and not judged.
        overwrite: replace a data file beside `path` that belongs to something else.
        seed: of generated samples.

    Returns:
        Where it lies, how far off it is, and the two sizes.

    Raises:
        ArtefactError: the artefact is none, or no longer as probegen wrote it.
        ExportError: `to` is unknown, needs samples, does not work on this artefact, or finds
            nothing to quantise.
        VerificationError: an output is further off than its limits; holds the report. Nothing was
            written.
        InputError: the samples do not fit.
    """
    form = _form(to)
    if form.needs_samples and samples is None:
        raise ExportError(
            f"to={to!r} (--to {to}) takes the ranges of activations from samples, and none were "
            "given: pass samples= (--samples FILE), a hundred as they are in use; or to='int8', "
            "which takes the ranges of each run."
        )
    given, final = Path(artefact), follow(Path(path))
    if final.suffix.lower() != ".onnx":
        raise ExportError(f"quantising writes ONNX files; {final.name!r} does not end in .onnx.")
    if given.is_dir():
        raise ExportError(
            f"{str(given)!r} is a folder; ONNX artefacts can be quantised. Compile to .onnx; a "
            "SavedModel is quantised by TensorFlow's converter for LiteRT."
        )
    check_not_source(given, final)
    before = runtime.load(given, check=True)
    if before.manifest.gate == GATE_SPLIT:
        raise ExportError(
            f"{str(given)!r} is two graphs over one weights file (gate='split'), which cannot be "
            "quantised; compile it with gate=True or gate=False."
        )
    check_place(final, "onnx", overwrite)
    requests = requests_of(before, samples, seed)
    with aside(final) as place:
        hint = "to='float16' (--to float16) works on every artefact."
        with stage(f"{str(given)!r} cannot be quantised to {to}", ExportError, hint):
            model, described = _rewritten(given, before.manifest, to, requests, place.parent)
        with writing(final):
            write_model(model, place, None)
        with stage(f"{str(given)!r} runs no more as {to}", ExportError, hint):
            after = runtime.load(place)
        limits = Limits(
            form.limits.median if limit is None else limit,
            form.limits.worst if worst is None else worst,
        )
        report = dataclasses.replace(
            compare(before, after, requests, limits, to, generated=samples is None),
            artefact=str(final),
        )
        require_agreement(report)
        described = described.replace(certificate=report.to_json())
        kept = _answers(after, report) if answers_of(given) is not None else None
        del after  # it holds the file that is written anew below
        with writing(final):
            check_companions(place, final, overwrite)
            assemble.write_manifest(model, described, kept)
            ir.save(model, place)
            integrity.seal(place)
            sizes = (place.stat().st_size, given.stat().st_size)
            put(place, final)
    return Quantised(Path(path), described, report, sizes)


def _answers(after: Artefact, report: Report) -> Answers:
    """Returns what the quantised artefact answers: another engine may be off by rounding alone."""
    limits = {o.name: base_limit(o, o.dtype) for o in after.manifest.outputs}
    return record(after, report.runs, limits)


def _rewritten(
    given: Path,
    described: Manifest,
    to: str,
    requests: Sequence[Asked],
    folder: Path,
) -> tuple[ir.Model, Manifest]:
    """Returns the model with small weights and its gate, and its manifest without figures."""
    model = ir.load(given)
    names = [output.name for output in described.outputs]
    if described.has_gate_input:
        remove_gate(model)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        feeds = [{**request.feeds.inputs, **request.feeds.asked} for request in requests]
        model = FORMS[to].rewrite(model, len(described.predictions), feeds, Path(place))
        ir.external_data.load_to_model(model)
    count, graph = len(described.predictions), model.graph
    if described.has_gate_input:
        outputs = list(graph.outputs)
        kind = GATE_OPTIONAL if described.gate == GATE_OPTIONAL else GATE_REQUIRED
        opset = graph.opset_imports[""]
        graph.outputs.extend(add_gate(graph, opset, outputs[:count], outputs[count:], gate=kind))
    assemble.name_outputs(graph, names)
    # What was measured on the old weights, and how attributions were distributed, goes.
    described = described.replace(
        certificate=None,
        reference=None,
        producer={**described.producer, "quantised": to},
    )
    model.metadata_props.clear()
    model.producer_name = "probegen"
    assemble.write_manifest(model, described)
    return model, described


def _form(to: str) -> Form:
    if to not in FORMS:
        known = ", ".join(repr(name) for name in FORMS)
        raise ExportError(f"to= (--to) takes one of {known}, got {to!r}.{nearest(to, FORMS)}")
    return FORMS[to]
