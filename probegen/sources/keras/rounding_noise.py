"""Rounding noise where floating numbers begin: behind whole numbers, texts and coarser inputs.

A reference is moved by noise on its inputs, which shows what its rounding is worth. Ids and texts
take none, and an input of 16 bits swallows what a model of 32 rounds. The noise goes on the first
tensors then that hold the model's own floating numbers.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from probegen.sources.base import Noise

#: Element types from fine to coarse.
_FROM_FINE = (tf.float64, tf.float32, tf.float16, tf.bfloat16)
#: Times these numbers, what is left of a division by 1 is as good as drawn, and alike for equal
#: numbers; times the other, it is spread as normal numbers are.
_FAR, _SPREAD = 9973.137, 12**0.5
#: Seed of the casts of an input: several casts of one tensor stay one and the same.
_OF_CASTS = "cast"


@dataclasses.dataclass(frozen=True)
class RoundingNoise:
    """What first floating tensors are moved by, in a graph that is being traced.

    Attributes:
        size: float64 scalar, how much relative to what is moved; negative for the opposite noise.
        zeros: bool scalar, whether zeros are moved as well, relative to the largest value.
        draw: int32 scalar, 0 where equal numbers are moved alike; see `sources.base.Noise`.
        coarser: element types of inputs that are coarser than the model computes in.
        SPECS: of the first three, where they are inputs of a function.
    """

    SPECS: ClassVar[tuple[Any, ...]] = (
        tf.TensorSpec([], tf.float64, "noise"),
        tf.TensorSpec([], tf.bool, "zeros"),
        tf.TensorSpec([], tf.int32, "draw"),
    )

    size: Any
    zeros: Any
    draw: Any
    coarser: frozenset[Any]

    @staticmethod
    def fed(noise: Noise) -> list[Any]:
        """Returns what such a function is called with."""
        size, draw = tf.constant(noise.size, tf.float64), tf.constant(noise.draw, tf.int32)
        return [size, tf.constant(noise.zeros), draw]

    def widens(self, op: Any) -> bool:
        """Tells whether an operation makes the model's own numbers of those of a coarser input."""
        if op.type != "Cast" or op.inputs[0].dtype not in self.coarser:
            return False
        after = op.outputs[0].dtype
        return bool(after.is_floating and after not in self.coarser)

    def added_to(self, tensor: Any, place: str = _OF_CASTS, *, outwards: bool = False) -> Any:
        """Returns a tensor with noise, which is the same at each trace of one place.

        Gradients take it for the tensor itself.

        Args:
            tensor: the tensor.
            place: what it is called.
            outwards: away from zero alone, as whole numbers take it: cut off again, to look
                something up, they are what they were. Opposite noise is that of the others.
        """
        seed = [zlib.crc32(place.encode()) & 0x7FFFFFFF, self.draw]
        exact = tf.cast(tensor, tf.float64)
        sizes = tf.abs(exact)
        largest = tf.reduce_max(tf.concat([tf.zeros([1], tf.float64), tf.reshape(sizes, [-1])], 0))
        scale = tf.where(self.zeros, tf.fill(tf.shape(exact), largest), sizes)
        apart = tf.random.stateless_normal(tf.shape(exact), seed, dtype=tf.float64)
        alike = _SPREAD * (tf.math.floormod(_FAR * exact, 1.0) - 0.5)
        drawn = tf.where(self.draw == 0, alike, apart)
        by = self.size * scale * drawn
        moved = exact + (tf.sign(exact) * tf.maximum(by, 0) if outwards else by)
        moved = tf.cast(moved, tensor.dtype)
        result = tensor + tf.stop_gradient(moved - tensor)
        result.set_shape(tensor.shape)
        return result


def coarser_types(inputs: Sequence[Any], computed_in: str) -> frozenset[Any]:
    """Returns the floating types of inputs that are coarser than a model computes in.

    Args:
        inputs: a `tf.TensorSpec` each.
        computed_in: the coarsest type that a layer computes in.
    """
    coarser = _FROM_FINE[_FROM_FINE.index(tf.as_dtype(computed_in)) + 1 :]
    return frozenset(spec.dtype for spec in inputs if spec.dtype in coarser)
