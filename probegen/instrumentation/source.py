"""The source: a model object or file, with its inputs and outputs named and in order."""

from __future__ import annotations

import dataclasses
import inspect
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from probegen.errors import SourceError

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclasses.dataclass(frozen=True)
class Source:
    """A built model and how to call it.

    Attributes:
        model: the user's model; it is read and called, never changed.
        input_names: names of the flat inputs, in the model's order.
        input_specs: a `tf.TensorSpec` for each flat input.
        structure: the nest (tensor, list, dict) the model takes, filled with flat positions.
        output_names: names of the flat outputs, in the model's order.
    """

    model: Any
    input_names: tuple[str, ...]
    input_specs: tuple[Any, ...]
    structure: Any
    output_names: tuple[str, ...]

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
                    f"the model has {len(names)} inputs {list(names)}; got {len(inputs)}."
                )
            return list(inputs)
        if len(names) > 1:
            raise SourceError(
                f"the model has several inputs {list(names)}; pass a list or a dict by name."
            )
        if isinstance(inputs, list | tuple) and len(inputs) == 1:
            return list(inputs)
        return [inputs]

    def call(self, flat: Sequence[Any]) -> Any:
        """Calls the model for inference and returns its outputs as it nests them."""
        return self.model(self.pack(flat), **inference_arguments(self.model))

    def predict(self, flat: Sequence[Any]) -> list[Any]:
        """Calls the model on arrays, leaving its states as they were; returns flat outputs."""
        with keras.StatelessScope():
            return list(keras.tree.flatten(self.call([tf.convert_to_tensor(v) for v in flat])))


def inference_arguments(model: Any) -> dict[str, bool]:
    """Returns `{"training": False}` where the model's `call` takes it."""
    parameters = inspect.signature(model.call).parameters
    takes = "training" in parameters or any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()
    )
    return {"training": False} if takes else {}


def load_model(path: str | Path, custom_objects: dict[str, Any] | None = None) -> Any:
    """Loads a `.keras`, `.h5` or `.hdf5` file without running code that it holds.

    Raises:
        SourceError: there is no such file, it is no Keras model, or it needs custom objects.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(f"there is no model file {str(path)!r}.")
    if path.suffix not in KERAS_SUFFIXES:
        raise SourceError(
            f"{str(path)!r} is no Keras model file: expected one of {', '.join(KERAS_SUFFIXES)}."
        )
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise SourceError(f"Keras cannot load {str(path)!r}: the file is cut short or no model.")
    try:
        return keras.saving.load_model(
            path, custom_objects=custom_objects, compile=False, safe_mode=True
        )
    except Exception as error:
        raise SourceError(
            f"Keras cannot load {str(path)!r}: {_cause(error)} If it holds classes of your "
            "own, import the module that registers them first (on the command line: "
            "--import MODULE); lambdas are not loaded, since a file must not run code."
        ) from error


def as_source(model: Any, inputs: Any = None) -> Source:
    """Returns a model with its inputs and outputs named.

    Args:
        model: a built `keras.Model`, or the path of one.
        inputs: for a subclassed model, sample inputs or `keras.InputSpec`s (shape with the
            batch axis, dtype) in the nest that its `call` takes; needed where the element
            type of an input is not the model's own.

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
    nest = _input_nest(model, inputs)
    flat = keras.tree.flatten(nest)
    names = _input_names(model, nest, flat)
    # States have a row for each sample; every other model takes any number of them.
    stateful = any(getattr(layer, "stateful", False) for layer in model._flatten_layers())
    specs = tuple(
        tf.TensorSpec(_sizes(t.shape, stateful), _dtype_name(t), name=_identifier(n))
        for t, n in zip(flat, names, strict=True)
    )
    structure = keras.tree.pack_sequence_as(nest, list(range(len(flat))))
    _check_unique(names, "input", model)
    if not model.built:
        _build(model, keras.tree.map_structure(lambda i: specs[i], structure))
    outputs = _output_names(model, structure, specs)
    _check_unique(outputs, "output", model)
    return Source(model, names, specs, structure, outputs)


def _input_nest(model: Any, inputs: Any) -> Any:
    if inputs is not None:
        return inputs
    if isinstance(model, keras.Sequential):
        return model.inputs[0] if model.inputs else _recorded_nest(model)
    if getattr(model, "inputs", None):
        return model._inputs_struct if hasattr(model, "_inputs_struct") else model.inputs
    return _recorded_nest(model)


def _recorded_nest(model: Any) -> Any:
    """Returns the input nest of a subclassed model from the shapes that its first call left."""
    recorded = getattr(model, "_build_shapes_dict", None)
    if not recorded:
        raise SourceError(
            f"the inputs of {model.name!r} are unknown. Call it once on data, or pass inputs= "
            "with sample arrays."
        )
    shapes = list(recorded.values())
    parameters = inspect.signature(model.call).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in _POSITIONAL]
    if max(len(shapes), len(needed)) > 1:
        raise SourceError(
            f"the call of {model.name!r} takes several arguments ({', '.join(needed)}); let it "
            "take one (a list or a dict of tensors), so that the artefact's inputs have an order."
        )

    def as_spec(shape: Any) -> Any:
        if isinstance(shape, dict):
            return {name: as_spec(s) for name, s in shape.items()}
        if isinstance(shape, list | tuple) and not _is_shape(shape):
            return [as_spec(s) for s in shape]
        return keras.InputSpec(shape=(None, *shape[1:]), dtype=model.input_dtype)

    return as_spec(shapes[0])


def _is_shape(value: Sequence[Any]) -> bool:
    return all(d is None or isinstance(d, int) for d in value)


def _input_names(model: Any, nest: Any, flat: Sequence[Any]) -> tuple[str, ...]:
    if isinstance(nest, dict) and _flat_dict(nest):
        return tuple(str(name) for name in sorted(nest))
    if getattr(model, "inputs", None) and len(model.inputs) == len(flat):
        # The layer keeps its name over saving and loading; an unnamed tensor's is a counter.
        return tuple(t._keras_history.operation.name for t in model.inputs)
    if isinstance(nest, dict):
        return tuple(f"input_{i}" for i in range(len(flat)))
    first = next(iter(inspect.signature(model.call).parameters), "input")
    return (first,) if len(flat) == 1 else tuple(f"{first}_{i}" for i in range(len(flat)))


def _flat_dict(nest: dict[Any, Any]) -> bool:
    return not any(isinstance(v, dict | list | tuple) for v in nest.values())


def _output_names(model: Any, structure: Any, specs: Sequence[Any]) -> tuple[str, ...]:
    """Returns `model.output_names`, dict keys, or `output` and a number."""
    if isinstance(model, keras.Sequential) and model.layers:
        return (model.layers[-1].name,)
    names = getattr(model, "output_names", None)
    if names:
        return tuple(names)
    called = keras.tree.map_structure(
        lambda i: keras.KerasTensor(specs[i].shape, dtype=specs[i].dtype.name), structure
    )
    spec = keras.tree.map_structure(lambda t: t, model.compute_output_spec(called))
    if isinstance(spec, dict) and _flat_dict(spec):
        return tuple(str(k) for k in sorted(spec))
    flat = keras.tree.flatten(spec)
    return ("output",) if len(flat) == 1 else tuple(f"output_{i}" for i in range(len(flat)))


def _build(model: Any, specs: Any) -> None:
    """Builds an unbuilt model by calling it on zeros of the asked shapes."""
    zeros = keras.tree.map_structure(
        lambda s: tf.zeros([1 if d is None else d for d in s.shape], s.dtype), specs
    )
    model(zeros, **inference_arguments(model))


def _check_unique(names: Sequence[str], what: str, model: Any) -> None:
    twice = sorted({n for n in names if list(names).count(n) > 1})
    if twice:
        raise SourceError(
            f"the {what}s of {model.name!r} have duplicate names {twice}; the artefact's {what}s "
            f"need names of their own. Give the layers different names, or return a dict."
        )


def _sizes(shape: Any, keep_batch: bool) -> tuple[int | None, ...]:
    if shape is None:
        raise SourceError("an input has no known rank; build the model with a shape.")
    sizes = tuple(shape)
    return sizes if keep_batch else (None, *sizes[1:])


def _dtype_name(tensor: Any) -> str:
    return str(getattr(tensor.dtype, "name", tensor.dtype))


def _identifier(name: str) -> str:
    """Returns a name that TensorFlow accepts for a placeholder."""
    return "".join(c if c.isalnum() or c in "_." else "_" for c in name)


def _cause(error: Exception) -> str:
    """Returns the first sentence of what Keras found wrong, without the configs it prints."""
    innermost = str(error).rpartition("Exception encountered: ")[2].strip()
    sentence = (innermost.splitlines() or [type(error).__name__])[0].partition(". ")[0]
    return sentence if sentence.endswith(".") else sentence + "."
