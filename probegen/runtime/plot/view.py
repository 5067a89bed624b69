"""What a picture is drawn from: one sample of one record, and the words around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.errors import InputError
from probegen.manifest import (
    ACTIVATION,
    ATTENTION,
    GRAD_CAM,
    GRADIENT_KINDS,
    INPUT_GRADIENT,
    INTEGRATED_GRADIENTS,
    PREDICTION,
    SALIENCY,
    InputSpec,
    OutputSpec,
)
from probegen.runtime.plot import labels as labelling
from probegen.runtime.plot.labels import Labels
from probegen.runtime.plot.verdict import verdict
from probegen.runtime.result import Record

Array = npt.NDArray[Any]

BATCH = "batch"
HEIGHT, WIDTH, DEPTH = "height", "width", "depth"
HEAD, QUERY, KEY = "head", "query", "key"
#: Axes along which a sequence runs, and axes whose order means nothing.
SEQUENCE = ("time", "step", "sequence", "position", "token")
CHANNEL = ("channel", "feature", "unit", "embedding", "class", "filter")
CLASS = "class"

KIND_TITLES = {
    PREDICTION: "Prediction",
    ACTIVATION: "Activation",
    ATTENTION: "Attention",
    INPUT_GRADIENT: "Input gradient",
    SALIENCY: "Saliency",
    GRAD_CAM: "Grad-CAM",
    INTEGRATED_GRADIENTS: "Integrated gradients",
}

QUANTITIES = {
    PREDICTION: "prediction",
    ACTIVATION: "activation",
    ATTENTION: "attention weight",
    INPUT_GRADIENT: "gradient",
    SALIENCY: "saliency",
    GRAD_CAM: "Grad-CAM",
    INTEGRATED_GRADIENTS: "attribution",
}
#: The same where a probe reduced axes of an activation.
REDUCED = {"mean": "mean activation", "max": "largest activation", "norm": "norm of activation"}


def axis_of(axes: Sequence[str], names: str | Sequence[str]) -> int | None:
    """Returns the position of the first axis with one of the names, or None."""
    wanted = (names,) if isinstance(names, str) else names
    return next((i for i, axis in enumerate(axes) if axis in wanted), None)


@dataclasses.dataclass(frozen=True)
class Source:
    """One sample of one input.

    Attributes:
        spec: the manifest's entry of the input.
        array: the sample, without the batch axis.
        axes: a name for each of its dimensions.
    """

    spec: InputSpec
    array: Array
    axes: tuple[str, ...]

    @property
    def is_text(self) -> bool:
        """True for a row of token ids."""
        ids = self.spec.integer or self.spec.vocabulary is not None or self.array.dtype.kind in "iu"
        return ids and self.array.ndim == 1

    @property
    def is_image(self) -> bool:
        """True for a picture, of any number of channels."""
        return sorted(a for a in self.axes if a not in CHANNEL) == [HEIGHT, WIDTH]

    @property
    def length(self) -> int | None:
        """Length of the sequence axis, or None where there is none."""
        axis = axis_of(self.axes, SEQUENCE)
        return None if axis is None else self.array.shape[axis]


@dataclasses.dataclass(frozen=True)
class View:
    """One sample of one record with all that its picture needs.

    Attributes:
        spec: the manifest's entry of the record.
        array: the sample as float64, without the batch axis.
        axes: a name for each of its dimensions.
        sample: the row of the batch, not negative.
        inputs: the sample of each input.
        source: the input that belongs to the record, where there is one.
        class_names: names of classes, the caller's or the manifest's.
        verdict: what was predicted and explained, for the title; may be empty.
        labels: what the caller said about axes and limits.
    """

    spec: OutputSpec
    array: Array
    axes: tuple[str, ...]
    sample: int
    inputs: tuple[Source, ...]
    source: Source | None
    class_names: Sequence[str] | None
    verdict: str
    labels: Labels

    @property
    def title(self) -> str:
        """The heading: kind, place, and what was predicted."""
        title = f"{KIND_TITLES[self.spec.kind]}: {place(self.spec)}"
        if self.spec.kind == PREDICTION:
            return title
        return f"{title} \u2014 {self.verdict}" if self.verdict else title

    @property
    def is_gradient(self) -> bool:
        """True for attributions."""
        return self.spec.kind in GRADIENT_KINDS

    @property
    def signed(self) -> bool:
        """True where the sign of an attribution means something."""
        return bool(np.any(self.array < 0))

    @property
    def quantity(self) -> str:
        """What the numbers are, for the label of an axis or a colour bar."""
        return REDUCED.get(self.spec.detail.get("reduce") or "", QUANTITIES[self.spec.kind])

    def axis(self, names: str | Sequence[str]) -> int | None:
        """Returns the position of the first axis with one of the names, or None."""
        return axis_of(self.axes, names)

    def has(self, *names: str) -> bool:
        """True where the axes are exactly `names`, in any order."""
        return sorted(self.axes) == sorted(names)

    def ordered(self, *names: str) -> Array:
        """Returns the array with its axes in this order; `names` are all of its axes."""
        return np.transpose(self.array, [self.axes.index(name) for name in names])

    def classes(self, size: int) -> list[str] | None:
        """Returns the class names where there are `size` of them."""
        return labelling.fitting(self.class_names, size)

    def features(self, size: int) -> list[str]:
        """Returns a name for each of `size` features, numbers where none are known."""
        names = labelling.fitting(self.labels.feature_names, size)
        return names or [f"feature {i}" for i in range(size)]

    def channels(self, size: int) -> list[int]:
        """Returns the layer's own channel numbers, also where a probe kept only some."""
        kept = self.spec.detail.get("channels") or ()
        return [int(i) for i in kept] if len(kept) == size else list(range(size))

    def tokens(self, size: int, *, query: bool = False) -> list[str] | None:
        """Returns the tokens along an axis of `size`; fewer where the rest is padding.

        What the caller spelt out holds where an input's sequence has this length, or where it
        fits exactly. Otherwise token ids stand for themselves, if they are known.
        """
        given = self.labels.query_tokens if query else None
        given = self.labels.tokens if given is None else given
        ids = next((s.array for s in self.inputs if s.is_text and len(s.array) == size), None)
        spelt = labelling.spelt_tokens(given, self.sample)
        if spelt is not None:
            lengths = [s.length for s in self.inputs if s.length is not None]
            if len(spelt) == size or (len(spelt) < size and (size in lengths or not lengths)):
                return spelt
        return None if ids is None else labelling.decoded_tokens(given, ids)


def view_of(record: Record, sample: int, labels: Labels) -> View:
    """Takes one sample of a record, with the inputs it came from.

    Raises:
        InputError: there is no such sample.
    """
    batched = record.axes[:1] == (BATCH,)
    rows = record.shape[0] if batched else _rows(record)
    if not -rows <= sample < rows:
        raise InputError(f"there is no sample {sample}: the batch has {rows}, 0 to {rows - 1}.")
    sample %= rows
    array = record.array[sample] if batched else record.array
    inputs = _inputs(record, sample)
    names = labels.class_names or record.run.manifest.class_names
    return View(
        spec=record.spec,
        array=np.asarray(array, np.float64),
        axes=record.axes[1:] if batched else record.axes,
        sample=sample,
        inputs=inputs,
        source=_source(record.spec, inputs),
        class_names=names,
        verdict=verdict(record, sample, names),
        labels=labels,
    )


def place(spec: OutputSpec) -> str:
    """Returns where the record was taken: a layer with its call, an input, or its name."""
    if spec.layer:
        return f"{spec.layer}#{spec.call}" if spec.call else spec.layer
    return spec.input or spec.name


def _rows(record: Record) -> int:
    return max((array.shape[0] for array in record.run.inputs.values()), default=1)


def _inputs(record: Record, sample: int) -> tuple[Source, ...]:
    arrays = record.run.inputs
    return tuple(
        Source(spec, arrays[spec.name][sample], spec.axes[1:])
        for spec in record.run.manifest.inputs
        if spec.name in arrays and sample < len(arrays[spec.name])
    )


def _source(spec: OutputSpec, inputs: Sequence[Source]) -> Source | None:
    """Returns the named input, else the one that shares most axes, else the only one."""
    for source in inputs:
        if source.spec.name == spec.input:
            return source
    shared = [len(set(source.axes) & set(spec.axes)) for source in inputs]
    if any(shared):
        return inputs[shared.index(max(shared))]
    return inputs[0] if len(inputs) == 1 else None
