"""Models read from files, and what is no model."""

import keras
import pytest

import probegen as pg
from probegen.errors import SourceError
from tests import models


def test_what_is_no_model(tmp_path):
    with pytest.raises(SourceError, match="there is no model file"):
        pg.inspect(tmp_path / "no.keras")
    (tmp_path / "bad.keras").write_text("nonsense")
    with pytest.raises(SourceError, match="Keras cannot load"):
        pg.inspect(tmp_path / "bad.keras")
    with pytest.raises(SourceError, match=r"Call it once on data, call model.build"):
        pg.inspect(keras.Sequential([keras.layers.Dense(3)]))
    with pytest.raises(SourceError, match="Wrap the layer in a model"):
        pg.inspect(keras.layers.Dense(3))


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_inspect_reads_files(tmp_path, suffix):
    model = models.cnn()
    model.save(tmp_path / f"m{suffix}")
    points = pg.inspect(tmp_path / f"m{suffix}")
    assert str(points) == str(pg.inspect(model))
    by_path = {p.path: p for p in points}
    assert by_path["image"].role == "input"
    assert (by_path["conv1"].role, by_path["conv1"].shape) == ("convolution", (None, 11, 8, 5))
    assert by_path["bn1"].role == "normalisation"
    assert by_path["scores"].roles == ("output", "dense")
