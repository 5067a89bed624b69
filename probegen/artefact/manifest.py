"""The decode table that travels with every artefact: what each output means.

The same JSON sits in ONNX `metadata_props["probegen.manifest"]`, in a SavedModel's
`assets.extra/probegen.json` and in the config of an instrumented `.keras` file. It is plain
data; reading it executes nothing and needs neither TensorFlow nor onnx.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from probegen.artefact import schema
from probegen.artefact.attribution_reference import AttributionReference, wrong_reference
from probegen.artefact.features import Feature
from probegen.artefact.preprocessing import Preprocessing, wrong_preprocessing
from probegen.artefact.rows import BATCH
from probegen.artefact.texts import TextSpec
from probegen.errors import ManifestError, did_you_mean
from probegen.text import amount

SCHEMA = 4
ONNX_METADATA_KEY = "probegen.manifest"
SAVEDMODEL_ASSET = "assets.extra/probegen.json"

TARGET_INPUT = "target"
REGION_INPUT = "region"
GROUPS_INPUT = "groups"
GATE_INPUT = "explain"

#: Forms of the gate: a required input; an initializer that is an input as well; or no input, and a
#: second graph in a file of its own (see `explain_file`).
GATE_REQUIRED: Literal["required"] = "required"
GATE_OPTIONAL: Literal["optional"] = "optional"
GATE_SPLIT: Literal["split"] = "split"
Gate = Literal[False, "required", "optional", "split"]

PREDICTION = "prediction"

#: How an output is drawn: a runtime draws methods that it has never heard of by these words.
DRAWN_AS_PREDICTION = "prediction"
DRAWN_AS_ACTIVATION = "activation"
DRAWN_AS_ATTENTION = "attention"
#: An attribution: one number for each element (or position) of what is explained.
DRAWN_AS_MAP = "map"
#: What belongs to another output and is told beside it: the classes that it explains.
DRAWN_BESIDE = "beside"
DRAWN_AS = frozenset(
    {DRAWN_AS_PREDICTION, DRAWN_AS_ACTIVATION, DRAWN_AS_ATTENTION, DRAWN_AS_MAP, DRAWN_BESIDE}
)

#: What the sign of a number says: for or against the target; nothing, as there are none below
#: zero; or whatever it means to the layer that gives it.
SIGNED = "signed"
NEVER_NEGATIVE = "never negative"
ANY_SIGN = "any"
SIGNS = frozenset({SIGNED, NEVER_NEGATIVE, ANY_SIGN})

#: The unit of gradients: as large as the score over the input, where nothing saturates.
SCORE_PER_INPUT = "score per unit of input"
#: What stands before the unit of a number that is a square of such a one, or a mean of squares.
SQUARE_OF = "square of "
#: The unit of scores that are brought to 0 to 1 by their range, which may be small beside them.
SHARE_OF_SCORES = "share of the range of scores"

#: The key in `OutputSpec.detail` of what is the gradient of a score and nothing else, so that an
#: ascent may follow it.
GRADIENT_DETAIL = "gradient"
#: The key of what adds up to the score less that of a reference, so that parts can be stacked.
SUM_DETAIL = "sums_to_score"
#: Key in `detail` of what has one number a token: how the vector of each became one.
PER_TOKEN_DETAIL = "per_token"
#: Key in `detail` of such an output: what tells where padding is, "" where nothing is known.
PADDING_DETAIL = "padding"
#: The key of what a recurrent state has become, with the input that the next chunk starts from.
STATE_OF = "state_of"
#: What inputs and outputs for states are called, before the path of their layer.
STATE, NEXT_STATE = "state/", "next_state/"
#: Key in `detail` of what explains numbers that the model casts an input to, beside the input
#: itself or other casts: what they are called.
CAST_DETAIL = "cast"
#: Key in `detail` of what the steps of a recurrent layer make, over time: the path of that layer.
STEPS_OF_DETAIL = "steps_of"
#: Key in `detail` of a matrix that holds the identity besides what the method has added to it.
IDENTITY_DETAIL = "holds_identity"

#: Element types of inputs and outputs, by their names in numpy and TensorFlow.
DTYPES = frozenset(
    {"bool", "string", "bfloat16", "complex64", "complex128"}
    | {f"float{bits}" for bits in (16, 32, 64)}
    | {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
)
#: Floating element types, from fine to coarse.
PRECISIONS = ("float64", "float32", "float16", "bfloat16")
#: How a target was chosen; see `TargetSpec`.
MODES = frozenset({"argmax", "index", "input", "callable", "top", "all", "list", "contrast"})
#: Those that explain several classes at once, each by itself.
SEVERAL = frozenset({"top", "all", "list"})
#: The axis along which the results of several classes lie, right behind the batch.
CLASS = "class"
#: The axis along which the results of several steps of a sequence lie, likewise.
STEP = "step"
#: Kind of the output that says which classes those are, and the end of its name.
CLASSES = "classes"
#: Kind of the output that says of which keys the largest weights are, and the end of its name.
KEYS = "keys"
#: The axis along which several attention layers lie, right behind the batch.
LAYER = "layer"
#: Kind of the output that says what is missing to completeness, and the start of its name.
COMPLETENESS = "completeness"


@dataclasses.dataclass(frozen=True)
class Padding:
    """What says which positions of an input hold nothing.

    Attributes:
        input: the input that tells: the input itself, or a mask with its positions.
        values: the numbers there that mean padding. Where a position has several numbers (the
            features of a series), all of them have to be one of these.
    """

    input: str
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """One input of the artefact that comes from the model.

    Attributes:
        name: the model's own input name.
        dtype: numpy name of the element type, for example `"float32"`.
        shape: sizes with the batch axis first; `None` where any size is accepted.
        axes: a name for each dimension, for example `("batch", "height", "width", "channel")`.
        vocabulary: number of legal values of an input whose ids, all of them and as they are,
            look up a table: the smallest such table. None where values are calculated before the
            look-up, or only some columns are looked up.
        integer: True where a floating input holds whole numbers (token ids given as floats).
        padding: what says which positions hold nothing; None where the model does not tell.
        next_state: of an input that a recurrent layer starts from, the output that says where it
            ends, for the next chunk of a series; None for all others. Left out, it is zeros.
        longest: the most steps along its open axis (behind the batch), where the model has no
            positions for more; None where there may be any number, or that is not known.
        shortest: the fewest entries of each axis, where windows that are not padded need some; None
            for an axis that may have any number, and in all where each may.
        fewest_words: of an input of strings, how many words the longest text of a batch needs,
            where such windows are behind the layer that takes it apart; None where any will do.
        preprocessing: of a picture that the graph itself brings into the model's form, how; what
            stands above is of the picture as it arrives. None for all others.
        features: names and units of the features of a row or a series, where somebody named them.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    axes: tuple[str, ...]
    vocabulary: int | None = None
    integer: bool = False
    padding: Padding | None = None
    next_state: str | None = None
    longest: int | None = None
    shortest: tuple[int | None, ...] | None = None
    fewest_words: int | None = None
    preprocessing: Preprocessing | None = None
    features: tuple[Feature, ...] | None = None


@dataclasses.dataclass(frozen=True)
class TargetSpec:
    """The scalar a gradient was taken of.

    Attributes:
        mode: `"argmax"`, `"index"`, `"input"` (chosen a request), `"callable"`, `"contrast"`; or
            one of several classes at once, each by itself: `"top"` (the best), `"all"`, `"list"`.
            What is explained so has the axis `class` right behind the batch.
        index: for mode `"index"`, one entry for each non-batch axis of the output, `None`
            meaning summed over; a class index of a `[batch, classes]` output is `(3,)`.
        output: name of the model output that was differentiated; `None` for a callable.
        logits: True where the pre-activation of a final softmax or sigmoid was taken.
        classes: size of the last axis of that output, the bound of a request's target.
        name: for mode `"callable"`, the function's name.
        count: how many classes are explained at once; `None` for one, and where it is open.
        chosen: for mode `"list"` the classes; for `"contrast"` whose score counts and whose is
            taken away, each a class index, `"argmax"` or `"runner_up"`.
        layer: path of the layer whose output was differentiated in the place of the model's; its
            channels are then the classes, and each is summed over its positions before the best
            is told.
        call: which of the layer's calls.
        calls: how often the layer is called.
        region: True where the input `region` weighs the positions before they are summed up.
        step: which axis of the scores, the batch first, is one of steps that are explained each by
            itself: what explains them has the axis `step` right behind the batch. None for all
            positions together.
    """

    mode: str
    index: tuple[int | None, ...] | None = None
    output: str | None = None
    logits: bool = False
    classes: int | None = None
    name: str | None = None
    count: int | None = None
    chosen: tuple[int | str, ...] | None = None
    layer: str | None = None
    call: int = 0
    calls: int = 1
    region: bool = False
    step: int | None = None

    @property
    def layer_call(self) -> str | None:
        """The layer's path, with its call where there are several."""
        return _layer_call(self.layer, self.call, self.calls)

    @property
    def several(self) -> bool:
        """True where several classes or steps are explained at once, along an axis of their own."""
        return self.mode in SEVERAL or self.step is not None

    @property
    def axis(self) -> str:
        """What that axis is called."""
        return CLASS if self.step is None else STEP


@dataclasses.dataclass(frozen=True)
class OutputSpec:
    """One output of the artefact.

    Attributes:
        name: the output's name in the artefact.
        kind: what made it, the first part of the names of such outputs: `"prediction"`,
            `"activation"`, `"saliency"`... A reader need not know it.
        dtype: numpy name of the element type.
        shape: sizes with the batch axis first; `None` where it depends on the input.
        axes: a name for each dimension.
        layer: path of the probed layer; for a gradient at a look-up, the layer that does it.
        call: index of the layer's call that was probed.
        calls: how often the layer is called.
        input: for gradients with respect to a model input, that input's name.
        target: for gradients, what was differentiated.
        method: one line that says how the number is defined, with its source.
        detail: further facts as plain JSON values (reduction, channels kept, steps...).
        title: what people call the kind, for example `"Grad-CAM"`.
        unit: what one number means, for example `"score per unit of input"`; may be empty.
        sign: one of `SIGNS`.
        paper: where the method was published; may be empty.
        draw: one of `DRAWN_AS`.

    What is left out of the last five is filled in from the kind, as in manifests of schema 1,
    which did not have them.
    """

    name: str
    kind: str
    dtype: str
    shape: tuple[int | None, ...]
    axes: tuple[str, ...]
    layer: str | None = None
    call: int = 0
    calls: int = 1
    input: str | None = None
    target: TargetSpec | None = None
    method: str = ""
    detail: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    title: str = ""
    unit: str = ""
    sign: str = ""
    paper: str = ""
    draw: str = ""

    def __post_init__(self) -> None:
        usual = KINDS_OF_SCHEMA_1.get(self.kind) or _Usual(self.kind.replace("_", " ").capitalize())
        for name, value in dataclasses.asdict(usual).items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)

    @property
    def layer_call(self) -> str | None:
        """The layer's path, with its call where there are several."""
        return _layer_call(self.layer, self.call, self.calls)

    def companion(self, name: str, kind: str, **facts: Any) -> OutputSpec:
        """Returns an output that comes out beside this one and says something of it.

        Args:
            name: its name.
            kind: what makes it.
            facts: what else it is; the layer, the input and the target are those of this one.
        """
        of: dict[str, Any] = {
            field: getattr(self, field) for field in ("layer", "call", "calls", "input", "target")
        }
        beside = {"draw": DRAWN_BESIDE, "detail": {"of": self.name}}
        return OutputSpec(name=name, kind=kind, **{**of, **beside, **facts})

    @property
    def is_attribution(self) -> bool:
        """True for what explains a target, false for predictions, activations and attention."""
        of_target = self.draw == DRAWN_AS_ATTENTION and self.target is not None
        return self.draw == DRAWN_AS_MAP or of_target

    @property
    def is_state(self) -> bool:
        """True for where a recurrent state has ended, which the next chunk of a series starts from.

        Such a state comes with the predictions and is none that anybody looks at.
        """
        return STATE_OF in self.detail

    @property
    def is_gradient(self) -> bool:
        """True for the gradient of a score itself, which a runtime may follow."""
        return self.detail.get(GRADIENT_DETAIL) is True

    @property
    def sums_to_score(self) -> bool:
        """True where the numbers of a sample add up to its score less that of a reference."""
        return self.detail.get(SUM_DETAIL) is True


def _layer_call(layer: str | None, call: int, calls: int) -> str | None:
    """Returns `"path#1"` for a layer that is called several times, else its path.

    What an older manifest says of a second call has no number of calls.
    """
    return f"{layer}#{call}" if layer is not None and (call or calls > 1) else layer


@dataclasses.dataclass(frozen=True)
class _Usual:
    """What is said of an output whose manifest says only its kind."""

    title: str
    unit: str = ""
    sign: str = ANY_SIGN
    paper: str = ""
    draw: str = DRAWN_AS_MAP


#: The kinds of schema 1. A kind of later says all this itself.
KINDS_OF_SCHEMA_1: Mapping[str, _Usual] = {
    PREDICTION: _Usual("Prediction", draw=DRAWN_AS_PREDICTION),
    "activation": _Usual("Activation", draw=DRAWN_AS_ACTIVATION),
    "attention": _Usual(
        "Attention",
        "share of attention",
        NEVER_NEGATIVE,
        "Vaswani et al. 2017, eq. 1",
        DRAWN_AS_ATTENTION,
    ),
    "input_gradient": _Usual(
        "Input gradient", SCORE_PER_INPUT, SIGNED, "Baehrens et al. 2010, eq. 1"
    ),
    "saliency": _Usual(
        "Saliency", SCORE_PER_INPUT, NEVER_NEGATIVE, "Simonyan et al. 2013, sec. 3.1"
    ),
    "grad_cam": _Usual(
        "Grad-CAM", "weighted activation", NEVER_NEGATIVE, "Selvaraju et al. 2017, eqs. 1-2"
    ),
    "integrated_gradients": _Usual(
        "Integrated gradients", "score", SIGNED, "Sundararajan et al. 2017, eq. 3"
    ),
}


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What an artefact holds and how to read it.

    Attributes:
        inputs: the model's inputs, in the artefact's order.
        outputs: predictions first, then the probes in the order they were asked for.
        model: name and class of the source model.
        producer: versions of what made the artefact.
        target_input: True where the artefact has the int32 `[batch]` input `target`.
        region_input: the float32 input `region` where the artefact has one: what each position of
            an output counts, `[batch, ...positions]`.
        groups_input: the int32 input `groups` where the artefact has one: which group each position
            belongs to, `[batch, ...positions]`; its `vocabulary` is the most groups there may be.
        gate: what the scalar bool input `explain` is: `"required"`, `"optional"` (an initializer
            as well, a default that a request may override), or False where there is none. With
            `"split"` there is none either: this graph predicts, and one in a second file
            explains.
        class_names: names along the class axis of the prediction, where known.
        probes: the probes as asked for, resolved, in the form of `methods.text_forms`.
        points: names of all probe points of the source model, in the order of the calls.
        certificate: what `verify` measured when the artefact was made, or `None`.
        reference: how attributions were distributed over a reference data set, or `None`.
        texts: what the runtime makes inputs of, where the source model takes text.
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
    groups_input: InputSpec | None = None
    region_input: InputSpec | None = None
    texts: tuple[TextSpec, ...] = ()
    reference: AttributionReference | None = None

    @property
    def has_gate_input(self) -> bool:
        """True where the graph has the scalar bool input `explain`."""
        return self.gate in (GATE_REQUIRED, GATE_OPTIONAL)

    def plain_graph(self) -> Manifest:
        """Returns what the first graph of two takes and gives: the predictions alone."""
        return self.replace(
            gate=False,
            outputs=self.predictions,
            target_input=False,
            region_input=None,
            groups_input=None,
        )

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
            inputs=tuple(_batched(i, batch) for i in self.inputs),
            region_input=self.region_input and _batched(self.region_input, batch),
            groups_input=self.groups_input and _batched(self.groups_input, batch),
            outputs=tuple(_batched(o, batch) for o in self.outputs),
        )

    def to_json(self, indent: int | None = None) -> str:
        """Returns the manifest as JSON text with its schema version first.

        JSON has no NaN and no infinity; a figure that is none becomes null.
        """
        data = {"schema": SCHEMA, **dataclasses.asdict(self)}
        return json.dumps(finite(data), indent=indent, allow_nan=False)

    def unreadable(self) -> str | None:
        """Returns what `from_json` would refuse in it, None where there is nothing."""
        try:
            Manifest.from_json(self.to_json())
        except ManifestError as error:
            return str(error.__cause__ or error)
        return None

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Reads what `to_json` wrote.

        The whole of it is checked here, once: types, ranks, sizes, element types, kinds and names.
        A field that this version does not know is refused, since a damaged name of a field would
        otherwise pass for it; what adds a field raises `SCHEMA`.

        Raises:
            ManifestError: the text is no JSON, no manifest, damaged, or of a newer schema.
        """
        try:
            data = schema.parse(text)
        except schema.SchemaError as error:
            raise ManifestError(f"the probegen manifest is damaged: {error}") from error
        version = data.pop("schema", None) if isinstance(data, dict) else None
        if type(version) is not int or version < 1:
            raise ManifestError("the probegen manifest has no integer 'schema' field.")
        if version > SCHEMA:
            raise ManifestError(
                f"the manifest has schema {version}, this probegen reads up to schema {SCHEMA}. "
                "Install a newer probegen to load this artefact."
            )
        if data.get("gate") is True:  # written while every gate was an initializer
            data["gate"] = GATE_OPTIONAL
        try:
            found = schema.read(cls, data)
            _check(found)
        except schema.SchemaError as error:
            raise ManifestError(
                f"the probegen manifest is damaged: {error}. Compile the artefact again."
            ) from error
        return found


_Spec = TypeVar("_Spec", InputSpec, OutputSpec)


def _batched(spec: _Spec, batch: int | None) -> _Spec:
    """Returns an input or output with another batch size."""
    named = zip(spec.shape, spec.axes, strict=True)
    shape = tuple(batch if axis == BATCH else size for size, axis in named)
    return dataclasses.replace(spec, shape=shape)


def write_beside_savedmodel(folder: Path, described: Manifest) -> None:
    """Writes a manifest into the folder of a SavedModel."""
    place = folder / SAVEDMODEL_ASSET
    place.parent.mkdir(exist_ok=True)
    place.write_text(described.to_json(indent=1), encoding="utf-8")


def class_axis(axes: Sequence[str]) -> int:
    """Returns which axis of a prediction classes (or units) lie along; the last by default."""
    return next((i for i, axis in enumerate(axes) if axis in ("class", "unit")), -1)


def wrong_class_names(names: Any, sizes: Iterable[int | None]) -> str | None:
    """Returns what is wrong with names that a caller gave for classes, None where nothing is.

    Args:
        names: what was given.
        sizes: the number of classes of each prediction, None where it is open. A single score, of a
            sigmoid say, has two classes.
    """
    is_list = hasattr(names, "__len__") and hasattr(names, "__getitem__")
    if not is_list or isinstance(names, str | bytes | Mapping):
        return f"class_names takes a list with a name for each class, got {names!r}."
    given, known = [str(n) for n in names], list(sizes)
    twice = sorted({n for n in given if given.count(n) > 1})
    if twice:
        return f"class_names has {', '.join(map(repr, twice[:5]))} twice; each class needs its own."
    fits = {2 if size == 1 else size for size in known} | {n for n in known if n}
    if known and None not in known and len(given) not in fits:
        return (
            f"class_names has {amount(len(given), 'name')}; the model's outputs have {known} "
            "classes."
        )
    return None


def names_of_scores(names: Sequence[str] | None, size: int | None) -> tuple[str, ...] | None:
    """Returns the names of the entries of an axis of classes, None where there are none for it.

    Args:
        names: names of classes.
        size: of the axis; None where it is open. A single score is that of the second of two
            classes.
    """
    if names is None or (size == 1 and len(names) == 2):
        return None if names is None else (str(names[1]),)
    return tuple(map(str, names)) if size in (None, len(names)) else None


# -- checks beyond types -----------------------------------------------------------------------


def _check(found: Manifest) -> None:
    """Raises a `SchemaError` for what types alone cannot say."""
    if not found.inputs or not found.outputs:
        raise schema.SchemaError("it names no inputs or no outputs")
    ours = [TARGET_INPUT] * found.target_input + [GATE_INPUT] * found.has_gate_input
    for what, own in (("a region", found.region_input), ("groups", found.groups_input)):
        if own is not None:
            ours.append(own.name)
            _check_tensor(f"the input of {what}", own)
    _check_unique("input", [*(i.name for i in found.inputs), *ours])
    _check_unique("output", [o.name for o in found.outputs])
    for spec in found.inputs:
        _check_tensor(f"the input {spec.name!r}", spec)
        if spec.vocabulary is not None and spec.vocabulary < 1:
            raise schema.SchemaError(f"the input {spec.name!r} has {spec.vocabulary} legal values")
        if spec.preprocessing is not None:
            wrong = wrong_preprocessing(spec.preprocessing, spec.axes, spec.shape)
            if wrong is not None:
                raise schema.SchemaError(f"the input {spec.name!r} {wrong}")
    for output in found.outputs:
        _check_output(output)
    _check_certificate(found.certificate)
    _check_texts(found)
    if found.reference is not None:
        wrong = wrong_reference(found.reference, tuple(o.name for o in found.explanations))
        if wrong is not None:
            raise schema.SchemaError(wrong)


def _check_texts(found: Manifest) -> None:
    """Raises unless each text makes inputs that there are, each made of one text."""
    made = [name for text in found.texts for name in text.makes.values()]
    for name in made:
        if name not in [i.name for i in found.inputs] or made.count(name) > 1:
            raise schema.SchemaError(f"a text makes the input {name!r}, which is none, or twice")
    for text in found.texts:
        if not text.name or not text.shape or not isinstance(text.tokenizer.get("kind"), str):
            raise schema.SchemaError(f"the text {text.name!r} has no shape or no tokenizer")


def _check_unique(role: str, names: Sequence[str]) -> None:
    for name in names:
        if not name or names.count(name) > 1:
            raise schema.SchemaError(
                f"two {role}s are called {name!r}" if name else f"an {role} has no name"
            )


def _check_tensor(what: str, spec: InputSpec | OutputSpec) -> None:
    if spec.dtype not in DTYPES:
        raise schema.SchemaError(f"{what} has the unknown element type {spec.dtype!r}")
    if len(spec.axes) != len(spec.shape):
        raise schema.SchemaError(
            f"{what} has {amount(len(spec.axes), 'axis')}, {list(spec.axes)}, for the shape "
            f"{list(spec.shape)}"
        )
    if any(size is not None and size < 0 for size in spec.shape):
        raise schema.SchemaError(f"{what} has the shape {list(spec.shape)}")


def _check_output(output: OutputSpec) -> None:
    what = f"the output {output.name!r}"
    _check_tensor(what, output)
    if not output.kind:
        raise schema.SchemaError(f"{what} has no kind")
    if output.draw not in DRAWN_AS:
        raise schema.SchemaError(f"{what} is to be drawn as {output.draw!r}, which is unknown")
    if output.sign not in SIGNS:
        raise schema.SchemaError(f"{what} has the unknown sign {output.sign!r}")
    if (output.kind == PREDICTION) != (output.draw == DRAWN_AS_PREDICTION):
        raise schema.SchemaError(f"{what} is a {output.kind} that is drawn as a {output.draw}")
    if output.call < 0 or output.calls < 1:
        raise schema.SchemaError(f"{what} is of call {output.call} of its layer's {output.calls}")
    target = output.target
    if target is None:
        return
    if target.mode not in MODES:
        raise schema.SchemaError(f"{what} has a target of the unknown mode {target.mode!r}")
    if target.classes is not None and target.classes < 1:
        raise schema.SchemaError(f"{what} has a target of {target.classes} classes")
    if target.count is not None and target.count < 1:
        raise schema.SchemaError(f"{what} explains {target.count} classes at once")
    if (target.chosen is not None) != (target.mode in ("list", "contrast")):
        raise schema.SchemaError(f"{what} has a target of mode {target.mode!r} of {target.chosen}")


def _check_certificate(certificate: Mapping[str, Any] | None) -> None:
    """Raises unless a certificate has the form of `parity.Report.to_json`."""
    if certificate is None:
        return
    outputs = certificate.get("outputs", {})
    if not isinstance(outputs, dict) or not all(isinstance(v, dict) for v in outputs.values()):
        raise schema.SchemaError("certificate.outputs is no object of objects")
    for name, kind in (("passed", bool), ("generated", bool), ("samples", int), ("against", str)):
        value = certificate.get(name)
        if value is not None and type(value) is not kind:
            raise schema.SchemaError(f"certificate.{name} is {str(value)[:60]!a}")


def finite(value: Any) -> Any:
    """Returns JSON values with null for each number that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: finite(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
