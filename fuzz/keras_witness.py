"""What attributions should be, computed with TensorFlow and numpy on the untouched Keras model.

Nothing of probegen's own references is used: the model is called as a user calls it, and the tape
is TensorFlow's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fuzz import twins

Array = npt.NDArray[Any]


class Witness:
    """The untouched model of a case.

    Args:
        model: the model.
        logits: for each output what its last softmax or sigmoid reads.
    """

    def __init__(self, model: Any, logits: Sequence[Any]) -> None:
        self.model = model
        self._scores = keras.Model(model.inputs, list(logits))

    def predictions(self, feed: Sequence[Array]) -> list[Array]:
        """Returns what the model predicts."""
        found = self.model(_fed(feed), training=False)
        return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(found)]

    def attribution(self, probe: Any, feed: Sequence[Array], at: int) -> Array | None:
        """Returns what a probe gives of an input, None where this witness does not know.

        Of a saliency it is the magnitude of each channel.

        Args:
            probe: the probe.
            feed: the inputs.
            at: which input is explained.
        """
        if not _is_plain(probe) or not np.issubdtype(feed[at].dtype, np.floating):
            return None
        picks = twins.picks(probe.target, self._score_arrays(probe, feed))
        if picks is None:
            return None
        found = [self._of_one(probe, feed, at, pick) for pick in picks]
        if any(array is None for array in found):
            return None
        arrays = [array for array in found if array is not None]
        return np.stack(arrays, axis=1) if twins.is_several(probe.target) else arrays[0]

    def _scored(self, probe: Any, tensors: Sequence[Any]) -> Any:
        at = probe.output if isinstance(probe.output, int) else 0
        network = self._scores if probe.logits else self.model
        return keras.tree.flatten(network(_fed(tensors), training=False))[at]

    def _score_arrays(self, probe: Any, feed: Sequence[Array]) -> Array:
        return np.asarray(keras.ops.convert_to_numpy(self._scored(probe, feed)), np.float64)

    def _gradient(self, probe: Any, feed: Sequence[Array], at: int, pick: Array) -> Array:
        tensors = [tf.convert_to_tensor(a) for a in feed]
        with tf.GradientTape() as tape:
            tape.watch(tensors[at])
            scores = self._scored(probe, tensors)
            score = tf.reduce_sum(scores * tf.cast(pick, scores.dtype))
        found = tape.gradient(score, tensors[at])
        return np.zeros(feed[at].shape) if found is None else np.asarray(found, np.float64)

    def _score(self, probe: Any, feed: Sequence[Array], at: int, x: Array, pick: Array) -> Array:
        moved = [x.astype(a.dtype) if i == at else a for i, a in enumerate(feed)]
        return np.asarray((self._score_arrays(probe, moved) * pick).sum(axis=1))

    def _of_one(self, probe: Any, feed: Sequence[Array], at: int, pick: Array) -> Array | None:
        if len(feed) > 1 and not isinstance(probe, twins.AT_ONE_POINT):
            return None  # other inputs move with it

        def moved(x: Array) -> list[Array]:
            return [x.astype(a.dtype) if i == at else a for i, a in enumerate(feed)]

        x = feed[at].astype(np.float64)
        return twins.attribution(
            probe,
            x,
            lambda changed: self._score(probe, feed, at, changed, pick),
            lambda point: self._gradient(probe, moved(point), at, pick),
            x.ndim - 1,
        )


def _is_plain(probe: Any) -> bool:
    """Tells whether a probe explains an input by the model's own score, and nothing is added."""
    plain = all(getattr(probe, name, None) is None for name in ("of", "region", "per_token"))
    return plain and getattr(probe, "wrt", "") == "input"


def _fed(feed: Sequence[Any]) -> Any:
    return feed[0] if len(feed) == 1 else list(feed)
