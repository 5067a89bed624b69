"""Models, artefacts and inputs that the commands are run on; and what runs them."""

import keras
import numpy as np
import pytest

import probegen as pg
from tests import models
from tests.command_line import status_of


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with models, artefacts and inputs that no test changes."""
    folder = tmp_path_factory.mktemp("cli")
    model = models.cnn()
    model.save(folder / "cnn.keras")
    models.transformer().save(folder / "words.keras")
    x = keras.Input((3,), name="row")
    keras.Model(x, keras.layers.Dense(2, activation="softmax", name="kind")(x)).save(
        folder / "rows.keras"
    )
    pg.compile(
        model,
        [pg.Saliency(target="input"), pg.GradCAM()],
        folder / "cnn.onnx",
        class_names=["ant", "bee", "cow", "dog"],
        verify=False,
    )
    pg.compile(folder / "rows.keras", pg.InputGradient(), folder / "rows.onnx", verify=False)
    np.save(folder / "images.npy", models.images((11, 8, 2)))
    np.savez(folder / "images.npz", image=models.images((11, 8, 2)))
    np.savez(folder / "unnamed.npz", models.images((11, 8, 2)))
    np.save(folder / "tokens.npy", models.tokens())
    return folder


@pytest.fixture(scope="session")
def words(place):
    """The artefact of the transformer, for those that run it."""
    probes = [pg.Saliency(), pg.Attention("block_1/*")]
    pg.compile(place / "words.keras", probes, place / "words.onnx", verify=False)


@pytest.fixture
def probegen_cli(capsys, monkeypatch, place):
    """Runs a command in the folder of inputs; returns status, standard output and error."""
    monkeypatch.chdir(place)

    def run(*arguments):
        status = status_of(*arguments)
        done = capsys.readouterr()
        return status, done.out, done.err

    return run
