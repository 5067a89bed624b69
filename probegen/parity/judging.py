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
    SCORE_PER_INPUT,
    SHARE_OF_SCORES,
    SQUARE_OF,
    STEP,
    TARGET_INPUT,
    Manifest,
    OutputSpec,
)
from probegen.artefact.rows import as_described, rows_first
from probegen.graph.assemble import DEFAULT_OPSET, onnx_model
from probegen.graph.running import open_graph
from probegen.methods.axes import behind_batch
from probegen.methods.base import resized
from probegen.methods.by_scores import LEAST_RANGE
from probegen.methods.numpy_operations import NumpyOperations
from probegen.methods.samples import NumpyWalk
from probegen.parity.classes import each_class, heard, labelled, of_entry, repeated
from probegen.parity.comparison import (
    FLOOR_UNITS,
    GRADIENT_FACTOR,
    ROUNDING,
    SCORE_UNITS,
    TOLERANCES,
    Rows,
    base_limit,
    compare,
    judge,
    measure_rows,
)
from probegen.parity.completeness import rounding_of_sum, size_name
from probegen.parity.differences import CONFIRMED, REFUTED, Differences, worse
from probegen.parity.noise import NOISE, SIGNS, Moved, moved, noisy_feeds, off_range, rounded
from probegen.parity.report import DIFFERENCES, IN_PLACE, SCORES, SOURCE_MODEL, Parity
from probegen.parity.samples import Batch
from probegen.plan.plan import (
    ChainOutput,
    GradientGroup,
    GradientOutput,
    moved_together,
    samples_of,
)
from probegen.sources.base import Noise, Program, Reference

Array = npt.NDArray[Any]

#: Of noise that moves equal numbers apart.
_DRAWS = (1, 2)


@dataclasses.dataclass(frozen=True)
class Call:
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
        return self._in_place(self._witnessed(found))

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

    def _witnessed(self, found: dict[str, Parity]) -> dict[str, Parity]:
        """Returns figures after a third witness was heard where it is needed.

        Where an artefact's gradient differs from TensorFlow's, differences of the scores may
        confirm it and refute TensorFlow's. Where TensorFlow computes the artefact's gradients as
        well, they may refute both. Of gradients that the model stops on their way they say nothing.
        """
        changed = dict(found)
        for group in self.program.plan.groups:
            for output in group.outputs:
                if output.spec.name in found:
                    figures = found[output.spec.name]
                    changed[output.spec.name] = self._heard_of(group, output, figures)
        for chain in self.program.plan.chains:
            changed[chain.spec.name] = self._heard_of_parts(chain, found[chain.spec.name])
        return changed

    def _heard_of(self, group: GradientGroup, output: GradientOutput, figures: Parity) -> Parity:
        """Returns figures after differences were heard of the gradient that an output is made of.

        Unchanged where nobody needs to hear them, or they cannot be taken.
        """
        raw = self.reference.raw_name(output)
        if raw is None or figures.passed != self.same_engine:
            return figures
        differences = self._differences  # traced here, where they are heard
        if differences is None or differences.held_back(group, output.ref):
            return figures
        judged = self._checked if figures.passed else self._arbitrated
        return judged(differences, group, output, raw, figures)

    def _heard_of_parts(self, chain: ChainOutput, figures: Parity) -> Parity:
        """Returns figures after differences were heard of every gradient that a chain is made of.

        One that is refuted decides; the certificate names differences where all are confirmed.
        """
        if not figures.passed:  # differences say nothing of what several gradients make together
            return figures
        parts = [
            self._heard_of(group, output, figures)
            for group in self.program.plan.groups
            for output in group.outputs
            if output.spec.name in chain.gradients
        ]
        refuted = [p for p in parts if not p.passed]
        plain = [p for p in parts if DIFFERENCES not in p.witness]
        return next(iter([*refuted, *plain, *parts]), figures)

    def _checked(
        self,
        differences: Differences,
        group: GradientGroup,
        output: GradientOutput,
        raw: str,
        figures: Parity,
    ) -> Parity:
        """Asks differences about gradients that artefact and reference compute alike."""
        call = min(self.calls, key=lambda c: c.batch.size)
        said = self._said_of(differences, call, group, output, call.expected[raw])
        ordinary = [v for v, hard in zip(said, call.batch.hard, strict=False) if not hard]
        engine = self.reference.gradients_by
        against, confirmed = ordinary.count(REFUTED), ordinary.count(CONFIRMED)
        if against > confirmed:
            return dataclasses.replace(
                figures,
                passed=False,
                witness=f"{DIFFERENCES}, which refute {engine} in {against} of {len(ordinary)} "
                "samples",
            )
        witness = f"{engine} and {DIFFERENCES}" if confirmed else engine
        return dataclasses.replace(figures, witness=witness)

    def _arbitrated(
        self,
        differences: Differences,
        group: GradientGroup,
        output: GradientOutput,
        raw: str,
        figures: Parity,
    ) -> Parity:
        """Asks differences who is right where the artefact and TensorFlow disagree.

        A sample counts as agreeing where they confirm the artefact's gradient and refute
        TensorFlow's, or where the score has a kink there and both lie between its slopes; the
        others are judged as before.
        """
        name = output.spec.name
        calls = []
        for call in self.calls:
            ours: Array | None = call.got[name]
            if raw != name:
                ours = self._raw_of_artefact(differences, call, group, output, raw)
            if ours is None or ours.shape != call.expected[raw].shape:
                return figures
            gradients = {"ours": ours, "theirs": call.expected[raw]}
            expected = call.expected[name].copy()
            for entry in heard(output.spec, expected):
                said = self._verdicts(differences, call, group, output, gradients, entry)
                right = [
                    a == CONFIRMED and b == REFUTED
                    for a, b in zip(said.get("ours", []), said.get("theirs", []), strict=True)
                ]
                if not all(right):
                    kinks = self._at_kinks(differences, call, group, output, gradients, entry)
                    right = [a or b for a, b in zip(right, kinks, strict=False)] or kinks
                if any(right):
                    of_entry(output.spec, expected, entry)[right] = of_entry(
                        output.spec, call.got[name], entry
                    )[right]
            calls.append(dataclasses.replace(call, expected={**call.expected, name: expected}))
        again = dataclasses.replace(self, calls=calls)._judged(output.spec)
        return dataclasses.replace(again, witness=DIFFERENCES) if again.passed else figures

    @functools.cached_property
    def _differences(self) -> Differences | None:
        moved = self.reference.moved_scores()
        if moved is None:
            return None
        return Differences(moved, self.program.plan.groups, self.reference.computed_in)

    @functools.cached_property
    def _with_raw_gradients(self) -> Any:
        """A session of the same graph that also gives the gradients that outputs are made of.

        None where there is none, for instance because it is too large for one file.
        """
        plan = self.reference.plan
        try:
            source = self.program.source
            model, *_ = onnx_model(
                plan, source.forward_graph, gate=False, opset=DEFAULT_OPSET, batch=source.batch
            )
            return open_graph(model)
        except Exception:  # what cannot be asked confirms nothing
            return None

    def _raw_of_artefact(
        self,
        differences: Differences,
        call: Call,
        group: GradientGroup,
        output: GradientOutput,
        raw: str,
    ) -> Array | None:
        """Returns the gradient that an artefact's output is made of.

        None where it is not made of that: the output is then computed from it by numpy.
        """
        session = self._with_raw_gradients
        if session is None:
            return None
        fed = dict(call.batch.feed)
        if call.target is not None:
            fed[TARGET_INPUT] = call.target
        gradient: Array = session.run([raw], fed)[0]
        moved = differences.tensor(call.batch.feed, output.ref)
        tensor = as_described(moved, output.axes)
        made = self._combined(group, output, gradient.astype(np.float64), tensor, call.batch.feed)
        if made is None:
            return None
        spec, rows = output.spec, call.batch.size
        made = rows_first(made, spec.axes, rows)
        described = next(o for o in self.reference.plan.manifest.outputs if o.name == raw)
        gradient = rows_first(gradient, described.axes, rows)
        same = compare(
            spec,
            each_class(spec, call.got[spec.name]),
            each_class(spec, made),
            computed_in=self.reference.computed_in,
            hard=repeated(spec, made, call.batch.hard),
        )
        return gradient if same.passed else None

    def _combined(
        self,
        group: GradientGroup,
        output: GradientOutput,
        gradient: Array,
        tensor: Array,
        feed: Mapping[str, Array],
    ) -> Array | None:
        """Returns what a method makes of a gradient, or of those of several classes, by numpy.

        None where it is not made of the sum of the gradients alone.
        """
        ops, several = NumpyOperations(), group.target.spec.several
        names = [i.name for i in self.described.inputs]
        feed = self.reference.fed(feed)
        sized, padded = output.sized_by(feed, names), output.padded_by(feed, names)
        walks = [
            NumpyWalk(samples_of(together)[0], tensor, output.place)
            for together in moved_together(group)
            if any(o is output for o in together)
        ]
        made = []
        for one in np.moveaxis(gradient, behind_batch(output.axes), 0) if several else [gradient]:
            flow: Array | None = walks[0].of_sum(one) if walks else one
            if flow is None:
                return None
            found = output.probe.attribution(ops, flow, tensor, output.axes, padded)
            made.append(np.asarray(resized(ops, found, sized)))
        return np.stack(made, output.classes_at) if several else made[0]

    def _said_of(
        self,
        differences: Differences,
        call: Call,
        group: GradientGroup,
        output: GradientOutput,
        gradient: Array,
    ) -> list[str]:
        """Returns the verdicts on one gradient; several outputs may be made of it."""
        samples = output.probe.gradients_at()
        key = (id(group), output.ref, None if samples is None else id(output.probe.moves_with))
        known = self._heard.get(key)
        if known is None or not np.array_equal(known[0], gradient):
            told: list[str] = []
            for entry in heard(output.spec, gradient):
                asked = {"one": gradient}
                said = self._verdicts(differences, call, group, output, asked, entry).get("one", [])
                told = [worse(a, b) for a, b in zip(told, said, strict=False)] if told else said
            known = self._heard[key] = (gradient, told)
        return known[1]

    @functools.cached_property
    def _heard(self) -> dict[Any, tuple[Array, list[str]]]:
        return {}

    def _verdicts(
        self,
        differences: Differences,
        call: Call,
        group: GradientGroup,
        output: GradientOutput,
        gradients: Mapping[str, Array],
        entry: int | None,
    ) -> dict[str, list[str]]:
        """Returns what differences say of gradients, nothing where they cannot be taken.

        Args:
            differences: the witness.
            call: the inputs.
            group: what is differentiated.
            output: by which tensor.
            gradients: name -> a candidate, of all classes where there are several.
            entry: which of the classes it is about.
        """
        of_class = {n: of_entry(output.spec, g, entry) for n, g in gradients.items()}
        finite = {n: np.nan_to_num(g, posinf=0, neginf=0) for n, g in of_class.items()}
        try:
            return differences.verdicts(
                call.batch.feed,
                call.target,
                group,
                output,
                finite,
                [not hard for hard in call.batch.hard],
                entry or 0,
            )
        except Exception:  # a witness that cannot be heard proves nothing
            return {}

    @staticmethod
    def _at_kinks(
        differences: Differences,
        call: Call,
        group: GradientGroup,
        output: GradientOutput,
        gradients: Mapping[str, Array],
        entry: int | None,
    ) -> list[bool]:
        """Tells in which samples a kink explains why two gradients differ; nothing if unknown."""
        of_class = {n: of_entry(output.spec, g, entry) for n, g in gradients.items()}
        if not all(np.isfinite(g).all() for g in of_class.values()):
            return []
        try:
            return differences.at_a_kink(
                call.batch.feed, call.target, group, output, of_class, entry or 0
            )
        except Exception:  # a witness that cannot be heard proves nothing
            return []

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
            floor=self._floor(output, starts, in_doubt=noise is not None),
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
        group = self._group_of(output) if output.is_attribution else None
        if group is None or group.target.spec.several or self._differences is None:
            return known.by
        try:
            undecided = self._differences.undecided(call.batch.feed, call.target, group)
        except Exception:  # a witness that cannot be heard proves nothing
            return known.by
        if undecided.shape != known.by.shape:
            return known.by
        return np.where(undecided & np.asarray(call.batch.hard), np.inf, known.by)

    def _group_of(self, output: OutputSpec) -> GradientGroup | None:
        """Returns what explains the score that an attribution is of; None of several gradients."""
        groups = self.program.plan.groups
        of_it = (g for g in groups if any(o.spec.name == output.name for o in g.outputs))
        return next(of_it, None)

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

    def _floor(self, output: OutputSpec, starts: Sequence[Start], *, in_doubt: bool) -> float:
        """Returns the absolute rounding of an output; see `comparison`.

        Where it is in doubt, the scores that are explained are asked for their size.
        """
        if output.kind == COMPLETENESS:
            rounded = rounding_of_sum(output.name, self.program.plan)
            return base_limit(output, self.reference.computed_in) + rounded
        if not output.is_attribution:
            unit = ROUNDING["float64" if output.dtype == "float64" else "float32"]
            return unit * self.reference.computed_near(output.name)
        unit = max(ROUNDING.get(d, 0.0) for d in (output.dtype, self.reference.computed_in))
        sizes = [s for call in self.calls for s in self._natural_sizes(output, call, in_doubt)]
        beside = unit * max((start.size for start in starts), default=0.0)
        if self._witnesses.get(output.name) == SCORES:
            # Each element is made of differences of scores, and rounded as these are.
            each = [
                score * _root_of_elements(output, call)
                for call in self.calls
                for score in self._sizes_of_scores(output, call, in_doubt)
            ]
            if output.unit == SHARE_OF_SCORES:
                # Scores over a range that is small beside them, if not below a part of them.
                roots = [_root_of_elements(output, call) for call in self.calls]
                return SCORE_UNITS * ROUNDING["float32"] / LEAST_RANGE * float(np.median(roots))
            beside += SCORE_UNITS * unit * float(np.median(each)) if each else 0.0
        return FLOOR_UNITS * unit * float(np.median(sizes)) + beside if sizes else beside

    def _scores(self, output: OutputSpec, call: Call) -> list[float]:
        """Returns the size of each ordinary sample's scores; none of a layer's, no prediction."""
        if output.target is not None and output.target.layer is not None:
            return []
        own = output.target.output if output.target else None
        names = [o.name for o in self.described.predictions if own in (None, o.name)]
        scores = [call.expected[n] for n in names if floating(call.expected[n])]
        near = 0.0
        if output.target is None or not output.target.logits:
            near = max((self.reference.computed_near(n) for n in names), default=0.0)
        return [max([near, *(_largest(s[i]) for s in scores)]) for i in call.batch.ordinary]

    def _sizes_of_scores(self, output: OutputSpec, call: Call, in_doubt: bool) -> list[float]:
        """Returns what each ordinary sample's explained score is rounded with.

        Predictions tell little of logits, and nothing of how many positions are summed: in doubt
        the model is asked for the terms of its score.
        """
        known = self._scores(output, call)
        differences = self._differences if in_doubt else None
        group = self._group_of(output)
        if differences is None or group is None:
            return known
        near = 0.0
        if not group.target.spec.logits and group.target.spec.layer is None:
            near = self.reference.computed_near(str(group.target.spec.output))
        try:
            terms = differences.terms(call.batch.feed, call.target, group, near)
        except Exception:  # a witness that cannot be heard proves nothing
            return known
        told = [float(terms[i]) for i in call.batch.ordinary]
        return [max(a, b) for a, b in zip(told, known or told, strict=True)]

    def _natural_sizes(self, output: OutputSpec, call: Call, in_doubt: bool) -> list[float]:
        """Returns score over input for each ordinary sample: a gradient's size, unsaturated.

        What a layer gives is no prediction: in doubt the model is asked for it.
        """
        fed = call.batch.feed.get(output.input or "")
        if fed is not None:
            axes = next(i.axes for i in self.described.inputs if i.name == output.input)
            fed = rows_first(fed, axes, call.batch.size)
        root = _root_of_elements(output, call)
        scores = self._scores(output, call) or self._sizes_of_scores(output, call, in_doubt)
        found = []
        for i, score in zip(call.batch.ordinary, scores, strict=False):
            size = root
            if output.unit.endswith(SCORE_PER_INPUT) and fed is not None and floating(fed):
                size = float(np.linalg.norm(fed[i].astype(np.float64)))
            natural = score / size if size > 0 else 0.0
            found.append(natural**2 if output.unit.startswith(SQUARE_OF) else natural)
        return found


@dataclasses.dataclass(frozen=True)
class Start:
    """What an output holds before any gradient has added to it: an identity matrix.

    Beside that, what gradients have added may be small, and would not be seen to be wrong. What is
    a small difference of large numbers is looked at relative to these.

    Attributes:
        values: rows first; None where the output holds nothing of the kind.
        relative_to: the size of such numbers, of the output's shape.
    """

    values: Array | None = None
    relative_to: Array | None = None

    def taken_from(self, output: Array) -> Array:
        """Returns an output without it."""
        if self.relative_to is not None and self.relative_to.shape == output.shape:
            sizes = np.where(self.relative_to > 0, self.relative_to, 1.0)
            return np.asarray(output.astype(np.float64) / sizes)
        if self.values is None or output.shape != self.values.shape or not floating(output):
            return output
        rest: Array = output.astype(np.float64) - self.values
        return rest

    @property
    def size(self) -> float:
        """The Euclidean norm of a sample's: what is added to it is rounded with it."""
        if self.values is None:
            return 0.0
        norms = np.linalg.norm(self.values.reshape(len(self.values), -1), axis=1)
        return float(norms.max(initial=0.0))


def _root_of_elements(output: OutputSpec, call: Call) -> float:
    """Returns the Euclidean norm that a sample of an output has where each element is 1."""
    shape = each_class(output, call.expected[output.name]).shape
    return float(np.sqrt(max(1, int(np.prod(shape[1:])))))


def floating(values: Array) -> bool:
    """Tells whether an array holds floating numbers, bfloat16 (kind V) included."""
    return values.dtype.kind in "fV"


def _largest(values: Array) -> float:
    finite = values[np.isfinite(values.astype(np.float64))].astype(np.float64)
    return float(np.abs(finite).max(initial=0.0))
