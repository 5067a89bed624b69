"""The models, what is asked of them, and what the untouched model says to it.

What is right is computed from the model as a user calls it, eagerly, with a tape around the call
and the outputs of single layers noted down; none of probegen's code has a part in it.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf
from keras import layers

import probegen as pg

Array = npt.NDArray[Any]
#: Points of the path of integrated gradients.
_STEPS = 6
#: Size of the picture whose windows are hidden, and of these.
_PICTURE, _WINDOW = (76, 58), 16


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model, its probes, and requests.

    Attributes:
        build: returns the model.
        probes: what is compiled into it.
        input: name of its input.
        shape: of one sample, None where a size is open.
        forms: gates that it is compiled with.
        right: the untouched model and feeds -> every output by name.
        target: True where the request chooses the class.
    """

    build: Callable[[], Any]
    probes: Sequence[Any]
    input: str
    shape: tuple[int | None, ...]
    right: Callable[[Any, Mapping[str, Array]], Mapping[str, Array]]
    forms: tuple[bool | str, ...] = (True, False)
    target: bool = False


def requests(subject: Subject) -> list[dict[str, Array]]:
    """Returns feeds of two batch sizes and two of each open size, without the gate.

    In them stand zeros, whole rows of zeros (padding), negative numbers, ties and large numbers.
    """
    made = []
    for batch, longer, seed in ((3, 4, 0), (1, 0, 1)):
        rng = np.random.default_rng(seed)
        open_sizes = iter((7 + longer, 6 + longer // 2))
        shape = [next(open_sizes) if n is None else n for n in subject.shape]
        if subject.input == "tokens":
            x: Array = rng.integers(1, 31, [batch, *shape]).astype(np.int32)
        else:
            x = rng.normal(size=[batch, *shape]).astype(np.float32)
            x[0, :2] = np.round(x[0, :2])
            x[-1, 0] *= 30
        x[0, -2:] = 0
        x[-1, 1:3] = x[-1, :1]
        feeds = {subject.input: x}
        if subject.target:
            feeds["target"] = np.array([2, -1, 0], np.int32)[:batch]
        made.append(feeds)
    return made


# -- models ------------------------------------------------------------------------------------


def _scores(y: Any, classes: int) -> Any:
    y = layers.Dense(classes, name="logits")(y)
    return layers.Activation("softmax", name="scores")(y)


def _cnn() -> Any:
    x = keras.Input((None, None, 3), name="image")
    y = layers.Conv2D(6, 3, padding="same", activation="relu")(x)
    y = layers.MaxPooling2D()(y)
    y = layers.DepthwiseConv2D(3, padding="same", bias_initializer="normal")(y)
    y = layers.ReLU(6.0, name="maps")(layers.BatchNormalization()(y))
    y = layers.GlobalAveragePooling2D()(y)
    y = layers.Dense(7, activation="relu")(y)
    return keras.Model(x, _scores(y, 5))


def _windowed() -> Any:
    """So large that what a window does not reach is not computed again."""
    x = keras.Input((*_PICTURE, 3), name="image")
    y = layers.Conv2D(24, 3, padding="same", activation="relu")(x)
    y = layers.MaxPooling2D(3, 2, padding="same")(y)
    seen = layers.Conv2D(24, 3, padding="same", activation="relu")(y)
    y = layers.Conv2D(12, 3, strides=2, name="maps")(layers.Add()([y, seen]))
    return keras.Model(x, _scores(layers.Flatten()(y), 5))


def _transformer() -> Any:
    x = keras.Input((None,), dtype="int32", name="tokens")
    y = layers.Embedding(31, 12, name="embedding")(x)
    seen = layers.MultiHeadAttention(3, 5, name="attention")(y, y)
    y = layers.LayerNormalization()(layers.Add()([y, seen]))
    y = layers.Dense(9, activation="gelu")(y)
    y = layers.GlobalAveragePooling1D()(y)
    return keras.Model(x, _scores(y, 4))


def _recurrent(layer: Callable[..., Any]) -> Any:
    x = keras.Input((None, 5), name="series")
    y = layer(7, return_sequences=True)(x)
    y = layer(6)(y)
    return keras.Model(x, _scores(y, 4))


def _conv_lstm() -> Any:
    x = keras.Input((None, 6, 5, 2), name="film")
    y = layers.ConvLSTM2D(3, 3, padding="same")(x)
    return keras.Model(x, _scores(layers.Flatten()(y), 4))


# -- what is right -----------------------------------------------------------------------------


@contextlib.contextmanager
def _noted(model: Any, *names: str, tape: Any = None) -> Iterator[dict[str, Any]]:
    """Notes the outputs of layers down while the model is called, and has a tape watch them."""
    noted: dict[str, Any] = {}
    originals = {name: model.get_layer(name).call for name in names}

    def watched(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "attention":
                kwargs["return_attention_scores"] = True
            found = originals[name](*args, **kwargs)
            if name == "attention":
                found, noted["weights"] = found
            if tape is not None:
                tape.watch(found)
            noted[name] = found
            return found

        return call

    for name in names:
        model.get_layer(name).call = watched(name)
    try:
        yield noted
    finally:
        for name in names:
            model.get_layer(name).call = originals[name]


def _gradient(
    model: Any, x: Any, target: Any = None, at: str | None = None
) -> tuple[dict[str, Any], Any, Any]:
    """Returns what was noted, the scores, and the gradient of the class's logit."""
    names = ("logits",) if at is None else ("logits", at)
    with tf.GradientTape() as tape:
        x = tf.convert_to_tensor(x)
        tape.watch(x)
        with _noted(model, *names, tape=tape) as noted:
            scores = model(x)
        logits = noted["logits"]
        best = tf.argmax(logits, -1, output_type=tf.int32)
        chosen = best if target is None else tf.where(target < 0, best, target)
        score = tf.reduce_sum(tf.gather(logits, chosen, axis=-1, batch_dims=1))
    return noted, scores, tape.gradient(score, x if at is None else noted[at])


def _right_of_cnn(model: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    x, target = feeds["image"], feeds["target"]
    _, scores, gradient = _gradient(model, x, target)
    noted, _, at_maps = _gradient(model, x, target, at="maps")
    weights = tf.reduce_mean(at_maps, (1, 2), keepdims=True)
    cam = tf.nn.relu(tf.reduce_sum(weights * noted["maps"], -1))
    return {
        "scores": scores.numpy(),
        "saliency/image": tf.reduce_max(tf.abs(gradient), -1).numpy(),
        "grad_cam/maps": cam.numpy(),
    }


def _right_of_transformer(model: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    _, scores, gradient = _gradient(model, feeds["tokens"], at="embedding")
    with _noted(model, "attention") as noted:
        model(feeds["tokens"])
    return {
        "scores": scores.numpy(),
        "attention/attention": noted["weights"].numpy(),
        "input_gradient/tokens": gradient.numpy(),
    }


def _right_of_gradient(name: str) -> Callable[[Any, Mapping[str, Array]], dict[str, Array]]:
    def right(model: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
        _, scores, gradient = _gradient(model, feeds[name])
        return {"scores": scores.numpy(), f"input_gradient/{name}": gradient.numpy()}

    return right


def _right_of_integrated(model: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    x = feeds["image"]
    _, scores, _ = _gradient(model, x)
    target = np.argmax(scores, -1).astype(np.int32)
    points = [(k + 0.5) / _STEPS for k in range(_STEPS)]
    slopes = [_gradient(model, (p * x).astype(np.float32), target)[2].numpy() for p in points]
    return {"scores": scores.numpy(), "integrated_gradients/image": x * np.mean(slopes, axis=0)}


def _right_of_windows(model: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    x = feeds["image"]

    def logits(image: Array) -> Array:
        with _noted(model, "logits") as noted:
            model(image)
        return np.asarray(noted["logits"])

    own, scores = logits(x), model(x).numpy()
    rows = np.arange(len(x)), own.argmax(-1)
    taken = np.zeros(x.shape[:-1])
    for top in range(0, _PICTURE[0], _WINDOW):
        for left in range(0, _PICTURE[1], _WINDOW):
            hidden, at = x.copy(), np.s_[:, top : top + _WINDOW, left : left + _WINDOW]
            hidden[at] = 0
            taken[at] = (own[rows] - logits(hidden)[rows])[:, None, None]
    return {"scores": scores, "occlusion/image": taken.astype(np.float32)}


_EVERY_FORM = (True, "optional", "split", False)
SUBJECTS: dict[str, Subject] = {
    "CNN: saliency, Grad-CAM": Subject(
        _cnn,
        [pg.Saliency(target="input"), pg.GradCAM(layer="maps", target="input")],
        "image",
        (None, None, 3),
        _right_of_cnn,
        _EVERY_FORM,
        target=True,
    ),
    "CNN: integrated gradients": Subject(
        _cnn,
        [pg.IntegratedGradients(steps=_STEPS)],
        "image",
        (None, None, 3),
        _right_of_integrated,
    ),
    "CNN: occlusion": Subject(
        _windowed,
        [pg.Occlusion(_WINDOW)],
        "image",
        (*_PICTURE, 3),
        _right_of_windows,
    ),
    "transformer: attention, gradient": Subject(
        _transformer,
        [pg.Attention(), pg.InputGradient()],
        "tokens",
        (None,),
        _right_of_transformer,
    ),
    "LSTM: gradient": Subject(
        lambda: _recurrent(layers.LSTM),
        [pg.InputGradient()],
        "series",
        (None, 5),
        _right_of_gradient("series"),
    ),
    "GRU: gradient": Subject(
        lambda: _recurrent(layers.GRU),
        [pg.InputGradient()],
        "series",
        (None, 5),
        _right_of_gradient("series"),
    ),
    "ConvLSTM2D: gradient": Subject(
        _conv_lstm,
        [pg.InputGradient()],
        "film",
        (None, 6, 5, 2),
        _right_of_gradient("film"),
    ),
}
