"""The probes: what a user asks for, validated when it is written down.

A probe is a frozen dataclass. `to_json`/`from_json` and `from_toml` turn lists of probes into
text and back; layer objects, predicates and callable targets have no text form and are
refused there by name.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import math
import operator
import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from probegen.artefact.manifest import (
    ACTIVATION,
    ATTENTION,
    GRAD_CAM,
    INPUT_GRADIENT,
    INTEGRATED_GRADIENTS,
    SALIENCY,
)
from probegen.errors import SpecError, did_you_mean

#: A glob, `"re:..."`, `"type:..."`, `"role:..."`, an index, a layer, a predicate, or a list.
Selector = Any
#: `"argmax"`, `"input"`, a class index, a tuple with one entry an axis, or a callable.
Target = str | int | tuple[int | None, ...] | Callable[[Any], Any]

REDUCTIONS = ("mean", "max", "norm")
PAYLOADS = ("float16", "float32", "float64")
TARGET_MODES = ("argmax", "input")


@dataclasses.dataclass(frozen=True)
class Probe:
    """Base of all probes; `kind` is the first part of the names of its outputs."""

    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        name = getattr(self, "name", None)
        if name is not None and (not isinstance(name, str) or not name.strip()):
            raise SpecError(f"{type(self).__name__}(name=...) takes a non-empty string or None.")


@dataclasses.dataclass(frozen=True)
class Activations(Probe):
    """Outputs of layers, whole or reduced.

    Attributes:
        select: the layers, see the selector grammar in the README.
        reduce: None, or `"mean"`, `"max"` or `"norm"` (Euclidean) over `axes`.
        name: replaces the output name `"activation/<path>"`; several matches get `/<path>`
            appended.
        axes: the axes to reduce, counted with the batch axis as 0 (which cannot be reduced),
            or `"spatial"` (all positions: neither batch nor channels) or `"channel"` (the
            default). Where the channels stand is told from the layers, `data_format` above all.
        channels: keep only these channels (before reducing).
        dtype: element type of the payload, for instance `"float16"` to halve it.
    """

    kind: ClassVar[str] = ACTIVATION
    select: Selector
    reduce: str | None = None
    name: str | None = None
    axes: str | tuple[int, ...] | None = dataclasses.field(default=None, kw_only=True)
    channels: tuple[int, ...] | None = dataclasses.field(default=None, kw_only=True)
    dtype: str | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("reduce", self.reduce, REDUCTIONS)
        _check_choice("dtype", self.dtype, PAYLOADS)
        if self.axes is not None and self.reduce is None:
            raise SpecError("axes= says what reduce= reduces; give reduce='mean' too.")
        if isinstance(self.axes, str):
            _check_choice("axes", self.axes, ("spatial", "channel"))
        else:
            _set_ints(self, "axes")
        _set_ints(self, "channels")
        if isinstance(self.axes, tuple) and 0 in self.axes:
            raise SpecError("axes= holds 0, the batch axis, which cannot be reduced.")


@dataclasses.dataclass(frozen=True)
class Attention(Probe):
    """Attention weights after the softmax, `[batch, head, query, key]`.

    Taken from every matching MultiHeadAttention, GroupedQueryAttention, Attention or
    AdditiveAttention (the last two have no head axis), and from any other layer in which a
    softmax weighs values: its result is multiplied with something that depends on the input and
    summed over the axis along which it adds up to one. That axis is called `key`. Weights
    `[batch, time, 1]` with the softmax over time have the axes `batch, key, query`. What a layer
    merely returns (states, a second head) is no attention; `pg.register_attention` names weights
    that are applied in another way.

    Attributes:
        select: the layers; only those that apply attention weights are considered.
        name: replaces the output name `"attention/<path>"`.
        dtype: element type of the payload.
    """

    kind: ClassVar[str] = ATTENTION
    select: Selector = "*"
    name: str | None = None
    dtype: str | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("dtype", self.dtype, PAYLOADS)


@dataclasses.dataclass(frozen=True)
class GradientProbe(Probe):
    """What every probe that differentiates has in common; subclasses have a `target`.

    Probes of one kind that explain different outputs of a model are told apart by these: two
    `pg.Saliency` with `output="risk"` and `output="age"` are called `saliency/risk/<input>` and
    `saliency/age/<input>`, where one alone is `saliency/<input>`. Different targets of one output
    need `name=`.
    """

    output: str | int | None = dataclasses.field(default=None, kw_only=True)
    logits: bool = dataclasses.field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "target", _check_target(getattr(self, "target", None)))
        if not isinstance(self.logits, bool):
            raise SpecError(f"logits= takes True or False, got {self.logits!r}.")


@dataclasses.dataclass(frozen=True)
class InputGradient(GradientProbe):
    """The raw, signed gradient of the target (Baehrens et al. 2010, JMLR 11, eq. 1).

    Attributes:
        target: the scalar that is differentiated, a sample: `"argmax"` (the largest entry of
            the last axis), a class index, `"input"` (the artefact gets an int32 `[batch]`
            input `target`, -1 meaning argmax), a tuple with an index or None (sum) for each
            non-batch axis of the output, or a callable from the model's outputs (their
            pre-activations with `logits=True`) to one scalar a sample.
        wrt: `"input"` for the model's inputs, an input's name, or a selector of layers. What
            stands for an input of whole numbers is every first floating tensor that is made from
            its values: what its ids look up in embeddings or other tables, each call of them, or
            the cast of its numbers (an image of bytes). Masks, and positions counted along a
            mask, are not explained unless asked for by the input's name.
        name: replaces the output name, `"input_gradient/<input name or layer path>"`. An input
            that is looked up in several places has an output for each, called after the
            look-up's layer, with `#k` for its call k.
        output: which output of a model with several, by name or index.
        logits: differentiate the pre-activation where the model ends in softmax or sigmoid.
    """

    kind: ClassVar[str] = INPUT_GRADIENT
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class Saliency(GradientProbe):
    """The largest absolute gradient over the channels (Simonyan et al. 2013, sec. 3.1).

    `[batch, height, width]` for an image, `[batch, time]` for a sequence of vectors or of
    embedded tokens, `[batch, feature]` for plain vectors (which have no channels), wherever the
    channels stand. Arguments as for `InputGradient`.
    """

    kind: ClassVar[str] = SALIENCY
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class GradCAM(GradientProbe):
    """Gradient-weighted class activation map (Selvaraju et al. 2017, eqs. 1 and 2).

    Not up-sampled and not normalised: `[batch, ...positions of the layer]`, never negative. A
    film has `[batch, time, height, width]`; channels may stand first or last. A layer that is
    called several times gives one map a call, `grad_cam/<path>#<call>`.

    Attributes:
        layer: a selector of one convolutional layer, a list of several, or `"auto"`: the last
            layer whose output still has positions, on each of the ways that run to the target
            beside each other (the calls of a shared tower, the towers of several inputs).
        target, name, output, logits: as for `InputGradient`.
    """

    kind: ClassVar[str] = GRAD_CAM
    layer: Selector = "auto"
    target: Target = "argmax"
    name: str | None = None


@dataclasses.dataclass(frozen=True)
class IntegratedGradients(GradientProbe):
    """Integrated gradients along the straight line (Sundararajan et al. 2017, eqs. 1 and 3).

    The integral is the midpoint rule with `steps` points; what is missing to completeness
    shrinks with the square of `steps`.

    Attributes:
        steps: points on the line from the baseline to the input.
        baseline: the value of every element of the baseline.
        target, wrt, name, output, logits: as for `InputGradient`. All that stands for the inputs
            moves along one line together, so that the sum over all of it is the difference of
            the scores; layers that `wrt` selects each have a line of their own.
    """

    kind: ClassVar[str] = INTEGRATED_GRADIENTS
    steps: int = 32
    baseline: float = 0.0
    target: Target = "argmax"
    wrt: Selector = "input"
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise SpecError(f"steps= takes a whole number of at least 1, got {self.steps!r}.")
        if not isinstance(self.baseline, int | float) or not math.isfinite(self.baseline):
            raise SpecError(f"baseline= takes a finite number, got {self.baseline!r}.")


_CLASSES: dict[str, type[Probe]] = {
    "activations": Activations,
    "attention": Attention,
    "input_gradient": InputGradient,
    "saliency": Saliency,
    "grad_cam": GradCAM,
    "integrated_gradients": IntegratedGradients,
}
_PROBE_NAMES = {cls: name for name, cls in _CLASSES.items()}


def as_probes(probes: object) -> tuple[Probe, ...]:
    """Returns what a caller passed as `probes` (one probe, several or none) as a tuple.

    Raises:
        SpecError: something is no probe.
    """
    if isinstance(probes, Probe):
        return (probes,)
    if not isinstance(probes, Sequence) or isinstance(probes, str):
        raise SpecError(
            f"expected a probe or a list of probes such as [pg.Saliency()], got {probes!r}."
        )
    for probe in probes:
        if isinstance(probe, type) and issubclass(probe, Probe):
            raise SpecError(f"{probe.__name__} is a class; write pg.{probe.__name__}(...).")
        if not isinstance(probe, Probe):
            raise SpecError(f"{probe!r} is no probe; write for instance pg.Saliency().")
    return tuple(probes)


# -- text forms --------------------------------------------------------------------------------


def to_dict(probe: Probe) -> dict[str, Any]:
    """Returns the plain form of a probe, without what has its default value.

    Raises:
        SpecError: the probe holds a layer object, a predicate or a callable.
    """
    plain: dict[str, Any] = {"probe": _PROBE_NAMES[type(probe)]}
    for field in dataclasses.fields(probe):
        value = getattr(probe, field.name)
        if field.default is not dataclasses.MISSING and value == field.default:
            continue
        plain[field.name] = _plain(value, f"{type(probe).__name__}({field.name}=...)")
    return plain


def from_dict(data: Mapping[str, Any]) -> Probe:
    """Reads what `to_dict` wrote.

    Raises:
        SpecError: an unknown probe or field, named with the nearest known ones.
    """
    if not isinstance(data, Mapping):
        raise SpecError(f"a probe is a table such as {{probe = 'saliency'}}, got {data!r}.")
    fields = dict(data)
    kind = fields.pop("probe", None)
    if not isinstance(kind, str) or kind not in _CLASSES:
        raise SpecError(f"unknown probe {kind!r}.{did_you_mean(str(kind), _CLASSES)}")
    cls = _CLASSES[kind]
    known = [f.name for f in dataclasses.fields(cls)]
    for name in fields:
        if name not in known:
            raise SpecError(f"probe {kind!r} has no field {name!r}.{did_you_mean(name, known)}")
    if isinstance(fields.get("target"), list):
        # TOML has no null: "sum over this axis" is written "all" there.
        fields["target"] = tuple(None if i in (None, "all") else i for i in fields["target"])
    try:
        return cls(**fields)
    except TypeError as error:
        raise SpecError(f"probe {kind!r}: {error}") from error


def to_json(probes: Sequence[Probe], indent: int | None = None) -> str:
    """Returns probes as JSON text; see `to_dict` for what cannot be written."""
    return json.dumps({"probes": [to_dict(p) for p in as_probes(probes)]}, indent=indent)


def from_json(text: str) -> tuple[Probe, ...]:
    """Reads what `to_json` wrote.

    Raises:
        SpecError: the text is no JSON or holds no list of probes.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise SpecError(f"the spec is not valid JSON: {error}") from error
    return _read_list(data)


def from_toml(text: str) -> tuple[Probe, ...]:
    """Reads probes from TOML: one `[[probes]]` table each, with its class under `probe`.

    For example::

        [[probes]]
        probe = "grad_cam"
        layer = "conv5_block3_out"

    Raises:
        SpecError: the text is no TOML or holds no list of probes.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"the spec is not valid TOML: {error}") from error
    return _read_list(data)


def parse_target(text: str) -> Target:
    """Reads a target as typed on a command line: `argmax`, `input`, `3` or `(None, 3)`.

    Raises:
        SpecError: it is none of these.
    """
    if text in TARGET_MODES:
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = text
    return _check_target(value)


def _read_list(data: object) -> tuple[Probe, ...]:
    if not isinstance(data, Mapping) or not isinstance(data.get("probes"), list):
        raise SpecError("a spec holds a list named 'probes', in TOML as [[probes]] tables.")
    return as_probes([from_dict(entry) for entry in data["probes"]])


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list | tuple):
        return [_plain(v, where) for v in value]
    raise SpecError(
        f"{where} holds {value!r}, which has no text form; use a layer's path or a class index."
    )


# -- validation --------------------------------------------------------------------------------


def _check_choice(field: str, value: object, choices: Sequence[str]) -> None:
    if value is not None and value not in choices:
        shown = ", ".join(repr(c) for c in choices)
        raise SpecError(f"{field}= takes one of {shown}, got {value!r}.")


def _set_ints(probe: Probe, field: str) -> None:
    """Turns a sequence of whole numbers (or one) into a tuple, in place."""
    value = getattr(probe, field)
    if value is None:
        return
    items = (value,) if isinstance(value, int) else value
    try:
        numbers = tuple(operator.index(i) for i in items)
    except TypeError:
        raise SpecError(f"{field}= takes whole numbers, got {value!r}.") from None
    if not numbers:
        raise SpecError(f"{field}= is empty; leave it out to keep all.")
    object.__setattr__(probe, field, numbers)


def _check_target(target: object) -> Target:
    if isinstance(target, str):
        if target in TARGET_MODES:
            return target
    elif isinstance(target, tuple | list):
        if target and all(i is None or _is_int(i) for i in target):
            return tuple(None if i is None else operator.index(i) for i in target)
    elif _is_int(target):
        return operator.index(target)  # type: ignore[arg-type]
    elif callable(target):
        return target
    raise SpecError(
        "target= takes 'argmax', 'input', a class index, a tuple with an index or None for each "
        f"non-batch axis of the output, or a callable; got {target!r}."
    )


def _is_int(value: object) -> bool:
    if isinstance(value, bool):
        return False
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
