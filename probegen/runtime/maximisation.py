"""Activation maximisation: ascent on an artefact's own gradient.

Looks for an input that makes a score large (Erhan et al. 2009), by steps of Adam (Kingma and Ba
2015) along the gradient that the artefact itself gives out. An input may be shifted a little at
random before each step (Mordvintsev et al. 2015), held small and smooth, and is written in
frequencies, so that it is no pattern of single pixels (Olah et al. 2017). Needs numpy alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from probegen.artefact.manifest import InputSpec, OutputSpec
from probegen.artefact.rows import BATCH, as_described, batch_axis, rows_first, without_batch
from probegen.errors import ArtefactError, InputError, did_you_mean
from probegen.runtime.arguments import counted, finite, not_negative, positive
from probegen.runtime.axes import NEIGHBOURS, SPACE
from probegen.runtime.bases import Basis, total_variation
from probegen.runtime.inputs import Array, Inputs, check_inputs, describe
from probegen.runtime.loaded import Artefact
from probegen.runtime.request import Request
from probegen.runtime.result import Result
from probegen.runtime.scores import ARGMAX, INPUT, score_of
from probegen.runtime.target import Target
from probegen.stages import stage
from probegen.text import amount

if TYPE_CHECKING:
    from typing import Unpack

    from matplotlib.figure import Figure

    from probegen.runtime.plot.labels import PlotOptions

FREQUENCY, ELEMENT = "frequency", "element"
#: How large the coefficients of a start at random are.
_NOISE = 0.01
#: A start at an end of the bounds is moved this share of them inwards, where it can move.
_INWARDS = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Maximised:
    """What an ascent found. `numpy.asarray(found)` is the input.

    Attributes:
        input: the input found, as the artefact takes it.
        history: the score at each step and of the input found, float64 `[steps + 1, batch]`; of a
            step it is that of the shifted input. None where the score is no entry of a prediction,
            and not of a layer whose activations the artefact gives out.
        result: of a run on the input found.
        output: name of the gradient that was followed.
    """

    input: Array
    history: Array | None
    result: Result
    output: str

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        sample: int = 0,
        **options: Unpack[PlotOptions],
    ) -> Figure:
        """Draws the input found, and the score on the way to it.

        Args:
            path: where to write it, if anywhere; the suffix decides the format.
            sample: the row of the batch.
            options: as in `Record.plot`.

        Returns:
            A matplotlib figure of its own, outside pyplot.

        Raises:
            InputError: there is no such sample, a label does not fit, or the suffix is unknown.
            FileNotFoundError: the folder of `path` does not exist.
        """
        from probegen.runtime import plot

        with stage(f"{self.output!r} cannot be drawn", ArtefactError):
            figure = plot.maximised_figure(self.result, self.output, self.history, sample, options)
            if path is not None:
                plot.save(figure, path)
            return figure

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.input, dtype=dtype, copy=copy)


def maximise(
    artefact: Artefact,
    output: str | None = None,
    *,
    target: Target | None = None,
    steps: int = 128,
    rate: float = 0.05,
    start: Inputs | None = None,
    sizes: Mapping[str, int] | None = None,
    bounds: tuple[float, float] | None = None,
    basis: str | None = None,
    decay: float = 1.0,
    jitter: int | None = None,
    total_variation: float = 0.0,
    l2: float = 0.0,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
    progress: bool | None = None,
) -> Maximised:
    """Returns an input that makes a score large.

    Ascends on `score - total_variation * TV(x) - l2 * sum(x^2)`, each sample by itself. The same
    arguments give the same input.

    Args:
        artefact: compiled with `pg.InputGradient(target="input")`, or with a fixed class.
        output: the gradient to follow, or the prediction whose score is meant; may be left out
            where there is one gradient of an input.
        target: the class whose score is meant, where the artefact takes one: an index, a name, or
            a list with one for each sample to look for.
        steps: how many steps are made.
        rate: length of the first steps, in each coefficient; falls to 0 along half a cosine.
        start: where to begin, as `Artefact.run` takes it; where a model has several inputs, a dict
            in which the one searched for may be left out. Else it begins near 0, or in the middle
            of the bounds.
        sizes: sizes of axes that the artefact leaves open, by their names.
        bounds: smallest and largest value of the input, such as `(0, 1)`: keeps every element
            between them, by a logistic function. Without, nothing but `l2` holds it.
        basis: `"frequency"` (where the input has positions, as is default there) or `"element"`.
        decay: of frequencies: f counts `f ** -decay`.
        jitter: positions by which the input is shifted at random before each step, round its
            edges; by default a sixteenth of its shorter side, 0 for what has no height and width.
        total_variation: what a change between neighbours costs.
        l2: what the square of an element costs.
        seed: of the start and the shifts.
        groups: as `Artefact.run` takes them, where the artefact has other outputs that need some.
        progress: whether to show a bar; by default where standard error is a terminal.

    Returns:
        The input, the history of its score, and the artefact's result on it.

    Raises:
        InputError: the artefact has no such gradient, or none of an input of floating numbers; no
            class was said; an argument does not fit; the gradient vanishes or is not finite.
        ArtefactError: the engine failed.
    """
    spec = _gradient(artefact, output)
    wanted = _input_of(artefact, spec)
    rows, classes = _classes(artefact, spec, target)
    ends = _bounds(bounds)
    feeds, given = _start(artefact, wanted, rows, start, sizes, ends)
    first = rows_first(feeds[wanted.name], wanted.axes).astype(np.float64)
    inner = [BATCH, *without_batch(wanted.axes, wanted.axes)]
    positions = [i for i, axis in enumerate(inner) if axis in NEIGHBOURS]
    space = [i for i, axis in enumerate(inner) if axis in SPACE]
    frequencies = _frequencies(basis, positions, wanted)
    search = _Search(
        basis=Basis.of(first.shape, frequencies, finite("decay", decay)),
        bounds=ends,
        positions=positions,
        space=space,
        jitter=_shift(jitter, [first.shape[i] for i in space], wanted),
        total_variation=not_negative("total_variation", total_variation),
        l2=not_negative("l2", l2),
        rate=positive("rate", rate),
        steps=counted("steps", steps),
        seed=counted("seed", seed, at_least=0),
    )  # fmt: skip
    if search.total_variation and not positions:
        raise InputError(
            f"total_variation is a cost of neighbours, and the input {wanted.name!r} "
            f"{describe(wanted.axes, wanted.shape)} has none."
        )
    request: Request = {"target": classes, "groups": groups}
    return _ascend(artefact, spec, wanted, feeds, request, search, given, progress)


@dataclasses.dataclass(frozen=True)
class _Search:
    """How an ascent goes; see `maximise`. Axes are those of the input with rows first."""

    basis: Basis
    bounds: tuple[float, float] | None
    positions: Sequence[int]
    space: Sequence[int]
    jitter: int
    total_variation: float
    l2: float
    rate: float
    steps: int
    seed: int

    def value_of(self, coefficients: Array) -> tuple[Array, Array | float]:
        """Returns the input, and its slope over what the basis gives."""
        free = self.basis.input_of(coefficients)
        if self.bounds is None:
            return free, 1.0
        low, high = self.bounds
        share = 0.5 * (1 + np.tanh(free / 2))  # the logistic function, without overflow
        return low + (high - low) * share, (high - low) * share * (1 - share)

    def coefficients_of(self, value: Array) -> Array:
        """Returns what stands for an input."""
        if self.bounds is not None:
            low, high = self.bounds
            share = np.clip((value - low) / (high - low), _INWARDS, 1 - _INWARDS)
            value = np.log(share / (1 - share))
        return self.basis.coefficients_of(value)

    def costs(self, value: Array) -> Array:
        """Returns the gradient of what is taken from the score."""
        gradient = 2 * self.l2 * value
        if self.total_variation:
            gradient = gradient + self.total_variation * total_variation(value, self.positions)[1]
        return np.asarray(gradient)


def _ascend(
    artefact: Artefact,
    spec: OutputSpec,
    wanted: InputSpec,
    feeds: Mapping[str, Array],
    request: Request,
    search: _Search,
    given: bool,
    progress: bool | None,
) -> Maximised:
    first = rows_first(feeds[wanted.name], wanted.axes)
    rng = np.random.default_rng(search.seed)
    if given:
        coefficients = search.coefficients_of(first.astype(np.float64))
    else:  # the same for all rows, so that none depends on how many there are
        noise = rng.normal(0.0, _NOISE, (1, *first.shape[1:]))
        coefficients = np.broadcast_to(noise, first.shape).copy()
    mean, square = np.zeros_like(coefficients), np.zeros_like(coefficients)
    scores: list[Array] | None = []
    reacts = np.zeros(len(first), bool)

    def run(value: Array) -> Result:
        fed = as_described(value, wanted.axes).astype(wanted.dtype)
        return artefact.run({**feeds, wanted.name: fed}, **request)

    with _bar(search.steps, progress) as advance:
        for step in range(search.steps):
            value, slope = search.value_of(coefficients)
            shift = rng.integers(-search.jitter, search.jitter + 1, len(search.space))
            result = run(np.roll(value, shift, search.space))
            scores = _noted(scores, spec, result)
            gradient = rows_first(result[spec.name].array, spec.axes).astype(np.float64)
            if not np.isfinite(gradient).all():
                raise InputError(
                    f"the gradient {spec.name!r} is not finite in step {step + 1}; choose a "
                    "smaller rate, bounds, or a cost (l2)."
                )
            reacts |= gradient.reshape(len(first), -1).any(1)
            gradient = np.roll(gradient, -shift, search.space) - search.costs(value)
            ascent = search.basis.gradient_of(slope * gradient)
            mean = 0.9 * mean + 0.1 * ascent
            square = 0.999 * square + 0.001 * ascent**2
            even = np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-12
            pace = search.rate * 0.5 * (1 + np.cos(np.pi * step / search.steps))
            coefficients = coefficients + pace * mean / (1 - 0.9 ** (step + 1)) / even
            advance()
    _check_reaction(reacts, spec)
    result = run(search.value_of(coefficients)[0])
    scores = _noted(scores, spec, result)
    found = result.run.inputs[wanted.name]
    return Maximised(found, None if scores is None else np.stack(scores), result, spec.name)


def _check_reaction(reacts: Array, spec: OutputSpec) -> None:
    if not reacts.all():
        row = int(np.argmin(reacts))
        raise InputError(
            f"the gradient {spec.name!r} of sample {row} was zero in every step, so there was "
            "nothing to follow: the score does not react there. Begin elsewhere: start=, seed=."
        )


def _noted(scores: list[Array] | None, spec: OutputSpec, result: Result) -> list[Array] | None:
    """Returns the scores with those of one more run; None where they cannot be read."""
    if scores is None:
        return None
    run = result.run
    try:
        return [*scores, score_of(spec, run.manifest, result, run.target, run.region).of(result)]
    except InputError:
        return None


# -- what is asked for -------------------------------------------------------------------------


def _gradient(artefact: Artefact, output: str | None) -> OutputSpec:
    """Returns the gradient to follow."""
    able = [spec for spec in artefact.outputs if spec.is_gradient]
    ours = [spec for spec in able if spec.input is not None]
    if not ours:
        raise InputError(
            f"{artefact.path!r} has no gradient of an input to follow. Compile it with "
            'pg.InputGradient(target="input").'
        )
    names = [spec.name for spec in artefact.outputs]
    if output is not None and output not in names:
        raise InputError(f"there is no output {output!r}.{did_you_mean(str(output), names)}")
    fitting = [
        spec for spec in ours
        if output in (None, spec.name) or (spec.target is not None and spec.target.output == output)
    ]  # fmt: skip
    listed = ", ".join(repr(spec.name) for spec in ours)
    if not fitting:
        raise InputError(
            f"the output {output!r} is no gradient of an input, and none is of it; there "
            f"{'is' if len(ours) == 1 else 'are'} {listed}. Compile the artefact with "
            'pg.InputGradient(target="input").'
        )
    if len(fitting) > 1:
        raise InputError(f"several gradients could be followed: {listed}. Say which: output=.")
    return fitting[0]


def _input_of(artefact: Artefact, spec: OutputSpec) -> InputSpec:
    """Returns the input that a gradient is of."""
    wanted = next(one for one in artefact.inputs if one.name == spec.input)
    if wanted.preprocessing is not None:
        raise InputError(
            f"the input {wanted.name!r} takes pictures, which the artefact preprocesses; "
            f"{spec.name!r} is the gradient at what it makes of them. Compile the model without "
            "preprocess= to search for an input."
        )
    whole = wanted.integer or wanted.vocabulary is not None
    if whole or not wanted.dtype.startswith(("float", "bfloat")):
        raise InputError(
            f"the input {wanted.name!r} ({wanted.dtype}) holds whole numbers, such as ids, and no "
            f"small steps lead from one to the next; {spec.name!r} is the gradient at what they "
            "look up. Only inputs of floating numbers can be searched for."
        )
    if spec.axes != wanted.axes:
        raise InputError(
            f"the gradient {spec.name!r} has the axes {list(spec.axes)}, and the input "
            f"{wanted.name!r} has {list(wanted.axes)}; one that is of one score, and is not "
            'reduced, can be followed: pg.InputGradient(target="input").'
        )
    return wanted


def _classes(
    artefact: Artefact, spec: OutputSpec, target: Target | None
) -> tuple[int | None, Target | None]:
    """Returns how many samples are asked for, None where it is not said, and their classes."""
    mode = spec.target.mode if spec.target is not None else ""
    units = _units(artefact, spec)
    if mode == ARGMAX and units != 1:
        raise InputError(
            f"{spec.name!r} is the gradient of whichever class is the highest, which changes on "
            'the way. Compile the artefact with pg.InputGradient(target="input").'
        )
    if target is None and mode == INPUT:
        target = 0 if units == 1 else None
        if target is None:
            raise InputError("say which class is meant: target=, an index or a name.")
    plain: Any = np.asarray(target).tolist() if hasattr(target, "__array__") else target
    several = isinstance(plain, Sequence) and not isinstance(plain, str)
    for one in plain if several else [plain]:
        if mode == INPUT and not isinstance(one, str) and (one is None or one < 0):
            raise InputError(f"the target {one!r} is no class; name one to make its score large.")
    return (len(plain) if several else None), plain


def _units(artefact: Artefact, spec: OutputSpec) -> int | None:
    """Returns how many entries the explained prediction has for each sample, where known."""
    for prediction in artefact.manifest.predictions:
        if spec.target is not None and prediction.name == spec.target.output:
            at = batch_axis(prediction.axes)
            sizes = [n for i, n in enumerate(prediction.shape) if i != at]
            return None if None in sizes else int(np.prod([n or 0 for n in sizes]))
    return None


def _start(
    artefact: Artefact,
    wanted: InputSpec,
    rows: int | None,
    start: Inputs | None,
    sizes: Mapping[str, int] | None,
    bounds: tuple[float, float] | None,
) -> tuple[dict[str, Array], bool]:
    """Returns all inputs to begin with, and whether that which is searched for was given.

    It is 0 where it was not.
    """
    specs = artefact.inputs
    unknown = [axis for axis in sizes or {} if axis not in wanted.axes]
    if unknown:
        raise InputError(
            f"sizes names the axis {unknown[0]!r}; the input {wanted.name!r} has "
            f"{describe(wanted.axes, wanted.shape)}."
        )
    if start is None and len(specs) > 1:
        names = [spec.name for spec in specs if spec is not wanted]
        raise InputError(
            f"the model takes {', '.join(map(repr, names))} as well, and searches for "
            f"{wanted.name!r} alone: pass a value for each, start={{{names[0]!r}: ...}}."
        )
    given = True
    if start is None or (isinstance(start, Mapping) and wanted.name not in start):
        given = False
        others: dict[str, Any] = dict(start) if isinstance(start, Mapping) else {}
        counts = [
            np.shape(others[spec.name])[at]
            for spec in specs
            if spec.name in others
            and (at := batch_axis(spec.axes)) is not None
            and np.ndim(others[spec.name]) > at
        ]
        shape = _shape(wanted, rows or next(iter(counts), None), sizes or {})
        start = {**others, wanted.name: np.zeros(shape, np.float32)}
    feeds = check_inputs(start, specs, check_finite=True)
    value = feeds[wanted.name]
    at = batch_axis(wanted.axes)
    if rows is not None and at is not None and value.shape[at] != rows:
        raise InputError(
            f"target has {amount(rows, 'entry')}, and start has "
            f"{amount(value.shape[at], 'sample')}."
        )
    if given and bounds is not None and (value.min() < bounds[0] or value.max() > bounds[1]):
        raise InputError(
            f"start goes from {value.min():g} to {value.max():g}, beyond the bounds {bounds}."
        )
    return feeds, given


def _shape(wanted: InputSpec, rows: int | None, sizes: Mapping[str, int]) -> list[int]:
    """Returns the shape of the input to search for."""
    shape: list[int] = []
    for axis, size in zip(wanted.axes, wanted.shape, strict=True):
        asked = sizes.get(axis)
        if axis == BATCH and asked is None:
            asked = rows
        if asked is not None:
            asked = counted(f"sizes[{axis!r}]" if axis in sizes else "the number of targets", asked)
        if size is not None and asked not in (None, size):
            raise InputError(
                f"the input {wanted.name!r} has the size {size} on the axis {axis!r}, not {asked}."
            )
        if size is None and asked is None and axis != BATCH:
            raise InputError(
                f"the input {wanted.name!r} {describe(wanted.axes, wanted.shape)} may have any "
                f"size on the axis {axis!r}; say which: sizes={{{axis!r}: 64}}."
            )
        shape.append(size or asked or 1)
    return shape


def _bounds(bounds: Any) -> tuple[float, float] | None:
    if bounds is None:
        return None
    try:
        low, high = (float(end) for end in bounds)
    except (TypeError, ValueError):
        low = high = np.nan
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(f"bounds is {bounds!r}; it takes two numbers, the smaller first: (0, 1).")
    return low, high


def _frequencies(basis: str | None, positions: Sequence[int], wanted: InputSpec) -> Sequence[int]:
    """Returns the axes along which the input is written in frequencies."""
    if basis not in (None, FREQUENCY, ELEMENT):
        raise InputError(f"basis is {basis!r}; it takes 'frequency' or 'element'.")
    if basis == FREQUENCY and not positions:
        raise InputError(
            f"the input {wanted.name!r} {describe(wanted.axes, wanted.shape)} has no positions, "
            "and so no frequencies; leave basis= out."
        )
    return [] if basis == ELEMENT else positions


def _shift(jitter: Any, sides: Sequence[int], wanted: InputSpec) -> int:
    if jitter is None:
        return min(sides) // 16 if len(sides) > 1 else 0
    found = counted("jitter", jitter, at_least=0)
    if found and not sides:
        raise InputError(f"jitter shifts positions, and the input {wanted.name!r} has none.")
    if found and found >= min(sides):
        raise InputError(f"jitter is {found}; the input has only {min(sides)} positions a side.")
    return found


@contextlib.contextmanager
def _bar(total: int, progress: bool | None) -> Iterator[Any]:
    """Shows a bar on standard error; yields what moves it by one step."""
    if not (sys.stderr.isatty() if progress is None else progress):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("maximise", total=total)
        yield lambda: bar.advance(task)
