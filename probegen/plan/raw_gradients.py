"""Plans for verification: with the gradients that outputs are made of."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from probegen.artefact.manifest import KEYS
from probegen.methods.base import GradientProbe
from probegen.methods.input_gradient import InputGradient
from probegen.methods.samples import Samples, SumAt
from probegen.methods.targets import Target
from probegen.plan.plan import ChainOutput, GradientOutput, PlainOutput, Plan, TensorRef
from probegen.plan.several_classes import with_class_axis

_Output = TypeVar("_Output", PlainOutput, ChainOutput)


@dataclasses.dataclass(frozen=True)
class _Summed(GradientProbe):
    """The weighted sum of the gradients at another probe's points, times their factors.

    Attributes:
        target: of that probe.
        whose: that probe.
    """

    target: Target = "argmax"
    whose: GradientProbe = dataclasses.field(kw_only=True)

    def gradients_at(self) -> Samples | None:
        """Returns that probe's points."""
        samples = self.whose.gradients_at()
        return None if samples is None else SumAt(samples)

    @property
    def moves_with(self) -> GradientProbe:
        """That probe."""
        return self.whose


def with_raw_gradients(plan: Plan) -> tuple[Plan, dict[str, str]]:
    """Returns a plan that also gives the gradients that outputs are made of, and their names.

    Of a method with `gradients_at` that is the weighted sum of the gradients at all points, each
    times its factor.
    """
    groups, raw, specs = [], {}, []
    named = {o.name for o in plan.manifest.outputs}
    for group in plan.groups:
        added: dict[tuple[TensorRef, int], GradientOutput] = {}
        for output in group.outputs:
            name, probe = output.spec.name, output.probe
            if not probe.needs_gradient:
                continue
            if probe.gives_gradient:
                raw[name] = name
                if name not in named:  # what a chain is made of
                    specs.append(output.spec)
                continue
            alone = probe.gradients_at() is None
            key = (output.ref, 0 if alone else id(probe))
            if key not in added:
                plain = InputGradient(target=probe.target)
                spec = dataclasses.replace(
                    output.spec,
                    name=f"raw gradient of {name}",
                    shape=(None,) * len(output.axes),
                    axes=output.axes,
                    **plain.described(output.axes),
                )
                made = plain if alone else _Summed(target=probe.target, whose=probe)
                spec = with_class_axis(spec, group.target)
                added[key] = dataclasses.replace(output, spec=spec, probe=made, beside=())
                specs.append(spec)
            raw[name] = added[key].spec.name
        groups.append(dataclasses.replace(group, outputs=(*group.outputs, *added.values())))
    chosen = [_candidates(o) for o in plan.plain if o.spec.kind == KEYS]
    stacked = [_candidates(c) for c in plan.chains if c.spec.kind == KEYS]
    specs += [*(o.spec for o in chosen), *(c.spec for c in stacked)]
    manifest = plan.manifest.replace(outputs=(*plan.manifest.outputs, *specs))
    changed = dataclasses.replace(
        plan,
        plain=(*plan.plain, *chosen),
        groups=tuple(groups),
        chains=(*plan.chains, *stacked),
        manifest=manifest,
    )
    return changed, raw


def candidates_of(name: str) -> str:
    """Returns what the weights are called that an output says the largest of."""
    return f"what {name} are chosen from"


def _candidates(output: _Output) -> _Output:
    """Returns an output with all weights that another gives the positions of the largest of."""
    spec = dataclasses.replace(
        output.spec,
        name=candidates_of(output.spec.name),
        dtype="float64",
        shape=(None,) * len(output.spec.shape),
    )
    return dataclasses.replace(output, spec=spec, probe=output.probe.everything())


def without_scores(plan: Plan) -> Plan:
    """Returns a plan without the outputs of methods that need scores alone."""
    groups = [
        dataclasses.replace(g, outputs=tuple(o for o in g.outputs if not o.moves))
        for g in plan.groups
    ]
    by_scores = [o for g in plan.groups for o in g.outputs if o.moves]
    gone = {spec.name for o in by_scores for spec in (o.spec, *o.beside)}
    left = tuple(o for o in plan.manifest.outputs if o.name not in gone)
    return dataclasses.replace(
        plan,
        groups=tuple(g for g in groups if g.outputs),
        manifest=plan.manifest.replace(outputs=left),
    )
