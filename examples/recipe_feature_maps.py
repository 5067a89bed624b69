"""Recipe: the feature maps of a convolution.

The common way makes a second model that ends at the layer's output. With Keras 3.15 a layer of a
`Sequential` has none before the model was called:

>>> model = build_model()
>>> model.layers[0].output
Traceback (most recent call last):
    ...
AttributeError: The layer conv1 has never been called and thus has no defined output.

and the model has no input, even where it was built, trained or loaded from a file:

>>> model.build((None, 8, 8, 1))
>>> keras.Model(model.input, model.get_layer("conv1").output)
Traceback (most recent call last):
    ...
AttributeError: The layer reader has never been called and thus has no defined input.

With probegen the layer is named, and that is all; see `main`.
"""

from __future__ import annotations

from pathlib import Path

import _common
import keras
from demo_digits import load_data
from keras import layers

import probegen as pg
from probegen import runtime


def build_model() -> keras.Model:
    """Returns a CNN as tutorials write it, without an input shape."""
    return keras.Sequential(
        [
            layers.Conv2D(12, 3, activation="relu", name="conv1"),
            layers.Conv2D(16, 3, activation="relu", name="conv2"),
            layers.Flatten(name="flatten"),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="reader",
    )


def main(out: Path | None = None, epochs: int = 3) -> Path:
    """Trains for a few seconds and draws what two convolutions make of one digit."""
    folder = _common.fresh_folder("recipe_feature_maps", out)
    keras.utils.set_random_seed(0)
    data = load_data()
    model = build_model()
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(data.x_train, data.y_train, epochs=epochs, verbose=0)

    # In Keras: a model that returns its feature maps beside its prediction.
    probed = pg.instrument(model, pg.Activations("type:Conv2D"))
    outputs = probed(data.x_test[:1])
    for name, value in outputs.items():
        print(f"{name:18} {tuple(value.shape)}")

    # Deployed: the same in one ONNX file, run and drawn without TensorFlow.
    pg.export(probed, folder / "reader.onnx")
    result = runtime.load(folder / "reader.onnx").run(data.x_test[:1])
    for layer in ("conv1", "conv2"):
        result[f"activation/{layer}"].plot().savefig(folder / f"{layer}.png")
    return folder


if __name__ == "__main__":
    print(f"drawn into {_common.shown(main())}/")
