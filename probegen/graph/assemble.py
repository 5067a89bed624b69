"""A plan as a finished ONNX model: forward, differentiated, cleaned, gated, named, checked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir as ir

from probegen.artefact import answers, manifest
from probegen.artefact.answers import Answers
from probegen.artefact.manifest import CLASSES, Gate, InputSpec, Manifest, OutputSpec
from probegen.artefact.rows import BATCH
from probegen.artefact.stored_arrays import shortened
from probegen.errors import ExportError, NotDifferentiableError, UnsupportedOpsError
from probegen.graph.array_operations import OnnxOperations
from probegen.graph.attribution import Explained, write_attributions
from probegen.graph.attribution.by_scores import Tensor
from probegen.graph.attribution.completeness import Missing
from probegen.graph.autodiff import obstacles
from probegen.graph.batch_axes import node_that_joins
from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import constants_of, key_of, where_axes_are_lost
from probegen.graph.core.values import UnknownShapeError, dims_of, dtype_of
from probegen.graph.forward import ForwardGraph, open_size
from probegen.graph.gate import add_gate
from probegen.graph.passes import clean, prepare
from probegen.graph.passes.after.drop_plain_shapes import drop_plain_shapes
from probegen.graph.passes.before.name_open_sizes import name_open_sizes
from probegen.graph.vjp import BLOCKING
from probegen.graph.whole_numbers import read_own_floats
from probegen.methods.by_scores import ByScores
from probegen.plan.completeness import Residual, residuals_of
from probegen.plan.plan import GradientGroup, Plan, TargetPlan, moved_together

#: The operator set of artefacts where none is asked for.
DEFAULT_OPSET = 18

#: Gives the forward graph of a plan in an opset, with a fixed batch size or an open one.
Lower = Callable[[Plan, int, int | None], ForwardGraph]

#: What to do where an operator stops a gradient, or where we have no gradient of it.
_BEHIND = "Give wrt= (or layer=) a layer behind it."


def onnx_model(
    plan: Plan, lower: Lower, *, gate: Gate, opset: int, batch: int | None
) -> tuple[ir.Model, Manifest, str]:
    """Returns the ONNX model of a plan, its manifest inside, the manifest, and what `joined` says.

    Inputs are the model's own, then `target`, `region` and `groups` where a probe takes them from
    the request, then `explain` with a gate. Outputs are those of the manifest, by name and in
    order.

    Args:
        plan: what to compute.
        lower: gives the forward graph.
        gate: put what only explanations need behind an `If`, whose input is required or
            optional; False leaves the gate out.
        opset: ONNX operator set.
        batch: a fixed batch size, or None for a dynamic one.

    Raises:
        UnsupportedOpsError: an operation has no ONNX form or no gradient; lists each with the
            layer it came from.
        ExportError: the conversion failed, or the result is not valid ONNX.
    """
    if not plan.manifest.explanations:
        gate = False
    if gate and manifest.GATE_INPUT in [i.name for i in plan.manifest.inputs]:
        raise ExportError(
            f"the model has an input called {manifest.GATE_INPUT!r}, which the gate needs for "
            "itself; rename the model's input, or pass gate=False (--no-gate)."
        )
    forward = lower(plan, opset, batch)
    for spec, value in zip(plan.manifest.predictions, forward.predictions, strict=True):
        if value.shape is None:
            raise ExportError(
                f"how many axes output {spec.name!r} has is not known, and an ONNX file has to say "
                f"it: {where_axes_are_lost(forward.graph, value)}."
            )
    try:
        request = prepared(plan, forward, batch)
        said = joined(plan, forward)
        samples = samples_to_fold(plan, forward, batch, said)
        values = explained(plan, forward, request, samples)
    except UnknownShapeError as error:
        where = forward.layer_of(error.node)
        raise ExportError(
            f"{error}{f', in layer {where!r}' if where else ''}: the conversion lost it. Give the "
            "model's inputs fixed sizes"
            + (f", or {forward.elsewhere}." if forward.elsewhere else ".")
        ) from error
    explanations = [values[o.name] for o in plan.manifest.explanations]
    finish(forward.model, forward.predictions, explanations, gate)
    name_outputs(forward.graph, [o.name for o in plan.manifest.outputs])
    drop_plain_shapes(forward.model)
    described = plan.manifest.with_batch(batch).replace(
        gate=gate, probes=shortened(plan.manifest.probes, constants_of(forward.model))
    )
    forward.model.producer_name = "probegen"
    forward.model.producer_version = plan.manifest.producer.get("probegen", "")
    forward.graph.name = plan.manifest.model.get("name", "model")
    write_manifest(forward.model, described)
    return forward.model, described, said


def explained(
    plan: Plan, forward: ForwardGraph, request: Request, samples: Mapping[ir.Value, int]
) -> dict[str, ir.Value]:
    """Writes everything that a plan asks for into its forward graph; returns it by output name.

    Args:
        plan: what to compute.
        forward: the forward pass.
        request: what `prepared` returned.
        samples: what `samples_to_fold` returned.

    Raises:
        UnsupportedOpsError, NotDifferentiableError: see `explain_group`.
    """
    builder = Builder(forward.graph, forward.opset)
    values = {o.spec.name: v for o, v in zip(plan.plain, forward.plain, strict=True)}
    for group, target in zip(plan.groups, forward.targets, strict=True):
        values.update(explain_group(builder, forward, group, target, request, samples))
    ops = OnnxOperations(builder)
    for chain in plan.chains:
        values.update(chain.made_of(ops, values))
        name = chain.spec.name
        values[name] = builder.cast(values[name], _dtype_of(chain.spec))
    found = {o.name: values[o.name] for o in plan.manifest.explanations if o.name in values}
    for name, write in forward.afterwards.items():
        if name in found:
            found[name] = write(builder, found[name])
    builder.attach()
    return found


def _dtype_of(spec: OutputSpec) -> ir.DataType:
    return ir.DataType.from_numpy(np.dtype(spec.dtype))


@dataclasses.dataclass(frozen=True)
class Request:
    """The inputs of a graph that are the request's and not the model's, None where it has none.

    Attributes:
        target: which class is explained, int32 `[batch]`.
        region: what positions of the scores count, float32 `[batch, ...positions]`.
        groups: which group each position belongs to, int32 `[batch, ...positions]`.
    """

    target: ir.Value | None = None
    region: ir.Value | None = None
    groups: ir.Value | None = None


def prepared(plan: Plan, forward: ForwardGraph, batch: int | None) -> Request:
    """Brings a forward graph into the form that is differentiated; returns its further inputs."""
    prepare(forward.model, keep_layers=any(g.table and g.table.by_layers for g in plan.groups))
    return Request(
        _add_target_input(forward, plan.manifest, batch),
        _add_input(forward, plan.manifest.region_input, ir.DataType.FLOAT, batch),
        _add_input(forward, plan.manifest.groups_input, ir.DataType.INT32, batch),
    )


def joined_in_forward_graph(plan: Plan, lower: Lower, batch: int | None) -> str:
    """Returns what `joined` says of a plan that is written in another form than ONNX.

    Args:
        plan: what is computed.
        lower: gives the forward graph; placeholders for its weights will do.
        batch: a fixed batch size, or None for a dynamic one.
    """
    if batch == 1 or not plan.groups:
        return ""
    try:
        forward = lower(plan, DEFAULT_OPSET, batch)
    except Exception:  # what has no ONNX form is not looked at
        return ""
    name_open_sizes(forward.model)
    return joined(plan, forward)


def joined(plan: Plan, forward: ForwardGraph) -> str:
    """Says what makes explanations of a sample depend on the others of its batch; `""` if nothing.

    Args:
        plan: what is computed.
        forward: its open sizes have one name each.
    """
    several = {v: at for v, at in _sample_axes(plan, forward).items() if dims_of(v)[at] != 1}
    node = node_that_joins(forward.graph, several, forward.targets)
    if node is None:
        return ""
    where = forward.layer_of(node.name or "")
    return (
        f"{node.op_type}{f' in layer {where!r}' if where else f' {node.name!r}'} works on all "
        "samples of a batch together: where that reaches a score, what explains one of them "
        "depends on the others. Compile the model for one sample at a time with "
        "dynamic_batch=False (--static-batch), or let it treat each sample by itself."
    )


def _sample_axes(plan: Plan, forward: ForwardGraph) -> dict[ir.Value, int]:
    """Returns the inputs that hold samples -> the axis of the samples."""
    given = {value.name: value for value in forward.graph.inputs}
    return {given[i.name]: i.axes.index(BATCH) for i in plan.manifest.inputs if BATCH in i.axes}


def samples_to_fold(
    plan: Plan, forward: ForwardGraph, batch: int | None, said: str = ""
) -> dict[ir.Value, int]:
    """Returns the inputs along whose samples points of one may lie -> the axis of the samples.

    Nothing where the number of samples is fixed in the graph or in an input.

    Args:
        plan: what to compute.
        forward: the forward pass.
        batch: the number of samples that the graph is written for, None for any.
        said: what `joined` says: what joins samples would join the points of one as well.
    """
    found = _sample_axes(plan, forward)
    fixed = any(isinstance(dims_of(value)[at], int) for value, at in found.items())
    return {} if said or batch is not None or fixed else found


def explain_group(
    builder: Builder,
    forward: ForwardGraph,
    group: GradientGroup,
    target: ir.Value,
    request: Request,
    samples: Mapping[ir.Value, int],
) -> dict[str, ir.Value]:
    """Writes the outputs of a group, with one backward pass; returns them by name.

    Args:
        builder: where the nodes go.
        forward: the forward pass.
        group: the group.
        target: what its target is taken from.
        request: what `prepared` returned.
        samples: what `samples_to_fold` returned.

    Raises:
        UnsupportedOpsError: an operator has no gradient; lists each with its layers.
        NotDifferentiableError: no gradient flows from the target to a tensor; lists what stops
            it, with its layers.
    """
    numbers = {id(o): i for i, moved in enumerate(moved_together(group)) for o in moved}
    wanted = [
        Explained(
            o.spec.name,
            forward.sources[o.ref],
            o.probe,
            o.axes,
            together=numbers.get(id(o), 0),
            place=o.place,
            moved=tuple(Tensor(forward.sources[ref], axes) for ref, axes in o.moves),
            groups=request.groups
            if isinstance(o.probe, ByScores) and o.probe.takes_groups
            else None,
            classes_at=o.classes_at,
            classes=next(iter(o.beside_of(CLASSES)), None),
            padded=o.padded(forward.sources.__getitem__),
            sized=o.sized(forward.sources.__getitem__),
            value=forward.sources[o.value],
        )
        for o in group.outputs
    ]
    missing = [_missing(forward, residual) for residual in residuals_of(group)]
    try:
        return write_attributions(
            builder,
            group.target.spec,
            target,
            wanted,
            request.target,
            group.table,
            samples,
            missing,
            _weights(builder, group.target, target, request),
        )
    except UnsupportedOpsError as error:
        raise UnsupportedOpsError(
            "the gradient has to pass ONNX operators that it cannot pass:",
            [
                dataclasses.replace(
                    r.in_layers(forward.layer_of),
                    advice=_advice(forward) if group.table is None else _BEHIND,
                )
                for r in error.refusals
            ],
        ) from error
    except NotDifferentiableError as error:
        stopped = obstacles(forward.graph, [w.at for w in wanted], [target], BLOCKING)
        located = [
            dataclasses.replace(r.in_layers(forward.layer_of), advice=_BEHIND) for r in stopped
        ]
        raise NotDifferentiableError(str(error), located) from error


def _weights(
    builder: Builder, target: TargetPlan, scores: ir.Value, request: Request
) -> ir.Value | None:
    """Returns what positions of scores count, so that it goes with these; None without a region."""
    if not target.spec.region or request.region is None:
        return None
    region = builder.cast(request.region, dtype_of(scores))
    return region if target.class_axis is None else builder.unsqueeze(region, [target.class_axis])


def _missing(forward: ForwardGraph, residual: Residual) -> Missing:
    gained = residual.gained
    return Missing(
        residual.names,
        {o.spec.name: o.axes_of_one for o in residual.outputs},
        residual.probe,
        Tensor(forward.sources[gained.ref], gained.axes),
        tuple(Tensor(forward.sources[ref], axes) for ref, axes in gained.moves),
        gained.spec.dtype == "float64",
    )


def _advice(forward: ForwardGraph) -> str:
    return f"{_BEHIND.rstrip('.')}, or {forward.elsewhere}." if forward.elsewhere else _BEHIND


def write_manifest(model: ir.Model, described: Manifest, kept: Answers | None = None) -> None:
    """Puts the manifest into the model's metadata, and answers that the artefact keeps."""
    model.metadata_props[manifest.ONNX_METADATA_KEY] = described.to_json()
    if kept is not None:
        model.metadata_props[answers.METADATA_KEY] = kept.to_text()


def check(path: str) -> None:
    """Checks a written file with onnx's own checker.

    Raises:
        ExportError: the file is not valid ONNX; that is a fault of probegen.
    """
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the exported graph is not valid ONNX: {error}") from error


def _add_target_input(
    forward: ForwardGraph, described: Manifest, batch: int | None
) -> ir.Value | None:
    """Gives the graph the input `target` where a probe wants one, and returns it."""
    if not described.target_input:
        return None
    value = ir.Value(
        name=manifest.TARGET_INPUT,
        shape=ir.Shape([batch or "batch"]),
        type=ir.TensorType(ir.DataType.INT32),
    )
    forward.graph.inputs.append(value)
    return value


def _add_input(
    forward: ForwardGraph, spec: InputSpec | None, dtype: ir.DataType, batch: int | None
) -> ir.Value | None:
    """Gives the graph an input that probes want, and returns it; None where none does."""
    if spec is None:
        return None
    sizes: list[int | str] = [
        batch or "batch"
        if size is None and i == 0
        else open_size(spec.name, i)
        if size is None
        else size
        for i, size in enumerate(spec.shape)
    ]
    value = ir.Value(name=spec.name, shape=ir.Shape(sizes), type=ir.TensorType(dtype))
    forward.graph.inputs.append(value)
    return value


def finish(
    model: ir.Model,
    predictions: Sequence[ir.Value],
    explanations: Sequence[ir.Value],
    gate: Gate,
) -> None:
    """Makes the wanted values the graph's outputs, cleans up, and puts in the gate."""
    graph = model.graph
    graph.outputs[:] = [*predictions, *explanations]
    clean(model)
    count = len(predictions)
    _give_out_inputs(graph, count)
    read_own_floats(graph, list(graph.outputs)[:count])
    if gate:
        outputs = list(graph.outputs)
        opset = graph.opset_imports[""]
        through = {v for v in outputs[:count] if v.is_graph_input()}
        made = [v for v in outputs[:count] if v not in through]
        gated = iter(add_gate(graph, opset, made, outputs[count:], gate=gate))
        graph.outputs.extend(v if v in through else next(gated) for v in outputs[:count])
        graph.outputs.extend(gated)


def _give_out_inputs(graph: ir.Graph, count: int) -> None:
    """Puts an input itself in the place of its copy among the first outputs: they may share a name.

    Leaves: copies that something else reads as well.
    """
    for position, value in enumerate(list(graph.outputs)[:count]):
        node = value.producer()
        if node is None or key_of(node) != "Identity" or value.uses():
            continue
        given = node.inputs[0]
        if given is not None and given.is_graph_input() and [*graph.outputs].count(value) == 1:
            graph.outputs[position] = given
            graph.remove(node, safe=True)


def name_outputs(graph: ir.Graph, names: Sequence[str]) -> None:
    """Gives the outputs their names; each becomes a value of its own that a node produces.

    But for an input that the source gives out by its own name: it stays one value with one name.
    """
    taken = {v.name: v for v in graph.inputs}
    taken.update((v.name, v) for v in graph.initializers.values())
    for node in graph.all_nodes():
        taken.update((v.name, v) for v in node.outputs)
    seen: set[ir.Value] = set()
    for position, name in enumerate(names):
        value = graph.outputs[position]
        if value.name == name and value.is_graph_input():
            continue
        if value.producer() is None or value in seen:
            copy = ir.node("Identity", [value])
            copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
            graph.append(copy)
            value = graph.outputs[position] = copy.outputs[0]
        seen.add(value)
        other = taken.get(name)
        if other is not None and other is not value:
            if other in graph.inputs:
                raise ExportError(
                    f"{name!r} is the name of an input and of an output, which ONNX does not "
                    "allow; rename one of them (name= of a probe, or the model's layer), or "
                    "export to SavedModel."
                )
            other.name = f"{name}__inner"
        value.name = name
