"""What would end the process is refused."""

import keras
import numpy as np
import pytest

from fuzz.dangers import avoid_dangers


def test_more_maxima_than_positions(monkeypatch):
    monkeypatch.setattr(
        keras.src.backend.nn, "adaptive_max_pool", keras.src.backend.nn.adaptive_max_pool
    )
    avoid_dangers()
    avoid_dangers()
    x = np.arange(24.0, dtype=np.float32).reshape(2, 4, 3)
    found = keras.layers.AdaptiveMaxPooling1D(2)(x)
    np.testing.assert_array_equal(found, x[:, 1::2])
    with pytest.raises(ValueError, match="5 maxima of 4 positions"):
        keras.layers.AdaptiveMaxPooling1D(5)(x)
    with pytest.raises(ValueError, match="1 maxima of 4 positions"):
        keras.layers.AdaptiveMaxPooling1D(1)(x)
    with pytest.raises(ValueError, match="4 maxima of 3 positions"):
        keras.layers.AdaptiveMaxPooling1D(4, data_format="channels_first")(x)
