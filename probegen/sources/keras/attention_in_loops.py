"""Attention inside loops: the weights of each step, gathered over time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

from probegen.sources.keras.gathering import Taken, Trial, batch_first
from probegen.sources.keras.softmaxes import key_axes
from probegen.sources.keras.weighing import applied_weights, influenced

EAGER = type(tf.constant(0.0))
#: Loops whose step is written anew until it is known what is computed from the input: each variable
#: may be made of the one before.
_MOST_ROUNDS = 16
#: The body's first two variables: how many steps were done, and how many may be.
_COUNTERS = 2


@dataclasses.dataclass(frozen=True)
class Looped:
    """Weights that are made anew in each step of a loop.

    Attributes:
        position: how many operations the graph had before the loop.
        tensor: the weights of all steps, `[batch, time, ...]`; `[batch, ...]` of a loop over the
            samples.
        keys: the axes that the softmax sums over.
        steps: how many axes of time stand behind the batch.
    """

    position: int
    tensor: Any
    keys: tuple[int, ...]
    steps: int


@dataclasses.dataclass
class InSteps:
    """Weights in the body of a loop.

    Attributes:
        operation: what operation makes them.
        number: the how-many-th of its type in the body.
        shape: of the weights.
        dtype: of the weights.
        keys: the axes that the softmax sums over, once the loop is written.
    """

    operation: str
    number: int
    shape: Any
    dtype: Any
    keys: tuple[int, ...] = ()

    @property
    def taken(self) -> Taken:
        """What is to leave the loop."""
        return Taken(self.shape, self.dtype, self._find)

    def _find(self, graph: Any) -> Any:
        """Returns the weights in the body that is being written."""
        alike = [op for op in graph.get_operations() if op.type == self.operation]
        found = alike[self.number].outputs[0]
        self.keys = key_axes(found)
        return found

    def gathered(self, position: int, steps: Any) -> Looped:
        """Returns the weights of all steps.

        Args:
            position: how many operations the graph had before the loop.
            steps: what the loop has gathered.
        """
        batches = _batch_sizes(tf.compat.v1.get_default_graph())
        return _gathered(position, steps, self.shape, tuple(k + 1 for k in self.keys), batches)


def weights_in(trial: Trial | None) -> list[InSteps]:
    """Returns the weights that the body of a loop applies."""
    if trial is None:
        return []
    step = trial.step
    operations = step.get_operations()
    from_data = [_is_from_data(trial.graph, t) for t in trial.loop.inputs]
    for _ in range(_MOST_ROUNDS):
        made = influenced(operations, _taken(step.inputs, from_data))
        after = [a or id(t) in made for a, t in zip(from_data, step.outputs, strict=True)]
        if after == from_data:
            break
        from_data = after
    found = applied_weights(operations, _taken(step.inputs, from_data), step.outputs[_COUNTERS:])
    return [
        InSteps(
            one.tensor.op.type,
            [op for op in operations if op.type == one.tensor.op.type].index(one.tensor.op),
            one.tensor.shape,
            one.tensor.dtype,
        )
        for one in found
    ]


def _taken(tensors: Sequence[Any], which: Sequence[bool]) -> list[Any]:
    return [t for t, wanted in zip(tensors, which, strict=True) if wanted]


def _is_from_data(trial: Any, tensor: Any) -> bool:
    """Tells whether a variable of a loop starts as something made of what is fed."""
    outer = {id(inner): out for out, inner in trial.captures}
    pending, seen = [tensor], set()
    while pending:
        now = pending.pop()
        now = outer.get(id(now), now)
        if id(now) in seen or isinstance(now, EAGER):
            continue  # stored weights, among others
        seen.add(id(now))
        if now.op.type == "Placeholder":
            if now.dtype != tf.resource:
                return True
            continue
        pending.extend(now.op.inputs)
    return False


def _batch_sizes(graph: Any) -> set[int | None]:
    """Returns the first sizes of what is fed to a model, into which a graph is written."""
    while isinstance(getattr(graph, "outer_graph", None), FuncGraph):
        graph = graph.outer_graph
    fed = [t for t in getattr(graph, "inputs", ()) if t.dtype != tf.resource and t.shape.rank]
    return {t.shape[0] for t in fed}


def _gathered(
    position: int, steps: Any, shape: Any, keys: tuple[int, ...], batches: set[int | None]
) -> Looped:
    """Returns weights that a loop has gathered, the batch in front.

    A loop over the samples (`ops.map`) has a sample's weights in each step, whose first size is
    none of the batch: what it gathers is `[batch, ...]` and has no time.

    Args:
        position: how many operations the graph had before the loop.
        steps: weights of all steps, `[steps, ...]`.
        shape: of those of one step.
        keys: axes of `steps` that are summed over.
        batches: sizes that the batch has; None is an open one.
    """
    if batches and (shape.rank == 0 or shape[0] not in batches):
        steps.set_shape([None, *shape])
        return Looped(position, steps, keys, 0)
    return Looped(position, batch_first(steps, shape), keys, 1)
