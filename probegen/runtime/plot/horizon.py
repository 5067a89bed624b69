"""What a model forecasts of a series, beside the past of that series, and what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from probegen.artefact.features import feature
from probegen.artefact.manifest import OutputSpec
from probegen.artefact.rows import without_batch
from probegen.errors import InputError, did_you_mean
from probegen.runtime import times
from probegen.runtime.axes import SEQUENCE, axis_of
from probegen.runtime.plot import labels as labelling
from probegen.runtime.plot.steps import Steps, given_steps
from probegen.runtime.plot.style import CATEGORIES, INK, MUTED, SMALL_SIZE, marker_of
from probegen.runtime.plot.view import InputSample, View
from probegen.text import amount

Array = npt.NDArray[Any]

FORECAST = CATEGORIES[5]
_TEXT = "text"


@dataclasses.dataclass(frozen=True)
class Horizon:
    """A forecast of one feature.

    Attributes:
        feature: which feature of the series goes on so.
        predicted: `[step]`.
        truth: what really came, `[step]`, where the caller says it.
    """

    feature: int
    predicted: Array
    truth: Array | None


def series_of(view: View) -> InputSample | None:
    """Returns the series that is forecast: the view's own input, or the only one there is."""
    able = [s for s in view.inputs if not s.is_text and s.length and s.array.ndim <= 2]
    for source in able:
        if view.source is not None and source.spec.name == view.source.spec.name:
            return source
    return able[0] if len(able) == 1 else None


def horizons(view: View) -> list[Horizon]:
    """Returns the forecasts of a view's sample, none where the caller asked for none.

    Raises:
        InputError: what is forecast is no feature of the series, or the prediction does not hold
            as many.
    """
    asked, source = view.labels.forecast, series_of(view)
    if asked is None or asked is False or source is None:
        return []
    spec, array = _prediction(view)
    features = _features(view, source, asked)
    predicted = _by_feature(spec, array, len(features))
    truth = truth_of(view, spec, array.shape)
    came: list[Array | None] = [None] * len(features)
    if truth is not None:
        came = list(_by_feature(spec, truth, len(features)))
    return [
        Horizon(place, row, other)
        for place, row, other in zip(features, predicted, came, strict=True)
    ]


def _prediction(view: View) -> tuple[OutputSpec, Array]:
    """Returns the sample of the prediction that is a forecast."""
    of = view.spec.target.output if view.spec.target is not None else view.spec.name
    found = view.predicted.get(str(of)) or next(iter(view.predicted.values()), None)
    if found is None:
        raise InputError("forecast= needs a prediction, and this result holds none.")
    return found


def _features(view: View, source: InputSample, asked: Any) -> list[int]:
    """Returns which features are forecast, in the order of the prediction."""
    count = source.features or 1
    if asked is True:
        return list(range(count))
    labels = view.features_of(source, count)
    names = [feature(label).name for label in labels]
    given = [asked] if isinstance(asked, str | int) else list(asked)
    found = []
    for one in given:
        if isinstance(one, str) and one in (*names, *labels):
            found.append(names.index(one) if one in names else labels.index(one))
        elif isinstance(one, int | np.integer) and -count <= one < count:
            found.append(int(one) % count)
        else:
            raise InputError(
                f"forecast={one!r} is no feature of {source.spec.name!r}, which has {count}."
                f"{did_you_mean(str(one), names)}"
            )
    if len(set(found)) < len(found):
        raise InputError(f"forecast={asked!r} names a feature twice.")
    return found


def _by_feature(spec: OutputSpec, array: Array, features: int) -> list[Array]:
    """Returns a sample of a prediction as `[feature][step]`.

    Raises:
        InputError: it does not hold so many features.
    """
    inner = without_batch(spec.axes, spec.axes)
    along = axis_of(inner, SEQUENCE)
    if along is None:  # a row of numbers: steps of one feature, or one step of several
        flat = np.asarray(array, np.float64).reshape(-1)
        rows = flat[np.newaxis] if features == 1 else flat[:, np.newaxis]
    else:
        moved = np.moveaxis(np.asarray(array, np.float64), along, -1)
        rows = moved.reshape(-1, moved.shape[-1])
    if len(rows) != features:
        raise InputError(
            f"forecast= names {features} features, and the prediction {spec.name!r} holds "
            f"{len(rows)} (axes {list(inner)}). Name as many, in its order."
        )
    return list(rows)


def truth_of(view: View, spec: OutputSpec, shape: Sequence[int]) -> Array | None:
    """Returns what really came of a prediction in the view's sample, None where nobody says it.

    Args:
        view: the sample.
        spec: the prediction.
        shape: of a sample of it.

    Raises:
        InputError: it has another shape than the prediction, or is of another number of samples.
    """
    given = view.labels.truth
    if labelling.is_by_name(given):
        given = labelling.belongs_to(given, spec.name)
    if given is None:
        return None
    array = np.asarray(given, np.float64)
    size = tuple(shape)
    # A last axis of one number may be left out, or be there.
    without = [array[..., 0]] if array.ndim and array.shape[-1] == 1 else []
    for one in (array, array[..., np.newaxis], *without):
        if one.shape == size:
            if view.drawn > 1:
                raise InputError(
                    f"truth is that of one sample, and {view.drawn} samples are drawn; pass one "
                    f"for each of the {view.rows} samples of the batch, {(view.rows, *size)}."
                )
            return np.asarray(one)
        if one.ndim == len(size) + 1 and one.shape[1:] == size:
            if len(one) != view.rows:
                raise InputError(
                    f"truth has {amount(len(one), 'sample')}, and the batch {view.rows}; it takes "
                    f"one for each of them, {(view.rows, *size)}, or that of the sample drawn, "
                    f"{size}."
                )
            return np.asarray(one[view.sample])
    raise InputError(
        f"truth has the shape {array.shape}; the prediction {spec.name!r} has {tuple(shape)} for "
        "one sample, so truth takes that, or the same with the samples first."
    )


def future(view: View, past: Steps, size: int, output: str, series: str) -> Steps:
    """Returns the steps of a forecast, behind those of the past.

    They go on as the past does (by months where that does), unless the caller says what stands at
    the steps of the prediction: `time={"series": dates, "forecast": later_dates}`.

    Args:
        view: the sample.
        past: the steps of the series.
        size: how many steps are forecast.
        output: name of the prediction.
        series: name of the input that it goes on with.

    Raises:
        InputError: the caller says it of another number of steps, or with other things (dates,
            numbers, text) than those of the past.
    """
    before, named = view.time(len(past.positions), series), view.time_of(output)
    if named is not None:
        if len(named) != size:
            raise InputError(
                f"time of {output!r} has {amount(len(named), 'entry')}, and the forecast has "
                f"{amount(size, 'step')}."
            )
        found, own = _what(named), "nothing" if before is None else _what(before)
        if found != own and (found, own) != ("numbers", "nothing"):  # steps are counted from 0
            raise InputError(
                f"time of {output!r} holds {found}, and of the past of {series!r} it holds {own}; "
                "both lie on one axis. Say both alike: "
                f"time={{{series!r}: ..., {output!r}: ...}}."
            )
        if found != _TEXT:
            return given_steps(named, "")
    months = _month_by_month(before, size) if past.dates else None
    if months is not None:
        return given_steps(months, "")
    backwards = len(past.positions) > 1 and past.positions[-1] < past.positions[0]
    step = -past.width if backwards else past.width
    positions = np.asarray(past.positions[-1] + step * np.arange(1, size + 1))
    texts = None if named is None else [str(t) for t in named]
    return Steps(positions, texts, past.dates, past.title)


def _what(time: Array) -> str:
    """Returns what kind of things times are."""
    if time.dtype.kind == "M":
        return "dates"
    return "numbers" if time.dtype.kind in "iuf" else _TEXT


def _month_by_month(time: Any, size: int) -> Array | None:
    """Returns the dates that follow dates of one day in each month; None for others."""
    values = times.as_array(time)
    if values.dtype.kind != "M" or len(values) < 3:
        return None
    months = values.astype("datetime64[M]")
    days = values.astype("datetime64[D]") - months.astype("datetime64[D]")
    if len(set(days.tolist())) > 1 or set(np.diff(months.astype(np.int64)).tolist()) != {1}:
        return None
    following = months[-1] + np.arange(1, size + 1)
    return np.asarray(following.astype("datetime64[D]") + days[-1])


@dataclasses.dataclass(frozen=True)
class Ahead:
    """A forecast with its place behind the past.

    Attributes:
        forecast: the forecast.
        steps: its steps.
        now: where the past ends.
    """

    forecast: Horizon
    steps: Steps
    now: float

    @property
    def positions(self) -> Array:
        """Where its steps lie."""
        return self.steps.positions

    def draw(self, ax: Axes) -> None:
        """Draws the forecast, and what came of it, behind the line of the past."""
        marker = marker_of(len(self.positions))
        ax.axvline(self.now, color=MUTED, linewidth=0.8, linestyle=(0, (2, 2)))
        if self.forecast.truth is not None:
            ax.plot(
                self.positions, self.forecast.truth, color=INK, linewidth=1.0, label="true",
                linestyle=(0, (1, 1.2)), marker=marker, markersize=3, markerfacecolor="none",
            )  # fmt: skip
        ax.plot(
            self.positions, self.forecast.predicted, color=FORECAST, linewidth=1.4,
            marker=marker, markersize=3, label="forecast",
        )  # fmt: skip


def ahead(view: View, past: Steps) -> dict[int, Ahead]:
    """Returns the forecasts by the place of the feature that goes on so, none where there are none.

    Args:
        view: the sample.
        past: the steps of the series.
    """
    found, source = horizons(view), series_of(view)
    if not found or source is None:
        return {}
    spec, _ = _prediction(view)
    steps = future(view, past, len(found[0].predicted), spec.name, source.spec.name)
    return {one.feature: Ahead(one, steps, float(past.positions[-1])) for one in found}


def named_steps(past: Steps, forecasts: Iterable[Ahead]) -> Steps:
    """Returns the steps of the past, and those of a forecast behind them where these have texts."""
    texts, first = past.texts, next(iter(forecasts), None)
    if first is None or first.steps.texts is None or texts is None:
        return past
    positions = np.concatenate([past.positions, first.positions])
    return dataclasses.replace(past, positions=positions, texts=[*texts, *first.steps.texts])


def legend(ax: Axes) -> None:
    """Says above the axes which line is which."""
    ax.legend(
        fontsize=SMALL_SIZE, frameon=False, labelcolor=INK, loc="lower left", ncols=3,
        bbox_to_anchor=(0.0, 1.0), borderaxespad=0.1, handlelength=1.8,
    )  # fmt: skip
