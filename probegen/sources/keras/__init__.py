"""Keras surgery: watch a model's calls, plan the probes, differentiate with TensorFlow."""

# Keras comes before any module of this package: its import registers the instrumented model (see
# `probegen._keras_hook`), which needs all of them, and finds none half loaded.
import keras as _keras  # noqa: F401
