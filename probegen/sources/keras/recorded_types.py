"""Element types of the inputs of a model that is a class: Keras records sizes, and no types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from probegen.sources.keras.traced_once import trace_once

_HANDS_ON = frozenset({"Identity"})


def types_by_casts(call: Callable[..., Any], specs: Sequence[Any]) -> list[str]:
    """Returns the element type that a model makes of each of its inputs.

    A model inside whose input is bytes or text casts what it is given, as a look-up casts ids:
    where nothing else reads an input than casts to one type of whole numbers, or to text, it is
    of that type.

    Args:
        call: the model, of flat inputs.
        specs: a `tf.TensorSpec` for each input, of what they are where nothing tells.
    """
    own = [spec.dtype.name for spec in specs]
    try:
        graph = trace_once(call, specs).graph
    except Exception:  # it is called again where it has to work, and refused by name
        return own
    told = [_cast_types(tensor) for tensor in graph.inputs[: len(specs)]]
    return [
        next(iter(types)).name if len(types) == 1 and _is_telling(*types) else name
        for types, name in zip(told, own, strict=True)
    ]


def _is_telling(dtype: Any) -> bool:
    return bool(dtype.is_integer or dtype == tf.string)


def _cast_types(tensor: Any) -> set[Any]:
    """Returns the types that readers of a tensor cast it to, its own type for other readers."""
    found: set[Any] = set()
    for reader in tensor.consumers():
        if reader.type in _HANDS_ON:
            found |= _cast_types(reader.outputs[0])
        else:
            found.add(reader.outputs[0].dtype if reader.type == "Cast" else tf.variant)
    return found
