"""The scores of a Keras model with some of its tensors moved, by forward passes alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from probegen.plan.plan import GradientGroup, Plan, TensorRef
from probegen.sources.base import Noise
from probegen.sources.keras.as_traced import run_as_traced
from probegen.sources.keras.dependencies import ancestors
from probegen.sources.keras.forward import forward_at, run_forward
from probegen.sources.keras.held_masks import held_operations, hold
from probegen.sources.keras.in_double import in_double
from probegen.sources.keras.keras_model import KerasModel
from probegen.sources.keras.rounding_noise import RoundingNoise
from probegen.sources.keras.trace import influenced_by
from probegen.sources.keras.traced_once import trace_once

Array = npt.NDArray[Any]

#: Operations that gradients do not pass.
_STOPPING = frozenset({"StopGradient", "PreventGradient"})


class KerasMovedScores:
    """Moves tensors of a model and looks at the scores; see `sources.base.MovedScores`."""

    def __init__(
        self, source: KerasModel, plan: Plan, coarser: frozenset[Any] | None = None
    ) -> None:
        """Traces the forward pass once, with a shift for every tensor that is differentiated by.

        Args:
            source: the model.
            plan: says which tensors these are.
            coarser: element types of inputs that are coarser than the model computes in, where
                the first floating tensors are to be moved by noise (`under`).
        """
        self._source = source
        self._groups = plan.groups
        self.refs = list(plan.refs)
        more = 0 if coarser is None else len(RoundingNoise.SPECS)
        specs = [
            *RoundingNoise.SPECS[:more],
            *source.input_specs,
            *(tf.TensorSpec(None, tf.float64) for _ in self.refs),
        ]

        hidden = {ref for group in plan.groups for o in group.outputs for ref, _ in o.moves}
        targets: list[Any] = []
        tensors: dict[TensorRef, Any] = {}
        moved: dict[TensorRef, Any] = {}

        def scores(*given: Any) -> Any:
            arguments = given[more:]
            noise = (
                None if coarser is None else RoundingNoise(given[0], given[1], given[2], coarser)
            )
            count = len(source.input_specs)
            flat, shifts = list(arguments[:count]), arguments[count:]
            stand_ins: dict[TensorRef, Callable[[Any], Any]] = {}
            at: dict[TensorRef, Any] = {}
            for ref, shift in zip(self.refs, shifts, strict=True):
                if ref.path is None and not ref.made:
                    at[ref] = flat[ref.position]
                    if flat[ref.position].dtype.is_floating or ref in hidden:
                        flat[ref.position] = _shifted(flat[ref.position], shift)
                else:
                    stand_ins[ref] = _mover(at, ref, shift)
            forward = run_forward(source, plan, flat, stand_ins, with_states=False, noise=noise)
            moved.update((ref, forward.tensor(ref)) for ref in self.refs)
            targets[:] = [forward.target(group.target) for group in plan.groups]
            tensors.update((ref, at.get(ref, tf.zeros([]))) for ref in self.refs)
            return targets, [tensors[ref] for ref in self.refs]

        self._scores = trace_once(scores, specs)
        self._graph, self._targets, self._tensors = self._scores.graph, targets, tensors
        self._plan, self._moved = plan, moved
        self._holding: dict[tuple[TensorRef, ...], Any] = {}

    def is_held_back(self, group: GradientGroup, ref: TensorRef) -> bool:
        """Tells whether the model stops some gradients on the way from a tensor to the score.

        What it asks for then is not the slope: a straight-through estimate is far from it.
        """
        reached = influenced_by(self._tensors[ref], self._graph)
        on_the_way = ancestors([self._targets[self._groups.index(group)]])
        return any(
            op.type in _STOPPING and any(id(t) in reached for t in op.inputs) for op in on_the_way
        )

    def at(
        self, feed: Mapping[str, Array], shifts: Mapping[TensorRef, Array]
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        """Returns the scores of each group, and the tensors before they are moved."""
        return self._run((), feed, shifts)

    def holding_masks(
        self, feed: Mapping[str, Array], shifts: Mapping[TensorRef, Array]
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        """Returns as `at` the scores where masks stay those of the unmoved tensors."""
        refs = tuple(shifts)
        if refs not in self._holding:
            held = held_operations(self._graph.get_operations(), [self._moved[r] for r in refs])
            self._holding[refs] = self._traced_holding(refs) if held else None
        if self._holding[refs] is None:
            return self.at(feed, shifts)
        moves = [tf.convert_to_tensor(shifts[ref], tf.float64) for ref in refs]
        scores, tensors = run_as_traced(self._holding[refs], *self._source.tensors(feed), *moves)
        values = {ref: np.asarray(t) for ref, t in zip(refs, tensors, strict=True)}
        return [np.asarray(s) for s in scores], values

    def _traced_holding(self, refs: Sequence[TensorRef]) -> Any:
        """Returns what takes inputs and shifts, and gives scores and the tensors before."""
        source, plan, count = self._source, self._plan, len(self._source.input_specs)

        def scores(*given: Any) -> Any:
            forward = run_forward(source, plan, given[:count], with_states=False)
            before = [forward.tensor(ref) for ref in refs]
            points = [_shifted(t, shift) for t, shift in zip(before, given[count:], strict=True)]
            there = forward_at(source, plan, forward, refs, points)
            hold(there.operations, points, forward.operations)
            return [there.target(group.target) for group in plan.groups], before

        specs = [*source.input_specs, *(tf.TensorSpec(None, tf.float64) for _ in refs)]
        return trace_once(scores, specs)

    def under(self, noise: Noise) -> Callable[..., tuple[list[Array], dict[TensorRef, Array]]]:
        """Returns what does the same as `at` under some noise."""
        return functools.partial(self._run, RoundingNoise.fed(noise))

    def in_double(self) -> Callable[..., tuple[list[Array], dict[TensorRef, Array]]]:
        """Returns what does the same as `at`, in float64.

        Raises:
            Exception: an operation has no form in float64.
        """
        return functools.partial(self._run, (), function=in_double(self._scores))

    def _run(
        self,
        first: Sequence[Any],
        feed: Mapping[str, Array],
        shifts: Mapping[TensorRef, Array],
        function: Callable[..., Any] | None = None,
    ) -> tuple[list[Array], dict[TensorRef, Array]]:
        zero = np.zeros(())
        moves = [tf.convert_to_tensor(shifts.get(ref, zero), tf.float64) for ref in self.refs]
        run = function or functools.partial(run_as_traced, self._scores)
        scores, tensors = run(*first, *self._source.tensors(feed), *moves)
        values = {r: np.asarray(t) for r, t in zip(self.refs, tensors, strict=True)}
        return [np.asarray(s) for s in scores], values


def _mover(at: dict[TensorRef, Any], ref: TensorRef, shift: Any) -> Any:
    def move(before: Any) -> Any:
        at[ref] = before
        return _shifted(before, shift)

    return move


def _shifted(tensor: Any, shift: Any) -> Any:
    """Returns a moved tensor, added up in double precision.

    Methods that fill positions with a number then fill with that number: a model that asks
    whether it is there, or which of several is the largest, sees no rounding.
    """
    moved = tf.cast(tf.cast(tensor, tf.float64) + shift, tensor.dtype)
    moved.set_shape(tensor.shape)
    return moved
