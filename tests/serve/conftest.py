"""Artefacts that the tests of serving share; each is compiled once."""

import keras
import numpy as np
import pytest
from keras import layers

import probegen as pg
from probegen import runtime
from probegen.serve.inference import Served
from tests.runtime.support import save_zoo


@pytest.fixture(scope="session")
def zoo_path(tmp_path_factory):
    """A linear classifier of images with `target="input"` and names of classes."""
    return save_zoo(tmp_path_factory.mktemp("serve") / "zoo.onnx")


@pytest.fixture(scope="session")
def zoo(zoo_path):
    return Served(runtime.load(zoo_path, threads=1), "zoo")


@pytest.fixture(scope="session")
def split(tmp_path_factory):
    path = save_zoo(tmp_path_factory.mktemp("serve_split") / "zoo.onnx", gate="split")
    return Served(runtime.load(path, threads=1), "zoo")


@pytest.fixture(scope="session")
def positions(tmp_path_factory):
    """Open sizes, a region and groups that the request says: two kinds of shapes in one model."""
    keras.utils.set_random_seed(3)
    x = keras.Input((None, 3), name="series")
    y = layers.Conv1D(4, 3, padding="same", activation="tanh", name="conv")(x)
    model = keras.Model(x, layers.Dense(2, name="steps")(y), name="positions")
    path = tmp_path_factory.mktemp("positions") / "p.onnx"
    probes = [
        pg.InputGradient(target=1, region="input"),
        pg.FeatureAblation(target=0, groups="input"),
    ]
    pg.compile(model, probes, path, verify=False)
    return Served(runtime.load(path, threads=1), "positions")


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
