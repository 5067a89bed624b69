"""A forecast behind the past of the series that it goes on with."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from probegen.artefact.manifest import DRAWN_AS_PREDICTION
from probegen.runtime.axes import SEQUENCE, axis_of
from probegen.runtime.plot import charts, horizon
from probegen.runtime.plot.picture import Picture
from probegen.runtime.plot.plots.series_bars import draw_past, features_first
from probegen.runtime.plot.steps import steps_of
from probegen.runtime.plot.style import AnyFigure, plain, style_axes
from probegen.runtime.plot.thinning import spread
from probegen.runtime.plot.view import View

_HEIGHT = 1.5


def fits(view: View) -> bool:
    """Tells whether this is a prediction that the caller calls a forecast."""
    return view.spec.draw == DRAWN_AS_PREDICTION and bool(horizon.horizons(view))


def plan(view: View) -> Picture:
    """Plans a panel for each feature that is forecast: past, forecast, and what came of it."""
    source = horizon.series_of(view)
    assert source is not None  # as `fits` says
    lines = features_first(source.array, source.axes)
    names = view.features_of(source, len(lines))
    title = source.axes[axis_of(source.axes, SEQUENCE) or 0]
    steps = steps_of(view, lines.shape[1], title, source.spec.name)
    forecasts = horizon.ahead(view, steps)
    places = list(forecasts)
    chosen, notes = spread(len(places), view.labels.max_panels, "forecast")
    shown = [places[i] for i in chosen]

    def draw(figure: AnyFigure) -> None:
        axes = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for ax, place in zip(axes, shown, strict=True):
            style_axes(ax, frame=False)
            draw_past(ax, steps, lines[place], forecasts[place])
            ax.set_ylabel(plain(names[place], 22))
            ax.margins(x=0.01)
        horizon.legend(axes[0])
        named = horizon.named_steps(steps, forecasts.values())
        named.label_positions(axes[-1], charts.CHART_WIDTH - 1)
        figure.align_ylabels(list(axes))

    return Picture(
        view.title,
        charts.CHART_WIDTH,
        _HEIGHT * len(shown) + 0.6,
        draw,
        (*notes, *_errors(forecasts.values())),
    )


def _errors(forecasts: Iterable[horizon.Ahead]) -> tuple[str, ...]:
    """Says how far a forecast is off, where it is known what came."""
    known = [one.forecast for one in forecasts]
    gaps = [one.predicted - one.truth for one in known if one.truth is not None]
    if not gaps:
        return ()
    return (f"mean absolute error {np.nanmean(np.abs(np.stack(gaps))):.3g}",)
