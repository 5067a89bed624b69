"""Recipe: the weights of an attention layer of one's own.

The layer returns `(output, weights)`, and the model that holds it passes on the output. The
common way asks the layer for its second output. With Keras 3.15 it fails, because a layer that
a model's own `call` calls has no place in any graph of Keras:

>>> model = Forecaster()
>>> forecast = model(keras.ops.zeros((1, 33, 1)))
>>> keras.Model(model.inputs, model.get_layer("attention").output[1])
Traceback (most recent call last):
    ...
AttributeError: 'Forecaster' object has no attribute 'inputs'
>>> model.get_layer("attention").output[1]
Traceback (most recent call last):
    ...
AttributeError: The layer attention has never been called and thus has no defined output.

With probegen the layer is named, and that is all; see `main`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import _common
import keras
import numpy as np
from demo_sunspots import WINDOW, load_data
from keras import layers, ops

import probegen as pg
from probegen import runtime


class AttentionPooling(layers.Layer):
    """Sums up a sequence `[batch, time, width]`, each step with a weight of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.score = layers.Dense(1, name="score")

    def call(self, x: Any) -> tuple[Any, Any]:
        weights = ops.softmax(self.score(x)[..., 0], axis=-1)
        return ops.sum(weights[..., None] * x, axis=1), weights


class Forecaster(keras.Model):
    """Forecasts the sunspots of a year from those of the 33 years before."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.conv = layers.Conv1D(32, 5, padding="causal", activation="relu", name="conv")
        self.place = layers.Embedding(WINDOW, 32, keras.initializers.RandomNormal(stddev=0.5))
        self.attention = AttentionPooling(name="attention")
        self.forecast = layers.Dense(1, name="forecast")

    def call(self, window: Any) -> Any:
        x = self.conv(window) + self.place(ops.arange(WINDOW))
        pooled, _ = self.attention(x)
        return self.forecast(pooled)


def main(out: Path | None = None, epochs: int = 60) -> Path:
    """Trains for a few seconds and draws which years the network looks at."""
    folder = _common.fresh_folder("recipe_custom_attention", out)
    keras.utils.set_random_seed(0)
    data = load_data()
    model = Forecaster()
    model.compile(keras.optimizers.Adam(1e-2), "mse")
    model.fit(data.x_train, data.y_train, epochs=epochs, verbose=0)
    error = 100 * np.abs(model.predict_on_batch(data.x_test)[:, 0] - data.y_test).mean()
    print(f"mean error on unseen years: {error:.1f} sunspots")
    window, year = data.x_test[:1], data.test_years[0]

    # In Keras: `pg.Activations` has both outputs of the layer, `pg.Attention` the weights.
    probed = pg.instrument(model, [pg.Attention("attention"), pg.Activations("attention")])
    for name, value in probed(window).items():
        print(f"{name:24} {tuple(value.shape)}")

    # Deployed: the same in one ONNX file, run and drawn without TensorFlow.
    pg.export(probed, folder / "forecaster.onnx")
    result = runtime.load(folder / "forecaster.onnx").run(window)
    past = range(year - WINDOW, year)
    result["attention/attention"].plot(time=past).savefig(folder / "attention.png")
    return folder


if __name__ == "__main__":
    print(f"drawn into {_common.shown(main())}/")
