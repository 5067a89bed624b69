"""The sweep leaves nothing out, and what it rests on works."""

import inspect

import keras
import pytest

from sweep import activations, applications, operations
from sweep import layers as swept_layers
from sweep.outcome import AGREES, INEXPRESSIBLE, NO_GRADIENT, NOT_APPLICABLE, Outcome, sweep
from sweep.subject import Subject, absent
from sweep.suites import subjects


def _rows(suite, prefix=""):
    """Names of the rows of a suite, without their variants."""
    return {s.name.partition(":")[0].removeprefix(prefix) for s in subjects(suite)}


def test_every_layer_is_in_the_table():
    public = {n for n in dir(keras.layers) if inspect.isclass(getattr(keras.layers, n))}
    assert public <= _rows("layers")
    # A class that a newer Keras adds is tried as it comes; those there are have models made for it.
    known = set(swept_layers.VARIANTS) | set(swept_layers.REASONS)
    aliases = {s.name for s in swept_layers.subjects() if s.reason.startswith("another name")}
    assert public <= known | aliases


def test_every_function_is_in_the_table():
    assert set(activations.public_functions()) <= _rows("layers", "activations.")
    assert set(operations.public_functions()) <= _rows("layers", "ops.")
    assert set(applications.constructors()) == _rows("applications")


@pytest.mark.parametrize("suite", ["layers", "applications"])
def test_what_is_not_compiled_has_a_reason(suite):
    assert all(bool(s.build) != bool(s.reason) for s in subjects(suite))


REPRESENTATIVE = [
    "Conv1D: causal, dilation 2",
    "Conv3D: groups",
    "Conv2DTranspose: same, stride over kernel",
    "SeparableConv2D: same, stride 2",
    "MaxPooling2D: overlapping, same",
    "MultiHeadAttention: mask of tokens",
    "EinsumDense: heads",
    "LSTM: masked",
    "UpSampling2D: bicubic",
    "activations.gelu: exact",
    "ops.logaddexp",
    "mixed_float16: cnn",
]


@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_a_row_agrees(name):
    outcome = sweep(next(s for s in subjects("layers") if s.name == name))
    assert outcome.verdict == AGREES, outcome.reason
    assert 0 < outcome.parity < 1e-2
    assert 0 < outcome.plain < outcome.explained


def test_what_cannot_be_is_told_apart():
    rows = {s.name: s for s in subjects("layers")}
    assert sweep(rows["ops.svd"]).verdict == INEXPRESSIBLE
    assert sweep(rows["ops.image.hsv_to_rgb"]).verdict == NO_GRADIENT
    assert sweep(absent("x", "why")) == Outcome("x", NOT_APPLICABLE, "why")


def test_a_model_that_cannot_be_built_fails_and_stops_nothing():
    def build():
        raise RuntimeError("no such luck")

    outcome = sweep(Subject("broken", build))
    assert (outcome.verdict, outcome.reason) == ("fails", "RuntimeError: no such luck")
