"""The model of a case in a wider type: how much of what is right is rounding of the model's own."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from fuzz.case import Case
from fuzz.keras_states import is_stateful, stateful
from fuzz.keras_witness import Witness
from fuzz.scoring import Array

#: Policy of a model -> one in which much less is rounded.
_WIDER = {
    "float32": "float64",
    "float16": "float32",
    "mixed_float16": "float32",
}
#: Operations that TensorFlow computes in float32 whatever they are given.
_BLENDING = frozenset({"ResizeBilinear", "ResizeBicubic", "ResizeArea", "ScaleAndTranslate"})
#: What builds the variables of a case.
Build = Callable[[Case], dict[str, Any]]


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Lets Keras compute in a precision for a while."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64" if policy == "float64" else "float32")
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])


def rebuilt(case: Case, build: Build, built: Mapping[str, Any], policy: str) -> Witness:
    """Returns the witness of a case's functional model in another precision, with its weights.

    Args:
        case: the case.
        build: makes the variables of a case.
        built: those of the case itself.
        policy: the precision.

    Raises:
        Exception: whatever Keras raises that does not want it.
    """
    with precision(policy):
        other = build(dataclasses.replace(case, policy=policy, form=""))
        other["core"].set_weights(built["core"].get_weights())
        return Witness(other["core"], other["logits"])


def computed_in(policy: str, witness: Witness, feed: Sequence[Array]) -> str:
    """Returns what a model computes in: float32 where TensorFlow blends images of float64 so."""
    if policy != "float64":
        return policy
    traced = tf.function(lambda *flat: witness.called(flat))
    graph = traced.get_concrete_function(*map(tf.constant, feed)).graph
    blended = any(op.type in _BLENDING for op in graph.get_operations())
    return "float32" if blended else policy


class Wider:
    """The model of a case in a wider type, built where it is first asked.

    Where it says something else than the model itself, that is what rounding makes of the model:
    of maxima of a saturated function, of what cancels out behind a norm.

    Attributes:
        policy: that of the model itself.

    Args:
        case: the case.
        build: makes the variables of a case.
        built: those of the case itself.
    """

    def __init__(self, case: Case, build: Build, built: Mapping[str, Any]) -> None:
        self._parts = case, build, built
        self.policy = case.policy

    @functools.cached_property
    def _witness(self) -> Witness | None:
        case, build, built = self._parts
        policy = _WIDER.get(case.policy)
        if policy is None:
            return None
        if "states" in case.options and not is_stateful(case):
            case = stateful(case)
        try:
            return rebuilt(case, build, built, policy)
        except Exception:  # whatever Keras has not in that type
            return None

    def says(
        self,
        ask: Callable[[Witness, Sequence[Array]], Array | None],
        feed: Sequence[Array],
        own: Witness,
    ) -> Array | None:
        """Returns what is asked of the model in a wider type; None where that is not known.

        Args:
            ask: witness, inputs -> the answer.
            feed: the inputs.
            own: the witness in the case's own type: where classes lie, and what states start from.
        """
        witness = self._witness
        if witness is None:
            return None
        witness.class_axes.update(own.class_axes)
        wide = [
            x.astype(tensor.dtype) if np.issubdtype(x.dtype, np.floating) else x
            for x, tensor in zip(feed, witness.model.inputs, strict=True)
        ]
        with precision(_WIDER[self._parts[0].policy]):
            now = witness.states.now()
            witness.states.start = [
                x.astype(y.dtype) for x, y in zip(own.states.start, now, strict=True)
            ]
            try:
                return ask(witness, wide)
            except Exception:  # whatever Keras has not in that type
                return None
