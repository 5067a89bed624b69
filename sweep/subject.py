"""What is swept: small models, and the reasons why something has none."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

#: Sizes that are neither square nor even.
VECTOR, SERIES, IMAGE, VOLUME = (7,), (11, 3), (9, 7, 3), (5, 6, 7, 2)


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model to compile, or the reason why there is none.

    Attributes:
        name: what it goes by in the table, for example `"Conv2D: same, stride 2"`.
        build: returns the model; None where `reason` says why there is none.
        reason: why nothing is compiled.
        probes: what it is compiled with; saliency and the input gradient by default.
        samples: model -> inputs to compare on, where random ones do not suit it.
        in_float32: compile it in float32, whatever its layers ask for.
    """

    name: str
    build: Callable[[], Any] | None = None
    reason: str = ""
    probes: Callable[[], Sequence[Any]] | None = None
    samples: Callable[[Any], Any] | None = None
    in_float32: bool = False


def absent(name: str, reason: str) -> Subject:
    """Returns a subject that is listed and not compiled."""
    return Subject(name, reason=reason)


def around(
    make: Callable[..., Any],
    *shapes: tuple[int | None, ...],
    dtype: str | None = None,
    dtypes: Sequence[str | None] = (),
) -> Any:
    """Returns a small model around `make`.

    What comes out is flattened and goes through a smooth activation into three scores, so that
    every element has a gradient of its own.

    Args:
        make: called with the inputs; returns a tensor or a nest of tensors.
        *shapes: one a float input, without the batch.
        dtype: of the inputs.
        dtypes: of the inputs one by one, where they differ.
    """
    keras.utils.set_random_seed(3)
    kinds = list(dtypes) or [dtype] * len(shapes)
    inputs = [
        keras.Input(shape, dtype=kind, name=f"input_{i}")
        for i, (shape, kind) in enumerate(zip(shapes, kinds, strict=True))
    ]
    outputs = [
        o for o in keras.tree.flatten(make(*inputs)) if keras.backend.is_float_dtype(o.dtype)
    ]
    flat = [keras.layers.Flatten()(o) for o in outputs]
    y = keras.layers.Concatenate()(flat) if len(flat) > 1 else flat[0]
    y = keras.layers.Dense(3, name="scores")(keras.layers.Activation("softsign")(y))
    model = keras.Model(inputs, y, name="around")
    stir(model)
    return model


def stir(model: Any, seed: int = 0) -> None:
    """Moves weights that start as one constant (scales, biases, statistics) away from it."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        value = np.asarray(weight)
        if keras.backend.is_float_dtype(weight.dtype) and value.size and np.ptp(value) == 0:
            weight.assign(value + rng.uniform(0.1, 0.5, value.shape))
