"""Judges an artefact's calls: figures of every output, under noise and by witnesses in doubt."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import (
    CLASS,
    CLASSES,
    COMPLETENESS,
    PREDICTION,
    STEP,
    Manifest,
    OutputSpec,
)
from probegen.artefact.rows import as_described, rows_first
from probegen.methods.numpy_operations import NumpyOperations
from probegen.parity.absolute_rounding import AbsoluteRounding, group_of
from probegen.parity.calls import Call, Start, floating
from probegen.parity.classes import each_class, labelled, repeated
from probegen.parity.comparison import (
    GRADIENT_FACTOR,
    TOLERANCES,
    Rows,
    judge,
    measure_rows,
)
from probegen.parity.completeness import size_name
from probegen.parity.noise import NOISE, SIGNS, Moved, moved, noisy_feeds, off_range, rounded
from probegen.parity.report import IN_PLACE, SCORES, SOURCE_MODEL, Parity
from probegen.parity.third_witness import ThirdWitness
from probegen.sources.base import Noise, Program, Reference

Array = npt.NDArray[Any]

#: Of noise that moves equal numbers apart.
_DRAWS = (1, 2)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All calls, and what their outputs are held to.

    Attributes:
        described: the artefact's manifest.
        program: the model and the plan of the artefact.
        reference: says what is right.
        calls: the calls.
        predicted: further calls, of predictions alone.
        same_engine: whether the artefact's gradients come from where the reference's do.
    """

    described: Manifest
    program: Program
    reference: Reference
    calls: Sequence[Call]
    predicted: Sequence[Call]
    same_engine: bool

    def figures(self, rng: np.random.Generator) -> dict[str, Parity]:
        """Returns the figures of every output; noise is measured where some are in doubt."""
        found = {o.name: self._judged(o) for o in self.described.outputs}
        first: list[dict[str, Moved]] = []
        for zeros in (False, True):
            doubtful = [o for o in self.described.outputs if not found[o.name].passed]
            doubtful = [o for o in doubtful if o.is_attribution or not zeros]
            if doubtful:
                noise = [self._moved(call, doubtful, rng, zeros) for call in self.calls]
                scores = [o for o in doubtful if o.kind == PREDICTION]
                noise += [self._moved(call, scores, rng, zeros) for call in self.predicted]
                found.update((o.name, self._judged(o, noise)) for o in doubtful)
                first = first or noise
        doubtful = [o for o in self.described.outputs if not found[o.name].passed]
        if doubtful:
            calls = zip(self.calls, first[: len(self.calls)], strict=True)
            noise = [self._with_rounding(call, doubtful, known) for call, known in calls]
            noise += first[len(self.calls) :]
            found.update((o.name, self._judged(o, noise)) for o in doubtful)
        return self._in_place(self._third.heard_after(found))

    @functools.cached_property
    def _third(self) -> ThirdWitness:
        return ThirdWitness(
            self.described,
            self.program,
            self.reference,
            self.calls,
            self.same_engine,
            lambda output, calls: dataclasses.replace(self, calls=calls)._judged(output),
        )

    @functools.cached_property
    def _rounding(self) -> AbsoluteRounding:
        return AbsoluteRounding(
            self.described,
            self.program,
            self.reference,
            self.calls,
            self._third,
            lambda name: self._witnesses.get(name) == SCORES,
        )

    def _in_place(self, found: dict[str, Parity]) -> dict[str, Parity]:
        """Returns figures after the model has predicted with the artefact's attention weights.

        Weights that are what the model weighs its values with give the prediction that it gives by
        itself.
        """
        whole = [o.spec.name for o in self.program.plan.plain if o.is_whole_attention]
        names = [n for n in whole if n in found and found[n].passed]
        if not names or not all(found[o.name].passed for o in self.described.predictions):
            return found
        call = min(self.calls, key=lambda c: c.batch.size)
        right = self._predicts_with(call, names)
        said = dict.fromkeys(names, right)
        if not right:  # some are wrong, or cannot be put in place: each by itself
            said = {name: self._predicts_with(call, [name]) for name in names}
        changed = dict(found)
        for name, passed in said.items():
            if passed is not None:
                witness = f"{SOURCE_MODEL}, and {IN_PLACE}" if passed else IN_PLACE
                changed[name] = dataclasses.replace(found[name], passed=passed, witness=witness)
        return changed

    def _predicts_with(self, call: Call, names: Sequence[str]) -> bool | None:
        """Tells whether the model predicts the same with the artefact's attention weights in place.

        None where some cannot be put in place; and where predictions differ by no more than weights
        in a coarser type than the model's explain, which proves nothing.
        """
        given = {name: call.got[name] for name in names}
        answer = self.reference.predictions_with(call.batch.feed, given)
        if answer is None:
            return None
        own = TOLERANCES[self.reference.computed_in]
        coarsest = max(own, *(TOLERANCES.get(w.dtype.name, own) for w in given.values()))
        if self._is_predicted(call, answer, GRADIENT_FACTOR * own):
            return True
        return None if self._is_predicted(call, answer, GRADIENT_FACTOR * coarsest) else False

    def _is_predicted(self, call: Call, answer: Mapping[str, Array], limit: float) -> bool:
        """Tells whether the ordinary samples have the model's own predictions, up to a limit."""
        ordinary = [i for i, hard in enumerate(call.batch.hard) if not hard]
        for output in self.described.predictions:
            ours, theirs = answer[output.name], call.expected[output.name]
            if ours.shape != theirs.shape or not floating(theirs):
                continue
            a, b = (v[ordinary].astype(np.float64) for v in (ours, theirs))
            if not np.allclose(a, b, rtol=0, atol=limit * max(1e-30, np.abs(b).max(initial=0.0))):
                return False
        return True

    def _judged(
        self, output: OutputSpec, noise: Sequence[Mapping[str, Moved]] | None = None
    ) -> Parity:
        parts, by, beside, rounding = [], [], [], []
        calls = [*self.calls, *(self.predicted if output.kind == PREDICTION else ())]
        starts = [self._start(call, output) for call in calls]
        for i, (call, start) in enumerate(zip(calls, starts, strict=True)):
            known = None if noise is None else noise[i][output.name]
            expected = call.expected[output.name]
            rows = measure_rows(
                output,
                each_class(output, start.taken_from(call.got[output.name])),
                each_class(output, start.taken_from(expected)),
                repeated(output, expected, call.batch.hard),
                labelled(output, expected, call.batch.labels(call.place)),
                None if known is None else known.unsettled,
            )
            if known is not None and output.kind == CLASSES:
                # Scores as near to each other as that stand in either order.
                rows = dataclasses.replace(
                    rows, difference=np.where(known.beside == 0, 0.0, rows.difference)
                )
            parts.append(rows)
            by.append(
                np.zeros(len(rows.norm)) if known is None else self._moves(output, call, known)
            )
            beside.append(np.full(len(rows.norm), np.inf) if known is None else known.beside)
            rounding.append(np.full(len(rows.norm), np.nan) if known is None else known.rounding)
        figures = judge(
            output,
            Rows.joined(parts),
            np.concatenate(by),
            np.concatenate(beside),
            np.concatenate(rounding),
            computed_in=self.reference.computed_in,
            floor=self._rounding.of(output, starts, in_doubt=noise is not None),
        )
        if not output.is_attribution:
            return figures
        witness = self._witnesses.get(output.name) or self.reference.computed_by(output.name)
        return dataclasses.replace(figures, witness=witness)

    @functools.cached_property
    def _witnesses(self) -> dict[str, str]:
        """What attributions are compared with that are not made of gradients, by name."""
        outputs = [o for group in self.program.plan.groups for o in group.outputs]
        return {
            o.spec.name: SCORES if o.moves else SOURCE_MODEL
            for o in outputs
            if not o.probe.needs_gradient
        }

    def _moves(self, output: OutputSpec, call: Call, known: Moved) -> Array:
        """Returns what each row moves by: a hard one by anything, where its class is undecided.

        Noise on its inputs moves no class that is as good as another because both are saturated.
        """
        group = group_of(self.program, output) if output.is_attribution else None
        if group is None or group.target.spec.several or self._third.differences is None:
            return known.by
        try:
            undecided = self._third.differences.undecided(call.batch.feed, call.target, group)
        except Exception:  # a witness that cannot be heard proves nothing
            return known.by
        if undecided.shape != known.by.shape:
            return known.by
        return np.where(undecided & np.asarray(call.batch.hard), np.inf, known.by)

    def _moved(
        self, call: Call, outputs: Sequence[OutputSpec], rng: np.random.Generator, zeros: bool
    ) -> dict[str, Moved]:
        """Returns what outputs of a call move by under noise on its inputs."""
        noisy = []
        images = [i.name for i in self.described.inputs if i.preprocessing is not None]
        computed_in = self.reference.computed_in
        pair = noisy_feeds(call.batch.feed, computed_in, rng, zeros=zeros, images=images)
        for feed, sign in zip(pair, SIGNS, strict=True):
            answer: dict[str, Array] = {}
            if any(o.kind != PREDICTION for o in outputs):
                noise = Noise(sign * NOISE[computed_in], zeros)
                answer.update(self._under(noise, feed, call))
            if any(o.kind == PREDICTION for o in outputs):
                answer.update(self.reference.predictions(feed)[0])
            noisy.append(answer)
        found = {o.name: self._apart(call, o, noisy) for o in outputs}
        ties = [o for o in outputs if o.is_attribution]
        if ties and self.reference.begins_inside:
            noises = [Noise(s * NOISE[computed_in], zeros, d) for d in _DRAWS for s in SIGNS]
            others = [self._under(n, call.batch.feed, call) for n in noises]
            for o in ties:  # these tell where rounding breaks ties, not how much it moves
                outside = off_range(*self._arrays(call, o, others))
                found[o.name] = found[o.name].with_nearer(outside)
        return found

    def _under(self, noise: Noise, feed: Mapping[str, Array], call: Call) -> dict[str, Array]:
        """Returns what the reference answers under noise; without, where it cannot run then."""
        try:
            return self.reference.explanations(feed, call.target, noise)
        except Exception:  # an id that is no longer one, say
            return self.reference.explanations(feed, call.target)

    def _apart(
        self, call: Call, output: OutputSpec, answers: Sequence[Mapping[str, Array]]
    ) -> Moved:
        """Returns how far an output's reference is from other answers of it."""
        return moved(output, *self._arrays(call, output, answers))

    def _arrays(
        self, call: Call, output: OutputSpec, answers: Sequence[Mapping[str, Array]]
    ) -> tuple[Array, Array, list[Array]]:
        """Returns an output as it is compared: the reference, the artefact's, and others."""
        start = self._start(call, output)
        expected, got, *others = (
            each_class(output, start.taken_from(a[output.name]))
            for a in (call.expected, call.got, *answers)
        )
        return expected, got, others

    def _with_rounding(
        self, call: Call, outputs: Sequence[OutputSpec], known: Mapping[str, Moved]
    ) -> dict[str, Moved]:
        """Returns what outputs of a call move by under noise, or without their rounding.

        Where the model predicts something else without it, it is at another place: nothing is
        taken for rounding alone then.

        In samples in which it predicts something else with sigmoids that are exact to a rounding of
        1, as onnxruntime's are, what it moves by that counts as well. In others slopes of saturated
        sigmoids are far from those of rounded ones, and artefacts have them right.
        """
        exact = self.reference.without_rounding(call.batch.feed, call.target)
        limit = GRADIENT_FACTOR * TOLERANCES[self.reference.computed_in]
        told = {o.name for o in self.described.predictions} <= set(exact)
        apart = rounded if told and self._is_predicted(call, exact, limit) else moved
        joined = dict(known)
        for o in outputs:
            if o.name in exact and o.kind != CLASSES:
                without = apart(o, *self._arrays(call, o, [exact]))
                joined[o.name] = known[o.name].joined(without)
        coarse = self.reference.with_coarse_sigmoids(call.batch.feed, call.target)
        elsewhere = self._predicts_otherwise(call, coarse, limit)
        for o in outputs:
            if o.name in coarse and o.kind != CLASSES and any(elsewhere):
                rows = np.asarray(repeated(o, call.expected[o.name], elsewhere))
                other = moved(o, *self._arrays(call, o, [coarse]))
                joined[o.name] = joined[o.name].joined(other.of(rows))
        return joined

    def _predicts_otherwise(
        self, call: Call, answer: Mapping[str, Array], limit: float
    ) -> list[bool]:
        """Tells in which samples another answer of the reference predicts something else.

        Args:
            call: the call.
            answer: another answer, of some outputs.
            limit: what predictions may be off by, as a part of the largest in the sample.
        """
        found = np.zeros(call.batch.size, bool)
        for output in self.described.predictions:
            ours, theirs = answer.get(output.name), call.expected[output.name]
            if ours is not None and ours.shape == theirs.shape and floating(theirs):
                ours, theirs = (v.reshape(len(v), -1).astype(np.float64) for v in (ours, theirs))
                largest = np.abs(theirs).max(axis=1, initial=0.0)
                found |= np.abs(ours - theirs).max(axis=1, initial=0.0) > limit * largest
        return found.tolist()

    def _start(self, call: Call, output: OutputSpec) -> Start:
        """Returns what an output holds that no gradient has made, and what it is relative to."""
        if output.kind == COMPLETENESS:
            return Start(relative_to=call.expected[size_name(output.name)])
        chain = next((c for c in self.program.plan.chains if c.spec.name == output.name), None)
        if chain is None or not chain.gradients:
            return Start()
        axes = {o.spec.name: o.spec.axes for g in self.program.plan.groups for o in g.outputs}
        shapes = {o.spec.name: o.spec.shape for o in self.program.plan.plain}
        nothing: dict[str, Array] = {}
        for gradient, weights in zip(chain.gradients, chain.weights, strict=True):
            zeros = as_described(np.zeros(call.expected[gradient].shape), axes[gradient])
            nothing[gradient] = zeros
            missing = len(axes[gradient]) - zeros.ndim
            several = next((a for a in (CLASS, STEP) if a in axes[gradient]), None)
            if several is not None:
                zeros = zeros.take(0, axes[gradient].index(several))
            if missing:  # gradients join frames with the samples, along the first axis
                frames = shapes[weights][1 : 1 + missing]
                sizes = [-1 if n is None else n for n in frames]
                zeros = zeros.reshape(call.batch.size, *sizes, *zeros.shape[1:])
            nothing[weights] = zeros
        for spec in chain.beside:
            nothing[f"{chain.gradients[0]}/{CLASSES}"] = call.expected[spec.name]
        made = chain.made_of(NumpyOperations(), nothing)[chain.spec.name]
        return Start(rows_first(np.asarray(made), output.axes, call.batch.size))
