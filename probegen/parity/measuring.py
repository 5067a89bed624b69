"""Verification: artefact and source model on the same inputs, and the report of it."""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from probegen import runtime
from probegen.artefact.manifest import (
    CLASSES,
    GROUPS_INPUT,
    NEXT_STATE,
    REGION_INPUT,
    STATE,
    Manifest,
)
from probegen.errors import InputError, VerificationError
from probegen.graph.running import session_options
from probegen.methods.text_forms import from_dict
from probegen.parity import texts, trials
from probegen.parity.calls import Call, floating
from probegen.parity.cancellation import check_cancellation
from probegen.parity.completeness import with_own_sums
from probegen.parity.finite import check_finite
from probegen.parity.judging import Comparison
from probegen.parity.over_pictures import OverPictures
from probegen.parity.report import Report
from probegen.parity.requests import drawn_groups, drawn_region, drawn_targets
from probegen.parity.rows import RowsReference
from probegen.parity.samples import Batch
from probegen.parity.samples_apart import (
    check_explanations_apart,
    check_samples_apart,
    more_ordinary,
)
from probegen.parity.stored_arrays import with_arrays
from probegen.parity.ties import with_keys_settled, with_ties_settled
from probegen.parity.witness.reference import reference_of, tables_last
from probegen.plan.making import make_plan
from probegen.runtime.inputs import describe
from probegen.runtime.states import checked_samples
from probegen.runtime.verification import Reproduction
from probegen.sources import computing_in, instrumented_program, kind_of, open_source
from probegen.sources.base import Program
from probegen.sources.preprocessed import PreprocessedSource, behind
from probegen.sources.written import as_written, from_states
from probegen.stages import stage

Array = npt.NDArray[Any]


@overload
def verify(artefact: str | os.PathLike[str]) -> Reproduction: ...


@overload
def verify(
    artefact: str | os.PathLike[str],
    model: Any,
    samples: Any = None,
    *,
    target: Any = None,
    seed: int = 0,
) -> Report: ...


def verify(
    artefact: str | os.PathLike[str],
    model: Any = None,
    samples: Any = None,
    *,
    target: Any = None,
    seed: int = 0,
) -> Report | Reproduction:
    """Compares an artefact with the model it was made from.

    Args:
        artefact: path of an ONNX file or a SavedModel.
        model: the source model or its path, or the instrumented model (needed where a target
            is a callable, which no manifest can hold). Left out, the artefact is compared with
            what it was when it was verified: see `probegen.runtime.verify`.
        samples: inputs with a batch axis (an array, a list or a dict by input name); generated
            from the manifest where left out.
        target: int or `[batch]` for artefacts with a `target` input; drawn where left out.
        seed: of the generated samples and targets.

    Returns:
        The figures of every output.

    Raises:
        VerificationError: an output differs by more than its limit; says which and by how
            much, and holds the report.
            Or there is nothing to compare with, see `measure`.
        InputError: the samples do not fit the artefact's inputs, or the source model runs on
            none that can be made up.
    """
    if model is None:
        if samples is not None or target is not None:
            raise InputError("samples= and target= go with model=, the source model.")
        return runtime.verify(artefact)
    report = measure(artefact, model, samples, target=target, seed=seed)
    require_agreement(report)
    return report


def open_to_verify(artefact: str | os.PathLike[str]) -> runtime.Artefact:
    """Opens an artefact to be verified, with the options of the compiler's own sessions.

    Raises:
        ArtefactError, ManifestError: see `probegen.runtime.load`.
    """
    if Path(artefact).is_dir():  # TensorFlow's, which has none of them
        return runtime.load(artefact)
    return runtime.load(artefact, session_options=session_options())


@stage("the artefact cannot be compared with the model", VerificationError)
def measure(
    artefact: str | os.PathLike[str] | runtime.Artefact,
    model: Any,
    samples: Any = None,
    *,
    target: Any = None,
    seed: int = 0,
) -> Report:
    """Returns the figures of `verify`, whether the outputs agree or not.

    The artefact may have been opened before.

    Raises:
        VerificationError: there is nothing to compare with: the source model's own values are
            not finite, or differ from call to call.
        InputError: the samples do not fit, or the source model runs on none that can be made up.
    """
    if isinstance(artefact, runtime.Artefact):
        art, path = artefact, artefact.path
    else:
        art, path = open_to_verify(artefact), os.fspath(artefact)
    with computing_in(model, art.manifest.model.get("precision")) as as_written_from:
        return _measured(art, path, as_written_from, samples, target, seed)


def _measured(
    art: runtime.Artefact, path: str, model: Any, samples: Any, target: Any, seed: int
) -> Report:
    """Returns the figures of an artefact, held against the model in its precision."""
    described = art.manifest
    program = _program_as_written(path, model, described)
    pictures = OverPictures.of(program, described, _format(path))
    if pictures is not None:  # what lies over pictures is judged as it is before
        program = pictures.before
        described = described.replace(outputs=program.plan.manifest.outputs)
    reference = RowsReference(reference_of(program))
    name = program.source.name
    rng = np.random.default_rng(seed)
    if samples is None:
        tried, alone = trials.generated(described, reference, name, rng)
    else:
        fed = checked_samples(art.texts.given(samples), described.inputs)
        tried, alone = trials.given(fed, described, reference, name), []
    remark = reference.remark(tried[0][0].feed)
    notes = [check_samples_apart(described, reference, tried, name)]
    fed_states = any(i.next_state is not None for i in described.inputs)
    if described.texts and program.source.view.texts and not fed_states:
        tried += texts.tried(art.texts, described, program.source, samples, rng)
    calls = []
    for place, (drawn, predictions) in enumerate(tried, start=1):
        groups = drawn_groups(described, drawn, rng)
        region = drawn_region(described, predictions, drawn, rng)
        more = {REGION_INPUT: region, GROUPS_INPUT: groups}
        given = {name: value for name, value in more.items() if value is not None}
        batch = dataclasses.replace(drawn, feed={**drawn.feed, **given})
        asked = drawn_targets(described, target, batch, rng) if described.target_input else None
        expected = {**reference.explanations(batch.feed, asked), **predictions}
        named = {o.name: expected[o.name] for o in described.outputs}
        check_finite(reference, name, named, batch.feed, batch.hard, made_up=samples is None)
        expected = _without_gradients_of_nothing(expected, described)
        result = art.run(drawn.feed, target=asked, groups=groups, region=region)
        arrays = {o.name: np.asarray(result[o.name].array) for o in described.outputs}
        if pictures is not None:
            arrays |= pictures.as_before(arrays, batch, asked, reference.computed_in)
        got = reference.arranged(arrays, batch.size)
        got = _without_classes_of_nothing(got, expected, described)
        got = with_ties_settled(
            got,
            expected,
            program.plan,
            reference.computed_in,
            functools.partial(_scores, reference, batch.feed),
        )
        got = with_keys_settled(got, expected, program.plan, reference.computed_in)
        expected, got = with_own_sums(expected, got, program.plan)
        if described.gate:
            got |= _further_off(_unexplained(art, reference, drawn), got, expected)
        calls.append(Call(place, batch, asked, got, expected))
    notes.append(_check_calls(described, program, calls, art, reference, pictures, bool(notes[0])))
    predicted = _predicted_alone(art, reference, alone, len(calls))
    same = reference.shares_gradients_with(art.engine.name)
    comparison = Comparison(
        described, program, reference, calls, predicted=predicted, same_engine=same
    )
    return Report(
        artefact=path,
        against=name,
        samples=sum(b.size for b, _ in tried) if samples is None else tried[0][0].size,
        generated=samples is None,
        outputs=comparison.figures(rng),
        runs=trials.described_runs(tried, described),
        notes=[*_warned_of(notes), *filter(None, [remark])],
    )


def _scores(reference: RowsReference, feed: Mapping[str, Array]) -> list[Array]:
    """Returns what is explained of each group of the plan, classes last; none if unknown."""
    moved = reference.moved_scores()
    return [] if moved is None else moved.at(feed, {})[0]


def _check_calls(
    described: Manifest,
    program: Program,
    calls: Sequence[Call],
    art: runtime.Artefact,
    reference: RowsReference,
    pictures: OverPictures | None,
    suspected: bool,
) -> str:
    """Refuses what artefact and reference agree on, and which explains no sample nonetheless.

    Args:
        described: what the artefact says of itself.
        program: the source and what is compiled into it.
        calls: calls of the artefact.
        art: the artefact.
        reference: what it is held against.
        pictures: its outputs that lie over pictures, where it has some.
        suspected: whether predictions of hard samples depend on each other.

    Returns:
        What to say where samples depend on others that are unlike them; `""` otherwise.

    Raises:
        VerificationError: samples depend on each other, or numbers cancel to their rounding.
    """
    asks = described.groups_input is not None or described.region_input is not None
    more = () if asks else more_ordinary(described, reference, calls[0].batch)
    note = check_explanations_apart(
        program.plan,
        calls[0],
        functools.partial(_explained, art, reference, described, pictures),
        program.source.name,
        reference.computed_in,
        further=(batch.feed for batch, _ in more),
        suspected=suspected,
    )
    hard = [c.batch.hard for c in calls]
    check_cancellation(described, program.plan, [c.expected for c in calls], hard)
    return note


def _warned_of(notes: Sequence[str]) -> list[str]:
    """Returns the first thing that there is to say, and warns of it."""
    said = [note for note in notes if note][:1]
    for note in said:
        warnings.warn(note, stacklevel=4)
    return said


def _predicted_alone(
    art: runtime.Artefact, reference: RowsReference, tried: Sequence[trials.Tried], after: int
) -> list[Call]:
    """Returns calls that are predicted without explanations, where the artefact can do so."""
    described = art.manifest
    if not described.gate and len(art.engine.signatures) == 1:
        return []  # the prediction costs all that is explained
    return [
        Call(place, batch, None, _unexplained(art, reference, batch), predictions)
        for place, (batch, predictions) in enumerate(tried, start=after + 1)
    ]


def _explained(
    art: runtime.Artefact,
    reference: RowsReference,
    described: Manifest,
    pictures: OverPictures | None,
    feed: Mapping[str, Array],
    target: Array | None,
) -> dict[str, Array]:
    """Returns all outputs for some inputs, samples first; over pictures, as they were before."""
    own = {spec.name: feed[spec.name] for spec in described.inputs}
    groups = feed[GROUPS_INPUT] if described.groups_input else None
    region = feed[REGION_INPUT] if described.region_input else None
    result = art.run(own, target=target, groups=groups, region=region)
    arrays = {o.name: np.asarray(result[o.name].array) for o in described.outputs}
    if pictures is not None:
        arrays |= pictures.in_own_size(feed, target)
    return reference.arranged(arrays, reference.rows(feed))


def _unexplained(art: runtime.Artefact, reference: RowsReference, batch: Batch) -> dict[str, Array]:
    """Returns the predictions without explanations, samples first."""
    result = art.run(batch.feed, explain=False)
    arrays = {o.name: np.asarray(result[o.name].array) for o in art.manifest.predictions}
    return reference.arranged(arrays, batch.size)


def _program_as_written(
    artefact: str | os.PathLike[str], model: Any, described: Manifest
) -> Program:
    """Returns a model in the form that an artefact was written from, with the artefact's probes.

    Raises:
        VerificationError: the artefact cannot have been made from it.
    """
    program = program_of(model, with_arrays(Path(artefact), described))
    program = as_written(program, _format(artefact))
    program = dataclasses.replace(program, plan=tables_last(program.plan))
    if not isinstance(program.source, PreprocessedSource):
        _check_takes_images(artefact, described, program)
        program = behind(program, described.inputs)
    _check_same_interface(artefact, described, program)
    return program


def _format(artefact: str | os.PathLike[str]) -> str:
    """Returns the format of an artefact."""
    return "savedmodel" if Path(artefact).is_dir() else "onnx"


def require_agreement(report: Report) -> None:
    """Raises a VerificationError that says which outputs differ and by how much, if any do."""
    wrong = [f"{name!r} ({p.fault()})" for name, p in report.items() if not p.passed]
    if wrong:
        faults = f"{report.artefact} does not agree with {report.against!r}: {'; '.join(wrong)}."
        raise VerificationError(" ".join([faults, *report.notes]), report)


def _further_off(
    plain: Mapping[str, Array], got: Mapping[str, Array], expected: Mapping[str, Array]
) -> dict[str, Array]:
    """Returns the predictions without explanations that differ more from what is right.

    A gate has a graph for either; with this, both are judged.
    """
    return {
        name: array
        for name, array in plain.items()
        if _distance(array, expected[name]) > _distance(got[name], expected[name])
    }


def _distance(one: Array, other: Array) -> float:
    """Returns the largest difference; infinity where shapes, NaN or other values differ."""
    if one.shape != other.shape:
        return np.inf
    if not floating(one):
        return 0.0 if np.array_equal(one, other) else np.inf
    a, b = one.astype(np.float64), other.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.abs(a - b)
    return float(np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart)).max(initial=0.0))


def _without_gradients_of_nothing(
    expected: Mapping[str, Array], described: Manifest
) -> dict[str, Array]:
    """Returns references whose gradients are NaN in samples where what they differentiate is."""
    changed = dict(expected)
    for output in described.explanations:
        own = output.target.output if output.target else None
        if not output.is_attribution:
            continue
        for prediction in described.predictions:
            value = expected[prediction.name]
            if own in (None, prediction.name) and floating(value):
                flat = value.reshape(len(value), -1).astype(np.float64)
                nothing = ~np.isfinite(flat).any(axis=1)
                if nothing.any():
                    changed[output.name] = changed[output.name].copy()
                    changed[output.name][nothing] = np.nan
    return changed


def _without_classes_of_nothing(
    got: Mapping[str, Array], expected: Mapping[str, Array], described: Manifest
) -> dict[str, Array]:
    """Returns outputs with the reference's classes in samples whose scores are no numbers."""
    changed = dict(got)
    for output in described.outputs:
        scores = expected.get(str(output.target.output)) if output.target else None
        if output.kind != CLASSES or scores is None or not floating(scores):
            continue
        values = scores.reshape(len(scores), -1).astype(np.float64)
        nothing = np.isnan(values).any(axis=1)
        if nothing.any() and changed[output.name].shape == expected[output.name].shape:
            changed[output.name] = changed[output.name].copy()
            changed[output.name][nothing] = expected[output.name][nothing]
    return changed


def program_of(model: Any, described: Manifest) -> Program:
    """Returns a model with the probes that a manifest names.

    Args:
        model: an instrumented model, a source model, or the path of one.
        described: the manifest; of an instrumented model, its own.

    Raises:
        VerificationError: a target is a callable, which a manifest cannot hold.
        ProbegenError: see `probegen.instrument`.
    """
    carried = {i.name: i.next_state for i in described.inputs if i.next_state is not None}
    program = instrumented_program(model)
    if program is not None:
        with_none = not carried or program.source.view.carried
        return program if with_none else from_states(program, carried)
    for entry in described.probes:
        given = entry.get("target")
        if isinstance(given, dict) and "callable" in given:
            raise VerificationError(
                f"the target {given['callable']} is a callable, which a manifest "
                "cannot hold; pass the instrumented model: pg.verify(path, probed)."
            )
    axes = None
    if kind_of(model).takes_axes:  # a user may have said them
        added = {n for pair in carried.items() for n in pair if n.startswith((STATE, NEXT_STATE))}
        own = (i for i in described.inputs if i.name not in added)
        axes = {i.name: (i.preprocessing or i).axes for i in own}
        axes |= {o.name: o.axes for o in described.predictions if o.name not in added}
    source = open_source(model, axes)
    if described.texts:
        source = source.as_written("onnx")
    if carried:
        source = source.with_carried(carried)
    probes = [from_dict(entry) for entry in described.probes]
    return Program(source, make_plan(source.view, probes, described.class_names, described))


def _check_takes_images(
    artefact: str | os.PathLike[str], described: Manifest, program: Program
) -> None:
    """Refuses a model that takes other tensors than the artefact makes of pictures.

    Raises:
        VerificationError: it does; says which.
    """
    own = program.plan.manifest.inputs
    for spec, theirs in zip(described.inputs, own, strict=len(described.inputs) == len(own)):
        how = spec.preprocessing
        if how is None or spec.name != theirs.name:
            continue
        fits = len(theirs.shape) == len(how.shape) and all(
            axis == "batch" or n in (None, m)
            for n, m, axis in zip(theirs.shape, how.shape, how.axes, strict=True)
        )
        if not fits or (theirs.dtype, theirs.axes) != (how.dtype, how.axes):
            raise VerificationError(
                f"{artefact} was not made from {program.source.name!r}: it makes of {spec.name!r} "
                f"{how.dtype} {describe(how.axes, how.shape)}; the model takes {theirs.dtype} "
                f"{describe(theirs.axes, theirs.shape)}."
            )


def _check_same_interface(
    artefact: str | os.PathLike[str], described: Manifest, program: Program
) -> None:
    """Refuses a model that the artefact cannot have been made from.

    Raises:
        VerificationError: they have other inputs or outputs; lists both.
    """
    for what, ours, theirs in (
        ("inputs", described.inputs, program.plan.manifest.inputs),
        ("outputs", described.outputs, program.plan.manifest.outputs),
    ):
        shown = [[f"{v.name!r} {v.dtype} {v.shape[1:]}" for v in side] for side in (ours, theirs)]
        if shown[0] != shown[1]:
            raise VerificationError(
                f"{artefact} was not made from {program.source.name!r}: it has the {what} "
                f"{', '.join(shown[0])}; the model has the {what} {', '.join(shown[1])}."
            )
