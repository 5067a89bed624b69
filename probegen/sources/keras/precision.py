"""A model that computes in float32 for a while, where its layers ask for something coarser.

Layers of the dtype policy `mixed_bfloat16` or `mixed_float16` hold their weights in float32 and
round them before they compute; those of `bfloat16` and `float16` hold them rounded. onnxruntime
has next to no kernels for bfloat16 on processors, and a saved model keeps its policies however it
is loaded. In float32 it computes the same function, without the rounding.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from probegen.sources.keras.loading import load_model

COARSE = ("bfloat16", "float16")
FINE = "float32"


@dataclasses.dataclass(frozen=True)
class Change:
    """An attribute of a layer or variable, as it is by itself and as it is meanwhile."""

    owner: Any
    name: str
    own: Any
    meanwhile: Any


class InFloat32:
    """What of a model is changed so that it computes in float32.

    Attributes:
        policies: names of the dtype policies that its layers have by themselves.
    """

    def __init__(self, model: Any) -> None:
        layers = [layer for layer in model._flatten_layers() if layer.compute_dtype in COARSE]
        self.policies = tuple(sorted({layer.dtype_policy.name for layer in layers}))
        self._changes = [c for layer in layers for c in _of_layer(layer)]
        self._changes += [c for owner in _recorded(model) for c in _of_recorded(owner)]
        states = [s for layer in layers for s in keras.tree.flatten(getattr(layer, "states", None))]
        variables = {id(v): v for v in [*model.variables, *states] if _is_coarse_variable(v)}
        self._changes += [c for v in variables.values() for c in _of_variable(v)]

    def __bool__(self) -> bool:
        """Tells whether anything is changed."""
        return bool(self._changes)

    @contextlib.contextmanager
    def changed(self) -> Iterator[None]:
        """Lets the model compute in float32 meanwhile."""
        try:
            self._put(meanwhile=True)
            yield
        finally:
            self._put(meanwhile=False)

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """Lets a changed model compute as it does by itself meanwhile."""
        try:
            self._put(meanwhile=False)
            yield
        finally:
            self._put(meanwhile=True)

    def _put(self, *, meanwhile: bool) -> None:
        for one in self._changes:
            # Past Keras, which would convert policies and track variables.
            object.__setattr__(one.owner, one.name, one.meanwhile if meanwhile else one.own)


#: What is changed of the model that is being compiled or verified.
_now: contextvars.ContextVar[InFloat32 | None] = contextvars.ContextVar("in_float32", default=None)


def current() -> InFloat32 | None:
    """Returns what is changed of the model that is being compiled; None if it is as it was."""
    return _now.get()


@contextlib.contextmanager
def computing_in_float32(model: Any) -> Iterator[Any]:
    """Yields a model, or what the path of one holds, that computes in float32 meanwhile.

    It is as it was afterwards. Layers that compute in float32 or float64 are left alone.

    Raises:
        SourceError: there is no such file, or it is no Keras model.
    """
    if isinstance(model, str | Path):
        model = load_model(model)
    changes = InFloat32(model) if isinstance(model, keras.Model) else None
    if not changes:
        yield model
        return
    token = _now.set(changes)
    try:
        with changes.changed():
            yield model
    finally:
        _now.reset(token)


def _of_layer(layer: Any) -> Iterator[Change]:
    """Yields the policy of a layer, and the tensors that it has rounded and keeps."""
    policy = layer.dtype_policy
    mode = policy.quantization_mode
    fine = keras.dtype_policies.get(FINE if mode is None else f"{mode}_from_{FINE}")
    yield Change(layer, "_dtype_policy", layer._dtype_policy, fine)
    for name, value in vars(layer).items():
        if isinstance(value, tf.Tensor) and value.dtype.name in COARSE:
            yield Change(layer, name, value, tf.cast(value, FINE))


def _recorded(model: Any) -> list[Any]:
    """Returns what holds element types that were recorded when functional models were made.

    Operations beside layers, such as casts, and inputs of the models.
    """
    graphs = [getattr(layer, "_functional", layer) for layer in model._flatten_layers()]
    made = [graph for graph in graphs if isinstance(graph, keras.Function)]
    inner = [op for m in made for op in m.operations if not isinstance(op, keras.Model)]
    owners = [*inner, *(tensor for m in made for tensor in m.inputs)]
    return list({id(owner): owner for owner in owners}.values())


def _of_recorded(owner: Any) -> Iterator[Change]:
    names = ("dtype", "_dtype")
    for name, value in vars(owner).items():
        if name in names and isinstance(value, str) and value in COARSE:
            yield Change(owner, name, value, FINE)


def _of_variable(variable: Any) -> Iterator[Change]:
    value = tf.Variable(
        tf.cast(variable.value, FINE), trainable=variable.trainable, name=variable.name
    )
    yield Change(variable, "_value", variable._value, value)
    yield Change(variable, "_dtype", variable._dtype, FINE)


def _is_coarse_variable(variable: Any) -> bool:
    return isinstance(variable, keras.Variable) and variable.dtype in COARSE
