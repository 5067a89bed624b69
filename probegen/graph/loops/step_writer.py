"""Writes a body that is run once a time step: the `Scan` and `Loop` nodes of a gradient.

A `StepWriter` object stands for one such node while it is written. Its values are of two worlds:
those of the graph around it, which have all steps (a leading time axis), and those of the
body, which have one. `carry` and `read` bring a value in, `finish` writes the node and brings
values out.

A step in a runtime costs per operator, however small the tensors. So `finish` can leave in
the body only what carried values take part in: what can be computed for all steps at once
before or after, is, and what is the same in all steps is computed once. That takes the memory
of all steps at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.queries import inputs_of
from probegen.graph.core.values import Dim, shape_of, subgraphs_of
from probegen.graph.loops.batch_over_steps import RANDOM
from probegen.graph.loops.hoist import Collected, EntryOf, Hoisting, ancestors, first_size, needed

#: Operators that cost more than to read what they give.
_COSTLY = frozenset(
    {"Conv", "ConvTranspose", "Einsum", "Gemm", "GRU", "Loop", "LSTM", "MatMul", "RNN", "Scan"}
)
#: Beyond the end of every axis, as the ONNX specification recommends it.
_END = 2**31 - 1


class StepWriter:
    """One `Scan` or `Loop` in the making.

    Attributes:
        body: writes the nodes of one step; they may read any value of the graph around.
    """

    def __init__(self, builder: Builder) -> None:
        self._outer = builder
        self._name = builder.fresh("steps")
        self._graph = ir.Graph([], [], nodes=[], opset_imports={"": builder.opset}, name=self._name)
        self._initial: dict[ir.Value, ir.Value] = {}
        self._entries: dict[ir.Value, EntryOf] = {}
        self.body = Builder(self._graph, builder.opset, prefix=self._name)

    @property
    def reads(self) -> bool:
        """True where the body reads a sequence."""
        return bool(self._entries)

    def carry(self, initial: ir.Value) -> ir.Value:
        """Returns what a step finds of a carried value that starts as `initial`."""
        inside = self.value("carry", initial.type, shape_of(initial))
        self._initial[inside] = initial
        return inside

    def read(self, sequence: ir.Value, *, backwards: bool) -> ir.Value:
        """Returns one step's entry of `sequence`, whose time axis is the first."""
        shape = shape_of(sequence)
        inside = self.value("step", sequence.type, None if shape is None else shape[1:])
        self.bind(inside, sequence, backwards=backwards)
        return inside

    def value(
        self, hint: str, kind: ir.TypeProtocol | None, shape: Sequence[Dim] | None
    ) -> ir.Value:
        """Returns a value of the body that is still to be bound to a sequence."""
        described = None if shape is None else ir.Shape(list(shape))
        return ir.Value(name=self.body.fresh(hint), type=kind, shape=described)

    def bind(self, inside: ir.Value, sequence: ir.Value, *, backwards: bool) -> None:
        """Makes `inside` one step's entry of `sequence`."""
        self._entries[inside] = EntryOf(sequence, backwards)

    def copy(self, body: ir.Graph, called: str = "") -> dict[ir.Value, ir.Value]:
        """Puts a copy of another body's nodes into this one; see `copy_into`.

        Args:
            body: the other one.
            called: tells the names of several copies apart.
        """
        return copy_into(self._graph, body, f"{self._name}{called}")

    def prune(self, results: Iterable[ir.Value]) -> set[ir.Value]:
        """Drops the body's nodes that `results` do not need; returns all values they read."""
        copied = list(self._graph)
        self._graph.remove(copied)
        self.body.nodes, read = needed([*copied, *self.body.nodes], results)
        return read

    def finish(
        self,
        carried: Sequence[ir.Value],
        stacked: Sequence[Collected] = (),
        count: ir.Value | None = None,
        *,
        hoist: bool = False,
        invariant: bool = False,
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        """Writes the node: a `Scan`, or a `Loop` where the number of steps is given.

        A `Scan` takes its number of steps from the sequences it reads, and cannot run zero
        steps in onnxruntime; a `Loop` can, and is slower by a copy of every entry it reads.

        Args:
            carried: what each carried value becomes after a step, in the order of `carry`.
            stacked: what is collected over the steps.
            count: number of steps, an int64 scalar.
            hoist: compute outside, for all steps at once, what can be.
            invariant: compute outside what is the same in all steps and costs much.

        Returns:
            The carried values after the last step, and the collected ones, time axis first.
        """
        self.prune([*carried, *(s.value for s in stacked)])
        if invariant:
            self.body.nodes = self._without_invariant(self.body.nodes)
        if not hoist:
            return self._write(carried, stacked, count)
        hoisting = Hoisting(self._outer, self._graph, self._initial, self._entries)
        self.body.nodes = hoisting.hoist_before(self.body.nodes)
        hoisting.merge_products(self.body.nodes, {*carried, *(s.value for s in stacked)})
        inside = {v: self._brought_in(hoisting, v) for v in hoisting.moved}
        left = [inside.get(v, v) for v in carried]
        asked = [Collected(inside.get(s.value, s.value), s.backwards) for s in stacked]
        self.prune([*left, *(s.value for s in asked)])
        missing = [s for s in asked if s.value not in self._entries]
        later, collected = hoisting.plan_after(self.body.nodes, left, missing)
        self.body.nodes = [node for node in self.body.nodes if node not in later]
        finals, stacks = self._write(left, collected, count)
        for stack, whole in zip(collected, stacks, strict=True):
            self._entries[stack.value] = EntryOf(whole, stack.backwards)
        for node in later:
            hoisting.hoist(node)
        return finals, [self._whole(s) for s in asked]

    def _without_invariant(self, nodes: Sequence[ir.Node]) -> list[ir.Node]:
        """Moves out of the body what is the same in all steps; returns the nodes that stay.

        That is what weights alone give, and what costs much with all that it needs. The rest,
        masks above all, is cheap, and takes the memory of the whole forward pass if it is kept.
        """
        dependent = {*self._initial, *self._entries}
        same, fixed = [], set[ir.Value]()
        for node in nodes:
            read = list(inputs_of(node))
            if any(v in dependent for v in read) or node.op_type in RANDOM:
                dependent.update(node.outputs)
                continue
            same.append(node)
            if all(v in fixed or v.is_initializer() for v in read):
                fixed.update(node.outputs)
        costly = {v for n in same if n.op_type in _COSTLY for v in n.outputs}
        moving = ancestors(same, fixed | costly)
        for node in (n for n in nodes if n in moving):
            for value in inputs_of(node):
                name = value.name or ""
                if self._graph.initializers.get(name) is value:
                    self._graph.initializers.pop(name)
                    self._outer.graph.register_initializer(value)
            self._outer.nodes.append(node)
        return [n for n in nodes if n not in moving]

    def _brought_in(self, hoisting: Hoisting, moved: ir.Value) -> ir.Value:
        """Lets the body read what is no longer made in it; returns what stands in its place."""
        inside = hoisting.constant.get(moved)
        if inside is None:
            inside = self.value("ahead", moved.type, shape_of(moved))
            self._entries[inside] = self._entries[moved]
        ir.convenience.replace_all_uses_with(moved, inside)
        return inside

    def _whole(self, stacked: Collected) -> ir.Value:
        """Returns a collected value, all steps in the order that was asked for."""
        entry = self._entries[stacked.value]
        same = entry.backwards == stacked.backwards
        return entry.sequence if same else reverse(self._outer, entry.sequence)

    # -- writing the node --------------------------------------------------------------------

    def _write(
        self, carried: Sequence[ir.Value], stacked: Sequence[Collected], count: ir.Value | None
    ) -> tuple[list[ir.Value], list[ir.Value]]:
        """Writes the node with what is left of the body."""
        results = [*carried, *(s.value for s in stacked)]
        if not results:
            return [], []
        needed_values = self.prune(results)
        open_ = {v: s for v, s in self._entries.items() if v.producer() is None}
        entries = {v: s for v, s in open_.items() if v in needed_values}
        own = self._own(results)
        if count is None:
            # A Scan has to read something to know its number of steps.
            entries = entries or dict(list(open_.items())[:1])
            if self._holds_a_scan():
                count = self._steps(entries)
        if count is None:
            outputs = self._write_scan(own, entries, [s.backwards for s in stacked])
        else:
            outputs = self._write_loop(own, entries, count)
        for output, value in zip(outputs, own, strict=True):
            output.type = value.type
        finals, stacks = list(outputs[: len(carried)]), list(outputs[len(carried) :])
        if count is not None:
            turned = zip(stacks, stacked, strict=True)
            stacks = [reverse(self._outer, v) if s.backwards else v for v, s in turned]
        return finals, stacks

    def _holds_a_scan(self) -> bool:
        """Tells whether the body has a Scan in it, which OpenVINO runs in a Loop, in a Scan not."""
        inside = [n for n in self.body.nodes if n.op_type == "Scan" and not n.domain]
        deeper = (g.all_nodes() for n in self.body.nodes for g in subgraphs_of(n))
        return bool(inside) or any(n.op_type == "Scan" for nodes in deeper for n in nodes)

    def _steps(self, entries: Mapping[ir.Value, EntryOf]) -> ir.Value:
        """Returns the number of steps, an int64 scalar, from a sequence that is read."""
        sequence = next(iter(entries.values())).sequence
        return self._outer.squeeze(self._outer.size(sequence, 0), [0])

    def _own(self, results: Sequence[ir.Value]) -> list[ir.Value]:
        """Returns the results as values that nodes of the body make, each another.

        onnxruntime gives outputs that share a value one buffer, and refuses or misreads
        outputs that are inputs of the body or values from outside.
        """
        made = {v for node in self.body.nodes for v in node.outputs}
        own: list[ir.Value] = []
        for result in results:
            if result not in made or result in own:
                own.append(self.body.op("Identity", result, shape=result))
            else:
                own.append(result)
        return own

    def _write_scan(
        self, results: list[ir.Value], entries: Mapping[ir.Value, EntryOf], backwards: list[bool]
    ) -> tuple[ir.Value, ...]:
        self._close([*self._initial, *entries], results)
        sequences = [s.sequence for s in entries.values()]
        return self._outer.ops(
            "Scan",
            *self._initial.values(),
            *sequences,
            outputs=len(results),
            shapes=self._shapes(results, first_size(sequences)),
            body=self._graph,
            num_scan_inputs=len(sequences),
            scan_input_directions=[int(s.backwards) for s in entries.values()],
            scan_output_directions=[int(b) for b in backwards] or None,
        )

    def _write_loop(
        self, results: list[ir.Value], entries: Mapping[ir.Value, EntryOf], count: ir.Value
    ) -> tuple[ir.Value, ...]:
        number = self.value("number", ir.TensorType(ir.DataType.INT64), ())
        going = self.value("going", ir.TensorType(ir.DataType.BOOL), ())
        reading = Builder(self._graph, self.body.opset, prefix=f"{self._name}/read")
        last = reading.op("Sub", count, reading.const(1), shape=())
        index = {False: number, True: reading.op("Sub", last, number, shape=())}
        for inside, s in entries.items():
            entry = reading.op("Gather", s.sequence, index[s.backwards], axis=0, shape=inside)
            ir.convenience.replace_all_uses_with(inside, entry)
        still_going = reading.op("Identity", going, shape=())
        results = [still_going, *results]
        self.body.nodes, _ = needed([*reading.nodes, *self.body.nodes], results)
        self._close([number, going, *self._initial], results)
        # It may be left out by the standard, but onnx's evaluator runs no step then.
        condition = self._outer.const(True)
        return self._outer.ops(
            "Loop",
            count,
            condition,
            *self._initial.values(),
            outputs=len(results) - 1,
            shapes=self._shapes(results[1:], None),
            body=self._graph,
        )

    def _shapes(self, results: Sequence[ir.Value], steps: Dim) -> list[Sequence[Dim] | None]:
        shapes: list[Sequence[Dim] | None] = [shape_of(v) for v in self._initial.values()]
        for value in results[len(shapes) :]:
            each = shape_of(value)
            shapes.append(None if each is None else [steps, *each])
        return shapes

    def _close(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> None:
        self._graph.inputs.extend(inputs)
        self._graph.outputs.extend(outputs)
        self.body.attach()


def shift_by_one_step(
    builder: Builder, left: ir.Value, initial: ir.Value, backwards: bool
) -> ir.Value:
    """Returns what each step found of a carried value: nothing of no steps.

    Args:
        builder: what writes.
        left: what each step left, `[time, ...]`.
        initial: what the first step found, `[...]`.
        backwards: True where the first step is the last entry.
    """
    shape = shape_of(left)
    first = builder.unsqueeze(initial, [0])
    start, end = (1, _END) if backwards else (0, -1)
    more: list[Dim] | None = None
    if shape is not None:
        more = [shape[0] + 1 if isinstance(shape[0], int) else None, *shape[1:]]
    bounds = (builder.ints(start), builder.ints(end), builder.ints(0))
    parts = (left, first) if backwards else (first, left)
    joined = builder.op("Concat", *parts, axis=0, shape=more)
    return builder.op("Slice", joined, *bounds, shape=left)


def reverse(builder: Builder, sequence: ir.Value) -> ir.Value:
    """Writes `sequence` with the order of its first axis turned round."""
    bounds = (builder.ints(-1), builder.ints(-_END), builder.ints(0), builder.ints(-1))
    return builder.op("Slice", sequence, *bounds, shape=sequence)


def copy_into(graph: ir.Graph, body: ir.Graph, prefix: str) -> dict[ir.Value, ir.Value]:
    """Appends copies of a body's nodes to a graph.

    Args:
        graph: where the copies go, with the body's initializers.
        body: a subgraph; what it captures, the copies capture too.
        prefix: put before the names of values, so that none of an enclosing graph comes back;
            nodes keep theirs, by which a user knows them.

    Returns:
        Original value -> its copy. The copies of the body's inputs belong to no graph yet.
    """
    copy = body.clone(allow_outer_scope_values=True)
    pairs = dict(zip(body.inputs, copy.inputs, strict=True))
    pairs |= {v: copy.initializers[name] for name, v in body.initializers.items()}
    for original, copied in zip(body, copy, strict=True):
        pairs |= dict(zip(original.outputs, copied.outputs, strict=True))
    nodes = list(copy)
    copy.outputs.clear()
    copy.inputs.clear()
    copy.remove(nodes)
    _rename_values(nodes, prefix)
    for value in (v for v in pairs.values() if v.producer() is None):
        copy.initializers.pop(value.name or "", None)
        value.name = f"{prefix}/{value.name}"
        if value.const_value is not None:
            graph.register_initializer(value)
    graph.extend(nodes)
    return pairs


def _rename_values(nodes: Iterable[ir.Node], prefix: str) -> None:
    for node in nodes:
        inside = list(node.outputs)
        for graph in subgraphs_of(node):
            inside += [*graph.inputs, *graph.initializers.values()]
            _rename_values(graph, prefix)
        for value in inside:
            if value.name:
                value.name = f"{prefix}/{value.name}"
