"""The probe points of a traced model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from probegen.plan import axes
from probegen.plan.points import ProbePoint, ProbePoints, not_itself
from probegen.sources.keras.layer_calls import LayerCall, OverSteps
from probegen.sources.keras.logits import pre_activation
from probegen.sources.keras.positions import follow_graph
from probegen.sources.keras.recurrence import Recurrence
from probegen.sources.keras.roles import role_of
from probegen.sources.keras.trace import (
    Trace,
    influenced_by,
    joins_with_first,
    reached_by_gradient,
)


def probe_points(trace: Trace) -> ProbePoints:
    """Returns every call of every layer, inputs first, in the order of the calls."""
    model = trace.source.model
    scores = [pre_activation(t) for t in trace.outputs]
    ends = [*trace.outputs, *(s for s in scores if s is not None)]
    reached = reached_by_gradient(trace, ends)
    outputs = {id(t) for t in trace.outputs}
    over_steps = list(trace.watched.over_steps.values())
    given_out = [over.call for over in over_steps if over.call.outputs]
    counts: dict[str, int] = {}
    for call in [*(call for call in trace.calls if not call.in_loop), *given_out]:
        counts[call.path] = counts.get(call.path, 0) + 1
    points = _input_points(trace, reached)
    steps: set[str] = set()
    for call in _with_those_between(trace):
        if not call.layer_is_around:
            points.append(_between_layers(trace, call, outputs))
        elif not call.in_loop:
            points.append(_point(trace, call, counts[call.path], reached, outputs))
        elif call.path not in steps:  # how often a loop's step is traced is Keras's own affair
            steps.add(call.path)
            inside = [over for over in over_steps if over.call.path == call.path]
            leaving = [over for over in inside if over.call.outputs]
            points += [_point_over_steps(trace, o, counts[call.path], reached) for o in leaving]
            if not leaving:
                reason = next((over.reason for over in inside), _why_inside(trace, call))
                points.append(_point_inside(call, counts.get(call.path, 1), reason))
    return ProbePoints(_calls_in_order(points), model.name)


def _with_those_between(trace: Trace) -> list[LayerCall]:
    """Returns the calls of layers, and where these are what stands for operations between them."""
    found = list(trace.calls)
    for between in trace.attention.outside:
        behind = (
            i
            for i, call in enumerate(found)
            if call.first_op >= between.last_op and any(map(trace.visible, call.outputs))
        )
        found.insert(next(behind, len(found)), between)
    return found


def _calls_in_order(points: Sequence[ProbePoint]) -> list[ProbePoint]:
    """Returns points with the calls of each layer in the order of their numbers."""
    calls: dict[str, list[ProbePoint]] = {}
    for point in points:
        calls.setdefault(point.path, []).append(point)
    turns = {path: iter(sorted(p, key=lambda p: p.call_index)) for path, p in calls.items()}
    return [next(turns[point.path]) for point in points]


def layers_in_order(model: Any) -> list[Any]:
    """Returns the model's own list of layers, which an index selector counts in."""
    return list(model.layers)


def _input_points(trace: Trace, reached: set[int]) -> list[ProbePoint]:
    source = trace.source
    named = {layer.name: layer for layer in source.model.layers if role_of(layer) == "input"}
    return [
        ProbePoint(
            path=name,
            class_name="InputLayer",
            roles=("input",),
            shapes=(tuple(tensor.shape),),
            dtypes=(tensor.dtype.name,),
            probes=("gradient",) if id(tensor) in reached and _is_float(tensor) else (),
            reason="" if _is_float(tensor) else not_itself(tensor.dtype.name),
            layer=named.get(name),
        )
        for name, tensor in zip(source.input_names, trace.inputs, strict=True)
    ]


def _point_over_steps(trace: Trace, over: OverSteps, calls: int, reached: set[int]) -> ProbePoint:
    """Returns the point of a layer that a recurrent layer's loop calls in each of its steps."""
    call, whole = over.call, over.loop.path
    first, probes = call.outputs[0], ["activation"]
    reason = f"inside the steps of {whole!r}, over time"
    windows = _beside_batch(over)
    if windows:
        probes = []
        reason = f"inside the steps of {whole!r}, which join samples with others along an axis"
    elif over.step.is_cell:
        reason += f"; a gradient is taken at its states (wrt='states:{whole}')"
    elif not _is_float(first) or not _goes_on(trace, over, reached):
        reason += "; no gradient reaches it"
    else:
        probes += ["gradient", *(["grad_cam"] if _is_map(trace, first) else [])]
    return ProbePoint(
        path=call.path,
        class_name=type(call.layer).__name__,
        roles=(role_of(call.layer),),
        shapes=tuple(_shape(t) for t in call.outputs),
        dtypes=tuple(t.dtype.name for t in call.outputs),
        call_index=call.index,
        calls=calls,
        probes=tuple(probes),
        reason=reason,
        loop=whole,
        layer=call.layer,
    )


def _goes_on(trace: Trace, over: OverSteps, reached: set[int]) -> bool:
    """Tells whether a gradient flows back to the first output of a layer in the steps of a loop."""
    step = over.step.outputs[0]
    if step.graph is trace.graph:  # a loop that is written one step behind the other
        return id(step) in reached
    if not any(id(tensor) in reached for tensor in over.around.outputs):
        return False
    behind = influenced_by(step, step.graph, differentiably=True)
    return any(id(tensor) in behind for tensor in over.leaving)


def _beside_batch(over: OverSteps) -> tuple[int, ...]:
    """Returns the sizes of what a layer's output joins with the samples in each step, if any."""
    graph = over.step.outputs[0].graph
    rows = [(t, 0, None) for t in over.cell_inputs if t.graph is graph and t.shape.rank]
    if not any(map(joins_with_first, graph.get_operations())):
        return ()
    positions = follow_graph(graph, rows, {}, told_sizes=True)
    each = (positions.beside_batch(id(t)) for t in over.step.outputs if t.shape[0] is None)
    return next((tuple(sizes) for sizes in each if sizes), ())


def _point_inside(call: LayerCall, calls: int, reason: str) -> ProbePoint:
    """Returns the point of a layer whose values do not leave the loop that they are made in."""
    tensors = [t for t in call.outputs if hasattr(t, "shape")]
    return ProbePoint(
        path=call.path,
        class_name=type(call.layer).__name__,
        roles=(role_of(call.layer),),
        shapes=tuple(_shape(t) for t in tensors),
        dtypes=tuple(t.dtype.name for t in tensors),
        call_index=call.index,
        calls=calls,
        reason=reason,
        layer=call.layer,
    )


def _why_inside(trace: Trace, call: LayerCall) -> str:
    """Says why what a layer gives inside a loop or branch cannot be probed, and what can."""
    if call.step_of:
        whole = call.step_of
        return f"one step of {whole}; probe that layer, or its states (wrt='states:{whole}')"
    reason = "runs inside a loop or branch: its values do not leave it"
    around = _around(trace, call)
    return f"{reason}; probe {around!r}, which holds it" if around else reason


def _point(
    trace: Trace, call: LayerCall, calls: int, reached: set[int], outputs: set[int]
) -> ProbePoint:
    tensors = [t for t in call.outputs if hasattr(t, "shape")]
    role = role_of(call.layer)
    weighs = (call.path, call.index) in trace.attention.weights
    roles: tuple[str, ...] = (role,)
    if weighs and role != "attention":
        roles = ("attention",) if role == "other" else (role, "attention")
    if any(id(t) in outputs for t in tensors):
        roles = ("output", *roles)
    probes, reason = _probes(trace, call, tensors, reached, weighs)
    return ProbePoint(
        path=call.path,
        class_name=type(call.layer).__name__,
        roles=roles,
        shapes=tuple(_shape_given_out(trace, t) for t in tensors),
        dtypes=tuple(t.dtype.name for t in tensors),
        call_index=call.index,
        calls=calls,
        probes=tuple(probes),
        reason=reason,
        layer=call.layer,
    )


def _probes(
    trace: Trace, call: LayerCall, tensors: Sequence[Any], reached: set[int], weighs: bool
) -> tuple[list[str], str]:
    """Returns what a layer call can be probed for, and why not for more."""
    visible = bool(tensors) and all(trace.visible(t) for t in tensors)
    probes: list[str] = []
    reason = ""
    draw = next((trace.random[id(t)] for t in tensors if id(t) in trace.random), None)
    if draw is not None:
        reason = f"drawn at random, by {trace.drawn_by(draw)}"
    elif visible and not all(_has_samples(trace, t) for t in tensors):
        reason = "the same for all samples: its output has no axis of them"
    elif visible and any(id(t) in trace.windows for t in tensors):
        probes += ["activation", *(["attention"] if weighs else [])]
        reason = "along its first axis samples are joined with windows, frames or the like"
    elif visible:
        probes.append("activation")
        differentiable = id(tensors[0]) in reached and _is_float(tensors[0])
        if differentiable:
            probes.append("gradient")
        else:
            reason = "no gradient reaches it"
        if differentiable and _is_map(trace, tensors[0]):
            probes.append("grad_cam")
        if weighs:
            probes.append("attention")
        if recurrences_at(trace, call):
            probes.append("states")
    else:
        reason = _why_inside(trace, call)
    return probes, reason


def _around(trace: Trace, call: LayerCall) -> str:
    """Returns the path of the innermost layer around a call whose values can be seen."""
    calls = [c for c in trace.calls if not c.in_loop]
    seen = {c.path for c in calls if c.outputs and all(map(trace.visible, c.outputs))}
    path = call.path
    while "/" in path:
        path = path.rpartition("/")[0]
        if path in seen:
            return path
    return ""


def recurrences_at(trace: Trace, call: LayerCall) -> list[tuple[LayerCall, Recurrence]]:
    """Returns the loops that a layer call is made of: its own, or those of layers that it wraps."""
    wraps = isinstance(call.layer, keras.layers.Bidirectional | keras.layers.TimeDistributed)
    inside = [call]
    if wraps:
        inside += [
            c
            for c in trace.calls
            if call.first_op <= c.first_op
            and c.last_op <= call.last_op
            and isinstance(c.layer, keras.layers.RNN)
        ]
    return [
        (c, r)
        for c in inside
        for r in c.recurrences
        if not c.step_of and trace.visible(r.sequences)
    ]


def _between_layers(trace: Trace, call: LayerCall, outputs: set[int]) -> ProbePoint:
    """Returns the point of attention weights that no layer is around."""
    found = [c for c in trace.attention.outside if c.path == call.path]
    role = ("output",) if any(id(t) in outputs for t in call.outputs) else ()
    return ProbePoint(
        path=call.path,
        class_name="Softmax" if call.layer is None else type(call.layer).__name__,
        roles=(*role, "attention"),
        shapes=tuple(_shape(t) for t in call.outputs),
        dtypes=tuple(t.dtype.name for t in call.outputs),
        call_index=call.index,
        calls=len(found),
        probes=("attention",),
        reason="an operation between layers",
    )


def _has_samples(trace: Trace, tensor: Any) -> bool:
    """Tells whether a tensor may have an axis of samples: of open size, as the inputs have it."""
    open_batch = all(t.shape.rank and t.shape[0] is None for t in trace.inputs)
    return not open_batch or tensor.shape.rank is None or not tensor.shape[:1].is_fully_defined()


def _is_map(trace: Trace, tensor: Any) -> bool:
    """Tells whether a tensor has channels at more than one position."""
    names = trace.axes(tensor)
    places = axes.position_axes(names)
    return axes.channel_axis(names) is not None and any(tensor.shape[i] != 1 for i in places)


def _shape(tensor: Any) -> tuple[int | None, ...]:
    return tuple(tensor.shape) if tensor.shape.rank is not None else ()


def _shape_given_out(trace: Trace, tensor: Any) -> tuple[int | None, ...]:
    """Returns the shape of an output, with axes for what it joins with the samples."""
    own = _shape(tensor)
    return (*own[:1], *trace.windows.get(id(tensor), ()), *own[1:])


def _is_float(tensor: Any) -> bool:
    return bool(keras.backend.is_float_dtype(tensor.dtype.name))
