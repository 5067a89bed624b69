"""Loops that give out what each of their steps makes.

A loop's inner tensors do not leave it. So the body of a loop is first written on trial, outside of
the model's graph. Where it makes what is asked for, the loop is written with one more variable for
each such tensor, to which every step adds its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from keras.src.backend.common.stateless_scope import get_stateless_scope
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.ops import while_v2

_LOOPS = frozenset({"While", "StatelessWhile"})


@dataclasses.dataclass(frozen=True)
class Trial:
    """A loop that was written on trial.

    Attributes:
        graph: what it was written into.
        loop: its operation there.
        step: the graph of its body.
    """

    graph: Any
    loop: Any
    step: Any


@dataclasses.dataclass(frozen=True)
class Taken:
    """A tensor that each step of a loop makes, and that is to leave the loop.

    Attributes:
        shape: of the tensor.
        dtype: of the tensor.
        find: returns it once a step has been written, of the step's graph.
    """

    shape: Any
    dtype: Any
    find: Callable[[Any], Any]


def write_on_trial(
    original: Callable[..., Any], cond: Any, body: Any, loop_vars: Any, options: dict[str, Any]
) -> Trial | None:
    """Writes a loop into a graph of its own; None where it is not written as a loop.

    Args:
        original: `while_v2.while_loop`.
        cond: as for that.
        body: as for that.
        loop_vars: as for that.
        options: as for that.
    """
    graph = FuncGraph("trial")
    scope = get_stateless_scope()
    assigned = {} if scope is None else dict(scope.state_mapping)
    with graph.as_default():
        original(cond, body, loop_vars, **options)
    if scope is not None:  # what a step assigns (a generator's seed) is of the trial's graph alone
        scope.state_mapping = assigned
    loop = next((op for op in reversed(graph.get_operations()) if op.type in _LOOPS), None)
    if loop is None:
        return None
    return Trial(graph, loop, while_v2._get_graph(loop, "body", "_body_graph"))


def write_gathering(
    original: Callable[..., Any],
    cond: Any,
    body: Any,
    loop_vars: Any,
    taken: Sequence[Taken],
    **options: Any,
) -> tuple[Any, list[Any]]:
    """Writes a loop that gives out what each of its steps makes as well.

    Args:
        original: `while_v2.while_loop`.
        cond: as for that.
        body: as for that.
        loop_vars: as for that.
        taken: what is to leave it.
        **options: as for that.

    Returns:
        What the loop returns, and what was taken, `[steps, ...]` each.
    """
    if not taken:
        return original(cond, body, loop_vars, **options), []
    count, most = len(loop_vars), options.get("maximum_iterations")
    gathered = [
        tf.TensorArray(
            t.dtype,
            size=0 if most is None else most,
            dynamic_size=most is None,
            element_shape=t.shape,
        )
        for t in taken
    ]

    def gathering(*values: Any) -> Any:
        own, step, arrays = values[:count], values[count], values[count + 1 :]
        after = body(*own)
        after = list(after) if isinstance(after, list | tuple) else [after]
        graph = tf.compat.v1.get_default_graph()
        added = [a.write(step, t.find(graph)) for a, t in zip(arrays, taken, strict=True)]
        return [*after, step + 1, *added]

    shapes = options.get("shape_invariants")
    if shapes is not None:
        options["shape_invariants"] = [
            *shapes,
            *(tf.TensorShape([]) for _ in range(1 + len(taken))),
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
    return result, [array.stack() for array in found[count + 1 :]]


def batch_first(steps: Any, shape: Any) -> Any:
    """Returns `[steps, batch, ...]` as `[batch, steps, ...]`.

    Args:
        steps: what a loop has gathered.
        shape: of that of one step.
    """
    found = tf.transpose(steps, [1, 0, *range(2, shape.rank + 1)])
    found.set_shape([shape[0], steps.shape[0], *shape[1:]])
    return found
