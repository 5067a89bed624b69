"""The instrumented model: a `keras.Model` that returns predictions and probes by name."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from probegen.artefact.manifest import GROUPS_INPUT, REGION_INPUT, TARGET_INPUT, Manifest
from probegen.errors import InstrumentError, SpecError
from probegen.methods.lookup import as_probes
from probegen.methods.text_forms import from_dict
from probegen.plan.making import make_plan
from probegen.plan.plan import Plan
from probegen.runtime.feature_names import named
from probegen.sources.keras.keras_model import KerasModel, as_keras_model
from probegen.sources.keras.reference import coarsest_dtype
from probegen.sources.keras.requests import request_specs
from probegen.sources.keras.tape import explain, refuse_tables
from probegen.sources.keras.unchanged import unchanged
from probegen.sources.keras.view import KerasView
from probegen.sources.mixed_samples import explained_predictions, mixing_of_samples
from probegen.stages import stage
from probegen.text import format_shape


def instrument(
    model: Any,
    probes: Any,
    class_names: Sequence[str] | None = None,
    *,
    inputs: Any = None,
    feature_names: Any = None,
) -> ProbedModel:
    """Returns a `keras.Model` whose outputs are the model's predictions and the probes.

    The source model is read and called, never changed; its weights are shared, not copied.

    Args:
        model: a built `keras.Model`, or the path of a `.keras`, `.h5` or `.hdf5` file.
        probes: a probe or a list of probes, which may be empty.
        class_names: names along the class axis of the prediction.
        inputs: for a subclassed model whose inputs Keras does not record: sample arrays or
            `keras.InputSpec`s in the nest that its `call` takes.
        feature_names: names of the features of the table or series that is the input, with their
            units if known; by input name where there are several. As of `pg.compile`.

    Raises:
        SpecError: the probes are malformed.
        SourceError: the model is none, not built, or instrumented already.
        SelectionError: a selector matches nothing that can be probed so.
        InputError: the names of features fit no input, or several.
        InstrumentError: a target does not fit, or names collide.
        NotDifferentiableError: a gradient cannot flow; says where it stops.
    """
    with stage("the model cannot be instrumented", InstrumentError):
        source = as_keras_model(model, inputs)
        plan = make_plan(KerasView(source), as_probes(probes), class_names)
        if feature_names is not None:
            plan = dataclasses.replace(plan, manifest=named(feature_names, plan.manifest))
        return ProbedModel(source, plan)


def instrument_as(source: KerasModel, described: Manifest) -> ProbedModel:
    """Returns a source instrumented as a manifest says, its outputs by the manifest's names.

    Raises:
        ProbegenError: see `instrument`.
    """
    probes = [from_dict(entry) for entry in described.probes]
    view = KerasView(source)
    plan = make_plan(view, probes, described.class_names, described)
    pairs = zip(plan.manifest.inputs, described.inputs, strict=True)
    inputs = tuple(dataclasses.replace(own, features=told.features) for own, told in pairs)
    manifest = plan.manifest.replace(inputs=inputs)
    return ProbedModel(source, dataclasses.replace(plan, manifest=manifest))


@keras.saving.register_keras_serializable(package="probegen")
class ProbedModel(keras.Model):
    """A model that returns its predictions and its probes from one pass.

    Called on a batch (an array, a list or a dict by input name) it returns a dict: output name
    -> tensor, predictions first. Where a probe has `target="input"`, the call takes
    `target=` with an int32 `[batch]` (or the key `"target"` in a dict of inputs); left out, it
    means argmax. Where one has `region="input"`, it takes `region=` likewise, float32
    `[batch, ...positions]` of the output, ones where it is left out; where one has
    `groups="input"`, `groups=`, int32 `[batch, ...positions]`.

    Attributes:
        source: the user's model.
        keras_model: the same, with its inputs and outputs named.
        plan: what is computed.
        manifest: what the outputs mean.
        is_instrumented: tells such a model from others.
    """

    is_instrumented = True

    def __init__(self, source: KerasModel, plan: Plan) -> None:
        """Computes a plan of a model; see `instrument` and `instrument_as`."""
        super().__init__(name=f"{source.model.name}_probed")
        self.source = source.model
        self.keras_model = source
        self.plan: Plan = plan
        # Traced with the sizes that the plan was made with: some layers do other things, and are
        # called another number of times, where they know more of them.
        given = [tf.TensorSpec(s.shape, s.dtype) for s in source.input_specs]
        given.extend(request_specs(self.manifest, source.batch).values())
        self._explain = tf.function(self.explain_flat, input_signature=given, autograph=False)
        self._samples_compared = not explained_predictions(self.manifest)
        self.built = True

    @property
    def manifest(self) -> Manifest:
        """The decode table of the outputs."""
        return self.plan.manifest

    def call(
        self, inputs: Any, target: Any = None, groups: Any = None, region: Any = None
    ) -> dict[str, Any]:
        """Returns all outputs by name; see the class."""
        own = self.keras_model.input_names
        asked = {TARGET_INPUT: target, REGION_INPUT: region, GROUPS_INPUT: groups}
        if isinstance(inputs, Mapping):
            inputs = dict(inputs)
            for name, value in asked.items():
                if value is None and name not in own:
                    asked[name] = inputs.pop(name, None)
        flat = [
            tf.cast(tf.convert_to_tensor(value), wanted.dtype)
            for value, wanted in zip(
                self.keras_model.flatten(inputs), self.keras_model.input_specs, strict=True
            )
        ]
        for name, value, wanted in zip(own, flat, self.keras_model.input_specs, strict=True):
            if not wanted.shape.is_compatible_with(value.shape):
                raise InstrumentError(
                    f"input {name!r} takes arrays of shape {format_shape(wanted.shape)}, got "
                    f"{list(value.shape)}."
                )
        target = asked[TARGET_INPUT]
        region = self._checked_region(asked[REGION_INPUT], flat[0])
        more = [*region, *self._checked_groups(asked[GROUPS_INPUT])]
        if not self.manifest.target_input:
            if target is not None:
                raise InstrumentError(
                    "this model takes no target: no probe has target='input'. "
                    "Give one, for instance pg.Saliency(target='input')."
                )
            return self._told_of_mixed_samples(flat, dict(self._explain(*flat, *more)))
        request = tf.cast(-1 if target is None else target, tf.int32)
        self._check_request(tf.get_static_value(request))
        rows = tf.broadcast_to(request, tf.shape(flat[0])[:1])
        return self._told_of_mixed_samples(flat, dict(self._explain(*flat, rows, *more)))

    def _told_of_mixed_samples(self, flat: list[Any], found: dict[str, Any]) -> dict[str, Any]:
        """Returns outputs; warns at the first batch where a sample depends on the others there.

        Its first sample is predicted once more, among copies of itself.
        """
        asked = not self._samples_compared and tf.executing_eagerly()
        sizes = {int(value.shape[0]) for value in flat if value.shape.rank} if asked else set()
        if len(sizes) != 1 or max(sizes) < 2:
            return found
        self._samples_compared = True
        copies = [tf.repeat(v[:1], tf.shape(v)[:1], axis=0) if v.shape.rank else v for v in flat]
        with unchanged(self.source):
            nest = self.keras_model.call(copies)
        after = zip(self.keras_model.output_names, keras.tree.flatten(nest), strict=True)
        alone = {name: keras.ops.convert_to_numpy(value) for name, value in after}
        explained = explained_predictions(self.manifest)
        before = {name: keras.ops.convert_to_numpy(found[name]) for name in explained}
        ordinary = np.ones(min(sizes), bool)
        moves = mixing_of_samples(before, alone, 0, ordinary, coarsest_dtype(self.source))
        if moves is not None:
            warnings.warn(
                f"what {self.source.name!r} predicts for a sample depends on the other samples of "
                f"its batch: {moves[1]} {moves[2]} call it with one sample at a time.",
                stacklevel=2,
            )
        return found

    def _checked_region(self, region: Any, like: Any) -> list[Any]:
        """Returns the region as an input of the graph, ones by default, none where it takes none.

        Args:
            region: what was given: for each sample, or for one.
            like: an input, as long as the batch.

        Raises:
            InstrumentError: it is of another shape, or not asked for.
        """
        wanted = self.manifest.region_input
        if wanted is None and region is None:
            return []
        if wanted is None:
            raise InstrumentError("this model takes no region: no probe has region='input'.")
        rows, sizes = tf.shape(like)[:1], [1 if n is None else n for n in wanted.shape[1:]]
        given = tf.ones(sizes) if region is None else tf.cast(region, tf.float32)
        if given.shape.rank == len(sizes):
            given = tf.broadcast_to(given, tf.concat([rows, tf.shape(given)], 0))
        if not tf.TensorShape(wanted.shape).is_compatible_with(given.shape):
            shown = format_shape(wanted.shape)
            raise InstrumentError(f"region takes arrays of shape {shown}, got {list(given.shape)}.")
        return [given]

    def _checked_groups(self, groups: Any) -> list[Any]:
        """Returns the groups as an input of the graph, none where it takes none.

        Raises:
            InstrumentError: they are missing, of another shape, or not asked for.
        """
        wanted = self.manifest.groups_input
        if wanted is None and groups is None:
            return []
        if wanted is None:
            raise InstrumentError("this model takes no groups: no probe has groups='input'.")
        sizes = format_shape(wanted.shape)
        if groups is None:
            raise InstrumentError(
                f"this model takes groups= with each call: whole numbers {sizes}, the group of "
                "each position, such as probegen.runtime.superpixels makes."
            )
        given = tf.cast(groups, tf.int32)
        if not tf.TensorShape(wanted.shape).is_compatible_with(given.shape):
            raise InstrumentError(f"groups takes arrays of shape {sizes}, got {list(given.shape)}.")
        return [given]

    def _check_request(self, request: Any) -> None:
        """Refuses a target that no class has, where its value is known by now."""
        classes = self.manifest.target_classes
        if request is None or classes is None:
            return
        wrong = [int(t) for t in request.reshape(-1) if not -1 <= t < classes]
        if wrong:
            raise InstrumentError(
                f"target {wrong[0]} is out of range: legal are 0 to {classes - 1}, or -1 for each "
                "sample's argmax."
            )

    def explain_flat(self, *flat: Any) -> dict[str, Any]:
        """Returns all outputs from the flat inputs, then target, region and groups where asked.

        Must run inside a `tf.function`.
        """
        count = len(self.keras_model.input_names)
        names = request_specs(self.manifest, self.keras_model.batch)
        asked = dict(zip(names, flat[count:], strict=True))
        return explain(
            self.keras_model,
            self.plan,
            flat[:count],
            asked.get(TARGET_INPUT),
            groups=asked.get(GROUPS_INPUT),
            region=asked.get(REGION_INPUT),
        )

    def compute_output_spec(
        self, inputs: Any, target: Any = None, groups: Any = None, region: Any = None
    ) -> dict[str, Any]:
        """Returns symbolic outputs, so that the model can be called on `keras.Input`s."""
        del inputs, target, groups, region
        return {
            o.name: keras.KerasTensor(o.shape, dtype=o.dtype, name=o.name.replace("/", "_"))
            for o in self.manifest.outputs
        }

    def fit(self, *_: Any, **__: Any) -> Any:
        """Refuses: an instrumented model is for inference.

        Raises:
            InstrumentError: always; says to train the source.
        """
        raise InstrumentError(
            "an instrumented model is for inference; train `probed.source` (the weights are "
            "shared), or train the model first and instrument it then."
        )

    def get_config(self) -> dict[str, Any]:
        """Returns what `.keras` files hold.

        Raises:
            SpecError: a target is a callable, which has no text form.
            InstrumentError: a method replaces products, which exists in ONNX artefacts alone.
        """
        refuse_tables(self.plan)
        for group in self.plan.groups:
            if group.target.function is not None:
                raise SpecError(
                    f"the target {group.target.spec.name} is a callable, which a .keras file "
                    "cannot hold; use a class index or a tuple, or export to ONNX or SavedModel."
                )
        return {
            "source": keras.saving.serialize_keras_object(self.source),
            "inputs": [
                {"shape": list(s.shape), "dtype": s.dtype.name}
                for s in self.keras_model.input_specs
            ],
            "structure": self.keras_model.structure,
            "arguments": list(self.keras_model.arguments),
            "manifest": self.manifest.to_json(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> ProbedModel:
        """Rebuilds what `get_config` described; weights are loaded by Keras afterwards."""
        model = keras.saving.deserialize_keras_object(
            config["source"], custom_objects=custom_objects
        )
        specs = [keras.InputSpec(**entry) for entry in config["inputs"]]
        nest = keras.tree.map_structure(lambda i: specs[i], config["structure"])
        arguments = config.get("arguments")
        if arguments:
            nest = dict(zip(arguments, nest, strict=True))
        return instrument_as(as_keras_model(model, nest), Manifest.from_json(config["manifest"]))
