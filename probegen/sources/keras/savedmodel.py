"""SavedModel export: two signatures over shared weights, and the manifest beside them."""

from __future__ import annotations

import functools
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.saved_model.experimental import TrackableResource

from probegen.artefact.manifest import Manifest, write_beside_savedmodel
from probegen.artefact.stored_arrays import shortened
from probegen.sources.base import Arriving
from probegen.sources.keras.forward import run_forward
from probegen.sources.keras.instrumented import ProbedModel
from probegen.sources.keras.preprocessing import over_picture, prepared
from probegen.sources.keras.requests import request_specs

SERVING, EXPLAIN = "serving_default", "explain"


def write_savedmodel(
    probed: ProbedModel, path: Path, batch: int | None, arriving: Arriving | None = None
) -> Manifest:
    """Writes a SavedModel with the signatures `serving_default` and `explain`.

    `serving_default` returns the predictions as the source model gives them; `explain` returns
    everything, and takes the int32 `[batch]` `target` where a probe chooses it at request time, the
    float32 `region` where one weighs positions, and the int32 `groups` where one takes some.

    Args:
        probed: the instrumented model.
        path: a folder that does not exist.
        batch: a fixed batch size, or None for a dynamic one.
        arriving: the pictures that both signatures preprocess, where there are some.

    Returns:
        The manifest as written.
    """
    source, plan = probed.keras_model, probed.plan
    described = (plan if arriving is None else arriving).manifest.with_batch(batch)
    asked = request_specs(described, batch)
    names = [argument_name(n) for n in source.input_names]
    specs = {
        name: tf.TensorSpec([batch, *s.shape[1:]], s.dtype, name=name)
        for name, s in zip(names, source.input_specs, strict=True)
    }
    inputs_by_name = zip(names, described.inputs, strict=True)
    pictures = {name: spec for name, spec in inputs_by_name if spec.preprocessing is not None}
    for name, spec in pictures.items():
        specs[name] = tf.TensorSpec([batch, *spec.shape[1:]], spec.dtype, name=name)
    over = {} if arriving is None else arriving.over

    def taken(inputs: Mapping[str, Any]) -> list[Any]:
        return [prepared(inputs[n], pictures[n]) if n in pictures else inputs[n] for n in names]

    def predict(**inputs: Any) -> dict[str, Any]:
        run = run_forward(source, plan, taken(inputs))
        return dict(zip(source.output_names, run.outputs, strict=True))

    def explain(**inputs: Any) -> dict[str, Any]:
        made = probed.explain_flat(*taken(inputs), *(inputs[n] for n in asked))
        for name, spec in over.items():
            axes, picture = described.output(name).axes, inputs[argument_name(spec.name)]
            made[name] = over_picture(made[name], axes, picture, spec)
        return made

    signatures = {
        SERVING: tf.function(predict, autograph=False).get_concrete_function(**specs),
        EXPLAIN: tf.function(explain, autograph=False).get_concrete_function(**specs, **asked),
    }
    module = _holding_what_is_read(signatures.values(), source.model)
    tf.saved_model.save(module, str(path), signatures=signatures)
    probes = shortened(described.probes, functools.partial(constants, path))
    described = described.replace(probes=probes)
    write_beside_savedmodel(path, described)
    return described


def constants(path: Path, sizes: Container[int]) -> Iterator[npt.NDArray[Any]]:
    """Yields the constants in a SavedModel's graphs that have one of some numbers of elements."""
    content = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    for graph in (m.graph_def for m in content.meta_graphs):
        functions = graph.library.function
        for node in (*graph.node, *(n for f in functions for n in f.node_def)):
            tensor = node.attr["value"].tensor if node.op == "Const" else None
            if tensor is not None and tf.TensorShape(tensor.tensor_shape).num_elements() in sizes:
                yield tf.make_ndarray(tensor)


def argument_name(name: str) -> str:
    """Returns what TensorFlow calls an argument of a signature: a Python identifier."""
    identifier = "".join(c if c.isalnum() else "_" for c in name)
    return identifier if identifier[0].isalpha() else f"arg_{identifier}"


def _holding_what_is_read(functions: Iterable[Any], model: Any) -> Any:
    """Returns a module that tracks the variables and tables that functions read.

    What is not tracked is not saved: the states of recurrent layers, say, which Keras does not
    count among a model's variables, or a layer that is kept in a closure.
    """
    module = tf.Module()
    module.read = [v for function in functions for v in function.variables]
    parts = tf.train.TrackableView(model).descendants()
    module.tables = [p for p in parts if isinstance(p, TrackableResource)]
    return module
