"""Reference for tensors inside loops: the body of the file's loop, run one step at a time.

It shares nothing with what an artefact holds: no loop operator runs, and nothing is stacked by one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common as ir_passes

from probegen.errors import VerificationError
from probegen.graph.core.copying import read_others
from probegen.graph.core.queries import captured_values, inputs_of
from probegen.graph.core.values import constant_of, subgraphs_of
from probegen.graph.loops.iteration import Iteration, body_of, is_loop, iteration_of
from probegen.sources.onnx.loop_bodies import OverSteps, inside_of, reads_backwards
from probegen.sources.onnx.moved_scores import copied_with_names
from probegen.sources.onnx.reading import OnnxModel
from probegen.sources.onnx.running import Runner

Array = npt.NDArray[Any]
Open = Callable[[ir.Model], Runner]

#: A value of a body, by the loops around it and its own name.
_Place = tuple[tuple[ir.Node, ...], ir.Value]
#: Operators whose results are lists of tensors.
_MAKE_SEQUENCES = {
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceErase",
    "SequenceInsert",
    "SequenceMap",
    "SplitToSequence",
}


class BodiesBySteps:
    """Values of bodies of a file's loops over time."""

    def __init__(self, read: OnnxModel, wanted: Sequence[OverSteps], open_model: Open) -> None:
        """Finds them in the file as it was opened, else in the prepared graph.

        Args:
            read: the file.
            wanted: the values, of the prepared graph.
            open_model: opens a graph in onnxruntime.
        """
        names = [str(w.value.name) for w in wanted]
        model = _with_types(copied_with_names(read), read.model)
        places = _places(model.graph)
        if not all(name in places and _carries_tensors(places[name]) for name in names):
            model = read.model.clone()
            places = _places(model.graph)
        self._names = names
        by_loop: dict[ir.Node, dict[str, _Place]] = {}
        for name in names:
            (loop, *below), value = places[name]
            by_loop.setdefault(loop, {})[name] = (tuple(below), value)
        self._loops = [_Steps(model, loop, chosen, open_model) for loop, chosen in by_loop.items()]
        needed = {str(v.name): v for steps in self._loops for v in steps.reads}
        self._known = {n: a for n, v in needed.items() if (a := _stored(v)) is not None}
        self._fed = {str(v.name) for v in model.graph.inputs} - set(self._known)
        self._computed = [n for n in needed if n not in self._known and n not in self._fed]
        self._outer: Runner | None = None
        if self._computed:
            model.graph.outputs[:] = [needed[n] for n in self._computed]
            self._outer = open_model(model)

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Returns values of bodies by name, an axis a loop in front: `[time, ...]`.

        Raises:
            VerificationError: a value has another size at one step than at another.
        """
        values = dict(self._known)
        if self._outer is not None:
            found = self._outer.run(feed, self._computed)
            values.update(zip(self._computed, found, strict=True))
        values.update({n: np.asarray(feed[n]) for n in self._fed if n in feed})
        made: dict[str, Array] = {}
        for steps in self._loops:
            made.update(steps.run(values))
        return made


def _places(graph: ir.Graph) -> dict[str, _Place]:
    """Returns the values of bodies by name, with the loops that hold them."""
    found: dict[str, _Place] = {}
    for loop in (node for node in graph if is_loop(node)):
        for value in body_of(loop).inputs:
            found[str(value.name)] = ((loop,), value)
        for node, where in inside_of(loop):
            if where.branch is not None:
                continue
            if is_loop(node):
                for value in body_of(node).inputs:
                    found[str(value.name)] = ((*where.loops, node), value)
            for value in node.outputs:
                found[str(value.name)] = (where.loops, value)
    return found


def _carries_tensors(place: _Place) -> bool:
    """Tells whether loops read nothing but tensors: a list is a sequence."""
    read = (v for loop in place[0] for v in inputs_of(loop))
    return not any(isinstance(v.type, ir.SequenceType) or _is_sequence(v) for v in read)


def _is_sequence(value: ir.Value) -> bool:
    """Tells whether a value is a list of tensors, whatever is noted of its type."""
    made = value.producer()
    if made is None or made.domain:
        return isinstance(value.type, ir.SequenceType)
    if made.op_type in _MAKE_SEQUENCES:
        return True
    place = value.index() or 0
    if made.op_type == "Identity":
        sources: Sequence[ir.Value | None] = made.inputs
    elif made.op_type == "If":
        sources = [branch.outputs[place] for branch in subgraphs_of(made)]
    elif made.op_type == "Loop":  # the first output of the body is whether it goes on
        sources = body_of(made).outputs[place + 1 : place + 2]
    else:
        sources = ()
    return any(v is not None and _is_sequence(v) for v in sources)


def _with_types(model: ir.Model, prepared: ir.Model) -> ir.Model:
    """Notes the types of inner tensors, which files need not say.

    Lists of tensors stay without one: the inference gives them the type of an element, and in the
    prepared graph their name may be that of a tensor.
    """
    ir_passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    known = {v.name: v.type for v in _all_values(prepared.graph) if v.type is not None}
    for value in _all_values(model.graph):
        if _is_sequence(value):
            if not isinstance(value.type, ir.SequenceType):
                value.type = value.shape = None
        elif value.type is None:
            value.type = known.get(value.name)
    return model


def _all_values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
        if is_loop(node):
            yield from _all_values(body_of(node))


class _Steps:
    """One loop, run without it.

    Attributes:
        reads: the outer values that it needs.
    """

    def __init__(
        self, model: ir.Model, loop: ir.Node, wanted: Mapping[str, _Place], open_model: Open
    ) -> None:
        self._loop = iteration_of(loop)
        self.reads = [v for v in dict.fromkeys(inputs_of(loop)) if v.name]
        self._own = {name: value for name, (below, value) in wanted.items() if not below}
        inner: dict[ir.Node, dict[str, _Place]] = {}
        for name, (below, value) in wanted.items():
            if below:
                inner.setdefault(below[0], {})[name] = (below[1:], value)
        self._inner = [_Steps(model, node, places, open_model) for node, places in inner.items()]
        here = set(_all_in_order(self._loop.body))
        of_inner = [v for steps in self._inner for v in steps.reads if v in here]
        outputs = [*self._loop.body.outputs, *self._own.values(), *of_inner]
        self._outputs = list(dict.fromkeys(outputs))
        self._model, self._open = model, open_model
        captured = captured_values(self._loop.body)
        self._captured = [str(v.name) for v in captured if _stored(v) is None]

    @functools.cached_property
    def _runner(self) -> Runner:
        return self._open(_as_model(self._model, self._loop, self._outputs))

    def run(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Returns what is wanted, stacked over the steps, in front."""
        outer = {name: values[name] for name in self._captured}
        states = [values[str(s.initial.name)] for s in self._loop.states]
        collected: dict[str, list[Array]] = {n: [] for n in self._own}
        for steps in self._inner:
            collected |= {n: [] for n in steps.wanted}
        goes_on = True
        for entries in self._entries(values):
            if not goes_on:
                break
            fed = {**outer, **entries}
            fed |= {str(s.entering.name): a for s, a in zip(self._loop.states, states, strict=True)}
            found = self._runner.run(fed)
            made = dict(zip((str(v.name) for v in self._outputs), found, strict=True))
            states = [made[str(s.leaving.name)] for s in self._loop.states]
            for name, value in self._own.items():
                collected[name].append(made[str(value.name)])
            for steps in self._inner:
                for name, array in steps.run({**values, **fed, **made}).items():
                    collected[name].append(array)
            if self._loop.next_condition is not None:
                goes_on = bool(made[str(self._loop.next_condition.name)])
        return {name: self._stacked(name, arrays) for name, arrays in collected.items()}

    @property
    def wanted(self) -> list[str]:
        """The names of what `run` returns."""
        return [*self._own, *(n for steps in self._inner for n in steps.wanted)]

    def _entries(self, values: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """Yields what each step finds beside its states: the entries of sequences, its number."""
        if self._loop.node.op_type == "Scan":
            read = [(s, values[str(s.sequence.name)]) for s in self._loop.scan_inputs]
            count = min((a.shape[s.axis] for s, a in read), default=0)
            for step in range(count):
                yield {
                    str(s.entering.name): np.take(
                        a, count - 1 - step if s.backwards else step, s.axis
                    )
                    for s, a in read
                }
            return
        most, first = self._loop.node.inputs[0], self._loop.node.inputs[1]
        bound = None if most is None or not most.name else int(values[str(most.name)].reshape(()))
        if first is not None and first.name and not values[str(first.name)].reshape(()):
            return
        step = 0
        while bound is None or step < bound:
            number, condition = self._loop.step_number, self._loop.condition
            assert number is not None
            assert condition is not None
            yield {
                str(number.name): np.asarray(step, np.int64),
                str(condition.name): np.asarray(True),
            }
            step += 1

    def _stacked(self, name: str, arrays: list[Array]) -> Array:
        shapes = {a.shape for a in arrays}
        if len(shapes) != 1:
            raise VerificationError(
                f"tensor {name!r}, inside loop {self._loop.node.name!r}, has "
                + (f"the sizes {sorted(shapes)} at its steps" if arrays else "no step")
                + ", so that these are no tensor over time. Probe another tensor of the loop."
            )
        return np.stack(arrays[::-1] if reads_backwards(self._loop) else arrays)


def _as_model(model: ir.Model, loop: Iteration, outputs: Sequence[ir.Value]) -> ir.Model:
    """Returns the body of a loop as a model of its own, what it captures among its inputs."""
    body = loop.body.clone(allow_outer_scope_values=True)
    originals = _all_in_order(loop.body)
    copies = dict(zip(originals, _all_in_order(body), strict=True))
    instead = {value: _standing_for(value) for value in captured_values(loop.body)}
    read_others(body, instead)
    for value in instead.values():
        if value.const_value is None:
            body.inputs.append(value)
        else:
            body.register_initializer(value)
    results = []
    for value in outputs:
        copy = ir.node("Identity", [instead.get(value) or copies[value]])
        copy.outputs[0].name, copy.outputs[0].type = f"{value.name}/after", value.type
        results.append(copy)
    body.extend(results)
    body.outputs[:] = [node.outputs[0] for node in results]
    body.opset_imports.update(model.graph.opset_imports)
    body.name = body.name or "body"
    return ir.Model(body, ir_version=model.ir_version, functions=list(model.functions.values()))


def _all_in_order(graph: ir.Graph) -> list[ir.Value]:
    """Returns the values of a graph itself in an order that its copies share."""
    made = [v for node in graph for v in node.outputs]
    return [*graph.inputs, *graph.initializers.values(), *made]


def _stored(value: ir.Value) -> Array | None:
    """Returns what a value holds, where the file stores it: the default of an input too."""
    if value.is_graph_input():
        return None if value.const_value is None else value.const_value.numpy()
    return constant_of(value)


def _standing_for(value: ir.Value) -> ir.Value:
    """Returns what a body reads in the place of an outer value: an input, or what is stored."""
    array = _stored(value)
    if array is None:
        return ir.Value(name=value.name, type=value.type)
    tensor = ir.tensor(array, name=value.name)
    return ir.Value(
        name=value.name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(array.shape),
        const_value=tensor,
    )
