"""`Hashing` without TensorFlow: the same bins as Keras."""

import numpy as np
import pytest
from keras import layers

from probegen.errors import ExportError
from probegen.runtime.texts import hashing
from probegen.sources.keras.texts.keras_layers import hashing as settings_of
from tests.runtime.texts.support import TEXTS, as_array, as_tensor

FED = [*TEXTS, "a", "a", "", "red"]


@pytest.mark.parametrize("shape", [(-1, 1), (-1, 5)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask_value": "a"},
        {"mask_value": "a", "output_mode": "multi_hot"},
        {"output_mode": "count"},
        {"output_mode": "one_hot"},
        {"num_bins": 1, "mask_value": "a"},
    ],
    ids=str,
)
def test_options(options, shape):
    layer = layers.Hashing(**({"num_bins": 7} | options))
    texts = FED[: len(FED) // 5 * 5]
    made = hashing.made_from(settings_of(layer, "bins")).encode(as_array(texts).reshape(shape))
    expected = np.asarray(layer(np.array(as_tensor(texts)).reshape(shape)))
    assert (made["ids"].dtype, made["ids"].shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(made["ids"], expected)


def test_a_salt_is_refused():
    with pytest.raises(ExportError, match="'bins' hashes with a salt"):
        settings_of(layers.Hashing(3, salt=5), "bins")
