"""What a picture is drawn from: one sample of one record, and the words around it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import (
    ANY_SIGN,
    CAST_DETAIL,
    DRAWN_AS_ATTENTION,
    DRAWN_AS_PREDICTION,
    NEVER_NEGATIVE,
    SIGNED,
    InputSpec,
    OutputSpec,
)
from probegen.artefact.preprocessing import PLACED_DETAIL, Preprocessing
from probegen.artefact.rows import batch_axis, one_row, without_batch
from probegen.errors import InputError
from probegen.runtime import times
from probegen.runtime.axes import (
    CHANNEL,
    HEIGHT,
    KEY,
    QUERY,
    RANK,
    SEQUENCE,
    SPACE,
    WIDTH,
    axis_of,
    features_axis,
)
from probegen.runtime.one_class import class_axis
from probegen.runtime.padding import padded_steps
from probegen.runtime.plot import labels as labelling
from probegen.runtime.plot.labels import Labels
from probegen.runtime.plot.verdict import verdict
from probegen.runtime.positions import is_derivative
from probegen.runtime.run import DrawableRecord, Run
from probegen.runtime.texts.whole_words import Word, guessed, joined_by
from probegen.text import amount

Array = npt.NDArray[Any]

#: What an activation is called where a probe reduced its axes.
REDUCED = {"mean": "mean activation", "max": "largest activation", "norm": "norm of activation"}


@dataclasses.dataclass(frozen=True)
class InputSample:
    """One sample of one input.

    Attributes:
        spec: the manifest's entry of the input.
        array: the sample, without the batch axis.
        axes: a name for each of its dimensions.
        tokens: how each id reads, padding at the end left out, where the artefact knows.
        words: what its features count, where they are words.
        padded: which steps of its sequence hold nothing, `[time]`; None where that is not known.
        whole_words: returns the words that its tokens make up, where the artefact knows.
    """

    spec: InputSpec
    array: Array
    axes: tuple[str, ...]
    tokens: Sequence[str] | None = None
    words: Sequence[str] | None = None
    padded: npt.NDArray[np.bool_] | None = None
    whole_words: Callable[[], Sequence[Word]] | None = None

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

    @property
    def features(self) -> int | None:
        """How many features a vector or a series has, or None for what has none."""
        axis = features_axis(self.axes)
        return None if axis is None else self.array.shape[axis]

    @property
    def place(self) -> labelling.Place:
        """The input as something that labels can belong to."""
        return labelling.Place(self.spec.name, self.features, self.length, self.is_text)


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
        explained_classes: of an attribution of several classes at once, which they are.
        completeness: what is missing to completeness, in words; empty where nothing says it.
        beside: the samples that are drawn in one figure with this one, itself among them.
        given_time: what was passed to the run as what stands at each step.
        rows: how many samples the batch has.
        drawn: how many of them are drawn together.
        predicted: the predictions of the sample by name, each with its entry in the manifest.
    """

    spec: OutputSpec
    array: Array
    axes: tuple[str, ...]
    sample: int
    inputs: tuple[InputSample, ...]
    source: InputSample | None
    class_names: Sequence[str] | None
    verdict: str
    labels: Labels
    explained_classes: tuple[int, ...] | None = None
    completeness: str = ""
    beside: tuple[View, ...] = ()
    given_time: Any = None
    rows: int = 1
    drawn: int = 1
    predicted: Mapping[str, tuple[OutputSpec, Array]] = dataclasses.field(default_factory=dict)

    @property
    def title(self) -> str:
        """The heading: kind, place, and what was predicted."""
        title = f"{self.spec.title}: {place(self.spec)}"
        if self.spec.draw == DRAWN_AS_PREDICTION:
            return title
        return f"{title} \u2014 {self.verdict}" if self.verdict else title

    @property
    def signed(self) -> bool:
        """True where numbers below zero mean something, also where this sample has none."""
        if self.spec.sign in (SIGNED, NEVER_NEGATIVE):
            return self.spec.sign == SIGNED
        return bool(np.any(self.array < 0))

    @property
    def has_zero(self) -> bool:
        """True where zero means that something does not matter, as of what has a sign."""
        return self.spec.sign != ANY_SIGN

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What the graph makes of the picture that the record is of; None where it lies over it."""
        if self.source is None or PLACED_DETAIL in self.spec.detail:
            return None
        return self.source.spec.preprocessing

    @property
    def is_derivative(self) -> bool:
        """True for slopes, which are no shares of a score and cannot be added up."""
        return is_derivative(self.spec)

    @property
    def quantity(self) -> str:
        """What the numbers are, for the label of an axis or a colour bar."""
        title = self.spec.title
        name = title[:1].lower() + title[1:] if title[1:].islower() else title
        if self.spec.draw == DRAWN_AS_ATTENTION:
            return name
        return REDUCED.get(self.spec.detail.get("reduce") or "", name)

    def padding(self, size: int) -> npt.NDArray[np.bool_] | None:
        """Returns which steps along a sequence of `size` hold nothing; None where none does.

        Where all do, none is left out: there would be nothing to see.
        """
        padded = None if self.source is None else self.source.padded
        if padded is None or len(padded) != size or not padded.any() or padded.all():
            return None
        return padded

    @property
    def axes_are_distinct(self) -> bool:
        """True where no two axes have one name."""
        return len(set(self.axes)) == len(self.axes)

    @property
    def space(self) -> set[str]:
        """The axes of space."""
        return {axis for axis in self.axes if axis in SPACE}

    @property
    def steps(self) -> bool:
        """True where an axis is that of a sequence."""
        return self.axis(SEQUENCE) is not None

    @property
    def sequence_axis(self) -> str:
        """The name of the sequence's axis."""
        return next(axis for axis in self.axes if axis in SEQUENCE)

    @property
    def others(self) -> int:
        """How many axes are neither of space, nor the first of channels or of a sequence."""
        known = (self.axis(CHANNEL) is not None) + self.steps
        return len(self.axes) - len(self.space) - known

    @property
    def is_sequence(self) -> bool:
        """True for numbers or vectors along a sequence."""
        return self.steps and not self.space and self.array.ndim <= 2

    def axis(self, names: str | Sequence[str]) -> int | None:
        """Returns the position of the first axis with one of the names, or None."""
        return axis_of(self.axes, names)

    def has(self, *names: str) -> bool:
        """True where the axes are exactly `names`, in any order."""
        return sorted(self.axes) == sorted(names)

    def ordered(self, *names: str) -> Array:
        """Returns the array with its axes in this order; `names` are all of its axes."""
        return np.transpose(self.array, [self.axes.index(name) for name in names])

    def channels_first(self, *axes: str) -> tuple[Array, str]:
        """Returns the array as `[channel, *axes]`, and what a channel is called.

        There is one channel, called a map, where no axis is that of channels.
        """
        channel = self.axis(CHANNEL)
        if channel is None:
            return self.ordered(*axes)[np.newaxis], "map"
        return self.ordered(self.axes[channel], *axes), self.axes[channel]

    def channel_names(self, size: int) -> list[str] | None:
        """Returns the layer's own channel numbers as names, or None where they just count."""
        numbers = self.channels(size)
        return None if numbers == list(range(size)) else [str(i) for i in numbers]

    def own_names(self, size: int) -> list[str] | None:
        """Returns what a probe calls its numbers (concepts); None where it does not."""
        names = self.spec.detail.get("names") or ()
        return [str(name) for name in names] if len(names) == size else None

    def classes(self, size: int) -> list[str] | None:
        """Returns the class names where there are `size` of them."""
        return labelling.fitting_names(self.class_names, size)

    def features(self, size: int) -> list[str]:
        """Returns a name for each of the source's `size` features; see `features_of`."""
        return self.features_of(self.source, size)

    def features_of(self, source: InputSample | None, size: int) -> list[str]:
        """Returns a name for each of the `size` features of an input, numbers where none are known.

        A single one has the name of the input.
        """
        if source is not None and source.features == size:
            places = [s.place for s in self.inputs]
            names = labelling.feature_names_of(self.labels.feature_names, source.place, places)
            if names is not None:
                return names
            if source.spec.features is not None:
                return [feature.label for feature in source.spec.features[:size]]
            if source.words is not None:
                return list(source.words[:size])
            if size == 1:
                return [source.spec.name]
        return [f"feature {i}" for i in range(size)]

    def time(self, size: int, of: str | None = None) -> Any:
        """Returns what stands at each of `size` steps; None where nobody said it of so many.

        Args:
            size: how many steps there are.
            of: the input or output whose steps they are; left out, this one, or its source.

        Raises:
            InputError: it is said of this output by name, and of another number of steps.
        """
        own = self.time_of(self.spec.name) if of in (None, self.spec.name) else None
        sizes = {self.array.shape[i] for i, axis in enumerate(self.axes) if axis in SEQUENCE}
        if own is not None and sizes and len(own) not in sizes:
            has = " and ".join(map(str, sorted(sizes)))
            raise InputError(
                f"time of {self.spec.name!r} has {amount(len(own), 'entry')}, and it has {has} "
                "steps."
            )
        names = [self.spec.name, *([] if self.source is None else [self.source.spec.name])]
        rows = [self.time_of(name) for name in (names if of is None else [of])]
        for given in self._times:
            if given is not None and not labelling.is_by_name(given):
                rows.append(times.of_sample(given, self.sample))
        return next((row for row in rows if row is not None and len(row) == size), None)

    def time_of(self, name: str) -> Any:
        """Returns what stands at the steps of an input or output, where it is given by name."""
        named = (labelling.belongs_to(given, name) for given in self._times)
        return times.of_sample(next((t for t in named if t is not None), None), self.sample)

    @property
    def _times(self) -> tuple[Any, Any]:
        """What the caller of the plot says of times, and what the run was given."""
        return self.labels.time, self.given_time

    def channels(self, size: int) -> list[int]:
        """Returns the layer's own channel numbers, also where a probe kept only some."""
        kept = self.spec.detail.get("channels") or ()
        return [int(i) for i in kept] if len(kept) == size else list(range(size))

    def tokens(self, size: int, *, query: bool = False) -> list[str] | None:
        """Returns the tokens along an axis of `size`; fewer where the rest is padding.

        Tokens belong to a sequence: to the output or input that they are given for, or to the
        input of their length. Along an axis of another length they are not written, nor where
        two sequences of one length could be meant. Token ids stand for themselves.
        """
        options = [self.labels.query_tokens, self.labels.tokens]
        for given in options if query else options[::-1]:
            own = labelling.spelt_tokens(labelling.belongs_to(given, self.spec.name), self.sample)
            if own is not None:
                return own[:size]
        rows = [self._spelt(given, size) for given in options]
        if None not in rows and rows[0] != rows[1] and not self._tells_apart:
            return None
        spelt = next((row for row in (rows if query else rows[::-1]) if row is not None), None)
        if spelt is not None:
            return spelt
        source = self._text_of(size)
        return None if source is None else self._decoded(source)

    def words(self, tokens: Sequence[str]) -> list[Word] | None:
        """Returns the words that tokens along an axis make up, where they are to be joined.

        Args:
            tokens: what `tokens` has returned.
        """
        if not self.labels.whole_words:
            return None
        for source in self.inputs:
            if source.whole_words is not None and list(source.tokens or ()) == list(tokens):
                return list(source.whole_words())
        return guessed(tokens)

    def joins(self, signed: bool) -> str:
        """Returns how the numbers of pieces become that of their word.

        Args:
            signed: whether they are for and against the target, also after axes were joined.
        """
        share = self.spec.draw == DRAWN_AS_ATTENTION
        return joined_by(signed=signed, share=share, derivative=self.is_derivative)

    @property
    def _tells_apart(self) -> bool:
        """True for maps whose queries and keys are of two lengths, so of two sequences."""
        sizes = [self.array.shape[i] for n in (QUERY, KEY) if (i := self.axis(n)) is not None]
        return len(set(sizes)) == 2

    def _spelt(self, given: labelling.Tokens | None, size: int) -> list[str] | None:
        """Returns tokens that the caller spelt out for a sequence of `size` steps."""
        places = [s.place for s in self.inputs]
        if labelling.is_by_name(given):
            for source in self._own_first():
                row = labelling.spelt_tokens(
                    labelling.belongs_to(given, source.spec.name), self.sample
                )
                if row is not None and size in (source.length, len(row)):
                    return row
            return None
        row = labelling.spelt_tokens(given, self.sample)
        if row is None or size not in (len(row), labelling.length_of(row, places)):
            return None
        return row

    def _own_first(self) -> list[InputSample]:
        """Returns the inputs; for attributions the explained one alone."""
        if self.spec.input is not None:
            return [s for s in self.inputs if s.spec.name == self.spec.input]
        return list(self.inputs)

    def _text_of(self, size: int) -> InputSample | None:
        """Returns the row of ids that runs along an axis of `size`, where one alone can be meant.

        Inputs that lie along the tokens (masks, segments) have small vocabularies or none.
        """
        able = [s for s in self._own_first() if s.is_text and len(s.array) == size]
        most = max((s.spec.vocabulary or 0 for s in able), default=0)
        able = [s for s in able if (s.spec.vocabulary or 0) == most]
        return able[0] if len(able) == 1 else None

    def _decoded(self, source: InputSample) -> list[str]:
        given = self.labels.tokens
        if labelling.is_by_name(given):
            given = labelling.belongs_to(given, source.spec.name)
        if given is None and source.tokens is not None:
            return list(source.tokens) or [""]  # all padding: one box says so
        return labelling.decoded_tokens(given, source.array)


def view_of(record: DrawableRecord, sample: int, labels: Labels, drawn: int = 1) -> View:
    """Takes one sample of a record, with the inputs it came from.

    Args:
        record: the record.
        sample: a row of the batch; negative counts from the end.
        labels: what the caller said about axes and limits.
        drawn: how many samples are drawn together with this one, itself among them.

    Raises:
        InputError: there is no such sample, or something else than a number was given.
    """
    at = batch_axis(record.axes)
    rows = record.run.rows if at is None else record.shape[at]
    if not isinstance(sample, int | np.integer):
        raise InputError(
            f"sample= takes the number of a row, got {sample!r}; a picture of one output is "
            "written by `.plot().savefig(path)`."
        )
    if not -rows <= sample < rows:
        raise InputError(f"there is no sample {sample}: the batch has {rows}, 0 to {rows - 1}.")
    sample %= rows
    array, axes = one_row(record.array, record.axes, sample), record.axes
    inputs = sources_of(record.run, sample)
    if record.keys is not None and axes[-1] == RANK:
        at_keys = one_row(record.keys, axes, sample)
        array, axes = _at_their_keys(array, at_keys, inputs), (*axes[:-1], KEY)
    of_classes = class_axis(record.spec)
    if of_classes is not None:  # stands first, wherever the batch was
        axes = (axes[of_classes], *(a for i, a in enumerate(axes) if i != of_classes))
        array = np.moveaxis(array, of_classes - (at is not None and at < of_classes), 0)
    names = labels.class_names or record.run.manifest.class_names
    whole = record.completeness
    return View(
        spec=record.spec,
        array=np.asarray(array, np.float64),
        axes=without_batch(axes, axes),
        sample=sample,
        inputs=inputs,
        source=_source(record.spec, inputs),
        class_names=names,
        verdict=verdict(record, sample, names),
        labels=labels,
        explained_classes=_classes(record, sample),
        completeness="" if whole is None else whole.said(sample),
        given_time=record.run.time,
        rows=record.run.rows,
        drawn=drawn,
        predicted=_predicted(record, sample),
    )


def _at_their_keys(largest: Array, keys: Array, inputs: Sequence[InputSample]) -> Array:
    """Returns the largest weights at the places of their keys, zeros between.

    There are as many keys as the one sequence that is long enough has steps, else as are named.
    """
    count = int(keys.max(initial=-1)) + 1
    lengths = {n for s in inputs if (n := s.length) is not None and n >= count}
    size = lengths.pop() if len(lengths) == 1 else count
    found = np.zeros((*largest.shape[:-1], size), largest.dtype)
    np.put_along_axis(found, keys.astype(np.int64), largest, -1)
    return found


def _classes(record: DrawableRecord, sample: int) -> tuple[int, ...] | None:
    """Returns which classes an attribution explains in a sample, where it explains several."""
    if record.classes is None:
        return None
    return tuple(int(i) for i in record.classes[min(sample, len(record.classes) - 1)])


def _predicted(record: DrawableRecord, sample: int) -> dict[str, tuple[OutputSpec, Array]]:
    """Returns one sample of each prediction of a record's run."""
    specs = [s for s in record.run.manifest.predictions if s.name in record.predictions]
    arrays = {spec.name: record.predictions[spec.name] for spec in specs}
    ats = {spec.name: batch_axis(spec.axes) for spec in specs}
    return {
        spec.name: (spec, np.asarray(one_row(arrays[spec.name], spec.axes, sample)))
        for spec in specs
        if (at := ats[spec.name]) is not None and sample < arrays[spec.name].shape[at]
    }


def place(spec: OutputSpec) -> str:
    """Returns where the record was taken: a layer with its call, an input, a cast, or its name.

    What explains an input is called after the input, also where it was taken at the layer that
    looks the input's ids up: two inputs may share one such layer.
    """
    if CAST_DETAIL in spec.detail:
        return f"{spec.detail[CAST_DETAIL]} (after the cast)"
    of_input = spec.input is not None and spec.name.endswith(f"/{spec.input}")
    if spec.layer_call and not of_input:
        return spec.layer_call
    return spec.input or spec.name


def sources_of(run: Run, sample: int) -> tuple[InputSample, ...]:
    """Returns one sample of each input of a run."""
    arrays = run.inputs
    return tuple(
        InputSample(
            spec,
            one_row(arrays[spec.name], spec.axes, sample),
            without_batch(spec.axes, spec.axes),
            run.tokens[spec.name][sample] if spec.name in run.tokens else None,
            run.features.get(spec.name),
            padded_steps(spec, run.manifest.inputs, arrays, sample),
            functools.partial(run.whole_words, spec.name, sample)
            if spec.name in run.tokens
            else None,
        )
        for spec in run.manifest.inputs
        if spec.name in arrays and sample < run.rows
    )


def _source(spec: OutputSpec, inputs: Sequence[InputSample]) -> InputSample | None:
    """Returns the named input, else the one that shares most axes, else the only one."""
    for source in inputs:
        if source.spec.name == spec.input:
            return source
    shared = [len(set(source.axes) & set(spec.axes)) for source in inputs]
    if any(shared):
        return inputs[shared.index(max(shared))]
    return inputs[0] if len(inputs) == 1 else None
