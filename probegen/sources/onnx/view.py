"""An ONNX graph as planning looks at it: its nodes as probe points, and who depends on whom."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import onnx
import onnx_ir as ir

from probegen.artefact.manifest import Padding
from probegen.errors import InstrumentError, NotDifferentiableError
from probegen.graph.autodiff import influenced_by, obstacles
from probegen.graph.core.marks import MARK_DOMAIN
from probegen.graph.core.queries import (
    ancestors_of,
    depending_on,
    inputs_of,
    is_float,
    key_of,
    where_axes_are_lost,
)
from probegen.graph.core.values import known_sizes, shape_of, subgraphs_of
from probegen.graph.loops.iteration import is_loop
from probegen.graph.vjp import BLOCKING
from probegen.plan.axes import (
    BATCH,
    WINDOW,
    Axes,
    position_axes,
)
from probegen.plan.model_view import AttentionWeights, ModelView, Start, StateFacts, TensorFacts
from probegen.plan.plan import ATTENTION, WEIGHT, PlainOutput, TargetPlan, TensorRef
from probegen.plan.points import ProbePoint, ProbePoints, Shape, not_itself
from probegen.plan.positions import Positions, Reading, batch_and_channel, weight_axes
from probegen.plan.positions import Weights as WeightAxes
from probegen.plan.single_positions import axes_seen_at_one_entry
from probegen.sources.onnx import first_floats
from probegen.sources.onnx.attention_weights import Weights, attention_weights
from probegen.sources.onnx.barriers import barriers
from probegen.sources.onnx.feature_maps import frames_named, is_map, is_map_of_frames
from probegen.sources.onnx.layouts import Apart, Layouts
from probegen.sources.onnx.lengths import longest
from probegen.sources.onnx.loop_bodies import (
    Inside,
    OverSteps,
    inside_of,
    of_changing_size,
    over_steps,
    varying_inside,
)
from probegen.sources.onnx.padding import constants_compared, paddings
from probegen.sources.onnx.positions import follow_graph, turned_values
from probegen.sources.onnx.random_values import draws, random_values
from probegen.sources.onnx.roles import is_embedding, role_of
from probegen.sources.onnx.scores_of_outputs import is_turn_of_scores, scores_of
from probegen.sources.onnx.shortest import shortest
from probegen.sources.onnx.states_over_time import StatesOverTime
from probegen.sources.onnx.tensor_facts import element_type, facts_of, facts_told_apart

#: Operators that move or resize what they read, of which a score is still the same score.
_MOVING = frozenset(
    {"Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Resize"}
    | {"Upsample", "DepthToSpace"}
)
#: Rank of attention weights whose heads are joined with the samples, where there are any.
_WITHOUT_HEADS = 3


class OnnxView(ModelView):
    """A prepared ONNX graph, and questions about it.

    Attributes:
        graph: the graph.
        inputs: what is fed.
        batch: the number of samples that it is bound to, None where any will do.
    """

    def __init__(
        self,
        graph: ir.Graph,
        name: str,
        producer: str,
        axes: Mapping[str, Axes] | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        """Looks at a graph once.

        Args:
            graph: as `read_onnx` prepares it; it is not changed.
            name: of the model.
            producer: what wrote the file.
            axes: input or output name -> its axes, where a user says them.
            notes: sentences for the manifest.
        """
        self.graph = graph
        told = {"notes": " ".join(n.rstrip(".") + "." for n in notes)} if notes else {}
        self.model = {"name": name, "class": "ONNX", **told}
        self.producer = {"onnx": onnx.__version__, **({"exporter": producer} if producer else {})}
        self.inputs = [v for v in graph.inputs if not v.is_initializer()]
        self.input_names = [str(v.name) for v in self.inputs]
        self.output_names = [str(v.name) for v in graph.outputs]
        self._varying = depending_on(graph, self.inputs)
        second = producer.lower() == "pytorch"
        self._layouts = Layouts(graph, dict(axes or {}), channels_second=second)
        self.batch = self._layouts.batch
        self._inside: dict[ir.Node, Inside] = {}
        self._changing_size: set[ir.Value] = set()
        for loop in filter(is_loop, graph):
            self._inside.update(inside_of(loop))
            self._varying |= varying_inside(loop, self._varying)
            self._changing_size |= of_changing_size(loop)
        bodies = [
            body
            for node in (*graph, *self._inside)
            if is_loop(node) or node in self._inside
            for body in subgraphs_of(node)
        ]
        self._weights = {
            w.softmax: w for g in (graph, *bodies) for w in attention_weights(g, self._varying)
        }
        self._nodes = self._named_nodes()
        self._refs = {
            value: TensorRef(path, 0, position)
            for path, node in self._nodes.items()
            if node not in self._inside
            for position, value in enumerate(_floats_first(node))
        }
        self._random = random_values(graph)
        usable = self._varying - self._random - self._changing_size
        self._states = StatesOverTime(self._nodes, self._inside, self._layouts, usable)
        self.points = ProbePoints([*self._input_points(), *self._node_points()], name)
        self.layers = [p.layer for p in self.points if p.role != "input"]

    def _named_nodes(self) -> dict[str, ir.Node]:
        """Returns the nodes by path: names without a slash in front, behind those of loops."""
        found: dict[str, ir.Node] = {}

        def add(node: ir.Node, before: str) -> str:
            name = str(node.name)
            path = name.lstrip("/") or name
            if before:
                path = f"{before}/{_behind_scope(path, before)}"
            chosen = path if path not in found and path not in self.input_names else name
            found[chosen] = node
            return chosen

        for node in self.graph:
            if is_turn_of_scores(node):
                continue
            inside = list(inside_of(node)) if is_loop(node) else []
            path = str(node.name).lstrip("/") or str(node.name)
            for inner, _ in inside:
                add(inner, path)
            add(node, "")
        return found

    # -- points ----------------------------------------------------------------------------

    @functools.cached_property
    def _reached(self) -> set[ir.Value]:
        """The values that a gradient from some output flows back to."""
        reached = {v for v in self.graph.outputs if is_float(v)}
        reached |= {s for s in map(self._scores, range(len(self.output_names))) if s is not None}
        for node in reversed(list(self.graph)):
            if key_of(node) not in BLOCKING and any(v in reached for v in node.outputs):
                reached.update(v for v in inputs_of(node) if is_float(v))
        return reached

    @functools.cached_property
    def _barred(self) -> dict[ir.Value, str]:
        """Tensors at which no output has a gradient -> why; see `barriers`."""
        ends = [*self.graph.outputs, *map(self._scores, range(len(self.output_names)))]
        return barriers(self.graph, [v for v in ends if v is not None and is_float(v)])

    def _input_points(self) -> Iterable[ProbePoint]:
        for name, value in zip(self.input_names, self.inputs, strict=True):
            able = value in self._reached and is_float(value) and value not in self._barred
            reason = self._barred.get(value, "")
            yield ProbePoint(
                path=name,
                class_name="Input",
                roles=("input",),
                shapes=(known_sizes(value) or (),),
                dtypes=(element_type(value),),
                probes=("gradient",) if able else (),
                reason=reason if is_float(value) else not_itself(element_type(value)),
                layer=value,
            )

    def _node_points(self) -> Iterable[ProbePoint]:
        outputs = set(self.graph.outputs)
        for path, node in self._nodes.items():
            if node.domain == MARK_DOMAIN:
                continue
            floats = [v for v in node.outputs if v.name and is_float(v) and v.shape is not None]
            varying = bool(floats) and floats[0] is node.outputs[0] and floats[0] in self._varying
            if not varying and floats and self._states.has(node):
                # Its last states alone are read, or a loop gives out a count before them.
                yield ProbePoint(
                    path, key_of(node), (role_of(node),), (), (), probes=("states",), layer=node
                )
                continue
            if not varying:
                continue
            role = "attention" if node in self._weights else role_of(node)
            roles = ("output", role) if any(v in outputs for v in node.outputs) else (role,)
            probes, reason = self._probes(node, floats[0])
            yield ProbePoint(
                path=path,
                class_name=key_of(node),
                roles=roles,
                shapes=tuple(self._shape_given_out(node, v) for v in floats),
                dtypes=tuple(map(element_type, floats)),
                probes=tuple(probes),
                reason=reason,
                loop=str(self._inside[node].loops[-1].name) if node in self._inside else "",
                layer=node,
            )

    def _shape_given_out(self, node: ir.Node, value: ir.Value) -> Shape:
        over = self._over_steps(value, node)
        return (facts_told_apart(value, self._layouts) if over is None else over.facts).shape

    def _probes(self, node: ir.Node, value: ir.Value) -> tuple[list[str], str]:
        """Returns what a node can be probed for, and why not for more."""
        if value in self._random:
            return [], "drawn at random"
        if node in self._inside:
            return self._probes_inside(node, value)
        if not shape_of(value):
            return [], "one number for all samples"
        apart = self._layouts.told_apart(value)
        if apart is not None:
            reason = f"along its axis {apart.axis} samples are joined with other positions"
            more = {"attention": node in self._weights, "grad_cam": self._is_map_of_frames(value)}
            kinds = ["activation", *(kind for kind, able in more.items() if able)]
            return (kinds, reason) if apart.parts else ([], f"{reason} of open number")
        if self._layouts.is_lost(value) and not value.is_graph_output():
            return [], "along which of its axes samples lie is not known"
        probes, reason = ["activation"], ""
        differentiable = value in self._reached
        if differentiable and value not in self._barred:
            probes.append("gradient")
        else:
            reason = self._barred.get(value, "no gradient reaches it")
        if differentiable and is_map(value, self._layouts):
            probes.append("grad_cam")
        if node in self._weights:
            probes.append("attention")
        if self._states.has(node):
            probes.append("states")
        return probes, reason

    def _probes_inside(self, node: ir.Node, value: ir.Value) -> tuple[list[str], str]:
        """Returns what a node in the body of a loop can be probed for, and why not for more."""
        where = self._inside[node]
        loop = str(where.loops[-1].name)
        if where.branch is not None:
            branch = f"If {str(where.branch.name)!r}, of which a step may run the other"
            return [], f"inside loop {loop!r} in a branch of {branch}"
        if not shape_of(value):
            return [], f"inside loop {loop!r}, one number for all samples"
        if value in self._changing_size:
            return [], f"inside loop {loop!r}, its size changes from step to step"
        apart = self._layouts.told_apart(value)
        if apart is not None and not apart.parts:
            return [], f"along its axis {apart.axis} samples are joined with others of open number"
        if self._layouts.batched and apart is None and BATCH not in self._layouts.axes(value):
            return [], "along which of its axes samples lie is not known"
        kinds = ["activation", *(["attention"] if node in self._weights else [])]
        kinds += ["states"] if self._states.has(node) else []
        return kinds, f"inside loop {loop!r}, over its steps: no gradient is taken at it"

    def _is_map_of_frames(self, value: ir.Value) -> bool:
        """Tells whether a tensor that a gradient reaches is a map of each of some frames."""
        return value in self._reached and is_map_of_frames(value, self._layouts)

    # -- tensors ---------------------------------------------------------------------------

    def input(self, position: int) -> TensorFacts:
        """Returns what is known of an input."""
        return facts_of(self.inputs[position], self._layouts)

    def output(self, position: int) -> TensorFacts:
        """Returns what is known of an output."""
        return facts_of(self.graph.outputs[position], self._layouts)

    def check_output(self, position: int) -> None:
        """Refuses an output of which not even the number of axes is known.

        Raises:
            NotDifferentiableError: it is one; says what makes it.
        """
        value = self.graph.outputs[position]
        if value.shape is not None:
            return
        raise NotDifferentiableError(
            f"how many axes output {value.name!r} has is not known: "
            f"{where_axes_are_lost(self.graph, value)}."
        )

    def tensor(self, ref: TensorRef) -> TensorFacts:
        """Returns what is known of a tensor; of one in a loop over the steps."""
        if ref.is_of_states:
            point = next(p for p in self.points if p.path == ref.path)
            return self._states.known_of(ref, point).facts
        value = self.value(ref)
        over = self._over_steps(value, self._nodes.get(str(ref.path)))
        return facts_told_apart(value, self._layouts) if over is None else over.facts

    def value(self, ref: TensorRef) -> ir.Value:
        """Returns the value of the graph that a reference means."""
        if ref.made == WEIGHT:
            return self.graph.initializers[str(ref.path)]
        if ref.is_attention:
            return self.weights(ref).value
        if ref.path is None:
            return self.inputs[ref.position]
        return _floats_first(self._nodes[ref.path])[ref.position]

    def map_axes(self, ref: TensorRef) -> Axes:
        """Returns the axes of a tensor that carries maps: frames have an axis of their own."""
        apart = self.parts_of(ref)
        return self.tensor(ref).axes if apart is None else frames_named(apart)

    def named_tensor(self, name: str) -> TensorRef | None:
        """Returns the input, the weight or the tensor that a node makes, by its name."""
        if name in self.input_names:
            return TensorRef(None, position=self.input_names.index(name))
        if name in self.graph.initializers:
            return TensorRef(name, made=WEIGHT)
        return next((ref for value, ref in self._refs.items() if value.name == name), None)

    def attention(self, point: ProbePoint) -> Sequence[AttentionWeights]:
        """Returns the attention weights at a point that applies some."""
        facts, keys = self._attention(point)
        value = self.weights(TensorRef(point.path, point.call_index)).value
        over = self._over_steps(value, point.layer, facts)
        if over is not None:
            moved = [over.axis(key) for key in keys]
            return [AttentionWeights(point, 0, 1, over.facts, moved, len(over.loops))]
        ref = TensorRef(point.path, point.call_index, made=ATTENTION)
        return [AttentionWeights(point, 0, 1, facts, keys, ref=ref)]

    def _attention(self, point: ProbePoint) -> tuple[TensorFacts, Sequence[int]]:
        """Returns the attention weights at a point, and the axes that their softmax sums over."""
        weights = self.weights(TensorRef(point.path, point.call_index))
        facts, apart = (
            facts_told_apart(weights.value, self._layouts),
            self._layouts.told_apart(weights.value),
        )
        if apart is None or not apart.parts:
            return facts, weights.keys
        more = [apart.axis + i for i, part in enumerate(apart.parts) if part != -1]
        rank = len(shape_of(weights.value) or ())
        if len(more) > 1 or rank > _WITHOUT_HEADS:
            # Heads have an axis of their own, or there are none: these are windows.
            names = dict(zip(more, _windows(len(more)), strict=True))
            axes = tuple(names.get(i, name) for i, name in enumerate(facts.axes))
            facts = dataclasses.replace(facts, axes=axes)
        return facts, [key + (len(more) if key > apart.axis else 0) for key in weights.keys]

    def instead(self, kind: str) -> str:
        """Says what to do where no attention weights are found."""
        if kind != "attention":
            return ""
        return (
            "Attention weights are found where a softmax is multiplied with values that depend on "
            "the input and summed over the axis along which it adds up to one. What a node weighs "
            "with in another way comes out by pg.Activations."
        )

    def states(self, point: ProbePoint) -> list[StateFacts]:
        """Returns the states over time, and the gates, of a recurrent operator or a loop."""
        return self._states.at(point)

    def why_no_gradient_at(self, state: StateFacts) -> str:
        """Says why no gradient can be taken at a state over time; `""` where one can."""
        return self._states.why_no_gradient_at(state)

    def state_over_steps(self, ref: TensorRef) -> OverSteps | None:
        """Says how a state of a loop comes out; None for one of a recurrent operator."""
        return self._states.over_steps(ref)

    def order_over_time(self, ref: TensorRef) -> tuple[int, ...]:
        """Returns which axes of `[time, ...]` the axes of a state over time are."""
        return self._states.order_over_time(ref)

    def _over_steps(
        self, value: ir.Value, node: ir.Node | None, facts: TensorFacts | None = None
    ) -> OverSteps | None:
        """Says how a value of a loop's body comes out; None for one of the graph itself."""
        where = None if node is None else self._inside.get(node)
        if where is None:
            return None
        apart = self._layouts.told_apart(value)
        return over_steps(
            value, where.loops, facts or facts_told_apart(value, self._layouts), apart
        )

    def over_steps(self, output: PlainOutput) -> OverSteps | None:
        """Says how an output of a loop's body comes out; None where it is of none."""
        node = self._nodes.get(str(output.ref.path))
        if output.probe.of_states:
            return self.state_over_steps(output.ref)
        return self._over_steps(self.taken(output), node)

    def node(self, path: str) -> ir.Node:
        """Returns the node of a path."""
        return self._nodes[path]

    def readings(self, weights: Sequence[AttentionWeights]) -> list[Reading]:
        """Returns which positions attention weights read, one by one."""
        made = [self.weights(w.plain_ref) for w in weights]
        where: dict[Hashable, WeightAxes] = {
            w.value: weight_axes(
                self._layouts.axes(w.value), w.keys, self._layouts.told_apart(w.value) is not None
            )
            for w in made
        }
        inputs = [(v, *batch_and_channel(self._layouts.axes(v))) for v in self.inputs]
        positions = follow_graph(self.graph, inputs, where)
        by_value = dict(zip(where, positions.readings(), strict=True))
        return [
            dataclasses.replace(by_value[w.value], along=self._along(positions, w.value))
            for w in made
        ]

    def _along(self, positions: Positions, value: ir.Value) -> tuple[tuple[int, ...], ...]:
        """Returns the labels along each axis of attention weights as they come out."""
        found = positions.axes_of(value)
        apart = self._layouts.told_apart(value)
        if apart is None or apart.parts is None:
            return tuple(found)
        own = found[apart.axis]
        told = len(own) == len(apart.parts)
        parts = [(label,) for label in own] if told else [()] * len(apart.parts)
        return (*found[: apart.axis], *parts, *found[apart.axis + 1 :])

    def weights(self, ref: TensorRef) -> Weights:
        """Returns the attention weights that a node makes."""
        return self._weights[self._nodes[str(ref.path)]]

    def told_apart(self, value: ir.Value) -> Apart | None:
        """Says how samples are told apart that a tensor joins with other positions along an axis.

        That is how activations and attention weights come out; None where there is nothing to do.
        """
        return self._layouts.told_apart(value)

    def parts_of(self, ref: TensorRef) -> Apart | None:
        """Says how tensors are told apart whose samples are joined with heads or frames.

        That is of attention weights and of maps: gradients at them are of the tensors told apart;
        those at other tensors are of the tensors as they are.
        """
        if ref.is_of_states:
            return None
        value = self.value(ref)
        has = ref.is_attention or (not ref.is_input and self._is_map_of_frames(value))
        apart = self.told_apart(value) if has else None
        return None if apart is None or apart.parts is None else apart

    def taken(self, output: PlainOutput) -> ir.Value:
        """Returns the value of the graph that an output without gradient gives out."""
        if output.probe.of_weights:
            return self.weights(output.ref).value
        if output.probe.of_states and is_loop(self._nodes[str(output.ref.path)]):
            return self._states.of_loop(self._nodes[str(output.ref.path)])[output.ref.position]
        return self.value(output.ref)

    def has_scores(self, position: int) -> bool:
        """Tells whether an output comes out of a softmax or sigmoid, which has scores before it."""
        return self._scores(position) is not None

    def _scores(self, position: int) -> ir.Value | None:
        before = scores_of(self.graph.outputs[position])
        if before is None or before not in self._varying or before.shape is None:
            return None
        return before

    @functools.cached_property
    def starts(self) -> Sequence[Start]:
        """The first floating tensors that are made from whole numbers of the inputs."""
        labels = {value: str(ref.path) for value, ref in self._refs.items()}
        has_samples = self._layouts.has_samples
        return first_floats.starts(self.graph, self.inputs, self._refs, labels, has_samples)

    def holds_ids(self, position: int) -> bool:
        """Tells whether the numbers of a floating input are cut to whole ones before a look-up."""
        return position in first_floats.cut_to_whole(self.graph, self.inputs).values()

    def sorts_into_bins(self, position: int) -> bool:
        """Tells whether the numbers of an input of whole numbers are sorted into bins."""
        return first_floats.sorts_into_bins(self.graph, self.inputs[position])

    def compares(self, position: int) -> bool:
        """Tells whether whole numbers of an input are compared with stored numbers."""
        return first_floats.compares(self.graph, self.inputs, position)

    def paddings(self) -> Mapping[int, Padding]:
        """Returns the positions of inputs -> what says where they are padding, where known."""
        return self._paddings

    def longest(self) -> Mapping[int, int]:
        """Returns the positions of inputs -> the most steps that they may have, where known."""
        return longest(self.graph, self.inputs)

    def shortest(self) -> Mapping[int, tuple[int | None, ...]]:
        """Returns the positions of inputs -> the fewest entries of each axis, where known."""
        return shortest(self.graph, self.inputs)

    @functools.cached_property
    def _paddings(self) -> Mapping[int, Padding]:
        constants = constants_compared(self.graph)
        return paddings(self.graph, self.fed(self.inputs, constants), constants)

    def inputs_of(self, ref: TensorRef) -> list[str]:
        """Returns the names of the inputs that a tensor is computed from."""
        before = ancestors_of([self.value(ref)])
        named = zip(self.input_names, self.inputs, strict=True)
        return [name for name, value in named if value in before]

    def runs_backwards(self, ref: TensorRef) -> bool:
        """Tells whether positions of a tensor stand in the opposite order of an input's."""
        return self.value(ref) in self._turned

    @functools.cached_property
    def _turned(self) -> frozenset[Hashable]:
        return turned_values(self.graph, self.inputs)

    def is_embedding(self, ref: TensorRef) -> bool:
        """Tells whether a tensor is looked up in a stored table."""
        return is_embedding(self._nodes[str(ref.path)])

    def inside_attention(self, point: ProbePoint) -> bool:
        """Tells whether a node stands between the scores of attention and its weighted sum."""
        return any(point.layer in w.inside for w in self._weights.values())

    # -- what is differentiated ------------------------------------------------------------

    def end(self, target: TargetPlan) -> ir.Value:
        """Returns the value that a target is taken from.

        Raises:
            InstrumentError: it is a callable.
        """
        if target.function is not None:
            raise InstrumentError(
                f"the target {target.spec.name} is a callable, which an ONNX model cannot call; "
                "use a class index, 'argmax', 'input' or a tuple with an index or None an axis."
            )
        if target.ref is not None:
            return self.value(target.ref)
        scores = self._scores(target.position) if target.spec.logits else None
        return self.graph.outputs[target.position] if scores is None else scores

    def made_by(self, position: int) -> str:
        """Says in a sentence which operation made an output that holds no floating numbers."""
        value = self.graph.outputs[position]
        node = value.producer()
        while node is not None and node.op_type in ("Identity", "Cast") and node.inputs[0]:
            if is_float(node.inputs[0]):
                break
            node = node.inputs[0].producer()
        if node is None:
            return "It is an input as it is."
        return f"It is made by {key_of(node)} {node.name!r}."

    def explainable_in_part(self, position: int) -> bool:
        """Tells whether some output can be differentiated by an input."""
        return self.inputs[position] in self._reached

    def flows(self, ref: TensorRef, end: Any) -> bool:
        """Tells whether a gradient flows from an end back to a tensor."""
        return any(is_float(v) and end in self._influenced(v) for v in self.values(ref))

    def depends(self, ref: TensorRef, end: Any) -> bool:
        """Tells whether the numbers of an end depend on a tensor, in whichever way."""
        return any(
            (ref.is_input or is_float(v)) and end in depending_on(self.graph, [v])
            for v in self.values(ref)
        )

    def depends_beside(self, position: int, refs: Sequence[TensorRef], end: Any) -> bool:
        """Tells whether an end depends on an input by other ways than some tensors."""
        made = [v.producer() for ref in refs for v in self.values(ref)]
        sizes = [node for node in self.graph if node.op_type in first_floats.SIZES]
        skip = {node for node in (*made, *sizes) if node is not None}
        return end in depending_on(self.graph, [self.inputs[position]], skip)

    def values(self, ref: TensorRef) -> Sequence[ir.Value]:
        """Returns what a reference means: of a state over time, all that its steps give out."""
        return self._nodes[str(ref.path)].outputs if ref.is_of_states else [self.value(ref)]

    def _influenced(self, value: ir.Value) -> set[ir.Value]:
        if value not in self._influences:
            self._influences[value] = influenced_by(self.graph, [value], BLOCKING)
        return self._influences[value]

    @functools.cached_property
    def _influences(self) -> dict[ir.Value, set[ir.Value]]:
        return {}

    def blocked_at(self, ref: TensorRef, end: Any) -> set[tuple[str, str]]:
        """Returns operators, and their nodes, that stop a gradient between the two."""
        stopped = obstacles(self.graph, list(self.values(ref)), [end], BLOCKING)
        return {(r.op_type, r.nodes[0] if r.nodes else "") for r in stopped}

    def redefined_at(self, ref: TensorRef, end: Any) -> list[str]:
        """Returns nothing: an ONNX file holds no gradients of its own."""
        del ref, end
        return []

    def last_on_the_way(self, refs: Sequence[TensorRef], end: Any) -> list[TensorRef]:
        """Returns those of some tensors that a gradient from an end reaches before the others."""
        maps = {self.value(ref): ref for ref in refs}
        reached, behind = {end}, set()
        for node in reversed(list(self.graph)):
            ends = [v for v in node.outputs if v in reached]
            if not ends or key_of(node) in BLOCKING:
                continue
            passed = any(v in behind or v in maps for v in ends)
            for value in inputs_of(node):
                if is_float(value):
                    reached.add(value)
                    if passed:
                        behind.add(value)
        return [ref for value, ref in maps.items() if value in reached and value not in behind]

    def holding_scores(self, refs: Sequence[TensorRef], end: Any) -> set[TensorRef]:
        """Returns those of some tensors that are an end itself, moved or resized at most."""
        held, value = {end}, end
        while (node := value.producer()) is not None and node.op_type in _MOVING:
            value = node.inputs[0]
            held.add(value)
        return {ref for ref in refs if self.value(ref) in held}

    def seen_at_one_position(self, refs: Sequence[TensorRef], end: Any) -> set[TensorRef]:
        """Returns those of some tensors of which a target sees one position along some axis."""
        inputs = [(v, *batch_and_channel(self._layouts.axes(v))) for v in self.inputs]
        single = axes_seen_at_one_entry(follow_graph(self.graph, inputs, {}), end)
        return {
            ref
            for ref in refs
            if single.get(value := self.value(ref), set())
            & set(position_axes(self._layouts.axes(value)))
        }

    # -- random numbers --------------------------------------------------------------------

    def check_outputs_not_random(self) -> None:
        """Refuses a model whose outputs are drawn at random.

        Raises:
            InstrumentError: one is.
        """
        for name, value in zip(self.output_names, self.graph.outputs, strict=True):
            self._refuse_draw(value, f"output {name!r}")

    def check_not_random(self, points: Sequence[ProbePoint]) -> None:
        """Refuses points whose values are drawn at random.

        Raises:
            InstrumentError: one is.
        """
        for point in points:
            node = self._nodes.get(point.path)
            for value in node.outputs if node is not None else ():
                self._refuse_draw(value, f"node {point.name!r}")

    def _refuse_draw(self, value: ir.Value, what: str) -> None:
        if value in self._random:
            before = ancestors_of([value])
            inner = [*self.graph, *self._inside]
            drawn = next(n for n in inner if draws(n) and set(n.outputs) & (before | {value}))
            raise InstrumentError(
                f"{what} is drawn at random, by {drawn.op_type} {drawn.name!r}: each run draws "
                "anew, which no artefact can agree with. Export the model without it (for "
                "inference), or give the numbers as an input."
            )


def _behind_scope(path: str, loop: str) -> str:
    """Returns a path without the scopes that it shares with those of a loop, or with its path."""
    names, around = path.split("/"), loop.split("/")
    shared = 0
    while shared < min(len(names) - 1, len(around)) and names[shared] == around[shared]:
        shared += 1
    return "/".join(names[shared:])


def _floats_first(node: ir.Node) -> list[ir.Value]:
    """Returns the outputs of a node in the order of its point: those of floating numbers first."""
    listed = [v for v in node.outputs if v.name and is_float(v) and v.shape is not None]
    return [*listed, *(v for v in node.outputs if v not in listed)]


def _windows(count: int) -> list[str]:
    return [WINDOW] if count == 1 else [f"{WINDOW}_{i}" for i in range(count)]
