"""The source: a model object or file, with its inputs and outputs named and in order."""

from __future__ import annotations

import dataclasses
import inspect
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from probegen.errors import SourceError
from probegen.plan.axes import Axes
from probegen.sources.keras.channels_last import channels_last
from probegen.sources.keras.loading import load_model
from probegen.sources.keras.recorded_types import types_by_casts
from probegen.text import amount

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclasses.dataclass(frozen=True)
class KerasModel:
    """A built model and how to call it.

    Attributes:
        model: the user's model; it is read and called, never changed.
        input_names: names of the flat inputs, in the model's order.
        input_specs: a `tf.TensorSpec` for each flat input.
        structure: the nest (tensor, list, dict) the model takes, filled with flat positions.
        output_names: names of the flat outputs, in the model's order.
        arguments: where the model's `call` takes several arguments, their names; `structure` is
            then a list with one nest for each.
        carried_states: input that a state starts from -> output that says where it ends.
    """

    model: Any
    input_names: tuple[str, ...]
    input_specs: tuple[Any, ...]
    structure: Any
    output_names: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    carried_states: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def batch(self) -> int | None:
        """The batch size that the model is bound to, None where any will do."""
        size: int | None = self.input_specs[0].shape[0] if self.input_specs[0].shape else None
        return size

    def pack(self, flat: Sequence[Any]) -> Any:
        """Returns flat inputs in the nest that the model takes."""
        return keras.tree.map_structure(lambda position: flat[position], self.structure)

    def flatten(self, inputs: Any) -> list[Any]:
        """Returns what a caller passed (one array, a list, a dict by name) as flat inputs.

        Raises:
            SourceError: an input is missing, unknown or one too many.
        """
        names = self.input_names
        if isinstance(inputs, dict):
            unknown = [name for name in inputs if name not in names]
            missing = [name for name in names if name not in inputs]
            if unknown or missing:
                raise SourceError(
                    f"the model's inputs are {list(names)}; got {list(inputs)}"
                    + (f", {missing} missing" if missing else "")
                    + (f", {unknown} unknown" if unknown else "")
                    + "."
                )
            return [inputs[name] for name in names]
        if isinstance(inputs, list | tuple) and len(names) > 1:
            if len(inputs) != len(names):
                raise SourceError(
                    f"the model has {amount(len(names), 'input')} {list(names)}; got {len(inputs)}."
                )
            return list(inputs)
        if len(names) > 1:
            raise SourceError(
                f"the model has several inputs {list(names)}; pass a list or a dict by name."
            )
        if isinstance(inputs, list | tuple) and len(inputs) == 1:
            return list(inputs)
        return [inputs]

    def tensors(self, feed: Mapping[str, Any]) -> list[Any]:
        """Returns arrays by name, those of no input left out, as flat inputs of their types."""
        return [
            tf.convert_to_tensor(np.asarray(feed[name]).astype(spec.dtype.as_numpy_dtype))
            for name, spec in zip(self.input_names, self.input_specs, strict=True)
        ]

    def call(self, flat: Sequence[Any]) -> Any:
        """Calls the model for inference and returns its outputs as it nests them."""
        with channels_last():
            return self.call_untouched(flat)

    def axes_of(self, name: str) -> Axes | None:
        """Returns the axes of such an input or output, None of any other."""
        del name
        return None

    @property
    def longest(self) -> Mapping[str, int]:
        """The most steps along the open axis of inputs, where the graph does not tell: none."""
        return {}

    def own_nest(self, nest: Any) -> Any:
        """Returns the predictions of what a call returned as the model nests them: all of it."""
        return nest

    def call_untouched(self, flat: Sequence[Any]) -> Any:
        """Calls the model as a user does: TensorFlow as it is, nothing in the way."""
        return _call(self.model, self.pack(flat), self.arguments)


def inference_arguments(model: Any) -> dict[str, bool]:
    """Returns `{"training": False}` where the model's `call` takes it."""
    parameters = inspect.signature(model.call).parameters
    takes = "training" in parameters or any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )
    return {"training": False} if takes else {}


def as_keras_model(model: Any, inputs: Any = None) -> KerasModel:
    """Returns a model with its inputs and outputs named.

    Args:
        model: a built `keras.Model`, or the path of one.
        inputs: for a subclassed model, sample inputs or `keras.InputSpec`s (shape with the
            batch axis, dtype) in the nest that its `call` takes; needed where the element
            type of an input is neither the model's own nor what it casts the input to, or a
            size other than the batch is open.
            For a `call` of several arguments, a list of them or a dict by their names.

    Raises:
        SourceError: it is no Keras model, or not built.
    """
    if isinstance(model, str | Path):
        model = load_model(model)
    if not isinstance(model, keras.Model):
        raise SourceError(
            f"expected a keras.Model or the path of one, got {type(model).__name__}."
            + (" Wrap the layer in a model first." if isinstance(model, keras.Layer) else "")
        )
    if getattr(model, "is_instrumented", False):
        raise SourceError(
            f"{model.name!r} is instrumented already; use its source, `model.source`."
        )
    if not model.built and inputs is None:
        raise SourceError(
            f"the model {model.name!r} is not built: its input shape is unknown. Call it once "
            "on data, call model.build(shape), or start it with keras.Input(shape)."
        )
    nest, arguments = _by_argument(model, inputs)
    if inputs is None:
        nest = _input_nest(model)
    flat = keras.tree.flatten(nest)
    names = _input_names(model, nest, flat, arguments)
    structure = keras.tree.pack_sequence_as(nest, list(range(len(flat))))
    _check_unique(names, model)
    specs = _specs(flat, names, _declared_batch(model, flat))
    if not model.built:
        _build(model, keras.tree.map_structure(lambda i: specs[i], structure), arguments)
    outputs = _output_names(model, structure, specs, arguments)
    if _opens_batch(model, specs):
        opened = _specs(flat, names, None)
        if _batch_stays_open(model, structure, opened, arguments):
            specs = opened
    return KerasModel(model, names, specs, structure, outputs, arguments)


def _call(model: Any, nest: Any, arguments: Sequence[str]) -> Any:
    """Calls a model for inference, with one nest, or with a list of one nest an argument."""
    if arguments:
        return model(**dict(zip(arguments, nest, strict=True)), **inference_arguments(model))
    return model(nest, **inference_arguments(model))


# -- inputs ------------------------------------------------------------------------------------


def _by_argument(model: Any, inputs: Any) -> tuple[Any, tuple[str, ...]]:
    """Returns `inputs`, and for a `call` of several arguments a list of them and their names.

    Raises:
        SourceError: the `call` needs several arguments, and `inputs` are not one for each.
    """
    needed, every = _arguments_of(model)
    if isinstance(inputs, dict) and len(inputs) > 1 and set(needed) <= set(inputs) <= set(every):
        names = tuple(name for name in every if name in inputs)
        return [inputs[name] for name in names], names
    if len(needed) < 2:
        return inputs, ()
    if isinstance(inputs, list | tuple) and len(needed) <= len(inputs) <= len(every):
        return list(inputs), tuple(every[: len(inputs)])
    example = ", ".join(f"{n!r}: {n}" for n in needed)
    raise SourceError(
        f"the call of {model.name!r} takes several arguments ({', '.join(needed)}), of which "
        f"Keras records the first alone; pass sample arrays or keras.InputSpecs for each, "
        f"inputs={{{example}}}."
    )


def _arguments_of(model: Any) -> tuple[list[str], list[str]]:
    """Returns the arguments that a model's `call` needs, and all that tensors may be passed in."""
    parameters = [
        p for p in inspect.signature(model.call).parameters.values() if p.name != "training"
    ]
    every = [p.name for p in parameters if p.kind in (*_POSITIONAL, p.KEYWORD_ONLY)]
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in _POSITIONAL]
    return needed, every


def _input_nest(model: Any) -> Any:
    """Returns the nest of inputs that a model was built for."""
    if isinstance(model, keras.Sequential):
        first = model._layers[0] if model._layers else None
        if not isinstance(first, keras.layers.InputLayer):
            return _recorded_nest(model)
        if model._functional is None:  # Keras cannot trace it, so what it shows is its first data
            return keras.InputSpec(shape=(None, *first.batch_shape[1:]), dtype=first.dtype)
        return first.output
    if getattr(model, "inputs", None):
        return model._inputs_struct if hasattr(model, "_inputs_struct") else model.inputs
    return _recorded_nest(model)


def _recorded_nest(model: Any) -> Any:
    """Returns the input nest of a subclassed model from the shapes that its first call left.

    Types are those that it makes of its inputs.
    """
    recorded = getattr(model, "_build_shapes_dict", None)
    if not recorded:
        raise SourceError(
            f"the inputs of {model.name!r} are unknown. Call it once on data, or pass inputs= "
            "with sample arrays."
        )

    def as_spec(shape: Any) -> Any:
        if isinstance(shape, dict):
            return {name: as_spec(s) for name, s in shape.items()}
        if isinstance(shape, list | tuple) and not _is_shape(shape):
            return [as_spec(s) for s in shape]
        return keras.InputSpec(shape=(None, *shape[1:]), dtype=model.input_dtype)

    nest = _with_types(model, as_spec(next(iter(recorded.values()))))
    # A vector has its size for good; what has positions may have been called at one size of many.
    bound = [
        s.shape for s in keras.tree.flatten(nest) if len(s.shape) > 2 and None not in s.shape[1:]
    ]
    if bound:
        warnings.warn(
            f"{model.name!r} records the sizes of its first call, so the artefact takes "
            f"{', '.join(map(str, bound))} alone. If the model takes other sizes too, pass "
            "inputs=keras.InputSpec(shape=..., dtype=...) with None for each open size.",
            stacklevel=2,
        )
    return nest


def _with_types(model: Any, nest: Any) -> Any:
    """Returns recorded inputs with the types that the model makes of them."""
    flat = keras.tree.flatten(nest)

    def call(*tensors: Any) -> Any:
        return _call(model, keras.tree.pack_sequence_as(nest, list(tensors)), ())

    types = types_by_casts(call, [tf.TensorSpec(s.shape, s.dtype) for s in flat])
    typed = [keras.InputSpec(shape=s.shape, dtype=t) for s, t in zip(flat, types, strict=True)]
    return keras.tree.pack_sequence_as(nest, typed)


def _is_shape(value: Sequence[Any]) -> bool:
    return all(d is None or isinstance(d, int) for d in value)


def _input_names(
    model: Any, nest: Any, flat: Sequence[Any], arguments: Sequence[str]
) -> tuple[str, ...]:
    if arguments:
        return tuple(
            name if count == 1 else f"{name}_{i}"
            for name, part in zip(arguments, nest, strict=True)
            for count in [len(keras.tree.flatten(part))]
            for i in range(count)
        )
    if isinstance(nest, dict) and _flat_dict(nest):
        return tuple(str(name) for name in sorted(nest))
    recorded = getattr(model, "inputs", None) or []
    if len(recorded) == len(flat):
        # The layer keeps its name over saving and loading; an unnamed tensor's is a counter.
        return tuple(t._keras_history.operation.name for t in recorded)
    if isinstance(nest, dict):
        return tuple(f"input_{i}" for i in range(len(flat)))
    first = next(iter(inspect.signature(model.call).parameters), "input")
    return (first,) if len(flat) == 1 else tuple(f"{first}_{i}" for i in range(len(flat)))


def _flat_dict(nest: dict[Any, Any]) -> bool:
    return not any(isinstance(v, dict | list | tuple) for v in nest.values())


# -- batch -------------------------------------------------------------------------------------


def _declared_batch(model: Any, flat: Sequence[Any]) -> int | None:
    """Returns the batch size that a model's inputs were declared with, None for any size.

    Arrays are samples: how many of them there are says nothing.

    Raises:
        SourceError: inputs were declared with different sizes.
    """
    declared = {t.shape[0] for t in flat if _declares_shape(t) and t.shape} - {None}
    if len(declared) > 1:
        raise SourceError(
            f"the inputs of {model.name!r} are declared with different batch sizes, "
            f"{sorted(declared)}; give them the same, or leave the batch open."
        )
    return declared.pop() if declared else None


def _declares_shape(tensor: Any) -> bool:
    return isinstance(tensor, keras.KerasTensor | keras.InputSpec | tf.TensorSpec)


def _specs(
    flat: Sequence[Any], names: Sequence[str], batch: int | None
) -> tuple[tf.TensorSpec, ...]:
    return tuple(
        tf.TensorSpec(_sizes(t.shape, batch), _dtype_name(t), name=_identifier(n))
        for t, n in zip(flat, names, strict=True)
    )


def _opens_batch(model: Any, specs: Sequence[Any]) -> bool:
    """Tells whether a batch size may be that of the data that a model was called on first.

    A Sequential model that was started without an Input takes it for its own; what was declared
    looks the same there.
    """
    states = any(getattr(layer, "stateful", False) for layer in model._flatten_layers())
    bound = any(s.shape.rank and s.shape[0] is not None for s in specs)
    return isinstance(model, keras.Sequential) and bound and not states


def _batch_stays_open(
    model: Any, structure: Any, specs: Sequence[Any], arguments: Sequence[str]
) -> bool:
    """Tells whether a model can be traced with an open batch, and its outputs then have one."""
    try:
        outputs = _symbolic_outputs(model, structure, specs, arguments)
    except SourceError:
        return False
    return all(len(t.shape) > 0 and t.shape[0] is None for t in keras.tree.flatten(outputs))


# -- outputs -----------------------------------------------------------------------------------


def _output_names(
    model: Any, structure: Any, specs: Sequence[Any], arguments: Sequence[str]
) -> tuple[str, ...]:
    """Returns the keys of a dict, the layers' names, or `output` and a number.

    Several outputs of one layer are told apart as its activations are: `lstm`, `lstm:1`.
    """
    if isinstance(model, keras.Sequential) and model.layers:
        return (model.layers[-1].name,)
    nest = getattr(model, "_outputs_struct", None)
    if nest is None:
        nest = _symbolic_outputs(model, structure, specs, arguments)
    names = [
        "_".join(map(str, path)) if any(isinstance(p, str) for p in path) else ""
        for path, _ in keras.tree.flatten_with_path(nest)
    ]
    layers = getattr(model, "output_names", None) or []
    if len(layers) == len(names):
        names = [name or layer for name, layer in zip(names, layers, strict=True)]
    if not all(names):
        names = ["output"] if len(names) == 1 else [f"output_{i}" for i in range(len(names))]
    return tuple(
        name if not names[:i].count(name) else f"{name}:{names[:i].count(name)}"
        for i, name in enumerate(names)
    )


def _symbolic_outputs(
    model: Any, structure: Any, specs: Sequence[Any], arguments: Sequence[str]
) -> Any:
    """Returns shapes and element types of a model's outputs in the nest that it returns.

    Raises:
        SourceError: its `call` does not take these inputs.
    """
    called = keras.tree.map_structure(
        lambda i: keras.KerasTensor(specs[i].shape, dtype=specs[i].dtype.name), structure
    )
    try:
        if arguments:
            return model.compute_output_spec(**dict(zip(arguments, called, strict=True)))
        return model.compute_output_spec(called)
    except Exception as error:
        raise SourceError(_does_not_take(model, specs, error)) from error


def _build(model: Any, specs: Any, arguments: Sequence[str]) -> None:
    """Builds an unbuilt model by calling it on zeros of the asked shapes.

    Raises:
        SourceError: its `call` does not take these inputs.
    """
    zeros = keras.tree.map_structure(
        lambda s: tf.zeros([1 if d is None else d for d in s.shape], s.dtype), specs
    )
    try:
        with channels_last():
            _call(model, zeros, arguments)
    except Exception as error:
        raise SourceError(_does_not_take(model, keras.tree.flatten(specs), error)) from error


def _does_not_take(model: Any, specs: Sequence[Any], error: Exception) -> str:
    tried = ", ".join(f"{s.name} {s.dtype.name} {tuple(s.shape)}" for s in specs)
    said = " ".join(str(error).rpartition("Error encountered:")[2].split())[:300]
    return (
        f"the call of {model.name!r} fails on inputs of {tried}: {said} If it takes other element "
        "types (int32 ids, say) or sizes, pass inputs= with sample arrays or "
        "keras.InputSpec(shape=(None, ...), dtype='int32'), in the nest that its call takes."
    )


# -- small -------------------------------------------------------------------------------------


def _check_unique(names: Sequence[str], model: Any) -> None:
    twice = sorted({n for n in names if list(names).count(n) > 1})
    if twice:
        raise SourceError(
            f"the inputs of {model.name!r} have duplicate names {twice}; the artefact's inputs "
            "need names of their own. Give the layers different names."
        )


def _sizes(shape: Any, batch: int | None) -> tuple[int | None, ...]:
    if shape is None:
        raise SourceError("an input has no known rank; build the model with a shape.")
    return (batch, *tuple(shape)[1:])


def _dtype_name(tensor: Any) -> str:
    """Returns the element type; that of Keras where a `keras.InputSpec` says none."""
    return str(getattr(tensor.dtype, "name", tensor.dtype) or keras.config.floatx())


def _identifier(name: str) -> str:
    """Returns a name that TensorFlow accepts for a placeholder."""
    return "".join(c if c.isalnum() or c in "_." else "_" for c in name)
