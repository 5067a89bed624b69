"""What attributions should be, computed with TensorFlow and numpy on the untouched Keras model.

Nothing of probegen's own references is used: the model is called as a user calls it, and the tape
is TensorFlow's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from fuzz import twins

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Explained:
    """What an attribution is of: an input, or the output of a layer.

    Attributes:
        at: the place of the input; None for a layer.
        layer: the layer.
        hidden: the axes that the attribution does not have: of channels.
    """

    at: int | None
    layer: Any = None
    hidden: tuple[int, ...] = ()

    @property
    def channel(self) -> int | None:
        """The axis of channels, where there is one."""
        return self.hidden[0] if len(self.hidden) == 1 else None


class Witness:
    """The untouched model of a case.

    Args:
        model: the model.
        logits: for each output what its last softmax or sigmoid reads.
    """

    def __init__(self, model: Any, logits: Sequence[Any]) -> None:
        self.model = model
        self._logits = list(logits)
        self._networks: dict[Any, Any] = {}
        names = [layer.name for layer in model.layers]
        made = {layer.name: _only_output(layer) for layer in model.layers}
        self._made = {
            name: tensor
            for name, tensor in made.items()
            if names.count(name) == 1 and isinstance(tensor, keras.KerasTensor)
        }
        #: Where masks come from that stay as they are when an input is moved.
        self.has_masks = any(_makes_mask(layer) for layer in model._flatten_layers())

    def predictions(self, feed: Sequence[Array]) -> list[Array]:
        """Returns what the model predicts."""
        found = self.model(_fed(feed), training=False)
        return [keras.ops.convert_to_numpy(y) for y in keras.tree.flatten(found)]

    def layer(self, path: Any) -> Any | None:
        """Returns the layer of a path that is called once and gives one tensor; else None."""
        return self.model.get_layer(path) if path in self._made else None

    def activation(self, layer: Any, feed: Sequence[Array]) -> Array:
        """Returns what a layer gives."""
        return self._array(self._made[layer.name], feed)

    def attribution(
        self,
        probe: Any,
        feed: Sequence[Array],
        explained: Explained,
        asked: Mapping[str, Array],
    ) -> Array | None:
        """Returns what a probe gives, None where this witness does not know.

        Of a saliency it is the magnitude of each channel.

        Args:
            probe: the probe.
            feed: the inputs.
            explained: what is explained.
            asked: what a request asks for: `target`, `region`.
        """
        picked = self._picked(probe, feed, asked) if _is_plain(probe) else None
        if picked is None:
            return None
        scored, picks = picked
        found = [self._of_one(probe, feed, explained, scored, pick) for pick in picks]
        arrays = [array for array in found if array is not None]
        if len(arrays) < len(found):
            return None
        return np.stack(arrays, axis=1) if twins.is_several(probe.target) else arrays[0]

    def gained(self, probe: Any, feed: Sequence[Array], asked: Mapping[str, Array]) -> Array | None:
        """Returns the score less that of the reference, which complete attributions add up to.

        `[batch]`, or with several targets `[batch, class]`. None where it is not known: of models
        with one floating input whose masks stay, and of references that are numbers.

        Args:
            probe: the probe.
            feed: the inputs.
            asked: what a request asks for: `target`, `region`.
        """
        start = probe.reference()
        single = len(feed) == 1 and np.issubdtype(feed[0].dtype, np.floating)
        picked = self._picked(probe, feed, asked) if single and not self.has_masks else None
        if picked is None or not (start is None or isinstance(start, float | int)):
            return None
        scored, picks = picked
        network, x = self._network(id(scored), [scored]), feed[0].astype(np.float64)
        points = [x] if start is None else [x, np.full(x.shape, start)]
        found = []
        for pick in picks:
            here, *there = _Moved(network, [], 0, feed[0].dtype, pick).scores(points)
            found.append(here - sum(there))
        return np.stack(found, axis=1) if twins.is_several(probe.target) else found[0]

    def _picked(
        self, probe: Any, feed: Sequence[Array], asked: Mapping[str, Array]
    ) -> tuple[Any, list[Array]] | None:
        """Returns what a probe takes its score from, and the weights of that for each result."""
        scored = self._scored(probe)
        if scored is None or callable(probe.target):
            return None
        scores = np.asarray(self._array(scored, feed), np.float64)
        if probe.of is not None and scores.ndim > _PLAIN:
            return None  # whose best channel is told by sums
        picks = twins.picks(probe.target, scores, asked.get("target"), _class_axis(scored))
        if picks is None or probe.region is None:
            return None if picks is None else (scored, picks)
        weights = np.expand_dims(asked["region"], -1)
        return scored, [pick * weights for pick in picks]

    def _scored(self, probe: Any) -> Any | None:
        """Returns the symbolic tensor that a probe takes its score from."""
        if probe.of is not None:
            layer = self.model.layers[probe.of] if isinstance(probe.of, int) else None
            if layer is None or is_turned(layer):
                return None
            return self._made.get(layer.name)
        at = probe.output if isinstance(probe.output, int) else 0
        return self._logits[at] if probe.logits else self.model.outputs[at]

    def _array(self, tensor: Any, feed: Sequence[Array]) -> Array:
        network = self._network(id(tensor), [tensor])
        return np.asarray(keras.ops.convert_to_numpy(_called(network, feed)[0]))

    def _network(self, key: Any, outputs: Sequence[Any], inputs: Any = None) -> Any:
        """Returns a model of tensors of the model, made once."""
        if key not in self._networks:
            start = self.model.inputs if inputs is None else inputs
            self._networks[key] = keras.Model(start, list(outputs))
        return self._networks[key]

    def _of_one(
        self, probe: Any, feed: Sequence[Array], explained: Explained, scored: Any, pick: Array
    ) -> Array | None:
        if explained.at is None:
            return self._of_layer(probe, feed, explained, scored, pick)
        at = explained.at
        if not np.issubdtype(feed[at].dtype, np.floating):
            return None
        moves = not isinstance(probe, twins.AT_ONE_POINT)
        if moves and (self.has_masks or (len(feed) > 1 and probe.wrt == "input")):
            return None  # other inputs move with it, or masks do not
        network = self._network(id(scored), [scored])
        kept = [x for i, x in enumerate(feed) if i != at]
        one = _Moved(network, kept, at, feed[at].dtype, pick)
        x = feed[at].astype(np.float64)
        return twins.attribution(probe, x, one.scores, one.gradients, explained.channel)

    def _of_layer(
        self, probe: Any, feed: Sequence[Array], explained: Explained, scored: Any, pick: Array
    ) -> Array | None:
        layer, channel = explained.layer, explained.channel
        network, own_call = self._network(id(scored), [scored]), layer.call
        seen: list[Any] = []
        with tf.GradientTape() as tape:

            def watched(*args: Any, **given: Any) -> Any:
                seen.append(own_call(*args, **given))
                tape.watch(seen[-1])
                return seen[-1]

            with mock.patch.object(layer, "call", watched):
                scores = _called(network, feed)[0]
            score = tf.reduce_sum(scores * tf.cast(pick, scores.dtype))
        if len(seen) != 1:
            return None  # the score does not depend on it
        (activation,) = seen
        slope = tape.gradient(score, activation)
        x = _wide(activation)
        gradient = np.zeros(x.shape) if slope is None else _wide(slope)
        if isinstance(probe, twins.AT_ONE_POINT):
            return twins.at_one_point(probe, x, gradient)
        if channel is None:
            return None
        if (found := twins.map_of_layer(probe, x, gradient, channel)) is not None:
            return found
        tail = None if self.has_masks else self._tail(layer, scored)
        if tail is None:
            return None
        one = _Moved(tail, [], 0, activation.dtype.as_numpy_dtype, pick)
        return twins.single_positions(probe, x, one.scores, channel)

    def _tail(self, layer: Any, scored: Any) -> Any | None:
        """Returns the model behind a layer; None where something passes it by."""
        try:
            made = self._made[layer.name]
            return self._network(("from", id(made), id(scored)), [scored], made)
        except ValueError:
            return None


@dataclasses.dataclass(frozen=True)
class _Moved:
    """Scores of a network, one of whose inputs is moved.

    Attributes:
        network: gives the scores.
        kept: the other inputs.
        at: the place of the one that moves.
        dtype: its element type.
        pick: weights of the scores.
    """

    network: Any
    kept: Sequence[Array]
    at: int
    dtype: Any
    pick: Array

    def _feed(self, points: Sequence[Array]) -> tuple[list[Array], Array]:
        """Returns all points as one batch, and the weights of its scores."""
        count = len(points)
        feed = [_tiled(x, count) for x in self.kept]
        feed.insert(self.at, np.concatenate(points).astype(self.dtype))
        return feed, _tiled(self.pick, count)

    def scores(self, points: Sequence[Array]) -> list[Array]:
        """Returns the score of each sample at some points."""
        feed, pick = self._feed(points)
        found = _wide(_called(self.network, feed)[0]) * pick
        return np.split(found.sum(axis=tuple(range(1, found.ndim))), len(points))

    def gradients(self, points: Sequence[Array]) -> list[Array]:
        """Returns the gradient of the score at some points."""
        feed, pick = self._feed(points)
        tensors = [tf.convert_to_tensor(a) for a in feed]
        with tf.GradientTape() as tape:
            tape.watch(tensors[self.at])
            scores = _called(self.network, tensors)[0]
            score = tf.reduce_sum(scores * tf.cast(pick, scores.dtype))
        found = tape.gradient(score, tensors[self.at])
        array = np.zeros(feed[self.at].shape) if found is None else _wide(found)
        return np.split(array, len(points))


def _called(network: Any, feed: Sequence[Any]) -> list[Any]:
    return list(keras.tree.flatten(network(_fed(feed), training=False)))


def _wide(tensor: Any) -> Array:
    return np.asarray(keras.ops.convert_to_numpy(tf.convert_to_tensor(tensor)), np.float64)


def _tiled(x: Array, count: int) -> Array:
    return np.tile(x, (count, *[1] * (x.ndim - 1)))


def _only_output(layer: Any) -> Any:
    """Returns what a layer gives that is called once; None for others, and for inner models."""
    is_plain = len(layer._inbound_nodes) == 1 and not isinstance(layer, keras.Model)
    return layer.output if is_plain else None


def _makes_mask(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Masking) or bool(getattr(layer, "mask_zero", False))


def is_turned(layer: Any) -> bool:
    """Tells whether a layer's channels stand before its positions."""
    return getattr(layer, "data_format", None) == "channels_first"


def _class_axis(scored: Any) -> int | None:
    """Returns the axis of the classes: the last one, where there are positions."""
    return len(scored.shape) - 1 if len(scored.shape) > _PLAIN else None


#: Axes of scores without positions.
_PLAIN = 2


def _is_plain(probe: Any) -> bool:
    """Tells whether a probe explains by a score, and nothing is made of the attribution."""
    if not hasattr(probe, "logits") or getattr(probe, "per_token", None) is not None:
        return False
    return not getattr(probe, "upsample", False)


def _fed(feed: Sequence[Any]) -> Any:
    return feed[0] if len(feed) == 1 else list(feed)
