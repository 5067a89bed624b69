"""A model that takes text, cut behind its text layers: it takes what these give.

The model stays as it is. Its text layers are not run: in their place stands what is fed. So every
layer keeps its path and its weights, wherever the text layers are, inside other models too.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from probegen.artefact.texts import TextSpec
from probegen.errors import ExportError
from probegen.runtime.texts.lookup import INT, ONE_HOT
from probegen.sources.keras.keras_model import KerasModel
from probegen.sources.keras.layer_paths import layer_paths
from probegen.sources.keras.texts import TextLayer, text_layers
from probegen.sources.keras.texts.standing_in import standing_in
from probegen.sources.keras.unchanged import unchanged
from probegen.stages import one_line

#: What is fed to see whether texts reach a text layer as they are: changed by whatever changes
#: letters, punctuation or white space.
_SENTINEL = " Probe {0} of the ÉTÉ, input-{1}!\t"
_SAMPLES = 2


@dataclasses.dataclass(frozen=True)
class TextCall:
    """One call of a text layer.

    Attributes:
        layer: the layer.
        spec: what it does, and the inputs that stand in its place.
        nest: what it returns, with the number of a token input at each place.
    """

    layer: Any
    spec: TextSpec
    nest: Any


@dataclasses.dataclass(frozen=True)
class TokenModel(KerasModel):
    """A built model that takes what its text layers give; see `KerasModel`.

    Attributes:
        inner: the model as it takes text.
        calls: of its text layers, in the order in which they run.
        kept: number of an input of `inner` that is no text -> its number here.
    """

    inner: KerasModel = dataclasses.field(kw_only=True)
    calls: tuple[TextCall, ...] = ()
    kept: Mapping[int, int] = dataclasses.field(default_factory=dict)

    @property
    def texts(self) -> tuple[TextSpec, ...]:
        """What the runtime makes inputs of."""
        return tuple(call.spec for call in self.calls)

    def call_untouched(self, flat: Sequence[Any]) -> Any:
        """Calls the model with tokens in the place of what its text layers would make."""
        waiting = list(self.calls)
        rows = tf.shape(flat[0])[:1]

        def answer(_: Any, layer: Any, *args: Any, **kwargs: Any) -> Any:
            del args, kwargs
            call = waiting.pop(0)
            if call.layer is not layer:
                raise ExportError(
                    f"the text layer {layer.name!r} runs in another order than before: the model's "
                    "call does not do the same each time."
                )
            return keras.tree.map_structure(lambda number: flat[number], call.nest)

        given = [
            flat[self.kept[place]] if place in self.kept else _no_text(spec, rows)
            for place, spec in enumerate(self.inner.input_specs)
        ]
        with standing_in({id(c.layer): c.layer for c in self.calls}.values(), answer):
            return self.inner.call_untouched(given)

    def read_texts(
        self, feed: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any] | Exception]:
        """Runs the untouched model on texts.

        Args:
            feed: texts (bytes as objects) and other inputs, by the names of the untouched model.

        Returns:
            What its text layers made, and what it predicts, by name; or what it raised behind them.
        """
        found: dict[str, Any] = {}
        waiting = list(self.calls)

        def record(original: Any, _: Any, *args: Any, **kwargs: Any) -> Any:
            made, call = original(*args, **kwargs), waiting.pop(0)
            numbers = keras.tree.flatten(call.nest)
            for number, tensor in zip(numbers, keras.tree.flatten(made), strict=True):
                found[self.input_names[number]] = np.asarray(tensor)
            return made

        flat = [
            tf.constant(feed[name].reshape(-1).tolist(), tf.string, feed[name].shape)
            if spec.dtype == tf.string
            else tf.convert_to_tensor(np.asarray(feed[name]).astype(spec.dtype.as_numpy_dtype))
            for name, spec in zip(self.inner.input_names, self.inner.input_specs, strict=True)
        ]
        layers = {id(c.layer): c.layer for c in self.calls}.values()
        with unchanged(self.model), standing_in(layers, record):
            try:
                outputs = keras.tree.flatten(self.inner.call_untouched(flat))
            except Exception as error:
                if waiting:
                    raise
                return found, error
        named = zip(self.output_names, outputs, strict=True)
        return found, {name: np.asarray(keras.ops.convert_to_numpy(v)) for name, v in named}


def _no_text(spec: Any, rows: Any) -> Any:
    """Returns empty strings, as many as an input takes: nobody reads them."""
    sizes = [1 if n is None else n for n in spec.shape[1:]]
    text = tf.fill(tf.concat([rows, tf.constant(sizes, tf.int32)], 0), "")
    text.set_shape(spec.shape)
    return text


def takes_text(model: KerasModel) -> bool:
    """Tells whether some input of a model takes strings."""
    return any(spec.dtype == tf.string for spec in model.input_specs)


def behind_texts(model: KerasModel) -> TokenModel:
    """Returns a model that takes text, cut behind its text layers.

    Raises:
        ExportError: it has none that can be cut off, or its strings do not reach them as they are;
            says which layer, and what to do.
    """
    seen = _watch(model)
    described = [_described(model, call) for call in seen]
    return _assembled(model, described)


@dataclasses.dataclass(frozen=True)
class _Seen:
    """One call of a text layer that was watched.

    Attributes:
        kind: its class.
        layer: the layer.
        path: its path.
        text: the strings that it got.
        made: the nest of what it gave.
    """

    kind: TextLayer
    layer: Any
    path: str
    text: Any
    made: Any


def _watch(model: KerasModel) -> list[_Seen]:
    """Runs a model on texts that tell where they came from."""
    kinds, paths = text_layers(), layer_paths(model.model)
    of_layer = {
        id(layer): next((k for k in kinds if isinstance(layer, k.cls)), None)
        for layer in model.model._flatten_layers()
    }
    layers = [layer for layer in model.model._flatten_layers() if of_layer[id(layer)]]
    seen: list[_Seen] = []

    def record(original: Any, layer: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        made = _made(functools.partial(original, inputs, *args, **kwargs), layer, inputs)
        kind = of_layer[id(layer)]
        text = inputs if tf.is_tensor(inputs) else np.asarray(inputs)
        if kind is not None and text.dtype == tf.string:
            seen.append(_Seen(kind, layer, paths.get(id(layer), layer.name), text, made))
        return made

    flat = [_sentinels(spec, place) for place, spec in enumerate(model.input_specs)]
    with unchanged(model.model), standing_in(layers, record):
        try:
            model.call_untouched(flat)
        except tf.errors.OpError as error:
            raise ExportError(
                f"the model {model.model.name!r} does not run on texts ({one_line(error)}), so "
                "that it cannot be cut behind its text layers."
            ) from error
    if not seen:
        names = [
            n
            for n, s in zip(model.input_names, model.input_specs, strict=True)
            if s.dtype == tf.string
        ]
        known = ", ".join(kind.cls.__name__ for kind in kinds)
        raise ExportError(
            f"the input {names[0]!r} takes strings, which ONNX runtimes cannot take apart, and no "
            f"layer does that whose work the runtime can do ({known}). Use one of these, split the "
            "model behind its text layers, or export to SavedModel (format='savedmodel')."
        )
    return seen


def _made(call: Callable[[], Any], layer: Any, text: Any) -> Any:
    """Returns what a text layer makes, zeros where it refuses words that it does not know."""
    try:
        return call()
    except tf.errors.InvalidArgumentError:
        planned = layer.compute_output_spec(keras.KerasTensor(text.shape, dtype="string"))
        return keras.tree.map_structure(
            lambda t: tf.zeros([1 if n is None else n for n in t.shape], t.dtype), planned
        )


def _sentinels(spec: Any, place: int) -> Any:
    rows = spec.shape[0] or _SAMPLES
    sizes = [rows, *(1 if n is None else n for n in spec.shape[1:])]
    if spec.dtype != tf.string:
        return tf.zeros(sizes, spec.dtype)
    count = int(np.prod(sizes))
    return tf.constant([_SENTINEL.format(i, place) for i in range(count)], shape=sizes)


def _described(model: KerasModel, call: _Seen) -> tuple[int, _Seen, TextSpec]:
    """Returns which input's texts a call takes apart, and how; the inputs it makes come later.

    Raises:
        ExportError: the texts were changed on the way, or the layer cannot be described.
    """
    got = np.asarray(call.text)
    for place, spec in enumerate(model.input_specs):
        fed = np.asarray(_sentinels(spec, place))
        alike = spec.dtype == tf.string and fed.size == got.size and len(fed) == len(got)
        if alike and (fed.reshape(-1) == got.reshape(-1)).all():
            sizes = tuple(None if n is None else int(n) for n in spec.shape)
            settings = dict(call.kind.settings(call.layer, call.path))
            if settings.get("mode", INT) not in (INT, ONE_HOT) and len(fed.shape) > 2:
                raise ExportError(
                    f"the layer {call.path!r} counts (output_mode={settings['mode']!r}) over the "
                    f"first of the axes {list(spec.shape[1:])} of strings, which the runtime does "
                    "not: give it strings of one axis, or export to SavedModel "
                    "(format='savedmodel')."
                )
            text = TextSpec(model.input_names[place], sizes, {}, settings, call.path)
            return place, call, text
    raise ExportError(
        f"what reaches the text layer {call.path!r} is not what is fed: something before it "
        "changes the strings, which only TensorFlow could do. Do it before the texts "
        "are fed, or with standardize= of a TextVectorization; or export to SavedModel "
        "(format='savedmodel')."
    )


def _assembled(model: KerasModel, described: Sequence[tuple[int, _Seen, TextSpec]]) -> TokenModel:
    """Returns the cut model: each text is replaced by what is made of it, where it stood."""
    names: list[str] = []
    specs: list[Any] = []
    kept: dict[int, int] = {}
    numbers: dict[int, list[int]] = {}
    for place, (name, spec) in enumerate(zip(model.input_names, model.input_specs, strict=True)):
        if spec.dtype != tf.string:
            kept[place] = len(names)
            names.append(name)
            specs.append(spec)
            continue
        own = [i for i, (of, _, _) in enumerate(described) if of == place]
        for i in own:
            call = described[i][1]
            keys = _keys(call.made)
            several = len(own) > 1
            numbers[i] = list(range(len(names), len(names) + len(keys)))
            names += [_input_name(name, key, call, several) for key in keys]
            specs += _specs(call, spec.shape[0])
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ExportError(
            f"several text layers would give inputs of the name {twice[0]!r}: give the layers of "
            f"{model.model.name!r} different names."
        )
    calls = []
    for i, (_, call, text) in enumerate(described):
        made = {
            call.kind.makes[key]: names[number]
            for key, number in zip(_keys(call.made), numbers[i], strict=True)
        }
        nest = keras.tree.pack_sequence_as(call.made, numbers[i])
        calls.append(TextCall(call.layer, dataclasses.replace(text, makes=made), nest))
    named = [
        tf.TensorSpec(s.shape, s.dtype, name="".join(c if c.isalnum() else "_" for c in n))
        for n, s in zip(names, specs, strict=True)
    ]
    return TokenModel(
        model.model,
        tuple(names),
        tuple(named),
        list(range(len(names))),
        model.output_names,
        (),
        inner=model,
        calls=tuple(calls),
        kept=kept,
    )


def _keys(made: Any) -> list[str]:
    return sorted(made) if isinstance(made, dict) else [""]


def _input_name(text: str, key: str, call: _Seen, several: bool) -> str:
    """Returns what the input is called that stands for an output of a text layer."""
    if not several:
        return key or text
    return f"{text}/{call.path}" + (f"/{key}" if key else "")


def _specs(call: _Seen, batch: int | None) -> list[Any]:
    """Returns the types of what a text layer gives, with the sizes that it always has."""
    text = keras.KerasTensor((batch, *call.text.shape[1:]), dtype="string")
    planned = keras.tree.flatten(call.layer.compute_output_spec(text))
    found = []
    for tensor, plan in zip(keras.tree.flatten(call.made), planned, strict=True):
        if not isinstance(tensor, tf.Tensor | np.ndarray):
            raise ExportError(
                f"the text layer {call.path!r} gives a {type(tensor).__name__}, which ONNX does "
                "not have: let it pad to a length (output_sequence_length=, sequence_length=)."
            )
        sizes = list(tensor.shape)
        if len(plan.shape) == len(sizes):  # of counted words Keras plans an axis too many
            sizes = [n if n == got else None for n, got in zip(plan.shape, sizes, strict=True)]
        found.append(tf.TensorSpec([batch, *sizes[1:]], tf.as_dtype(tensor.dtype)))
    return found
