"""The scores of an ONNX file with some of its tensors moved, by onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from probegen.graph.core.queries import QUANTISING, depending_on, inputs_of
from probegen.graph.core.values import dtype_of
from probegen.plan.plan import GradientGroup, Plan, TensorRef
from probegen.sources.onnx.loading import Original
from probegen.sources.onnx.names import name_all
from probegen.sources.onnx.reading import OnnxModel
from probegen.sources.onnx.running import Runner
from probegen.sources.onnx.view import OnnxView

Array = npt.NDArray[Any]

#: Operators whose slope is 0 but which the gradient passes, as if they were not there.
_STRAIGHT_THROUGH = frozenset({"QuantizeLinear", "DequantizeLinear"})
_DOUBLE = ir.TensorType(ir.DataType.DOUBLE)
_SHIFT = "probegen_shift_"


class OnnxMovedScores:
    """Moves tensors of the original file and looks at its scores; see `sources.base.MovedScores`.

    Where the file has no such tensor or scores (they are within an operator that was taken
    apart), the prepared graph stands in for it, without any gradient of ours.
    """

    def __init__(self, read: OnnxModel, view: OnnxView, plan: Plan) -> None:
        self._view, self._groups = view, plan.groups
        self.refs = list(plan.refs)
        self._inner = [ref for ref in self.refs if not ref.is_input]
        self._ends = [view.end(group.target) for group in plan.groups]
        wanted = [*(view.value(ref) for ref in self._inner), *self._ends]
        model = original_with(read, [str(v.name) for v in wanted])
        if model is None:
            model = read.model.clone()
        self._tensors = [str(view.value(ref).name) for ref in self._inner]
        quantised = any(node.op_type in QUANTISING for node in view.graph)
        #: Whether what moves inner tensors keeps whole numbers from being computed as in the file.
        self.disturbs = quantised and bool(self._inner)
        tensors, lean = self._tensors, read.is_large
        still = _Opened(model.clone(), self.unmoved, tensors, lean=lean) if self.disturbs else None
        self._moving = _Opened(model, self.give_shifts, tensors, lean=lean)
        self._still = still or self._moving
        ranks = [o.shape for o in (view.value(ref) for ref in self._inner)]
        self._ranks = [0 if s is None else len(s) for s in ranks]

    def at(
        self, feed: Mapping[str, Array], shifts: Mapping[TensorRef, Array]
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        """Returns the scores of each group, and the tensors before they are moved."""
        tensors = {
            ref: np.asarray(feed[self._view.input_names[ref.position]])
            for ref in self.refs
            if ref.is_input
        }
        fed, more = self.moved_feed(feed, shifts)
        opened = self._moving if shifts else self._still
        found = opened.runner.run({**fed, **more}, [*opened.scores, *self._tensors])
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

    def give_shifts(self, model: ir.Model) -> tuple[dict[TensorRef, ir.Value], list[ir.Value]]:
        """Puts inputs that are added in the place of inner tensors of a copy of the model.

        Returns:
            Tensor -> the value that stands in for it, and the scores of each group. A tensor that
            is moved may be the scores themselves.
        """
        inner = [self._view.value(ref) for ref in self._inner]
        values = values_by_name(model.graph)
        moved = _give_shifts(model, inner)
        standing = {value.name: new for value, new in zip(inner, moved, strict=True)}
        ends = [standing.get(end.name) or values[end.name] for end in self._ends]
        return dict(zip(self._inner, moved, strict=True)), ends

    def unmoved(self, model: ir.Model) -> tuple[dict[TensorRef, ir.Value], list[ir.Value]]:
        """Returns as `give_shifts` the tensors of a copy of the model, which nothing moves."""
        values = values_by_name(model.graph)
        standing = {ref: values[self._view.value(ref).name] for ref in self._inner}
        return standing, [values[end.name] for end in self._ends]

    def is_held_back(self, group: GradientGroup, ref: TensorRef) -> bool:
        """Tells whether the gradient passes operators as if they were not there: quantisation."""
        end, start = self._ends[self._groups.index(group)], self._view.value(ref)
        reached = depending_on(self._view.graph, [start])
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
        self.scores = [str(scores.name) for scores in prepare(model)[1]]
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
