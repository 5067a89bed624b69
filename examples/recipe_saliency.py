"""Recipe: a saliency map for a class, from a numpy image.

The common way records the forward pass on a tape and asks for the gradient at the input. With
Keras 3.15 on TensorFlow it fails where the input is a numpy array, as data usually are:

>>> import tensorflow as tf
>>> model, image = build_model(), np.zeros((1, 8, 8, 1), "float32")
>>> with tf.GradientTape() as tape:
...     score = model(image)[:, 8]
>>> tape.gradient(score, image)
Traceback (most recent call last):
    ...
AttributeError: 'numpy.ndarray' object has no attribute '_id'

As a tensor it fails silently, where `tape.watch` is forgotten:

>>> image = tf.constant(image)
>>> with tf.GradientTape() as tape:
...     score = model(image)[:, 8]
>>> print(tape.gradient(score, image))
None

What is meant to work is the gradient of the probability, which vanishes where the model is
sure; and none of it survives an export. With probegen the class is named when the model is run,
the gradient is that of the logit, and it is part of the file; see `main`.
"""

from __future__ import annotations

from pathlib import Path

import _common
import keras
import numpy as np
from demo_digits import build_model, load_data, train

import probegen as pg
from probegen import runtime


def main(out: Path | None = None, epochs: int = 10) -> Path:
    """Trains for a few seconds and draws what speaks for an 8, and what for a 3."""
    folder = _common.fresh_folder("recipe_saliency", out)
    keras.utils.set_random_seed(0)
    data = load_data()
    model = build_model()
    train(model, data, epochs=epochs)
    image = data.x_test[data.y_test == 8][:1]  # a numpy array [1, 8, 8, 1]

    # In Keras: the class is one more input.
    probed = pg.instrument(model, pg.Saliency(target="input"))
    outputs = probed({"image": image, "target": np.array([8], "int32")})
    print("saliency/image", tuple(outputs["saliency/image"].shape))

    # Deployed: the same in one ONNX file, run and drawn without TensorFlow.
    pg.export(probed, folder / "digits.onnx")
    artefact = runtime.load(folder / "digits.onnx")
    for digit in (8, 3):
        result = artefact.run(image, target=digit)
        result["saliency/image"].plot().savefig(folder / f"saliency_for_{digit}.png")
    return folder


if __name__ == "__main__":
    print(f"drawn into {_common.shown(main())}/")
