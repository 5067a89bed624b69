"""What attributions should be, computed with TensorFlow and numpy on the untouched Keras model.

Nothing of probegen's own references is used: the model is called as a user calls it, and the tape
is TensorFlow's.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from keras.src.models import functional

import probegen as pg
from fuzz import twins, twins_by_rules, twins_by_scores
from fuzz.judging import sign_alike
from fuzz.keras_states import Started, States
from fuzz.scoring import Array
from probegen.methods.base import OfInputs
from probegen.methods.by_scores import ByScores


@dataclasses.dataclass(frozen=True)
class Explained:
    """What an attribution is of: an input, or the output of a layer.

    Attributes:
        at: the place of the input; None for a layer.
        layer: the layer.
        hidden: the axes that the attribution does not have: of channels.
        channel_of_input: the axis of channels of the only input, where there is one.
        is_alone: whether the method explains nothing else beside it, as what is looked up for a
            number: points along a line are of all of these at once.
    """

    at: int | None
    layer: Any = None
    hidden: tuple[int, ...] = ()
    channel_of_input: int | None = None
    is_alone: bool = True

    @property
    def channel(self) -> int | None:
        """The axis of channels, where there is one."""
        return self.hidden[0] if len(self.hidden) == 1 else None

    def in_model(self, witness: Witness) -> Explained:
        """Returns the same of a witness of the same model in another precision."""
        if self.layer is None:
            return self
        return dataclasses.replace(self, layer=witness.model.get_layer(self.layer.name))


class Witness:
    """The untouched model of a case.

    Args:
        model: the model.
        logits: for each output what its last softmax or sigmoid reads.
        whole: what is explained, where that is the same model in another form.
        start: what the states of stateful layers start from, in each call; None for what they are.
    """

    def __init__(
        self,
        model: Any,
        logits: Sequence[Any],
        whole: Any = None,
        start: Sequence[Array] | None = None,
    ) -> None:
        self.model = model
        self._whole = model if whole is None else whole
        self.states = States.of(model)
        if start is not None:
            self.states.start = list(start)
        self._logits = list(logits)
        self._networks: dict[Any, Any] = {}
        #: What was computed, beside the inputs that it was computed of, so that these stay.
        self._known: dict[Any, tuple[Sequence[Array], Array]] = {}
        names = [layer.name for layer in model.layers]
        made = {layer.name: _only_output(layer) for layer in model.layers}
        self._made = {
            name: tensor
            for name, tensor in made.items()
            if names.count(name) == 1 and isinstance(tensor, keras.KerasTensor)
        }
        #: Where masks come from that stay as they are when an input is moved.
        self.has_masks = any(_makes_mask(layer) for layer in model._flatten_layers())
        #: TensorFlow's gradient of this pooling goes whole to each of several equal maxima.
        self._counts_ties = any(
            isinstance(layer, keras.layers.MaxPooling3D | keras.layers.AdaptiveMaxPooling3D)
            for layer in model._flatten_layers()
        )
        self._tables = sum(
            isinstance(layer, keras.layers.Embedding) for layer in model._flatten_layers()
        )
        self._looked_up = any(
            keras.backend.is_float_dtype(x.dtype)
            for layer in model.layers
            if isinstance(layer, keras.layers.Embedding)
            for x in _inputs_of(layer, model)
        )
        #: Output -> the axis of its classes, where it has positions.
        self.class_axes: dict[int, int] = {}
        #: By which draw of noise what is made of ids is moved, see `shaken`.
        self._draw: int | None = None

    def called(self, feed: Sequence[Any]) -> list[Any]:
        """Returns what the model gives for tensors, flat."""
        return _called(self.model, feed)

    def predictions(self, feed: Sequence[Array]) -> list[Array]:
        """Returns what the model predicts."""
        found = _called(self._started(self._whole), feed)
        return [keras.ops.convert_to_numpy(y) for y in found]

    def alone(self, feed: Sequence[Array], row: int) -> list[Array]:
        """Returns what the model predicts of a sample by itself."""
        if not self.states:
            return self.predictions([x[row : row + 1] for x in feed])
        same = [np.repeat(x[row : row + 1], len(x), axis=0) for x in feed]
        return [y[row : row + 1] for y in self.predictions(same)]

    def slopes_of_all(self, feed: Sequence[Array]) -> list[Array]:
        """Returns the scores of all outputs, and gradients of a sum of them all, by samples.

        The sum weighs each score by a number of its own, so that none makes up for another.
        """
        fed = [tf.convert_to_tensor(x) for x in feed]
        floating = [x for x in fed if x.dtype.is_floating]
        rng = np.random.default_rng(3)
        with tf.GradientTape() as tape:
            tape.watch(floating)
            scores = _called(self._network(("all", True), self._logits), fed)
            wide = [tf.cast(y, tf.float64) for y in scores]
            weights = (rng.uniform(0.5, 1.5, y.shape[1:]) for y in wide)
            total = tf.add_n([tf.reduce_sum(y * w) for y, w in zip(wide, weights, strict=True)])
        found = [g for g in tape.gradient(total, floating) if g is not None]
        return [keras.ops.convert_to_numpy(tf.convert_to_tensor(x)) for x in (*scores, *found)]

    def behind(self, feed: Sequence[Array]) -> Witness:
        """Returns the witness of what a series goes on with behind another."""
        self.predictions(feed)
        return Witness(self.model, self._logits, self._whole, self.states.now())

    @contextlib.contextmanager
    def shaken(self, draw: int, size: float) -> Iterator[None]:
        """Moves by noise what is made of ids, bytes and words: to these there is none to be added.

        Zeros stay zeros where they are what masks are made of. GELU is moved too, by noise beside
        its input: TensorFlow has it exactly far below 0, where others round `1 + erf(x)` to 0. So
        is what recurrent layers give, by noise beside 1: onnxruntime's gates are 0 far below 0. So
        is its sigmoid, and what SiLU makes of it: a sign or a count behind these tells more of the
        last bits of 1 than of the model. Some draws move equal numbers alike, see
        `judging.moved`.

        Args:
            draw: the number of the noise.
            size: of the noise, relative to the numbers.
        """
        looked_up, run, self._draw = keras.layers.Embedding.call, functional.operation_fn, draw
        least = 0.0 if self.has_masks else _LEAST_SHAKEN
        own_gelu, own_sigmoid, sign = tf.nn.gelu, tf.nn.sigmoid, sign_alike(draw)

        def noise(like: Any) -> Any:
            if not sign:
                return tf.random.stateless_normal(tf.shape(like), (draw, 0), dtype=tf.float64)
            each, places = tf.unique(tf.reshape(like, [-1]))
            drawn = tf.random.stateless_normal(tf.shape(each), (0, 1), dtype=tf.float64)
            drawn += tf.sign(drawn) / 2  # none so small that it is rounded away
            return sign * tf.reshape(tf.gather(drawn, places), tf.shape(like))

        def beside(made: Any, scale: Any) -> Any:
            wide = tf.cast(made, tf.float64)
            wide += size * tf.cast(scale, tf.float64) * noise(wide)
            return tf.cast(wide, made.dtype)

        def moved(made: Any, scale: Any = None) -> Any:
            """Returns what was made, with noise, under the same mask."""
            if not _is_floating(made):
                return made
            if scale is None:
                scale = tf.abs(made) + tf.cast(least, made.dtype)
            result = beside(made, scale)
            if (mask := getattr(made, "_keras_mask", None)) is not None:
                result._keras_mask = mask
            return result

        def gated(made: Any) -> Any:
            """Returns what a recurrent layer gave, with noise where it is not masked."""
            return moved(made, made != 0) if _is_floating(made) else made

        def gelu(x: Any, **given: Any) -> Any:
            return beside(own_gelu(x, **given), x)

        def sigmoid(x: Any, **given: Any) -> Any:
            exact = own_sigmoid(x, **given)
            return tf.where(1 + exact == 1, tf.zeros_like(exact), exact)

        def silu(x: Any, **given: Any) -> Any:
            return x * sigmoid(x, **given)

        def call(layer: Any, inputs: Any) -> Any:
            return moved(looked_up(layer, inputs))

        def operation_fn(operation: Any, **context: Any) -> Callable[..., Any]:
            own: Callable[..., Any] = run(operation, **context)
            if isinstance(operation, keras.layers.Embedding):
                return own
            if isinstance(operation, keras.layers.RNN | keras.layers.Bidirectional):
                return lambda *args, **given: keras.tree.map_structure(gated, own(*args, **given))

            def shaken(*args: Any, **given: Any) -> Any:
                made = own(*args, **given)
                read = keras.tree.flatten((args, given))
                is_of_ids = any(isinstance(x, tf.Tensor) for x in read)
                is_of_ids = is_of_ids and not any(map(_is_floating, read))
                return keras.tree.map_structure(moved, made) if is_of_ids else made

            return shaken

        try:
            with (
                mock.patch.object(keras.layers.Embedding, "call", call),
                mock.patch.object(functional, "operation_fn", operation_fn),
                mock.patch.object(tf.nn, "gelu", gelu),
                mock.patch.object(tf.nn, "sigmoid", sigmoid),
                mock.patch.object(tf.nn, "silu", silu),
            ):
                yield
        finally:
            self._draw = None

    def layer(self, path: Any) -> Any | None:
        """Returns the layer of a path that is called once and gives one tensor; else None."""
        inside = str(path).removeprefix(f"{self.model.name}/")
        return self.model.get_layer(inside) if inside in self._made else None

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
            asked: what a request asks for: `target`, `region`, `groups`.
        """
        if (self._counts_ties or self.states.repeated) and probe.needs_gradient:
            return None
        if not explained.is_alone and probe.gradients_at() is not None:
            return None
        aims = self._aims(probe, feed, asked) if _is_plain(probe) else None
        if aims is None:
            return None
        network = aims[0].network
        if type(probe) in twins_by_rules.RULES and not twins_by_rules.is_known(network):
            return None
        with twins_by_rules.bent(network, probe):
            found = [self._of_one(probe, feed, explained, aim, asked) for aim in aims]
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
        plain = single and not self.has_masks and not self._tables
        aims = self._aims(probe, feed, asked) if plain else None
        if aims is None or not (start is None or isinstance(start, float | int)):
            return None
        x = feed[0].astype(np.float64)
        points = [x] if start is None else [x, np.full(x.shape, start)]
        found = []
        for aim in aims:
            here, *there = _Moved(aim, [], 0, feed[0].dtype).scores(points)
            found.append(here - sum(there))
        return np.stack(found, axis=1) if twins.is_several(probe.target) else found[0]

    def slopes(
        self,
        probe: Any,
        feed: Sequence[Array],
        asked: Mapping[str, Array],
        at: int,
        ways: Array,
    ) -> Array | None:
        """Returns differences of the score in some directions of an input, `[batch, way]`.

        NaN where both sides, or a step, half of it and a longer one, tell different slopes: at
        kinks and ties, and on stairs of rounding, as behind a number that 1e9 is taken from; and
        where the score is so large that steps are lost beside it. None where nothing is known. For
        a model in float64.

        Args:
            probe: the probe.
            feed: the inputs, in float64.
            asked: what a request asks for.
            at: the place of the input.
            ways: the directions, `[way, ...]` of one sample.
        """
        aims = self._aims(probe, feed, asked)
        if aims is None or len(aims) > 1:
            return None
        kept = [x for i, x in enumerate(feed) if i != at]
        shares = (1, -1, 0.5, -0.5, _LONGER, -_LONGER)
        steps = [share * _STEP * way for way in ways for share in shares]
        moved = _Moved(aims[0], kept, at, feed[at].dtype)
        here, *scores = moved.scores([feed[at], *(feed[at] + step for step in steps)])
        got = np.stack(scores, axis=1).reshape(len(here), len(ways), len(shares))
        ahead, behind = got[..., 0] - here[:, None], here[:, None] - got[..., 1]
        finer = (got[..., 2] - got[..., 3]) / _STEP
        longer = (got[..., 4] - got[..., 5]) / (2 * _LONGER * _STEP)
        usual = _SMOOTH * (np.abs(finer) + 1e-2 * np.abs(finer).max(axis=1, keepdims=True))
        off = [
            np.abs(ahead - behind) / _STEP,
            np.abs((ahead + behind) / (2 * _STEP) - finer),
            np.abs(longer - finer),
            np.broadcast_to(np.spacing(np.abs(here))[:, None] / _STEP, finer.shape),
        ]
        return np.where(np.max(off, axis=0) <= usual + _LEAST, finer, np.nan)

    def sizes_of_scores(
        self, probe: Any, feed: Sequence[Array], asked: Mapping[str, Array]
    ) -> Array | None:
        """Returns the size of what the score of each sample is summed of, `[batch]`.

        The largest where several are explained; None where the scores are not known.

        Args:
            probe: the probe.
            feed: the inputs.
            asked: what a request asks for: `target`, `region`.
        """
        aims = self._aims(probe, feed, asked) or []
        picks = [aim.pick for aim in aims if aim.pick is not None]
        if not picks:
            return None
        scores = np.asarray(self._array(self._scored(probe), feed), np.float64)
        each = [np.abs(pick * scores).reshape(len(scores), -1).sum(axis=1) for pick in picks]
        return np.asarray(np.max(each, axis=0))

    def _aims(
        self, probe: Any, feed: Sequence[Array], asked: Mapping[str, Array]
    ) -> list[_Aim] | None:
        """Returns the scalar behind each result of a probe; None where it is not known."""
        if callable(probe.target):
            if probe.of is not None or probe.region is not None:
                return None
            outputs = self._logits if probe.logits else self.model.outputs
            return [_Aim(self._network(("all", probe.logits), outputs), function=probe.target)]
        scored = self._scored(probe)
        if scored is None or not self._has_classes_last(probe):
            return None
        scores = np.asarray(self._array(scored, feed), np.float64)
        if probe.of is not None and scores.ndim > _PLAIN:
            return None  # whose best channel is told by sums
        picks = twins.picks(probe.target, scores, asked.get("target"), _class_axis(scored))
        if picks is None:
            return None
        if probe.region is not None:
            weights = np.expand_dims(asked["region"], -1)
            picks = [pick * weights for pick in picks]
        return [_Aim(self._network(id(scored), [scored]), pick) for pick in picks]

    def _has_classes_last(self, probe: Any) -> bool:
        """Tells whether the classes of what a probe explains lie along the last axis."""
        at = probe.output if isinstance(probe.output, int) else 0
        rank = len(self.model.outputs[at].shape)
        return probe.of is not None or self.class_axes.get(at, rank - 1) == rank - 1

    def _scored(self, probe: Any) -> Any | None:
        """Returns the symbolic tensor that a probe takes its score from."""
        if probe.of is not None:
            told = isinstance(probe.of, int) and self._whole is self.model
            layer = self.model.layers[probe.of] if told else None
            if layer is None or is_turned(layer):
                return None
            return self._made.get(layer.name)
        at = probe.output if isinstance(probe.output, int) else 0
        return self._logits[at] if probe.logits else self.model.outputs[at]

    def _array(self, tensor: Any, feed: Sequence[Array]) -> Array:
        key = (self._draw, id(tensor), *(id(x) for x in feed))
        if key not in self._known:
            found = _called(self._network(id(tensor), [tensor]), feed)[0]
            self._known[key] = feed, np.asarray(keras.ops.convert_to_numpy(found))
        return self._known[key][1]

    def _network(self, key: Any, outputs: Sequence[Any]) -> Any:
        """Returns a model of tensors of the model, made once."""
        if key not in self._networks:
            network = keras.Model(self.model.inputs, list(outputs))
            self._networks[key] = self._started(network)
        return self._networks[key]

    def _started(self, network: Any) -> Any:
        return Started(network, self.states) if self.states else network

    def _of_one(
        self,
        probe: Any,
        feed: Sequence[Array],
        explained: Explained,
        aim: _Aim,
        asked: Mapping[str, Array],
    ) -> Array | None:
        if explained.at is None:
            return self._of_layer(probe, feed, explained, aim, asked)
        at = explained.at
        if not np.issubdtype(feed[at].dtype, np.floating):
            return None
        moves = not isinstance(probe, twins.AT_ONE_POINT)
        together = len(feed) > 1 or self._tables
        if moves and together and not _is_one(probe.wrt):
            return None  # other inputs or what is looked up move with it
        if moves and self._keeps_no_masks(probe):
            return None
        if moves and self._looked_up and not isinstance(probe, ByScores):
            return None  # what is looked up of it moves on a line of its own
        kept = [x for i, x in enumerate(feed) if i != at]
        masks = self._masks(probe, aim, feed) if moves else None
        one = _Moved(aim, kept, at, feed[at].dtype, masks=masks)
        x, groups = feed[at].astype(np.float64), asked.get("groups")
        return twins.attribution(probe, x, one.scores, one.gradients, explained.channel, groups)

    def _of_layer(
        self,
        probe: Any,
        feed: Sequence[Array],
        explained: Explained,
        aim: _Aim,
        asked: Mapping[str, Array],
    ) -> Array | None:
        layer, channel = explained.layer, explained.channel
        seen: list[Any] = []
        with tf.GradientTape() as tape:

            def watched(made: Any) -> Any:
                seen.append(made)
                tape.watch(made)
                return made

            with _given_out(layer, watched):
                score = tf.reduce_sum(aim.scores(_called(aim.network, feed)))
        if len(seen) != 1:
            return None  # the score does not depend on it
        (activation,) = seen
        slope = tape.gradient(score, activation)
        x = _wide(activation)
        gradient = np.zeros(x.shape) if slope is None else _wide(slope)
        if isinstance(probe, twins.AT_ONE_POINT):
            return twins.at_one_point(probe, x, gradient)
        if self.states:
            return None  # batch by batch what a layer gives is not moved
        kind = activation.dtype.as_numpy_dtype
        if isinstance(probe, OfInputs):
            if not self._moves_alone(probe, feed) or self._keeps_no_masks(probe):
                return None
            groups, masks = asked.get("groups"), self._masks(probe, aim, feed)
            inside = _Moved(aim, feed, None, kind, layer, masks)
            return twins.attribution(probe, x, inside.scores, inside.gradients, channel, groups)
        inside = _Moved(aim, feed, None, kind, layer)
        if channel is None:
            return None
        if (found := twins.map_of_layer(probe, x, gradient, channel)) is not None:
            return found
        if isinstance(probe, pg.ScoreCAM):
            return self._score_cam(feed, explained, aim, x)
        return twins.single_positions(probe, x, inside.scores, channel)

    def _score_cam(
        self, feed: Sequence[Array], explained: Explained, aim: _Aim, x: Array
    ) -> Array | None:
        plain = len(feed) == 1 and np.issubdtype(feed[0].dtype, np.floating)
        if not plain or self.has_masks or self._tables or explained.channel is None:
            return None
        moved = _Moved(aim, [], 0, feed[0].dtype)
        value, channels = feed[0].astype(np.float64), explained.channel_of_input
        return twins_by_scores.score_cam(value, channels, x, explained.channel, moved.scores)

    def _keeps_no_masks(self, probe: Any) -> bool:
        """Tells whether masks cannot be held on a path: batch by batch, or in inner models."""
        if isinstance(probe, ByScores) or not self.has_masks:
            return False
        every = [x for x in self.model._flatten_layers() if isinstance(x, keras.layers.Masking)]
        return bool(self.states) or any(x not in self.model.layers for x in every)

    def _masks(self, probe: Any, aim: _Aim, feed: Sequence[Array]) -> _Masks | None:
        """Returns the masks of the samples as they are, which stay so along a path.

        None for a method by scores: it hides parts of an input, and masks are those of what is
        left.
        """
        if isinstance(probe, ByScores) or not self.has_masks:
            return None
        outputs = [
            node.outputs[0]
            for layer in self.model.layers
            if isinstance(layer, keras.layers.Masking)
            for node in layer._inbound_nodes
        ]
        masks = [y._keras_mask for y in outputs if getattr(y, "_keras_mask", None) is not None]
        made_by = frozenset(id(mask._keras_history.operation) for mask in masks)
        seen: list[Array] = []

        def noted(mask: Any) -> Any:
            seen.append(keras.ops.convert_to_numpy(mask))
            return mask

        with _masking_by(noted, made_by):
            _called(aim.network, feed)
        return _Masks(made_by, seen)

    def _moves_alone(self, probe: Any, feed: Sequence[Array]) -> bool:
        """Tells whether a method of inputs moves one layer's output and nothing beside it."""
        if isinstance(probe.wrt, int):
            return True
        plain = len(feed) == 1 and not np.issubdtype(feed[0].dtype, np.floating)
        return plain and self._tables == 1 and isinstance(probe.wrt, str)


@dataclasses.dataclass(frozen=True)
class _Aim:
    """One number a sample that is explained.

    Attributes:
        network: gives what the number is made of.
        pick: weights of its only output; None where a function says more.
        function: makes the number of the outputs.
    """

    network: Any
    pick: Array | None = None
    function: Callable[[Any], Any] | None = None

    def scores(self, outputs: Sequence[Any], count: int = 1) -> Any:
        """Returns the number of each sample, of outputs whose rows come `count` times."""
        if self.function is not None:
            return tf.reshape(self.function(_fed(outputs)), [-1])
        assert self.pick is not None
        weighed = outputs[0] * tf.cast(_tiled(self.pick, count), outputs[0].dtype)
        return tf.reduce_sum(weighed, axis=list(range(1, len(weighed.shape))))


@dataclasses.dataclass(frozen=True)
class _Moved:
    """Scores of a network, one of whose inputs is moved, or what a layer inside of it gives.

    Attributes:
        aim: the scores.
        kept: the other inputs.
        at: the place of the input that moves; None where a layer's output does.
        dtype: its element type.
        layer: the layer.
        masks: that are held; None for those that are made of what moves.
    """

    aim: _Aim
    kept: Sequence[Array]
    at: int | None
    dtype: Any
    layer: Any = None
    masks: _Masks | None = None

    def _outputs(self, moved: Any, count: int) -> list[Any]:
        """Returns what the network gives at points that are one batch."""
        feed: list[Any] = [_tiled(x, count) for x in self.kept]
        with contextlib.ExitStack() as stack:
            if self.masks is not None:
                stack.enter_context(self.masks.held(count))
            if self.at is None:
                stack.enter_context(_given_out(self.layer, lambda _: moved))
            else:
                feed.insert(self.at, moved)
            return _called(self.aim.network, feed)

    def scores(self, points: Sequence[Array]) -> list[Array]:
        """Returns the score of each sample at some points."""
        moved = tf.convert_to_tensor(np.concatenate(points).astype(self.dtype))
        outputs = self._outputs(moved, len(points))
        # What a user's own function makes of float16 is infinite where float16 is.
        if self.aim.function is None or tf.float16 not in [y.dtype for y in outputs]:
            outputs = [tf.cast(y, tf.float64) for y in outputs]
        return np.split(_wide(self.aim.scores(outputs, len(points))), len(points))

    def gradients(self, points: Sequence[Array]) -> list[Array]:
        """Returns the gradient of the score at some points."""
        moved = tf.convert_to_tensor(np.concatenate(points).astype(self.dtype))
        with tf.GradientTape() as tape:
            tape.watch(moved)
            outputs = self._outputs(moved, len(points))
            score = tf.reduce_sum(self.aim.scores(outputs, len(points)))
        found = tape.gradient(score, moved)
        array = np.zeros(moved.shape) if found is None else _wide(found)
        return np.split(array, len(points))


@contextlib.contextmanager
def _given_out(layer: Any, changed: Callable[[Any], Any]) -> Iterator[None]:
    """Lets a layer give out what a function makes of what it gives, under the same mask.

    `ReversibleEmbedding` masks in its call, and has no `compute_mask`.
    """
    own_call = layer.call

    def call(*args: Any, **given: Any) -> Any:
        own = own_call(*args, **given)
        result, mask = changed(own), getattr(own, "_keras_mask", None)
        if mask is not None:
            result._keras_mask = mask
        return result

    with mock.patch.object(layer, "call", call):
        yield


@contextlib.contextmanager
def _masking_by(changed: Callable[[Any], Any], made_by: frozenset[int]) -> Iterator[None]:
    """Lets a model mask by what a function makes of the masks of its `Masking` layers.

    Each finds its mask in its call, and hands it on as what further operations of the model make.

    Args:
        changed: the function.
        made_by: the ids of these operations.
    """
    run = functional.operation_fn

    def call(layer: Any, inputs: Any) -> Any:
        found = keras.ops.any(keras.ops.not_equal(inputs, layer.mask_value), axis=-1)
        mask = tf.convert_to_tensor(changed(found))
        result = keras.ops.where(mask[..., None], inputs, 0)
        result._keras_mask = mask
        return result

    def operation_fn(operation: Any, **context: Any) -> Callable[..., Any]:
        own: Callable[..., Any] = run(operation, **context)
        if id(operation) not in made_by:
            return own
        return lambda *args, **given: tf.convert_to_tensor(changed(own(*args, **given)))

    with (
        mock.patch.object(keras.layers.Masking, "call", call),
        mock.patch.object(functional, "operation_fn", operation_fn),
    ):
        yield


@dataclasses.dataclass(frozen=True)
class _Masks:
    """The masks of samples.

    Attributes:
        made_by: the ids of the operations that hand them on.
        found: the masks, in the order in which they are found.
    """

    made_by: frozenset[int]
    found: Sequence[Array]

    @contextlib.contextmanager
    def held(self, count: int) -> Iterator[None]:
        """Lets a model mask by these, whose rows come `count` times."""
        masks = iter(self.found)
        with _masking_by(lambda _: _tiled(next(masks), count), self.made_by):
            yield


def _is_floating(x: Any) -> bool:
    return isinstance(x, tf.Tensor) and x.dtype.is_floating


def _is_one(wrt: Any) -> bool:
    """Tells whether a probe names one thing alone: of several, all move together."""
    return wrt != "input" if isinstance(wrt, str) else not isinstance(wrt, list) or len(wrt) == 1


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


def _inputs_of(layer: Any, model: Any) -> list[Any]:
    """Returns the inputs of a model that what a layer reads is made of."""
    waiting = [x for node in layer._inbound_nodes for x in node.input_tensors]
    found: dict[int, Any] = {}
    while waiting:
        x = waiting.pop()
        if id(x) not in found:
            found[id(x)] = x
            maker = x._keras_history.operation
            waiting += [y for node in maker._inbound_nodes for y in node.input_tensors]
    return [x for x in model.inputs if id(x) in found]


def _makes_mask(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Masking) or bool(getattr(layer, "mask_zero", False))


def is_turned(layer: Any) -> bool:
    """Tells whether a layer's channels stand before its positions."""
    return getattr(layer, "data_format", None) == "channels_first"


def _class_axis(scored: Any) -> int | None:
    """Returns the axis of the classes: the last one, where there are positions."""
    return len(scored.shape) - 1 if len(scored.shape) > _PLAIN else None


#: Length of the steps of differences in float64, how many times as long a longer one is, how near
#: the slopes of both sides have to be to each other, and what counts as none.
_STEP, _LONGER, _SMOOTH, _LEAST = 1e-5, 10.0, 1e-4, 1e-7
#: What the size of a number counts as beside itself where noise moves it.
_LEAST_SHAKEN = 0.1
#: Axes of scores without positions.
_PLAIN = 2


def _is_plain(probe: Any) -> bool:
    """Tells whether a probe explains by a score, and nothing is made of the attribution."""
    if not hasattr(probe, "logits") or getattr(probe, "per_token", None) is not None:
        return False
    return not getattr(probe, "upsample", False)


def _fed(feed: Sequence[Any]) -> Any:
    """Returns tensors as a model takes them: one by itself."""
    tensors = [tf.convert_to_tensor(x) for x in feed]
    return tensors[0] if len(tensors) == 1 else tensors
