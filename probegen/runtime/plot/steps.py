"""The axis of a sequence: where its steps lie and what stands at them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.ticker import MaxNLocator

from probegen.runtime import times
from probegen.runtime.plot.style import plain, thin
from probegen.runtime.plot.view import View

Array = npt.NDArray[Any]

#: Inches that a tick label takes across and along its direction of reading.
_LINE = 0.13
_CHARACTER = 0.07
_LONGEST = 14
#: The name of an axis of tokens.
TOKEN = "token"


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of a sequence.

    Attributes:
        positions: where each step lies on a line chart, floats `[size]`.
        texts: what stands at each step, or None for bare numbers.
        dates: True where positions are matplotlib dates.
        title: the name of the axis.
    """

    positions: Array
    texts: list[str] | None
    dates: bool
    title: str

    @property
    def width(self) -> float:
        """The usual distance between two steps, in the units of `positions`."""
        return float(np.median(np.abs(np.diff(self.positions)))) if len(self.positions) > 1 else 1.0

    @property
    def below(self) -> float:
        """Inches that the names of steps take below a map where they are written upwards."""
        longest = max(map(len, self.texts or [""]), default=0)
        return 0.055 * min(longest, _LONGEST)

    def label_positions(self, ax: Axes, room: float) -> None:
        """Labels the x axis of a line chart that is `room` inches wide."""
        ax.set_xlabel(plain(self.title))
        if self.dates:
            locator = AutoDateLocator(minticks=2, maxticks=max(5, int(room)))  # type: ignore[no-untyped-call]
            ax.xaxis.set_major_locator(locator)
            ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        elif self.texts is not None and not self._is_numeric:
            self._write(ax, self.positions, room)
        else:
            whole = bool(np.all(self.positions == np.round(self.positions)))
            ax.xaxis.set_major_locator(MaxNLocator(max(2, int(room * 1.4)), integer=whole))

    def label_indices(self, ax: Axes, room: float) -> None:
        """Labels the x axis of a map with one column a step that is `room` inches wide."""
        ax.set_xlabel(plain(self.title))
        if self.texts is None:
            ax.xaxis.set_major_locator(MaxNLocator(max(2, int(room * 1.4)), integer=True))
        else:
            self._write(ax, np.arange(len(self.texts)), room)

    @property
    def _is_numeric(self) -> bool:
        return not np.array_equal(self.positions, np.arange(len(self.positions)))

    def _write(self, ax: Axes, positions: Array, room: float) -> None:
        texts = [plain(text, _LONGEST) for text in self.texts or []]
        across = max((len(text) for text in texts), default=1) * _CHARACTER + 0.05
        upright = across * len(texts) <= room or across < _LINE
        shown = thin(len(texts), int(room / (max(across, _LINE) if upright else _LINE)))
        ax.set_xticks(
            [positions[i] for i in shown],
            [texts[i] for i in shown],
            rotation=0 if upright else 90,
        )


def steps_of(view: View, size: int, title: str = "time", of: str | None = None) -> Steps:
    """Returns the steps along an axis of `size` from the caller's `time` or the tokens.

    Args:
        view: the sample.
        size: how many steps there are.
        title: the name of the axis.
        of: the input or output whose steps they are; left out, the view's own.
    """
    time = view.time(size, of)
    if time is not None:
        return given_steps(time, title)
    tokens = (
        view.tokens(size) if any(s.is_text for s in view.inputs) or view.labels.tokens else None
    )
    if tokens is not None:
        texts = tokens + [""] * (size - len(tokens))
        return Steps(np.arange(size, dtype=np.float64), texts, False, TOKEN)
    return Steps(np.arange(size, dtype=np.float64), None, False, title)


def given_steps(time: Any, title: str) -> Steps:
    """Returns steps at which the caller says that something stands: numbers, dates or text."""
    values = times.as_array(time)
    if values.dtype.kind == "M":
        days = np.asarray(date2num(values))  # type: ignore[no-untyped-call]
        return Steps(days, _written(values), True, title)
    if values.dtype.kind in "iuf":
        return Steps(values.astype(np.float64), [f"{t:g}" for t in values], False, title)
    return Steps(np.arange(len(values), dtype=np.float64), [str(t) for t in time], False, title)


def _written(values: Array) -> list[str]:
    """Returns dates as text, with the time of day where days do not tell them apart."""
    days = values.astype("datetime64[D]")
    if np.array_equal(days, values):
        return [str(day) for day in days]
    minutes = np.datetime_as_string(values, unit="m")
    return [str(text)[5:].replace("T", " ") for text in minutes]  # month, day, time
