"""Reads the explanation metadata of Vertex AI as probes: `pg.from_vertex`.

What the service was told in `explanation_metadata.json` (an `ExplanationMetadata`) and in its
parameters (`ExplanationParameters`), or in both as one `ExplanationSpec`, becomes a probe with the
same definition. What has no counterpart here is refused by name; what the service decides by
itself, or what only says how pictures are drawn, is told in `notes`.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from probegen.artefact.rows import without_batch
from probegen.errors import SpecError, nearest
from probegen.methods.base import Probe
from probegen.methods.integrated_gradients import IntegratedGradients
from probegen.methods.kernel_shap import KernelSHAP
from probegen.methods.targets import Target
from probegen.plan.model_view import ModelView
from probegen.sources import open_source
from probegen.vertex_messages import (
    ExplanationMetadata,
    ExplanationParameters,
    InputMetadata,
    OutputMetadata,
    PathIntegral,
    content,
    metadata_of,
    parameters_of,
)

#: Encodings of numbers that are features by themselves, and of ids that look a vector each up.
_FEATURES = ("ENCODING_UNSPECIFIED", "IDENTITY", "BAG_OF_FEATURES", "INDICATOR")
_TOKENS = "CONCAT_EMBEDDING"


@dataclasses.dataclass(frozen=True)
class FromVertex:
    """What `pg.compile` takes: `pg.compile(model, found.probes, path, **found.options)`.

    Attributes:
        probes: the one probe that the metadata ask for.
        options: names of classes and features, where the metadata have some.
        notes: a line for each thing that the service does otherwise, or decides by itself.
    """

    probes: tuple[Probe, ...]
    options: Mapping[str, Any]
    notes: tuple[str, ...]


def from_vertex(
    metadata: str | os.PathLike[str] | Mapping[str, Any],
    model: Any,
    parameters: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    *,
    inputs: Any = None,
) -> FromVertex:
    """Returns probes that compute what Vertex AI was configured to explain.

    `integratedGradientsAttribution` becomes `pg.IntegratedGradients`, `sampledShapleyAttribution`
    becomes `pg.KernelSHAP`, whose values are the same Shapley values, exact where there are few
    features. Both explain the output tensor that is named, probabilities where it is one of
    probabilities, and give `approximationError` as the output `completeness/...`.

    Args:
        metadata: an `explanation_metadata.json`, or its content; an `ExplanationSpec` with
            `metadata` and `parameters` will do.
        model: what will be compiled: its inputs and outputs are looked up.
        parameters: the `ExplanationParameters`, a file or its content, where they are not in
            `metadata`.
        inputs: as for `pg.compile`.

    Raises:
        SpecError: a file is damaged, asks for what there is not here (XRAI, examples, SmoothGrad
            of an absolute noise, groups of inputs, sparse tensors), or names no tensor of the
            model; says which field.
    """
    told, asked = content(metadata), None if parameters is None else content(parameters)
    if "metadata" in told:
        asked = asked or told.get("parameters")
        told = told["metadata"]
    if asked is None:
        raise SpecError(
            "the parameters of the explanation are missing: pass parameters= "
            "(--vertex-parameters), such as "
            '{"integratedGradientsAttribution": {"stepCount": 50}}; the metadata alone name no '
            "method."
        )
    wanted = metadata_of(told), parameters_of(asked)
    return _Reader(open_source(model, inputs).view, *wanted).read()


class _Reader:
    """Metadata and parameters, with the model that they are for."""

    def __init__(
        self, view: ModelView, metadata: ExplanationMetadata, wanted: ExplanationParameters
    ) -> None:
        self._view, self._metadata, self._wanted = view, metadata, wanted
        self._notes: list[str] = []
        self._names: dict[str, str] = {}

    def read(self) -> FromVertex:
        """Returns what `from_vertex` does."""
        self._refuse_methods()
        if not self._metadata.inputs or len(self._metadata.outputs) != 1:
            raise SpecError(
                f"the explanation metadata name {len(self._metadata.inputs)} inputs and "
                f"{len(self._metadata.outputs)} outputs; there has to be an input, and one output."
            )
        (key, output), known = next(iter(self._metadata.outputs.items())), self._view.output_names
        explained = self._tensor(
            f"outputs[{key!r}]", "output", output.output_tensor_name, key, known
        )
        for name, spec in self._metadata.inputs.items():
            self._refuse_input(f"inputs[{name!r}]", spec)
            place = f"inputs[{name!r}]"
            found = self._tensor(
                place, "input", spec.input_tensor_name, name, self._view.input_names
            )
            if found in self._names.values():
                raise SpecError(f"{place} and another of the inputs are both {found!r}.")
            self._names[name] = found
        common: dict[str, Any] = {
            "target": self._target(),
            "output": explained if len(known) > 1 else None,
            "logits": False,
            "completeness": True,
            "wrt": self._wrt(),
        }
        path, shapley = (
            self._wanted.integrated_gradients_attribution,
            self._wanted.sampled_shapley_attribution,
        )
        if path is not None:
            probe: Probe = self._integrated_gradients(path, common)
        else:
            assert shapley is not None
            probe = self._shapley(common)
        return FromVertex((probe,), self._options(output), tuple(self._notes))

    # -- what is refused -------------------------------------------------------------------

    def _refuse_methods(self) -> None:
        """Refuses methods that there are not here.

        Raises:
            SpecError: one is asked for, or none.
        """
        wanted = self._wanted
        if wanted.xrai_attribution is not None:
            raise SpecError(
                "xraiAttribution: there is no XRAI here. Use integratedGradientsAttribution, or "
                "compile with pg.FeatureAblation(groups='input') or pg.KernelSHAP(groups='input'), "
                "which explain regions of a picture (runtime.superpixels)."
            )
        if wanted.examples is not None:
            raise SpecError(
                "examples: explanations by similar examples are a search in a data set and no part "
                "of a model; take pg.Activations of a late layer and search in these."
            )
        methods = (wanted.integrated_gradients_attribution, wanted.sampled_shapley_attribution)
        if sum(method is not None for method in methods) != 1:
            raise SpecError(
                "the explanation parameters take one of integratedGradientsAttribution and "
                "sampledShapleyAttribution."
            )
        path = wanted.integrated_gradients_attribution
        if path is not None and path.smooth_grad_config is not None:
            raise SpecError(
                "integratedGradientsAttribution.smoothGradConfig: there noise of an absolute size "
                "is added to each point of the path, which nothing here does. Leave it out; or "
                "compile with pg.SmoothGrad(of_method=pg.IntegratedGradients(...)), whose noise is "
                "a share of the sample's range and is added to the sample."
            )

    def _refuse_input(self, place: str, spec: InputMetadata) -> None:
        """Refuses what an input asks for that there is not here.

        Raises:
            SpecError: it asks for such a thing.
        """
        if spec.group_name:
            raise SpecError(
                f"{place}.groupName: inputs that count as one feature have no counterpart; leave "
                "it out and add up what comes out for them."
            )
        if spec.indices_tensor_name or spec.dense_shape_tensor_name:
            raise SpecError(
                f"{place}.indicesTensorName, denseShapeTensorName: sparse tensors have no "
                "counterpart; feed the input as a dense one."
            )
        if spec.encoding not in (*_FEATURES, _TOKENS):
            raise SpecError(
                f"{place}.encoding: {spec.encoding!r} has no counterpart; there are "
                f"{', '.join((*_FEATURES[1:], _TOKENS))}.{nearest(spec.encoding, _FEATURES)}"
            )
        if spec.modality not in ("", "numeric", "image"):
            raise SpecError(f"{place}.modality: {spec.modality!r} is not known; numeric or image.")
        if spec.visualization is not None:
            self._note(
                f"{place}.visualization is left out: it says how the service draws pictures. "
                "The runtime draws attributions with their signs, .plot() and .to_html()."
            )
        if spec.feature_value_domain is not None:
            self._note(
                f"{place}.featureValueDomain is left out: it scales pictures and chosen baselines, "
                "and attributions do not depend on it."
            )

    # -- tensors ---------------------------------------------------------------------------

    def _tensor(self, place: str, role: str, tensor: str, key: str, known: Sequence[str]) -> str:
        """Returns the input or output of the model that a name of a TensorFlow graph means.

        Raises:
            SpecError: it may be several, or none.
        """
        plain = tensor.partition(":")[0]
        names = dict.fromkeys((tensor, plain, plain.removeprefix("serving_default_"), key))
        for name in names:
            if name in known:
                return name
        ends = [name for name in known if plain and plain.split("/")[-1] == name.split("/")[-1]]
        if len(ends) == 1:
            return ends[0]
        entries = self._metadata.inputs if role == "input" else self._metadata.outputs
        if len(known) == 1 and len(entries) == 1:
            self._note(f"{place}: {tensor or key!r} is taken for {known[0]!r}, the only {role}.")
            return known[0]
        raise SpecError(
            f"{place}.{role}TensorName: the model has no {role} {tensor or key!r}; it has "
            f"{', '.join(map(repr, known))}.{nearest(plain or key, known)}"
        )

    def _wrt(self) -> Any:
        """Returns what is explained: all inputs, or some, while the others stay."""
        own = [n for n in self._view.input_names if n not in self._view.carried]
        named = [name for name in own if name in self._names.values()]
        return "input" if named == own else named

    # -- the two methods -------------------------------------------------------------------

    def _integrated_gradients(self, path: PathIntegral, common: Mapping[str, Any]) -> Probe:
        blur = path.blur_baseline_config
        baseline: Any
        if blur is not None and blur.max_blur_sigma > 0:
            given = [n for n, spec in self._metadata.inputs.items() if _baselines(spec)]
            if given:
                raise SpecError(
                    f"blurBaselineConfig and inputs[{given[0]!r}].inputBaselines both say where "
                    "the path starts; leave one of them out."
                )
            baseline = f"blur:{blur.max_blur_sigma:g}"
        else:
            baseline = self._baseline()
        tokens = any(not self._facts(name).is_float for name in self._names)
        if tokens:
            self._note(
                "ids have no gradient: what they look up is explained, one number a token "
                "(encodedTensorName is not looked up by its name)."
            )
        fields = {**common, "per_token": "dot" if tokens else None}
        return IntegratedGradients(steps=path.step_count, baseline=baseline, **fields)

    def _shapley(self, common: Mapping[str, Any]) -> Probe:
        if len(self._names) > 1:
            raise SpecError(
                "sampledShapleyAttribution: the service hides features of several inputs together, "
                "and pg.KernelSHAP explains each input while the others stay. Use "
                "integratedGradientsAttribution, or join the inputs into one vector."
            )
        if not self._facts(next(iter(self._names))).is_float:
            raise SpecError(
                "sampledShapleyAttribution: the service puts other ids in the place of ids, and "
                "pg.KernelSHAP hides what they look up. Use integratedGradientsAttribution, or "
                "compile with pg.KernelSHAP()."
            )
        self._note(
            "sampledShapleyAttribution.pathCount is left out: Shapley values are exact where all "
            "coalitions fit (11 features), else 2 n + 2048 coalitions of n features are drawn."
        )
        return KernelSHAP(background=self._baseline(), **common)

    def _baseline(self) -> Any:
        """Returns the baseline of each input, or the one of the only input."""
        specs = self._metadata.inputs
        count = max(len(_baselines(spec)) for spec in specs.values())
        found = {self._names[n]: self._baseline_of(n, spec, count) for n, spec in specs.items()}
        return next(iter(found.values())) if len(found) == 1 else found

    def _baseline_of(self, name: str, spec: InputMetadata, count: int) -> Any:
        """Returns one baseline: a number, or an array, or several.

        Raises:
            SpecError: it is no array of a sample, or there are not as many as of other inputs.
        """
        given = _baselines(spec)
        place = f"inputs[{name!r}].inputBaselines"
        if not given:
            self._note(f"{place} is missing: 0 is taken, where the service chooses by itself.")
            return 0.0
        if len(given) not in (1, count):
            raise SpecError(f"{place} has {len(given)} baselines, and another input {count}.")
        rank = len(without_batch(self._facts(name).shape or (), self._facts(name).axes))
        arrays = [self._array(place, value, rank) for value in given]
        if count == 1 and arrays[0].size == 1:
            return float(arrays[0].reshape(()))
        if len(arrays) == 1 and count == 1:
            return arrays[0]
        wide = np.broadcast_shapes(*(a.shape for a in arrays))
        several = [np.broadcast_to(a, wide) for a in arrays]
        return np.stack(several * (count // len(several)))

    @staticmethod
    def _array(place: str, value: Any, rank: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Returns a baseline with the axes of a sample; a number holds for all elements."""
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError) as error:
            raise SpecError(f"{place} holds something that is no array of numbers.") from error
        if array.ndim == rank + 1 and array.shape[0] == 1:
            array = array[0]
        if array.ndim == 0:
            array = array.reshape((1,) * rank)
        if array.ndim != rank or not np.isfinite(array).all():
            raise SpecError(
                f"{place} has an array of the shape {array.shape}; expected finite numbers, one or "
                f"with the {rank} axes of a sample."
            )
        return array

    # -- the rest --------------------------------------------------------------------------

    def _target(self) -> Target:
        """Returns what is explained of the output.

        Raises:
            SpecError: it has no counterpart.
        """
        top, indices = self._wanted.top_k, self._wanted.output_indices
        if indices:
            flat = [i[0] if isinstance(i, list) and len(i) == 1 else i for i in indices]
            if not all(type(i) is int and i >= 0 for i in flat):
                raise SpecError(
                    f"outputIndices: {indices!r} has no counterpart; classes of an output of one "
                    "axis have one, such as [1, 4]."
                )
            return [int(i) for i in flat]
        if top in (None, 0, 1):
            return "argmax"
        if top == -1:
            return "all"
        if top is not None and top < -1:
            raise SpecError(f"topK: {top} is no number of classes; it is -1 (all), or 1 or more.")
        return f"top:{top}"

    def _options(self, output: OutputMetadata) -> dict[str, Any]:
        """Returns names of classes and features."""
        options: dict[str, Any] = {}
        names = output.index_display_name_mapping
        while isinstance(names, list) and len(names) == 1 and isinstance(names[0], list):
            names = names[0]
        if isinstance(names, list) and names and all(isinstance(n, str) for n in names):
            options["class_names"] = names
        elif names is not None:
            self._note("indexDisplayNameMapping is left out: it is no list of names of classes.")
        if output.display_name_mapping_key:
            self._note("displayNameMappingKey is left out: no output names its own classes here.")
        features = {
            self._names[name]: list(spec.index_feature_mapping)
            for name, spec in self._metadata.inputs.items()
            if spec.index_feature_mapping and self._facts(name).is_float
        }
        if features:
            options["feature_names"] = features
        return options

    def _facts(self, name: str) -> Any:
        return self._view.input(list(self._view.input_names).index(self._names[name]))

    def _note(self, line: str) -> None:
        if line not in self._notes:
            self._notes.append(line)


def _baselines(spec: InputMetadata) -> tuple[Any, ...]:
    """Returns the baselines of what is explained: of what ids look up where there are some."""
    return spec.encoded_baselines or spec.input_baselines
