"""The messages that Vertex AI is configured with, as they are read from JSON.

Fields are those of the service's own messages of the same names. Keys may be written as its REST
interface writes them (`inputTensorName`) or as its Python library does (`input_tensor_name`).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from probegen.artefact import schema
from probegen.errors import SpecError

Kind = TypeVar("Kind")


@dataclasses.dataclass(frozen=True)
class FeatureValueDomain:
    """Range of a feature, and what it was normalised with."""

    min_value: float | None = None
    max_value: float | None = None
    original_mean: float | None = None
    original_stddev: float | None = None


@dataclasses.dataclass(frozen=True)
class InputMetadata:
    """What the service is told of an input; fields as in its own message of this name."""

    input_baselines: tuple[Any, ...] = ()
    input_tensor_name: str = ""
    encoding: str = "IDENTITY"
    modality: str = "numeric"
    feature_value_domain: FeatureValueDomain | None = None
    indices_tensor_name: str = ""
    dense_shape_tensor_name: str = ""
    index_feature_mapping: tuple[str, ...] = ()
    encoded_tensor_name: str = ""
    encoded_baselines: tuple[Any, ...] = ()
    visualization: Any = None
    group_name: str = ""


@dataclasses.dataclass(frozen=True)
class OutputMetadata:
    """What the service is told of the output; fields as in its own message of this name."""

    index_display_name_mapping: Any = None
    display_name_mapping_key: str = ""
    output_tensor_name: str = ""


@dataclasses.dataclass(frozen=True)
class ExplanationMetadata:
    """Inputs and outputs by the names that the service answers with."""

    inputs: Mapping[str, InputMetadata]
    outputs: Mapping[str, OutputMetadata]
    feature_attributions_schema_uri: str = ""
    latent_space_source: str = ""
    framework: str = ""


@dataclasses.dataclass(frozen=True)
class SampledShapley:
    """Shapley values by sampling."""

    path_count: int


@dataclasses.dataclass(frozen=True)
class BlurBaseline:
    """A path that starts from a blurred picture."""

    max_blur_sigma: float = 0.0


@dataclasses.dataclass(frozen=True)
class PathIntegral:
    """Integrated gradients."""

    step_count: int
    smooth_grad_config: Any = None
    blur_baseline_config: BlurBaseline | None = None


@dataclasses.dataclass(frozen=True)
class ExplanationParameters:
    """The method and what it explains; fields as in the service's own message of this name."""

    sampled_shapley_attribution: SampledShapley | None = None
    integrated_gradients_attribution: PathIntegral | None = None
    xrai_attribution: Any = None
    examples: Any = None
    top_k: int | None = None
    output_indices: Any = None


def content(given: str | os.PathLike[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Returns the content of a file, or what was given.

    Raises:
        SpecError: it is no JSON object.
    """
    name = "what was given" if isinstance(given, Mapping) else os.fspath(given)
    try:
        if isinstance(given, Mapping):
            text = json.dumps(given, default=np.ndarray.tolist)
        else:
            text = Path(given).read_text(encoding="utf-8")
        found = schema.parse(text)
    except OSError as error:
        raise SpecError(f"cannot read {name}: {error.strerror or error}.") from error
    except (UnicodeDecodeError, TypeError, ValueError) as error:
        raise SpecError(f"{name} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise SpecError(f"{name} holds no JSON object.")
    return found


def metadata_of(told: Mapping[str, Any]) -> ExplanationMetadata:
    """Returns explanation metadata as a message.

    Raises:
        SpecError: a field is unknown, or holds something else; says which.
    """
    return _parsed(ExplanationMetadata, _metadata_keys(told), "explanation metadata")


def parameters_of(told: Mapping[str, Any]) -> ExplanationParameters:
    """Returns explanation parameters as a message.

    Raises:
        SpecError: a field is unknown, or holds something else; says which.
    """
    return _parsed(ExplanationParameters, _keys(told, deep=True), "explanation parameters")


def _parsed(kind: type[Kind], value: Any, what: str) -> Kind:
    try:
        return schema.read(kind, value)
    except schema.SchemaError as error:
        said = str(error)
        raise SpecError(f"{what}: {said}{'' if said.endswith('?') else '.'}") from error


def _metadata_keys(told: Mapping[str, Any]) -> dict[str, Any]:
    """Returns metadata with names of fields as in Python; names of inputs and outputs stay."""
    found = _keys(told)
    for field in ("inputs", "outputs"):
        if isinstance(found.get(field), Mapping):
            found[field] = {
                name: _keys(entry, deep=True) if isinstance(entry, Mapping) else entry
                for name, entry in found[field].items()
            }
    return found


def _keys(entry: Mapping[str, Any], deep: bool = False) -> dict[str, Any]:
    """Returns an object with names of fields as in Python, `input_tensor_name`."""
    return {
        re.sub(r"(?<=[a-z])([A-Z])", lambda m: f"_{m[1].lower()}", name): (
            _keys(value, deep) if deep and isinstance(value, Mapping) else value
        )
        for name, value in entry.items()
    }
