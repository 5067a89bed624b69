"""Planning of outputs that are made of gradients: targets, and what they are differentiated by."""

from __future__ import annotations

from typing import Any

from probegen.errors import InstrumentError, NotDifferentiableError, SelectionError
from probegen.instrumentation import axes
from probegen.instrumentation.capture import Watcher, watching
from probegen.instrumentation.plan import GradientOutput, TargetPlan, TensorRef
from probegen.instrumentation.planning.context import Context, output_name
from probegen.instrumentation.planning.methods import METHODS
from probegen.instrumentation.randomness import drawn
from probegen.instrumentation.roles import role_of
from probegen.instrumentation.targets import callable_value, score, target_index
from probegen.instrumentation.trace import blocking_operations, custom_gradients, is_differentiable
from probegen.manifest import OutputSpec, TargetSpec
from probegen.points import ProbePoint
from probegen.select import select_one
from probegen.spec import GradCAM, GradientProbe, IntegratedGradients, Saliency


class GradientPlanner:
    """Plans the outputs of probes that differentiate."""

    def __init__(self, context: Context) -> None:
        self._context = context

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
        tensor, before = self._context.trace.outputs[position], self._context.scores[position]
        name = self._context.source.output_names[position]
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
        names = self._context.source.output_names
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
        return probe.logits and any(before is not None for before in self._context.scores)

    def _made_by(self, tensor: Any) -> str:
        """Says which operation made an integer tensor out of a floating one."""
        op = tensor.op
        while op.type in ("Identity", "Cast") and not op.inputs[0].dtype.is_floating:
            op = op.inputs[0].op
        where = self._context.trace.layer_of(op)
        return f"It is made by {op.type}" + (f" in layer {where!r}. " if where else ". ")

    def _target_tensor(self, target: TargetPlan) -> Any:
        """Returns the tensor of this trace that a target is taken from."""
        if target.function is None:
            return score(self._context.trace.outputs[target.position], target.spec.logits)
        trace = self._context.trace
        with trace.graph.as_default(), watching(Watcher(trace.source.model)):
            value = callable_value(target.function, trace.nest, target.spec.logits)
        self._context.refuse_draw(value, f"the target {target.spec.name}", drawn(trace.graph))
        return value

    # -- what is differentiated by -------------------------------------------------------

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
        tensor = self._context.tensor(ref)
        shape = tuple(tensor.shape)
        if ref.path is None:
            names = axes.input_axes(len(shape), tokens=False)
        else:
            layer = self._context.trace.call(ref.key).layer
            names = axes.gradient_axes(len(shape), role_of(layer))
        if isinstance(probe, Saliency) and len(shape) > 2:
            shape, names = shape[:-1], names[:-1]
        detail: dict[str, Any] = {}
        if isinstance(probe, IntegratedGradients):
            detail = {"steps": probe.steps, "baseline": probe.baseline}
        return OutputSpec(
            name=output_name(probe, name, several),
            kind=probe.kind,
            dtype=tensor.dtype.name,
            shape=shape,
            axes=names,
            layer=ref.path,
            call=ref.call,
            input=name if name in self._context.source.input_names else None,
            target=target.spec,
            method=METHODS[probe.kind],
            detail=detail,
        )

    def _grad_cam(self, probe: GradCAM, target: TargetPlan) -> GradientOutput:
        end = self._target_tensor(target)
        if probe.layer == "auto":
            point = self._last_with_positions(end)
        else:
            point = select_one(
                self._context.points, probe.layer, self._context.layers, "pg.GradCAM(layer=...)"
            )
            if len(point.shapes) != 1 or "grad_cam" not in point.probes:
                self._context.check_draws([point])
                raise SelectionError(
                    f"{point.name!r} ({point.class_name}, output {point.shape}) cannot carry a "
                    "Grad-CAM: it needs one output with positions between batch and channel, "
                    f"such as {self._last_with_positions(end).name!r}."
                )
        ref = TensorRef(point.path, point.call_index)
        self._check_flow(ref, end, point.name)
        shape = point.shapes[0]
        explained = (
            self._context.source.input_names[0]
            if len(self._context.source.input_names) == 1
            else None
        )
        described = OutputSpec(
            name=output_name(probe, point.name, several=False),
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
        able = [p for p in self._context.points if "grad_cam" in p.probes]
        for ranks, kinds in (((4, 5), (*roles, "recurrent")), ((3,), roles)):
            for point in reversed([p for p in able if p.roles[-1] in kinds]):
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
        names = self._context.source.input_names
        parts = wrt if isinstance(wrt, list | tuple) else [wrt]
        found: dict[TensorRef, str] = {}
        for part in parts:
            if isinstance(part, str) and part in names:
                found[self._one_input(names.index(part), end)] = part
                continue
            for point in self._context.select(part, "gradient"):
                if point.role == "input":
                    found[self._one_input(names.index(point.path), end)] = point.path
                    continue
                ref = TensorRef(point.path, point.call_index)
                self._check_flow(ref, end, point.name)
                found[ref] = point.name
        if not found:
            raise SelectionError("wrt= is an empty list; leave it out for the model's inputs.")
        return list(found.items())

    def _all_inputs(self, end: Any) -> list[tuple[TensorRef, str]]:
        """Returns every input that a gradient reaches; the others do not matter to the target."""
        found = []
        for position, name in enumerate(self._context.source.input_names):
            ref = self._reachable(position, end)
            if ref is not None:
                self._check_custom_gradients(ref, end)
                found.append((ref, name))
        if not found:
            names = self._context.source.input_names
            reasons = [self._why_no_input(i, end) for i in range(len(names))]
            raise NotDifferentiableError(" ".join(reasons))
        return found

    def _one_input(self, position: int, end: Any) -> TensorRef:
        """Returns an input, or the embedding that stands for it.

        Raises:
            NotDifferentiableError: no gradient reaches either; says where it stops.
        """
        ref = self._reachable(position, end)
        if ref is None:
            raise NotDifferentiableError(self._why_no_input(position, end))
        self._check_custom_gradients(ref, end)
        return ref

    def _reachable(self, position: int, end: Any) -> TensorRef | None:
        """Returns an input that a gradient reaches, or the embedding on its way, or None."""
        for ref in (TensorRef(None, position=position), self._context.embedding(position)):
            if ref is not None and self._flows(ref, end):
                return ref
        return None

    def _why_no_input(self, position: int, end: Any) -> str:
        name = self._context.source.input_names[position]
        tensor = self._context.trace.inputs[position]
        embedding = self._context.embedding(position)
        if embedding is None and not tensor.dtype.is_floating:
            return (
                f"input {name!r} is {tensor.dtype.name} and goes into no Embedding, so no gradient "
                "with respect to it exists; give wrt= a layer behind which values are floating."
            )
        start = embedding or TensorRef(None, position=position)
        return self._why_blocked(start, end, f"input {name!r}")

    def _flows(self, ref: TensorRef, end: Any) -> bool:
        start = self._context.tensor(ref)
        return start.dtype.is_floating and is_differentiable(self._context.trace, start, end)

    def _check_flow(self, ref: TensorRef, end: Any, name: str) -> None:
        if not self._flows(ref, end):
            raise NotDifferentiableError(self._why_blocked(ref, end, f"layer {name!r}"))
        self._check_custom_gradients(ref, end)

    def _why_blocked(self, ref: TensorRef, end: Any, what: str) -> str:
        start = self._context.tensor(ref)
        blocked = {
            (op.type, self._context.trace.layer_of(op))
            for op in blocking_operations(self._context.trace, start, end)
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
        for op in custom_gradients(self._context.trace, self._context.tensor(ref), end):
            raise NotDifferentiableError(
                f"layer {self._context.trace.layer_of(op)!r} redefines its gradient "
                "(custom_gradient), which no exported graph can carry; use the plain "
                "operations, or give wrt= a layer behind it."
            )
