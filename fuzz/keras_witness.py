"""What attributions should be, computed with TensorFlow and numpy on the untouched Keras model.

Nothing of probegen's own references is used: the model is called as a user calls it, and the tape
is TensorFlow's.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

import probegen as pg
from probegen.methods.targets import Contrast, count_of_top

Array = npt.NDArray[Any]


def _points(rule: str, steps: int) -> tuple[Array, Array]:
    """Returns points between 0 and 1 and their weights, by which an integral is summed."""
    if rule == "midpoint":
        return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)
    if rule == "trapezoid":
        points = np.linspace(0, 1, steps)
        weights = np.ones(steps)
        weights[[0, -1]] = 0.5
        return points, weights / (steps - 1)
    points, weights = np.polynomial.legendre.leggauss(steps)
    return (points + 1) / 2, weights / 2


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
        picks = self._picks(probe, feed)
        if picks is None:
            return None
        found = [self._of_one(probe, feed, at, pick) for pick in picks]
        if any(array is None for array in found):
            return None
        arrays = [array for array in found if array is not None]
        return np.stack(arrays, axis=1) if _is_several(probe.target) else arrays[0]

    def _picks(self, probe: Any, feed: Sequence[Array]) -> list[Array] | None:
        """Returns for each result the weights of the scores, `[batch, class]`."""
        scores = self._score_arrays(probe, feed)
        if scores.ndim != 2 or scores.shape[1] < 2:
            return None
        order = np.argsort(-scores, axis=1, kind="stable")
        near = np.diff(np.sort(scores, axis=1), axis=1).min(initial=np.inf)
        eye = np.eye(scores.shape[1])
        target = probe.target
        if target in ("argmax", "input"):
            ranks: list[Any] = [order[:, 0]]
        elif isinstance(target, Contrast):
            of = {"argmax": order[:, 0], "runner_up": order[:, 1]}
            a, b = (
                of[s] if isinstance(s, str) else np.full(len(scores), s)
                for s in (target.a, target.b)
            )
            return None if near < 1e-4 else [eye[a] - eye[b]]
        elif target == "all":
            return [np.broadcast_to(row, scores.shape) for row in eye]
        elif isinstance(target, list):
            return [np.broadcast_to(eye[i], scores.shape) for i in target]
        elif isinstance(target, int):
            return [np.broadcast_to(eye[target], scores.shape)]
        elif isinstance(target, tuple) and len(target) == 1 and isinstance(target[0], int):
            return [np.broadcast_to(eye[target[0]], scores.shape)]
        elif (count := count_of_top(target)) is not None:
            ranks = [order[:, i] for i in range(count)]
        else:
            return None
        return None if near < 1e-4 else [eye[best] for best in ranks]

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
        x = feed[at].astype(np.float64)
        if isinstance(probe, pg.InputGradient):
            return self._gradient(probe, feed, at, pick)
        if isinstance(probe, pg.GradientXInput):
            return self._gradient(probe, feed, at, pick) * x
        if isinstance(probe, pg.Saliency):
            return np.abs(self._gradient(probe, feed, at, pick))
        if isinstance(probe, pg.IntegratedGradients) and len(feed) == 1:
            return self._integrated(probe, feed, pick)
        if isinstance(probe, pg.Occlusion) and len(feed) == 1:
            return self._occluded(probe, feed, pick)
        if isinstance(probe, pg.FeatureAblation) and len(feed) == 1 and probe.groups is None:
            return self._ablated(probe, feed, pick)
        return None

    def _integrated(self, probe: Any, feed: Sequence[Array], pick: Array) -> Array | None:
        if not isinstance(probe.baseline, float | int):
            return None
        x = feed[0].astype(np.float64)
        points, weights = _points(probe.rule, probe.steps)
        total = np.zeros(x.shape)
        for point, weight in zip(points, weights, strict=True):
            moved = probe.baseline + point * (x - probe.baseline)
            total += weight * self._gradient(probe, [moved.astype(feed[0].dtype)], 0, pick)
        return total * (x - probe.baseline)

    def _occluded(self, probe: Any, feed: Sequence[Array], pick: Array) -> Array | None:
        x = feed[0].astype(np.float64)
        sizes = x.shape[1:-1] if x.ndim > 2 else x.shape[1:]
        window = np.broadcast_to(np.asarray(probe.window), len(sizes))
        stride = np.broadcast_to(np.asarray(probe.stride or probe.window), len(sizes))
        if any(w > s for w, s in zip(window, sizes, strict=True)):
            return None
        base = self._score(probe, feed, 0, x, pick)
        total, count = np.zeros((len(x), *sizes)), np.zeros(sizes)
        starts = []
        for size, w, step in zip(sizes, window, stride, strict=True):
            if step > w or (size - w) % step:
                return None  # what happens at the edge is the method's own affair
            starts.append(range(0, size - int(w) + 1, int(step)))
        for corner in itertools.product(*starts):
            inside = tuple(slice(c, c + int(w)) for c, w in zip(corner, window, strict=True))
            moved = x.copy()
            moved[(slice(None), *inside)] = probe.fill
            lost = base - self._score(probe, feed, 0, moved, pick)
            total[(slice(None), *inside)] += lost.reshape(-1, *[1] * len(sizes))
            count[inside] += 1
        return total / count

    def _ablated(self, probe: Any, feed: Sequence[Array], pick: Array) -> Array | None:
        x = feed[0].astype(np.float64)
        if x.ndim != 2:
            return None
        base = self._score(probe, feed, 0, x, pick)
        found = np.zeros(x.shape)
        for i in range(x.shape[1]):
            moved = x.copy()
            moved[:, i] = probe.fill
            found[:, i] = base - self._score(probe, feed, 0, moved, pick)
        return found


def _is_plain(probe: Any) -> bool:
    """Tells whether a probe explains an input by the model's own score, and nothing is added."""
    plain = all(getattr(probe, name, None) is None for name in ("of", "region", "per_token"))
    return plain and getattr(probe, "wrt", "") == "input"


def _is_several(target: Any) -> bool:
    return target == "all" or isinstance(target, list) or count_of_top(target) is not None


def _fed(feed: Sequence[Any]) -> Any:
    return feed[0] if len(feed) == 1 else list(feed)
