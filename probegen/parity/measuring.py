"""Verification: artefact and source model on the same inputs, and what came of it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probegen import runtime
from probegen.errors import InputError, VerificationError
from probegen.instrumentation.model import ProbedModel, instrument_as
from probegen.instrumentation.plan import GradientGroup, GradientOutput
from probegen.instrumentation.source import as_source
from probegen.manifest import (
    GRADIENT_KINDS,
    INPUT_GRADIENT,
    PREDICTION,
    SALIENCY,
    Manifest,
    OutputSpec,
)
from probegen.parity import trials
from probegen.parity.comparison import (
    FLOOR_UNITS,
    ROUNDING,
    TOLERANCES,
    Rows,
    judge,
    measure_rows,
)
from probegen.parity.differences import CONFIRMED, REFUTED
from probegen.parity.noise import Moved, moved, noisy_feeds
from probegen.parity.reference import Reference
from probegen.parity.report import DIFFERENCES, TENSORFLOW, Parity, Report
from probegen.parity.samples import Batch
from probegen.runtime.inputs import check_inputs
from probegen.runtime.savedmodel_engine import SavedModelEngine
from probegen.stages import stage

Array = npt.NDArray[Any]


def verify(
    artefact: str | os.PathLike[str],
    model: Any,
    samples: Any = None,
    *,
    target: Any = None,
    seed: int = 0,
) -> Report:
    """Compares an artefact with the model it was made from.

    Args:
        artefact: path of an ONNX file or a SavedModel.
        model: the source model or its path, or the instrumented model (needed where a target
            is a callable, which no manifest can hold).
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
    report = measure(artefact, model, samples, target=target, seed=seed)
    require_agreement(report)
    return report


@stage("the artefact cannot be compared with the model", VerificationError)
def measure(
    artefact: str | os.PathLike[str],
    model: Any,
    samples: Any = None,
    *,
    target: Any = None,
    seed: int = 0,
) -> Report:
    """Returns the figures of `verify`, whether the outputs agree or not.

    Raises:
        VerificationError: there is nothing to compare with: the source model's own values are
            not finite, or differ from call to call.
        InputError: the samples do not fit, or the source model runs on none that can be made up.
    """
    art = runtime.load(artefact)
    described = art.manifest
    probed = model if isinstance(model, ProbedModel) else _instrument_again(model, described)
    _check_same_interface(artefact, described, probed)
    reference, inside = Reference(probed), _coarsest(probed.source)
    rng = np.random.default_rng(seed)
    if samples is None:
        tried = trials.generated(described, reference, inside, rng)
    else:
        tried = trials.given(check_inputs(samples, described.inputs), described, reference)
    calls = []
    for place, (batch, predictions) in enumerate(tried, start=1):
        asked = _targets(described, target, batch, rng) if described.target_input else None
        expected = {**reference.explanations(batch.feed, asked), **predictions}
        named = {o.name: expected[o.name] for o in described.outputs}
        reference.check_finite(named, batch.feed, batch.hard)
        expected = _without_gradients_of_nothing(expected, described)
        result = art.run(batch.feed, target=asked)
        got = {o.name: np.asarray(result[o.name].array) for o in described.outputs}
        calls.append(_Call(place, batch, asked, got, expected))
    comparison = _Comparison(
        described, reference, inside, calls, same_engine=art.engine.name == SavedModelEngine.name
    )
    return Report(
        artefact=str(artefact),
        against=probed.source.name,
        samples=sum(b.size for b, _ in tried) if samples is None else tried[0][0].size,
        generated=samples is None,
        outputs=comparison.figures(rng),
        runs=trials.described_runs(tried, described),
    )


def require_agreement(report: Report) -> None:
    """Raises a VerificationError that says which outputs differ and by how much, if any do."""
    wrong = [f"{name!r} ({p.fault()})" for name, p in report.items() if not p.passed]
    if wrong:
        raise VerificationError(
            f"{report.artefact} does not agree with {report.against!r}: {'; '.join(wrong)}.",
            report,
        )


@dataclasses.dataclass(frozen=True)
class _Call:
    """One call of the artefact and what should have come out.

    Attributes:
        place: which call it is, from 1.
        batch: what it was called on.
        target: the targets asked for, where the artefact takes some.
        got: the outputs.
        expected: the reference.
    """

    place: int
    batch: Batch
    target: Array | None
    got: Mapping[str, Array]
    expected: Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class _Comparison:
    """All calls, and what their outputs are held to.

    Attributes:
        described: the artefact's manifest.
        reference: says what is right.
        computed_in: the coarsest element type that the model computes in.
        calls: the calls.
        same_engine: whether the artefact's gradients come from TensorFlow too.
    """

    described: Manifest
    reference: Reference
    computed_in: str
    calls: Sequence[_Call]
    same_engine: bool

    def figures(self, rng: np.random.Generator) -> dict[str, Parity]:
        """Returns the figures of every output; noise is measured where some are in doubt."""
        found = {o.name: self._judged(o) for o in self.described.outputs}
        for zeros in (False, True):
            doubtful = [o for o in self.described.outputs if not found[o.name].passed]
            doubtful = [o for o in doubtful if o.kind in GRADIENT_KINDS or not zeros]
            if doubtful:
                noise = [self._moved(call, doubtful, rng, zeros) for call in self.calls]
                found.update((o.name, self._judged(o, noise)) for o in doubtful)
        return self._witnessed(found)

    def _witnessed(self, found: dict[str, Parity]) -> dict[str, Parity]:
        """Returns figures after a third witness was heard where it is needed.

        Where an artefact's gradient differs from TensorFlow's, differences of the scores may
        confirm it and refute TensorFlow's. Where TensorFlow computes the artefact's gradients as
        well, they may refute both.
        """
        changed = dict(found)
        for group in self.reference.probed.plan.groups:
            for output in group.outputs:
                figures, raw = found[output.spec.name], self.reference.raw_name(output)
                if raw is None:
                    continue
                if figures.passed and self.same_engine:
                    changed[output.spec.name] = self._checked(group, output, raw, figures)
                elif not figures.passed and not self.same_engine:
                    changed[output.spec.name] = self._arbitrated(group, output, raw, figures)
        return changed

    def _checked(
        self, group: GradientGroup, output: GradientOutput, raw: str, figures: Parity
    ) -> Parity:
        """Asks differences about gradients that artefact and reference compute alike."""
        call = min(self.calls, key=lambda c: c.batch.size)
        said = self._verdicts(call, group, output, {raw: call.expected[raw]}).get(raw, [])
        ordinary = [v for v, hard in zip(said, call.batch.hard, strict=False) if not hard]
        against, confirmed = ordinary.count(REFUTED), ordinary.count(CONFIRMED)
        if against > confirmed:
            return dataclasses.replace(
                figures,
                passed=False,
                witness=f"{DIFFERENCES}, which refute {TENSORFLOW} in {against} of {len(ordinary)} "
                "samples",
            )
        witness = f"{TENSORFLOW} and {DIFFERENCES}" if confirmed else TENSORFLOW
        return dataclasses.replace(figures, witness=witness)

    def _arbitrated(
        self, group: GradientGroup, output: GradientOutput, raw: str, figures: Parity
    ) -> Parity:
        """Asks differences who is right where the artefact and TensorFlow disagree.

        A sample counts as agreeing where they confirm the artefact's gradient and refute
        TensorFlow's; the others are judged as before.
        """
        name = output.spec.name
        calls = []
        for call in self.calls:
            ours = call.got[name] if raw == name else None
            if ours is None or ours.shape != call.expected[raw].shape:
                return figures
            said = self._verdicts(call, group, output, {"ours": ours, "theirs": call.expected[raw]})
            right = [
                a == CONFIRMED and b == REFUTED
                for a, b in zip(said.get("ours", []), said.get("theirs", []), strict=True)
            ]
            expected = call.expected[name].copy()
            if any(right):
                expected[right] = call.got[name][right]
            calls.append(dataclasses.replace(call, expected={**call.expected, name: expected}))
        again = dataclasses.replace(self, calls=calls)._judged(output.spec)
        return dataclasses.replace(again, witness=DIFFERENCES) if again.passed else figures

    def _verdicts(
        self,
        call: _Call,
        group: GradientGroup,
        output: GradientOutput,
        gradients: Mapping[str, Array],
    ) -> dict[str, list[str]]:
        """Returns what differences say of gradients, nothing where they cannot be taken."""
        differences = self.reference.differences
        if differences is None or any(not np.isfinite(g).all() for g in gradients.values()):
            gradients = {n: np.nan_to_num(g, posinf=0, neginf=0) for n, g in gradients.items()}
        if differences is None:
            return {}
        try:
            return differences.verdicts(
                self.reference.flat(call.batch.feed), call.target, group, output, gradients
            )
        except tf.errors.OpError:
            return {}

    def _judged(
        self, output: OutputSpec, noise: Sequence[Mapping[str, Moved]] | None = None
    ) -> Parity:
        parts, by, beside = [], [], []
        for i, call in enumerate(self.calls):
            known = None if noise is None else noise[i][output.name]
            parts.append(
                measure_rows(
                    output,
                    call.got[output.name],
                    call.expected[output.name],
                    call.batch.hard,
                    call.batch.labels(call.place),
                    None if known is None else known.unsettled,
                )
            )
            by.append(np.zeros(call.batch.size) if known is None else known.by)
            beside.append(np.full(call.batch.size, np.inf) if known is None else known.beside)
        return judge(
            output,
            Rows.joined(parts),
            np.concatenate(by),
            np.concatenate(beside),
            computed_in=self.computed_in,
            floor=self._floor(output),
        )

    def _moved(
        self, call: _Call, outputs: Sequence[OutputSpec], rng: np.random.Generator, zeros: bool
    ) -> dict[str, Moved]:
        """Returns what outputs of a call move by under noise on its inputs."""
        noisy = []
        for feed in noisy_feeds(call.batch.feed, self.computed_in, rng, zeros=zeros):
            answer = self.reference.explanations(feed, call.target)
            if any(o.kind == PREDICTION for o in outputs):
                answer.update(self.reference.predictions(feed))
            noisy.append(answer)
        return {
            o.name: moved(
                o, call.expected[o.name], call.got[o.name], [answer[o.name] for answer in noisy]
            )
            for o in outputs
        }

    def _floor(self, output: OutputSpec) -> float:
        """Returns the absolute rounding of an output; see `comparison`."""
        if output.kind not in GRADIENT_KINDS:
            unit = ROUNDING["float64" if output.dtype == "float64" else "float32"]
            return unit * self.reference.computed_near(output.name)
        unit = max(ROUNDING.get(d, 0.0) for d in (output.dtype, self.computed_in))
        sizes = [s for call in self.calls for s in self._natural_sizes(output, call)]
        return FLOOR_UNITS * unit * float(np.median(sizes)) if sizes else 0.0

    def _natural_sizes(self, output: OutputSpec, call: _Call) -> list[float]:
        """Returns score over input for each ordinary sample: a gradient's size, unsaturated."""
        rows = [i for i, hard in enumerate(call.batch.hard) if not hard]
        own = output.target.output if output.target else None
        names = [o.name for o in self.described.predictions if own in (None, o.name)]
        scores = [call.expected[n] for n in names if _floating(call.expected[n])]
        near = 0.0
        if output.target is None or not output.target.logits:
            near = max((self.reference.computed_near(n) for n in names), default=0.0)
        fed = call.batch.feed.get(output.input or "")
        elements = max(1, int(np.prod(call.expected[output.name].shape[1:])))
        found = []
        for i in rows:
            score = max([near, *(_largest(s[i]) for s in scores)])
            size = float(np.sqrt(elements))
            if output.kind in (INPUT_GRADIENT, SALIENCY) and fed is not None and _floating(fed):
                size = float(np.linalg.norm(fed[i].astype(np.float64)))
            found.append(score / size if size > 0 else 0.0)
        return found


def _without_gradients_of_nothing(
    expected: Mapping[str, Array], described: Manifest
) -> dict[str, Array]:
    """Returns references whose gradients are NaN in samples where what they differentiate is."""
    changed = dict(expected)
    for output in described.explanations:
        own = output.target.output if output.target else None
        if output.kind not in GRADIENT_KINDS:
            continue
        for prediction in described.predictions:
            value = expected[prediction.name]
            if own in (None, prediction.name) and _floating(value):
                flat = value.reshape(len(value), -1).astype(np.float64)
                nothing = ~np.isfinite(flat).any(axis=1)
                if nothing.any():
                    changed[output.name] = changed[output.name].copy()
                    changed[output.name][nothing] = np.nan
    return changed


def _floating(values: Array) -> bool:
    return values.dtype.kind in "fV"  # V: bfloat16


def _largest(values: Array) -> float:
    finite = values[np.isfinite(values.astype(np.float64))].astype(np.float64)
    return float(np.abs(finite).max(initial=0.0))


def _targets(described: Manifest, target: Any, batch: Batch, rng: np.random.Generator) -> Array:
    """Returns the target of each row: those given, or the argmax and random ones.

    Raises:
        InputError: there is neither one for all samples nor one for each.
    """
    if target is None:
        drawn = rng.integers(0, described.target_classes or 1, batch.size).astype(np.int32)
        drawn[0] = -1
        return drawn
    asked = np.asarray(target)
    if asked.dtype.kind not in "iu" or asked.ndim > 1:
        raise InputError(f"target takes a class index or one for each sample, got {target!r}.")
    if asked.ndim == 0:
        return np.full(batch.size, asked, np.int32)
    source = batch.source or tuple(range(batch.size))
    if not batch.source or max(source) >= len(asked):
        if batch.source:
            raise InputError(f"target has {len(asked)} entries, the samples are more.")
        source = tuple(i % len(asked) for i in source)
    return asked[list(source)].astype(np.int32)


def _instrument_again(model: Any, described: Manifest) -> ProbedModel:
    """Instruments a source model with the probes that a manifest names."""
    for entry in described.probes:
        if isinstance(entry.get("target"), dict):
            raise VerificationError(
                f"the target {entry['target'].get('callable')} is a callable, which a manifest "
                "cannot hold; pass the instrumented model: pg.verify(path, probed)."
            )
    return instrument_as(as_source(model), described)


def _check_same_interface(
    artefact: str | os.PathLike[str], described: Manifest, probed: ProbedModel
) -> None:
    """Refuses a model that the artefact cannot have been made from.

    Raises:
        VerificationError: they have other inputs or outputs; lists both.
    """
    for what, ours, theirs in (
        ("inputs", described.inputs, probed.manifest.inputs),
        ("outputs", described.outputs, probed.manifest.outputs),
    ):
        shown = [[f"{v.name!r} {v.dtype} {v.shape[1:]}" for v in side] for side in (ours, theirs)]
        if shown[0] != shown[1]:
            raise VerificationError(
                f"{artefact} was not made from {probed.source.name!r}: it has the {what} "
                f"{', '.join(shown[0])}; the model has the {what} {', '.join(shown[1])}."
            )


def _coarsest(model: Any) -> str:
    """Returns the coarsest element type that a model's layers compute in."""
    used = {layer.compute_dtype for layer in model._flatten_layers()}
    known = [dtype for dtype in TOLERANCES if dtype in used]
    return max(known, key=TOLERANCES.__getitem__, default="float64")
