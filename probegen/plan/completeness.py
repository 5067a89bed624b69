"""Outputs that say what is missing to completeness: how far an attribution is from the scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from probegen.artefact.manifest import COMPLETENESS, SIGNED
from probegen.methods.axes import BATCH
from probegen.methods.samples import Place
from probegen.methods.score_gained import ScoreGained
from probegen.plan.plan import GradientGroup, GradientOutput, TargetPlan
from probegen.plan.several_classes import with_class_axis


@dataclasses.dataclass(frozen=True)
class Residual:
    """Attributions whose sum is held against a difference of scores.

    Attributes:
        outputs: the attributions: all that moves together.
        gained: that difference, planned as an output of its own: of the class that is explained,
            `[batch]`.
    """

    outputs: tuple[GradientOutput, ...]
    gained: GradientOutput

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs that say what is missing; each has the same figure."""
        return tuple(name for o in self.outputs for name in o.beside_of(COMPLETENESS))

    @property
    def probe(self) -> ScoreGained:
        """What the difference is."""
        assert isinstance(self.gained.probe, ScoreGained)
        return self.gained.probe


def with_completeness(output: GradientOutput, target: TargetPlan, *, wide: bool) -> GradientOutput:
    """Returns an output with what is missing to its completeness beside it, where that is asked.

    Args:
        output: with all its axes, under its final name.
        target: what is differentiated.
        wide: give it out in 64 bits: what moves together has one figure, in the widest type.
    """
    if not output.probe.completeness:
        return output
    spec = output.spec
    size = spec.shape[spec.axes.index(BATCH)] if BATCH in spec.axes else None
    missing = spec.companion(
        f"{COMPLETENESS}/{spec.name}",
        COMPLETENESS,
        dtype="float64" if wide else "float32",
        shape=(size,) if BATCH in spec.axes else (),
        axes=(BATCH,) if BATCH in spec.axes else (),
        target=target.spec,
        method=f"sum of {spec.name!r} and of what moves with it - (score - score of the reference)",
        title="Missing to completeness",
        unit="score",
        sign=SIGNED,
    )
    missing = with_class_axis(missing, target)
    return dataclasses.replace(output, beside=(*output.beside, missing))


def residuals_of(group: GradientGroup) -> list[Residual]:
    """Returns what is held against differences of scores in a group."""
    asked = [o for o in group.outputs if o.beside_of(COMPLETENESS)]
    return [Residual(outputs, _gained(outputs)) for outputs in moving_together(asked)]


def moving_together(outputs: Iterable[GradientOutput]) -> list[tuple[GradientOutput, ...]]:
    """Returns outputs of a group in parts, each of all that moves together.

    All that stands for the inputs that a probe explains moves together. Layers each move alone, and
    so do tensors of methods by scores.
    """
    together: dict[tuple[int, object], list[GradientOutput]] = {}
    for o in outputs:
        alone = None if o.inputs and not o.moves else o.ref
        together.setdefault((id(o.probe), alone), []).append(o)
    return [tuple(part) for part in together.values()]


def _gained(outputs: Sequence[GradientOutput]) -> GradientOutput:
    first = outputs[0]
    spec = next(s for s in first.beside if s.kind == COMPLETENESS)
    moves = first.moves or tuple((o.ref, o.axes) for o in outputs)
    places = (
        tuple(Place(first.called, axes, first.inputs) for _, axes in first.moves)
        if first.moves
        else tuple(o.place for o in outputs)
    )
    probe = ScoreGained(
        target=first.probe.target,
        baseline=first.probe.reference(),
        places=places,
        holds_masks=first.probe.needs_gradient,
    )
    return dataclasses.replace(
        first, spec=spec, probe=probe, moves=moves, beside=(), sized_as=None, pairs=()
    )
