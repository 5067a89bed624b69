"""Differences of scores as a third witness, where an artefact's gradients are in doubt."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import TARGET_INPUT, Manifest, OutputSpec
from probegen.artefact.rows import as_described, rows_first
from probegen.graph.assemble import DEFAULT_OPSET, onnx_model
from probegen.graph.running import open_graph
from probegen.methods.axes import behind_batch
from probegen.methods.base import resized
from probegen.methods.numpy_operations import NumpyOperations
from probegen.methods.samples import NumpyWalk
from probegen.parity.calls import Call
from probegen.parity.classes import each_class, heard, of_entry, repeated
from probegen.parity.comparison import compare
from probegen.parity.differences import Differences
from probegen.parity.report import DIFFERENCES, Parity
from probegen.parity.verdicts import CONFIRMED, REFUTED, worse
from probegen.plan.plan import (
    ChainOutput,
    GradientGroup,
    GradientOutput,
    moved_together,
    samples_of,
)
from probegen.sources.base import Program, Reference

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class ThirdWitness:
    """Asks differences of the scores about gradients.

    Attributes:
        described: the artefact's manifest.
        program: the model and the plan of the artefact.
        reference: says what is right.
        calls: the calls.
        same_engine: whether the artefact's gradients come from where the reference's do.
        judge: returns the figures of an output for calls.
    """

    described: Manifest
    program: Program
    reference: Reference
    calls: Sequence[Call]
    same_engine: bool
    judge: Callable[[OutputSpec, Sequence[Call]], Parity]

    def heard_after(self, found: dict[str, Parity]) -> dict[str, Parity]:
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
        differences = self.differences  # traced here, where they are heard
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
        again = self.judge(output.spec, calls)
        return dataclasses.replace(again, witness=DIFFERENCES) if again.passed else figures

    @functools.cached_property
    def differences(self) -> Differences | None:
        """Differences of the model's scores; None where its tensors cannot be moved."""
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
