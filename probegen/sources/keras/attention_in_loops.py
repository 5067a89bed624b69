"""Attention inside loops: the weights of each step, gathered over time.

A loop's inner tensors do not leave it. So the body of a loop is first written on trial, outside of
the model's graph. Where attention weights are applied in it, the loop is written with one more
variable for each, to which every step adds its weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from keras.src.backend.common.stateless_scope import get_stateless_scope
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.ops import while_v2

from probegen.sources.keras.softmaxes import key_axes
from probegen.sources.keras.weighing import applied_weights, influenced

EAGER = type(tf.constant(0.0))
_LOOPS = frozenset({"While", "StatelessWhile"})
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


@dataclasses.dataclass(frozen=True)
class _InStep:
    """Weights in the body of a loop.

    Attributes:
        operation: what operation makes them.
        number: the how-many-th of its type in the body.
        shape: of the weights.
        dtype: of the weights.
    """

    operation: str
    number: int
    shape: Any
    dtype: Any


def write_loop(
    original: Callable[..., Any],
    cond: Any,
    body: Any,
    loop_vars: Any,
    position: int,
    **options: Any,
) -> tuple[Any, list[Looped]]:
    """Writes a loop that gives out the attention weights of each of its steps as well.

    Args:
        original: `while_v2.while_loop`.
        cond: as for that.
        body: as for that.
        loop_vars: as for that.
        position: how many operations the graph has before the loop.
        **options: as for that.

    Returns:
        What the loop returns, and the weights.
    """
    weights = _weights_in(original, cond, body, loop_vars, options)
    if not weights:
        return original(cond, body, loop_vars, **options), []
    count, most = len(loop_vars), options.get("maximum_iterations")
    gathered = [
        tf.TensorArray(
            w.dtype,
            size=0 if most is None else most,
            dynamic_size=most is None,
            element_shape=w.shape,
        )
        for w in weights
    ]
    keys: list[tuple[int, ...]] = []

    def gathering(*values: Any) -> Any:
        own, step, arrays = values[:count], values[count], values[count + 1 :]
        after = body(*own)
        after = list(after) if isinstance(after, list | tuple) else [after]
        found = [_tensor(tf.compat.v1.get_default_graph(), w) for w in weights]
        keys[:] = [key_axes(t) for t in found]
        added = [a.write(step, t) for a, t in zip(arrays, found, strict=True)]
        return [*after, step + 1, *added]

    shapes = options.get("shape_invariants")
    if shapes is not None:
        options["shape_invariants"] = [
            *shapes,
            *(tf.TensorShape([]) for _ in range(1 + len(weights))),
        ]
    flat = options.pop("return_same_structure", True) is False
    found = original(
        lambda *values: cond(*values[:count]),
        gathering,
        [*loop_vars, tf.constant(0), *gathered],
        **options,
    )
    own = list(found[:count])
    result = own[0] if flat and count == 1 else tuple(own) if isinstance(loop_vars, tuple) else own
    batches = _batch_sizes(tf.compat.v1.get_default_graph())
    return result, [
        _gathered(position, array.stack(), w.shape, tuple(k + 1 for k in of), batches)
        for array, w, of in zip(found[count + 1 :], weights, keys, strict=True)
    ]


def _weights_in(
    original: Callable[..., Any], cond: Any, body: Any, loop_vars: Any, options: dict[str, Any]
) -> list[_InStep]:
    """Returns the weights that a loop's body applies, as written into a graph of its own."""
    trial = FuncGraph("trial")
    scope = get_stateless_scope()
    assigned = {} if scope is None else dict(scope.state_mapping)
    with trial.as_default():
        original(cond, body, loop_vars, **options)
    if scope is not None:  # what a step assigns (a generator's seed) is of the trial's graph alone
        scope.state_mapping = assigned
    loop = next((op for op in reversed(trial.get_operations()) if op.type in _LOOPS), None)
    if loop is None:
        return []
    step = while_v2._get_graph(loop, "body", "_body_graph")
    operations = step.get_operations()
    from_data = [_is_from_data(trial, t) for t in loop.inputs]
    for _ in range(_MOST_ROUNDS):
        made = influenced(operations, _taken(step.inputs, from_data))
        after = [a or id(t) in made for a, t in zip(from_data, step.outputs, strict=True)]
        if after == from_data:
            break
        from_data = after
    found = applied_weights(operations, _taken(step.inputs, from_data), step.outputs[_COUNTERS:])
    return [
        _InStep(
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


def _tensor(graph: Any, weights: _InStep) -> Any:
    """Returns weights in the body that is being written."""
    alike = [op for op in graph.get_operations() if op.type == weights.operation]
    return alike[weights.number].outputs[0]


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
    found = tf.transpose(steps, [1, 0, *range(2, shape.rank + 1)])
    found.set_shape([shape[0], steps.shape[0], *shape[1:]])
    return Looped(position, found, keys, 1)
