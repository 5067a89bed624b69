"""`--preprocess`: words of the shell as pg.ImageInput, and a folder of photos as they are."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

from probegen.artefact.preprocessing import ImageInput
from probegen.cli.preprocessing import preprocess_of
from probegen.errors import SpecError
from tests.cli.support import compiled


def test_no_option_is_no_preprocessing():
    assert preprocess_of(()) is None


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ([""], ImageInput()),
        (["preset=torch size=model"], ImageInput(preset="torch", size="model")),
        (["size=48x64 to=24x31 antialias"], ImageInput(size=(48, 64), to=(24, 31), antialias=True)),
        (["scale=0.5 mean=1,-2,3e1 std=2"], ImageInput(scale=0.5, mean=(1.0, -2.0, 30.0), std=2.0)),
        (["channels=1 reverse_channels=true"], ImageInput(channels=1, reverse_channels=True)),
        (["fit=pad fill=114 layout=NCHW dtype=float32"],
         ImageInput(fit="pad", fill=114.0, layout="NCHW", dtype="float32")),
        (["photo: fit=crop", "a:0:"], {"photo": ImageInput(fit="crop"), "a:0": ImageInput()}),
    ],
)  # fmt: skip
def test_words_of_the_shell(given, meant):
    assert preprocess_of(given) == meant


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["presett=tf"], "Did you mean 'preset'"),
        (["size=5by6"], "size= takes 'any'"),
        (["size=5x6x7"], "size= takes"),
        (["mean=red"], "mean= takes a number"),
        (["antialias=maybe resize=bilinear"], "antialias= takes True or False"),
        (["size"], "needs a value"),
        (["fit=pad fit=crop"], "given twice"),
        (["size=any", "fit=pad"], "give one for each input"),
        (["photo: size=any", ""], "once without"),
        ([": size=any"], "names no input"),
        (["channels=rgb"], "channels= takes"),
    ],
)
def test_words_that_are_none(given, told):
    with pytest.raises(SpecError, match=told):
        preprocess_of(given)


def test_a_folder_of_photos_goes_in_as_bytes(probegen_cli, tmp_path):
    image = keras.Input((9, 14, 3), name="photo")
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(image))
    keras.Model(image, keras.layers.Dense(3, name="kind")(x)).save(tmp_path / "m.keras")
    out = tmp_path / "m.onnx"
    status, _, err = probegen_cli(
        "compile", tmp_path / "m.keras", "-o", out, "--saliency",
        "--preprocess", "scale=0.01 fit=crop",
    )  # fmt: skip
    assert status == 0, err
    assert compiled(out).inputs[0].preprocessing.fit == "crop"
    folder = tmp_path / "photos"
    folder.mkdir()
    photos = np.random.default_rng(0).integers(0, 256, (2, 37, 50, 3), dtype=np.uint8)
    for name, photo in zip("ab", photos, strict=True):
        Image.fromarray(photo).save(folder / f"{name}.png")
    np.save(tmp_path / "photos.npy", photos)
    answers = []
    for given in (folder, tmp_path / "photos.npy"):
        status, said, err = probegen_cli("run", out, given, "--json")
        assert status == 0, err
        assert "resized" not in err
        answers.append(json.loads(said)["predictions"])
    assert answers[0] == answers[1]
    Image.fromarray(photos[0][:20]).save(folder / "c.png")
    status, _, err = probegen_cli("run", out, folder)
    assert status != 0
    assert "c.png" in err
    assert "one size" in err
