"""What a layer is for, told from its class."""

from __future__ import annotations

from typing import Any

import keras

#: Keras keeps its layers in one package a purpose: `keras.src.layers.<package>.<file>`.
_BY_PACKAGE = {
    "activations": "activation",
    "attention": "attention",
    "convolutional": "convolution",
    "merging": "merging",
    "normalization": "normalisation",
    "pooling": "pooling",
    "preprocessing": "preprocessing",
    "regularization": "regularisation",
    "reshaping": "reshaping",
    "rnn": "recurrent",
}
#: The layers of `keras.src.layers.core`, and what stands in a package for technical reasons.
_BY_NAME = {
    "InputLayer": "input",
    "Dense": "dense",
    "EinsumDense": "dense",
    "Embedding": "embedding",
    "ReversibleEmbedding": "embedding",
    "TimeDistributed": "other",
}
_LAYERS = "keras.src.layers."


def role_of(layer: Any) -> str:
    """Returns the role of a layer; `"other"` where nothing tells.

    A subclass has the role of its Keras base. Custom layers whose class name says so count as
    attention (`BahdanauAttention`).
    """
    if isinstance(layer, keras.Model):
        return "model"
    for cls in type(layer).__mro__:
        if cls.__module__.startswith(_LAYERS):
            if cls.__name__ in _BY_NAME:
                return _BY_NAME[cls.__name__]
            package = cls.__module__.removeprefix(_LAYERS).split(".")[0]
            if package in _BY_PACKAGE:
                return _BY_PACKAGE[package]
    return "attention" if "attention" in type(layer).__name__.lower() else "other"
