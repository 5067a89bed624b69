"""Tells what probes would cost, from the outline of the artefact that holds them."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from probegen.artefact.manifest import InputSpec, OutputSpec
from probegen.cost.counts import Work, constants, works
from probegen.cost.outline import Outline, outline
from probegen.cost.report import Cost, Costs, OutputCost
from probegen.cost.time_model import seconds
from probegen.errors import (
    ExportError,
    InstrumentError,
    NotDifferentiableError,
    ProbegenError,
    Refusal,
    SelectionError,
    SpecError,
    did_you_mean,
)
from probegen.graph.assemble import DEFAULT_OPSET
from probegen.graph.core.queries import needed_for
from probegen.graph.core.values import shape_of
from probegen.graph.forward import open_size
from probegen.methods.base import Probe
from probegen.plan.making import make_plan
from probegen.plan.plan import Plan
from probegen.sources.base import Source

#: Rank of an input -> the size that is assumed for each open axis behind the batch.
_USUAL_SIZES = {2: 128, 3: 128, 4: 224, 5: 32}


def costs_of(
    source: Source, probes: Sequence[Probe], sizes: Mapping[str, Sequence[int]] | None = None
) -> Costs:
    """Returns what probes would cost in an ONNX artefact.

    Args:
        source: the model.
        probes: the probes.
        sizes: input name -> its sizes without the batch, for inputs that leave some open.

    Raises:
        SpecError: sizes do not fit the inputs.
        ProbegenError: a probe is malformed, or none of them finds anything, as `instrument` says
            it.
    """
    plan, refused = _plan(source, probes)
    given = _sizes(plan.manifest.inputs, sizes or {})
    names = {
        open_size(name, axis): size
        for name, shape in given.items()
        for axis, size in enumerate(shape, start=1)
    }
    obstacles = {key: _refusals(error) for key, error in refused.items()}
    outlined: Outline | None = None
    try:
        outlined = outline(source, plan, DEFAULT_OPSET, {"batch": 1, **names})
    except ExportError as error:
        for probe in probes:
            obstacles.setdefault(id(probe), _refusals(error))
    else:
        obstacles.update((key, _refusals(e)) for key, e in outlined.refused.items())
    return _Estimate(source, plan, probes, outlined, obstacles, given).costs()


def _plan(source: Source, probes: Sequence[Probe]) -> tuple[Plan, dict[int, ProbegenError]]:
    """Returns the plan of all probes that have one, and why the others (by id) have none.

    Raises:
        SelectionError, InstrumentError: no probe finds anything; or together they do not go.
    """
    try:
        return make_plan(source.view, probes), {}
    except (SelectionError, InstrumentError) as error:
        found_first = error
    refused: dict[int, ProbegenError] = {}
    for probe in probes:
        try:
            make_plan(source.view, [probe])
        except (SelectionError, InstrumentError) as error:
            refused[id(probe)] = error
    allowed = [p for p in probes if id(p) not in refused]
    if not allowed and not any(isinstance(e, NotDifferentiableError) for e in refused.values()):
        raise found_first
    return make_plan(source.view, allowed), refused


def _sizes(
    inputs: Sequence[InputSpec], given: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """Returns the sizes without the batch of inputs that leave some open: given or usual ones.

    Raises:
        SpecError: an input is unknown, or sizes do not fit it.
    """
    known = [i.name for i in inputs]
    for name in given:
        if name not in known:
            raise SpecError(f"sizes= names the input {name!r}.{did_you_mean(name, known)}")
    found = {}
    for spec in inputs:
        usual = _USUAL_SIZES.get(len(spec.shape), 32)
        wanted = tuple(given.get(spec.name, [usual if d is None else d for d in spec.shape[1:]]))
        fits = len(wanted) == len(spec.shape) - 1 and all(
            isinstance(w, int) and w > 0 and d in (None, w)
            for w, d in zip(wanted, spec.shape[1:], strict=True)
        )
        if not fits:
            raise SpecError(
                f"sizes= gives {wanted} for input {spec.name!r}, whose shape behind the batch is "
                f"{spec.shape[1:]}; give a positive number for each axis, without the batch."
            )
        if None in spec.shape[1:]:
            found[spec.name] = wanted
    return found


@dataclasses.dataclass
class _Estimate:
    """Puts figures together.

    Attributes:
        source: the model.
        plan: the plan of the probes that have one.
        probes: all probes.
        outlined: the graph; None where the model itself is refused.
        refused: id of a probe -> what an export would refuse.
        sizes: what was assumed.
    """

    source: Source
    plan: Plan
    probes: Sequence[Probe]
    outlined: Outline | None
    refused: Mapping[int, tuple[Refusal, ...]]
    sizes: Mapping[str, tuple[int, ...]]

    def costs(self) -> Costs:
        """Returns the report."""
        self._constant = constants(self.outlined.graph) if self.outlined else set()
        self._plain = self._works([])
        each = [self._cost(probe) for probe in self.probes]
        allowed = [c for c in each if not c.refused]
        together = self._measured("together", [o for c in allowed for o in c.outputs])
        unknown = Counter(
            work.node.op_type
            for work in self._works([o.name for o in together.outputs])
            if not work.known
        )
        return Costs(
            each,
            together,
            model_name=self.source.name,
            plain=_multiply_adds(self._plain, self._batch) if self.outlined else None,
            sizes=self.sizes,
            uncounted=unknown,
        )

    @property
    def _batch(self) -> int:
        """The number of samples that the graph is for."""
        return self.source.batch or 1

    def _cost(self, probe: Probe) -> Cost:
        specs = self._specs(probe)
        outputs = [self._output(spec) for spec in specs]
        label = _label(probe, specs)
        obstacles = self.refused.get(id(probe))
        if obstacles is None:
            return self._measured(label, outputs, probe)
        return Cost(label, tuple(outputs), None, None, obstacles, probe)

    def _measured(self, name: str, outputs: Sequence[OutputCost], probe: Any = None) -> Cost:
        """Returns the cost of outputs that no export refuses."""
        if self.outlined is None:
            return Cost(name, tuple(outputs), None, None, (), probe)
        done = self._works([o.name for o in outputs])
        extra = _multiply_adds(done, self._batch) - _multiply_adds(self._plain, self._batch)
        plain = seconds(self._plain)
        ratio = seconds(done) / plain if plain else None
        return Cost(name, tuple(outputs), extra, ratio, (), probe)

    def _specs(self, probe: Probe) -> list[OutputSpec]:
        plain = [o.spec for o in self.plan.plain if o.probe is probe]
        gradients = [o for group in self.plan.groups for o in group.outputs]
        chains = [o.spec for o in self.plan.chains if o.probe is probe]
        if chains:
            return chains
        return [*plain, *(o.spec for o in gradients if o.probe is probe)]

    def _output(self, spec: OutputSpec) -> OutputCost:
        value = self.outlined.explanations.get(spec.name) if self.outlined else None
        found = None if value is None else shape_of(value)
        sizes = [d if isinstance(d, int) else None for d in (found or spec.shape)[1:]]
        known = [d for d in sizes if d is not None]
        width = np.dtype(spec.dtype).itemsize
        size = width * math.prod(known) if len(known) == len(sizes) else None
        return OutputCost(spec.name, (None, *sizes), spec.dtype, size)

    def _works(self, names: Sequence[str]) -> list[Work]:
        """Returns what is done for the predictions and some explanations, all at once."""
        if self.outlined is None:
            return []
        graph = self.outlined.graph
        wanted: list[ir.Value] = [self.outlined.explanations[name] for name in names]
        needed = needed_for(graph, [*self.outlined.predictions, *wanted])
        return list(works([n for n in graph if n in needed], self._constant))


def _multiply_adds(done: Sequence[Work], batch: int) -> int:
    return sum(w.times * w.multiply_adds for w in done) // batch


def _label(probe: Probe, specs: Sequence[OutputSpec]) -> str:
    """Returns the name of a probe's output, or what it is called where there are several."""
    if len(specs) == 1:
        return specs[0].name
    return str(getattr(probe, "name", None) or probe.kind)


def _refusals(error: ProbegenError) -> tuple[Refusal, ...]:
    """Returns what an error lists, or its message where it lists nothing."""
    return getattr(error, "refusals", ()) or (Refusal("", str(error)),)
