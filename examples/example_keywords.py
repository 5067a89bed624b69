"""Sound as it is: a network that makes its own spectrogram tells five words apart.

    python examples/example_keywords.py

The model takes a waveform and begins with a short-time Fourier transform (`STFTSpectrogram`), so
the artefact takes a waveform too, and nobody has to make the same spectrogram again where it runs.
It answers with the word, and says where in time and pitch it heard it: integrated gradients with
respect to the spectrogram inside the model. Beside that, what hiding a twentieth of a second of the
waveform takes away.

No package ships spoken words, so these are synthesised here: a buzz that goes through the formants
of the vowels (Peterson and Barney 1952), and hisses and bursts between, by voices that differ in
pitch, size, tempo and loudness, in noise. That gives a judge for the explanation as well: it is
known when each word is spoken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import _common
import keras
import numpy as np
from keras import layers
from matplotlib.figure import Figure

import probegen as pg
from probegen import runtime

NAME = "keywords"
EPOCHS = 6
BATCH = 32
RATE = 8000
LENGTH = 5600
#: Of the spectrogram, in samples: how long a window is, and how far windows are apart.
FRAME, HOP = 256, 80
TRAINED, TESTED = 800, 200

#: Centres of three formants in hertz, how loud the buzz, the hiss and the burst are, and
#: milliseconds.
SOUNDS = {
    "ee": ((270, 2290, 3010), (1.0, 0.0, 0.0), 60),
    "e": ((530, 1840, 2480), (1.0, 0.0, 0.0), 120),
    "i": ((390, 1990, 2550), (1.0, 0.0, 0.0), 100),
    "u": ((640, 1190, 2390), (1.0, 0.0, 0.0), 130),
    "o": ((730, 1090, 2440), (1.0, 0.0, 0.0), 140),
    "oh": ((400, 800, 2300), (1.0, 0.0, 0.0), 180),
    "n": ((250, 1200, 2100), (0.5, 0.0, 0.0), 80),
    "s": ((270, 2290, 3010), (0.0, 0.5, 0.0), 130),
    "t": ((530, 1840, 2480), (0.0, 0.3, 0.8), 15),
    "p": ((640, 1190, 2390), (0.0, 0.0, 0.7), 20),
    " ": ((500, 1500, 2500), (0.0, 0.0, 0.0), 50),
}
WORDS = {
    "yes": ("ee", "e", "s"),
    "no": ("n", "oh"),
    "up": ("u", " ", "p"),
    "stop": ("s", " ", "t", "o", " ", "p"),
    "six": ("s", "i", " ", "s"),
}


# -- data --------------------------------------------------------------------------------------


class Data(NamedTuple):
    """Waveforms float32 `[n, 5600, 1]`, which word each is, and when it is spoken, in seconds."""

    x_train: Any
    y_train: Any
    x_test: Any
    y_test: Any
    spoken: Any


def load_data(trained: int = TRAINED, tested: int = TESTED) -> Data:
    """Returns synthesised words; `spoken` are beginnings and ends in the test set, `[n, 2]`."""
    random = np.random.default_rng(0)
    count = trained + tested
    y = np.arange(count, dtype="int32") % len(WORDS)
    random.shuffle(y)
    made = [speak(list(WORDS)[label], random) for label in y]
    x = np.stack([wave for wave, _ in made])[..., None].astype("float32")
    spoken = np.array([when for _, when in made])
    return Data(x[:trained], y[:trained], x[trained:], y[trained:], spoken[trained:])


def speak(word: str, random: np.random.Generator) -> tuple[Any, tuple[float, float]]:
    """Returns a word by a voice of its own, `[5600]`, and when it is spoken, in seconds."""
    tempo, size = random.uniform(0.85, 1.25), random.uniform(0.85, 1.15)
    times = [0.0, *np.cumsum([SOUNDS[sound][2] * tempo / 1000 for sound in WORDS[word]])]
    start = random.uniform(0.02, LENGTH / RATE - times[-1] - 0.02)
    t = np.arange(LENGTH) / RATE

    # Every control moves on straight lines: it holds through the middle of each sound.
    centres, values = [], []
    for sound, begin, end in zip(WORDS[word], times[:-1], times[1:], strict=True):
        formants, loud, _ = SOUNDS[sound]
        edge = 0.25 * (end - begin)
        centres += [start + begin + edge, start + end - edge]
        values += [(*formants, *loud)] * 2
    silent = (*values[0][:3], 0, 0, 0), (*values[-1][:3], 0, 0, 0)
    centres = [start - 0.01, *centres, start + times[-1] + 0.01]
    controls = np.array([silent[0], *values, silent[1]])
    *formants, buzz, hiss, burst = (np.interp(t, centres, c) for c in controls.T)

    pitch = random.uniform(90, 230) * np.linspace(1.0, random.uniform(0.75, 1.1), LENGTH)
    overtones = np.arange(1, 40)
    hertz = pitch[:, None] * overtones
    loudness = sum(
        strength / (1 + ((hertz - size * f[:, None]) / 90) ** 2)
        for f, strength in zip(formants, (1.0, 0.6, 0.3), strict=True)
    )
    loudness = np.where(hertz < RATE / 2, loudness, 0.0) / np.sqrt(overtones)
    voice = (loudness * np.sin(2 * np.pi * np.cumsum(hertz, 0) / RATE)).sum(1)
    noise = random.normal(size=(3, LENGTH))
    bright = np.diff(np.diff(noise[0], prepend=0), prepend=0) / 2.5
    wave = buzz * voice + hiss * bright + burst * noise[1]
    wave = random.uniform(0.3, 1.0) * wave + random.uniform(0.005, 0.03) * noise[2]
    return wave, (start, start + times[-1])


# -- model -------------------------------------------------------------------------------------


def build_model() -> keras.Model:
    """Returns the untrained network: a waveform of any length to the probabilities of the words."""
    wave = keras.Input((None, 1), name="wave")
    x = layers.STFTSpectrogram(
        mode="log", frame_length=FRAME, frame_step=HOP, expand_dims=True, trainable=False,
        name="spectrogram",
    )(wave)  # fmt: skip
    x = layers.BatchNormalization(name="level")(x)
    for number, filters in enumerate((12, 24, 32), 1):
        x = layers.Conv2D(
            filters, (3, 5), strides=(1, 2), padding="same", activation="relu", name=f"conv{number}"
        )(x)
        x = layers.MaxPooling2D((2, 2), name=f"pool{number}")(x)
    x = layers.GlobalMaxPooling2D(name="heard")(x)
    x = layers.Dropout(0.3, name="dropout")(x)
    word = layers.Dense(len(WORDS), activation="softmax", name="word")(x)
    return keras.Model(wave, word, name=NAME)


def train(model: keras.Model, data: Data, epochs: int = EPOCHS, callbacks: Any = ()) -> None:
    """Fits the model in place."""
    rate = _common.falling(4e-3, len(data.x_train), epochs, BATCH)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    _common.fit(model, data.x_train, data.y_train, epochs, BATCH, callbacks)


# -- the example -------------------------------------------------------------------------------


def probes(quiet: float) -> list[Any]:
    """Returns what is asked for.

    Args:
        quiet: what the spectrogram is where nobody speaks: from there the gradients are integrated.
    """
    return [
        pg.Activations("spectrogram"),
        pg.IntegratedGradients(wrt="spectrogram", baseline=quiet, steps=32),
        pg.Occlusion(window=RATE // 20, stride=RATE // 40),
    ]


def main(out: Path | None = None, epochs: int = EPOCHS) -> Path:
    """Trains, compiles, verifies, runs and draws; returns the folder with the results."""
    folder = _common.begin(NAME, "Keywords", "Where in time and pitch does it hear a word?", out)
    with _common.step("synthesise words"):
        data = load_data()
    model = build_model()
    with _common.training("train a spectrogram and convolutions", epochs) as bar:
        train(model, data, epochs, [bar])

    spectrograms = keras.Model(model.input, model.get_layer("spectrogram").output)
    quiet = float(np.median(spectrograms.predict_on_batch(data.x_train[:50])))
    with _common.step("compile to ONNX and verify"):
        onnx = pg.compile(
            model, probes(quiet), folder / "keywords.onnx",
            class_names=tuple(WORDS), samples=data.x_test[:4],
        )  # fmt: skip
    artefact = runtime.load(onnx.path)
    judge(artefact, data)
    with _common.step("draw"):
        draw(artefact, data, folder)
    _common.closing_table(folder, ONNX=onnx)
    return folder


def judge(artefact: runtime.Artefact, data: Data) -> None:
    """Prints how many words are heard, and how much of what is said lies where one is spoken."""
    heard = artefact.run(data.x_test, explain=False)["word"].array.argmax(-1)
    _common.fact(
        f"words of voices never heard: {np.mean(heard == data.y_test):.1%} of {len(heard)}"
    )
    result = artefact.run(data.x_test[:40])
    said = np.abs(result["integrated_gradients/spectrogram"].array).sum((2, 3))
    middles = (np.arange(said.shape[1]) * HOP + FRAME / 2) / RATE
    inside = [(begin <= middles) & (middles <= end) for begin, end in data.spoken[:40]]
    share = np.mean([row[at].sum() / row.sum() for row, at in zip(said, inside, strict=True)])
    _common.fact(
        f"of the attribution, {share:.0%} lies where the word is spoken, which is "
        f"{np.mean(inside):.0%} of the time"
    )


def draw(artefact: runtime.Artefact, data: Data, folder: Path) -> None:
    """Draws one of each word: waveform, spectrogram and what in it spoke for the word."""
    rows = [int(np.flatnonzero(data.y_test == label)[0]) for label in range(len(WORDS))]
    result = artefact.run(data.x_test[rows])
    for row, word in enumerate(WORDS):
        draw_word(result, row, word).savefig(folder / f"{word}.png", dpi=120)
    result["occlusion/wave"].plot(list(WORDS).index("stop")).savefig(folder / "hidden_stop.png")
    result.to_html(folder / "report.html", title="Keywords", samples=len(WORDS))


def draw_word(result: runtime.Result, row: int, word: str) -> Figure:
    """Draws a word above its spectrogram, and that above what spoke for the word in it."""
    wave = result.run.inputs["wave"][row, :, 0]
    level = result["activation/spectrogram"].array[row, :, :, 0]
    said = result["integrated_gradients/spectrogram"].array[row, :, :, 0]
    chance = result["word"].array[row].max()
    heard = list(WORDS)[result["word"].array[row].argmax()]
    figure = Figure(figsize=(7, 7), layout="constrained")
    above, middle, below = figure.subplots(3, sharex=True, height_ratios=(1, 2, 2))
    seconds = len(wave) / RATE
    above.plot(np.arange(len(wave)) / RATE, wave, color="0.3", lw=0.5)
    above.set(title=f"\u201c{word}\u201d, heard as {heard} ({chance:.0%})", yticks=[])

    first, last = FRAME / 2 / RATE, (FRAME / 2 + (len(level) - 1) * HOP) / RATE
    half = HOP / 2 / RATE
    extent = (first - half, last + half, 0.0, RATE / 2000)
    look: Any = {"origin": "lower", "aspect": "auto", "extent": extent}
    middle.imshow(level.T, cmap="Greys", **look)
    middle.set(title="spectrogram, made in the model", ylabel="kHz")
    largest = float(np.abs(said).max())
    below.imshow(said.T, cmap="RdBu_r", vmin=-largest, vmax=largest, **look)
    below.set(
        title=f"what spoke for {heard} (red) and against it (blue)",
        ylabel="kHz", xlabel="seconds", xlim=(0, seconds),
    )  # fmt: skip
    return figure


if __name__ == "__main__":
    main()
