"""Loops and choices of `keras.ops` in a form that gradients and ONNX have.

`scan`, `associative_scan` and `switch` of Keras' TensorFlow backend lose the shapes of their
results, or are written with operations that no ONNX file can hold; `map` calls its function once
outside of its loop. `tf.cond` traces both its functions where the condition is one of ranks, as
that of `inner`. Each has a stand-in here that computes the same, and is called in its place
while a model is traced. `while_loop`, `fori_loop`, `vectorized_map` and `ops.cond` need none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import core

#: Takes the original function and what it was called with.
StandIn = Callable[..., Any]


def _scan(
    original: Any,
    f: Any,
    init: Any,
    xs: Any = None,
    length: Any = None,
    reverse: bool = False,
    unroll: Any = 1,
) -> Any:
    """Scan: what is carried goes on as a tensor, where Keras writes it into an array of one entry.

    An array that is filled from its end is filled from its start here, and turned afterwards.
    """
    if not callable(f) or (xs is None and length is None):
        return original(f, init, xs, length, reverse, unroll)  # says what is wrong
    carry = _tensors(init)
    sequences = [] if xs is None else _tensors(xs)
    count = tf.shape(sequences[0])[0] if length is None else int(length)

    def step(carried: Sequence[Any], entries: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        given = None if xs is None else keras.tree.pack_sequence_as(xs, entries)
        after, made = f(keras.tree.pack_sequence_as(init, carried), given)
        left = list(carried) if after is None else _tensors(after)
        # Keras leaves the array of results as it is, of zeros, where a step makes none.
        kept = [tf.zeros_like(c) for c in carried] if made is None else _tensors(made)
        return left, kept

    if reverse:
        sequences = [tf.reverse(sequence, [0]) for sequence in sequences]
    final, stacks = _run(step, carry, sequences, count, [c.shape for c in carry])
    if reverse:
        stacks = [tf.reverse(stack, [0]) for stack in stacks]
    pack = keras.tree.pack_sequence_as
    return pack(init, final), pack(init, stacks)


def _associative_scan(
    original: Any, f: Any, elems: Any, reverse: bool = False, axis: int = 0
) -> Any:
    """Associative scan: one entry after the other, which gives the same by what associative says.

    Keras halves the sequence again and again, which loses all shapes, and of an open length makes a
    graph that is 48 levels deep.
    """
    sequences = _tensors(elems)
    lengths = {s.shape[axis] for s in sequences if s.shape.rank is not None}
    if not callable(f) or any(s.shape.rank is None for s in sequences) or len(lengths) > 1:
        return original(f, elems, reverse, axis)  # says what is wrong
    if lengths == {0}:
        return elems
    ranks = [len(s.shape) for s in sequences]
    fronts = [_axis_to_front(rank, axis) for rank in ranks]
    turned = [tf.transpose(s, order) for s, order in zip(sequences, fronts, strict=True)]
    if reverse:
        turned = [tf.reverse(s, [0]) for s in turned]

    def combined(one: Sequence[Any], other: Sequence[Any]) -> list[Any]:
        """Calls `f`, which has the axis: of size 1."""
        pairs = [
            keras.tree.pack_sequence_as(elems, [tf.expand_dims(v, axis % rank) for v, rank in
                                                zip(values, ranks, strict=True)])
            for values in (one, other)
        ]  # fmt: skip
        found = _tensors(f(*pairs))
        return [tf.squeeze(v, [axis % rank]) for v, rank in zip(found, ranks, strict=True)]

    def step(carried: Sequence[Any], entries: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        left = combined(carried, entries)
        return left, left

    # A step too many, whose result is dropped: onnxruntime loses shapes in a loop without steps.
    first = [s[0] for s in turned]
    later = [tf.concat([s[1:], s[-1:]], 0) for s in turned]
    _, stacks = _run(step, first, later, tf.shape(turned[0])[0], [v.shape for v in first])
    whole = [tf.concat([v[None], s[:-1]], 0) for v, s in zip(first, stacks, strict=True)]
    if reverse:
        whole = [tf.reverse(s, [0]) for s in whole]
    found = []
    for value, order, like in zip(whole, fronts, sequences, strict=True):
        back = tf.transpose(value, [order.index(k) for k in range(len(order))])
        back.set_shape(like.shape)
        found.append(back)
    return keras.tree.pack_sequence_as(elems, found)


def _map(_: Any, f: Any, xs: Any) -> Any:
    """Map: what comes out is looked up in a graph of its own.

    Keras calls `f` with the first entry for that, where the model is. Layers in `f` would seem to
    be called once outside of the loop, and what they give for one entry to be what they give.
    """
    xs = keras.tree.map_structure(tf.convert_to_tensor, xs)

    def of_one(entry: Any) -> Any:
        return f(entry)

    entry = keras.tree.map_structure(lambda v: tf.TensorSpec(v.shape[1:], v.dtype), xs)
    traced = tf.function(of_one, autograph=False).get_concrete_function(entry)
    made = keras.tree.map_structure(
        lambda v: tf.TensorSpec(v.shape, v.dtype), traced.structured_outputs
    )
    return tf.map_fn(f, xs, fn_output_signature=made)


def _switch(original: Any, branch_index: Any, branch_fns: Any, name: str = "switch_case") -> Any:
    """Switch: one choice between two after the other. An index outside means the last branch."""
    if not _is_list_of_functions(branch_fns):
        return original(branch_index, branch_fns, name=name)
    index = tf.convert_to_tensor(branch_index)
    last = len(branch_fns) - 1
    index = tf.where(tf.logical_or(index < 0, index > last), last, index)

    def chosen(k: int) -> Any:
        if k == last:
            return branch_fns[k]()
        return tf.cond(tf.equal(index, k), branch_fns[k], lambda: chosen(k + 1))

    return chosen(0)


def _cond(
    original: Any, pred: Any = None, true_fn: Any = None, false_fn: Any = None, name: Any = None
) -> Any:
    """Cond: where the condition is known when it is traced, the function that it chooses alone.

    Of the other one the shapes may not even fit: `inner` multiplies where one side is a number, and
    else sums up products.
    """
    known = _known(pred) if callable(true_fn) and callable(false_fn) else None
    if known is None:
        return original(pred, true_fn=true_fn, false_fn=false_fn, name=name)
    made = true_fn() if known else false_fn()
    return tf.nest.map_structure(lambda v: v if v is None else tf.convert_to_tensor(v), made)


def _known(condition: Any) -> bool | None:
    """Returns a condition, None where a graph tells it in a run alone."""
    value = tf.get_static_value(condition) if isinstance(condition, tf.Tensor) else None
    if value is not None:
        return bool(value)
    kind = getattr(getattr(condition, "op", None), "type", None)
    if kind not in ("LogicalOr", "LogicalAnd"):
        return None
    sides = [_known(side) for side in condition.op.inputs]
    decides: bool = kind == "LogicalOr"
    if decides in sides:
        return decides
    return None if None in sides else not decides


def _is_list_of_functions(branches: Any) -> bool:
    return isinstance(branches, list | tuple) and bool(branches) and all(map(callable, branches))


def _run(
    step: Callable[[Sequence[Any], Sequence[Any]], tuple[list[Any], list[Any]]],
    carry: Sequence[Any],
    sequences: Sequence[Any],
    count: Any,
    shapes: Sequence[Any],
) -> tuple[list[Any], list[Any]]:
    """Runs steps over sequences.

    Args:
        step: takes what is carried and an entry of each sequence; returns what goes on, and what
            is kept.
        carry: what the first step finds.
        sequences: time axis first.
        count: how many steps.
        shapes: of what is carried, and of what is kept, the same.

    Returns:
        What the last step leaves, and what was kept, time axis first.
    """
    read = [
        tf.TensorArray(s.dtype, size=count, element_shape=s.shape[1:]).unstack(s) for s in sequences
    ]
    kept = [
        tf.TensorArray(c.dtype, size=count, element_shape=shape)
        for c, shape in zip(carry, shapes, strict=True)
    ]

    def body(i: Any, carried: Sequence[Any], arrays: Sequence[Any]) -> Any:
        left, made = step(carried, [array.read(i) for array in read])
        left = [tf.ensure_shape(v, shape) for v, shape in zip(left, shapes, strict=True)]
        written = [array.write(i, v) for array, v in zip(arrays, made, strict=True)]
        return i + 1, left, written

    _, final, arrays = tf.while_loop(
        lambda i, *_: i < count, body, (tf.constant(0), list(carry), kept)
    )
    stacks = [array.stack() for array in arrays]
    steps = tf.get_static_value(count)
    for stack, shape in zip(stacks, shapes, strict=True):
        if shape.rank is not None:
            stack.set_shape([None if steps is None else int(steps), *shape])
    return list(final), stacks


def _tensors(nest: Any) -> list[Any]:
    return [tf.convert_to_tensor(v) for v in keras.tree.flatten(nest)]


def _axis_to_front(rank: int, axis: int) -> list[int]:
    axis %= rank
    return [axis, *(k for k in range(rank) if k != axis)]


#: Module and name of a function -> what stands in for it while a model is traced.
STAND_INS: dict[tuple[Any, str], StandIn] = {
    (core, "scan"): _scan,
    (core, "associative_scan"): _associative_scan,
    (core, "map"): _map,
    (tf, "switch_case"): _switch,
    (tf, "cond"): _cond,
}
