"""The models that are timed, and the probes they are compiled with."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent

#: Models of keras.applications, at their default input size with random weights.
APPLICATIONS = (
    "ResNet50",
    "VGG16",
    "MobileNetV2",
    "DenseNet121",
    "EfficientNetB0",
    "ConvNeXtTiny",
)
DEMOS = ("digits", "words", "sunspots")
DEFAULT = (*APPLICATIONS, "BERT")
#: Recurrent layers over series of any length, called `<layer>-<units>`.
RECURRENT = ("LSTM", "GRU", "SimpleRNN")
FEATURES = 32


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model to time.

    Attributes:
        name: what it goes by in the table.
        build: returns the model; weights need not be trained.
        activations: selector of the layer whose activations are timed alone.
    """

    name: str
    build: Callable[[], Any]
    activations: Any


def subject(name: str) -> Subject:
    """Returns the subject called `name`.

    Raises:
        ValueError: there is none; lists those there are.
    """
    if name in DEMOS:
        return Subject(name, _demo(name), 2)
    if name == "BERT":
        return Subject(name, bert_base, -2)
    if name in APPLICATIONS:
        return Subject(name, _application(name), "type:Conv2D" if name == "VGG16" else -3)
    if name.startswith("residual-"):
        size, depth = (int(part) for part in name.split("-")[1:])
        return Subject(name, lambda: residual(size, depth), -1)
    kind, _, units = name.partition("-")
    if kind in RECURRENT and units.isdigit():
        return Subject(name, lambda: series(kind, int(units)), -2)
    known = ", ".join((*DEMOS, *APPLICATIONS, "BERT", *(f"{kind}-128" for kind in RECURRENT)))
    raise ValueError(f"there is no subject {name!r}; there are {known}")


def _application(name: str) -> Callable[[], Any]:
    def build() -> Any:
        import keras

        keras.utils.set_random_seed(1)
        model = getattr(keras.applications, name)(weights=None)
        settle_batch_normalisation(model)
        return model

    return build


def settle_batch_normalisation(model: Any) -> None:
    """Gives batch normalisations the statistics of a batch, as training would.

    With those of a new model signals fade from layer to layer, to numbers that processors are slow
    at.
    """
    import keras

    layers = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 0.0
    images = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:]))
    model(images.astype(np.float32), training=True)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def _demo(name: str) -> Callable[[], Any]:
    def build() -> Any:
        sys.path.insert(0, str(ROOT / "examples"))
        return __import__(f"demo_{name}").build_model()

    return build


def bert_base(length: int = 128, depth: int = 12, width: int = 768, heads: int = 12) -> Any:
    """Returns an encoder of the size of BERT-base over `length` tokens, classifier on top."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    x = layers.Embedding(30522, width, name="embedding")(tokens)
    positions = layers.Embedding(length, width, name="positions")(np.arange(length)[None])
    x = layers.LayerNormalization(epsilon=1e-12)(x + positions)
    for _ in range(depth):
        attended = layers.MultiHeadAttention(heads, width // heads)(x, x)
        x = layers.LayerNormalization(epsilon=1e-12)(x + attended)
        hidden = layers.Dense(4 * width, activation="gelu")(x)
        x = layers.LayerNormalization(epsilon=1e-12)(x + layers.Dense(width)(hidden))
    pooled = layers.Dense(width, activation="tanh")(x[:, 0])
    return keras.Model(tokens, layers.Dense(2, activation="softmax")(pooled), name="bert_base")


def series(kind: str, units: int) -> Any:
    """Returns one recurrent layer over a series of any length, classifier on top."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    x = keras.Input((None, FEATURES), name="x")
    last = getattr(layers, kind)(units)(x)
    return keras.Model(x, layers.Dense(10, activation="softmax")(last), name="series")


def residual(size: int, depth: int, width: int = 32) -> Any:
    """Returns a plain residual network over `size` x `size` images, `depth` blocks deep."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(1)
    image = keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(image)
    for _ in range(depth):
        y = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        y = layers.Conv2D(width, 3, padding="same")(y)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, activation="softmax")(x), name="residual")


def sample(manifest: Any, batch: int) -> dict[str, Any]:
    """Returns random inputs for an artefact."""
    from probegen.parity import generate_samples

    return generate_samples(manifest, np.random.default_rng(0), batch)
