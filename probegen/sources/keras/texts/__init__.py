"""Models that take text: which layers take it apart, and the model cut behind them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any

import keras

from probegen.sources.keras.texts import hub, keras_layers


@dataclasses.dataclass(frozen=True)
class TextLayer:
    """A class of layers that take text apart.

    Attributes:
        cls: the class.
        settings: layer, path -> the settings of the tokenizer in the runtime that does the same.
        makes: key of what the layer returns -> what that is (`IDS`, `MASK`, `SEGMENTS`); the key is
            `""` where it returns one tensor.
    """

    cls: type
    settings: Callable[[Any, str], Mapping[str, Any]]
    makes: Mapping[str, str]


_ONE = {"": "ids"}


def text_layers() -> tuple[TextLayer, ...]:
    """Returns every class of text layers; the first that fits a layer describes it."""
    found = (
        TextLayer(keras.layers.TextVectorization, keras_layers.vectorization, _ONE),
        TextLayer(keras.layers.StringLookup, keras_layers.lookup, _ONE),
        TextLayer(keras.layers.Hashing, keras_layers.hashing, _ONE),
    )
    known_hub = sys.modules.get("keras_hub")
    if known_hub is None:
        return found
    return (*found, TextLayer(known_hub.tokenizers.Tokenizer, hub.tokenizer, _ONE))
