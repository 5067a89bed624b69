"""What a run returns: the artefact's outputs decoded into named records."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from probegen.artefact.manifest import (
    KEYS,
    PREDICTION,
    InputSpec,
    Manifest,
    OutputSpec,
)
from probegen.artefact.rows import batch_axis
from probegen.errors import ArtefactError, InputError, did_you_mean
from probegen.runtime.completeness import Completeness, completeness_of
from probegen.runtime.inputs import Array, describe
from probegen.runtime.one_class import (
    classes_of,
    entries_of_class,
    entries_of_rank,
    entries_of_step,
    one_class,
)
from probegen.runtime.padding import padded_steps
from probegen.runtime.positions import Positions, explained_input, joined_as
from probegen.runtime.run import Run
from probegen.runtime.states import next_states
from probegen.runtime.texts.whole_words import join, without
from probegen.runtime.times import check as check_times
from probegen.stages import stage
from probegen.text import indented_table

if TYPE_CHECKING:
    from typing import Unpack

    from matplotlib.figure import Figure

    from probegen.runtime.plot import Samples
    from probegen.runtime.plot.labels import PlotOptions

#: How much text is printed of a result.
_MOST_SAMPLES, _MOST_WORDS = 4, 24


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One output of one run: the array and what it means. `numpy.asarray(record)` works.

    Attributes:
        array: the values, the batch axis first.
        spec: the manifest's entry: kind, layer, axes, target, method...
        predictions: the predictions of the same run, by output name.
        run: what was run on what.
        classes: the classes along its axis `class`, int `[batch, k]`, where it explains several at
            once; None where it explains one, or another one at each position.
        keys: of the largest attention weights alone (axis `rank`), which keys these are of, int of
            the shape of `array`; else None.
        completeness: what is missing to completeness, where the probe was asked for it; else None.
    """

    array: Array
    spec: OutputSpec
    predictions: Mapping[str, Array] = dataclasses.field(repr=False)
    run: Run = dataclasses.field(repr=False)
    classes: Array | None = dataclasses.field(default=None, repr=False)
    keys: Array | None = dataclasses.field(default=None, repr=False)
    completeness: Completeness | None = dataclasses.field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The output's name in the artefact."""
        return self.spec.name

    @property
    def kind(self) -> str:
        """What made it, for example `"saliency"`; see `OutputSpec.kind`."""
        return self.spec.kind

    @property
    def layer(self) -> str | None:
        """Path of the probed layer, where there is one."""
        return self.spec.layer

    @property
    def axes(self) -> tuple[str, ...]:
        """A name for each dimension of `array`."""
        return self.spec.axes

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of `array`."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type of `array`."""
        return self.array.dtype

    def of_class(self, which: int | str) -> Record:
        """Returns what explains one class, of a record that explains several at once.

        Args:
            which: a class index or name.

        Raises:
            InputError: it is not among the classes of some sample, or the record explains one.
        """
        return self._taken(entries_of_class(self, which))

    def top(self, rank: int = 0) -> Record:
        """Returns what explains each sample's best class, of a record that explains several.

        Args:
            rank: 0 for the class with the highest prediction, 1 for the next, and so on.

        Raises:
            InputError: the record explains one class, or not so many.
        """
        return self._taken(entries_of_rank(self, rank))

    def of_step(self, step: int) -> Record:
        """Returns what explains one step of the output, of a record that explains each by itself.

        Args:
            step: the step of the output, from 0; negative counts from the last.

        Raises:
            InputError: there is no such step, or the record does not explain steps.
        """
        return self._taken(entries_of_step(self, step))

    def _taken(self, entries: list[int]) -> Record:
        array, spec, run = one_class(self, entries)
        whole = self.completeness
        figures = None if whole is None else whole.of_entries(np.asarray(entries))
        return Record(array, spec, self.predictions, run, completeness=figures)

    def _first_token(self, spec: InputSpec, sample: int) -> int:
        """Returns how many tokens of padding stand before a text."""
        padded = padded_steps(spec, self.run.manifest.inputs, self.run.inputs, sample)
        if padded is None or padded.all():
            return 0
        return int(np.argmin(padded))

    def words(self, sample: int = 0, whole_words: bool = False) -> list[tuple[str, float]]:
        """Returns each token of a sample with what the attribution gives it, padding left out.

        What it gives the numbers of an embedding is joined as in pictures: shares of a score are
        summed up, of slopes the Euclidean norm is taken.

        Args:
            sample: the row of the batch.
            whole_words: join the pieces of words into words, and their numbers: what is signed is
                summed up, of slopes the Euclidean norm is taken, of others the largest.

        Raises:
            InputError: it is no attribution of one class to the tokens of a text, the artefact
                knows no words, or there is no such sample.
        """
        inputs = self.run.manifest.inputs
        spec = explained_input(self.spec, inputs) if self.spec.is_attribution else None
        rows = None if spec is None else self.run.tokens.get(spec.name)
        if spec is None or rows is None:
            raise InputError(
                f"{self.name!r} gives nothing to words: it is no attribution of an input that the "
                "artefact makes of text."
            )
        if not -len(rows) <= sample < len(rows):
            raise InputError(f"there is no sample {sample}: the batch has {len(rows)}.")
        places = Positions.of(spec)
        sizes = places.sizes(self.run.inputs[spec.name])
        values = places.map_of(self.spec, self.array, sizes)[sample]
        there = self._first_token(spec, sample)
        if not whole_words:
            return list(zip(rows[sample], values.tolist(), strict=False))[there:]
        joined = without(self.run.whole_words(spec.name, sample), range(there))
        sums = join(values, joined, joined_as(self.spec)).tolist()
        return list(zip([word.text for word in joined], sums, strict=True))

    def plot(self, sample: Samples = 0, **options: Unpack[PlotOptions]) -> Figure:
        """Draws one sample in the picture that fits the record's kind and axes, one a class.

        Args:
            sample: the row of the batch; negative counts from the end. A list of them is drawn
                below each other, texts on one scale.
            options: see `probegen.runtime.plot.labels.PlotOptions`: `tokens`, `class_names`,
                `feature_names`, `time`, `image` and so on.

        Returns:
            A matplotlib figure of its own, outside pyplot: `figure.savefig("x.png")`.

        Raises:
            InputError: there is no such sample, or a label does not fit its axis.
        """
        from probegen.runtime import plot

        with _drawing(self.name):
            return plot.record_figure(self, sample, options)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return (
            np.array(self.array, dtype=dtype, copy=bool(copy))
            if copy
            else np.asarray(self.array, dtype=dtype)
        )

    def __repr__(self) -> str:
        layer = f", layer {self.spec.layer_call!r}" if self.layer else ""
        return (
            f"<Record {self.name!r}: {self.kind}{layer}, {self.dtype} "
            f"{describe(self.axes, self.shape)}>"
        )


class Result(Mapping[str, Record]):
    """The records of one run by output name, in the manifest's order.

    Attributes:
        run: what was run on what: manifest, inputs, target.
    """

    def __init__(self, run: Run, arrays: Mapping[str, Array]) -> None:
        """Decodes the arrays of a run.

        Raises:
            ArtefactError: an array has another rank than the manifest says.
        """
        self.run = run
        specs = [spec for spec in run.manifest.outputs if spec.name in arrays]
        predictions = {s.name: arrays[s.name] for s in specs if _is_prediction(s)}
        self._records = {
            s.name: dataclasses.replace(
                _decode(arrays[s.name], s, predictions, run, classes_of(s, arrays, run.rows)),
                keys=arrays.get(f"{s.name}/{KEYS}"),
                completeness=completeness_of(s, run.manifest, arrays),
            )
            for s in specs
        }

    @property
    def manifest(self) -> Manifest:
        """The artefact's decode table."""
        return self.run.manifest

    @property
    def tokens(self) -> dict[str, list[list[str]]]:
        """How the ids read that were fed, by input, a list a sample; padding is left out.

        Empty where the artefact has no tokenizer.
        """
        return self.run.tokens

    @property
    def predictions(self) -> dict[str, Record]:
        """The records of the source model's own outputs."""
        return {name: r for name, r in self.items() if _is_prediction(r.spec)}

    @property
    def states(self) -> dict[str, Array]:
        """Where recurrent states have ended, to go on with: `art.run(x, states=result.states)`.

        Empty where the artefact was not compiled with `states="io"`.
        """
        return next_states(self.manifest, {name: r.array for name, r in self.items()})

    @property
    def explanations(self) -> dict[str, Record]:
        """All other records; empty after `run(..., explain=False)`."""
        return {name: r for name, r in self.items() if r.kind != PREDICTION}

    def __getitem__(self, name: str) -> Record:
        try:
            return self._records[name]
        except KeyError:
            raise KeyError(f"no output {name!r}.{did_you_mean(name, self._records)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        rows = [
            (
                r.name,
                r.kind,
                r.spec.layer_call or r.spec.input or "",
                str(r.dtype),
                describe(r.axes, r.shape),
            )
            for r in self.values()
        ]
        table = indented_table(("name", "kind", "layer", "dtype", "shape"), rows)
        return "\n".join(["Result", table, *self._words(), *self._missing()])

    def _missing(self) -> list[str]:
        """Returns what is missing to completeness, a line for each of the first samples."""
        return [
            f"  {r.name}, sample {place}: {r.completeness.said(place)}"
            for r in self.values()
            if r.completeness is not None
            for place in range(min(_MOST_SAMPLES, len(r.completeness.missing)))
        ]

    def _words(self) -> list[str]:
        """Returns a line for each of the first samples that says how its text was taken apart."""
        found = []
        for name, samples in self.tokens.items():
            for place, row in enumerate(samples[:_MOST_SAMPLES]):
                more = f" … {len(row) - _MOST_WORDS} more" if len(row) > _MOST_WORDS else ""
                found.append(f"  {name}, sample {place}: {' | '.join(row[:_MOST_WORDS])}{more}")
        return found

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        sample: Samples = 0,
        **options: Unpack[PlotOptions],
    ) -> Figure:
        """Draws one sample of every record below each other in one tall figure.

        Args:
            path: where to write it, if anywhere; the suffix (`.png`, `.pdf`, `.svg`) decides
                the format. Written whole or not at all.
            sample: the row of the batch, or several: see `Record.plot`.
            options: as in `Record.plot`. `max_outputs` caps how many records are drawn.

        Returns:
            A matplotlib figure of its own, outside pyplot.

        Raises:
            InputError: there is no such sample, a label does not fit, or the suffix is unknown.
            FileNotFoundError: the folder of `path` does not exist.
        """
        from probegen.runtime import plot

        with _drawing(self.run.source):
            figure = plot.result_figure(self, sample, options)
            if path is not None:
                plot.save(figure, path)
            return figure

    def to_html(
        self,
        path: str | os.PathLike[str],
        samples: int = 4,
        title: str | None = None,
        **options: Unpack[PlotOptions],
    ) -> Path:
        """Writes a self-contained HTML report: facts, outputs, certificate and pictures.

        Args:
            path: where to write it; written whole or not at all.
            samples: draw at most this many rows of the batch.
            title: the report's heading, by default the model's name.
            options: as in `Record.plot`.

        Returns:
            The path.

        Raises:
            InputError: a label does not fit.
            FileNotFoundError: the folder of `path` does not exist.
        """
        from probegen.runtime import report

        with _drawing(self.run.source):
            return report.write(self, path, samples, title, options)

    def to_npz(self, path: str | os.PathLike[str]) -> Path:
        """Writes all arrays, the inputs and the manifest into one `.npz`; no pickle.

        Output names are percent-encoded: `numpy.load(path)["saliency%2Fimage"]`. `read_npz`
        brings the whole result back.

        Raises:
            FileNotFoundError: the folder of `path` does not exist.
        """
        from probegen.runtime import archive

        arrays = {name: record.array for name, record in self.items()}
        run = self.run
        return archive.write(
            path,
            arrays,
            inputs=run.inputs,
            target=run.target,
            manifest=run.manifest.to_json(),
            source=run.source,
            time=run.time,
        )


def _is_prediction(spec: OutputSpec) -> bool:
    """Tells predictions from the states that a stream goes on with."""
    return spec.kind == PREDICTION and not spec.is_state


def _drawing(what: str) -> AbstractContextManager[None]:
    return stage(f"{what!r} cannot be drawn", ArtefactError)


def read_npz(path: str | os.PathLike[str]) -> Result:
    """Reads a result that `Result.to_npz` wrote, ready to be drawn.

    Raises:
        ArtefactError: the file is not there, damaged, or no such result.
        ManifestError: its manifest is of a newer schema.
    """
    from probegen.runtime import archive

    outputs, inputs, target, manifest, source, time = archive.read(path)
    described = Manifest.from_json(manifest)
    _check_read(path, described, inputs, outputs, target)
    run = Run(described, inputs, target, source, time=time)
    try:
        check_times(time, described.inputs, inputs, run.rows)
    except InputError as error:
        raise ArtefactError(f"{str(path)!r} is damaged: {error}") from error
    return Result(run, outputs)


def _check_read(
    path: str | os.PathLike[str],
    described: Manifest,
    inputs: Mapping[str, Array],
    outputs: Mapping[str, Array],
    target: Array | None,
) -> None:
    """Raises an ArtefactError where the arrays of a file are not those that its manifest names."""
    specs: dict[tuple[str, str], tuple[InputSpec | OutputSpec, Array | None]] = {
        **{("input", s.name): (s, inputs.get(s.name)) for s in described.inputs},
        **{("output", s.name): (s, outputs.get(s.name)) for s in described.outputs},
    }
    problem = None
    for (role, name), (spec, array) in specs.items():
        if array is None:
            if role == "input" or spec in described.predictions:
                problem = f"the {role} {name!r} is missing"
        elif array.ndim != len(spec.shape):
            problem = f"the {role} {name!r} has the shape {array.shape}"
        elif not _same_type(array, spec.dtype):
            problem = f"the {role} {name!r} is of {array.dtype}, not {spec.dtype}"
    if problem is None:
        places = {s.name: batch_axis(s.axes) for s in described.inputs}
        batch = {inputs[name].shape[at] for name, at in places.items() if at is not None}
        if len(batch) > 1:
            problem = f"its inputs have the batch sizes {sorted(batch)}"
    if target is not None and (target.ndim != 1 or target.dtype.kind != "i"):
        problem = f"its target has the shape {target.shape} and type {target.dtype}"
    if problem:
        raise ArtefactError(
            f"{str(path)!r} is damaged: {problem}, which is not what its manifest says."
        )


def _same_type(array: Array, dtype: str) -> bool:
    """Tells whether an array is of a type, where numpy knows the type."""
    try:
        return array.dtype == np.dtype(dtype)
    except TypeError:
        return True


def _decode(
    array: Array,
    spec: OutputSpec,
    predictions: Mapping[str, Array],
    run: Run,
    classes: Array | None,
) -> Record:
    if array.ndim != len(spec.axes):
        raise ArtefactError(
            f"the output {spec.name!r} has the shape {array.shape}, but the manifest gives it "
            f"the axes {list(spec.axes)}. The artefact and its manifest do not belong together; "
            "compile it again."
        )
    return Record(array, spec, predictions, run, classes)
