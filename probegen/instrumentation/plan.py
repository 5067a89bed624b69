"""Probes x model -> a plan: which tensors are taken, what is differentiated, what comes out.

A plan names everything by layer path, so that it holds for every later trace of the model. The
two engines (TensorFlow's tape, and the ONNX graph) both work from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from probegen import __version__, manifest
from probegen.errors import InstrumentError, NotDifferentiableError, SelectionError
from probegen.instrumentation import axes
from probegen.instrumentation.capture import CallKey
from probegen.instrumentation.points import layers_in_order, probe_points
from probegen.instrumentation.roles import role_of
from probegen.instrumentation.source import Source
from probegen.instrumentation.targets import callable_value, score, target_index
from probegen.instrumentation.trace import (
    Trace,
    blocking_operations,
    custom_gradients,
    influenced_by,
    is_differentiable,
    pre_activation,
    trace,
)
from probegen.manifest import InputSpec, Manifest, OutputSpec, TargetSpec
from probegen.points import ProbePoint, ProbePoints
from probegen.select import select, select_one
from probegen.spec import (
    Activations,
    Attention,
    GradCAM,
    GradientProbe,
    IntegratedGradients,
    Probe,
    Saliency,
    to_dict,
)

METHODS = {
    manifest.INPUT_GRADIENT: "d target / d input (Baehrens et al. 2010, eq. 1)",
    manifest.SALIENCY: "max over channels of |d target / d input| (Simonyan et al. 2013, sec. 3.1)",
    manifest.GRAD_CAM: "relu(sum_k mean(d target / d A_k) A_k) (Selvaraju et al. 2017, eqs. 1-2)",
    manifest.INTEGRATED_GRADIENTS: (
        "(x - baseline) * mean of d target / d x on the line (Sundararajan et al. 2017, eq. 3)"
    ),
    manifest.ATTENTION: "attention weights after the softmax (Vaswani et al. 2017, eq. 1)",
}


@dataclasses.dataclass(frozen=True)
class TensorRef:
    """A tensor of the model: an input (path None) or an output of a layer call."""

    path: str | None
    call: int = 0
    position: int = 0

    @property
    def key(self) -> CallKey:
        """The layer call it comes out of."""
        return (self.path or "", self.call)


@dataclasses.dataclass(frozen=True)
class PlainOutput:
    """An output that needs no gradient: an activation or attention weights."""

    spec: OutputSpec
    ref: TensorRef
    probe: Activations | Attention


@dataclasses.dataclass(frozen=True)
class TargetPlan:
    """What is differentiated: an entry of model output `position`, or what `function` returns."""

    spec: TargetSpec
    position: int = 0
    function: Callable[[Any], Any] | None = None


@dataclasses.dataclass(frozen=True)
class GradientOutput:
    """An output made of the gradient at one tensor."""

    spec: OutputSpec
    ref: TensorRef
    probe: GradientProbe


@dataclasses.dataclass(frozen=True)
class GradientGroup:
    """All outputs that share one target, and so one backward pass."""

    target: TargetPlan
    outputs: tuple[GradientOutput, ...]


def path_integrals(group: GradientGroup) -> list[list[GradientOutput]]:
    """Returns the outputs of each `IntegratedGradients` probe: they move along one line."""
    probes: dict[int, list[GradientOutput]] = {}
    for output in group.outputs:
        if isinstance(output.probe, IntegratedGradients):
            probes.setdefault(id(output.probe), []).append(output)
    return list(probes.values())


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything the engines need to know.

    Attributes:
        source: the model.
        plain: outputs without gradients.
        groups: outputs with gradients, by target.
        manifest: what the artefact will say of itself, its outputs in order.
    """

    source: Source
    plain: tuple[PlainOutput, ...]
    groups: tuple[GradientGroup, ...]
    manifest: Manifest


def make_plan(
    source: Source, probes: Sequence[Probe], class_names: Sequence[str] | None = None
) -> Plan:
    """Resolves probes against a model.

    Raises:
        SelectionError: a selector matches nothing that can be probed in its way.
        InstrumentError: a target makes no sense for the model, or two outputs share a name.
        NotDifferentiableError: a gradient cannot flow; says at which operation it stops.
    """
    planner = _Planner(source, trace(source))
    plain: list[PlainOutput] = []
    groups: dict[TargetPlan, list[GradientOutput]] = {}
    in_order: list[OutputSpec] = []
    resolved: list[Probe] = []
    for probe in probes:
        outputs: Sequence[PlainOutput | GradientOutput]
        if isinstance(probe, GradientProbe):
            target = planner.target(probe)
            outputs = gradients = planner.gradients(probe, target)
            groups.setdefault(target, []).extend(gradients)
        else:
            outputs = found = planner.plain(probe)
            plain.extend(found)
        in_order.extend(o.spec for o in outputs)
        resolved.append(planner.resolved(probe, outputs))
    predictions = planner.predictions(class_names)
    _check_names([*(p.name for p in predictions), *(o.name for o in in_order)])
    return Plan(
        source=source,
        plain=tuple(plain),
        groups=tuple(GradientGroup(t, tuple(outputs)) for t, outputs in groups.items()),
        manifest=Manifest(
            inputs=planner.inputs(),
            outputs=(*predictions, *in_order),
            model={"name": source.model.name, "class": type(source.model).__name__},
            producer={"probegen": __version__, "keras": keras.__version__},
            target_input=any(t.spec.mode == "input" for t in groups),
            class_names=_check_class_names(class_names, predictions),
            probes=tuple(_portable(p) for p in resolved),
        ),
    )


class _Planner:
    """Resolves one probe after the other against one trace."""

    def __init__(self, source: Source, traced: Trace) -> None:
        self._source = source
        self._trace = traced
        self._points: ProbePoints = probe_points(traced)
        self._layers = layers_in_order(source.model)
        self._scores = [pre_activation(t) for t in traced.outputs]

    # -- inputs and predictions ----------------------------------------------------------

    def inputs(self) -> tuple[InputSpec, ...]:
        """Returns the artefact's inputs that come from the model."""
        return tuple(self._input(i) for i in range(len(self._source.input_names)))

    def _input(self, position: int) -> InputSpec:
        tensor = self._trace.inputs[position]
        shape = tuple(tensor.shape)
        embedding = self._embedding(position)
        layer = self._trace.call(embedding.key).layer if embedding else None
        fed_directly = embedding is not None and (
            not tensor.dtype.is_floating
            or not is_differentiable(
                self._trace, tensor, self._trace.call(embedding.key).outputs[embedding.position]
            )
        )
        return InputSpec(
            name=self._source.input_names[position],
            dtype=tensor.dtype.name,
            shape=shape,
            axes=axes.input_axes(len(shape), fed_directly),
            vocabulary=getattr(layer, "input_dim", None) if fed_directly else None,
            integer=fed_directly and tensor.dtype.is_floating,
        )

    def predictions(self, class_names: Sequence[str] | None) -> tuple[OutputSpec, ...]:
        """Returns the model's own outputs."""
        specs = []
        for name, tensor, before in zip(
            self._source.output_names, self._trace.outputs, self._scores, strict=True
        ):
            shape = tuple(tensor.shape)
            classes = (before is not None or class_names is not None) and shape[-1:] != (1,)
            specs.append(
                OutputSpec(
                    name=name,
                    kind=manifest.PREDICTION,
                    dtype=tensor.dtype.name,
                    shape=shape,
                    axes=axes.prediction_axes(len(shape), classes),
                    detail={"activation": before is not None},
                )
            )
        return tuple(specs)

    # -- without gradients ---------------------------------------------------------------

    def plain(self, probe: Probe) -> list[PlainOutput]:
        """Returns the outputs of an `Activations` or `Attention` probe."""
        if isinstance(probe, Activations):
            return self._activations(probe)
        if isinstance(probe, Attention):
            return self._attention(probe)
        raise InstrumentError(f"{type(probe).__name__} cannot be compiled.")

    def _activations(self, probe: Activations) -> list[PlainOutput]:
        chosen = self._select(probe.select, "activation")
        tensors = [(p, j) for p in chosen for j in range(len(p.shapes))]
        return [
            PlainOutput(
                self._activation_spec(probe, point, j, len(tensors)),
                TensorRef(point.path, point.call_index, j),
                probe,
            )
            for point, j in tensors
        ]

    def _activation_spec(
        self, probe: Activations, point: ProbePoint, position: int, outputs: int
    ) -> OutputSpec:
        shape = point.shapes[position]
        part = f":{position}" if len(point.shapes) > 1 else ""
        names = axes.activation_axes(len(shape))
        if probe.channels is not None:
            shape = _subset(probe.channels, shape, point.name)
        reduced = reduced_axes(probe, len(shape), point.name)
        kept = [i for i in range(len(shape)) if i not in reduced]
        return OutputSpec(
            name=_output_name(probe, point.name + part, several=outputs > 1),
            kind=manifest.ACTIVATION,
            dtype=probe.dtype or point.dtypes[position],
            shape=tuple(shape[i] for i in kept),
            axes=tuple(names[i] for i in kept),
            layer=point.path,
            call=point.call_index,
            method=_activation_method(probe, [names[i] for i in reduced]),
            detail={
                "class": point.class_name,
                "role": point.roles[-1],
                "reduce": probe.reduce,
                "reduced_axes": [names[i] for i in reduced],
                "channels": list(probe.channels) if probe.channels else None,
            },
        )

    def _attention(self, probe: Attention) -> list[PlainOutput]:
        chosen = self._select(probe.select, "attention")
        outputs = []
        for point in chosen:
            weights = self._trace.weights[point.path, point.call_index]
            shape = tuple(weights.shape)
            outputs.append(
                PlainOutput(
                    OutputSpec(
                        name=_output_name(probe, point.name, several=len(chosen) > 1),
                        kind=manifest.ATTENTION,
                        dtype=probe.dtype or weights.dtype.name,
                        shape=shape,
                        axes=axes.attention_axes(len(shape)),
                        layer=point.path,
                        call=point.call_index,
                        method=METHODS[manifest.ATTENTION],
                        detail={"class": point.class_name},
                    ),
                    TensorRef(point.path, point.call_index),
                    probe,
                )
            )
        return outputs

    def _select(self, selector: Any, kind: str) -> list[ProbePoint]:
        """Returns the selected points that can be probed for `kind`."""
        chosen = select(self._points, selector, self._layers)
        able = [p for p in chosen if kind in p.probes]
        if able:
            return able
        named = ", ".join(f"{p.name!r} ({p.class_name})" for p in chosen[:5])
        reasons = sorted({p.reason for p in chosen if p.reason})
        others = [p.name for p in self._points if kind in p.probes]
        hint = (
            f" Layers that can: {', '.join(map(repr, others[:5]))}."
            if others
            else f" This model has no layer that can be probed for {kind}."
        )
        raise SelectionError(
            f"{selector!r} matches {named}, none of which can be probed for {kind}"
            + (f": {'; '.join(reasons)}." if reasons else ".")
            + hint
        )

    # -- targets -------------------------------------------------------------------------

    def target(self, probe: GradientProbe) -> TargetPlan:
        """Returns what a probe differentiates.

        Raises:
            InstrumentError: the target does not fit the model's outputs; says what would.
        """
        target = probe.target  # type: ignore[attr-defined]
        if callable(target):
            name = getattr(target, "__qualname__", type(target).__name__)
            described = TargetSpec("callable", logits=self._any_logits(probe), name=name)
            return TargetPlan(described, function=target)
        position = self._output_position(probe)
        tensor, before = self._trace.outputs[position], self._scores[position]
        name = self._source.output_names[position]
        if not tensor.dtype.is_floating:
            raise NotDifferentiableError(
                f"output {name!r} is {tensor.dtype.name}: there is nothing to differentiate. "
                f"{self._made_by(tensor)}Take a target before that operation: "
                "wrap the model so that it also returns the scores."
            )
        logits = probe.logits and before is not None
        shape = tuple(tensor.shape)
        classes = shape[-1] if len(shape) > 1 else None
        mode, index = target_index(target, shape, name)
        return TargetPlan(TargetSpec(mode, index, name, logits, classes), position)

    def _output_position(self, probe: GradientProbe) -> int:
        names = self._source.output_names
        wanted = probe.output
        if wanted is None:
            if len(names) > 1:
                raise InstrumentError(
                    f"the model has several outputs {list(names)}; say which one is explained, "
                    f"for instance pg.{type(probe).__name__}(output={names[0]!r})."
                )
            return 0
        if isinstance(wanted, int) and 0 <= wanted < len(names):
            return wanted
        if wanted in names:
            return names.index(str(wanted))
        raise InstrumentError(f"output= takes one of {list(names)} or its index, got {wanted!r}.")

    def _any_logits(self, probe: GradientProbe) -> bool:
        return probe.logits and any(before is not None for before in self._scores)

    def _made_by(self, tensor: Any) -> str:
        """Says which operation made an integer tensor out of a floating one."""
        op = tensor.op
        while op.type in ("Identity", "Cast") and not op.inputs[0].dtype.is_floating:
            op = op.inputs[0].op
        where = self._trace.layer_of(op)
        return f"It is made by {op.type}" + (f" in layer {where!r}. " if where else ". ")

    def _target_tensor(self, target: TargetPlan) -> Any:
        """Returns the tensor of this trace that a target is taken from."""
        if target.function is None:
            return score(self._trace.outputs[target.position], target.spec.logits)
        with self._trace.graph.as_default():
            return callable_value(target.function, self._trace.nest, target.spec.logits)

    # -- gradients -----------------------------------------------------------------------

    def gradients(self, probe: GradientProbe, target: TargetPlan) -> list[GradientOutput]:
        """Returns the outputs of a probe that differentiates."""
        if isinstance(probe, GradCAM):
            return [self._grad_cam(probe, target)]
        found = self._wrt(probe.wrt, target)  # type: ignore[attr-defined]
        return [
            GradientOutput(
                self._gradient_spec(probe, target, ref, name, several=len(found) > 1), ref, probe
            )
            for ref, name in found
        ]

    def _gradient_spec(
        self,
        probe: GradientProbe,
        target: TargetPlan,
        ref: TensorRef,
        name: str,
        several: bool,
    ) -> OutputSpec:
        tensor = self._tensor(ref)
        shape = tuple(tensor.shape)
        if ref.path is None:
            names = axes.input_axes(len(shape), tokens=False)
        else:
            layer = self._trace.call(ref.key).layer
            names = axes.gradient_axes(len(shape), role_of(layer))
        if isinstance(probe, Saliency) and len(shape) > 2:
            shape, names = shape[:-1], names[:-1]
        detail: dict[str, Any] = {}
        if isinstance(probe, IntegratedGradients):
            detail = {"steps": probe.steps, "baseline": probe.baseline}
        return OutputSpec(
            name=_output_name(probe, name, several),
            kind=probe.kind,
            dtype=tensor.dtype.name,
            shape=shape,
            axes=names,
            layer=ref.path,
            call=ref.call,
            input=name if name in self._source.input_names else None,
            target=target.spec,
            method=METHODS[probe.kind],
            detail=detail,
        )

    def _grad_cam(self, probe: GradCAM, target: TargetPlan) -> GradientOutput:
        end = self._target_tensor(target)
        if probe.layer == "auto":
            point = self._last_with_positions(end)
        else:
            point = select_one(self._points, probe.layer, self._layers, "pg.GradCAM(layer=...)")
            if len(point.shapes) != 1 or "grad_cam" not in point.probes:
                raise SelectionError(
                    f"{point.name!r} ({point.class_name}, output {point.shape}) cannot carry a "
                    "Grad-CAM: it needs one output with positions between batch and channel, "
                    f"such as {self._last_with_positions(end).name!r}."
                )
        ref = TensorRef(point.path, point.call_index)
        self._check_flow(ref, end, point.name)
        shape = point.shapes[0]
        explained = self._source.input_names[0] if len(self._source.input_names) == 1 else None
        described = OutputSpec(
            name=_output_name(probe, point.name, several=False),
            kind=probe.kind,
            dtype=point.dtype,
            shape=shape[:-1],
            axes=axes.activation_axes(len(shape))[:-1],
            layer=point.path,
            call=point.call_index,
            input=explained,
            target=target.spec,
            method=METHODS[probe.kind],
            detail={"class": point.class_name},
        )
        return GradientOutput(described, ref, probe)

    def _last_with_positions(self, end: Any) -> ProbePoint:
        """Returns the last layer with a map that a target depends on; 2-D and 3-D maps first."""
        roles = ("convolution", "normalisation", "activation", "merging", "other")
        able = [p for p in self._points if "grad_cam" in p.probes and p.roles[-1] in roles]
        for ranks in ((4, 5), (3,)):
            for point in reversed(able):
                ref = TensorRef(point.path, point.call_index)
                fits = len(point.shapes) == 1 and len(point.shapes[0]) in ranks
                if fits and self._flows(ref, end):
                    return point
        raise SelectionError(
            "this model has no layer that keeps positions up to the target, so layer='auto' finds "
            "nothing for a Grad-CAM; use pg.Saliency() or name a layer."
        )

    def _wrt(self, wrt: Any, target: TargetPlan) -> list[tuple[TensorRef, str]]:
        """Returns the tensors that `wrt` means, with the names their outputs go by."""
        end = self._target_tensor(target)
        if wrt == "input":
            return self._all_inputs(end)
        names = self._source.input_names
        parts = wrt if isinstance(wrt, list | tuple) else [wrt]
        found: dict[TensorRef, str] = {}
        for part in parts:
            if isinstance(part, str) and part in names:
                found[self._one_input(names.index(part), end)] = part
                continue
            for point in self._select(part, "gradient"):
                if point.role == "input":
                    found[self._one_input(names.index(point.path), end)] = point.path
                    continue
                ref = TensorRef(point.path, point.call_index)
                self._check_flow(ref, end, point.name)
                found[ref] = point.name
        return list(found.items())

    def _all_inputs(self, end: Any) -> list[tuple[TensorRef, str]]:
        found: list[tuple[TensorRef, str]] = []
        refusals: list[str] = []
        for position, name in enumerate(self._source.input_names):
            try:
                found.append((self._one_input(position, end), name))
            except NotDifferentiableError as error:
                refusals.append(str(error))
        if not found:
            raise NotDifferentiableError(" ".join(refusals))
        return found

    def _one_input(self, position: int, end: Any) -> TensorRef:
        """Returns an input, or the embedding that stands for it."""
        ref = TensorRef(None, position=position)
        if self._flows(ref, end):
            self._check_custom_gradients(ref, end)
            return ref
        embedding = self._embedding(position)
        if embedding is not None and self._flows(embedding, end):
            self._check_custom_gradients(embedding, end)
            return embedding
        name = self._source.input_names[position]
        tensor = self._trace.inputs[position]
        if embedding is None and not tensor.dtype.is_floating:
            raise NotDifferentiableError(
                f"input {name!r} is {tensor.dtype.name} and goes into no Embedding, so no gradient "
                "with respect to it exists; give wrt= a layer behind which values are floating."
            )
        start = embedding or ref
        raise NotDifferentiableError(self._why_blocked(start, end, f"input {name!r}"))

    def _embedding(self, position: int) -> TensorRef | None:
        """Returns the output of the first embedding on the way from an input."""
        start = self._trace.inputs[position]
        dependent = influenced_by(start, self._trace.graph)
        for call in self._trace.calls:
            if role_of(call.layer) != "embedding" or not call.outputs:
                continue
            out = call.outputs[0]
            if self._trace.visible(out) and out.dtype.is_floating and id(out) in dependent:
                return TensorRef(call.path, call.index)
        return None

    def _tensor(self, ref: TensorRef) -> Any:
        if ref.path is None:
            return self._trace.inputs[ref.position]
        return self._trace.call(ref.key).outputs[ref.position]

    def _flows(self, ref: TensorRef, end: Any) -> bool:
        start = self._tensor(ref)
        return start.dtype.is_floating and is_differentiable(self._trace, start, end)

    def _check_flow(self, ref: TensorRef, end: Any, name: str) -> None:
        if not self._flows(ref, end):
            raise NotDifferentiableError(self._why_blocked(ref, end, f"layer {name!r}"))
        self._check_custom_gradients(ref, end)

    def _why_blocked(self, ref: TensorRef, end: Any, what: str) -> str:
        start = self._tensor(ref)
        blocked = {
            (op.type, self._trace.layer_of(op))
            for op in blocking_operations(self._trace, start, end)
        }
        if not blocked:
            return f"the target does not depend on {what}: no gradient exists."
        shown = ", ".join(
            f"{kind} in layer {layer!r}" if layer else kind for kind, layer in sorted(blocked)
        )
        return (
            f"the target is not differentiable with respect to {what}: the gradient stops at "
            f"{shown}. Give wrt= a layer behind that operation, or a target before it."
        )

    def _check_custom_gradients(self, ref: TensorRef, end: Any) -> None:
        """Refuses gradients that user code has redefined: an exported graph cannot hold them."""
        for op in custom_gradients(self._trace, self._tensor(ref), end):
            raise NotDifferentiableError(
                f"layer {self._trace.layer_of(op)!r} redefines its gradient "
                "(custom_gradient), which no exported graph can carry; use the plain "
                "operations, or give wrt= a layer behind it."
            )

    # -- what the manifest keeps ---------------------------------------------------------

    def resolved(self, probe: Probe, outputs: Iterable[PlainOutput | GradientOutput]) -> Probe:
        """Returns a probe whose selectors are explicit paths, so that it can be written down."""
        points = {(p.path, p.call_index): p.name for p in self._points}
        paths = [points[o.ref.key] if o.ref.path else o.spec.input for o in outputs]
        paths = list(dict.fromkeys(paths))
        if isinstance(probe, Activations | Attention):
            return dataclasses.replace(probe, select=paths)
        if isinstance(probe, GradCAM):
            return dataclasses.replace(probe, layer=paths[0])
        if getattr(probe, "wrt", "input") == "input":
            return probe
        return dataclasses.replace(probe, wrt=paths)  # type: ignore[call-arg]


# -- small decisions ---------------------------------------------------------------------------


def reduced_axes(probe: Activations, rank: int, name: str) -> tuple[int, ...]:
    """Returns the axes that a probe reduces, as sorted positive indices.

    Raises:
        InstrumentError: the output has no such axis.
    """
    if probe.reduce is None:
        return ()
    chosen: tuple[int, ...] = (rank - 1,)
    if probe.axes == "spatial":
        chosen = tuple(range(1, rank - 1))
    elif isinstance(probe.axes, tuple):
        chosen = tuple(a + rank if a < 0 else a for a in probe.axes)
    if not chosen or any(not 0 < a < rank for a in chosen):
        raise InstrumentError(
            f"axes={probe.axes!r} does not fit the output of {name!r}, whose axes are "
            f"0 (batch) to {rank - 1}."
        )
    return tuple(sorted(set(chosen)))


def _subset(
    channels: tuple[int, ...], shape: tuple[int | None, ...], name: str
) -> tuple[int | None, ...]:
    size = shape[-1]
    wrong = [c for c in channels if c < 0 or (size is not None and c >= size)]
    if wrong:
        raise InstrumentError(
            f"channels={list(channels)}: {wrong} are out of range; {name!r} has {size} channels."
        )
    return (*shape[:-1], len(channels))


def _activation_method(probe: Activations, reduced: Sequence[str]) -> str:
    if not reduced:
        return "output of the layer"
    words = {"mean": "mean", "max": "maximum", "norm": "Euclidean norm"}
    return f"{words[str(probe.reduce)]} of the layer's output over {', '.join(reduced)}"


def _output_name(probe: Probe, path: str, several: bool) -> str:
    given = getattr(probe, "name", None)
    if given is None:
        return f"{probe.kind}/{path}"
    return f"{given}/{path}" if several else str(given)


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InstrumentError(
            f"several outputs are called {twice}; tell them apart with name=, for instance "
            "pg.Saliency(target=3, name='saliency_of_3')."
        )
    reserved = {manifest.TARGET_INPUT, manifest.GATE_INPUT} & set(names)
    if reserved:
        raise InstrumentError(f"the output name {reserved.pop()!r} is reserved; choose another.")


def _check_class_names(
    class_names: Sequence[str] | None, predictions: Sequence[OutputSpec]
) -> tuple[str, ...] | None:
    if class_names is None:
        return None
    names = tuple(str(n) for n in class_names)
    sizes = [p.shape[-1] for p in predictions if len(p.shape) > 1]
    if (
        sizes
        and None not in sizes
        and len(names) not in sizes
        and not (sizes == [1] and len(names) == 2)
    ):
        raise InstrumentError(
            f"class_names has {len(names)} names; the model's outputs have {sizes} classes."
        )
    return names


def _portable(probe: Probe) -> dict[str, Any]:
    """Returns a probe's text form; a callable target is written as its name, unreadable."""
    target = getattr(probe, "target", None)
    if callable(target):
        plain = to_dict(dataclasses.replace(probe, target="argmax"))  # type: ignore[call-arg]
        return {**plain, "target": {"callable": getattr(target, "__qualname__", "callable")}}
    return to_dict(probe)
