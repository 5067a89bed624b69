"""A small Keras model and its inputs. Shapes are neither square nor round."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from peers.case import Array
from probegen import compile as compile_model
from probegen import runtime

#: The layer that class activation maps look at.
LAST = "last"


def image_model() -> keras.Model:
    """Returns a convolutional classifier of `[batch, 14, 11, 3]` images, 5 classes."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((14, 11, 3)),
            layers.Conv2D(6, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(8, (3, 2), padding="same", activation="relu", name=LAST),
            layers.Flatten(),
            layers.Dense(10, activation="relu"),
            layers.Dense(5),
        ]
    )


def images(count: int = 3) -> Array:
    """Returns images with negative values."""
    return np.random.default_rng(7).normal(0.2, 1.0, (count, 14, 11, 3)).astype(np.float32)


class Artefacts:
    """Compiles probes into a Keras model, and runs them."""

    def __init__(self, model: keras.Model) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._model = model

    def run(self, probe: Any, x: Array, **feeds: Any) -> Array:
        """Returns the first explanation of an artefact with a probe."""
        path = Path(self._folder.name) / "artefact.onnx"
        compile_model(self._model, [probe], str(path), overwrite=True)
        artefact = runtime.load(path)
        found = artefact.run(x, **feeds)
        return np.asarray(found[artefact.manifest.explanations[0].name].array)
