"""Weights that are applied: a softmax whose result is multiplied with values and summed up.

What a layer returns, or what it is called, proves nothing. A softmax counts where the graph shows
that it weighs values: its result is multiplied with something computed from the input, the product
is summed over the axis along which the weights add up to one, and the sum has a part in what the
model answers.

    Softmax [b, q, k] -> MatMul with [b, k, d]: weights of the keys k
    Softmax [b, t, 1] -> Mul with [b, t, d] -> Sum over t: weights of the times t
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from probegen.sources.keras.dependencies import ancestors
from probegen.sources.keras.links import axes_cut, constant, contracted, links
from probegen.sources.keras.softmaxes import OVER, PASS, TIMES, Softmax, normalised, softmax_of

_PRODUCTS = frozenset({"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"})
_SUMS = frozenset({"Sum", "Mean"})
#: Operations whose results depend on the sizes of what they are given alone.
_SIZES_ALONE = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})
_CHOICES = frozenset({"Select", "SelectV2"})
#: Operations followed from one softmax; weights are applied close to where they are made.
_MOST_STEPS = 200


@dataclasses.dataclass(frozen=True)
class Applied:
    """Weights as they are applied: behind masks, and behind a second normalisation.

    Keys that are cut off before weights are applied weigh nothing, as a sink that is learned.

    Attributes:
        position: of the softmax's operation in its graph.
        tensor: the weights.
        keys: the axes that they are summed over.
    """

    position: int
    tensor: Any
    keys: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class _State:
    """How far weights have been followed.

    Attributes:
        tensor: where to.
        keys: where their keys are there.
        weighed: whether they have been multiplied with values.
        wider: whether the values have axes that the weights have not.
        applied: the weights as far as they are still what is applied.
        applied_keys: the keys of these.
        scaled: whether they have been multiplied since with what is no mask.
    """

    tensor: Any
    keys: frozenset[int]
    weighed: bool
    wider: bool
    applied: Any
    applied_keys: frozenset[int]
    scaled: bool = False


def applied_weights(
    operations: Sequence[Any], inputs: Iterable[Any], ends: Iterable[Any]
) -> list[Applied]:
    """Returns the weights that a graph applies, in the order of their softmaxes.

    Args:
        operations: the graph's, in their order.
        inputs: what values are computed from: the model's inputs.
        ends: what the sums must have a part in: the model's outputs.
    """
    values = _Values(operations, inputs, ends)
    found: dict[int, Applied] = {}
    for position, op in enumerate(operations):
        made = softmax_of(op)
        state = None if made is None else values.weighed_by(made)
        if state is not None:
            weights = Applied(position, state.applied, tuple(sorted(state.applied_keys)))
            found.setdefault(id(state.applied), weights)
    return list(found.values())


def influenced(operations: Iterable[Any], starts: Iterable[Any]) -> set[int]:
    """Returns ids of the tensors that are computed from some."""
    reached = {id(t) for t in starts}
    for op in operations:
        if any(id(t) in reached for t in op.inputs):
            reached.update(id(t) for t in op.outputs)
    return reached


class _Values:
    """Tells whether weights are applied to values: to something computed from the input."""

    def __init__(
        self, operations: Sequence[Any], inputs: Iterable[Any], ends: Iterable[Any]
    ) -> None:
        self._operations = operations
        self._computed = influenced(operations, inputs)
        self._needed = ancestors(ends, _SIZES_ALONE)

    def weighed_by(self, made: Softmax) -> _State | None:
        """Follows weights until they are summed up with values along the keys, None where lost.

        Of several such sums that counts whose values have more axes than the weights: a sum of the
        weights under a mask that is fed as numbers is no sum of values.
        """
        own = influenced(self._operations, [made.tensor])
        pending = [_State(made.tensor, made.keys, False, False, made.tensor, made.keys)]
        narrow: _State | None = None
        for _ in range(_MOST_STEPS):
            if not pending:
                break
            state = pending.pop(0)
            for op in state.tensor.consumers():
                if op not in self._needed:
                    continue
                for position, operand in enumerate(op.inputs):
                    if operand is not state.tensor:
                        continue
                    if self._summed(op, position, state, own):
                        if state.wider or op.type in _PRODUCTS:
                            return state
                        narrow = narrow or state
                    pending += self._onwards(op, position, state, own)
        return narrow

    def _summed(self, op: Any, position: int, state: _State, own: set[int]) -> bool:
        if op.type in _SUMS and state.weighed and position == 0:
            over, rank = constant(op.inputs[1]), op.inputs[0].shape.rank
            return bool(over) and state.keys <= {a % rank for a in over or ()}
        if op.type in _PRODUCTS and len(op.inputs) == 2 and not state.weighed:
            valued = self._are_values(op.inputs[1 - position], own)
            return valued and state.keys <= set(contracted(op, position))
        return False

    def _onwards(self, op: Any, position: int, state: _State, own: set[int]) -> Iterator[_State]:
        """Yields where weights, or weighed values, go on to."""
        if op.type not in PASS | _PRODUCTS | _CHOICES | TIMES | OVER:
            return
        if op.type in OVER and position:
            return
        for link in links(op):
            after = frozenset(b for a, b in link.pairs if a in state.keys)
            if link.operand is not state.tensor or len(after) != len(state.keys):
                continue
            here = dataclasses.replace(state, tensor=link.result, keys=after)
            if state.weighed:
                yield here
                continue
            replaced = dataclasses.replace(
                here, applied=link.result, applied_keys=after, scaled=False
            )
            if normalised(op) is state.tensor:
                yield replaced
            elif self._is_masked(op, position) or not state.keys.isdisjoint(axes_cut(op)):
                yield here if state.scaled else replaced
            elif op.type in TIMES and self._are_values(op.inputs[1 - position], own):
                wider = _is_wider(state.tensor, link.result, link.pairs)
                yield dataclasses.replace(here, weighed=True, wider=wider)
                if not wider:  # a gate, or a mask that is fed as numbers
                    yield dataclasses.replace(here, scaled=True)
            elif op.type in TIMES | OVER:
                yield dataclasses.replace(here, scaled=True)
            else:
                yield replaced if _turns_back(op, state) else here

    def _is_masked(self, op: Any, position: int) -> bool:
        """Tells whether an operation lets some weights be zero, and the others as they are."""
        if op.type in _CHOICES:
            other = op.inputs[3 - position] if position else None
            if other is None:
                return False
            return id(other) not in self._computed or other.op.type == "ZerosLike"
        other = op.inputs[1 - position] if op.type in TIMES else None
        return other is not None and id(other) in self._computed and _is_mask(other)

    def _are_values(self, tensor: Any, own: Collection[int]) -> bool:
        """Tells values from masks, from weights of the model, and from the softmax itself."""
        computed = id(tensor) in self._computed and id(tensor) not in own
        return computed and bool(tensor.dtype.is_floating) and not _is_mask(tensor)


def _is_mask(tensor: Any) -> bool:
    """Tells whether numbers are made of truths alone."""
    op = tensor.op
    for _ in range(_MOST_STEPS):
        if op.type == "Cast" and not op.inputs[0].dtype.is_floating:
            return True  # a mask, or lengths
        if op.type in _CHOICES:
            return all(tf.get_static_value(t) is not None for t in list(op.inputs)[1:])
        if op.type == "Sub" and tf.get_static_value(op.inputs[0]) is not None:
            op = op.inputs[1].op  # one minus a mask
        elif op.type in PASS and op.inputs:
            op = op.inputs[0].op
        else:
            break
    return False


def _is_wider(weights: Any, product: Any, pairs: Sequence[tuple[int, int]]) -> bool:
    """Tells whether a product of weights has entries along axes along which these have none."""
    own = {b: weights.shape[a] for a, b in pairs}
    return any(own.get(i, 1) == 1 and n != 1 for i, n in enumerate(product.shape))


def _turns_back(op: Any, state: _State) -> bool:
    """Tells whether an operation undoes what TensorFlow's softmax of another axis does first.

    It is computed along the last axis, to which the other is turned before and from which it is
    turned back.
    """
    made = state.tensor.op
    if op.type != "Transpose" or made.type != "Softmax" or state.applied is not state.tensor:
        return False
    before = made.inputs[0].op
    if before.type != "Transpose":
        return False
    first, second = constant(before.inputs[1]), constant(op.inputs[1])
    if not first or not second:
        return False
    return [first[i] for i in second] == list(range(len(first)))
