"""How far an output may be off by rounding alone, whatever its size: see `comparison`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import (
    COMPLETENESS,
    SCORE_PER_INPUT,
    SHARE_OF_SCORES,
    SQUARE_OF,
    Manifest,
    OutputSpec,
)
from probegen.artefact.rows import rows_first
from probegen.methods.by_scores import LEAST_RANGE
from probegen.parity.calls import Call, Start, floating
from probegen.parity.classes import each_class
from probegen.parity.comparison import FLOOR_UNITS, ROUNDING, SCORE_UNITS, base_limit
from probegen.parity.completeness import rounding_of_sum
from probegen.parity.third_witness import ThirdWitness
from probegen.plan.plan import GradientGroup
from probegen.sources.base import Program, Reference

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class AbsoluteRounding:
    """Tells the absolute rounding of outputs.

    Attributes:
        described: the artefact's manifest.
        program: the model and the plan of the artefact.
        reference: says what is right.
        calls: the calls.
        witness: tells in doubt what scores are made of.
        by_scores: tells by its name whether an output is made of scores alone.
    """

    described: Manifest
    program: Program
    reference: Reference
    calls: Sequence[Call]
    witness: ThirdWitness
    by_scores: Callable[[str], bool]

    def of(self, output: OutputSpec, starts: Sequence[Start], *, in_doubt: bool) -> float:
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
        sizes = [s for call in self.calls for s in self.natural_sizes(output, call, in_doubt)]
        beside = unit * max((start.size for start in starts), default=0.0)
        if self.by_scores(output.name):
            # Each element is made of differences of scores, and rounded as these are.
            each = [
                score * _root_of_elements(output, call)
                for call in self.calls
                for score in self.sizes_of_scores(output, call, in_doubt)
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

    def sizes_of_scores(self, output: OutputSpec, call: Call, in_doubt: bool) -> list[float]:
        """Returns what each ordinary sample's explained score is rounded with.

        Predictions tell little of logits, and nothing of how many positions are summed: in doubt
        the model is asked for the terms of its score.
        """
        known = self._scores(output, call)
        differences = self.witness.differences if in_doubt else None
        group = group_of(self.program, output)
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

    def natural_sizes(self, output: OutputSpec, call: Call, in_doubt: bool) -> list[float]:
        """Returns score over input for each ordinary sample: a gradient's size, unsaturated.

        What a layer gives is no prediction: in doubt the model is asked for it.
        """
        fed = call.batch.feed.get(output.input or "")
        if fed is not None:
            axes = next(i.axes for i in self.described.inputs if i.name == output.input)
            fed = rows_first(fed, axes, call.batch.size)
        root = _root_of_elements(output, call)
        scores = self._scores(output, call) or self.sizes_of_scores(output, call, in_doubt)
        found = []
        for i, score in zip(call.batch.ordinary, scores, strict=False):
            size = root
            if output.unit.endswith(SCORE_PER_INPUT) and fed is not None and floating(fed):
                size = float(np.linalg.norm(fed[i].astype(np.float64)))
            natural = score / size if size > 0 else 0.0
            found.append(natural**2 if output.unit.startswith(SQUARE_OF) else natural)
        return found


def group_of(program: Program, output: OutputSpec) -> GradientGroup | None:
    """Returns what explains the score that an attribution is of; None of several gradients."""
    groups = program.plan.groups
    of_it = (g for g in groups if any(o.spec.name == output.name for o in g.outputs))
    return next(of_it, None)


def _root_of_elements(output: OutputSpec, call: Call) -> float:
    """Returns the Euclidean norm that a sample of an output has where each element is 1."""
    shape = each_class(output, call.expected[output.name]).shape
    return float(np.sqrt(max(1, int(np.prod(shape[1:])))))


def _largest(values: Array) -> float:
    finite = values[np.isfinite(values.astype(np.float64))].astype(np.float64)
    return float(np.abs(finite).max(initial=0.0))
