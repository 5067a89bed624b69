"""Small real artefacts, each made once by the compiler, and results without any model."""

import functools

import keras
import numpy as np
import onnx
from keras import layers
from onnx import helper

import probegen as pg
from probegen.artefact.manifest import ONNX_METADATA_KEY, InputSpec, Manifest, OutputSpec
from probegen.runtime.result import Result
from probegen.runtime.run import Run

IMAGE = ("batch", "height", "width", "channel")
HEIGHT, WIDTH, CHANNELS, CLASSES = 5, 7, 3, 4
SIZE = HEIGHT * WIDTH * CHANNELS
WEIGHTS = np.random.default_rng(3).normal(size=(SIZE, CLASSES)).astype(np.float32)
NAMES = ("ant", "bee", "cat", "dog")


@functools.cache
def zoo():
    """A linear classifier of images, `softmax(flat(image) @ WEIGHTS)`: its gradients are known."""
    x = keras.Input((HEIGHT, WIDTH, CHANNELS), name="image")
    y = layers.Dense(CLASSES, activation="softmax", use_bias=False, name="animal")(
        layers.Flatten(name="flat")(x)
    )
    model = keras.Model(x, y, name="zoo")
    model.set_weights([WEIGHTS])
    return model


def save_zoo(path, target="input", **options):
    """Compiles the classifier with two gradients of it; returns the path as text."""
    probes = [pg.InputGradient(target=target), pg.Saliency(target=target)]
    pg.compile(zoo(), probes, path, class_names=NAMES, verify=False, **options)
    return str(path)


def with_manifest(source, path, text):
    """Writes an artefact again with another text for its manifest, or with none."""
    model = onnx.load(source)
    told = {entry.key: entry.value for entry in model.metadata_props}
    del told[ONNX_METADATA_KEY]
    helper.set_model_props(model, told if text is None else {**told, ONNX_METADATA_KEY: text})
    onnx.save(model, path)
    return str(path)


def images(batch, seed=0):
    """Random images that fit the classifier."""
    shape = (batch, HEIGHT, WIDTH, CHANNELS)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def result_of(inputs, outputs, target=None, **changes):
    """A result without any model.

    inputs: name -> (array, axes, keywords of InputSpec)
    outputs: name -> (array, kind, axes, keywords of OutputSpec)
    """
    given = {name: np.asarray(array) for name, (array, _, _) in inputs.items()}
    made = {name: np.asarray(array, np.float32) for name, (array, _, _, _) in outputs.items()}
    manifest = Manifest(
        inputs=tuple(
            InputSpec(n, str(given[n].dtype), (None, *given[n].shape[1:]), axes, **more)
            for n, (_, axes, more) in inputs.items()
        ),
        outputs=tuple(
            OutputSpec(n, kind, "float32", (None, *made[n].shape[1:]), axes, **more)
            for n, (_, kind, axes, more) in outputs.items()
        ),
        model={"name": "by hand"},
        target_input=target is not None,
    )
    return Result(Run(manifest.replace(**changes), given, target, "by_hand.onnx"), made)
