"""The decode table that travels with every artefact: what each output means.

The same JSON sits in ONNX `metadata_props["probegen.manifest"]`, in a SavedModel's
`assets.extra/probegen.json` and in the config of an instrumented `.keras` file. It is plain
data; reading it executes nothing and needs neither TensorFlow nor onnx.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

from probegen.errors import ManifestError, did_you_mean

SCHEMA = 1
ONNX_METADATA_KEY = "probegen.manifest"
SAVEDMODEL_ASSET = "assets.extra/probegen.json"

TARGET_INPUT = "target"
GATE_INPUT = "explain"

#: Forms of the gate: a required input, or an initializer that is an input as well.
GATE_REQUIRED: Literal["required"] = "required"
GATE_OPTIONAL: Literal["optional"] = "optional"
Gate = Literal[False, "required", "optional"]

PREDICTION = "prediction"
ACTIVATION = "activation"
ATTENTION = "attention"
INPUT_GRADIENT = "input_gradient"
SALIENCY = "saliency"
GRAD_CAM = "grad_cam"
INTEGRATED_GRADIENTS = "integrated_gradients"

#: Outputs that are computed with the backward pass.
GRADIENT_KINDS = frozenset({INPUT_GRADIENT, SALIENCY, GRAD_CAM, INTEGRATED_GRADIENTS})
KINDS = frozenset({PREDICTION, ACTIVATION, ATTENTION}) | GRADIENT_KINDS


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input of the artefact that comes from the model.

    Attributes:
        name: the model's own input name.
        dtype: numpy name of the element type, for example `"float32"`.
        shape: sizes with the batch axis first; `None` where any size is accepted.
        axes: a name for each dimension, for example `("batch", "height", "width", "channel")`.
        vocabulary: number of legal values of an integer input that goes into an embedding.
        integer: True where a floating input holds whole numbers (token ids given as floats).
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    axes: tuple[str, ...]
    vocabulary: int | None = None
    integer: bool = False


@dataclasses.dataclass(frozen=True)
class TargetSpec:
    """The scalar a gradient was taken of.

    Attributes:
        mode: `"argmax"`, `"index"`, `"input"` (chosen a request) or `"callable"`.
        index: for mode `"index"`, one entry for each non-batch axis of the output, `None`
            meaning summed over; a class index of a `[batch, classes]` output is `(3,)`.
        output: name of the model output that was differentiated; `None` for a callable.
        logits: True where the pre-activation of a final softmax or sigmoid was taken.
        classes: size of the last axis of that output, the bound of a request's target.
        name: for mode `"callable"`, the function's name.
    """

    mode: str
    index: tuple[int | None, ...] | None = None
    output: str | None = None
    logits: bool = False
    classes: int | None = None
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class OutputSpec:
    """One output of the artefact.

    Attributes:
        name: the output's name in the artefact.
        kind: one of `KINDS`.
        dtype: numpy name of the element type.
        shape: sizes with the batch axis first; `None` where it depends on the input.
        axes: a name for each dimension.
        layer: path of the probed layer; for a gradient at an embedding, that embedding.
        call: index of the layer's call that was probed.
        input: for gradients with respect to a model input, that input's name.
        target: for gradients, what was differentiated.
        method: one line that says how the number is defined, with its source.
        detail: further facts as plain JSON values (reduction, channels kept, steps...).
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int | None, ...]
    axes: tuple[str, ...]
    layer: str | None = None
    call: int = 0
    input: str | None = None
    target: TargetSpec | None = None
    method: str = ""
    detail: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What an artefact holds and how to read it.

    Attributes:
        inputs: the model's inputs, in the artefact's order.
        outputs: predictions first, then the probes in the order they were asked for.
        model: name and class of the source model.
        producer: versions of what made the artefact.
        target_input: True where the artefact has the int32 `[batch]` input `target`.
        gate: what the scalar bool input `explain` is: `"required"`, `"optional"` (an initializer
            as well, a default that a request may override), or False where there is none.
        class_names: names along the class axis of the prediction, where known.
        probes: the probes as asked for, resolved, in the JSON form of `probegen.spec`.
        points: names of all probe points of the source model, in the order of the calls.
        certificate: what `verify` measured when the artefact was made, or `None`.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[OutputSpec, ...]
    model: Mapping[str, str] = dataclasses.field(default_factory=dict)
    producer: Mapping[str, str] = dataclasses.field(default_factory=dict)
    target_input: bool = False
    gate: Gate = False
    class_names: tuple[str, ...] | None = None
    probes: tuple[Mapping[str, Any], ...] = ()
    points: tuple[str, ...] = ()
    certificate: Mapping[str, Any] | None = None

    @property
    def predictions(self) -> tuple[OutputSpec, ...]:
        """The outputs of the source model, in its order."""
        return tuple(o for o in self.outputs if o.kind == PREDICTION)

    @property
    def explanations(self) -> tuple[OutputSpec, ...]:
        """Everything that is not a prediction, in the order it was asked for."""
        return tuple(o for o in self.outputs if o.kind != PREDICTION)

    @property
    def target_classes(self) -> int | None:
        """One more than the largest index that a request's `target` may be, where known."""
        targets = [o.target for o in self.explanations if o.target and o.target.mode == "input"]
        return min((t.classes for t in targets if t.classes), default=None)

    def output(self, name: str) -> OutputSpec:
        """Returns the output called `name`.

        Raises:
            KeyError: there is none; the message names the nearest.
        """
        for output in self.outputs:
            if output.name == name:
                return output
        known = [o.name for o in self.outputs]
        raise KeyError(f"no output named {name!r}.{did_you_mean(name, known)}")

    def replace(self, **changes: Any) -> Manifest:
        """Returns a copy with the given fields changed."""
        return dataclasses.replace(self, **changes)

    def with_batch(self, batch: int | None) -> Manifest:
        """Returns a copy whose inputs and outputs have this batch size; None leaves it open."""
        return dataclasses.replace(
            self,
            inputs=tuple(dataclasses.replace(i, shape=(batch, *i.shape[1:])) for i in self.inputs),
            outputs=tuple(
                dataclasses.replace(o, shape=(batch, *o.shape[1:])) for o in self.outputs
            ),
        )

    def to_json(self, indent: int | None = None) -> str:
        """Returns the manifest as JSON text with its schema version first."""
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, indent=indent)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Reads what `to_json` wrote.

        Raises:
            ManifestError: the text is no JSON, no manifest, or of a newer schema.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ManifestError(f"the probegen manifest is not valid JSON: {error}") from error
        if not isinstance(data, dict) or not isinstance(data.get("schema"), int):
            raise ManifestError("the probegen manifest has no integer 'schema' field.")
        schema = data.pop("schema")
        if schema > SCHEMA:
            raise ManifestError(
                f"the manifest has schema {schema}, this probegen reads up to schema {SCHEMA}. "
                "Install a newer probegen to load this artefact."
            )
        try:
            return _read(data)
        except (KeyError, TypeError, AttributeError) as error:
            raise ManifestError(f"the probegen manifest is damaged: {error!r}") from error


def _read(data: dict[str, Any]) -> Manifest:
    inputs = tuple(InputSpec(**_tuples(i, "shape", "axes")) for i in data.pop("inputs"))
    outputs = tuple(_read_output(o) for o in data.pop("outputs"))
    for output in outputs:
        if output.kind not in KINDS:
            raise ManifestError(f"output {output.name!r} has the unknown kind {output.kind!r}.")
    if data.get("gate") is True:  # written while every gate was an initializer
        data["gate"] = GATE_OPTIONAL
    if data.get("gate", False) is not False and data["gate"] not in (GATE_REQUIRED, GATE_OPTIONAL):
        raise ManifestError(
            f"the manifest's 'gate' is {data['gate']!r}; it is false, 'required' or 'optional'."
        )
    return Manifest(
        inputs=inputs, outputs=outputs, **_tuples(data, "class_names", "probes", "points")
    )


def _read_output(data: dict[str, Any]) -> OutputSpec:
    data = _tuples(data, "shape", "axes")
    if data.get("target") is not None:
        data["target"] = TargetSpec(**_tuples(data["target"], "index"))
    return OutputSpec(**data)


def _tuples(data: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """Returns a copy of `data` in which the JSON lists under `keys` are tuples again."""
    return {
        key: tuple(value) if key in keys and value is not None else value
        for key, value in data.items()
    }
