"""Calls of layers as they are watched, and what a loop makes of those in its steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from probegen.sources.keras.recurrence import Recurrence
from probegen.sources.keras.timewise import Fold


@dataclasses.dataclass
class LayerCall:
    """One call of one layer that was watched.

    Attributes:
        layer: the layer.
        path: its path in the model.
        index: which call of this layer it is.
        first_op: number of operations in the graph before the call.
        last_op: number of operations in the graph after it.
        inputs: the tensors it was given, flat.
        outputs: the flat tensors it returned.
        step_of: path of the recurrent layer of which this call is one step, or `""`.
        folds: the lengths that are folded into the batch axis inside the call.
        in_steps: whether the outputs have an axis of their own for each of them.
        recurrences: the loops of recurrent layers that ran in it, and in no call inside it.
        given_state: whether the caller said which state a recurrent layer starts from.
        masks: masks that it was given, each with the tensors that it masks.
        layer_is_around: False where this stands for operations that no layer is around.
        mask: of a recurrent layer, which of its steps count, `[batch, time]`; None for all.
        in_loop: whether it was made while a loop was written, in which each step makes it anew.
        in_inner_loop: whether that is a loop within a step of another.
        is_cell: whether a recurrent layer itself runs it, as its cell or one of several.
    """

    layer: Any
    path: str
    index: int
    first_op: int
    last_op: int = 0
    inputs: list[Any] = dataclasses.field(default_factory=list)
    outputs: list[Any] = dataclasses.field(default_factory=list)
    step_of: str = ""
    folds: tuple[Fold, ...] = ()
    in_steps: bool = False
    recurrences: list[Recurrence] = dataclasses.field(default_factory=list)
    given_state: bool = False
    masks: list[tuple[Any, list[Any]]] = dataclasses.field(default_factory=list)
    layer_is_around: bool = True
    mask: Any = None
    in_loop: bool = False
    in_inner_loop: bool = False
    is_cell: bool = False


@dataclasses.dataclass(frozen=True)
class OverSteps:
    """A layer call that every step of a loop makes.

    Attributes:
        call: the call, with what it gives over all steps for outputs, `[batch, time, ...]`; without
            any where these cannot leave the loop.
        around: the innermost call that the loop runs in: of the layer, or of what wraps it.
        loop: the loop.
        step: the call as a step makes it.
        number: which of the layer's calls in a step it is.
        cell_inputs: what the cell is given in that step.
        leaving: what the body of the loop gives on: outputs and states; empty of one that is
            written one step behind the other.
        reason: why its outputs cannot leave the loop; `""` where they can.
    """

    call: LayerCall
    around: LayerCall
    loop: Recurrence
    step: LayerCall
    number: int
    cell_inputs: Sequence[Any]
    leaving: Sequence[Any]
    reason: str = ""


def as_fed(layer: Any, mask: Any, time: int | None, steps: Any) -> Any:
    """Returns what the steps of a recurrent layer make in the order in which these are fed.

    What a masked step makes is not used: it is 0 there.

    Args:
        layer: what runs the loop.
        mask: `[batch, time]`, which steps count; None for all.
        time: how many steps there are; None where that is open.
        steps: `[batch, time, ...]`, in the order in which the steps are done.
    """
    if layer.go_backwards:
        steps = tf.reverse(steps, [1])
    steps.set_shape([None, time, *[None] * (steps.shape.rank - 2)])
    if mask is None:
        return steps
    shape = steps.shape
    kept = tf.reshape(mask, [*keras.ops.shape(mask), *[1] * (shape.rank - 2)])
    # Cast here, where no method that holds masks takes it for one that the model makes.
    steps = tf.where(tf.cast(kept, tf.bool), steps, tf.zeros([], steps.dtype))
    steps.set_shape(shape)
    return steps
