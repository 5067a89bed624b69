"""Whatever is compiled, certified or not: two processes write the same bytes.

What a graph is made of is tried in `tests/sources/keras/to_onnx/test_canonical.py`; here, all that
an artefact carries beside it: certificates, noise, masks, data files, a second graph, states, text,
preparation of pictures, smaller weights.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import probegen
from probegen import runtime

COMPILE = """
import sys
import numpy as np
import probegen as pg

out = sys.argv[1]
noisy = [pg.SmoothGrad(samples=3), pg.RISE(masks=6), pg.GradCAM()]
pg.compile("image.keras", noisy, f"{out}/one.onnx")
pg.compile("image.keras", noisy[2:], f"{out}/data.onnx", external_data=True)
pg.compile("image.keras", noisy[2:], f"{out}/split.onnx", gate="split")
over = [pg.Saliency(), pg.GradientXInput(), pg.InputGradient(), pg.GradCAM(upsample=True)]
pictures = pg.ImageInput(attributions="input")
pg.compile("image.keras", over, f"{out}/pictures.onnx", preprocess=pictures)
pg.compile("series.keras", [pg.InputGradient()], f"{out}/states.onnx", states="io")
pg.compile("text.keras", [pg.GradientXInput()], f"{out}/text.onnx", samples=["a good film", "bad"])
for to in ("float16", "int8"):
    pg.quantise(f"{out}/one.onnx", f"{out}/{to}.onnx", to=to, limit=10)
pg.compile("image.keras", noisy[2:], f"{out}/saved")
"""
FILES = (
    *("one.onnx", "data.onnx", "data.onnx.data", "pictures.onnx", "states.onnx", "text.onnx"),
    *("split.onnx", "split.onnx.data", "split.explain.onnx", "float16.onnx", "int8.onnx"),
    *("saved/assets.extra/probegen.json", "saved/assets.extra/probegen.answers.json"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("twice")
    for name, model in _models().items():
        model.save(folder / f"{name}.keras")
    root = str(Path(probegen.__file__).parents[1])
    running = []
    for seed in ("1", "2"):
        (folder / seed).mkdir()
        # Sets of strings and of objects come in another order in each of them.
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": root}
        command = [sys.executable, "-c", COMPILE, seed]
        running.append(subprocess.Popen(command, cwd=folder, env=environment))
    assert [process.wait(timeout=400) for process in running] == [0, 0]
    return folder


def _models() -> dict[str, keras.Model]:
    layers = keras.layers
    image, series = keras.Input((8, 10, 3), name="image"), keras.Input((None, 5), name="series")
    h = layers.Conv2D(4, 3, activation="relu")(image)
    h = layers.GlobalAveragePooling2D()(layers.Conv2D(5, 3, activation="relu")(h))
    text = keras.Input((), dtype="string", name="text")
    words = ["a", "good", "bad", "film"]
    ids = layers.TextVectorization(vocabulary=words, output_sequence_length=5)(text)
    t = layers.SimpleRNN(4)(layers.Embedding(6, 3, mask_zero=True)(ids))
    return {
        "image": keras.Model(image, layers.Dense(3, activation="softmax", name="scores")(h)),
        "series": keras.Model(series, layers.Dense(3, name="scores")(layers.GRU(4)(series))),
        "text": keras.Model(text, layers.Dense(2, activation="softmax", name="scores")(t)),
    }


@pytest.mark.parametrize("name", FILES)
def test_the_same_bytes(folder, name):
    first, second = ((folder / seed / name).read_bytes() for seed in ("1", "2"))
    assert first == second


def test_all_files_are_compared(folder):
    """All but those that TensorFlow writes of a SavedModel, which differ each time."""
    found = {str(p.relative_to(folder / "1")) for p in (folder / "1").rglob("*") if p.is_file()}
    own = {name for name in found if not name.startswith("saved/")}
    assert own | {name for name in FILES if name.startswith("saved/")} == set(FILES)


def test_two_saved_models_give_the_same_numbers(folder):
    x = np.random.default_rng(0).normal(size=(3, 8, 10, 3)).astype(np.float32)
    first, second = (runtime.load(folder / seed / "saved").run(x) for seed in ("1", "2"))
    assert list(first) == list(second)
    for name, record in first.items():
        np.testing.assert_array_equal(second[name].array, record.array)
