"""TimeDistributed: the child sees all steps at once, as rows of one batch.

Keras runs the child once a step where it knows the length, which writes it as often into a graph.
Where the length is open in a traced call it takes the batch size for it (3.15: `vectorized_map`
over `arange(batch)`), so that other batches than the traced one come out wrong. What its loop
computes, step by step and sample by sample, is the same as one call on `[batch * time, ...]`:
inference treats samples one by one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from probegen.errors import InstrumentError


@dataclasses.dataclass(frozen=True)
class Fold:
    """Time in the batch axis: what brings `[batch * time, ...]` back to `[batch, time, ...]`.

    Attributes:
        batch: the number of samples, an int or a scalar tensor.
        time: the number of steps of each, likewise.
    """

    batch: Any
    time: Any


def can_fold(layer: Any, inputs: Any) -> bool:
    """Tells whether a child of TimeDistributed can see all steps at once.

    Not where it keeps a state from step to step; over an open length that is refused elsewhere.
    """
    if tf.executing_eagerly() or not isinstance(inputs, tf.Tensor):
        return False
    if inputs.shape.rank is None or inputs.shape.rank < 2:
        return False
    return inputs.shape[1] is None or not _keeps_state(layer.layer)


def _keeps_state(child: Any) -> bool:
    return any(getattr(part, "stateful", False) for part in child._flatten_layers())


def run_folded(
    layer: Any, run: Callable[..., Any], inputs: Any, training: Any, mask: Any, path: str
) -> Any:
    """Stands in for `TimeDistributed.call`.

    The child gets what Keras gives it for each step: the slice, the slice of the mask where it
    takes one, and `training` where it takes that. Masks of its own inputs it never sees.

    Args:
        layer: the TimeDistributed layer.
        run: calls the child on what it is given, while it is known that time is folded.
        inputs: `[batch, time, ...]`.
        training: handed on to the child.
        mask: `[batch, time, ...]` or None, handed on to the child.
        path: what the layer is called in messages.

    Raises:
        InstrumentError: the child keeps a state from step to step, or does not return one tensor
            with a row for each sample.
    """
    child = layer.layer
    for part in child._flatten_layers():
        if getattr(part, "stateful", False):
            raise InstrumentError(
                f"layer {path!r} (TimeDistributed) runs the stateful layer {part.name!r} over an "
                "open length: the state of a step would have to be that of the step before. Give "
                "the model's Input a fixed length, or make the layer stateless."
            )
    sizes = keras.ops.shape(inputs)
    arguments: dict[str, Any] = {}
    if child._call_has_mask_arg and mask is not None:
        arguments["mask"] = folded(mask)
    if child._call_has_training_arg:
        arguments["training"] = training
    fold = Fold(sizes[0], sizes[1])
    outputs = run(fold, folded(inputs), **arguments)
    if not isinstance(outputs, tf.Tensor) or not has_rows(outputs, [fold]):
        raise InstrumentError(
            f"layer {path!r} (TimeDistributed) needs a layer that returns one tensor with a row "
            f"for each sample; {child.name!r} ({type(child).__name__}) does not."
        )
    result = unfolded(outputs, [fold])
    logits = getattr(outputs, "_keras_logits", None)
    if logits is not None:
        result._keras_logits = unfolded(logits, [fold])
    return result


def folded(tensor: Any) -> Any:
    """Returns `[batch, time, ...]` as `[batch * time, ...]`."""
    sizes = keras.ops.shape(tensor)
    rows = tf.reshape(tensor, [sizes[0] * sizes[1], *sizes[2:]])
    rows.set_shape([None, *tensor.shape[2:]])
    return rows


def has_rows(tensor: Any, folds: Sequence[Fold]) -> bool:
    """Tells whether the first axis of a tensor can be a folded one.

    Its size is open then, or the product of what is folded, where all of that is known.
    """
    if tensor.shape.rank is None:
        return True
    if tensor.shape.rank == 0:
        return False
    sizes = [*(fold.batch for fold in folds[:1]), *(fold.time for fold in folds)]
    known = math.prod(sizes) if all(isinstance(size, int) for size in sizes) else None
    return tensor.shape[0] in (None, known)


def unfolded(tensor: Any, folds: Sequence[Fold]) -> Any:
    """Returns a tensor whose first axis holds samples and steps with an axis for each.

    Args:
        tensor: the tensor.
        folds: what was folded, outermost first; nested ones give several axes of time.
    """
    if not folds:
        return tensor
    times = [f.time for f in folds]
    shape = [folds[0].batch, *times, *keras.ops.shape(tensor)[1:]]
    apart = tf.reshape(tensor, shape)
    known = [size if isinstance(size, int) else None for size in (folds[0].batch, *times)]
    apart.set_shape([*known, *tensor.shape[1:]])
    return apart
