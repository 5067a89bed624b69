"""The scores of an ONNX file with some of its tensors moved, by onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from probegen.graph.core.builder import Builder
from probegen.graph.core.marks import without_marks
from probegen.graph.core.queries import QUANTISING, depending_on, inputs_of
from probegen.graph.core.values import dtype_of
from probegen.plan.plan import NUDGE, STATE, GradientGroup, Plan, TensorRef
from probegen.sources.onnx import nudges
from probegen.sources.onnx.held_masks import UnmovedMasks, feed_masks
from probegen.sources.onnx.loading import Original
from probegen.sources.onnx.names import name_all
from probegen.sources.onnx.reading import OnnxModel
from probegen.sources.onnx.running import Runner
from probegen.sources.onnx.view import OnnxView

Array = npt.NDArray[Any]

#: Operators whose slope is 0 but which the gradient passes, as if they were not there.
_STRAIGHT_THROUGH = frozenset({"QuantizeLinear", "DequantizeLinear"})
_DOUBLE = ir.TensorType(ir.DataType.DOUBLE)
_SHIFT, _STATE = "probegen_shift_", "probegen_state_"


class OnnxMovedScores:
    """Moves tensors of the original file and looks at its scores; see `sources.base.MovedScores`.

    Where the file has no such tensor or scores (they are within an operator that was taken
    apart), the prepared graph stands in for it, without any gradient of ours.
    """

    def __init__(self, read: OnnxModel, view: OnnxView, plan: Plan) -> None:
        self._view, self._groups = view, plan.groups
        self.refs = list(plan.refs)
        self._opset = read.opset
        self._of_states = [ref for ref in self.refs if ref.is_of_states]
        own = [ref for ref in self.refs if not ref.is_input and not ref.is_of_states]
        self._inner = [*own, *self._of_states]
        self._values = [view.value(ref) for ref in own]
        self._ends = [view.end(group.target) for group in plan.groups]
        model = original_with(read, [str(v.name) for v in (*self._values, *self._ends)])
        if model is None or self._of_states:
            model = read.model.clone()
        self._tensors = [str(v.name) for v in self._values]
        self._tensors += [f"{_STATE}{i}" for i in range(len(self._of_states))]
        self._ranks = [0 if v.shape is None else len(v.shape) for v in self._values]
        self._ranks += [len(view.tensor(ref).shape) for ref in self._of_states]
        quantised = any(node.op_type in QUANTISING for node in view.graph)
        #: Whether what moves inner tensors keeps whole numbers from being computed as in the file.
        self.disturbs = quantised and bool(self._inner)
        tensors, lean = self._tensors, read.is_large
        self._model, self._lean = model.clone(), lean
        self._holding: dict[tuple[TensorRef, ...], tuple[_Opened, UnmovedMasks] | None] = {}
        still = _Opened(model.clone(), self.unmoved, tensors, lean=lean) if self.disturbs else None
        self._moving = _Opened(model, self.give_shifts, tensors, lean=lean)
        self._still = still or self._moving

    def at(
        self, feed: Mapping[str, Array], shifts: Mapping[TensorRef, Array]
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        """Returns the scores of each group, and the tensors before they are moved."""
        return self._run(self._moving if shifts else self._still, feed, shifts, {})

    def holding_masks(
        self, feed: Mapping[str, Array], shifts: Mapping[TensorRef, Array]
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        """Returns as `at` the scores where masks stay those of the unmoved tensors."""
        refs = tuple(shifts)
        if refs not in self._holding:
            self._holding[refs] = self._opened_holding(refs)
        holding = self._holding[refs]
        if holding is None:
            return self.at(feed, shifts)
        opened, masks = holding
        return self._run(opened, feed, shifts, masks.at(feed))

    def _opened_holding(self, refs: Sequence[TensorRef]) -> tuple[_Opened, UnmovedMasks] | None:
        """Returns a copy of the model that is fed masks, and what computes them; None without."""
        masks: list[str] = []

        def prepare(model: ir.Model) -> tuple[Any, list[ir.Value]]:
            moved, ends = self.give_shifts(model)
            values = values_by_name(model.graph)
            names = self._view.input_names
            at = [values[names[r.position]] if r.is_input else moved[r] for r in refs]
            masks[:] = feed_masks(model.graph, at)
            return moved, ends

        prepare(self._model.clone())
        if not masks:
            return None
        opened = _Opened(self._model.clone(), prepare, self._tensors, lean=self._lean)
        return opened, UnmovedMasks(self._model.clone(), masks, lean=self._lean)

    def _run(
        self,
        opened: _Opened,
        feed: Mapping[str, Array],
        shifts: Mapping[TensorRef, Array],
        masks: Mapping[str, Array],
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        tensors = {
            ref: np.asarray(feed[self._view.input_names[ref.position]])
            for ref in self.refs
            if ref.is_input
        }
        fed, more = self.moved_feed(feed, shifts)
        found = opened.runner.run({**fed, **more, **masks}, [*opened.scores, *self._tensors])
        scores = [g.target.arranged(s) for s, g in zip(found, self._groups, strict=False)]
        for ref, value in zip(self._inner, found[len(self._groups) :], strict=True):
            apart = self._view.parts_of(ref)
            tensors[ref] = value if apart is None else apart.apart(value, feed)
        return scores, tensors

    def moved_feed(
        self, feed: Mapping[str, Array], shifts: Mapping[TensorRef, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Returns the inputs with their shifts, and the shifts of inner tensors by input name."""
        fed = {name: np.asarray(value) for name, value in feed.items()}
        for ref, shift in shifts.items():
            if ref.is_input:
                name = self._view.input_names[ref.position]
                fed[name] = (fed[name].astype(np.float64) + shift).astype(fed[name].dtype)
        more = {
            f"{_SHIFT}{i}": _of_rank(self._joined(ref, shifts.get(ref, np.zeros(()))), rank)
            for i, (ref, rank) in enumerate(zip(self._inner, self._ranks, strict=True))
        }
        return fed, more

    def _joined(self, ref: TensorRef, shift: Array) -> Array:
        apart = self._view.parts_of(ref)
        return shift if apart is None or not np.ndim(shift) else apart.joined(shift)

    def give_shifts(
        self, model: ir.Model, *, differentiated: bool = False
    ) -> tuple[dict[TensorRef, ir.Value], list[ir.Value]]:
        """Puts inputs that are added in the place of inner tensors of a copy of the model.

        Args:
            model: the copy.
            differentiated: of states over time, have what gradients are taken at by zeros that
                nothing adds, in the place of the states moved step by step.

        Returns:
            Tensor -> the value that stands in for it, and the scores of each group. A tensor that
            is moved may be the scores themselves.
        """
        moved = _give_shifts(model, self._values)
        standing = {value.name: new for value, new in zip(self._values, moved, strict=True)}
        found = dict(zip(self._inner, moved, strict=False))
        found |= self._give_states(model, differentiated=differentiated)
        values = values_by_name(model.graph)
        ends = [standing.get(end.name) or values[end.name] for end in self._ends]
        return found, ends

    def unmoved(
        self, model: ir.Model, *, differentiated: bool = False
    ) -> tuple[dict[TensorRef, ir.Value], list[ir.Value]]:
        """Returns as `give_shifts` the tensors of a copy of the model, which nothing moves."""
        found = self._give_states(model, differentiated=differentiated)
        values = values_by_name(model.graph)
        found |= {ref: values[v.name] for ref, v in zip(self._inner, self._values, strict=False)}
        return found, [values[end.name] for end in self._ends]

    def _give_states(self, model: ir.Model, *, differentiated: bool) -> dict[TensorRef, ir.Value]:
        """Lets states over time be moved, or differentiated at; see `give_shifts`.

        What is added to a state, and the state, are called as outputs of the model are to be.
        """
        graph = model.graph
        by_node: dict[str, list[tuple[int, TensorRef]]] = {}
        for i, ref in enumerate(self._of_states):
            by_node.setdefault(str(ref.path), []).append((i, ref))
        found: dict[TensorRef, ir.Value] = {}
        for path, places in by_node.items():
            values = values_by_name(graph)
            name = next(v.name for v in self._view.node(path).outputs if v.name)
            node = values[name].producer()
            assert node is not None
            b = Builder(graph, self._opset)
            added: dict[int, ir.Value] = {}
            for i, ref in places:
                if ref.made == NUDGE:
                    found[ref], moved = self._moved_zeros(b, node, i, ref)
                    inside = found[ref] if differentiated else moved
                    added[ref.position] = b.transpose(inside, self._back(ref))
            if differentiated:
                for number, nudge in added.items():
                    nudges.give(b, node, number, nudge)
                b.insert_before(node)
                continue
            states = nudges.add(b, node, added)
            for i, ref in places:
                if ref.made == STATE:
                    order = self._view.order_over_time(ref)
                    found[ref] = b.transpose(states[ref.position], order)
                    found[ref].name = f"{_STATE}{i}"
            b.attach()
        return found

    def _moved_zeros(
        self, b: Builder, node: ir.Node, number: int, ref: TensorRef
    ) -> tuple[ir.Value, ir.Value]:
        """Returns zeros for a state at all steps, `[batch, time, ...]`, and these with a shift."""
        place = len(self._values) + number
        shape = ir.Shape([None] * self._ranks[place])
        shift = ir.Value(name=f"{_SHIFT}{place}", type=_DOUBLE, shape=shape)
        b.graph.inputs.append(shift)
        zeros = nudges.zeros_over_time(b, node, ref.position)
        zeros = b.transpose(zeros, self._view.order_over_time(ref))
        zeros = b.op("Identity", zeros, shape=zeros)
        zeros.name = f"{_STATE}{number}"
        return zeros, b.op("Add", b.cast(zeros, ir.DataType.DOUBLE), shift, shape=zeros)

    def _back(self, ref: TensorRef) -> list[int]:
        order = self._view.order_over_time(ref)
        return [order.index(i) for i in range(len(order))]

    def is_held_back(self, group: GradientGroup, ref: TensorRef) -> bool:
        """Tells whether the gradient passes operators as if they were not there: quantisation."""
        end = self._ends[self._groups.index(group)]
        reached = depending_on(self._view.graph, self._view.values(ref))
        return end in reached and any(
            node.op_type in _STRAIGHT_THROUGH and any(v in reached for v in inputs_of(node))
            for node in self._view.graph
        )


class _Opened:
    """A copy of the model that gives scores and tensors.

    Attributes:
        runner: runs it.
        scores: names of the scores of each group.
    """

    def __init__(
        self,
        model: ir.Model,
        prepare: Callable[[ir.Model], tuple[Any, list[ir.Value]]],
        tensors: Sequence[str],
        *,
        lean: bool,
    ) -> None:
        # Where a score is marked, as what is rounded to steps, the runner has what the mark marks.
        self.scores = [str(without_marks(scores).name) for scores in prepare(model)[1]]
        predictions = list(model.graph.outputs)
        _make_outputs(model.graph, [*self.scores, *tensors])
        self.runner = Runner(model, predictions=predictions, lean=lean)


def _of_rank(shift: Array, rank: int) -> Array:
    return shift if np.ndim(shift) else np.full((1,) * rank, shift)


def original_with(read: OnnxModel, names: Sequence[str]) -> ir.Model | None:
    """Returns a copy of the original file where its graph makes some values, else None."""
    model = _copied(read.original)
    made = {v.name: v for node in model.graph for v in node.outputs}
    for node in read.model.graph:  # the file need not say the types of its inner tensors
        for value in node.outputs:
            same = made.get(value.name)
            if same is not None and same.type is None:
                same.type = value.type
    known = {*made, *model.graph.initializers, *(v.name for v in model.graph.inputs)}
    return model if all(name in known for name in names) else None


def copied_with_names(read: OnnxModel) -> ir.Model:
    """Returns a copy of the original file whose values have the names of the prepared graph."""
    model = _copied(read.original)
    name_all(model)
    return model


def _copied(original: Original) -> ir.Model:
    if isinstance(original, ir.Model):
        return original.clone()
    if isinstance(original, Path):
        return ir.load(original)
    return ir.from_proto(onnx.load_from_string(original))


def _give_shifts(model: ir.Model, known: Sequence[ir.Value]) -> list[ir.Value]:
    """Puts an input that is added in the place of some values; their own names stay with them.

    It is added in double precision: what is filled with a number is then filled with that number,
    and a model that asks whether it is there sees no rounding.
    """
    graph, found = model.graph, []
    values = values_by_name(graph)
    for i, like in enumerate(known):
        value = values[like.name]
        # Files do not say the types of inner values.
        value.type, value.shape = like.type, like.shape
        shift = ir.Value(
            name=f"{_SHIFT}{i}",
            type=_DOUBLE,
            shape=None if like.shape is None else ir.Shape([None] * len(like.shape)),
        )
        graph.inputs.append(shift)
        wide = ir.node("Cast", [value], {"to": ir.DataType.DOUBLE}, name=f"probegen/widen_{i}")
        added = ir.node("Add", [wide.outputs[0], shift], name=f"probegen/move_{i}")
        moved = ir.node("Cast", [added.outputs[0]], {"to": dtype_of(like)}, name=f"probegen/as_{i}")
        moved.outputs[0].name = f"probegen/moved_{i}"
        for node, kind in ((wide, _DOUBLE), (added, _DOUBLE), (moved, value.type)):
            node.outputs[0].type, node.outputs[0].shape = kind, value.shape
        producer = value.producer()
        value.replace_all_uses_with(moved.outputs[0], replace_graph_outputs=True)
        wide.replace_input_with(0, value)
        steps = [wide, added, moved]
        if producer is not None:
            graph.insert_after(producer, steps)
        else:  # a weight
            graph.insert_before(graph[0], steps)
        found.append(moved.outputs[0])
    return found


def _make_outputs(graph: ir.Graph, names: Sequence[str]) -> None:
    values = values_by_name(graph)
    graph.outputs[:] = [values[name] for name in dict.fromkeys(names)]


def values_by_name(graph: ir.Graph) -> dict[str | None, ir.Value]:
    """Returns the values of a graph itself by name."""
    return {
        **{v.name: v for node in graph for v in node.outputs},
        **{v.name: v for v in graph.inputs},
        **{v.name: v for v in graph.initializers.values()},
    }
