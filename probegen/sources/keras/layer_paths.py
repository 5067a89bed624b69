"""Where layers are in a model: the paths that they are selected by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras


def layer_paths(model: Any) -> dict[int, str]:
    """Returns `id(layer)` -> path for every layer below `model`.

    A layer that is reachable in several ways has the path found first, outer models first.
    Namesakes under one parent are told apart by `~2`, `~3` and so on.
    """
    paths: dict[int, str] = {}
    queue: list[tuple[Any, str]] = [(model, "")]
    seen = {id(model)}
    while queue:
        parent, prefix = queue.pop(0)
        names: dict[str, int] = {}
        for layer in parent._flatten_layers(include_self=False, recursive=False):
            if id(layer) in seen:
                continue
            seen.add(id(layer))
            names[layer.name] = names.get(layer.name, 0) + 1
            count = names[layer.name]
            path = prefix + (layer.name if count == 1 else f"{layer.name}~{count}")
            paths[id(layer)] = path
            queue.append((layer, path + "/"))
    return paths


def recurrent_layers_around(model: Any, paths: Mapping[int, str]) -> dict[int, str]:
    """Returns `id(layer)` -> path of the recurrent layer that runs it in each of its steps."""
    return {
        id(inner): paths.get(id(layer), "")
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.RNN)
        for inner in layer._flatten_layers(include_self=False)
    }
