"""Reference for artefacts of ONNX files: what their outputs should be.

Predictions, activations and attention weights are those of the original file in onnxruntime, which
runs a quantised file as it is written (see `running`).
Gradients have no second implementation to be compared with: they are written once more, without
any of the passes, and methods are computed from them by numpy; and what decides is that they
agree with differences of the original file's own scores (see `parity.differences`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from probegen.artefact.manifest import GROUPS_INPUT, PRECISIONS
from probegen.errors import VerificationError
from probegen.graph.core.marks import MARK_DOMAIN
from probegen.graph.core.queries import QUANTISING, is_float
from probegen.graph.core.values import shape_of
from probegen.graph.differentiate import COTANGENT, write_vector_jacobian_product
from probegen.graph.passes.after.write_vectors_as_columns import faults_with_vectors
from probegen.methods.base import resized
from probegen.methods.numpy_operations import NumpyOperations
from probegen.methods.samples import NumpyWalk
from probegen.plan.plan import (
    GradientGroup,
    GradientOutput,
    PlainOutput,
    Plan,
    TensorRef,
    moved_together,
    samples_of,
)
from probegen.plan.raw_gradients import with_raw_gradients
from probegen.sources.base import DirectReference, Noise
from probegen.sources.changed_scores import (
    ScoresAt,
    attribution_by_scores,
    scores_by_moving,
)
from probegen.sources.class_by_class import class_by_class
from probegen.sources.onnx.bodies_by_steps import BodiesBySteps
from probegen.sources.onnx.held_masks import UnmovedMasks, feed_masks
from probegen.sources.onnx.known_words import known_words
from probegen.sources.onnx.loading import Original
from probegen.sources.onnx.loop_bodies import OverSteps
from probegen.sources.onnx.moved_scores import (
    OnnxMovedScores,
    original_with,
    values_by_name,
)
from probegen.sources.onnx.reading import OnnxModel
from probegen.sources.onnx.running import Runner
from probegen.sources.onnx.stepwise import computed_operands, states_by_steps
from probegen.sources.onnx.view import OnnxView
from probegen.stages import cause

Array = npt.NDArray[Any]

#: Functions that compute with numbers near 1, and of how many roundings of 1 they are uncertain.
#: onnxruntime's sigmoid is computed as (1 + tanh x) / 2 is: a probability of 4e-5 moves by 1.8e-7
#: from one level of optimisation to the other, and under a rounding of the input.
_NEAR_ONE = {"Sigmoid": 4.0, "Tanh": 4.0, "Erf": 4.0} | dict.fromkeys(
    ("Softmax", "LogSoftmax", "Softplus"), 1.0
)
#: Up to which share of the largest number predictions of a quantised file are called the same.
_QUANTISED_ALIKE = 1e-4
_HANDS_ON = frozenset(
    {"Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Gather", "Neg"}
    | {"Concat", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "Flatten"}
)


@dataclasses.dataclass(frozen=True)
class _Twin:
    """The gradient of a group's scores as a graph of its own.

    Attributes:
        runner: runs it.
        names: tensor -> what its gradient is called.
        masks: what computes the masks that it is fed, where it is fed some.
    """

    runner: Runner
    names: Mapping[TensorRef, str]
    masks: UnmovedMasks | None


class OnnxReference(DirectReference):
    """Answers what the outputs for some inputs should be; see `sources.base.Reference`."""

    gradients_by = "the gradient written a second time, without passes"
    begins_inside = False  # the second gradient runs where the artefact does

    def __init__(self, read: OnnxModel, view: OnnxView, plan: Plan) -> None:
        self._read, self._view, self._asked = read, view, plan
        self.plan, self._raw = with_raw_gradients(plan)
        self._original = self._runner(read.original, without=faults_with_vectors(read.model.graph))
        values = [*view.inputs, *(v for node in view.graph for v in node.outputs)]
        sizes = [d for v in values for d in shape_of(v) or ()]
        self.sizes = frozenset(d for d in sizes if isinstance(d, int))
        used = {str(v.dtype.numpy()) for v in values if v.dtype is not None and is_float(v)}
        known = [p for p in PRECISIONS if p in used]
        self.computed_in = known[-1] if known else "float32"
        self.words = known_words(view.graph, view.inputs)

    def _runner(
        self,
        model: Original,
        predictions: Sequence[ir.Value] = (),
        without: Sequence[str] = (),
    ) -> Runner:
        lean = self._read.is_large
        return Runner(model, predictions=predictions, lean=lean, without=without)

    # -- what the model answers ------------------------------------------------------------

    def shares_gradients_with(self, engine: str) -> bool:
        """Tells whether an engine runs these very gradients: each does."""
        del engine
        return True

    def predictions(self, feed: Mapping[str, Array], times: int = 1) -> list[dict[str, Array]]:
        """Returns what the original file predicts in onnxruntime."""
        names = self._view.output_names
        return [
            dict(zip(names, self._original.run(feed, names), strict=True)) for _ in range(times)
        ]

    def explanations(
        self, feed: Mapping[str, Array], target: Array | None, noise: Noise | None = None
    ) -> dict[str, Array]:
        """Returns all outputs of the plan.

        Noise is for what is fed alone.

        Raises:
            VerificationError: they cannot be computed for these inputs.
        """
        del noise
        try:
            found = dict(self.predictions(feed)[0])
            found.update(self._plain(feed))
            if self.plan.groups:
                unmoved = self._moved.at(feed, {})
                for group in self.plan.groups:
                    found.update(self._attributions(feed, group, target, *unmoved))
        except VerificationError:
            raise
        except Exception as error:
            raise VerificationError(
                f"the reference for {self._view.model['name']!r} cannot be computed on inputs of "
                f"the shapes {[list(v.shape) for v in feed.values()]}: {cause(error)} Other "
                "samples may work (samples=, --samples); verify=False (--no-verify) leaves the "
                "comparison out."
            ) from error
        for chain in self.plan.chains:
            parts = (*chain.weights, *chain.gradients)
            wide = {**found, **{name: found[name].astype(np.float64) for name in parts}}
            made = chain.made_of(NumpyOperations(), wide)
            made[chain.spec.name] = made[chain.spec.name].astype(chain.spec.dtype)
            found.update(made)
        return {o.name: found[o.name] for o in self.plan.manifest.outputs}

    def without_rounding(self, feed: Mapping[str, Array], target: Array | None) -> dict[str, Array]:
        """Returns nothing: the artefact's own rules, in onnxruntime as well, would compute it."""
        del feed, target
        return {}

    def with_coarse_sigmoids(
        self, feed: Mapping[str, Array], target: Array | None
    ) -> dict[str, Array]:
        """Returns nothing: file and artefact have the sigmoids of one engine."""
        del feed, target
        return {}

    def _plain(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        stepped = self._inside_loops(feed)
        own = [o for o in self.plan.plain if o.spec.name not in stepped]
        states = [o for o in own if o.probe.of_states]
        stepped.update(self._states(feed, states) if states else {})
        outputs = [o for o in own if not o.probe.of_states]
        if not outputs:
            return stepped
        found = self._values_runner.run(feed, [self._value_name(o) for o in outputs])
        ops = NumpyOperations()
        taken = {
            o.spec.name: self._told_apart(o, v, feed) for o, v in zip(outputs, found, strict=True)
        }
        return stepped | {
            o.spec.name: np.asarray(o.probe.payload(ops, taken[o.spec.name], o.axes)).astype(
                o.spec.dtype
            )
            for o in outputs
        }

    def _inside_loops(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Returns what is taken from the bodies of loops: these run one step at a time."""
        if not self._over_steps:
            return {}
        ops, values = NumpyOperations(), self._bodies.run(feed)
        made: dict[str, Array] = {}
        for output, over in self._over_steps:
            value = values[str(over.value.name)]
            if over.apart is not None and over.apart.parts is not None:
                value = over.apart.apart(value, feed)
            payload = output.probe.payload(ops, value.transpose(over.order), output.axes)
            made[output.spec.name] = np.asarray(payload).astype(output.spec.dtype)
        return made

    @functools.cached_property
    def _over_steps(self) -> list[tuple[PlainOutput, OverSteps]]:
        found = ((o, self._view.over_steps(o)) for o in self.plan.plain)
        return [(o, over) for o, over in found if over is not None]

    @functools.cached_property
    def _bodies(self) -> BodiesBySteps:
        wanted = [over for _, over in self._over_steps]
        return BodiesBySteps(self._read, wanted, self._runner)

    def _states(
        self, feed: Mapping[str, Array], outputs: Sequence[PlainOutput]
    ) -> dict[str, Array]:
        """Returns states over time: the operator itself run one step at a time."""
        nodes = {str(o.ref.path): self._view.node(str(o.ref.path)) for o in outputs}
        needed = [v for node in nodes.values() for v in computed_operands(node)]
        names = [str(v.name) for v in needed]
        fed = dict(zip(names, self._values_runner.run(feed, names), strict=True)) if names else {}
        made = {
            path: states_by_steps(node, {**feed, **fed}, self._read.opset)
            for path, node in nodes.items()
        }
        return {
            o.spec.name: made[str(o.ref.path)][o.ref.position][o.ref.operation].astype(o.spec.dtype)
            for o in outputs
        }

    def _told_apart(self, output: PlainOutput, value: Array, feed: Mapping[str, Array]) -> Array:
        """Returns `[batch*heads, ...]` as `[batch, heads, ...]`."""
        apart = self._view.told_apart(self._view.taken(output))
        return value if apart is None or apart.parts is None else apart.apart(value, feed)

    def _value_name(self, output: PlainOutput) -> str:
        return str(self._view.taken(output).name)

    @functools.cached_property
    def _values_runner(self) -> Runner:
        """The original file with what is taken from it among its outputs."""
        inside = {o.spec.name for o, _ in self._over_steps}
        plain, wanted = [o for o in self.plan.plain if o.spec.name not in inside], list[str]()
        wanted += [self._value_name(o) for o in plain if not o.probe.of_states]
        nodes = [self._view.node(str(o.ref.path)) for o in plain if o.probe.of_states]
        wanted += [str(v.name) for node in nodes for v in computed_operands(node)]
        names = list(dict.fromkeys(wanted))
        model = original_with(self._read, names) or self._read.model.clone()
        values, outputs = values_by_name(model.graph), model.graph.outputs
        predictions = list(outputs)
        taken = {v.name for v in predictions}
        outputs.extend(values[name] for name in names if name not in taken)
        return self._runner(model, predictions)

    # -- gradients -------------------------------------------------------------------------

    def _attributions(
        self,
        feed: Mapping[str, Array],
        group: GradientGroup,
        target: Array | None,
        scores: Sequence[Array],
        tensors: Mapping[TensorRef, Array],
    ) -> dict[str, Array]:
        place = self._places[group.target]
        return class_by_class(
            group,
            scores[place],
            target,
            feed,
            lambda seeds: self._attributions_of(feed, group, place, seeds, tensors),
        )

    def _attributions_of(
        self,
        feed: Mapping[str, Array],
        group: GradientGroup,
        place: int,
        seeds: Sequence[Array],
        tensors: Mapping[TensorRef, Array],
    ) -> list[dict[str, Array]]:
        """Returns the attributions of each class."""
        inputs = [s for s in self.plan.manifest.inputs if s.name in self._view.input_names]
        at = ScoresAt(scores_by_moving(self._moved.at, place, tensors), feed, inputs)
        by_scores = {
            o.spec.name: attribution_by_scores(o, tensors, at, seeds, feed.get(GROUPS_INPUT))
            for o in group.outputs
            if o.moves
        }
        each = []
        for entry, seed in enumerate(seeds):
            made = self._by_gradients(feed, group, place, seed, tensors)
            made.update((name, found[entry]) for name, found in by_scores.items())
            each.append(
                {o.spec.name: self._sized(o, made[o.spec.name], feed) for o in group.outputs}
            )
        return each

    def _sized(self, output: GradientOutput, made: Array, feed: Mapping[str, Array]) -> Array:
        """Returns an attribution of one class in the sizes that it is to have."""
        sized = output.sized_by(feed, self._view.input_names)
        return np.asarray(resized(NumpyOperations(), made, sized)).astype(output.spec.dtype)

    def _by_gradients(
        self,
        feed: Mapping[str, Array],
        group: GradientGroup,
        place: int,
        seed: Array,
        tensors: Mapping[TensorRef, Array],
    ) -> dict[str, Array]:
        """Returns what methods make of gradients, of one class."""
        ops = NumpyOperations()
        taken = [o for o in group.outputs if o.probe.needs_gradient]
        here = [o for o in taken if o.probe.gradients_at() is None]
        refs = list(dict.fromkeys(o.ref for o in here))
        by_ref = self._gradients(feed, place, seed, refs, {}) if refs else {}
        flow = {o.spec.name: tensors[o.value].astype(np.float64) for o in group.outputs}
        flow.update((o.spec.name, by_ref[o.ref]) for o in here)
        for outputs in moved_together(group):
            flow.update(self._sampled(feed, place, seed, outputs, tensors))
        return {
            o.spec.name: np.asarray(
                o.probe.attribution(
                    ops,
                    flow[o.spec.name],
                    tensors[o.value].astype(np.float64),
                    o.axes,
                    o.padded_by(feed, self._view.input_names),
                )
            )
            for o in group.outputs
            if not o.moves
        }

    def _sampled(
        self,
        feed: Mapping[str, Array],
        place: int,
        seed: Array,
        outputs: Sequence[GradientOutput],
        tensors: Mapping[TensorRef, Array],
    ) -> dict[str, Array]:
        """Returns what methods make of the gradients at all points."""
        walks = [
            NumpyWalk(samples, tensors[o.ref], o.place)
            for o, samples in zip(outputs, samples_of(outputs), strict=True)
        ]
        first = {o.ref: walk for o, walk in reversed(list(zip(outputs, walks, strict=True)))}
        for there in zip(*(walk.points() for walk in first.values()), strict=True):
            points = dict(zip(first, there, strict=True))
            shifts = {ref: point.at - point.value for ref, point in points.items()}
            found = self._gradients(feed, place, seed, list(points), shifts)
            for o, walk in zip(outputs, walks, strict=True):
                walk.add(found[o.ref], points[o.ref])
        return {o.spec.name: walk.finished() for o, walk in zip(outputs, walks, strict=True)}

    def _gradients(
        self,
        feed: Mapping[str, Array],
        place: int,
        seed: Array,
        refs: Sequence[TensorRef],
        shifts: Mapping[TensorRef, Array],
    ) -> dict[TensorRef, Array]:
        """Returns the gradients of one group's scores at moved tensors, in float64."""
        cotangent = self._asked.groups[place].target.restored(seed)
        moves = bool(shifts) or not self._moved.disturbs
        twin = self._twin(place, moves=moves, moving=tuple(shifts))
        fed, more = self._moved.moved_feed(feed, shifts)
        held = twin.masks.at(feed) if twin.masks is not None else {}
        found = twin.runner.run(
            {**fed, **more, **held, f"{COTANGENT}/scores": cotangent}, [twin.names[r] for r in refs]
        )
        parts = [self._view.parts_of(ref) for ref in refs]
        told = [g if p is None else p.apart(g, feed) for g, p in zip(found, parts, strict=True)]
        return {r: g.astype(np.float64) for r, g in zip(refs, told, strict=True)}

    @functools.cached_property
    def _places(self) -> dict[Any, int]:
        return {group.target: i for i, group in enumerate(self._asked.groups)}

    @functools.cached_property
    def _moved(self) -> OnnxMovedScores:
        return OnnxMovedScores(self._read, self._view, self._asked)

    def _twin(self, place: int, *, moves: bool, moving: tuple[TensorRef, ...]) -> _Twin:
        """Returns the gradient of a group's scores as a graph of its own, with shifts if asked."""
        key = (place, moves, moving)
        if key not in self._twins:
            self._twins[key] = self._written_twin(place, moves=moves, moving=moving)
        return self._twins[key]

    @functools.cached_property
    def _twins(self) -> dict[tuple[int, bool, tuple[TensorRef, ...]], _Twin]:
        return {}

    def _written_twin(self, place: int, *, moves: bool, moving: tuple[TensorRef, ...]) -> _Twin:
        group = self._asked.groups[place]
        model = self._read.model.clone()
        graph = model.graph
        prepare = self._moved.give_shifts if moves else self._moved.unmoved
        moved, scores = prepare(model, differentiated=True)
        values = values_by_name(graph)
        masks = feed_masks(graph, [moved.get(r) or values[self._name_of(r)] for r in moving])
        refs = list(dict.fromkeys(o.ref for o in group.outputs if o.probe.needs_gradient))
        at = {str(i): moved.get(ref) or values[self._name_of(ref)] for i, ref in enumerate(refs)}
        found = write_vector_jacobian_product(
            graph, self._read.opset, {"scores": scores[place]}, at
        )
        names, predictions = {}, list(graph.outputs)
        graph.outputs.clear()
        for i, ref in enumerate(refs):
            copy = ir.node("Identity", [found[str(i)]])
            copy.outputs[0].name = names[ref] = f"probegen/gradient_{i}"
            copy.outputs[0].type = found[str(i)].type or at[str(i)].type
            graph.append(copy)
            graph.outputs.append(copy.outputs[0])
        lean = self._read.is_large
        still = UnmovedMasks(self._read.model.clone(), masks, lean=lean) if masks else None
        return _Twin(self._runner(model, predictions), names, still)

    def _name_of(self, ref: TensorRef) -> str:
        return str(self._view.value(ref).name)

    def predictions_with(
        self, feed: Mapping[str, Array], weights: Mapping[str, Array]
    ) -> dict[str, Array] | None:
        """Returns None: weights are read in the original file, by the names of its own tensors."""
        del feed, weights
        return None

    def moved_scores(self) -> OnnxMovedScores | None:
        """Returns what moves tensors in the original file."""
        return self._moved

    # -- what may go wrong -----------------------------------------------------------------

    def computed_near(self, name: str) -> float:
        """Returns how many roundings of 1 an output's last function is uncertain of, else 0."""
        values = {v.name: v for v in self._view.graph.outputs}
        value = values.get(name)
        for _ in range(24):
            node = None if value is None else value.producer()
            if node is None or node.domain:
                return 0.0
            if node.op_type in _NEAR_ONE:
                return _NEAR_ONE[node.op_type]
            if node.op_type not in _HANDS_ON:
                return 0.0
            value = node.inputs[0]
        return 0.0

    def cause_of(self, error: Exception) -> str:
        """Returns on one line what an exception of onnxruntime says."""
        return cause(error)

    def cause_of_failure(self, feed: Mapping[str, Array]) -> str | None:
        """Says why the file cannot run on inputs, None where it can."""
        try:
            answers = self.predictions(feed)[0]
        except Exception as error:
            return cause(error)
        for name, value in answers.items():
            if value.size == 0:
                return f"output {name!r} has the empty shape {value.shape}."
        return None

    def remark(self, feed: Mapping[str, Array]) -> str:
        """Returns how far a quantised file is from itself, run operator by operator.

        onnxruntime joins operators to kernels of whole numbers, which round otherwise, and which
        ones it joins hangs on the graph around them.
        """
        if not any(n.op_type in QUANTISING for n in self._read.model.graph.all_nodes()):
            return ""
        names = self._view.output_names
        apart = Runner(self._read.original, lean=self._read.is_large, joined=False)
        pairs = zip(self._original.run(feed, names), apart.run(feed, names), strict=True)
        share = max((_share_apart(*pair) for pair in pairs), default=0.0)
        if share <= _QUANTISED_ALIKE:
            return ""
        return (
            "The file is quantised, and onnxruntime rounds it otherwise where it joins operators "
            "to kernels of whole numbers, which hangs on the graph around them: the predictions of "
            f"the file itself are {share:.1e} apart, as a part of the largest, from those of its "
            "operators one by one. Where the artefact is refused for as much, compile the model as "
            "it was before it was quantised; pg.quantise makes its artefact small."
        )

    def where_not_finite(self, feed: Mapping[str, Array]) -> str:
        """Says in sentences where the first value arises that is not finite."""
        for value in self._view.graph.initializers.values():
            array = None if value.const_value is None else value.const_value.numpy()
            if array is not None and array.dtype.kind in "fV":
                # Minus infinity is what masks hold; numpy knows no bfloat16.
                wide = array if array.dtype.kind == "f" else array.astype(np.float32)
                bad = int((np.isnan(wide) | np.isposinf(wide)).sum())
                if bad and array.size > 1:
                    return (
                        f"Its weight {value.name!r} holds {bad} values of {array.size} that are "
                        "NaN or infinite: export or train it again."
                    )
        model = self._read.model.clone()
        nodes = [n for n in model.graph if n.domain != MARK_DOMAIN]
        made = [v for n in nodes for v in n.outputs if v.name and is_float(v) and v.type]
        model.graph.outputs[:] = made
        try:
            found = Runner(model, lean=self._read.is_large).run(feed)
        except Exception as error:
            return f"A run of it to find out where ends in: {cause(error)}"
        for value, array in zip(made, found, strict=True):
            if not np.isfinite(array.astype(np.float64)).all():
                node = value.producer()
                kind = node.op_type if node is not None else ""
                return f"They first arise in node {node.name if node else ''!r} ({kind})."
        return "They arise in the gradient."


def _share_apart(one: Array, other: Array) -> float:
    """Returns how far two arrays are apart, as a part of the largest number; 0 for others."""
    if one.dtype.kind != "f" or one.shape != other.shape or not one.size:
        return 0.0
    pair = [a.astype(np.float64) for a in (one, other)]
    finite = np.isfinite(pair[0]) & np.isfinite(pair[1])
    largest = np.abs(pair[0][finite]).max(initial=0.0)
    return float(np.abs(pair[0] - pair[1])[finite].max(initial=0.0) / largest) if largest else 0.0
